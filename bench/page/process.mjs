// What the kernel says about the process that a page runs in (proc(5)); so it is known of a page, too,
// that has no time to answer.
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';

/** The time in milliseconds, as `performance.timeOrigin + performance.now()` is in the page, too. */
export const now = () => performance.timeOrigin + performance.now();

const read = (pid, file) => readFileSync(`/proc/${pid}/${file}`, 'latin1');
/** The fields after the name, which may have spaces in it; the first is the third of `man proc`. */
const stat = (pid) => read(pid, 'stat').replace(/.*\) /s, '').split(' ');

/** The processes below `pid` that run pages. */
export function renderers(pid) {
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        return [{ pid: Number(name), parent: Number(stat(name)[1]), command: read(name, 'cmdline') }];
      } catch {
        return []; // It has ended.
      }
    });
  const below = (parent) =>
    processes.filter((process) => process.parent === parent).flatMap((process) => [process, ...below(process.pid)]);
  return below(pid)
    .filter(({ command }) => command.includes('--type=renderer'))
    .map((process) => process.pid);
}

/** Its memory in bytes; what it shares with others, in equal parts. */
export const memory = (pid) => Number(/^Pss:\s+(\d+) kB/m.exec(read(pid, 'smaps_rollup'))[1]) * 1024;

/** How long it has run on processors, all threads together, in milliseconds. */
export function processorTime(pid) {
  const [user, system] = stat(pid).slice(11, 13).map(Number);
  return (user + system) * 10; // They are in hundredths of a second.
}

/** How long its main thread has run, in milliseconds. */
export const mainThreadTime = (pid) => Number(read(pid, 'schedstat').split(' ')[0]) / 1e6;

/**
 * Follows how long the main thread has run. What the kernel knows of a thread that is running is as old
 * as its last tick, up to 4 ms; the sum is exact.
 */
export function followMainThread(pid) {
  const file = openSync(`/proc/${pid}/schedstat`);
  const buffer = Buffer.alloc(64);
  const samples = [];
  const timer = setInterval(() => {
    try {
      const length = readSync(file, buffer, 0, buffer.length, 0);
      samples.push({ at: now(), ran: parseInt(buffer.latin1Slice(0, length), 10) / 1e6 });
    } catch {
      clearInterval(timer); // The process has ended.
    }
  }, 2);

  /** How long it had run at a time between the first and the last sample. */
  function ran(at) {
    let [low, high] = [0, samples.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (samples[middle].at <= at) low = middle;
      else high = middle;
    }
    const [before, after] = [samples[low], samples[high]];
    const part = Math.min(Math.max((at - before.at) / (after.at - before.at || 1), 0), 1);
    return before.ran + part * (after.ran - before.ran);
  }
  function stop() {
    clearInterval(timer);
    closeSync(file);
  }
  return { ran, stop };
}

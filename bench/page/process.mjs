// Figures from the kernel about the process of a page (proc(5)). They are available even if the
// page is too busy to answer.
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';

/** Returns the time in milliseconds, on the same scale as in the page. */
export const now = () => performance.timeOrigin + performance.now();

const read = (pid, file) => readFileSync(`/proc/${pid}/${file}`, 'latin1');
/** Returns the fields after the name, which may contain spaces. The first is field 3 of proc(5). */
const stat = (pid) => read(pid, 'stat').replace(/.*\) /s, '').split(' ');

/** Returns the processes below `pid` that run pages. */
export function renderers(pid) {
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        return [{ pid: Number(name), parent: Number(stat(name)[1]), command: read(name, 'cmdline') }];
      } catch {
        return []; // The process has ended.
      }
    });
  const below = (parent) =>
    processes.filter((process) => process.parent === parent).flatMap((process) => [process, ...below(process.pid)]);
  return below(pid)
    .filter(({ command }) => command.includes('--type=renderer'))
    .map((process) => process.pid);
}

/** Returns the memory in bytes, with a proportional share of shared pages (PSS). */
export const memory = (pid) => Number(/^Pss:\s+(\d+) kB/m.exec(read(pid, 'smaps_rollup'))[1]) * 1024;

/** Returns the CPU time of all threads, in milliseconds. */
export function cpuTime(pid) {
  const [user, system] = stat(pid).slice(11, 13).map(Number);
  // The kernel counts hundredths of a second.
  return (user + system) * 10;
}

/** Returns the CPU time of the main thread, in milliseconds. */
export const mainThreadTime = (pid) => Number(read(pid, 'schedstat').split(' ')[0]) / 1e6;

/**
 * Samples the CPU time of the main thread. For a running thread the kernel's figure is as old as
 * the last tick, at most 4 ms. Sums are exact.
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

  /** Returns the CPU time by a given time between the first and the last sample. */
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

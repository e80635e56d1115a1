// Sends 10,000 events a second for 30 s to a page in Chromium: to Waterclock's own, and to the page
// in React from tutorials on Server-Sent Events (react.jsx). `make bench-page` prints one table.
//
//   node run.mjs target/dist/waterclock
//
// The pages run one after the other, each with a server and a browser of its own. A frozen page
// does not answer questions. So the page sends reports from its frames (frames.mjs), and the kernel
// provides the other figures (process.mjs). The few questions have a deadline.
import { argv } from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';
import { openBrowser, within } from './browser.mjs';
import { between, watch } from './frames.mjs';
import { cpuTime, followMainThread, mainThreadTime, memory, now, renderers } from './process.mjs';
import { publish, serveReact, startWaterclock } from './server.mjs';
import { print } from './table.mjs';

const rate = 10_000; // events a second
const seconds = 30;
const idle = 3; // seconds of idling before that, for comparison
const patience = 30; // seconds after that, in which the page may catch up
const looks = [0, 10, 20, 30]; // seconds at which the memory is measured

// The number of events that a page shows or claims to have, read from its markup. These run in the
// page.
const shownByWaterclock = () =>
  Number(/^[\d,]+/.exec(document.querySelector('.count').textContent)?.[0].replaceAll(',', '') ?? 0);
const shownByReact = () => document.querySelector('ul')?.childElementCount ?? 0;

const until = (time) => pause(Math.max(time - now(), 0));

/** Returns the process of the page: the one that runs most while the page keeps itself busy. */
async function findRenderer(browser) {
  const before = renderers(browser.pid).map((pid) => ({ pid, time: mainThreadTime(pid) }));
  await browser.evaluate('for (const end = performance.now() + 300; performance.now() < end; );');
  const ran = before.map(({ pid, time }) => ({ pid, time: mainThreadTime(pid) - time }));
  return ran.toSorted((a, b) => b.time - a.time)[0].pid;
}

/**
 * Returns the size of the page's JavaScript objects in bytes, without garbage. Adds the period of
 * the garbage collection to `left`.
 */
async function heap(browser, left) {
  const from = await browser.evaluate('performance.timeOrigin + performance.now()');
  await browser.ask('HeapProfiler.collectGarbage');
  left.push({ from, to: now() });
  const { metrics } = await browser.ask('Performance.getMetrics');
  return metrics.find(({ name }) => name === 'JSHeapUsedSize').value;
}

/** Opens a page in a new browser, publishes to `server`, and returns the measurements. */
async function measure(server, url, shown) {
  const browser = await openBrowser();
  let mainThread;
  try {
    const frames = [];
    let last = { shown: 0, at: 0 };
    await within(20, browser.ask('Page.navigate', { url }));
    await pause(2000);
    await browser.bind('report', (report) => {
      frames.push(...report.frames);
      last = report;
    });
    await within(5, browser.evaluate(`(${watch})(${shown})`));
    const pid = await within(5, findRenderer(browser));
    mainThread = followMainThread(pid);

    // The stream is open once the page shows an event.
    for (let tries = 0; last.shown === 0; tries += 1) {
      if (tries === 20) throw new Error(`${url} shows no events`);
      await publish(server.url, 1);
      await pause(1000);
    }
    const idleFrom = now();
    await pause(idle * 1000);
    const shownBefore = last.shown;

    const cpuBefore = cpuTime(pid);
    const [memories, left] = [[], []];
    const look = async () => {
      const total = memory(pid);
      const objects = await within(5, heap(browser, left)).catch((error) => error);
      memories.push({ total, objects });
    };
    await look(); // At 0 s.

    const start = now();
    const end = start + seconds * 1000;
    const publishing = publish(server.url, rate * seconds, rate);
    for (const second of looks.slice(1, -1)) {
      await until(start + second * 1000);
      await look();
    }
    await until(end);
    const cpu = cpuTime(pid) - cpuBefore;
    // A page without a frame since then has shown nothing since then.
    const asOf = end - last.at < 1000 ? last.at : end;
    const shownAtEnd = last.shown - shownBefore;
    const behind = Math.max((asOf - start) * (rate / 1000) - shownAtEnd, 0);
    await look();
    const published = await within(patience, publishing);

    const isDone = () => last.shown - shownBefore >= published && frames.at(-1) > end;
    while (!isDone() && now() < end + patience * 1000 && !browser.hasCrashed()) await pause(100);
    if (browser.hasCrashed()) throw new Error('the page crashed');
    const hasAnswered = frames.at(-1) > end;
    if (!hasAnswered) frames.push(now()); // The frame has not ended, so it is at least that long.

    const seen = { frames, left, ran: mainThread.ran };
    return {
      published,
      shownAtEnd,
      behind,
      shownLater: last.shown - shownBefore,
      isDone: isDone(),
      doneAfter: last.at - end,
      hasAnswered,
      idle: between(idleFrom, idleFrom + idle * 1000, seen),
      loaded: between(start, end, seen),
      cpu,
      memories,
    };
  } catch (error) {
    if (browser.hasCrashed()) return { hasCrashed: true };
    throw error;
  } finally {
    mainThread?.stop();
    await browser.close();
  }
}

const react = await serveReact();
const pages = [
  { name: 'Waterclock', url: (server) => `${server}/?topic=load`, shown: shownByWaterclock },
  {
    name: "React's tutorial page",
    url: (server) => `${react.origin}/?url=${encodeURIComponent(`${server}/events?topic=load`)}`,
    shown: shownByReact,
  },
];
const columns = [];
for (const { name, url, shown } of pages) {
  console.error(`page: ${name}, for about ${seconds + idle + 5} s, and up to ${patience} s more if it is behind`);
  const server = await startWaterclock(argv[2], { keep: 2 * rate * seconds, origin: react.origin });
  try {
    columns.push({ name, ...(await measure(server, url(server.url), shown)) });
  } finally {
    server.stop();
  }
}
react.stop();
print(columns, { rate, seconds, patience, looks });

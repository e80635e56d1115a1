// Makes docs/page.gif, the moving picture in README.md: the page in Chromium while events are
// published, the server is killed and started again, and the stream is stopped and continued.
//
//   node end2end/picture/make.mjs PROGRAM    (make moving-picture)
import { chromium } from '@playwright/test';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { argv, exit } from 'node:process';
import { createInterface } from 'node:readline';
import sharp from 'sharp';

import { executablePath } from '../chromium.js';

const program = argv[2];
if (!program) {
  console.error('usage: make.mjs PROGRAM');
  exit(2);
}
const file = resolve(import.meta.dirname, '../../docs/page.gif');
const size = { width: 860, height: 600 };
const port = 3000;
const data = mkdtempSync(join(tmpdir(), 'waterclock-'));
const frames = [];
const delays = [];
let server;

async function start() {
  server = spawn(program, ['--listen', `127.0.0.1:${port}`, '--data-dir', data], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = once(server, 'exit').then(() => {
    throw new Error(`the server did not start; is port ${port} free?`);
  });
  gone.catch(() => {});
  await Promise.race([once(createInterface({ input: server.stdout }), 'line'), gone]);
}

async function kill() {
  const gone = once(server, 'exit');
  server.kill('SIGKILL');
  await gone;
}

/** Writes a line below the page, as a terminal would show it. */
async function say(page, line) {
  await page.evaluate((text) => {
    let bar = document.getElementById('caption');
    if (!bar) {
      bar = document.body.parentElement.appendChild(document.createElement('div'));
      bar.id = 'caption';
      bar.style.cssText =
        'position: fixed; inset: auto 0 0; height: 66px; padding: 0 20px; background: #14252c;' +
        'color: #e8f3f4; font: 16px/66px monospace; white-space: pre; z-index: 9';
    }
    bar.textContent = text;
  }, line);
}

/** Takes a frame that is shown for so many milliseconds. */
async function take(page, delay) {
  frames.push(await page.screenshot());
  delays.push(delay);
}

/** Takes frames while `count` more events arrive. */
async function watch(page, count, delay = 900) {
  for (let i = 0; i < count; i += 1) {
    await nextEvent(page);
    await take(page, delay);
  }
}

/** The newest id that the page shows. */
const newest = (page) =>
  page.evaluate(() => {
    const ids = [...document.querySelectorAll('code.id')];
    return Math.max(0, ...ids.map((id) => Number(id.textContent) || 0));
  });

async function nextEvent(page) {
  const before = await newest(page);
  const deadline = Date.now() + 30_000;
  while ((await newest(page)) <= before) {
    if (Date.now() > deadline) throw new Error('no event arrives');
    await page.waitForTimeout(20);
  }
}

async function publish(topic, text) {
  await fetch(`http://127.0.0.1:${port}/events/${topic}`, { method: 'POST', body: text });
}

await start();
const browser = await chromium.launch({ executablePath });
try {
  const page = await browser.newPage({ viewport: size, reducedMotion: 'reduce' });
  await page.goto(`http://127.0.0.1:${port}/?topic=clock,orders.*`);
  await say(page, '$ make run          # and open http://127.0.0.1:3000');
  await watch(page, 3);
  await say(page, "$ curl -d 'a new order' http://127.0.0.1:3000/events/orders.eu");
  await take(page, 1200);
  await publish('orders.eu', 'a new order');
  await watch(page, 2);
  await say(page, '$ kill -9 $(pidof waterclock)');
  await take(page, 900);
  await kill();
  await page.getByText(/reconnect|again/i).first().waitFor();
  await take(page, 1800);
  await say(page, '$ make run          # the page continues, and nothing is lost');
  await start();
  await watch(page, 2);
  await page.getByRole('button', { name: 'Stop' }).click();
  await say(page, 'Stop: the stream is closed.');
  await take(page, 1800);
  await publish('orders.us', 'published meanwhile');
  await page.waitForTimeout(2000);
  await page.getByRole('button', { name: 'Connect' }).click();
  await say(page, 'Connect: the list continues exactly where it ended.');
  await watch(page, 2, 1400);
  await take(page, 2500);
} finally {
  await browser.close();
  server.kill('SIGKILL');
  rmSync(data, { recursive: true });
}
await sharp(frames, { join: { animated: true } })
  .gif({ delay: delays, loop: 0, colours: 48, dither: 0, effort: 10 })
  .toFile(file);

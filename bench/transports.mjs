// Runs /compare in a headless Chromium on this machine, cuts the connections half-way, and prints
// the table that the page copies to the clipboard.
//
//   node bench/transports.mjs target/dist/waterclock [seconds]
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import process, { argv } from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const end2end = resolve(import.meta.dirname, '../end2end');
const { chromium } = createRequire(`${end2end}/package.json`)('@playwright/test');
const { executablePath } = await import(`${end2end}/chromium.js`);

const seconds = Number(argv[3] ?? 60);
const server = spawn(resolve(argv[2]), ['--listen', '127.0.0.1:0', '--store', 'memory'], {
  stdio: ['ignore', 'pipe', 'ignore'],
});
const chromiumSandbox = process.getuid?.() !== 0;
const browser = await chromium.launch({ executablePath, chromiumSandbox });
try {
  const [line] = await once(createInterface({ input: server.stdout }), 'line');
  const context = await browser.newContext({ permissions: ['clipboard-read', 'clipboard-write'] });
  const page = await context.newPage();
  await page.goto(`${line.replace('listening on ', '')}/compare?rate=20&size=200&every=1000`);
  await page.getByRole('button', { name: 'Start' }).click();
  await page.getByText('Running for').waitFor();
  console.error(`running for ${seconds} s`);
  await pause((seconds / 2) * 1000);
  await page.getByRole('button', { name: 'Cut the connections' }).click();
  await pause((seconds / 2) * 1000);
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByText('Stopped, and checked against the log', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Copy as a table' }).click();
  await page.getByText('Table copied.').waitFor();
  console.log(await page.evaluate(() => navigator.clipboard.readText()));
} finally {
  await browser.close();
  server.kill();
}

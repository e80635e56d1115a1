// The pages in Firefox, which reconnects by rules of its own: after 5 s by default, and after fewer
// kinds of errors.
import { createServer } from 'node:http';
import { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, networkErrors, sequences, state, streams, test } from './server.ts';

const fast = ['--interval', '100ms', '--retry', '200ms'];

test.use({ allowedErrors: networkErrors });

test('ticks, stops, and resumes after the last event', async ({ page, server }) => {
  await server.start(...fast);
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await expect.poll(() => count(page)).toBeGreaterThan(5);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(state(page)).toHaveText('Stopped');
  await expect.poll(() => streams(server)).toBe(0);
  const stopped = await count(page);
  await expect.poll(() => server.newest()).toBeGreaterThan(stopped + 5);
  expect(await count(page)).toBe(stopped);
  await page.getByRole('button', { name: 'Connect' }).click();
  await expect.poll(() => count(page)).toBeGreaterThan(stopped + 10);
  expectConsecutive(await sequences(page));
});

test('misses nothing when the server restarts with its log', async ({ page, server }, info) => {
  server.data = info.outputPath('data');
  await server.start(...fast);
  await page.goto(server.url);
  await expect.poll(() => count(page)).toBeGreaterThan(5);
  await server.kill();
  await expect(state(page)).toHaveText('Connection lost, reconnecting');
  const before = await count(page);
  await server.start(...fast);
  await expect(state(page)).toHaveText('Live');
  await expect.poll(() => count(page)).toBeGreaterThan(before + 5);
  expectConsecutive(await sequences(page));
});

test('reconnects when Firefox has given up', async ({ page, server }) => {
  await server.start(...fast);
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await server.kill();
  const other = createServer((_, answer) => answer.writeHead(503).end());
  const { hostname, port } = new URL(server.url);
  await new Promise<void>((ready) => other.listen(Number(port), hostname, ready));
  await expect(state(page)).toHaveText('No connection. The server answered with status 503');
  other.close();
  other.closeAllConnections();
  await server.start(...fast);
  await expect(state(page)).toHaveText('Live', { timeout: 20_000 * patience });
});

test('tabs share one connection, and the next tab takes it over', async ({ context, server }) => {
  await server.start(...fast);
  const tabs = [];
  for (let i = 0; i < 3; i++) {
    const tab = await context.newPage();
    await tab.goto(server.url);
    tabs.push(tab);
  }
  for (const tab of tabs) await expect(tab.locator('.sharing')).toHaveText('3 tabs, 1 connection');
  await expect.poll(() => streams(server)).toBe(1);
  await tabs[0].close();
  for (const tab of tabs.slice(1)) {
    await expect(tab.locator('.sharing')).toHaveText('2 tabs, 1 connection');
    const before = await count(tab);
    await expect.poll(() => count(tab)).toBeGreaterThan(before + 5);
    expectConsecutive(await sequences(tab));
  }
  await expect.poll(() => streams(server)).toBe(1);
});

test('compares the transports', async ({ page, server }) => {
  await server.start();
  await page.goto(`${server.url}/compare?rate=50&every=250`);
  await page.getByRole('button', { name: 'Start' }).click();
  const row = (name: string) => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name, exact: true }) });
  const cells = (name: string) => row(name).getByRole('cell').allTextContents();
  // Firefox is slow while other tests run.
  const limit = { timeout: 20_000 * patience };
  const enough = async () => (await cells('Events')).filter((events) => Number(events.replace(',', '')) > 50).length;
  await expect.poll(enough, limit).toBe(4);
  await page.getByRole('button', { name: 'Cut the connections' }).click();
  await expect.poll(async () => (await cells('Time to catch up')).join(' '), limit).toMatch(/^([\d.]+ m?s ?){4}$/);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(page.getByText('Stopped, and checked against the log', { exact: true })).toBeVisible(limit);
  for (const name of ['Missing', 'Duplicates', 'Lost']) expect(await cells(name)).toEqual(['0', '0', '0', '0']);
});

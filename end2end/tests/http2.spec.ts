// The server over TLS, where browsers use HTTP/2.
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, networkErrors, sequences, type Server, state, test } from './server.ts';

test.use({ ignoreHTTPSErrors: true, allowedErrors: networkErrors });

async function startWithTls(server: Server, folder: string, ...options: string[]) {
  server.data = folder;
  await server.start('--tls-self-signed', ...options);
  expect(server.url).toMatch(/^https:/);
}

/** Opens streams in the page. The result counts those with a `hello`, and those with events. */
async function openStreams(page: Page, streams: number) {
  await page.evaluate((streams) => {
    const opened = { hellos: 0, last: new Set<number>() };
    Object.assign(window, { opened });
    for (let i = 0; i < streams; i++) {
      const source = new EventSource('/events');
      source.addEventListener('hello', () => opened.hellos++);
      source.addEventListener('message', () => opened.last.add(i));
    }
  }, streams);
  return {
    begun: () => page.evaluate(() => (window as any).opened.hellos as number),
    withEvents: () => page.evaluate(() => (window as any).opened.last.size as number),
  };
}

test('the live page shows the protocol, and misses nothing when the server restarts', async ({
  page,
  server,
}, info) => {
  const fast = ['--interval', '100ms', '--retry', '200ms'];
  await startWithTls(server, info.outputPath('data'), ...fast);
  await page.goto(server.url);
  await expect(page.locator('.protocol')).toHaveText('HTTP/2');
  await expect(page.locator('.sharing')).toHaveText('1 tab, 1 connection');
  await expect.poll(() => count(page)).toBeGreaterThan(5);
  await server.kill();
  await expect(state(page)).toHaveText('Connection lost, reconnecting');
  const before = await count(page);
  // The certificate stays the same, so that a person is not asked again. This browser accepts any.
  await startWithTls(server, info.outputPath('data'), ...fast);
  await expect.poll(() => count(page), { timeout: 20_000 * patience }).toBeGreaterThan(before + 5);
  expectConsecutive(await sequences(page));
});

test('thirty streams in one tab', async ({ page, server }, info) => {
  await startWithTls(server, info.outputPath('data'), '--interval', '100ms');
  await page.goto(`${server.url}/compare`);
  const streams = await openStreams(page, 30);
  await expect.poll(streams.withEvents).toBe(30);
  const metrics = await page.evaluate(async () => (await fetch('/metrics')).text());
  expect(metrics).toMatch(/^waterclock_streams_open 30$/m);
  expect(metrics).toMatch(/^waterclock_connections_open 1$/m);
});

test('over HTTP/1.1 six of thirty streams open, and the live page shows the protocol', async ({ page, server }) => {
  await server.start('--interval', '100ms');
  await page.goto(server.url);
  await expect(page.locator('.protocol')).toHaveText('HTTP/1.1');
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(state(page)).toHaveText('Stopped');
  const streams = await openStreams(page, 30);
  await expect.poll(streams.withEvents).toBe(6);
  await expect.poll(() => server.newest()).toBeGreaterThan(30);
  expect(await streams.begun()).toBe(6);
});

test('compares the transports, and shows their shared connection', async ({ page, server }, info) => {
  await startWithTls(server, info.outputPath('data'));
  await page.goto(`${server.url}/compare?rate=50&every=250`);
  await page.getByRole('button', { name: 'Start' }).click();
  const row = (name: string) =>
    page.getByRole('row').filter({ has: page.getByRole('rowheader', { name, exact: true }) }).getByRole('cell');
  const limit = { timeout: 20_000 * patience };
  const enough = async () => (await row('Events').allTextContents()).filter((events) => Number(events.replace(',', '')) > 100).length;
  await expect.poll(enough, limit).toBe(4);
  await expect(row('Bytes per event, down')).toHaveText(['–', /^\d+$/, '–', '–']);
  await expect(page.getByText('have shared one connection')).toBeVisible();
  // One connection carries everything but the WebSocket, even the request to cut it.
  await page.getByRole('button', { name: 'Cut the connections' }).click();
  const had = async () => (await row('Time to catch up').allTextContents()).join(' ');
  await expect.poll(had, limit).toMatch(/^([\d.]+ m?s ?){4}$/);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(page.getByText('Stopped, and checked against the log', { exact: true })).toBeVisible(limit);
  for (const name of ['Missing', 'Duplicates', 'Lost']) await expect(row(name)).toHaveText(['0', '0', '0', '0']);
});

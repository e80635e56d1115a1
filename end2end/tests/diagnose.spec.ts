// The page /diagnose: its findings on clean paths and on paths with faults.
import type { Page } from '@playwright/test';
import { once } from 'node:events';
import { createServer, request as ask } from 'node:http';
import type { AddressInfo } from 'node:net';
import { patience } from '../playwright.config.ts';
import { expect, networkErrors, streams, test } from './server.ts';

test.use({
  // Firefox needs no permissions.
  permissions: async ({ browserName }, use) =>
    use(browserName === 'chromium' ? ['clipboard-read', 'clipboard-write'] : []),
});

const checks = [
  'protocol',
  'event-source',
  'streams-at-once',
  'first-event',
  'delivery',
  'fields',
  'headers',
  'idle',
  'resume',
  'post',
  'service-worker',
  'clock',
  'round-trip',
];

/** Runs a diagnosis with an idle period of 5 s. */
async function diagnose(page: Page, url: string) {
  test.setTimeout(90_000 * patience);
  await page.goto(`${url}/diagnose`);
  await page.getByLabel('Idle period to test').selectOption('5');
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByRole('button', { name: 'Stop' })).toBeVisible();
  await expect(page.getByRole('button', { name: 'Start' })).toBeVisible({ timeout: 60_000 * patience });
}

const row = (page: Page, check: string) => page.locator(`[data-check="${check}"]`);

/** The verdict of each check. */
const verdicts = (page: Page) =>
  page
    .locator('[data-check]')
    .evaluateAll((rows: HTMLElement[]) => Object.fromEntries(rows.map((of) => [of.dataset.check, of.dataset.verdict])));

const all = (verdict: string) => Object.fromEntries(checks.map((check) => [check, verdict]));

test.describe('over HTTP/2', () => {
  test.use({ ignoreHTTPSErrors: true });

  test('a clean path has no faults', async ({ page, server }, info) => {
    server.data = info.outputPath('data');
    await server.start('--tls-self-signed', '--heartbeat', '2s');
    await diagnose(page, server.url);
    await expect(page.getByText('No problems found: streams work here.')).toBeVisible();
    expect(await verdicts(page)).toEqual(all('good'));
    await expect(row(page, 'protocol')).toContainText('HTTP/2');
    await expect(row(page, 'streams-at-once')).toContainText('All 30 opened; more were not tried');
    await expect(page.getByText('no proxy detected')).toBeVisible();
    const metrics = await page.evaluate(async () => (await fetch('/metrics')).text());
    expect(metrics).toMatch(/^waterclock_streams_open 0$/m);
  });
});

test('over HTTP/1.1 a browser opens six streams, and the page has a remedy', async ({ page, server }) => {
  await server.start('--heartbeat', '2s');
  await diagnose(page, server.url);
  expect(await verdicts(page)).toEqual({ ...all('good'), 'streams-at-once': 'warning' });
  await expect(row(page, 'streams-at-once')).toContainText('6 of 30 opened');
  await expect(row(page, 'streams-at-once')).toContainText('Serve HTTP/2 to browsers');
  await expect.poll(() => streams(server)).toBe(0);

  await page.getByRole('button', { name: 'Copy as text' }).click();
  await expect(page.getByText('Copied.')).toBeVisible();
  const text = await page.evaluate(() => navigator.clipboard.readText());
  expect(text).toContain(`URL       ${server.url}/\n`);
  expect(text).toMatch(/^Concurrent streams +warning +6 of 30 opened$/m);
  expect(text).toMatch(/^six-connections: /m);
  await page.getByRole('button', { name: 'Copy as JSON' }).click();
  await expect
    .poll(async () => JSON.parse(await page.evaluate(() => navigator.clipboard.readText())).findings)
    .toHaveLength(checks.length);
});

test('a detected proxy has its own remedy', { tag: '@chromium' }, async ({ page, server }) => {
  await server.start('--heartbeat', '2s');
  // Holds each response until it is complete, and claims to be nginx.
  await page.route('**/diagnose/stream?*', async (route) => {
    const headersSent = { ...route.request().headers(), 'last-event-id': '' };
    const response = await route.fetch({ headers: headersSent }).catch(() => null);
    // The page has aborted the request.
    if (!response) return;
    const headers: Record<string, string> = { ...response.headers(), server: 'nginx/1.22.1' };
    delete headers['cache-control'];
    await route.fulfill({ response, headers });
  });
  await diagnose(page, server.url);
  expect(await verdicts(page)).toMatchObject({ delivery: 'bad', 'first-event': 'bad', headers: 'warning', resume: 'bad' });
  await expect(page.getByText('Path: nginx')).toBeVisible();
  // A fault of two findings has its remedy only once.
  await expect(row(page, 'first-event')).toContainText('nginx: Set proxy_buffering off;');
  await expect(row(page, 'delivery')).toContainText('Events are held back in a buffer');
  await expect(row(page, 'delivery')).not.toContainText('nginx');
  await expect(row(page, 'headers')).toContainText('No Cache-Control');
});

test.describe('through a service worker', () => {
  // Firefox reports requests that are aborted while the worker responds.
  test.use({ allowedErrors: /ServiceWorker intercepted the request/ });

  test('a service worker between the page and the network is detected', async ({ page, server }) => {
    await server.start('--heartbeat', '2s');
    // Another page of the same site registers the worker, because ours may not.
    const script = `
      addEventListener('activate', (event) => event.waitUntil(clients.claim()));
      addEventListener('fetch', (event) => event.respondWith(fetch(event.request)));`;
    const site = createServer((request, answer) => {
      if (request.url === '/worker.js') return answer.setHeader('content-type', 'text/javascript').end(script);
      if (request.url === '/other') return answer.setHeader('content-type', 'text/html').end('<title>Other</title><link rel=icon href=data:,>');
      const { method, headers } = request;
      const onward = ask(server.url + request.url, { method, headers }, (response) => {
        answer.writeHead(response.statusCode!, response.headers);
        answer.flushHeaders();
        response.pipe(answer);
      });
      answer.on('close', () => onward.destroy());
      onward.on('error', () => answer.destroy());
      request.pipe(onward);
    });
    await once(site.listen(0, '127.0.0.1'), 'listening');
    const url = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
    await page.goto(`${url}/other`);
    await page.evaluate(async () => {
      await navigator.serviceWorker.register('/worker.js');
      await navigator.serviceWorker.ready;
    });
    await diagnose(page, url);
    expect(await verdicts(page)).toMatchObject({ delivery: 'good', 'service-worker': 'warning' });
    await expect(row(page, 'service-worker')).toContainText('respondWith');
    site.close();
    site.closeAllConnections();
  });
});

test('a run can be stopped, which closes all streams', async ({ page, server }) => {
  await server.start();
  await page.goto(`${server.url}/diagnose`);
  await page.getByLabel('Idle period to test').selectOption('305');
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(row(page, 'delivery')).toHaveAttribute('data-verdict', 'running', { timeout: 20_000 * patience });
  await expect.poll(() => streams(server)).toBeGreaterThan(0);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(page.getByText('Stopped before all checks were done.')).toBeVisible();
  await expect.poll(() => streams(server)).toBe(0);
  await expect(page.locator('[data-verdict="running"]')).toHaveCount(0);
});

test.describe('without a server that responds', () => {
  test.use({ allowedErrors: networkErrors });

  test('the page says so', async ({ page, server }) => {
    await server.start('--max-streams', '0');
    await page.goto(`${server.url}/diagnose`);
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(page.getByText('The server accepts no more streams at the moment.')).toBeVisible();
    await server.kill();
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(page.getByText('The server does not respond')).toBeVisible();
  });

  test('a server that goes down is not a fault of the path', async ({ page, server }) => {
    test.setTimeout(90_000 * patience);
    await server.start();
    await page.goto(`${server.url}/diagnose`);
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(row(page, 'delivery')).toHaveAttribute('data-verdict', 'running', { timeout: 20_000 * patience });
    await server.kill();
    await expect(page.getByText('Not all checks could be completed: the server is gone')).toBeVisible({
      timeout: 30_000 * patience,
    });
    const found = await verdicts(page);
    expect(found).toMatchObject({ protocol: 'good', idle: 'unknown', delivery: 'unknown', resume: 'unknown' });
    // The finding is older than the end of the server: a browser opens six connections.
    expect(Object.entries(found).filter(([, verdict]) => verdict === 'warning' || verdict === 'bad')).toEqual([
      ['streams-at-once', 'warning'],
    ]);
  });
});

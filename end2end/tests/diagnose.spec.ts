// The page that diagnoses: what it finds where nothing is wrong, and where something is.
import type { Page } from '@playwright/test';
import { once } from 'node:events';
import { createServer, request as ask } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, networkErrors, streams, test } from './server.ts';

test.use({
  // Firefox asks for none.
  permissions: async ({ browserName }, use) =>
    use(browserName === 'chromium' ? ['clipboard-read', 'clipboard-write'] : []),
});

const checks = [
  'protocol',
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

/** Diagnoses, with a silence of 5 s. */
async function diagnose(page: Page, url: string) {
  test.setTimeout(90_000);
  await page.goto(`${url}/diagnose`);
  await page.getByLabel('Longest silence tried').selectOption('5');
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByRole('button', { name: 'Stop' })).toBeVisible();
  await expect(page.getByRole('button', { name: 'Start' })).toBeVisible({ timeout: 60_000 });
}

const row = (page: Page, check: string) => page.locator(`[data-check="${check}"]`);

/** What each check has found. */
const verdicts = (page: Page) =>
  page
    .locator('[data-check]')
    .evaluateAll((rows: HTMLElement[]) => Object.fromEntries(rows.map((of) => [of.dataset.check, of.dataset.verdict])));

const all = (verdict: string) => Object.fromEntries(checks.map((check) => [check, verdict]));

test.describe('over HTTP/2', () => {
  test.use({ ignoreHTTPSErrors: true });

  test('a clean path is found clean', async ({ page, server }, info) => {
    server.data = info.outputPath('data');
    await server.start('--tls-self-signed', '--heartbeat', '2s');
    await diagnose(page, server.url);
    await expect(page.getByText('Nothing was found: streams work here.')).toBeVisible();
    expect(await verdicts(page)).toEqual(all('good'));
    await expect(row(page, 'protocol')).toContainText('HTTP/2');
    await expect(row(page, 'streams-at-once')).toContainText('30; more were not tried');
    await expect(page.getByText('no proxy recognised')).toBeVisible();
    const metrics = await page.evaluate(async () => (await fetch('/metrics')).text());
    expect(metrics).toMatch(/^waterclock_streams_open 0$/m);
  });
});

test('over HTTP/1.1 a browser has six streams, and the page says what is to be done', async ({ page, server }) => {
  await server.start('--heartbeat', '2s');
  await diagnose(page, server.url);
  expect(await verdicts(page)).toEqual({ ...all('good'), 'streams-at-once': 'warning' });
  await expect(row(page, 'streams-at-once')).toContainText('6 of 30 that were tried');
  await expect(row(page, 'streams-at-once')).toContainText('speak HTTP/2');
  await expect.poll(() => streams(server)).toBe(0);

  await page.getByRole('button', { name: 'Copy as text' }).click();
  await expect(page.getByText('Copied.')).toBeVisible();
  const text = await page.evaluate(() => navigator.clipboard.readText());
  expect(text).toContain(`URL       ${server.url}/\n`);
  expect(text).toMatch(/^Streams at once +warning +6 of 30 that were tried$/m);
  expect(text).toMatch(/^six-connections: /m);
  await page.getByRole('button', { name: 'Copy as JSON' }).click();
  await expect
    .poll(async () => JSON.parse(await page.evaluate(() => navigator.clipboard.readText())).findings)
    .toHaveLength(checks.length);
});

test('what is on the way is named, with its mend', { tag: '@chromium' }, async ({ page, server }) => {
  await server.start('--heartbeat', '2s');
  // Holds each answer until it is whole, and is a bad copy of nginx.
  await page.route('**/diagnose/stream?*', async (route) => {
    const headersSent = { ...route.request().headers(), 'last-event-id': '' };
    const response = await route.fetch({ headers: headersSent }).catch(() => null);
    // The page does not want it any more.
    if (!response) return;
    const headers: Record<string, string> = { ...response.headers(), server: 'nginx/1.22.1' };
    delete headers['cache-control'];
    await route.fulfill({ response, headers });
  });
  await diagnose(page, server.url);
  expect(await verdicts(page)).toMatchObject({ delivery: 'bad', 'first-event': 'bad', headers: 'warning', resume: 'bad' });
  await expect(page.getByText('On the way: nginx')).toBeVisible();
  // What two checks have found is mended once.
  await expect(row(page, 'first-event')).toContainText('nginx: proxy_buffering off;');
  await expect(row(page, 'delivery')).toContainText('Events are held back in a buffer');
  await expect(row(page, 'delivery')).not.toContainText('nginx');
  await expect(row(page, 'headers')).toContainText('No Cache-Control');
});

test.describe('through a service worker', () => {
  // Firefox tells of requests that are taken back while the worker answers them.
  test.use({ allowedErrors: /ServiceWorker intercepted the request/ });

  test('a service worker between the page and the network is found', async ({ page, server }) => {
    await server.start('--heartbeat', '2s');
    // Another part of the same site has registered it: our own pages may not.
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

test('it can be stopped half-way, and all is closed', async ({ page, server }) => {
  await server.start();
  await page.goto(`${server.url}/diagnose`);
  await page.getByLabel('Longest silence tried').selectOption('305');
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(row(page, 'delivery')).toHaveAttribute('data-verdict', 'running', { timeout: 20_000 });
  await expect.poll(() => streams(server)).toBeGreaterThan(0);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(page.getByText('Stopped before all was looked at.')).toBeVisible();
  await expect.poll(() => streams(server)).toBe(0);
  await expect(page.locator('[data-verdict="running"]')).toHaveCount(0);
});

test.describe('without a server that answers', () => {
  test.use({ allowedErrors: networkErrors });

  test('it says so', async ({ page, server }) => {
    await server.start('--max-streams', '0');
    await page.goto(`${server.url}/diagnose`);
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(page.getByText('The server takes no more streams now.')).toBeVisible();
    await server.kill();
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(page.getByText('The server does not answer')).toBeVisible();
  });

  test('one that goes half-way is not blamed on the path', async ({ page, server }) => {
    test.setTimeout(90_000);
    await server.start();
    await page.goto(`${server.url}/diagnose`);
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(row(page, 'delivery')).toHaveAttribute('data-verdict', 'running', { timeout: 20_000 });
    await server.kill();
    await expect(page.getByText('Not all could be looked at: the server does not answer any more')).toBeVisible({
      timeout: 30_000,
    });
    const found = await verdicts(page);
    expect(found).toMatchObject({ protocol: 'good', idle: 'unknown', delivery: 'unknown', resume: 'unknown' });
    // It was told while the server was there: a browser has six connections.
    expect(Object.entries(found).filter(([, verdict]) => verdict === 'warning' || verdict === 'bad')).toEqual([
      ['streams-at-once', 'warning'],
    ]);
  });
});

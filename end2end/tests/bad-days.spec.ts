// Failures between the page and its server, from which the page recovers.
import { createServer, type RequestListener } from 'node:http';
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, networkErrors, sequences, state, streams, test } from './server.ts';

const fast = ['--interval', '100ms', '--retry', '200ms'];
const stream = '**/events?*';

test.use({ allowedErrors: networkErrors });

/** Waits until the page is live and has received more events. */
async function continues(page: Page, more = 5) {
  await expect(state(page)).toHaveText('Live', { timeout: 15_000 * patience });
  const before = await count(page);
  await expect.poll(() => count(page)).toBeGreaterThan(before + more);
}

test('the server is gone for a minute', async ({ page, server }, info) => {
  server.data = info.outputPath('data');
  await page.clock.install();
  await server.start(...fast);
  await page.goto(server.url);
  await continues(page);
  await server.kill();
  await expect(state(page)).toHaveText('Connection lost, reconnecting');
  await page.clock.runFor(60_000);
  await expect(state(page)).toHaveText(/Connection lost, reconnecting|No heartbeat, reconnecting/);
  await server.start(...fast);
  await continues(page);
  expectConsecutive(await sequences(page));
});

// Responses to the request for the stream, in the server's place, and the page's message about
// them.
const replacements: [string, RequestListener, string][] = [
  ['404', (_, answer) => answer.writeHead(404).end(), 'The server answered with status 404'],
  ['500', (_, answer) => answer.writeHead(500).end('oops'), 'The server answered with status 500'],
  [
    'a problem',
    (_, answer) =>
      answer.writeHead(503, { 'content-type': 'application/problem+json' }).end('{"detail":"Not yet."}'),
    'The server answered with status 503: Not yet',
  ],
  [
    'HTML',
    (_, answer) => answer.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Log in</h1>'),
    'The server answered with text/html, which is not a stream',
  ],
  [
    'a redirect to a page',
    (request, answer) =>
      request.url === '/login'
        ? answer.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end('<h1>Log in</h1>')
        : answer.writeHead(302, { location: '/login' }).end(),
    'The server answered with text/html; charset=utf-8, which is not a stream',
  ],
];
for (const [name, listener, message] of replacements) {
  test(`${name} instead of a stream`, async ({ page, server }, info) => {
    server.data = info.outputPath('data');
    await server.start(...fast);
    await page.goto(server.url);
    await continues(page);
    await server.kill();
    const other = createServer(listener);
    const { hostname, port } = new URL(server.url);
    await new Promise<void>((ready) => other.listen(Number(port), hostname, ready));
    await expect(state(page)).toHaveText(`No connection. ${message}`);
    await expect(page.getByText(/Retrying in \d+ s/)).toBeVisible();
    other.close();
    other.closeAllConnections();
    await server.start(...fast);
    await continues(page);
    expectConsecutive(await sequences(page));
  });
}

test('a redirect to a stream is followed', async ({ page, server }) => {
  await server.start(...fast);
  await page.route(stream, (route) => {
    const url = new URL(route.request().url());
    if (url.searchParams.has('again')) return route.continue();
    return route.fulfill({ status: 307, headers: { location: `${url.pathname}${url.search}&again` } });
  });
  await page.goto(server.url);
  await continues(page);
  expectConsecutive(await sequences(page));
});

test('204 ends the stream, and there is no further request', async ({ page, server }) => {
  await server.start(...fast);
  let requests = 0;
  await page.route(stream, (route) => (requests++, route.fulfill({ status: 204 })));
  await page.clock.install();
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Stopped. The stream has ended');
  const before = requests;
  await page.clock.runFor(120_000);
  expect(requests).toBe(before);
  await page.unroute(stream);
  await page.getByRole('button', { name: 'Connect' }).click();
  await continues(page);
});

test('a proxy that accepts and stays silent', async ({ page, server }) => {
  await server.start(...fast);
  await page.clock.install();
  await page.route(stream, () => {}); // Never answered.
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Connecting');
  await page.clock.runFor(50_000);
  await expect(state(page)).toHaveText('No heartbeat, reconnecting');
  await page.unroute(stream);
  await page.clock.runFor(50_000);
  await continues(page);
  expectConsecutive(await sequences(page));
  // The server may still count the stream that the page gave up.
  await expect.poll(() => streams(server)).toBe(1);
});

test('offline for a while: the page reconnects as soon as it is online', async ({ page, context, server }, info) => {
  server.data = info.outputPath('data');
  // By itself, the browser would wait for ten minutes.
  const patient = ['--interval', '100ms', '--retry', '10min'];
  await server.start(...patient);
  await page.goto(server.url);
  await continues(page);
  await context.setOffline(true);
  await server.kill();
  await expect(state(page)).toHaveText('Connection lost, reconnecting');
  await server.start(...patient);
  await context.setOffline(false);
  await continues(page);
  expectConsecutive(await sequences(page));
});

test('the machine sleeps for hours', async ({ page, server }) => {
  await page.clock.install();
  await server.start(...fast);
  await page.goto(server.url);
  await continues(page);
  for (let i = 0; i < 3; i++) {
    await page.clock.fastForward('05:00:00');
    await continues(page);
  }
  expectConsecutive(await sequences(page));
  await expect.poll(() => streams(server)).toBe(1);
});

test('hidden for long: no timer runs, and nothing is rendered', async ({ page, server }) => {
  await page.clock.install();
  await server.start(...fast, '--heartbeat', '1s');
  await page.goto(server.url);
  await continues(page);
  await page.clock.pauseAt(new Date(await page.evaluate(() => Date.now() + 1000)));
  // Not by a stream, because this test counts streams.
  const newest = async () => {
    const { events } = await (await fetch(`${server.url}/poll?last_event_id=earliest`)).json();
    return events.length;
  };
  const [then, drawn] = [await newest(), await count(page)];
  await expect.poll(newest, { timeout: 10_000 * patience }).toBeGreaterThan(then + 50);
  expect(await count(page)).toBe(drawn);
  await page.clock.resume();
  await continues(page);
  expectConsecutive(await sequences(page));
  await expect.poll(() => server.log.filter((line) => line.includes('stream opened'))).toHaveLength(1);
});

test('the clock of the machine is set, forwards and back', async ({ page, server }) => {
  await page.clock.install();
  await server.start(...fast);
  await page.goto(server.url);
  await continues(page);
  for (const day of ['2030-01-01', '1990-01-01', '2026-06-01']) {
    await page.clock.setSystemTime(new Date(day));
    await continues(page);
  }
  expectConsecutive(await sequences(page));
  await expect.poll(() => streams(server)).toBe(1);
});

test('an event of a megabyte', async ({ page, server }) => {
  await server.start('--interval', '1h');
  const data = JSON.stringify({ much: 'x'.repeat(1_000_000) });
  const time = '2026-11-22T07:00:00.000Z';
  const events = ['before', data, 'after'].map((data, i) => ({ id: `00000000000000ff-${i + 1}`, topic: 't', name: 'n', data, time }));
  const body = events.map((event) => `id: ${event.id}\ndata: ${JSON.stringify(event)}\n\n`).join('');
  await page.route(stream, (route) =>
    route.fulfill({ contentType: 'text/event-stream', body: `retry: 3600000\n${body}` }),
  );
  await page.goto(`${server.url}/?topic=t`);
  const rows = page.locator('.rows .event');
  await expect(rows).toHaveCount(3);
  await page.getByRole('searchbox', { name: 'Filter' }).fill('xxx');
  await expect(page.locator('.count')).toHaveText('3 events, 1 matches the filter');
  await rows.click();
  await expect(page.getByRole('dialog', { name: 'Event' })).toContainText('1000011 bytes');
});

test('a hundred thousand events under the filter', async ({ page, server }) => {
  test.setTimeout(90_000 * patience);
  await server.start('--interval', '1h');
  await page.addInitScript(() => localStorage.setItem('waterclock.rows', '100000'));
  await page.goto(`${server.url}/?topic=t&filter=7777`);
  await expect(state(page)).toHaveText('Live');
  const all = Array.from({ length: 100_000 }, (_, i) => `event number ${i}`);
  const matching = (text: string) => all.filter((data) => data.includes(text)).length;
  await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body: all.join('\n') });
  const counted = page.locator('.count');
  await expect(counted).toHaveText(`100000 events, ${matching('7777')} match the filter`, { timeout: 60_000 * patience });
  const filter = page.getByRole('searchbox', { name: 'Filter' });
  for (const text of ['99999', 'number 1', 'nothing']) {
    await filter.fill(`"${text}"`);
    const found = matching(text);
    await expect(counted).toContainText(`${found} ${found === 1 ? 'matches' : 'match'} the filter`);
  }
  await filter.fill('');
  expectConsecutive(await sequences(page));
});

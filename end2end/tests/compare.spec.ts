// The page `/compare`: its figures against independent measurements.
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { Proxy } from './proxy.ts';
import { expect, networkErrors, type Server, state, streams, test } from './server.ts';

test.use({ permissions: ['clipboard-read', 'clipboard-write'] });

const transports = ['sse', 'websocket', 'long-poll', 'poll'] as const;

type Result = {
  transport: (typeof transports)[number];
  figures: { events: number; missing: number; doubled: number; requests: number; reconnects: number };
  latency?: { p50: number; longest: number; bars: number[] };
  cut: 'none' | 'waiting' | { over: { opened: number; caught_up: number; replayed: number; lost: number } };
  server?: { connections: number; received: number; sent: number };
};

/** Unfolds the settings. */
const unfold = (page: Page) => page.locator('.setup > summary').click();

/** Returns the results by transport, as "Copy as JSON" copies them. */
async function results(page: Page): Promise<Map<string, Result>> {
  await page.getByRole('button', { name: 'Copy as JSON' }).click();
  await expect(page.getByText('JSON copied.')).toBeVisible();
  const { lanes } = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  return new Map(lanes.map((result: Result) => [result.transport, result]));
}

/** Returns a cell of the table. */
const cell = (page: Page, row: string | RegExp, transport: string) =>
  page.getByRole('row', { name: row }).locator(`td[data-transport="${transport}"]`);

const figure = async (page: Page, row: string | RegExp, transport: string) =>
  Number((await cell(page, row, transport).textContent())!.replaceAll(',', ''));

async function start(page: Page, url: string) {
  await page.goto(url);
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByText('Running for')).toBeVisible();
}

/** Waits until each transport has delivered a number of events. */
async function untilEvents(page: Page, events: number) {
  for (const transport of transports) {
    await expect.poll(() => figure(page, 'Events', transport), { timeout: 20_000 * patience }).toBeGreaterThanOrEqual(events);
  }
}

async function stop(page: Page, server: Server) {
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(page.getByText('Stopped, and checked against the log', { exact: true })).toBeVisible();
  await expect.poll(() => streams(server)).toBe(0);
}

async function publish(server: Server, topic: string, count: number) {
  for (let i = 0; i < count; i++) {
    expect((await fetch(`${server.url}/events/${topic}`, { method: 'POST', body: `event ${i}` })).status).toBe(201);
  }
}

test('every transport delivers every event once, and the log agrees', async ({ page, server }) => {
  await server.start();
  await start(page, `${server.url}/compare?rate=50&every=250`);
  await untilEvents(page, 100);
  await stop(page, server);
  const found = await results(page);
  expect([...found.keys()]).toEqual(transports);
  for (const [name, result] of found) {
    const { events, missing, doubled, reconnects } = result.figures;
    expect([name, missing, doubled, reconnects]).toEqual([name, 0, 0, 0]);
    expect(result.latency!.bars.reduce((sum, count) => sum + count)).toBe(events);
    expect(result.server!.sent / events).toBeGreaterThan(200);
  }
  // The load ends with the run.
  const { cursor } = await (await fetch(`${server.url}/poll?topic=waterclock.load`)).json();
  await publish(server, 'fence', 3);
  const after = await (await fetch(`${server.url}/poll?topic=waterclock.load&last_event_id=${cursor}`)).json();
  expect(after.events).toEqual([]);
});

test('a delay of one transport is in its latency and in no other', async ({ page, server }) => {
  await server.start();
  const proxy = new Proxy((target) => new URL(target, 'http://x').pathname);
  await proxy.start(server.url);
  const delay = 400;
  proxy.delays.set('/ws', delay);
  await start(page, `${proxy.url}/compare?rate=20&every=250`);
  await untilEvents(page, 40);
  await stop(page, server);
  const found = await results(page);
  const median = (transport: string) => found.get(transport)!.latency!.p50;
  // Both use one clock. The error is the round trip of `GET /time`, and 0.5 ms of rounding.
  expect(median('websocket')).toBeGreaterThan(delay - 5);
  expect(median('websocket')).toBeLessThan(delay + 200);
  expect(median('sse')).toBeLessThan(200);
  expect(median('long-poll')).toBeLessThan(200);
  proxy.stop();
});

test('the mean of polling is half an interval and a round trip', async ({ page, server }) => {
  await server.start();
  await start(page, `${server.url}/compare?rate=100&every=500&lanes=poll`);
  await expect.poll(() => figure(page, 'Events', 'poll'), { timeout: 20_000 * patience }).toBeGreaterThan(600);
  await expect(page.getByRole('columnheader')).toHaveText([/Polling/]);
  const theory = /^(\d+) ms$/.exec((await cell(page, 'Theoretical mean', 'poll').textContent())!);
  expect(Number(theory![1])).toBeGreaterThanOrEqual(250);
  const mean = Number(/^(\d+) ms$/.exec((await cell(page, /^Mean \d/, 'poll').textContent())!)![1]);
  // The mean of six hundred events at random times varies by a few per cent.
  expect(Math.abs(mean - Number(theory![1]))).toBeLessThan(75);
});

test('bytes are equal to the count of a proxy between them', async ({ page, server }) => {
  await server.start();
  const proxy = new Proxy((target) => {
    const { pathname, searchParams } = new URL(target, 'http://x');
    if (!searchParams.has('meter')) return 'other';
    if (pathname !== '/poll') return pathname === '/ws' ? 'websocket' : 'sse';
    return searchParams.has('wait') ? 'long-poll' : 'poll';
  });
  await proxy.start(server.url);
  await start(page, `${proxy.url}/compare?topic=orders&every=5000`);
  await publish(server, 'orders', 30);
  await untilEvents(page, 30);
  for (const transport of transports) {
    await expect
      .poll(async () => {
        const { server: counted, figures } = (await results(page)).get(transport)!;
        const { received, sent } = counted!;
        return [transport, { received, sent, requests: figures.requests }];
      })
      .toEqual([transport, proxy.counts.get(transport)]);
  }
  const { sent } = proxy.counts.get('sse')!;
  expect(await figure(page, /^Bytes per event, down [^(]/, 'sse')).toBe(Math.floor(sent / 30));
  proxy.stop();
});

test.describe('when connections fail', () => {
  test.use({ allowedErrors: networkErrors });

  test('a cut loses no event on any transport', async ({ page, server }) => {
    await server.start('--retry', '300ms');
    await start(page, `${server.url}/compare?rate=50&every=250`);
    await untilEvents(page, 30);
    await page.getByRole('button', { name: 'Cut the connections' }).click();
    for (const transport of transports) {
      await expect(cell(page, 'Time to catch up', transport)).toHaveText(/^[\d.]+ m?s$/, { timeout: 15_000 * patience });
    }
    await stop(page, server);
    const found = await results(page);
    for (const [name, { figures, cut }] of found) {
      const { missing, doubled } = figures;
      const { lost, opened, caught_up } = (cut as Exclude<Result['cut'], string>).over;
      expect([name, missing, doubled, lost]).toEqual([name, 0, 0, 0]);
      expect(caught_up).toBeGreaterThanOrEqual(opened);
    }
    for (const pushed of ['sse', 'websocket']) {
      const { figures, cut, server: counted } = found.get(pushed)!;
      expect([figures.reconnects, counted!.connections]).toEqual([1, 2]);
      expect((cut as Exclude<Result['cut'], string>).over.replayed).toBeGreaterThan(0);
    }
  });

  test('a restart of the server loses no event', async ({ page, server }, info) => {
    server.data = info.outputPath('data');
    await server.start('--interval', '100ms', '--retry', '300ms');
    await start(page, `${server.url}/compare?topic=clock&every=250`);
    await untilEvents(page, 40);
    await server.kill();
    // Polling notices only with its next request.
    await expect(page.getByRole('columnheader', { name: /lost, reconnecting/ })).toHaveCount(4);
    const before = await figure(page, 'Events', 'sse');
    await server.start('--interval', '100ms', '--retry', '300ms');
    await untilEvents(page, before + 10);
    await stop(page, server);
    for (const [name, { figures, server: counted }] of await results(page)) {
      const { missing, doubled, reconnects } = figures;
      // The counts of both servers, without those of the first since its last reading. An event has
      // at least 143 bytes, and the first server has sent most events.
      expect(counted!.sent / figures.events).toBeGreaterThan(100);
      expect([name, missing, doubled, reconnects]).toEqual([name, 0, 0, 1]);
    }
  });

  test('a message says that other tabs use all connections', async ({ page, context, server }) => {
    await server.start();
    const other = await context.newPage();
    await other.goto(`${server.url}/nowhere`);
    await page.goto(`${server.url}/compare`);
    await unfold(page);
    await expect(page.getByText('at most 6 connections')).toBeVisible();
    await other.evaluate(() => Array.from({ length: 6 }, () => new EventSource('/events')));
    await expect.poll(() => streams(server)).toBe(6);
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(page.getByRole('alert')).toContainText('other tabs use all', { timeout: 10_000 * patience });
    await other.close();
    await page.getByRole('button', { name: 'Start' }).click();
    await untilEvents(page, 5);
  });

  test('invalid input has a message, and can be corrected', async ({ page, server }) => {
    await server.start();
    await page.goto(`${server.url}/compare?lanes=none&rate=0`);
    const problem = page.getByRole('alert');
    await unfold(page);
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(problem).toHaveText('Choose at least one transport.');
    await page.getByRole('checkbox', { name: 'SSE' }).check();
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(problem).toContainText(/^rate must be 1 to 1000 events per second/);
    await page.getByRole('radio', { name: 'Topics' }).check();
    await page.getByRole('textbox', { name: 'Topics' }).fill('a..b');
    await page.getByRole('button', { name: 'Start' }).click();
    await expect(problem).toContainText('"a..b"');
    await page.getByRole('textbox', { name: 'Topics' }).fill('clock');
    await page.getByRole('button', { name: 'Start' }).click();
    await expect.poll(() => figure(page, 'Events', 'sse')).toBeGreaterThan(0);
    await expect(problem).toHaveCount(0); // An empty alert has no role.
    await expect(page.getByRole('columnheader')).toHaveCount(1);
    const kept = Object.fromEntries(new URL(page.url()).searchParams);
    expect(kept).toEqual({ lanes: 'sse', topic: 'clock', every: '1000' });
  });

  test('topics without events, and a server without room, are said to be so', async ({ page, server }) => {
    await server.start('--max-streams', '0');
    await start(page, `${server.url}/compare?topic=orders&lanes=sse+websocket+poll`);
    await expect(page.locator('.headline')).toHaveText('No events have arrived yet.');
    await expect(page.locator('.conclusion')).toContainText('SSE and WebSocket are refused: the server has reached its limit of streams.');
    await expect(page.getByRole('columnheader', { name: 'server full' })).toHaveCount(2);
    await page.getByRole('button', { name: 'Stop' }).click();
    await expect(page.locator('.headline')).toHaveText('No events arrived, so there is nothing to compare.');
    await start(page, `${server.url}/compare?topic=orders&lanes=sse+websocket+long-poll`);
    await expect(page.locator('.status')).toHaveText('Server full, trying again');
  });
});

test('a reader behind a proxy cannot generate a load, and reads public topics', async ({ page, server }) => {
  await server.start('--public-topic', 'clock', '--interval', '100ms');
  await page.setExtraHTTPHeaders({ via: '1.1 proxy' });
  await page.goto(`${server.url}/compare`);
  await unfold(page);
  await expect(page.getByText('may generate a load')).toBeVisible();
  await expect(page.getByRole('radio', { name: 'A load of' })).toBeDisabled();
  await start(page, `${server.url}/compare?every=250`);
  await untilEvents(page, 5);
});

test('a link contains the results', async ({ page, context, server }) => {
  await server.start();
  await start(page, `${server.url}/compare?rate=50&every=250&lanes=sse+poll`);
  // The first latencies of a page are long, and the sentence has a number only after some requests.
  await expect.poll(() => figure(page, 'Events', 'sse')).toBeGreaterThan(100);
  await expect.poll(() => figure(page, 'Requests', 'poll')).toBeGreaterThan(4);
  await stop(page, server);
  const copied = async (button: string, what: string) => {
    await page.getByRole('button', { name: button }).click();
    await expect(page.getByText(`${what} copied.`)).toBeVisible();
    return page.evaluate(() => navigator.clipboard.readText());
  };
  const table = await copied('Copy as a table', 'Table');
  expect(table).toMatch(/^\| \| SSE \| Polling \|\n\|---\|---:\|---:\|\n\| p50 \| [\d.]+ ms \|/);
  const link = await copied('Copy a link', 'Link');
  const other = await context.newPage();
  await other.goto(link);
  await expect(other.getByText('Results from a link', { exact: true })).toBeVisible();
  expect(await other.locator('table').innerText()).toBe(await page.locator('table').innerText());
  expect(await other.locator('.about').innerText()).toBe(await page.locator('.about').innerText());
  const headline = await page.locator('.headline').textContent();
  expect(headline).toMatch(/^SSE delivers in .+; polling every 250 ms takes \d+ ms and \d+ times the requests\.$/);
  await expect(other.locator('.headline')).toHaveText(headline!);
  await expect(other.locator('.conclusion [role=status]')).toHaveText(`Results from a link. ${headline}`);
  expect(table).toContain(`\n${headline} No event was lost or delivered twice.\n`);
  expect(await other.locator('svg .bars').first().getAttribute('d')).toMatch(/^M\d+ 26v-/);
  // An open page shows the results of a new fragment, and a run removes the fragment.
  const third = await context.newPage();
  await third.goto(link.split('#')[0]);
  await expect(third.getByRole('button', { name: 'Start' })).toBeEnabled();
  await third.evaluate((hash) => (location.hash = hash), new URL(link).hash);
  await expect(third.getByText('Results from a link', { exact: true })).toBeVisible();
  await third.getByRole('button', { name: 'Start' }).click();
  await expect(third.getByText('Running for')).toBeVisible();
  expect(new URL(third.url()).hash).toBe('');
  await third.getByRole('button', { name: 'Stop' }).click();
  await other.goto('about:blank');
  await other.goto(`${link.split('#')[0]}#results=nonsense`);
  await expect(other.getByRole('button', { name: 'Start' })).toBeEnabled();
  await expect(other.locator('table')).toHaveCount(0);
});

test('a run that is stopped while it starts leaves nothing running', async ({ page, server }) => {
  await server.start();
  let requests = 0;
  await page.route('**/time', async (route) => {
    // The second request continues only after the run was stopped.
    if (++requests === 2) await page.getByRole('button', { name: 'Stop' }).click();
    await route.continue();
  });
  await page.goto(`${server.url}/compare?rate=100`);
  const ended = page.waitForResponse((answer) => answer.request().method() === 'DELETE');
  await page.getByRole('button', { name: 'Start' }).click();
  expect((await ended).status()).toBe(204);
  await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
  await expect(page.locator('table')).toHaveCount(0);
  await expect.poll(() => streams(server)).toBe(0);
  // No load is running, so another can start.
  expect((await fetch(`${server.url}/load?rate=1&seconds=1`, { method: 'POST' })).status).toBe(201);
});

test('nothing on the page moves during a run', async ({ page, server }) => {
  await server.start();
  for (const width of [360, 1440]) {
    await page.setViewportSize({ width, height: 720 });
    await page.goto(`${server.url}/compare?rate=50&every=250`);
    await page.evaluate(() => {
      Object.assign(window, { shift: 0 });
      new PerformanceObserver((list) => {
        // A shift soon after a click is expected, and has a flag. The score counts the others.
        for (const entry of list.getEntries() as any[]) if (!entry.hadRecentInput) (window as any).shift += entry.value;
      }).observe({ type: 'layout-shift', buffered: true });
    });
    await page.getByRole('button', { name: 'Start' }).click();
    await untilEvents(page, 60);
    await stop(page, server);
    expect(await page.evaluate(() => (window as any).shift), `${width} px`).toBeLessThan(0.02);
  }
});

test('on a phone each transport is a card, and the table can still be read as one', async ({ page, server }) => {
  await server.start();
  await page.setViewportSize({ width: 360, height: 720 });
  await start(page, `${server.url}/compare?rate=50&every=250`);
  await untilEvents(page, 20);
  const head = (name: RegExp) => page.getByRole('columnheader', { name }).boundingBox();
  const heads = await Promise.all([/^SSE/, /^WebSocket/, /^Long polling/, /^Polling/].map(head));
  for (const [i, transport] of transports.entries()) {
    const cells = await page.locator(`td[data-transport="${transport}"]:visible`).all();
    expect(cells.length).toBeGreaterThan(10);
    for (const cell of cells) {
      const { x, y, width } = (await cell.boundingBox())!;
      expect(y).toBeGreaterThan(heads[i]!.y);
      if (heads[i + 1]) expect(y).toBeLessThan(heads[i + 1]!.y);
      expect(x + width).toBeLessThanOrEqual(360);
    }
  }
  await expect(page.getByRole('rowheader', { name: 'p50' })).toHaveCount(1);
  await expect(page.getByRole('row', { name: 'p50' }).getByRole('cell')).toHaveCount(4);
});

test('leaving the page closes its connections', async ({ page, server }) => {
  await server.start();
  await start(page, `${server.url}/compare?topic=clock`);
  // Server-Sent Events, the WebSocket, and the long poll that waits.
  await expect.poll(() => streams(server)).toBe(3);
  await page.goto(server.url);
  await expect.poll(() => streams(server)).toBe(1); // The stream of the live page.
});

test('each page loads its own module only', async ({ page, server }) => {
  await server.start();
  const html = await (await fetch(`${server.url}/compare`)).text();
  test.skip(!html.includes('/pkg/compare.'), 'cargo leptos by itself builds one module for all pages');
  const loaded: string[] = [];
  page.on('request', (request) => loaded.push(new URL(request.url()).pathname));
  const modules = () => loaded.filter((path) => path.endsWith('.wasm')).map((path) => path.split('/').pop()!.split('.')[0]);
  await page.goto(`${server.url}/compare`);
  await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
  expect(modules()).toEqual(['compare']);
  loaded.length = 0;
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  expect(modules()).toEqual(['waterclock']);
  expect(loaded.filter((path) => path.includes('compare'))).toEqual([]);
});

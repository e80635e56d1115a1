// The client for pages, loaded from the server by pages of another origin.
import { type BrowserContext, chromium, type Page } from '@playwright/test';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import config, { patience } from '../playwright.config.ts';
import { blank, bundle, openOwn, type Pages, test } from './pages.ts';
import { type Server, expect, networkErrors, sign, streams } from './server.ts';

const allowedErrors = new RegExp(`${networkErrors.source}|WebSocket connection to .* failed`);
test.use({ allowedErrors });

/** Opens a page that subscribes, and records all that it is told in `window.told`. */
async function subscribe(page: Page, pages: Pages, server: Server, query: string, options: object = {}) {
  await page.goto(pages.origin);
  await page.evaluate(
    async ([url, query, options]) => {
      const { subscribe } = await import(`${url}/client.js`);
      const told: any = { events: [], gaps: [], ends: [], states: [] };
      const { tokens, ...rest } = options as any;
      const stream = subscribe(`${url}/events?${query}`, {
        ...rest,
        // Each call gives the next token. It throws one that is null.
        ...(tokens && {
          token() {
            told.token = tokens.length > 1 ? tokens.shift() : tokens[0];
            if (told.token === null) throw new Error('signed out');
            return told.token;
          },
        }),
        onEvent: (event: any) => told.events.push(event.data),
        onGap: (gap: any) => told.gaps.push(gap.reason),
        onEnd: (end: any) => told.ends.push(end),
        onState: (state: string, reason: any) => told.states.push(`${state} ${reason?.kind ?? ''}`.trim()),
      });
      Object.assign(window, { told, stream });
    },
    [server.url, query, options] as const,
  );
}

const told = (page: Page) => page.evaluate(() => (window as any).told);
const events = (page: Page) => page.evaluate(() => (window as any).told.events as string[]);
const state = (page: Page) => page.evaluate(() => (window as any).stream.state as string);

async function publish(server: Server, from: number, to: number, headers: HeadersInit = {}, topic = 't') {
  for (let n = from; n <= to; n++) {
    const response = await fetch(`${server.url}/events/${topic}`, { method: 'POST', headers, body: `${n}` });
    expect(response.status).toBe(201);
  }
}

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => `${from + i}`);

async function open(context: BrowserContext, count: number): Promise<Page[]> {
  return Promise.all(Array.from({ length: count }, () => context.newPage()));
}

test('tabs of another origin share one connection, which outlives its tab', async ({ context, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  const tabs = await open(context, 8);
  for (const tab of tabs) await subscribe(tab, pages, server, 'topic=t', { after: 'earliest' });
  await publish(server, 1, 5);
  for (const tab of tabs) await expect.poll(() => events(tab)).toEqual(numbers(1, 5));
  await expect.poll(() => streams(server)).toBe(1);
  await tabs[0].close();
  await publish(server, 6, 10);
  for (const tab of tabs.slice(1)) await expect.poll(() => events(tab)).toEqual(numbers(1, 10));
  await tabs[1].evaluate(() => (window as any).stream.close());
  await publish(server, 11, 12);
  for (const tab of tabs.slice(2)) await expect.poll(() => events(tab)).toEqual(numbers(1, 12));
  expect(await events(tabs[1])).toEqual(numbers(1, 10));
  await expect.poll(() => streams(server)).toBe(1);
});

test('a tab that does not share has a connection of its own', async ({ context, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  const tabs = await open(context, 2);
  for (const tab of tabs) await subscribe(tab, pages, server, 'topic=t', { share: false });
  // The events of these depend on the time of the request.
  await subscribe(tabs[1], pages, server, 'topic=t&limit=9');
  await expect.poll(() => state(tabs[1])).toBe('live');
  await subscribe(tabs[0], pages, server, 'topic=t&limit=9');
  await expect.poll(() => state(tabs[0])).toBe('live');
  await expect.poll(() => streams(server)).toBe(2);
});

test('without Web Locks, eight tabs read over WebSockets', async ({ context, server, pages }, info) => {
  server.data = info.outputPath('data');
  const options = ['--cors-origin', pages.origin, '--retry', '200ms'];
  await server.start(...options);
  // As over plain HTTP under any name but localhost.
  await context.addInitScript(() => Object.defineProperty(navigator, 'locks', { value: undefined }));
  const tabs = await open(context, 8);
  for (const tab of tabs) await subscribe(tab, pages, server, 'topic=t', { after: 'earliest' });
  await publish(server, 1, 3);
  for (const tab of tabs) await expect.poll(() => events(tab)).toEqual(numbers(1, 3));
  await expect.poll(() => streams(server)).toBe(8);
  await server.kill();
  await server.start(...options);
  await publish(server, 4, 5);
  for (const tab of tabs) await expect.poll(() => events(tab), { timeout: 15_000 * patience }).toEqual(numbers(1, 5));
  expect((await told(tabs[0])).gaps).toEqual([]);
});

test('without Web Locks, a token travels in a subprotocol', async ({ page, server, pages }, info) => {
  const [secret, file] = [randomBytes(32).toString('hex'), info.outputPath('secret')];
  writeFileSync(file, `${secret}\n`);
  await server.start('--cors-origin', pages.origin, '--require-token', '--jwt-secret-file', file);
  const seconds = Date.now() / 1000;
  const [old, late] = [-60, 600].map((lifetime) => {
    return sign(secret, { sub: 'ada', subscribe: ['t'], publish: ['t'], exp: seconds + lifetime });
  });
  await page.addInitScript(() => Object.defineProperty(navigator, 'locks', { value: undefined }));
  const sockets: string[] = [];
  page.on('websocket', (socket) => sockets.push(new URL(socket.url()).pathname));
  await subscribe(page, pages, server, 'topic=t', { tokens: [old, late] });
  await expect.poll(() => state(page), { timeout: 15_000 * patience }).toBe('live');
  expect(sockets).toEqual(['/ws', '/ws']);
  await publish(server, 1, 2, { Authorization: `Bearer ${late}` });
  await expect.poll(() => events(page)).toEqual(numbers(1, 2));
});

test('where no WebSocket gets through, a tab reads over SSE', async ({ page, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  await page.addInitScript(() => {
    Object.defineProperty(navigator, 'locks', { value: undefined });
    const { WebSocket } = window;
    window.WebSocket = class extends WebSocket {
      constructor(url: string | URL) {
        super(String(url).replace('/ws', '/no-socket'));
      }
    };
  });
  await subscribe(page, pages, server, 'topic=t', { after: 'earliest' });
  await expect.poll(() => state(page)).toBe('live');
  await publish(server, 1, 2);
  await expect.poll(() => events(page)).toEqual(numbers(1, 2));
});

test('it resumes after kill -9, and is told of a gap', async ({ context, server, pages }, info) => {
  server.data = info.outputPath('data');
  const options = ['--cors-origin', pages.origin, '--retry', '200ms'];
  await server.start(...options);
  const tabs = await open(context, 2);
  for (const tab of tabs) await subscribe(tab, pages, server, 'topic=t', { after: 'earliest' });
  await publish(server, 1, 3);
  for (const tab of tabs) await expect.poll(() => events(tab)).toEqual(numbers(1, 3));
  await server.kill();
  await server.start(...options);
  await publish(server, 4, 4);
  for (const tab of tabs) await expect.poll(() => events(tab), { timeout: 15_000 * patience }).toEqual(numbers(1, 4));
  for (const tab of tabs) expect((await told(tab)).gaps).toEqual([]);

  // The next server has another log.
  await server.stop();
  server.data = undefined;
  await server.start(...options);
  await publish(server, 5, 6);
  for (const tab of tabs) {
    await expect.poll(() => events(tab), { timeout: 15_000 * patience }).toEqual(numbers(1, 6));
    expect((await told(tab)).gaps).toEqual(['other-epoch']);
  }
});

test('a stream with a limit ends, for its loop too', async ({ page, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  await publish(server, 1, 5);
  await subscribe(page, pages, server, 'topic=t&limit=3', { after: 'earliest' });
  await expect.poll(() => state(page)).toBe('stopped');
  expect(await told(page)).toMatchObject({ events: numbers(1, 3), ends: [{ sent: 3 }] });
  const found = await page.evaluate(async (url) => {
    const { subscribe } = await import(`${url}/client.js`);
    const found: string[] = [];
    for await (const event of subscribe(`${url}/events/t?limit=4`, { after: 'earliest' })) found.push(event.data);
    return found;
  }, server.url);
  expect(found).toEqual(numbers(1, 4));
  await expect.poll(() => streams(server)).toBe(0);
});

test('tokens are renewed, and tabs with the same claims share', async ({ context, server, pages }, info) => {
  const [secret, file] = [randomBytes(32).toString('hex'), info.outputPath('secret')];
  writeFileSync(file, `${secret}\n`);
  const options = ['--require-token', '--jwt-secret-file', file, '--retry', '200ms'];
  await server.start('--cors-origin', pages.origin, ...options);
  const claims = { sub: 'ada', subscribe: ['t'], publish: ['t'] };
  const seconds = Date.now() / 1000;
  const [old, soon, late] = [-60, 4, 600].map((lifetime) => sign(secret, { ...claims, exp: seconds + lifetime }));
  const tabs = await open(context, 3);
  const other = sign(secret, { ...claims, sub: 'eve', exp: seconds + 600 });
  // The first is signed out at first, the second has an old token at first.
  const tokens = [[null, null, soon, late], [old, soon, late], [other]];
  for (const [i, tab] of tabs.entries()) await subscribe(tab, pages, server, 'topic=t', { tokens: tokens[i] });
  for (const tab of tabs) await expect.poll(() => state(tab)).toBe('live');
  expect((await told(tabs[0])).states).toContain('waiting token');
  const opened = () => server.log.filter((line) => line.includes('stream opened')).length;
  await expect.poll(opened).toBe(2);
  const event = await tabs[0].evaluate(
    async ([url, token]) => {
      const { publish } = await import(`${url}/client.js`);
      return publish(`${url}/events/t`, { n: 1 }, { name: 'first', token });
    },
    [server.url, late],
  );
  expect(event).toMatchObject({ topic: 't', name: 'first', data: '{"n":1}' });
  for (const tab of tabs) await expect.poll(() => events(tab)).toEqual(['{"n":1}']);
  // The stream ends when the token of its tab expires, and goes on with another.
  const used = async () => (await Promise.all(tabs.map(told))).map(({ token }) => token);
  await expect.poll(used, { timeout: 15_000 * patience }).toContain(late);
  await publish(server, 2, 3, { Authorization: `Bearer ${late}` });
  for (const tab of tabs) await expect.poll(() => events(tab), { timeout: 15_000 * patience }).toEqual(['{"n":1}', '2', '3']);
  await expect.poll(opened).toBe(3);
});

test('the hook for React starts, stops and continues', async ({ page, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  pages.files['/app.js'] = bundle(`
    import { StrictMode, createElement as h } from 'react';
    import { createRoot } from 'react-dom/client';
    import { useStream } from 'waterclock/react';
    function List() {
      const { events, state, start, stop } = useStream('${server.url}/events?topic=t', { limit: 4 });
      const restart = () => (stop(), start());
      const buttons = Object.entries({ start, stop, restart });
      return h('section', null,
        h('p', null, state),
        buttons.map(([name, onClick]) => h('button', { key: name, onClick }, name)),
        h('ul', null, events.map(({ id, data }) => h('li', { key: id }, data))));
    }
    createRoot(document.querySelector('main')).render(h(StrictMode, null, h(List)));
  `);
  pages.files['/'] = `${blank}<script type="module" src="/app.js"></script>`;
  await page.goto(pages.origin);
  await expect(page.locator('p')).toHaveText('live');
  await publish(server, 1, 3);
  await expect(page.locator('li')).toHaveText(numbers(1, 3));
  const button = (name: string) => page.getByRole('button', { name, exact: true });
  await button('stop').click();
  await expect(page.locator('p')).toHaveText('stopped');
  await expect.poll(() => streams(server)).toBe(0);
  await publish(server, 4, 6);
  await button('start').click();
  await expect(page.locator('li')).toHaveText(numbers(3, 6));
  // Both in one turn.
  await button('restart').click();
  await expect(page.locator('p')).toHaveText('live');
  await publish(server, 7, 7);
  await expect(page.locator('li')).toHaveText(numbers(4, 7));
  await expect.poll(() => streams(server)).toBe(1);
});

test('the hook for React follows its options', async ({ page, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  pages.files['/app.js'] = bundle(`
    import { StrictMode, createElement as h } from 'react';
    import { createRoot } from 'react-dom/client';
    import { useStream } from 'waterclock/react';
    const seen = window.seen = { renders: [], called: [] };
    function App({ topic, ...options }) {
      const { events, state } = useStream('${server.url}/events?topic=' + topic, {
        ...options,
        onEvent: ({ data }) => seen.called.push([topic, data]),
      });
      seen.renders.push([topic, state, events.map(({ data }) => data)]);
      return h('p', null, state);
    }
    const root = createRoot(document.querySelector('main'));
    window.show = (props) => root.render(h(StrictMode, null, h(App, props)));
  `);
  pages.files['/'] = `${blank}<script type="module" src="/app.js"></script>`;
  await page.goto(pages.origin);
  const show = (props: object) => page.evaluate((props) => (window as any).show(props), props);
  const seen = () => page.evaluate(() => (window as any).seen);
  const last = async () => (await seen()).renders.at(-1);
  const opened = () => server.log.filter((line) => line.includes('stream opened')).length;

  await show({ topic: 't', share: false });
  await expect.poll(last).toEqual(['t', 'live', []]);
  await publish(server, 1, 2);
  await expect.poll(last).toEqual(['t', 'live', ['1', '2']]);
  // StrictMode mounts it twice, but the first stream is closed before it is opened.
  await expect.poll(opened).toBe(1);

  // Another token is another stream, which continues.
  for (const [i, token] of ['one', 'two'].entries()) {
    await show({ topic: 't', share: false, token });
    await expect.poll(opened).toBe(i + 2);
  }
  await publish(server, 3, 3);
  await expect.poll(last).toEqual(['t', 'live', ['1', '2', '3']]);
  expect((await seen()).renders.map(([, state]: string[]) => state)).not.toContain('stopped');

  // A text that is refused is not sent a second time.
  let refused = 0;
  await page.route(`${server.url}/events?*`, (route) => {
    refused += 1;
    return route.fulfill({ status: 401, headers: { 'Access-Control-Allow-Origin': pages.origin } });
  });
  await show({ topic: 'refused', share: false, token: 'three' });
  await expect.poll(last).toEqual(['refused', 'refused', []]);
  expect(refused).toBe(1);
  await page.unroute(`${server.url}/events?*`);

  // Nothing of the first topic is seen with the second.
  await show({ topic: 'u', share: false, limit: 0 });
  await expect.poll(last).toEqual(['u', 'live', []]);
  await publish(server, 4, 5, {}, 'u');
  await expect.poll(async () => (await seen()).called.slice(-2)).toEqual([['u', '4'], ['u', '5']]);
  const later = (await seen()).renders.filter(([topic]: string[]) => topic === 'u');
  expect(later.filter(([, , events]: string[][]) => events.length > 0)).toEqual([]);
});

test('the end of a topic ends its streams, and is told to readers of a pattern', async ({ context, server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  const tabs = await open(context, 4);
  const queries = ['topic=t.u', 'topic=t.u', 'topic=t.*', 'topic=t.u'];
  for (const i of [0, 1, 2]) await subscribe(tabs[i], pages, server, queries[i], { after: 'earliest' });
  await publish(server, 1, 2, {}, 't.u');
  for (const i of [0, 1, 2]) await expect.poll(() => events(tabs[i])).toEqual(['1', '2']);
  const response = await fetch(`${server.url}/events/t.u?end=failed`, { method: 'POST', body: 'no answer' });
  expect(response.ok).toBe(true);
  // One comes later.
  await expect.poll(() => state(tabs[0])).toBe('stopped');
  await subscribe(tabs[3], pages, server, queries[3], { after: 'earliest' });
  const end = { topic: 't.u', outcome: 'failed', message: 'no answer' };
  for (const i of [0, 1, 3]) {
    await expect.poll(() => state(tabs[i])).toBe('stopped');
    expect(await told(tabs[i])).toMatchObject({ events: ['1', '2'], ends: [{ ...end, last: true }] });
  }
  await expect.poll(async () => (await told(tabs[2])).ends).toMatchObject([end]);
  expect(await state(tabs[2])).toBe('live');
  await expect.poll(() => streams(server)).toBe(1);
  const publishing = () =>
    tabs[0].evaluate(async (url) => {
      const { publish } = await import(`${url}/client.js`);
      return publish(`${url}/events/t.u`, 'x').catch((error: any) => [error.name, error.status, error.message]);
    }, server.url);
  // A page of another origin needs a token to publish.
  expect(await publishing()).toEqual(['PublishError', 403, expect.stringContaining('another origin')]);
  await openOwn(tabs[0], server);
  expect(await publishing()).toEqual(['PublishError', 409, expect.stringContaining('has ended')]);
  const named = await tabs[0].evaluate(async (url) => {
    const { publish } = await import(`${url}/client.js`);
    return publish(`${url}/events/t.v`, 'x', { name: 'two\nlines' }).catch((error: any) => error.status);
  }, server.url);
  expect(named).toBe(400);
});

test('a server that is gone is the reason over each transport, until it is back', async ({ context, server, pages }) => {
  await server.start('--cors-origin', pages.origin, '--retry', '200ms');
  const tabs = await open(context, 3);
  const [sse, fetched, socket] = tabs;
  await socket.addInitScript(() => Object.defineProperty(navigator, 'locks', { value: undefined }));
  await subscribe(sse, pages, server, 'topic=t', { share: false });
  await subscribe(fetched, pages, server, 'topic=t', { share: false, tokens: ['token'] });
  await subscribe(socket, pages, server, 'topic=t');
  for (const tab of tabs) await expect.poll(() => state(tab)).toBe('live');
  await server.kill();
  for (const tab of tabs) {
    const states = async () => (await told(tab)).states;
    await expect.poll(states, { timeout: 15_000 * patience }).toContain('waiting unreachable');
  }
  await server.start('--cors-origin', pages.origin, '--retry', '200ms');
  for (const tab of tabs) await expect.poll(() => state(tab), { timeout: 15_000 * patience }).toBe('live');
});

test('a page in the back/forward cache passes its connection on, and resumes when it is back', async ({ server, pages }) => {
  await server.start('--cors-origin', pages.origin);
  // Playwright disables the cache.
  const { launchOptions } = config.projects![0].use!;
  const browser = await chromium.launch({
    ...launchOptions,
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
  });
  try {
    const [leader, tab] = await open(await browser.newContext(), 2);
    for (const one of [leader, tab]) {
      await subscribe(one, pages, server, 'topic=t', { after: 'earliest' });
      await expect.poll(() => state(one)).toBe('live');
    }
    await leader.evaluate(() => Object.assign(window, { isKept: true }));
    await leader.goto(`${pages.origin}/another`);
    await publish(server, 1, 3);
    await expect.poll(() => events(tab)).toEqual(numbers(1, 3));
    await expect.poll(() => streams(server)).toBe(1);
    await leader.goBack({ waitUntil: 'commit' });
    await expect.poll(() => events(leader)).toEqual(numbers(1, 3));
    expect(await leader.evaluate(() => 'isKept' in window)).toBe(true);
    await publish(server, 4, 4);
    for (const one of [leader, tab]) await expect.poll(() => events(one)).toEqual(numbers(1, 4));
    await expect.poll(() => streams(server)).toBe(1);
  } finally {
    await browser.close();
  }
});

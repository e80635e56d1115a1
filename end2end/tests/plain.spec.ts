// The plain reading mode: without its program, the page shows what the server renders, refreshes
// it, and claims nothing that may be wrong.
import { chromium, type Page } from '@playwright/test';
import config, { patience } from '../playwright.config.ts';
import { Proxy } from './proxy.ts';
import { count, expect, networkErrors, type Server, state, streams, test } from './server.ts';

const fast = ['--interval', '100ms'];
const notice = (page: Page) => page.locator('#not-running');
const rows = (page: Page) => page.locator('.rows .event');
const asOf = (page: Page) => page.locator('#as-of').textContent();

/** Returns the sequence number of the newest event that the list shows. */
const newest = async (page: Page) => Number(await rows(page).last().locator('.id').textContent());
const isInView = (page: Page) => expect(rows(page).last()).toBeInViewport();

async function withEvents(server: Server, ...options: string[]) {
  await server.start(...(options.length ? options : fast));
  await expect.poll(() => server.newest()).toBeGreaterThan(4);
}

test.describe('without WebAssembly', () => {
  test.use({ allowedErrors: networkErrors });

  test.beforeEach(async ({ page }) => {
    await page.clock.install();
    await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'WebAssembly'));
  });

  test('the list is refreshed, and what the reader does is left alone', async ({ page, server }) => {
    await withEvents(server);
    await page.setViewportSize({ width: 800, height: 560 });
    await page.goto(server.url);
    await expect(notice(page)).toContainText('Its program needs WebAssembly');
    await expect(notice(page)).toContainText('The newest events are fetched every 5 s.');
    await isInView(page);
    await expect(page.locator('button:enabled').filter({ visible: true })).toHaveText(['Show']);
    await expect(page.locator('.sharing')).toHaveCount(0);
    // With suggestions, it is a combobox.
    const field = page.getByLabel('Topics');
    await field.pressSequentially('orders.');
    for (const _ of ['first', 'second']) {
      const [before, time] = [await newest(page), await asOf(page)];
      await expect.poll(() => server.newest()).toBeGreaterThan(before + 12);
      await page.clock.runFor(5_000);
      await expect.poll(() => newest(page)).toBeGreaterThan(before + 12);
      expect(await asOf(page)).not.toBe(time);
      await isInView(page);
    }
    await page.keyboard.type('eu');
    await expect(field).toHaveValue('orders.eu');
    // While the reader has scrolled back, the list rests.
    const list = page.locator('.scroller');
    await list.evaluate((list) => (list.scrollTop = -100));
    const [resting, time] = [await newest(page), await asOf(page)];
    let requests = 0;
    page.on('request', () => requests++);
    await page.clock.runFor(30_000);
    expect([await newest(page), await asOf(page), requests]).toEqual([resting, time, 0]);
    await list.evaluate((list) => (list.scrollTop = 0));
    await page.clock.runFor(5_000);
    await expect.poll(() => newest(page)).toBeGreaterThan(resting);
    await expect(page).toHaveTitle('✕ Not running · Waterclock');
    await expect(page.locator('.status')).toHaveText('Not connected');
    await page.getByRole('button', { name: 'Show' }).click();
    await expect(page.getByText('No events yet.')).toBeVisible();
  });

  test('a server that is away is asked less often, and the page says so', async ({ page, server }) => {
    await withEvents(server);
    await page.goto(server.url);
    await expect(notice(page)).toContainText('every 5 s.');
    const [last, time] = [await newest(page), await asOf(page)];
    await server.kill();
    for (const wait of [10, 20, 40, 60, 60]) {
      await page.clock.runFor((wait === 10 ? 5 : wait === 60 ? 60 : wait / 2) * 1000);
      await expect(notice(page)).toContainText(`The newest events cannot be fetched. Next try in ${wait} s.`);
    }
    expect([await newest(page), await asOf(page)]).toEqual([last, time]);
    // A page of a proxy in the place of the server's is no list.
    await page.route(server.url, (route) => route.fulfill({ contentType: 'text/html', body: '<h1>Log in</h1>' }));
    await page.clock.runFor(60_000);
    await expect(notice(page)).toContainText('Next try in 60 s.');
    await page.unroute(server.url);
    await withEvents(server);
    await page.clock.runFor(60_000);
    await expect(notice(page)).toContainText('every 5 s.');
    await expect(rows(page).first()).toBeVisible();
  });

  test('the reader can pause it, and then reads more events', async ({ page, server }) => {
    await server.start('--interval', '5ms');
    await expect.poll(() => server.newest()).toBeGreaterThan(100);
    // The name of a topic is no choice.
    await page.goto(`${server.url}/?topic=clock&topic=page.refresh`);
    await notice(page).getByRole('link', { name: 'Pause' }).click();
    await expect(page).toHaveURL(`${server.url}/?topic=clock&topic=page.refresh&refresh=0`);
    await expect(rows(page)).toHaveCount(100);
    await isInView(page);
    const [last, time] = [await newest(page), await asOf(page)];
    await page.clock.runFor(30_000);
    expect([await newest(page), await asOf(page)]).toEqual([last, time]);
    await notice(page).getByRole('link', { name: 'Refresh every 5 s' }).click();
    await expect(page).toHaveURL(`${server.url}/?topic=clock&topic=page.refresh`);
    await expect(notice(page)).toContainText('every 5 s.');
  });
});

test('a program that arrives late takes the place of the refreshed list', async ({ page, server }) => {
  await withEvents(server);
  await page.clock.install();
  let start = () => {};
  const started = new Promise<void>((done) => (start = done));
  await page.route('**/*.wasm', (route) => started.then(() => route.continue()));
  await page.goto(server.url, { waitUntil: 'commit' });
  await expect(rows(page).first()).toBeAttached();
  const before = await newest(page);
  await expect.poll(() => server.newest()).toBeGreaterThan(before);
  await page.clock.runFor(10_000);
  await expect.poll(() => newest(page)).toBeGreaterThan(before);
  await expect(page).toHaveTitle('Waterclock');
  start();
  await expect(state(page)).toHaveText('Live');
  await expect(notice(page)).toBeHidden();
  await expect(page.locator('.columns')).toBeVisible();
  let documents = 0;
  page.on('request', (request) => (documents += Number(request.url() === `${server.url}/`)));
  await page.clock.runFor(30_000);
  expect(documents).toBe(0);
});

test.describe('without JavaScript', () => {
  // The browser preloads the module that will not run.
  test.use({ javaScriptEnabled: false, allowedErrors: /was preloaded using link preload but not used/ });

  test('the page is loaded again every 5 s, unless the reader pauses it', async ({ page, server }) => {
    await withEvents(server);
    await page.setViewportSize({ width: 360, height: 560 });
    await page.goto(server.url);
    await expect(page).toHaveTitle('Waterclock');
    await expect(state(page)).toHaveText('Not connected');
    await expect(notice(page)).toContainText('This page is not running.');
    for (const needs of await page.locator('#not-running noscript').all()) await expect(needs).toBeVisible();
    await expect(page.getByText(`curl -N ${server.url}/events`)).toBeAttached();
    await isInView(page);
    // Nothing that would need a script, and no field whose text the next load would take away.
    await expect(page.getByRole('textbox')).toHaveCount(0);
    await expect(page.locator('button:not(.data)').filter({ visible: true })).toHaveCount(0);
    await expect(page.getByRole('combobox')).toHaveCount(0);
    const before = await newest(page);
    await expect.poll(() => newest(page), { timeout: 15_000 * patience }).toBeGreaterThan(before + 20);

    await page.getByRole('link', { name: 'Pause' }).click();
    await expect(page).toHaveURL(`${server.url}/?refresh=0`);
    await expect(page.locator('meta[http-equiv=refresh]')).toHaveCount(0);
    expect(await rows(page).count()).toBeGreaterThan(20);
    await page.getByRole('textbox', { name: 'Topics' }).fill('nothing.*');
    await page.getByRole('button', { name: 'Show' }).click();
    await expect(page).toHaveURL(`${server.url}/?topic=nothing.*`);
    await expect(page.getByText('No events yet.')).toBeVisible();
    await expect(page.locator('meta[http-equiv=refresh]')).toHaveCount(1);
  });
});

test.describe('a document that something else has rewritten', () => {
  // A copy of the list brings its styles as attributes, which the page's policy refuses.
  test.use({ allowedErrors: /panicked at|Content Security Policy/ });

  const rewrites: Record<string, () => void> = {
    'the whole body': () => void (document.body.innerHTML += ' '),
    'the page': () => {
      const page = document.getElementById('page')!;
      page.replaceWith(page.cloneNode(true));
    },
    'the state': () => document.querySelectorAll('.status').forEach((status) => (status.innerHTML += '')),
    'the list': () => document.querySelectorAll('.list').forEach((list) => (list.innerHTML += '')),
  };
  for (const [name, rewrite] of Object.entries(rewrites)) {
    test(`claims nothing: ${name}`, async ({ page, server }) => {
      await server.start(...fast);
      await page.goto(server.url);
      await expect(page).toHaveTitle('● Live · Waterclock');
      await page.evaluate(rewrite);
      await expect(notice(page)).toContainText('Something else, such as an extension, has rewritten it.');
      await expect(page).toHaveTitle('✕ Not running · Waterclock');
      await expect(page.locator('.status')).toHaveText('Not connected');
      await expect(page.getByText('1 tab, 1 connection')).toHaveCount(0);
      await expect(rows(page).last()).toBeVisible();
      await expect.poll(() => streams(server)).toBe(0);
      await notice(page).getByRole('link', { name: 'Reload the page' }).click();
      await expect(state(page)).toHaveText('Live');
    });
  }

  test('on its way to the browser says so', async ({ page, server }) => {
    await withEvents(server);
    await page.route(server.url, async (route) => {
      const response = await route.fetch();
      const html = await response.text();
      await route.fulfill({ response, body: html.replace(/<script id="data".*?<\/script>/, '') });
    });
    await page.goto(server.url, { waitUntil: 'commit' });
    await expect(notice(page)).toContainText(/could not be started: .*the document has been rewritten/s);
    await expect(page).toHaveTitle('✕ Not running · Waterclock');
    await expect(rows(page).last()).toBeVisible();
  });
});

test('a program that fails in a promise does not go on as live', async ({ page, server }) => {
  await server.start(...fast);
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  const reject = (name: string, file: string) =>
    page.evaluate(
      ([name, file]) => {
        const url = document.querySelector<HTMLLinkElement>(`link[href*="${file}"]`)?.href ?? file;
        const reason = Object.assign(name === 'RuntimeError' ? new WebAssembly.RuntimeError('trap') : new Error('no'), {
          stack: `${name}: trap\n    at waterclock.wasm (${url}:wasm-function[7]:0x1234)`,
        });
        const promise = Promise.reject(reason);
        promise.catch(() => {});
        dispatchEvent(new PromiseRejectionEvent('unhandledrejection', { promise, reason }));
      },
      [name, file],
    );
  // That of an extension, and one that the program can live with.
  await reject('RuntimeError', 'https://extension.example/other.wasm');
  await reject('Error', '.wasm');
  await expect(state(page)).toHaveText('Live');
  await reject('RuntimeError', '.wasm');
  await expect(notice(page)).toContainText('Its program has failed, which is a bug: RuntimeError: trap');
  await expect(page).toHaveTitle('✕ Not running · Waterclock');
  await expect.poll(() => streams(server)).toBe(0);
});

test.describe('a stream that dies without a sign', () => {
  test.use({ allowedErrors: networkErrors });

  for (const transport of ['SSE', 'WebSocket']) {
    test(`is not live for long, over ${transport}`, async ({ page, server }) => {
      await server.start('--interval', '1h', '--heartbeat', '1s');
      const proxy = new Proxy((target) => (/^\/(events|ws)\?/.test(target) ? 'stream' : 'other'));
      await proxy.start(server.url);
      try {
        if (transport === 'WebSocket') {
          await page.addInitScript(() => Object.defineProperty(Navigator.prototype, 'locks', { value: undefined }));
        }
        await page.goto(proxy.url);
        await expect(page).toHaveTitle('● Live · Waterclock');
        const since = proxy.counts.get('stream')!.sent;
        await expect.poll(() => proxy.counts.get('stream')!.sent).toBeGreaterThan(since);
        // As behind a router that has forgotten the connection: nothing arrives.
        proxy.delays.set('stream', 120_000);
        await expect(state(page)).toHaveText('No heartbeat, reconnecting', { timeout: 20_000 * patience });
        await expect(page).toHaveTitle('◌ No heartbeat, reconnecting · Waterclock');
      } finally {
        proxy.stop();
      }
    });
  }

  test('is not live after the tab was frozen', async ({ page, context, server }) => {
    await server.start(...fast);
    await page.goto(server.url);
    await expect(page).toHaveTitle('● Live · Waterclock');
    const browser = await context.newCDPSession(page);
    await browser.send('Page.setWebLifecycleState', { state: 'frozen' });
    await server.kill();
    await browser.send('Page.setWebLifecycleState', { state: 'active' });
    await expect(page).toHaveTitle('◌ Connection lost, reconnecting · Waterclock');
    await expect(state(page)).toHaveText('Connection lost, reconnecting');
  });
});

test.describe('back from the back/forward cache', () => {
  test('a page whose server is gone never says Live', async ({ server }) => {
    await server.start(...fast);
    const { launchOptions } = config.projects![0].use!;
    // Playwright disables the cache.
    const ignoreDefaultArgs = ['--disable-back-forward-cache'];
    const browser = await chromium.launch({ ...launchOptions, ignoreDefaultArgs });
    try {
      const page = await browser.newPage();
      await page.goto(server.url);
      await expect(page).toHaveTitle('● Live · Waterclock');
      await page.evaluate(() => {
        const said: string[] = [];
        const say = () => said.push(document.title, document.querySelector('.state')!.textContent!);
        // Before anything else that the page does when it is back.
        addEventListener('pageshow', say, true);
        new MutationObserver(say).observe(document, { subtree: true, childList: true, characterData: true });
        addEventListener('pagehide', () => (said.length = 0));
        Object.assign(window, { said });
      });
      await page.goto(`${server.url}/openapi.json`);
      await server.kill();
      await page.goBack({ waitUntil: 'commit' });
      await expect(state(page)).not.toHaveText(/^(Live|Connecting|Not connected)$/);
      const said = await page.evaluate(() => (window as unknown as { said: string[] }).said);
      expect(said.length).toBeGreaterThan(2);
      expect(said.filter((text) => text.includes('Live'))).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});

// Tabs share one connection, even if the tab that holds it is closed, crashes or sleeps.
import { type BrowserContext, chromium, type Page } from '@playwright/test';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import config, { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, networkErrors, sequences, sign, state, streams, test } from './server.ts';

const fast = ['--interval', '10ms', '--retry', '200ms'];

/** Opens several tabs. */
async function open(context: BrowserContext, url: string, count: number): Promise<Page[]> {
  const tabs: Page[] = [];
  for (let i = 0; i < count; i++) tabs.push(await openOne(context, url));
  return tabs;
}

async function openOne(context: BrowserContext, url: string): Promise<Page> {
  const tab = await context.newPage();
  await tab.goto(url);
  return tab;
}

/** Returns the events and the ends of topics in the list, oldest first. */
const lines = (tab: Page) =>
  tab.locator('.rows li').evaluateAll((rows) =>
    rows.map((row) => row.querySelector(row.className === 'event' ? '.data' : '.about')!.textContent),
  );

/** Opens twenty tabs at once, and expects all of them to tick. The result is the tabs. */
async function twenty(context: BrowserContext, url: string): Promise<Page[]> {
  const tabs = await Promise.all(Array.from({ length: 20 }, () => openOne(context, url)));
  for (const tab of tabs) await expect(state(tab)).toHaveText('Live', { timeout: 20_000 * patience });
  const before = await Promise.all(tabs.map(count));
  for (const [i, tab] of tabs.entries()) {
    await expect.poll(() => count(tab), { timeout: 20_000 * patience }).toBeGreaterThan(before[i] + 1);
  }
  return tabs;
}

/** Takes Web Locks from the browser. */
const withoutLocks = () => Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });

const sharing = (tab: Page) => tab.locator('.sharing');

test.describe('tabs', () => {
  test.use({ allowedErrors: networkErrors });

  test('twelve of them tick over one connection', async ({ context, server }) => {
    test.setTimeout(90_000 * patience);
    await server.start('--interval', '100ms');
    const tabs = await open(context, server.url, 12);
    for (const tab of tabs) {
      await expect(state(tab)).toHaveText('Live');
      await expect(sharing(tab)).toHaveText('12 tabs, 1 connection', { timeout: 10_000 * patience });
    }
    const before = await Promise.all(tabs.map(count));
    for (const [i, tab] of tabs.entries()) {
      await expect.poll(() => count(tab)).toBeGreaterThan(before[i] + 5);
    }
    await expect.poll(() => streams(server)).toBe(1);
    await Promise.all(tabs.slice(1).map((tab) => tab.close()));
    await expect(sharing(tabs[0])).toHaveText('1 tab, 1 connection');
  });

  test('the leader is closed ten times in a row, and no tab misses an event', async ({ context, server }) => {
    test.setTimeout(60_000 * patience);
    await server.start(...fast);
    const leaders = await open(context, server.url, 10);
    const tabs = await open(context, server.url, 2);
    for (const leader of leaders) {
      const before = await Promise.all(tabs.map(count));
      await leader.close();
      for (const [i, tab] of tabs.entries()) {
        await expect.poll(() => count(tab)).toBeGreaterThan(before[i] + 20);
      }
    }
    await expect.poll(() => streams(server)).toBe(1);
    for (const tab of tabs) {
      await tab.bringToFront();
      await tab.getByRole('button', { name: 'Stop' }).click();
      const events = await sequences(tab);
      expect(events.length).toBe(await count(tab));
      expectConsecutive(events);
    }
    await expect.poll(() => streams(server)).toBe(0);
  });

  test('Stop stops one tab, and another takes over the connection', async ({ context, server }) => {
    await server.start(...fast);
    const [first, second] = await open(context, server.url, 2);
    await expect(sharing(first)).toHaveText('2 tabs, 1 connection');
    await first.getByRole('button', { name: 'Stop' }).click();
    await expect(state(first)).toHaveText('Stopped');
    await expect(sharing(second)).toHaveText('1 tab, 1 connection');
    const before = await count(second);
    await expect.poll(() => count(second)).toBeGreaterThan(before + 20);
    await expect.poll(() => streams(server)).toBe(1);

    await first.getByRole('button', { name: 'Connect' }).click();
    await expect(state(first)).toHaveText('Live');
    await expect.poll(() => count(first)).toBeGreaterThan(before + 20);
    await expect.poll(() => streams(server)).toBe(1);
    await first.getByRole('button', { name: 'Stop' }).click();
    expectConsecutive(await sequences(first));
  });

  test('tabs with other topics have another connection', async ({ context, server }) => {
    await server.start(...fast);
    const clock = await openOne(context, server.url);
    const other = await openOne(context, `${server.url}/?topic=other+clock`);
    const same = await openOne(context, `${server.url}/?topic=clock+other`);
    await expect(sharing(clock)).toHaveText('1 tab, 1 connection');
    await expect(sharing(other)).toHaveText('2 tabs, 1 connection');
    await expect(sharing(same)).toHaveText('2 tabs, 1 connection');
    await expect.poll(() => streams(server)).toBe(2);
  });

  test('the leader crashes', async ({ context, server }) => {
    await server.start(...fast);
    const [leader, tab] = await open(context, server.url, 2);
    await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
    const crashed = leader.waitForEvent('crash');
    (await context.newCDPSession(leader)).send('Page.crash').catch(() => {});
    await crashed;
    await expect(sharing(tab)).toHaveText('1 tab, 1 connection');
    const before = await count(tab);
    await expect.poll(() => count(tab)).toBeGreaterThan(before + 20);
    await expect.poll(() => streams(server)).toBe(1);
    await tab.getByRole('button', { name: 'Stop' }).click();
    expectConsecutive(await sequences(tab));
  });

  test('the leader sleeps', async ({ context, server }) => {
    test.setTimeout(90_000 * patience);
    await server.start(...fast, '--heartbeat', '1s');
    const [leader, tab] = await open(context, server.url, 2);
    await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
    // Like a tab that the browser has put to sleep, it handles nothing while it waits for this
    // response.
    const asleep = leader.evaluate(() => {
      const request = new XMLHttpRequest();
      request.open('GET', '/poll?topic=quiet&wait=30', false);
      request.send();
    });
    let isAsleep = true;
    asleep.then(() => (isAsleep = false));
    const before = await count(tab);
    // More than the messages that were in flight before, and while it sleeps.
    await expect.poll(() => count(tab), { timeout: 25_000 }).toBeGreaterThan(before + 200);
    expect(isAsleep).toBe(true);
    await asleep;
    await expect(sharing(leader)).toHaveText('2 tabs, 1 connection');
    await expect.poll(() => streams(server)).toBe(1);
    const after = await count(leader);
    await expect.poll(() => count(leader)).toBeGreaterThan(after + 20);
    for (const one of [leader, tab]) expectConsecutive(await sequences(one));
  });

  test('the end of the stream is for all tabs', async ({ context, server }) => {
    await server.start(...fast);
    const tabs = await open(context, server.url, 3);
    for (const tab of tabs) await expect(sharing(tab)).toHaveText('3 tabs, 1 connection');
    let requests = 0;
    await context.route('**/events?*', (route) => (requests++, route.fulfill({ status: 204 })));
    await server.kill();
    for (const tab of tabs) await expect(state(tab)).toHaveText('Stopped. The stream has ended');
    // The browser's own attempt, and the page's request for the reason.
    expect(requests).toBeLessThanOrEqual(2);
    await context.unroute('**/events?*');
    await server.start(...fast);
    for (const tab of tabs) await tab.getByRole('button', { name: 'Connect' }).click();
    for (const tab of tabs) await expect(sharing(tab)).toHaveText('3 tabs, 1 connection');
    await expect.poll(() => streams(server)).toBe(1);
  });

  test('a topic ends once in each tab, in order, also in one that has missed something', async ({ context, server }) => {
    await server.start('--interval', '1h', '--retry', '200ms');
    const url = `${server.url}/?topic=a,b,c`;
    const leader = await openOne(context, url);
    await expect(state(leader)).toHaveText('Live');
    const tab = await context.newPage();
    await tab.addInitScript(() => {
      // It misses those messages of the leader that have this name.
      const { set } = Object.getOwnPropertyDescriptor(BroadcastChannel.prototype, 'onmessage')!;
      Object.defineProperty(BroadcastChannel.prototype, 'onmessage', {
        set(handle: ((event: MessageEvent) => void) | null) {
          const missed = () => (window as unknown as { missed?: string }).missed;
          set!.call(this, handle && ((event: MessageEvent) => event.data[2] !== missed() && handle(event)));
        },
      });
    });
    await tab.goto(url);
    for (const one of [leader, tab]) await expect(sharing(one)).toHaveText('2 tabs, 1 connection');
    const miss = (missed: string) => tab.evaluate((missed) => Object.assign(window, { missed }), missed);
    const publish = async (path: string, body = '') => {
      const answer = await fetch(`${server.url}/events/${path}`, { method: 'POST', body });
      expect(answer.ok).toBe(true);
    };
    // Both the event and the end are fetched.
    await miss('end');
    await publish('a', '1. a');
    await publish('a?end');
    await publish('b', '1. b');
    const first = ['1. a', 'Topic ended: a', '1. b'];
    for (const one of [leader, tab]) await expect.poll(() => lines(one)).toEqual(first);
    // The end is fetched, and the leader's message comes, too.
    await miss('message');
    await publish('b', '2. b');
    await publish('b?end=failed', 'disk full');
    const second = [...first, '2. b', 'Topic failed: b: disk full'];
    for (const one of [leader, tab]) await expect.poll(() => lines(one)).toEqual(second);
    await miss('');
    await publish('c', '1. c');
    await publish('c?end');
    const late = await openOne(context, url);
    for (const one of [leader, tab, late]) {
      await expect(state(one)).toHaveText('Stopped. The stream has ended');
      await expect.poll(() => lines(one)).toEqual([...second, '1. c', 'Topic ended: c']);
    }
  });

  test('a page goes into the back/forward cache and comes back', async ({ server }) => {
    await server.start(...fast);
    // Playwright disables the cache.
    const { launchOptions } = config.projects![0].use!;
    const browser = await chromium.launch({
      ...launchOptions,
      ignoreDefaultArgs: ['--disable-back-forward-cache'],
    });
    try {
      const context = await browser.newContext();
      const [leader, tab] = await open(context, server.url, 2);
      await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
      await leader.evaluate(() => Object.assign(window, { isKept: true }));
      await leader.goto(`${server.url}/openapi.json`);
      await expect(sharing(tab)).toHaveText('1 tab, 1 connection');
      const before = await count(tab);
      await expect.poll(() => count(tab)).toBeGreaterThan(before + 20);
      await leader.goBack({ waitUntil: 'commit' });
      await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
      expect(await leader.evaluate(() => 'isKept' in window)).toBe(true);
      await expect.poll(() => count(leader)).toBeGreaterThan(before + 20);
      await expect.poll(() => streams(server)).toBe(1);
      for (const one of [leader, tab]) expectConsecutive(await sequences(one));
    } finally {
      await browser.close();
    }
  });

  test('without Web Locks, each tab has its own connection and says so', async ({ context, server }) => {
    await server.start(...fast);
    await context.addInitScript(withoutLocks);
    for (const tab of await open(context, server.url, 2)) {
      await expect(sharing(tab)).toContainText('This tab has its own connection');
      await expect(state(tab)).toHaveText('Live');
    }
    await expect.poll(() => streams(server)).toBe(2);
  });

  test('over plain HTTP, more tabs than HTTP/1.1 has connections load and miss nothing', async ({ server }, info) => {
    test.setTimeout(90_000 * patience);
    server.data = info.outputPath('data');
    const options = [...fast, '--allowed-host', 'waterclock.test'];
    await server.start(...options);
    // Browsers trust plain HTTP on localhost only, so this name has no Web Locks.
    const { launchOptions } = config.projects![0].use!;
    const browser = await chromium.launch({
      ...launchOptions,
      args: [...launchOptions!.args!, '--host-resolver-rules=MAP waterclock.test 127.0.0.1'],
    });
    try {
      const url = server.url.replace('127.0.0.1', 'waterclock.test');
      const tabs = await open(await browser.newContext(), url, 8);
      const receive = () =>
        Promise.all(
          tabs.map(async (tab) => {
            const before = await count(tab);
            await expect.poll(() => count(tab), { timeout: 15_000 * patience }).toBeGreaterThan(before + 20);
          }),
        );
      for (const tab of tabs) {
        expect(await tab.evaluate(() => isSecureContext)).toBe(false);
        await expect(sharing(tab)).toContainText('This tab has its own connection');
      }
      await receive();
      await expect.poll(() => streams(server)).toBe(8);
      await server.kill();
      await server.start(...options);
      await receive();
      await server.stop();
      await expect(state(tabs[0])).toContainText('No connection. The server is shutting down');
      await server.start(...options);
      await receive();
      for (const tab of tabs) {
        await tab.bringToFront();
        await tab.getByRole('button', { name: 'Stop' }).click();
        expectConsecutive(await sequences(tab));
      }
      await expect.poll(() => streams(server)).toBe(0);
    } finally {
      await browser.close();
    }
  });

  test('over plain HTTP on a name that is not localhost, twenty tabs tick', async ({ server }) => {
    test.setTimeout(90_000 * patience);
    server.host = '127.0.0.2';
    await server.start('--interval', '1s', '--allowed-host', 'waterclock.test');
    // Browsers trust plain HTTP on all of 127.0.0.0/8, but not on this name.
    const { launchOptions } = config.projects![0].use!;
    const browser = await chromium.launch({
      ...launchOptions,
      args: [...launchOptions!.args!, `--host-resolver-rules=MAP waterclock.test ${server.host}`],
    });
    try {
      const context = await browser.newContext();
      const tabs = await twenty(context, server.url.replace(server.host, 'waterclock.test'));
      expect(await tabs[0].evaluate(() => [isSecureContext, 'locks' in navigator])).toEqual([false, false]);
      await expect.poll(() => streams(server)).toBe(20);
    } finally {
      await browser.close();
    }
  });

  test.describe('over TLS', () => {
    test.use({ ignoreHTTPSErrors: true });

    test('twenty tabs tick over one connection of HTTP/2', async ({ context, server }, info) => {
      test.setTimeout(90_000 * patience);
      server.data = info.outputPath('data');
      await server.start('--interval', '1s', '--tls-self-signed');
      const tabs = await twenty(context, server.url);
      for (const tab of tabs) await expect(sharing(tab)).toHaveText('20 tabs, 1 connection');
      for (const tab of tabs) await expect(tab.locator('.protocol')).toHaveText('HTTP/2');
    });
  });

  test('a WebSocket shows the end of a topic once, and the page stops', async ({ context, server }) => {
    await server.start('--interval', '1h');
    await context.addInitScript(withoutLocks);
    const sockets: string[] = [];
    const tab = await context.newPage();
    tab.on('websocket', (socket) => sockets.push(new URL(socket.url()).pathname));
    await tab.goto(`${server.url}/?topic=a`);
    await expect(state(tab)).toHaveText('Live');
    expect(sockets).toEqual(['/ws']);
    for (const [path, body] of [['a', 'first'], ['a?end=failed', 'disk full']]) {
      expect((await fetch(`${server.url}/events/${path}`, { method: 'POST', body })).ok).toBe(true);
    }
    await expect(state(tab)).toHaveText('Stopped. The stream has ended');
    await expect.poll(() => lines(tab)).toEqual(['first', 'Topic failed: a: disk full']);
    expect(sockets).toEqual(['/ws']);
  });

  test('where no WebSocket gets through, the page reads over SSE', async ({ context, server }) => {
    await server.start(...fast);
    await context.addInitScript(withoutLocks);
    await context.addInitScript(() => {
      window.WebSocket = class extends WebSocket {
        constructor(url: string | URL) {
          super(String(url).replace('/ws?', '/nowhere?'));
        }
      };
    });
    const tab = await openOne(context, server.url);
    await expect(state(tab)).toHaveText('Live');
    const before = await count(tab);
    await expect.poll(() => count(tab)).toBeGreaterThan(before + 20);
    await expect.poll(() => streams(server)).toBe(1);
  });

  test('refused locks are like no locks', async ({ context, server }) => {
    await server.start(...fast);
    await context.addInitScript(() => {
      LockManager.prototype.request = () => Promise.reject(new DOMException('denied', 'SecurityError'));
    });
    const tab = await openOne(context, server.url);
    await expect(sharing(tab)).toContainText('This tab has its own connection');
    await expect(state(tab)).toHaveText('Live');
  });

  test('tabs share a connection without storage, too', async ({ context, server }) => {
    await server.start(...fast);
    await context.addInitScript(() => {
      Object.defineProperty(window, 'localStorage', {
        get: () => {
          throw new DOMException('denied', 'SecurityError');
        },
      });
    });
    const tabs = await open(context, server.url, 2);
    for (const tab of tabs) await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
    await tabs[0].getByRole('combobox', { name: 'Time format' }).selectOption('Unix time');
    await expect(tabs[0].locator('.rows time').first()).toHaveText(/^\d+\.\d{3}$/);
    await expect.poll(() => streams(server)).toBe(1);
  });

  test('readers with different permissions do not share', async ({ context, server }, info) => {
    const secret = randomBytes(32).toString('hex');
    const file = info.outputPath('secret');
    writeFileSync(file, secret);
    await server.start(...fast, '--require-token', '--jwt-secret-file', file);
    const tabs = [];
    for (const sub of ['one', 'one', 'another']) {
      const value = sign(secret, { sub, exp: Date.now() / 1000 + 600, subscribe: ['clock'] });
      await context.addCookies([{ name: 'waterclock_token', value, url: server.url, sameSite: 'Strict' }]);
      tabs.push(await openOne(context, server.url));
    }
    await expect(sharing(tabs[0])).toHaveText('2 tabs, 1 connection');
    await expect(sharing(tabs[1])).toHaveText('2 tabs, 1 connection');
    await expect(sharing(tabs[2])).toHaveText('1 tab, 1 connection');
    await expect.poll(() => streams(server)).toBe(2);
  });
});

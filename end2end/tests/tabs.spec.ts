// Tabs share one connection: however many there are, and whatever happens to the one that has it.
import { type BrowserContext, chromium, type Page } from '@playwright/test';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import config from '../playwright.config.ts';
import { count, expect, expectConsecutive, networkErrors, sequences, sign, state, streams, test } from './server.ts';

const fast = ['--interval', '10ms', '--retry', '200ms'];

// A trace has pictures of every tab whenever it changes: four times as long as the tests take.
test.use({ trace: 'off' });

/** Opens so many tabs. */
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

const sharing = (tab: Page) => tab.locator('.sharing');

test.describe('tabs', () => {
  test.use({ allowedErrors: networkErrors });

  test('twelve of them tick over one connection', async ({ context, server }) => {
    test.setTimeout(90_000);
    await server.start('--interval', '100ms');
    const tabs = await open(context, server.url, 12);
    for (const tab of tabs) {
      await expect(state(tab)).toHaveText('Live');
      await expect(sharing(tab)).toHaveText('12 tabs, 1 connection', { timeout: 10_000 });
    }
    const before = await Promise.all(tabs.map(count));
    for (const [i, tab] of tabs.entries()) {
      await expect.poll(() => count(tab)).toBeGreaterThan(before[i] + 5);
    }
    expect(await streams(server)).toBe(1);
    await Promise.all(tabs.slice(1).map((tab) => tab.close()));
    await expect(sharing(tabs[0])).toHaveText('1 tab, 1 connection');
  });

  test('the one that has it is closed ten times over, and nobody misses anything', async ({ context, server }) => {
    test.setTimeout(60_000);
    await server.start(...fast);
    const owners = await open(context, server.url, 10);
    const tabs = await open(context, server.url, 2);
    for (const owner of owners) {
      const before = await Promise.all(tabs.map(count));
      await owner.close();
      for (const [i, tab] of tabs.entries()) {
        await expect.poll(() => count(tab)).toBeGreaterThan(before[i] + 20);
      }
    }
    expect(await streams(server)).toBe(1);
    for (const tab of tabs) {
      await tab.bringToFront();
      await tab.getByRole('button', { name: 'Stop' }).click();
      const events = await sequences(tab);
      expect(events.length).toBe(await count(tab));
      expectConsecutive(events);
    }
    await expect.poll(() => streams(server)).toBe(0);
  });

  test('Stop is for one tab; another takes the connection', async ({ context, server }) => {
    await server.start(...fast);
    const [first, second] = await open(context, server.url, 2);
    await expect(sharing(first)).toHaveText('2 tabs, 1 connection');
    await first.getByRole('button', { name: 'Stop' }).click();
    await expect(state(first)).toHaveText('Stopped');
    await expect(sharing(second)).toHaveText('1 tab, 1 connection');
    const before = await count(second);
    await expect.poll(() => count(second)).toBeGreaterThan(before + 20);
    expect(await streams(server)).toBe(1);

    await first.getByRole('button', { name: 'Connect' }).click();
    await expect(state(first)).toHaveText('Live');
    await expect.poll(() => count(first)).toBeGreaterThan(before + 20);
    expect(await streams(server)).toBe(1);
    await first.getByRole('button', { name: 'Stop' }).click();
    expectConsecutive(await sequences(first));
  });

  test('other topics are another connection', async ({ context, server }) => {
    await server.start(...fast);
    const clock = await openOne(context, server.url);
    const other = await openOne(context, `${server.url}/?topic=other+clock`);
    const same = await openOne(context, `${server.url}/?topic=clock+other`);
    await expect(sharing(clock)).toHaveText('1 tab, 1 connection');
    await expect(sharing(other)).toHaveText('2 tabs, 1 connection');
    await expect(sharing(same)).toHaveText('2 tabs, 1 connection');
    expect(await streams(server)).toBe(2);
  });

  test('the process of the one that has it dies', async ({ context, server }) => {
    await server.start(...fast);
    const [owner, tab] = await open(context, server.url, 2);
    await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
    const crashed = owner.waitForEvent('crash');
    (await context.newCDPSession(owner)).send('Page.crash').catch(() => {});
    await crashed;
    await expect(sharing(tab)).toHaveText('1 tab, 1 connection');
    const before = await count(tab);
    await expect.poll(() => count(tab)).toBeGreaterThan(before + 20);
    expect(await streams(server)).toBe(1);
    await tab.getByRole('button', { name: 'Stop' }).click();
    expectConsecutive(await sequences(tab));
  });

  test('the one that has it no longer runs', async ({ context, server }) => {
    test.setTimeout(90_000);
    await server.start(...fast, '--heartbeat', '1s');
    const [owner, tab] = await open(context, server.url, 2);
    await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
    // As a tab that the browser has put to sleep, it waits for an answer and handles nothing else.
    const asleep = owner.evaluate(() => {
      const request = new XMLHttpRequest();
      request.open('GET', '/poll?topic=quiet&wait=30', false);
      request.send();
    });
    let isAsleep = true;
    asleep.then(() => (isAsleep = false));
    const before = await count(tab);
    // What was under way to it still arrives.
    await expect.poll(() => count(tab), { timeout: 25_000 }).toBeGreaterThan(before + 200);
    expect(isAsleep).toBe(true);
    await asleep;
    await expect(sharing(owner)).toHaveText('2 tabs, 1 connection');
    await expect.poll(() => streams(server)).toBe(1);
    const after = await count(owner);
    await expect.poll(() => count(owner)).toBeGreaterThan(after + 20);
    for (const one of [owner, tab]) expectConsecutive(await sequences(one));
  });

  test('that there is no more is for all of them', async ({ context, server }) => {
    await server.start(...fast);
    const tabs = await open(context, server.url, 3);
    for (const tab of tabs) await expect(sharing(tab)).toHaveText('3 tabs, 1 connection');
    let asked = 0;
    await context.route('**/events?*', (route) => (asked++, route.fulfill({ status: 204 })));
    await server.kill();
    for (const tab of tabs) await expect(state(tab)).toHaveText('Stopped. The server says that there is no more');
    // The browser's own try, and ours for the reason.
    expect(asked).toBeLessThanOrEqual(2);
    await context.unroute('**/events?*');
    await server.start(...fast);
    for (const tab of tabs) await tab.getByRole('button', { name: 'Connect' }).click();
    for (const tab of tabs) await expect(sharing(tab)).toHaveText('3 tabs, 1 connection');
    expect(await streams(server)).toBe(1);
  });

  test('a page that goes away and comes back from the browser’s cache', async ({ server }) => {
    await server.start(...fast);
    // Playwright switches the cache off.
    const { launchOptions } = config.projects![0].use!;
    const browser = await chromium.launch({
      ...launchOptions,
      ignoreDefaultArgs: ['--disable-back-forward-cache'],
    });
    try {
      const context = await browser.newContext();
      const [owner, tab] = await open(context, server.url, 2);
      await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
      await owner.evaluate(() => Object.assign(window, { isKept: true }));
      await owner.goto(`${server.url}/openapi.json`);
      await expect(sharing(tab)).toHaveText('1 tab, 1 connection');
      const before = await count(tab);
      await expect.poll(() => count(tab)).toBeGreaterThan(before + 20);
      await owner.goBack({ waitUntil: 'commit' });
      await expect(sharing(tab)).toHaveText('2 tabs, 1 connection');
      expect(await owner.evaluate(() => 'isKept' in window)).toBe(true);
      await expect.poll(() => count(owner)).toBeGreaterThan(before + 20);
      expect(await streams(server)).toBe(1);
      for (const one of [owner, tab]) expectConsecutive(await sequences(one));
    } finally {
      await browser.close();
    }
  });

  test('without Web Locks each has its own, and says so', async ({ context, server }) => {
    await server.start(...fast);
    await context.addInitScript(() => Object.defineProperty(Navigator.prototype, 'locks', { value: undefined }));
    for (const tab of await open(context, server.url, 2)) {
      await expect(sharing(tab)).toContainText('A connection for this tab alone');
      await expect(state(tab)).toHaveText('Live');
    }
    expect(await streams(server)).toBe(2);
  });

  test('locks that are refused are as none', async ({ context, server }) => {
    await server.start(...fast);
    await context.addInitScript(() => {
      LockManager.prototype.request = () => Promise.reject(new DOMException('denied', 'SecurityError'));
    });
    const tab = await openOne(context, server.url);
    await expect(sharing(tab)).toContainText('A connection for this tab alone');
    await expect(state(tab)).toHaveText('Live');
  });

  test('without storage they share all the same', async ({ context, server }) => {
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
    await tabs[0].getByRole('combobox', { name: 'Times' }).selectOption('Unix time');
    await expect(tabs[0].locator('.rows time').first()).toHaveText(/^\d+\.\d{3}$/);
    expect(await streams(server)).toBe(1);
  });

  test('readers with other permission do not share', async ({ context, server }, info) => {
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
    expect(await streams(server)).toBe(2);
  });
});

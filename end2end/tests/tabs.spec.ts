// Tabs share one connection: however many there are, and whatever happens to the one that has it.
import type { BrowserContext, Page } from '@playwright/test';
import { count, expect, expectConsecutive, networkErrors, sequences, state, streams, test } from './server.ts';

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
});

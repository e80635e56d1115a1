// The pages in each state, at three widths and in both colour schemes: they fit, targets are large
// enough, and axe finds no violations. `make pictures` puts screenshots into end2end/pictures, for
// people to look at.
import { AxeBuilder } from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { answerHealth, notice, servedBy } from './nodes.ts';
import { count, expect, networkErrors, type Server, state, test } from './server.ts';

type State = {
  /** Options of the server. */
  options?: string[];
  /** Brings the page into the state. */
  enter: (page: Page, server: Server) => Promise<void>;
};

/** Answers requests for the stream, in the server's place. */
const answer = (page: Page, status: number, body: string, contentType: string) =>
  page.route('**/events?*', (route) => route.fulfill({ status, body, contentType }));

const states: Record<string, State> = {
  empty: {
    options: ['--interval', '24h'],
    enter: async (page, server) => {
      await page.route('**/events?*', () => {}); // Never answered.
      await page.goto(server.url);
      await expect(page.getByText('No events yet.')).toBeVisible();
    },
  },
  connecting: {
    enter: async (page, server) => {
      await expect.poll(() => server.newest()).toBeGreaterThan(3);
      await page.route('**/events?*', () => {});
      await page.goto(server.url);
      await expect(state(page)).toHaveText('Connecting');
    },
  },
  live: {
    enter: async (page, server) => {
      await page.goto(server.url);
      await expect(state(page)).toHaveText('Live');
      await expect.poll(() => count(page)).toBeGreaterThan(4);
    },
  },
  stopped: {
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await page.getByRole('button', { name: 'Stop' }).click();
      await expect(state(page)).toHaveText('Stopped');
    },
  },
  gone: {
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await server.kill();
      await expect(state(page)).toHaveText('Connection lost, reconnecting');
    },
  },
  gap: {
    options: ['--interval', '100ms', '--retry', '200ms'],
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await server.kill();
      const before = await count(page);
      await server.start('--interval', '1s');
      await expect(page.getByText('New log: events may be missing')).toBeVisible();
      await expect.poll(() => count(page)).toBeGreaterThan(before + 2);
    },
  },
  waiting: {
    enter: async (page, server) => {
      await expect.poll(() => server.newest()).toBeGreaterThan(3);
      await answer(page, 200, '<h1>Log in</h1>', 'text/html');
      await page.goto(server.url);
      await expect(state(page)).toContainText('text/html, which is not a stream');
    },
  },
  full: {
    options: ['--interval', '100ms', '--max-streams', '0'],
    enter: async (page, server) => {
      await page.goto(server.url);
      await expect(state(page)).toContainText('The server has reached its limit of streams');
    },
  },
  forbidden: {
    enter: async (page, server) => {
      const detail = 'This topic is not public, and the request is not from the server’s own machine: …';
      const problem = { title: 'Forbidden', status: 403, detail };
      await answer(page, 403, JSON.stringify(problem), 'application/problem+json');
      await page.goto(server.url);
      await expect(state(page)).toContainText('This topic is not public');
    },
  },
  thousand: {
    options: ['--interval', '5ms'],
    enter: async (page, server) => {
      await page.goto(server.url);
      await expect.poll(() => count(page), { timeout: 60_000 * patience }).toBeGreaterThan(1000);
      await page.getByRole('button', { name: 'Stop' }).click();
    },
  },
  long: {
    options: ['--interval', '24h'],
    enter: async (page, server) => {
      const events = [
        { topic: 'clock', name: 'message', data: 'short' },
        { topic: 'orders.eu.created', name: 'created', data: JSON.stringify({ order: 17, lines: Array(20).fill('a line of some length') }) },
        { topic: 'logs', name: 'message', data: 'x'.repeat(400) },
        { topic: 'logs', name: 'message', data: 'several\nlines\n  with space' },
        { topic: 'clock', name: 'message', data: '' },
      ].map((event, i) => ({ id: `00000000000000ff-${i + 1}`, time: '2026-11-22T07:00:00.000Z', ...event }));
      const blocks = events.map((event) => `id: ${event.id}\ndata: ${JSON.stringify(event)}\n\n`);
      await answer(page, 200, `retry: 3600000\n${blocks.join('')}`, 'text/event-stream');
      await page.goto(server.url);
      await expect(page.locator('.rows .event')).toHaveCount(events.length);
    },
  },
  // Data of terminals, and text that reorders or covers what is beside it.
  awkward: {
    options: ['--interval', '24h'],
    enter: async (page, server) => {
      const tower = `Z${'\u0363\u0353'.repeat(100)}algo`;
      const all = ['\x1b[31mred\x1b[0m and 10%\r20%\r', '\u202e1234-5 gpj.exe', 'שלום עולם 5', 'before', tower, 'after', 'a\0b\x07', 'x'.repeat(3000)];
      for (const body of all) await fetch(`${server.url}/events/t?name=${encodeURIComponent(`${tower.slice(0, 100)}\u202e`)}`, { method: 'POST', body });
      await page.goto(`${server.url}/?topic=t`);
      await expect(state(page)).toHaveText('Live');
      await page.getByRole('searchbox', { name: 'Filter' }).fill(`topic:${'x'.repeat(300)}..`);
      await expect(page.locator('.bad')).toBeVisible();
    },
  },
  'awkward-details': {
    options: ['--interval', '24h'],
    enter: async (page, server) => {
      const tower = `Z${'\u0363\u0353'.repeat(100)}algo`;
      const body = `\x1b[31mred\x1b[0m\r\n\u202e1234-5 gpj.exe\nשלום עולם 5\n${tower}\n${'x'.repeat(3000)}`;
      await fetch(`${server.url}/events/t?name=${encodeURIComponent(`${tower.slice(0, 100)}\u202e`)}`, { method: 'POST', body });
      await page.goto(`${server.url}/?topic=t`);
      await expect(state(page)).toHaveText('Live');
      await page.locator('.rows .event').click();
      await expect(page.getByRole('dialog', { name: 'Event' })).toContainText('^[[31mred');
    },
  },
  'not-running': {
    enter: async (page, server) => {
      await expect.poll(() => server.newest()).toBeGreaterThan(3);
      await page.route('**/*.wasm', (route) => route.fulfill({ status: 404 }));
      await page.goto(server.url);
      await expect(page.getByText('This page is not running.')).toBeVisible();
    },
  },
  failed: {
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await page.evaluate(() => (window as any).pageFailed('panicked at src/lib.rs:1:2:\na message'));
      await expect(page.getByText('a message')).toBeVisible();
    },
  },
  'compare-not-running': {
    enter: async (page, server) => {
      await page.route('**/*.wasm', (route) => route.fulfill({ status: 404 }));
      await page.goto(`${server.url}/compare`);
      await expect(page.getByText('This page is not running.')).toBeVisible();
    },
  },
  publish: {
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await page.getByRole('button', { name: 'Publish' }).click();
      const form = page.getByRole('dialog', { name: 'Publish an event' });
      await form.getByLabel('Topic').fill('a..b');
      await form.getByRole('button', { name: 'Publish' }).click();
      await expect(page.getByText('"a..b" is not a topic')).toBeVisible();
    },
  },
  held: {
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await expect.poll(() => count(page)).toBeGreaterThan(30);
      await page.locator('.scroller').hover();
      await page.mouse.wheel(0, -200);
      await expect(page.getByRole('button', { name: /^Newest/ })).toBeVisible();
    },
  },
  filtered: {
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await page.getByRole('searchbox', { name: 'Filter' }).fill('00.100 topic:a..b');
      await expect(page.getByText('"a..b" is not a topic pattern')).toBeVisible();
    },
  },
  details: {
    enter: async (page, server) => {
      const order = { order: 17, to: { name: 'Zürich', lines: Array(20).fill('a line of some length') } };
      await fetch(`${server.url}/events/orders.eu?name=created`, { method: 'POST', body: JSON.stringify(order) });
      await page.goto(`${server.url}/?topic=orders.%3E`);
      await page.locator('.rows .event').click();
      await expect(page.getByRole('dialog', { name: 'Event' })).toContainText('"order": 17');
    },
  },
  help: {
    enter: async (page, server) => {
      await states.live.enter(page, server);
      await page.keyboard.press('?');
      await expect(page.getByRole('dialog', { name: 'Help' })).toBeVisible();
    },
  },
  compare: {
    enter: async (page, server) => {
      await page.goto(`${server.url}/compare`);
      await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
    },
  },
  'compare-results': {
    enter: async (page, server) => {
      await page.goto(`${server.url}/compare?rate=50&every=250`);
      await page.getByRole('button', { name: 'Start' }).click();
      const events = page.getByRole('row', { name: 'Events' }).getByRole('cell').last();
      await expect.poll(async () => Number((await events.textContent())!.replace(',', ''))).toBeGreaterThan(50);
      await page.getByRole('button', { name: 'Cut the connections' }).click();
      await expect(page.getByRole('row', { name: 'Time to catch up' })).not.toContainText('not yet');
      await page.getByRole('button', { name: 'Stop' }).click();
      await expect(page.getByText('Stopped, and checked against the log', { exact: true })).toBeVisible();
    },
  },
  // One transport is broken, and the settings are unfolded.
  'compare-running': {
    enter: async (page, server) => {
      await page.route('**/poll?*wait=*', (route) => route.abort());
      await page.goto(`${server.url}/compare?rate=50&every=250`);
      await page.getByRole('button', { name: 'Start' }).click();
      await expect(page.locator('.conclusion')).toContainText('Long polling cannot connect');
      await page.locator('.setup > summary').click();
    },
  },
  'compare-full': {
    options: ['--max-streams', '0'],
    enter: async (page, server) => {
      await page.goto(`${server.url}/compare?topic=orders&lanes=sse+websocket`);
      await page.getByRole('button', { name: 'Start' }).click();
      await expect(page.locator('.status')).toHaveText('Server full, trying again');
    },
  },
  diagnose: {
    enter: async (page, server) => {
      await page.goto(`${server.url}/diagnose`);
      await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
    },
  },
  'diagnose-found': {
    options: ['--heartbeat', '2s'],
    enter: async (page, server) => {
      // Buffers each response until it is complete.
      await page.route('**/diagnose/stream?*', async (route) => {
        const response = await route.fetch().catch(() => null);
        if (!response) return;
        const headers = { 'content-type': 'text/plain', server: 'nginx/1.22.1', via: '1.1 varnish' };
        await route.fulfill({ response, headers });
      });
      await page.goto(`${server.url}/diagnose`);
      await page.getByLabel('Idle period to test').selectOption('5');
      await page.getByRole('button', { name: 'Start' }).click();
      await expect(page.getByText(/^Problems found: \d+ bad/)).toBeVisible({ timeout: 60_000 * patience });
    },
  },
  topics: {
    options: ['--interval', '100ms'],
    enter: async (page, server) => {
      const publish = (path: string, body: string) => fetch(`${server.url}/events/${path}`, { method: 'POST', body });
      for (let i = 0; i < 40; i++) await publish(`orders.${i}.a-rather-long-name-of-a-topic`, 'x'.repeat(i * 500));
      await publish('build?end', '');
      await publish('build.late?end=failed', 'no disk');
      await page.goto(`${server.url}/topics`);
      await expect(state(page)).toHaveText('Live');
      await expect(page.getByRole('row', { name: 'clock' })).toContainText('/s');
      await page.getByText('Publish an event').click();
    },
  },
  'topics-empty': {
    options: ['--interval', '24h'],
    enter: async (page, server) => {
      await page.goto(`${server.url}/topics`);
      await expect(state(page)).toHaveText('Live');
      await expect(page.getByText('There are no topics yet.')).toBeVisible();
    },
  },
  'node-away': {
    enter: async (page, server) => {
      await servedBy(page, 'node-1');
      await answerHealth(page, () => ({ node: 'node-1', lag: 0, away: true, publish_error: 'it is away' }));
      await states.live.enter(page, server);
      await expect(notice(page)).toContainText('cannot reach its cluster');
    },
  },
  // The name is the address of the node, as it is by default.
  'node-behind': {
    enter: async (page, server) => {
      await servedBy(page, '[2001:db8:1234:5678::1]:3000');
      await answerHealth(page, () => ({ node: '[2001:db8:1234:5678::1]:3000', lag: 1200, away: false }));
      await states.live.enter(page, server);
      await expect(notice(page)).toContainText('by 1,200 changes');
    },
  },
  'topics-node-away': {
    enter: async (page, server) => {
      await servedBy(page, 'node-1');
      await answerHealth(page, () => ({ node: 'node-1', lag: 0, away: true, publish_error: 'it is away' }));
      await page.goto(`${server.url}/topics`);
      await expect(notice(page)).toContainText('cannot reach its cluster');
    },
  },
  'topics-refused': {
    enter: async (page, server) => {
      // A request that has come through a proxy is not local.
      await page.setExtraHTTPHeaders({ via: '1.1 proxy' });
      await page.goto(`${server.url}/topics`);
      await expect(page.getByText('This topic is not public')).toBeVisible();
    },
  },
  'not-found': {
    enter: async (page, server) => {
      await page.goto(`${server.url}/nowhere`);
      await expect(page.getByRole('heading', { name: 'Not found' })).toBeVisible();
    },
  },
};

const schemes = ['light', 'dark'] as const;
const widths = { desktop: 1440, tablet: 768, phone: 360 };
const pictures = process.env.PICTURES;

/** Returns what is smaller than 24 by 24 px, among all that can be clicked (WCAG 2.5.8). Links in a
 * sentence are exempt, and so is a link that is seen only with the focus. A row of the list is one
 * target, and so is a label with its control. */
const smallTargets = (page: Page) =>
  page.evaluate(() => {
    const all = [...document.querySelectorAll<HTMLInputElement>('a[href]:not(.hidden), button, input, select, textarea, summary, [tabindex]')];
    const isInSentence = (one: Element) =>
      getComputedStyle(one).display === 'inline' && one.parentElement!.textContent!.trim() !== one.textContent!.trim();
    const isSmall = (one: Element) => {
      const { width, height } = one.getBoundingClientRect();
      return width < 24 || height < 24;
    };
    const targets = (one: HTMLInputElement) => [one.closest('.rows li') ?? one, ...(one.labels ?? [])];
    const small = all.filter((one) => one.checkVisibility() && !isInSentence(one) && targets(one).every(isSmall));
    return small.map((one) => one.outerHTML);
  });

async function look(page: Page, state: string, { withAxe = true } = {}) {
  const isClean = async (message: string) => {
    const { violations } = await new AxeBuilder({ page }).analyze();
    expect(violations, message).toEqual([]);
  };
  for (const colorScheme of schemes) {
    await page.emulateMedia({ colorScheme });
    for (const [name, width] of Object.entries(widths)) {
      await page.setViewportSize({ width, height: 720 });
      if (pictures) await page.screenshot({ path: `${pictures}/${state}-${width}-${colorScheme}.png` });
      const overflow = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      expect(overflow, `${name}, ${colorScheme}`).toBe(0);
      if (!withAxe || colorScheme === 'dark') continue;
      expect(await smallTargets(page), name).toEqual([]);
      if (name === 'desktop') await isClean(name);
    }
    if (withAxe) await isClean(`phone, ${colorScheme}`);
  }
}

test.describe('looks', () => {
  test.use({ allowedErrors: new RegExp(`${networkErrors.source}|a message`), reducedMotion: 'reduce' });
  for (const [name, state] of Object.entries(states)) {
    test(name, async ({ page, server }) => {
      test.setTimeout(90_000 * patience);
      await server.start(...(state.options ?? ['--interval', '100ms']));
      await state.enter(page, server);
      await look(page, name);
    });
  }
});

test.describe('looks, without JavaScript', () => {
  test.use({ javaScriptEnabled: false, allowedErrors: /was preloaded using link preload but not used/ });

  test('no-script', async ({ page, server }) => {
    await server.start('--interval', '100ms');
    await expect.poll(() => server.newest()).toBeGreaterThan(3);
    await page.goto(server.url);
    // axe is a script, too.
    await look(page, 'no-script', { withAxe: false });
    await page.getByRole('link', { name: 'Pause' }).click();
    await look(page, 'no-script-paused', { withAxe: false });
  });
});

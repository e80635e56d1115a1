// The page /topics: the topics that exist, live.
import type { Page, Route } from '@playwright/test';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { patience } from '../playwright.config.ts';
import { expect, networkErrors, type Server, sign, state, streams, test } from './server.ts';

const publish = async (server: Server, path: string, body = 'x') => {
  const answer = await fetch(`${server.url}/events/${path}`, { method: 'POST', body });
  expect(answer.ok).toBe(true);
};

/** Publishes an event to each of the topics. */
const publishToAll = async (server: Server, topics: string[]) => {
  const body = topics.map((topic) => JSON.stringify({ topic, data: 'x' })).join('\n');
  const headers = { 'content-type': 'application/x-ndjson' };
  const answer = await fetch(`${server.url}/events`, { method: 'POST', headers, body });
  expect(answer.ok).toBe(true);
  await answer.text();
};

const table = (page: Page) => page.getByRole('table');
const row = (page: Page, topic: string) =>
  table(page).getByRole('row').filter({ has: page.getByRole('link', { name: topic, exact: true }) });
const cell = (page: Page, topic: string, column: number) => row(page, topic).locator('td').nth(column - 1);
const [EVENTS, RATE, SIZE, , READERS, STATE] = [1, 2, 3, 4, 5, 6];
const names = (page: Page) => table(page).locator('tbody a').allTextContents();
const head = (page: Page, name: string) => table(page).getByRole('columnheader', { name });
const search = (page: Page) => page.getByRole('searchbox', { name: 'Search' });

/** Hides the page, as another tab would, or shows it. */
const show = (page: Page, isShown: boolean) =>
  page.evaluate((isShown) => {
    Object.defineProperty(document, 'hidden', { configurable: true, value: !isShown });
    document.dispatchEvent(new Event('visibilitychange', { bubbles: true }));
  }, isShown);

const open = async (page: Page, server: Server, query = '') => {
  await page.goto(`${server.url}/topics${query}`);
  await expect(state(page)).toHaveText('Live');
};

test('the figures are live, and a click shows the topic', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await publish(server, 'orders.eu', 'x'.repeat(1234));
  await open(page, server);
  await expect(page).toHaveTitle('● Live · Topics · Waterclock');
  await expect(cell(page, 'orders.eu', SIZE)).toHaveText('1.2 kB');
  await expect(cell(page, 'orders.eu', RATE)).toHaveText('0/s');
  await publish(server, 'orders.eu');
  await publish(server, 'build');
  await expect(cell(page, 'orders.eu', EVENTS)).toHaveText('2');
  await expect(cell(page, 'orders.eu', RATE)).toHaveText(/^0\.\d\/s$/);
  await expect(cell(page, 'build', STATE)).toHaveText('Open');
  await publish(server, 'build?end=failed', 'no disk');
  await publish(server, 'orders.eu?end', '');
  await expect(cell(page, 'build', STATE)).toHaveText('Failed');
  await expect(cell(page, 'orders.eu', STATE)).toHaveText('Ended');
  await fetch(`${server.url}/events/orders.us`, { method: 'POST', body: 'x' });
  await expect(row(page, 'orders.us')).toBeVisible();
  await fetch(`${server.url}/events/orders.us`, { method: 'DELETE' });
  await expect(row(page, 'orders.us')).toBeHidden();

  // Node.js ends a stream whose response nothing refers to any more.
  const read = (query: string) => fetch(`${server.url}/events?${query}`);
  await publish(server, 'news');
  const readers = [await read('topic=news')];
  await expect(cell(page, 'news', READERS)).toHaveText('1');
  // The view does not tell it, so the page asks for it.
  readers.push(await read('topic=%3E'));
  await expect(cell(page, 'news', READERS)).toHaveText('2 (1 by pattern)', { timeout: 15_000 * patience });
  for (const { body } of readers) await body?.cancel();

  await page.getByRole('link', { name: 'orders.eu' }).click();
  await expect(page).toHaveURL(`${server.url}/?topic=orders.eu`);
  await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Topics' }).click();
  await expect(page).toHaveURL(`${server.url}/topics`);
});

test('the rows are in the order of a column, and stay in their places under the pointer', async ({ page, server }) => {
  await server.start('--interval', '1h');
  for (const [topic, events] of [['b', 1], ['a', 2], ['c', 3]] as const) {
    for (let i = 0; i < events; i++) await publish(server, topic);
  }
  await open(page, server);
  const topics = async () => (await names(page)).filter((name) => name !== 'clock').join(' ');
  await expect.poll(topics).toBe('a b c');
  await expect(head(page, 'Topic')).toHaveAttribute('aria-sort', 'ascending');
  await head(page, 'Events').getByRole('button').click();
  await expect.poll(topics).toBe('c a b');
  await expect(head(page, 'Events')).toHaveAttribute('aria-sort', 'descending');
  await expect(head(page, 'Topic')).toHaveAttribute('aria-sort', 'none');
  await row(page, 'a').hover();
  for (let i = 0; i < 5; i++) await publish(server, 'b');
  await expect(cell(page, 'b', EVENTS)).toHaveText('6');
  expect(await topics()).toBe('c a b');
  await search(page).hover();
  await expect.poll(topics).toBe('b c a');
  await head(page, 'Events').getByRole('button').click();
  await expect.poll(topics).toBe('a c b');
  await expect(head(page, 'Events')).toHaveAttribute('aria-sort', 'ascending');
});

test('a search finds parts of topics and patterns, and is in the address', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await publishToAll(server, ['orders.eu', 'orders.us', 'build.eu', 'news']);
  await open(page, server);
  await search(page).fill('EU');
  await expect.poll(() => names(page)).toEqual(['build.eu', 'orders.eu']);
  await search(page).fill('orders.* news');
  await expect.poll(() => names(page)).toEqual(['news', 'orders.eu', 'orders.us']);
  await expect(page).toHaveURL(`${server.url}/topics?match=orders.*+news`);
  await page.reload();
  await expect(state(page)).toHaveText('Live');
  await expect.poll(() => names(page)).toEqual(['news', 'orders.eu', 'orders.us']);
  await search(page).fill('ord*');
  await expect(page.getByText('ord* is not a pattern')).toBeVisible();
  await expect(search(page)).toHaveAttribute('aria-invalid', 'true');
  await search(page).fill('nothing');
  await expect(page.getByText('No topics found.')).toBeVisible();
  await expect(page.getByText('is not a pattern')).toBeHidden();
  await search(page).fill('');
  await expect.poll(async () => (await names(page)).length).toBeGreaterThan(3);
});

test('of 10,000 topics only those in view are in the document', async ({ page, server }) => {
  test.setTimeout(60_000 * patience);
  await server.start('--interval', '100ms', '--max-topics', '20000');
  const topics = Array.from({ length: 10_000 }, (_, i) => `t.${String(i).padStart(4, '0')}`);
  await publishToAll(server, topics);
  await open(page, server);
  await expect(page.locator('.count')).toHaveText('10001 topics');
  await expect(table(page)).toHaveAttribute('aria-rowcount', '10002');
  const scroller = page.locator('.scroller');
  await scroller.evaluate((list) => list.scrollTo(0, list.scrollHeight));
  await expect(row(page, 't.9999')).toBeInViewport();
  await expect(row(page, 't.9999')).toHaveAttribute('aria-rowindex', '10002');
  expect((await names(page)).length).toBeLessThan(100);
  await scroller.evaluate((list) => list.scrollTo(0, list.scrollHeight / 2));
  await expect(row(page, 't.4999')).toBeInViewport();
  // The clock has by far the most events.
  await head(page, 'Events').getByRole('button').click();
  await scroller.evaluate((list) => list.scrollTo(0, 0));
  await expect.poll(async () => (await names(page))[0]).toBe('clock');
  const events = async () => Number(await cell(page, 'clock', EVENTS).textContent());
  const before = await events();
  await expect.poll(events).toBeGreaterThan(before);
  await search(page).fill('t.99*');
  await expect(page.getByText('is not a pattern')).toBeVisible();
  await search(page).fill('.999');
  await expect(page.locator('.count')).toHaveText('10 of 10001 topics');
});

test('an event that the page publishes creates its topic', async ({ page, server }) => {
  await server.start('--interval', '24h');
  await open(page, server);
  await expect(page.getByText('There are no topics yet.')).toBeVisible();
  await expect(page.getByText(`curl -d Hello ${server.url}/events/orders.eu`)).toBeVisible();
  // Without topics, the form is unfolded.
  await page.getByLabel('Topic', { exact: true }).fill('orders.eu');
  await page.getByLabel('Data').fill('a new order');
  await page.getByRole('button', { name: 'Publish' }).click();
  await expect(page.getByText('Published.')).toBeVisible();
  await expect(row(page, 'orders.eu')).toBeVisible();
  await expect(page.getByText('There are no topics yet.')).toBeHidden();
});

test('the keyboard reaches everything', async ({ page, server }) => {
  await server.start('--interval', '24h');
  await publishToAll(server, ['a', 'b', 'c']);
  await open(page, server);
  await search(page).focus();
  const focused = () => page.evaluate(() => document.activeElement!.textContent);
  for (const expected of ['Publish an event', /Topic/, 'Topic', 'Events', 'Rate', 'Size', 'Newest', 'Readers', 'State', 'a']) {
    await page.keyboard.press('Tab');
    await expect.poll(focused).toMatch(expected);
  }
  await page.keyboard.press('ArrowDown');
  expect(await focused()).toBe('b');
  await publish(server, 'b');
  await expect(cell(page, 'b', EVENTS)).toHaveText('2');
  expect(await focused()).toBe('b');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowUp');
  expect(await focused()).toBe('a');
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await expect(head(page, 'State')).toHaveAttribute('aria-sort', 'descending');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(`${server.url}/?topic=a`);
});

test('a tab that is hidden has no connection', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await open(page, server);
  expect(await streams(server)).toBe(1);
  await show(page, false);
  await expect.poll(() => streams(server)).toBe(0);
  await expect(page).toHaveTitle('Topics · Waterclock');
  await publish(server, 'meanwhile');
  await fetch(`${server.url}/events/clock`, { method: 'DELETE' });
  await show(page, true);
  await expect(state(page)).toHaveText('Live');
  await expect(row(page, 'meanwhile')).toBeVisible();
  expect(await streams(server)).toBe(1);
});

test.describe('without a connection', () => {
  test.use({ allowedErrors: networkErrors });

  test('the page comes back after a crash, with the topics of the new server', async ({ page, server }) => {
    await server.start('--interval', '1h', '--retry', '200ms');
    await publish(server, 'before');
    await page.clock.install();
    await open(page, server);
    // The page knows how many there were before.
    await expect(cell(page, 'before', RATE)).toHaveText('0/s');
    await publish(server, 'before');
    await publish(server, 'another');
    await head(page, 'Rate').getByRole('button').click();
    await expect(cell(page, 'before', RATE)).toHaveText(/^[01]\.\d\/s$/);
    await server.kill();
    await expect(state(page)).toHaveText('Connection lost, reconnecting');
    // The page does not know them any more, so it keeps the order.
    await expect(cell(page, 'before', RATE)).toHaveText('');
    const order = await names(page);
    await page.clock.runFor(11_000);
    expect(await names(page)).toEqual(order);
    await expect(cell(page, 'before', RATE)).toHaveText('');
    await server.start('--interval', '1h', '--retry', '200ms');
    await publish(server, 'after');
    await expect(state(page)).toHaveText('Live');
    await expect(row(page, 'after')).toBeVisible();
    await expect(row(page, 'before')).toBeHidden();
  });

  for (const [status, sentence] of [
    [403, 'You may not list topics. Not yours.'],
    [431, "The request is too long. Delete this site's cookies. Not yours."],
  ] as const) {
    test(`a view that gets ${status} is not asked for again`, async ({ page, context, server }) => {
      await server.start('--interval', '1h');
      await page.clock.install();
      let requests = 0;
      await context.route('**/topics', (route) => {
        if (route.request().headers().accept !== 'text/event-stream') return route.fallback();
        requests += 1;
        const body = JSON.stringify({ detail: 'Not `yours`.' });
        return route.fulfill({ status, contentType: 'application/problem+json', body });
      });
      await page.goto(`${server.url}/topics`);
      await expect(state(page)).toHaveText(sentence);
      await expect(page).toHaveTitle('⊘ Refused · Topics · Waterclock');
      for (const isShown of [false, true]) await show(page, isShown);
      await page.clock.runFor(120_000);
      // The browser's own, and one for the reason.
      expect(requests).toBe(2);
      await context.unroute('**/topics');
      await page.getByRole('button', { name: 'Try again' }).click();
      await expect(state(page)).toHaveText('Live');
      await expect(page.getByRole('button', { name: 'Try again' })).toBeHidden();
    });
  }

  test('a reader sees what its token lists, and a refusal says what to do', async ({ page, server, context }, info) => {
    const [secret, file] = [randomBytes(32).toString('hex'), info.outputPath('secret')];
    writeFileSync(file, `${secret}\n`);
    await server.start('--require-token', '--jwt-secret-file', file, '--interval', '1h');
    const setToken = (claims: object) => {
      const value = sign(secret, { exp: Date.now() / 1000 + 600, ...claims });
      return context.addCookies([{ name: 'waterclock_token', value, url: server.url, sameSite: 'Strict' }]);
    };
    const bearer = `Bearer ${sign(secret, { exp: Date.now() / 1000 + 600, publish: ['>'] })}`;
    for (const topic of ['orders.eu', 'secret']) {
      const headers = { authorization: bearer };
      expect((await fetch(`${server.url}/events/${topic}`, { method: 'POST', headers, body: 'x' })).ok).toBe(true);
    }
    await page.goto(`${server.url}/topics`);
    await expect(state(page)).toContainText('This page needs an access token. A token is required');
    await expect(page).toHaveTitle('⊘ Refused · Topics · Waterclock');
    expect(await page.locator('main').textContent()).not.toContain('`');
    expect(await streams(server).catch(() => 0)).toBe(0);
    await setToken({ subscribe: ['orders.*'] });
    await page.getByRole('button', { name: 'Try again' }).focus();
    await page.keyboard.press('Enter');
    await expect(state(page)).toHaveText('Live');
    // The button is gone, and the focus is not lost.
    await expect(page.getByRole('heading', { name: 'Topics' })).toBeFocused();
    await expect(row(page, 'orders.eu')).toBeVisible();
    await expect(page.getByText('A token is required')).toBeHidden();
    expect(await names(page)).toEqual(['orders.eu']);
    await expect(page.getByText('Publish an event')).toHaveCount(0);
    await setToken({ subscribe: [] });
    await page.reload();
    await expect(page.getByText('does not list')).toBeVisible();
    await setToken({ subscribe: ['>'], publish: ['orders.*'] });
    await page.reload();
    await expect(state(page)).toHaveText('Live');
    await expect(row(page, 'secret')).toBeVisible();
    await expect(page.getByText('Publish an event')).toBeVisible();
  });
});

test('a row has two lines on a phone, and its figures have names', async ({ page, server }) => {
  await page.setViewportSize({ width: 360, height: 640 });
  await server.start('--interval', '1h');
  await publish(server, `orders.${'long.'.repeat(8)}end`);
  await open(page, server);
  const { height } = (await page.locator('tbody tr').first().boundingBox())!;
  expect(height).toBeGreaterThan(40);
  for (const button of await table(page).getByRole('button').all()) {
    const box = (await button.boundingBox())!;
    expect(box.height).toBeGreaterThanOrEqual(24);
    expect(box.x + box.width).toBeLessThanOrEqual(360);
  }
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(360);
});

test('the field for the topics suggests them', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await publishToAll(server, ['orders.eu', 'orders.us', 'build']);
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  const field = page.getByLabel('Topics', { exact: true });
  const suggestions = () =>
    field.evaluate((field: HTMLInputElement) => [...(field.list?.options ?? [])].map(({ value }) => value));
  await field.focus();
  await expect.poll(suggestions).toEqual(expect.arrayContaining(['build', 'orders.eu', 'orders.us']));
  await field.fill('orders.e');
  await expect.poll(suggestions).toEqual(['orders.eu', 'orders.us']);

  // The answer that comes last may be that to an older question.
  const routes: Route[] = [];
  await page.route('**/topics?limit=*', (route) => void routes.push(route));
  await field.fill('a.');
  await field.fill('b.');
  await expect.poll(() => routes.length).toBe(2);
  const answer = (topic: string) => ({ json: { topics: [{ topic }] } });
  await routes[1].fulfill(answer('b.new'));
  await expect.poll(suggestions).toEqual(['b.new']);
  const answered = page.waitForResponse(/match=a/);
  await routes[0].fulfill(answer('a.old'));
  await (await answered).finished();
  // Whatever the page does with it, it does before the answer to another request.
  await field.fill('c.');
  await expect.poll(() => routes.length).toBe(3);
  expect(await suggestions()).toEqual(['b.new']);
  // After a failure, the next input asks again.
  await routes[2].fulfill({ body: 'Log in' });
  await expect(async () => {
    await field.fill('c.x');
    await field.fill('c.');
    expect(routes.length).toBeGreaterThan(3);
  }).toPass();
});

test.describe('without JavaScript', () => {
  test.use({ javaScriptEnabled: false, allowedErrors: /was preloaded using link preload but not used/ });

  test('the topics read in pages, with a search', async ({ page, server }) => {
    await server.start('--interval', '24h');
    await publishToAll(server, Array.from({ length: 120 }, (_, i) => `t.${String(i).padStart(3, '0')}`));
    await page.goto(`${server.url}/topics`);
    await expect(page.getByRole('link', { name: 't.000' })).toBeVisible();
    await page.getByRole('link', { name: 'More topics' }).click();
    await expect(page.getByRole('link', { name: 't.119' })).toBeVisible();
    await expect(page.getByRole('link', { name: 't.000' })).toHaveCount(0);
    await search(page).fill('11');
    await page.getByRole('button', { name: 'Search' }).click();
    await expect(page).toHaveURL(`${server.url}/topics?match=11`);
    await expect(page.locator('tbody a')).toHaveCount(11);
    await expect(page.getByText('Publish an event')).toBeHidden();
    await page.getByRole('link', { name: 't.110' }).click();
    await expect(page).toHaveURL(`${server.url}/?topic=t.110`);
  });
});

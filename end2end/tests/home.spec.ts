// The page `/`: the clock arrives, stops, resumes, and survives failures of the server.
import { createServer, type Server as HttpServer } from 'node:http';
import { patience } from '../playwright.config.ts';
import { count, expect, expectConsecutive, networkErrors, sequences, state, test } from './server.ts';

const fast = ['--interval', '100ms'];

test('shows the clock, a tick a second', async ({ page, server }) => {
  await server.start();
  await page.goto(server.url);
  await expect(page.getByRole('link', { name: 'Waterclock' })).toBeVisible();
  await expect(state(page)).toHaveText('Live');
  await expect(page).toHaveTitle('● Live · Waterclock');

  const rows = page.locator('.rows .event');
  await expect.poll(() => rows.count()).toBeGreaterThanOrEqual(3);
  const ticks = await rows.locator('.data').allTextContents();
  for (const tick of ticks) expect(tick).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/);
  expect(Date.parse(ticks[1]) - Date.parse(ticks[0])).toBe(1000);
});

test('is rendered with the latest events, and continues after them', async ({ page, server }) => {
  await server.start(...fast);
  await expect
    .poll(async () => (await (await fetch(server.url)).text()).match(/class="event"/g)?.length ?? 0)
    .toBeGreaterThanOrEqual(5);
  await page.goto(server.url);
  const rendered = await count(page);
  await expect.poll(() => count(page)).toBeGreaterThan(rendered + 5);
  expectConsecutive(await sequences(page));
});

test('Stop closes the connection, and Connect resumes after the last event', async ({ page, server }) => {
  await server.start(...fast);
  await page.goto(server.url);
  await expect.poll(() => count(page)).toBeGreaterThan(3);

  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(state(page)).toHaveText('Stopped');
  await expect(page).toHaveTitle('■ Stopped · Waterclock');
  await server.logs(/stream closed connection=1 lasted=\d\S+ events=\d+ end="client-left"/);
  const stopped = await sequences(page);
  // The server's clock continues, the list does not.
  await expect.poll(() => server.newest()).toBeGreaterThan(stopped.at(-1)! + 5);
  expect(await sequences(page)).toEqual(stopped);

  await page.getByRole('button', { name: 'Connect' }).click();
  await expect(state(page)).toHaveText('Live');
  await expect.poll(() => count(page)).toBeGreaterThan(stopped.length + 5);
  const all = await sequences(page);
  expect(all.slice(0, stopped.length)).toEqual(stopped);
  expectConsecutive(all);
  await server.logs(new RegExp(`stream opened connection=\\d+ cursor=\\w+-${stopped.at(-1)}\\b`));
});

test('leaving the page closes the connection', async ({ page, server }) => {
  await server.start();
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await page.goto('about:blank');
  await server.logs(/stream closed connection=1 .*end="client-left"/);
});

test('the list keeps a maximum of lines, and counts the others', async ({ page, server }) => {
  await server.start('--interval', '5ms');
  await page.addInitScript(() => localStorage.setItem('waterclock.rows', '1000'));
  await page.goto(server.url);
  await expect.poll(() => count(page), { timeout: 20_000 * patience }).toBeGreaterThan(1100);
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(state(page)).toHaveText('Stopped');
  const kept = await sequences(page);
  expect(kept.length).toBe(1000);
  expectConsecutive(kept);
  const gone = (await count(page)) - kept.length;
  await expect(page.getByText(`the oldest ${gone} are no longer in the list`)).toBeVisible();
  expect(await page.locator('.rows li').count()).toBeLessThan(100);
});

test.describe('topics', () => {
  test.use({ allowedErrors: networkErrors });

  test('are those of the address, and can be changed', async ({ page, server }) => {
  // Slow enough for an event to stay in view until it is looked for.
  await server.start('--interval', '500ms');
  const publish = async (topic: string, data: string) => {
    const answer = await fetch(`${server.url}/events/${topic}?name=made`, { method: 'POST', body: data });
    expect(answer.status).toBe(201);
  };
  await publish('orders.eu', 'before');
  await page.goto(`${server.url}/?topic=orders.%3E`);
  await expect(page).toHaveTitle('● Live · orders.>');
  const data = page.locator('.rows .event .data');
  await expect(data).toHaveText(['before']);
  await publish('orders.us.ca', 'after');
  await publish('other', 'of another topic');
  await publish('orders.eu', 'last');
  await expect(data).toHaveText(['before', 'after', 'last']);
  await expect(page.locator('.rows .event').last()).toContainText('orders.eumade');
  await expect(page.getByText(`curl -N '${server.url}/events?topic=orders.%3E'`)).toBeVisible();

  const field = page.getByRole('textbox', { name: 'Topics' });
  await expect(field).toHaveValue('orders.>');
  await field.fill('other clock');
  await field.press('Enter');
  await expect(page).toHaveURL(/\?topic=other\+clock$/);
  await expect(page.getByText('of another topic')).toBeVisible();
  await expect(state(page)).toHaveText('Live');
  await server.logs(/stream closed connection=1 .*end="client-left"/);
  const rows = await sequences(page);
  await expect.poll(() => count(page)).toBeGreaterThan(rows.length + 3);

  await field.fill('a..b');
  await page.getByRole('button', { name: 'Show' }).click();
  await expect(state(page)).toContainText('"a..b" is not a pattern');
  });
});

test.describe('publishing', () => {
  test.use({ allowedErrors: networkErrors });

  test('from the page, with a message about a failure', async ({ page, server }) => {
    await server.start(...fast);
    await page.goto(`${server.url}/?topic=chat`);
    await expect(state(page)).toHaveText('Live');
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    const form = page.getByRole('dialog', { name: 'Publish an event' });
    await form.getByLabel('Topic').fill('chat');
    await form.getByLabel('Name').fill('said');
    await form.getByLabel('Data').fill('two\nlines');
    await form.getByRole('button', { name: 'Publish' }).click();
    await expect(form.getByText('Published.')).toBeVisible();
    const row = page.locator('.rows .event');
    await expect(row.locator('.data')).toHaveText('two\nlines');
    await expect(row.locator('.event-name')).toHaveText('said');

    // An attempt that may have succeeded is repeated with its key, and a changed event has another.
    const keys: (string | undefined)[] = [];
    await page.route('**/events/chat*', async (route) => {
      keys.push(route.request().headers()['idempotency-key']);
      const response = await route.fetch();
      await (keys.length === 1 ? route.abort() : route.fulfill({ response }));
    });
    const publish = async (answer: string) => {
      await form.getByRole('button', { name: 'Publish' }).click();
      await expect(form.getByText(answer)).toBeVisible();
    };
    await form.getByLabel('Data').fill('once');
    await publish('The server cannot be reached.');
    await publish('Published.');
    await form.getByLabel('Data').fill('last');
    await publish('Published.');
    await expect(page.locator('.rows .event .data')).toHaveText(['two\nlines', 'once', 'last']);
    expect(new Set(keys).size).toBe(2);
    expect(keys[0]).toBe(keys[1]);

    await form.getByLabel('Topic').fill('clock');
    await form.getByRole('button', { name: 'Publish' }).click();
    await expect(form.getByText('Only the server itself publishes to clock.')).toBeVisible();
  });
});

test('an empty topic says how to publish to it', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await page.goto(`${server.url}/?topic=chat.room`);
  await expect(state(page)).toHaveText('Live');
  const hint = page.locator('.empty');
  await expect(hint).toContainText('No events yet.');
  await expect(hint.locator('code')).toHaveText(`curl -d hello ${server.url}/events/chat.room`);
  await hint.getByRole('button', { name: 'Publish an event' }).click();
  const form = page.getByRole('dialog', { name: 'Publish an event' });
  await expect(form.getByLabel('Topic')).toHaveValue('chat.room');
  await form.getByLabel('Data').fill('first');
  await form.getByRole('button', { name: 'Publish' }).click();
  await expect(page.locator('.rows .event .data')).toHaveText('first');
  await expect(hint).toBeHidden();

  // No one topic to publish to.
  for (const topics of ['empty.*', 'a+b']) {
    await page.goto(`${server.url}/?topic=${topics}`);
    await expect(hint).toContainText('No events yet.');
    await expect(hint.getByRole('button')).toBeHidden();
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    await expect(form.getByLabel('Topic')).toHaveValue('');
  }
});

for (const width of [360, 412, 768, 1440]) {
  test(`nothing moves while it starts, ${width} px`, async ({ page, server }) => {
    await page.setViewportSize({ width, height: 800 });
    await page.addInitScript(() => {
      const shifts = ((window as any).shifts = [] as number[]);
      const observer = new PerformanceObserver((list) => {
        for (const shift of list.getEntries()) shifts.push((shift as any).value);
      });
      observer.observe({ type: 'layout-shift', buffered: true });
    });
    await server.start(...fast);
    await expect.poll(() => server.newest()).toBeGreaterThan(10);
    await page.goto(server.url);
    await expect(page.locator('.gauges')).toContainText('lag');
    const sum = await page.evaluate(() => (window as any).shifts.reduce((sum: number, shift: number) => sum + shift, 0));
    expect(sum).toBeLessThan(0.02);
  });
}

for (const colorScheme of ['light', 'dark'] as const) {
  test(`fits a phone, ${colorScheme}`, async ({ page, server }) => {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width: 320, height: 640 });
    await server.start(...fast);
    await page.goto(server.url);
    await expect.poll(() => count(page)).toBeGreaterThan(3);
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    expect(overflow).toBe(0);
  });
}

test.describe('without the server', () => {
  test.use({ allowedErrors: networkErrors });

  test('restarted with its log: nothing is missing', async ({ page, server }, info) => {
    server.data = info.outputPath('data');
    await server.start(...fast, '--retry', '200ms');
    await page.goto(server.url);
    await expect.poll(() => count(page)).toBeGreaterThan(3);
    await server.kill();
    await expect(state(page)).toHaveText('Connection lost, reconnecting');
    const before = await sequences(page);

    await server.start(...fast, '--retry', '200ms');
    await expect.poll(() => count(page)).toBeGreaterThan(before.length + 3);
    expectConsecutive(await sequences(page));
    await expect(page.getByText(/events? (may be )?missing/i)).toHaveCount(0);
  });

  test('restarted without its log: the page reconnects by itself', async ({ page, server }) => {
    await server.start(...fast, '--retry', '200ms');
    await page.goto(server.url);
    await expect.poll(() => count(page)).toBeGreaterThan(3);
    await server.kill();
    await expect(state(page)).toHaveText('Connection lost, reconnecting');
    const before = await sequences(page);

    await server.start(...fast, '--retry', '200ms');
    await expect(state(page)).toHaveText('Live');
    await expect(page.getByText('New log: events may be missing')).toBeVisible();
    await expect.poll(() => count(page)).toBeGreaterThan(before.length + 3);
    // The new log counts from 1, and none of its events is missing.
    const after = (await sequences(page)).slice(before.length);
    expect(after[0]).toBe(1);
    expectConsecutive(after);
  });

  test('when the browser gives up, the page shows the reason and retries', async ({ page, server }) => {
    await server.start(...fast, '--retry', '200ms');
    await page.goto(server.url);
    await expect(state(page)).toHaveText('Live');
    await server.kill();
    const other = createServer((_, answer) => answer.writeHead(503).end());
    await listen(other, server.url);
    await expect(state(page)).toHaveText(
      'No connection. The server answered with status 503',
    );
    await expect(page.getByText(/Retrying in \d+ s/)).toBeVisible();
    await expect(page).toHaveTitle('△ No connection · Waterclock');

    other.close();
    other.closeAllConnections();
    await server.start(...fast);
    await expect(state(page)).toHaveText('Live', { timeout: 20_000 * patience });
    await expect(page.getByRole('button', { name: 'Stop' })).toBeEnabled();
  });

  test('Stop also ends a backoff', async ({ page, server }) => {
    await server.start(...fast, '--retry', '200ms');
    await page.goto(server.url);
    await expect(state(page)).toHaveText('Live');
    await server.kill();
    const other = createServer((_, answer) => answer.writeHead(200, { 'content-type': 'text/html' }).end('hello'));
    await listen(other, server.url);
    await expect(state(page)).toContainText('text/html, which is not a stream');
    await page.getByRole('button', { name: 'Stop' }).click();
    await expect(state(page)).toHaveText('Stopped');
    await expect(page.getByRole('button', { name: 'Connect' })).toBeEnabled();
    other.close();
  });
});

async function listen(http: HttpServer, url: string) {
  const { hostname, port } = new URL(url);
  await new Promise<void>((ready) => http.listen(Number(port), hostname, ready));
}

test.describe('an unknown path', () => {
  test.use({ allowedErrors: networkErrors });

  test('shows a page that leads back', async ({ page, server }) => {
    await server.start();
    const answer = await page.goto(`${server.url}/nowhere`);
    expect(answer?.status()).toBe(404);
    await expect(page.getByRole('heading', { name: 'Not found' })).toBeVisible();
    await page.getByRole('link', { name: 'Go to the clock' }).click();
    await expect(state(page)).toHaveText('Live');
    await expect(page.getByText(`curl -N ${server.url}/events`)).toBeVisible();
  });
});

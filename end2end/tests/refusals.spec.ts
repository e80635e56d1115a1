// Streams that the server refuses: the page says why and what to do, and does not ask again.
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { BrowserContext, Page } from '@playwright/test';
import { expect, networkErrors, sign, state, test } from './server.ts';

test.use({ allowedErrors: networkErrors });

const tryAgain = (page: Page) => page.getByRole('button', { name: 'Try again' });

/** Answers requests for a stream with a problem. Returns their URLs, which are added to. */
async function refuse(context: BrowserContext, status: number, detail: string): Promise<string[]> {
  const requests: string[] = [];
  await context.route(/\/events\?/, (route) => {
    requests.push(route.request().url());
    return route.fulfill({ status, contentType: 'application/problem+json', body: JSON.stringify({ detail }) });
  });
  return requests;
}

for (const [status, sentence] of [
  [400, 'The server refused these topics: Use topic. Correct them, and press Show.'],
  [401, 'This page needs an access token. Use topic.'],
  [403, 'You may not read these events. Use topic.'],
] as const) {
  test(`${status} is not asked for again`, async ({ page, context, server }) => {
    await server.start();
    await page.clock.install();
    const requests = await refuse(context, status, 'Use `topic`.');
    await page.goto(server.url);
    await expect(state(page)).toHaveText(sentence);
    await expect(page).toHaveTitle('⊘ Refused · Waterclock');
    await expect(page.locator('.countdown')).toBeEmpty();
    await page.clock.runFor(120_000);
    await page.evaluate(() => window.dispatchEvent(new Event('online')));
    await page.clock.runFor(1_000);
    // The browser's own, and one for the reason.
    expect(requests.length).toBe(2);
    await expect(state(page)).toHaveText(sentence);

    await context.unroute(/\/events\?/);
    await tryAgain(page).click();
    await expect(state(page)).toHaveText('Live');
    await expect(page.getByRole('button', { name: 'Stop' })).toBeVisible();
  });
}

test('503 is asked for again', async ({ page, context, server }) => {
  await server.start();
  await page.clock.install();
  const requests = await refuse(context, 503, 'It is starting.');
  await page.goto(server.url);
  await expect(state(page)).toHaveText('No connection. The server answered with status 503: It is starting');
  await page.clock.runFor(60_000);
  await expect.poll(() => requests.length).toBeGreaterThan(2);
  await context.unroute(/\/events\?/);
  await page.clock.runFor(60_000);
  await expect(state(page)).toHaveText('Live');
});

test('a refusal is for all tabs', async ({ page, context, server }) => {
  await server.start();
  const requests = await refuse(context, 403, 'Not yours.');
  const other = await context.newPage();
  for (const tab of [page, other]) await tab.clock.install();
  await Promise.all([page, other].map((tab) => tab.goto(server.url)));
  for (const tab of [page, other]) {
    await expect(state(tab)).toHaveText('You may not read these events. Not yours.');
    await expect(tryAgain(tab)).toBeVisible();
  }
  const before = requests.length;
  for (const tab of [page, other]) await tab.clock.runFor(120_000);
  expect(requests.length).toBe(before);
  await context.unroute(/\/events\?/);
  for (const tab of [page, other]) await tryAgain(tab).click();
  for (const tab of [page, other]) await expect(state(tab)).toHaveText('Live');
});

test('topics that are none are known before any request', async ({ page, server }) => {
  await server.start();
  const requests: string[] = [];
  page.on('request', (request) => requests.push(new URL(request.url()).pathname));
  await page.goto(`${server.url}/?topic=a..b`);
  const sentence = /^The server refused these topics: "a\.\.b" is not a pattern: .* Correct them, and press Show\.$/;
  await expect(state(page)).toHaveText(sentence);
  await expect(tryAgain(page)).toBeEnabled();
  expect(requests).not.toContain('/events');
  expect(await page.locator('main').textContent()).not.toContain('`');

  await page.getByLabel('Topics').fill('clock');
  await page.getByRole('button', { name: 'Show' }).click();
  await expect(state(page)).toHaveText('Live');
});

test('a page without a token says so at once, and reads once it has one', async ({ page, server, context }, info) => {
  const [secret, file] = [randomBytes(32).toString('hex'), info.outputPath('secret')];
  writeFileSync(file, `${secret}\n`);
  await server.start('--require-token', '--jwt-secret-file', file);
  expect(await (await fetch(server.url)).text()).toContain('This page needs an access token. A token is required');
  const requests: string[] = [];
  page.on('request', (request) => requests.push(new URL(request.url()).pathname));
  await page.goto(server.url);
  await expect(state(page)).toContainText('This page needs an access token. A token is required');
  await expect(page).toHaveTitle('⊘ Refused · Waterclock');
  expect(requests).not.toContain('/events');

  const setToken = (subscribe: string[]) =>
    context.addCookies([
      {
        name: 'waterclock_token',
        value: sign(secret, { exp: Date.now() / 1000 + 600, subscribe }),
        url: server.url,
      },
    ]);
  await setToken(['other']);
  await tryAgain(page).click();
  await expect(state(page)).toContainText('You may not read these events. The token');
  await setToken(['clock']);
  await tryAgain(page).click();
  await expect(state(page)).toHaveText('Live');
});

test('a list that was refused says how to publish to it, once it is live', async ({ page, server }) => {
  await server.start('--interval', '1h');
  // The server refuses the document, and not the stream.
  await page.route(`${server.url}/?topic=chat`, async (route) => {
    const response = await route.fetch();
    const refusal = JSON.stringify({ status: 403, detail: 'Not yours.' });
    await route.fulfill({ response, body: (await response.text()).replace('"refusal":null', `"refusal":${refusal}`) });
  });
  await page.goto(`${server.url}/?topic=chat`);
  await expect(state(page)).toHaveText('You may not read these events. Not yours.');
  const hint = page.locator('.empty');
  await expect(hint.locator('span')).toHaveText('No events.');
  await expect(hint.getByRole('button')).toBeHidden();
  await tryAgain(page).click();
  await expect(state(page)).toHaveText('Live');
  await expect(hint).toContainText('No events yet. Publish the first one:');
  await expect(hint.locator('code')).toHaveText(`curl -d hello ${server.url}/events/chat`);
  await expect(hint.getByRole('button')).toBeVisible();
});

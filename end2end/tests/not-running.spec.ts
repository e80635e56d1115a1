// The page when its program cannot run: it says so, with the reason, and shows the latest events.
import type { Page, Route } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { count, expect, networkErrors, state, test } from './server.ts';

const fast = ['--interval', '100ms'];
const [script, program] = ['**/pkg/*.js', '**/pkg/*.wasm'];

test.use({ allowedErrors: /Content.Security.Policy|preload|Wasm|WebAssembly|MIME|not used|net::ERR_|Failed to load resource/ });

/** Expects the notice with its reason, the latest events, and nothing that claims to work. */
async function isNotRunning(page: Page, reason: string | RegExp, title = '✕ Not running · Waterclock') {
  const notice = page.getByRole('alert').filter({ hasText: 'This page is not running.' });
  await expect(notice).toBeVisible({ timeout: 10_000 * patience });
  await expect(notice).toContainText(reason);
  await expect(page).toHaveTitle(title);
  await expect(page.locator('.status')).toHaveText('Not connected');
  await expect(page.locator('.head button')).toBeDisabled();
  await expect(page.locator('.tools button').first()).toBeDisabled();
  expect(await page.locator('.rows .event').count()).toBeGreaterThan(3);
  return notice;
}

const answer = (status: number, contentType: string, body: string) => (route: Route) =>
  route.fulfill({ status, contentType, body });

const cases: Record<string, { file: string; respond: (route: Route) => unknown; reason: string | RegExp }> = {
  'a program that is gone': { file: program, respond: answer(404, 'text/plain', ''), reason: /could not be started: Error: failed to fetch Wasm: 404/ },
  'a program that a proxy blocks': { file: program, respond: (route) => route.abort(), reason: /could not be started: TypeError/ },
  'a damaged program': { file: program, respond: answer(200, 'application/wasm', '\0asm????'), reason: /could not be started: CompileError/ },
  'a page of a proxy in the place of the program': { file: program, respond: answer(200, 'text/html', '<p>Log in'), reason: /could not be started: CompileError/ },
  'a script that is gone': { file: script, respond: answer(404, 'text/plain', ''), reason: /could not be started: TypeError/ },
  'a damaged script': { file: script, respond: answer(200, 'text/javascript', 'import {'), reason: /could not be started: SyntaxError/ },
  // Nothing more than the style sheet tells after some seconds.
  'a program that never arrives': { file: program, respond: () => {}, reason: 'Its program has not started yet.' },
};
for (const [name, { file, respond, reason }] of Object.entries(cases)) {
  test(name, async ({ page, server }) => {
    await server.start(...fast);
    await expect.poll(() => server.newest()).toBeGreaterThan(4);
    await page.route(file, respond);
    await page.goto(server.url, { waitUntil: 'commit' });
    const title = name.includes('never') ? 'Waterclock' : undefined;
    const notice = await isNotRunning(page, reason, title);
    // Once its route has gone, a request without a response would be answered.
    if (name.includes('never')) return;
    await page.unroute(file);
    await notice.getByRole('link', { name: 'Reload the page' }).click();
    await expect(state(page)).toHaveText('Live', { timeout: 15_000 * patience });
    await expect(notice).toBeHidden();
  });
}

test('a browser without WebAssembly', async ({ page, server }) => {
  await server.start(...fast);
  await expect.poll(() => server.newest()).toBeGreaterThan(4);
  await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'WebAssembly'));
  await page.goto(server.url);
  await isNotRunning(page, 'Its program needs WebAssembly, which this browser lacks or has disabled.');
  for (const path of ['compare', 'diagnose']) {
    await page.goto(`${server.url}/${path}`);
    await expect(page.getByText('This page is not running.')).toBeVisible({ timeout: 10_000 * patience });
    await expect(page.getByRole('button', { name: 'Start' })).toBeDisabled();
    await expect(page).toHaveTitle(/^✕ Not running · /);
  }

  // Without its program, the form would send the event as a part of the page's address.
  await page.goto(`${server.url}/topics`);
  await expect(page.getByText('This page is not running.')).toBeVisible({ timeout: 10_000 * patience });
  await expect(page).toHaveTitle(/^✕ Not running · /);
  await page.getByText('Publish an event').click();
  await expect(page.getByRole('button', { name: 'Publish' })).toBeDisabled();
  await expect(page.getByLabel('Data')).toBeDisabled();
  // The search works by requests.
  await page.getByRole('searchbox', { name: 'Search' }).fill('nothing');
  await page.getByRole('button', { name: 'Search' }).click();
  await expect(page).toHaveURL(`${server.url}/topics?match=nothing`);
  await expect(page.getByText('No topics found.')).toBeVisible();
});

test('a proxy that adds a policy against scripts', async ({ page, server }) => {
  await server.start(...fast);
  await expect.poll(() => server.newest()).toBeGreaterThan(4);
  await page.route(server.url, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, headers: { ...response.headers(), 'content-security-policy': "script-src 'none'" } });
  });
  await page.goto(server.url);
  await isNotRunning(page, 'Its program has not started yet.', 'Waterclock');
});

test('after an upgrade, the topics are loaded again, too', async ({ page, server }) => {
  await server.start(...fast);
  let loads = 0;
  await page.route(`${server.url}/topics`, async (route) => {
    if (route.request().headers().accept === 'text/event-stream') return route.continue();
    const response = await route.fetch();
    const isOld = route.request().resourceType() === 'document' && loads++ === 0;
    const html = await response.text();
    await route.fulfill({ response, body: isOld ? html.replaceAll(/\/pkg\/(waterclock|topics)\./g, '/pkg/old.') : html });
  });
  await page.goto(`${server.url}/topics`);
  await expect(state(page)).toHaveText('Live');
  expect(loads).toBe(2);
});

test('after an upgrade, a document with the old names of files is loaded again, once', async ({ page, server }) => {
  await server.start(...fast);
  await expect.poll(() => server.newest()).toBeGreaterThan(4);
  let loads = 0;
  let isUpgraded = true;
  // The first document of each visit is an old one from a cache.
  await page.route(server.url, async (route) => {
    const response = await route.fetch();
    const isOld = route.request().resourceType() === 'document' && (loads++ === 0 || !isUpgraded);
    const html = await response.text();
    await route.fulfill({ response, body: isOld ? html.replaceAll('/pkg/waterclock.', '/pkg/old.') : html });
  });
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await expect.poll(() => count(page)).toBeGreaterThan(3);
  expect(loads).toBe(2);

  // A cache that does not let go of the old document does not cause a loop.
  [loads, isUpgraded] = [0, false];
  await page.goto('about:blank');
  await page.goto(server.url);
  const entry = () => performance.getEntriesByType('navigation')[0] as PerformanceNavigationTiming;
  await expect.poll(() => page.evaluate(entry).then(({ type }) => type, () => '')).toBe('reload');
  await isNotRunning(page, /could not be started: TypeError/);
  // Another reload would come with the first refresh of the list.
  await expect(page.getByText('fetched every 5 s')).toBeVisible();
  expect(loads).toBe(2);
});

// Events from before those that the page starts with.
import type { Page, Route } from '@playwright/test';
import { count, expect, expectConsecutive, networkErrors, sequences, type Server, state, test } from './server.ts';

const list = (page: Page) => page.locator('.scroller');
const earlier = (page: Page) => page.locator('.rows .earlier');
const newer = (page: Page) => page.getByRole('button', { name: /^Newest/ });
const requests = '**/poll?before=*';

/** Opens a page with events that have the numbers from 1 as their data. */
async function open(page: Page, server: Server, events: number, query = '') {
  await server.start('--interval', '1h');
  const body = Array.from({ length: events }, (_, n) => `${n + 1}\n`).join('');
  const answer = await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body });
  expect(answer.ok).toBe(true);
  await page.goto(`${server.url}/?topic=t${query}`);
  await expect(state(page)).toHaveText('Live');
}

/** Scrolls up by the wheel, as far as it goes. */
async function scrollUp(page: Page) {
  await list(page).hover();
  await page.mouse.wheel(0, -10_000);
}

test('are loaded as one scrolls up, and stay in place', async ({ page, server }) => {
  await open(page, server, 250);
  expect(await sequences(page)).toHaveLength(20);
  const routes: Route[] = [];
  await page.route(requests, (route) => void routes.push(route));
  await scrollUp(page);
  await expect.poll(() => routes.length).toBe(1);
  await expect(earlier(page)).toHaveText('Loading earlier events…');
  await expect(page.locator('.rows [aria-selected=true]')).toHaveCount(0);
  await expect.poll(() => list(page).evaluate((list) => list.scrollTop)).toBe(0);
  // However much one scrolls, there is one request at a time.
  for (const distance of [100, -100, 50, -100]) await page.mouse.wheel(0, distance);
  const row = page.locator('.rows .event', { has: page.locator('.data', { hasText: /^233$/ }) });
  await expect.poll(() => list(page).evaluate((list) => list.scrollTop)).toBe(0);
  const before = await row.boundingBox();
  expect(routes).toHaveLength(1);
  await routes[0].continue();
  await expect.poll(() => count(page)).toBe(120);
  await expect(earlier(page)).toHaveCount(0);
  expect(await row.boundingBox()).toEqual(before);
  await page.unroute(requests);

  await scrollUp(page);
  await expect.poll(() => count(page)).toBe(220);
  await scrollUp(page);
  await expect.poll(() => count(page)).toBe(250);
  await scrollUp(page);
  await expect(page.locator('.rows li').first().locator('.data')).toHaveText('1');
  await expect(earlier(page)).toHaveCount(0);
  const all = await sequences(page);
  expect(all).toHaveLength(250);
  expectConsecutive(all);

  // They stay in the list as it goes on.
  await newer(page).click();
  await expect(newer(page)).toBeHidden();
  await fetch(`${server.url}/events/t`, { method: 'POST', body: 'last' });
  await expect(page.locator('.rows .data').last()).toHaveText('last');
  expect(await sequences(page)).toEqual([...all, all.at(-1)! + 1]);
});

test('are there by click or key in a list that does not scroll, and only if there are any', async ({ page, server }) => {
  await page.setViewportSize({ width: 800, height: 1200 });
  await open(page, server, 25);
  await earlier(page).click();
  await expect.poll(() => count(page)).toBe(25);
  await expect(earlier(page)).toHaveCount(0);
  // All of them are in view, so nothing need be held.
  await expect(newer(page)).toBeHidden();
  await page.reload();
  await expect(state(page)).toHaveText('Live');
  await list(page).focus();
  await page.keyboard.press('Home');
  await expect.poll(() => count(page)).toBe(25);

  const answer = await fetch(`${server.url}/events/t`, { method: 'DELETE' });
  expect(answer.ok).toBe(true);
  for (let n = 0; n < 20; n++) await fetch(`${server.url}/events/t`, { method: 'POST', body: 'x' });
  await page.reload();
  await expect.poll(() => count(page)).toBe(20);
  await expect(earlier(page)).toHaveCount(0);
});

test('are loaded until one matches the filter', async ({ page, server }) => {
  await open(page, server, 450, '&filter=315');
  await expect(page.locator('.count')).toHaveText('20 events, 0 match the filter');
  await earlier(page).click();
  await expect(page.locator('.rows .event .data')).toHaveText(['315']);
  await expect(page.locator('.count')).toHaveText('220 events, 1 matches the filter');
  await earlier(page).click();
  await expect(page.locator('.count')).toHaveText('450 events, 1 matches the filter');
  await expect(earlier(page)).toHaveCount(0);
});

test('are not searched without end for one that matches the filter', async ({ page, server }) => {
  await open(page, server, 2500, '&filter=nothing');
  let asked = 0;
  await page.route(requests, (route) => (asked++, route.continue()));
  await earlier(page).click();
  await expect(earlier(page)).toHaveText('None found yet. Click here to look further.');
  await expect(page.locator('.count')).toHaveText('2020 events, 0 match the filter');
  expect(asked).toBe(20);
  await earlier(page).click();
  await expect(page.locator('.count')).toHaveText('2500 events, 0 match the filter');
  await expect(earlier(page)).toHaveCount(0);
});

test('are loaded while others come, and the list is followed and held again', async ({ page, server }) => {
  await open(page, server, 250);
  const publish = (data: string) => fetch(`${server.url}/events/t`, { method: 'POST', body: data });
  const routes: Route[] = [];
  await page.route(requests, (route) => void routes.push(route));
  await scrollUp(page);
  await expect.poll(() => routes.length).toBe(1);
  await publish('a');
  await expect(newer(page)).toHaveText('Newest (+1)');
  await newer(page).click();
  await expect(page.locator('.rows .data').last()).toHaveText('a');
  await publish('b');
  await expect(page.locator('.rows .data').last()).toHaveText('b');
  await scrollUp(page);
  await expect(newer(page)).toBeVisible();
  await publish('c');
  await expect(newer(page)).toHaveText('Newest (+1)');
  await routes[0].continue();
  // The answer is for the list that is held now, too, and for the one that is followed.
  await expect.poll(() => count(page)).toBe(123);
  const held = await sequences(page);
  expect(held).toHaveLength(122);
  expectConsecutive(held);
  expect(routes).toHaveLength(1);
  await newer(page).click();
  await expect(page.locator('.rows .data').last()).toHaveText('c');
  const followed = await sequences(page);
  expect(followed).toHaveLength(123);
  expectConsecutive(followed);
  expect(followed[0]).toBe(held[0]);
});

test.describe('that cannot be loaded', () => {
  test.use({ allowedErrors: networkErrors });

  test('are tried again with the next scroll', async ({ page, server }) => {
    await open(page, server, 60);
    let asked = 0;
    await page.route(requests, (route) => (asked++, route.fulfill({ status: 500 })));
    await scrollUp(page);
    await expect(earlier(page)).toHaveText('Earlier events could not be loaded. Click here to try again.');
    expect(await count(page)).toBe(20);
    expect(asked).toBe(1);
    await earlier(page).click();
    await expect.poll(() => asked).toBe(2);
    await expect(earlier(page)).toHaveText('Earlier events could not be loaded. Click here to try again.');
    await page.unroute(requests);
    // Scrolling tries again, but not at once.
    await expect(async () => {
      await scrollUp(page);
      expect(await count(page)).toBe(60);
    }).toPass();
  });
});

test('of a full list can be loaded again', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await page.addInitScript(() => localStorage.setItem('waterclock.rows', '1000'));
  await page.goto(`${server.url}/?topic=t`);
  await expect(state(page)).toHaveText('Live');
  const body = Array.from({ length: 1050 }, (_, n) => `${n + 1}\n`).join('');
  await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body });
  const counted = page.locator('.count');
  await expect(counted).toHaveText('1050 events; the oldest 50 are no longer in the list');
  await list(page).focus();
  await page.keyboard.press('Home');
  await expect(counted).toHaveText('1050 events');
  expect(await sequences(page)).toHaveLength(1050);
  await page.keyboard.press('End');
  await expect(counted).toHaveText('1050 events; the oldest 50 are no longer in the list');
  expect(await sequences(page)).toHaveLength(1000);
});

test('of a full list can be loaded again after it was followed', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await page.addInitScript(() => localStorage.setItem('waterclock.rows', '1000'));
  await page.goto(`${server.url}/?topic=t&filter=1033`);
  await expect(state(page)).toHaveText('Live');
  const body = Array.from({ length: 1050 }, (_, n) => `${n + 1}\n`).join('');
  await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body });
  const counted = page.locator('.count');
  for (const _ of ['first', 'second']) {
    await expect(counted).toHaveText('1050 events, 1 matches the filter; the oldest 50 are no longer in the list');
    await earlier(page).click();
    await expect(counted).toHaveText('1050 events, 1 matches the filter');
    await expect(earlier(page)).toHaveCount(0);
    // The list that is followed has no room for them.
    await newer(page).click();
    await expect(newer(page)).toBeHidden();
  }
});

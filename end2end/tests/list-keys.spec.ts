// The list by keys alone, and the details of the event that is chosen.
import type { Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { count, expect, type Server, state, test } from './server.ts';

const list = (page: Page) => page.getByRole('listbox', { name: 'Events, oldest first' });
const chosen = (page: Page) => list(page).getByRole('option', { selected: true });
const details = (page: Page) => page.getByRole('dialog', { name: 'Event' });
const newer = (page: Page) => page.getByRole('button', { name: /^Newest/ });

/** Opens a page with events that have the numbers from 1 as their data. */
async function open(page: Page, server: Server, events: number) {
  await server.start('--interval', '1h');
  const body = Array.from({ length: events }, (_, n) => `${n + 1}\n`).join('');
  const answer = await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body });
  expect(answer.ok).toBe(true);
  await page.goto(`${server.url}/?topic=t`);
  await expect(state(page)).toHaveText('Live');
}

const publish = (server: Server, data: string, query = '') =>
  fetch(`${server.url}/events/t?name=made${query}`, { method: 'POST', body: data });

/** Presses Tab until an element has the focus. */
async function tabTo(page: Page, element: ReturnType<Page['getByRole']>) {
  await expect(async () => {
    await page.keyboard.press('Tab');
    await expect(element).toBeFocused({ timeout: 1 });
  }).toPass({ intervals: [0] });
}

test('keys choose one event after the other, and the list is one tab stop', async ({ page, server }) => {
  await open(page, server, 18);
  await tabTo(page, list(page));
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page)).toHaveAccessibleName(/^\d\d:\d\d:\d\d\.\d{3} 18 18$/);
  await expect(newer(page)).toBeHidden();
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page).locator('.data')).toHaveText('16');
  // While there is room for the chosen event, the list goes on.
  await publish(server, 'new');
  await expect(page.locator('.rows .data').last()).toHaveText('new');
  await expect(chosen(page).locator('.data')).toHaveText('16');
  await expect(newer(page)).toBeHidden();

  // Screen readers hear of the row that the list names.
  await expect(list(page)).toBeFocused();
  expect(await list(page).getAttribute('aria-activedescendant')).toBe(await chosen(page).getAttribute('id'));

  // Above the end of the list, it is held.
  await page.keyboard.press('Home');
  await expect(chosen(page).locator('.data')).toHaveText('1');
  await expect(chosen(page)).toBeInViewport({ ratio: 1 });
  await publish(server, 'newer');
  await expect(newer(page)).toHaveText('Newest (+1)');
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page).locator('.data')).toHaveText('1');
  await page.keyboard.press('PageDown');
  await expect.poll(async () => Number(await chosen(page).locator('.data').textContent())).toBeGreaterThan(4);
  await expect(chosen(page)).toBeInViewport({ ratio: 1 });
  await page.keyboard.press('PageUp');
  await expect(chosen(page).locator('.data')).toHaveText('1');

  await page.keyboard.press('End');
  await expect(newer(page)).toBeHidden();
  await expect(chosen(page).locator('.data')).toHaveText('newer');
  await expect(chosen(page)).toHaveAccessibleName(/ newer made 20$/);
  await publish(server, 'newest');
  await expect(page.locator('.rows .data').last()).toHaveText('newest');
  await expect(chosen(page).locator('.data')).toHaveText('newer');

  // The next stop is behind the list, whatever its length.
  await page.keyboard.press('Tab');
  expect(await page.evaluate(() => !!document.activeElement?.closest('.list'))).toBe(false);
});

test('a chosen event stays in view, however many others come', async ({ page, server }) => {
  await server.start('--interval', '5ms');
  await page.addInitScript(() => localStorage.setItem('waterclock.rows', '1000'));
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await list(page).focus();
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page)).toBeInViewport({ ratio: 1 });
  await expect(newer(page)).toBeVisible();
  const name = await chosen(page).textContent();
  const before = await count(page);
  await expect.poll(() => count(page), { timeout: 20_000 * patience }).toBeGreaterThan(before + 1100);
  await expect(chosen(page)).toHaveText(name!);
  await expect(chosen(page)).toBeInViewport({ ratio: 1 });
  // Scrolled out of the document and back.
  await page.keyboard.press('f');
  await expect(chosen(page)).toHaveCount(0);
  await expect(newer(page)).toBeHidden();
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page)).toBeInViewport({ ratio: 1 });
});

test('in a wide window the details are beside the list, and show the event that keys choose', async ({ page, server }) => {
  await open(page, server, 30);
  await list(page).focus();
  await page.keyboard.press('Enter');
  await expect(details(page).locator('pre')).toHaveText('30');
  await expect(list(page)).toBeFocused();
  await expect(newer(page)).toBeHidden();
  const [left, right] = [await list(page).boundingBox(), await details(page).boundingBox()];
  expect(left!.x + left!.width).toBeLessThanOrEqual(right!.x);

  await publish(server, 'another');
  await expect(page.locator('.rows .data').last()).toHaveText('another');
  await expect(details(page).locator('pre')).toHaveText('30');
  await page.keyboard.press('ArrowUp');
  await expect(details(page).locator('pre')).toHaveText('29');
  await page.locator('.rows .event', { hasText: 'another' }).click();
  await expect(details(page).locator('pre')).toHaveText('another');
  await details(page).getByRole('button', { name: 'Previous' }).click();
  await expect(details(page).locator('pre')).toHaveText('30');
  await expect(chosen(page).locator('.data')).toHaveText('30');

  // The list was followed before.
  await page.keyboard.press('Escape');
  await expect(details(page)).toHaveCount(0);
  await expect(list(page)).toBeFocused();
  await expect(newer(page)).toBeHidden();
  await page.keyboard.press('Enter');
  await details(page).getByRole('button', { name: 'Close' }).click();
  await expect(list(page)).toBeFocused();
});

test('the list goes on beside the details until their event would leave it', async ({ page, server }) => {
  await open(page, server, 30);
  await page.keyboard.press('d');
  const text = await details(page).locator('pre').textContent();
  await expect(chosen(page).locator('.data')).toHaveText(text!);
  for (let n = 1; n <= 3; n++) {
    await publish(server, `another ${n}`);
    await expect(page.locator('.rows .data').last()).toHaveText(`another ${n}`);
    await expect(newer(page)).toBeHidden();
  }
  await publish(server, 'x\n'.repeat(40), '&split=lines');
  await expect(newer(page)).toBeVisible();
  await expect(chosen(page)).toBeInViewport({ ratio: 1 });
  await newer(page).click();
  await expect(newer(page)).toBeHidden();
  await expect(details(page).locator('pre')).toHaveText(text!);
  await page.keyboard.press('Escape');
  await expect(details(page)).toHaveCount(0);
});

test('in a narrow window the details are a dialog', async ({ page, server }) => {
  await page.setViewportSize({ width: 1000, height: 700 });
  await open(page, server, 30);
  await list(page).focus();
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Enter');
  expect(await details(page).evaluate((dialog) => dialog.matches(':modal'))).toBe(true);
  await expect(details(page).locator('pre')).toHaveText('29');
  await tabTo(page, details(page).getByRole('button', { name: 'Next' }));
  await page.keyboard.press('Enter');
  await expect(details(page).locator('pre')).toHaveText('30');
  await page.keyboard.press('Escape');
  await expect(details(page)).toHaveCount(0);
  await expect(list(page)).toBeFocused();
  await expect(chosen(page).locator('.data')).toHaveText('30');
});

test('a chosen event that the filter hides does not hold the list', async ({ page, server }) => {
  await open(page, server, 18);
  await list(page).focus();
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page).locator('.data')).toHaveText('18');
  await page.getByRole('searchbox', { name: 'Filter' }).fill('shown');
  await expect(page.locator('.rows .event')).toHaveCount(0);
  await publish(server, 'shown\n'.repeat(60), '&split=lines');
  await expect(page.locator('.count')).toHaveText('78 events, 60 match the filter');
  await publish(server, 'the last one shown');
  await expect(page.locator('.rows .data').last()).toHaveText('the last one shown');
  await expect(newer(page)).toBeHidden();
});

test('keys with a modifier are left to the browser and to screen readers', async ({ page, server }) => {
  await open(page, server, 18);
  await list(page).focus();
  for (const key of ['Shift+ArrowUp', 'Control+Alt+ArrowUp', 'Control+Home', 'Control+End', 'Meta+ArrowUp']) {
    await page.keyboard.press(key);
  }
  await expect(chosen(page)).toHaveCount(0);
  await page.keyboard.press('ArrowUp');
  await expect(chosen(page).locator('.data')).toHaveText('18');
});

test('the pane beside the list is closed by keys when the window gets narrow', async ({ page, server }) => {
  await open(page, server, 30);
  await list(page).focus();
  await page.keyboard.press('Enter');
  await expect(details(page)).toBeVisible();
  await page.setViewportSize({ width: 800, height: 600 });
  // It covers the list, and is wholly in view.
  await expect(details(page)).toBeInViewport({ ratio: 1 });
  expect(await details(page).evaluate((dialog) => getComputedStyle(dialog).position)).toBe('fixed');
  await page.keyboard.press('Escape');
  await expect(details(page)).toHaveCount(0);
  await expect(list(page)).toBeFocused();
});

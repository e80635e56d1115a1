// The pages by keyboard alone. Each test uses nothing but keys.
import type { Page } from '@playwright/test';
import { count, expect, networkErrors, state, test } from './server.ts';

test.use({ reducedMotion: 'reduce' });

/** What a mouse could reach, in the page or in its open dialog. The rows of the list are not among
 * it: they are many, and the list leads to them. */
const controls = 'a[href], button:not(.rows button), input, select, textarea, summary, [tabindex="0"]';

/** Goes through the page by the tab key, and expects it to reach all controls and to show each. */
async function reachesAll(page: Page) {
  await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
  const hidden: string[] = [];
  for (let i = 0; i < 80; i++) {
    await page.keyboard.press('Tab');
    const stop = await page.evaluate(() => {
      const element = document.activeElement as HTMLElement & { wasReached?: boolean };
      if (element === document.body) return { name: '', isShown: true };
      if (element.wasReached) return null;
      element.wasReached = true;
      // A link that fills its row has its outline around the row.
      const isOutlined = [undefined, '::after'].some((part) => {
        const { outlineStyle, outlineWidth } = getComputedStyle(element, part);
        return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
      });
      const { top, bottom } = element.getBoundingClientRect();
      const isShown = isOutlined && bottom > 0 && top < innerHeight;
      return { name: element.outerHTML.slice(0, 100), isShown };
    });
    if (!stop) break;
    if (!stop.isShown) hidden.push(stop.name);
  }
  expect(hidden, 'the focus is visible').toEqual([]);
  const missed = await page.evaluate((controls) => {
    const all = document.querySelectorAll<HTMLInputElement & { wasReached?: boolean }>(controls);
    const inner = document.querySelector('dialog[open]') ?? document.body;
    const active = [...all].filter((one) => inner.contains(one) && one.checkVisibility({ visibilityProperty: true }) && !one.matches(':disabled'));
    // Of a group of radio buttons, the tab key reaches the chosen one, and arrow keys the others.
    const group = (one: HTMLInputElement) => (one.type === 'radio' ? one.name : '');
    const reached = new Set(active.filter((one) => one.wasReached && group(one)).map(group));
    const missed = active.filter((one) => !one.wasReached && !reached.has(group(one)));
    for (const one of all) delete one.wasReached;
    return missed.map((one) => one.outerHTML.slice(0, 100));
  }, controls);
  expect(missed, 'the tab key reaches all').toEqual([]);
}

/** Moves the focus by the tab key to what has this role and name. */
async function goTo(page: Page, role: Parameters<Page['getByRole']>[0], name: string | RegExp) {
  const dialog = page.locator('dialog[open]');
  const target = ((await dialog.count()) ? dialog : page).getByRole(role, { name, exact: true });
  for (let i = 0; i < 80; i++) {
    if (await target.evaluate((target) => target === document.activeElement)) return target;
    await page.keyboard.press('Tab');
  }
  throw new Error(`the tab key does not reach ${role} ${name}`);
}

/** Goes to a control, and presses a key there. */
async function press(page: Page, role: Parameters<Page['getByRole']>[0], name: string | RegExp, key = 'Enter') {
  await goTo(page, role, name);
  await page.keyboard.press(key);
}

test('every action of the live page', async ({ page, server }) => {
  await server.start('--interval', '100ms');
  await page.setViewportSize({ width: 900, height: 600 });
  await page.goto(server.url);
  await expect(state(page)).toHaveText('Live');
  await reachesAll(page);
  await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
  await press(page, 'link', 'Skip to the events');
  await expect(page.getByRole('listbox')).toBeFocused();

  await press(page, 'button', 'Stop');
  await expect(state(page)).toHaveText('Stopped');
  await press(page, 'button', 'Connect', 'Space');
  await expect(state(page)).toHaveText('Live');

  await press(page, 'combobox', 'Colours', 'd');
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await press(page, 'combobox', 'Time format', 'u');
  await expect(page.getByRole('combobox', { name: 'Time format' })).not.toHaveValue('local');
  await goTo(page, 'searchbox', 'Filter');
  await page.keyboard.type('nothing');
  await expect(page.locator('.count')).toContainText(', 0 match the filter');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.press('Delete');
  await press(page, 'button', 'Pause');
  await expect(page.getByRole('button', { name: 'Pause' })).toHaveAttribute('aria-pressed', 'true');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('button', { name: 'Pause' })).toHaveAttribute('aria-pressed', 'false');
  const saved = page.waitForEvent('download');
  await press(page, 'button', 'Export');
  expect((await saved).suggestedFilename()).toBe('waterclock.ndjson');

  // The list scrolls, is held, and follows again.
  await expect.poll(() => count(page)).toBeGreaterThan(30);
  await goTo(page, 'listbox', 'Events, oldest first');
  const newest = page.getByRole('button', { name: /^Newest/ });
  await expect(async () => {
    await page.keyboard.press('PageUp');
    await expect(newest).toBeVisible({ timeout: 500 });
  }).toPass();
  await press(page, 'button', /^Newest/);
  await expect(newest).toBeHidden();
  // The button is gone, and the focus is not lost.
  await expect(page.getByRole('listbox')).toBeFocused();

  await press(page, 'button', 'Help');
  const help = page.getByRole('dialog', { name: 'Help' });
  await expect(help).toBeVisible();
  await reachesAll(page);
  await press(page, 'combobox', 'Maximum number of lines in the list', '1');
  await press(page, 'checkbox', 'Enable these keys', 'Space');
  await expect(page.getByRole('checkbox')).not.toBeChecked();
  await page.keyboard.press('Space');
  await page.keyboard.press('Escape');
  await expect(help).toBeHidden();

  await press(page, 'button', 'Publish');
  const form = page.getByRole('dialog', { name: 'Publish an event' });
  await reachesAll(page);
  const topic = await goTo(page, 'textbox', 'Topic');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.type('keys');
  await expect(topic).toHaveValue('keys');
  await goTo(page, 'textbox', 'Data');
  await page.keyboard.type('typed');
  await goTo(page, 'button', 'Publish');
  await page.keyboard.press('Enter');
  await expect(form.getByRole('status')).not.toBeEmpty();
  await page.keyboard.press('Escape');
  await expect(form).toBeHidden();

  // Other topics are another page.
  // Since the field has had the focus, it has suggestions.
  await goTo(page, 'combobox', 'Topics');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.type('keys');
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(`${server.url}/?topic=keys`);
  await expect(page.locator('.rows .data')).toHaveText(['typed']);
  await expect(state(page)).toHaveText('Live');

  await page.keyboard.press('d');
  const details = page.getByRole('dialog', { name: 'Event' });
  await expect(details).toBeVisible();
  await reachesAll(page);
  for (const name of ['Previous', 'Next', 'Copy data', 'Copy event']) await press(page, 'button', name);
  await page.keyboard.press('Escape');
  await expect(details).toBeHidden();
  await press(page, 'link', 'Compare');
  await expect(page.getByRole('heading', { name: 'Compare' })).toBeVisible();
});

test.describe('with a cut', () => {
  test.use({ allowedErrors: networkErrors });

  test('every action of the comparison', async ({ page, server }) => {
    await server.start();
    await page.goto(`${server.url}/compare?rate=50&every=250`);
    await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
    await reachesAll(page);
    await press(page, 'button', 'Start');
    await expect(page.getByText('Running for')).toBeVisible();
    await press(page, 'button', 'Cut the connections');
    await press(page, 'button', 'Stop');
    await expect(page.getByText('Stopped, and checked against the log', { exact: true })).toBeVisible();
    await reachesAll(page);
    for (const name of ['Copy a link', 'Copy as a table', 'Copy as JSON']) await press(page, 'button', name);
    await press(page, 'link', 'Diagnose');
    await expect(page.getByRole('heading', { name: 'Diagnose' })).toBeVisible();
  });
});

test('every action of the topics', async ({ page, server }) => {
  await server.start('--interval', '24h');
  for (const topic of ['a', 'b', 'c']) await fetch(`${server.url}/events/${topic}`, { method: 'POST', body: 'x' });
  await page.goto(`${server.url}/topics`);
  await expect(state(page)).toHaveText('Live');
  await reachesAll(page);

  await goTo(page, 'searchbox', 'Search');
  await page.keyboard.type('b');
  await expect(page.locator('.count')).toContainText('1 of ');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.press('Delete');
  await expect(page.locator('.count')).not.toContainText(' of ');
  for (let i = 0; i < 80 && !(await page.locator('summary').evaluate((one) => one === document.activeElement)); i++) {
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Enter');
  await reachesAll(page);
  await goTo(page, 'textbox', 'Topic');
  await page.keyboard.type('d');
  await goTo(page, 'textbox', 'Data');
  await page.keyboard.type('typed');
  await press(page, 'button', 'Publish');
  await expect(page.getByText('Published.')).toBeVisible();
  await press(page, 'button', 'Events');
  await expect(page.getByRole('columnheader', { name: 'Events' })).toHaveAttribute('aria-sort', 'descending');
  await press(page, 'button', 'Topic');
  await press(page, 'link', 'd');
  await expect(page).toHaveURL(`${server.url}/?topic=d`);
  await expect(page.locator('.rows .data')).toHaveText(['typed']);
});

test('every action of the diagnosis', async ({ page, server }) => {
  await server.start('--heartbeat', '2s');
  await page.goto(`${server.url}/diagnose`);
  await expect(page.getByRole('button', { name: 'Start' })).toBeEnabled();
  await reachesAll(page);
  await press(page, 'combobox', 'Idle period to test', 'ArrowUp');
  await press(page, 'button', 'Start');
  await expect(page.getByText(/\d+ of \d+ checks done/).first()).toBeVisible();
  await press(page, 'button', 'Stop');
  await expect(page.getByText('Stopped before all checks were done.')).toBeVisible();
  await reachesAll(page);
  await press(page, 'link', 'Live');
  await expect(state(page)).toHaveText('Live');
});

test.describe('an unknown path', () => {
  test.use({ allowedErrors: networkErrors });

  test('leads back', async ({ page, server }) => {
    await server.start();
    await page.goto(`${server.url}/nowhere`);
    await reachesAll(page);
    await press(page, 'link', 'Go to the clock');
    await expect(state(page)).toHaveText('Live');
  });
});

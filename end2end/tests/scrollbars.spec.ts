// The list in a browser whose scrollbars take room, which headless Chromium hides.
import type { Locator } from '@playwright/test';
import { chromium } from '../playwright.config.ts';
import { expect, state, test } from './server.ts';

test.use({ launchOptions: { ...chromium.launchOptions, ignoreDefaultArgs: ['--hide-scrollbars'] } });

test('the heads are above their columns', async ({ page, server }) => {
  await server.start('--interval', '1h');
  await fetch(`${server.url}/events/t?split=lines`, { method: 'POST', body: 'x\n'.repeat(60) });
  await page.goto(`${server.url}/?topic=t`);
  await expect(state(page)).toHaveText('Live');
  const scroller = page.locator('.scroller');
  expect(await scroller.evaluate((list: HTMLElement) => list.offsetWidth - list.clientWidth)).toBeGreaterThan(5);
  const right = (element: Locator) => element.evaluate((element) => Math.round(element.getBoundingClientRect().right));
  expect(await right(page.locator('.columns > :last-child'))).toBe(await right(page.locator('.rows .id').last()));
});

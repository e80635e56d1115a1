// The frame of all pages: the way to the others, and the choice of the colours.
import type { Page } from '@playwright/test';
import { expect, test } from './server.ts';

const paper = (page: Page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
/** Returns the colour of the browser's own bar. */
const bar = (page: Page) =>
  page.evaluate(() => {
    const bars = [...document.querySelectorAll<HTMLMetaElement>('meta[name=theme-color]')];
    const { content } = bars.find(({ media }) => matchMedia(media).matches)!;
    return content.replace(/#(..)(..)(..)/, (_, ...parts) => `rgb(${parts.slice(0, 3).map((part) => parseInt(part, 16)).join(', ')})`);
  });
const [light, dark] = ['rgb(251, 250, 247)', 'rgb(20, 24, 26)'];

test('each page leads to the others, and says which one it is', async ({ page, server }) => {
  await server.start();
  await page.goto(server.url);
  const pages = page.getByRole('navigation', { name: 'Pages' });
  for (const [name, path] of [
    ['Topics', '/topics'],
    ['Compare', '/compare'],
    ['Diagnose', '/diagnose'],
    ['Live', '/'],
  ]) {
    await pages.getByRole('link', { name }).click();
    await expect(page).toHaveURL(server.url + path);
    await expect(pages.locator('[aria-current=page]')).toHaveText(name);
  }
});

test('the colours are those of the system, or the chosen ones on all pages', async ({ page, server }) => {
  await server.start();
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.goto(server.url);
  expect(await paper(page)).toBe(dark);
  expect(await bar(page)).toBe(dark);
  const choice = page.getByRole('combobox', { name: 'Colours' });
  await choice.selectOption('Light');
  expect(await paper(page)).toBe(light);
  expect(await bar(page)).toBe(light);
  await page.goto(`${server.url}/diagnose`);
  expect(await paper(page)).toBe(light);
  expect(await bar(page)).toBe(light);
  await expect(choice).toHaveValue('light');
  await choice.selectOption('System');
  expect(await paper(page)).toBe(dark);
  expect(await bar(page)).toBe(dark);
});

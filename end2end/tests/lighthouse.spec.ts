// Lighthouse on each page, with a phone's settings. Accessibility, best practices, search engines
// and the layout shift are asserted. Performance depends on the machine and is only printed.
import { chromium } from '@playwright/test';
import lighthouse from 'lighthouse';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import config from '../playwright.config.ts';
import { expect, test } from './server.ts';

const settings = { networkQuietThresholdMs: 0, pauseAfterFcpMs: 0, pauseAfterLoadMs: 0 };
// A stream never ends, so Lighthouse would wait for the end of the page's requests in vain. On a
// busy machine the page may not be painted within the first of these times, and then no layout
// shift is known.
const waits = [4_000, 15_000, 45_000];
const asserted = ['accessibility', 'best-practices', 'seo'];

test('Lighthouse finds nothing on any page of a phone', async ({ server }) => {
  test.setTimeout(600_000);
  await server.start();
  const profile = await mkdtemp(join(tmpdir(), 'lighthouse-'));
  const { executablePath, args, chromiumSandbox } = config.projects![0].use!.launchOptions!;
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath,
    chromiumSandbox,
    args: [...args!, '--remote-debugging-port=0'],
  });
  try {
    const port = Number((await readFile(join(profile, 'DevToolsActivePort'), 'utf8')).split('\n')[0]);
    const page = await browser.newPage();
    await page.goto(`${server.url}/nowhere`);
    const links = await page.locator('nav a').evaluateAll((links) => links.map((link) => link.getAttribute('href')!));
    expect(links).toContain('/');
    await page.close();
    for (const path of links) {
      const flags = { ...settings, port, onlyCategories: [...asserted, 'performance'], logLevel: 'error' as const };
      const run = async (maxWaitForLoad: number) =>
        (await lighthouse(server.url + path, { ...flags, maxWaitForLoad }))!.lhr;
      let { categories, audits } = await run(waits[0]);
      for (const wait of waits.slice(1)) {
        if (audits['cumulative-layout-shift'].numericValue === undefined) ({ categories, audits } = await run(wait));
      }
      const { numericValue: shift, errorMessage } = audits['cumulative-layout-shift'];
      if (shift === undefined) throw new Error(`${path}: ${errorMessage}`);
      const scores = Object.values(categories).map(({ title, score }) => `${title} ${score! * 100}`);
      console.log(`lighthouse: ${path}: ${scores.join(', ')}, layout shift ${shift.toFixed(3)}`);
      for (const id of asserted) {
        const missed = categories[id].auditRefs.filter(({ weight, id }) => weight > 0 && (audits[id].score ?? 1) < 1);
        expect(missed.map(({ id }) => [id, audits[id].displayValue, audits[id].details]), path).toEqual([]);
        expect(categories[id].score, path).toBe(1);
      }
      expect(shift, path).toBeLessThan(0.02);
    }
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
});

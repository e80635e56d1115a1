// Lighthouse on the page, with a desktop's settings. Accessibility and best practices are asserted.
// Performance depends on the machine and is only printed.
import { chromium } from '@playwright/test';
import lighthouse, { desktopConfig } from 'lighthouse';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import config from '../playwright.config.ts';
import { expect, test } from './server.ts';

test('Lighthouse', async ({ server }) => {
  test.setTimeout(120_000);
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
    const onlyCategories = ['accessibility', 'best-practices', 'performance'];
    const result = await lighthouse(server.url, { port, onlyCategories, logLevel: 'error' }, desktopConfig);
    const { categories, audits } = result!.lhr;
    for (const { title, score } of Object.values(categories)) console.log(`lighthouse: ${title} ${score! * 100}`);
    for (const id of ['accessibility', 'best-practices']) {
      const missed = categories[id].auditRefs.filter(({ weight, id }) => weight > 0 && (audits[id].score ?? 1) < 1);
      expect(missed.map(({ id }) => [id, audits[id].displayValue, audits[id].details])).toEqual([]);
      expect(categories[id].score).toBe(1);
    }
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
});

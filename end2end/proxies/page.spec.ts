// Behind each proxy, the page /diagnose must find exactly the faults of the case.
import { expect } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { cases, title } from './cases.ts';
import { test } from './proxies.ts';
import { expectReport } from './report.ts';

test.use({ ignoreHTTPSErrors: true, permissions: ['clipboard-read', 'clipboard-write'] });

for (const one of cases) {
  const { proxy, tls, faults, onPage } = one;
  test(title(one), async ({ front, server, page }) => {
    test.setTimeout(120_000 * patience);
    await front.start(proxy, server.url, one);
    await page.goto(`${front.url}/diagnose`);
    await page.getByLabel('Idle period to test').selectOption('5');
    await page.getByRole('button', { name: 'Start' }).click();
    await page.getByRole('button', { name: 'Copy as JSON' }).click({ timeout: 90_000 * patience });
    await expect(page.getByText('Copied.')).toBeVisible();
    const output = await page.evaluate(() => navigator.clipboard.readText());
    // Over HTTP/1.1 a browser opens only six connections, which hides any higher limit.
    const found = onPage ?? faults;
    const six = [...found.filter((fault) => fault !== 'connection-limit'), 'six-connections'];
    expectReport(output, one, tls === 'HTTP/2' ? found : six);
  });
}

// The page /diagnose behind each proxy finds the fault that is there, and no other.
import { expect, test as base } from '@playwright/test';
import { Server } from '../tests/server.ts';
import { cases, recognised } from './cases.ts';
import { fixtures, type Proxy } from './proxies.ts';

const test = base.extend<{ front: Proxy; server: Server }>({
  ...fixtures,
  server: async ({}, use) => {
    const server = new Server();
    await server.start('--trusted-proxy', '127.0.0.1');
    await use(server);
    await server.kill();
  },
});

test.use({ permissions: ['clipboard-read', 'clipboard-write'] });

for (const { proxy, setting, changes, faults, onPage } of cases) {
  test(`${proxy}: ${setting}`, async ({ front, server, page }) => {
    test.setTimeout(120_000);
    await front.start(proxy, server.url, changes);
    await page.goto(`${front.url}/diagnose`);
    await page.getByLabel('Longest silence tried').selectOption('5');
    await page.getByRole('button', { name: 'Start' }).click();
    await page.getByRole('button', { name: 'Copy as JSON' }).click({ timeout: 90_000 });
    await expect(page.getByText('Copied.')).toBeVisible();
    const output = await page.evaluate(() => navigator.clipboard.readText());

    const report: Report = JSON.parse(output);
    const found = report.findings.flatMap((finding) => finding.faults.map(({ name }) => name));
    // A browser opens six connections, so it cannot see another limit above that; it reads what is compressed.
    const expected = [...(onPage ?? faults).filter((fault) => fault !== 'connection-limit'), 'six-connections'];
    expect([...new Set(found)].sort(), output).toEqual(expected.sort());
    const names = report.path.intermediaries.map(({ name }) => name);
    expect(names).toEqual(recognised[proxy] ? [recognised[proxy]] : ['unknown']);
  });
}

type Report = {
  path: { intermediaries: { name: string }[] };
  findings: { faults: { name: string }[] }[];
};

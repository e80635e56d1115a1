// `waterclock diagnose` behind each proxy finds the fault that is there, and no other.
import { expect, test as base } from '@playwright/test';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { binary, Server } from '../tests/server.ts';
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

type Report = {
  path: { intermediaries: { name: string }[] };
  findings: { check: string; verdict: string; measured: string; faults: { name: string }[] }[];
};

for (const { proxy, setting, changes, faults } of cases) {
  test(`${proxy}: ${setting}`, async ({ front, server }) => {
    test.setTimeout(60_000);
    await front.start(proxy, server.url, changes);
    const child = spawn(binary, ['diagnose', front.url, '--json', '--idle', '5s'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 50_000,
    });
    const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);

    expect([0, 1], errors).toContain(code);
    const report: Report = JSON.parse(output);
    const found = report.findings.flatMap((finding) => finding.faults.map(({ name }) => name));
    // Of a stream that is compressed it reads the headers only, so not that it is held back, too.
    const expected = faults.includes('compression') ? ['compression'] : faults;
    expect([...new Set(found)].sort(), output).toEqual(expected);
    expect(code).toBe(faults.length ? 1 : 0);
    const names = report.path.intermediaries.map(({ name }) => name);
    expect(names).toEqual(recognised[proxy] ? [recognised[proxy]] : ['unknown']);
  });
}

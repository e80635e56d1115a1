// Behind each proxy, `waterclock diagnose` must find exactly the faults of the case.
import { expect } from '@playwright/test';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { patience } from '../playwright.config.ts';
import { binary } from '../tests/server.ts';
import { cases, title } from './cases.ts';
import { test } from './proxies.ts';
import { expectReport } from './report.ts';

for (const one of cases) {
  const { proxy, faults } = one;
  test(title(one), async ({ front, server }) => {
    test.setTimeout(60_000 * patience);
    await front.start(proxy, server.url, one);
    const child = spawn(binary, ['diagnose', front.url, '--json', '--idle', '5s', '--insecure'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 50_000 * patience,
    });
    const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);

    expect([0, 1], errors).toContain(code);
    // It reads only the headers of a compressed stream, so it cannot see the buffering.
    const isCompressed = faults.includes('compression');
    const found = expectReport(output, one, faults.filter((fault) => !(isCompressed && fault === 'buffering')));
    expect(code).toBe(found.length ? 1 : 0);
  });
}

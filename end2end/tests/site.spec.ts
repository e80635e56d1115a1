// The page's Content Security Policy, and its files.
import { request } from 'node:http';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binary, expect, networkErrors, state, test } from './server.ts';

test.describe('a foreign script', () => {
  test.use({ allowedErrors: /Content Security Policy|Failed to load resource/ });

  test('does not run', async ({ page, server }) => {
    await server.start();
    await page.goto(server.url);
    await expect(state(page)).toHaveText('Live');
    // A script element, and an event handler of an image that cannot be loaded.
    const refused = await page.evaluate(async () => {
      const violations: string[] = [];
      const both = new Promise<void>((done) => {
        document.addEventListener('securitypolicyviolation', (violation) => {
          if (violations.push(violation.effectiveDirective) === 2) done();
        });
      });
      const script = document.createElement('script');
      script.textContent = 'document.body.dataset.ran = "yes"';
      document.body.append(script);
      document.body.insertAdjacentHTML('beforeend', '<img src="/nowhere" onerror="document.body.dataset.ran = 1">');
      await both;
      return violations;
    });
    expect(refused.sort()).toEqual(['script-src-attr', 'script-src-elem']);
    expect(await page.evaluate(() => document.body.dataset.ran)).toBeUndefined();
  });
});

// The program that `cargo leptos` builds reads the files from disk, under plain names.
test.describe('the single file', () => {
  test.skip(!process.env.WATERCLOCK_BINARY, 'the program of `make build` has the files inside');
  test.use({ allowedErrors: networkErrors });

  test('is all that the program needs', async ({ page, server }) => {
    const folder = mkdtempSync(join(tmpdir(), 'waterclock-'));
    server.program = join(folder, 'waterclock');
    copyFileSync(binary, server.program);
    server.spawnOptions = { cwd: folder, env: {} };
    await server.start();
    await page.goto(server.url);
    await expect(state(page)).toHaveText('Live');
    await expect(page.locator('.rows .event').first()).toBeVisible();
    await page.goto(`${server.url}/nowhere`);
    await expect(page.getByRole('heading', { name: 'Not found' })).toBeVisible();
    await server.kill();
    rmSync(folder, { recursive: true });
  });

  test('files are compressed, immutable, and named by their content', async ({ server }) => {
    await server.start();
    const html = await (await fetch(server.url)).text();
    const paths = [...html.matchAll(/<link [^>]*href="([^"]+)"/g)].map((link) => link[1]);
    expect(paths.map((path) => path.replace(/\.[0-9a-f]{16}\./, '.'))).toEqual([
      '/favicon.svg',
      '/pkg/waterclock.css',
      '/pkg/waterclock.js',
      '/pkg/waterclock.wasm',
      '/plain.css',
    ]);
    for (const path of paths) {
      expect(path).toMatch(/\.[0-9a-f]{16}\.\w+$/);
      const whole = await (await fetch(server.url + path, { headers: { 'accept-encoding': 'identity' } })).text();
      for (const encoding of ['br', 'gzip']) {
        const answer = await fetch(server.url + path, { headers: { 'accept-encoding': encoding } });
        expect(answer.headers.get('content-encoding')).toBe(encoding);
        expect(answer.headers.get('vary')).toBe('accept-encoding');
        expect(answer.headers.get('cache-control')).toBe('public, max-age=31536000, immutable, no-transform');
        expect(await answer.text()).toBe(whole);
      }
    }
  });

  test('a file under its plain name is revalidated', async ({ server }) => {
    await server.start();
    const answer = await fetch(`${server.url}/favicon.svg`);
    expect(answer.headers.get('cache-control')).toBe('no-cache, no-transform');
    const etag = answer.headers.get('etag')!;
    const again = await fetch(`${server.url}/favicon.svg`, { headers: { 'if-none-match': etag } });
    expect(again.status).toBe(304);
  });

  test('other files are not served', async ({ server }) => {
    await server.start();
    for (const path of ['/../Cargo.toml', '/%2e%2e/Cargo.toml', '/..%2fCargo.toml', '/pkg/../../Cargo.toml', '/pkg/']) {
      const status = await new Promise((resolve, reject) => {
        // `fetch` would normalize the path.
        const asked = request(server.url, { path }, (answer) => resolve(answer.resume().statusCode));
        asked.on('error', reject).end();
      });
      expect(status, path).toBe(404);
    }
  });
});

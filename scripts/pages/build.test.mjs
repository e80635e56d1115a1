// Compares a page of `make build` with that of cargo-leptos, which must be installed. Both share
// what they compile, so this takes seconds after `make build`.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import test from 'node:test';
import { build, environment, targets } from './build.mjs';

const root = resolve(import.meta.dirname, '../..');

test('the page is the same, byte by byte, as that of cargo-leptos', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'waterclock-'));
  try {
    const [ours, theirs] = [join(folder, 'ours'), join(folder, 'theirs')];
    await build(ours, ['home'], { isWhole: true });
    const env = { ...environment(), LEPTOS_SITE_ROOT: theirs };
    const options = ['leptos', 'build', '--release', '--frontend-only', '--lib-features', 'home'];
    execFileSync('cargo', options, { cwd: root, env, stdio: ['ignore', 'ignore', 'inherit'] });
    for (const file of ['pkg/waterclock.wasm', 'pkg/waterclock.js', 'pkg/waterclock.css', 'favicon.svg']) {
      const [our, their] = [ours, theirs].map((site) => readFileSync(join(site, file)));
      assert.ok(our.length > 0 && our.equals(their), `${file}: ${our.length} bytes, and ${their.length}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('versions of browsers are read as Lightning CSS has them', () => {
  assert.deepEqual(targets('chrome 109, safari 15.6'), { chrome: 109 << 16, safari: (15 << 16) | (6 << 8) });
  assert.throws(() => targets('defaults'), /"defaults" is no browser with a version/);
});

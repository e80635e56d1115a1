// The files that are served and published.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';

const file = (name) => readFileSync(resolve(import.meta.dirname, '..', name));

test('the bundle has at most 8 kB in brotli', () => {
  for (const size of [file('client.js.br').length, brotliCompressSync(file('client.js')).length]) {
    console.log(`client.js: ${size} bytes`);
    assert(size <= 8_000, `${size} bytes`);
  }
});

test('the bundle exports what the package does, and importing them does nothing', async () => {
  const [before, handles] = [Object.keys(globalThis), process.getActiveResourcesInfo().length];
  const names = ['PublishError', 'TokenError', 'publish', 'subscribe'];
  for (const name of ['client.js', 'dist/index.js']) {
    assert.deepEqual(Object.keys(await import(`../${name}`)), names, name);
  }
  assert.deepEqual(Object.keys(globalThis), before);
  assert.equal(process.getActiveResourcesInfo().length, handles);
});

test('the package has the version of the server, and no dependencies', () => {
  const { version, dependencies } = JSON.parse(file('package.json'));
  const [, expected] = /^version = "(.+)"$/m.exec(file('../Cargo.toml'));
  assert.equal(version, expected);
  assert.equal(dependencies, undefined);
});

test('a build leaves files that are right untouched, and mends the others', (t) => {
  const folder = mkdtempSync(resolve(tmpdir(), 'waterclock-client-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const own = resolve(import.meta.dirname, '..');
  const names = ['client.js', 'client.js.br'];
  for (const name of ['src', 'build.mjs', 'package.json', ...names]) {
    cpSync(resolve(own, name), resolve(folder, name), { recursive: true });
  }
  symlinkSync(resolve(own, 'node_modules'), resolve(folder, 'node_modules'));
  const [plain, compressed] = names.map((name) => resolve(folder, name));
  const build = () => execFileSync(process.execPath, ['build.mjs'], { cwd: folder });
  const check = () => spawnSync(process.execPath, ['build.mjs', '--check'], { cwd: folder }).status;
  // As another version of brotli may do it.
  const options = { params: { [constants.BROTLI_PARAM_QUALITY]: 5 } };
  writeFileSync(compressed, brotliCompressSync(readFileSync(plain), options));
  const seen = () => [plain, compressed].map((path) => [statSync(path).mtimeMs, readFileSync(path)]);
  for (const path of [plain, compressed]) utimesSync(path, 1, 1);
  const before = seen();
  build();
  assert.deepEqual(seen(), before);
  assert.equal(check(), 0);
  for (const damage of [() => writeFileSync(compressed, 'no brotli'), () => rmSync(plain)]) {
    damage();
    assert.equal(check(), 1);
    build();
    assert.deepEqual(readFileSync(plain), before[0][1]);
    assert.deepEqual(brotliDecompressSync(readFileSync(compressed)), before[0][1]);
  }
});

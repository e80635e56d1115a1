// The files that are served and published.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { brotliCompressSync } from 'node:zlib';

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

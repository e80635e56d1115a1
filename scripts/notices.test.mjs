import assert from 'node:assert/strict';
import test from 'node:test';
import { bill, checksums, expression, notices } from './notices.mjs';

const parts = [
  { name: 'one', version: '1.0.0', license: 'MIT/Apache-2.0' },
  { name: 'two', version: '2.1.0', license: 'MIT' },
];

test('a slash between licences is an OR', () => {
  assert.equal(expression('MIT / Apache-2.0'), 'MIT OR Apache-2.0');
});

test('the bill names each part once, with its checksum if it is from a registry', () => {
  const lock = '[[package]]\nname = "two"\nversion = "2.1.0"\nsource = "registry"\nchecksum = "ab"\n';
  const { components, dependencies } = bill({ version: '0.1.0', license: 'MIT' }, parts, checksums(lock));
  const [one, two] = components;
  assert.deepEqual([one.purl, two.purl], ['pkg:cargo/one@1.0.0', 'pkg:cargo/two@2.1.0']);
  assert.deepEqual([one.hashes, two.hashes], [undefined, [{ alg: 'SHA-256', content: 'ab' }]]);
  assert.equal(components[0].licenses[0].expression, 'MIT OR Apache-2.0');
  assert.equal(dependencies[0].dependsOn.length, 2);
});

test('a text that two parts share is there once, with the names of both', () => {
  const text = notices(parts, () => ['Permission is hereby granted']);
  assert.equal(text.split('Permission').length, 2);
  assert.match(text, /^one, two$/m);
});

// Tests of shorten.mjs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shorten } from './shorten.mjs';

const text = (text) => [text.length, ...Buffer.from(text)];
/** A module that imports two functions and exports their sum, and a custom section. */
const module = (first, second) => {
  const imports = [2, ...text('./page'), ...text(first), 0, 0, ...text('./page'), ...text(second), 0, 0];
  const section = (id, content) => [id, content.length, ...content];
  return Buffer.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 0, 1, 0x7f]),
    ...section(2, imports),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text('sum'), 0, 2]),
    ...section(10, [1, 7, 0, 0x10, 0, 0x10, 1, 0x6a, 0x0b]),
    ...section(0, text('about')),
  ]);
};

/** A script as wasm-bindgen writes it. */
const script = (first, second) => `({'./page':{${first}:()=>40,${second}:function(){return 2}}})`;

const sum = async (wasm, script) => (await WebAssembly.instantiate(wasm, eval(script))).instance.exports.sum();

test('a module with short names runs as before', async () => {
  const names = ['__wbg_a_fdc94d0c5c11a1b8', '__wbg_a_fdc94d0c5c11a1b8_2'];
  const before = [module(...names), script(...names)];
  assert.equal(await sum(...before), 42);
  const after = shorten(...before);
  assert.equal(await sum(...after), 42);
  assert.equal(after[1], script('$0', '$1'));
  assert.deepEqual(shorten(...after), after, 'the second time changes nothing');
  const long = ['a'.repeat(90), 'b'.repeat(90)];
  assert.throws(() => shorten(module(...names), script(...long)), /has no __wbg_a/);
  assert.throws(() => shorten(module(...names), `${script(...names)};var $1`), /has a \$1 already/);
});

// Tests of shorten.mjs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shorten } from './shorten.mjs';

const text = (text) => [text.length, ...Buffer.from(text)];
/** A module that imports two functions and exports their sum, with a custom section. */
const module = (first, second, sum, from = './page') => {
  const imports = [2, ...text('./page'), ...text(first), 0, 0, ...text(from), ...text(second), 0, 0];
  const section = (id, content) => [id, content.length, ...content];
  return Buffer.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 0, 1, 0x7f]),
    ...section(2, imports),
    ...section(3, [1, 0]),
    ...section(7, [3, ...text('add'), 0, 2, ...text(sum), 0, 2, ...text('unused'), 0, 2]),
    ...section(10, [1, 7, 0, 0x10, 0, 0x10, 1, 0x6a, 0x0b]),
    ...section(0, text('about')),
  ]);
};

/** A script as wasm-bindgen writes it. */
const script = (first, second, sum, from = './page') =>
  `({imports:{'${from}':{${first}:()=>40,${second}:function(){return 2}}},run:(e)=>[e.add(),e.${sum}()]})`;

const run = async (wasm, script) => {
  const { imports, run } = eval(script);
  const { exports } = (await WebAssembly.instantiate(wasm, imports)).instance;
  return { sums: run(exports), names: Object.keys(exports) };
};

const names = ['__wbg_a_fdc94d0c5c11a1b8', '__wbg_a_fdc94d0c5c11a1b8_2', 'invoke__hf6a72028491627c8'];

test('a module with short names runs as before', async () => {
  const before = [module(...names), script(...names)];
  assert.deepEqual(await run(...before), { sums: [42, 42], names: ['add', names[2], 'unused'] });
  const after = shorten(...before);
  assert.deepEqual(await run(...after), { sums: [42, 42], names: ['add', '$002'] });
  assert.equal(after[1], script('$000', '$001', '$002', ''));
  assert.ok(!after[0].includes('about'), 'custom sections are left out');
  assert.deepEqual(shorten(...after), after, 'the second time changes nothing');
});

test('a module that does not fit its script is refused', () => {
  const long = ['a'.repeat(90), 'b'.repeat(90), 'c'];
  assert.throws(() => shorten(module(...names), script(...long)), /has no __wbg_a/);
  assert.throws(() => shorten(module(...names), `${script(...names)};var $001`), /has a \$001 already/);
  assert.throws(() => shorten(module(...names, './other'), script(...names)), /imports from .\/other, too/);
});

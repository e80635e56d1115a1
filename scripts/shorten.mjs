// Shortens the names of the imports of a WebAssembly module, in the module and in its JavaScript.
// wasm-bindgen gives each a hash, which does not compress: 5 kB of the first load of /.
//
//   node scripts/shorten.mjs target/release/site/pkg/waterclock
import { readFileSync, writeFileSync } from 'node:fs';
import { argv } from 'node:process';

const IMPORTS = 2;
const FUNCTION = 0;

/** Returns the module with other names of imports. `rename` gets each name, in order. */
export function renameImports(wasm, rename) {
  let at = 8; // After the magic number and the version.
  const number = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = wasm[at++];
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  };
  const bytes = (length) => wasm.subarray(at, (at += length));
  const parts = [wasm.subarray(0, at)];
  while (at < wasm.length) {
    const start = at;
    const [id, length] = [wasm[at++], number()];
    const end = at + length;
    if (id === IMPORTS) {
      const imports = [];
      const count = number();
      imports.push(encoded(count));
      while (at < end) {
        const [module, name] = [bytes(number()), bytes(number()).toString()];
        if (wasm[at++] !== FUNCTION) throw new Error(`the import ${name} is not a function`);
        const type = number();
        for (const text of [module, Buffer.from(rename(name))]) imports.push(encoded(text.length), text);
        imports.push(Buffer.from([FUNCTION]), encoded(type));
      }
      const section = Buffer.concat(imports);
      parts.push(Buffer.from([id]), encoded(section.length), section);
    } else {
      parts.push(wasm.subarray(start, end));
    }
    at = end;
  }
  return Buffer.concat(parts);
}

/** Encodes a number as LEB128. */
function encoded(number) {
  const bytes = [];
  for (; number >= 0x80; number >>>= 7) bytes.push((number & 0x7f) | 0x80);
  return Buffer.from([...bytes, number]);
}

/** Returns both files with short names. Names that are short already stay as they are. */
export function shorten(wasm, script) {
  const short = new Map();
  const renamed = renameImports(wasm, (name) => {
    if (!short.has(name)) short.set(name, `$${short.size}`);
    return short.get(name);
  });
  const seen = new Set(script.match(/[\w$]+/g));
  for (const [name, other] of short) {
    if (!seen.has(name)) throw new Error(`the script has no ${name}`);
    if (seen.has(other) && !short.has(other)) throw new Error(`the script has a ${other} already`);
  }
  return [renamed, script.replace(/[\w$]+/g, (word) => short.get(word) ?? word)];
}

if (argv[1] === import.meta.filename) {
  for (const path of argv.slice(2)) {
    const [wasm, script] = shorten(readFileSync(`${path}.wasm`), readFileSync(`${path}.js`, 'utf8'));
    writeFileSync(`${path}.wasm`, wasm);
    writeFileSync(`${path}.js`, script);
  }
}

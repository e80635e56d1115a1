// Shortens a WebAssembly module and its JavaScript, as wasm-bindgen writes them: 6 kB of the first
// load of /. Names with hashes do not compress, and each is in both files. Custom sections are
// notes for tools, and exports that the script does not name are never called.
//
//   node scripts/shorten.mjs target/release/site/pkg/waterclock
import { readFileSync, writeFileSync } from 'node:fs';
import { argv } from 'node:process';

const CUSTOM = 0;
const IMPORTS = 2;
const EXPORTS = 7;
const FUNCTION = 0;

/**
 * Returns the module with other names, and without its custom sections. `renameImport` gets the
 * module and the name of each import, in order, and returns both. `renameExport` gets the name of
 * each export, and returns nothing for one to leave out.
 */
export function rename(wasm, renameImport, renameExport) {
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
  const text = () => bytes(number()).toString();
  const parts = [wasm.subarray(0, at)];
  /** Adds a section with these entries, each a list of byte strings. */
  const section = (id, entries) => {
    const content = Buffer.concat([encoded(entries.length), ...entries.flat()]);
    parts.push(Buffer.from([id]), encoded(content.length), content);
  };
  while (at < wasm.length) {
    const start = at;
    const [id, length] = [wasm[at++], number()];
    const end = at + length;
    const entries = [];
    if (id === IMPORTS) {
      for (let count = number(); count > 0; count--) {
        const names = renameImport(text(), text());
        if (wasm[at++] !== FUNCTION) throw new Error(`the import ${names[1]} is not a function`);
        entries.push([...names.map(encodedText), Buffer.from([FUNCTION]), encoded(number())]);
      }
      section(id, entries);
    } else if (id === EXPORTS) {
      for (let count = number(); count > 0; count--) {
        const name = renameExport(text());
        const exported = [bytes(1), encoded(number())];
        if (name) entries.push([encodedText(name), ...exported]);
      }
      section(id, entries);
    } else if (id !== CUSTOM) {
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

function encodedText(text) {
  const bytes = Buffer.from(text);
  return Buffer.concat([encoded(bytes.length), bytes]);
}

/** Returns both files with short names. Names that are short already stay as they are. */
export function shorten(wasm, script) {
  const short = new Map();
  const modules = new Set();
  const shortName = (name) => {
    // All of the same length, so that more of the bytes around them repeat.
    if (!short.has(name)) short.set(name, `$${String(short.size).padStart(3, '0')}`);
    return short.get(name);
  };
  const seen = new Set(script.match(/[\w$]+/g));
  const renameImport = (module, name) => {
    modules.add(module);
    return ['', shortName(name)];
  };
  const renameExport = (name) => {
    if (!seen.has(name)) return undefined;
    // The others are the names of functions in the script, too.
    return /^__|^\$|_h[\da-f]{16}/.test(name) ? shortName(name) : name;
  };
  const renamed = rename(wasm, renameImport, renameExport);
  for (const [name, other] of short) {
    if (!seen.has(name)) throw new Error(`the script has no ${name}`);
    if (seen.has(other) && !short.has(other)) throw new Error(`the script has a ${other} already`);
  }
  const [module, ...others] = modules;
  if (others.length > 0) throw new Error(`the module imports from ${others[0]}, too`);
  const code = script.replace(/[\w$]+/g, (word) => short.get(word) ?? word);
  return [renamed, code.replaceAll(module, '')];
}

if (argv[1] === import.meta.filename) {
  for (const path of argv.slice(2)) {
    const [wasm, script] = shorten(readFileSync(`${path}.wasm`), readFileSync(`${path}.js`, 'utf8'));
    writeFileSync(`${path}.wasm`, wasm);
    writeFileSync(`${path}.js`, script);
  }
}

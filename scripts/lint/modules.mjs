// Builds the module graph of a crate from its source files: a node is a file, an arrow is an
// import. Paths are looked up as the compiler does it, through `use`, `pub use` and globs, so that
// an arrow ends at the file that defines the item.
import { dirname } from 'node:path/posix';
import { closing, outerAttributes, separate, withoutTests } from './rust.mjs';

/** Files that are the root of a crate, by their place in a package. */
const CRATE_ROOTS = [
  /^build\.rs$/,
  /^src\/(?:lib|main|bin\/[^/]+|bin\/[^/]+\/main)\.rs$/,
  /^(?:examples|tests|benches)\/(?:[^/]+|[^/]+\/main)\.rs$/,
];

const ITEMS = new Set(['fn', 'struct', 'enum', 'trait', 'type', 'union', 'const', 'static', 'macro_rules']);
const RESERVED = new Set(['crate', 'self', 'super']);

/** The root files of a package's crates: library, programs, examples and tests. */
export function crateRoots(tree, pack) {
  const prefix = pack.folder ? `${pack.folder}/` : '';
  const named = [...tree.text(`${prefix}Cargo.toml`).matchAll(/^path\s*=\s*"([^"]+\.rs)"/gm)];
  const paths = named.map(([, path]) => path);
  return tree.own(pack).filter((file) => {
    const path = file.slice(prefix.length);
    return paths.includes(path) || CRATE_ROOTS.some((pattern) => pattern.test(path));
  });
}

/**
 * A module. `file` is where its text is, which for `mod name { … }` is the file of its parent.
 * `names` has the bindings of each name; a name can have several, since a `cfg` can choose between
 * them. A binding is `{ module }`, `{ isItem: true }` or the import `{ path }`.
 */
class Module {
  names = new Map();
  globs = [];
  /** Each path in the module, imports and code alike: `{ path, line }`. */
  paths = [];

  constructor(file, parent) {
    Object.assign(this, { file, parent });
  }

  bind(name, binding) {
    this.names.set(name, [...(this.names.get(name) ?? []), binding]);
  }

  get root() {
    return this.parent ? this.parent.root : this;
  }
}

/** Reads the crate with that root file, and returns its modules, the root first. */
export function readCrate(tree, rootFile) {
  const modules = [];
  const add = (file, parent) => {
    const module = new Module(file, parent);
    modules.push(module);
    return module;
  };
  /** Reads the file of a module, whose submodules have their files in `folder`. */
  const readFile = (module, folder) => {
    readModule(module, withoutTests(tree.scan(module.file).tokens), folder);
  };
  /** Reads `mod name;` and returns the module, or `null` if it has no file. */
  const declare = (parent, name, attributes, folder) => {
    const given = attributes.map(pathAttribute).find(Boolean);
    const candidates = given
      ? [`${dirname(parent.file)}/${given}`]
      : [`${folder}/${name}.rs`, `${folder}/${name}/mod.rs`];
    const file = candidates.find((path) => tree.has(path));
    if (!file) return null;
    const module = add(file, parent);
    readFile(module, given || file.endsWith('/mod.rs') ? dirname(file) : `${folder}/${name}`);
    return module;
  };
  const readModule = (module, tokens, folder) => {
    const words = [];
    /** Reads the tokens up to `end`. Only items at the `top` are names of the module. */
    const read = (at, end, top) => {
      let attributes = [];
      while (at < end) {
        const found = outerAttributes(tokens, at);
        if (found.length > 0) {
          attributes = found;
          for (const attribute of found) module.paths.push(...pathsInStrings(attribute.tokens));
          at = found.at(-1).end + 1;
          continue;
        }
        const { kind, text, line } = tokens[at];
        const next = tokens[at + 1];
        // Not the `use<'a>` of a return type.
        if (text === 'use' && next?.text !== '<') {
          let last = at;
          while (last < end && tokens[last].text !== ';') last += 1;
          readUse(module, tokens.slice(at + 1, last), top);
          at = last + 1;
        } else if (text === 'mod' && next?.kind === 'name') {
          let child;
          if (tokens[at + 2]?.text === '{') {
            const last = closing(tokens, at + 2);
            child = add(module.file, module);
            readModule(child, tokens.slice(at + 3, last), `${folder}/${next.text}`);
            at = last + 1;
          } else {
            child = declare(module, next.text, attributes, folder);
            at += 3;
          }
          if (top && child) module.bind(next.text, { module: child });
          attributes = [];
        } else if (kind === 'name' && ITEMS.has(text)) {
          const name = text === 'macro_rules' ? tokens[at + 2] : next;
          if (top && name?.kind === 'name') module.bind(name.text, { isItem: true });
          at += 1;
        } else if (text === '{') {
          const last = closing(tokens, at);
          read(at + 1, last, false);
          at = last + 1;
        } else if (kind === 'name' && !['.', '::'].includes(tokens[at - 1]?.text)) {
          const path = pathAt(tokens, at);
          (path.length > 1 ? module.paths : words).push({ path, line });
          at += 2 * path.length - 1;
        } else {
          at += 1;
        }
      }
    };
    read(0, tokens.length, true);
    // A word by itself may be a local variable, unless nothing but a glob can have brought it.
    if (module.globs.length > 0) {
      module.paths.push(
        ...words.filter(({ path: [word] }) => !module.names.has(word) && !RESERVED.has(word)),
      );
    }
  };
  const root = add(rootFile, null);
  readFile(root, dirname(rootFile));
  return modules;
}

function pathAttribute({ tokens: [name, equals, value] }) {
  return name?.text === 'path' && equals?.text === '=' ? value.text.slice(1, -1) : null;
}

/** The paths in the strings of an attribute, such as `#[serde(with = "crate::time")]`. */
function pathsInStrings(tokens) {
  return tokens.flatMap(({ kind, text, line }) => {
    const isPath = kind === 'string' && /^"(?:crate|self|super)(?:::\w+)+"$/.test(text);
    return isPath ? [{ path: text.slice(1, -1).split('::'), line }] : [];
  });
}

function pathAt(tokens, at) {
  const path = [tokens[at].text];
  while (tokens[at + 1]?.text === '::' && tokens[at + 2]?.kind === 'name') {
    at += 2;
    path.push(tokens[at].text);
  }
  return path;
}

/** Reads a tree of imports, such as `crate::{a, b::{self, C as D}, e::*}`. */
function readUse(module, tokens, top, prefix = []) {
  const path = [...prefix];
  for (let at = 0; at < tokens.length && tokens[at].text !== 'as'; at += 1) {
    const { kind, text, line } = tokens[at];
    if (text === '{') {
      const parts = separate(tokens.slice(at + 1, closing(tokens, at)));
      for (const part of parts) readUse(module, part, top, path);
      return;
    }
    if (text === '*') {
      module.paths.push({ path, line });
      module.globs.push({ path });
      return;
    }
    if (kind === 'name' && !(text === 'self' && path.length > 0)) path.push(text);
  }
  const { text: last, line } = tokens.at(-1);
  module.paths.push({ path, line });
  const name = tokens.at(-2)?.text === 'as' ? last : path.at(-1);
  if (top && name !== '_') module.bind(name, { path });
}

/**
 * Returns the places that a path leads to: `{ module }`, or `{ file, name }` for an item. There are
 * none if the path begins outside of the crate. Imports that are being looked up already (`seen`)
 * are passed over.
 */
export function resolve(path, from, seen = []) {
  let places = [{ module: from }];
  path.forEach((segment, at) => {
    places = places.flatMap((place) => {
      // Variants and associated functions belong to their item.
      if (!place.module) return [place];
      const { module } = place;
      if (segment === 'crate') return [{ module: module.root }];
      if (segment === 'super') return module.parent ? [{ module: module.parent }] : [];
      if (segment === 'self') return [place];
      const found = lookUp(segment, module, seen);
      // Not found behind a module: a macro has made it, or a glob brings it from another crate.
      return found ?? (at > 0 ? [{ file: module.file, name: segment }] : []);
    });
  });
  return places;
}

/** Returns the places that a name in a module stands for; `null` if the module has no such name. */
function lookUp(name, module, seen) {
  const bindings = module.names.get(name);
  if (bindings) {
    return bindings.flatMap((binding) => {
      if (binding.module) return [binding];
      const here = { file: module.file, name };
      if (binding.isItem) return [here];
      if (seen.includes(binding)) return [];
      const places = resolve(binding.path, module, [...seen, binding]);
      // What comes from another crate counts as an item of the module that imports it.
      return places.length > 0 ? places : [here];
    });
  }
  for (const glob of module.globs) {
    if (seen.includes(glob)) continue;
    for (const place of resolve(glob.path, module, [...seen, glob])) {
      const found = place.module && lookUp(name, place.module, [...seen, glob]);
      if (found) return found;
    }
  }
  return null;
}

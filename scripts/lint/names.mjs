// Looks for type names that occur twice: a name may occur once in a crate, private ones included,
// and a public one (`pub`, not `pub(crate)`) once in the workspace. Tests are left out.
import { crateRoots, readCrate } from './modules.mjs';
import { outerAttributes, withoutTests } from './rust.mjs';

/** Names that may occur more than once. An entry that no longer excuses anything is an error. */
const EXCEPTIONS = [
  // Alternatives with and without the feature `compare`.
  { name: 'Tap', crates: ['server'], reason: 'two alternatives by feature' },
];

const KEYWORDS = new Set(['struct', 'enum', 'trait', 'type', 'union']);

/** The types that a file defines, without associated types: `{ name, line, isPublic }`. */
export function typesIn(tokens) {
  const found = [];
  // For each open bracket: the first word of the item that it belongs to.
  const stack = [];
  let head = null;
  let isPublic = false;
  for (let at = 0; at < tokens.length; at += 1) {
    const attributes = outerAttributes(tokens, at);
    if (attributes.length > 0) {
      at = attributes.at(-1).end;
      continue;
    }
    const { kind, text, line } = tokens[at];
    const isStatement = stack.length === 0 || stack.at(-1).bracket === '{';
    if (text === '{' || text === '(' || text === '[') {
      stack.push({ bracket: text, head });
      if (text === '{') [head, isPublic] = [null, false];
    } else if (text === '}' || text === ')' || text === ']') {
      const closed = stack.pop();
      head = text === '}' ? null : (closed?.head ?? null);
      if (text === '}') isPublic = false;
    } else if (isStatement && text === ';') {
      [head, isPublic] = [null, false];
    } else if (isStatement && kind === 'name' && head === null) {
      if (text === 'pub') isPublic = tokens[at + 1]?.text !== '(';
      // Words that stand before the one that says what the item is.
      if (['pub', 'unsafe', 'auto', 'default'].includes(text)) continue;
      head = text;
      const next = tokens[at + 1];
      const isType = KEYWORDS.has(text) && next?.kind === 'name';
      const isAssociated = text === 'type' && ['impl', 'trait'].includes(stack.at(-1)?.head);
      if (isType && !isAssociated) found.push({ name: next.text, line, isPublic });
    }
  }
  return found;
}

export function check(tree, { exceptions = EXCEPTIONS } = {}) {
  const crates = tree.packages().flatMap((pack) => {
    const roots = crateRoots(tree, pack);
    // The library and the programs of a package count as one crate, and each example as another.
    const inSource = roots.filter((root) => tree.below(pack, 'src').includes(root));
    const examples = roots.filter((root) => /(^|\/)examples\//.test(root));
    return [
      { name: pack.name, files: filesOf(tree, inSource) },
      ...examples.map((root) => ({ name: root, files: filesOf(tree, [root]) })),
    ];
  });
  const types = crates.flatMap(({ name: crate, files }) =>
    files.flatMap((path) =>
      typesIn(withoutTests(tree.scan(path).tokens)).map((type) => ({ ...type, crate, path })),
    ),
  );
  const used = new Set();
  const excused = (name, among) => {
    const found = exceptions.find(
      (exception) => exception.name === name && among.every(({ crate }) => exception.crates.includes(crate)),
    );
    if (found) used.add(found);
    return Boolean(found);
  };
  const problems = [];
  const report = (name, among, where) => {
    if (among.length < 2 || excused(name, among)) return;
    const places = among.map(({ path, line }) => `${path}:${line}`).join(', ');
    problems.push(`${name} occurs ${among.length} times in ${where}: ${places}`);
  };
  const inCrates = groups(types, ({ crate, name }) => `${crate} ${name}`);
  for (const among of inCrates) report(among[0].name, among, among[0].crate);
  const publicOnes = types.filter(({ isPublic }) => isPublic);
  for (const among of groups(publicOnes, ({ name }) => name)) {
    if (new Set(among.map(({ crate }) => crate)).size > 1) report(among[0].name, among, 'the workspace');
  }
  for (const exception of exceptions) {
    const isHere = exception.crates.every((name) => crates.some((crate) => crate.name === name));
    if (isHere && !used.has(exception)) {
      problems.push(`the exception for ${exception.name} in names.mjs is not needed`);
    }
  }
  return { summary: `${types.length} types, ${problems.length} names that occur twice`, notes: [], problems };
}

/** The files of crates, given by their roots, without those that only tests compile. */
function filesOf(tree, roots) {
  return [...new Set(roots.flatMap((root) => readCrate(tree, root)).map(({ file }) => file))];
}

/** The elements in groups of equal keys, sorted by key. */
function groups(elements, key) {
  const map = new Map();
  for (const element of elements) {
    const of = key(element);
    if (!map.has(of)) map.set(of, []);
    map.get(of).push(element);
  }
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
}

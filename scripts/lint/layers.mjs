// Checks that the modules of the server lie in layers: a module may import only from its own layer
// and from those below.
import { arrowsOf, describe } from './circles.mjs';
import { crateRoots, readCrate } from './modules.mjs';

/**
 * The layers of a crate, the highest first. An entry is a folder, or a file without `.rs`, in
 * `src`. Each file must be in the table, and each entry must exist.
 */
const LAYERS = {
  server: [
    ['main'],
    ['lib'],
    ['reload'],
    ['options', 'diagnose', 'terminal', 'client', 'token'],
    ['config'],
    ['routes'],
    ['state'],
    ['auth', 'compare'],
    ['net'],
    ['ops'],
    ['limits'],
  ],
};

/** Returns the problems of one crate, whose sources are in `folder`. */
export function layerProblems(folder, arrows, files, layers) {
  const entry = (file) =>
    file
      .slice(folder.length + 1)
      .split('/')[0]
      .replace(/\.rs$/, '');
  const layer = (file) => layers.findIndex((entries) => entries.includes(entry(file)));
  const unknown = new Set(files.filter((file) => layer(file) < 0).map(entry));
  const missing = layers.flat().filter((name) => !files.some((file) => entry(file) === name));
  const problems = [];
  if (missing.length > 0)
    problems.push(`the table in layers.mjs names ${missing.join(', ')}, not in ${folder}`);
  if (unknown.size > 0)
    problems.push(`the table in layers.mjs lacks ${[...unknown].join(', ')} of ${folder}`);
  for (const arrow of arrows) {
    if (layer(arrow.to) < 0 || layer(arrow.from) <= layer(arrow.to)) continue;
    problems.push(`${describe(arrow)} points up: ${entry(arrow.from)} lies below ${entry(arrow.to)}`);
  }
  return problems;
}

export function check(tree, { layers = LAYERS } = {}) {
  const problems = [];
  for (const pack of tree.packages().filter(({ name }) => layers[name])) {
    const sources = tree.below(pack, 'src');
    const crates = crateRoots(tree, pack).filter((root) => sources.includes(root));
    const modules = crates.map((root) => readCrate(tree, root));
    const files = [...new Set(modules.flat().map(({ file }) => file))];
    const folder = [pack.folder, 'src'].filter(Boolean).join('/');
    problems.push(...layerProblems(folder, modules.flatMap(arrowsOf), files, layers[pack.name]));
  }
  return { summary: `${problems.length} problems with the layers`, notes: [], problems };
}

// Looks for import circles between the modules of a crate. A module and its direct child may import
// from each other; every other circle is an error. A re-export (`pub use child::X`) is an import
// like any other: a `mod.rs` that re-exports its children cannot also define what they import from
// it. Put that into a file of its own.
import { crateRoots, readCrate, resolve } from './modules.mjs';

/** The arrows of a crate: `{ from, to, names: Map(name → line) }`, one for each pair of files. */
export function arrowsOf(modules) {
  const arrows = new Map();
  for (const module of modules) {
    for (const { path, line } of module.paths) {
      for (const place of resolve(path, module)) {
        const to = place.module?.file ?? place.file;
        if (to === module.file) continue;
        const key = `${module.file} ${to}`;
        if (!arrows.has(key)) arrows.set(key, { from: module.file, to, names: new Map() });
        const { names } = arrows.get(key);
        const name = place.name ?? path.findLast((segment) => segment !== 'self');
        if (!names.has(name)) names.set(name, line);
      }
    }
  }
  return [...arrows.values()];
}

/** The strongly connected components with more than one node, after Tarjan. */
export function components(arrows) {
  const next = new Map();
  for (const { from, to } of arrows) next.set(from, [...(next.get(from) ?? []), to]);
  const index = new Map();
  const low = new Map();
  const stack = [];
  const found = [];
  const visit = (node) => {
    index.set(node, index.size);
    low.set(node, index.get(node));
    stack.push(node);
    for (const other of next.get(node) ?? []) {
      if (!index.has(other)) visit(other);
      if (stack.includes(other)) low.set(node, Math.min(low.get(node), low.get(other)));
    }
    if (low.get(node) !== index.get(node)) return;
    const component = stack.splice(stack.indexOf(node));
    if (component.length > 1) found.push(component.sort());
  };
  for (const node of next.keys()) if (!index.has(node)) visit(node);
  return found;
}

/**
 * Returns the shortest circle with an arrow that is not between a module and its direct child, as a
 * list of arrows; `null` if there is none. Without such an arrow, a component is a part of the tree
 * of modules, and its only circles are those of a parent and its child.
 */
export function worstCircle(component, arrows, parents) {
  const inside = arrows.filter(({ from, to }) => component.includes(from) && component.includes(to));
  const isFamily = ({ from, to }) => parents.get(from) === to || parents.get(to) === from;
  let best = null;
  for (const arrow of inside.filter((arrow) => !isFamily(arrow))) {
    const way = shortestWay(arrow.to, arrow.from, inside);
    if (!best || way.length + 1 < best.length) best = [arrow, ...way];
  }
  return best;
}

/** Returns the arrows of the shortest way from one node to another, by breadth. */
function shortestWay(start, goal, arrows) {
  const came = new Map([[start, null]]);
  for (const node of came.keys()) {
    for (const arrow of arrows) {
      if (arrow.from === node && !came.has(arrow.to)) came.set(arrow.to, arrow);
    }
  }
  const way = [];
  for (let arrow = came.get(goal); arrow; arrow = came.get(arrow.from)) way.unshift(arrow);
  return way;
}

export function describe({ from, to, names }) {
  const [line] = names.values();
  const shown = [...names.keys()];
  const more = shown.length > 5 ? ` and ${shown.length - 5} more` : '';
  return `${from}:${line} -> ${to} (${shown.slice(0, 5).join(', ')}${more})`;
}

export function check(tree, { all } = {}) {
  const problems = [];
  const notes = [];
  let count = 0;
  for (const root of tree.packages().flatMap((pack) => crateRoots(tree, pack))) {
    const modules = readCrate(tree, root);
    const files = new Set(modules.map(({ file }) => file));
    const arrows = arrowsOf(modules);
    count += arrows.length;
    if (files.size > 1) notes.push(`${root}: ${files.size} files, ${arrows.length} arrows`);
    notes.push(...arrows.map((arrow) => `    ${describe(arrow)}`));
    const parents = new Map();
    for (const { file, parent } of modules)
      if (parent && parent.file !== file) parents.set(file, parent.file);
    for (const component of components(arrows)) {
      const circle = worstCircle(component, arrows, parents);
      if (!circle) continue;
      const lines = circle.map((arrow) => `\n    ${describe(arrow)}`).join('');
      problems.push(
        `${root}: ${component.length} of ${files.size} files form a circle. The shortest in it:${lines}`,
      );
    }
  }
  return { summary: `${problems.length} circles; ${count} import arrows`, notes: all ? notes : [], problems };
}

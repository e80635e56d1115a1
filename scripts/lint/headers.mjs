// Looks for Rust files that do not open with `//!`, which says why the file exists.

export function check(tree, { under }) {
  const paths = tree.withExtension('rs').filter(under);
  const problems = paths.filter((path) => !/^\s*\/\/!.*\w/.test(tree.text(path)));
  return {
    summary: `${problems.length} of ${paths.length} Rust files do not open with //!`,
    notes: [],
    problems: problems.map((path) => `${path}:1: does not open with //!`),
  };
}

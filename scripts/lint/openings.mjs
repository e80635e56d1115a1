// Counts the doc comments that open with a clause ("What…", "Whether…", "By what…") instead of a
// noun phrase or a verb. A block of consecutive `///` or `//!` lines is one doc comment.

/** The share of clause openings, from 0 to 1, at which the check fails. */
export const LIMIT = 0.05;

const WORDS = [
  'what|whether|who|whom|whose|how|when|where|why|which|that|if|until|unless',
  '(?:after|at|by|for|from|in|of|on|since|to|up to|with) (?:what|which|who|whom|whose|where|when|how)',
  'as (?:long as|many|much|soon|often|it|they|is|are)',
  'none (?:if|for|to)',
  'so that',
];
const CLAUSE = new RegExp(`^(?:${WORDS.join('|')})\\b(?!\`)`, 'i');

export function isClause(opening) {
  return CLAUSE.test(opening.replace(/^[*_"'([]+/, ''));
}

/** The doc comments of a file: `{ line, opening }`. */
export function docComments(comments) {
  const found = [];
  let previous = null;
  for (const { text, line, lines } of comments) {
    const [, mark, rest] = /^(\/\/\/(?!\/)|\/\/!|\/\*\*(?![*/])|\/\*!)([^]*)$/.exec(text) ?? [];
    if (!mark) continue;
    const opening = rest
      .replace(/\*\/$/, '')
      .replace(/^[\s*]+/, '')
      .split('\n')[0]
      .trim();
    if (!mark.includes('*') && previous?.mark === mark && previous.end + 1 === line) {
      previous.end = line;
      previous.block.opening ||= opening;
      continue;
    }
    const block = { line, opening };
    found.push(block);
    previous = { mark, end: line + lines - 1, block };
  }
  return found;
}

export function check(tree, { all, under }) {
  let count = 0;
  const clauses = new Map();
  for (const path of tree.withExtension('rs').filter(under)) {
    for (const { line, opening } of docComments(tree.scan(path).comments)) {
      count += 1;
      if (isClause(opening)) {
        if (!clauses.has(path)) clauses.set(path, []);
        clauses.get(path).push(`${path}:${line}: ${opening}`);
      }
    }
  }
  const total = [...clauses.values()].flat().length;
  const percent = ((100 * total) / Math.max(count, 1)).toFixed(1);
  const worst = [...clauses].sort(([, a], [, b]) => b.length - a.length);
  const details = all
    ? worst.flatMap(([, lines]) => lines)
    : worst
        .slice(0, 10)
        .map(([path, lines]) => `${path}: ${lines.length}, such as: ${lines[0].split(': ')[1]}`);
  const summary = `${percent} % of ${count} doc comments open with a clause (${total}); the limit is ${LIMIT * 100} %`;
  const isWrong = total > 0 && total >= LIMIT * count;
  return { summary, notes: isWrong || all ? details : [], problems: isWrong ? [summary] : [] };
}

// Looks for comment lines that are wider than 100 columns. rustfmt leaves comments alone.

/** The most columns that a line with a comment may have. */
export const LIMIT = 100;

const SLASHES = /^\s*(?:\/\/|\/\*|\*)|\s\/\/\s|\s\/\*/;
const HASH = /^\s*#|\s#\s/;
const COMMENTS = Object.fromEntries([
  ...['ts', 'tsx', 'mjs', 'js', 'jsx', 'css'].map((extension) => [extension, SLASHES]),
  ...['sh', 'toml', 'yml'].map((extension) => [extension, HASH]),
]);

/** The numbers of the lines that have a comment. */
function commentLines(tree, path) {
  const extension = path.split('.').at(-1);
  if (extension === 'rs') {
    const { comments } = tree.scan(path);
    return comments.flatMap(({ line, lines }) => Array.from({ length: lines }, (_, at) => line + at));
  }
  const lines = tree.text(path).split('\n');
  return lines.flatMap((line, at) => (COMMENTS[extension].test(line) ? [at + 1] : []));
}

export function check(tree, { under }) {
  const problems = [];
  const paths = tree.withExtension('rs', ...Object.keys(COMMENTS)).filter(under);
  for (const path of paths) {
    const lines = tree.text(path).split('\n');
    for (const number of new Set(commentLines(tree, path))) {
      const line = lines[number - 1];
      const columns = [...line].length;
      // An address cannot be broken.
      const isAddress = /^\W*\s\S+:\/\/\S+$/.test(line);
      if (columns > LIMIT && !isAddress) problems.push(`${path}:${number}: ${columns} columns`);
    }
  }
  return { summary: `${problems.length} comment lines wider than ${LIMIT} columns`, notes: [], problems };
}

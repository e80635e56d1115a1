// Checks what cargo does not, in the files that git tracks: import circles, the layers of the
// server, the openings of doc comments, type names that occur twice, the width of comments, and
// files without `//!`. Each check is a module in scripts/lint, which says what its rule is.
//
//   node scripts/lint.mjs [option...]
//
//   --root FOLDER   the working tree to check; by default the one of this script
//   --only CHECKS   some of circles,layers,openings,names,width,headers; by default all
//   --under FOLDER  for openings, width and headers only the files below that folder
//   --all           shows each finding and each import arrow; by default 40 findings a check
//   --help          prints this text
//
// Prints a line for each check, and ends with status 1 if one of them finds a problem.
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Tree } from './lint/files.mjs';
import * as circles from './lint/circles.mjs';
import * as headers from './lint/headers.mjs';
import * as layers from './lint/layers.mjs';
import * as names from './lint/names.mjs';
import * as openings from './lint/openings.mjs';
import * as width from './lint/width.mjs';

const CHECKS = { circles, layers, openings, names, width, headers };
/** The most findings of a check that are shown without `--all`. */
const SHOWN = 40;

const script = fileURLToPath(import.meta.url);
const { values } = parseArgs({
  options: {
    root: { type: 'string', default: resolve(dirname(script), '..') },
    only: { type: 'string', default: Object.keys(CHECKS).join(',') },
    under: { type: 'string', default: '' },
    all: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) {
  const header = readFileSync(script, 'utf8').split('\nimport ')[0];
  console.log(header.replaceAll(/^\/\/ ?/gm, ''));
  process.exit();
}

const chosen = values.only.split(',');
const unknown = chosen.find((name) => !CHECKS[name]);
if (unknown !== undefined) {
  console.error(`lint: no check is called '${unknown}'; there are ${Object.keys(CHECKS).join(', ')}`);
  process.exit(2);
}
const folder = values.under.replace(/^\.\/|\/+$/g, '');
const under = (path) => folder === '' || path === folder || path.startsWith(`${folder}/`);

const tree = new Tree(resolve(values.root));
for (const name of chosen) {
  const { summary, notes, problems } = CHECKS[name].check(tree, { all: values.all, under });
  console.log(`lint: ${name}: ${problems.length === 0 ? 'ok' : 'FAILED'}: ${summary}`);
  const shown = values.all ? problems : problems.slice(0, SHOWN);
  for (const line of [...notes, ...shown.filter((problem) => problem !== summary)]) console.log(`  ${line}`);
  if (shown.length < problems.length)
    console.log(`  and ${problems.length - shown.length} more (--all shows them)`);
  if (problems.length > 0) process.exitCode = 1;
}

// Writes the licences and the bill of materials (CycloneDX 1.5) of the program and of the pages in
// it: LICENSES.txt and waterclock.cdx.json. Both are the same for the same sources.
//
//   node scripts/notices.mjs TARGET FOLDER
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { argv } from 'node:process';

const root = resolve(import.meta.dirname, '..');
const cargo = (...options) =>
  execFileSync('cargo', options, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });

/** Returns the names and versions of the packages in what cargo builds, without build tools. */
function packages(...options) {
  // A procedural macro is listed with its own dependencies, which are no part of the program. They
  // are left in: better one licence too many.
  const lines = cargo('tree', '--locked', '--edges', 'normal', '--prefix', 'none', '--format', '{p}', ...options);
  return lines.split('\n').flatMap((line) => line.match(/^(\S+) v(\S+)/)?.slice(1, 3).join(' ') ?? []);
}

/** The checksums in Cargo.lock, by name and version. */
export function checksums(lock) {
  const entries = lock.matchAll(/name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"/g);
  return new Map([...entries].map(([, name, version, sum]) => [`${name} ${version}`, sum]));
}

/** Returns the texts of the licences in a package's folder. */
function texts(folder) {
  const names = readdirSync(folder, { withFileTypes: true });
  // Our own crates have links to the licences.
  return names
    .filter((entry) => !entry.isDirectory() && /^(licen[cs]e|copying|notice|copyright|unlicense)/i.test(entry.name))
    .map((entry) => readFileSync(join(folder, entry.name), 'utf8').replaceAll('\r\n', '\n').trim())
    .sort();
}

/** Returns an SPDX expression. Old packages have a slash for OR. */
export const expression = (license) => license?.replaceAll(/\s*\/\s*/g, ' OR ');

/** The bill of materials. */
export function bill(program, parts, sums) {
  const reference = ({ name, version }) => `pkg:cargo/${name}@${version}`;
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      component: {
        type: 'application',
        'bom-ref': 'waterclock',
        name: 'waterclock',
        version: program.version,
        licenses: [{ expression: expression(program.license) }],
      },
    },
    components: parts.map((part) => {
      const sum = sums.get(`${part.name} ${part.version}`);
      return {
        type: 'library',
        'bom-ref': reference(part),
        name: part.name,
        version: part.version,
        purl: reference(part),
        licenses: [{ expression: expression(part.license) }],
        ...(sum && { hashes: [{ alg: 'SHA-256', content: sum }] }),
      };
    }),
    dependencies: [{ ref: 'waterclock', dependsOn: parts.map(reference) }],
  };
}

/** The licences: a list of the parts, and each text once with the parts that it came with. */
export function notices(parts, textsOf) {
  const lines = [
    'Waterclock contains the parts below, and the standard libraries of Rust (MIT OR Apache-2.0)',
    'and, if it is static, of C (musl, MIT).',
    '',
  ];
  const byText = new Map();
  for (const part of parts) {
    lines.push(`${part.name} ${part.version}: ${expression(part.license)}`);
    for (const text of textsOf(part)) byText.set(text, [...(byText.get(text) ?? []), part.name]);
  }
  for (const [text, names] of byText) {
    lines.push('', '-'.repeat(100), [...new Set(names)].join(', '), '', text);
  }
  return `${lines.join('\n')}\n`;
}

if (argv[1] === import.meta.filename) {
  const [target, folder] = argv.slice(2);
  const contained = new Set([
    ...packages('--package', 'server', '--features', 'embed', '--target', target),
    ...packages('--package', 'frontend', '--target', 'wasm32-unknown-unknown'),
  ]);
  const all = JSON.parse(cargo('metadata', '--quiet', '--locked', '--format-version', '1')).packages;
  const parts = all
    .filter(({ name, version }) => contained.has(`${name} ${version}`))
    .sort((a, b) => (a.name === b.name ? (a.version < b.version ? -1 : 1) : a.name < b.name ? -1 : 1));
  const program = parts.find(({ name }) => name === 'server');
  const sums = checksums(readFileSync(join(root, 'Cargo.lock'), 'utf8'));
  const bom = bill(program, parts, sums);
  writeFileSync(join(folder, 'waterclock.cdx.json'), `${JSON.stringify(bom, undefined, 2)}\n`);
  const textsOf = (part) => texts(dirname(part.manifest_path));
  writeFileSync(join(folder, 'LICENSES.txt'), notices(parts, textsOf));
}

// Finds the files that the checks look at: those that git tracks, and new ones that it does not
// ignore.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { scan } from './rust.mjs';

/** The files of a working tree, by their paths from its root. Each is read at most once. */
export class Tree {
  #texts = new Map();
  #scans = new Map();

  constructor(root) {
    this.root = root;
    const output = execFileSync(
      'git',
      ['-C', root, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
      { encoding: 'utf8', maxBuffer: 1 << 26 },
    );
    // A file that was deleted is tracked until the next commit.
    const paths = new Set(output.split('\0').filter((path) => path && existsSync(join(root, path))));
    this.paths = [...paths].sort();
  }

  has(path) {
    return this.paths.includes(path);
  }

  text(path) {
    if (!this.#texts.has(path)) this.#texts.set(path, readFileSync(join(this.root, path), 'utf8'));
    return this.#texts.get(path);
  }

  /** The tokens and comments of a Rust file. */
  scan(path) {
    if (!this.#scans.has(path)) this.#scans.set(path, scan(this.text(path)));
    return this.#scans.get(path);
  }

  withExtension(...extensions) {
    return this.paths.filter((path) => extensions.some((extension) => path.endsWith(`.${extension}`)));
  }

  /** The packages: `{ name, folder }`, with `''` as the folder of one at the root. */
  packages() {
    const manifests = this.paths.filter((path) => /(^|\/)Cargo\.toml$/.test(path));
    return manifests.flatMap((path) => {
      const section = /^\[package\]\n((?:(?!\[).*\n?)*)/m.exec(this.text(path));
      const name = section && /^name\s*=\s*"([^"]+)"/m.exec(section[1]);
      return name ? [{ name: name[1], folder: path === 'Cargo.toml' ? '' : dirname(path) }] : [];
    });
  }

  /** The Rust files of a package, without those of packages in its folders. */
  own(pack) {
    const isIn = ({ folder }, path) => folder === '' || path.startsWith(`${folder}/`);
    const inner = this.packages().filter(({ folder }) => folder !== pack.folder && isIn(pack, folder));
    const files = this.withExtension('rs').filter((path) => isIn(pack, path));
    return files.filter((path) => !inner.some((other) => isIn(other, path)));
  }

  /** The files below a folder of a package, such as `src`. */
  below({ folder }, part) {
    const prefix = `${[folder, part].filter(Boolean).join('/')}/`;
    return this.paths.filter((path) => path.startsWith(prefix));
  }
}

// Builds the pages for release into a folder: a WebAssembly module and a script for each, the style
// sheet, and the files of `public`. It does what `cargo leptos build --release --frontend-only`
// does, with the settings in Cargo.toml, but cargo-leptos takes minutes to install. The test in
// this folder compares the two.
//
//   node scripts/pages/build.mjs FOLDER [PAGE...] [-- COMMAND]
//
// Without the name of a page it builds all of them. Each page has the name of its feature. The
// command runs beside the pages, and may go on after them. Its output and its exit code are
// ignored.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, cpSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import process, { argv } from 'node:process';
import { minify } from '@swc/core';
import { transform } from 'lightningcss';
import { shorten } from '../shorten.mjs';

const root = resolve(import.meta.dirname, '../..');
const target = 'wasm32-unknown-unknown';

/** The settings of cargo-leptos in Cargo.toml. */
export function settings() {
  const metadata = execFileSync('cargo', ['metadata', '--no-deps', '--format-version', '1'], {
    cwd: root,
    maxBuffer: 1 << 26,
  });
  return JSON.parse(metadata).metadata.leptos[0];
}

/**
 * Returns the environment for compiling a module. Panic messages name files of crates: without the
 * folder of this machine, every machine makes the same module.
 */
export function environment() {
  const home = process.env.CARGO_HOME ?? join(homedir(), '.cargo');
  return { ...process.env, CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS: `--remap-path-prefix=${home}=/cargo` };
}

/** Runs a program to its end, with its output on standard error. */
async function run(command, ...options) {
  const child = spawn(command, options, { cwd: root, env: environment(), stdio: ['ignore', 2, 2] });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${command} failed; it was called with: ${options.join(' ')}`);
}

/** Returns the versions in a list like "chrome 109, safari 15.6", as Lightning CSS has them. */
export function targets(list) {
  return Object.fromEntries(
    list.split(', ').map((entry) => {
      const [, browser, major, minor = 0] = entry.match(/^(\w+) (\d+)(?:\.(\d+))?$/) ?? [];
      if (!browser) throw new Error(`browserquery in Cargo.toml: "${entry}" is no browser with a version`);
      return [browser, (Number(major) << 16) | (Number(minor) << 8)];
    }),
  );
}

/** Writes the style sheet. */
function style(options, site) {
  const filename = options['style-file'];
  const { code } = transform({
    filename,
    code: readFileSync(join(root, filename)),
    minify: true,
    targets: targets(options.browserquery),
  });
  writeFileSync(join(site, options['site-pkg-dir'], `${options.name}.css`), code);
}

/** Compiles the module of a page, and returns a copy, since the next page's module replaces it. */
async function compile(options, page, folder) {
  const profile = options['lib-profile-release'];
  // The folder of cargo-leptos, so that both share what they compile.
  const compiled = join(root, 'target/front');
  const what = ['--lib', '--package', options['lib-package'], '--no-default-features', '--features', page];
  await run('cargo', 'build', '--quiet', '--profile', profile, '--target', target, '--target-dir', compiled, ...what);
  const module = join(folder, `${options['lib-package']}.wasm`);
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(compiled, target, profile, `${options['lib-package']}.wasm`), module);
  return module;
}

/** Makes the script of a module, and optimises both. Returns their paths without the ending. */
async function finish(options, module, folder) {
  const path = join(folder, options.name);
  await run(join(root, 'target/quick/bindgen'), module, options.name, folder);
  await run('wasm-opt', ...options['wasm-opt-features'], `${path}_bg.wasm`, '-o', `${path}.wasm`);
  const { code } = await minify(readFileSync(`${path}.js`, 'utf8'), { compress: true, mangle: true, module: true });
  writeFileSync(`${path}.js`, code);
  return path;
}

/**
 * Builds some pages, or else all. The first of the settings has the name of the site, the others
 * that of their feature. With `isWhole` the files stay as cargo-leptos makes them. `beside` is
 * called once cargo is no longer needed in the folder of the server.
 */
export async function build(site, pages, { isWhole = false, beside = () => {} } = {}) {
  const options = settings();
  // `home` comes last, so that its module stays for cargo-leptos.
  const names = pages.length > 0 ? pages : options['lib-features'].toReversed();
  const begun = performance.now();
  let last = begun;
  /** Prints the seconds since the last step. */
  const say = (what) => {
    const now = performance.now();
    console.log(`pages: ${what} (${((now - last) / 1000).toFixed(0)} s)`);
    last = now;
  };
  const work = join(root, 'target/pages');
  const fresh = `${site}.new`;
  const pkg = join(fresh, options['site-pkg-dir']);
  rmSync(fresh, { recursive: true, force: true });
  cpSync(join(root, options['assets-dir']), fresh, { recursive: true });
  mkdirSync(pkg, { recursive: true });
  style(options, fresh);
  // In the profile of the server, so that both share what they compile.
  const tool = ['--profile', 'quick', '--package', 'bindgen', '--target-dir', join(root, 'target')];
  await run('cargo', 'build', '--quiet', ...tool);
  say('compiled bindgen');
  beside();
  // cargo compiles the next page while the module of the last one is optimised.
  const finished = [];
  for (const page of names) {
    const folder = join(work, page);
    const module = await compile(options, page, folder);
    say(`compiled ${page}`);
    const done = finish(options, module, folder);
    // An error of it is reported below, also if it occurs earlier.
    done.catch(() => {});
    finished.push(done);
  }
  for (const [index, done] of finished.entries()) {
    const path = await done;
    const name = names[index] === options['lib-features'][0] ? options.name : names[index];
    const files = [readFileSync(`${path}.wasm`), readFileSync(`${path}.js`, 'utf8')];
    const [wasm, script] = isWhole ? files : shorten(...files);
    writeFileSync(join(pkg, `${name}.wasm`), wasm);
    writeFileSync(join(pkg, `${name}.js`), script);
  }
  // A site is whole or not there.
  rmSync(site, { recursive: true, force: true });
  renameSync(fresh, site);
  say('optimised the modules and scripts');
}

if (argv[1] === import.meta.filename) {
  const [site, ...rest] = argv.slice(2);
  if (!site) {
    console.error('usage: node scripts/pages/build.mjs FOLDER [PAGE...] [-- COMMAND]');
    process.exit(2);
  }
  const end = rest.includes('--') ? rest.indexOf('--') : rest.length;
  const [command, ...options] = rest.slice(end + 1);
  let child;
  const beside = () => {
    if (!command) return;
    child = spawn(command, options, { cwd: root, stdio: 'ignore' });
    child.on('error', () => {});
    child.unref();
  };
  try {
    await build(resolve(site), rest.slice(0, end), { beside });
  } catch (error) {
    console.error(`pages: ${error.message}`);
    child?.kill();
    process.exit(1);
  }
}

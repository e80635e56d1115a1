// Bundles the client into `client.js`, which every Waterclock serves, and compresses it. Both files
// are in the repository, so that the server can be built without Node.js. A file that is right is
// left untouched: a new one would build the server again, and each Node.js has its own brotli. With
// `--check` it fails if they are not those of the source.
import { build } from 'esbuild';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { brotliCompressSync, brotliDecompressSync } from 'node:zlib';

const file = (name) => resolve(import.meta.dirname, name);

const { version } = JSON.parse(readFileSync(file('package.json'), 'utf8'));
const { outputFiles } = await build({
  absWorkingDir: import.meta.dirname,
  entryPoints: ['src/index.ts'],
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  legalComments: 'none',
  banner: { js: `// Waterclock's client ${version}, MIT OR Apache-2.0, from client/src` },
  write: false,
});
const bundle = outputFiles[0].contents;

/** Returns `true` if the file is there, and has the bundle. */
function isRight(name, read) {
  try {
    return read(readFileSync(file(name))).equals(bundle);
  } catch {
    return false;
  }
}

const isPlainRight = isRight('client.js', (bytes) => bytes);
const isCompressedRight = isRight('client.js.br', brotliDecompressSync);
if (process.argv.includes('--check')) {
  if (!isPlainRight || !isCompressedRight) {
    console.error('client/client.js is not what client/src compiles to: `make client` builds it');
    process.exit(1);
  }
} else {
  if (!isPlainRight) writeFileSync(file('client.js'), bundle);
  if (!isCompressedRight) writeFileSync(file('client.js.br'), brotliCompressSync(bundle));
}

// Prints the size of the first load of each page: raw, and compressed with brotli (quality 11).
// Lists the files of `/` one by one, and fails if a page is over its limit.
// A first load is what the page of a running server names: the document itself, with as many events
// as it ever has, and all that its head links to for a browser with JavaScript.
//
//   node scripts/size.mjs target/run/waterclock
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import process, { argv } from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { brotliCompressSync } from 'node:zlib';

/** The most bytes that the first load of `/` may have, compressed. */
const limit = 118_400;
/** The same for each other page. */
const otherLimit = 140_000;
/** The most events in a document. */
const events = 20;

const folder = mkdtempSync(join(tmpdir(), 'waterclock-'));
const server = spawn(resolve(argv[2]), ['--listen', '127.0.0.1:0', '--store', 'memory', '--interval', '5ms'], {
  cwd: folder,
  stdio: ['ignore', 'pipe', 'ignore'],
});
try {
  const [line] = await once(createInterface({ input: server.stdout }), 'line');
  const url = line.replace('listening on ', '');
  await pause(events * 10);

  /** Requests a page or a file, as a browser does: for others, `/topics` is no page. */
  const get = (path) => fetch(url + path, { headers: { accept: 'text/html, */*;q=0.8' } });
  /** The files of a page's first load, each with its sizes. */
  const load = async (page) => {
    const html = await (await get(page)).text();
    const loaded = html.replaceAll(/<noscript>.*?<\/noscript>/g, '');
    const paths = [page, ...[...loaded.matchAll(/<link [^>]*href="([^"]+)"/g)].map((link) => link[1])];
    return Promise.all(
      paths.map(async (path) => {
        const raw = Buffer.from(await (await get(path)).arrayBuffer());
        // The quality is 11 by default.
        return { path, raw: raw.length, brotli: brotliCompressSync(raw).length };
      }),
    );
  };
  const sum = (files, of) => files.reduce((sum, file) => sum + file[of], 0);
  const say = (raw, brotli, what) => console.log(`${String(raw).padStart(7)} ${String(brotli).padStart(7)}  ${what}`);

  const home = await load('/');
  say('raw', 'brotli', 'first load of /');
  for (const { raw, brotli, path } of home) say(raw, brotli, path);
  const brotli = sum(home, 'brotli');
  say(sum(home, 'raw'), brotli, `in total; the limit is ${limit}`);
  let isTooLarge = brotli > limit;
  for (const page of ['/topics', '/compare', '/diagnose']) {
    const files = await load(page);
    say(sum(files, 'raw'), sum(files, 'brotli'), `first load of ${page}`);
    isTooLarge ||= sum(files, 'brotli') > otherLimit;
  }
  if (isTooLarge) {
    console.error('size: the first load is too large; docs/size.md says how to find out why');
    process.exitCode = 1;
  }
} finally {
  server.kill();
  rmSync(folder, { recursive: true, force: true });
}

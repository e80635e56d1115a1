// The servers that the pages need, and the publisher.
import { build } from 'esbuild';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import { createInterface } from 'node:readline';
import { json } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

/** Starts a server with an empty event log, which retains all events for slow pages. */
export async function startWaterclock(program, { keep, origin }) {
  const child = spawn(
    program,
    [
      ...['--listen', '127.0.0.1:0', '--store', 'memory', '--interval', '1h'],
      ...['--retain-count', String(keep), '--cors-origin', origin, '--drain', '1s'],
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`${program} ended with ${code} instead of serving`);
  });
  const [line] = await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended]);
  ended.catch(() => {});
  return { url: line.replace('listening on ', ''), stop: () => child.kill('SIGKILL') };
}

/** Serves a production build of react.jsx. The page reads the stream at the `url` in its query. */
export async function serveReact() {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('react.jsx', import.meta.url))],
    bundle: true,
    minify: true,
    write: false,
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"' },
  });
  const html = `<!doctype html><meta charset="utf-8"><title>React</title><div id="root"></div>
<script>${outputFiles[0].text}</script>`;
  const server = createServer((_, response) => {
    response.setHeader('Content-Type', 'text/html').end(html);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  function stop() {
    server.close();
    server.closeAllConnections();
  }
  return { origin: `http://127.0.0.1:${server.address().port}`, stop };
}

/** Returns an order in about 100 bytes. */
const line = (order) =>
  `{"order":${order},"product":"A${1000 + (order % 9000)}","quantity":${1 + (order % 12)},` +
  `"price":${(5 + ((order * 37) % 9500) / 100).toFixed(2)},"currency":"EUR","region":"eu-north"}\n`;

/**
 * Publishes `all` events at a steady rate in one request, and returns the number that the server
 * has accepted. A late timer delays events, but loses none.
 */
export function publish(url, all, rate = Infinity) {
  return new Promise((resolve, reject) => {
    const request = httpRequest(`${url}/events/load?split=lines`, { method: 'POST' }, (response) => {
      json(response).then(({ published }) => resolve(published), reject);
    });
    request.on('error', reject);
    const start = performance.now();
    let sent = 0;
    const timer = setInterval(() => {
      const due = Math.min(all, Math.floor(((performance.now() - start) * rate) / 1000));
      let lines = '';
      for (; sent < due; sent += 1) lines += line(sent);
      request.write(lines);
      if (sent === all) {
        clearInterval(timer);
        request.end();
      }
    }, 5);
    request.on('close', () => clearInterval(timer));
  });
}

// The examples of docs/frameworks.md, with the development servers of Vite and Next.js.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import { type Page } from '@playwright/test';
import { patience } from '../playwright.config.ts';
import { expect, networkErrors, type Server, test as base } from './server.ts';
import { Service } from './service.ts';

const root = resolve(import.meta.dirname, '../..');
const document = readFileSync(resolve(root, 'docs/frameworks.md'), 'utf8');
/** The examples with these frameworks, whose packages the tests use. */
const packages = { vite: 'react', next: 'next' };

/** Where the examples expect the servers. */
const [waterclock, elsewhere, vite] = ['http://127.0.0.1:4000', 'https://events.example.org', 'http://localhost:5173'];

/** A development server, with the examples in its folder. */
class Framework extends Service {
  constructor(
    readonly folder: string,
    readonly server: Server,
  ) {
    super();
  }

  /** Writes a file. */
  write(name: string, text: string) {
    const path = resolve(this.folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }

  amend(name: string, text: string, other: string) {
    const path = resolve(this.folder, name);
    writeFileSync(path, readFileSync(path, 'utf8').replace(text, other));
  }

  /** Writes the example of that name. It speaks to the server of the test. */
  example(name: string) {
    const code = example(name);
    this.write(name, code.replaceAll(waterclock, this.server.url).replaceAll(elsewhere, this.server.url));
  }

  async start(program: keyof typeof packages, options: (port: number) => string[], env?: Record<string, string>) {
    const modules = resolve(root, 'examples', packages[program], 'node_modules');
    symlinkSync(modules, resolve(this.folder, 'node_modules'));
    await this.reserve();
    this.run(resolve(modules, '.bin', program), options(this.port), this.folder, env);
    await this.answers();
  }

  /** Publishes as a page does, which names its origin. Returns the status. */
  async publish(path: string, body: string, origin = this.url): Promise<number> {
    const answer = await fetch(`${this.url}${path}`, { method: 'POST', body, headers: { Origin: origin } });
    return answer.status;
  }
}

const test = base.extend<{ framework: Framework }>({
  framework: async ({ server }, use, info) => {
    mkdirSync(info.outputPath('project'), { recursive: true });
    const framework = new Framework(info.outputPath('project'), server);
    await use(framework);
    await framework.stop();
    if (info.status !== info.expectedStatus) console.log(framework.output);
  },
});

test.use({ allowedErrors: new RegExp(`${networkErrors.source}|WebSocket connection to`) });
test.setTimeout(60_000 * patience);

/** Returns the code of the example of that name. */
function example(name: string): string {
  const found = [...document.matchAll(/```js\n\/\/ (\S+)\n(.*?)```/gs)].find(([, file]) => file === name);
  expect(found, name).toBeDefined();
  return found![2];
}

/** Returns the options of the first command after a heading. */
function options(heading: string): string[] {
  const section = document.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  const [, line] = /^waterclock --listen 127.0.0.1:4000(.*)$/m.exec(section!)!;
  return line.split(' ').filter(Boolean).map((option) => option.replaceAll("'", ''));
}

/** Runs the example in a page, and waits until it logs an event. */
async function logs(page: Page, code: string, text: string) {
  const logged = page.waitForEvent('console', (message) => message.text() === text);
  await page.evaluate(code);
  await logged;
}

/** Expects the framework's server to pass on the cursor, and to leave a stream as it is. */
async function passesOn(framework: Framework, path: string) {
  const [order] = (await (await fetch(`${framework.url}/poll?topic=orders.eu`)).json()).events;
  expect(await framework.publish(path, 'a second order')).toBe(201);
  const headers = { Accept: 'text/event-stream', 'Accept-Encoding': 'gzip, br', 'Last-Event-ID': order.id };
  const stream = await fetch(`${framework.url}/events/orders.eu`, { headers });
  expect(stream.headers.get('content-encoding')).toBe(null);
  expect(stream.headers.get('cache-control')).toContain('no-transform');
  // It stays open, so a proxy that buffers would give nothing.
  let first;
  let text = '';
  for await (const chunk of stream.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if ((first = /^data: (a .*)\n/m.exec(text))) break;
  }
  expect(first?.[1]).toBe('a second order');
}

/** Returns `true` if a page can open a WebSocket. */
const opensWebSocket = (page: Page, url: string) =>
  page.evaluate(
    (url) =>
      new Promise<boolean>((done) => {
        const socket = new WebSocket(url);
        socket.onmessage = () => (done(true), socket.close());
        socket.onerror = () => done(false);
      }),
    url,
  );

test('a page behind the proxy of Vite reads, publishes and opens a WebSocket', async ({ framework, page, server }) => {
  await server.start();
  framework.example('vite.config.js');
  framework.write('index.html', '<!doctype html><link rel="icon" href="data:,"><title>Vite</title>');
  await framework.start('vite', (port) => ['--port', `${port}`, '--strictPort']);
  await page.goto(framework.url);
  expect(await framework.publish('/events/orders.eu', 'a new order')).toBe(201);
  await logs(page, example('page.js'), 'a new order');
  expect(await opensWebSocket(page, `${framework.url}/ws`)).toBe(true);
  const polled = await (await fetch(`${framework.url}/poll?topic=orders.eu`)).json();
  expect(polled.events[0].data).toBe('a new order');
  await passesOn(framework, '/events/orders.eu');
});

test('a page behind the proxy of Vite reconnects after the server was killed', async ({ framework, page, server }) => {
  // The events survive the server.
  server.data = resolve(framework.folder, 'data');
  await server.start();
  framework.example('vite.config.js');
  framework.write('index.html', '<!doctype html><link rel="icon" href="data:,"><title>Vite</title>');
  await framework.start('vite', (port) => ['--port', `${port}`, '--strictPort']);
  await page.goto(framework.url);
  expect(await framework.publish('/events/orders.eu', 'a new order')).toBe(201);
  await logs(page, `${example('page.js')} source.onerror = () => console.log("lost");`, 'a new order');
  const says = (text: string) => page.waitForEvent('console', (message) => message.text() === text);
  const lost = says('lost');
  await server.kill();
  await lost;
  const next = says('a second order');
  await server.start();
  // The page reads what is older than its connection, too.
  expect(await framework.publish('/events/orders.eu', 'a second order')).toBe(201);
  await next;
});

test('the proxy of Vite closes the stream of a page that has left before it began', async ({ framework }) => {
  const held: ServerResponse[] = [];
  const target = createServer((_, response) => void held.push(response)).listen(0, '127.0.0.1');
  await once(target, 'listening');
  const { port } = target.address() as AddressInfo;
  framework.write('vite.config.js', example('vite.config.js').replaceAll(waterclock, `http://127.0.0.1:${port}`));
  framework.write('index.html', '<!doctype html><link rel="icon" href="data:,"><title>Vite</title>');
  await framework.start('vite', (port) => ['--port', `${port}`, '--strictPort']);
  try {
    for (let n = 0; n < 5; n++) {
      const page = new AbortController();
      const answer = fetch(`${framework.url}/events`, { signal: page.signal }).catch(() => {});
      await expect.poll(() => held.length).toBe(n + 1);
      page.abort();
      await answer;
      held[n].writeHead(200, { 'content-type': 'text/event-stream' }).write(':\n\n');
      await expect.poll(() => held[n].closed).toBe(true);
    }
  } finally {
    target.closeAllConnections();
    target.close();
  }
});

test('changeOrigin makes the page one of another site', async ({ framework, page, server }) => {
  await server.start();
  const config = example('vite.config.js').replaceAll('{ target', '{ target, changeOrigin: true');
  framework.write('vite.config.js', config.replaceAll(waterclock, server.url));
  framework.write('index.html', '<!doctype html><link rel="icon" href="data:,"><title>Vite</title>');
  await framework.start('vite', (port) => ['--port', `${port}`, '--strictPort']);
  await page.goto(framework.url);
  expect(await framework.publish('/events/orders.eu', 'a new order')).toBe(403);
  expect(await opensWebSocket(page, `${framework.url}/ws`)).toBe(false);
  await fetch(`${server.url}/events/orders.eu`, { method: 'POST', body: 'a new order' });
  await logs(page, example('page.js'), 'a new order');
});

test('the proxy of Vite adds the token for a server elsewhere', async ({ framework, page, server }) => {
  const secret = randomBytes(32).toString('hex');
  framework.write('secret', `${secret}\n`);
  framework.example('token.mjs');
  const { stdout } = await promisify(execFile)('node', ['token.mjs'], { cwd: framework.folder });
  await server.start('--jwt-secret-file', resolve(framework.folder, 'secret'), '--require-token');
  framework.example('vite.config.remote.js');
  framework.write('index.html', '<!doctype html><link rel="icon" href="data:,"><title>Vite</title>');
  const config = ['--config', 'vite.config.remote.js'];
  const start = (port: number) => ['--port', `${port}`, '--strictPort', ...config];
  await framework.start('vite', start, { WATERCLOCK_TOKEN: stdout.trim() });
  await page.goto(framework.url);
  expect((await fetch(`${server.url}/events/orders.eu`)).status).toBe(401);
  expect(await framework.publish('/events/orders.eu', 'a new order')).toBe(201);
  expect(await framework.publish('/events/secret', 'x')).toBe(403);
  await logs(page, example('page.js'), 'a new order');
  expect(await opensWebSocket(page, `${framework.url}/ws`)).toBe(true);
});

test('a page behind a rewrite of Next.js reads, and publishes by a route', async ({ framework, page, server }) => {
  await server.start(...options('Next.js'));
  framework.example('next.config.mjs');
  // The packages are elsewhere.
  framework.amend('next.config.mjs', 'export default {', `export default { turbopack: { root: '${root}' },`);
  framework.example('app/publish/[topic]/route.js');
  framework.write('app/layout.js', 'export default ({ children }) => <html lang="en"><body>{children}</body></html>;\n');
  framework.write('app/page.js', 'export default () => <p>Next.js</p>;\n');
  framework.write('app/icon.svg', '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>');
  framework.write('package.json', '{"private":true,"type":"module"}');
  await framework.start('next', (port) => ['dev', '--port', `${port}`]);
  await page.goto(framework.url);
  expect(await framework.publish('/publish/orders.eu', 'a new order')).toBe(201);
  await logs(page, example('page.js'), 'a new order');
  expect(await framework.publish('/publish/orders.eu', 'x', 'http://elsewhere.test')).toBe(403);
  expect(await framework.publish('/events/orders.eu', 'x')).toBe(403);
  expect((await fetch(`${framework.url}/events/secret`)).status).toBe(403);
  // It compresses other responses.
  const compressed = await fetch(framework.url, { headers: { 'Accept-Encoding': 'gzip' } });
  expect(compressed.headers.get('content-encoding')).toBe('gzip');
  await passesOn(framework, '/publish/orders.eu');
});

test('a page of a named origin reads without a proxy', async ({ framework, page, server }) => {
  framework.write('index.html', '<!doctype html><link rel="icon" href="data:,"><title>Vite</title>');
  await framework.start('vite', (port) => ['--port', `${port}`, '--strictPort']);
  await server.start(...options('Without a proxy').map((option) => option.replace(vite, framework.url)));
  await fetch(`${server.url}/events/orders.eu`, { method: 'POST', body: 'a new order' });
  await page.goto(framework.url);
  await logs(page, example('direct.js').replaceAll(waterclock, server.url), 'a new order');
});

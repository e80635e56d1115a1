// Starts a real proxy with its configuration of docs/proxies/: on a free loopback port, without a daemon, and with
// all that it writes in a folder of its own. scripts/setup.sh brings the programs and says where they are.
import { test as base, type TestInfo } from '@playwright/test';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { Server } from '../tests/server.ts';

const root = resolve(import.meta.dirname, '../..');
const path = execFileSync(join(root, 'scripts/setup.sh'), ['path'], { encoding: 'utf8' });

/** Where that program is. */
function program(name: string): string {
  const env = { ...process.env, PATH: path };
  return execFileSync('sh', ['-c', `command -v ${name}`], { env, encoding: 'utf8' }).trim();
}

type Recipe = {
  file: string;
  /** Where the site is to listen, in the file's words and in ours. */
  listen: [string, (port: number) => string];
  /** What stands around the site. */
  around: (site: string, port: number) => string;
  command: (file: string, folder: string) => [program: string, options: string[]];
};

const recipes = {
  nginx: {
    file: 'nginx.conf',
    listen: ['listen 80;', (port) => `listen 127.0.0.1:${port};`],
    around: (site) => `
      daemon off; master_process off; pid nginx.pid;
      events {}
      http {
        access_log off;
        client_body_temp_path body; proxy_temp_path proxy;
        fastcgi_temp_path fastcgi; scgi_temp_path scgi; uwsgi_temp_path uwsgi;
        ${site}
      }`,
    command: (file, folder) => [program('nginx'), ['-p', folder, '-e', 'stderr', '-c', file]],
  },
  haproxy: {
    file: 'haproxy.cfg',
    listen: ['bind :80', (port) => `bind 127.0.0.1:${port}`],
    around: (site) => site,
    command: (file) => [program('haproxy'), ['-db', '-f', file]],
  },
  caddy: {
    file: 'Caddyfile',
    listen: ['example.org {', (port) => `http://:${port} {\nbind 127.0.0.1`],
    around: (site) => `{\nadmin off\n}\n${site}`,
    command: (file) => [program('caddy'), ['run', '--adapter', 'caddyfile', '--config', file]],
  },
  apache: {
    file: 'apache.conf',
    listen: ['*:80', (port) => `*:${port}`],
    around: (site, port) => {
      const folder = resolve(dirname(program('apache2')), '../lib/apache2/modules');
      const modules = 'mpm_event authz_core headers env setenvif filter deflate buffer proxy proxy_http';
      const load = (name: string) => `LoadModule ${name}_module ${folder}/mod_${name}.so`;
      return `
        ${modules.split(' ').map(load).join('\n')}
        ServerName localhost
        Listen 127.0.0.1:${port}
        PidFile apache.pid
        DefaultRuntimeDir .
        ThreadsPerChild 64
        MaxRequestWorkers 64
        ErrorLog /dev/stderr
        User #65534
        Group #65534
        ${site}`;
    },
    command: (file, folder) => [program('apache2'), ['-X', '-d', folder, '-f', file]],
  },
} satisfies Record<string, Recipe>;

export type Kind = keyof typeof recipes;
export const kinds = Object.keys(recipes) as Kind[];

/** In a configuration, the left in place of the right. */
export type Change = [string, string];

export class Proxy {
  url = '';
  private process?: ChildProcess;

  constructor(private folder: string) {}

  async start(kind: Kind, upstream: string, changes: Change[] = []) {
    const { folder } = this;
    const recipe: Recipe = recipes[kind];
    const port = await freePort();
    const [listen, listenHere] = recipe.listen;
    let site = readFileSync(join(root, 'docs/proxies', recipe.file), 'utf8');
    for (const [from, to] of [...changes, [listen, listenHere(port)], ['127.0.0.1:3000', new URL(upstream).host]]) {
      if (!site.includes(from)) throw new Error(`${recipe.file} has no «${from}»`);
      site = site.replaceAll(from, to);
    }
    mkdirSync(folder, { recursive: true });
    const file = join(folder, recipe.file);
    writeFileSync(file, recipe.around(site, port));

    const log = join(folder, 'log'); // a file, since Apache cannot open a pipe of ours
    const output = openSync(log, 'a');
    const child = spawn(...recipe.command(file, folder), {
      cwd: folder,
      env: { ...process.env, XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder }, // where Caddy keeps things
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.process = child;

    const deadline = Date.now() + 10_000;
    while (!(await accepts(port))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        throw new Error(`${kind} does not listen:\n${readFileSync(log, 'utf8')}`);
      }
      await new Promise((later) => setTimeout(later, 20));
    }
    this.url = `http://127.0.0.1:${port}`;
  }

  async stop() {
    if (this.process?.exitCode === null && this.process.signalCode === null) {
      const gone = once(this.process, 'exit');
      this.process.kill('SIGKILL');
      await gone;
    }
  }
}

/** For `test.extend`: a proxy that is not started yet, and is stopped after the test. */
export const fixtures = {
  front: async ({}, use: (front: Proxy) => Promise<void>, info: TestInfo) => {
    const proxy = new Proxy(info.outputPath('proxy'));
    await use(proxy);
    await proxy.stop();
  },
};

/** With that and a server which knows of the proxy; `test` is a topic that anybody may read. */
export const test = base.extend<{ front: Proxy; server: Server }>({
  ...fixtures,
  server: async ({}, use) => {
    const server = new Server();
    await server.start('--trusted-proxy', '127.0.0.1', '--public-topic', 'test');
    await use(server);
    await server.kill();
  },
});

/** A port that nobody listens on, of those that the system gives to no outgoing connection meanwhile. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const listener = createServer();
    const free = await new Promise((done) => {
      listener.once('error', () => done(false)).listen(port, '127.0.0.1', () => done(true));
    });
    if (free) return new Promise((done) => listener.close(() => done(port)));
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => (socket.destroy(), done(true))).once('error', () => done(false));
  });
}

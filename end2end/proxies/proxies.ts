// Starts a real proxy with its configuration of docs/proxies/, on a free loopback port, in the
// foreground, with its files in a folder of its own. scripts/setup.sh installs the programs and
// prints their paths.
import { test as base, type TestInfo } from '@playwright/test';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { patience } from '../playwright.config.ts';
import { Server } from '../tests/server.ts';

const root = resolve(import.meta.dirname, '../..');
const path = execFileSync(join(root, 'scripts/setup.sh'), ['path'], { encoding: 'utf8' });

/** Returns the path of a program. */
function program(name: string): string {
  const env = { ...process.env, PATH: path };
  return execFileSync('sh', ['-c', `command -v ${name}`], { env, encoding: 'utf8' }).trim();
}

/** A replacement in a configuration: the old text and the new one. */
export type Change = [string, string];

export type Setting = {
  /** The HTTP version of clients over TLS. Without it, the proxy has no TLS. */
  tls?: 'HTTP/1.1' | 'HTTP/2';
  changes?: Change[];
};

type Recipe = {
  file: string;
  /**
   * The changes that make the site listen on the port: with TLS and a file with certificate and
   * key, or without.
   */
  tls: (port: number, certificate: string) => Change[];
  plain: (port: number) => Change[];
  /** Wraps the site in a complete configuration. */
  around: (site: string, port: number) => string;
  command: (file: string, folder: string) => [program: string, options: string[]];
};

const certificates = ['/etc/ssl/example.org.pem', '/etc/ssl/example.org.key'];
const certified = (file: string) => certificates.map((name): Change => [name, file]);
const without = (...lines: string[]) => lines.map((line): Change => [`${line}\n`, '\n']);

const recipes = {
  nginx: {
    file: 'nginx.conf',
    tls: (port, file) => [['listen 443', `listen 127.0.0.1:${port}`], ...certified(file)],
    plain: (port) => [
      ['listen 443 ssl http2;', `listen 127.0.0.1:${port};`],
      ...without(`ssl_certificate ${certificates[0]};`, `ssl_certificate_key ${certificates[1]};`),
    ],
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
    tls: (port, file) => [
      ['bind :443', `bind 127.0.0.1:${port}`],
      [certificates[0], file],
    ],
    plain: (port) => [[`bind :443 ssl crt ${certificates[0]} alpn h2,http/1.1`, `bind 127.0.0.1:${port}`]],
    around: (site) => site,
    command: (file) => [program('haproxy'), ['-db', '-f', file]],
  },
  caddy: {
    file: 'Caddyfile',
    tls: (port, file) => [['example.org {', `https://:${port} {\nbind 127.0.0.1\ntls ${file} ${file}`]],
    plain: (port) => [['example.org {', `http://:${port} {\nbind 127.0.0.1`]],
    around: (site) => `{\nadmin off\nauto_https disable_redirects\n}\n${site}`,
    command: (file) => [program('caddy'), ['run', '--adapter', 'caddyfile', '--config', file]],
  },
  apache: {
    file: 'apache.conf',
    tls: (port, file) => [['*:443', `*:${port}`], ...certified(file)],
    plain: (port) => [
      ['*:443', `*:${port}`],
      ...without(
        'SSLEngine on',
        `SSLCertificateFile ${certificates[0]}`,
        `SSLCertificateKeyFile ${certificates[1]}`,
        'Protocols h2 http/1.1',
      ),
    ],
    around: (site, port) => {
      const folder = resolve(dirname(program('apache2')), '../lib/apache2/modules');
      const modules =
        'mpm_event authz_core headers env setenvif filter deflate buffer ssl http2 proxy proxy_http proxy_http2';
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

export class Proxy {
  url = '';
  private process?: ChildProcess;

  constructor(private folder: string) {}

  async start(kind: Kind, upstream: string, { tls, changes = [] }: Setting = {}) {
    const { folder } = this;
    const recipe: Recipe = recipes[kind];
    mkdirSync(folder, { recursive: true });
    const port = await freePort();
    const listen = tls ? recipe.tls(port, await certificate(folder)) : recipe.plain(port);
    let site = readFileSync(join(root, 'docs/proxies', recipe.file), 'utf8');
    for (const [from, to] of [...changes, ...listen, ['127.0.0.1:3000', new URL(upstream).host]]) {
      if (!site.includes(from)) throw new Error(`${recipe.file} has no «${from}»`);
      site = site.replaceAll(from, to);
    }
    const file = join(folder, recipe.file);
    writeFileSync(file, recipe.around(site, port));

    const log = join(folder, 'log'); // a file, because Apache cannot open a pipe of this process
    const output = openSync(log, 'a');
    const child = spawn(...recipe.command(file, folder), {
      cwd: folder,
      env: { ...process.env, XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder }, // for Caddy
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.process = child;

    const deadline = Date.now() + 10_000 * patience;
    while (!(await accepts(port))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        throw new Error(`${kind} does not listen:\n${readFileSync(log, 'utf8')}`);
      }
      await new Promise((later) => setTimeout(later, 20));
    }
    this.url = `http${tls ? 's' : ''}://127.0.0.1:${port}`;
  }

  async stop() {
    if (this.process?.exitCode === null && this.process.signalCode === null) {
      const gone = once(this.process, 'exit');
      this.process.kill('SIGKILL');
      await gone;
    }
  }
}

/** For `test.extend`: a proxy that the test starts. It is stopped after the test. */
export const fixtures = {
  front: async ({}, use: (front: Proxy) => Promise<void>, info: TestInfo) => {
    const proxy = new Proxy(info.outputPath('proxy'));
    await use(proxy);
    await proxy.stop();
  },
};

/** A test with that and with a server that trusts the proxy. Its topic `test` is public. */
export const test = base.extend<{ front: Proxy; server: Server }>({
  ...fixtures,
  server: async ({}, use) => {
    const server = new Server();
    await server.start('--trusted-proxy', '127.0.0.1', '--public-topic', 'test');
    await use(server);
    await server.kill();
  },
});

/** Creates a file with a certificate and its key. */
async function certificate(folder: string): Promise<string> {
  const server = new Server();
  server.data = folder;
  await server.start('--tls-self-signed');
  await server.kill();
  return join(folder, 'self-signed.pem');
}

/** Returns a free port below the range that the system uses for outgoing connections. */
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

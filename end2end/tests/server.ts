// A Waterclock server for one test: starts it on its own port, reads its output, kills it, and
// starts it again. The `test` of this module fails on any error in the browser's console.
import { type Browser, expect, test as base, type Page } from '@playwright/test';
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';

const root = resolve(import.meta.dirname, '../..');
// As `cargo leptos end-to-end` builds it, unless the environment says otherwise.
export const binary = process.env.WATERCLOCK_BINARY ?? resolve(root, 'target/debug/waterclock');

export class Server {
  url = '';
  log: string[] = [];
  program = binary;
  spawnOptions: SpawnOptions = { cwd: root };
  /** The address that it listens on. */
  host = '127.0.0.1';
  /** Folder of its event log, if it is kept on disk. */
  data?: string;
  private process?: ChildProcess;
  private port = 0;

  async start(...options: string[]) {
    const listen = `${this.host}:${this.port}`;
    const store = this.data ? ['--data-dir', this.data] : ['--store', 'memory'];
    const child = spawn(this.program, ['--listen', listen, ...store, ...options], {
      ...this.spawnOptions,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.process = child;
    createInterface({ input: child.stderr! }).on('line', (line) => this.log.push(line));
    const died = once(child, 'exit').then(() => {
      throw new Error(`the server did not start:\n${this.log.join('\n')}`);
    });
    died.catch(() => {});
    const [line] = await Promise.race([once(createInterface({ input: child.stdout! }), 'line'), died]);
    this.url = line.replace('listening on ', '');
    this.port = Number(new URL(this.url).port);
  }

  /** Kills it as a crash would. */
  async kill() {
    await this.end('SIGKILL');
  }

  /** Stops it as an operator would. */
  async stop() {
    await this.end('SIGTERM');
  }

  private async end(signal: NodeJS.Signals) {
    if (this.process?.exitCode === null && this.process.signalCode === null) {
      const gone = once(this.process, 'exit');
      this.process.kill(signal);
      await gone;
    }
  }

  /** Returns the sequence number of the newest event, from the server's `hello`. */
  async newest(): Promise<number> {
    const stop = new AbortController();
    const answer = await fetch(`${this.url}/events`, { signal: stop.signal });
    const { value } = await answer.body!.getReader().read();
    stop.abort();
    const hello = new TextDecoder().decode(value);
    return Number(/"newest":"\w+-(\d+)"/.exec(hello)?.[1] ?? 0);
  }

  /** Waits for a line of the server's output. */
  async logs(line: RegExp) {
    await expect.poll(() => this.log.join('\n')).toMatch(line);
  }
}

type Fixtures = {
  /** Not started yet. */
  server: Server;
  /** Errors in the console that do not fail the test. */
  allowedErrors: RegExp | undefined;
  noErrors: void;
};

export const test = base.extend<Fixtures, { browser: Browser }>({
  browser: [
    async ({ browser }, use) => {
      if (browser.browserType().name() === 'firefox') tolerateColorScheme(browser);
      await use(browser);
    },
    { scope: 'worker' },
  ],
  server: async ({}, use) => {
    const server = new Server();
    await use(server);
    await server.kill();
  },
  allowedErrors: [undefined, { option: true }],
  noErrors: [
    // Depends on `server` for the order: the check is over before the server is killed, which would
    // be an error in the console of an open page.
    async ({ page, server: _, allowedErrors }, use) => {
      const errors: string[] = [];
      page.on('pageerror', (error) => errors.push(String(error)));
      page.on('console', (message) => {
        if (['error', 'warning'].includes(message.type())) errors.push(message.text());
      });
      await use();
      // A page that is still open goes on asking. A failed answer of the test no longer matters.
      if (!page.isClosed()) await page.unrouteAll({ behavior: 'ignoreErrors' });
      expect(errors.filter((error) => !allowedErrors?.test(error))).toEqual([]);
    },
    { auto: true },
  ],
});

/** Playwright sets the colour scheme by a command that Firefox ESR 153 does not know yet. */
function tolerateColorScheme(browser: Browser) {
  // These are internals of Playwright, whose version is pinned.
  const { _transport: transport } = (browser as any)._connection.toImpl(browser)._connection;
  const { onmessage } = transport;
  transport.onmessage = (message: { id?: number; error?: string; message?: string }) => {
    const isThat = message.error === 'unknown command' && message.message === 'emulation.setMediaFeaturesOverride';
    onmessage(isThat ? { type: 'success', id: message.id, result: {} } : message);
  };
}

/** The browser's own messages about a server that is down or answers with an error. */
export const networkErrors =
  /net::ERR_|Failed to load resource|EventSource's response has a|Firefox can’t establish|connection to .* was interrupted/;

/** A JSON Web Token (RFC 7519), signed with HS256. */
export function sign(secret: string, claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Returns the number of streams that the server has open. */
export async function streams(server: Server): Promise<number> {
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  return Number(/^waterclock_streams_open (\d+)/m.exec(metrics)![1]);
}

/** Locates the state of the connection. */
export const state = (page: Page) => page.locator('.state');

/** Returns the number of events received. */
export async function count(page: Page): Promise<number> {
  return Number((await page.locator('.count').textContent())!.split(' ')[0]);
}

/** Returns the sequence numbers of the events in the list, oldest first. They come from Export,
 * because only the rows in view are in the document. No file is saved: Playwright cannot wait for
 * one in Firefox. */
export async function sequences(page: Page): Promise<number[]> {
  return page.evaluate(async () => {
    const [{ createObjectURL }, { click }] = [URL, HTMLAnchorElement.prototype];
    const saved = new Promise<Blob>((done) => {
      URL.createObjectURL = (blob) => (done(blob as Blob), 'about:blank');
      HTMLAnchorElement.prototype.click = () => {};
    });
    [...document.querySelectorAll('button')].find((button) => button.textContent === 'Export')!.click();
    const lines = (await (await saved).text()).split('\n').slice(0, -1);
    URL.createObjectURL = createObjectURL;
    HTMLAnchorElement.prototype.click = click;
    return lines.map((line) => Number(JSON.parse(line).id.split('-')[1]));
  });
}

/** Expects consecutive numbers. */
export function expectConsecutive(numbers: number[]) {
  expect(numbers).toEqual(numbers.map((_, i) => numbers[0] + i));
}

export { expect };

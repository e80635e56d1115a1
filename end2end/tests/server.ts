// A Waterclock server for one test: starts it on a port of its own, reads what it logs, kills it, and
// starts it again. And the `test` to use, which fails on any error in the browser's console.
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
  /** Where it keeps its log, if it keeps one. */
  data?: string;
  private process?: ChildProcess;
  private port = 0;

  async start(...options: string[]) {
    const listen = `127.0.0.1:${this.port}`;
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
    if (this.process?.exitCode === null && this.process.signalCode === null) {
      const gone = once(this.process, 'exit');
      this.process.kill('SIGKILL');
      await gone;
    }
  }

  /** The sequence number of the newest event, as the server's `hello` tells it. */
  async newest(): Promise<number> {
    const stop = new AbortController();
    const answer = await fetch(`${this.url}/events`, { signal: stop.signal });
    const { value } = await answer.body!.getReader().read();
    stop.abort();
    const hello = new TextDecoder().decode(value);
    return Number(/"newest":"\w+-(\d+)"/.exec(hello)?.[1] ?? 0);
  }

  /** Waits for a line of the log. */
  async logs(line: RegExp) {
    await expect.poll(() => this.log.join('\n')).toMatch(line);
  }
}

type Fixtures = {
  /** Not started yet. */
  server: Server;
  /** Which errors in the console are no failure of this test. */
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
    // Named for the order: what depends on the server is over before the server is killed, which
    // would be an error in the console of a page that is still open.
    async ({ page, server: _, allowedErrors }, use) => {
      const errors: string[] = [];
      page.on('pageerror', (error) => errors.push(String(error)));
      page.on('console', (message) => {
        if (['error', 'warning'].includes(message.type())) errors.push(message.text());
      });
      await use();
      expect(errors.filter((error) => !allowedErrors?.test(error))).toEqual([]);
    },
    { auto: true },
  ],
});

/** Playwright tells every page a colour scheme by a command that Firefox ESR 153 does not know yet. */
function tolerateColorScheme(browser: Browser) {
  // Not part of what Playwright documents; its version is pinned.
  const { _transport: transport } = (browser as any)._connection.toImpl(browser)._connection;
  const { onmessage } = transport;
  transport.onmessage = (message: { id?: number; error?: string; message?: string }) => {
    const isThat = message.error === 'unknown command' && message.message === 'emulation.setMediaFeaturesOverride';
    onmessage(isThat ? { type: 'success', id: message.id, result: {} } : message);
  };
}

/** The browser's own words for a server that is gone or answers with an error. */
export const networkErrors =
  /net::ERR_|Failed to load resource|EventSource's response has a|Firefox can’t establish|connection to .* was interrupted/;

/** A JSON Web Token (RFC 7519), signed with HS256. */
export function sign(secret: string, claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** How many streams the server has open. */
export async function streams(server: Server): Promise<number> {
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  return Number(/^waterclock_streams_open (\d+)/m.exec(metrics)![1]);
}

/** How the connection is, in the page's words. */
export const state = (page: Page) => page.locator('.state');

/** How many events there were. */
export async function count(page: Page): Promise<number> {
  return Number((await page.locator('.count').textContent())!.split(' ')[0]);
}

/** The sequence numbers of the events in the list, oldest first: what Export would save, since only few of
 * them are in the document, and Playwright cannot wait for Firefox to save a file. */
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

/** That many consecutive numbers, from the first of the list on. */
export function expectConsecutive(numbers: number[]) {
  expect(numbers).toEqual(numbers.map((_, i) => numbers[0] + i));
}

export { expect };

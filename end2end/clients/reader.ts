// A reader: a process or a page that reads a stream with one of the clients, and reports what it
// sees.
import { type Browser, expect } from '@playwright/test';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as listen, type AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { patience } from '../playwright.config.ts';
import { type Client } from './clients.ts';

const here = import.meta.dirname;

/** A message, or the end of the reader. */
type Seen = { name: string; id: string; data: string; closed?: undefined } | { closed: string };

export type Task = {
  url: string;
  token?: string;
  /** With the settings that docs/clients.md recommends, or plain. */
  tuned: boolean;
  /** The data of each event is the event as JSON. */
  json?: boolean;
  /** More of the URL's query. */
  query?: string;
};

const notices = ['hello', 'gap', 'heartbeat', 'end', 'goodbye'];

export class Reader {
  /** Events, without notices. */
  events: { id: string; data: string }[] = [];
  /** Names of the notices. */
  notices: string[] = [];
  /** Reason for the end of the reader. */
  closed?: string;
  /** Connections since the last cut that the test made. */
  connections = 0;
  /** What the reader prints as errors. */
  errors = '';
  stop: () => Promise<void> | void = () => {};

  constructor(
    readonly client: Client,
    readonly task: Task,
  ) {}

  take(seen: Seen) {
    if (seen.closed !== undefined) {
      this.closed ??= seen.closed;
    } else if (notices.includes(seen.name)) {
      this.notices.push(seen.name);
      if (seen.name === 'hello') this.connections++;
    } else if (this.task.json) {
      const { id, data } = JSON.parse(seen.data);
      this.events.push({ id, data });
    } else {
      this.events.push({ id: seen.id, data: seen.data });
    }
  }

  /** Returns `true` if no more can be expected of the reader: it has ended, or it reconnects
   * without a reason. */
  get hasFailed() {
    return this.closed !== undefined || this.connections > 3;
  }

  /** Waits until the reader has seen a number of events, or has failed. */
  async reads(count: number) {
    await this.waits(() => this.events.length >= count, `${count} events`);
  }

  /** Waits until a condition holds, or the reader has failed. */
  async waits(condition: () => boolean | Promise<boolean>, what: string) {
    const message = `${this.client.name}, ${this.task.tuned ? 'tuned' : 'plain'}: ${what}`;
    const limit = { timeout: 25_000 * patience, intervals: [20], message };
    try {
      await expect.poll(async () => this.hasFailed || (await condition()), limit).toBe(true);
    } catch (error) {
      throw new Error(`${error}\n${this.errors}`);
    }
  }
}

/** Starts a reader. A page is one of the server's own origin, unless `origin` names another. */
export async function read(client: Client, task: Task, browser?: Browser, origin?: string) {
  const reader = new Reader(client, task);
  if (client.command) {
    const [program, ...options] = client.command;
    const child = spawn(program, [...options, JSON.stringify(task)], { stdio: ['ignore', 'pipe', 'pipe'] });
    createInterface({ input: child.stdout }).on('line', (line) => reader.take(JSON.parse(line)));
    child.stderr.on('data', (text) => (reader.errors += text));
    child.on('error', (error) => reader.take({ closed: String(error) }));
    child.on('close', (code) => reader.take({ closed: `exit ${code}` }));
    reader.stop = () => void child.kill('SIGKILL');
  } else {
    const page = await browser!.newPage();
    page.on('console', (message) => (reader.errors += `${message.text()}\n`));
    page.on('pageerror', (error) => (reader.errors += `${error}\n`));
    await page.exposeFunction('seen', (seen: Seen) => reader.take(seen));
    if (!origin) await page.route(/^[^?]*\/(clients|node_modules)\//, (route) => route.fulfill(file(route.request().url())));
    const base = origin ?? new URL(task.url).origin;
    await page.goto(`${base}/clients/${client.file}#${encodeURIComponent(JSON.stringify(task))}`);
    reader.stop = () => page.close();
  }
  return reader;
}

/** Returns a page, or a module of one. */
function file(url: string) {
  const { pathname } = new URL(url, 'http://localhost');
  if (pathname === '/') return { status: 200, contentType: 'text/html', body: '<!doctype html>' };
  // Modules may leave out the end of a name.
  const paths = ['', '.js'].map((end) => resolve(here, `..${pathname}${end}`));
  const path = paths.find((path) => existsSync(path) && statSync(path).isFile());
  if (!path) return { status: 404, contentType: 'text/plain', body: '' };
  const contentType = path.endsWith('.html') ? 'text/html' : 'text/javascript';
  return { status: 200, contentType, body: readFileSync(path, 'utf8') };
}

/** Serves the pages from an origin of their own. */
export async function elsewhere() {
  const server = createServer((request, response) => {
    const { status, contentType, body } = file(request.url!);
    response.writeHead(status, { 'Content-Type': contentType }).end(body);
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as AddressInfo;
  return { origin: `http://127.0.0.1:${port}`, close: () => server.close() };
}

/** Listens where a server was, and cuts every connection, or sends a response, until each of the
 * readers that still try has come back once. */
export async function refuse(url: string, readers: Reader[], response?: string) {
  const refused = new Set<string>();
  const listener = listen((socket) => {
    socket.on('error', () => {});
    socket.once('data', (head) => {
      refused.add(/[?&]reader=(\d+)/.exec(head.toString())?.[1] ?? '');
      if (response) socket.end(response);
      else socket.destroy();
    });
  });
  const { hostname, port } = new URL(url);
  await new Promise<void>((ready) => listener.listen(Number(port), hostname, ready));
  for (const [i, reader] of readers.entries()) {
    await reader.waits(() => refused.has(String(i)), 'an attempt to reconnect');
  }
  await new Promise<unknown>((closed) => listener.close(closed));
}

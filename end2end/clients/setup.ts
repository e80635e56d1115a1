// A server and the readers of one test.
import { type Browser, expect, test as base } from '@playwright/test';
import { Server } from '../tests/server.ts';
import { type Client } from './clients.ts';
import { read, type Reader, refuse, type Task } from './reader.ts';

export const test = base.extend<{ server: Server; setup: Setup }>({
  server: async ({}, use) => {
    const server = new Server();
    await use(server);
    await server.kill();
  },
  setup: async ({ server }, use) => {
    const setup = new Setup(server);
    await use(setup);
    for (const reader of setup.readers) await reader.stop();
    setup.cleanUp();
  },
});

/** Returns the name of the meter of a reader. */
export const meter = (reader: number) => `requests-of-reader-${reader}`;

/** Returns the number of requests that a meter has counted. */
export async function requests(server: Server, meter: string): Promise<number> {
  const answer = await fetch(`${server.url}/meters/${meter}`);
  // There is no such meter before the first request.
  if (!answer.ok) return 0;
  const counts = (await answer.json()) as Record<string, { requests: number }>;
  return Object.values(counts).reduce((sum, { requests }) => sum + requests, 0);
}

export class Setup {
  readers: Reader[] = [];
  /** The events that each reader should see. */
  published: { id: string; data: string }[] = [];
  token?: string;
  wrap?: Client['wrap'];
  /** Number of restarts. */
  rounds = 1;
  cleanUp = () => {};

  constructor(readonly server: Server) {}

  async start(...options: string[]) {
    // Short, so that the test is. Not every client obeys.
    await this.server.start('--retry', '200ms', '--public-topic', '>', ...options);
  }

  async open(client: Client, task: Omit<Task, 'url'>, browser?: Browser, origin?: string) {
    const number = this.readers.length;
    const more = `${task.json ? '&format=json' : ''}${task.query ?? ''}&meter=${meter(number)}`;
    // The server ignores `reader`.
    const url = `${this.server.url}/events?topic=orders.*&last_event_id=earliest&reader=${number}${more}`;
    const reader = await read(client, { url, token: this.token, ...task }, browser, origin);
    this.readers.push(reader);
    return reader;
  }

  async publish(...all: string[]) {
    for (const data of all) {
      const event = this.wrap?.(data) ?? { name: 'created', data };
      // The unnamed and the named take turns.
      const name = !this.wrap && this.published.length % 2 ? '' : `?name=${event.name}`;
      const response = await fetch(`${this.server.url}/events/orders.eu${name}`, {
        method: 'POST',
        headers: this.token ? { Authorization: `Bearer ${this.token}` } : {},
        body: event.data,
      });
      expect(response.status).toBe(201);
      const { id } = (await response.json()) as { id: string };
      this.published.push({ id, data });
    }
  }

  /** Waits until every reader has all events, or has failed. */
  async settle() {
    for (const reader of this.readers) await reader.reads(this.published.length);
  }

  /** Ends the server, lets each reader find that it is away, and starts it again. Meanwhile a proxy
   * may respond. */
  async restart(end: 'kill' | 'stop', response?: string) {
    for (const reader of this.readers) reader.connections = 0;
    await this.server[end]();
    await refuse(this.server.url, this.readers, response);
    await this.start();
  }
}

/**
 * Publishing, with retries that publish once.
 *
 * @module
 */
import { Credentials, type TokenSource } from './credentials.js';
import type { WaterclockEvent } from './message.js';
import { problem, request } from './source.js';

/** Number of attempts. */
const ATTEMPTS = 4;

/** How to publish. */
export interface PublishOptions {
  /** The event's name. Default: `message`. */
  name?: string;
  /** The idempotency key. By default it is drawn at random, for this call. */
  key?: string;
  /** A token that may publish to the topic, or a function that fetches one. */
  token?: TokenSource;
  /** Ends the attempts. */
  signal?: AbortSignal;
}

/** The server has refused a publish. */
export class PublishError extends Error {
  override name = 'PublishError';

  constructor(
    /** The status of the response. */
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/**
 * Publishes an event to `/events/{topic}`, and returns it once it is on the server's disk.
 *
 * A string is published as it is, and any other value as JSON. If the server cannot be reached, or
 * asks to come back later, the event is sent again with the same idempotency key, up to three
 * times, so it is published at most once. Throws a {@link PublishError} if the server refuses it,
 * and the error of `fetch` if the server cannot be reached.
 */
export async function publish(
  url: string | URL,
  data: unknown,
  { name, key = randomKey(), token, signal }: PublishOptions = {},
): Promise<WaterclockEvent> {
  const target = new URL(url, globalThis.location?.href);
  if (name !== undefined) target.searchParams.set('name', name);
  const body = typeof data === 'string' ? data : JSON.stringify(data);
  if (body === undefined) throw new TypeError('publish: the data is not a string, nor JSON');
  const credentials = new Credentials(token);
  const headers = { 'Idempotency-Key': key };
  for (let attempt = 1; ; attempt += 1) {
    let error: unknown;
    let wait = 1_000 * 2 ** (attempt - 1) * Math.random();
    try {
      const init: RequestInit = { method: 'POST', headers, body };
      if (signal) init.signal = signal;
      const response = await request(target.href, credentials, init);
      if (response.ok) return (await response.json()) as WaterclockEvent;
      const { title, detail } = await problem(response);
      const message = detail ?? title ?? `the server responded with ${response.status}`;
      error = new PublishError(response.status, message);
      const after = Number(response.headers.get('retry-after'));
      if (![429, 503].includes(response.status)) throw error;
      wait = Math.min(after * 1_000, 30_000) || wait;
    } catch (caught) {
      // `fetch` throws a TypeError if the server cannot be reached.
      if (!(caught instanceof TypeError)) throw caught;
      error = caught;
    }
    if (attempt === ATTEMPTS) throw error;
    await pause(wait, signal);
  }
}

function pause(wait: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resume, reject) => {
    const timer = setTimeout(resume, wait);
    signal?.addEventListener('abort', () => (clearTimeout(timer), reject(signal.reason)));
  });
}

/** Draws a key. `crypto.randomUUID` exists in secure contexts only. */
function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

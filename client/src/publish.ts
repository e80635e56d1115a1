/**
 * Publishing, with retries that publish once.
 *
 * @module
 */
import { Credentials, type TokenSource } from './credentials.js';
import type { WaterclockEvent } from './message.js';
import { backoff, pause } from './retry.js';
import { problem, request, resolve } from './source.js';

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
 * the error of `fetch` if the server cannot be reached, and at once a `TypeError` for arguments
 * that cannot be sent, or a `TokenError` if there is no token.
 */
export async function publish(
  url: string | URL,
  data: unknown,
  { name, key = randomKey(), token, signal }: PublishOptions = {},
): Promise<WaterclockEvent> {
  const target = resolve(url);
  if (name !== undefined) target.searchParams.set('name', name);
  const body = typeof data === 'string' ? data : JSON.stringify(data);
  if (body === undefined) throw new TypeError('publish: the data is not a string, nor JSON');
  if (!/^[ -~]{1,255}$/.test(key)) {
    throw new TypeError('publish: the key must have 1 to 255 printable ASCII characters');
  }
  const credentials = new Credentials(token);
  const headers = { 'Idempotency-Key': key };
  for (let attempt = 1; ; attempt += 1) {
    let error: unknown;
    let wait = backoff(attempt - 1);
    try {
      const init: RequestInit = { method: 'POST', headers, body };
      if (signal) init.signal = signal;
      const response = await request(target.href, credentials, init);
      if (response.ok) return (await response.json()) as WaterclockEvent;
      const { title, detail } = await problem(response);
      const message = detail ?? title ?? `the server responded with ${response.status}`;
      error = new PublishError(response.status, message);
      const after = response.headers.get('retry-after');
      // Of the conflicts, only that of a key in flight ends by itself.
      const isBusy = [429, 503].includes(response.status) || (response.status === 409 && after);
      if (!isBusy) throw error;
      wait += Math.min(Number(after) * 1_000, 30_000) || 0;
    } catch (caught) {
      // `fetch` throws a TypeError if the server cannot be reached.
      if (!(caught instanceof TypeError)) throw caught;
      error = caught;
    }
    if (attempt === ATTEMPTS) throw error;
    await pause(wait, signal);
  }
}

/** Draws a key. `crypto.randomUUID` exists in secure contexts only. */
function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

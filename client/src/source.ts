/**
 * The ways to read a stream: the browser's `EventSource`, a WebSocket, and `fetch`, which can send
 * a token.
 *
 * @module
 */
import type { DisconnectReason } from './connection.js';
import { type Credentials, TokenError } from './credentials.js';
import { json, NAMES } from './message.js';
import { pause } from './retry.js';
import { Parser, type RawMessage } from './sse.js';

/** An event of a source. */
export type SourceEvent =
  | { kind: 'opened' }
  | { kind: 'message'; value: RawMessage }
  /** The source reconnects by itself. */
  | { kind: 'lost' }
  /** The source does not reconnect. The reason is there if it is known. */
  | { kind: 'gave-up'; reason?: DisconnectReason };

/** An open source. */
export interface Source {
  close(): void;
}

/** The media type of a stream. */
export const EVENT_STREAM = 'text/event-stream';

/** Opens an `EventSource`. */
export function openEventSource(
  url: string,
  withCredentials: boolean,
  onEvent: (event: SourceEvent) => void,
): Source {
  const source = new EventSource(url, { withCredentials });
  let isOpen = false;
  source.onopen = () => {
    isOpen = true;
    onEvent({ kind: 'opened' });
  };
  source.onerror = () => {
    // After an attempt without a response, the browser would try again without any backoff.
    const kind = isOpen && source.readyState !== 2 ? 'lost' : 'gave-up';
    isOpen = false;
    onEvent({ kind });
  };
  for (const name of NAMES) {
    source.addEventListener(name, ({ data, lastEventId }: MessageEvent) => {
      onEvent({ kind: 'message', value: { name, id: lastEventId, data } });
    });
  }
  return source;
}

/**
 * Opens a WebSocket to `url` of a cursor, and reconnects as an `EventSource` does. It does not
 * count among the six connections of HTTP/1.1.
 */
export function openWebSocket(
  url: (after: string) => string,
  after: string,
  credentials: Credentials,
  onEvent: (event: SourceEvent) => void,
): Source {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let retry = 2_000;
  let isClosed = false;
  const open = async () => {
    let isOpen = false;
    try {
      const token = await credentials.get();
      if (isClosed) return;
      const protocols = token === undefined ? [] : ['waterclock', `bearer.${token}`];
      socket = new WebSocket(url(after).replace('http', 'ws'), protocols);
    } catch (error) {
      // Without a reason, a request without a WebSocket finds it.
      const reason = error instanceof TokenError ? { reason: failure(error) } : {};
      if (!isClosed) onEvent({ kind: 'gave-up', ...reason });
      return;
    }
    socket.onopen = () => {
      isOpen = true;
      onEvent({ kind: 'opened' });
    };
    socket.onmessage = ({ data }) => {
      // The first member names the kind of the message.
      const message = json(data) ?? {};
      const [name = ''] = Object.keys(message);
      const content = message[name];
      after = message.id ?? content?.id ?? after;
      retry = content?.retry_ms ?? retry;
      if (name === 'goodbye' && content?.reason === 'expired') credentials.expire();
      const value = { name: name === 'event' ? 'message' : name, id: after };
      onEvent({ kind: 'message', value: { ...value, data: JSON.stringify(content) ?? '' } });
    };
    socket.onclose = () => {
      if (isClosed) return;
      // The server has refused it, or cannot be reached.
      if (!isOpen) return onEvent({ kind: 'gave-up' });
      onEvent({ kind: 'lost' });
      if (!isClosed) timer = setTimeout(open, retry);
    };
  };
  void open();
  return {
    close() {
      isClosed = true;
      clearTimeout(timer);
      socket?.close();
    },
  };
}

/** Reads the stream at `url` of a cursor with `fetch`, and reconnects as an `EventSource` does. */
export function openFetch(
  url: (after: string) => string,
  after: string,
  credentials: Credentials,
  withCredentials: boolean,
  onEvent: (event: SourceEvent) => void,
): Source {
  const abort = new AbortController();
  const { signal } = abort;
  let retry = 2_000;
  const emit = (event: SourceEvent) => {
    if (!signal.aborted) onEvent(event);
  };

  async function read(): Promise<DisconnectReason | undefined> {
    let response: Response;
    try {
      const init = { signal, ...including(withCredentials) };
      response = await ask(url(after), EVENT_STREAM, credentials, init);
    } catch (error) {
      return failure(error);
    }
    emit({ kind: 'opened' });
    const parser = new Parser(after);
    const reader = response.body!.getReader();
    try {
      for (let chunk; !(chunk = await reader.read()).done && !signal.aborted; ) {
        for (const message of parser.feed(chunk.value)) {
          after = message.id;
          if (message.name === 'goodbye' && json(message.data)?.reason === 'expired') {
            credentials.expire();
          }
          emit({ kind: 'message', value: message });
        }
      }
    } catch {
      // The connection was cut.
    }
    retry = parser.retry ?? retry;
    return;
  }

  (async () => {
    while (!signal.aborted) {
      const reason = await read();
      if (signal.aborted) return;
      if (reason) return emit({ kind: 'gave-up', reason });
      emit({ kind: 'lost' });
      await pause(retry, signal).catch(() => {});
    }
  })();
  return { close: () => abort.abort() };
}

/** Sends a request with the token, and once more with another token after 401. */
export async function request(
  url: string,
  credentials: Credentials,
  init: RequestInit,
): Promise<Response> {
  for (let isRenewed = false; ; isRenewed = true) {
    const token = await credentials.get();
    init.signal?.throwIfAborted();
    const headers = new Headers(init.headers);
    if (token !== undefined) headers.set('Authorization', `Bearer ${token}`);
    const response = await fetch(url, { cache: 'no-store', ...init, headers });
    if (response.status !== 401 || isRenewed || !credentials.canRenew) return response;
    response.body?.cancel().catch(() => {});
    credentials.expire();
  }
}

/** Returns how `fetch` sends cookies, as `EventSource` would. */
export function including(withCredentials: boolean): RequestInit {
  return { credentials: withCredentials ? 'include' : 'same-origin' };
}

/**
 * Sends a request for a media type. Rejects if the response is something else; {@link failure} has
 * the reason.
 */
export async function ask(
  url: string,
  type: string,
  credentials: Credentials,
  init: RequestInit,
): Promise<Response> {
  const response = await request(url, credentials, { ...init, headers: { Accept: type } });
  const { status } = response;
  if (status !== 200) throw { kind: 'status', status, detail: (await problem(response)).detail };
  const value = response.headers.get('content-type') ?? '';
  if (value.split(';')[0]!.trim().toLowerCase() === type) return response;
  response.body?.cancel().catch(() => {});
  throw { kind: 'content-type', value };
}

/** Returns the reason for which a request failed. */
export function failure(error: any): DisconnectReason {
  if (error?.kind) return error;
  if (error instanceof TokenError) return { kind: 'token', value: error.message };
  return { kind: globalThis.navigator?.onLine === false ? 'offline' : 'unreachable' };
}

/** Resolves a URL of the page. */
export function resolve(url: string | URL): URL {
  const base = globalThis.location && new URL(location.href);
  // A page behind a password may have it in its address. `fetch` refuses that.
  if (base) base.username = base.password = '';
  const target = new URL(url, base);
  if (!target.username && !target.password) return target;
  throw new TypeError('a URL must not have a user or a password: use the option `token`');
}

/** A problem (RFC 9457). */
export interface Problem {
  title: string | null;
  detail: string | null;
}

/** Reads the problem in a response. Its parts are `null` if it has none. */
export async function problem(response: Response): Promise<Problem> {
  const body = await response.text().catch(() => '');
  const { title = null, detail = null } = json(body) ?? {};
  return { title, detail };
}

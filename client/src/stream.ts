/**
 * An event stream, kept open by the connection rules and shared with the browser's other tabs.
 *
 * @module
 */
import { now } from './clock.js';
import {
  type ConnectionEffect,
  type ConnectionState,
  type DisconnectReason,
  isRefusal,
} from './connection.js';
import { Credentials, identity, type TokenSource } from './credentials.js';
import { canShare, Group, groupName } from './group.js';
import { type EventId, isReached } from './ids.js';
import { type End, type Gap, json, parse, type Update, type WaterclockEvent } from './message.js';
import { backoff, pause } from './retry.js';
import {
  ask,
  EVENT_STREAM,
  failure,
  including,
  openEventSource,
  openFetch,
  openWebSocket,
  resolve,
  type Source,
} from './source.js';
import type { RawMessage } from './sse.js';
import { type LeaderStatus, Tab, type TabEffect, type TabInput } from './tab.js';

/** Timeout of a request beside the stream, in milliseconds. */
const REQUEST_TIMEOUT = 20_000;
/** Number of events that may wait for a loop. The stream pauses until the loop has taken them. */
const MAX_WAITING = 10_000;

/** The state of a stream. `paused`: the loop over its events is far behind. */
export type StreamState = ConnectionState['kind'] | 'paused';

/** How to read a stream. */
export interface StreamOptions {
  /**
   * Starts after this event, or at the oldest event kept (`earliest`). It counts before a cursor in
   * the URL. By default the stream starts now.
   */
  after?: EventId | undefined;
  /**
   * One connection for all tabs of this origin that read the same with the same credentials.
   * Default: true. It needs `/poll` beside `/events`, and a secure context (HTTPS or localhost).
   */
  share?: boolean;
  /** A token, or a function that fetches one. It is called again when the token is refused. */
  token?: TokenSource;
  /** Sends cookies to a server of another origin. */
  withCredentials?: boolean;
  /** Gets each event once, in order. */
  onEvent?: (event: WaterclockEvent) => void;
  /** Events are missing at this position. */
  onGap?: (gap: Gap) => void;
  /** A topic has ended. With `last` or `sent`, the stream is over. */
  onEnd?: (end: End) => void;
  /** The state or the reason has changed. */
  onState?: (state: StreamState, reason: DisconnectReason | null) => void;
}

/** A message between tabs. */
type Post =
  | { kind: 'ask' }
  | ({ kind: 'status' } & LeaderStatus)
  | { kind: 'message'; after: EventId | null; raw: RawMessage };

type Input = TabInput<Update>;

/** Subscribes to a stream: `/events`, or `/events/{topic}`, with the query of a stream. */
export function subscribe(url: string | URL, options: StreamOptions = {}): Stream {
  return new Stream(url, options);
}

/**
 * A stream. `for await` over it gives its events, and ends when the stream is over. It throws if
 * the server refuses the stream. The reason is the error's `cause`.
 */
export class Stream implements AsyncIterable<WaterclockEvent> {
  private url: URL;
  private tab: Tab<Update>;
  private credentials: Credentials;
  private source: Source | undefined;
  /** The reason for which the source has given up, if it has said so. */
  private failure: DisconnectReason | undefined;
  private group: Group<Post> | undefined;
  /** Identity of the credentials that the tabs of the group share. */
  private identity = '';
  /** Number of times that this tab has joined or left a group. */
  private joins = 0;
  private inputs: (() => TabEffect<Update>[])[] = [];
  private raw: RawMessage | undefined;
  /** Number of requests for missing events since the last that did not fail. */
  private fetchFailures = 0;
  /** The reason why the last one failed, since this tab follows. */
  private fetchReason: DisconnectReason | null = null;
  /** Ends the requests beside the stream. */
  private readonly over = new AbortController();
  /** The cursor of the loop while events wait for it. */
  private handedOut: EventId | null = null;
  private isStepping = false;
  private isOver = false;
  /** `true` once the page has closed the stream. No loop gives an event after that. */
  private isClosed = false;
  private isPaused = false;
  /** The state and the reason that the page has been told. */
  private seen = JSON.stringify(['idle', null]);
  /** The events that wait for a loop, if there is or may be one. */
  private waiting: WaterclockEvent[] | undefined;
  /** The wait of the loops for the next event. */
  private awaited: Promise<void> | undefined;
  private wake = () => {};
  private cleanUp: () => void;

  /** @internal */
  constructor(
    url: string | URL,
    private options: StreamOptions,
  ) {
    const [folder, after] = streamUrl(url);
    this.url = folder;
    this.tab = new Tab(options.after || after || null);
    this.credentials = new Credentials(options.token, (token) => this.identify(identity(token)));
    if (!options.onEvent) this.waiting = [];
    const timer = setInterval(() => this.tick(), 1_000);
    const target = globalThis.document && globalThis.window;
    const listeners: [string, () => void][] = [
      ['pagehide', () => this.input({ kind: 'page-hide' })],
      ['pageshow', () => this.isPaused || this.input({ kind: 'page-show' })],
      ['visibilitychange', () => document.hidden || this.tick()],
      ['online', () => this.input({ kind: 'online' })],
    ];
    for (const [name, listener] of listeners) target?.addEventListener(name, listener);
    this.cleanUp = () => {
      clearInterval(timer);
      this.over.abort();
      for (const [name, listener] of listeners) target?.removeEventListener(name, listener);
    };
    // Its callbacks may use the stream, so they are not called before it is returned.
    queueMicrotask(() => this.isOver || this.input({ kind: 'connect' }));
  }

  /** The state of the connection, in whichever tab it is. */
  get state(): StreamState {
    return this.isPaused ? 'paused' : this.tab.state.kind;
  }

  /** The reason for the missing connection, if it is known. */
  get reason(): DisconnectReason | null {
    const { role, reason } = this.tab;
    return reason ?? (role === 'follower' ? this.fetchReason : null);
  }

  /** The cursor after which this stream continues; `null` before the first message. */
  get cursor(): EventId | null {
    return this.waiting?.length ? this.handedOut : this.tab.cursor;
  }

  /** Closes the stream for good. Another tab takes over the connection if it needs it. */
  close(): void {
    this.isClosed = true;
    if (!this.isOver) this.finish();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WaterclockEvent, void, undefined> {
    this.waiting ??= [];
    try {
      for (;;) {
        for (let event; !this.isClosed && (event = this.waiting.shift()); ) {
          this.handedOut = event.id;
          yield event;
        }
        if (this.isClosed) return;
        if (this.state === 'refused') {
          throw new Error('the server refused the stream', { cause: this.reason });
        }
        if (this.isOver) return;
        if (this.isPaused) {
          this.isPaused = false;
          this.input({ kind: 'page-show' });
        }
        this.awaited ??= new Promise((wake) => {
          this.wake = () => ((this.awaited = undefined), wake());
        });
        await this.awaited;
      }
    } finally {
      // Another loop gives the rest.
      if (!this.isOver) this.close();
    }
  }

  private finish(): void {
    this.isOver = true;
    this.isPaused = false;
    this.input({ kind: 'stop' });
    this.cleanUp();
    this.wake();
  }

  private tick(): void {
    this.input({ kind: 'tick' });
    const { group } = this;
    if (!group || this.tab.role !== 'leader') return;
    group.count().then(
      (count) => count === 1 && group === this.group && this.input({ kind: 'no-other-tabs' }),
      () => {},
    );
  }

  private enqueue(input: Input, raw?: RawMessage): void {
    this.inputs.push(() => {
      this.raw = raw;
      return this.tab.step(now(), Math.random(), input);
    });
  }

  private input(input: Input, raw?: RawMessage): void {
    this.enqueue(input, raw);
    // Callbacks may close the stream, so an input may come during another.
    if (this.isStepping) return;
    this.isStepping = true;
    for (let next; (next = this.inputs.shift()); ) {
      for (const effect of next()) this.perform(effect);
    }
    this.isStepping = false;
    if (!this.waiting?.length) this.handedOut = this.tab.cursor;
    this.announceState();
  }

  private announceState(): void {
    const { state, reason } = this;
    const seen = JSON.stringify([state, reason]);
    if (seen === this.seen) return;
    this.seen = seen;
    this.call(() => this.options.onState?.(state, reason));
    // The server has nothing more to send, or will not send it.
    if (!this.tab.isWanted() && !this.isOver) {
      this.isOver = true;
      this.cleanUp();
      this.wake();
      // A leader leaves at the next tick, once the others have heard of it.
      setTimeout(() => this.input({ kind: 'tick' }), 1_000);
    }
  }

  private perform(effect: TabEffect<Update>): void {
    switch (effect.kind) {
      case 'connection':
        return this.connect(effect.value);
      case 'join':
      case 'leave':
        // A tab also joins after another has stolen the lock of its group.
        this.group?.leave();
        this.group = undefined;
        this.fetchReason = null;
        this.joins += 1;
        if (effect.kind === 'join') void this.join(this.joins);
        return;
      case 'steal':
        return this.group?.steal();
      case 'ask':
        return this.group?.post({ kind: 'ask' });
      case 'announce':
        return this.group?.post({ ...effect, kind: 'status' });
      case 'relay':
        return this.group?.post({ kind: 'message', after: effect.after, raw: this.raw! });
      case 'fetch':
        void this.fetch(effect.number, effect.after);
        return;
      case 'deliver':
        return this.deliver(effect.value);
    }
  }

  private deliver(update: Update): void {
    if (this.isOver) return;
    const { onEvent, onGap, onEnd } = this.options;
    switch (update.kind) {
      case 'event':
        if (this.waiting) {
          this.waiting.push(update.value);
          this.wake();
          if (this.waiting.length >= MAX_WAITING && !this.isPaused) {
            this.isPaused = true;
            this.input({ kind: 'page-hide' });
          }
        }
        return this.call(() => onEvent?.(update.value));
      case 'gap':
        return this.call(() => onGap?.(update.value));
      case 'end': {
        const end = update.value;
        this.call(() => onEnd?.(end));
        // A request that would resume gets 204, so none is sent.
        if ((end.last || end.sent !== undefined) && !this.isOver) this.finish();
      }
    }
  }

  /** Calls a function of the page. Its errors are the page's, and do not stop the stream. */
  private call(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  private connect(effect: ConnectionEffect): void {
    if (effect.kind === 'explain') {
      void this.explain();
      return;
    }
    this.source?.close();
    this.source = undefined;
    if (effect.kind === 'close') return;
    this.failure = undefined;
    const after = effect.after ?? '';
    const { token, withCredentials = false } = this.options;
    const onEvent = (event: Parameters<Parameters<typeof openEventSource>[2]>[0]) => {
      // It may have been closed.
      if (this.source !== source) return;
      if (event.kind === 'message') {
        const raw = event.value;
        return this.input({ kind: 'message', ...parse(raw) }, raw);
      }
      if (event.kind === 'gave-up') this.failure = event.reason;
      this.input({ kind: 'connection', value: { kind: event.kind } });
    };
    const url = (after: string) => this.urlOf('events', after);
    const { credentials } = this;
    const source = effect.isSocket
      ? openWebSocket((after) => this.urlOf('ws', after), after, credentials, onEvent)
      : token === undefined && typeof EventSource === 'function'
        ? openEventSource(url(after), withCredentials, onEvent)
        : openFetch(url, after, credentials, withCredentials, onEvent);
    this.source = source;
  }

  /** Reads alone, without using up the connections of HTTP/1.1 where no tabs can share. */
  private readAlone(): void {
    const { share = true } = this.options;
    const isPage = typeof document === 'object' && typeof WebSocket === 'function';
    this.input({ kind: 'cannot-share', mayUseSockets: share && isPage && !canShare() });
  }

  private async explain(): Promise<void> {
    let value = this.failure;
    value ??= await this.request('events', this.cursor ?? '', EVENT_STREAM, async () => {}).then(
      () => ({ kind: 'recovered' }),
      failure,
    );
    this.input({ kind: 'connection', value: { kind: 'explained', value } });
  }

  /** Sends a request beside the stream, and cancels it once its response was used. */
  private async request<T>(
    path: 'events' | 'poll',
    after: string,
    type: string,
    use: (response: Response) => Promise<T>,
  ): Promise<T> {
    const abort = new AbortController();
    const stop = () => abort.abort();
    const timer = setTimeout(stop, REQUEST_TIMEOUT);
    const { signal } = this.over;
    signal.addEventListener('abort', stop);
    try {
      const { withCredentials = false } = this.options;
      const init = { signal: abort.signal, ...including(withCredentials) };
      return await use(await ask(this.urlOf(path, after), type, this.credentials, init));
    } finally {
      stop();
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    }
  }

  /** Returns `false` also if the stream depends on the time at which its tab came. */
  private mayShare(): boolean {
    const { searchParams } = this.url;
    const isOwn = searchParams.has('limit') || searchParams.has('since');
    return this.options.share !== false && canShare() && !isOwn;
  }

  /** Joins the group of tabs, unless this tab has left it meanwhile. */
  private async join(number: number): Promise<void> {
    try {
      if (!this.mayShare()) throw null;
      // The group depends on the token.
      await this.credentials.get();
      const credentials = String(this.options.withCredentials ?? false);
      const name = await groupName(this.urlOf('events', ''), credentials, this.identity);
      if (number !== this.joins) return;
      const group = new Group<Post>(name, (event) => {
        if (group !== this.group) return;
        if (event.kind === 'cannot-share') return this.readAlone();
        if (event.kind !== 'posted') return this.input({ kind: event.kind });
        const post = event.value;
        switch (post.kind) {
          case 'ask':
            return this.input({ kind: 'asked' });
          case 'status':
            return this.input({ ...post, kind: 'announced' });
          case 'message': {
            const { after, raw } = post;
            return this.input({ kind: 'relayed', after, message: parse(raw) });
          }
        }
      });
      this.group = group;
      group.post({ kind: 'ask' });
    } catch {
      if (number === this.joins) this.readAlone();
    }
  }

  /** Changes to the group of other credentials, if they are not those of this tab's group. */
  private identify(identity: string): void {
    if (identity === this.identity) return;
    this.identity = identity;
    const { role } = this.tab;
    // Before it has joined, it waits for the token.
    if (this.group || role === 'standalone') {
      if (!this.mayShare() || role === 'inactive') return;
      this.enqueue({ kind: 'page-hide' });
      this.input({ kind: 'page-show' });
    }
  }

  private async fetch(number: number, after: EventId): Promise<void> {
    try {
      const answer = await this.request('poll', after, 'application/json', (response) =>
        response.json(),
      );
      const { events, gap, ends = [], cursor } = answer;
      const updates: [EventId, Update][] = [
        ...events.map((value: WaterclockEvent) => [value.id, { kind: 'event', value }]),
        ...ends.map(({ id, ...value }: End & { id: EventId }) => [id, { kind: 'end', value }]),
      ];
      updates.sort(([a], [b]) => (isReached(a, b) ? -1 : 1));
      if (typeof cursor !== 'string') throw null;
      this.fetchFailures = 0;
      this.fetchReason = null;
      this.input({
        kind: 'fetched',
        number,
        gap: gap && { kind: 'gap', value: gap },
        events: updates.map(([, update]) => update),
        cursor,
      });
    } catch (error) {
      // This tab has left the group, or leads it.
      if (number !== this.tab.fetches) return;
      const reason = failure(error);
      if (!isRefusal(reason)) {
        this.fetchReason = reason;
        this.announceState();
        // The rules would send the next one with the next tick.
        await pause(backoff(this.fetchFailures++), this.over.signal).catch(() => {});
      }
      this.input({ kind: 'fetch-failed', number, reason });
    }
  }

  private urlOf(path: 'events' | 'poll' | 'ws', after: string): string {
    const url = new URL(this.url);
    url.pathname += path;
    if (path === 'events') url.searchParams.set('format', 'json');
    if (after) {
      url.searchParams.set('last_event_id', after);
      url.searchParams.delete('since');
    }
    return url.href;
  }
}

/** A cursor in a URL: the client's own name for it, and each spelling that the server accepts. */
const CURSOR = /^after$|lasteventid$/;

/**
 * Returns the URL of a stream without `events`, and the cursor that it had. Its topics are in the
 * query.
 */
function streamUrl(text: string | URL): [folder: URL, after: EventId | undefined] {
  const url = resolve(text);
  const { searchParams } = url;
  const [, folder, topic] = /^(.*\/)events(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
  if (folder === undefined) {
    throw new TypeError(`subscribe: the path of ${url} must end with /events or /events/{topic}`);
  }
  url.pathname = folder;
  if (topic) searchParams.append('topic', decodeURIComponent(topic));
  url.hash = '';
  // It would count before the cursor of each later request. The server's own name counts last.
  let after: EventId | undefined;
  for (const [name, value] of [...searchParams]) {
    if (!CURSOR.test(name.toLowerCase().replace(/[\W_]/g, ''))) continue;
    searchParams.delete(name);
    if (value && (!after || name !== 'last_event_id')) after = value;
  }
  return [url, after];
}

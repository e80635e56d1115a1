/**
 * The connection rules: a page opens its stream, reconnects with backoff, and resumes after the
 * last event.
 *
 * This file is `crates/leptos/src/connection.rs` in another language, name by name. That file is
 * the specification and gives the reasons. `test/traces.test.mjs` compares the two.
 *
 * @module
 */
import { type EventId, isReached } from './ids.js';

/** Upper bound of the first backoff, in milliseconds, like all times here. */
const INITIAL_BACKOFF = 1_000;
const MAX_BACKOFF = 30_000;
const STABLE_AFTER = 10_000;
const MAX_SILENT_INTERVALS = 3;
const MAX_REFUSED_SOCKETS = 2;
/** Statuses of a request that would fail again in the same way. */
const REFUSALS = [400, 401, 403, 406, 414, 431];

/** The server's intervals in milliseconds, as its `hello` gives them. */
export interface Intervals {
  /** Longest pause between two messages of a healthy stream. */
  heartbeat: number;
  /** Delay before the browser reconnects by itself. */
  retry: number;
}

/** The state of the connection. */
export type ConnectionState =
  | { kind: 'idle' | 'connecting' | 'live' | 'reconnecting' | 'stale' | 'stopped' | 'refused' }
  /** `until` is the time of the next attempt. */
  | { kind: 'waiting'; until: number };

/** The reason why there is no connection. */
export type DisconnectReason =
  /** The server has closed it. */
  | { kind: 'goodbye'; value: 'draining' | 'limit' | 'expired' | 'behind' }
  /** The server cannot be reached; in the second case, the browser reports that it is offline. */
  | { kind: 'unreachable' | 'offline' }
  /** The status of the response was not 200. `detail` is that of the problem in it (RFC 9457). */
  | { kind: 'status'; status: number; detail: string | null }
  /** The response was not a stream but had this content type. */
  | { kind: 'content-type'; value: string }
  /** The server answers with a stream again. */
  | { kind: 'recovered' }
  /** The function `token` threw this, or did not answer. Only this client has this reason. */
  | { kind: 'token'; value: string };

/** Returns `true` for a response after which the same request would be refused again. */
export function isRefusal(reason: DisconnectReason): boolean {
  // Only a reason of the kind `status` has one.
  return REFUSALS.includes((reason as { status: number }).status);
}

/** A message of the stream, as the rules see it. */
export type ReceivedMessage =
  | { kind: 'event' | 'heartbeat'; id: EventId | null }
  | { kind: 'hello'; id: EventId | null; intervals: Intervals | null }
  /** Also the end of a topic. It means something only at the cursor after which it was sent. */
  | { kind: 'gap'; cursor: EventId | null }
  | { kind: 'goodbye'; reason: 'draining' | 'limit' | 'expired' | 'behind'; retry: number };

/** An input of the connection rules. */
export type ConnectionInput =
  | { kind: 'connect' | 'stop' | 'opened' | 'lost' | 'gave-up' | 'online' | 'tick' }
  | { kind: 'received'; value: ReceivedMessage }
  | { kind: 'explained'; value: DisconnectReason };

/** An effect that the page must carry out. */
export type ConnectionEffect =
  /** Open a connection that resumes after the cursor, and close the one before it, if any. */
  | { kind: 'open'; after: EventId | null; isSocket: boolean }
  | { kind: 'close' }
  /** Ask the server, with one request, why the connection failed. */
  | { kind: 'explain' };

/** The state machine of one page's connection. */
export class Connection {
  state: ConnectionState = { kind: 'idle' };
  reason: DisconnectReason | null = null;
  intervals: Intervals = { heartbeat: 15_000, retry: 5_000 };
  private lastActivity = 0;
  private suspected: number | null = null;
  private liveSince: number | null = null;
  private failures = 0;
  private goodbye: 'draining' | 'limit' | 'expired' | 'behind' | null = null;
  /** `true` if a connection may be a WebSocket. */
  mayUseSockets = false;
  private refusedSockets = 0;

  constructor(public cursor: EventId | null) {}

  /** Returns `true` unless the event is at or before the cursor. */
  isNew(id: EventId): boolean {
    return this.cursor === null || !isReached(id, this.cursor);
  }

  /** Returns `true` if there is, or will be, a connection. */
  isWanted(): boolean {
    return !['idle', 'stopped', 'refused'].includes(this.state.kind);
  }

  /** Returns `true` if there is a connection, or the browser is reconnecting. */
  isOpen(): boolean {
    return this.isWanted() && this.state.kind !== 'waiting';
  }

  /** Applies an input at time `now`. Returns the effects, in order. `random` is from 0 to 1. */
  step(now: number, random: number, input: ConnectionInput): ConnectionEffect[] {
    const { state } = this;
    const is = input.kind;
    if (is === 'stop') {
      this.reason = null;
      this.failures = 0;
      return this.close({ kind: 'stopped' });
    }
    if (!this.isOpen()) {
      if (is === 'connect' || (is === 'online' && state.kind === 'waiting')) {
        this.reason = null;
        return this.open(now, 'connecting');
      }
      if (state.kind === 'waiting') {
        if (is === 'explained') {
          if (this.isSocket() && input.value.kind === 'recovered') this.refusedSockets += 1;
          this.reason = input.value;
          // 204 No Content tells `EventSource` not to reconnect.
          if ((this.reason as { status?: number }).status === 204) {
            this.state = { kind: 'stopped' };
          }
          if (isRefusal(this.reason)) this.state = { kind: 'refused' };
        } else if (is === 'tick' && now >= state.until) {
          return this.open(now, 'connecting');
        }
      }
      return [];
    }
    switch (is) {
      case 'opened':
        this.lastActivity = now;
        if (this.isSocket()) this.refusedSockets = 0;
        return [];
      case 'received': {
        const received = input.value;
        this.follow(received);
        this.lastActivity = now;
        if (received.kind === 'goodbye') {
          this.goodbye = received.reason;
          this.intervals = { ...this.intervals, retry: received.retry };
        } else {
          this.liveSince ??= now;
          this.reason = null;
          this.state = { kind: 'live' };
        }
        return [];
      }
      case 'lost':
        this.resetIfStable(now);
        this.reason = this.goodbye && { kind: 'goodbye', value: this.goodbye };
        this.goodbye = null;
        this.lastActivity = now;
        this.liveSince = null;
        this.state = { kind: 'reconnecting' };
        return [];
      case 'gave-up': {
        this.resetIfStable(now);
        if (this.goodbye) {
          // The server has said when to come back.
          this.reason = { kind: 'goodbye', value: this.goodbye };
          this.goodbye = null;
          return this.close({ kind: 'waiting', until: now + this.intervals.retry });
        }
        const bound = Math.min(INITIAL_BACKOFF * 2 ** this.failures, MAX_BACKOFF);
        this.failures += 1;
        return [...this.close({ kind: 'waiting', until: now + bound * random }), { kind: 'explain' }];
      }
      case 'tick': {
        this.resetIfStable(now);
        if (now - this.lastActivity <= this.maxSilence()) return [];
        const suspected = this.suspected;
        this.suspected = this.lastActivity;
        return suspected === this.lastActivity ? this.open(now, 'stale') : [];
      }
      case 'online':
        // A goodbye says when to come back. Without one, the network was at fault.
        if (state.kind === 'reconnecting' && this.reason === null) {
          return this.open(now, 'connecting');
        }
    }
    return [];
  }

  /** Takes over the cursor and the intervals of a message that this tab or its leader received. */
  follow(received: ReceivedMessage): void {
    if (received.kind === 'goodbye') return;
    if (received.kind === 'gap') {
      this.cursor = received.cursor ?? this.cursor;
      return;
    }
    if (received.id !== null && this.isNew(received.id)) this.cursor = received.id;
    if (received.kind === 'hello' && received.intervals) this.intervals = received.intervals;
  }

  /** Takes over a final state that was found elsewhere. */
  finish(state: ConnectionState, reason: DisconnectReason | null): void {
    this.reason = reason;
    this.state = state;
  }

  /** Returns `true` if the next connection is a WebSocket. */
  private isSocket(): boolean {
    return this.mayUseSockets && this.refusedSockets < MAX_REFUSED_SOCKETS;
  }

  private maxSilence(): number {
    const pause = this.state.kind === 'reconnecting' ? this.intervals.retry : 0;
    return pause + this.intervals.heartbeat * MAX_SILENT_INTERVALS;
  }

  private open(now: number, kind: 'connecting' | 'stale'): ConnectionEffect[] {
    this.lastActivity = now;
    this.liveSince = null;
    this.goodbye = null;
    this.state = { kind };
    return [{ kind: 'open', after: this.cursor, isSocket: this.isSocket() }];
  }

  private close(state: ConnectionState): ConnectionEffect[] {
    this.liveSince = null;
    this.state = state;
    return [{ kind: 'close' }];
  }

  /** Resets the backoff once the connection has been live for long enough. */
  private resetIfStable(now: number): void {
    if (this.liveSince !== null && now - this.liveSince >= STABLE_AFTER) this.failures = 0;
  }
}

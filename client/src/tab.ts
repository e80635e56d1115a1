/**
 * The rules by which the tabs of a browser share one connection.
 *
 * This file is `crates/leptos/src/tab/mod.rs` in another language, name by name. That file is the
 * specification and gives the reasons. `test/traces.test.mjs` compares the two.
 *
 * @module
 */
import {
  Connection,
  type ConnectionEffect,
  type ConnectionInput,
  type ConnectionState,
  type DisconnectReason,
  isRefusal,
  type ReceivedMessage,
} from './connection.js';
import { type EventId, isReached, isSameLog } from './ids.js';

/** Time that a leader has to answer, in milliseconds, like all times here. */
const ANSWER_TIMEOUT = 5_000;
const ASK_AFTER = 5_000;
const ASK_DISCONNECTED_AFTER = 1_000;
const MAX_BUFFERED = 10_000;

/** The part that a tab plays in sharing the connection. */
export type Role = 'inactive' | 'suspended' | 'follower' | 'leader' | 'standalone';

/** A message of the stream: its meaning for the rules, and its content for the page. */
export interface StreamMessage<M> {
  received: ReceivedMessage;
  content: M;
}

/** The state of the leader's connection. Between tabs, `until` is the remaining time. */
export interface LeaderStatus {
  state: ConnectionState;
  reason: DisconnectReason | null;
  cursor: EventId | null;
  heartbeat: number;
}

/** The answer to a fetch. */
export interface Fetched<M> {
  /** The number of the request. */
  number: number;
  /** A gap to show, if the server could not honour the cursor. */
  gap: M | null;
  events: M[];
  /** The cursor for the next request. */
  cursor: EventId;
}

/** An input of a tab's rules. */
export type TabInput<M> =
  | { kind: 'connect' | 'stop' | 'page-hide' | 'page-show' | 'online' | 'tick' }
  | { kind: 'granted' | 'stolen' | 'no-other-tabs' | 'asked' }
  /** This tab cannot share, or does not want to. */
  | { kind: 'cannot-share'; mayUseSockets: boolean }
  /** An input of this tab's own connection, except its messages. */
  | { kind: 'connection'; value: ConnectionInput }
  | ({ kind: 'message' } & StreamMessage<M>)
  | ({ kind: 'announced' } & LeaderStatus)
  /** `after` is the leader's cursor before the message. */
  | { kind: 'relayed'; after: EventId | null; message: StreamMessage<M> }
  | ({ kind: 'fetched' } & Fetched<M>)
  | { kind: 'fetch-failed'; number: number; reason: DisconnectReason };

/** An effect that the page must carry out. */
export type TabEffect<M> =
  | { kind: 'connection'; value: ConnectionEffect }
  /** Request, take, or give up the lock. */
  | { kind: 'join' | 'steal' | 'leave' }
  | { kind: 'ask' }
  | ({ kind: 'announce' } & LeaderStatus)
  /** Relay the message of this step's input to the other tabs. */
  | { kind: 'relay'; after: EventId | null }
  /** Fetch the events after the cursor (`GET /poll`). The answer must have the number. */
  | { kind: 'fetch'; number: number; after: EventId }
  /** Deliver this content to the page: it is new, and next in order. */
  | { kind: 'deliver'; value: M };

/** A follower's knowledge of its leader. */
interface Leader {
  status: LeaderStatus;
  lastHeard: number;
  /** Time of an unanswered question, and the number of ticks since. */
  asked: [time: number, ticks: number] | null;
}

/** The state of a follower's fetching. */
type FetchState =
  | { kind: 'idle' | 'later' }
  | { kind: 'in-flight'; target: EventId | null; buffered: number };

/** The state machine of one tab. */
export class Tab<M> {
  role: Role = 'inactive';
  private connection: Connection;
  private leader: Leader;
  private fetch: FetchState = { kind: 'idle' };
  /** Number of the request whose answer counts. */
  fetches = 0;
  private buffer: [after: EventId | null, message: StreamMessage<M>][] = [];
  private others: number | null = null;

  constructor(cursor: EventId | null) {
    this.connection = new Connection(cursor);
    this.leader = this.unknownLeader(0);
  }

  /** The state of the connection, in whichever tab it is. */
  get state(): ConnectionState {
    return this.role === 'follower' ? this.leader.status.state : this.connection.state;
  }

  /** The reason for the missing connection, if it is known. */
  get reason(): DisconnectReason | null {
    return this.role === 'follower' ? this.leader.status.reason : this.connection.reason;
  }

  /** The cursor after which this tab continues. */
  get cursor(): EventId | null {
    return this.connection.cursor;
  }

  /** Returns `true` if this tab wants the stream. */
  isWanted(): boolean {
    if (this.role === 'inactive') return false;
    return this.role === 'suspended' || this.role === 'follower' || this.connection.isWanted();
  }

  /** Applies an input at time `now`. Returns the effects, in order. `random` is from 0 to 1. */
  step(now: number, random: number, input: TabInput<M>): TabEffect<M>[] {
    const seen = () => JSON.stringify([this.connection.state, this.connection.reason]);
    const before = this.role === 'leader' && seen();
    const effects: TabEffect<M>[] = [];
    this.apply(now, random, input, effects);
    if (this.role === 'leader' && this.others !== null && before !== seen()) {
      effects.push({ kind: 'announce', ...this.status(now) });
    }
    return effects;
  }

  private apply(now: number, random: number, input: TabInput<M>, effects: TabEffect<M>[]): void {
    const own = (value: ConnectionInput) => this.stepConnection(now, random, value, effects);
    const { role } = this;
    if (role === 'inactive' || role === 'suspended') {
      if (input.kind === 'connect' || (role === 'suspended' && input.kind === 'page-show')) {
        this.followUnknown(now, effects);
      } else if (input.kind === 'granted') {
        effects.push({ kind: 'leave' });
      } else if (role === 'suspended' && input.kind === 'stop') {
        this.role = 'inactive';
      }
      return;
    }
    const isFollower = role === 'follower';
    if (!this.isWanted() && (input.kind === 'tick' || input.kind === 'page-hide')) {
      // The stream has ended or is refused, and the others have been told.
      return this.depart('inactive', effects);
    }
    switch (input.kind) {
      case 'stop':
        return this.leave(now, 'inactive', effects);
      case 'page-hide':
        return this.leave(now, 'suspended', effects);
      case 'stolen':
        if (role === 'standalone') return;
        own({ kind: 'stop' });
        this.resetSharing();
        return this.followUnknown(now, effects);
    }
    if (isFollower) {
      switch (input.kind) {
        case 'granted':
        case 'cannot-share':
          this.role = input.kind === 'granted' ? 'leader' : 'standalone';
          this.resetSharing();
          // The announcement tells the others that the leader has changed.
          if (input.kind === 'granted') this.others = now;
          this.connection.mayUseSockets = input.kind === 'cannot-share' && input.mayUseSockets;
          return own({ kind: 'connect' });
        case 'relayed':
          this.heard(now);
          if (input.message.received.kind !== 'goodbye') {
            this.leader.status = { ...this.leader.status, state: { kind: 'live' }, reason: null };
          }
          // A fetch brings those that are dropped, and the messages after them.
          if (this.buffer.length >= MAX_BUFFERED) this.buffer = [];
          this.buffer.push([input.after, input.message]);
          return this.catchUp(null, effects);
        case 'announced': {
          const { kind: _, ...status } = input;
          return this.handleStatus(now, status, effects);
        }
        case 'fetched':
          return this.handleFetched(input, effects);
        case 'fetch-failed':
          if (input.number !== this.fetches) return;
          // This tab's own credentials were refused, not those of the leader.
          if (isRefusal(input.reason)) {
            return this.finish(now, { kind: 'refused' }, input.reason, effects);
          }
          this.fetch = { kind: 'later' };
          return;
        case 'tick':
          if (this.fetch.kind === 'later') this.startFetch(null, effects);
          return this.watchLeader(now, random, effects);
      }
      return;
    }
    switch (input.kind) {
      case 'asked':
        if (role !== 'leader') return;
        this.others = now;
        own({ kind: 'tick' });
        effects.push({ kind: 'announce', ...this.status(now) });
        // Its next tick may be a minute away, if its tab is hidden.
        if (!this.isWanted()) this.depart('inactive', effects);
        return;
      case 'no-other-tabs':
        if (role === 'leader' && this.others !== null && now - this.others > ANSWER_TIMEOUT) {
          this.others = null;
        }
        return;
      case 'message':
        return this.handleMessage(now, random, input, effects);
      case 'connection':
        return own(input.value);
      case 'connect':
      case 'online':
      case 'tick':
        return own({ kind: input.kind });
    }
  }

  private followUnknown(now: number, effects: TabEffect<M>[]): void {
    this.role = 'follower';
    this.leader = this.unknownLeader(now);
    effects.push({ kind: 'join' }, { kind: 'ask' });
  }

  private stepConnection(
    now: number,
    random: number,
    input: ConnectionInput,
    effects: TabEffect<M>[],
  ): void {
    for (const value of this.connection.step(now, random, input)) {
      effects.push({ kind: 'connection', value });
    }
  }

  private resetSharing(): void {
    this.fetch = { kind: 'idle' };
    this.fetches += 1;
    this.buffer = [];
    this.others = null;
  }

  /** Closes the connection, and leaves the group. */
  private leave(now: number, role: Role, effects: TabEffect<M>[]): void {
    this.stepConnection(now, 0, { kind: 'stop' }, effects);
    this.depart(role, effects);
  }

  /** Leaves the group. */
  private depart(role: Role, effects: TabEffect<M>[]): void {
    this.resetSharing();
    effects.push({ kind: 'leave' });
    this.role = role;
  }

  /** Returns the status of this tab as the leader. */
  private status(now: number): LeaderStatus {
    const { state, reason, cursor, intervals } = this.connection;
    return {
      state:
        state.kind === 'waiting'
          ? { kind: 'waiting', until: Math.max(state.until - now, 0) }
          : state,
      reason,
      cursor,
      heartbeat: intervals.heartbeat,
    };
  }

  /** Handles a message of the tab's own connection. */
  private handleMessage(
    now: number,
    random: number,
    { received, content }: StreamMessage<M>,
    effects: TabEffect<M>[],
  ): void {
    // The connection was closed before its message was handled. The next one repeats it.
    if (!this.connection.isOpen()) return;
    const after = this.connection.cursor;
    const isRepeated = this.isKnown(received);
    this.stepConnection(now, random, { kind: 'received', value: received }, effects);
    if (isRepeated) return;
    if (this.others !== null) effects.push({ kind: 'relay', after });
    effects.push({ kind: 'deliver', value: content });
  }

  /** Returns `true` for an event that this tab already has. */
  private isKnown(received: ReceivedMessage): boolean {
    return received.kind === 'event' && received.id !== null && !this.connection.isNew(received.id);
  }

  /** Returns `true` if nothing is missing between the cursor and a message sent after `after`. */
  private isNext(after: EventId | null, received: ReceivedMessage): boolean {
    const { cursor } = this.connection;
    // The leader's gap or end is also this tab's only if both had the same cursor.
    if (received.kind === 'gap') return cursor === null || cursor === after;
    if (received.kind === 'goodbye') return true;
    // Before its first message, the leader is at the position of that message.
    const start = after ?? received.id;
    return start === null || this.hasReached(start);
  }

  private hasReached(position: EventId): boolean {
    const { cursor } = this.connection;
    return cursor === null || isReached(position, cursor);
  }

  /** Shows the buffered messages up to the first gap between them, and fetches what is missing. */
  private catchUp(target: EventId | null, effects: TabEffect<M>[]): void {
    if (this.fetch.kind !== 'idle') return;
    const { buffer } = this;
    let count = 0;
    for (const [after, { received, content }] of buffer) {
      if (!this.isKnown(received)) {
        if (!this.isNext(after, received)) {
          this.buffer = buffer.slice(count);
          return this.startFetch(target, effects);
        }
        this.connection.follow(received);
        effects.push({ kind: 'deliver', value: content });
      }
      count += 1;
    }
    this.buffer = [];
    if (target !== null && !this.hasReached(target)) this.startFetch(target, effects);
  }

  private startFetch(target: EventId | null, effects: TabEffect<M>[]): void {
    const after = this.connection.cursor;
    // A tab without a cursor has started with nothing, so nothing is missing.
    if (after === null) {
      this.fetch = { kind: 'idle' };
      return;
    }
    this.fetch = { kind: 'in-flight', target, buffered: this.buffer.length };
    effects.push({ kind: 'fetch', number: ++this.fetches, after });
  }

  private handleFetched({ number, gap, events, cursor }: Fetched<M>, effects: TabEffect<M>[]): void {
    if (this.fetch.kind !== 'in-flight' || number !== this.fetches) return;
    const { target, buffered } = this.fetch;
    const isProgress = gap !== null || events.length > 0 || cursor !== this.connection.cursor;
    this.connection.cursor = cursor;
    for (const value of gap === null ? events : [gap, ...events]) {
      effects.push({ kind: 'deliver', value });
    }
    this.fetch = { kind: 'idle' };
    this.dropUnreachable(buffered);
    if (isProgress) return this.catchUp(target, effects);
    // Messages that still do not follow belong to a log that the server no longer has, or does not
    // have yet.
    const caughtUp: TabEffect<M>[] = [];
    this.catchUp(target, caughtUp);
    effects.push(...caughtUp.filter((effect) => effect.kind !== 'fetch'));
    if (this.fetch.kind !== 'idle') {
      this.buffer = [];
      this.fetch = { kind: 'later' };
    }
  }

  /** Drops those of the oldest buffered messages that would never be next. */
  private dropUnreachable(count: number): void {
    this.buffer = this.buffer.filter(([after, { received }], index) => {
      if (index >= count || this.isNext(after, received)) return true;
      if (received.kind === 'gap' || received.kind === 'goodbye') return false;
      return isSameLog(received.id ?? after, this.connection.cursor);
    });
  }

  private handleStatus(now: number, status: LeaderStatus, effects: TabEffect<M>[]): void {
    this.heard(now);
    const { state, reason, cursor } = status;
    const isRefused = state.kind === 'refused';
    if (isRefused || state.kind === 'stopped') {
      // The token of the leader may have expired before that of this tab.
      const isOwn = (reason as { status?: number } | null)?.status === 401;
      // This tab may not have read all of it.
      if (isRefused ? !isOwn : cursor === null || this.hasReached(cursor)) {
        return this.finish(now, state, reason, effects);
      }
      // The leader is about to leave, and the next one finds out by itself.
      this.leader = this.unknownLeader(now);
    } else {
      const isWaiting = state.kind === 'waiting';
      this.leader.status = isWaiting
        ? { ...status, state: { ...state, until: state.until + now } }
        : status;
    }
    this.catchUp(cursor, effects);
  }

  /** Leaves the group in a final state. */
  private finish(
    now: number,
    state: ConnectionState,
    reason: DisconnectReason | null,
    effects: TabEffect<M>[],
  ): void {
    this.leave(now, 'inactive', effects);
    this.connection.finish(state, reason);
  }

  /** Asks a silent leader for its status, and steals the lock from one that does not answer. */
  private watchLeader(now: number, random: number, effects: TabEffect<M>[]): void {
    const { status, lastHeard, asked } = this.leader;
    if (asked) {
      asked[1] += 1;
      // The random part keeps the followers of a dead leader from stealing all at once.
      if (asked[1] >= 3 && now - asked[0] >= ANSWER_TIMEOUT * (1 + random)) {
        this.leader = this.unknownLeader(now);
        effects.push({ kind: 'steal' });
      }
      return;
    }
    const maxSilence =
      status.state.kind === 'live' ? status.heartbeat + ASK_AFTER : ASK_DISCONNECTED_AFTER;
    if (now - lastHeard >= maxSilence) {
      this.leader.asked = [now, 0];
      effects.push({ kind: 'ask' });
    }
  }

  private unknownLeader(now: number): Leader {
    const status: LeaderStatus = {
      state: { kind: 'connecting' },
      reason: null,
      cursor: null,
      heartbeat: this.connection.intervals.heartbeat,
    };
    return { status, lastHeard: now, asked: null };
  }

  private heard(now: number): void {
    this.leader.lastHeard = now;
    this.leader.asked = null;
  }
}

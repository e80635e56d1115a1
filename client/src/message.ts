/**
 * The meaning of a stream's messages, for the rules and for the page.
 *
 * @module
 */
import type { Intervals, ReceivedMessage } from './connection.js';
import type { EventId } from './ids.js';
import type { RawMessage } from './sse.js';
import type { StreamMessage } from './tab.js';

/** An event. */
export interface WaterclockEvent {
  /** Its id: the cursor to resume after it. */
  id: EventId;
  topic: string;
  name: string;
  data: string;
  /** The time of its acceptance by the server (RFC 3339). */
  time: string;
}

/** Events are missing at this position of the stream. */
export interface Gap {
  reason: 'expired' | 'damaged' | 'other-epoch' | 'future' | 'malformed';
  /** The cursor that the server could not honour. */
  cursor: string;
}

/** The end of a topic, or of a stream with a limit. */
export interface End {
  /** The topic that has ended. */
  topic?: string;
  outcome?: 'done' | 'failed';
  /** The publisher's explanation of a failure. */
  message?: string;
  /** `true` if all topics of the stream have ended, so the stream is over. */
  last?: boolean;
  /** Number of events sent, on a stream with a `limit`, which is over. */
  sent?: number;
}

/** A message, as the page gets it. */
export type Update =
  | { kind: 'event'; value: WaterclockEvent }
  | { kind: 'gap'; value: Gap }
  | { kind: 'end'; value: End }
  /** It needs no attention, such as a heartbeat. */
  | { kind: 'notice' };

/** Names of the messages to listen to. With `format=json`, events are unnamed. */
export const NAMES = ['message', 'hello', 'gap', 'heartbeat', 'end', 'goodbye'];

/** Parses a message. One that cannot be parsed still counts as a heartbeat. */
export function parse({ name, id: lastEventId, data }: RawMessage): StreamMessage<Update> {
  const id = lastEventId || null;
  const heartbeat: ReceivedMessage = { kind: 'heartbeat', id };
  const notice: Update = { kind: 'notice' };
  const value = json(data);
  if (value !== null) {
    switch (name) {
      case 'message':
        return { received: { kind: 'event', id }, content: { kind: 'event', value } };
      case 'hello':
        return { received: { kind: 'hello', id, intervals: intervals(value) }, content: notice };
      case 'gap':
        return { received: { kind: 'gap', cursor: id }, content: { kind: 'gap', value } };
      case 'end': {
        // The end of a limit says nothing about the position.
        const received: ReceivedMessage = value.topic ? { kind: 'gap', cursor: id } : heartbeat;
        return { received, content: { kind: 'end', value } };
      }
      case 'goodbye': {
        const { reason, retry_ms: retry } = value;
        return { received: { kind: 'goodbye', reason, retry }, content: notice };
      }
    }
  }
  return { received: heartbeat, content: notice };
}

function intervals({ heartbeat_ms: heartbeat, retry_ms: retry }: any): Intervals | null {
  return typeof heartbeat === 'number' && typeof retry === 'number' ? { heartbeat, retry } : null;
}

/** Parses an object. Returns `null` if the text is something else. */
export function json(text: string): any {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

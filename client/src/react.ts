'use client';
/**
 * A hook for React: the events of a stream, its state, and its start and stop.
 *
 * @module
 */
import { useCallback, useEffect, useRef, useState } from 'react';
import {
  type DisconnectReason,
  type End,
  type EventId,
  type Stream,
  type StreamOptions,
  type StreamState,
  subscribe,
  type WaterclockEvent,
} from './index.js';

/** Pause between two updates of the view while events arrive, in milliseconds. */
const FRAME = 16;

/**
 * How to read a stream in a component. Another `share`, `withCredentials` or text as `token` causes
 * a new stream, which continues after the last event. The latest functions are called.
 */
export interface UseStreamOptions extends StreamOptions {
  /** Number of events to keep, the newest. With 0, only `onEvent` gets them. Default: 1000. */
  limit?: number;
  /** Starts the stream with the component, when it is mounted. Default: true. */
  autoStart?: boolean;
}

/** A stream, as a component sees it. */
export interface LiveStream {
  /** The newest events, oldest first. */
  events: WaterclockEvent[];
  /** The state; `idle` before the start. */
  state: StreamState;
  /** The reason for the missing connection, if it is known. */
  reason: DisconnectReason | null;
  /** The latest end of a topic, until the next start. */
  end: End | null;
  /** Starts the stream after its last event, unless it is open. */
  start: () => void;
  stop: () => void;
}

type View = Pick<LiveStream, 'events' | 'state' | 'reason' | 'end'>;

const EMPTY: View = { events: [], state: 'idle', reason: null, end: null };

/** Reads the stream at a URL while the component is there. Another URL is another stream. */
export function useStream(url: string, options: UseStreamOptions = {}): LiveStream {
  const { autoStart = true, share, withCredentials } = options;
  const [seen, setSeen] = useState({ url, view: EMPTY });
  const [run, setRun] = useState({ isWanted: autoStart });
  const latest = useRef(options);
  const stream = useRef<Stream>(undefined);
  /** The URL that was read last, and the cursor of its stream. */
  const position = useRef<{ url: string; cursor: EventId | undefined }>(undefined);

  useEffect(() => {
    latest.current = options;
  });

  const { token } = options;
  const credential = typeof token === 'function' ? typeof token : token;
  useEffect(() => {
    if (position.current?.url !== url) position.current = { url, cursor: latest.current.after };
    if (!run.isWanted) return;
    const { cursor } = position.current;
    const setView = (change: (view: View) => View) => {
      setSeen((seen) => ({ url, view: change(seen.url === url ? seen.view : EMPTY) }));
    };
    let pending: WaterclockEvent[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      timer = undefined;
      const { limit = 1_000 } = latest.current;
      const events = pending;
      pending = [];
      setView((view) => {
        const all = [...view.events, ...events];
        return { ...view, events: all.slice(Math.max(all.length - limit, 0)) };
      });
    };
    // The stream before this one has told that it is stopped.
    setView((view) => ({ ...view, state: 'idle', reason: null, end: null }));
    const current = subscribe(url, {
      ...(cursor !== undefined && { after: cursor }),
      ...(share !== undefined && { share }),
      ...(withCredentials !== undefined && { withCredentials }),
      // The latest function, as each rendering may make another. A text that is refused is not sent
      // again.
      ...(token !== undefined && {
        token: typeof token === 'string' ? token : async () => (latest.current.token as typeof token)(),
      }),
      onEvent(event) {
        pending.push(event);
        timer ??= setTimeout(flush, FRAME);
        latest.current.onEvent?.(event);
      },
      onGap: (gap) => latest.current.onGap?.(gap),
      onEnd(end) {
        setView((view) => ({ ...view, end }));
        latest.current.onEnd?.(end);
      },
      onState(state, reason) {
        setView((view) => ({ ...view, state, reason }));
        latest.current.onState?.(state, reason);
      },
    });
    stream.current = current;
    return () => {
      current.close();
      clearTimeout(timer);
      flush();
      if (position.current) position.current.cursor = current.cursor ?? cursor;
    };
  }, [url, run, share, withCredentials, credential]);

  const start = useCallback(() => {
    setRun((run) => {
      // One that is about to stop is still open.
      const state = stream.current?.state;
      if (run.isWanted && state !== 'stopped' && state !== 'refused') return run;
      return { isWanted: true };
    });
  }, []);
  const stop = useCallback(() => {
    setRun((run) => (run.isWanted ? { isWanted: false } : run));
  }, []);
  return { ...(seen.url === url ? seen.view : EMPTY), start, stop };
}

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

/** How to read a stream in a component. Only `share` and `withCredentials` cause a new stream. */
export interface UseStreamOptions extends StreamOptions {
  /** Number of events to keep, the newest. Default: 1000. */
  limit?: number;
  /** Starts the stream with the component. Default: true. */
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
  /** Starts the stream after its last event. */
  start: () => void;
  stop: () => void;
}

type View = Pick<LiveStream, 'events' | 'state' | 'reason' | 'end'>;

const EMPTY: View = { events: [], state: 'idle', reason: null, end: null };

/** Reads the stream at a URL while the component is there. Another URL is another stream. */
export function useStream(url: string, options: UseStreamOptions = {}): LiveStream {
  const { autoStart = true, share, withCredentials } = options;
  const [view, setView] = useState(EMPTY);
  const [run, setRun] = useState({ isWanted: autoStart, number: 0 });
  const latest = useRef(options);
  const stream = useRef<Stream>(undefined);
  /** The URL that was read last, and the cursor of its stream. */
  const position = useRef<{ url: string; cursor: EventId | undefined }>(undefined);

  useEffect(() => {
    latest.current = options;
  });

  useEffect(() => {
    if (position.current?.url !== url) {
      position.current = { url, cursor: latest.current.after };
      setView(EMPTY);
    }
    if (!run.isWanted) return;
    const { cursor } = position.current;
    const { token } = latest.current;
    let pending: WaterclockEvent[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      timer = undefined;
      const { limit = 1_000 } = latest.current;
      const events = pending;
      pending = [];
      setView((view) => ({ ...view, events: [...view.events, ...events].slice(-limit) }));
    };
    setView((view) => ({ ...view, end: null }));
    const current = subscribe(url, {
      ...(cursor !== undefined && { after: cursor }),
      ...(share !== undefined && { share }),
      ...(withCredentials !== undefined && { withCredentials }),
      // The latest function, as each rendering may make another.
      ...(token !== undefined && {
        token: async () => {
          const { token = '' } = latest.current;
          return typeof token === 'string' ? token : token();
        },
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
  }, [url, run, share, withCredentials]);

  const start = useCallback(() => {
    const state = stream.current?.state;
    if (state !== undefined && state !== 'stopped') return;
    setRun(({ number }) => ({ isWanted: true, number: number + 1 }));
  }, []);
  const stop = useCallback(() => setRun(({ number }) => ({ isWanted: false, number })), []);
  return { ...view, start, stop };
}

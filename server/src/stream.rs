//! The body of an event stream: `hello`, then what the subscriber reads, with heartbeats where there
//! is nothing, until the client leaves, has all that it asked for, or the server stops.

use std::{
    convert::Infallible, error::Error, iter, mem, num::NonZeroU64, sync::Arc, time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::Instant;
use waterclock::{
    hub::{Format, Frame, Step, Subscriber},
    id::CountedId,
    notice::{End, Gap, Goodbye, GoodbyeReason, Heartbeat, Hello, Notice},
    sse::Block,
};

use crate::{access::Until, metrics::Ended, router::AppState, streams::OpenStream};

/// When the server stops, the streams say goodbye so far apart, if the time for it allows.
const BETWEEN_GOODBYES: Duration = Duration::from_millis(1);
/// What part of the time for a stop the goodbyes are spread over; the rest is for slow clients.
const GOODBYES_PART: f64 = 0.8;
/// A client that finds the server full is told to wait so many times longer than usual.
const FULL_RETRY: f64 = 5.0;

/// How a stream is written, and how far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) format: Format,
    pub(crate) limit: Option<Limit>,
}

/// When a stream ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// After how many events.
    pub(crate) events: NonZeroU64,
    /// How many of them were sent, also by the connections before this one.
    pub(crate) sent: u64,
}

/// The bytes of one stream, chunk by chunk, each of whole blocks.
pub(crate) fn body(
    state: AppState,
    open: OpenStream,
    subscriber: Subscriber,
    shape: Shape,
    until: Until,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let behind = state.hub.newest().saturating_sub(subscriber.cursor().sequence);
    state.metrics.stream_opened(behind);
    tracing::info!(connection = open.number(), cursor = %subscriber.cursor(), "stream opened");
    let until = until.map(|until| Instant::now() + until.since(state.hub.now()));
    let session = Session {
        record: Record { state, open, opened: Instant::now(), events: 0, ended: Ended::ClientLeft },
        subscriber,
        shape,
        skipped: 0,
        sent: Instant::now(),
        goodbye: None,
        until,
        phase: Phase::Hello,
    };
    stream::unfold(session, async |mut session| {
        let chunk = session.next().await?;
        session.record.state.metrics.wrote_bytes(chunk.len());
        Some((Ok(chunk), session))
    })
}

/// The bytes of a stream that ends before it begins: the client is to come back later. An error as the
/// answer would make a browser give up.
pub(crate) fn goodbye_alone(state: &AppState, reason: GoodbyeReason) -> Bytes {
    state.metrics.stream_ended(match reason {
        GoodbyeReason::Draining => Ended::Draining,
        GoodbyeReason::Limit => Ended::Limit,
        GoodbyeReason::Expired => Ended::Expired,
    });
    goodbye(state, reason)
}

/// One stream while it lasts.
struct Session {
    record: Record,
    subscriber: Subscriber,
    shape: Shape,
    /// How many events the subscriber had left out when that was last counted.
    skipped: u64,
    /// When the last chunk was made.
    sent: Instant,
    /// When to say goodbye, once the server stops.
    goodbye: Option<Instant>,
    /// When the client's token expires, if it has read on by one.
    until: Option<Instant>,
    phase: Phase,
}

enum Phase {
    Hello,
    Events,
    /// The limit is reached.
    End,
    Over,
}

impl Session {
    /// The next chunk; none at the stream's end. Each is made when the connection has room for it.
    async fn next(&mut self) -> Option<Bytes> {
        let chunk = match self.phase {
            Phase::Hello => {
                self.phase = Phase::Events;
                self.hello()
            }
            Phase::Events => self.events().await?,
            Phase::End => self.end(),
            Phase::Over => return None,
        };
        self.sent = Instant::now();
        Some(chunk)
    }

    async fn events(&mut self) -> Option<Bytes> {
        loop {
            let state = &self.record.state;
            let step = tokio::select! {
                // In this order, so that a stop is not put off by events that keep coming.
                biased;
                began = state.stop.begun(), if self.goodbye.is_none() => {
                    let drain = state.stream_settings.drain;
                    let spread = goodbyes_take(state.streams.count(), drain);
                    self.goodbye = Some(began + spread.mul_f64(fastrand::f64()));
                    continue;
                }
                () = at(self.goodbye) => {
                    self.over(Ended::Draining);
                    return Some(goodbye(&self.record.state, GoodbyeReason::Draining));
                }
                () = at(self.until) => {
                    self.over(Ended::Expired);
                    return Some(goodbye(&self.record.state, GoodbyeReason::Expired));
                }
                step = self.subscriber.next() => step,
                () = tokio::time::sleep_until(self.sent + state.stream_settings.heartbeat) => {
                    return Some(self.heartbeat());
                }
            };
            return match step {
                Ok(Step::Frames(frames)) => Some(self.frames(&frames)),
                Ok(Step::Gap(gap)) => Some(self.gap(&gap)),
                Err(error) => {
                    // The client comes back with its cursor, as after any cut.
                    let error = &error as &dyn Error;
                    tracing::error!(connection = self.record.open.number(), error, "stream failed");
                    self.over(Ended::LogFailed);
                    None
                }
            };
        }
    }

    /// The frames' bytes in one chunk, so that they leave in one write.
    fn frames(&mut self, mut frames: &[Arc<Frame>]) -> Bytes {
        let format = self.shape.format;
        let chunk = match &mut self.shape.limit {
            Some(Limit { events, sent }) => {
                let room =
                    usize::try_from(events.get().saturating_sub(*sent)).unwrap_or(usize::MAX);
                frames = &frames[..frames.len().min(room)];
                let numbers = *sent + 1..;
                *sent += frames.len() as u64;
                if *sent >= events.get() {
                    self.phase = Phase::End;
                }
                let bytes =
                    iter::zip(frames, numbers).map(|(frame, n)| frame.counted_bytes(format, n));
                bytes.collect::<Vec<_>>().concat().into()
            }
            None => match frames {
                [frame] => frame.bytes(format).clone(),
                frames => frames
                    .iter()
                    .map(|frame| &**frame.bytes(format))
                    .collect::<Vec<_>>()
                    .concat()
                    .into(),
            },
        };
        let Record { state, open, opened, events, .. } = &mut self.record;
        *events += frames.len() as u64;
        open.passed(self.subscriber.cursor().sequence);
        let published = frames.first().and_then(|frame| frame.published());
        // Only of what was sent as it came: what was published before the stream began is a replay.
        let published = published.filter(|at| at >= opened);
        state.metrics.wrote(frames.len() as u64, published.map(|at| at.elapsed()));
        if let Some(skipped) = self.subscriber.skipped() {
            state.metrics.skipped(skipped - mem::replace(&mut self.skipped, skipped));
        }
        chunk
    }

    fn hello(&self) -> Bytes {
        let AppState { hub, stream_settings: settings, .. } = &self.record.state;
        let kept = hub.kept();
        let hello = Hello {
            time: hub.now(),
            connection: self.record.open.number(),
            heartbeat_ms: millis(settings.heartbeat),
            retry_ms: millis(settings.retry),
            oldest: kept.map(|(oldest, _)| oldest),
            newest: kept.map(|(_, newest)| newest),
        };
        // With a gap to come, the client keeps its own cursor until it has been told.
        let position = (!self.subscriber.has_gap()).then(|| self.position());
        notice(&hello, position.as_deref(), Some(settings.retry))
    }

    fn gap(&self, gap: &Gap) -> Bytes {
        let connection = self.record.open.number();
        // Only its beginning: it is what the client sent, however long.
        let cursor: String = gap.cursor.chars().take(64).collect();
        tracing::info!(connection, reason = gap.reason.as_str(), ?cursor, "gap");
        self.record.state.metrics.gap(gap.reason);
        notice(gap, Some(&self.position()), None)
    }

    fn heartbeat(&self) -> Bytes {
        self.record.open.passed(self.subscriber.cursor().sequence);
        let heartbeat =
            Heartbeat { time: self.record.state.hub.now(), skipped: self.subscriber.skipped() };
        notice(&heartbeat, Some(&self.position()), None)
    }

    fn end(&mut self) -> Bytes {
        self.over(Ended::End);
        let sent = self.shape.limit.map_or(0, |limit| limit.sent);
        notice(&End { sent }, None, None)
    }

    fn over(&mut self, ended: Ended) {
        self.phase = Phase::Over;
        self.record.ended = ended;
    }

    /// The id to go on from.
    fn position(&self) -> String {
        let id = self.subscriber.cursor();
        match self.shape.limit {
            Some(Limit { sent, .. }) => CountedId { id, sent }.to_string(),
            None => id.to_string(),
        }
    }
}

/// Waits until then; forever if there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Over how long that many goodbyes are spread, so that the clients do not all come back at once.
fn goodbyes_take(streams: usize, drain: Duration) -> Duration {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    BETWEEN_GOODBYES.saturating_mul(streams).min(drain.mul_f64(GOODBYES_PART))
}

/// A goodbye with a `retry:` that is up to twice the usual for this reason, so that clients spread.
fn goodbye(state: &AppState, reason: GoodbyeReason) -> Bytes {
    let usual = match reason {
        GoodbyeReason::Draining | GoodbyeReason::Expired => state.stream_settings.retry,
        GoodbyeReason::Limit => state.stream_settings.retry.mul_f64(FULL_RETRY),
    };
    let retry = usual.mul_f64(1.0 + fastrand::f64());
    notice(&Goodbye { reason, retry_ms: millis(retry) }, None, Some(retry))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A notice as a block; with a position, the client's cursor is set to it.
fn notice<N: Notice>(data: &N, position: Option<&str>, retry: Option<Duration>) -> Bytes {
    let json = serde_json::to_string(data);
    let mut bytes = Vec::new();
    let block = Block {
        id: position,
        name: Some(N::NAME),
        retry,
        // `null` cannot happen: notices are made of strings and numbers, which are JSON.
        data: Some(json.as_deref().unwrap_or("null")),
    };
    let encoded = block.encode(&mut bytes);
    debug_assert_eq!(encoded, Ok(()), "ids and reserved names have no CR, LF and NUL");
    bytes.into()
}

/// How a stream went; told when it is dropped, which is when the client leaves.
struct Record {
    state: AppState,
    open: OpenStream,
    opened: Instant,
    events: u64,
    ended: Ended,
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { state, open, opened, events, ended } = self;
        state.metrics.stream_ended(*ended);
        let lasted = opened.elapsed();
        tracing::info!(
            connection = open.number(),
            ?lasted,
            events,
            end = ended.as_str(),
            "stream closed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbyes_are_spread_and_leave_time_for_slow_clients() {
        let drain = Duration::from_secs(10);
        assert_eq!(goodbyes_take(1, drain), Duration::from_millis(1));
        assert_eq!(goodbyes_take(2500, drain), Duration::from_millis(2500));
        assert_eq!(goodbyes_take(10_000, drain), Duration::from_secs(8));
        assert_eq!(goodbyes_take(usize::MAX, drain), Duration::from_secs(8));
    }
}

//! What a client is told that stays connected: `hello`, then what the subscriber reads, with heartbeats
//! where there is nothing, until the client leaves, has all that it asked for, or the server stops. How
//! it is written is the transport's.

use std::{
    error::Error,
    mem,
    num::NonZeroU64,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use tokio::time::Instant;
use tracing::Span;
use waterclock::{
    hub::{Batch, Delivery, Frame, Subscriber},
    id::CountedId,
    notice::{End, Gap, Goodbye, GoodbyeReason, Heartbeat, Hello, Notice},
};

use crate::{
    access::Until, metrics::Ended, rarely::Rarely, router::AppState, stop::Stop,
    streams::OpenStream,
};

/// When the server stops, the streams say goodbye so far apart, if the time for it allows.
const BETWEEN_GOODBYES: Duration = Duration::from_millis(1);
/// What part of the time for a stop the goodbyes are spread over; the rest is for slow clients.
const GOODBYES_PART: f64 = 0.8;
/// A client that finds the server full is told to wait so many times longer than usual.
const FULL_RETRY: f64 = 5.0;

/// How a transport writes what a stream says.
pub(crate) trait Wire {
    /// What is sent at a time.
    type Chunk;

    /// Events that leave together.
    fn events(&self, batch: &Batch) -> Self::Chunk;

    /// The same for a stream that has a limit: the first of them is the `first`th of the stream.
    fn counted_events(&self, frames: &[Arc<Frame>], first: u64) -> Self::Chunk;

    /// What a stream says besides events. With a position, the client's cursor is set to it; `retry` is
    /// after how long it is to connect again.
    fn notice<N: Notice>(
        &self,
        notice: &N,
        position: Option<&str>,
        retry: Option<Duration>,
    ) -> Self::Chunk;

    /// How many bytes that is, without what the protocol below has around them.
    fn length(chunk: &Self::Chunk) -> usize;
}

/// When a stream ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// After how many events.
    pub(crate) events: NonZeroU64,
    /// How many of them were sent, also by the connections before this one.
    pub(crate) sent: u64,
}

/// What a stream that ends before it begins says: the client is to come back later. An error as the answer
/// would make a browser give up.
pub(crate) fn goodbye_alone<W: Wire>(
    state: &AppState,
    wire: &W,
    reason: GoodbyeReason,
) -> W::Chunk {
    state.metrics.stream_ended(Ended::from(reason));
    goodbye(state, wire, reason)
}

/// One stream while it lasts. What it does for each event is as little as can be: it is done for each
/// subscriber.
pub(crate) struct Session<W> {
    record: Record,
    subscriber: Subscriber,
    wire: W,
    limit: Option<Limit>,
    /// How many events the subscriber had left out when that was last counted.
    skipped: u64,
    /// When the last chunk was made.
    sent: Instant,
    /// When to say goodbye, once the server stops.
    goodbye: Option<Instant>,
    /// When the client's token expires, if it has read on by one.
    until: Option<Instant>,
    /// What happens besides events.
    besides: Rarely<'static, Besides>,
    phase: Phase,
}

enum Phase {
    Hello,
    Events,
    /// The limit is reached.
    End,
    Over,
}

/// What happens besides events.
enum Besides {
    /// The server has begun to stop.
    Stop(Instant),
    /// It is time to say goodbye for that.
    Goodbye,
    /// The token has expired.
    Expired,
    /// It may be time for a heartbeat.
    Heartbeat,
}

/// Waits for the next of them, in this order if there are several.
async fn besides(
    stop: Stop,
    goodbye: Option<Instant>,
    until: Option<Instant>,
    heartbeat: Instant,
) -> Besides {
    tokio::select! {
        biased;
        began = stop.begun(), if goodbye.is_none() => Besides::Stop(began),
        () = at(goodbye) => Besides::Goodbye,
        () = at(until) => Besides::Expired,
        () = tokio::time::sleep_until(heartbeat) => Besides::Heartbeat,
    }
}

impl<W: Wire + Unpin> Stream for Session<W> {
    type Item = W::Chunk;

    /// The next chunk; none at the stream's end. Each is made when the connection has room for it.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<W::Chunk>> {
        let chunk = match self.phase {
            Phase::Hello => {
                self.phase = Phase::Events;
                self.hello()
            }
            Phase::Events => match ready!(self.poll_events(context)) {
                Some(chunk) => chunk,
                None => return Poll::Ready(None),
            },
            Phase::End => self.end(),
            Phase::Over => return Poll::Ready(None),
        };
        self.sent = Instant::now();
        self.record.state.metrics.wrote_bytes(W::length(&chunk));
        Poll::Ready(Some(chunk))
    }
}

impl<W: Wire> Session<W> {
    /// Begins one for that subscriber.
    pub(crate) fn new(
        state: AppState,
        open: OpenStream,
        subscriber: Subscriber,
        wire: W,
        limit: Option<Limit>,
        until: Until,
    ) -> Self {
        let behind = state.hub.newest().saturating_sub(subscriber.cursor().sequence);
        state.metrics.stream_opened(behind);
        tracing::info!(connection = open.number(), cursor = %subscriber.cursor(), "stream opened");
        let now = Instant::now();
        let until = until.map(|until| now + until.since(state.hub.now()));
        let stop = state.stop.clone();
        Self {
            besides: Rarely::new(besides(stop, None, until, now + state.stream_settings.heartbeat)),
            record: Record::new(state, open),
            subscriber,
            wire,
            limit,
            skipped: 0,
            sent: now,
            goodbye: None,
            until,
            phase: Phase::Hello,
        }
    }

    /// The client has broken the rules of the transport.
    pub(crate) fn refuse(&mut self) {
        self.over(Ended::Refused);
    }

    /// How many events it has sent.
    pub(crate) fn events(&self) -> u64 {
        self.record.events
    }

    /// How it has ended; until then, as if the client had left.
    pub(crate) fn ended(&self) -> Ended {
        self.record.ended
    }

    fn poll_events(&mut self, context: &mut Context<'_>) -> Poll<Option<W::Chunk>> {
        // First, so that a stop is not put off by events that keep coming.
        while let Poll::Ready(what) = Pin::new(&mut self.besides).poll(context) {
            let chunk = self.besides(&what);
            let (stop, settings) = (&self.record.state.stop, &self.record.state.stream_settings);
            // A chunk that is made now is sent now.
            let sent = if chunk.is_some() { Instant::now() } else { self.sent };
            let heartbeat = sent + settings.heartbeat;
            self.besides = Rarely::new(besides(stop.clone(), self.goodbye, self.until, heartbeat));
            if chunk.is_some() {
                return Poll::Ready(chunk);
            }
        }
        let Poll::Ready(step) = self.subscriber.poll_next(context) else {
            // It may have passed what was for others.
            self.record.open.passed(self.subscriber.cursor().sequence);
            return Poll::Pending;
        };
        let chunk = match step {
            Ok(Delivery::Events(frames)) => Some(self.frames(&frames)),
            Ok(Delivery::Gap(gap)) => Some(self.gap(&gap)),
            Err(error) => {
                // The client comes back with its cursor, as after any cut.
                let _span = self.record.span.enter();
                let error = &error as &dyn Error;
                tracing::error!(connection = self.record.open.number(), error, "stream failed");
                self.phase = Phase::Over;
                self.record.ended = Ended::LogFailed;
                None
            }
        };
        Poll::Ready(chunk)
    }

    /// What there is to say of that, if anything.
    fn besides(&mut self, what: &Besides) -> Option<W::Chunk> {
        let settings = &self.record.state.stream_settings;
        match *what {
            Besides::Stop(began) => {
                self.goodbye = Some(goodbye_at(&self.record.state, began));
                None
            }
            Besides::Goodbye => {
                self.over(Ended::Draining);
                Some(goodbye(&self.record.state, &self.wire, GoodbyeReason::Draining))
            }
            Besides::Expired => {
                self.over(Ended::Expired);
                Some(goodbye(&self.record.state, &self.wire, GoodbyeReason::Expired))
            }
            // Something was sent meanwhile, mostly.
            Besides::Heartbeat if self.sent.elapsed() < settings.heartbeat => None,
            Besides::Heartbeat => Some(self.heartbeat()),
        }
    }

    /// The frames in one chunk, so that they leave in one write.
    fn frames(&mut self, batch: &Batch) -> W::Chunk {
        let mut frames = &batch[..];
        let chunk = match &mut self.limit {
            Some(Limit { events, sent }) => {
                let room =
                    usize::try_from(events.get().saturating_sub(*sent)).unwrap_or(usize::MAX);
                frames = &frames[..frames.len().min(room)];
                let first = *sent + 1;
                *sent += frames.len() as u64;
                if *sent >= events.get() {
                    self.phase = Phase::End;
                }
                self.wire.counted_events(frames, first)
            }
            None => self.wire.events(batch),
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

    fn hello(&self) -> W::Chunk {
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
        self.wire.notice(&hello, position.as_deref(), Some(settings.retry))
    }

    fn gap(&self, gap: &Gap) -> W::Chunk {
        let _span = self.record.span.enter();
        let connection = self.record.open.number();
        // Only its beginning: it is what the client sent, however long.
        let cursor: String = gap.cursor.chars().take(64).collect();
        tracing::info!(connection, reason = gap.reason.as_str(), ?cursor, "gap");
        self.record.state.metrics.gap(gap.reason);
        self.wire.notice(gap, Some(&self.position()), None)
    }

    fn heartbeat(&self) -> W::Chunk {
        self.record.open.passed(self.subscriber.cursor().sequence);
        let heartbeat =
            Heartbeat { time: self.record.state.hub.now(), skipped: self.subscriber.skipped() };
        self.wire.notice(&heartbeat, Some(&self.position()), None)
    }

    fn end(&mut self) -> W::Chunk {
        self.over(Ended::End);
        let sent = self.limit.map_or(0, |limit| limit.sent);
        self.wire.notice(&End { sent }, None, None)
    }

    fn over(&mut self, ended: Ended) {
        self.phase = Phase::Over;
        self.record.ended = ended;
    }

    /// The id to go on from.
    fn position(&self) -> String {
        let id = self.subscriber.cursor();
        match self.limit {
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

/// When a stream says goodbye for a stop that has begun then.
pub(crate) fn goodbye_at(state: &AppState, began: Instant) -> Instant {
    let spread = goodbyes_take(state.streams.count(), state.stream_settings.drain);
    began + spread.mul_f64(fastrand::f64())
}

/// Over how long that many goodbyes are spread, so that the clients do not all come back at once.
fn goodbyes_take(streams: usize, drain: Duration) -> Duration {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    BETWEEN_GOODBYES.saturating_mul(streams).min(drain.mul_f64(GOODBYES_PART))
}

/// A goodbye with a time to come back that is up to twice the usual for this reason, so that clients spread.
pub(crate) fn goodbye<W: Wire>(state: &AppState, wire: &W, reason: GoodbyeReason) -> W::Chunk {
    let usual = match reason {
        GoodbyeReason::Draining | GoodbyeReason::Expired => state.stream_settings.retry,
        GoodbyeReason::Limit => state.stream_settings.retry.mul_f64(FULL_RETRY),
    };
    let retry = usual.mul_f64(1.0 + fastrand::f64());
    wire.notice(&Goodbye { reason, retry_ms: millis(retry) }, None, Some(retry))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How a stream went; told when it is dropped, which is when the client leaves.
pub(crate) struct Record {
    pub(crate) state: AppState,
    open: OpenStream,
    opened: Instant,
    /// How many were sent.
    pub(crate) events: u64,
    /// How it has ended; until then, as if the client had left.
    pub(crate) ended: Ended,
    /// The connection's.
    span: Span,
}

impl Record {
    /// Of one that begins now.
    pub(crate) fn new(state: AppState, open: OpenStream) -> Self {
        Self {
            state,
            open,
            opened: Instant::now(),
            events: 0,
            ended: Ended::ClientLeft,
            span: Span::current(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { state, open, opened, events, ended, span } = self;
        let _span = span.enter();
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

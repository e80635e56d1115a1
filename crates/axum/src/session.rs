//! The event loop of one connected client.
//!
//! A session sends `hello`, then what its subscriber reads, with heartbeats while there is nothing.
//! It ends when the client leaves, the limit is reached, all topics have ended, the permission
//! ends, or the server shuts down. The transport decides how each part is written.

use std::{
    error::Error,
    fmt,
    future::pending,
    mem,
    num::NonZeroU64,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;
use tracing::{Span, Value, field::display};
use waterclock::{
    hub::{Batch, Delivery, Frame, Subscriber},
    id::{CountedId, EventId},
    notice::{End, Gap, Goodbye, GoodbyeReason, Heartbeat, Hello, Notice, TopicEnd},
    pattern::Patterns,
};

use crate::{
    deadline::{Deadline, passed},
    gathering::{Gathering, next_heartbeat},
    limits::Settings,
    metrics::EndReason,
    state::StreamContext,
    stop::Stop,
    streams::OpenStream,
};

/// Factor on the usual retry time for clients of a full server.
const FULL_RETRY: f64 = 5.0;
/// Approximate maximum length of the topics in a message, in bytes.
const MAX_TOPICS_TEXT: usize = 256;

/// The encoding of a stream, which differs between transports.
pub(crate) trait Encoder {
    /// The unit in which a stream is written.
    type Chunk;

    /// Encodes events that leave together.
    fn events(&self, batch: &Batch) -> Self::Chunk;

    /// Encodes events of a stream with a limit. The first of them is the `first`th of the stream.
    fn counted_events(&self, frames: &[Arc<Frame>], first: u64) -> Self::Chunk;

    /// Encodes a notice. With a position, it sets the client's cursor; with `retry`, the time after
    /// which the client reconnects.
    fn notice<N: Notice>(
        &self,
        notice: &N,
        position: Option<&str>,
        retry: Option<Duration>,
    ) -> Self::Chunk;

    /// Length of a chunk in bytes, without the framing of the protocol below.
    fn length(chunk: &Self::Chunk) -> usize;
}

/// The number of events after which a stream ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Number of events to send in total.
    pub(crate) events: NonZeroU64,
    /// Number of events sent, including those of earlier connections.
    pub(crate) sent: u64,
}

/// One open stream. The work per event is minimal, since each subscriber pays for it.
pub(crate) struct Session<E> {
    pub(crate) record: StreamRecord,
    pub(crate) subscriber: Subscriber,
    pub(crate) encoder: E,
    limit: Option<Limit>,
    /// The rule by which events leave together; `None` if they leave at once.
    gathering: Option<Box<Gathering>>,
    /// Events that the subscriber had skipped when they were last counted.
    skipped: u64,
    /// Time at which the last chunk was made.
    pub(crate) sent: Instant,
    /// Time of the goodbye, once the server shuts down.
    goodbye: Option<Instant>,
    /// Time at which the client's permission ends.
    pub(crate) expires: Option<Deadline>,
    /// The one future of [`next_signal`]. The set polls it only after its own waker has fired, not
    /// for every event. After each such poll it wakes the task once more, which costs one look.
    signals: FuturesUnordered<Pin<Box<dyn Future<Output = Signal> + Send>>>,
    phase: Phase,
}

enum Phase {
    Hello,
    Events,
    /// The limit is reached.
    End,
    Over,
}

/// A reason to act without an event.
pub(crate) enum Signal {
    /// The server has begun to shut down.
    Stop(Instant),
    /// The time of this stream's goodbye has come.
    Goodbye,
    /// The permission has ended.
    Expired,
    /// A heartbeat may be due.
    Heartbeat,
}

/// Waits for the next signal. Earlier arms take precedence.
pub(crate) async fn next_signal(
    stop: Stop,
    goodbye: Option<Instant>,
    expires: Option<Deadline>,
    heartbeat: Instant,
) -> Signal {
    tokio::select! {
        biased;
        began = stop.begun(), if goodbye.is_none() => Signal::Stop(began),
        () = sleep_until(goodbye) => Signal::Goodbye,
        () = passed(expires.as_ref()) => Signal::Expired,
        () = tokio::time::sleep_until(heartbeat) => Signal::Heartbeat,
    }
}

impl<E: Encoder + Unpin> Stream for Session<E> {
    type Item = E::Chunk;

    /// Makes the next chunk when the connection has room for it.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<E::Chunk>> {
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
        self.record.context.metrics.bytes_sent(E::length(&chunk));
        Poll::Ready(Some(chunk))
    }
}

impl<E: Encoder> Session<E> {
    /// Starts a session without a limit and an expiry.
    pub(crate) fn new(
        context: Arc<StreamContext>,
        open: OpenStream,
        subscriber: Subscriber,
        encoder: E,
    ) -> Self {
        let behind = context.hub.newest().saturating_sub(subscriber.cursor().sequence);
        context.metrics.stream_opened(behind);
        let record = StreamRecord::new(context, open, Some(subscriber.topics().clone()));
        record.print_opened(Some(subscriber.cursor()));
        Self { phase: Phase::Hello, ..Self::resumed(record, subscriber, encoder, Instant::now()) }
    }

    /// Continues the session of a stream that has sent its last chunk at `sent`.
    pub(crate) fn resumed(
        record: StreamRecord,
        subscriber: Subscriber,
        encoder: E,
        sent: Instant,
    ) -> Self {
        Self {
            record,
            subscriber,
            encoder,
            limit: None,
            gathering: None,
            skipped: 0,
            sent,
            goodbye: None,
            expires: None,
            signals: FuturesUnordered::new(),
            phase: Phase::Events,
        }
    }

    /// Ends the session after a number of events.
    pub(crate) fn limited(self, limit: Option<Limit>) -> Self {
        Self { limit, ..self }
    }

    /// Ends the session when the permission ends.
    pub(crate) fn expiring(self, expires: Option<Deadline>) -> Self {
        Self { expires, ..self }
    }

    /// The longest time that an event waits for others that leave with it.
    pub(crate) fn max_delay(&self) -> Duration {
        self.gathering.as_ref().map_or(Duration::ZERO, |gathering| gathering.max_delay())
    }

    /// Lets events wait for others that leave with them, for at most `max_delay`.
    pub(crate) fn gathering(self, max_delay: Duration) -> Self {
        let gathering =
            (!max_delay.is_zero()).then(|| Box::new(Gathering::new(max_delay, &self.subscriber)));
        Self { gathering, ..self }
    }

    /// Ends the session of a client that has broken the rules of the transport.
    pub(crate) fn refuse(&mut self) {
        self.finish(EndReason::Refused);
    }

    /// Number of events sent.
    pub(crate) fn events(&self) -> u64 {
        self.record.events
    }

    /// The reason for the end; [`EndReason::ClientLeft`] while the session goes on.
    pub(crate) fn end_reason(&self) -> EndReason {
        self.record.end_reason
    }

    /// Returns `true` if the session has sent everything and has nothing of its own to send later.
    /// A group may then send the events of its topics.
    pub(crate) fn can_rest(&self) -> bool {
        matches!(self.phase, Phase::Events)
            && self.limit.is_none()
            && !self.record.context.stop.has_begun()
            && self.subscriber.can_rest()
    }

    fn poll_events(&mut self, context: &mut Context<'_>) -> Poll<Option<E::Chunk>> {
        // Signals come first, so that a steady flow of events does not delay a shutdown.
        if let Poll::Ready(chunk) = self.poll_signals(context) {
            return Poll::Ready(Some(chunk));
        }
        // After a suspension, the signal may come later than the next event.
        if self.expires.as_ref().is_some_and(Deadline::has_passed) {
            return Poll::Ready(self.act_on(&Signal::Expired));
        }
        let polled = match &mut self.gathering {
            None => self.subscriber.poll_next(context),
            Some(gathering) => {
                let left =
                    self.limit.map(|Limit { events, sent }| events.get().saturating_sub(sent));
                gathering.poll_next(&mut self.subscriber, left, context)
            }
        };
        let Poll::Ready(delivery) = polled else {
            // The subscriber may have passed events of other topics.
            self.record.open.passed(self.subscriber.cursor().sequence);
            return Poll::Pending;
        };
        let chunk = match delivery {
            Ok(Delivery::Events(batch)) => Some(self.batch(&batch)),
            Ok(Delivery::Gap(gap)) => Some(self.gap(&gap)),
            Ok(Delivery::End { end, .. }) => Some(self.topic_end(&end)),
            Err(error) => {
                // The client reconnects with its cursor, as after any lost connection.
                self.finish(EndReason::LogFailed);
                let _span = self.record.span.enter();
                let error = &error as &dyn Error;
                tracing::error!(connection = self.record.open.number(), error, "stream failed");
                None
            }
        };
        Poll::Ready(chunk)
    }

    /// Acts on signals until one of them makes a chunk, or no signal is left.
    fn poll_signals(&mut self, context: &mut Context<'_>) -> Poll<E::Chunk> {
        loop {
            if self.signals.is_empty() {
                let (stop, heartbeat) = (self.record.context.stop.clone(), self.next_heartbeat());
                let next = next_signal(stop, self.goodbye, self.expires.clone(), heartbeat);
                self.signals.push(Box::pin(next));
            }
            let Some(signal) = ready!(self.signals.poll_next_unpin(context)) else { continue };
            if let Some(chunk) = self.act_on(&signal) {
                return Poll::Ready(chunk);
            }
        }
    }

    /// Returns the chunk to send for a signal, if there is one.
    fn act_on(&mut self, signal: &Signal) -> Option<E::Chunk> {
        match *signal {
            Signal::Stop(began) => {
                self.goodbye = Some(self.record.context.streams.goodbye_at(began));
                None
            }
            Signal::Goodbye => {
                self.finish(EndReason::Draining);
                Some(self.goodbye(GoodbyeReason::Draining))
            }
            Signal::Expired => {
                self.finish(EndReason::Expired);
                Some(self.goodbye(GoodbyeReason::Expired))
            }
            // In most cases something else was sent in the meantime.
            Signal::Heartbeat if Instant::now() < self.next_heartbeat() => None,
            Signal::Heartbeat => Some(self.heartbeat()),
        }
    }

    fn next_heartbeat(&self) -> Instant {
        let interval = self.record.context.settings.heartbeat;
        next_heartbeat(self.gathering.as_deref(), self.sent, interval)
    }

    /// Encodes a batch as one chunk, so that it leaves in one write.
    fn batch(&mut self, batch: &Batch) -> E::Chunk {
        let mut frames = &batch[..];
        let chunk = match &mut self.limit {
            Some(Limit { events, sent }) => {
                let left =
                    usize::try_from(events.get().saturating_sub(*sent)).unwrap_or(usize::MAX);
                frames = &frames[..frames.len().min(left)];
                let first = *sent + 1;
                *sent += frames.len() as u64;
                if *sent >= events.get() {
                    self.phase = Phase::End;
                }
                self.encoder.counted_events(frames, first)
            }
            None => self.encoder.events(batch),
        };
        let StreamRecord { context, open, opened, events, .. } = &mut self.record;
        *events += frames.len() as u64;
        open.passed(self.subscriber.cursor().sequence);
        let published = frames.first().and_then(|frame| frame.published());
        // Events from before the stream was opened are a replay, whose delay says nothing.
        let published = published.filter(|at| at >= opened);
        if batch.is_traced() && published.is_some() {
            for trace in frames.iter().filter_map(|frame| frame.trace().get()) {
                trace.sent(1);
            }
        }
        // The delay of events that wait for others is the client's choice.
        let published = published.filter(|_| self.gathering.is_none());
        context.metrics.events_sent(frames.len() as u64, published.map(|at| at.elapsed()));
        if let Some(skipped) = self.subscriber.skipped() {
            context.metrics.events_skipped(skipped - mem::replace(&mut self.skipped, skipped));
        }
        chunk
    }

    fn hello(&self) -> E::Chunk {
        let settings = &self.record.context.settings;
        let hello = Hello {
            max_delay_ms: self.gathering.as_ref().map(|gathering| millis(gathering.max_delay())),
            ..hello(&self.record.context, self.record.open.number())
        };
        self.encoder.notice(&hello, self.settled_position().as_deref(), Some(settings.retry))
    }

    fn gap(&self, gap: &Gap) -> E::Chunk {
        let _span = self.record.span.enter();
        let connection = self.record.open.number();
        // The client chose the cursor, so its length is bounded before it is printed.
        let cursor: String = gap.cursor.chars().take(64).collect();
        tracing::info!(connection, reason = gap.reason.as_str(), ?cursor, "gap");
        self.record.context.metrics.gap(gap.reason);
        self.encoder.notice(gap, self.settled_position().as_deref(), None)
    }

    fn topic_end(&mut self, end: &TopicEnd) -> E::Chunk {
        if end.last {
            self.finish(EndReason::End);
        }
        self.encoder.notice(end, self.settled_position().as_deref(), None)
    }

    fn heartbeat(&self) -> E::Chunk {
        self.record.open.passed(self.subscriber.cursor().sequence);
        let (position, skipped) = (self.settled_position(), self.subscriber.skipped());
        heartbeat(&self.record.context, &self.encoder, position.as_deref(), skipped)
    }

    fn end(&mut self) -> E::Chunk {
        self.finish(EndReason::End);
        let sent = self.limit.map_or(0, |limit| limit.sent);
        self.encoder.notice(&End { sent }, None, None)
    }

    fn goodbye(&self, reason: GoodbyeReason) -> E::Chunk {
        goodbye(&self.record.context.settings, &self.encoder, reason)
    }

    fn finish(&mut self, reason: EndReason) {
        self.phase = Phase::Over;
        self.record.end_reason = reason;
    }

    /// The id from which the client can resume, or `None` while it must keep its own cursor: until
    /// the gap and the ends before the position are announced.
    fn settled_position(&self) -> Option<String> {
        self.subscriber.is_settled().then(|| self.position())
    }

    /// The id from which the client can resume.
    fn position(&self) -> String {
        let id = self.subscriber.cursor();
        match self.limit {
            Some(Limit { sent, .. }) => CountedId { id, sent }.to_string(),
            None => id.to_string(),
        }
    }
}

/// Sleeps until `time`, or forever without one.
pub(crate) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}

/// Creates the first message of a stream.
pub(crate) fn hello(context: &StreamContext, connection: u64) -> Hello {
    let StreamContext { hub, settings, .. } = context;
    let kept = hub.kept();
    Hello {
        time: hub.now(),
        connection,
        heartbeat_ms: millis(settings.heartbeat),
        retry_ms: millis(settings.retry),
        oldest: kept.map(|(oldest, _)| oldest),
        newest: kept.map(|(_, newest)| newest),
        max_delay_ms: None,
        node: hub.node().map(str::to_owned),
    }
}

/// Encodes a heartbeat.
pub(crate) fn heartbeat<E: Encoder>(
    context: &StreamContext,
    encoder: &E,
    position: Option<&str>,
    skipped: Option<u64>,
) -> E::Chunk {
    encoder.notice(&Heartbeat { time: context.hub.now(), skipped }, position, None)
}

/// Counts a stream that cannot be opened, and encodes its only chunk. An HTTP error would make a
/// browser give up for good.
pub(crate) fn refuse<E: Encoder>(
    context: &StreamContext,
    encoder: &E,
    reason: GoodbyeReason,
) -> E::Chunk {
    if reason == GoodbyeReason::Limit {
        tracing::info!("the limit on open streams is reached");
    }
    context.metrics.stream_ended(reason.into());
    goodbye(&context.settings, encoder, reason)
}

/// Encodes a goodbye.
pub(crate) fn goodbye<E: Encoder>(
    settings: &Settings,
    encoder: &E,
    reason: GoodbyeReason,
) -> E::Chunk {
    let retry = match reason {
        GoodbyeReason::Draining | GoodbyeReason::Expired | GoodbyeReason::Behind => {
            spread(settings.retry)
        }
        GoodbyeReason::Limit => full_retry(settings),
    };
    encoder.notice(&Goodbye { reason, retry_ms: millis(retry) }, None, Some(retry))
}

/// Draws the time after which a client of a full server should try again.
pub(crate) fn full_retry(settings: &Settings) -> Duration {
    spread(settings.retry.mul_f64(FULL_RETRY))
}

/// Draws one to two times the usual time, so that clients spread.
fn spread(usual: Duration) -> Duration {
    usual.mul_f64(1.0 + fastrand::f64())
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The record of one stream, which is counted and printed when it is dropped.
pub(crate) struct StreamRecord {
    pub(crate) context: Arc<StreamContext>,
    pub(crate) open: OpenStream,
    opened: Instant,
    /// Topics that the client reads; `None` for a probe.
    topics: Option<Patterns>,
    /// Number of events sent.
    pub(crate) events: u64,
    /// Reason for the end; [`EndReason::ClientLeft`] until another one is known.
    pub(crate) end_reason: EndReason,
    /// The span of the connection; none while the stream rests.
    pub(crate) span: Span,
}

impl StreamRecord {
    /// Starts the record of a stream.
    pub(crate) fn new(
        context: Arc<StreamContext>,
        open: OpenStream,
        topics: Option<Patterns>,
    ) -> Self {
        Self {
            context,
            open,
            opened: Instant::now(),
            topics,
            events: 0,
            end_reason: EndReason::ClientLeft,
            span: Span::current(),
        }
    }

    /// Prints that the stream was opened; a view has no cursor.
    pub(crate) fn print_opened(&self, cursor: Option<EventId>) {
        let (connection, cursor) = (self.open.number(), cursor.map(display));
        let (topics, client) = self.reader();
        tracing::info!(connection, cursor, topics, client, "stream opened");
    }

    /// The topics and the client's address, for a message.
    fn reader(&self) -> (Option<impl Value>, Option<impl Value>) {
        (self.topics.as_ref().map(TopicList).map(display), self.open.address().map(display))
    }
}

/// The topics of a stream in a message, cut off if there are many.
struct TopicList<'a>(&'a Patterns);

impl fmt::Display for TopicList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut length = 0;
        for (number, pattern) in self.0.iter().enumerate() {
            let pattern = pattern.as_str();
            length += pattern.len();
            if number > 0 && length > MAX_TOPICS_TEXT {
                return write!(f, ",… ({} in all)", self.0.iter().count());
            }
            write!(f, "{}{pattern}", if number > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Drop for StreamRecord {
    fn drop(&mut self) {
        let _span = self.span.enter();
        self.context.metrics.stream_ended(self.end_reason);
        let (connection, lasted) = (self.open.number(), self.opened.elapsed());
        let (events, end) = (self.events, self.end_reason.as_str());
        let (topics, client) = self.reader();
        tracing::info!(connection, ?lasted, events, end, topics, client, "stream closed");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use waterclock::{
        event::{Draft, Topic},
        event_log::{MemoryLog, Retention},
        hub::{Format, Hub},
        id::{Cursor, Epoch},
        timestamp::Timestamp,
    };

    use super::*;
    use crate::{EventRoutes, sse::SseEncoder};

    /// A session whose events wait for others, and the time of its start.
    struct GatheringSession {
        session: Session<SseEncoder>,
        hub: Arc<Hub>,
        context: Arc<StreamContext>,
        start: Instant,
    }

    impl GatheringSession {
        /// Starts a session of the topic `clock` with a heartbeat of 10 ms.
        async fn start(max_delay: u64) -> Self {
            let log = MemoryLog::new(Epoch::new(1), Retention::default());
            let hub = Arc::new(Hub::new(log, || Timestamp::from_millis(0)));
            let heartbeat = Duration::from_millis(10);
            let settings = Settings { heartbeat, ..Settings::default() };
            let context = EventRoutes::with_settings(Arc::clone(&hub), settings).state().streaming;
            let open = context.streams.open(None).unwrap();
            let subscriber = hub.subscribe(Topic::clock().into(), Cursor::Now);
            let encoder = SseEncoder(Format::default());
            let session = Session::new(Arc::clone(&context), open, subscriber, encoder);
            let session = session.gathering(Duration::from_millis(max_delay));
            let mut session = Self { session, hub, context, start: Instant::now() };
            session.expect("hello", 0).await;
            session.assert_pending();
            session
        }

        fn assert_pending(&mut self) {
            assert!(self.session.next().now_or_never().is_none());
        }

        async fn publish(&self) {
            self.hub.publish(Draft::new(Topic::clock(), "x")).await.unwrap();
        }

        /// Checks the next chunk and its time in milliseconds. Returns the chunk.
        async fn expect(&mut self, part: &str, at: u128) -> Bytes {
            let chunk = self.session.next().await.expect(part);
            let text = String::from_utf8_lossy(&chunk);
            assert!(text.contains(part), "{part}: {text}");
            assert_eq!(self.start.elapsed().as_millis(), at, "{text}");
            chunk
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_wait_need_no_heartbeat() {
        let mut session = GatheringSession::start(100).await;
        session.expect("event: heartbeat", 10).await;
        session.publish().await;
        session.assert_pending();
        tokio::time::sleep(Duration::from_millis(50)).await;
        session.publish().await;
        let events = session.expect("data: x", 110).await;
        assert_eq!(events.windows(4).filter(|part| part == b"id: ").count(), 2);
        session.expect("event: heartbeat", 120).await;
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_wait_delay_neither_an_expiry_nor_a_stop() {
        let mut session = GatheringSession::start(1000).await;
        let expires = Deadline::new(&session.hub, Timestamp::from_millis(50));
        session.session.expires = Some(expires);
        session.publish().await;
        session.expect("\"expired\"", 50).await;
        assert!(session.session.next().await.is_none());

        let mut session = GatheringSession::start(1000).await;
        session.publish().await;
        session.assert_pending();
        session.context.stop.begin();
        let goodbye = session.session.next().await.unwrap();
        assert!(String::from_utf8_lossy(&goodbye).contains("\"draining\""));
        assert!(session.start.elapsed() < Duration::from_millis(100));
        assert!(session.session.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_reached_ends_the_stream_at_once() {
        let mut session = GatheringSession::start(1000).await;
        let events = NonZeroU64::new(2).unwrap();
        session.session.limit = Some(Limit { events, sent: 0 });
        session.publish().await;
        session.publish().await;
        session.expect("id: 0000000000000001-2.2", 0).await;
        session.expect("{\"sent\":2}", 0).await;
        assert!(session.session.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_before_ends_that_are_still_to_come_has_no_id() {
        let hub = Arc::new(Hub::in_memory());
        for topic in ["a", "b"] {
            hub.publish(TopicEnd::done(topic.parse().unwrap()).draft()).await.unwrap();
        }
        let topics = Patterns::new(["a", "b"].map(|topic| topic.parse().unwrap())).unwrap();
        let subscriber = hub.subscribe(topics, Cursor::Now);
        let context = EventRoutes::new(hub).state().streaming;
        let (open, heartbeat) = (context.streams.open(None).unwrap(), context.settings.heartbeat);
        let mut session = Session::new(context, open, subscriber, SseEncoder(Format::default()));
        for (name, has_id, idle) in [
            ("hello", false, true),
            ("heartbeat", false, false),
            ("end", false, true),
            // A client that resumed from here would never get the end of `b`.
            ("heartbeat", false, false),
            ("end", true, false),
        ] {
            let block = session.next().await.expect(name);
            let block = str::from_utf8(&block).unwrap();
            assert!(block.contains(&format!("event: {name}\n")), "{name}: {block}");
            assert_eq!(block.contains("id: "), has_id, "{block}");
            if idle {
                // The client does not read.
                tokio::time::sleep(heartbeat).await;
            }
        }
        assert!(session.next().await.is_none());
    }

    #[test]
    fn a_message_has_the_first_of_many_topics() {
        let list = |count: usize| {
            let patterns = (0..count).map(|number| format!("topic-{number:02}.>").parse().unwrap());
            TopicList(&Patterns::new(patterns).unwrap()).to_string()
        };
        assert_eq!(list(2), "topic-00.>,topic-01.>");
        assert!(list(64).ends_with("topic-24.>,… (64 in all)"), "{}", list(64));
    }
}

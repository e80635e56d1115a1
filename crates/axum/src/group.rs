//! Groups of event streams that read the same: while all of them have sent everything, one feed
//! reads and encodes the events of all, and each of them needs little more than its record.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;
use tracing::Span;
use waterclock::{
    hub::{Feed, FeedDelivery, Format, RestingSubscriber, Subscriber},
    pattern::Patterns,
    trace::Trace,
};

use crate::{
    connection::DirectStream,
    deadline::Deadline,
    gathering::{Gathering, next_heartbeat},
    session::{Encoder as _, Session, StreamRecord, heartbeat, sleep_until},
    sse::SseEncoder,
    standing::PolicyChanges,
    state::StreamContext,
    stop::Stop,
};

/// The content of streams that may rest in one group: their topics, their format, and the longest
/// time that their events wait for others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    topics: Patterns,
    format: Format,
    max_delay: Duration,
}

/// The feed of a group.
pub struct GroupFeed {
    context: Arc<StreamContext>,
    /// Number of changes of the policy after which its streams go on by themselves at another one.
    changes_seen: u64,
    feed: Feed,
    /// The rule by which events leave together; `None` if they leave at once.
    gathering: Option<Gathering>,
    encoder: SseEncoder,
    /// Sequence number up to which the streams have sent or skipped events.
    passed: Arc<AtomicU64>,
    /// Time of the last part.
    sent: Instant,
    /// Times at which to look if the permissions of streams have ended, with the streams' keys.
    looks: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The one future of [`next_signal`], which is polled only after its own waker has fired.
    signals: FuturesUnordered<Pin<Box<dyn Future<Output = GroupSignal> + Send>>>,
}

/// The next step of a group.
#[derive(Debug)]
pub enum GroupStep {
    /// A part for all streams.
    Send(Part),
    /// Permissions may have ended. The streams that are [due](GroupFeed::take_due) must be looked
    /// at.
    Expire,
    /// Each stream must go on by itself. After that, the feed must not be polled again.
    Dissolve,
}

/// A reason to act without an event.
enum GroupSignal {
    /// The policy has changed.
    Change,
    /// The server has begun to shut down.
    Stop,
    /// A permission may have ended.
    Expiry,
    /// A heartbeat may be due.
    Heartbeat,
}

/// Waits for the next signal. Earlier arms take precedence.
async fn next_signal(
    stop: Stop,
    (changes, seen): (PolicyChanges, u64),
    look: Option<Instant>,
    heartbeat: Instant,
) -> GroupSignal {
    tokio::select! {
        biased;
        () = changes.after(seen) => GroupSignal::Change,
        _ = stop.begun() => GroupSignal::Stop,
        () = sleep_until(look) => GroupSignal::Expiry,
        () = tokio::time::sleep_until(heartbeat) => GroupSignal::Heartbeat,
    }
}

/// A stream that rests in a group. Dropping it ends the stream.
pub struct RestingStream {
    record: StreamRecord,
    subscriber: RestingSubscriber,
    /// Time at which the client's permission ends.
    expires: Option<Deadline>,
    /// Time at which to look next if it has ended.
    look: Option<Instant>,
}

/// A part of the bodies of all streams of a group. It holds whole blocks.
#[derive(Debug)]
pub struct Part {
    /// The blocks.
    pub bytes: Bytes,
    content: Content,
    /// Number of events.
    events: u64,
    /// Time at which the first event was published.
    published: Option<Instant>,
    /// The traces of those events that have one.
    traces: Vec<Trace>,
}

/// The content of a part.
#[derive(Debug)]
enum Content {
    /// Events or an end, with the first and the last sequence number.
    Events(RangeInclusive<u64>),
    /// A heartbeat with this position.
    Heartbeat(u64),
}

/// The part of some events that a stream has yet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of it.
    Whole,
    /// Some of the events.
    Rest,
    /// Nothing of it.
    Nothing,
}

impl DirectStream {
    /// Returns the group in which the stream may rest now. Returns `None` if it has something to
    /// send that others do not have, now or later: events of its own, an end after a number of
    /// events, or a goodbye.
    ///
    /// It has sent everything only if it was polled last and was pending.
    pub fn group(&self) -> Option<GroupKey> {
        self.0.can_rest().then(|| GroupKey {
            topics: self.0.subscriber.topics().clone(),
            format: self.0.encoder.0,
            max_delay: self.0.max_delay(),
        })
    }
}

impl GroupFeed {
    /// Creates the feed of a group whose first stream is this one.
    ///
    /// # Errors
    ///
    /// The stream, if it cannot rest now.
    pub fn start(mut stream: DirectStream) -> Result<(Self, RestingStream), DirectStream> {
        let session = &mut *stream.0;
        if !session.can_rest() {
            return Err(stream);
        }
        let Some((feed, subscriber)) = Feed::start(&mut session.subscriber) else {
            return Err(stream);
        };
        let max_delay = session.max_delay();
        let gathering =
            (!max_delay.is_zero()).then(|| Gathering::new(max_delay, &session.subscriber));
        let feed = Self {
            context: Arc::clone(&session.record.context),
            changes_seen: session.record.context.changes.count(),
            passed: Arc::new(AtomicU64::new(feed.cursor().sequence)),
            feed,
            gathering,
            encoder: SseEncoder(session.encoder.0),
            sent: session.sent,
            looks: BinaryHeap::new(),
            signals: FuturesUnordered::new(),
        };
        let resting = feed.rest_with(stream, subscriber);
        Ok((feed, resting))
    }

    /// Lets a stream of the same hub rest in the group.
    ///
    /// # Errors
    ///
    /// The stream, if it cannot rest now, or has events to send that the group has sent already.
    pub fn rest(&self, mut stream: DirectStream) -> Result<RestingStream, DirectStream> {
        let session = &mut *stream.0;
        if !session.can_rest() {
            return Err(stream);
        }
        let Some(subscriber) = self.feed.rest(&mut session.subscriber) else { return Err(stream) };
        Ok(self.rest_with(stream, subscriber))
    }

    fn rest_with(&self, stream: DirectStream, subscriber: RestingSubscriber) -> RestingStream {
        let Session { mut record, expires, .. } = *stream.0;
        record.open.share_position(&self.passed);
        record.span = Span::none();
        RestingStream { record, subscriber, expires, look: None }
    }

    /// Begins to watch the permission of a stream. `key` identifies the stream for the caller.
    pub fn watch(&mut self, key: usize, stream: &mut RestingStream) {
        stream.look = stream.expires.as_ref().and_then(Deadline::next_look);
        let Some(look) = stream.look else { return };
        if self.looks.peek().is_none_or(|Reverse((first, _))| look < *first) {
            self.signals.clear();
        }
        self.looks.push(Reverse((look, key)));
    }

    /// Takes the key of a stream that is due to be looked at, with the time of that. The stream may
    /// have left. If it has not, and its permission goes on, it must be watched again.
    pub fn take_due(&mut self) -> Option<(usize, Instant)> {
        let Reverse((look, _)) = self.looks.peek()?;
        if *look > Instant::now() {
            return None;
        }
        self.looks.pop().map(|Reverse((look, key))| (key, look))
    }

    /// Lets a stream go on by itself that has sent all parts. Must be called within the span of its
    /// connection.
    pub fn resume(&self, stream: RestingStream) -> DirectStream {
        self.resume_by(Feed::resume, stream)
    }

    /// Lets a stream go on by itself that has not sent the last part. Must be called within the
    /// span of its connection.
    pub fn resume_before(&self, part: &Part, stream: RestingStream) -> DirectStream {
        match part.content {
            Content::Events(_) => self.resume_by(Feed::resume_before_last, stream),
            Content::Heartbeat(_) => self.resume(stream),
        }
    }

    fn resume_by(
        &self,
        resume: impl FnOnce(&Feed, RestingSubscriber) -> Subscriber,
        stream: RestingStream,
    ) -> DirectStream {
        let RestingStream { mut record, subscriber, expires, look: _ } = stream;
        let subscriber = resume(&self.feed, subscriber);
        record.open.own_position(subscriber.cursor().sequence);
        record.span = Span::current();
        let encoder = SseEncoder(self.encoder.0);
        let session = Session::resumed(record, subscriber, encoder, self.sent).expiring(expires);
        let max_delay = self.gathering.as_ref().map_or(Duration::ZERO, Gathering::max_delay);
        DirectStream(Box::new(session.gathering(max_delay)))
    }

    /// Polls for the next step.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<GroupStep> {
        // Signals come first, so that a steady flow of events does not delay a shutdown.
        let step = match self.poll_signal(context) {
            Poll::Ready(step) => step,
            Poll::Pending => {
                let polled = match &mut self.gathering {
                    None => self.feed.poll_next(context),
                    Some(gathering) => self.feed.poll_next_by(
                        |subscriber, context| gathering.poll_next(subscriber, None, context),
                        context,
                    ),
                };
                self.passed.store(self.feed.cursor().sequence, Ordering::Relaxed);
                let delivery = ready!(polled);
                delivery
                    .map_or(GroupStep::Dissolve, |delivery| GroupStep::Send(self.part(&delivery)))
            }
        };
        if let GroupStep::Send(_) = step {
            self.sent = Instant::now();
        }
        Poll::Ready(step)
    }

    fn next_heartbeat(&self) -> Instant {
        next_heartbeat(self.gathering.as_ref(), self.sent, self.context.settings.heartbeat)
    }

    fn poll_signal(&mut self, context: &mut Context<'_>) -> Poll<GroupStep> {
        loop {
            if self.signals.is_empty() {
                let stop = self.context.stop.clone();
                let look = self.looks.peek().map(|Reverse((look, _))| *look);
                let changes = (self.context.changes.clone(), self.changes_seen);
                let next = next_signal(stop, changes, look, self.next_heartbeat());
                self.signals.push(Box::pin(next));
            }
            let step = match ready!(self.signals.poll_next_unpin(context)) {
                None => continue,
                // In most cases something else was sent in the meantime.
                Some(GroupSignal::Heartbeat) if Instant::now() < self.next_heartbeat() => continue,
                Some(GroupSignal::Heartbeat) => GroupStep::Send(self.heartbeat()),
                Some(GroupSignal::Expiry) => GroupStep::Expire,
                // Each stream looks if it may go on.
                Some(GroupSignal::Change | GroupSignal::Stop) => GroupStep::Dissolve,
            };
            return Poll::Ready(step);
        }
    }

    fn part(&self, delivery: &FeedDelivery) -> Part {
        let content = Content::Events(delivery.sequences());
        match delivery {
            FeedDelivery::Events(batch) => Part {
                bytes: self.encoder.events(batch),
                content,
                events: batch.len() as u64,
                published: match self.gathering {
                    None => batch.first().and_then(|frame| frame.published()),
                    // The delay is the clients' choice.
                    Some(_) => None,
                },
                traces: if batch.is_traced() {
                    batch.iter().map(|frame| frame.trace().clone()).collect()
                } else {
                    Vec::new()
                },
            },
            FeedDelivery::End { end, .. } => {
                let position = self.feed.cursor().to_string();
                let bytes = self.encoder.notice(end, Some(&position), None);
                Part { bytes, content, events: 0, published: None, traces: Vec::new() }
            }
        }
    }

    fn heartbeat(&self) -> Part {
        let cursor = self.feed.cursor();
        let bytes = heartbeat(&self.context, &self.encoder, Some(&cursor.to_string()), None);
        let content = Content::Heartbeat(cursor.sequence);
        Part { bytes, content, events: 0, published: None, traces: Vec::new() }
    }

    /// Counts a part that a number of streams has sent.
    pub fn sent(&self, part: &Part, streams: usize) {
        let metrics = &self.context.metrics;
        metrics.bytes_sent(part.bytes.len() * streams);
        metrics.events_sent_by(streams, part.events, part.published.map(|at| at.elapsed()));
        for trace in part.traces.iter().filter_map(Trace::get).filter(|_| streams > 0) {
            trace.sent(streams);
        }
    }
}

impl RestingStream {
    /// Returns the share of a part that the stream has yet to send.
    pub fn share(&self, part: &Part) -> Share {
        let position = self.subscriber.position();
        match &part.content {
            Content::Events(sequences) if position < *sequences.start() => Share::Whole,
            Content::Events(sequences) if position < *sequences.end() => Share::Rest,
            // The position of the feed must not set the client back.
            Content::Heartbeat(of_feed) if position <= *of_feed => Share::Whole,
            Content::Events(_) | Content::Heartbeat(_) => Share::Nothing,
        }
    }

    /// Returns `true` if the client's permission has ended.
    pub fn has_expired(&self) -> bool {
        self.expires.as_ref().is_some_and(Deadline::has_passed)
    }

    /// Returns `true` if this is the time at which to look at the stream.
    pub fn is_due(&self, time: Instant) -> bool {
        self.look == Some(time)
    }

    /// Counts the events of a part as sent.
    pub fn sent(&mut self, part: &Part) {
        self.record.events += part.events;
    }
}

impl fmt::Debug for GroupFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupFeed").field("topics", self.feed.topics()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RestingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestingStream").finish_non_exhaustive()
    }
}

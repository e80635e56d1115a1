//! Groups of event streams that read the same: while all of them have sent everything, one feed
//! reads and encodes the events of all, and each of them needs little more than its record.

use std::{
    fmt,
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;
use tracing::Span;
use waterclock::{
    hub::{Feed, FeedDelivery, Format, RestingSubscriber, Subscriber},
    pattern::Patterns,
};

use crate::{
    connection::DirectStream,
    session::{Encoder as _, Session, Signal, StreamRecord, heartbeat, next_signal},
    sse::SseEncoder,
    state::StreamContext,
};

/// The content of streams that may rest in one group: their topics and their format.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    topics: Patterns,
    format: Format,
}

/// The feed of a group.
pub struct GroupFeed {
    context: Arc<StreamContext>,
    feed: Feed,
    encoder: SseEncoder,
    /// Sequence number up to which the streams have sent or skipped events.
    passed: Arc<AtomicU64>,
    /// Time of the last part.
    sent: Instant,
    /// The one future of [`next_signal`], which is polled only after its own waker has fired.
    signals: FuturesUnordered<Pin<Box<dyn Future<Output = Signal> + Send>>>,
}

/// A stream that rests in a group. Dropping it ends the stream.
pub struct RestingStream {
    record: StreamRecord,
    subscriber: RestingSubscriber,
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
    /// events, a goodbye, or a permission that expires.
    ///
    /// It has sent everything only if it was polled last and was pending.
    pub fn group(&self) -> Option<GroupKey> {
        self.0.can_rest().then(|| GroupKey {
            topics: self.0.subscriber.topics().clone(),
            format: self.0.encoder.0,
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
        let Session { record, encoder, sent, .. } = *stream.0;
        let feed = Self {
            context: Arc::clone(&record.context),
            passed: Arc::new(AtomicU64::new(feed.cursor().sequence)),
            feed,
            encoder,
            sent,
            signals: FuturesUnordered::new(),
        };
        let resting = feed.rest_with(record, subscriber);
        Ok((feed, resting))
    }

    /// Lets a stream rest in the group.
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
        Ok(self.rest_with(stream.0.record, subscriber))
    }

    fn rest_with(
        &self,
        mut record: StreamRecord,
        subscriber: RestingSubscriber,
    ) -> RestingStream {
        record.open.share_position(&self.passed);
        record.span = Span::none();
        RestingStream { record, subscriber }
    }

    /// Lets a stream go on by itself that has sent all parts. Must be called within the span of its
    /// connection.
    pub fn resume(&self, stream: RestingStream) -> DirectStream {
        let subscriber = self.feed.resume(stream.subscriber);
        self.resume_with(stream.record, subscriber)
    }

    /// Lets a stream go on by itself that has not sent the last part. Must be called within the
    /// span of its connection.
    pub fn resume_before(&self, part: &Part, stream: RestingStream) -> DirectStream {
        match part.content {
            Content::Events(_) => {
                let subscriber = self.feed.resume_before_last(stream.subscriber);
                self.resume_with(stream.record, subscriber)
            }
            Content::Heartbeat(_) => self.resume(stream),
        }
    }

    fn resume_with(&self, mut record: StreamRecord, subscriber: Subscriber) -> DirectStream {
        record.open.own_position(subscriber.cursor().sequence);
        record.span = Span::current();
        let encoder = SseEncoder(self.encoder.0);
        DirectStream(Box::new(Session::resumed(record, subscriber, encoder, self.sent)))
    }

    /// Polls for the next part. Returns `None` if each stream must go on by itself. After that, the
    /// feed must not be polled again.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Part>> {
        // Signals come first, so that a steady flow of events does not delay a shutdown.
        let part = match self.poll_signal(context) {
            Poll::Ready(heartbeat) => heartbeat,
            Poll::Pending => {
                let polled = self.feed.poll_next(context);
                self.passed.store(self.feed.cursor().sequence, Ordering::Relaxed);
                ready!(polled).map(|delivery| self.part(&delivery))
            }
        };
        if part.is_some() {
            self.sent = Instant::now();
        }
        Poll::Ready(part)
    }

    /// Returns a heartbeat when it is due, and `None` when the server shuts down.
    fn poll_signal(&mut self, context: &mut Context<'_>) -> Poll<Option<Part>> {
        let interval = self.context.settings.heartbeat;
        loop {
            if self.signals.is_empty() {
                let stop = self.context.stop.clone();
                self.signals.push(Box::pin(next_signal(stop, None, None, self.sent + interval)));
            }
            match ready!(self.signals.poll_next_unpin(context)) {
                None => {}
                Some(Signal::Heartbeat) if self.sent.elapsed() < interval => {}
                Some(Signal::Heartbeat) => return Poll::Ready(Some(self.heartbeat())),
                Some(Signal::Stop(_) | Signal::Goodbye | Signal::Expired) => {
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn part(&self, delivery: &FeedDelivery) -> Part {
        let content = Content::Events(delivery.sequences());
        match delivery {
            FeedDelivery::Events(batch) => Part {
                bytes: self.encoder.events(batch),
                content,
                events: batch.len() as u64,
                published: batch.first().and_then(|frame| frame.published()),
            },
            FeedDelivery::End { end, .. } => {
                let position = self.feed.cursor().to_string();
                let bytes = self.encoder.notice(end, Some(&position), None);
                Part { bytes, content, events: 0, published: None }
            }
        }
    }

    fn heartbeat(&self) -> Part {
        let cursor = self.feed.cursor();
        let bytes = heartbeat(&self.context, &self.encoder, Some(&cursor.to_string()), None);
        Part { bytes, content: Content::Heartbeat(cursor.sequence), events: 0, published: None }
    }

    /// Counts a part that a number of streams has sent.
    pub fn sent(&self, part: &Part, streams: usize) {
        let since_publish = part.published.map(|at| at.elapsed());
        for _ in 0..streams {
            if part.events > 0 {
                self.context.metrics.events_sent(part.events, since_publish);
            }
            self.context.metrics.bytes_sent(part.bytes.len());
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

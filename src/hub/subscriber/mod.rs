//! Subscribers: a cursor, and the one loop that reads on from it, for old and new events alike.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use super::{
    channel::Channel,
    frame::{Batch, Frame},
    membership::Membership,
    ring::{Deletion, Slot},
    state::HubState,
};
use crate::{
    event::{Event, Topic},
    event_log::{Dropped, EventLogError, EventLogFuture},
    id::EventId,
    matcher::Matcher,
    notice::{Gap, GapReason, TopicEnd},
    pattern::Patterns,
};

/// A reader of the events of some topics, from a cursor on.
pub struct Subscriber {
    pub(super) state: Arc<HubState>,
    pub(super) topics: Patterns,
    pub(super) channel: Arc<Channel>,
    /// `None` for the subscriber of a feed, whose readers have memberships of their own.
    pub(super) membership: Option<Membership>,
    /// Its slot in the channel's list of waiters; `None` until it first waits.
    pub(super) waiter: Option<usize>,
    /// All events up to here were delivered, or are announced in `gap`.
    pub(super) cursor: EventId,
    /// All events up to here were read. Later than the cursor while `conflation` holds events, and
    /// while the subscriber passes events of other topics in the ring.
    pub(super) read: u64,
    /// Number of drops of the log of which the reader knows what it misses. The places of their
    /// events do not tell: a later drop may be of older events.
    pub(super) drops: u64,
    pub(super) conflation: Option<Conflation>,
    /// A gap to deliver before any event.
    pub(super) gap: Option<Gap>,
    /// Ends from before the cursor, to deliver after that gap.
    pub(super) ends: VecDeque<Event>,
    /// Frames that were read together with the end of a topic, and were not delivered.
    pub(super) held: VecDeque<Arc<Frame>>,
    /// A read of the log that is not delivered yet.
    pub(super) log_read: Option<LogRead>,
}

/// A read of the log.
pub(super) enum LogRead {
    Pending(EventLogFuture<'static, ReadEvents>),
    Done(ReadEvents),
}

/// The result of looking at the ring.
enum RingRead {
    /// The next events of the topics, which may be none.
    Frames(Vec<Arc<Frame>>),
    /// The next event of the topics was deleted, and the reader does not know.
    Deleted,
    /// The ring does not reach back that far.
    TooFarBack,
}

/// The result of a read of the log.
pub(super) struct ReadEvents {
    /// The events and ends, or the last of the damaged events that come first. None of them is
    /// missing by the time that `dropped` was read, unless it tells.
    events: Result<Vec<Event>, u64>,
    /// The sequence number up to which all events were read.
    up_to: u64,
    /// The newest event of the topics that was dropped by then and that the reader does not know
    /// of.
    dropped: Dropped,
}

/// The events that a conflating subscriber has read but not delivered.
#[derive(Default)]
pub(super) struct Conflation {
    latest: HashMap<Topic, Arc<Frame>>,
    /// The ends of topics that have not been reopened since.
    ends: HashMap<Topic, Arc<Frame>>,
    /// The size of these events and ends, in bytes.
    bytes: usize,
    /// Number of events that were left out.
    skipped: u64,
    /// `true` if the log is asked for the newest events only, so that nobody counts the others.
    is_direct: bool,
    /// `true` if the events in `latest` were read from the log as the newest of their topics. They
    /// are delivered at once, so that no more than a batch of the log is held.
    is_newest: bool,
}

/// Size of the events, in bytes, beyond which a conflating subscriber delivers what it holds.
const MAX_CONFLATED: usize = 16 * Batch::LIMIT.bytes;
/// Number of frames of the ring that a subscriber looks at before other tasks get a turn.
const WINDOW: usize = Batch::LIMIT.count;
/// Number of patterns above which a subscriber prepares them before it looks at the ring.
const FEW_PATTERNS: usize = 2;

/// A result of [`Subscriber::next`].
#[derive(Debug)]
pub enum Delivery {
    /// The next events, at least one.
    Events(Arc<Batch>),
    /// A topic has ended.
    End {
        /// Its place in the log.
        id: EventId,
        /// The notice. It is the last one if all topics are exact and all have ended.
        end: TopicEnd,
    },
    /// Requested events are missing. Reading continues from [`Subscriber::cursor`].
    Gap(Gap),
}

impl Subscriber {
    /// Makes the subscriber conflate: while it is behind, it skips all but the newest event of each
    /// topic.
    #[must_use]
    pub fn conflated(mut self) -> Self {
        self.conflation = Some(Conflation::default());
        self
    }

    /// Makes the subscriber conflate as [`conflated`](Self::conflated) does, but without counting
    /// the events that it skips. Then it costs no more to be further behind.
    #[must_use]
    pub fn conflated_without_count(mut self) -> Self {
        self.conflation = Some(Conflation { is_direct: true, ..Conflation::default() });
        self
    }

    /// Makes the subscriber deliver the ends of its topics first that its cursor is behind, for a
    /// client that asks again although it has them.
    #[must_use]
    pub fn repeating_ends(mut self) -> Self {
        if self.is_settled() {
            self.ends = self.state.log.ends(&self.topics, 0, self.cursor.sequence).into();
        }
        self
    }

    /// Returns the number of events that were skipped, or `None` if the subscriber does not
    /// conflate or does not count.
    pub fn skipped(&self) -> Option<u64> {
        let counting = self.conflation.as_ref().filter(|conflation| !conflation.is_direct);
        counting.map(|conflation| conflation.skipped)
    }

    /// Returns the position from which reading continues after the last delivery.
    pub fn cursor(&self) -> EventId {
        self.cursor
    }

    /// The topics that it reads.
    pub fn topics(&self) -> &Patterns {
        &self.topics
    }

    /// Returns the sequence number of the newest event of the topics, which changes over time.
    pub fn newest(&self) -> Arc<AtomicU64> {
        Arc::clone(self.channel.newest())
    }

    /// Returns `true` if the reader has all of its topics up to the cursor. Before, it must not
    /// resume from there, since a gap or an end is still to be delivered.
    pub fn is_settled(&self) -> bool {
        self.gap.is_none() && self.ends.is_empty()
    }

    /// Returns `true` if nothing but the position tells the subscriber from others with the same
    /// topics: it does not conflate, and holds nothing that is still to be delivered.
    pub fn can_rest(&self) -> bool {
        self.is_settled()
            && self.conflation.is_none()
            && self.held.is_empty()
            && self.log_read.is_none()
    }

    /// Returns the number of events of any topic since the first unread event of these topics.
    /// That is at least the number of events that [`try_next`](Self::try_next) may return, and 0 if
    /// there are none. The subscriber passes the events of other topics before the first one.
    pub fn unread(&mut self) -> u64 {
        let of_topics = self.channel.newest().load(Ordering::Acquire);
        // The channels show an event before all of them have.
        let newest = self.state.shown.load(Ordering::Acquire).max(of_topics);
        let held = self.held.len() as u64;
        if of_topics <= self.read {
            return held;
        }
        if let Some(batch) = self.channel.last_batch(self.read)
            && let Some(first) = batch.first()
        {
            self.read = first.event().id.sequence - 1;
        }
        held + newest.saturating_sub(self.read)
    }

    /// Creates a subscriber to the same topics at another place.
    pub(super) fn at(&self, sequence: u64, drops: u64, membership: Option<Membership>) -> Self {
        Self {
            state: Arc::clone(&self.state),
            topics: self.topics.clone(),
            channel: Arc::clone(&self.channel),
            membership,
            waiter: None,
            cursor: EventId { sequence, ..self.cursor },
            read: sequence,
            drops,
            conflation: None,
            gap: None,
            ends: VecDeque::new(),
            held: VecDeque::new(),
            log_read: None,
        }
    }

    /// Waits for the next events, and returns all that are available, at most 64 KiB.
    ///
    /// Cancel safe: dropping the future loses no event.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn next(&mut self) -> Result<Delivery, EventLogError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Returns the next events, or `None` if there are none yet. Waits only for the log.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn try_next(&mut self) -> Result<Option<Delivery>, EventLogError> {
        poll_fn(|context| self.poll_try_next(context)).await
    }

    /// Waits until [`try_next`](Self::try_next) may return more.
    pub async fn changed(&mut self) {
        poll_fn(|context| self.poll_changed(context)).await;
    }

    /// Polls for the result of [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Delivery, EventLogError>> {
        loop {
            if let Some(delivery) = ready!(self.poll_try_next(context))? {
                return Poll::Ready(Ok(delivery));
            }
            ready!(self.poll_changed(context));
        }
    }

    /// Polls for the result of [`try_next`](Self::try_next). Pending only while the log is read, or
    /// while other tasks take their turn.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub fn poll_try_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Delivery>, EventLogError>> {
        let newest = self.channel.newest().load(Ordering::Acquire);
        loop {
            if let Some(delivery) = self.next_end().or_else(|| self.next_held()) {
                return Poll::Ready(Ok(Some(delivery)));
            }
            let batch = match (ready!(self.poll_available(context))?, &mut self.conflation) {
                (Some(Delivery::Events(batch)), None) => batch,
                (Some(Delivery::Events(batch)), Some(conflation)) => {
                    conflation.add(&batch);
                    let is_full = conflation.bytes >= MAX_CONFLATED;
                    if !is_full && self.read < newest && !mem::take(&mut conflation.is_newest) {
                        continue;
                    }
                    conflation.take()
                }
                (None, Some(conflation)) if !conflation.is_empty() => conflation.take(),
                // All that was read last was dropped meanwhile.
                (None, _) if self.read < newest => continue,
                (gap_or_none, _) => {
                    self.cursor.sequence = self.read;
                    return Poll::Ready(Ok(gap_or_none));
                }
            };
            if !batch.has_ends() {
                self.cursor.sequence = self.read;
                return Poll::Ready(Ok(Some(Delivery::Events(batch))));
            }
            self.held.extend(batch.iter().cloned());
        }
    }

    /// Takes the next end from before the cursor, after the gap.
    fn next_end(&mut self) -> Option<Delivery> {
        if self.gap.is_some() {
            return None;
        }
        loop {
            let event = self.ends.pop_front()?;
            let is_last = self.ends.is_empty();
            if let Some(end) = self.end(&event, is_last.then_some(self.cursor.sequence)) {
                return Some(end);
            }
        }
    }

    /// Takes the next of the frames that are held: an end, or the events up to one.
    fn next_held(&mut self) -> Option<Delivery> {
        loop {
            let first = self.held.pop_front()?;
            if first.event().name.is_topic_end() {
                let before = mem::replace(&mut self.cursor.sequence, first.event().id.sequence);
                let mut end = self.end(first.event(), Some(self.cursor.sequence));
                if end.is_none() {
                    end = self.forgotten_end(first.event(), before);
                }
                if end.is_some() {
                    return end;
                }
                continue;
            }
            let mut events = vec![first];
            while let Some(next) = self.held.front()
                && !next.event().name.is_topic_end()
            {
                events.extend(self.held.pop_front());
            }
            self.cursor.sequence = events.last().map_or(self.read, |last| last.event().id.sequence);
            return Some(Delivery::Events(Arc::new(Batch::new(events))));
        }
    }

    /// Returns the delivery of an end, unless the topic was reopened since. It may be the last one
    /// of the stream if the reader has everything up to the sequence number `read`.
    fn end(&self, event: &Event, read: Option<u64>) -> Option<Delivery> {
        let Event { id, topic, .. } = event;
        let ends = self.state.log.ends(&topic.clone().into(), id.sequence - 1, id.sequence);
        let mut end = TopicEnd::of(ends.first()?)?;
        end.last = read.is_some_and(|read| self.state.last_end(&self.topics, read).is_some());
        Some(Delivery::End { id: *id, end })
    }

    /// Returns the gap in the place of an end that the log no longer has, because its topic has
    /// made room for another one. Returns `None` if the topic is in use again, and if that was so
    /// before the subscriber came.
    fn forgotten_end(&mut self, end: &Event, before: u64) -> Option<Delivery> {
        let Event { id, topic, .. } = end;
        let is_later = |frame: &Arc<Frame>| frame.event().topic == *topic;
        let dropped = self.state.log.dropped_after(&topic.clone().into(), before, self.drops);
        if dropped.newest < id.sequence
            || self.held.iter().any(is_later)
            || self.state.fanout.lock().ring.has_later(topic, id.sequence)
        {
            return None;
        }
        // One gap tells of all that is gone by now.
        self.drops = dropped.drops;
        let cursor = EventId { sequence: before, ..*id }.to_string();
        Some(Delivery::Gap(Gap { reason: GapReason::Expired, cursor }))
    }

    /// Polls for the result of [`changed`](Self::changed). The task is woken once, and again only
    /// after it has polled again.
    pub fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let has_newer = |read| self.channel.newest().load(Ordering::Acquire) > read;
        if has_newer(self.read) {
            return Poll::Ready(());
        }
        self.channel.wait(&mut self.waiter, context.waker());
        // An event may have arrived before the waiter was registered.
        if has_newer(self.read) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Polls for the next batch or gap after the events that were read. Pending only while the log
    /// is read, or while other tasks take their turn.
    fn poll_available(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Delivery>, EventLogError>> {
        if let Some(gap) = self.gap.take() {
            return Poll::Ready(Ok(Some(Delivery::Gap(gap))));
        }
        if self.log_read.is_none() {
            // The order of the two loads matters: the channel has been notified of all events up to
            // `newest`.
            let newest = self.state.shown.load(Ordering::Acquire);
            let of_topics = self.channel.newest().load(Ordering::Acquire);
            if of_topics <= self.read {
                self.read = self.read.max(newest);
                return Poll::Ready(Ok(None));
            }
            if let Some(batch) = self.channel.last_batch(self.read) {
                self.read = batch.last().map_or(self.read, |last| last.event().id.sequence);
                return Poll::Ready(Ok(Some(Delivery::Events(batch))));
            }
            match self.read_ring() {
                RingRead::Frames(frames) if !frames.is_empty() => {
                    return Poll::Ready(Ok(Some(Delivery::Events(Arc::new(Batch::new(frames))))));
                }
                RingRead::Frames(_) if self.read < of_topics => {
                    // None of the events so far is of the topics. There are more to look at.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                RingRead::Frames(_) => return Poll::Ready(Ok(None)),
                RingRead::Deleted => {
                    if self.holds_conflated() {
                        return Poll::Ready(Ok(None));
                    }
                    let dropped = self.state.log.dropped_after(&self.topics, self.read, self.drops);
                    if dropped.newest > self.read {
                        self.drops = dropped.drops;
                        let cursor = EventId { sequence: self.read, ..self.cursor }.to_string();
                        let gap = Gap { reason: GapReason::Expired, cursor };
                        return Poll::Ready(Ok(Some(Delivery::Gap(gap))));
                    }
                    // The deletion has failed meanwhile.
                }
                RingRead::TooFarBack => {}
            }
            self.log_read = Some(self.read_log(newest));
        }
        let mut read = match self.log_read.take() {
            None => return Poll::Ready(Ok(None)),
            Some(LogRead::Done(read)) => read,
            Some(LogRead::Pending(mut read)) => match read.as_mut().poll(context) {
                Poll::Pending => {
                    self.log_read = Some(LogRead::Pending(read));
                    return Poll::Pending;
                }
                Poll::Ready(read) => read?,
            },
        };
        let is_behind_a_gap = read.dropped.newest > self.read;
        if self.holds_conflated() && (is_behind_a_gap || read.events.is_err()) {
            // Conflated events from before the gap are delivered first. Some of these here may be
            // deleted by then, so they are read again.
            return Poll::Ready(Ok(None));
        }
        self.drops = read.dropped.drops;
        if is_behind_a_gap {
            let gap = self.skip_dropped();
            read.dropped.newest = 0;
            // The events follow the gap: while others are dropped all the time, reading them again
            // might never come to an end.
            self.log_read = Some(LogRead::Done(read));
            return Poll::Ready(Ok(Some(Delivery::Gap(gap))));
        }
        let mut events = match read.events {
            Ok(events) => events,
            Err(last) => return Poll::Ready(Ok(Some(Delivery::Gap(self.skip_damaged(last))))),
        };
        // A gap may have passed some of them.
        events.retain(|event| event.id.sequence > self.read);
        self.read = self.read.max(read.up_to);
        let frames: Vec<_> = events.into_iter().map(Frame::new).map(Arc::new).collect();
        if let Some(conflation) = &mut self.conflation {
            conflation.is_newest = conflation.is_direct;
        }
        let batch = (!frames.is_empty()).then(|| Delivery::Events(Arc::new(Batch::new(frames))));
        Poll::Ready(Ok(batch))
    }

    /// Reads the next events of the topics from the ring, at most [`WINDOW`].
    fn read_ring(&mut self) -> RingRead {
        // The events are compared with the patterns after the lock is released.
        let window = self.state.fanout.lock().ring.after(self.read, WINDOW);
        let Some(window) = window else { return RingRead::TooFarBack };
        let mut matcher =
            (self.topics.iter().count() > FEW_PATTERNS).then(|| Matcher::new(&self.topics));
        let (mut frames, mut bytes, mut read) = (Vec::new(), 0, self.read);
        for slot in window {
            let is_wanted = match &mut matcher {
                Some(matcher) => matcher.matches(slot.topic()),
                None => self.topics.matches(slot.topic()),
            };
            let sequence = slot.sequence();
            match slot {
                Slot::Frame(frame) if is_wanted => {
                    bytes += frame.size();
                    if bytes > Batch::LIMIT.bytes && !frames.is_empty() {
                        break;
                    }
                    frames.push(frame);
                }
                Slot::Deleted { deletion, frame: Some(frame), .. }
                    if is_wanted && !self.is_dropped(&deletion.topic, sequence) =>
                {
                    bytes += frame.size();
                    if bytes > Batch::LIMIT.bytes && !frames.is_empty() {
                        break;
                    }
                    frames.push(frame);
                }
                Slot::Deleted { deletion, .. }
                    if is_wanted && !self.is_known(&deletion, sequence) =>
                {
                    if frames.is_empty() {
                        self.read = read;
                        return RingRead::Deleted;
                    }
                    break;
                }
                Slot::Frame(_) | Slot::Deleted { .. } => {}
            }
            read = sequence;
        }
        self.read = read;
        RingRead::Frames(frames)
    }

    /// Returns `true` if the log has dropped an event of a topic.
    fn is_dropped(&self, topic: &Topic, sequence: u64) -> bool {
        self.state.log.dropped(&topic.clone().into()) >= sequence
    }

    /// Returns `true` if the reader has been told that a deleted event is gone.
    fn is_known(&self, deletion: &Deletion, sequence: u64) -> bool {
        // The log may have dropped the event before the deletion.
        let is_told = || {
            let topic = deletion.topic.clone().into();
            self.state.log.dropped_after(&topic, sequence - 1, self.drops).newest == 0
        };
        deletion.drops <= self.drops || self.is_dropped(&deletion.topic, sequence) && is_told()
    }

    /// Begins to read from the log, for events that the ring no longer has.
    fn read_log(&self, newest: u64) -> LogRead {
        let (state, topics, after) = (Arc::clone(&self.state), self.topics.clone(), self.read);
        let is_direct = self.conflation.as_ref().is_some_and(|conflation| conflation.is_direct);
        let known = self.drops;
        let up_to = move |events: &[Event]| events.last().map_or(newest, |last| last.id.sequence);
        let with_ends = move |state: &HubState, topics: &Patterns, mut events: Vec<Event>| {
            // Further events may follow these, and the ends between them.
            let ends = state.log.ends(topics, after, up_to(&events));
            if !ends.is_empty() {
                events.extend(ends);
                events.sort_unstable_by_key(|event| event.id.sequence);
                events.truncate(Batch::LIMIT.count);
            }
            events
        };
        let read = async move {
            let mut events = if is_direct {
                state.log.newest_of_each(&topics, after, Batch::LIMIT).await
            } else {
                state.log.read(&topics, after, Batch::LIMIT).await
            };
            if is_direct && matches!(events, Err(EventLogError::Damaged { .. })) {
                // A read of all events tells where the damaged ones are.
                events = state.log.read(&topics, after, Batch::LIMIT).await;
            }
            let mut events = match events {
                Err(EventLogError::Damaged { last }) => Err(last),
                events => Ok(with_ends(&state, &topics, events?)),
            };
            let up_to = events.as_deref().map_or_else(|last| *last, up_to);
            // Asked after the read, so that no event is dropped unnoticed between the two.
            let dropped = state.log.dropped_after(&topics, after, known);
            if let Ok(events) = &mut events
                && dropped.newest > after
            {
                state.remove_dropped(events, dropped.newest);
            }
            Ok(ReadEvents { events, up_to, dropped })
        };
        LogRead::Pending(Box::pin(read))
    }

    /// Continues after the dropped events, and returns the gap that announces them.
    fn skip_dropped(&mut self) -> Gap {
        let requested = EventId { sequence: self.read, ..self.cursor };
        self.skip_to(self.state.log.bounds().start);
        Gap { reason: GapReason::Expired, cursor: requested.to_string() }
    }

    /// Continues after the damaged events, and returns the gap that announces them.
    fn skip_damaged(&mut self, last: u64) -> Gap {
        let requested = EventId { sequence: self.read, ..self.cursor };
        self.skip_to(last);
        Gap { reason: GapReason::Damaged, cursor: requested.to_string() }
    }

    /// Continues after the sequence number `to`. Ends up to there follow the gap.
    pub(super) fn skip_to(&mut self, to: u64) {
        if to > self.read {
            self.ends.extend(self.state.log.ends(&self.topics, self.read, to));
            self.read = to;
        }
    }

    fn holds_conflated(&self) -> bool {
        self.conflation.as_ref().is_some_and(|conflation| !conflation.is_empty())
    }
}

impl Conflation {
    fn add(&mut self, frames: &[Arc<Frame>]) {
        for frame in frames {
            self.bytes += frame.size();
            let topic = frame.event().topic.clone();
            // An event or an end behind this end makes it old: the topic was reopened.
            if let Some(end) = self.ends.remove(&topic) {
                self.bytes -= end.size();
            }
            if frame.event().name.is_topic_end() {
                self.ends.insert(topic, Arc::clone(frame));
            } else if let Some(older) = self.latest.insert(topic, Arc::clone(frame)) {
                self.bytes -= older.size();
                self.skipped += 1;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.latest.is_empty() && self.ends.is_empty()
    }

    /// Takes the events and ends, in their order.
    fn take(&mut self) -> Arc<Batch> {
        self.bytes = 0;
        let (latest, ends) = (mem::take(&mut self.latest), mem::take(&mut self.ends));
        let mut frames: Vec<_> = latest.into_values().chain(ends.into_values()).collect();
        frames.sort_unstable_by_key(|frame| frame.event().id.sequence);
        Arc::new(Batch::new(frames))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(key) = self.waiter {
            self.channel.forget(key);
        }
    }
}

//! Channels: the units that a publish wakes. All subscribers with the same patterns share one. The
//! cost of a publish depends on the subscribers of its own topic; those of other topics sleep on.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;
use slab::Slab;

use super::{
    frame::{Batch, Frame},
    ring::Ring,
};
use crate::{
    event::Topic,
    pattern::{Pattern, Patterns},
};

/// Maximum number of sequence numbers that a channel remembers.
const MAX_HISTORY: usize = 8192;
/// Number of subscribers that are woken before other tasks get a turn.
const WAKE_BATCH: usize = 64;

/// The subscribers with the same patterns.
#[derive(Debug)]
pub(super) struct Channel {
    history: Mutex<ChannelHistory>,
    /// The sequence number of the newest visible event of these topics.
    newest: Arc<AtomicU64>,
    waiters: Mutex<Slab<Waiter>>,
}

/// The newest events of the channel's topics.
#[derive(Debug)]
struct ChannelHistory {
    /// Their sequence numbers, oldest first.
    sequences: VecDeque<u64>,
    /// All events after this sequence number are in `sequences`.
    complete_after: u64,
    /// The last batch, and the newest sequence number before it. Nearly all subscribers want it
    /// next.
    last_batch: Option<(u64, Arc<Batch>)>,
}

/// A subscriber that has waited at least once.
#[derive(Debug)]
struct Waiter {
    waker: Waker,
    /// `true` if it is waiting now.
    is_waiting: bool,
}

impl Channel {
    /// Creates a channel for events after the sequence number `newest`.
    fn new(newest: u64) -> Self {
        let (sequences, last_batch) = (VecDeque::new(), None);
        let history = ChannelHistory { sequences, complete_after: newest, last_batch };
        Self {
            history: Mutex::new(history),
            newest: Arc::new(AtomicU64::new(newest)),
            waiters: Mutex::default(),
        }
    }

    /// Adds all events of these topics that the ring has, so that subscribers that reconnect need
    /// not all read the log.
    pub(super) fn remember(&self, topics: &Patterns, ring: &Ring) {
        let history = &mut *self.history.lock();
        if history.complete_after <= ring.complete_after() {
            return;
        }
        let older = ring.iter().map(|frame| frame.event()).filter(|event| {
            event.id.sequence <= history.complete_after && topics.matches(&event.topic)
        });
        let newer = mem::take(&mut history.sequences);
        history.sequences = older.map(|event| event.id.sequence).chain(newer).collect();
        history.complete_after = ring.complete_after();
    }

    /// Returns the sequence number of the newest visible event of these topics. It may be that of a
    /// later event of another topic if the channel has had no event yet.
    pub(super) fn newest(&self) -> &Arc<AtomicU64> {
        &self.newest
    }

    /// Returns the last batch if it is exactly the events after the sequence number `after`.
    pub(super) fn last_batch(&self, after: u64) -> Option<Arc<Batch>> {
        let history = self.history.lock();
        let (before, batch) = history.last_batch.as_ref()?;
        let first = batch.first()?.event().id.sequence;
        (*before <= after && after < first).then(|| Arc::clone(batch))
    }

    /// Returns the sequence numbers after `sequence`, at most `limit`, or `None` if the history
    /// does not reach back that far.
    pub(super) fn after(&self, sequence: u64, limit: usize) -> Option<Vec<u64>> {
        let history = self.history.lock();
        if sequence < history.complete_after {
            return None;
        }
        let from = history.sequences.partition_point(|&recent| recent <= sequence);
        Some(history.sequences.range(from..).take(limit).copied().collect())
    }

    /// Adds events to the history.
    pub(super) fn push(&self, frames: &[Arc<Frame>]) {
        let ChannelHistory { sequences, complete_after, .. } = &mut *self.history.lock();
        sequences.extend(frames.iter().map(|frame| frame.event().id.sequence));
        while sequences.len() > MAX_HISTORY
            && let Some(oldest) = sequences.pop_front()
        {
            *complete_after = oldest;
        }
    }

    /// Makes the events that were pushed last visible to the subscribers, and wakes them.
    pub(super) fn show(&self, frames: Vec<Arc<Frame>>) {
        let Some(newest) = frames.last().map(|last| last.event().id.sequence) else { return };
        let before = self.newest.load(Ordering::Acquire);
        let is_one_batch = Batch::can_hold(&frames);
        let last_batch = is_one_batch.then(|| (before, Arc::new(Batch::new(frames))));
        self.history.lock().last_batch = last_batch;
        self.newest.store(newest, Ordering::Release);

        // The lock is released between batches of waiters, so that those that are already awake
        // need not wait until all are woken.
        let mut from = 0;
        loop {
            let mut waiters = self.waiters.lock();
            let to = (from + WAKE_BATCH).min(waiters.capacity());
            for key in from..to {
                if let Some(waiter) = waiters.get_mut(key)
                    && mem::take(&mut waiter.is_waiting)
                {
                    waiter.waker.wake_by_ref();
                }
            }
            if to == waiters.capacity() {
                return;
            }
            from = to;
        }
    }

    /// Registers the subscriber to be woken by the next event. Its slot is stored in `key`.
    ///
    /// An event that arrives before this returns may not wake it.
    pub(super) fn wait(&self, key: &mut Option<usize>, waker: &Waker) {
        let mut waiters = self.waiters.lock();
        match key.and_then(|key| waiters.get_mut(key)) {
            Some(waiter) => {
                waiter.is_waiting = true;
                waiter.waker.clone_from(waker);
            }
            None => *key = Some(waiters.insert(Waiter { waker: waker.clone(), is_waiting: true })),
        }
    }

    /// Removes the subscriber with the slot `key`.
    pub(super) fn forget(&self, key: usize) {
        self.waiters.lock().try_remove(key);
    }
}

/// The channels that have subscribers.
#[derive(Debug, Default)]
pub(super) struct Channels {
    counted: HashMap<Patterns, CountedChannel>,
    /// The channels with a pattern that is the topic.
    by_topic: HashMap<Topic, Vec<Arc<Channel>>>,
    /// The channels with a pattern that has a wildcard.
    by_wildcard: Vec<(Pattern, Arc<Channel>)>,
}

/// A channel with the number of its subscribers.
#[derive(Debug)]
struct CountedChannel {
    channel: Arc<Channel>,
    subscribers: usize,
}

impl Channels {
    /// Adds a subscriber to the channel of the patterns. If it is the first, the channel is created
    /// for events after the sequence number `newest`.
    pub(super) fn join(&mut self, patterns: &Patterns, newest: u64) -> Arc<Channel> {
        if let Some(counted) = self.counted.get_mut(patterns) {
            counted.subscribers += 1;
            return Arc::clone(&counted.channel);
        }
        let channel = Arc::new(Channel::new(newest));
        for pattern in patterns.iter() {
            match pattern.topic() {
                Some(topic) => {
                    self.by_topic.entry(topic).or_default().push(Arc::clone(&channel));
                }
                None => self.by_wildcard.push((pattern.clone(), Arc::clone(&channel))),
            }
        }
        let counted = CountedChannel { channel: Arc::clone(&channel), subscribers: 1 };
        self.counted.insert(patterns.clone(), counted);
        channel
    }

    /// Removes a subscriber from the channel of the patterns, and the channel with its last one.
    pub(super) fn leave(&mut self, patterns: &Patterns) {
        let Some(counted) = self.counted.get_mut(patterns) else { return };
        counted.subscribers -= 1;
        if counted.subscribers > 0 {
            return;
        }
        let Some(CountedChannel { channel, .. }) = self.counted.remove(patterns) else {
            return;
        };
        for topic in patterns.iter().filter_map(Pattern::topic) {
            if let Some(channels) = self.by_topic.get_mut(&topic) {
                channels.retain(|other| !Arc::ptr_eq(other, &channel));
                if channels.is_empty() {
                    self.by_topic.remove(&topic);
                }
            }
        }
        self.by_wildcard.retain(|(_, other)| !Arc::ptr_eq(other, &channel));
    }

    /// Returns the channels that an event of `topic` goes to. A channel is repeated if several of
    /// its patterns match.
    pub(super) fn of(&self, topic: &Topic) -> impl Iterator<Item = &Arc<Channel>> {
        let wildcard = self.by_wildcard.iter().filter(|(pattern, _)| pattern.matches(topic));
        let exact = self.by_topic.get(topic).into_iter().flatten();
        exact.chain(wildcard.map(|(_, channel)| channel))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::{
        event::{Event, Name},
        id::{Epoch, EventId},
        timestamp::Timestamp,
    };

    fn patterns(text: &str) -> Patterns {
        Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
    }

    fn topic(text: &str) -> Topic {
        text.parse().unwrap()
    }

    fn frames(sequences: impl IntoIterator<Item = u64>) -> Vec<Arc<Frame>> {
        let frame = |sequence| {
            let id = EventId { epoch: Epoch::new(1), sequence };
            let (name, data, time) = (Name::default(), String::new(), Timestamp::from_millis(0));
            Arc::new(Frame::new(Event { id, topic: topic("a"), name, data, time }))
        };
        sequences.into_iter().map(frame).collect()
    }

    #[test]
    fn a_channel_remembers_new_events_and_forgets_the_oldest() {
        let channel = Channel::new(10);
        assert_eq!(channel.after(9, 9), None);
        assert_eq!(channel.after(10, 9), Some(vec![]));
        channel.push(&frames([12, 15, 20]));
        assert_eq!(channel.after(10, 9), Some(vec![12, 15, 20]));
        assert_eq!(channel.after(13, 1), Some(vec![15]));
        assert_eq!(channel.after(25, 9), Some(vec![]));
        channel.push(&frames(100..100 + MAX_HISTORY as u64));
        assert_eq!(channel.after(19, 9), None);
        assert_eq!(channel.after(20, 2), Some(vec![100, 101]));
    }

    #[test]
    fn events_in_the_ring_are_added_on_demand() {
        let mut ring = Ring::new(10);
        for frame in frames(11..=14) {
            ring.push(frame);
        }
        let channel = Channel::new(14);
        channel.push(&frames([15]));
        assert_eq!(channel.after(11, 9), None);
        channel.remember(&patterns("b"), &ring);
        assert_eq!(channel.after(11, 9), Some(vec![15]), "no other event of its topics");
        let channel = Channel::new(14);
        channel.push(&frames([15]));
        for _ in 0..2 {
            channel.remember(&patterns("a"), &ring);
            assert_eq!(channel.after(11, 9), Some(vec![12, 13, 14, 15]));
        }
        assert_eq!(channel.after(9, 9), None);
    }

    #[test]
    fn the_last_batch_is_for_subscribers_that_miss_nothing_else() {
        let channel = Channel::new(10);
        channel.show(frames([12]));
        channel.show(frames([15, 17]));
        for (after, expected) in [(11, false), (12, true), (14, true), (15, false), (17, false)] {
            assert_eq!(channel.last_batch(after).is_some(), expected, "{after}");
        }
        channel.show(frames(20..=20 + Batch::LIMIT.count as u64));
        assert!(channel.last_batch(19).is_none(), "more than one batch");
    }

    #[test]
    fn only_waiters_are_woken() {
        let channel = Channel::new(0);
        let mut tasks = [(); 100].map(|()| (None, tokio_test::task::spawn(pending::<()>())));
        for (key, task) in &mut tasks {
            task.enter(|context, _| channel.wait(key, context.waker()));
        }
        channel.forget(tasks[3].0.unwrap());
        channel.show(frames([1]));
        for (number, (_, task)) in tasks.iter().enumerate() {
            assert_eq!(task.is_woken(), number != 3, "{number}");
        }
    }

    #[test]
    fn subscribers_with_the_same_patterns_share_a_channel() {
        let mut channels = Channels::default();
        let first = channels.join(&patterns("a b.*"), 0);
        let second = channels.join(&patterns("b.* a"), 5);
        assert!(Arc::ptr_eq(&first, &second));
        let other = channels.join(&patterns("a"), 5);
        let of = |channels: &Channels, name| channels.of(&topic(name)).count();
        assert_eq!((of(&channels, "a"), of(&channels, "b.c"), of(&channels, "c")), (2, 1, 0));
        channels.leave(&patterns("a b.*"));
        assert_eq!(of(&channels, "b.c"), 1);
        channels.leave(&patterns("a b.*"));
        assert_eq!((of(&channels, "a"), of(&channels, "b.c")), (1, 0));
        assert!(Arc::ptr_eq(channels.of(&topic("a")).next().unwrap(), &other));
        channels.leave(&patterns("a"));
        assert!(channels.counted.is_empty() && channels.by_topic.is_empty());
    }
}

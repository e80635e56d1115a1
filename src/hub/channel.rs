//! Channels: the units that a publish wakes. All subscribers with the same patterns share one. The
//! cost of a publish depends on the subscribers of its own topic; those of other topics sleep on.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;
use slab::Slab;

use super::{
    frame::{Batch, Frame},
    pattern_index::PatternIndex,
};
use crate::{event::Topic, event_log::Readers, pattern::Patterns};

/// Number of subscribers that are woken before other tasks get a turn.
const WAKE_BATCH: usize = 64;

/// The subscribers with the same patterns.
#[derive(Debug)]
pub(super) struct Channel {
    /// The number of the channel, which is higher for later ones.
    number: u64,
    /// Number of subscribers. Changed only while the channels are locked.
    subscribers: AtomicUsize,
    /// The last batch, and the newest sequence number before it. Nearly all subscribers want it
    /// next.
    last_batch: Mutex<Option<(u64, Arc<Batch>)>>,
    /// The sequence number of the newest visible event of these topics.
    newest: Arc<AtomicU64>,
    waiters: Mutex<Slab<Waiter>>,
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
    fn new(number: u64, newest: u64) -> Self {
        Self {
            number,
            subscribers: AtomicUsize::new(0),
            last_batch: Mutex::default(),
            newest: Arc::new(AtomicU64::new(newest)),
            waiters: Mutex::default(),
        }
    }

    /// Returns the sequence number of the newest visible event of these topics. It may be that of a
    /// later event of another topic if the channel has had no event yet.
    pub(super) fn newest(&self) -> &Arc<AtomicU64> {
        &self.newest
    }

    /// Number of subscribers.
    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Returns the last batch if it is exactly the events after the sequence number `after`.
    pub(super) fn last_batch(&self, after: u64) -> Option<Arc<Batch>> {
        let last_batch = self.last_batch.lock();
        let (before, batch) = last_batch.as_ref()?;
        let first = batch.first()?.event().id.sequence;
        (*before <= after && after < first).then(|| Arc::clone(batch))
    }

    /// Forgets the last batch, so that subscribers look for its events elsewhere.
    pub(super) fn forget_last_batch(&self) {
        *self.last_batch.lock() = None;
    }

    /// Makes new events, which the ring has already, visible to the subscribers, and wakes them.
    pub(super) fn show(&self, frames: Vec<Arc<Frame>>) {
        let Some(newest) = frames.last().map(|last| last.event().id.sequence) else { return };
        let before = self.newest.load(Ordering::Acquire);
        let is_one_batch = Batch::can_hold(&frames);
        let last_batch = is_one_batch.then(|| (before, Arc::new(Batch::new(frames))));
        *self.last_batch.lock() = last_batch;
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

/// The channels that an event of a topic goes to.
#[derive(Debug)]
pub(super) struct Audience {
    /// Number of subscribers that name the topic.
    exact: usize,
    /// The number and the subscribers of each channel, as often as it has a pattern that matches.
    channels: Vec<(u64, usize)>,
    /// Number of channels and patterns that were looked at.
    pub looked_at: usize,
}

impl Audience {
    /// Counts the subscribers, each once.
    pub(super) fn count(mut self) -> Readers {
        self.channels.sort_unstable();
        self.channels.dedup();
        let all: usize = self.channels.iter().map(|(_, subscribers)| subscribers).sum();
        Readers { exact: self.exact, by_pattern: all - self.exact }
    }
}

/// The channels that have subscribers.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_patterns: HashMap<Patterns, Arc<Channel>>,
    /// The channels with a pattern, in the order of their numbers.
    by_pattern: PatternIndex<Vec<Arc<Channel>>>,
    /// Number of channels that were created.
    created: u64,
}

impl Channels {
    /// Adds a subscriber to the channel of the patterns. If it is the first, the channel is created
    /// for events after the sequence number `newest`.
    pub(super) fn join(&mut self, patterns: &Patterns, newest: u64) -> Arc<Channel> {
        if let Some(channel) = self.by_patterns.get(patterns) {
            channel.subscribers.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(channel);
        }
        self.created += 1;
        let channel = Arc::new(Channel::new(self.created, newest));
        channel.subscribers.store(1, Ordering::Relaxed);
        for pattern in patterns.iter() {
            match self.by_pattern.get_mut(pattern) {
                Some(channels) => channels.push(Arc::clone(&channel)),
                None => self.by_pattern.insert(pattern.clone(), vec![Arc::clone(&channel)]),
            }
        }
        self.by_patterns.insert(patterns.clone(), Arc::clone(&channel));
        channel
    }

    /// Removes a subscriber from the channel of the patterns, and the channel with its last one.
    pub(super) fn leave(&mut self, patterns: &Patterns) {
        let Some(channel) = self.by_patterns.get(patterns) else { return };
        if channel.subscribers.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let Some(channel) = self.by_patterns.remove(patterns) else { return };
        for pattern in patterns.iter() {
            let Some(channels) = self.by_pattern.get_mut(pattern) else { continue };
            if let Ok(at) = channels.binary_search_by_key(&channel.number, |other| other.number) {
                channels.remove(at);
            }
            if channels.is_empty() {
                self.by_pattern.remove(pattern);
            }
        }
    }

    /// Counts the subscribers that name `topic`.
    pub(super) fn exact(&self, topic: &Topic) -> usize {
        let channels = self.by_pattern.get(topic.as_str()).into_iter().flatten();
        channels.map(|channel| channel.subscribers.load(Ordering::Relaxed)).sum()
    }

    /// Returns the channels that an event of `topic` goes to, for their subscribers to be counted
    /// after the channels are unlocked.
    pub(super) fn audience(&self, topic: &Topic) -> Audience {
        let mut found = Vec::new();
        let tried = self.by_pattern.find(topic, |channels| {
            let subscribers = |channel: &Channel| channel.subscribers.load(Ordering::Relaxed);
            found.extend(channels.iter().map(|channel| (channel.number, subscribers(channel))));
        });
        let looked_at = 1 + tried + found.len();
        Audience { exact: self.exact(topic), channels: found, looked_at }
    }

    /// Returns the channels that an event of `topic` goes to, each once.
    pub(super) fn of(&self, topic: &Topic) -> Vec<Arc<Channel>> {
        let mut found: Vec<Arc<Channel>> = Vec::new();
        self.by_pattern.find(topic, |channels| found.extend(channels.iter().cloned()));
        found.sort_unstable_by_key(|channel| channel.number);
        found.dedup_by_key(|channel| channel.number);
        found
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
    fn the_last_batch_is_for_subscribers_that_miss_nothing_else() {
        let channel = Channel::new(1, 10);
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
        let channel = Channel::new(1, 0);
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
        let of = |channels: &Channels, name| channels.of(&topic(name)).len();
        assert_eq!((of(&channels, "a"), of(&channels, "b.c"), of(&channels, "c")), (2, 1, 0));
        channels.leave(&patterns("a b.*"));
        assert_eq!(of(&channels, "b.c"), 1);
        channels.leave(&patterns("a b.*"));
        assert_eq!((of(&channels, "a"), of(&channels, "b.c")), (1, 0));
        assert!(Arc::ptr_eq(&channels.of(&topic("a"))[0], &other));
        channels.leave(&patterns("a"));
        assert!(channels.by_patterns.is_empty() && channels.by_pattern.is_empty());
    }

    #[test]
    fn readers_are_counted_once_by_name_or_by_pattern() {
        let mut channels = Channels::default();
        for text in ["a.b", "a.b", "a.b a.* >", "a.* *.b a.>", ">", "a.c"] {
            channels.join(&patterns(text), 0);
        }
        let readers = |channels: &Channels, name| {
            let Readers { exact, by_pattern } = channels.audience(&topic(name)).count();
            (exact, by_pattern)
        };
        assert_eq!(readers(&channels, "a.b"), (3, 2));
        assert_eq!(readers(&channels, "a.c"), (1, 3));
        assert_eq!(readers(&channels, "b"), (0, 2));
        channels.leave(&patterns("a.b"));
        channels.leave(&patterns("a.* *.b a.>"));
        assert_eq!(readers(&channels, "a.b"), (2, 1));
    }

    #[test]
    fn a_channel_is_found_once_for_several_patterns_that_match() {
        let mut channels = Channels::default();
        channels.join(&patterns("a.b a.* *.b >"), 0);
        channels.join(&patterns("a.>"), 0);
        assert_eq!(channels.of(&topic("a.b")).len(), 2);
    }
}

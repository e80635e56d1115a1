//! Channels: what a publish has to wake. All subscribers of the same patterns share one, so a publish
//! costs what the subscribers of its own topic cost, and those of other topics sleep on.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use slab::Slab;

use super::{BATCH, Batch, Frame, Ring};
use crate::{
    event::Topic,
    pattern::{Pattern, Patterns},
};

/// How many sequence numbers a channel remembers at most.
const MAX_RECENT: usize = 8192;
/// How many subscribers are woken before others get a turn.
const WOKEN_AT_ONCE: usize = 64;

/// The subscribers of the same patterns.
#[derive(Debug)]
pub(super) struct Channel {
    recent: Mutex<Recent>,
    /// The sequence number of the newest event of these topics that subscribers may see.
    newest: Arc<AtomicU64>,
    waiting: Mutex<Slab<Waiting>>,
}

/// The newest events of the channel's topics.
#[derive(Debug)]
struct Recent {
    /// Their sequence numbers, oldest first.
    sequences: VecDeque<u64>,
    /// All that came after this one are there.
    complete_after: u64,
    /// What came last, and the newest sequence number before: what nearly all subscribers want next.
    latest: Option<(u64, Arc<Batch>)>,
}

/// A subscriber that has once waited.
#[derive(Debug)]
struct Waiting {
    waker: Waker,
    /// Whether it waits now.
    is_waiting: bool,
}

impl Channel {
    /// One that hears of what comes after that sequence number.
    fn new(newest: u64) -> Self {
        let recent = Recent { sequences: VecDeque::new(), complete_after: newest, latest: None };
        let newest = Arc::new(AtomicU64::new(newest));
        Self { recent: Mutex::new(recent), newest, waiting: Mutex::default() }
    }

    /// Remembers all that the ring has of these topics, so that those who come back after a cut need not
    /// all read the log.
    pub(super) fn remember(&self, topics: &Patterns, ring: &Ring) {
        let recent = &mut *lock(&self.recent);
        if recent.complete_after <= ring.complete_after() {
            return;
        }
        let older = ring.iter().map(|frame| frame.event()).filter(|event| {
            event.id.sequence <= recent.complete_after && topics.matches(&event.topic)
        });
        let newer = mem::take(&mut recent.sequences);
        recent.sequences = older.map(|event| event.id.sequence).chain(newer).collect();
        recent.complete_after = ring.complete_after();
    }

    /// The sequence number of the newest event of these topics that may be seen; of a later event of
    /// another topic, if none of these has come since the channel began.
    pub(super) fn newest(&self) -> &Arc<AtomicU64> {
        &self.newest
    }

    /// What came last, if it is all that came after that sequence number.
    pub(super) fn latest(&self, after: u64) -> Option<Arc<Batch>> {
        let recent = lock(&self.recent);
        let (before, batch) = recent.latest.as_ref()?;
        let first = batch.first()?.event().id.sequence;
        (*before <= after && after < first).then(|| Arc::clone(batch))
    }

    /// The events after that sequence number, at most `limit`; none if it does not remember that far.
    pub(super) fn after(&self, sequence: u64, limit: usize) -> Option<Vec<u64>> {
        let recent = lock(&self.recent);
        if sequence < recent.complete_after {
            return None;
        }
        let from = recent.sequences.partition_point(|&recent| recent <= sequence);
        Some(recent.sequences.range(from..).take(limit).copied().collect())
    }

    /// Remembers events.
    pub(super) fn push(&self, frames: &[Arc<Frame>]) {
        let Recent { sequences, complete_after, .. } = &mut *lock(&self.recent);
        sequences.extend(frames.iter().map(|frame| frame.event().id.sequence));
        while sequences.len() > MAX_RECENT
            && let Some(oldest) = sequences.pop_front()
        {
            *complete_after = oldest;
        }
    }

    /// Lets the subscribers see those events, which were the last to be pushed, and wakes them.
    pub(super) fn show(&self, frames: Vec<Arc<Frame>>) {
        let Some(newest) = frames.last().map(|last| last.event().id.sequence) else { return };
        let before = self.newest.load(Ordering::Acquire);
        let is_one_batch = BATCH.fits(&frames);
        let latest = is_one_batch.then(|| (before, Arc::new(Batch::new(frames))));
        lock(&self.recent).latest = latest;
        self.newest.store(newest, Ordering::Release);

        // Some at a time, so that those who are awake already need not wait for all to be woken.
        let mut from = 0;
        loop {
            let mut waiting = lock(&self.waiting);
            let to = (from + WOKEN_AT_ONCE).min(waiting.capacity());
            for key in from..to {
                if let Some(one) = waiting.get_mut(key)
                    && mem::take(&mut one.is_waiting)
                {
                    one.waker.wake_by_ref();
                }
            }
            if to == waiting.capacity() {
                return;
            }
            from = to;
        }
    }

    /// Wakes that subscriber when there is something newer; remembers it by a key. What has come until
    /// this returns may not wake it.
    pub(super) fn wait(&self, key: &mut Option<usize>, waker: &Waker) {
        let mut waiting = lock(&self.waiting);
        match key.and_then(|key| waiting.get_mut(key)) {
            Some(one) => {
                one.is_waiting = true;
                one.waker.clone_from(waker);
            }
            None => *key = Some(waiting.insert(Waiting { waker: waker.clone(), is_waiting: true })),
        }
    }

    /// Forgets that subscriber.
    pub(super) fn forget(&self, key: usize) {
        lock(&self.waiting).try_remove(key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics half-way through a change of what the locks hold.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All channels that have subscribers.
#[derive(Debug, Default)]
pub(super) struct Channels {
    joined: HashMap<Patterns, Joined>,
    /// Of each pattern that is a topic.
    of_topic: HashMap<Topic, Vec<Arc<Channel>>>,
    /// Of each other pattern.
    of_wildcard: Vec<(Pattern, Arc<Channel>)>,
}

#[derive(Debug)]
struct Joined {
    channel: Arc<Channel>,
    subscribers: usize,
}

impl Channels {
    /// A new subscriber of the channel of those patterns. If it is the first, the channel begins after
    /// that sequence number.
    pub(super) fn join(&mut self, patterns: &Patterns, newest: u64) -> Arc<Channel> {
        if let Some(joined) = self.joined.get_mut(patterns) {
            joined.subscribers += 1;
            return Arc::clone(&joined.channel);
        }
        let channel = Arc::new(Channel::new(newest));
        for pattern in patterns.iter() {
            match pattern.topic() {
                Some(topic) => self.of_topic.entry(topic).or_default().push(Arc::clone(&channel)),
                None => self.of_wildcard.push((pattern.clone(), Arc::clone(&channel))),
            }
        }
        let joined = Joined { channel: Arc::clone(&channel), subscribers: 1 };
        self.joined.insert(patterns.clone(), joined);
        channel
    }

    /// A subscriber of those patterns is gone.
    pub(super) fn leave(&mut self, patterns: &Patterns) {
        let Some(joined) = self.joined.get_mut(patterns) else { return };
        joined.subscribers -= 1;
        if joined.subscribers > 0 {
            return;
        }
        let Some(Joined { channel, .. }) = self.joined.remove(patterns) else { return };
        for topic in patterns.iter().filter_map(Pattern::topic) {
            if let Some(channels) = self.of_topic.get_mut(&topic) {
                channels.retain(|other| !Arc::ptr_eq(other, &channel));
                if channels.is_empty() {
                    self.of_topic.remove(&topic);
                }
            }
        }
        self.of_wildcard.retain(|(_, other)| !Arc::ptr_eq(other, &channel));
    }

    /// The channels that an event of that topic is for. One may come twice, by two patterns.
    pub(super) fn of(&self, topic: &Topic) -> impl Iterator<Item = &Arc<Channel>> {
        let wild = self.of_wildcard.iter().filter(|(pattern, _)| pattern.matches(topic));
        let exact = self.of_topic.get(topic).into_iter().flatten();
        exact.chain(wild.map(|(_, channel)| channel))
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
    fn remembers_what_comes_and_forgets_the_oldest() {
        let channel = Channel::new(10);
        assert_eq!(channel.after(9, 9), None);
        assert_eq!(channel.after(10, 9), Some(vec![]));
        channel.push(&frames([12, 15, 20]));
        assert_eq!(channel.after(10, 9), Some(vec![12, 15, 20]));
        assert_eq!(channel.after(13, 1), Some(vec![15]));
        assert_eq!(channel.after(25, 9), Some(vec![]));
        channel.push(&frames(100..100 + MAX_RECENT as u64));
        assert_eq!(channel.after(19, 9), None);
        assert_eq!(channel.after(20, 2), Some(vec![100, 101]));
    }

    #[test]
    fn what_the_ring_has_is_remembered_once_it_is_needed() {
        let mut ring = Ring::new(10);
        for frame in frames(11..=14) {
            ring.push(frame);
        }
        let channel = Channel::new(14);
        channel.push(&frames([15]));
        assert_eq!(channel.after(11, 9), None);
        channel.remember(&patterns("b"), &ring);
        assert_eq!(channel.after(11, 9), Some(vec![15]), "nothing of its topics");
        let channel = Channel::new(14);
        channel.push(&frames([15]));
        for _ in 0..2 {
            channel.remember(&patterns("a"), &ring);
            assert_eq!(channel.after(11, 9), Some(vec![12, 13, 14, 15]));
        }
        assert_eq!(channel.after(9, 9), None);
    }

    #[test]
    fn what_came_last_is_for_those_who_lack_nothing_else() {
        let channel = Channel::new(10);
        channel.show(frames([12]));
        channel.show(frames([15, 17]));
        for (after, expected) in [(11, false), (12, true), (14, true), (15, false), (17, false)] {
            assert_eq!(channel.latest(after).is_some(), expected, "{after}");
        }
        channel.show(frames(20..=20 + BATCH.count as u64));
        assert!(channel.latest(19).is_none(), "more than one batch");
    }

    #[test]
    fn only_who_waits_is_woken() {
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
    fn subscribers_of_the_same_patterns_share_a_channel_as_long_as_there_are_any() {
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
        assert!(channels.joined.is_empty() && channels.of_topic.is_empty());
    }
}

//! Channels: what a publish has to wake. All subscribers of the same patterns share one, so a publish
//! costs what the subscribers of its own topic cost, and those of other topics sleep on.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::Ring;
use crate::{
    event::Topic,
    pattern::{Pattern, Patterns},
};

/// How many sequence numbers a channel remembers at most.
const MAX_RECENT: usize = 8192;

/// The subscribers of the same patterns.
#[derive(Debug)]
pub(super) struct Channel {
    recent: Mutex<Recent>,
    /// The sequence number of the newest event of these topics that subscribers may see.
    newest: watch::Sender<u64>,
}

/// The newest events of the channel's topics.
#[derive(Debug)]
struct Recent {
    /// Their sequence numbers, oldest first.
    sequences: VecDeque<u64>,
    /// All that came after this one are there.
    complete_after: u64,
}

impl Channel {
    /// One that remembers what the ring has, so that those who come back after a cut need not all read
    /// the log.
    fn new(topics: &Patterns, ring: &Ring) -> Self {
        let of_topics = ring.iter().map(|frame| frame.event());
        let of_topics = of_topics.filter(|event| topics.matches(&event.topic));
        let sequences = of_topics.map(|event| event.id.sequence).collect();
        let recent = Recent { sequences, complete_after: ring.complete_after() };
        Self { recent: Mutex::new(recent), newest: watch::Sender::new(ring.newest()) }
    }

    /// Changes whenever there is a newer event.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The events after that sequence number, at most `limit`; none if it does not remember that far.
    pub(super) fn after(&self, sequence: u64, limit: usize) -> Option<Vec<u64>> {
        let recent = self.recent();
        if sequence < recent.complete_after {
            return None;
        }
        let from = recent.sequences.partition_point(|&recent| recent <= sequence);
        Some(recent.sequences.range(from..).take(limit).copied().collect())
    }

    /// Remembers an event. It may be told of twice in a row, by two patterns.
    pub(super) fn push(&self, sequence: u64) {
        let mut recent = self.recent();
        if recent.sequences.back() == Some(&sequence) {
            return;
        }
        recent.sequences.push_back(sequence);
        if recent.sequences.len() > MAX_RECENT
            && let Some(oldest) = recent.sequences.pop_front()
        {
            recent.complete_after = oldest;
        }
    }

    /// Wakes the subscribers: that event and those before it may be seen.
    pub(super) fn wake(&self, newest: u64) {
        self.newest.send_replace(newest);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // No code panics half-way through a change of what the lock holds.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// A new subscriber of the channel of those patterns. If it is the first, the channel begins with
    /// what the ring has.
    pub(super) fn join(&mut self, patterns: &Patterns, ring: &Ring) -> Arc<Channel> {
        if let Some(joined) = self.joined.get_mut(patterns) {
            joined.subscribers += 1;
            return Arc::clone(&joined.channel);
        }
        let channel = Arc::new(Channel::new(patterns, ring));
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
    use super::*;

    fn patterns(text: &str) -> Patterns {
        Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
    }

    fn topic(text: &str) -> Topic {
        text.parse().unwrap()
    }

    #[test]
    fn remembers_what_comes_and_forgets_the_oldest() {
        let channel = Channel::new(&patterns("a"), &Ring::new(10));
        assert_eq!(channel.after(9, 9), None);
        assert_eq!(channel.after(10, 9), Some(vec![]));
        for sequence in [12, 12, 15, 20] {
            channel.push(sequence);
        }
        assert_eq!(channel.after(10, 9), Some(vec![12, 15, 20]));
        assert_eq!(channel.after(13, 1), Some(vec![15]));
        assert_eq!(channel.after(25, 9), Some(vec![]));
        for sequence in 100..100 + MAX_RECENT as u64 {
            channel.push(sequence);
        }
        assert_eq!(channel.after(19, 9), None);
        assert_eq!(channel.after(20, 2), Some(vec![100, 101]));
    }

    #[test]
    fn subscribers_of_the_same_patterns_share_a_channel_as_long_as_there_are_any() {
        let mut channels = Channels::default();
        let ring = Ring::new(0);
        let first = channels.join(&patterns("a b.*"), &ring);
        let second = channels.join(&patterns("b.* a"), &ring);
        assert!(Arc::ptr_eq(&first, &second));
        let other = channels.join(&patterns("a"), &ring);
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

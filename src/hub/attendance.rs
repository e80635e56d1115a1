//! The numbers of subscribers that name the topics that are watched.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    event::Topic,
    pattern::{Pattern, Patterns},
};

/// Time for which a topic stays watched after another node has asked for it.
const LEASE: Duration = Duration::from_secs(10);
/// Maximum number of topics that are watched because other nodes ask for them.
const MAX_LEASES: usize = 10_000;

/// The subscribers that name a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attendance {
    /// Number of subscribers now.
    pub readers: usize,
    /// Time at which a subscriber has last come or gone; `None` if none has since the watch began.
    pub changed: Option<Instant>,
    /// Latest time at which another node had a subscriber; `None` if none is known.
    pub elsewhere: Option<Instant>,
}

impl Attendance {
    /// Returns the time since this node has last had a subscriber. Returns `None` if it had none
    /// since the watch began.
    fn absence(&self, now: Instant) -> Option<Duration> {
        if self.readers > 0 {
            return Some(Duration::ZERO);
        }
        self.changed.map(|changed| now.saturating_duration_since(changed))
    }
}

/// The topics that are watched.
#[derive(Debug, Default)]
pub(super) struct WatchedTopics {
    topics: HashMap<Topic, WatchedTopic>,
    /// Number of topics with a lease; at most [`MAX_LEASES`].
    leases: usize,
}

/// A topic that is watched.
#[derive(Debug)]
struct WatchedTopic {
    attendance: watch::Sender<Attendance>,
    /// Number of watches of this node.
    watches: usize,
    /// Time until which it is watched for other nodes.
    lease: Option<Instant>,
}

impl WatchedTopic {
    fn new(readers: usize) -> Self {
        let attendance = watch::Sender::new(Attendance { readers, ..Attendance::default() });
        Self { attendance, watches: 0, lease: None }
    }
}

impl WatchedTopics {
    /// Begins to watch a topic that has some readers now.
    pub(super) fn watch(&mut self, topic: &Topic, readers: usize) -> watch::Receiver<Attendance> {
        let watched = self.topics.entry(topic.clone());
        let watched = watched.or_insert_with(|| WatchedTopic::new(readers));
        watched.watches += 1;
        watched.attendance.subscribe()
    }

    /// Ends to watch a topic.
    pub(super) fn unwatch(&mut self, topic: &Topic) {
        if let Some(watched) = self.topics.get_mut(topic) {
            watched.watches -= 1;
            if watched.watches == 0 && watched.lease.is_none() {
                self.topics.remove(topic);
            }
        }
    }

    /// Watches a topic that has some readers now for another node, for some time. Returns the time
    /// since this node has last had a reader; `None` if it had none since the topic is watched.
    pub(super) fn lease(
        &mut self,
        topic: &Topic,
        readers: usize,
        now: Instant,
    ) -> Option<Duration> {
        let is_known = self.topics.contains_key(topic);
        if !is_known && self.leases >= MAX_LEASES {
            return (readers > 0).then_some(Duration::ZERO);
        }
        let watched = self.topics.entry(topic.clone());
        let watched = watched.or_insert_with(|| WatchedTopic::new(readers));
        if watched.lease.is_some() || self.leases < MAX_LEASES {
            self.leases += usize::from(watched.lease.is_none());
            watched.lease = Some(now + LEASE);
        }
        watched.attendance.borrow().absence(now)
    }

    /// Ends the leases that are over.
    pub(super) fn end_leases(&mut self, now: Instant) {
        if self.leases == 0 {
            return;
        }
        let leases = &mut self.leases;
        self.topics.retain(|_, watched| {
            if watched.lease.is_some_and(|end| end <= now) {
                watched.lease = None;
                *leases -= 1;
            }
            watched.watches > 0 || watched.lease.is_some()
        });
    }

    /// Returns `true` if no topic is watched.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Returns the topics that this node watches for itself.
    pub(super) fn own(&self) -> Vec<Topic> {
        let own = self.topics.iter().filter(|(_, watched)| watched.watches > 0);
        own.map(|(topic, _)| topic.clone()).collect()
    }

    /// Notes that another node had a subscriber at some time.
    pub(super) fn note_elsewhere(&self, topic: &Topic, time: Instant) {
        let Some(watched) = self.topics.get(topic) else { return };
        watched.attendance.send_if_modified(|attendance| {
            let is_later = attendance.elsewhere.is_none_or(|known| known < time);
            if is_later {
                attendance.elsewhere = Some(time);
            }
            is_later
        });
    }

    /// Notes that a subscriber has come.
    pub(super) fn join(&self, patterns: &Patterns) {
        self.change(patterns, |readers| readers + 1);
    }

    /// Notes that a subscriber has left.
    pub(super) fn leave(&self, patterns: &Patterns) {
        self.change(patterns, |readers| readers - 1);
    }

    fn change(&self, patterns: &Patterns, change: impl Fn(usize) -> usize) {
        if self.topics.is_empty() {
            return;
        }
        for topic in patterns.iter().filter_map(Pattern::topic) {
            if let Some(watched) = self.topics.get(&topic) {
                watched.attendance.send_modify(|attendance| {
                    attendance.readers = change(attendance.readers);
                    attendance.changed = Some(Instant::now());
                });
            }
        }
    }
}

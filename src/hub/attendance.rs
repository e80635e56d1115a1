//! The numbers of subscribers that name the topics that are watched.

use std::collections::HashMap;

use tokio::sync::watch;

use crate::{
    event::Topic,
    pattern::{Pattern, Patterns},
};

/// The subscribers that name a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attendance {
    /// Number of subscribers now.
    pub readers: usize,
    /// Number of subscribers that have come since the watch began.
    pub arrivals: u64,
}

/// The topics that are watched.
#[derive(Debug, Default)]
pub(super) struct WatchedTopics(pub(super) HashMap<Topic, WatchedTopic>);

/// A topic that is watched.
#[derive(Debug)]
pub(super) struct WatchedTopic {
    attendance: watch::Sender<Attendance>,
    watches: usize,
}

impl WatchedTopics {
    /// Begins to watch a topic that has some readers now.
    pub(super) fn watch(&mut self, topic: &Topic, readers: usize) -> watch::Receiver<Attendance> {
        let watched = self.0.entry(topic.clone()).or_insert_with(|| {
            let attendance = watch::Sender::new(Attendance { readers, arrivals: 0 });
            WatchedTopic { attendance, watches: 0 }
        });
        watched.watches += 1;
        watched.attendance.subscribe()
    }

    /// Ends to watch a topic.
    pub(super) fn unwatch(&mut self, topic: &Topic) {
        if let Some(watched) = self.0.get_mut(topic) {
            watched.watches -= 1;
            if watched.watches == 0 {
                self.0.remove(topic);
            }
        }
    }

    /// Notes that a subscriber has come.
    pub(super) fn join(&self, patterns: &Patterns) {
        self.change(patterns, |attendance| {
            attendance.readers += 1;
            attendance.arrivals += 1;
        });
    }

    /// Notes that a subscriber has left.
    pub(super) fn leave(&self, patterns: &Patterns) {
        self.change(patterns, |attendance| attendance.readers -= 1);
    }

    fn change(&self, patterns: &Patterns, change: impl Fn(&mut Attendance)) {
        if self.0.is_empty() {
            return;
        }
        for topic in patterns.iter().filter_map(Pattern::topic) {
            if let Some(watched) = self.0.get(&topic) {
                watched.attendance.send_modify(&change);
            }
        }
    }
}

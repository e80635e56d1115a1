//! Retention: the events that a log keeps.

use std::time::Duration;

use crate::event::Topic;

/// Maximum number of kept events of the built-in load topic: half a minute at the highest rate,
/// which is the slowest polling of `/compare`. The load must not push out other events.
const LOAD_COUNT: usize = 36_000;

/// Lower bounds of the events that a log keeps. The oldest events are dropped first, some time
/// after they exceed a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Number of events of each topic.
    pub count: usize,
    /// Number of events of the topic `clock`, which are of little use later.
    pub clock_count: usize,
    /// Age of an event.
    pub age: Duration,
    /// Approximate size of all events, in bytes. It takes precedence over the other bounds. Topics
    /// and their ends do not count: their number is bounded.
    pub bytes: usize,
    /// Number of topics that have events. Events of further topics are rejected.
    pub topics: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: 100_000,
            clock_count: 3600,
            age: Duration::from_secs(24 * 60 * 60),
            bytes: 1 << 30,
            topics: 10_000,
        }
    }
}

impl Retention {
    /// Returns the number of events that are kept of `topic`.
    pub fn count_of(&self, topic: &Topic) -> usize {
        match topic.as_str() {
            Topic::CLOCK => self.clock_count,
            Topic::LOAD => self.count.min(LOAD_COUNT),
            _ => self.count,
        }
    }
}

//! Where accepted events are kept, in sequence order, within retention.

mod memory;

use std::{pin::Pin, sync::Arc, time::Duration};

pub use memory::MemoryLog;

use crate::{
    event::{Event, Name, Topic},
    id::Epoch,
    pattern::Patterns,
    timestamp::Timestamp,
};

/// What a log answers with, later.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send + 'a>>;

/// A home of accepted events.
pub trait Log: Send + Sync + 'static {
    /// What the log holds now.
    fn bounds(&self) -> Bounds;

    /// The sequence number of the newest event of those topics that is no longer kept; 0 if all are.
    fn dropped(&self, topics: &Patterns) -> u64;

    /// Appends events, all or none, and answers with them once they are durable. The order of the
    /// calls is the order in the log.
    ///
    /// # Errors
    ///
    /// If they could not be made durable.
    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Event>>;

    /// Reads events of those topics after the sequence number `after`, oldest first, of those that are
    /// kept: as many as are within `limit`, but at least one if there is one.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> LogFuture<'a, Vec<Event>>;

    /// Reads the latest events of those topics, at most `limit`, oldest first.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn latest<'a>(&'a self, topics: &'a Patterns, limit: usize) -> LogFuture<'a, Vec<Event>>;
}

/// How much is read at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// How many events.
    pub count: usize,
    /// How many bytes of data.
    pub bytes: usize,
}

/// How much a log keeps. What is older goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many events of a topic.
    pub count: usize,
    /// How many ticks of the clock: fewer, since they are of little use later.
    pub clock_count: usize,
    /// How long.
    pub age: Duration,
    /// About how many bytes in all.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { count: 100_000, clock_count: 3600, age: Duration::from_hours(24), bytes: 1 << 30 }
    }
}

impl Retention {
    /// How many events of that topic.
    pub fn count_of(&self, topic: &Topic) -> usize {
        if *topic == Topic::clock() { self.clock_count } else { self.count }
    }
}

/// What a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// This life of the log.
    pub epoch: Epoch,
    /// The sequence number before that of the oldest event kept.
    pub start: u64,
    /// The sequence number of the newest event; equal to `start` if none is kept.
    pub newest: u64,
}

/// An event that is not in the log yet, and so has no id.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What it is about.
    pub topic: Topic,
    /// What it is called.
    pub name: Name,
    /// What happened.
    pub data: String,
    /// When the server accepted it.
    pub time: Timestamp,
}

/// The log could not do what it was asked to. Its source says why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log failed")]
pub struct LogError(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl LogError {
    /// For that reason.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(reason.into().into())
    }
}

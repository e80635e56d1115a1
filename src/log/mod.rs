//! Where accepted events are kept, in sequence order, within retention: in a file, or in memory.

mod file;
mod memory;
mod topics;

#[cfg(test)]
mod conformance;

use std::{pin::Pin, sync::Arc, time::Duration};

pub use file::{FileLog, OpenError};
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
    /// An event that a [`read`](Self::read) did not find, since it was dropped, is counted in by the
    /// time that the read is over.
    fn dropped(&self, topics: &Patterns) -> u64;

    /// Appends events, all that are not refused or none, and answers for each, in their order, once
    /// they are durable. The order of the calls is the order in the log.
    ///
    /// # Errors
    ///
    /// If they could not be made durable.
    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Result<Appended, Refused>>>;

    /// Reads events of those topics after the sequence number `after`, oldest first, of those that are
    /// kept: as many as are within `limit`, or fewer, but at least one if there is one.
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

/// How many events of the built-in load are kept at most: those of half a minute, which is as seldom as
/// `/compare` polls, at the highest rate. It is not to push out what matters.
const LOAD_COUNT: usize = 36_000;

/// How much a log keeps, at least; somewhat more until it is tidied up. What is older goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many events of a topic.
    pub count: usize,
    /// How many ticks of the clock: fewer, since they are of little use later.
    pub clock_count: usize,
    /// How long.
    pub age: Duration,
    /// About how many bytes in all. What is beyond is dropped, whatever the rest says.
    pub bytes: usize,
    /// How many topics that have events. Events of further ones are refused.
    pub topics: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: 100_000,
            clock_count: 3600,
            age: Duration::from_hours(24),
            bytes: 1 << 30,
            topics: 10_000,
        }
    }
}

impl Retention {
    /// How many events of that topic.
    pub fn count_of(&self, topic: &Topic) -> usize {
        match topic.as_str() {
            Topic::CLOCK => self.clock_count,
            Topic::LOAD => self.count.min(LOAD_COUNT),
            _ => self.count,
        }
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
    /// By what it is known if it is sent again.
    pub key: Option<IdempotencyKey>,
}

/// What a publisher gives an event, so that sending it again does not publish it again. It is kept
/// with the event, and as long. Each publisher has its own keys, and each topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Who publishes.
    pub publisher: String,
    /// What they call it.
    pub key: String,
}

/// An event that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It was not before.
    New(Event),
    /// It was: it has come with the same key before, with the same name and data.
    Known(Event),
}

/// Why an event is not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its key has come with another event before, of another name or data.
    #[error("the key was used for another event")]
    KeyTaken,
    /// There are as many topics as there may be.
    #[error("there are too many topics")]
    TooManyTopics,
}

/// The log could not do what it was asked to. Its source says why.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// There is no room on the disk. There may be later.
    #[error("the disk is full")]
    Full,
    /// Anything else.
    #[error("the log failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl LogError {
    /// For that reason.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(reason.into().into())
    }
}

//! The event log: accepted events in sequence order, within [`Retention`].
//!
//! [`MemoryLog`] lives as long as the process. `SqliteLog` (feature `sqlite`) is durable.
//!
//! ```
//! use waterclock::{
//!     Draft, EventLog, MemoryLog, Retention, Timestamp,
//!     event_log::ReadLimit, id::Epoch,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let log = MemoryLog::new(Epoch::random(), Retention::default());
//! let draft = Draft::new("orders.eu".parse()?, "order 7");
//! let appended = log.append(vec![draft], Timestamp::now()).await?;
//! assert_eq!(appended[0].as_ref().map(|appended| appended.event.id.sequence), Ok(1));
//!
//! let limit = ReadLimit { count: 100, bytes: 1 << 20 };
//! let orders = "orders.>".parse::<waterclock::Pattern>()?.into();
//! let events = log.read(&orders, 0, limit).await?;
//! assert_eq!(events[0].data, "order 7");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod topics;

#[cfg(test)]
mod conformance;

use std::{pin::Pin, sync::Arc, time::Duration};

pub use memory::MemoryLog;
#[cfg(feature = "sqlite")]
pub use sqlite::{OpenError, SqliteLog};

use crate::{
    event::{Draft, Event, Topic},
    id::Epoch,
    pattern::Patterns,
    timestamp::Timestamp,
};

/// A future of an [`EventLog`]'s methods, boxed, so that the trait can be used as `dyn EventLog`.
pub type EventLogFuture<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, EventLogError>> + Send + 'a>>;

/// A store of accepted events.
pub trait EventLog: Send + Sync + 'static {
    /// Returns the range of events that the log holds now.
    fn bounds(&self) -> Bounds;

    /// Returns the sequence number of the newest dropped event of the topics; 0 if all are kept.
    ///
    /// An event that a [`read`](Self::read) missed because it was dropped is counted by the time
    /// that the read returns.
    fn dropped(&self, topics: &Patterns) -> u64;

    /// Appends the events that are not rejected, and returns one result for each draft, in their
    /// order, as soon as the events are durable. The order of the calls is the order in the log.
    ///
    /// # Errors
    ///
    /// If the events could not be made durable. Then none of them is appended.
    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>>;

    /// Reads events of the topics after the sequence number `after`, oldest first, within `limit`.
    ///
    /// May return fewer events than `limit` allows, but returns at least one if any is kept.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>>;

    /// Reads the newest events of the topics, at most `limit`, oldest first.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn latest<'a>(&'a self, topics: &'a Patterns, limit: usize) -> EventLogFuture<'a, Vec<Event>>;
}

/// Maximum size of one read. The first event is returned even if it is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Number of events.
    pub count: usize,
    /// Bytes of data.
    pub bytes: usize,
}

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
    /// Approximate size of all events, in bytes. It takes precedence over the other bounds.
    pub bytes: usize,
    /// Number of topics that have events. Events of further topics are rejected.
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
    /// Returns the number of events that are kept of `topic`.
    pub fn count_of(&self, topic: &Topic) -> usize {
        match topic.as_str() {
            Topic::CLOCK => self.clock_count,
            Topic::LOAD => self.count.min(LOAD_COUNT),
            _ => self.count,
        }
    }
}

/// The range of events that a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The current life of the log.
    pub epoch: Epoch,
    /// The sequence number before that of the oldest kept event.
    pub start: u64,
    /// The sequence number of the newest event; equal to `start` if no event is kept.
    pub newest: u64,
}

/// A draft that the log has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The event in the log.
    pub event: Event,
    /// `true` if an earlier draft with the same key, name and data had already added the event.
    pub is_duplicate: bool,
}

/// A reason for which the log rejects a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// An event with another name or other data has the same key.
    #[error("the key was used for another event")]
    KeyReused,
    /// The topic limit is reached.
    #[error("there are too many topics")]
    TooManyTopics,
}

/// A failed operation of the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventLogError {
    /// The disk is full. A later attempt may succeed.
    #[error("the disk is full")]
    DiskFull,
    /// Any other failure.
    #[error("the event log failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl EventLogError {
    /// Creates a [`Failed`](Self::Failed) with `source`.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(source.into().into())
    }
}

//! Where accepted events are kept, in sequence order, within retention.

mod memory;

use std::pin::Pin;

pub use memory::MemoryLog;

use crate::{
    event::{Event, Name, Topic},
    id::Epoch,
    timestamp::Timestamp,
};

/// What a log answers with, later.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send + 'a>>;

/// A home of accepted events.
pub trait Log: Send + Sync + 'static {
    /// What the log holds now.
    fn bounds(&self) -> Bounds;

    /// Appends events, all or none, and answers with them once they are durable. The order of the
    /// calls is the order in the log.
    ///
    /// # Errors
    ///
    /// If they could not be made durable.
    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Event>>;

    /// Reads at most `limit` events after the sequence number `after`, oldest first.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn read(&self, after: u64, limit: usize) -> LogFuture<'_, Read>;
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

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The events; none if there are no newer ones.
    Events(Vec<Event>),
    /// Events after that place are no longer kept; reading can go on after `start`.
    Expired {
        /// The sequence number before that of the oldest event kept.
        start: u64,
    },
}

/// The log could not do what it was asked to. Its source says why.
#[derive(Debug, thiserror::Error)]
#[error("the log failed")]
pub struct LogError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl LogError {
    /// For that reason.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

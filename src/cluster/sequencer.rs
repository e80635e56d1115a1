//! The trait of the engine that decides on the order of entries.

use std::{pin::Pin, sync::Arc};

use crate::timestamp::Timestamp;

/// A future of a [`Sequencer`]'s methods, boxed, so that the trait can be used as `dyn Sequencer`.
pub type SequencerFuture<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, SequencerError>> + Send + 'a>>;

/// An engine that gives entries of all nodes one order, and stores them on several disks.
pub trait Sequencer: Send + Sync + 'static {
    /// Returns the stream of the entries and its bounds now.
    ///
    /// # Errors
    ///
    /// If the engine cannot be reached.
    fn bounds(&self) -> SequencerFuture<'_, OrderBounds>;

    /// Adds an entry, and returns its position once it is on the disks of a majority.
    ///
    /// # Errors
    ///
    /// If the entry was not added, or may not have been.
    fn propose(&self, entry: Vec<u8>, kind: EntryKind) -> SequencerFuture<'_, u64>;

    /// Begins to read the entries after a position, in order, each once it is on the disks of a
    /// majority.
    ///
    /// # Errors
    ///
    /// If the engine cannot be reached.
    fn follow(&self, after: u64) -> SequencerFuture<'_, Box<dyn Entries>>;

    /// Reads the bytes of an entry. Returns `None` if there is none at that position.
    ///
    /// # Errors
    ///
    /// If the engine cannot be reached.
    fn entry(&self, position: u64) -> SequencerFuture<'_, Option<Vec<u8>>>;

    /// Reads the entries of the kind [`EntryKind::Snapshot`], in order.
    ///
    /// # Errors
    ///
    /// If the engine cannot be reached.
    fn snapshots(&self) -> SequencerFuture<'_, Vec<RawEntry>>;

    /// Removes the entries up to a position, which no node needs any more.
    ///
    /// # Errors
    ///
    /// If the engine cannot be reached.
    fn trim(&self, up_to: u64) -> SequencerFuture<'_, ()>;

    /// Returns the maximum size of an entry, in bytes.
    fn max_entry(&self) -> usize;

    /// Returns the way to the other nodes. Without one, which is the default, each node knows its
    /// own readers only.
    fn messenger(&self) -> Option<Box<dyn Messenger>> {
        None
    }
}

/// A way to send messages between nodes, beside the order. They may get lost.
pub trait Messenger: Send + Sync + 'static {
    /// Sends a message to all nodes, this one among them, or to the node with a name. A name
    /// consists of hexadecimal digits. Does not wait for its arrival.
    ///
    /// # Errors
    ///
    /// If the message cannot be sent. [`SequencerError::Denied`] if the engine forbids messages.
    fn tell<'a>(&'a self, to: Option<&'a str>, message: Vec<u8>) -> SequencerFuture<'a, ()>;

    /// Begins to receive the messages to all nodes, and those to the node with a name.
    ///
    /// # Errors
    ///
    /// If they cannot be received. [`SequencerError::Denied`] if the engine forbids it.
    fn listen<'a>(&'a self, name: &'a str) -> SequencerFuture<'a, Box<dyn Messages>>;
}

/// Messages of nodes. Each has less than 512 KiB.
pub trait Messages: Send {
    /// Waits for the next message. Cancel safe: dropping the future loses no message.
    ///
    /// # Errors
    ///
    /// If the engine no longer sends them. [`SequencerError::Denied`] if it forbids them.
    fn next(&mut self) -> SequencerFuture<'_, Vec<u8>>;
}

/// The kind of an entry that is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The first entry. The order must have none yet.
    First,
    /// A part of a snapshot, which is found again by its kind.
    Snapshot,
    /// Any other one.
    Other,
}

/// Entries that are read in order.
pub trait Entries: Send {
    /// Waits for the next entry. Cancel safe: dropping the future loses no entry.
    ///
    /// # Errors
    ///
    /// If the engine no longer sends them.
    fn next(&mut self) -> SequencerFuture<'_, RawEntry>;
}

/// An entry as the engine stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// Its position, from 1.
    pub position: u64,
    /// The time at which the engine has accepted it.
    pub time: Timestamp,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The entries that the engine holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBounds {
    /// Identification of their stream, which a stream that replaces it does not have.
    pub stream: String,
    /// The position of the first entry that is kept.
    pub first: u64,
    /// The position of the last entry; 0 if there was none.
    pub last: u64,
}

/// A failed operation of the engine.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SequencerError {
    /// The engine cannot be reached, or refuses now. An entry was not added.
    #[error("{0}")]
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
    /// The engine may or may not have added the entry.
    #[error("{0}")]
    Unconfirmed(Arc<dyn std::error::Error + Send + Sync>),
    /// The order has entries already.
    #[error("the order has begun")]
    Begun,
    /// The engine does not permit it.
    #[error("{0}")]
    Denied(Arc<dyn std::error::Error + Send + Sync>),
}

impl SequencerError {
    /// Creates an [`Unavailable`](Self::Unavailable) with `source`.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into().into())
    }

    /// Creates an [`Unconfirmed`](Self::Unconfirmed) with `source`.
    pub fn unconfirmed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unconfirmed(source.into().into())
    }

    /// Creates a [`Denied`](Self::Denied) with `source`.
    pub fn denied(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Denied(source.into().into())
    }
}

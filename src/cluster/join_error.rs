//! The reasons for which a node cannot join its cluster.

use super::sequencer::SequencerError;
use crate::event_log::{EventLogError, OpenError, Retention, SettleError, entry::NewerEntry};

/// A reason for which a node cannot join its cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The cluster cannot be reached, and the node has nothing to serve yet.
    #[error("the cluster cannot be reached: {0}")]
    Unreachable(SequencerError),
    /// The cluster has changed while the node joined: it must start again.
    #[error("the node must start again: {0}")]
    StartAgain(EventLogError),
    /// The nodes have different settings.
    #[error(
        "the cluster keeps other events ({cluster:?}) than this node would ({node:?}): \
         use the same options on all nodes"
    )]
    Retention {
        /// The retention of the cluster.
        cluster: Box<Retention>,
        /// The retention in this node's options.
        node: Box<Retention>,
    },
    /// The cluster has removed entries, and has no snapshot in their place.
    #[error(
        "the cluster's stream begins with entry {first} and has no snapshot: its entries were \
         removed by something else"
    )]
    NoSnapshot {
        /// The position of the first entry.
        first: u64,
    },
    /// The cluster has begun without the log of this node.
    #[error(
        "the cluster has begun already, so the log in this data folder cannot become its \
         beginning: start the node with an empty data folder. The events stay where they are"
    )]
    HasBegun,
    /// Another log is being imported.
    #[error(
        "another log is becoming the beginning of the cluster: start this node with an empty data \
         folder. The events stay where they are"
    )]
    OtherImport,
    /// The log of another node is being imported, and no more of it arrives.
    #[error(
        "the cluster has a part of the log of a single process, and no more of it arrives: start \
         the node again that has this log, or delete the cluster's stream"
    )]
    Importing,
    /// No node has begun, and this one has no log to begin with.
    #[error(
        "the cluster has not begun, and the data folder has no log to begin with: check \
         --data-dir, or leave out --cluster-import"
    )]
    NothingToImport,
    /// The log of a single process could not be imported in time.
    #[error(
        "the log is not yet the beginning of the cluster, and starting the node again goes on \
         with it: {0}"
    )]
    Import(EventLogError),
    /// A later version has written an entry.
    #[error(transparent)]
    Newer(#[from] NewerEntry),
    /// A snapshot does not fit to the mirror.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The mirror cannot be replaced.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The mirror cannot be written.
    #[error("the node cannot follow the cluster: {0}")]
    EventLog(#[from] EventLogError),
}

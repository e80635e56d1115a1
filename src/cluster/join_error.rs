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

//! Several nodes with one order of events.
//!
//! A [`Sequencer`] decides on the order and keeps it on the disks of a majority. A [`ClusterLog`]
//! is the event log of one node: it proposes what its hub appends, and applies all entries of the
//! order to a log of its own, the mirror, from which it serves all reads. So no read crosses the
//! network, and a cursor of one node is good at every other.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `sequencer` | the trait of the engine that orders and stores the entries |
//! | `log` | the event log of a node: it proposes, and serves reads from the mirror |
//! | `node` | the parts that it shares with its tasks |
//! | `doubts` | the comparison with the engine after nodes were seen to differ |
//! | `follower` | the task that applies the entries to the mirror |
//! | `follow_error` | the reasons for which it cannot follow |
//! | `joining` | the start of a node from a snapshot |
//! | `peers` | the questions of nodes about each other's readers |
//! | `import` | the log of one process becomes the beginning of the order |
//! | `trimming` | the removal of entries that no node needs, after a snapshot |
//! | `status` | what a node knows of the cluster |

mod doubts;
mod follow_error;
mod follower;
mod import;
mod join_error;
mod joining;
mod log;
mod node;
mod peers;
mod sequencer;
#[cfg(test)]
mod simulation;
mod status;
mod trimming;

pub use join_error::JoinError;
pub use log::{ClusterLog, NodeSettings};
pub use sequencer::{
    Entries, EntryKind, Messages, Messenger, OrderBounds, RawEntry, Sequencer, SequencerError,
    SequencerFuture,
};
pub use status::ClusterStatus;

//! The parts of a node that its log and its tasks share.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use super::{follow_error::FollowError, peers::Peers, sequencer::Sequencer, status::ClusterStatus};
use crate::event_log::{
    EventLogError, SharedChanges, SqliteLog,
    entry::{EntryOutcome, Mirrored, OrderPlace},
};

/// A node of a cluster.
pub(super) struct Node {
    pub mirror: SqliteLog,
    pub sequencer: Box<dyn Sequencer>,
    /// The other nodes, if this one can reach them.
    pub peers: Option<Arc<Peers>>,
    pub changes: Arc<SharedChanges>,
    pub status: watch::Sender<ClusterStatus>,
    pub name: String,
    /// Identification of this life of the process, as the sender of proposals.
    pub sender: String,
    /// The proposal that waits for its outcome.
    pub waiting: Mutex<Option<(u64, oneshot::Sender<EntryOutcome>)>>,
    /// The number of the last proposal. Held until its outcome is known or given up, since a
    /// proposal that arrives after a later one counts as lost.
    pub proposing: tokio::sync::Mutex<u64>,
    /// A time until which the mirror had all accepted entries. Held while the node asks.
    pub caught_up: tokio::sync::Mutex<Option<Instant>>,
    /// The place up to which another node has seen other entries.
    pub doubt: Mutex<OrderPlace>,
    /// Notified of each doubt.
    pub doubted: Notify,
    /// Time in which a publish must reach the cluster.
    pub timeout: Duration,
}

impl Node {
    /// Returns the part of the order that the mirror has applied.
    pub fn mirrored(&self) -> Mirrored {
        self.mirror.mirrored().unwrap_or_default()
    }

    /// Ends to follow the order, for a reason that does not pass.
    pub async fn end(&self, error: &FollowError) {
        // Also the next start must know it.
        if matches!(error, FollowError::Ahead)
            && let Err(error) = self.mirror.leave().await
        {
            tracing::error!("the loss of entries could not be noted: {error}");
        }
        let needs_restart = error.needs_restart();
        if needs_restart {
            tracing::warn!("the node must start again: {error}");
        } else {
            tracing::error!("the node cannot follow its cluster: {error}");
        }
        let failure = Some(Arc::new(EventLogError::new(error.to_string())));
        self.status.send_modify(|status| {
            status.is_connected = false;
            status.failure = failure;
            status.needs_restart = needs_restart;
        });
    }
}

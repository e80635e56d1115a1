//! What a node knows of the cluster.

use std::sync::Arc;

use crate::event_log::EventLogError;

/// The state of a node in its cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterStatus {
    /// `true` while the node receives the entries of the order.
    pub is_connected: bool,
    /// The position of the last applied entry.
    pub applied: u64,
    /// The position of the last entry that the node has heard of.
    pub last: u64,
    /// The reason for which the last proposal has failed; `None` since the cluster has accepted an
    /// entry of any node, or since the node has connected to it again.
    pub refusal: Option<EventLogError>,
    /// The reason for which the node has stopped to follow for good.
    pub failure: Option<Arc<EventLogError>>,
    /// `true` if the node can follow again after a restart.
    pub needs_restart: bool,
}

impl ClusterStatus {
    /// Returns the number of entries by which the node lags.
    pub fn lag(&self) -> u64 {
        self.last.saturating_sub(self.applied)
    }
}

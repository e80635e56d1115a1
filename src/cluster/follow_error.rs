//! The reasons for which a node cannot follow the order.

use std::time::Duration;

use tokio::time::timeout;

use super::sequencer::SequencerError;
use crate::event_log::{EventLogError, entry::NewerEntry};

/// Time in which the engine must answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A reason for which the follower does not follow.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("the cluster cannot be reached: {0}")]
    Sequencer(#[from] SequencerError),
    #[error("the cluster does not answer")]
    Silent,
    #[error("the cluster has entries that it does not send")]
    Stalled,
    #[error("the node cannot write its event log: {0}")]
    EventLog(#[from] EventLogError),
    #[error("the node's event log has stopped")]
    Stopped,
    #[error("the cluster's stream is not the one that this node has followed")]
    OtherStream,
    #[error("the cluster's stream has lost entries that this node has applied")]
    Ahead,
    #[error("the cluster does not know yet all entries that this node has applied")]
    Short,
    #[error("the cluster's stream no longer has the entries that this node needs next")]
    TooFarBehind,
    #[error(transparent)]
    Newer(#[from] NewerEntry),
    #[error("the cluster has begun a new epoch")]
    NewEpoch,
}

impl FollowError {
    /// Returns `true` if the node can follow again after a restart, maybe with a new mirror.
    pub fn needs_restart(&self) -> bool {
        self.needs_new_mirror() || matches!(self, Self::NewEpoch)
    }

    /// Returns `true` if the mirror does not fit to the cluster's stream.
    pub fn needs_new_mirror(&self) -> bool {
        matches!(self, Self::OtherStream | Self::Ahead | Self::TooFarBehind)
    }

    /// Returns `true` if a later attempt may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Sequencer(_) | Self::Silent | Self::Stalled | Self::Short | Self::EventLog(_)
        )
    }
}

/// Waits for an answer of the engine.
pub(super) async fn answer<T>(
    answer: impl Future<Output = Result<T, SequencerError>>,
) -> Result<T, FollowError> {
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(FollowError::Silent),
    }
}

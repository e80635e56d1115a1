//! The removal of entries that no node needs any more. A snapshot takes their place.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{node::Node, sequencer::SequencerError};
use crate::{
    event_log::{EventLogError, entry::Entry},
    id::Epoch,
};

/// Mean interval at which a node looks for entries to remove. It is random, so that the nodes look
/// at different times.
const INTERVAL: Duration = Duration::from_secs(60);
/// Number of parts whose texts would fill an entry. The text is JSON, and as a string in JSON it
/// may take twice as much.
const PARTS_PER_ENTRY: usize = 3;

/// A reason for which no entries were removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrimError {
    #[error(transparent)]
    Sequencer(#[from] SequencerError),
    #[error(transparent)]
    EventLog(#[from] EventLogError),
}

/// Removes entries now and then, until the future is dropped.
pub(super) async fn run(node: Arc<Node>) {
    loop {
        sleep(INTERVAL.mul_f64(0.5 + fastrand::f64())).await;
        if !node.status.borrow().is_connected {
            continue;
        }
        match trim(&node).await {
            Ok(Some(up_to)) => tracing::info!(up_to, "removed entries that no node needs"),
            Ok(None) => {}
            Err(error) => tracing::warn!("the cluster's entries could not be trimmed: {error}"),
        }
    }
}

/// Adds a snapshot, and removes the entries up to its base, if these are many. Returns the position
/// of the last of them.
pub(super) async fn trim(node: &Node) -> Result<Option<u64>, TrimError> {
    let first = node.sequencer.bounds().await?.first;
    let Some(snapshot) = node.mirror.snapshot(first).await? else { return Ok(None) };
    let id = Epoch::random().to_string();
    for part in snapshot.split(&id, node.sequencer.max_entry() / PARTS_PER_ENTRY) {
        node.propose(Entry::Snapshot(part)).await?;
    }
    let up_to = snapshot.base.place.position;
    node.sequencer.trim(up_to).await?;
    Ok(Some(up_to))
}

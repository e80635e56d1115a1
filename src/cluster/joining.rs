//! The start of a node whose entries the cluster no longer has: from a snapshot.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    join_error::JoinError,
    sequencer::{RawEntry, Sequencer, SequencerError},
};
use crate::event_log::{
    SqliteLog,
    entry::{Entry, Sequenced, Snapshot},
};

/// Time in which the next entry must arrive.
const ENTRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of times that the entries may fail to arrive.
const MAX_FAILURES: usize = 10;

/// Fills an empty mirror up to the place of the newest snapshot.
///
/// # Errors
///
/// If the cluster cannot be reached, or has no snapshot after the entries that it has removed.
pub(super) async fn start_from_snapshot(
    mirror: SqliteLog,
    sequencer: &dyn Sequencer,
    stream: String,
    first: u64,
) -> Result<SqliteLog, JoinError> {
    let raw = sequencer.snapshots().await.map_err(JoinError::Unreachable)?;
    let parts = raw.iter().filter_map(|raw| match decode(raw).ok()?.proposal.entry {
        Entry::Snapshot(part) => Some(part),
        _ => None,
    });
    let fitting = Snapshot::collect(parts)
        .into_iter()
        .filter(|snapshot| snapshot.base.place.position + 1 >= first)
        .max_by_key(|snapshot| snapshot.at.place.position);
    let Some(snapshot) = fitting.map(Arc::new) else { return Err(JoinError::NoSnapshot { first }) };
    let (base, at) = (snapshot.base.place.position, snapshot.at.place.position);
    tracing::info!(base, at, "the node begins with a snapshot");
    mirror.load(Arc::clone(&snapshot), stream).await?;
    let mut failures = 0;
    while let Err(error) = follow(&mirror, sequencer, at).await {
        failures += 1;
        if failures == MAX_FAILURES || !matches!(error, JoinError::Unreachable(_)) {
            return Err(error);
        }
    }
    Ok(mirror.settle(snapshot).await?)
}

/// Applies entries up to the position `at`.
async fn follow(mirror: &SqliteLog, sequencer: &dyn Sequencer, at: u64) -> Result<(), JoinError> {
    let position = || mirror.mirrored().unwrap_or_default().place.position;
    let silent = |elapsed| JoinError::Unreachable(SequencerError::unavailable(elapsed));
    let entries = timeout(ENTRY_TIMEOUT, sequencer.follow(position())).await.map_err(silent)?;
    let mut entries = entries.map_err(JoinError::Unreachable)?;
    while position() < at {
        let raw = timeout(ENTRY_TIMEOUT, entries.next()).await.map_err(silent)?;
        let raw = raw.map_err(JoinError::Unreachable)?;
        mirror.apply(Arc::new(decode(&raw)?)).await?;
    }
    Ok(())
}

fn decode(raw: &RawEntry) -> Result<Sequenced, JoinError> {
    Ok(Sequenced::decode(raw.position, raw.time, &raw.bytes)?)
}

//! The start of a node whose entries the cluster no longer has: from a snapshot.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    follow_error::FollowError,
    follower,
    join_error::JoinError,
    sequencer::{RawEntry, Sequencer, SequencerError},
};
use crate::event_log::{
    EventLogError, SqliteLog,
    entry::{Entry, EntryOutcome, Sequenced, Snapshot},
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

/// Applies the entries that the order has now. Nobody must use the mirror meanwhile.
///
/// # Errors
///
/// If the cluster cannot be reached, or the mirror must first be prepared by another start.
pub(super) async fn catch_up(
    mirror: &SqliteLog,
    sequencer: &dyn Sequencer,
) -> Result<(), JoinError> {
    let silent = |elapsed| JoinError::Unreachable(SequencerError::unavailable(elapsed));
    let bounds = timeout(ENTRY_TIMEOUT, sequencer.bounds()).await.map_err(silent)?;
    let bounds = bounds.map_err(JoinError::Unreachable)?;
    let checked = timeout(ENTRY_TIMEOUT, follower::check(mirror, sequencer, &bounds)).await;
    checked.map_err(silent)?.map_err(start_again)?;
    follow(mirror, sequencer, bounds.last).await
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
        let outcome = mirror.apply(Arc::new(decode(&raw)?)).await?;
        let is_joining = mirror.mirrored().is_some_and(|mirrored| mirrored.is_joining);
        if matches!(outcome, EntryOutcome::NewEpoch(_)) && !is_joining {
            return Err(start_again(FollowError::NewEpoch));
        }
    }
    Ok(())
}

fn start_again(error: FollowError) -> JoinError {
    match error {
        FollowError::Sequencer(error) => JoinError::Unreachable(error),
        error => JoinError::StartAgain(EventLogError::new(error.to_string())),
    }
}

fn decode(raw: &RawEntry) -> Result<Sequenced, JoinError> {
    Ok(Sequenced::decode(raw.position, raw.time, &raw.bytes)?)
}

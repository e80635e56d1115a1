//! The task that applies the entries of the order to a node's mirror.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    follow_error::{ANSWER_TIMEOUT, FollowError, answer},
    node::Node,
    sequencer::{OrderBounds, RawEntry, Sequencer},
};
use crate::event_log::{
    Appended, Dropped, EventLog as _, EventLogError, SharedChange, SqliteLog,
    entry::{Entry, EntryOutcome, Mirrored, Sequenced, digest},
};

/// Interval at which the follower asks for the last entry. If it receives none until the next time
/// although there are some, it begins again: consumers have been seen to stall after the engine has
/// lost its leader.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which the stream must end before the node's place until its entries count as lost. A
/// new leader does not know all entries at once, and one that is cut off from the other servers may
/// take 20 s until it notices.
pub(super) const LOSS_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed write to the node's disk.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failure that may pass.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Follows the order until the node cannot go on.
pub(super) async fn run(node: Arc<Node>) {
    let mut short_since = None;
    loop {
        let Err(mut error) = follow(&node).await;
        if !matches!(error, FollowError::Short) {
            short_since = None;
        } else if short_since.get_or_insert_with(Instant::now).elapsed() >= LOSS_TIMEOUT {
            error = FollowError::Ahead;
        }
        let was_connected = node.status.borrow().is_connected;
        if !error.may_pass() {
            return node.end(&error).await;
        }
        if was_connected {
            tracing::warn!("the node no longer receives the cluster's events: {error}");
            node.status.send_modify(|status| status.is_connected = false);
        }
        sleep(PAUSE).await;
    }
}

async fn follow(node: &Node) -> Result<Infallible, FollowError> {
    look(node).await?;
    let place = node.mirrored().place;
    let mut entries = answer(node.sequencer.follow(place.position)).await?;
    node.status.send_modify(|status| {
        // Without publishes, no success would follow on the failure.
        (status.is_connected, status.refusal) = (true, None);
    });
    tracing::info!(lag = node.status.borrow().lag(), "the node receives the cluster's events");
    loop {
        let (next_look, last) = (Instant::now() + WATCH_INTERVAL, node.status.borrow().last);
        let mut has_received = false;
        while let Ok(entry) = timeout_at(next_look, entries.next()).await {
            apply(node, &entry?).await?;
            has_received = true;
        }
        if !has_received && last > node.mirrored().place.position {
            return Err(FollowError::Stalled);
        }
        look(node).await?;
    }
}

/// Asks for the last entry, and checks that the mirror can follow.
async fn look(node: &Node) -> Result<(), FollowError> {
    let bounds = answer(node.sequencer.bounds()).await?;
    match timeout(ANSWER_TIMEOUT, check(&node.mirror, &*node.sequencer, &bounds)).await {
        Ok(checked) => checked?,
        Err(_) => return Err(FollowError::Silent),
    }
    let applied = node.mirrored().place.position;
    node.status.send_modify(|status| (status.applied, status.last) = (applied, bounds.last));
    Ok(())
}

/// Checks that the mirror can follow a stream from where it is. Names the stream if it has none.
pub(super) async fn check(
    mirror: &SqliteLog,
    sequencer: &dyn Sequencer,
    bounds: &OrderBounds,
) -> Result<(), FollowError> {
    let Mirrored { stream, place, last, .. } = mirror.mirrored().unwrap_or_default();
    if stream.is_empty() {
        return Ok(mirror.join(bounds.stream.clone()).await?);
    }
    if stream != bounds.stream {
        return Err(FollowError::OtherStream);
    }
    if bounds.last < place.position {
        return Err(FollowError::Short);
    }
    if bounds.first > place.position + 1 {
        return Err(FollowError::TooFarBehind);
    }
    if place.position > 0
        && let Some(bytes) = sequencer.entry(place.position).await?
        && digest(&bytes) != last
    {
        return Err(FollowError::Ahead);
    }
    Ok(())
}

/// Applies an entry, as soon as the mirror can be written.
async fn apply(node: &Node, raw: &RawEntry) -> Result<(), FollowError> {
    let next = node.mirrored().place.position + 1;
    // Positions may be skipped, but those between may also have been removed.
    if raw.position > next && answer(node.sequencer.bounds()).await?.first > next {
        return Err(FollowError::TooFarBehind);
    }
    let entry = Arc::new(Sequenced::decode(raw.position, raw.time, &raw.bytes)?);
    let has_begun = node.mirrored().retention.is_some();
    if let Entry::Delete(topic) = &entry.proposal.entry
        && has_begun
    {
        // No event of a deletion must be shown after it. Before the begin, nobody shows any.
        node.changes.push(SharedChange::Deleting(topic.clone())).await;
        node.changes.all_shown().await;
    }
    let outcome = loop {
        match node.mirror.apply(Arc::clone(&entry)).await {
            Err(EventLogError::Stopped) => return Err(FollowError::Stopped),
            // The disk may have room again later. The output tells of it. Meanwhile the node falls
            // behind, and must not count as ready.
            Err(_) => {
                sleep(DISK_PAUSE).await;
                if let Ok(bounds) = answer(node.sequencer.bounds()).await {
                    node.status.send_modify(|status| status.last = status.last.max(bounds.last));
                }
            }
            outcome => break outcome?,
        }
    };
    match &outcome {
        EntryOutcome::Appended(appended) => {
            let new = appended.iter().filter_map(|appended| match appended {
                Ok(Appended { event, is_duplicate: false }) => Some(event.clone()),
                _ => None,
            });
            node.changes.push(SharedChange::Events(new.collect())).await;
        }
        EntryOutcome::Deleted(topic, _) => {
            let topics = topic.clone().into();
            let Dropped { drops, .. } = node.mirror.dropped_after(&topics, u64::MAX, 0);
            node.changes.push(SharedChange::Deleted(topic.clone(), drops)).await;
        }
        EntryOutcome::NewEpoch(_) => return Err(FollowError::NewEpoch),
        EntryOutcome::Begun
        | EntryOutcome::Retained
        | EntryOutcome::Imported
        | EntryOutcome::Unchanged
        | EntryOutcome::Repeated => {}
    }
    let tag = &entry.proposal.tag;
    let is_own = |(number, _): &mut (u64, _)| tag.sender == node.sender && tag.number == *number;
    if outcome != EntryOutcome::Repeated
        && let Some((_, reply)) = node.waiting.lock().take_if(is_own)
    {
        // The proposer may have given up.
        let _ = reply.send(outcome);
    }
    node.status.send_modify(|status| {
        // The cluster accepts entries.
        status.refusal = None;
        status.applied = entry.position;
        status.last = status.last.max(entry.position);
    });
    if let Some(seen) = node.mirrored().doubt {
        *node.doubt.lock() = seen;
        node.doubted.notify_one();
    }
    Ok(())
}

//! Doubts about a node's entries: a proposal shows that its sender has other entries than this
//! node. One of the two has entries that the engine has lost.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    follow_error::{ANSWER_TIMEOUT, FollowError, answer},
    node::Node,
};
use crate::event_log::entry::{Entry, OrderPlace, Sequenced};

/// Interval at which a node tells others that it has other entries than they.
const INTERVAL: Duration = Duration::from_secs(1);

/// Compares the mirror with the stream, unless it was right up to `seen` before. If it is right,
/// the others must do the same.
///
/// # Errors
///
/// [`FollowError::Ahead`] if the mirror has entries that the stream has not.
pub(super) async fn settle(node: &Node, seen: OrderPlace) -> Result<(), FollowError> {
    let known = *node.verified.lock();
    if known.position < seen.position {
        let place = verify(node, known).await?;
        *node.verified.lock() = place;
    }
    node.doubted.notify_one();
    Ok(())
}

/// Reads the entries of the stream up to the mirror's place. They begin at a place that is known to
/// be right, or else at the earliest one that the mirror remembers.
pub(super) async fn verify(node: &Node, known: OrderPlace) -> Result<OrderPlace, FollowError> {
    let place = node.mirrored().place;
    let first = answer(node.sequencer.bounds()).await?.first;
    let mut found = known;
    if found.position + 1 < first {
        let Some(mark) = node.mirror.earliest_mark(first).await? else {
            // No entry is left that could tell.
            return Ok(place);
        };
        found = mark.place;
    }
    tracing::warn!(from = found.position, to = place.position, "another node has other entries");
    let begin = found.position;
    let mut entries = answer(node.sequencer.follow(begin)).await?;
    while found.position < place.position {
        let Ok(raw) = timeout(ANSWER_TIMEOUT, entries.next()).await else {
            return Err(FollowError::Silent);
        };
        let raw = raw?;
        found = found.after(&Sequenced::decode(raw.position, raw.time, &raw.bytes)?);
    }
    if found == place {
        return Ok(place);
    }
    // Entries that were removed just now tell nothing. The next doubt begins at a later place.
    let are_removed = answer(node.sequencer.bounds()).await?.first > begin + 1;
    if are_removed { Ok(known) } else { Err(FollowError::Ahead) }
}

/// Tells others of a doubt, by an entry without events, until the future is dropped.
pub(super) async fn run(node: Arc<Node>) {
    loop {
        node.doubted.notified().await;
        // The next doubt is a further occasion.
        let _ = node.propose(Entry::Append(Vec::new())).await;
        sleep(INTERVAL).await;
    }
}

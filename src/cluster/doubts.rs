//! Doubts about a node's entries: a proposal shows that its sender has other entries than this
//! node. One of the two has entries that the engine has lost.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    follow_error::{ANSWER_TIMEOUT, FollowError, answer},
    node::Node,
};
use crate::event_log::entry::{Entry, OrderPlace, Sequenced};

/// Pause between two doubts. It becomes longer if they go on, so that two nodes of which both are
/// right, as far as the stream can tell, do not occupy it.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Settles each doubt: compares the mirror with the stream, unless it was right up to there before.
/// If it is right, an entry without events makes the others do the same. Otherwise the node can no
/// longer follow, and this returns.
pub(super) async fn run(node: Arc<Node>) {
    let (mut known, mut pause) = (OrderPlace::default(), MIN_PAUSE);
    loop {
        let waiting = Instant::now();
        node.doubted.notified().await;
        if waiting.elapsed() >= MAX_PAUSE {
            pause = MIN_PAUSE;
        }
        let seen = *node.doubt.lock();
        if known.position < seen.position {
            tracing::warn!(at = seen.position, "another node has other entries");
            match verify(&node, known).await {
                Ok(place) => known = place,
                Err(error) if error.may_pass() => {
                    tracing::warn!("the node cannot compare its entries yet: {error}");
                    node.doubted.notify_one();
                    sleep(MIN_PAUSE).await;
                    continue;
                }
                Err(error) => return node.end(&error).await,
            }
        }
        // The next doubt is a further occasion.
        let _ = node.propose(Entry::Append(Vec::new())).await;
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Reads the entries of the stream up to the mirror's place. They begin at a place that is known to
/// be right, or else at the earliest one that the mirror remembers.
///
/// # Errors
///
/// [`FollowError::Ahead`] if the mirror has entries that the stream has not.
pub(super) async fn verify(node: &Node, known: OrderPlace) -> Result<OrderPlace, FollowError> {
    let place = node.mirrored().place;
    let first = answer(node.sequencer.bounds()).await?.first;
    let mut found = known;
    if found.position + 1 < first {
        // Without a mark, no entry is left that could tell.
        let mark = node.mirror.earliest_mark(first).await?.ok_or(FollowError::Ahead)?;
        found = mark.place;
    }
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
    // Entries that were removed just now tell nothing.
    let are_removed = answer(node.sequencer.bounds()).await?.first > begin + 1;
    Err(if are_removed { FollowError::Stalled } else { FollowError::Ahead })
}

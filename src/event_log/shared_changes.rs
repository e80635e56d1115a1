//! Changes of a log that several nodes write to, on their way to the hub.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::{Event, Topic};

/// Number of changes that may wait. Beyond it, the log applies no further ones.
const CAPACITY: usize = 256;

/// Changes that the log has applied and that the hub has not shown yet, in the order of the log.
#[derive(Debug, Default)]
pub struct SharedChanges {
    waiting: Mutex<Waiting>,
    has_some: Notify,
    /// Some were taken, or shown.
    are_fewer: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<SharedChange>,
    /// `true` while the hub shows those that it has taken.
    are_being_shown: bool,
}

/// A change of the log, by any node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedChange {
    /// New events and ends.
    Events(Vec<Event>),
    /// The events of a topic so far will be deleted. Once they are, no reader must get one.
    Deleting(Topic),
    /// They were deleted. The number is that of the log's drops after it.
    Deleted(Topic, u64),
}

impl SharedChanges {
    /// Adds a change. Waits while there are too many.
    pub async fn push(&self, change: SharedChange) {
        self.until(|waiting| waiting.changes.len() < CAPACITY).await;
        self.waiting.lock().changes.push_back(change);
        self.has_some.notify_one();
    }

    /// Waits until the hub has shown all changes so far.
    pub async fn all_shown(&self) {
        self.until(|waiting| waiting.changes.is_empty() && !waiting.are_being_shown).await;
    }

    async fn until(&self, is_so: impl Fn(&Waiting) -> bool) {
        loop {
            let fewer = self.are_fewer.notified();
            if is_so(&self.waiting.lock()) {
                return;
            }
            fewer.await;
        }
    }

    /// Takes all changes so far. The hub must call [`shown`](Self::shown) once it has shown them.
    pub fn take(&self) -> VecDeque<SharedChange> {
        let Waiting { changes, are_being_shown } = &mut *self.waiting.lock();
        *are_being_shown = true;
        std::mem::take(changes)
    }

    /// Notes that the hub has shown what it has taken.
    pub fn shown(&self) {
        self.waiting.lock().are_being_shown = false;
        self.are_fewer.notify_waiters();
    }

    /// Waits until there may be a change.
    pub async fn changed(&self) {
        self.has_some.notified().await;
    }
}

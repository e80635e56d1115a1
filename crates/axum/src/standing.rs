//! Permissions of open streams and uploads, which may be taken away when the policy changes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use waterclock::{event::Topic, pattern::Patterns};

/// Announces that the policy has changed. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct PolicyChanges(Arc<Changes>);

#[derive(Debug, Default)]
struct Changes {
    /// Number of changes so far.
    count: AtomicU64,
    changed: Notify,
}

impl PolicyChanges {
    /// Makes open streams, waiting polls and uploads ask for their permission again. The policy
    /// must already decide by its new rules.
    pub fn announce(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Number of changes so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits for a change after the first `seen` ones.
    pub(crate) async fn after(&self, seen: u64) {
        loop {
            let changed = self.0.changed.notified();
            if self.count() != seen {
                return;
            }
            changed.await;
        }
    }
}

/// A request that was permitted.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// To read the events of all these topics.
    Read(&'a Patterns),
    /// To list these topics.
    List(&'a Patterns),
    /// To publish to this topic.
    Publish(&'a Topic),
}

/// Decides again about a permission, after the policy has changed.
#[derive(Clone)]
pub struct StandingPermission(Arc<dyn Fn() -> bool + Send + Sync>);

impl StandingPermission {
    /// Creates it from a function that returns `false` if the permission is taken away.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }

    pub(crate) fn holds(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for StandingPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandingPermission").finish_non_exhaustive()
    }
}

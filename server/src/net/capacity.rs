//! The limit on open connections. The system allows a program a limited number of open files, and
//! without a spare one it could not open its event log either.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ops::metrics::Metrics;

/// Divisor of the capacity: the part that must be free again before a full server counts as
/// relieved.
const RELIEF_DIVISOR: usize = 10;

/// The capacity for connections, shared by all listeners.
#[derive(Clone, Debug)]
pub struct Capacity(Arc<Slots>);

#[derive(Debug)]
struct Slots {
    free: Arc<Semaphore>,
    max: usize,
    /// `true` from the report that the capacity is reached until it is relieved.
    is_full: AtomicBool,
    metrics: Arc<Metrics>,
}

/// The slot of a connection, until it is dropped. Always `Some`, since the semaphore is never
/// closed.
pub(super) type Slot = Option<OwnedSemaphorePermit>;

impl Capacity {
    /// Creates a capacity of `max` connections.
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        metrics.set_max_connections(max);
        let free = Arc::new(Semaphore::new(max));
        Self(Arc::new(Slots { free, max, is_full: AtomicBool::new(false), metrics }))
    }

    /// Takes a slot as soon as one is free.
    pub(super) async fn acquire(&self) -> Slot {
        let Slots { free, max, is_full, metrics } = &*self.0;
        if free.available_permits() == 0 && !is_full.swap(true, Ordering::Relaxed) {
            metrics.capacity_reached();
            tracing::warn!(
                connections = max,
                "the limit of open files is reached; further connections wait"
            );
        }
        let slot = Arc::clone(free).acquire_owned().await.ok();
        if free.available_permits() >= (max / RELIEF_DIVISOR).max(1) {
            is_full.store(false, Ordering::Relaxed);
        }
        slot
    }
}

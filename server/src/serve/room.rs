//! How many connections there may be. The system allows a program only so many open files, and without one to
//! spare it could not open its log either.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// What part of the room has to be free again before it counts as more than a gap that is filled at once.
const FREE_AGAIN: usize = 10;

/// The room for connections, of all listeners together. All clones are one.
#[derive(Clone, Debug)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: Arc<Semaphore>,
    max: usize,
    /// Whether that it is full was told, and it was not over since.
    is_full: AtomicBool,
    metrics: Arc<Metrics>,
}

/// The place of a connection, until it is dropped. There is always a permit, as the semaphore is never closed.
pub(super) type Place = Option<OwnedSemaphorePermit>;

impl Room {
    /// Room for that many.
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        metrics.connections_may_be(max);
        let places = Arc::new(Semaphore::new(max));
        Self(Arc::new(Shared { places, max, is_full: AtomicBool::new(false), metrics }))
    }

    /// Takes a place, as soon as there is one.
    pub(super) async fn place(&self) -> Place {
        let Shared { places, max, is_full, metrics } = &*self.0;
        if places.available_permits() == 0 && !is_full.swap(true, Ordering::Relaxed) {
            metrics.connections_are_full();
            tracing::warn!(
                connections = max,
                "as many connections are open as the limit of open files allows; others wait"
            );
        }
        let place = Arc::clone(places).acquire_owned().await.ok();
        if places.available_permits() >= (max / FREE_AGAIN).max(1) {
            is_full.store(false, Ordering::Relaxed);
        }
        place
    }
}

//! Publishes: drafts in the queue, and the futures of their publishers.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Instant};

use super::frame::Frame;
use crate::{
    event::Draft,
    event_log::{EventLogError, Rejected},
    trace::Trace,
};

/// Capacity of the publish queue. When it is full, [`Hub::enqueue`] waits for a slot.
pub(super) const QUEUE_CAPACITY: usize = 1024;
/// A draft in the publish queue.
pub(super) struct QueuedDraft {
    pub draft: Draft,
    /// The chain of the draft, if it has one.
    pub chain: Option<DraftChain>,
    pub publisher: WaitingPublisher,
}

/// The publisher of a draft that is not yet durable.
pub(super) struct WaitingPublisher {
    /// Time at which the draft was enqueued.
    pub since: Instant,
    pub trace: Trace,
    pub result: oneshot::Sender<Result<Arc<Frame>, PublishError>>,
}

impl WaitingPublisher {
    /// Tells the publisher that the publish has failed. It may have stopped waiting.
    pub fn fail(self, error: PublishError) {
        if let Some(trace) = self.trace.get() {
            trace.failed(&error);
        }
        let _ = self.result.send(Err(error));
    }
}

/// Drafts that are published in the order in which they are enqueued, up to the first that fails.
/// Clones are the same chain.
///
/// So the published events are the first ones of the chain, and a publisher that stops at an error
/// knows from where to continue. The drafts must have the same topic. Drafts of one append may
/// still follow one whose key was used for another event, so wait for drafts whose keys may be
/// known.
#[derive(Clone, Debug, Default)]
pub struct DraftChain(Arc<AtomicBool>);

impl DraftChain {
    /// Returns `true` once a draft of the chain has failed.
    pub fn has_failed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn fail(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A failed publish. No subscriber sees the event, unless the error is
/// [`EventLogError::Unconfirmed`] or [`EventLogError::Unanswered`]: then they may see it later.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The log has rejected the event.
    #[error("the event was rejected: {0}")]
    Rejected(#[from] Rejected),
    /// The log could not make the event durable.
    #[error(transparent)]
    EventLog(#[from] EventLogError),
    /// An earlier draft of the same [`DraftChain`] has failed.
    #[error("an event before this one was not published")]
    Skipped,
}

impl PublishError {
    /// All values of [`failure`](Self::failure).
    pub const FAILURES: [&str; 7] = [
        "disk-full",
        "log-misplaced",
        "unconfirmed",
        "log-failed",
        "log-stopped",
        "unavailable",
        "too-many-topics",
    ];

    /// The reason as written in metrics, if the server cannot store the event. `None` if the
    /// publisher has made a mistake, and for a skipped draft.
    pub fn failure(&self) -> Option<&'static str> {
        Some(match self {
            Self::EventLog(EventLogError::DiskFull) => "disk-full",
            Self::EventLog(EventLogError::Misplaced) => "log-misplaced",
            Self::EventLog(EventLogError::Unconfirmed(_)) => "unconfirmed",
            Self::EventLog(EventLogError::Damaged { .. } | EventLogError::Failed(_)) => {
                "log-failed"
            }
            Self::EventLog(EventLogError::Stopped) => "log-stopped",
            Self::EventLog(EventLogError::Unavailable(_) | EventLogError::Unanswered(_)) => {
                "unavailable"
            }
            Self::Rejected(Rejected::TooManyTopics) => "too-many-topics",
            Self::Rejected(Rejected::KeyReused | Rejected::Ended) | Self::Skipped => return None,
        })
    }
}

/// Numbers of failed publishes, by reason.
#[derive(Default)]
pub(super) struct FailureCounters([AtomicU64; PublishError::FAILURES.len()]);

impl FailureCounters {
    pub fn count(&self, error: &PublishError) {
        let reason = error.failure();
        let counter = PublishError::FAILURES.iter().position(|other| Some(*other) == reason);
        if let Some(counter) = counter {
            self.0[counter].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|counter| counter.load(Ordering::Relaxed));
        PublishError::FAILURES.into_iter().zip(counts)
    }
}

/// A publish in flight, returned by [`Hub::enqueue`](super::Hub::enqueue).
///
/// Resolves to the event as soon as it is durable, or to the earlier event if the draft was a
/// duplicate. The event is published even if this future is dropped.
#[derive(Debug)]
pub struct Publishing(pub(super) oneshot::Receiver<Result<Arc<Frame>, PublishError>>);

impl Future for Publishing {
    type Output = Result<Arc<Frame>, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = Pin::new(&mut self.0).poll(context);
        // The writer has stopped at an unknown point.
        let stopped = || EventLogError::unconfirmed("the hub's writer has stopped");
        result.map(|result| result.unwrap_or_else(|_| Err(stopped().into())))
    }
}

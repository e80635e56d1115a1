//! Publishes: drafts in the queue, and the futures of their publishers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Instant};

use super::frame::Frame;
use crate::{
    event::Draft,
    event_log::{EventLogError, Rejected},
};

/// Capacity of the publish queue. When it is full, [`Hub::enqueue`] waits for a slot.
pub(super) const QUEUE_CAPACITY: usize = 1024;

/// A draft in the publish queue.
pub(super) struct QueuedDraft {
    pub draft: Draft,
    pub publisher: WaitingPublisher,
}

/// The publisher of a draft that is not yet durable.
pub(super) struct WaitingPublisher {
    /// Time at which the draft was enqueued.
    pub since: Instant,
    pub result: oneshot::Sender<Result<Arc<Frame>, PublishError>>,
}

/// A failed publish. No subscriber sees the event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The log has rejected the event.
    #[error("the event was rejected: {0}")]
    Rejected(#[from] Rejected),
    /// The log could not make the event durable.
    #[error(transparent)]
    EventLog(#[from] EventLogError),
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
        result.map(|result| result.unwrap_or_else(|_| Err(writer_stopped().into())))
    }
}

pub(super) fn writer_stopped() -> EventLogError {
    EventLogError::new("the hub's writer has stopped")
}

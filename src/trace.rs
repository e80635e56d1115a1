//! Traces: the way of an event from its publish to the streams that send it, for a tracer that is
//! outside of this crate. An event without a trace costs nothing.

use std::{fmt, sync::Arc};

use crate::id::EventId;

/// The trace of one event. All methods are called while others wait, so they must return at once.
pub trait EventTrace: fmt::Debug + Send + Sync {
    /// Notes that the event is in the log, and will be shown to a number of streams and polls now.
    /// `None` if they are not known: in a cluster, and for an event that was in the log before.
    fn stored(&self, id: EventId, streams: Option<usize>);

    /// Notes that the event could not be published.
    fn failed(&self, reason: &dyn fmt::Display);

    /// Notes that a number of streams send the event now, soon after it was published.
    fn sent(&self, streams: usize);
}

/// The trace of a draft or an event, if it has one. It is no part of the event: two drafts with
/// different traces are equal.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<dyn EventTrace>>);

impl Trace {
    /// Wraps a trace.
    pub fn new(trace: Arc<dyn EventTrace>) -> Self {
        Self(Some(trace))
    }

    /// Returns the trace.
    pub fn get(&self) -> Option<&dyn EventTrace> {
        self.0.as_deref()
    }
}

impl PartialEq for Trace {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Trace {}

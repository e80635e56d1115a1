//! A hook for servers that trace publishes.

use std::{fmt, sync::Arc};

use axum::http::HeaderMap;
use waterclock::{event::Topic, trace::Trace};

/// A function that begins the trace of an event, from the headers of the request that publishes it,
/// and its topic.
type BeginTrace = dyn Fn(&HeaderMap, &Topic) -> Trace + Send + Sync;

/// A hook that is called for each event once it is admitted. Its trace ends when the event is
/// durable and was sent.
#[derive(Clone)]
pub struct TraceHook(Arc<BeginTrace>);

impl TraceHook {
    /// Wraps a function of the headers of the request and the topic.
    pub fn new(begin: impl Fn(&HeaderMap, &Topic) -> Trace + Send + Sync + 'static) -> Self {
        Self(Arc::new(begin))
    }

    pub(crate) fn begin(&self, headers: &HeaderMap, topic: &Topic) -> Trace {
        (self.0)(headers, topic)
    }
}

impl fmt::Debug for TraceHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceHook").finish_non_exhaustive()
    }
}

/// The part of a request that its events' traces need: the headers of Trace Context, and none of
/// the others.
#[derive(Clone, Debug)]
pub(crate) struct RequestTrace {
    hook: TraceHook,
    headers: HeaderMap,
}

impl RequestTrace {
    /// Keeps the headers of a request, for the traces of its events.
    pub(crate) fn new(hook: &TraceHook, request: &HeaderMap) -> Self {
        let mut headers = HeaderMap::new();
        for name in ["traceparent", "tracestate"] {
            for value in request.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        Self { hook: hook.clone(), headers }
    }

    pub(crate) fn begin(&self, topic: &Topic) -> Trace {
        self.hook.begin(&self.headers, topic)
    }
}

//! A hook for servers that want to know of accepted subscriptions.

use std::{fmt, sync::Arc};

use waterclock::transport::Transport;

/// A request extension that is called when the request's subscription is accepted, before the
/// response begins. Refused requests do not call it.
#[derive(Clone)]
pub struct AcceptHook(Arc<dyn Fn(Transport) + Send + Sync>);

impl AcceptHook {
    /// Wraps a function of the subscription's transport.
    pub fn new(hook: impl Fn(Transport) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn call(&self, transport: Transport) {
        (self.0)(transport);
    }
}

impl fmt::Debug for AcceptHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptHook").finish_non_exhaustive()
    }
}

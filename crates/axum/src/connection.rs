//! The connection below a WebSocket, as far as these routes may act on it.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

/// A connection that can close its side and wait for the client to close the other one.
pub trait GracefulClose: Send + Sync {
    /// Closes this side, and discards what the client still sends until it closes its own. Without
    /// that, a reset could reach the client before the last message does.
    fn close(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

/// A request extension that a server may insert, so that a [WebSocket](crate::EventRoutes) is
/// closed gracefully.
#[derive(Clone)]
pub struct ConnectionCloser(Arc<dyn GracefulClose>);

impl ConnectionCloser {
    /// Wraps a connection.
    pub fn new(connection: Arc<impl GracefulClose + 'static>) -> Self {
        Self(connection)
    }

    pub(crate) async fn close(&self) {
        Arc::clone(&self.0).close().await;
    }
}

impl fmt::Debug for ConnectionCloser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionCloser").finish_non_exhaustive()
    }
}

//! The connection below a request, as far as these routes know it and may act on it.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

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

/// A request extension that a server may insert, by which a poll that waits learns that its client
/// has ended its own side of the connection.
///
/// The client may have left, or wait for the response. So the poll responds at once, and occupies
/// no place among the streams for a client that has left.
#[derive(Clone, Debug, Default)]
pub struct ClientEnd(CancellationToken);

impl ClientEnd {
    /// Notes that the client has ended its side.
    pub fn reached(&self) {
        self.0.cancel();
    }

    /// Waits until the client has ended its side.
    pub(crate) async fn wait(&self) {
        self.0.cancelled().await;
    }
}

impl fmt::Debug for ConnectionCloser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionCloser").finish_non_exhaustive()
    }
}

//! The connection below a request, as far as these routes know it and may act on it.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{session::Session, sse::SseEncoder};

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

/// A request extension by which a server takes event streams over from its implementation of HTTP.
///
/// With it, the body of a response to `GET /events` sends nothing and does not end. After its head,
/// the server writes the [stream](DirectStream) itself.
#[derive(Clone, Debug, Default)]
pub struct StreamHandover(Arc<Mutex<Option<DirectStream>>>);

impl StreamHandover {
    /// Returns `true` if there is a stream to take.
    pub fn has_stream(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Takes the stream of the last response, if that is one.
    pub fn take(&self) -> Option<DirectStream> {
        self.0.lock().take()
    }

    pub(crate) fn leave(&self, session: Session<SseEncoder>) {
        *self.0.lock() = Some(DirectStream(Box::new(session)));
    }
}

/// An event stream, as parts of the body of its response. Each holds whole blocks.
///
/// Boxed, since the future of a connection would have room for it in several places.
pub struct DirectStream(pub(crate) Box<Session<SseEncoder>>);

impl Stream for DirectStream {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for DirectStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectStream").finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectionCloser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionCloser").finish_non_exhaustive()
    }
}

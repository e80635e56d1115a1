//! The state of one connection, which its protocols share.

use std::{
    error::Error,
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};
use waterclock_axum::{ClientEnd, ConnectionCloser};

use super::{peer::Peer, serving::Serving, signs_of_life::SignsOfLife, tap::Tap};

/// The parts of serving a connection, without its socket.
pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) peer: Peer,
    pub(super) closer: ConnectionCloser,
    /// Reached once an HTTP/1.1 client has ended its side during a response.
    pub(super) client_end: ClientEnd,
    pub(super) tap: Arc<Tap>,
    pub(super) progress: Arc<SignsOfLife>,
    /// Number of requests that have arrived completely and have no response yet.
    pub(super) owed: Arc<AtomicUsize>,
    pub(super) span: Span,
    pub(super) serving: Arc<Serving>,
    pub(super) closing: CancellationToken,
}

impl Connection {
    /// Answers a request by the router.
    pub(super) fn respond<B>(
        &self,
        mut request: Request<B>,
    ) -> impl Future<Output = Response<Body>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
    {
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.closer.clone());
        request.extensions_mut().insert(self.client_end.clone());
        request.extensions_mut().insert(Arc::clone(&self.tap));
        let arrival = Arc::new(Arrival::new(&self.owed));
        let request = if request.body().is_end_stream() {
            arrival.complete();
            request.map(Body::new)
        } else {
            request.map(|body| Body::new(Upload { body, arrival: Arc::clone(&arrival) }))
        };
        let response = self.router.clone().oneshot(request).instrument(self.span.clone());
        let owed = OwedResponse(arrival);
        async {
            let _owed = owed;
            response.await.unwrap_or_else(|never| match never {})
        }
    }

    /// Waits until the server has owed no response for `time`. So whatever is incomplete then waits
    /// for the client.
    pub(super) async fn nothing_owed(&self, time: Duration) {
        let mut halves = 0;
        while halves < 2 {
            tokio::time::sleep(time / 2).await;
            halves = if self.owed.load(Ordering::Relaxed) == 0 { halves + 1 } else { 0 };
        }
    }

    /// Prints the error of a connection.
    pub(super) fn failed(&self, error: &hyper::Error) {
        tracing::debug!(parent: &self.span, error = error as &dyn Error, "the connection failed");
    }
}

/// The arrival of one request.
struct Arrival {
    owed: Arc<AtomicUsize>,
    /// `true` once the request has arrived completely, or has a response.
    is_over: AtomicBool,
}

impl Arrival {
    fn new(owed: &Arc<AtomicUsize>) -> Self {
        Self { owed: Arc::clone(owed), is_over: AtomicBool::new(false) }
    }

    /// Notes that the request has arrived completely.
    fn complete(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.owed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The response to a request, which the server owes from the request's complete arrival until this
/// is dropped.
struct OwedResponse(Arc<Arrival>);

impl Drop for OwedResponse {
    fn drop(&mut self) {
        if self.0.is_over.swap(true, Ordering::Relaxed) {
            self.0.owed.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The body of a request, which notes its end.
struct Upload<B> {
    body: B,
    arrival: Arc<Arrival>,
}

impl<B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin> HttpBody for Upload<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.arrival.complete();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns `true` if a client did not read for too long.
pub(super) fn is_write_timeout(error: &hyper::Error) -> bool {
    let Some(source) = error.source() else { return false };
    let of_http2 = source.downcast_ref().and_then(h2::Error::get_io);
    let error: Option<&io::Error> = source.downcast_ref().or(of_http2);
    error.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}

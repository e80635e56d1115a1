//! The state of one connection, which its protocols share.

use std::{
    error::Error,
    io::{self, ErrorKind},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};
use waterclock_axum::ConnectionCloser;

use super::{peer::Peer, serving::Serving, signs_of_life::SignsOfLife, tap::Tap};

/// The parts of serving a connection, without its socket.
pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) peer: Peer,
    pub(super) closer: ConnectionCloser,
    pub(super) tap: Arc<Tap>,
    pub(super) progress: Arc<SignsOfLife>,
    pub(super) span: Span,
    pub(super) serving: Arc<Serving>,
    pub(super) closing: CancellationToken,
}

impl Connection {
    /// Answers a request by the router.
    pub(super) fn respond(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.closer.clone());
        request.extensions_mut().insert(Arc::clone(&self.tap));
        let response = self.router.clone().oneshot(request.map(Body::new));
        let response = response.instrument(self.span.clone());
        async { response.await.unwrap_or_else(|never| match never {}) }
    }

    /// Prints the error of a connection.
    pub(super) fn failed(&self, error: &hyper::Error) {
        tracing::debug!(parent: &self.span, error = error as &dyn Error, "the connection failed");
    }
}

/// Returns `true` if a client did not read for too long.
pub(super) fn is_write_timeout(error: &hyper::Error) -> bool {
    let Some(source) = error.source() else { return false };
    let of_http2 = source.downcast_ref().and_then(h2::Error::get_io);
    let error: Option<&io::Error> = source.downcast_ref().or(of_http2);
    error.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}

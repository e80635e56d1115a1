//! The state of one connection, which its protocols share, and that of the server, which all its
//! connections share.

use std::{
    error::Error,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, Response},
};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use waterclock_axum::{ClientEnd, ConnectionCloser, metrics::GaugeGuard};

use super::{
    group::Groups,
    peer::{Peer, PeerStream},
    serving::{Responder, Serving},
    signs_of_life::SignsOfLife,
    socket::{ConnectionGuards, Socket},
    tap::Tap,
};
use crate::ops::metrics::TimedOut;

/// The parts of a server that all its connections share.
pub(super) struct Server {
    pub(super) responder: Responder,
    pub(super) serving: Serving,
    /// Cancelled when all connections must close.
    pub(super) closing: CancellationToken,
    pub(super) groups: Groups<Parked>,
}

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) stream: Arc<TcpStream>,
    pub(super) address: SocketAddr,
    pub(super) guards: Arc<ConnectionGuards>,
    pub(super) server: Arc<Server>,
}

/// A connection whose event stream rests in a group.
pub(super) struct Parked {
    pub(super) accepted: Accepted,
    /// `true` if it may have further requests after the stream.
    pub(super) continues: bool,
    /// Counts the stream.
    pub(super) direct: GaugeGuard,
    /// Counts it as resting.
    pub(super) resting: GaugeGuard,
}

/// The parts of serving a connection, without its socket.
pub(super) struct Connection {
    pub(super) accepted: Accepted,
    pub(super) peer: Peer,
    pub(super) closer: ConnectionCloser,
    /// Reached once an HTTP/1.1 client has ended its side during a response.
    pub(super) client_end: ClientEnd,
    pub(super) tap: Arc<Tap>,
    pub(super) progress: Arc<SignsOfLife>,
    /// Number of requests without a response for which the server has the next step. The others
    /// wait for more from their client.
    pub(super) owed: Arc<AtomicUsize>,
    pub(super) span: Span,
}

impl Accepted {
    /// The span of its messages. It is entered only to print a message, since much of the code runs
    /// for every event.
    pub(super) fn span(&self) -> Span {
        tracing::info_span!("connection", peer = %self.address)
    }

    /// Counts and prints the error of writing a stream.
    pub(super) fn write_failed(&self, span: &Span, error: &io::Error) {
        if error.kind() == ErrorKind::TimedOut {
            self.server.serving.metrics.timed_out(TimedOut::Write);
        }
        tracing::debug!(parent: span, %error, "the connection failed");
    }
}

impl Connection {
    pub(super) fn new(accepted: Accepted) -> Self {
        let Accepted { stream, address, .. } = &accepted;
        let tap = Arc::new(Tap::new(stream));
        let close = PeerStream { stream: Arc::clone(stream), tap: Arc::clone(&tap) };
        Self {
            peer: Peer {
                address: address.ip().to_canonical(),
                is_local: stream.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback()),
            },
            client_end: ClientEnd::default(),
            closer: ConnectionCloser::new(Arc::new(close)),
            tap,
            progress: Arc::default(),
            owed: Arc::default(),
            span: accepted.span(),
            accepted,
        }
    }

    /// Creates the socket for a protocol. One protocol at a time has one.
    pub(super) fn socket(&self) -> Socket {
        let (tap, progress) = (Arc::clone(&self.tap), Arc::clone(&self.progress));
        let Accepted { stream, guards, .. } = &self.accepted;
        let (stream, guards) = (Arc::clone(stream), Arc::clone(guards));
        let (timeouts, closing) = (&self.serving().timeouts, self.closing().clone());
        Socket::new(stream, timeouts, tap, progress, closing, guards)
    }

    pub(super) fn serving(&self) -> &Serving {
        &self.accepted.server.serving
    }

    pub(super) fn closing(&self) -> &CancellationToken {
        &self.accepted.server.closing
    }

    /// Answers a request.
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
        let turn = Arc::new(Turn::of_client(&self.owed));
        let request = if request.body().is_end_stream() {
            turn.to_server();
            request.map(Body::new)
        } else {
            request.map(|body| Body::new(Upload { body, turn: Arc::clone(&turn) }))
        };
        let response = (self.accepted.server.responder)(request).instrument(self.span.clone());
        let owed = OwedResponse(turn);
        async {
            let _owed = owed;
            response.await
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

/// The side that has the next step in one request.
struct Turn {
    /// Number of requests of the connection whose next step is the server's.
    owed: Arc<AtomicUsize>,
    /// `true` if this is one of them.
    is_of_server: AtomicBool,
    /// `true` once the request has a response.
    is_over: AtomicBool,
}

impl Turn {
    fn of_client(owed: &Arc<AtomicUsize>) -> Self {
        let (is_of_server, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { owed: Arc::clone(owed), is_of_server, is_over }
    }

    /// Gives the turn to the server, which has all of the request, a part of it, or enough of it.
    fn to_server(&self) {
        if !self.is_over.load(Ordering::Relaxed) && !self.is_of_server.swap(true, Ordering::Relaxed)
        {
            self.owed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives the turn to the client, from which the server wants more.
    fn to_client(&self) {
        if self.is_of_server.swap(false, Ordering::Relaxed) {
            self.owed.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The response to a request, which the server may owe until this is dropped.
struct OwedResponse(Arc<Turn>);

impl Drop for OwedResponse {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.to_client();
    }
}

/// The body of a request, which notes the turns. While the server stores what it has read, or has
/// dropped the body, it owes a response although the request is not complete.
struct Upload<B> {
    body: B,
    turn: Arc<Turn>,
}

impl<B> Drop for Upload<B> {
    fn drop(&mut self) {
        self.turn.to_server();
    }
}

impl<B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin> HttpBody for Upload<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match frame {
            Poll::Ready(_) => self.turn.to_server(),
            Poll::Pending => self.turn.to_client(),
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

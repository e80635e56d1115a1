//! One connection, from its first byte to its end: through TLS where the listener speaks it, then HTTP/1.1
//! or HTTP/2.

use std::{
    error::Error,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use hyper::body::Incoming;
use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};

use super::{Open, Peer, Serving, progress::Progress, socket::Socket};
use crate::{
    meter::Traffic,
    metrics::{Refusal, TimedOut},
    tls::Tls,
};

/// How many bytes the system holds back for a client that does not read. Linux doubles it.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a connection is silent before the system asks whether its other end is still there.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// How long the system waits for a sign that something sent has arrived. By itself it would try for a
/// quarter of an hour, and probes only where nothing is under way.
#[cfg(target_os = "linux")]
const NO_ANSWER: Duration = Duration::from_secs(30);

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4): no request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a connection of TLS begins with: the type of a handshake's record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// What one is told who speaks HTTP to a port that speaks TLS.
const NO_TLS: &str = "This port speaks TLS: use https:// instead of http://.\n";

/// Serves one connection to its end; once `closing` is cancelled, to the end of the requests that are
/// under way.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    serving: Arc<Serving>,
    closing: CancellationToken,
    open: Open,
) {
    let Serving { time_outs, metrics, tls, .. } = &*serving;
    // Entered only where something is to be told: this runs for every event.
    let span = tracing::info_span!("connection", peer = %address);
    if let Err(error) = set_options(&stream) {
        tracing::debug!(parent: &span, %error, "the connection's options could not be set");
    }
    let peer = Peer {
        address: address.ip().to_canonical(),
        is_local: stream.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback()),
    };

    let mut first_bytes = [0; PREFACE.len()];
    let arrived = tokio::select! {
        // What has arrived is served.
        biased;
        // Not `readable`, which may also return when there is nothing to read.
        arrived = stream.peek(&mut first_bytes) => arrived.unwrap_or(0),
        () = tokio::time::sleep(time_outs.first_byte) => {
            tracing::debug!(parent: &span, "the client said nothing");
            return metrics.timed_out(TimedOut::FirstByte);
        }
        () = closing.cancelled() => return,
    };
    let first_bytes = &first_bytes[..arrived];

    let stream = Arc::new(stream);
    let traffic = Arc::new(Traffic::new(Arc::clone(&stream)));
    let progress = Arc::<Progress>::default();
    let mut socket = Socket::new(
        Arc::clone(&stream),
        time_outs.write,
        Arc::clone(&traffic),
        Arc::clone(&progress),
        open,
    );
    let connection = Connection {
        router,
        peer,
        traffic,
        progress,
        span,
        serving: Arc::clone(&serving),
        closing,
    };
    // Most connections are of the kind that needs least: what the others need besides has a place of its own.
    match tls {
        // They come in one piece. Who sends them one by one is answered as by HTTP/1.1.
        None if first_bytes.len() > 2 && PREFACE.starts_with(first_bytes) => {
            connection.wait_for_reader(&mut socket);
            Box::pin(connection.http2(socket)).await;
        }
        None => connection.http1(socket, Some(&stream)).await,
        Some(tls) if first_bytes.first() == Some(&HANDSHAKE) => {
            Box::pin(connection.tls(socket, tls)).await;
        }
        Some(_) if first_bytes.is_empty() => {}
        Some(_) => {
            metrics.refused(Refusal::NoTls);
            say_that_it_is_tls(socket).await;
        }
    }
}

/// What serving a connection takes, besides its socket.
pub(super) struct Connection {
    router: Router,
    peer: Peer,
    pub(super) traffic: Arc<Traffic>,
    pub(super) progress: Arc<Progress>,
    pub(super) span: Span,
    pub(super) serving: Arc<Serving>,
    pub(super) closing: CancellationToken,
}

impl Connection {
    /// Has a request answered.
    pub(super) fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(Arc::clone(&self.traffic));
        let answer = self.router.clone().oneshot(request.map(Body::new));
        let answer = answer.instrument(self.span.clone());
        async { answer.await.unwrap_or_else(|never| match never {}) }
    }

    /// Serves what speaks TLS.
    async fn tls(self, socket: Socket, tls: &Tls) {
        let Serving { time_outs, metrics, .. } = &*self.serving;
        match tokio::time::timeout(time_outs.handshake, tls.accept(socket)).await {
            Ok(Ok(mut socket)) if socket.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.wait_for_reader(socket.get_mut().0);
                self.http2(socket).await;
            }
            Ok(Ok(socket)) => self.http1(socket, None).await,
            Ok(Err(error)) => {
                tracing::debug!(parent: &self.span, %error, "no TLS");
                metrics.refused(Refusal::Tls);
            }
            Err(_) => metrics.timed_out(TimedOut::Handshake),
        }
    }

    pub(super) fn failed(&self, error: &hyper::Error) {
        tracing::debug!(parent: &self.span, error = error as &dyn Error, "the connection failed");
    }
}

/// Tells who has not expected TLS, where a browser shows it.
async fn say_that_it_is_tls(mut socket: Socket) {
    let length = NO_TLS.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{NO_TLS}"
    );
    // It may have left.
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
}

pub(super) fn is_write_time_out(error: &hyper::Error) -> bool {
    let Some(source) = error.source() else { return false };
    let of_http2 = source.downcast_ref().and_then(h2::Error::get_io);
    let error: Option<&io::Error> = source.downcast_ref().or(of_http2);
    error.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // An event is a small write that must not wait for the next one (RFC 896).
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(NO_ANSWER))?;
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 6))
}

//! The protocol of a connection, which its first bytes reveal: TLS if the server has a certificate,
//! then HTTP/1.1 or HTTP/2.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_util::sync::CancellationToken;
use waterclock_axum::{ClientEnd, ConnectionCloser};

use super::{
    connection::Connection,
    http1::TakenStream,
    peer::{Peer, PeerStream},
    serving::{Responder, Serving},
    signs_of_life::SignsOfLife,
    socket::{ConnectionGuards, Socket},
    tap::Tap,
    tls::Tls,
};
use crate::ops::metrics::{RefusalReason, TimedOut};

/// Size of the system's send buffer, in bytes. It bounds what a client that does not read occupies.
/// Linux doubles it.
const SEND_BUFFER: usize = 64 * 1024;
/// Time without traffic after which the system probes the other end (TCP keep-alive).
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// Time that the system waits for an acknowledgement of sent data. Its default is a quarter of an
/// hour, and keep-alive probes only idle connections.
#[cfg(target_os = "linux")]
const NO_ANSWER: Duration = Duration::from_secs(30);

/// The connection preface of HTTP/2 (RFC 9113, 3.4). No HTTP/1.1 request starts like that.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS connection: the record type of a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// The answer to plain HTTP on a TLS port.
const NO_TLS: &str = "This port requires TLS: use https:// instead of http://.\n";

/// Serves one connection to its end. Once `closing` is cancelled, only the requests in flight are
/// completed. A client that delays that is not waited for.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    responder: Responder,
    serving: Arc<Serving>,
    closing: CancellationToken,
    guards: ConnectionGuards,
) {
    let Serving { timeouts, metrics, tls, .. } = &*serving;
    // Entered only to print a message, since this code runs for every event.
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
        // Bytes that have arrived take precedence.
        biased;
        // Unlike `peek`, `readable` may return when there is nothing to read.
        arrived = stream.peek(&mut first_bytes) => arrived.unwrap_or(0),
        () = tokio::time::sleep(timeouts.first_byte) => {
            tracing::debug!(parent: &span, "the client sent nothing");
            return metrics.timed_out(TimedOut::FirstByte);
        }
        () = closing.cancelled() => return,
    };
    let first_bytes = &first_bytes[..arrived];

    let stream = Arc::new(stream);
    let tap = Arc::new(Tap::new(&stream));
    let progress = Arc::<SignsOfLife>::default();
    let guards = Arc::new(guards);
    let new_socket = || {
        let (tap, progress) = (Arc::clone(&tap), Arc::clone(&progress));
        let (closing, guards) = (closing.clone(), Arc::clone(&guards));
        Socket::new(Arc::clone(&stream), timeouts, tap, progress, closing, guards)
    };
    let mut socket = new_socket();
    let connection = Connection {
        responder,
        peer,
        client_end: ClientEnd::default(),
        closer: ConnectionCloser::new(Arc::new(PeerStream {
            stream: Arc::clone(&stream),
            tap: Arc::clone(&tap),
        })),
        tap: Arc::clone(&tap),
        progress: Arc::clone(&progress),
        owed: Arc::default(),
        span,
        serving: Arc::clone(&serving),
        closing: closing.clone(),
    };
    // The futures of TLS and HTTP/2 are boxed, so that most connections do not reserve memory for
    // them.
    match tls {
        // The preface arrives in one piece. A client that sends it byte by byte gets HTTP/1.1.
        None if first_bytes.len() > 2 && PREFACE.starts_with(first_bytes) => {
            connection.wait_for_reader(&mut socket);
            Box::pin(connection.http2(socket)).await;
        }
        None => {
            let mut has_served = false;
            // hyper's state is boxed, since a stream outlives it.
            while let Some(TakenStream { events, continues }) =
                Box::pin(connection.http1(socket, Some(&stream), has_served)).await
            {
                (socket, has_served) = (new_socket(), true);
                if !connection.stream(events, continues, &mut socket, &stream).await {
                    break;
                }
            }
        }
        Some(tls) if first_bytes.first() == Some(&HANDSHAKE) => {
            Box::pin(connection.tls(socket, tls)).await;
        }
        Some(_) if first_bytes.is_empty() => {}
        Some(_) => {
            metrics.refused(RefusalReason::NoTls);
            refuse_plain_http(socket).await;
        }
    }
}

impl Connection {
    /// Serves a TLS connection.
    async fn tls(self, socket: Socket, tls: &Tls) {
        let Serving { timeouts, metrics, .. } = &*self.serving;
        let accepted = tokio::select! {
            biased;
            accepted = tokio::time::timeout(timeouts.handshake, tls.accept(socket)) => accepted,
            () = self.closing.cancelled() => return,
        };
        match accepted {
            Ok(Ok(mut socket)) if socket.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.wait_for_reader(socket.get_mut().0);
                self.http2(socket).await;
            }
            Ok(Ok(socket)) => drop(self.http1(socket, None, false).await),
            Ok(Err(error)) => {
                tracing::debug!(parent: &self.span, %error, "the TLS handshake failed");
                metrics.refused(RefusalReason::Tls);
            }
            Err(_) => metrics.timed_out(TimedOut::Handshake),
        }
    }
}

/// Answers plain HTTP on a TLS port, in a form that browsers show.
async fn refuse_plain_http(mut socket: Socket) {
    let length = NO_TLS.len();
    let response = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{NO_TLS}"
    );
    // Fails if the client has left.
    let _ = socket.write_all(response.as_bytes()).await;
    let _ = socket.shutdown().await;
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // An event is a small write, which must not wait for the next one (RFC 896).
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(NO_ANSWER))?;
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 6))
}

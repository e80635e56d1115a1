//! The protocol of a connection, which its first bytes reveal: TLS if the server has a certificate,
//! then HTTP/1.1 or HTTP/2.

use std::{io, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    connection::{Accepted, Connection},
    serving::Serving,
    socket::Socket,
    tls::{Tls, VALIDATION},
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

/// Serves one connection to its end, or until its event stream rests. Once all connections must
/// close, only the requests in flight are completed. A client that delays that is not waited for.
pub(super) async fn serve(accepted: Accepted) {
    let server = Arc::clone(&accepted.server);
    let Serving { timeouts, metrics, tls, .. } = &server.serving;
    let connection = Connection::new(accepted);
    let (stream, span) = (&*connection.accepted.stream, &connection.span);
    if let Err(error) = set_options(stream) {
        tracing::debug!(parent: span, %error, "the connection's options could not be set");
    }

    let mut first_bytes = [0; PREFACE.len()];
    let arrived = tokio::select! {
        // Bytes that have arrived take precedence.
        biased;
        // Unlike `peek`, `readable` may return when there is nothing to read.
        arrived = stream.peek(&mut first_bytes) => arrived.unwrap_or(0),
        () = tokio::time::sleep(timeouts.first_byte) => {
            tracing::debug!(parent: span, "the client sent nothing");
            return metrics.timed_out(TimedOut::FirstByte);
        }
        () = server.closing.cancelled() => return,
    };
    let first_bytes = &first_bytes[..arrived];

    // The futures of TLS and HTTP/2 are boxed, so that most connections do not reserve memory for
    // them.
    match tls {
        // The preface arrives in one piece. A client that sends it byte by byte gets HTTP/1.1.
        None if first_bytes.len() > 2 && PREFACE.starts_with(first_bytes) => {
            let mut socket = connection.socket();
            connection.wait_for_reader(&mut socket);
            Box::pin(connection.http2(socket)).await;
        }
        None => Box::pin(connection.plain(None)).await,
        Some(tls) if first_bytes.first() == Some(&HANDSHAKE) => {
            Box::pin(connection.tls(tls)).await;
        }
        Some(_) if first_bytes.is_empty() => {}
        Some(_) => {
            metrics.refused(RefusalReason::NoTls);
            refuse_plain_http(connection.socket()).await;
        }
    }
}

impl Connection {
    /// Serves a TLS connection.
    async fn tls(self, tls: &Tls) {
        let Serving { timeouts, metrics, .. } = self.serving();
        let handshake = async { tls.accept(self.socket()).await.map(Box::new) };
        // The states of the handshake and of the protocols are boxed, so that a connection has
        // memory for one of them at a time.
        let handshake = Box::pin(tokio::time::timeout(timeouts.handshake, handshake));
        let accepted = tokio::select! {
            biased;
            accepted = handshake => accepted,
            () = self.closing().cancelled() => return,
        };
        match accepted {
            Ok(Ok(mut socket)) if socket.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.wait_for_reader(socket.get_mut().0);
                Box::pin(self.http2(socket)).await;
            }
            // An authority that has validated a name has seen what it needs.
            Ok(Ok(mut socket)) if socket.get_ref().1.alpn_protocol() == Some(VALIDATION) => {
                // Fails if the authority has left.
                let _ = socket.shutdown().await;
            }
            Ok(Ok(socket)) => Box::pin(self.secure(socket)).await,
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

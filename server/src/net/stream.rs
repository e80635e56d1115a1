//! The direct path: an event stream over plain HTTP/1.1. hyper reads the request and writes the
//! head of the response. From there on, a stream needs no more than its socket, and the buffers of
//! hyper are freed.

use std::{
    future::{pending, poll_fn},
    io::{self, ErrorKind, IoSlice, Write as _},
    pin::Pin,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncWrite as _, AsyncWriteExt as _},
    net::TcpStream,
};
use waterclock_axum::DirectStream;

use super::{connection::Connection, socket::Socket};
use crate::ops::metrics::TimedOut;

/// The end of a body in chunks (RFC 9112, 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Connection {
    /// Writes a stream to its end. Returns `true` if the connection may have further requests.
    pub(super) async fn stream(
        &self,
        mut events: DirectStream,
        continues: bool,
        socket: &mut Socket,
        peer: &TcpStream,
    ) -> bool {
        let _direct = self.serving.metrics.stream_direct();
        // The set polls the future only after its own waker has fired, not for every event.
        let mut end = FuturesUnordered::from_iter([async {
            tokio::select! {
                () = client_left(peer) => {}
                () = async {
                    self.closing.cancelled().await;
                    tokio::time::sleep(self.serving.timeouts.closing).await;
                } => {}
            }
        }]);
        let written = tokio::select! {
            // Events that are ready take precedence, as long as the client reads them.
            biased;
            written = write(&mut events, socket) => written,
            _ = end.next() => return false,
        };
        if let Err(error) = written {
            if error.kind() == ErrorKind::TimedOut {
                self.serving.metrics.timed_out(TimedOut::Write);
            }
            tracing::debug!(parent: &self.span, %error, "the connection failed");
            return false;
        }
        if !continues || self.serving.stop.has_begun() {
            // Fails if the client has left.
            let _ = socket.shutdown().await;
            return false;
        }
        true
    }
}

/// Writes a stream as a body in chunks.
async fn write(events: &mut DirectStream, socket: &mut Socket) -> io::Result<()> {
    while let Some(part) = events.next().await {
        write_chunk(socket, &part).await?;
        // A reader that is far behind must not hold up others.
        tokio::task::consume_budget().await;
    }
    socket.write_all(LAST_CHUNK).await
}

/// Writes a chunk of a body (RFC 9112, 7.1).
async fn write_chunk(socket: &mut Socket, part: &[u8]) -> io::Result<()> {
    let mut head = [0; 2 * size_of::<usize>() + 2];
    let mut rest = &mut head[..];
    write!(rest, "{:x}\r\n", part.len())?;
    let unused = rest.len();
    let head = &head[..head.len() - unused];
    let mut slices = &mut [IoSlice::new(head), IoSlice::new(part), IoSlice::new(b"\r\n")][..];
    while !slices.is_empty() {
        let written =
            poll_fn(|context| Pin::new(&mut *socket).poll_write_vectored(context, slices));
        match written.await? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut slices, written),
        }
    }
    Ok(())
}

/// Waits until the client ends its side, and so has left. If it sends another request before that,
/// only a write that fails tells.
async fn client_left(peer: &TcpStream) {
    if let Ok(1..) = peer.peek(&mut [0]).await {
        pending::<()>().await;
    }
}

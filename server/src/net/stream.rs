//! The direct path: an event stream over HTTP/1.1. hyper reads the request and makes the head of the
//! response. From there on, a stream needs no more than its socket, and the buffers of hyper are
//! freed.

use std::{
    future::poll_fn,
    io::{self, ErrorKind, IoSlice, Write as _},
    pin::Pin,
    task::Poll,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use waterclock_axum::{DirectStream, group::GroupKey};

use super::connection::Connection;

/// The end of a body in chunks (RFC 9112, 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Number of bytes from which a head does not wait for further parts of its stream.
const FIRST_WRITE: usize = 16 * 1024;

/// The end of writing a stream.
pub(super) enum StreamEnd {
    /// The stream is complete, and the connection is open.
    Complete,
    /// The client has left, or the connection has failed.
    Left,
    /// The stream has sent everything, and may rest in this group.
    Idle(GroupKey),
}

impl Connection {
    /// Writes a stream until it ends or may rest, or `client_left` is ready. Begins with its head,
    /// or with the rest of a chunk.
    pub(super) async fn stream(
        &self,
        head: Vec<u8>,
        unsent: &[u8],
        events: &mut DirectStream,
        socket: &mut (impl AsyncWrite + Unpin),
        client_left: impl Future<Output = ()>,
        may_rest: bool,
    ) -> StreamEnd {
        // The set polls the future only after its own waker has fired, not for every event.
        let mut end = FuturesUnordered::from_iter([async {
            tokio::select! {
                () = client_left => {}
                () = async {
                    self.closing().cancelled().await;
                    tokio::time::sleep(self.serving().timeouts.closing).await;
                } => {}
            }
        }]);
        let written = tokio::select! {
            // Events that are ready take precedence, as long as the client reads them.
            biased;
            written = write(head, unsent, events, socket, may_rest) => written,
            _ = end.next() => return StreamEnd::Left,
        };
        written.unwrap_or_else(|error| {
            self.accepted.write_failed(&self.span, &error);
            StreamEnd::Left
        })
    }
}

/// Writes a stream as a body in chunks.
async fn write(
    head: Vec<u8>,
    unsent: &[u8],
    events: &mut DirectStream,
    socket: &mut (impl AsyncWrite + Unpin),
    may_rest: bool,
) -> io::Result<StreamEnd> {
    if !head.is_empty() && write_first(head, events, socket).await? {
        return Ok(StreamEnd::Complete);
    }
    socket.write_all(unsent).await?;
    loop {
        let next = poll_fn(|context| match events.poll_next_unpin(context) {
            Poll::Ready(part) => Poll::Ready(Ok(part)),
            Poll::Pending if may_rest => {
                events.group().map_or(Poll::Pending, |group| Poll::Ready(Err(group)))
            }
            Poll::Pending => Poll::Pending,
        });
        match next.await {
            Ok(Some(part)) => write_chunk(socket, &part).await?,
            Ok(None) => break,
            Err(group) => return Ok(StreamEnd::Idle(group)),
        }
        // A reader that is far behind must not hold up others.
        tokio::task::consume_budget().await;
    }
    socket.write_all(LAST_CHUNK).await?;
    Ok(StreamEnd::Complete)
}

/// Writes the head of a response, and what is ready of its stream, at once. Returns `true` if that
/// is all of it.
async fn write_first(
    mut bytes: Vec<u8>,
    events: &mut DirectStream,
    socket: &mut (impl AsyncWrite + Unpin),
) -> io::Result<bool> {
    let mut is_complete = false;
    while !is_complete && bytes.len() < FIRST_WRITE {
        match events.next().now_or_never() {
            Some(Some(part)) => {
                write!(bytes, "{:x}\r\n", part.len())?;
                bytes.extend_from_slice(&part);
                bytes.extend(b"\r\n");
            }
            Some(None) => {
                bytes.extend(LAST_CHUNK);
                is_complete = true;
            }
            None => break,
        }
    }
    socket.write_all(&bytes).await?;
    socket.flush().await?;
    Ok(is_complete)
}

/// Writes a chunk of a body (RFC 9112, 7.1).
async fn write_chunk(socket: &mut (impl AsyncWrite + Unpin), part: &[u8]) -> io::Result<()> {
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
    // TLS may have encrypted more than it has written.
    socket.flush().await
}

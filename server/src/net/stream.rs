//! The direct path: an event stream over HTTP/1.1. hyper reads the request and makes the head of
//! the response. From there on, a stream needs no more than its socket, and the buffers of hyper
//! are freed.

use std::{
    future::poll_fn,
    io::{self, ErrorKind, IoSlice, Write as _},
    pin::Pin,
    task::Poll,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream::FuturesUnordered};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use waterclock_axum::{DirectStream, group::GroupKey};

use super::connection::Connection;

/// The end of a body in chunks (RFC 9112, 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Maximum size of the head and the parts in the first write of a stream, in bytes. A larger head
/// is written alone.
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
    if !head.is_empty() {
        let is_complete = write_first(head, events, socket).await?;
        // A client that asks for one short stream after the other must not hold up others.
        tokio::task::consume_budget().await;
        if is_complete {
            return Ok(StreamEnd::Complete);
        }
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
    socket.flush().await?;
    Ok(StreamEnd::Complete)
}

/// Writes the head of a response, and what is ready of its stream, at once. Returns `true` if that
/// is all of it.
async fn write_first(
    mut bytes: Vec<u8>,
    events: &mut (impl Stream<Item = Bytes> + Unpin),
    socket: &mut (impl AsyncWrite + Unpin),
) -> io::Result<bool> {
    let (mut is_complete, mut large) = (false, None);
    while !is_complete && large.is_none() {
        match events.next().now_or_never() {
            Some(Some(part)) if bytes.len() + part.len() > FIRST_WRITE => large = Some(part),
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
    // It is not copied, since other streams may share its bytes.
    if let Some(part) = large {
        write_chunk(socket, &part).await?;
    }
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

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_util::stream::{iter, pending};

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

    /// Notes each write. A vectored one counts as one.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.poll_write(
                context,
                &slices.iter().flat_map(|slice| &**slice).copied().collect::<Vec<_>>(),
            )
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn parts(parts: &[&'static str]) -> impl Stream<Item = Bytes> + Unpin {
        iter(parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_head_leaves_with_the_parts_that_are_ready() {
        let mut writes = Writes::default();
        let mut events = parts(&["hello", "ticks"]).chain(pending());
        assert!(!write_first(HEAD.to_vec(), &mut events, &mut writes).await.unwrap());
        assert_eq!(writes.0, [[HEAD, b"5\r\nhello\r\n5\r\nticks\r\n"].concat()]);
    }

    #[tokio::test]
    async fn a_short_stream_is_one_write() {
        let mut writes = Writes::default();
        assert!(write_first(HEAD.to_vec(), &mut parts(&["end"]), &mut writes).await.unwrap());
        assert_eq!(writes.0, [[HEAD, b"3\r\nend\r\n0\r\n\r\n"].concat()]);
    }

    #[tokio::test]
    async fn a_large_part_is_not_copied_to_the_head() {
        let mut writes = Writes::default();
        let large = Bytes::from(vec![b'x'; FIRST_WRITE]);
        let mut events = parts(&["hello"]).chain(iter([large.clone()])).chain(pending());
        assert!(!write_first(HEAD.to_vec(), &mut events, &mut writes).await.unwrap());
        let chunk = [b"4000\r\n", &*large, b"\r\n"].concat();
        assert_eq!(writes.0, [[HEAD, b"5\r\nhello\r\n"].concat(), chunk]);
    }
}

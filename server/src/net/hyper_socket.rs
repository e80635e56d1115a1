//! A socket as hyper uses it. It holds back the head of a response whose event stream goes on
//! without hyper, and adds a body to hyper's refusal of a request that it cannot read. hyper
//! answers such a request by itself, without a body, so that its client does not learn what to
//! change.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::http::StatusCode;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use waterclock_axum::Problem;

/// hyper's refusal, up to the date.
const REFUSAL: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: ";
/// The date, and the end of the head.
const DATE: &str = "Sun, 22 Nov 2026 07:00:00 GMT\r\n\r\n";

/// The detail of the problem. A raw `>` is the mistake that is made most, since patterns have it.
const DETAIL: &str = "This is not a request of HTTP/1.1 (RFC 9112). If its URL has a character that \
                      must be encoded, such as `>`, `<`, `\"` or a space, encode it: write `>` as \
                      `%3E`.";

/// A socket for hyper.
///
/// hyper writes the refusal at once and by itself. No other write can be the same, since the bodies
/// of all responses are free of CR LF.
pub(super) struct HyperSocket<S> {
    socket: S,
    /// Bytes to read before those of the socket.
    unread: Bytes,
    /// Set once a stream is about to go on without hyper.
    leaves_hyper: Arc<AtomicBool>,
    /// Bytes to write before that stream.
    held: Vec<u8>,
    /// The refusal, and the number of its bytes that are written.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<S> HyperSocket<S> {
    pub(super) fn new(socket: S, unread: Bytes, leaves_hyper: Arc<AtomicBool>) -> Self {
        Self { socket, unread, leaves_hyper, held: Vec::new(), refusal: None }
    }

    /// Returns the socket, a copy of all bytes that are to be read again, and the bytes that are
    /// still to be written. Those in `read_last` come first. They may occupy a large buffer.
    pub(super) fn into_parts(self, read_last: &Bytes) -> (S, Bytes, Vec<u8>) {
        let unread = [read_last, &self.unread].map(|bytes| &**bytes).concat();
        (self.socket, unread.into(), self.held)
    }
}

/// Returns the refusal with its body, if `bytes` are hyper's.
fn explained(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() != REFUSAL.len() + DATE.len() {
        return None;
    }
    let date = str::from_utf8(bytes.strip_prefix(REFUSAL)?).ok()?;
    let problem = Problem::new(StatusCode::BAD_REQUEST, DETAIL);
    let body = serde_json::to_string(&problem.body()).ok()?;
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
         content-type: application/problem+json\r\nx-content-type-options: nosniff\r\n\
         content-length: {}\r\ndate: {date}",
        body.len()
    );
    Some((head + &body).into())
}

impl<S: AsyncRead + Unpin> AsyncRead for HyperSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.has_remaining() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HyperSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.leaves_hyper.load(Ordering::Relaxed) {
            self.held.extend(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let Self { socket, refusal, .. } = &mut *self;
        if refusal.is_none() {
            *refusal = explained(bytes).map(|text| (text, 0));
        }
        let Some((text, written)) = refusal else {
            return Pin::new(socket).poll_write(context, bytes);
        };
        while *written < text.len() {
            match ready!(Pin::new(&mut *socket).poll_write(context, &text[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        *refusal = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [slice] => self.poll_write(context, slice),
            _ if self.leaves_hyper.load(Ordering::Relaxed) => {
                self.held.extend(slices.iter().flat_map(|slice| &**slice));
                Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
            }
            _ => Pin::new(&mut self.socket).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_refusal_gets_a_body() {
        let refusal = [REFUSAL, DATE.as_bytes()].concat();
        let text = String::from_utf8(explained(&refusal).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("\r\ndate: Sun, 22 Nov 2026 07:00:00 GMT"), "{head}");
        assert!(body.contains("`%3E`"), "{body}");
        let other = String::from_utf8(refusal.clone()).unwrap().replace("400", "431");
        assert_eq!(explained(other.as_bytes()), None);
        assert_eq!(explained(&refusal[1..]), None);
        assert_eq!(explained(&[&refusal[..], b"x"].concat()), None);
    }
}

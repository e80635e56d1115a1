//! Persistent connections over HTTP/1.1 (RFC 9112, 9.3): hyper answers their requests, and the
//! direct path writes their event streams. Over plain HTTP, a stream that has sent everything rests
//! in a group.

use std::{future::pending, io, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tracing::Span;
use waterclock_axum::DirectStream;

use super::{
    connection::{Connection, Parked},
    group::RestingConnection,
    http1::TakenStream,
    socket::Socket,
    stream::StreamEnd,
};

impl Connection {
    /// Serves plain HTTP/1.1 to the end of the connection, or until a stream rests. Begins with a
    /// stream if one is given.
    pub(super) async fn plain(self, mut stream: Option<TakenStream>) {
        let mut socket = self.socket();
        let (mut unread, mut has_served) = (Bytes::new(), stream.is_some());
        loop {
            let taken = if let Some(taken) = stream.take() {
                taken
            } else {
                // hyper's state is boxed, since a stream outlives it.
                let served = Box::pin(self.http1(socket, unread, true, has_served)).await;
                let Some((of_stream, taken)) = served else { return };
                socket = of_stream;
                taken
            };
            has_served = true;
            let TakenStream { head, unsent, mut events, continues, direct, .. } = taken;
            unread = taken.unread;
            // The bytes of a stream that is metered are counted by the socket.
            let may_rest = unread.is_empty() && !self.tap.is_counting();
            let left = client_left(&self.accepted.stream);
            match self.stream(head, &unsent, &mut events, &mut socket, left, may_rest).await {
                StreamEnd::Complete if self.goes_on(continues) => {}
                StreamEnd::Complete => {
                    // The stream is over, although the client may take its time.
                    drop((events, direct));
                    // Fails if the client has left.
                    let _ = socket.shutdown().await;
                    return;
                }
                StreamEnd::Idle(group) => {
                    let server = Arc::clone(&self.accepted.server);
                    let resting = server.serving.metrics.stream_resting();
                    let parked = Parked { accepted: self.accepted, continues, direct, resting };
                    return server.groups.join(group, events, parked);
                }
                StreamEnd::Left => return,
            }
        }
    }

    /// Serves HTTP/1.1 over TLS to the end of the connection.
    pub(super) async fn secure(self, mut socket: Box<TlsStream<Socket>>) {
        let (mut unread, mut has_served) = (Bytes::new(), false);
        loop {
            // As above.
            let served = Box::pin(self.http1(socket, unread, false, has_served)).await;
            let Some((of_stream, taken)) = served else { return };
            has_served = true;
            let TakenStream { head, mut events, continues, direct, .. } = taken;
            unread = taken.unread;
            let (mut reader, mut writer) = tokio::io::split(of_stream);
            let mut next = Vec::new();
            let left = async {
                // The end of the client's side is behind a request that follows early.
                if !unread.is_empty() || matches!(reader.read_buf(&mut next).await, Ok(1..)) {
                    pending::<()>().await;
                }
            };
            let end = self.stream(head, &[], &mut events, &mut writer, left, false).await;
            socket = reader.unsplit(writer);
            match end {
                StreamEnd::Complete if self.goes_on(continues) => {}
                StreamEnd::Complete => {
                    // As above.
                    drop((events, direct));
                    let _ = socket.shutdown().await;
                    return;
                }
                StreamEnd::Idle(_) | StreamEnd::Left => return,
            }
            if !next.is_empty() {
                unread = next.into();
            }
        }
    }

    /// Returns `true` if further requests may follow a stream.
    fn goes_on(&self, continues: bool) -> bool {
        continues && !self.serving().stop.has_begun()
    }
}

/// Waits until the client ends its side, and so has left. If it sends another request before that,
/// only a write that fails tells.
async fn client_left(peer: &TcpStream) {
    if let Ok(1..) = peer.peek(&mut [0]).await {
        pending::<()>().await;
    }
}

impl RestingConnection for Parked {
    fn socket(&self) -> &TcpStream {
        &self.accepted.stream
    }

    fn span(&self) -> Span {
        self.accepted.span()
    }

    fn failed(&self, error: &io::Error) {
        self.accepted.write_failed(&self.span(), error);
    }

    fn resume(self, stream: impl FnOnce() -> DirectStream, unsent: Bytes) {
        let Self { accepted, continues, direct, resting } = self;
        drop(resting);
        let connection = Connection::new(accepted);
        let events = connection.span.in_scope(stream);
        let (unread, head) = (Bytes::new(), Vec::new());
        let stream = TakenStream { unread, head, unsent, events, continues, direct };
        tokio::spawn(connection.plain(Some(stream)));
    }
}

//! A connection over plain HTTP/1.1: hyper answers its requests, the direct path writes its event
//! streams, and a stream that has sent everything rests in a group.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tracing::Span;
use waterclock_axum::DirectStream;

use super::{
    connection::{Connection, Parked},
    group::RestingConnection,
    http1::TakenStream,
    stream::StreamEnd,
};

impl Connection {
    /// Serves plain HTTP/1.1 to the end of the connection, or until a stream rests. Begins with a
    /// stream if one is given.
    pub(super) async fn plain(self, mut stream: Option<TakenStream>) {
        let mut has_served = stream.is_some();
        loop {
            let taken = match stream.take() {
                Some(taken) => taken,
                // hyper's state is boxed, since a stream outlives it.
                None => match Box::pin(self.http1(self.socket(), true, has_served)).await {
                    Some(taken) => taken,
                    None => return,
                },
            };
            has_served = true;
            let TakenStream { unsent, mut events, continues, direct } = taken;
            let mut socket = self.socket();
            match self.stream(&unsent, &mut events, &mut socket).await {
                StreamEnd::Complete if continues && !self.serving().stop.has_begun() => {}
                StreamEnd::Complete => {
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
        tokio::spawn(connection.plain(Some(TakenStream { unsent, events, continues, direct })));
    }
}

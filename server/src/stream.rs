//! The body of an event stream: `hello`, then what the subscriber reads, with heartbeats where there
//! is nothing, until the client leaves or the server stops.

use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::Instant;
use waterclock::{
    hub::{Frame, Step, Subscriber},
    notice::{Goodbye, GoodbyeReason, Heartbeat, Hello, Notice},
    sse::Block,
};

use crate::router::AppState;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Id, name and data.
    Plain,
    /// Unnamed, with the whole event as JSON for data.
    Json,
}

/// The bytes of one stream, chunk by chunk, each of whole blocks.
pub(crate) fn body(
    state: AppState,
    subscriber: Subscriber,
    format: Format,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let connection = Connection {
        number: state.connections.next(),
        opened: Instant::now(),
        events: 0,
        end: "client left",
    };
    tracing::info!(connection = connection.number, cursor = %subscriber.cursor(), "stream opened");
    let session = Session {
        state,
        subscriber,
        format,
        connection,
        sent: Instant::now(),
        phase: Phase::Hello,
    };
    stream::unfold(session, async |mut session| {
        let chunk = session.next().await?;
        Some((Ok(chunk), session))
    })
}

/// One stream while it lasts.
struct Session {
    state: AppState,
    subscriber: Subscriber,
    format: Format,
    connection: Connection,
    /// When the last chunk was made.
    sent: Instant,
    phase: Phase,
}

enum Phase {
    Hello,
    Events,
    Ended,
}

impl Session {
    /// The next chunk; none at the stream's end. Each is made when the connection has room for it.
    async fn next(&mut self) -> Option<Bytes> {
        let chunk = match self.phase {
            Phase::Hello => {
                self.phase = Phase::Events;
                self.hello()
            }
            Phase::Events => self.events().await?,
            Phase::Ended => return None,
        };
        self.sent = Instant::now();
        Some(chunk)
    }

    async fn events(&mut self) -> Option<Bytes> {
        let step = tokio::select! {
            // In this order, so that a stop is not put off by events that keep coming.
            biased;
            () = self.state.stopping.cancelled() => {
                self.phase = Phase::Ended;
                self.connection.end = "server stopped";
                return Some(self.goodbye(GoodbyeReason::Draining));
            }
            step = self.subscriber.next() => step,
            () = tokio::time::sleep_until(self.sent + self.state.streams.heartbeat) => {
                return Some(self.heartbeat());
            }
        };
        match step {
            Ok(Step::Frames(frames)) => {
                self.connection.events += frames.len() as u64;
                Some(join(&frames, self.format))
            }
            Ok(Step::Gap(gap)) => {
                tracing::info!(
                    connection = self.connection.number,
                    reason = ?gap.reason,
                    cursor = ?gap.cursor,
                    "gap"
                );
                Some(notice(&gap, Some(&self.subscriber), None))
            }
            Err(error) => {
                // The client comes back with its cursor, as after any cut.
                let number = self.connection.number;
                tracing::error!(connection = number, error = &error as &dyn Error, "stream failed");
                self.connection.end = "log failed";
                None
            }
        }
    }

    fn hello(&self) -> Bytes {
        let AppState { hub, streams, .. } = &self.state;
        let kept = hub.kept();
        let hello = Hello {
            time: hub.now(),
            connection: self.connection.number,
            heartbeat_ms: millis(streams.heartbeat),
            retry_ms: millis(streams.retry),
            oldest: kept.map(|(oldest, _)| oldest),
            newest: kept.map(|(_, newest)| newest),
        };
        // With a gap to come, the client keeps its own cursor until it has been told.
        let position = (!self.subscriber.has_gap()).then_some(&self.subscriber);
        notice(&hello, position, Some(streams.retry))
    }

    fn heartbeat(&self) -> Bytes {
        notice(&Heartbeat { time: self.state.hub.now() }, Some(&self.subscriber), None)
    }

    fn goodbye(&self, reason: GoodbyeReason) -> Bytes {
        // Spread, so that the clients of a server that stops do not all come back at once.
        let retry = self.state.streams.retry.mul_f64(1.0 + fastrand::f64());
        notice(&Goodbye { reason }, None, Some(retry))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A notice as a block; with a position, the client's cursor is set to it.
fn notice<N: Notice>(data: &N, position: Option<&Subscriber>, retry: Option<Duration>) -> Bytes {
    let id = position.map(|subscriber| subscriber.cursor().to_string());
    let json = serde_json::to_string(data);
    let mut bytes = Vec::new();
    let block = Block {
        id: id.as_deref(),
        name: Some(N::NAME),
        retry,
        // `null` cannot happen: notices are made of strings and numbers, which are JSON.
        data: Some(json.as_deref().unwrap_or("null")),
    };
    let encoded = block.encode(&mut bytes);
    debug_assert_eq!(encoded, Ok(()), "ids and reserved names have no CR, LF and NUL");
    bytes.into()
}

/// The frames' bytes in one chunk, so that they leave in one write.
fn join(frames: &[Arc<Frame>], format: Format) -> Bytes {
    let bytes = |frame: &Arc<Frame>| match format {
        Format::Plain => frame.plain().clone(),
        Format::Json => frame.json().clone(),
    };
    match frames {
        [frame] => bytes(frame),
        frames => frames.iter().map(bytes).collect::<Vec<_>>().concat().into(),
    }
}

/// A stream's number and how it went; told when it is dropped, which is when the client leaves.
struct Connection {
    number: u64,
    opened: Instant,
    events: u64,
    end: &'static str,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Self { number, opened, events, end } = self;
        let lasted = opened.elapsed();
        tracing::info!(connection = number, ?lasted, events, end, "stream closed");
    }
}

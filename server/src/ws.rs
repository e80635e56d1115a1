//! `GET /ws`: the same events over a WebSocket (RFC 6455), as JSON in text messages. A client may publish
//! over it, too.
//!
//! Each message is an object whose first member says what it is: `event`, `hello`, `gap`, `heartbeat`,
//! `end`, `goodbye`, `published`, `problem`. A member `id` besides is the cursor to go on from.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{
        FromRequestParts, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket},
    },
    http::{Version, request::Parts},
    response::Response,
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{
    self,
    error::{CapacityError, ProtocolError},
};
use tracing::{Instrument as _, Span};
use waterclock::{
    event::Event,
    hub::{Batch, Frame},
    notice::{End, Notice},
    transport::Transport,
};

use crate::{
    access::Caller,
    client::Client,
    events::Request,
    meter::Traffic,
    metrics::Ended,
    problem::{self, Problem},
    publish::{self, MAX_DATA},
    router::AppState,
    stream::{Session, Wire},
};

/// How long a client's message may be, in bytes: as long as an event's data can become in JSON, which
/// writes some characters with six.
const MAX_MESSAGE: usize = 6 * MAX_DATA + 4096;
/// The same where the client may not publish at all: as much as it takes to tell it so. Half a message is kept
/// for as long as its client answers pings.
const MAX_MESSAGE_OF_READER: usize = 4096;
/// How much is read at a time, in bytes; each connection has such a buffer.
const READ_BUFFER: usize = 4096;
/// How many bytes of messages are put together before they are written.
const WRITE_BUFFER: usize = 8192;
/// How many publishes of a client may wait for the log. When there are more, nothing is read of it.
const MAX_PUBLISHING: usize = 256;
/// After so many pings without a sign of the client it counts as gone. What it is sent may be long on its way.
const MAX_SILENT: u32 = 3;
/// How long a client may take to answer that the connection is closed.
const LINGER: Duration = Duration::from_secs(1);

/// A request for a WebSocket, by a page that may.
pub(crate) struct Handshake(WebSocketUpgrade);

impl FromRequestParts<AppState> for Handshake {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        Caller::may_open_socket(parts, &state.access)?;
        if parts.version == Version::HTTP_2 {
            return Err(Problem::NotWebSocket(OVER_HTTP_2.to_owned()));
        }
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        upgrade.map(Self).map_err(|why| Problem::NotWebSocket(why.body_text()))
    }
}

/// What one is told who asks over HTTP/2. Browsers never do unless a server offers it (RFC 8441).
const OVER_HTTP_2: &str =
    "over HTTP/2 there is none, ask over HTTP/1.1 (in TLS, offer http/1.1 alone)";

/// Answers with the WebSocket.
pub(crate) async fn upgrade(
    State(state): State<AppState>,
    Handshake(handshake): Handshake,
    Client(client): Client,
    Extension(traffic): Extension<Arc<Traffic>>,
    caller: Caller,
    request: Request,
) -> Response {
    request.count(&state.meters, Transport::WebSocket);
    let span = Span::current();
    let longest = if caller.may_publish_any() { MAX_MESSAGE } else { MAX_MESSAGE_OF_READER };
    handshake
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(longest)
        .max_frame_size(longest)
        .on_upgrade(move |socket| {
            serve(socket, traffic, state, client, caller, request).instrument(span)
        })
}

/// Talks with a client until one of them ends it.
async fn serve(
    socket: WebSocket,
    traffic: Arc<Traffic>,
    state: AppState,
    client: IpAddr,
    caller: Caller,
    request: Request,
) {
    let heartbeat = state.stream_settings.heartbeat;
    let mut ping = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let publishing = FuturesOrdered::new();
    let mut talk =
        Talk { socket, traffic, state: state.clone(), client, caller, publishing, ping, silent: 0 };
    if let Some(sent) = request.complete() {
        let end = Messages.notice(&End { sent }, None, None);
        return talk.say_at_last(end, Close::of(Ended::End)).await;
    }
    match request.open(state, client, Messages) {
        Ok(mut session) => {
            if let Err(Over::Closing(close)) = talk.run(&mut session).await {
                talk.say_at_last(Vec::new(), close).await;
            }
            // Until here, a stop of the server waits for it.
            drop(session);
        }
        Err((reason, goodbye)) => talk.say_at_last(goodbye, Close::of(reason.into())).await,
    }
}

/// One connection.
struct Talk {
    socket: WebSocket,
    /// What is below it.
    traffic: Arc<Traffic>,
    state: AppState,
    client: IpAddr,
    caller: Caller,
    /// What the client publishes, in the order in which it is answered.
    publishing: FuturesOrdered<BoxFuture<'static, Result<Arc<Frame>, Problem>>>,
    ping: Interval,
    /// How many pings ago there was a sign of the client.
    silent: u32,
}

/// Why a talk is over.
enum Over {
    /// The connection is gone.
    Gone,
    /// We close it.
    Closing(Close),
}

/// What the client is told when we close the connection: a code (RFC 6455, 7.4, and IANA's WebSocket Close
/// Code Number Registry) and a reason.
struct Close(u16, Cow<'static, str>);

impl Close {
    fn of(ended: Ended) -> Self {
        let code = match ended {
            Ended::End | Ended::ClientLeft | Ended::Refused => 1000,
            Ended::Draining => 1001,
            Ended::LogFailed => 1011,
            Ended::Limit => 1013,
            Ended::Expired => 3000,
        };
        Self(code, Cow::Borrowed(ended.as_str()))
    }

    const BINARY: Self = Self(1003, Cow::Borrowed("only text messages, of JSON, are understood"));
    const NO_PONG: Self = Self(3008, Cow::Borrowed("no pong"));

    /// For what cannot be read; none if the connection is gone.
    fn of_error(error: axum::Error) -> Option<Self> {
        use tungstenite::Error;
        match *error.into_inner().downcast::<Error>().ok()? {
            Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                let longest = format!("{},{:03} bytes", max_size / 1000, max_size % 1000);
                let reason = match max_size {
                    MAX_MESSAGE_OF_READER => format!("who may not publish sends at most {longest}"),
                    _ => format!("a message is at most {longest} long"),
                };
                Some(Self(1009, reason.into()))
            }
            Error::Utf8(_) => Some(Self(1007, "a text message is in UTF-8".into())),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) => Some(Self(1002, "this breaks the rules of RFC 6455".into())),
            _ => None,
        }
    }
}

impl Talk {
    async fn run(&mut self, session: &mut Session<Messages>) -> Result<(), Over> {
        let mut events = 0;
        loop {
            tokio::select! {
                messages = session.next() => match messages {
                    Some(messages) => {
                        self.say(messages).await?;
                        // A client that takes events is there: if it did not, there would be no room for them
                        // soon, and the socket has a time-out for that.
                        if session.events() > events {
                            (events, self.silent) = (session.events(), 0);
                        }
                    }
                    None => return Err(Over::Closing(Close::of(session.ended()))),
                },
                message = self.socket.recv(), if self.publishing.len() < MAX_PUBLISHING => {
                    self.hear(message, session).await?;
                }
                Some(answer) = self.publishing.next() => self.say([written(&answer)]).await?,
                _ = self.ping.tick() => self.ping(session).await?,
            }
        }
    }

    /// Sends messages; those of one call leave together.
    async fn say(&mut self, messages: impl IntoIterator<Item = Utf8Bytes>) -> Result<(), Over> {
        for message in messages {
            self.socket.feed(Message::Text(message)).await.map_err(|_| Over::Gone)?;
        }
        self.socket.flush().await.map_err(|_| Over::Gone)
    }

    /// Answers what waits for an answer, sends the last messages, and closes the connection.
    async fn say_at_last(mut self, messages: Vec<Utf8Bytes>, Close(code, reason): Close) {
        while let Some(answer) = self.publishing.next().await {
            if self.say([written(&answer)]).await.is_err() {
                return;
            }
        }
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into_owned().into() }));
        if self.say(messages).await.is_ok() && self.socket.send(close).await.is_ok() {
            // The client is to see why before the connection goes.
            let closed = async {
                while let Some(Ok(_)) = self.socket.recv().await {}
                self.traffic.finish().await;
            };
            let _ = tokio::time::timeout(LINGER, closed).await;
        }
    }

    async fn hear(
        &mut self,
        message: Option<Result<Message, axum::Error>>,
        session: &mut Session<Messages>,
    ) -> Result<(), Over> {
        self.silent = 0;
        let close = match message.ok_or(Over::Gone)? {
            Ok(Message::Text(text)) => {
                let answer = match self.begin_publish(&text).await {
                    Ok(publishing) => publishing,
                    Err(problem) => std::future::ready(Err(problem)).boxed(),
                };
                self.publishing.push_back(answer);
                return Ok(());
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => return Ok(()),
            Ok(Message::Close(_)) => {
                // This sends the answer.
                let _ = self.socket.recv().await;
                return Err(Over::Gone);
            }
            Ok(Message::Binary(_)) => Close::BINARY,
            Err(error) => Close::of_error(error).ok_or(Over::Gone)?,
        };
        session.refuse();
        Err(Over::Closing(close))
    }

    async fn begin_publish(
        &mut self,
        text: &str,
    ) -> Result<BoxFuture<'static, Result<Arc<Frame>, Problem>>, Problem> {
        let Said::Publish(message) =
            serde_json::from_str(text).map_err(|error| Problem::BadMessage(error.to_string()))?;
        let publishing = publish::begin(&self.state, &self.caller, self.client, message).await?;
        Ok(publishing.boxed())
    }

    /// Asks whether the client is there; closes the connection if it has not answered for long.
    async fn ping(&mut self, session: &mut Session<Messages>) -> Result<(), Over> {
        // It may have, and nobody has looked since.
        while self.silent > 0
            && let Some(message) = self.socket.recv().now_or_never()
        {
            self.hear(message, session).await?;
        }
        if self.silent == MAX_SILENT {
            return Err(Over::Closing(Close::NO_PONG));
        }
        self.silent += 1;
        self.socket.send(Message::Ping(Bytes::new())).await.map_err(|_| Over::Gone)
    }
}

/// What a client may send.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Publish(publish::Message),
}

/// What it is answered.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer<'a> {
    Published(&'a Event),
    Problem(problem::Body),
}

fn written(answer: &Result<Arc<Frame>, Problem>) -> Utf8Bytes {
    let answer = match answer {
        Ok(frame) => Answer::Published(frame.event()),
        Err(problem) => Answer::Problem(problem.body()),
    };
    // It is made of strings and numbers, which are JSON.
    serde_json::to_string(&answer).unwrap_or_default().into()
}

/// Text messages, several in a chunk.
struct Messages;

impl Wire for Messages {
    type Chunk = Vec<Utf8Bytes>;

    fn events(&self, batch: &Batch) -> Vec<Utf8Bytes> {
        batch.iter().filter_map(|frame| text(frame.message().clone())).collect()
    }

    fn counted_events(&self, frames: &[Arc<Frame>], first: u64) -> Vec<Utf8Bytes> {
        let frames = frames.iter().zip(first..);
        frames.filter_map(|(frame, sent)| text(frame.counted_message(sent))).collect()
    }

    fn notice<N: Notice>(
        &self,
        notice: &N,
        position: Option<&str>,
        _: Option<Duration>, // A notice that has one says it itself.
    ) -> Vec<Utf8Bytes> {
        // `null` cannot happen: notices are made of strings and numbers, which are JSON.
        let json = serde_json::to_string(notice);
        let json = json.as_deref().unwrap_or("null");
        let id = position.map(|id| format!(",\"id\":\"{id}\"")).unwrap_or_default();
        vec![format!("{{\"{}\":{json}{id}}}", N::NAME).into()]
    }

    fn length(chunk: &Vec<Utf8Bytes>) -> usize {
        chunk.iter().map(|message| message.len()).sum()
    }
}

/// What was encoded as UTF-8 is UTF-8.
fn text(bytes: Bytes) -> Option<Utf8Bytes> {
    Utf8Bytes::try_from(bytes).ok()
}

//! `GET /ws`: the event stream over a WebSocket (RFC 6455), as JSON in text messages. A client may
//! also publish over it.
//!
//! Each message is an object whose first member names its kind: `event`, `hello`, `gap`,
//! `heartbeat`, `end`, `goodbye`, `published` or `problem`. A further member `id` is the cursor to
//! resume from.

use std::{borrow::Cow, future::ready, sync::Arc, time::Duration};

use axum::{
    extract::{
        FromRequestParts, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket},
    },
    http::{
        HeaderValue, StatusCode, Version,
        header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE},
        request::Parts,
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered,
};
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{
    self,
    error::{CapacityError, ProtocolError},
};
use tracing::{Instrument as _, Span};
use waterclock::{
    event::Draft,
    hub::{Batch, Frame},
    notice::{End, Notice},
    transport::Transport,
};

use super::body::PublishMessage;
use crate::{
    admission::{Grant, PublishRejection, check_key, parse_name},
    connection::ConnectionCloser,
    denial_hook::DenialHook,
    limits::{MAX_IN_FLIGHT, MAX_MESSAGE, MAX_READER_MESSAGE},
    metrics::EndReason,
    policy::Policy,
    problem::Problem,
    session::{Encoder, Session},
    state::{PublishContext, RoutesState, StreamContext},
    subscription::Subscription,
};

/// The subprotocol, for clients that name any. A browser that names some gives up unless the server
/// chooses one of them (the WHATWG standard on them).
const SUBPROTOCOL: &str = "waterclock";
/// Size of the read buffer of each connection, in bytes.
const READ_BUFFER: usize = 4096;
/// Number of bytes of messages that are combined into one write.
const WRITE_BUFFER: usize = 8192;
/// Number of pings without a sign of life after which a client counts as gone. A slow client may
/// take that long to receive what was sent before a ping.
const MAX_SILENT_PINGS: u32 = 3;
/// Time that a client may take to answer the closing handshake.
const LINGER: Duration = Duration::from_secs(1);

/// An error of the WebSocket route.
#[derive(Debug, thiserror::Error)]
enum WebSocketError {
    #[error("This resource is a WebSocket (RFC 6455), and the request is no handshake: {0}.")]
    Handshake(String),
    #[error(
        "The message is not valid: {0}. A client may send \
         {{\"publish\": {{\"topic\": …, \"name\": …, \"data\": …, \"key\": …}}}}; the name and the key \
         are optional."
    )]
    Message(#[from] serde_json::Error),
}

impl From<WebSocketError> for Problem {
    fn from(error: WebSocketError) -> Self {
        let detail = error.to_string();
        match error {
            // RFC 9110, 15.5.22; RFC 6455, 4.4.
            WebSocketError::Handshake(_) => Self::new(StatusCode::UPGRADE_REQUIRED, detail)
                .with_header(UPGRADE, HeaderValue::from_static("websocket"))
                .with_header(CONNECTION, HeaderValue::from_static("upgrade"))
                .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            // It may quote a long text of the client.
            WebSocketError::Message(_) => Self::new(StatusCode::BAD_REQUEST, detail).shortened(),
        }
    }
}

/// A valid handshake from a page that may open a WebSocket.
pub(super) struct Handshake {
    upgrade: WebSocketUpgrade,
    request: Parts,
}

impl FromRequestParts<RoutesState> for Handshake {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &RoutesState) -> Result<Self, Problem> {
        state.policy.may_open_websocket(parts)?;
        if parts.version == Version::HTTP_2 {
            // Browsers try that only if a server offers it (RFC 8441).
            let reason = "HTTP/2 has none; use HTTP/1.1 (in TLS, offer http/1.1 alone)";
            return Err(WebSocketError::Handshake(reason.to_owned()).into());
        }
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        let upgrade = upgrade.map_err(|why| WebSocketError::Handshake(why.body_text()))?;
        Ok(Self { upgrade, request: parts.clone() })
    }
}

/// Answers with the WebSocket.
pub(super) async fn get(
    State(policy): State<Arc<dyn Policy>>,
    State(streaming): State<Arc<StreamContext>>,
    State(publishing): State<Arc<PublishContext>>,
    Handshake { upgrade, request }: Handshake,
    subscription: Subscription,
) -> Response {
    subscription.accept(Transport::WebSocket);
    let span = Span::current();
    let max_message =
        if policy.may_publish_some(&request) { MAX_MESSAGE } else { MAX_READER_MESSAGE };
    upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(max_message)
        .max_frame_size(max_message)
        .on_upgrade(move |socket| {
            let peer = Peer::new(socket, request, publishing, streaming.settings.heartbeat);
            serve(peer, streaming, subscription).instrument(span)
        })
}

/// Serves a client until one side closes the connection.
async fn serve(mut peer: Peer, context: Arc<StreamContext>, subscription: Subscription) {
    if let Some(sent) = subscription.complete() {
        let end = MessageEncoder.notice(&End { sent }, None, None);
        return peer.close(end, CloseReason::of(EndReason::End)).await;
    }
    // A handshake has no answer that stops a client, so the ends are sent again.
    let repeats_ends = subscription.is_over(&context.hub);
    match subscription.open(context, MessageEncoder, repeats_ends).await {
        Ok(mut session) => {
            if let Err(Disconnect::Closing(reason)) = peer.run(&mut session).await {
                peer.close(Vec::new(), reason).await;
            }
            // A shutdown waits for the session until here.
            drop(session);
        }
        Err((reason, goodbye)) => {
            peer.close(goodbye.unwrap_or_default(), CloseReason::of(reason)).await;
        }
    }
}

/// The client at the other end of a WebSocket.
struct Peer {
    socket: WebSocket,
    /// The head of the request that opened the WebSocket.
    request: Parts,
    context: Arc<PublishContext>,
    /// Publishes of the client that are in flight, in the order of their answers.
    in_flight: FuturesOrdered<BoxFuture<'static, Result<Arc<Frame>, Problem>>>,
    ping: Interval,
    /// Number of pings since the last sign of life.
    silent_pings: u32,
}

/// The end of a conversation.
enum Disconnect {
    /// The connection is gone.
    Gone,
    /// This side closes it.
    Closing(CloseReason),
}

/// A close code (RFC 6455, 7.4, and IANA's WebSocket Close Code Number Registry) and a reason.
struct CloseReason(u16, Cow<'static, str>);

impl CloseReason {
    const BINARY: Self = Self(1003, Cow::Borrowed("only text messages with JSON are supported"));
    const NO_PONG: Self = Self(3008, Cow::Borrowed("no pong"));

    fn of(reason: EndReason) -> Self {
        let code = match reason {
            EndReason::End | EndReason::ClientLeft | EndReason::Refused => 1000,
            EndReason::Draining => 1001,
            EndReason::LogFailed => 1011,
            EndReason::Limit | EndReason::Behind => 1013,
            EndReason::Expired => 3000,
        };
        Self(code, Cow::Borrowed(reason.as_str()))
    }

    /// Chooses the close code for a read error. Returns `None` if the connection is gone.
    fn of_error(error: axum::Error) -> Option<Self> {
        use tungstenite::Error;
        match *error.into_inner().downcast::<Error>().ok()? {
            Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                let longest = format!("{},{:03} bytes", max_size / 1000, max_size % 1000);
                let reason = match max_size {
                    MAX_READER_MESSAGE => {
                        format!("without permission to publish, a message has at most {longest}")
                    }
                    _ => format!("a message has at most {longest}"),
                };
                Some(Self(1009, reason.into()))
            }
            Error::Utf8(_) => Some(Self(1007, "a text message must be UTF-8".into())),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) => Some(Self(1002, "this violates RFC 6455".into())),
            _ => None,
        }
    }
}

impl Peer {
    fn new(
        socket: WebSocket,
        request: Parts,
        context: Arc<PublishContext>,
        heartbeat: Duration,
    ) -> Self {
        let mut ping = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let in_flight = FuturesOrdered::new();
        Self { socket, request, context, in_flight, ping, silent_pings: 0 }
    }

    /// Sends what the session says, and publishes what the client sends.
    async fn run(&mut self, session: &mut Session<MessageEncoder>) -> Result<(), Disconnect> {
        let mut events = 0;
        loop {
            tokio::select! {
                messages = session.next() => match messages {
                    Some(messages) => {
                        self.send(messages).await?;
                        // A client that takes events is alive. Otherwise the socket's buffer would
                        // soon be full, and its timeout would end the connection.
                        if session.events() > events {
                            (events, self.silent_pings) = (session.events(), 0);
                        }
                    }
                    None => {
                        return Err(Disconnect::Closing(CloseReason::of(session.end_reason())));
                    }
                },
                message = self.socket.recv(), if self.in_flight.len() < MAX_IN_FLIGHT => {
                    self.receive(message, session).await?;
                }
                Some(result) = self.in_flight.next() => self.send([answer(&result)]).await?,
                _ = self.ping.tick() => self.ping(session).await?,
            }
        }
    }

    /// Sends messages, which leave together.
    async fn send(
        &mut self,
        messages: impl IntoIterator<Item = Utf8Bytes>,
    ) -> Result<(), Disconnect> {
        for message in messages {
            self.socket.feed(Message::Text(message)).await.map_err(|_| Disconnect::Gone)?;
        }
        self.socket.flush().await.map_err(|_| Disconnect::Gone)
    }

    /// Answers the publishes in flight, sends the last messages, and closes the connection.
    async fn close(mut self, messages: Vec<Utf8Bytes>, CloseReason(code, reason): CloseReason) {
        while let Some(result) = self.in_flight.next().await {
            if self.send([answer(&result)]).await.is_err() {
                return;
            }
        }
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into_owned().into() }));
        if self.send(messages).await.is_ok() && self.socket.send(close).await.is_ok() {
            // The client must be able to read the reason before the connection goes.
            let closed = async {
                while let Some(Ok(_)) = self.socket.recv().await {}
                if let Some(closer) = self.request.extensions.get::<ConnectionCloser>() {
                    closer.close().await;
                }
            };
            let _ = tokio::time::timeout(LINGER, closed).await;
        }
    }

    /// Handles a message of the client.
    async fn receive(
        &mut self,
        message: Option<Result<Message, axum::Error>>,
        session: &mut Session<MessageEncoder>,
    ) -> Result<(), Disconnect> {
        self.silent_pings = 0;
        let reason = match message.ok_or(Disconnect::Gone)? {
            Ok(Message::Text(text)) => {
                let result = match self.begin_publish(&text).await {
                    Ok(in_flight) => in_flight,
                    Err(problem) => {
                        DenialHook::call(&self.request.extensions, &problem);
                        ready(Err(problem)).boxed()
                    }
                };
                self.in_flight.push_back(result);
                return Ok(());
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => return Ok(()),
            Ok(Message::Close(_)) => {
                // This sends the answer to the closing handshake.
                let _ = self.socket.recv().await;
                return Err(Disconnect::Gone);
            }
            Ok(Message::Binary(_)) => CloseReason::BINARY,
            Err(error) => CloseReason::of_error(error).ok_or(Disconnect::Gone)?,
        };
        session.refuse();
        Err(Disconnect::Closing(reason))
    }

    /// Begins a publish. Publishes that begin in sequence keep that order.
    async fn begin_publish(
        &mut self,
        text: &str,
    ) -> Result<BoxFuture<'static, Result<Arc<Frame>, Problem>>, Problem> {
        let ClientMessage::Publish(PublishMessage { topic, name, data, key }) =
            serde_json::from_str(text).map_err(WebSocketError::from)?;
        let grant = Grant::new(&self.context, &self.request, &topic)?;
        let name = parse_name(name.as_deref())?;
        key.as_deref().map_or(Ok(()), check_key)?;
        grant.check_size(&data)?;
        let reservation = grant.admit(key)?;
        let draft = Draft::new(grant.topic().clone(), data).named(name);
        let in_flight = grant.enqueue(draft, reservation).await?;
        Ok(in_flight.stored().map(|stored| stored.map_err(PublishRejection::into)).boxed())
    }

    /// Asks the client for a sign of life. Closes the connection if it has been silent for too
    /// long.
    async fn ping(&mut self, session: &mut Session<MessageEncoder>) -> Result<(), Disconnect> {
        // A sign of life may have arrived and not been read yet.
        while self.silent_pings > 0
            && let Some(message) = self.socket.recv().now_or_never()
        {
            self.receive(message, session).await?;
        }
        if self.silent_pings == MAX_SILENT_PINGS {
            return Err(Disconnect::Closing(CloseReason::NO_PONG));
        }
        self.silent_pings += 1;
        self.socket.send(Message::Ping(Bytes::new())).await.map_err(|_| Disconnect::Gone)
    }
}

/// A message of a client.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientMessage {
    Publish(PublishMessage),
}

/// Writes the answer to a publish.
fn answer(result: &Result<Arc<Frame>, Problem>) -> Utf8Bytes {
    let (kind, json) = match result {
        Ok(frame) => ("published", frame.event().to_json()),
        // Serialization cannot fail: a problem consists of strings and numbers.
        Err(problem) => ("problem", serde_json::to_string(&problem.body()).unwrap_or_default()),
    };
    format!("{{\"{kind}\":{json}}}").into()
}

/// Encodes a stream as text messages. A chunk holds several.
struct MessageEncoder;

impl Encoder for MessageEncoder {
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
        _: Option<Duration>, // A notice with a retry time has it in its data.
    ) -> Vec<Utf8Bytes> {
        // Serialization cannot fail: notices consist of strings and numbers.
        let json = serde_json::to_string(notice);
        let json = json.as_deref().unwrap_or("null");
        let id = position.map(|id| format!(",\"id\":\"{id}\"")).unwrap_or_default();
        vec![format!("{{\"{}\":{json}{id}}}", N::NAME).into()]
    }

    fn length(chunk: &Vec<Utf8Bytes>) -> usize {
        chunk.iter().map(|message| message.len()).sum()
    }
}

/// Converts bytes that were encoded as UTF-8.
fn text(bytes: Bytes) -> Option<Utf8Bytes> {
    Utf8Bytes::try_from(bytes).ok()
}

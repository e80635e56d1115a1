//! Publishers, and readers on all transports.

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use waterclock::{
    event::Event,
    id::EventId,
    sse::{Parsed, Parser},
    transport::Transport,
};

use crate::histories::{AttemptOutcome, Receipt};

/// Time without a message, although heartbeats come more often, after which a reader gives up.
const SILENCE: Duration = Duration::from_secs(5);
/// Time after which a client gives up to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause of a client that polls.
const POLL_PAUSE: Duration = Duration::from_millis(100);

/// A client that opens a connection for each request.
static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
    client.build().expect("a client")
});

/// Requests a URL. Returns the status and the body.
pub async fn get(url: &str) -> Option<(u16, String)> {
    let answer = HTTP.get(url).timeout(PATIENCE).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// Requests a URL with another method and a body. Returns the status and the body.
pub async fn request(method: reqwest::Method, url: &str, body: String) -> Option<(u16, String)> {
    let answer = HTTP.request(method, url).timeout(PATIENCE).body(body).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// An answer to a publish.
pub struct PublishAnswer {
    pub outcome: AttemptOutcome,
    /// The status; `None` without an answer.
    pub status: Option<u16>,
    pub retry_after: Option<String>,
}

/// Publishes an event.
///
/// # Panics
///
/// If the answer is none that a publisher must expect.
pub async fn publish(
    address: SocketAddr,
    topic: &str,
    data: &str,
    key: Option<&str>,
) -> PublishAnswer {
    let mut request = HTTP.post(format!("http://{address}/events/{topic}")).timeout(PATIENCE);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let unanswered = |error: &reqwest::Error| {
        let outcome = if error.is_connect() {
            AttemptOutcome::Refused(error.to_string())
        } else {
            AttemptOutcome::Unknown
        };
        PublishAnswer { outcome, status: None, retry_after: None }
    };
    let response = match request.body(data.to_owned()).send().await {
        Ok(response) => response,
        Err(error) => return unanswered(&error),
    };
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = match response.text().await {
        Ok(text) => text,
        Err(error) => return unanswered(&error),
    };
    let outcome = match status {
        201 => AttemptOutcome::Acknowledged(serde_json::from_str(&text).unwrap()),
        500 | 503 if text.contains("unknown") => AttemptOutcome::Unknown,
        500 | 503 => AttemptOutcome::Refused(format!("{status}: {text}")),
        // Another attempt with the key is in flight at this node.
        409 if retry_after.is_some() => AttemptOutcome::Refused(text),
        _ => panic!("{status}: {text}"),
    };
    PublishAnswer { outcome, status: Some(status), retry_after }
}

/// The start of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderStart {
    Oldest,
    Now,
    After(EventId),
}

impl ReaderStart {
    /// Returns the parameter of a request, with `&` before it.
    fn parameter(self) -> String {
        match self {
            Self::Oldest => "&last_event_id=earliest".to_owned(),
            Self::Now => String::new(),
            Self::After(id) => format!("&last_event_id={id}"),
        }
    }
}

/// A request to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadAttempt<'a> {
    pub address: SocketAddr,
    pub transport: Transport,
    /// The parameters of the topics.
    pub topics: &'a str,
    pub start: ReaderStart,
    pub until: Instant,
}

/// The end of a reader's work at a node.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// The receiver of the messages wants no more, or the time is over.
    Finished,
    /// There was no answer, or an end.
    Cut,
}

/// A message of a stream, or a poll's response as several of them.
#[derive(Debug)]
pub enum Reading {
    /// The name of the node.
    Hello(Option<String>),
    Receipt(Receipt),
    Goodbye,
}

impl ReadAttempt<'_> {
    /// Reads until the end of the time, until a cut, or until `note` returns `false`.
    pub async fn run(self, mut note: impl FnMut(Reading) -> bool) -> ReadEnd {
        let end = match self.transport {
            Transport::Sse => self.read_stream(&mut note).await,
            Transport::WebSocket => self.read_socket(&mut note).await,
            Transport::LongPoll => self.read_polls("&wait=1", &mut note).await,
            Transport::Poll => self.read_polls("", &mut note).await,
        };
        end.unwrap_or(ReadEnd::Cut)
    }

    fn query(&self) -> String {
        format!("{}{}", self.topics, self.start.parameter())
    }

    /// Returns the time until which the next message must come.
    fn next(&self) -> Instant {
        self.until.min(Instant::now() + SILENCE)
    }

    /// Returns the end after a silence.
    fn silent(&self) -> ReadEnd {
        if Instant::now() >= self.until { ReadEnd::Finished } else { ReadEnd::Cut }
    }

    async fn read_stream(&self, note: &mut impl FnMut(Reading) -> bool) -> Option<ReadEnd> {
        let url = format!("http://{}/events?{}&format=json", self.address, self.query());
        let answer = timeout_at(self.next(), HTTP.get(&url).send()).await;
        let Ok(answer) = answer else { return Some(self.silent()) };
        let mut answer = answer.ok()?;
        assert_eq!(answer.status(), 200, "{url}");
        let mut parser = Parser::default();
        loop {
            let Ok(chunk) = timeout_at(self.next(), answer.chunk()).await else {
                return Some(self.silent());
            };
            let chunk = chunk.ok()??;
            for parsed in parser.feed(&chunk) {
                let Parsed::Message(message) = parsed else { continue };
                let id = message.last_event_id.parse().ok();
                let is_event = message.name == "message";
                let name = if is_event { "event" } else { &message.name };
                let value = serde_json::from_str(&message.data).unwrap();
                if !note_message(name, &value, id, note) {
                    return Some(ReadEnd::Finished);
                }
            }
        }
    }

    async fn read_socket(&self, note: &mut impl FnMut(Reading) -> bool) -> Option<ReadEnd> {
        let Ok(socket) = timeout_at(self.next(), self.handshake()).await else {
            return Some(self.silent());
        };
        let mut socket = socket?;
        loop {
            let Ok(message) = timeout_at(self.next(), socket.next()).await else {
                return Some(self.silent());
            };
            let Message::Text(text) = message?.ok()? else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            let (name, value) = message.as_object()?.iter().find(|(name, _)| *name != "id")?;
            let id = message["id"].as_str().and_then(|id| id.parse().ok());
            if !note_message(name, value, id, note) {
                return Some(ReadEnd::Finished);
            }
        }
    }

    /// Opens a WebSocket.
    async fn handshake(&self) -> Option<WebSocketStream<TcpStream>> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let (path, address) = (self.query(), self.address);
        let request = format!(
            "GET /ws?{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Some(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    async fn read_polls(
        &self,
        wait: &str,
        note: &mut impl FnMut(Reading) -> bool,
    ) -> Option<ReadEnd> {
        let mut start = self.start;
        while Instant::now() < self.until {
            let Self { address, topics, .. } = self;
            let url = format!("http://{address}/poll?{topics}{}{wait}", start.parameter());
            let (status, text) = timeout(SILENCE, get(&url)).await.ok()??;
            if status == 503 {
                return None;
            }
            assert_eq!(status, 200, "{url}: {text}");
            let answer: PollAnswer = serde_json::from_str(&text).unwrap();
            if let Some(gap) = answer.gap {
                note(Reading::Receipt(Receipt::Gap(gap.to_string())));
            }
            let mut is_going_on = true;
            // The one event of a request without a cursor is before the start.
            for event in answer.events.into_iter().filter(|_| start != ReaderStart::Now) {
                is_going_on &= note(Reading::Receipt(Receipt::Event(event)));
            }
            if !note(Reading::Receipt(Receipt::Position(answer.cursor))) || !is_going_on {
                return Some(ReadEnd::Finished);
            }
            start = ReaderStart::After(answer.cursor);
            if wait.is_empty() && !answer.more {
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
        Some(ReadEnd::Finished)
    }
}

/// The response to a poll.
#[derive(Debug, Deserialize)]
struct PollAnswer {
    events: Vec<Event>,
    cursor: EventId,
    gap: Option<Value>,
    more: bool,
}

/// Notes a message of a stream.
fn note_message(
    name: &str,
    value: &Value,
    id: Option<EventId>,
    note: &mut impl FnMut(Reading) -> bool,
) -> bool {
    let is_going_on = match name {
        "event" => {
            let event = serde_json::from_value(value.clone()).unwrap();
            return note(Reading::Receipt(Receipt::Event(event)));
        }
        "hello" => note(Reading::Hello(value["node"].as_str().map(str::to_owned))),
        "gap" => note(Reading::Receipt(Receipt::Gap(value.to_string()))),
        "heartbeat" => true,
        "goodbye" => note(Reading::Goodbye),
        _ => panic!("{name}: {value}"),
    };
    is_going_on && id.is_none_or(|id| note(Reading::Receipt(Receipt::Position(id))))
}

/// Reads the whole log of a node, page by page.
pub async fn whole_log(address: SocketAddr) -> Option<Vec<Event>> {
    log_of(address, "topic=%3E").await
}

/// Reads the events of topics that a node has, page by page. There must be no gap.
pub async fn log_of(address: SocketAddr, topics: &str) -> Option<Vec<Event>> {
    let (mut events, mut start) = (Vec::new(), ReaderStart::Oldest);
    loop {
        let url = format!("http://{address}/poll?{topics}{}", start.parameter());
        let (status, text) = get(&url).await?;
        assert_eq!(status, 200, "{text}");
        let answer: PollAnswer = serde_json::from_str(&text).unwrap();
        assert_eq!(answer.gap, None, "{url}");
        events.extend(answer.events);
        start = ReaderStart::After(answer.cursor);
        if !answer.more {
            return Some(events);
        }
    }
}

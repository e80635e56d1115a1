//! A client of each transport. What they read is told in the same words, so that what is asked of one can be
//! asked of all.

use std::{collections::VecDeque, net::SocketAddr};

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use waterclock::{
    event::Event,
    notice::{Gap, Goodbye},
    sse::{Parsed, Parser},
    transport::Transport,
};

use crate::support::{DEADLINE, Server};

/// The example's key of RFC 6455, 1.3, and what it is answered with.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// What a reader gets.
#[derive(Debug, PartialEq)]
pub enum Item {
    Event(Event),
    Gap(Gap),
    /// The stream is over. `end`, or the reason of its goodbye; none if it was cut.
    Ended(Option<String>),
}

/// An answer to a request that was refused.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub status: u16,
    pub authenticate: Option<String>,
    pub problem: Value,
}

/// What a reader asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub address: SocketAddr,
    pub transport: Transport,
    /// Without the cursor.
    pub query: String,
    pub cursor: Option<String>,
    /// Lines, each with its end.
    pub headers: String,
}

/// A connection of HTTP/1.1, which counts what crosses it.
pub struct Http {
    pub stream: TcpStream,
    /// What was read and not yet taken.
    pub unread: Vec<u8>,
    pub sent: u64,
    pub received: u64,
    /// Whether the other end did not wait for what it was sent.
    pub was_reset: bool,
}

/// Status line and headers.
#[derive(Debug)]
pub struct Head(String);

/// The client of one transport.
pub struct Reader {
    /// What to go on with after a cut.
    pub ask: Ask,
    /// The code of the last close.
    pub close: Option<u16>,
    /// How many requests were made.
    pub requests: u64,
    connection: Connection,
    /// What was read and not yet given, each with the cursor after it, if it has one.
    waiting: VecDeque<(Item, Option<String>)>,
    /// Whether a stream has said anything.
    has_begun: bool,
    /// What it has said of its end.
    ending: Option<String>,
}

enum Connection {
    Sse(Http, Parser),
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Polls {
        /// None if the next poll needs a new one.
        http: Option<Http>,
        /// Whether a poll is to be answered.
        is_asked: bool,
    },
    Over,
}

/// The answer to a poll.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Polled {
    pub events: Vec<Event>,
    pub cursor: String,
    pub gap: Option<Gap>,
    pub more: bool,
}

impl Head {
    pub fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Http {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, unread: Vec::new(), sent: 0, received: 0, was_reset: false }
    }

    /// Sends those bytes; what fails is seen when the answer is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes).await {
            Ok(()) => self.sent += bytes.len() as u64,
            Err(_) => self.was_reset = true,
        }
    }

    /// Reads more; false at the end, and if the connection is reset.
    pub async fn read(&mut self) -> bool {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.unread));
        let bytes = read.await.expect("more bytes").unwrap_or_else(|_| {
            self.was_reset = true;
            0
        });
        self.received += bytes as u64;
        bytes > 0
    }

    /// The next bytes, that many.
    pub async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.read().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    pub async fn head(&mut self) -> Option<Head> {
        let length = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read().await {
                return None;
            }
        };
        Some(Head(String::from_utf8(self.take(length).await?).unwrap()))
    }

    /// The next answer; none if the connection ends before its end.
    pub async fn answer(&mut self) -> Option<(Head, String)> {
        let head = self.head().await?;
        let body = match head.header("content-length") {
            Some(length) => self.take(length.parse().unwrap()).await?,
            None => self.chunks().await?,
        };
        Some((head, String::from_utf8(body).unwrap()))
    }

    /// A body in chunks (RFC 9112, 7.1).
    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(self.take(1).await?);
            }
            let length = String::from_utf8(line).unwrap();
            let length = usize::from_str_radix(length.trim_end(), 16).expect("a chunk's length");
            let chunk = self.take(length + 2).await?;
            body.extend(&chunk[..length]);
            if length == 0 {
                return Some(body);
            }
        }
    }

    /// Sends a request without a body, and reads its answer.
    pub async fn request(&mut self, method: &str, path: &str, headers: &str) -> (Head, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        self.send(request.as_bytes()).await;
        self.answer().await.expect("an answer")
    }
}

impl Ask {
    pub fn new(server: &Server, transport: Transport, query: &str) -> Self {
        let query = query.to_owned();
        Self { address: server.address, transport, query, cursor: None, headers: String::new() }
    }

    /// From the oldest event on.
    pub fn earliest(self) -> Self {
        self.after("earliest")
    }

    pub fn after(self, cursor: impl Into<String>) -> Self {
        Self { cursor: Some(cursor.into()), ..self }
    }

    pub fn with(self, headers: &str) -> Self {
        Self { headers: headers.to_owned(), ..self }
    }

    /// The request's head.
    pub fn request(&self) -> Vec<u8> {
        let (path, version, upgrade) = match self.transport {
            // Of HTTP/1.0, so that the answer's body is the stream itself, without chunks around it.
            Transport::Sse => ("/events?format=json&", "1.0", String::new()),
            Transport::WebSocket => {
                let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ";
                ("/ws?", "1.1", format!("{upgrade}{}\r\n", KEY.0))
            }
            Transport::LongPoll => ("/poll?wait=50&", "1.1", String::new()),
            Transport::Poll => ("/poll?", "1.1", String::new()),
        };
        let cursor = self.cursor.as_ref().map(|cursor| {
            let cursor: String = form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
            format!("&last_event_id={cursor}")
        });
        let cursor = cursor.unwrap_or_default();
        let Self { query, headers, .. } = self;
        let host = if headers.contains("Host: ") { "" } else { "Host: localhost\r\n" };
        format!("GET {path}{query}{cursor} HTTP/{version}\r\n{host}{upgrade}{headers}\r\n").into()
    }

    /// Opens a reader. That of polls asks only when something is to be read, or to know from where on: a long
    /// poll that has no cursor is under way then.
    pub async fn open(self) -> Reader {
        let transport = self.transport;
        let mut reader = Reader {
            connection: Connection::Polls { http: None, is_asked: false },
            ask: self,
            close: None,
            requests: 0,
            waiting: VecDeque::new(),
            has_begun: false,
            ending: None,
        };
        match transport {
            Transport::Sse => reader.open_sse().await,
            Transport::WebSocket => reader.open_socket().await,
            Transport::Poll if reader.ask.cursor.is_none() => drop(reader.poll().await),
            Transport::LongPoll if reader.ask.cursor.is_none() => reader.begin_poll().await,
            Transport::LongPoll | Transport::Poll => {}
        }
        reader
    }

    /// Asks for what is refused.
    pub async fn refused(&self) -> Refused {
        let mut http = Http::connect(self.address).await;
        http.send(&self.request()).await;
        let (head, body) = http.answer().await.expect("an answer");
        assert_eq!(head.header("content-type"), Some("application/problem+json"), "{head:?}");
        Refused {
            status: head.status(),
            authenticate: head.header("www-authenticate").map(str::to_owned),
            problem: serde_json::from_str(&body).unwrap(),
        }
    }

    /// Shakes hands for a WebSocket; its bytes come next.
    pub async fn shake_hands(&self) -> Http {
        let mut http = Http::connect(self.address).await;
        http.send(&self.request()).await;
        let head = http.head().await.expect("an answer");
        assert_eq!(head.status(), 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(KEY.1));
        // Without it, clients must fail the connection (RFC 6455, 4.1).
        assert_eq!(head.header("connection"), Some("upgrade"));
        http
    }
}

impl Reader {
    async fn open_sse(&mut self) {
        let mut http = Http::connect(self.ask.address).await;
        http.send(&self.ask.request()).await;
        self.requests += 1;
        let head = http.head().await.expect("an answer");
        if head.status() == 204 {
            self.waiting.push_back((Item::Ended(Some("end".to_owned())), None));
            self.connection = Connection::Over;
            return;
        }
        assert_eq!(head.header("content-type"), Some("text/event-stream"), "{head:?}");
        self.connection = Connection::Sse(http, Parser::default());
        self.read_hello().await;
    }

    async fn open_socket(&mut self) {
        let Http { stream, unread, .. } = self.ask.shake_hands().await;
        self.requests += 1;
        let socket = WebSocketStream::from_partially_read(stream, unread, Role::Client, None).await;
        self.connection = Connection::WebSocket(Box::new(socket));
        self.read_hello().await;
    }

    /// Reads until the stream has said something.
    async fn read_hello(&mut self) {
        while !self.has_begun {
            self.read().await;
        }
    }

    /// The WebSocket that it reads.
    pub fn socket(&mut self) -> &mut WebSocketStream<TcpStream> {
        match &mut self.connection {
            Connection::WebSocket(socket) => socket,
            _ => panic!("{:?} has none", self.ask.transport),
        }
    }

    /// The next item.
    pub async fn next(&mut self) -> Item {
        let transport = self.ask.transport;
        let next = async {
            loop {
                if let Some((item, cursor)) = self.waiting.pop_front() {
                    self.ask.cursor = cursor.or(self.ask.cursor.take());
                    return item;
                }
                self.read().await;
            }
        };
        timeout(DEADLINE, next).await.unwrap_or_else(|_| panic!("{transport:?}: nothing came"))
    }

    /// The next item, which is an event.
    pub async fn event(&mut self) -> Event {
        match self.next().await {
            Item::Event(event) => event,
            other => panic!("{:?}: {other:?}", self.ask.transport),
        }
    }

    /// The data of that many events, the next items.
    pub async fn data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::new();
        for _ in 0..count {
            data.push(self.event().await.data);
        }
        data
    }

    /// Sends a poll, and leaves the answer to be read later. A stream is under way without it.
    pub async fn begin_poll(&mut self) {
        let Connection::Polls { http, is_asked: is_asked @ false } = &mut self.connection else {
            return;
        };
        if http.is_none() {
            *http = Some(Http::connect(self.ask.address).await);
        }
        http.as_mut().unwrap().send(&self.ask.request()).await;
        *is_asked = true;
        self.requests += 1;
    }

    /// What the next poll, or that which is under way, is answered with; none if the connection was cut. Its
    /// cursor is the one to go on with.
    pub async fn poll(&mut self) -> Option<Polled> {
        self.begin_poll().await;
        let Connection::Polls { http, is_asked } = &mut self.connection else {
            panic!("{:?} does not poll", self.ask.transport);
        };
        *is_asked = false;
        let answer = http.as_mut().unwrap().answer().await;
        if answer.as_ref().is_none_or(|(head, _)| head.header("connection") == Some("close")) {
            *http = None;
        }
        let (head, body) = answer?;
        assert_eq!(head.status(), 200, "{body}");
        let polled: Polled = serde_json::from_str(&body).unwrap();
        self.ask.cursor = Some(polled.cursor.clone());
        Some(polled)
    }

    /// Reads what comes next, which may be nothing to give.
    async fn read(&mut self) {
        match &mut self.connection {
            Connection::Sse(http, parser) => {
                let is_open = !http.unread.is_empty() || http.read().await;
                let parsed = parser.feed(&std::mem::take(&mut http.unread));
                for parsed in parsed {
                    if let Parsed::Message(message) = parsed {
                        let id = Some(message.last_event_id).filter(|id| !id.is_empty());
                        self.hear(&message.name, &message.data, id);
                    }
                }
                if !is_open {
                    self.end();
                }
            }
            Connection::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    let id = message["id"].as_str().map(str::to_owned);
                    let mut members = message.as_object().unwrap().iter();
                    let (name, said) = members.find(|(name, _)| *name != "id").unwrap();
                    let name = if name == "event" { "message" } else { name };
                    let of_event = || said["id"].as_str().map(str::to_owned);
                    self.hear(name, &said.to_string(), id.or_else(of_event));
                }
                Some(Ok(Message::Close(close))) => {
                    self.close = close.map(|close| close.code.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.end(),
            },
            Connection::Polls { .. } => {
                let before = self.ask.cursor.clone();
                let Some(Polled { events, cursor, gap, .. }) = self.poll().await else {
                    return self.end();
                };
                // The cursor goes on with what was given, in case of a cut.
                let gap = gap.map(|gap| (Item::Gap(gap), None));
                let events = events.into_iter().map(|event| {
                    let id = event.id.to_string();
                    (Item::Event(event), Some(id))
                });
                self.waiting.extend(gap.into_iter().chain(events));
                if let Some((_, last)) = self.waiting.back_mut() {
                    *last = Some(cursor);
                    self.ask.cursor = before;
                }
            }
            Connection::Over => panic!("{:?} is over", self.ask.transport),
        }
    }

    /// A stream has said that.
    fn hear(&mut self, name: &str, data: &str, id: Option<String>) {
        self.has_begun = true;
        match name {
            "message" => {
                self.waiting.push_back((Item::Event(serde_json::from_str(data).unwrap()), id));
            }
            "gap" => self.waiting.push_back((Item::Gap(serde_json::from_str(data).unwrap()), id)),
            "hello" | "heartbeat" => match self.waiting.back_mut() {
                Some((_, cursor)) => *cursor = id.or(cursor.take()),
                None => self.ask.cursor = id.or(self.ask.cursor.take()),
            },
            "end" => self.ending = Some("end".to_owned()),
            "goodbye" => {
                let goodbye: Goodbye = serde_json::from_str(data).unwrap();
                self.ending = Some(goodbye.reason.as_str().to_owned());
            }
            // Answers to what a WebSocket's client has sent.
            "published" | "problem" => {}
            other => panic!("{:?} says {other}", self.ask.transport),
        }
    }

    fn end(&mut self) {
        self.waiting.push_back((Item::Ended(self.ending.take()), None));
        self.connection = Connection::Over;
    }
}

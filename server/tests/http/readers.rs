//! A client of each transport. All have the same interface, so one test can run on all of them.

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
    id::EventId,
    notice::{Gap, Goodbye, TopicEnd},
    sse::{Parsed, Parser},
    transport::Transport,
};

use crate::support::{DEADLINE, Server};

/// The example key of RFC 6455, 1.3, and the expected response to it.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// An item that a reader receives.
#[derive(Debug, PartialEq)]
pub enum Item {
    Event(Event),
    Gap(Gap),
    TopicEnd(TopicEnd),
    /// The end of a stream: `end`, or the reason of its goodbye, or `None` if it was cut.
    Ended(Option<String>),
}

/// The response to a refused request.
#[derive(Debug, PartialEq)]
pub struct RefusedResponse {
    pub status: u16,
    pub authenticate: Option<String>,
    pub problem: Value,
}

/// A request to read events.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    pub address: SocketAddr,
    pub transport: Transport,
    /// The query without the cursor.
    pub query: String,
    pub cursor: Option<String>,
    /// Header lines, each with its line end.
    pub headers: String,
}

/// An HTTP/1.1 connection that counts its bytes.
pub struct Http1Connection {
    pub stream: TcpStream,
    /// Bytes that were read from the socket and not taken yet.
    pub unread: Vec<u8>,
    pub sent: u64,
    pub received: u64,
    /// The server has reset the connection.
    pub was_reset: bool,
}

/// Status line and headers.
#[derive(Debug)]
pub struct ResponseHead(String);

/// The client of one transport.
pub struct Reader {
    /// The request that resumes after a cut.
    pub request: ReadRequest,
    /// Code of the last close.
    pub close_code: Option<u16>,
    /// Number of requests sent.
    pub request_count: u64,
    state: ReaderState,
    /// Items that were received and not taken yet, each with the cursor after it, if it has one.
    pending: VecDeque<(Item, Option<String>)>,
    /// The stream has sent its first message.
    has_begun: bool,
    /// Announced reason of the end.
    ending: Option<String>,
}

/// The state of a reader.
enum ReaderState {
    Sse(Http1Connection, Parser),
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Polls {
        /// The connection; `None` if the next poll must open one.
        http: Option<Http1Connection>,
        /// A poll is in flight.
        is_in_flight: bool,
    },
    Closed,
}

/// The response to a poll.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollResponse {
    pub events: Vec<Event>,
    pub cursor: String,
    pub gap: Option<Gap>,
    #[serde(default)]
    pub ends: Vec<PolledEnd>,
    pub more: bool,
}

/// The end of a topic in the response to a poll.
#[derive(Debug, Deserialize)]
pub struct PolledEnd {
    pub id: EventId,
    #[serde(flatten)]
    pub end: TopicEnd,
}

impl ResponseHead {
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

impl Http1Connection {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, unread: Vec::new(), sent: 0, received: 0, was_reset: false }
    }

    /// Sends bytes. A failure shows when the response is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes).await {
            Ok(()) => self.sent += bytes.len() as u64,
            Err(_) => self.was_reset = true,
        }
    }

    /// Reads more bytes. Returns `false` at the end and after a reset.
    pub async fn read(&mut self) -> bool {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.unread));
        let bytes = read.await.expect("more bytes").unwrap_or_else(|_| {
            self.was_reset = true;
            0
        });
        self.received += bytes as u64;
        bytes > 0
    }

    /// Returns the next `length` bytes, or `None` if the connection ends before.
    pub async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.read().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    /// Returns the head of the next response, or `None` if the connection ends before.
    pub async fn head(&mut self) -> Option<ResponseHead> {
        let length = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read().await {
                return None;
            }
        };
        Some(ResponseHead(String::from_utf8(self.take(length).await?).unwrap()))
    }

    /// Returns the next response, or `None` if the connection ends before.
    pub async fn response(&mut self) -> Option<(ResponseHead, String)> {
        let head = self.head().await?;
        let body = match head.header("content-length") {
            Some(length) => self.take(length.parse().unwrap()).await?,
            None if head.status() == 204 => Vec::new(),
            None => self.chunks().await?,
        };
        Some((head, String::from_utf8(body).unwrap()))
    }

    /// Reads a body in chunks (RFC 9112, 7.1).
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

    /// Sends a request without a body, and reads the response.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
    ) -> (ResponseHead, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        self.send(request.as_bytes()).await;
        self.response().await.expect("a response")
    }
}

impl ReadRequest {
    pub fn new(server: &Server, transport: Transport, query: &str) -> Self {
        let query = query.to_owned();
        Self { address: server.address, transport, query, cursor: None, headers: String::new() }
    }

    /// Starts at the oldest event.
    pub fn earliest(self) -> Self {
        self.after("earliest")
    }

    /// Starts after a cursor.
    pub fn after(self, cursor: impl Into<String>) -> Self {
        Self { cursor: Some(cursor.into()), ..self }
    }

    pub fn with_headers(self, headers: &str) -> Self {
        Self { headers: headers.to_owned(), ..self }
    }

    /// Encodes the head of the request.
    pub fn encode(&self) -> Vec<u8> {
        let (path, version, upgrade) = match self.transport {
            // In HTTP/1.0 the response's body is the stream itself, without chunks around it.
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

    /// Opens a reader. A reader that polls sends a request only when an item is taken, or to learn
    /// its position: without a cursor, a long poll is in flight then.
    pub async fn open(self) -> Reader {
        let transport = self.transport;
        let mut reader = Reader {
            state: ReaderState::Polls { http: None, is_in_flight: false },
            request: self,
            close_code: None,
            request_count: 0,
            pending: VecDeque::new(),
            has_begun: false,
            ending: None,
        };
        match transport {
            Transport::Sse => reader.open_sse().await,
            Transport::WebSocket => reader.open_websocket().await,
            Transport::Poll if reader.request.cursor.is_none() => drop(reader.poll().await),
            Transport::LongPoll if reader.request.cursor.is_none() => reader.begin_poll().await,
            Transport::LongPoll | Transport::Poll => {}
        }
        reader
    }

    /// Sends the request, which the server must refuse.
    pub async fn expect_refused(&self) -> RefusedResponse {
        let mut http = Http1Connection::connect(self.address).await;
        http.send(&self.encode()).await;
        let (head, body) = http.response().await.expect("a response");
        assert_eq!(head.header("content-type"), Some("application/problem+json"), "{head:?}");
        RefusedResponse {
            status: head.status(),
            authenticate: head.header("www-authenticate").map(str::to_owned),
            problem: serde_json::from_str(&body).unwrap(),
        }
    }

    /// Performs the handshake of a WebSocket. The bytes of its frames follow.
    pub async fn handshake(&self) -> Http1Connection {
        let mut http = Http1Connection::connect(self.address).await;
        http.send(&self.encode()).await;
        let head = http.head().await.expect("a response");
        assert_eq!(head.status(), 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(KEY.1));
        // Without this header, clients must fail the connection (RFC 6455, 4.1).
        assert_eq!(head.header("connection"), Some("upgrade"));
        http
    }
}

impl Reader {
    async fn open_sse(&mut self) {
        let mut http = Http1Connection::connect(self.request.address).await;
        http.send(&self.request.encode()).await;
        self.request_count += 1;
        let head = http.head().await.expect("a response");
        if head.status() == 204 {
            self.pending.push_back((Item::Ended(Some("end".to_owned())), None));
            self.state = ReaderState::Closed;
            return;
        }
        assert_eq!(head.header("content-type"), Some("text/event-stream"), "{head:?}");
        self.state = ReaderState::Sse(http, Parser::default());
        self.read_hello().await;
    }

    async fn open_websocket(&mut self) {
        let Http1Connection { stream, unread, .. } = self.request.handshake().await;
        self.request_count += 1;
        let socket = WebSocketStream::from_partially_read(stream, unread, Role::Client, None).await;
        self.state = ReaderState::WebSocket(Box::new(socket));
        self.read_hello().await;
    }

    /// Reads until the stream has sent its first message.
    async fn read_hello(&mut self) {
        while !self.has_begun {
            self.read().await;
        }
    }

    /// Returns the WebSocket.
    pub fn websocket(&mut self) -> &mut WebSocketStream<TcpStream> {
        match &mut self.state {
            ReaderState::WebSocket(socket) => socket,
            _ => panic!("{:?} is not a WebSocket", self.request.transport),
        }
    }

    /// Returns the next item.
    pub async fn next(&mut self) -> Item {
        let transport = self.request.transport;
        let next = async {
            loop {
                if let Some((item, cursor)) = self.pending.pop_front() {
                    self.request.cursor = cursor.or(self.request.cursor.take());
                    return item;
                }
                self.read().await;
            }
        };
        timeout(DEADLINE, next).await.unwrap_or_else(|_| panic!("{transport:?}: nothing came"))
    }

    /// Returns the next item, which must be an event.
    pub async fn event(&mut self) -> Event {
        match self.next().await {
            Item::Event(event) => event,
            other => panic!("{:?}: {other:?}", self.request.transport),
        }
    }

    /// Returns the data of the next `count` items, which must be events.
    pub async fn data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::new();
        for _ in 0..count {
            data.push(self.event().await.data);
        }
        data
    }

    /// Sends a poll without reading the response. Streams need no poll.
    pub async fn begin_poll(&mut self) {
        let ReaderState::Polls { http, is_in_flight: is_in_flight @ false } = &mut self.state
        else {
            return;
        };
        if http.is_none() {
            *http = Some(Http1Connection::connect(self.request.address).await);
        }
        http.as_mut().unwrap().send(&self.request.encode()).await;
        *is_in_flight = true;
        self.request_count += 1;
    }

    /// Returns the response to the poll in flight, or else to a new one, or `None` if the
    /// connection was cut. The next request resumes at its cursor.
    pub async fn poll(&mut self) -> Option<PollResponse> {
        self.begin_poll().await;
        let ReaderState::Polls { http, is_in_flight } = &mut self.state else {
            panic!("{:?} does not poll", self.request.transport);
        };
        *is_in_flight = false;
        let response = http.as_mut().unwrap().response().await;
        if response.as_ref().is_none_or(|(head, _)| head.header("connection") == Some("close")) {
            *http = None;
        }
        let (head, body) = response?;
        if head.status() == 204 {
            self.ending = Some("end".to_owned());
            return None;
        }
        assert_eq!(head.status(), 200, "{body}");
        let polled: PollResponse = serde_json::from_str(&body).unwrap();
        self.request.cursor = Some(polled.cursor.clone());
        Some(polled)
    }

    /// Reads once. This may yield no item.
    async fn read(&mut self) {
        match &mut self.state {
            ReaderState::Sse(http, parser) => {
                let is_open = !http.unread.is_empty() || http.read().await;
                let parsed = parser.feed(&std::mem::take(&mut http.unread));
                for parsed in parsed {
                    if let Parsed::Message(message) = parsed {
                        let id = Some(message.last_event_id).filter(|id| !id.is_empty());
                        self.receive(&message.name, &message.data, id);
                    }
                }
                if !is_open {
                    self.end();
                }
            }
            ReaderState::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    let id = message["id"].as_str().map(str::to_owned);
                    let mut members = message.as_object().unwrap().iter();
                    let (name, member) = members.find(|(name, _)| *name != "id").unwrap();
                    let name = if name == "event" { "message" } else { name };
                    let id_of_event = || member["id"].as_str().map(str::to_owned);
                    self.receive(name, &member.to_string(), id.or_else(id_of_event));
                }
                Some(Ok(Message::Close(close))) => {
                    self.close_code = close.map(|close| close.code.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.end(),
            },
            ReaderState::Polls { .. } => {
                let before = self.request.cursor.clone();
                let Some(PollResponse { events, cursor, gap, ends, .. }) = self.poll().await else {
                    return self.end();
                };
                // After a cut, the reader resumes after the last item that was taken.
                let gap = gap.map(|gap| (Item::Gap(gap), None));
                let events = events.into_iter().map(|event| (event.id, Item::Event(event)));
                let ends = ends.into_iter().map(|PolledEnd { id, end }| (id, Item::TopicEnd(end)));
                let mut items: Vec<_> = events.chain(ends).collect();
                items.sort_by_key(|(id, _)| id.sequence);
                let items = items.into_iter().map(|(id, item)| (item, Some(id.to_string())));
                self.pending.extend(gap.into_iter().chain(items));
                if let Some((_, last)) = self.pending.back_mut() {
                    *last = Some(cursor);
                    self.request.cursor = before;
                }
            }
            ReaderState::Closed => panic!("{:?} has ended", self.request.transport),
        }
    }

    /// Handles a message of a stream.
    fn receive(&mut self, name: &str, data: &str, id: Option<String>) {
        self.has_begun = true;
        match name {
            "message" => {
                self.pending.push_back((Item::Event(serde_json::from_str(data).unwrap()), id));
            }
            "gap" => self.pending.push_back((Item::Gap(serde_json::from_str(data).unwrap()), id)),
            "hello" | "heartbeat" => match self.pending.back_mut() {
                Some((_, cursor)) => *cursor = id.or(cursor.take()),
                None => self.request.cursor = id.or(self.request.cursor.take()),
            },
            "end" => match serde_json::from_str::<TopicEnd>(data) {
                Ok(end) => {
                    self.ending = end.last.then(|| "end".to_owned());
                    self.pending.push_back((Item::TopicEnd(end), id));
                }
                Err(_) => self.ending = Some("end".to_owned()),
            },
            "goodbye" => {
                let goodbye: Goodbye = serde_json::from_str(data).unwrap();
                self.ending = Some(goodbye.reason.as_str().to_owned());
            }
            // Responses to messages of a WebSocket's client.
            "published" | "problem" => {}
            other => panic!("{:?} sent {other}", self.request.transport),
        }
    }

    fn end(&mut self) {
        self.pending.push_back((Item::Ended(self.ending.take()), None));
        self.state = ReaderState::Closed;
    }
}

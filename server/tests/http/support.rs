//! A server on its own port, whose events the test publishes itself, and a client that sees every
//! byte.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use leptos::config::LeptosOptions;
use server::{
    auth::Access,
    limits::Timeouts,
    net::{Capacity, Serving, serve, tls::Tls},
    ops::metrics::Metrics,
    routes::{AccessReload, reloadable_responder},
    state::AppState,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use waterclock::{
    event::Draft,
    event_log::{EventLog, MemoryLog, Retention},
    hub::Hub,
    id::Epoch,
    sse::{Message, Parsed, Parser},
    timestamp::Timestamp,
};
use waterclock_axum::{OpenStreams, Stop, StreamLimits};

/// Limit of every wait in these tests, far above the expected duration.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// The hub's time, which stands still unless a test sets it.
pub const TIME: &str = "2026-11-22T07:00:00.000Z";

/// A header of a proxy, which makes a request count as not local.
pub const REMOTE: &str = "Via: proxy\r\n";

/// Returns an id of the test's event log.
pub fn event_id(sequence: u64) -> String {
    format!("000000000000c10c-{sequence}")
}

/// Returns the metric that counts connections that timed out for a reason.
pub fn timeout_metric(reason: &str) -> String {
    format!("waterclock_connections_timed_out_total{{reason=\"{reason}\"}}")
}

/// Returns the metric that counts requests and connections that were refused for a reason.
pub fn refusal_metric(reason: &str) -> String {
    format!("waterclock_refused_total{{reason=\"{reason}\"}}")
}

/// Reads all bytes until the server closes or resets the connection.
pub async fn read_until_closed(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let closed = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(DEADLINE, closed).await.expect("closed by the server");
    bytes
}

pub struct Server {
    pub hub: Arc<Hub>,
    /// The hub's time, in milliseconds.
    pub now: Arc<AtomicU64>,
    pub stop: Stop,
    pub reload: AccessReload,
    pub streams: OpenStreams,
    pub metrics: Arc<Metrics>,
    pub address: SocketAddr,
    pub serving: JoinHandle<()>,
}

/// The settings of a test's server.
pub struct Settings {
    pub heartbeat: Duration,
    pub retain_count: usize,
    pub max_topics: usize,
    pub limits: StreamLimits,
    pub access: Access,
    pub max_publishes: NonZeroU32,
    pub body_timeout: Duration,
    pub upload_grace: Duration,
    pub timeouts: Timeouts,
    pub tls: Option<Tls>,
    pub listen: SocketAddr,
    pub is_direct: bool,
    /// Replaced rules count for open streams, too.
    pub is_reloadable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_hours(1),
            retain_count: 100,
            max_topics: 100,
            limits: StreamLimits { total: 10_000, per_address: 10_000 },
            access: Access::default(),
            max_publishes: NonZeroU32::MAX,
            body_timeout: Duration::from_secs(30),
            upload_grace: Duration::from_hours(1),
            timeouts: Timeouts::default(),
            tls: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            is_direct: std::env::var_os("ORDINARY_PATH").is_none(),
            is_reloadable: false,
        }
    }
}

impl Settings {
    fn log(&self) -> MemoryLog {
        let retention = Retention {
            clock_count: self.retain_count,
            topics: self.max_topics,
            ..Retention::default()
        };
        MemoryLog::new(Epoch::new(0xc10c), retention)
    }
}

impl Server {
    /// Starts a server with the default settings.
    pub async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// Starts a server with other timeouts.
    pub async fn with_timeouts(timeouts: Timeouts) -> Self {
        Self::start_with(Settings { timeouts, ..Settings::default() }).await
    }

    /// Starts a server with other access rules.
    pub async fn with_access(access: Access) -> Self {
        Self::start_with(Settings { access, ..Settings::default() }).await
    }

    /// Starts a server with an event log in memory.
    pub async fn start_with(settings: Settings) -> Self {
        Self::start_over(settings.log(), settings).await
    }

    /// Starts a server whose event log has had these ticks of the clock before.
    pub async fn start_after(ticks: &[&str], settings: Settings) -> Self {
        let (log, time) = (settings.log(), TIME.parse().unwrap());
        for tick in ticks {
            log.append(vec![Draft::new("clock".parse().unwrap(), *tick)], time).await.unwrap();
        }
        Self::start_over(log, settings).await
    }

    /// Starts a server over an event log.
    pub async fn start_over(log: impl EventLog, settings: Settings) -> Self {
        let time: Timestamp = TIME.parse().unwrap();
        let now = Arc::new(AtomicU64::new(time.as_millis()));
        let millis = Arc::clone(&now);
        let hub_now = move || Timestamp::from_millis(millis.load(Ordering::Relaxed));
        let hub = Arc::new(Hub::new(log, hub_now));
        // Some tests need more open files than many systems allow a program by default.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let leptos = LeptosOptions::builder()
            .output_name("waterclock")
            .site_root(concat!(env!("CARGO_MANIFEST_DIR"), "/../public"))
            .build();
        let new = if settings.is_reloadable { AppState::reloadable } else { AppState::new };
        let state = new(
            Arc::clone(&hub),
            settings.access,
            waterclock_axum::Settings {
                heartbeat: settings.heartbeat,
                streams: settings.limits,
                publish_rate: settings.max_publishes,
                body_timeout: settings.body_timeout,
                upload_grace: settings.upload_grace,
                ..waterclock_axum::Settings::default()
            },
            leptos,
        );
        let (stop, streams) = (state.stop.clone(), state.events.streams());
        let serving = Serving {
            timeouts: settings.timeouts,
            tls: settings.tls,
            capacity: Capacity::new(usize::MAX, Arc::clone(&state.metrics)),
            streams: streams.clone(),
            metrics: Arc::clone(&state.metrics),
            stop: stop.clone(),
            is_direct: settings.is_direct,
            is_backlog_kept: false,
        };
        let listener = TcpListener::bind(settings.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::clone(&state.metrics);
        let (responder, reload) = reloadable_responder(state);
        let serving = tokio::spawn(serve(listener, responder, serving));
        Self { hub, now, stop, reload, streams, metrics, address, serving }
    }

    /// Publishes a tick of the clock.
    pub async fn publish(&self, data: &str) {
        self.publish_to("clock", data).await;
    }

    pub async fn publish_to(&self, topic: &str, data: &str) {
        let topic = topic.parse().unwrap();
        self.hub.publish(Draft::new(topic, data)).await.unwrap();
    }

    /// Sends a request without a body, and reads the head of the response.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &[u8])],
    ) -> TestResponse {
        // Only over HTTP/1.1 a stream takes the direct path.
        let start = if method == "GET" && path.starts_with("/events") {
            let has_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
            let host = if has_host { "" } else { "Host: localhost\r\n" };
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{host}")
        } else {
            format!("{method} {path} HTTP/1.0\r\n")
        };
        let mut request = start.into_bytes();
        for (name, value) in headers {
            request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        self.send(&request).await
    }

    /// Sends the bytes of a request, and reads the head of the response.
    pub async fn send(&self, request: &[u8]) -> TestResponse {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        TestResponse::read_from(stream).await
    }

    /// Publishes over HTTP, to a path below `/events/`.
    pub async fn post(&self, path: &str, headers: &str, body: &[u8]) -> TestResponse {
        let length = body.len();
        let head =
            format!("POST /events/{path} HTTP/1.0\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.send(&[head.as_bytes(), body].concat()).await
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Returns the value of a metric, or 0 if `/metrics` does not have it yet.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.rest().await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has an expected value.
    pub async fn wait_for_metric(&self, name: &str, is_expected: impl Fn(u64) -> bool) {
        let reached = async { while !is_expected(self.metric(name).await) {} };
        tokio::time::timeout(DEADLINE, reached).await.expect(name);
    }

    /// Requests a path with a token, as a client behind a proxy.
    pub async fn get_with_token(&self, token: &str, path: &str) -> TestResponse {
        let token = format!("Bearer {token}");
        let headers = [("Via", &b"proxy"[..]), ("Authorization", token.as_bytes())];
        self.request("GET", path, &headers).await
    }

    pub async fn get(&self, path: &str) -> TestResponse {
        self.request("GET", path, &[]).await
    }

    /// Waits until `count` streams are open.
    pub async fn wait_for_streams(&self, count: usize) {
        let reached = async {
            while self.streams.count() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.expect("as many streams");
    }

    /// Opens a stream of a topic, and reads an event from it.
    pub async fn assert_serves(&self, topic: &str) {
        let mut stream = self.get(&format!("/events?topic={topic}")).await;
        assert_eq!(stream.message().await.name, "hello");
        self.publish_to(topic, "tick").await;
        assert_eq!(stream.message().await.data, "tick");
    }
}

/// The response to a request, read as far as the test wants.
pub struct TestResponse {
    stream: TcpStream,
    /// Status line and headers.
    pub head: String,
    /// Bytes of the body that were read and not taken yet.
    unread: Vec<u8>,
    /// Bytes of chunks that are not complete (RFC 9112, 7.1), if the body has chunks.
    chunks: Option<Vec<u8>>,
    /// `true` after the last chunk.
    has_last_chunk: bool,
    parser: Parser,
}

impl TestResponse {
    /// Reads the head of a response.
    pub async fn read_from(stream: TcpStream) -> Self {
        let mut response = Self {
            stream,
            head: String::new(),
            unread: Vec::new(),
            chunks: None,
            has_last_chunk: false,
            parser: Parser::default(),
        };
        response.read_until(b"\r\n\r\n").await;
        response.head = String::from_utf8(response.take_until(b"\r\n\r\n")).unwrap();
        if response.header("transfer-encoding") == Some("chunked") {
            response.chunks = Some(std::mem::take(&mut response.unread));
            response.decode_chunks();
        }
        response
    }

    /// Returns the connection after the last chunk of a body that was read whole.
    pub fn into_connection(self) -> TcpStream {
        assert!(self.has_last_chunk && self.unread.is_empty());
        assert_eq!(self.chunks.as_deref(), Some(&[][..]), "nothing follows");
        self.stream
    }

    /// Moves what is complete of the chunks to the body.
    fn decode_chunks(&mut self) {
        let Some(chunks) = &mut self.chunks else { return };
        while let Some(line) = chunks.windows(2).position(|end| end == b"\r\n") {
            let size = str::from_utf8(&chunks[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let end = line + 2 + size;
            if chunks.len() < end + 2 {
                return;
            }
            self.unread.extend(&chunks[line + 2..end]);
            assert_eq!(&chunks[end..end + 2], b"\r\n", "the end of a chunk");
            chunks.drain(..end + 2);
            if size == 0 {
                self.has_last_chunk = true;
                return;
            }
        }
    }

    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Reads more bytes of the body. Returns `false` at the end.
    async fn read(&mut self) -> bool {
        let unread = self.unread.len();
        while !self.has_last_chunk {
            let read = self.stream.read_buf(self.chunks.as_mut().unwrap_or(&mut self.unread));
            if tokio::time::timeout(DEADLINE, read).await.expect("more bytes").unwrap() == 0 {
                return false;
            }
            self.decode_chunks();
            if self.unread.len() > unread {
                return true;
            }
        }
        false
    }

    async fn read_until(&mut self, end: &[u8]) {
        while !self.unread.windows(end.len()).any(|window| window == end) {
            assert!(self.read().await, "ended: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    fn take_until(&mut self, end: &[u8]) -> Vec<u8> {
        let at = self.unread.windows(end.len()).position(|window| window == end).unwrap();
        let rest = self.unread.split_off(at + end.len());
        std::mem::replace(&mut self.unread, rest)
    }

    /// Returns the bytes of the next block.
    pub async fn block(&mut self) -> String {
        self.read_until(b"\n\n").await;
        String::from_utf8(self.take_until(b"\n\n")).unwrap()
    }

    /// Returns the next message, decoded as a reader does.
    pub async fn message(&mut self) -> Message {
        loop {
            let block = self.block().await;
            for parsed in self.parser.feed(block.as_bytes()) {
                if let Parsed::Message(message) = parsed {
                    return message;
                }
            }
        }
    }

    /// Returns `true` if the response ends here.
    pub async fn has_ended(&mut self) -> bool {
        self.unread.is_empty() && !self.read().await
    }

    /// Returns the rest of the body up to and including `end`. The body may continue after it.
    pub async fn rest_until(mut self, end: &'static str) -> String {
        while !self.unread.ends_with(end.as_bytes()) {
            assert!(self.read().await, "ended before {end:?}");
        }
        String::from_utf8(self.unread).unwrap()
    }

    /// Returns the whole rest of the body.
    pub async fn rest(mut self) -> String {
        while self.read().await {}
        String::from_utf8(self.unread).unwrap()
    }
}

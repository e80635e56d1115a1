//! A server on a port of its own, whose events the test publishes itself, and a client that sees
//! every byte.

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
    access::Access,
    client::TrustedProxy,
    load::Load,
    meter::Meters,
    metrics::Metrics,
    publish::{PublishRate, Running},
    router::{AppState, StreamSettings, router},
    serve::{Room, Serving, TimeOuts, serve},
    stop::Stop,
    streams::{StreamLimits, Streams},
    tls::Tls,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use waterclock::{
    event::Draft,
    event_log::{MemoryLog, Retention},
    hub::Hub,
    id::Epoch,
    sse::{Message, Parsed, Parser},
    timestamp::Timestamp,
};

/// What every wait in these tests is bounded by; nothing comes near it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The hub's time, which stands still unless a test sets it.
pub const TIME: &str = "2026-11-22T07:00:00.000Z";

pub struct Server {
    pub hub: Arc<Hub>,
    /// The hub's time, in milliseconds.
    pub now: Arc<AtomicU64>,
    pub stop: Stop,
    pub streams: Streams,
    pub address: SocketAddr,
    pub serving: JoinHandle<()>,
}

/// How a test's server differs from the ordinary one.
pub struct Settings {
    pub heartbeat: Duration,
    pub retain_count: usize,
    pub max_topics: usize,
    pub limits: StreamLimits,
    pub access: Access,
    pub trusted_proxies: Arc<[TrustedProxy]>,
    pub max_publishes: NonZeroU32,
    pub time_outs: TimeOuts,
    pub tls: Option<Tls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_hours(1),
            retain_count: 100,
            max_topics: 100,
            limits: StreamLimits { in_all: 10_000, per_address: 10_000 },
            access: Access::default(),
            trusted_proxies: Arc::new([]),
            max_publishes: NonZeroU32::MAX,
            time_outs: TimeOuts::default(),
            tls: None,
        }
    }
}

impl Server {
    pub async fn start(settings: Settings) -> Self {
        let log = MemoryLog::new(
            Epoch::new(0xc10c),
            Retention {
                clock_count: settings.retain_count,
                topics: settings.max_topics,
                ..Retention::default()
            },
        );
        let time: Timestamp = TIME.parse().unwrap();
        let now = Arc::new(AtomicU64::new(time.as_millis()));
        let of_hub = Arc::clone(&now);
        let hub_now = move || Timestamp::from_millis(of_hub.load(Ordering::Relaxed));
        let hub = Arc::new(Hub::new(log, hub_now));
        // A test may hold more connections than many systems allow a program by default.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let stop = Stop::default();
        let streams = Streams::new(settings.limits);
        let state = AppState {
            hub: Arc::clone(&hub),
            stream_settings: StreamSettings {
                heartbeat: settings.heartbeat,
                retry: Duration::from_secs(2),
                drain: Duration::from_secs(10),
            },
            leptos: LeptosOptions::builder()
                .output_name("waterclock")
                .site_root(concat!(env!("CARGO_MANIFEST_DIR"), "/../public"))
                .build(),
            streams: streams.clone(),
            access: settings.access,
            trusted_proxies: settings.trusted_proxies,
            body_time_out: settings.time_outs.body,
            publish_rate: Arc::new(PublishRate::new(settings.max_publishes)),
            running: Running::default(),
            meters: Meters::default(),
            load: Load::default(),
            metrics: Arc::new(Metrics::default()),
            stop: stop.clone(),
        };
        let serving = Serving {
            time_outs: settings.time_outs,
            tls: settings.tls,
            room: Room::new(usize::MAX, Arc::clone(&state.metrics)),
            streams: state.streams.clone(),
            metrics: Arc::clone(&state.metrics),
            stop: stop.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, router(state), serving));
        Self { hub, now, stop, streams, address, serving }
    }

    pub async fn publish(&self, data: &str) {
        self.publish_to("clock", data).await;
    }

    pub async fn publish_to(&self, topic: &str, data: &str) {
        let topic = topic.parse().unwrap();
        self.hub.publish(Draft::new(topic, data)).await.unwrap();
    }

    /// Sends a request without a body, and reads the answer's head.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &[u8])]) -> Answer {
        // HTTP/1.0, so that the answer's body is the stream itself, without chunks around it.
        let mut request = format!("{method} {path} HTTP/1.0\r\n").into_bytes();
        for (name, value) in headers {
            request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        self.send(&request).await
    }

    /// Sends those bytes, and reads the answer's head.
    pub async fn send(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut answer =
            Answer { stream, head: String::new(), bytes: Vec::new(), parser: Parser::default() };
        answer.read_until(b"\r\n\r\n").await;
        answer.head = String::from_utf8(answer.take_until(b"\r\n\r\n")).unwrap();
        answer
    }

    /// Publishes by HTTP: to a path under `/events/`.
    pub async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head =
            format!("POST /events/{path} HTTP/1.0\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.send(&[head.as_bytes(), body].concat()).await
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The value of a line of `/metrics`; 0 if there is none yet.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.rest().await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until that line of `/metrics` has such a value.
    pub async fn until_metric(&self, name: &str, is_expected: impl Fn(u64) -> bool) {
        let reached = async { while !is_expected(self.metric(name).await) {} };
        tokio::time::timeout(DEADLINE, reached).await.expect(name);
    }

    /// Asks for what only a token gives, as a client behind a proxy would.
    pub async fn get_by(&self, token: &str, path: &str) -> Answer {
        let token = format!("Bearer {token}");
        let headers = [("Via", &b"proxy"[..]), ("Authorization", token.as_bytes())];
        self.request("GET", path, &headers).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[]).await
    }

    /// Waits until that many streams are open.
    pub async fn until_streams(&self, count: usize) {
        let reached = async {
            while self.streams.count() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.expect("as many streams");
    }
}

pub struct Answer {
    stream: TcpStream,
    /// Status line and headers.
    pub head: String,
    /// What was read and not yet taken.
    bytes: Vec<u8>,
    parser: Parser,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Reads more; false at the end.
    async fn read(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.bytes);
        tokio::time::timeout(DEADLINE, read).await.expect("more bytes").unwrap() > 0
    }

    async fn read_until(&mut self, end: &[u8]) {
        while !self.bytes.windows(end.len()).any(|window| window == end) {
            assert!(self.read().await, "ended: {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    fn take_until(&mut self, end: &[u8]) -> Vec<u8> {
        let at = self.bytes.windows(end.len()).position(|window| window == end).unwrap();
        let rest = self.bytes.split_off(at + end.len());
        std::mem::replace(&mut self.bytes, rest)
    }

    /// The bytes of the next block.
    pub async fn block(&mut self) -> String {
        self.read_until(b"\n\n").await;
        String::from_utf8(self.take_until(b"\n\n")).unwrap()
    }

    /// The next block as a reader understands it.
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

    /// Whether nothing more comes.
    pub async fn has_ended(&mut self) -> bool {
        self.bytes.is_empty() && !self.read().await
    }

    /// All the rest of what goes on, up to that.
    pub async fn until(mut self, end: &'static str) -> String {
        while !self.bytes.ends_with(end.as_bytes()) {
            assert!(self.read().await, "ended before {end:?}");
        }
        String::from_utf8(self.bytes).unwrap()
    }

    /// All the rest.
    pub async fn rest(mut self) -> String {
        while self.read().await {}
        String::from_utf8(self.bytes).unwrap()
    }
}

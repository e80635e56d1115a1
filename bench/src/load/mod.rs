//! The load generator: many subscribers in one thread, and publishers.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `publish` | publishers, which wait for the response to each request |
//! | `tally` | the events that a subscriber has received, and the check that none is missing |
//! | `response` | HTTP/1.1 responses |
//! | `http2` | the HTTP/2 frames of subscribers that share connections |
//! | `tls` | TLS |

mod http2;
mod publish;
mod response;
mod tally;
mod tls;

use std::{
    io::{self, ErrorKind, Read as _, Write},
    net::{SocketAddr, TcpStream as Blocking},
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use tokio_rustls::rustls::{ClientConnection, Stream};

use http2::ReceivedFrame;
use response::{ChunkDecoder, ResponseHead};
use tally::Tally;
use tls::TlsSettings;

pub use http2::MAX_STREAMS;
pub use publish::{LoadPublisher, PublishForm, PublishRun, paced, publish_at_once, try_get};
pub use tally::Faults;

/// The longest time that a step may take without any progress.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest time that any step may take.
pub const DEADLINE: Duration = Duration::from_mins(1);
/// The largest head of a response, in bytes, that [`Endpoint::check_subscription`] reads.
const MAX_HEAD: usize = 64 * 1024;
/// Connections that may wait for their response at a time. A listen backlog holds more.
const MAX_PENDING: usize = 100;

/// The time that timestamps count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns the current time in nanoseconds, as in [`data`].
pub fn nanos() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap()
}

/// Returns the data of an event: its number, the current time, and padding to about `size` bytes.
pub fn data(number: usize, size: usize) -> String {
    tally::data(number, nanos(), size)
}

/// A server's address, and what every request to it contains.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// The fields of each HTTP/1.1 request, `Host` among them, each with its line end.
    pub fields: String,
    tls: Option<TlsSettings>,
}

impl Endpoint {
    /// Describes a server on this machine. `certificate` is the file of its certificate, if it
    /// speaks TLS.
    pub fn local(address: SocketAddr, certificate: Option<&PathBuf>) -> Self {
        let tls = certificate.map(|file| TlsSettings::trusting(file));
        Self { address, fields: "Host: localhost\r\n".to_owned(), tls }
    }

    /// Describes a server without TLS.
    pub fn plain(address: SocketAddr, fields: String) -> Self {
        Self { address, fields, tls: None }
    }

    /// Returns the HTTP/1.1 request of a subscriber.
    fn subscription(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\n{}Accept: text/event-stream\r\n\r\n", self.fields)
    }

    /// Subscribes once without TLS. Returns an error unless the head of a response with status 200
    /// arrives.
    pub fn check_subscription(&self, path: &str) -> Result<(), String> {
        let head = self.response_head(path).map_err(|error| format!("GET {path}: {error}"))?;
        let status_line = String::from_utf8_lossy(&head).lines().next().map(str::to_owned);
        match ResponseHead::parse(&head) {
            Some(ResponseHead { status: 200, .. }) => Ok(()),
            _ => Err(format!("GET {path}: {}", status_line.unwrap_or_default())),
        }
    }

    /// Returns the response to a subscriber up to the end of its head.
    fn response_head(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = Blocking::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(self.subscription(path).as_bytes())?;
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while ResponseHead::parse(&head).is_none() && head.len() < MAX_HEAD {
            match stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => head.extend(&buffer[..read]),
            }
        }
        Ok(head)
    }
}

/// The version of HTTP that subscribers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// Each subscriber has a connection of its own.
    Http1,
    /// Each connection has `streams` subscribers.
    Http2 { streams: usize },
}

/// Many subscribers in one thread.
pub struct SubscriberPool {
    poll: Poll,
    events: Events,
    endpoint: Endpoint,
    version: HttpVersion,
    path: String,
    connections: Vec<Connection>,
    subscribers: Vec<Subscriber>,
    buffer: Vec<u8>,
    /// Nanoseconds from the publishing of an event to its arrival.
    pub latencies: Vec<u64>,
}

struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    version: HttpVersion,
    /// The index of the first subscriber on this connection.
    first: usize,
    /// The beginning of an HTTP/2 frame that is not complete yet.
    rest: Vec<u8>,
}

#[derive(Default)]
struct Subscriber {
    /// The beginning of a head that is not complete yet.
    rest: Vec<u8>,
    has_response: bool,
    /// `None` if the body is not in chunks.
    chunks: Option<ChunkDecoder>,
    tally: Tally,
}

impl SubscriberPool {
    /// Creates a pool without subscribers. They will send GET requests for `path`.
    pub fn new(endpoint: &Endpoint, version: HttpVersion, path: &str) -> Self {
        LazyLock::force(&START);
        Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            endpoint: endpoint.clone(),
            version,
            path: path.to_owned(),
            connections: Vec::new(),
            subscribers: Vec::new(),
            buffer: vec![0; 256 * 1024],
            latencies: Vec::new(),
        }
    }

    /// Adds `count` subscribers, and waits until all have a response.
    pub fn connect(&mut self, count: usize) {
        for number in 0..count {
            self.add();
            if number % MAX_PENDING == MAX_PENDING - 1 {
                self.wait_for_responses();
            }
        }
        self.wait_for_responses();
    }

    /// Adds a subscriber to another path, and waits until it has a response.
    pub fn connect_to(&mut self, path: &str) {
        path.clone_into(&mut self.path);
        self.connect(1);
    }

    /// Adds `count` subscribers as fast as possible, and does not wait for responses.
    pub fn connect_at_once(&mut self, count: usize) {
        for _ in 0..count {
            self.add();
        }
    }

    fn add(&mut self) {
        match self.version {
            HttpVersion::Http1 => {
                let request = self.endpoint.subscription(&self.path);
                self.add_connection(request.as_bytes());
            }
            HttpVersion::Http2 { streams } => {
                let number = self.subscribers.len() % streams;
                if number == 0 {
                    self.add_connection(&http2::preface());
                }
                let request = http2::get(number, &self.path, self.endpoint.tls.is_some());
                self.connections.last_mut().unwrap().write(&request);
            }
        }
        self.subscribers.push(Subscriber::default());
    }

    fn add_connection(&mut self, first_bytes: &[u8]) {
        // Blocking: the kernel accepts connections until the listen backlog is full.
        let mut stream = Blocking::connect(self.endpoint.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let tls = self.endpoint.tls.as_ref().map(|tls| {
            let mut tls = tls.connection(self.version);
            tls.complete_io(&mut stream).unwrap();
            Box::new(tls)
        });
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.connections.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE).unwrap();
        let (version, first) = (self.version, self.subscribers.len());
        let mut connection = Connection { stream, tls, version, first, rest: Vec::new() };
        connection.write(first_bytes);
        self.connections.push(connection);
    }

    /// Reads until all subscribers have a response.
    fn wait_for_responses(&mut self) {
        let end = Instant::now() + DEADLINE;
        let mut without = 0;
        while without < self.subscribers.len() {
            // In order, so that each subscriber with a response is checked only once.
            if self.subscribers[without].has_response {
                without += 1;
            } else {
                assert!(Instant::now() < end, "the server does not respond");
                self.read(Duration::from_millis(100));
            }
        }
    }

    /// Reads until each subscriber has received `count` events, or the deadline has passed, or
    /// nothing has arrived for some time.
    pub fn wait_for_events(&mut self, count: usize) {
        let end = Instant::now() + DEADLINE;
        let mut last = Instant::now();
        let mut behind = 0;
        while behind < self.subscribers.len() && Instant::now() < end && last.elapsed() < PATIENCE {
            // In order, so that each finished subscriber is checked only once.
            if self.subscribers[behind].tally.events >= count {
                behind += 1;
            } else if self.read(Duration::from_millis(100)) {
                last = Instant::now();
            }
        }
    }

    /// Reads for some time.
    pub fn read_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.read(end.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits for data for at most `wait`, and reads all of it. Returns `true` if there was any.
    fn read(&mut self, wait: Duration) -> bool {
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            let subscribers = &mut self.subscribers[connection.first..];
            loop {
                match connection.read(&mut self.buffer) {
                    Ok(0) => break,
                    Ok(read) => {
                        let bytes = &self.buffer[..read];
                        connection.received(bytes, subscribers, &mut self.latencies);
                        // Otherwise TLS may have more data.
                        if connection.tls.is_none() && read < self.buffer.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        !self.events.is_empty()
    }

    /// Returns the total number of events that have arrived.
    pub fn delivered(&self) -> usize {
        self.subscribers.iter().map(|subscriber| subscriber.tally.events).sum()
    }

    /// Returns the faults of all subscribers, if the events from 0 to `count` were published.
    pub fn faults(&self, count: usize) -> Faults {
        let faults = self.subscribers.iter().map(|subscriber| subscriber.tally.faults(count));
        faults.fold(Faults::default(), Faults::and)
    }

    /// Panics unless each subscriber has received each of `count` events exactly once, in order.
    pub fn assert_exact(&self, count: usize) {
        assert_eq!(self.faults(count), Faults::default());
    }

    /// Returns the mean number of HTTP chunks that a subscriber has received.
    pub fn chunks(&self) -> f64 {
        let chunks = self.subscribers.iter().flat_map(|subscriber| &subscriber.chunks);
        let chunks: usize = chunks.map(|decoder| decoder.chunks).sum();
        chunks as f64 / self.subscribers.len() as f64
    }

    /// Resets all counters.
    pub fn reset(&mut self) {
        self.latencies.clear();
        for subscriber in &mut self.subscribers {
            subscriber.tally.reset();
            if let Some(decoder) = &mut subscriber.chunks {
                decoder.chunks = 0;
            }
        }
    }
}

impl Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => Stream::new(&mut **tls, &mut self.stream).read(buffer),
            None => self.stream.read(buffer),
        }
    }

    /// Writes a few bytes, which always fit into the socket's buffer.
    fn write(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => Stream::new(&mut **tls, &mut self.stream).write_all(bytes).unwrap(),
            None => self.stream.write_all(bytes).unwrap(),
        }
    }

    /// Passes received bytes on to the subscribers of the connection.
    fn received(&mut self, bytes: &[u8], to: &mut [Subscriber], latencies: &mut Vec<u64>) {
        if self.version == HttpVersion::Http1 {
            return to[0].received(bytes, latencies);
        }
        self.rest.extend(bytes);
        let bytes = std::mem::take(&mut self.rest);
        let mut rest = &bytes[..];
        while let Some(received) = http2::take_frame(&mut rest) {
            match received {
                ReceivedFrame::Head(number) => to[number].has_response = true,
                ReceivedFrame::Data(number, data) => {
                    to[number].tally.received(data, nanos(), latencies);
                }
                ReceivedFrame::NeedsReply(reply) => self.write(&reply),
                ReceivedFrame::Ignored => {}
            }
        }
        self.rest = rest.to_vec();
    }
}

impl Subscriber {
    /// Reads a part of an HTTP/1.1 response.
    fn received(&mut self, bytes: &[u8], latencies: &mut Vec<u64>) {
        let joined;
        let mut bytes = bytes;
        if !self.has_response {
            self.rest.extend(bytes);
            let Some(head) = ResponseHead::parse(&self.rest) else { return };
            joined = std::mem::take(&mut self.rest);
            assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&joined));
            self.has_response = true;
            self.chunks = head.is_chunked.then(ChunkDecoder::default);
            bytes = &joined[head.size..];
        }
        let now = nanos();
        let Some(chunks) = &mut self.chunks else {
            return self.tally.received(bytes, now, latencies);
        };
        while let Some(part) = chunks.next(&mut bytes) {
            self.tally.received(part, now, latencies);
        }
    }
}

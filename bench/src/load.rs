//! The load generator: subscribers and a publisher.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream as Blocking},
    sync::LazyLock,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use memchr::memmem;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::http2::{self, ReceivedFrame, STREAMS};

/// The longest time that any step may take.
const DEADLINE: Duration = Duration::from_mins(1);
/// Connections that may wait for their response at a time. A listen backlog holds more.
const MAX_PENDING: usize = 100;

/// The time that timestamps count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn nanos() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap()
}

/// The version of HTTP that subscribers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// Each subscriber has a connection of its own.
    Http1,
    /// [`STREAMS`] subscribers share a connection.
    Http2,
}

/// Many subscribers in one thread.
pub struct SubscriberPool {
    poll: Poll,
    events: Events,
    address: SocketAddr,
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
    version: HttpVersion,
    /// The index of the first subscriber on this connection.
    first: usize,
    /// The beginning of an HTTP/2 frame that is not complete yet.
    rest: Vec<u8>,
}

#[derive(Default)]
struct Subscriber {
    /// The beginning of an event that is not complete yet.
    rest: Vec<u8>,
    /// The number of times that each event has arrived, by event number.
    seen: Vec<u8>,
    events: usize,
    /// Line ends of the HTTP chunks, two for each chunk.
    line_ends: usize,
    has_response: bool,
}

impl SubscriberPool {
    /// Creates a pool without subscribers. They will send GET requests for `path`.
    pub fn new(address: SocketAddr, version: HttpVersion, path: &str) -> Self {
        LazyLock::force(&START);
        Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            address,
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
                let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.path);
                self.add_connection(request.as_bytes());
            }
            HttpVersion::Http2 => {
                let number = self.subscribers.len() % STREAMS;
                if number == 0 {
                    self.add_connection(&http2::preface());
                }
                let connection = self.connections.last_mut().unwrap();
                connection.stream.write_all(&http2::get(number, &self.path)).unwrap();
            }
        }
        self.subscribers.push(Subscriber::default());
    }

    fn add_connection(&mut self, first_bytes: &[u8]) {
        // Blocking: the kernel accepts connections until the listen backlog is full.
        let mut stream = Blocking::connect(self.address).unwrap();
        stream.write_all(first_bytes).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.connections.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE).unwrap();
        let (version, first) = (self.version, self.subscribers.len());
        self.connections.push(Connection { stream, version, first, rest: Vec::new() });
    }

    /// Reads until all subscribers have a response.
    fn wait_for_responses(&mut self) {
        let end = Instant::now() + DEADLINE;
        while !self.subscribers.iter().all(|subscriber| subscriber.has_response) {
            assert!(Instant::now() < end, "the server does not respond");
            self.read(Duration::from_millis(100));
        }
    }

    /// Reads until each subscriber has received `count` events, or the deadline has passed.
    pub fn wait_for_events(&mut self, count: usize) {
        let end = Instant::now() + DEADLINE;
        let mut behind = 0;
        while behind < self.subscribers.len() && Instant::now() < end {
            // In order, so that each finished subscriber is checked only once.
            if self.subscribers[behind].events >= count {
                behind += 1;
            } else {
                self.read(Duration::from_millis(100));
            }
        }
    }

    /// Waits for data for at most `wait`, and reads all of it.
    pub fn read(&mut self, wait: Duration) {
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            let subscribers = &mut self.subscribers[connection.first..];
            loop {
                match connection.stream.read(&mut self.buffer) {
                    Ok(0) => break,
                    Ok(read) => {
                        let bytes = &self.buffer[..read];
                        connection.received(bytes, subscribers, &mut self.latencies);
                        if read < self.buffer.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Returns the total number of events that have arrived.
    pub fn delivered(&self) -> usize {
        self.subscribers.iter().map(|subscriber| subscriber.events).sum()
    }

    /// Counts, of the first `count` events, those that are missing and those that arrived more than
    /// once, over all subscribers.
    pub fn missing_and_duplicates(&self, count: usize) -> (usize, usize) {
        let of_one = |subscriber: &Subscriber| {
            let distinct = subscriber.seen.iter().filter(|times| **times > 0).count();
            (count - distinct, subscriber.events - distinct)
        };
        self.subscribers.iter().map(of_one).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// Returns the mean number of HTTP chunks that a subscriber has received.
    pub fn chunks(&self) -> f64 {
        let line_ends: usize = self.subscribers.iter().map(|subscriber| subscriber.line_ends).sum();
        line_ends as f64 / 2.0 / self.subscribers.len() as f64
    }

    /// Resets all counters.
    pub fn reset(&mut self) {
        self.latencies.clear();
        for subscriber in &mut self.subscribers {
            subscriber.seen.clear();
            subscriber.events = 0;
            subscriber.line_ends = 0;
        }
    }
}

impl Connection {
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
                ReceivedFrame::Data(number, bytes) => to[number].received(bytes, latencies),
                ReceivedFrame::NeedsReply(reply) => self.stream.write_all(&reply).unwrap(),
                ReceivedFrame::Ignored => {}
            }
        }
        self.rest = rest.to_vec();
    }
}

impl Subscriber {
    /// Reads a part of the response: all of it for HTTP/1.1, and only the body for HTTP/2.
    fn received(&mut self, bytes: &[u8], latencies: &mut Vec<u64>) {
        let joined;
        let mut bytes = if self.rest.is_empty() {
            bytes
        } else {
            self.rest.extend(bytes);
            joined = std::mem::take(&mut self.rest);
            &joined
        };
        if !self.has_response {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                self.rest = bytes.to_vec();
                return;
            };
            assert!(bytes.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(bytes));
            self.has_response = true;
            bytes = &bytes[end + 4..];
        }
        let now = nanos();
        // An empty line ends a block. The bytes after the last one are an incomplete block.
        let complete = memmem::rfind(bytes, b"\n\n").map_or(0, |at| at + 2);
        let (complete, rest) = bytes.split_at(complete);
        self.rest = rest.to_vec();
        self.line_ends += memmem::find_iter(complete, b"\r\n").count();
        for at in memmem::find_iter(complete, b"data: n") {
            let mut words = complete[at + 7..].splitn(3, |byte| *byte == b' ');
            let mut number = || {
                let digits = words.next().unwrap_or_default().iter();
                digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'))
            };
            let (number, sent) = (usize::try_from(number()).unwrap(), number());
            if self.seen.len() <= number {
                self.seen.resize(number + 1, 0);
            }
            assert_eq!(self.seen.len(), number + 1, "an event arrived after a later one");
            self.seen[number] += 1;
            self.events += 1;
            if sent > 0 {
                latencies.push(now.saturating_sub(sent));
            }
        }
    }
}

/// Returns the data of an event: its number, the current time, and padding to about `size` bytes.
pub fn data(number: usize, size: usize) -> String {
    let text = format!("n{number} {} ", nanos());
    let padding = size.saturating_sub(text.len()).max(1);
    text + &"x".repeat(padding)
}

/// A publisher that waits for the response to each request.
pub struct LoadPublisher(BufReader<Blocking>);

impl LoadPublisher {
    /// Connects to a server.
    pub fn new(address: SocketAddr) -> Self {
        let stream = Blocking::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Publishes `body` to the topic `t`, and waits for the response.
    pub fn publish(&mut self, query: &str, body: &str) {
        self.publish_to(&format!("t{query}"), body);
    }

    /// Publishes `body` to a topic, which a query may follow, and waits for the response.
    pub fn publish_to(&mut self, topic: &str, body: &str) {
        self.request(&format!(
            "POST /events/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    /// Requests a path, and waits for the response.
    pub fn get(&mut self, path: &str) {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }

    fn request(&mut self, request: &str) {
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 20"), "{line}");
        while line.len() > 2 {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut response = vec![0; length];
        self.0.read_exact(&mut response).unwrap();
    }

    /// Publishes `count` events at the given rate in a new thread. They are numbered from 0.
    pub fn run(mut self, count: usize, per_second: f64, size: usize) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let start = Instant::now();
            for number in 0..count {
                let due = start + Duration::from_secs_f64(number as f64 / per_second);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                self.publish("", &data(number, size));
            }
        })
    }
}

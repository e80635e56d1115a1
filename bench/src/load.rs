//! The load: subscribers and a publisher.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream as Blocking},
    sync::LazyLock,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use memchr::memmem;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::http2::{self, Received, STREAMS};

/// What every wait is bounded by.
const DEADLINE: Duration = Duration::from_mins(1);
/// How many connections are begun before their answers are waited for: fewer than a listen queue holds.
const AT_ONCE: usize = 100;

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn nanos() -> u64 {
    u64::try_from(BEGUN.elapsed().as_nanos()).unwrap()
}

/// The version of HTTP that subscribers read over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Each has a connection.
    Http1,
    /// Each has a stream of a connection that is full before the next begins.
    Http2,
}

/// Many subscribers in one thread.
pub struct Subscribers {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    version: Version,
    path: String,
    connections: Vec<Connection>,
    all: Vec<Subscriber>,
    buffer: Vec<u8>,
    /// From an event's publish to its arrival, in nanoseconds.
    pub latencies: Vec<u64>,
}

struct Connection {
    stream: TcpStream,
    version: Version,
    /// The number of its first subscriber.
    first: usize,
    /// What was received of a frame of HTTP/2 that is not complete yet.
    rest: Vec<u8>,
}

#[derive(Default)]
struct Subscriber {
    /// What was received of an event that is not complete yet.
    rest: Vec<u8>,
    /// How often each event came, by its number.
    seen: Vec<u8>,
    events: usize,
    /// Ends of lines as HTTP has them: two a chunk.
    line_ends: usize,
    has_answer: bool,
}

impl Subscribers {
    pub fn new(address: SocketAddr, version: Version, path: &str) -> Self {
        LazyLock::force(&BEGUN);
        Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            address,
            version,
            path: path.to_owned(),
            connections: Vec::new(),
            all: Vec::new(),
            buffer: vec![0; 256 * 1024],
            latencies: Vec::new(),
        }
    }

    /// Connects that many more, and waits until all have an answer.
    pub fn connect(&mut self, count: usize) {
        for number in 0..count {
            self.add();
            if number % AT_ONCE == AT_ONCE - 1 {
                self.until(|all| all.iter().all(|one| one.has_answer));
            }
        }
        self.until(|all| all.iter().all(|one| one.has_answer));
    }

    /// Connects that many more, as fast as it goes.
    pub fn connect_at_once(&mut self, count: usize) {
        for _ in 0..count {
            self.add();
        }
    }

    fn add(&mut self) {
        match self.version {
            Version::Http1 => {
                let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.path);
                self.add_connection(request.as_bytes());
            }
            Version::Http2 => {
                let number = self.all.len() % STREAMS;
                if number == 0 {
                    self.add_connection(&http2::preface());
                }
                let connection = self.connections.last_mut().unwrap();
                connection.stream.write_all(&http2::get(number, &self.path)).unwrap();
            }
        }
        self.all.push(Subscriber::default());
    }

    fn add_connection(&mut self, begins_with: &[u8]) {
        // Blocking: the system answers for the server as long as its queue has room.
        let mut stream = Blocking::connect(self.address).unwrap();
        stream.write_all(begins_with).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.connections.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE).unwrap();
        let (version, first) = (self.version, self.all.len());
        self.connections.push(Connection { stream, version, first, rest: Vec::new() });
    }

    /// Reads until that is so.
    fn until(&mut self, is_enough: impl Fn(&[Subscriber]) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_enough(&self.all) {
            assert!(Instant::now() < end, "the server does not answer");
            self.read(Duration::from_millis(100));
        }
    }

    /// Reads until each has had so many events, or else nothing comes any more.
    pub fn until_events(&mut self, count: usize) {
        let end = Instant::now() + DEADLINE;
        let mut behind = 0;
        while behind < self.all.len() && Instant::now() < end {
            // In order, so that who is done is not looked at again.
            if self.all[behind].events >= count {
                behind += 1;
            } else {
                self.read(Duration::from_millis(100));
            }
        }
    }

    /// Reads what there is, for at most that long.
    pub fn read(&mut self, wait: Duration) {
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            let subscribers = &mut self.all[connection.first..];
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

    /// How many events have arrived in all.
    pub fn delivered(&self) -> usize {
        self.all.iter().map(|one| one.events).sum()
    }

    /// How many of the events up to that number did not arrive, and how many came more than once.
    pub fn missing_and_doubled(&self, numbers: usize) -> (usize, usize) {
        let of_one = |one: &Subscriber| {
            let there = one.seen.iter().filter(|times| **times > 0).count();
            (numbers - there, one.events - there)
        };
        self.all.iter().map(of_one).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// How many chunks each has had on average.
    pub fn chunks(&self) -> f64 {
        let line_ends: usize = self.all.iter().map(|one| one.line_ends).sum();
        line_ends as f64 / 2.0 / self.all.len() as f64
    }

    pub fn forget(&mut self) {
        self.latencies.clear();
        for one in &mut self.all {
            one.seen.clear();
            one.events = 0;
            one.line_ends = 0;
        }
    }
}

impl Connection {
    /// Hands its subscribers what is for each.
    fn received(&mut self, bytes: &[u8], to: &mut [Subscriber], latencies: &mut Vec<u64>) {
        if self.version == Version::Http1 {
            return to[0].received(bytes, latencies);
        }
        self.rest.extend(bytes);
        let bytes = std::mem::take(&mut self.rest);
        let mut rest = &bytes[..];
        while let Some(received) = http2::take(&mut rest) {
            match received {
                Received::Head(number) => to[number].has_answer = true,
                Received::Data(number, bytes) => to[number].received(bytes, latencies),
                Received::Question(answer) => self.stream.write_all(&answer).unwrap(),
                Received::Nothing => {}
            }
        }
        self.rest = rest.to_vec();
    }
}

impl Subscriber {
    /// Of HTTP/1.1 all, of HTTP/2 what follows the head.
    fn received(&mut self, bytes: &[u8], latencies: &mut Vec<u64>) {
        let joined;
        let mut bytes = if self.rest.is_empty() {
            bytes
        } else {
            self.rest.extend(bytes);
            joined = std::mem::take(&mut self.rest);
            &joined
        };
        if !self.has_answer {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                self.rest = bytes.to_vec();
                return;
            };
            assert!(bytes.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(bytes));
            self.has_answer = true;
            bytes = &bytes[end + 4..];
        }
        let now = nanos();
        // Blocks end with an empty line; what is after the last of them is not complete.
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
            assert_eq!(self.seen.len(), number + 1, "an event is after a later one");
            self.seen[number] += 1;
            self.events += 1;
            if sent > 0 {
                latencies.push(now.saturating_sub(sent));
            }
        }
    }
}

/// The data of an event of that number, which is published now, and about so long.
pub fn data(number: usize, size: usize) -> String {
    let text = format!("n{number} {} ", nanos());
    let padding = size.saturating_sub(text.len()).max(1);
    text + &"x".repeat(padding)
}

/// One that publishes and waits for each answer.
pub struct Publisher(BufReader<Blocking>);

impl Publisher {
    pub fn new(address: SocketAddr) -> Self {
        let stream = Blocking::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn publish(&mut self, query: &str, body: &str) {
        let request = format!(
            "POST /events/t{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
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
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
    }

    /// Publishes that many events at that rate, numbered from 0, in a thread.
    pub fn run(mut self, count: usize, per_second: f64, size: usize) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let begun = Instant::now();
            for number in 0..count {
                let due = begun + Duration::from_secs_f64(number as f64 / per_second);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                self.publish("", &data(number, size));
            }
        })
    }
}

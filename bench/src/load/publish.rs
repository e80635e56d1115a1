//! Publishers.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream as Blocking,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use tokio_rustls::rustls::StreamOwned;

use super::{
    DEADLINE, Endpoint, HttpVersion, data,
    response::{Response, ResponseReader},
};

/// A request that publishes an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishForm {
    /// The path, and perhaps a query.
    pub path: String,
    /// The media type of the body.
    pub media_type: String,
    /// The body. `{}` in it stands for the data of the event.
    pub body: String,
}

impl Default for PublishForm {
    fn default() -> Self {
        let (media_type, body) = ("text/plain".to_owned(), "{}".to_owned());
        Self { path: "/events/t".to_owned(), media_type, body }
    }
}

/// A connection without or with TLS.
trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A publisher that waits for the response to each request.
pub struct LoadPublisher {
    endpoint: Endpoint,
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
}

impl LoadPublisher {
    /// Connects to a server.
    pub fn new(endpoint: &Endpoint) -> Self {
        let (endpoint, stream) = (endpoint.clone(), open(endpoint).unwrap());
        Self { endpoint, stream, buffer: vec![0; 64 * 1024] }
    }

    /// Publishes `body` to the topic `t`, and waits for the response.
    pub fn publish(&mut self, query: &str, body: &str) {
        self.publish_to(&format!("t{query}"), body);
    }

    /// Publishes `body` to a topic, which a query may follow, and waits for the response.
    pub fn publish_to(&mut self, topic: &str, body: &str) {
        self.post(&format!("/events/{topic}"), "text/plain", body);
    }

    /// Publishes to each topic one of `lines` of JSON, and panics if the server refuses one.
    pub fn publish_json(&mut self, lines: &[String]) {
        let answers = self.post("/events", "application/x-ndjson", &lines.join("\n"));
        let published = memchr::memmem::find_iter(&answers, b"\"id\"").count();
        assert_eq!(published, lines.len(), "{}", String::from_utf8_lossy(&answers));
    }

    /// Requests a path, waits for the response, and returns its body.
    pub fn get(&mut self, path: &str) -> Vec<u8> {
        let request = get(&self.endpoint, path);
        self.request(&request)
    }

    /// Sends a body, waits for the response, and returns its body.
    pub fn post(&mut self, path: &str, media_type: &str, body: &str) -> Vec<u8> {
        let request = post(&self.endpoint, path, media_type, body);
        self.request(&request)
    }

    fn request(&mut self, request: &str) -> Vec<u8> {
        let response = exchange(&mut *self.stream, request, &mut self.buffer).unwrap();
        if response.is_last {
            self.stream = open(&self.endpoint).unwrap();
        }
        accepted(response)
    }

    /// Publishes `count` events at the given rate in a new thread. They are numbered from 0.
    pub fn run(
        mut self,
        form: PublishForm,
        count: usize,
        per_second: f64,
        size: usize,
    ) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let start = Instant::now();
            for number in 0..count {
                wait_for_turn(start, number, per_second);
                let body = form.body.replace("{}", &data(number, size));
                self.post(&form.path, &form.media_type, &body);
            }
        })
    }
}

/// Runs `step` at the given rate for some seconds, or as fast as possible if the rate is 0. Returns
/// the sorted times that it takes, in nanoseconds.
pub fn paced(per_second: f64, seconds: f64, mut step: impl FnMut(usize)) -> Vec<u64> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed().as_secs_f64() < seconds {
        wait_for_turn(start, times.len(), per_second);
        let began = Instant::now();
        step(times.len());
        times.push(u64::try_from(began.elapsed().as_nanos()).unwrap());
    }
    times.sort_unstable();
    times
}

/// Waits until it is time for the step with a number, if the first one, 0, was due at `start`.
fn wait_for_turn(start: Instant, number: usize, per_second: f64) {
    if per_second > 0.0 {
        let due = start + Duration::from_secs_f64(number as f64 / per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn open(endpoint: &Endpoint) -> io::Result<Box<dyn Duplex>> {
    let stream = Blocking::connect(endpoint.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(match &endpoint.tls {
        Some(tls) => Box::new(StreamOwned::new(tls.connection(HttpVersion::Http1), stream)),
        None => Box::new(stream),
    })
}

/// Sends a request, and waits for the response.
fn exchange(stream: &mut dyn Duplex, request: &str, buffer: &mut [u8]) -> io::Result<Response> {
    stream.write_all(request.as_bytes())?;
    let mut reader = ResponseReader::default();
    loop {
        let read = stream.read(buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(response) = reader.received(&buffer[..read]) {
            return Ok(response);
        }
    }
}

/// Requests a path on a connection of its own. Returns an error if there is no response.
pub fn try_get(endpoint: &Endpoint, path: &str) -> io::Result<Response> {
    let request = get(endpoint, path);
    exchange(&mut *open(endpoint)?, &request, &mut [0; 16 * 1024])
}

fn get(endpoint: &Endpoint, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{}\r\n", endpoint.fields)
}

fn post(endpoint: &Endpoint, path: &str, media_type: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\n{}Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        endpoint.fields,
        body.len()
    )
}

fn accepted(response: Response) -> Vec<u8> {
    let text = String::from_utf8_lossy(&response.body);
    assert!((200..300).contains(&response.status), "status {}: {text}", response.status);
    response.body
}

/// The results of publishers that have published as fast as possible.
pub struct PublishRun {
    /// Published events per second.
    pub rate: f64,
    /// The sorted times from a request to its response, in nanoseconds.
    pub times: Vec<u64>,
}

/// Publishes events for some time over several connections, each of which waits for the response
/// to an event before it sends the next. They go to the servers in turn.
pub fn publish_at_once(servers: &[Endpoint], connections: usize, time: Duration) -> PublishRun {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(connections);
    let mut buffer = vec![0; 16 * 1024];
    let request = |server: &Endpoint| post(server, "/events/t", "text/plain", &data(0, 100));
    let mut publishers: Vec<_> = servers
        .iter()
        .cycle()
        .take(connections)
        .enumerate()
        .map(|(number, server)| {
            let stream = Blocking::connect(server.address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE).unwrap();
            (server, stream, ResponseReader::default(), Instant::now())
        })
        .collect();
    let start = Instant::now();
    for (server, stream, _, sent) in &mut publishers {
        *sent = Instant::now();
        stream.write_all(request(server).as_bytes()).unwrap();
    }
    let (mut times, mut open) = (Vec::new(), connections);
    while open > 0 {
        poll.poll(&mut events, Some(DEADLINE)).unwrap();
        assert!(!events.is_empty(), "the server does not respond");
        for event in &events {
            let (server, stream, reader, sent) = &mut publishers[event.token().0];
            let read = match stream.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            };
            assert!(read > 0, "the server closes a connection");
            let Some(response) = reader.received(&buffer[..read]) else { continue };
            accepted(response);
            times.push(u64::try_from(sent.elapsed().as_nanos()).unwrap());
            if start.elapsed() < time {
                *sent = Instant::now();
                stream.write_all(request(server).as_bytes()).unwrap();
            } else {
                open -= 1;
            }
        }
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    PublishRun { rate, times }
}

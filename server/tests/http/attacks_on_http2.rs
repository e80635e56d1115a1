//! Attacks over HTTP/2, frame by frame. The server closes connections that violate the protocol,
//! bounds its work for those that do not, and serves others meanwhile.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use server::limits::Timeouts;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::TcpStream,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    frames::{
        CONTINUATION, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM,
        SETTINGS, field, frame, get, head, preface, setting, string,
    },
    support::{DEADLINE, Server, read_until_closed, refusal_metric, timeout_metric},
    tls,
};

const SHORT: Duration = Duration::from_millis(50);

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Flag of a PING or SETTINGS frame that acknowledges another.
const ACK: u8 = 1;

// Error codes of streams and connections (RFC 9113, 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

struct ReceivedFrame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl ReceivedFrame {
    /// Returns the error code of an `RST_STREAM` or `GOAWAY`.
    fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// Returns the status of a response, which is the first field of its head.
    fn status(&self) -> u16 {
        if let indexed @ 0x88..=0x8e = self.payload[0] {
            return [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)];
        }
        // Huffman-coded text: the digits 0 to 2 take five bits, the others six (RFC 7541, B).
        let bytes = self.payload[2..].iter().copied().chain([0; 4]);
        let mut bits = bytes.take(4).fold(0, |bits, byte| bits << 8 | u32::from(byte));
        (0..3).fold(0, |status, _| {
            let is_short = bits >> 27 < 3;
            let digit = if is_short { bits >> 27 } else { (bits >> 26) - 0x19 + 3 };
            bits <<= if is_short { 5 } else { 6 };
            10 * status + u16::try_from(digit).unwrap()
        })
    }
}

/// The outcome of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// A response with this status.
    Answered(u16),
    /// A reset of the request's stream with this error code.
    Reset(u32),
    /// The end of the connection with this error code.
    GoAway(u32),
}

use Outcome::{Answered, GoAway, Reset};

/// A client that sends arbitrary frames.
struct Attacker<S = TcpStream> {
    socket: S,
    /// Bytes that were read from the socket and not taken yet.
    unread: Vec<u8>,
}

impl Attacker {
    async fn start(server: &Server) -> Self {
        Self::with_socket(server.connect().await).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Attacker<S> {
    async fn with_socket(socket: S) -> Self {
        let mut attacker = Self { socket, unread: Vec::new() };
        attacker.send(&preface()).await;
        attacker
    }

    async fn send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(DEADLINE, self.socket.write_all(bytes)).await;
        sent.expect("the server reads").unwrap();
    }

    /// Returns the next frame, or `None` at the end.
    async fn next(&mut self) -> Option<ReceivedFrame> {
        loop {
            if let Some((start, rest)) = self.unread.split_at_checked(9) {
                let length = u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize;
                if let Some((payload, rest)) = rest.split_at_checked(length) {
                    let frame = ReceivedFrame {
                        kind: start[3],
                        stream: u32::from_be_bytes(start[5..].try_into().unwrap()),
                        payload: payload.to_vec(),
                    };
                    self.unread = rest.to_vec();
                    return Some(frame);
                }
            }
            let read = self.socket.read_buf(&mut self.unread);
            let read = tokio::time::timeout(DEADLINE, read).await.expect("more frames");
            // The server may reset a connection that it has closed.
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Returns the next frame of a kind.
    async fn next_of_kind(&mut self, kind: u8) -> ReceivedFrame {
        loop {
            let frame = self.next().await.expect("not the end");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits until the server has read everything that was sent.
    async fn flush(&mut self) {
        self.send(&frame(PING, 0, 0, b"flushed?")).await;
        while self.next_of_kind(PING).await.payload != b"flushed?" {}
    }

    /// Returns the outcome of the request on a stream.
    async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let frame = self.next().await.expect("an outcome");
            match frame.kind {
                GOAWAY => return GoAway(frame.error_code()),
                RST_STREAM if frame.stream == stream => return Reset(frame.error_code()),
                HEADERS if frame.stream == stream => return Answered(frame.status()),
                _ => {}
            }
        }
    }

    /// Sends bytes, as far as the server reads them, and reads until the server closes the
    /// connection. Returns the error code of its `GOAWAY`, and all other frames.
    async fn send_until_closed(mut self, bytes: &[u8]) -> (u32, Vec<ReceivedFrame>) {
        let (read, mut write) = split(self.socket);
        let mut reader =
            Attacker { socket: tokio::io::join(read, tokio::io::sink()), unread: Vec::new() };
        std::mem::swap(&mut reader.unread, &mut self.unread);
        let reading = async {
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().await {
                frames.push(frame);
            }
            frames
        };
        let (_, mut frames) = tokio::join!(write.write_all(bytes), reading);
        let at = frames.iter().rposition(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
        (frames.remove(at).error_code(), frames)
    }
}

/// Checks that an attack has left no streams and no connections behind.
async fn assert_recovered(server: &Server) {
    server.wait_for_streams(0).await;
    // Only the connection that reads the metric is open.
    server.wait_for_metric("waterclock_connections_open", |value| value == 1).await;
    server.assert_serves("clock").await;
}

/// Returns the numbers of the first `count` streams of a client.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(count as usize)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

#[tokio::test]
async fn a_rapid_reset_attack_ends_the_connection() {
    let server = Server::start().await;
    let (tls_server, tls, _folder) = tls::start_server(Timeouts::default()).await;
    let attack: Vec<_> = streams(20_000)
        .flat_map(|stream| [get(stream, "/events"), reset(stream)])
        .flatten()
        .collect();
    let attacker = Attacker::start(&server).await;
    let ((error_code, _), ()) =
        tokio::join!(attacker.send_until_closed(&attack), server.assert_serves("clock"));
    assert_eq!(error_code, ENHANCE_YOUR_CALM);
    server.wait_for_metric(&refusal_metric("http2"), |value| value == 1).await;
    assert_recovered(&server).await;

    let socket = tls::connect(&tls_server, tls.file(), &["h2"]).await;
    let (error_code, _) = Attacker::with_socket(socket).await.send_until_closed(&attack).await;
    assert_eq!(error_code, ENHANCE_YOUR_CALM);
    tls_server.wait_for_streams(0).await;
}

#[tokio::test]
async fn streams_reset_after_their_response_leave_nothing_behind() {
    let server = Server::start().await;
    let mut attacker = Attacker::start(&server).await;
    let mut numbers = streams(2000);
    for _ in 0..20 {
        let numbers: Vec<_> = numbers.by_ref().take(100).collect();
        let requests: Vec<_> = numbers.iter().flat_map(|&stream| get(stream, "/events")).collect();
        attacker.send(&requests).await;
        for _ in &numbers {
            assert_eq!(attacker.next_of_kind(HEADERS).await.status(), 200);
        }
        let resets: Vec<_> = numbers.iter().flat_map(|&stream| reset(stream)).collect();
        attacker.send(&resets).await;
    }
    server.assert_serves("clock").await;
    server.wait_for_streams(0).await;
    assert_eq!(server.metric("waterclock_streams_total").await, 2001);
    attacker.flush().await;
    drop(attacker);
    assert_recovered(&server).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_then_end_the_connection() {
    for window in [0, 1] {
        let server = Server::start().await;
        let mut attacker = Attacker::start(&server).await;
        let windows = setting(INITIAL_WINDOW_SIZE, window);
        attacker.send(&frame(SETTINGS, 0, 0, &windows)).await;
        let requests: Vec<_> = streams(1000).flat_map(|stream| get(stream, "/events")).collect();
        attacker.send(&requests).await;
        server.wait_for_streams(1000).await;
        for _ in 0..20 {
            server.publish(&"x".repeat(60_000)).await;
        }
        server.assert_serves("clock").await;
        attacker.send(&get(2001, "/events")).await;
        assert_eq!(attacker.outcome(2001).await, Reset(REFUSED_STREAM));
        let more: Vec<_> =
            streams(3000).skip(1001).flat_map(|stream| get(stream, "/events")).collect();
        let (error_code, frames) = attacker.send_until_closed(&more).await;
        assert_eq!(error_code, ENHANCE_YOUR_CALM, "a client that ignores refusals");
        let data = frames.iter().filter(|frame| frame.kind == DATA);
        assert!(data.map(|frame| frame.payload.len()).sum::<usize>() <= 1000 * window as usize);
        server.wait_for_metric(&refusal_metric("http2"), |value| value == 1).await;
        assert_recovered(&server).await;
    }
}

/// Builds the frames to send on a stream.
type FrameBuilder = Box<dyn Fn(u32) -> Vec<u8>>;

#[tokio::test]
async fn provoked_resets_are_limited() {
    let window = |size: u32| move |stream| frame(WINDOW_UPDATE, 0, stream, &size.to_be_bytes());
    let data = |length| move |stream| frame(DATA, 0, stream, &vec![b'x'; length]);
    let on_itself =
        |stream: u32| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat());
    let get = |stream| get(stream, "/events");
    let post = |stream| {
        let head = [head("POST", "/events/t"), field("content-length", "1")].concat();
        frame(HEADERS, END_HEADERS, stream, &head)
    };
    let nothing = |_| Vec::new();
    let forbidden = |stream| {
        let head = [head("GET", "/events"), field("connection", "close")].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
    };
    let attacks: [(&str, FrameBuilder, FrameBuilder, u32); 8] = [
        ("a window of 0", Box::new(get), Box::new(window(0)), PROTOCOL_ERROR),
        ("a too large window", Box::new(get), Box::new(window(0x7fff_ffff)), ENHANCE_YOUR_CALM),
        ("data after the end", Box::new(get), Box::new(data(1)), PROTOCOL_ERROR),
        ("more data than announced", Box::new(post), Box::new(data(2)), ENHANCE_YOUR_CALM),
        ("a head after the end", Box::new(get), Box::new(get), PROTOCOL_ERROR),
        ("a stream that depends on itself", Box::new(get), Box::new(on_itself), ENHANCE_YOUR_CALM),
        (
            "a head with a forbidden field",
            Box::new(forbidden),
            Box::new(nothing),
            ENHANCE_YOUR_CALM,
        ),
        ("a reset of an idle stream", Box::new(nothing), Box::new(reset), PROTOCOL_ERROR),
    ];
    let server = Server::start().await;
    for ((name, open, provoke, expected), count) in attacks.into_iter().zip(1..) {
        let attack: Vec<_> =
            streams(3000).flat_map(|stream| [open(stream), provoke(stream)]).flatten().collect();
        let attacker = Attacker::start(&server).await;
        let ((error_code, frames), ()) =
            tokio::join!(attacker.send_until_closed(&attack), server.assert_serves("clock"));
        let resets = frames.iter().filter(|frame| frame.kind == RST_STREAM).count();
        assert_eq!(error_code, expected, "{name}");
        assert!(resets <= 1024, "{name}: {resets}");
        server.wait_for_metric(&refusal_metric("http2"), |value| value == count).await;
    }
    assert_recovered(&server).await;
}

/// Sends a request, and then the same bytes repeatedly, as fast as the system accepts them, from a
/// separate thread. The thread returns `true` if the server cuts it off, and ends early once the
/// flag is set.
async fn flood(server: &Server, bytes: &[u8]) -> (JoinHandle<bool>, Arc<AtomicBool>) {
    let address = server.address;
    let bytes = bytes.repeat(64 * 1024 / bytes.len());
    let (begin, has_begun) = oneshot::channel();
    let is_enough = Arc::<AtomicBool>::default();
    let ends = Arc::clone(&is_enough);
    let flood = spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&[preface(), get(1, "/health/live")].concat()).unwrap();
        let _ = begin.send(());
        let end = Instant::now() + DEADLINE / 2;
        // The time limit holds even if the flood blocks the test.
        while Instant::now() < end && !ends.load(Ordering::Relaxed) {
            if stream.write_all(&bytes).is_err() {
                return true;
            }
        }
        false
    });
    has_begun.await.unwrap();
    (flood, is_enough)
}

#[tokio::test]
async fn a_flood_of_frames_without_responses_delays_nobody() {
    for frame in [
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(0xfa, 0, 1, b"of no known kind"),
        frame(PING, ACK, 0, b"unasked!"),
        frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()),
    ] {
        let server = Server::start().await;
        let (flood, is_enough) = flood(&server, &frame).await;
        server.assert_serves("clock").await;
        assert!(!flood.is_finished(), "{frame:?}: the flood ended before others were served");
        is_enough.store(true, Ordering::Relaxed);
        assert!(!flood.await.unwrap(), "{frame:?}: it violates no rule");
        assert_recovered(&server).await;
    }
}

#[tokio::test]
async fn a_flood_without_requests_counts_as_idle() {
    let timeouts = Timeouts { head: SHORT, idle: SHORT, write: SHORT, ..Timeouts::default() };
    let server = Server::with_timeouts(timeouts).await;
    let (flood, _) = flood(&server, &frame(PRIORITY, 0, 1, &[0; 5])).await;
    let idle = &timeout_metric("idle");
    server.wait_for_metric(idle, |value| value == 1).await;
    assert!(flood.await.unwrap(), "the flood is cut off");
    assert_recovered(&server).await;
}

#[tokio::test]
async fn a_flood_with_unread_responses_is_cut_off() {
    let timeouts = Timeouts { silence: SHORT, ..Timeouts::default() };
    let server = Server::with_timeouts(timeouts).await;
    // Both timeouts have the same length, so either may be first.
    let metrics = ["ping", "write"].map(timeout_metric);
    let floods = [frame(PING, 0, 0, b"answer!!"), frame(SETTINGS, 0, 0, &setting(1, 4096))];
    for (flood, count) in floods.into_iter().zip(1..) {
        let flood = flood.repeat(5000);
        let mut attacker = Attacker::start(&server).await;
        let flooding = async {
            // A hundred megabytes exceed all buffers.
            for _ in 0..1000 {
                if attacker.socket.write_all(&flood).await.is_err() {
                    return;
                }
            }
            panic!("the server reads on");
        };
        let flooding = tokio::time::timeout(DEADLINE, flooding);
        let (cut_off, ()) = tokio::join!(flooding, server.assert_serves("clock"));
        cut_off.expect("cut off");
        let counted = async {
            while server.metric(&metrics[0]).await + server.metric(&metrics[1]).await < count {}
        };
        tokio::time::timeout(DEADLINE, counted).await.expect("counted");
    }
    assert_recovered(&server).await;
}

#[tokio::test]
async fn floods_that_violate_the_protocol_end_the_connection() {
    let post = frame(HEADERS, END_HEADERS, 1, &head("POST", "/events/t"));
    let begun = frame(HEADERS, END_STREAM, 1, &head("GET", "/events"));
    let server = Server::start().await;
    for (name, begin, flood, expected) in [
        ("empty data", &post, frame(DATA, 0, 1, b""), ENHANCE_YOUR_CALM),
        ("empty padding", &post, frame(DATA, 8, 1, &[0]), ENHANCE_YOUR_CALM),
        ("a head without end", &begun, frame(CONTINUATION, 0, 1, b""), ENHANCE_YOUR_CALM),
        (
            "a large head without end",
            &begun,
            frame(CONTINUATION, 0, 1, &field("x", &"x".repeat(16_000))),
            ENHANCE_YOUR_CALM,
        ),
        (
            "a field without end",
            &begun,
            frame(
                CONTINUATION,
                0,
                1,
                &[&[0, 1, b'x', 0x7f, 0xff, 0xff, 0x7f][..], &[b'x'; 16_000]].concat(),
            ),
            ENHANCE_YOUR_CALM,
        ),
        ("pushes", &begun, frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("acknowledgements", &post, frame(SETTINGS, ACK, 0, b""), PROTOCOL_ERROR),
        (
            "windows",
            &post,
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            FLOW_CONTROL_ERROR,
        ),
    ] {
        let attack = [begin, &*flood.repeat(1000)].concat();
        let attacker = Attacker::start(&server).await;
        let ((error_code, _), ()) =
            tokio::join!(attacker.send_until_closed(&attack), server.assert_serves("clock"));
        assert_eq!(error_code, expected, "{name}");
    }
    server.wait_for_metric(&refusal_metric("http2"), |value| value == 8).await;
    assert_recovered(&server).await;
}

#[tokio::test]
async fn too_large_heads_get_431_or_end_the_connection() {
    let server = Server::start().await;
    let get = |more: &[u8]| {
        let head = [&head("GET", "/health/live"), more].concat();
        let mut frames = Vec::new();
        let mut parts = head.chunks(16_000).peekable();
        let (mut kind, mut flags) = (HEADERS, END_STREAM);
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
            frames.push((kind, flags | last, part.to_vec()));
            (kind, flags) = (CONTINUATION, 0);
        }
        move |stream| -> Vec<u8> {
            frames
                .iter()
                .flat_map(|(kind, flags, part)| frame(*kind, *flags, stream, part))
                .collect()
        }
    };
    let x = |length| field("x", &"x".repeat(length));
    // An entry of the dynamic table (RFC 7541, 6.2.1), and `count` fields that refer to it by its
    // number, 62 (6.1).
    let entry = [&[0x40][..], &string("x"), &string(&"x".repeat(4000))].concat();
    let bomb = |count| [&entry[..], &vec![0xbe; count]].concat();
    let crumbs = |count| field("cookie", "a=b").repeat(count);
    for (name, head, expected) in [
        ("a large field", get(&x(30_000)), Answered(200)),
        ("a larger field", get(&x(33_000)), Answered(431)),
        ("a far larger field", get(&x(200_000)), GoAway(ENHANCE_YOUR_CALM)),
        ("few references", get(&bomb(6)), Answered(200)),
        ("references", get(&bomb(12)), Answered(431)),
        ("a bomb", get(&bomb(15_000)), GoAway(ENHANCE_YOUR_CALM)),
        ("crumbs", get(&crumbs(700)), Answered(200)),
        ("more crumbs", get(&crumbs(1000)), Answered(431)),
        ("too many crumbs", get(&crumbs(10_000)), GoAway(ENHANCE_YOUR_CALM)),
        ("a table beyond the permitted size", get(&[0x3f, 0xff, 0xff, 3]), GoAway(PROTOCOL_ERROR)),
        ("a missing entry", get(&[0xff, 0xff, 3]), GoAway(PROTOCOL_ERROR)),
        ("a number without end", get(&[0xff; 30]), GoAway(PROTOCOL_ERROR)),
        ("half a field", get(&[0, 5, b'x']), GoAway(PROTOCOL_ERROR)),
    ] {
        let mut attacker = Attacker::start(&server).await;
        attacker.send(&head(1)).await;
        let outcome = attacker.outcome(1).await;
        assert_eq!(outcome, expected, "{name}");
        if let Answered(_) = outcome {
            // The server understands the next head.
            attacker.send(&head(3)).await;
            assert_eq!(attacker.next_of_kind(HEADERS).await.stream, 3, "{name}");
            attacker.flush().await;
        }
    }
    assert_recovered(&server).await;
}

/// Returns the outcome of a request with these fields, and no others.
async fn outcome(server: &Server, fields: &[(&str, &str)]) -> Outcome {
    let head: Vec<_> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let mut attacker = Attacker::start(server).await;
    attacker.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    attacker.outcome(1).await
}

#[tokio::test]
async fn conflicting_hosts_are_not_local() {
    let server = Server::start().await;
    for (fields, expected) in [
        (&[(":authority", "localhost")][..], Answered(200)),
        (&[("host", "localhost")], Answered(200)),
        (&[(":authority", "localhost"), ("host", "localhost")], Answered(200)),
        (&[(":authority", "evil.example")], Answered(403)),
        (&[("host", "evil.example")], Answered(403)),
        (&[(":authority", "evil.example"), ("host", "localhost")], Answered(403)),
        (&[(":authority", "localhost"), ("host", "evil.example")], Answered(403)),
        (&[(":authority", "localhost"), ("host", "")], Answered(403)),
        (&[("host", "localhost"), ("host", "evil.example")], Answered(403)),
        (&[("host", "evil.example"), ("host", "localhost")], Answered(403)),
        (&[(":authority", "evil.example@localhost")], Answered(403)),
        (&[(":authority", "localhost@evil.example")], Answered(403)),
        (&[(":authority", "localhost, evil.example")], Reset(PROTOCOL_ERROR)),
        (&[(":authority", "localhost/")], Reset(PROTOCOL_ERROR)),
        (&[(":authority", "")], Reset(PROTOCOL_ERROR)),
        (&[(":authority", "localhost"), (":authority", "evil.example")], Reset(PROTOCOL_ERROR)),
        (&[], Answered(403)),
        (&[(":authority", "localhost"), ("x-forwarded-for", "::1")], Answered(403)),
        (&[(":authority", "localhost"), ("origin", "http://evil.example")], Answered(403)),
    ] {
        let first = [(":method", "GET"), (":scheme", "http"), (":path", "/events")];
        let outcome = outcome(&server, &[&first[..], fields].concat()).await;
        assert_eq!(outcome, expected, "{fields:?}");
    }
    assert_recovered(&server).await;
}

#[tokio::test]
async fn heads_that_http_1_could_misread_are_refused() {
    let server = Server::start().await;
    let (get, post) = ((":method", "GET"), (":method", "POST"));
    let (http, localhost) = ((":scheme", "http"), (":authority", "localhost"));
    let events = (":path", "/events");
    let with = |field| [get, http, localhost, events, field];
    for (fields, expected) in [
        (&with(("x", "y"))[..], Answered(200)),
        (&with(("X", "y")), GoAway(PROTOCOL_ERROR)),
        (&with(("", "y")), GoAway(PROTOCOL_ERROR)),
        (&with(("x y", "y")), GoAway(PROTOCOL_ERROR)),
        (&with(("x:", "y")), GoAway(PROTOCOL_ERROR)),
        (&with(("x\r\nhost", "y")), GoAway(PROTOCOL_ERROR)),
        (&with(("x", "y\r\nhost: evil.example")), GoAway(PROTOCOL_ERROR)),
        (&with(("x", "y\ny")), GoAway(PROTOCOL_ERROR)),
        (&with(("x", "y\0")), GoAway(PROTOCOL_ERROR)),
        (&with(("connection", "close")), Reset(PROTOCOL_ERROR)),
        (&with(("keep-alive", "1")), Reset(PROTOCOL_ERROR)),
        (&with(("proxy-connection", "close")), Reset(PROTOCOL_ERROR)),
        (&with(("upgrade", "websocket")), Reset(PROTOCOL_ERROR)),
        (&with(("transfer-encoding", "chunked")), Reset(PROTOCOL_ERROR)),
        (&with(("te", "chunked")), Reset(PROTOCOL_ERROR)),
        (&with(("te", "trailers")), Answered(200)),
        (&with(("content-length", "1")), Reset(PROTOCOL_ERROR)),
        (&with(("content-length", "-1")), Reset(PROTOCOL_ERROR)),
        (&with(("content-length", "+0")), Reset(PROTOCOL_ERROR)),
        (&with(("content-length", "0")), Answered(200)),
        (&with((":path", "/health/live")), Reset(PROTOCOL_ERROR)),
        (&with((":status", "200")), Reset(PROTOCOL_ERROR)),
        (&with((":protocol", "websocket")), Reset(PROTOCOL_ERROR)),
        (&with((":unknown", "x")), GoAway(PROTOCOL_ERROR)),
        (&[("x", "y"), get, http, localhost, events], Reset(PROTOCOL_ERROR)),
        (&[http, localhost, events], Reset(PROTOCOL_ERROR)),
        (&[get, localhost, events], Reset(PROTOCOL_ERROR)),
        (&[get, http, localhost], Reset(PROTOCOL_ERROR)),
        (&[get, http, localhost, (":path", "")], Reset(PROTOCOL_ERROR)),
        (&[get, http, localhost, (":path", "events")], Reset(PROTOCOL_ERROR)),
        (&[get, http, localhost, (":path", "*")], Answered(404)),
        (&[get, http, localhost, (":path", "http://localhost/events")], Reset(PROTOCOL_ERROR)),
        (&[get, http, localhost, (":path", "//evil.example/events")], Answered(404)),
        (&[get, http, localhost, (":path", "/events HTTP/1.1")], Reset(PROTOCOL_ERROR)),
        (&[get, http, localhost, (":path", "/events\r\n")], Reset(PROTOCOL_ERROR)),
        (&[get, http, localhost, (":path", "/events#x")], Answered(200)),
        (&[get, http, localhost, (":path", "/x/../events")], Answered(404)),
        (&[get, http, localhost, (":path", "/../../../../etc/passwd")], Answered(404)),
        (&[get, (":scheme ", "http"), localhost, events], GoAway(PROTOCOL_ERROR)),
        (&[get, (":scheme", "ftp"), localhost, events], Answered(200)),
        (&[get, (":scheme", "http\r\n"), localhost, events], Reset(PROTOCOL_ERROR)),
        (&[(":method", "get"), http, localhost, events], Answered(405)),
        (&[(":method", "GET / HTTP/1.1\r\n"), http, localhost, events], GoAway(PROTOCOL_ERROR)),
        (&[(":method", ""), http, localhost, events], GoAway(PROTOCOL_ERROR)),
        (&[(":method", "CONNECT"), localhost], Answered(404)),
        (&[(":method", "CONNECT"), localhost, ("content-length", "0")], Answered(404)),
        (&[(":method", "CONNECT"), http, localhost, events], Reset(PROTOCOL_ERROR)),
        (
            &[post, http, localhost, (":path", "/events/t"), ("content-length", "1")],
            Reset(PROTOCOL_ERROR),
        ),
        (
            &[
                post,
                http,
                localhost,
                (":path", "/events/t"),
                ("content-length", "0"),
                ("content-length", "1"),
            ],
            Reset(PROTOCOL_ERROR),
        ),
    ] {
        assert_eq!(outcome(&server, fields).await, expected, "{fields:?}");
    }
    assert_recovered(&server).await;
}

#[tokio::test]
async fn bodies_of_a_wrong_length_are_not_published() {
    let server = Server::start().await;
    let head = |length: &str| [head("POST", "/events/t"), field("content-length", length)].concat();
    for (length, body, expected) in [
        ("3", "abc", Answered(201)),
        ("3", "ab", Reset(PROTOCOL_ERROR)),
        ("3", "abcd", Reset(PROTOCOL_ERROR)),
        ("18446744073709551616", "abc", Reset(PROTOCOL_ERROR)),
        ("3, 3", "abc", Reset(PROTOCOL_ERROR)),
    ] {
        let mut attacker = Attacker::start(&server).await;
        attacker.send(&frame(HEADERS, END_HEADERS, 1, &head(length))).await;
        attacker.send(&frame(DATA, END_STREAM, 1, body.as_bytes())).await;
        assert_eq!(attacker.outcome(1).await, expected, "{length} {body}");
    }
    assert_eq!(server.metric("waterclock_events_published_total").await, 1);
    assert_recovered(&server).await;
}

#[tokio::test]
async fn a_thousand_connections_without_requests_time_out() {
    let timeouts =
        Timeouts { head: Duration::from_secs(1), idle: SHORT, write: SHORT, ..Timeouts::default() };
    let server = Server::with_timeouts(timeouts).await;
    let mut silent = Vec::new();
    for number in 0..1000 {
        let mut socket = server.connect().await;
        // Every fourth client sends half of the preface.
        let length = if number % 4 == 0 { 12 } else { usize::MAX };
        socket.write_all(preface().get(..length).unwrap_or(&preface())).await.unwrap();
        silent.push(socket);
    }
    server.assert_serves("clock").await;
    server.wait_for_metric(&timeout_metric("head"), |value| value == 1000).await;
    assert_recovered(&server).await;
    for socket in silent {
        // The server sends its settings and a GOAWAY.
        read_until_closed(socket).await;
    }
}

#[tokio::test]
async fn a_preface_may_arrive_in_pieces() {
    let server = Server::start().await;
    let request = [preface(), get(1, "/health/live")].concat();
    for first in [3, 10, 23, 24, 25, 33, 40] {
        let mut socket = server.connect().await;
        socket.set_nodelay(true).unwrap();
        socket.write_all(&request[..first]).await.unwrap();
        server.assert_serves("clock").await;
        let mut attacker = Attacker { socket, unread: Vec::new() };
        for byte in &request[first..] {
            attacker.send(&[*byte]).await;
        }
        assert_eq!(attacker.outcome(1).await, Answered(200), "{first}");
    }
    // A shorter beginning cannot be distinguished from HTTP/1.1.
    let mut socket = server.connect().await;
    socket.write_all(b"P").await.unwrap();
    server.assert_serves("clock").await;
    socket.write_all(&request[1..]).await.unwrap();
    let mut response = Vec::new();
    tokio::time::timeout(DEADLINE, socket.read_to_end(&mut response)).await.unwrap().unwrap();
    assert!(response.is_empty(), "{response:?}");

    let mut socket = server.connect().await;
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await.unwrap();
    let response = read_until_closed(socket).await;
    assert!(response.starts_with(b"HTTP/1.1 400 "), "{response:?}");
    assert_recovered(&server).await;
}

#[tokio::test]
async fn a_client_that_acknowledges_nothing_times_out() {
    let timeouts = Timeouts { ping: SHORT, silence: SHORT, ..Timeouts::default() };
    let server = Server::with_timeouts(timeouts).await;
    let mut attacker = Attacker::start(&server).await;
    attacker.send(&get(1, "/events")).await;
    while let Some(frame) = attacker.next().await {
        assert!(frame.kind != GOAWAY || frame.error_code() == 0);
    }
    let timed_out = &timeout_metric("ping");
    server.wait_for_metric(timed_out, |value| value == 1).await;
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn a_tls_client_that_only_negotiates_http_2_is_closed() {
    let timeouts = Timeouts { head: SHORT, idle: SHORT, write: SHORT, ..Timeouts::default() };
    let (server, tls, _folder) = tls::start_server(timeouts).await;
    let preface = preface();
    let http_1_request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bytes in [&b""[..], &preface[..12], &preface, http_1_request] {
        let mut socket = tls::connect(&server, tls.file(), &["h2"]).await;
        socket.write_all(bytes).await.unwrap();
        let rest = read_until_closed(socket).await;
        // The server sends only its settings and a GOAWAY.
        assert!(rest.len() < 200, "{rest:?}");
    }
}

#[tokio::test]
async fn a_thousand_unfinished_bodies_block_only_their_connection() {
    let server = Server::start().await;
    let mut attacker = Attacker::start(&server).await;
    let bodies: Vec<_> = streams(1000)
        .flat_map(|stream| {
            let head = frame(HEADERS, END_HEADERS, stream, &head("POST", "/events/t"));
            [head, frame(DATA, 0, stream, &[b'x'; 60])].concat()
        })
        .collect();
    attacker.send(&bodies).await;
    attacker.flush().await;
    server.assert_serves("clock").await;
    attacker.send(&get(2001, "/events")).await;
    assert_eq!(attacker.outcome(2001).await, Reset(REFUSED_STREAM));
    // The first body is complete now, so its stream makes room.
    attacker.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(attacker.outcome(1).await, Answered(201));
    attacker.send(&get(2003, "/health/live")).await;
    assert_eq!(attacker.outcome(2003).await, Answered(200));
    drop(attacker);
    assert_recovered(&server).await;
}

//! Attacks over HTTP/2, frame by frame: the server lets go of who breaks the rules, what it does for who
//! does not is bounded, and others are served meanwhile.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use server::serve::TimeOuts;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::TcpStream,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    bad_days::serves,
    frames::{
        CONTINUATION, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM,
        SETTINGS, field, frame, get, head, preface, setting, string,
    },
    support::{DEADLINE, Server, Settings},
    tls,
};

const SHORT: Duration = Duration::from_millis(50);

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// The flag of a PING or of SETTINGS that answers one.
const ACK: u8 = 1;

// Why a stream or a connection ends (RFC 9113, 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

const REFUSED: &str = "waterclock_refused_total{reason=\"http2\"}";

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// Why it ends its stream (`RST_STREAM`) or the connection (`GOAWAY`).
    fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of an answer, which is the first in its head.
    fn status(&self) -> u16 {
        if let indexed @ 0x88..=0x8e = self.payload[0] {
            return [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)];
        }
        // As text, in Huffman's code: 0 to 2 have five bits, the others six (RFC 7541, B).
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

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// With that status.
    Answered(u16),
    /// The request's stream is reset, for that reason.
    Reset(u32),
    /// The connection ends, for that reason.
    GoAway(u32),
}

use Outcome::{Answered, GoAway, Reset};

struct Attacker<S = TcpStream> {
    socket: S,
    /// What was read and not yet taken.
    bytes: Vec<u8>,
}

impl Attacker {
    async fn start(server: &Server) -> Self {
        Self::over(server.connect().await).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Attacker<S> {
    async fn over(socket: S) -> Self {
        let mut attacker = Self { socket, bytes: Vec::new() };
        attacker.send(&preface()).await;
        attacker
    }

    async fn send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(DEADLINE, self.socket.write_all(bytes)).await;
        sent.expect("the server reads").unwrap();
    }

    /// The next frame; none at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((start, rest)) = self.bytes.split_at_checked(9) {
                let length = u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize;
                if let Some((payload, rest)) = rest.split_at_checked(length) {
                    let frame = Frame {
                        kind: start[3],
                        stream: u32::from_be_bytes(start[5..].try_into().unwrap()),
                        payload: payload.to_vec(),
                    };
                    self.bytes = rest.to_vec();
                    return Some(frame);
                }
            }
            let read = self.socket.read_buf(&mut self.bytes);
            let read = tokio::time::timeout(DEADLINE, read).await.expect("more frames");
            // The server may reset what it has closed.
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next frame of that kind.
    async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("not the end");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits until all that was sent before has been read.
    async fn is_heard(&mut self) {
        self.send(&frame(PING, 0, 0, b"heard???")).await;
        while self.next_of(PING).await.payload != b"heard???" {}
    }

    /// What becomes of a request on that stream.
    async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let frame = self.next().await.expect("an outcome");
            match frame.kind {
                GOAWAY => return GoAway(frame.reason()),
                RST_STREAM if frame.stream == stream => return Reset(frame.reason()),
                HEADERS if frame.stream == stream => return Answered(frame.status()),
                _ => {}
            }
        }
    }

    /// Sends that as far as the server takes it, and reads until it has closed the connection: why it has,
    /// and all the other frames.
    async fn until_let_go(mut self, bytes: &[u8]) -> (u32, Vec<Frame>) {
        let (read, mut write) = split(self.socket);
        let mut reader =
            Attacker { socket: tokio::io::join(read, tokio::io::sink()), bytes: Vec::new() };
        std::mem::swap(&mut reader.bytes, &mut self.bytes);
        let reading = async {
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().await {
                frames.push(frame);
            }
            frames
        };
        let (_, mut frames) = tokio::join!(write.write_all(bytes), reading);
        let at = frames.iter().rposition(|frame| frame.kind == GOAWAY).expect("a reason");
        (frames.remove(at).reason(), frames)
    }
}

/// What is there of a server that no attack has left a trace in.
async fn is_as_before(server: &Server) {
    server.until_streams(0).await;
    // The one that asks.
    server.until_metric("waterclock_connections_open", |value| value == 1).await;
    serves(server).await;
}

/// The numbers of so many streams of a client.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(count as usize)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

#[tokio::test]
async fn streams_that_are_reset_as_fast_as_they_are_opened() {
    let server = Server::start(Settings::default()).await;
    let (tls_server, tls, _folder) = tls::start(TimeOuts::default()).await;
    let attack: Vec<_> = streams(20_000)
        .flat_map(|stream| [get(stream, "/events"), reset(stream)])
        .flatten()
        .collect();
    let attacker = Attacker::start(&server).await;
    let ((reason, _), ()) = tokio::join!(attacker.until_let_go(&attack), serves(&server));
    assert_eq!(reason, ENHANCE_YOUR_CALM);
    server.until_metric(REFUSED, |value| value == 1).await;
    is_as_before(&server).await;

    let socket = tls::connect(&tls_server, tls.file(), &["h2"]).await;
    let (reason, _) = Attacker::over(socket).await.until_let_go(&attack).await;
    assert_eq!(reason, ENHANCE_YOUR_CALM);
    tls_server.until_streams(0).await;
}

#[tokio::test]
async fn streams_that_are_reset_once_they_are_answered() {
    let server = Server::start(Settings::default()).await;
    let mut attacker = Attacker::start(&server).await;
    let mut numbers = streams(2000);
    for _ in 0..20 {
        let numbers: Vec<_> = numbers.by_ref().take(100).collect();
        let requests: Vec<_> = numbers.iter().flat_map(|&stream| get(stream, "/events")).collect();
        attacker.send(&requests).await;
        for _ in &numbers {
            assert_eq!(attacker.next_of(HEADERS).await.status(), 200);
        }
        let resets: Vec<_> = numbers.iter().flat_map(|&stream| reset(stream)).collect();
        attacker.send(&resets).await;
    }
    serves(&server).await;
    server.until_streams(0).await;
    assert_eq!(server.metric("waterclock_streams_total").await, 2001);
    attacker.is_heard().await;
    drop(attacker);
    is_as_before(&server).await;
}

#[tokio::test]
async fn a_thousand_streams_without_a_window_and_then_too_many() {
    for window in [0, 1] {
        let server = Server::start(Settings::default()).await;
        let mut attacker = Attacker::start(&server).await;
        let windows = setting(INITIAL_WINDOW_SIZE, window);
        attacker.send(&frame(SETTINGS, 0, 0, &windows)).await;
        let requests: Vec<_> = streams(1000).flat_map(|stream| get(stream, "/events")).collect();
        attacker.send(&requests).await;
        server.until_streams(1000).await;
        for _ in 0..20 {
            server.publish(&"x".repeat(60_000)).await;
        }
        serves(&server).await;
        attacker.send(&get(2001, "/events")).await;
        assert_eq!(attacker.outcome(2001).await, Reset(REFUSED_STREAM));
        let more: Vec<_> =
            streams(3000).skip(1001).flat_map(|stream| get(stream, "/events")).collect();
        let (reason, frames) = attacker.until_let_go(&more).await;
        assert_eq!(reason, ENHANCE_YOUR_CALM, "who does not hear what it is told");
        let data = frames.iter().filter(|frame| frame.kind == DATA);
        assert!(data.map(|frame| frame.payload.len()).sum::<usize>() <= 1000 * window as usize);
        server.until_metric(REFUSED, |value| value == 1).await;
        is_as_before(&server).await;
    }
}

/// What is sent on a stream of that number.
type Frames = Box<dyn Fn(u32) -> Vec<u8>>;

#[tokio::test]
async fn a_server_that_is_made_to_reset_streams() {
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
    let upper = |stream| {
        let head = [head("GET", "/events"), field("connection", "close")].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
    };
    let attacks: [(&str, Frames, Frames, u32); 8] = [
        ("a window of 0", Box::new(get), Box::new(window(0)), PROTOCOL_ERROR),
        ("a window too large", Box::new(get), Box::new(window(0x7fff_ffff)), ENHANCE_YOUR_CALM),
        ("data after the end", Box::new(get), Box::new(data(1)), PROTOCOL_ERROR),
        ("more data than it says", Box::new(post), Box::new(data(2)), ENHANCE_YOUR_CALM),
        ("a head after the end", Box::new(get), Box::new(get), PROTOCOL_ERROR),
        ("a stream that waits for itself", Box::new(get), Box::new(on_itself), ENHANCE_YOUR_CALM),
        ("a head that may not be", Box::new(upper), Box::new(nothing), ENHANCE_YOUR_CALM),
        ("a reset of none", Box::new(nothing), Box::new(reset), PROTOCOL_ERROR),
    ];
    let server = Server::start(Settings::default()).await;
    for ((name, open, provoke, expected), count) in attacks.into_iter().zip(1..) {
        let attack: Vec<_> =
            streams(3000).flat_map(|stream| [open(stream), provoke(stream)]).flatten().collect();
        let attacker = Attacker::start(&server).await;
        let ((reason, frames), ()) = tokio::join!(attacker.until_let_go(&attack), serves(&server));
        let resets = frames.iter().filter(|frame| frame.kind == RST_STREAM).count();
        assert_eq!(reason, expected, "{name}");
        assert!(resets <= 1024, "{name}: {resets}");
        server.until_metric(REFUSED, |value| value == count).await;
    }
    is_as_before(&server).await;
}

/// Sends a request, and then that again and again as fast as the system takes it, from a thread of its own.
/// Whether the server has cut it off; it ends as well once that is set.
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
        // Sooner or later, even if it holds up the one who waits for it.
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
async fn a_flood_that_needs_no_answer_holds_up_nobody() {
    for frame in [
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(0xfa, 0, 1, b"of no known kind"),
        frame(PING, ACK, 0, b"unasked!"),
        frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()),
    ] {
        let server = Server::start(Settings::default()).await;
        let (flood, is_enough) = flood(&server, &frame).await;
        serves(&server).await;
        assert!(!flood.is_finished(), "{frame:?}: others are served only after it");
        is_enough.store(true, Ordering::Relaxed);
        assert!(!flood.await.unwrap(), "{frame:?}: it breaks no rule");
        is_as_before(&server).await;
    }
}

#[tokio::test]
async fn who_floods_and_asks_for_nothing_is_idle() {
    let time_outs = TimeOuts { head: SHORT, write: SHORT, ..TimeOuts::default() };
    let server = Server::start(Settings { time_outs, ..Settings::default() }).await;
    let (flood, _) = flood(&server, &frame(PRIORITY, 0, 1, &[0; 5])).await;
    let idle = "waterclock_connections_timed_out_total{reason=\"idle\"}";
    server.until_metric(idle, |value| value == 1).await;
    assert!(flood.await.unwrap(), "it is cut off");
    is_as_before(&server).await;
}

#[tokio::test]
async fn a_flood_whose_answers_are_not_read() {
    let time_outs = TimeOuts { silence: SHORT, ..TimeOuts::default() };
    let server = Server::start(Settings { time_outs, ..Settings::default() }).await;
    // Of that length both, so that either may be first.
    let time_outs = ["ping", "write"]
        .map(|reason| format!("waterclock_connections_timed_out_total{{reason=\"{reason}\"}}"));
    let floods = [frame(PING, 0, 0, b"answer!!"), frame(SETTINGS, 0, 0, &setting(1, 4096))];
    for (flood, count) in floods.into_iter().zip(1..) {
        let flood = flood.repeat(5000);
        let mut attacker = Attacker::start(&server).await;
        let flooding = async {
            // It is not bounded by itself: a hundred megabytes are more than any buffers have.
            for _ in 0..1000 {
                if attacker.socket.write_all(&flood).await.is_err() {
                    return;
                }
            }
            panic!("the server reads on");
        };
        let flooding = tokio::time::timeout(DEADLINE, flooding);
        let (cut_off, ()) = tokio::join!(flooding, serves(&server));
        cut_off.expect("cut off");
        let counted = async {
            while server.metric(&time_outs[0]).await + server.metric(&time_outs[1]).await < count {}
        };
        tokio::time::timeout(DEADLINE, counted).await.expect("counted");
    }
    is_as_before(&server).await;
}

#[tokio::test]
async fn floods_that_are_against_the_rules() {
    let post = frame(HEADERS, END_HEADERS, 1, &head("POST", "/events/t"));
    let begun = frame(HEADERS, END_STREAM, 1, &head("GET", "/events"));
    let server = Server::start(Settings::default()).await;
    for (name, begin, flood, expected) in [
        ("empty data", &post, frame(DATA, 0, 1, b""), ENHANCE_YOUR_CALM),
        ("empty padding", &post, frame(DATA, 8, 1, &[0]), ENHANCE_YOUR_CALM),
        ("heads that go on", &begun, frame(CONTINUATION, 0, 1, b""), ENHANCE_YOUR_CALM),
        (
            "large heads that go on",
            &begun,
            frame(CONTINUATION, 0, 1, &field("x", &"x".repeat(16_000))),
            ENHANCE_YOUR_CALM,
        ),
        (
            "heads of one field that goes on",
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
        let ((reason, _), ()) = tokio::join!(attacker.until_let_go(&attack), serves(&server));
        assert_eq!(reason, expected, "{name}");
    }
    server.until_metric(REFUSED, |value| value == 8).await;
    is_as_before(&server).await;
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let server = Server::start(Settings::default()).await;
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
    // An entry of the table (RFC 7541, 6.2.1), and so many fields that are that one, number 62 (6.1).
    let entry = [&[0x40][..], &string("x"), &string(&"x".repeat(4000))].concat();
    let bomb = |count| [&entry[..], &vec![0xbe; count]].concat();
    let crumbs = |count| field("cookie", "a=b").repeat(count);
    for (name, head, expected) in [
        ("a large field", get(&x(30_000)), Answered(200)),
        ("a larger one", get(&x(33_000)), Answered(431)),
        ("a far larger one", get(&x(200_000)), GoAway(ENHANCE_YOUR_CALM)),
        ("few references", get(&bomb(6)), Answered(200)),
        ("references", get(&bomb(12)), Answered(431)),
        ("a bomb", get(&bomb(15_000)), GoAway(ENHANCE_YOUR_CALM)),
        ("crumbs", get(&crumbs(700)), Answered(200)),
        ("more crumbs", get(&crumbs(1000)), Answered(431)),
        ("too many crumbs", get(&crumbs(10_000)), GoAway(ENHANCE_YOUR_CALM)),
        (
            "a table that is larger than allowed",
            get(&[0x3f, 0xff, 0xff, 3]),
            GoAway(PROTOCOL_ERROR),
        ),
        ("an entry that is not there", get(&[0xff, 0xff, 3]), GoAway(PROTOCOL_ERROR)),
        ("a number without end", get(&[0xff; 30]), GoAway(PROTOCOL_ERROR)),
        ("half a field", get(&[0, 5, b'x']), GoAway(PROTOCOL_ERROR)),
    ] {
        let mut attacker = Attacker::start(&server).await;
        attacker.send(&head(1)).await;
        let outcome = attacker.outcome(1).await;
        assert_eq!(outcome, expected, "{name}");
        if let Answered(_) = outcome {
            // The next one is understood.
            attacker.send(&head(3)).await;
            assert_eq!(attacker.next_of(HEADERS).await.stream, 3, "{name}");
            attacker.is_heard().await;
        }
    }
    is_as_before(&server).await;
}

/// What becomes of a request with these fields, and no others.
async fn outcome(server: &Server, fields: &[(&str, &str)]) -> Outcome {
    let head: Vec<_> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let mut attacker = Attacker::start(server).await;
    attacker.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    attacker.outcome(1).await
}

#[tokio::test]
async fn who_is_local_is_not_said_twice() {
    let server = Server::start(Settings::default()).await;
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
    is_as_before(&server).await;
}

#[tokio::test]
async fn heads_that_http_1_would_read_otherwise() {
    let server = Server::start(Settings::default()).await;
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
    is_as_before(&server).await;
}

#[tokio::test]
async fn bodies_that_are_not_as_long_as_they_say() {
    let server = Server::start(Settings::default()).await;
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
    is_as_before(&server).await;
}

#[tokio::test]
async fn a_thousand_connections_that_only_begin() {
    let time_outs = TimeOuts { head: Duration::from_secs(1), write: SHORT, ..TimeOuts::default() };
    let server = Server::start(Settings { time_outs, ..Settings::default() }).await;
    let mut silent = Vec::new();
    for number in 0..1000 {
        let mut socket = server.connect().await;
        // Some of them half of the preface.
        let length = if number % 4 == 0 { 12 } else { usize::MAX };
        socket.write_all(preface().get(..length).unwrap_or(&preface())).await.unwrap();
        silent.push(socket);
    }
    serves(&server).await;
    let time_out = "waterclock_connections_timed_out_total{reason=\"head\"}";
    server.until_metric(time_out, |value| value == 1000).await;
    is_as_before(&server).await;
    for mut socket in silent {
        // The server's settings, and its farewell.
        let _ = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut Vec::new())).await.unwrap();
    }
}

#[tokio::test]
async fn a_preface_in_pieces() {
    let server = Server::start(Settings::default()).await;
    let request = [preface(), get(1, "/health/live")].concat();
    for first in [3, 10, 23, 24, 25, 33, 40] {
        let mut socket = server.connect().await;
        socket.set_nodelay(true).unwrap();
        socket.write_all(&request[..first]).await.unwrap();
        serves(&server).await;
        let mut attacker = Attacker { socket, bytes: Vec::new() };
        for byte in &request[first..] {
            attacker.send(&[*byte]).await;
        }
        assert_eq!(attacker.outcome(1).await, Answered(200), "{first}");
    }
    // By less than that, it is not told from HTTP/1.1.
    let mut socket = server.connect().await;
    socket.write_all(b"P").await.unwrap();
    serves(&server).await;
    socket.write_all(&request[1..]).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.is_empty(), "{answer:?}");

    let mut socket = server.connect().await;
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    is_as_before(&server).await;
}

#[tokio::test]
async fn one_that_never_acknowledges_anything() {
    let time_outs = TimeOuts { ping: SHORT, silence: SHORT, ..TimeOuts::default() };
    let server = Server::start(Settings { time_outs, ..Settings::default() }).await;
    let mut attacker = Attacker::start(&server).await;
    attacker.send(&get(1, "/events")).await;
    while let Some(frame) = attacker.next().await {
        assert!(frame.kind != GOAWAY || frame.reason() == 0);
    }
    let time_out = "waterclock_connections_timed_out_total{reason=\"ping\"}";
    server.until_metric(time_out, |value| value == 1).await;
    server.until_streams(0).await;
}

#[tokio::test]
async fn over_tls_one_that_only_says_that_it_speaks_http_2() {
    let time_outs = TimeOuts { head: SHORT, write: SHORT, ..TimeOuts::default() };
    let (server, tls, _folder) = tls::start(time_outs).await;
    let preface = preface();
    let of_http_1 = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for said in [&b""[..], &preface[..12], &preface, of_http_1] {
        let mut socket = tls::connect(&server, tls.file(), &["h2"]).await;
        socket.write_all(said).await.unwrap();
        let mut rest = Vec::new();
        let closed = socket.read_to_end(&mut rest);
        let _ = tokio::time::timeout(DEADLINE, closed).await.expect("closed by the server");
        // No more than the server's settings and its farewell.
        assert!(rest.len() < 200, "{rest:?}");
    }
}

#[tokio::test]
async fn a_thousand_bodies_that_begin_and_do_not_end() {
    let server = Server::start(Settings::default()).await;
    let mut attacker = Attacker::start(&server).await;
    let bodies: Vec<_> = streams(1000)
        .flat_map(|stream| {
            let head = frame(HEADERS, END_HEADERS, stream, &head("POST", "/events/t"));
            [head, frame(DATA, 0, stream, &[b'x'; 60])].concat()
        })
        .collect();
    attacker.send(&bodies).await;
    attacker.is_heard().await;
    serves(&server).await;
    attacker.send(&get(2001, "/events")).await;
    assert_eq!(attacker.outcome(2001).await, Reset(REFUSED_STREAM));
    // That one is complete, and makes room.
    attacker.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(attacker.outcome(1).await, Answered(201));
    attacker.send(&get(2003, "/health/live")).await;
    assert_eq!(attacker.outcome(2003).await, Answered(200));
    drop(attacker);
    is_as_before(&server).await;
}

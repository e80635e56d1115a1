//! Who means harm over HTTP/1.1: clients that are slow on purpose, requests that two readers read in two ways,
//! names and pages that pretend to be of this machine. Each is let go or refused, is counted, and has
//! published nothing; the server serves on.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use server::{access::Access, serve::TimeOuts};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, split},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::support::{DEADLINE, Server, Settings};

const SHORT: Duration = Duration::from_millis(100);
/// What a slow client lets pass between two bytes: less than any time-out.
const BETWEEN_BYTES: Duration = Duration::from_millis(1);

async fn start() -> Server {
    Server::start(Settings::default()).await
}

async fn with(time_outs: TimeOuts) -> Server {
    Server::start(Settings { time_outs, ..Settings::default() }).await
}

/// The topics of all events that were published.
async fn published(server: &Server) -> Vec<String> {
    let answer = server.get("/poll?topic=%3E&last_event_id=earliest").await.rest().await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|event| event["topic"].as_str().unwrap().to_owned()).collect()
}

/// All that comes until the server closes the connection, or resets it.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("closed by the server");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All that the server answers to those bytes, after which the client sends no more. The last request needs a
/// body: a client that ends after one without counts as gone.
async fn answers(server: &Server, bytes: &[u8]) -> String {
    let (mut reads, mut writes) = split(server.connect().await);
    let write = async {
        // The server may have seen enough before the end.
        let _ = writes.write_all(bytes).await;
        let _ = writes.shutdown().await;
    };
    tokio::join!(until_closed(&mut reads), write).0
}

/// The statuses of several answers.
fn statuses(answers: &str) -> Vec<u16> {
    let after = answers.match_indices("HTTP/1.1 ").map(|(at, found)| &answers[at + found.len()..]);
    after.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// Sends that, and its last byte again each millisecond, until the server closes the connection; what it said.
async fn trickle(mut stream: TcpStream, begin: String) -> String {
    stream.write_all(begin.as_bytes()).await.unwrap();
    let (mut reads, mut writes) = stream.split();
    let mut ticks = interval(BETWEEN_BYTES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let write = async {
        loop {
            ticks.tick().await;
            if writes.write_all(&begin.as_bytes()[begin.len() - 1..]).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        said = until_closed(&mut reads) => said,
        () = write => unreachable!("it never ends"),
    }
}

fn timed_out(reason: &str) -> String {
    format!("waterclock_connections_timed_out_total{{reason=\"{reason}\"}}")
}

fn refused(reason: &str) -> String {
    format!("waterclock_refused_total{{reason=\"{reason}\"}}")
}

async fn serves(server: &Server) {
    let asked = Instant::now();
    let mut answer = server.get("/events?topic=others").await;
    assert_eq!(answer.message().await.name, "hello");
    server.publish_to("others", "x").await;
    assert_eq!(answer.message().await.data, "x");
    assert!(asked.elapsed() < Duration::from_secs(5), "served promptly: {:?}", asked.elapsed());
}

const POST: &str = "POST /events/slow HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn a_head_of_a_byte_at_a_time_has_no_more_time_than_another() {
    let server = with(TimeOuts { head: SHORT, ..TimeOuts::default() }).await;
    let mut slow = JoinSet::new();
    for begin in ["G", "GET /events", "GET /events HTTP/1.1\r\nHost: localhost\r\nX: y"] {
        for _ in 0..30 {
            slow.spawn(trickle(server.connect().await, begin.to_owned()));
        }
    }
    serves(&server).await;
    assert_eq!(slow.join_all().await, [""; 90]);
    server.until_metric(&timed_out("head"), |value| value == 90).await;
}

#[tokio::test]
async fn a_second_head_of_a_byte_at_a_time_has_no_more_time_either() {
    let server = with(TimeOuts { head: SHORT, ..TimeOuts::default() }).await;
    let begin = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /x".to_owned();
    assert_eq!(statuses(&trickle(server.connect().await, begin).await), [200]);
    server.until_metric(&timed_out("idle"), |value| value == 1).await;
}

#[tokio::test]
async fn a_body_of_a_byte_at_a_time_and_one_that_never_comes_are_408() {
    let server = with(TimeOuts { body: SHORT, ..TimeOuts::default() }).await;
    let announced = format!("{POST}Content-Length: 60000\r\n\r\n");
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    let mut slow = JoinSet::new();
    // The last is a chunk's size that begins with zeros, and has no end.
    for begin in [format!("{announced}x"), format!("{chunked}ffff\r\nx"), format!("{chunked}0")] {
        for _ in 0..20 {
            slow.spawn(trickle(server.connect().await, begin.clone()));
        }
    }
    for body in ["", "x"] {
        let mut stream = server.connect().await;
        stream.write_all(format!("{announced}{body}").as_bytes()).await.unwrap();
        slow.spawn(async move { until_closed(&mut stream).await });
    }
    serves(&server).await;
    for said in slow.join_all().await {
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(said.contains("connection: close"), "{said}");
        assert!(said.contains("did not arrive in time"), "{said}");
    }
    assert_eq!(server.metric(&timed_out("body")).await, 62);
    server.until_metric("waterclock_connections_open", |value| value == 1).await;
    assert_eq!(published(&server).await, ["others"]);
}

#[tokio::test]
async fn lines_may_be_silent_for_as_long_as_they_like() {
    let time_outs = TimeOuts {
        body: SHORT,
        head: SHORT,
        first_byte: SHORT,
        write: SHORT,
        ..TimeOuts::default()
    };
    let server = with(time_outs).await;
    let mut lines = server.connect().await;
    let head = "POST /events/build?split=lines HTTP/1.1\r\nHost: localhost\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    lines.write_all(format!("{head}5\r\na\nhal\r\n").as_bytes()).await.unwrap();
    server.until_metric("waterclock_lines_open", |value| value == 1).await;
    // Something else is given up meanwhile, several times over.
    for _ in 0..3 {
        let slow = format!("{POST}Content-Length: 2\r\n\r\nx");
        let said = answers_slowly(&server, slow.as_bytes()).await;
        assert_eq!(statuses(&said), [408]);
    }
    lines.write_all(b"2\r\nf\n\r\n0\r\n\r\n").await.unwrap();
    let said = until_closed(&mut lines).await;
    assert!(said.ends_with("{\"published\":2}"), "{said}");
    assert_eq!(server.metric("waterclock_lines_open").await, 0);
}

/// What the server answers to those bytes, after which the client is silent.
async fn answers_slowly(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    stream.write_all(bytes).await.unwrap();
    until_closed(&mut stream).await
}

#[tokio::test]
async fn what_is_announced_to_be_too_long_need_not_come() {
    let server = start().await;
    for length in [64 * 1024 + 1, 1_u64 << 40] {
        let request = format!("{POST}Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(statuses(&answers_slowly(&server, request.as_bytes()).await), [413]);
    }
    assert_eq!(server.metric(&refused("too-long")).await, 2);
    // Without having been announced, in chunks.
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let request = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(1000));
    assert_eq!(statuses(&answers(&server, request.as_bytes()).await), [413]);
    assert_eq!(server.metric(&refused("too-long")).await, 3);
    assert_eq!(published(&server).await, [""; 0]);
}

#[tokio::test]
async fn a_body_that_is_shorter_than_it_says_is_not_published() {
    let server = start().await;
    for request in [
        format!("{POST}Content-Length: 9\r\n\r\nx"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n9\r\nx"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"),
    ] {
        let said = answers(&server, request.as_bytes()).await;
        assert!(!said.contains("201 Created"), "{request:?}: {said}");
    }
    assert_eq!(published(&server).await, [""; 0]);
    assert_eq!(server.metric(&refused("malformed")).await, 0, "a client that is gone is no attack");
}

#[tokio::test]
async fn a_thousand_half_open_connections_are_each_given_up_for_what_does_not_come() {
    let time = Duration::from_secs(1);
    let time_outs =
        TimeOuts { first_byte: time, head: time, body: time, write: time, ..TimeOuts::default() };
    let server = with(time_outs).await;
    // More than fits into what is kept for a client that does not read.
    let data = "x".repeat(60_000);
    for _ in 0..100 {
        server.publish_to("long", &data).await;
    }
    let body = format!("{POST}Content-Length: 2\r\n\r\nx");
    let stuck = "GET /events?topic=long&last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut connections = Vec::new();
    for (count, bytes) in
        [(400, ""), (400, "GET /events HTTP/1.1\r\nHost: loc"), (150, &*body), (50, stuck)]
    {
        for _ in 0..count {
            let mut stream = server.connect().await;
            stream.write_all(bytes.as_bytes()).await.unwrap();
            connections.push(stream);
        }
    }
    serves(&server).await;
    for (reason, count) in [("first-byte", 400), ("head", 400), ("body", 150), ("write", 50)] {
        server.until_metric(&timed_out(reason), |value| value == count).await;
    }
    drop(connections);
    server.until_metric("waterclock_connections_open", |value| value == 1).await;
    serves(&server).await;
}

/// A request that publishes, should somebody take it for one.
const HIDDEN: &str =
    "POST /events/hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";

/// Each is sent with those header lines, and that body; it is answered with one of those statuses, once, and
/// publishes those topics.
async fn check(cases: &[(&str, &str, u16)]) {
    for (headers, body, status) in cases {
        let server = start().await;
        let head = format!("POST /events/seen HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");
        let said = answers(&server, format!("{head}{body}").as_bytes()).await;
        assert_eq!(statuses(&said), [*status], "{headers:?} {body:.99?}: {said}");
        let expected: &[&str] = if *status == 201 { &["seen"] } else { &[] };
        assert_eq!(published(&server).await, expected, "{headers:?} {body:.99?}");
        let is_malformed = [400, 501].contains(status);
        // The connection may be counted a moment after the answer is there.
        server.until_metric(&refused("malformed"), |value| value == u64::from(is_malformed)).await;
    }
}

#[tokio::test]
async fn two_lengths_of_a_body_are_never_two_requests() {
    let whole = format!("0\r\n\r\n{HIDDEN}");
    let in_chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let all = format!("Content-Length: {}\r\nTransfer-Encoding: chunked", whole.len());
    let other_order = format!("Transfer-Encoding: chunked\r\nContent-Length: {}", whole.len());
    let twice = format!("Content-Length: {0}\r\nContent-Length: {0}", HIDDEN.len());
    check(&[
        // The coding counts, and nothing after such a request (RFC 9112, 6.3).
        (&all, &whole, 201),
        (&other_order, &whole, 201),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked", &in_chunk, 201),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", &in_chunk, 201),
        ("Transfer-Encoding: chunked\r\nContent-Length: nonsense", &in_chunk, 201),
        // The same length twice is that length.
        (&twice, HIDDEN, 201),
        ("Content-Length: 0\r\nContent-Length: 5", HIDDEN, 400),
        ("Content-Length: 5\r\nContent-Length: 0", HIDDEN, 400),
        ("Content-Length: 5, 5", HIDDEN, 400),
        ("Content-Length: 1\r\nContent-Length:", HIDDEN, 400),
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_length_is_400() {
    for length in [
        "",
        "-1",
        "+1",
        "0x1",
        "1 1",
        "1;",
        "1.0",
        "1e0",
        "\"1\"",
        "\u{661}",
        "18446744073709551616",
        "18446744073709551617",
        "99999999999999999999999",
    ] {
        check(&[(&format!("Content-Length: {length}"), HIDDEN, 400)]).await;
    }
    // Which hyper cannot count in.
    let server = start().await;
    let longest = format!("{POST}Content-Length: {}\r\n\r\n{HIDDEN}", u64::MAX);
    let said = answers(&server, longest.as_bytes()).await;
    assert_eq!(statuses(&said).len(), 1, "{said}");
    assert_eq!(published(&server).await, [""; 0]);
}

#[tokio::test]
async fn only_chunked_is_a_coding() {
    let body = format!("0\r\n\r\n{HIDDEN}");
    for (coding, status) in [
        ("xchunked", 400),
        ("identity", 400),
        ("chunked, identity", 400),
        ("chunked;a=b", 400),
        ("\"chunked\"", 400),
        ("", 400),
        ("\u{b}chunked", 400),
        ("chunked\0", 400),
        ("chunked\r\nTransfer-Encoding: identity", 400),
        ("identity, chunked", 501),
        ("gzip, chunked", 501),
        ("chunked, chunked", 501),
        (", chunked", 501),
        ("identity\r\nTransfer-Encoding: chunked", 501),
        ("chunked\r\nTransfer-Encoding: chunked", 501),
    ] {
        check(&[(&format!("Transfer-Encoding: {coding}"), &body, status)]).await;
    }
    // In HTTP/1.0 there are no codings.
    let server = start().await;
    let request = format!("POST /events/seen HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let said = answers(&server, request.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.0 400 ") || said.starts_with("HTTP/1.1 400 "), "{said}");
    assert_eq!(published(&server).await, [""; 0]);
    // Any case is the same word.
    let server = start().await;
    let request = format!("{POST}Transfer-Encoding: CHUNKED\r\nConnection: close\r\n\r\n{body}");
    assert_eq!(statuses(&answers(&server, request.as_bytes()).await), [201]);
}

#[tokio::test]
async fn lines_of_a_head_are_read_in_one_way() {
    let body = format!("0\r\n\r\n{HIDDEN}");
    check(&[
        // A name and its colon belong together; a line does not go on in the next (RFC 9112, 5.1 and 5.2).
        ("Transfer-Encoding : chunked", &body, 400),
        ("Content-Length : 1", HIDDEN, 400),
        ("X: y\r\n Transfer-Encoding: chunked", &body, 400),
        ("Transfer-Encoding:\r\n chunked", &body, 400),
        ("Content-Length: 1\r\n\t0", HIDDEN, 400),
        (" X: y", HIDDEN, 400),
        // CR alone ends nothing (RFC 9112, 2.2).
        ("X: y\rTransfer-Encoding: chunked", &body, 400),
        ("Content-Length: 1\r", HIDDEN, 400),
        ("X: y\0z", HIDDEN, 400),
        ("X\0: y", HIDDEN, 400),
        ("X\u{e9}: y", HIDDEN, 400),
        ("Content-\u{212a}ength: 1", HIDDEN, 400),
        (": y", HIDDEN, 400),
        ("no colon", HIDDEN, 400),
    ])
    .await;
    // LF alone ends a line wherever it stands.
    let server = start().await;
    let request = "POST /events/seen HTTP/1.1\nHost: localhost\nX: y\nContent-Length: 1\nConnection: close\n\nx";
    assert_eq!(statuses(&answers(&server, request.as_bytes()).await), [201]);
    assert_eq!(published(&server).await, ["seen"]);
}

#[tokio::test]
async fn what_is_no_chunk_is_400_and_the_rest_is_no_request() {
    let long = "x".repeat(20_000);
    for chunks in [
        "-1\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "\r\n",
        "g\r\n",
        "1 1\r\nx\r\n0\r\n\r\n",
        // As numbers of 64 bits they would be 0 and 1.
        "10000000000000000\r\n\r\n",
        "10000000000000001\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        // Ends that only some take for one.
        "1\nx\r\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "1;a\nx\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1\r\nxx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        &format!("1;{long}\r\nx\r\n0\r\n\r\n"),
        &format!("1\r\nx\r\n0\r\nX: {long}\r\n\r\n"),
        &format!("1\r\nx\r\n0\r\n{}\r\n", "X: y\r\n".repeat(3000)),
    ] {
        check(&[("Transfer-Encoding: chunked", &format!("{chunks}{HIDDEN}"), 400)]).await;
    }
    // What stands after the last chunk changes nothing that stood before.
    let trailers = "1\r\nx\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: identity\r\n\r\n";
    check(&[("Transfer-Encoding: chunked\r\nConnection: close", trailers, 201)]).await;
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_no_request() {
    for (line, status, events) in [
        ("GET /health/live", 200, 0),
        ("HEAD /events", 200, 0),
        ("DELETE /events", 405, 0),
        ("GET /ws", 426, 0),
        ("POST /events/clock", 403, 0),
        ("POST /events/a..b", 400, 0),
        ("POST /nothing", 404, 0),
        ("POST /events/seen", 201, 1),
        ("POST /events/seen?split=lines", 200, 5),
    ] {
        let server = start().await;
        let length = HIDDEN.len();
        for framing in [
            format!("Content-Length: {length}\r\n\r\n{HIDDEN}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{framing}");
            let said = answers(&server, request.as_bytes()).await;
            assert_eq!(statuses(&said), [status], "{line}: {said}");
        }
        let topics: BTreeSet<_> = published(&server).await.into_iter().collect();
        assert!(!topics.contains("hidden"), "{line}");
        assert_eq!(server.hub.newest(), 2 * events, "{line}");
    }
}

#[tokio::test]
async fn a_request_says_once_for_which_host_it_is() {
    for (hosts, status) in [
        ("", 400),
        ("Host: localhost\r\nHost: localhost\r\n", 400),
        ("Host: localhost\r\nHost: evil.test\r\n", 400),
        ("Host: evil.test\r\nHost: localhost\r\n", 400),
        ("Host: localhost\r\nhost: localhost\r\n", 400),
        ("Host:\r\n", 400),
        ("Host: :3000\r\n", 400),
        ("Host: localhost:3000@evil.test\r\n", 400),
        ("Host: evil.test@localhost:3000\r\n", 400),
        ("Host: @localhost\r\n", 400),
        ("Host: localhost evil.test\r\n", 400),
        ("Host: localhost, evil.test\r\n", 400),
        ("Host: localhost,evil.test\r\n", 400),
        ("Host: localhost/\r\n", 400),
        ("Host: http://localhost\r\n", 400),
        ("Host: localhost?\r\n", 400),
        ("Host: localhost#\r\n", 400),
        ("Host: localhost\\evil.test\r\n", 400),
        ("Host: localhost:evil.test\r\n", 400),
        ("Host: localhost:99999\r\n", 400),
        ("Host: localhost:+80\r\n", 400),
        ("Host: localhost:1:2\r\n", 400),
        ("Host: [::1\r\n", 400),
        ("Host: l\u{f6}calhost\r\n", 400),
        ("Host : localhost\r\n", 400),
        ("Host: localhost\r\n", 201),
    ] {
        let server = start().await;
        let request = format!("POST /events/seen HTTP/1.1\r\n{hosts}Content-Length: 1\r\n\r\nx");
        let more = HIDDEN.repeat(usize::from(status != 201));
        let said = answers(&server, format!("{request}{more}").as_bytes()).await;
        assert_eq!(statuses(&said), [status], "{hosts:?}: {said}");
        assert_eq!(server.hub.newest(), u64::from(status == 201), "{hosts:?}");
    }
}

#[tokio::test]
async fn a_target_with_a_host_counts_for_more_than_the_header() {
    let server = start().await;
    for (target, host, status) in [
        ("http://localhost/events/seen", "evil.test", 201),
        ("http://evil.test/events/seen", "localhost", 403),
        ("http://evil.test:3000/events/seen", "127.0.0.1", 403),
        ("http://localhost@evil.test/events/seen", "localhost", 400),
        ("http://evil.test@localhost/events/seen", "localhost", 400),
        ("http:///events/seen", "localhost", 400),
        ("//evil.test/events/seen", "localhost", 404),
        ("localhost:80", "localhost", 404),
        ("*", "localhost", 404),
        ("events/seen", "localhost", 400),
    ] {
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx");
        let said = answers(&server, request.as_bytes()).await;
        assert_eq!(statuses(&said), [status], "{target} {host}: {said}");
    }
    assert_eq!(published(&server).await, ["seen"]);
    let tunnel = b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(server.send(tunnel).await.status(), 404);
}

#[tokio::test]
async fn only_a_name_of_this_machine_is_local() {
    let server = start().await;
    let published_by = async |lines: &str| {
        let request = format!(
            "POST /events/t HTTP/1.1\r\n{lines}Content-Length: 1\r\nConnection: close\r\n\r\nx"
        );
        statuses(&answers(&server, request.as_bytes()).await)[0]
    };
    for host in [
        "localhost",
        "localhost:",
        "localhost:3000",
        "LocalHost",
        "localhost.",
        "localhost.:3000",
        "app.localhost",
        "127.0.0.1",
        "127.0.0.1:3000",
        "127.255.255.254",
        "127.0.0.1.",
        "[::1]",
        "[::1]:3000",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
    ] {
        assert_eq!(published_by(&format!("Host: {host}\r\n")).await, 201, "{host}");
    }
    let local = server.hub.newest();
    for host in [
        // Names that only look like ours.
        "localhost.evil.test",
        "localhost.evil.test:3000",
        "evil-localhost",
        "evillocalhost",
        "localhost..",
        ".localhost.evil.test",
        "localhost-.evil.test",
        "localhos",
        "localhost.localdomain",
        "127.0.0.1.evil.test",
        "127.0.0.1.evil",
        "127.0.0.1..",
        "%6cocalhost",
        "localhost%00.evil.test",
        // What browsers never send: they write an address as four numbers.
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "127.0.0.256",
        "127.0.0.1.1",
        "[127.0.0.1]",
        // Which reach this machine from its own browsers, but are no loopback names.
        "0.0.0.0",
        "0",
        "[::]",
        "[::ffff:0.0.0.0]",
        // Of others.
        "evil.test",
        "192.168.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[::2]",
        "[::1:1]",
        "[::ffff:192.0.2.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ] {
        let status = published_by(&format!("Host: {host}\r\n")).await;
        assert!([400, 403].contains(&status), "{host}: {status}");
    }
    for header in [
        "X-Forwarded-Host: localhost",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "Forwarded: for=127.0.0.1;host=localhost",
        "Forwarded:",
        "X-Real-IP: 127.0.0.1",
        "X-Original-Host: localhost",
        "X-Original-URL: /",
        "Via: 1.1 localhost",
    ] {
        for host in ["localhost", "evil.test"] {
            let status = published_by(&format!("Host: {host}\r\n{header}\r\n")).await;
            assert_eq!(status, 403, "{host} {header}");
        }
    }
    assert_eq!(server.hub.newest(), local);
    assert!(server.metric(&refused("foreign")).await >= 18);
}

#[tokio::test]
async fn a_page_elsewhere_publishes_and_does_nothing() {
    // Even one that may read.
    let origins = ["https://reads.test".parse().unwrap()];
    let access = Access { cors_origins: origins.into(), ..Access::default() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let meter = "a-meter-that-nobody-has-used";
    let routes = [
        "/events/t".to_owned(),
        "/events/t?split=lines".to_owned(),
        "/load?rate=1&size=1&seconds=1".to_owned(),
        format!("/meters/{meter}/cut"),
    ];
    let pages = [
        "Origin: https://evil.test",
        "Origin: http://localhost:3001",
        "Origin: http://127.0.0.1:3000",
        "Origin: https://reads.test",
        "Origin: null",
        "Origin:",
        "Origin: http://localhost:3000\r\nOrigin: https://evil.test",
        "Origin: http://localhost:3000\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate",
    ];
    // What forms and `fetch` may send without having asked (Fetch, "CORS-safelisted request-header").
    let contents =
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"];
    for route in &routes {
        for page in pages {
            for content in contents {
                let request = format!(
                    "POST {route} HTTP/1.1\r\nHost: localhost:3000\r\n{page}\r\nContent-Type: {content}\r\n\
                     Content-Length: 3\r\nConnection: close\r\n\r\na=b"
                );
                let status = statuses(&answers(&server, request.as_bytes()).await)[0];
                let expected = if route.contains("/cut") { 404 } else { 403 };
                assert_eq!(status, expected, "{route} {page}");
            }
        }
    }
    // Going somewhere opens no WebSocket.
    for page in pages.iter().filter(|page| !page.contains("navigate")) {
        let request = format!(
            "GET /ws?topic=t HTTP/1.1\r\nHost: localhost:3000\r\n{page}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let status = server.send(request.as_bytes()).await.status();
        let reads = *page == "Origin: https://reads.test";
        assert_eq!(status, if reads { 101 } else { 403 }, "{page}");
    }
    assert_eq!(server.hub.newest(), 0, "no event, no load");
    assert!(server.metric(&refused("foreign")).await > 100);
}

#[tokio::test]
async fn what_is_no_http_at_all_is_400_and_closed() {
    // Of the same random bytes each time (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut garbage: Vec<Vec<u8>> = vec![
        // The beginning of TLS, of SSH, of Redis, of a proxy's protocol.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".to_vec(),
        b"\r\n\r\n\r\n\0".to_vec(),
        b"GET /events\r\n\r\n".to_vec(),
        b"GET  /events HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /events HTTP/1.2\r\n\r\n".to_vec(),
        b"GET /events HTTP/01.1\r\n\r\n".to_vec(),
        b"GET /events http/1.1\r\n\r\n".to_vec(),
        b"GET\t/events\tHTTP/1.1\r\n\r\n".to_vec(),
        b"GET /eve\0nts HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for length in 1..100 {
        // The first byte is none that a method has.
        garbage
            .push((0..length).map(|n| random().to_be_bytes()[3] | u8::from(n == 0) << 7).collect());
    }
    let server = start().await;
    for bytes in &garbage {
        let said = answers(&server, bytes).await;
        assert_eq!(statuses(&said), [400], "{:?}", String::from_utf8_lossy(bytes));
    }
    server.until_metric(&refused("malformed"), |value| value == garbage.len() as u64).await;
    let too_long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    assert_eq!(statuses(&answers(&server, too_long.as_bytes()).await), [431]);
    let too_many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert_eq!(statuses(&answers(&server, too_many.as_bytes()).await), [431]);
    server.until_metric(&refused("too-long"), |value| value == 2).await;
    serves(&server).await;
}

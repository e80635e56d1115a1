//! Attacks over HTTP/1.1: clients that are slow on purpose, ambiguous requests, and names and pages
//! that pretend to be local. Each is refused or disconnected, is counted, and publishes nothing.
//! The server continues to serve others.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use server::{auth::Access, limits::Timeouts};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, split},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::support::{Server, Settings, read_until_closed, refusal_metric, timeout_metric};

const SHORT: Duration = Duration::from_millis(100);
/// Time between two bytes of a slow client. It is shorter than every timeout.
const BETWEEN_BYTES: Duration = Duration::from_millis(1);

/// Returns the topics of all published events.
async fn published_topics(server: &Server) -> Vec<String> {
    let response = server.get("/poll?topic=%3E&last_event_id=earliest").await.rest().await;
    let response: Value = serde_json::from_str(&response).unwrap();
    let events = response["events"].as_array().unwrap();
    events.iter().map(|event| event["topic"].as_str().unwrap().to_owned()).collect()
}

/// Reads all text until the server closes or resets the connection.
async fn text_until_closed(stream: impl AsyncRead + Unpin) -> String {
    String::from_utf8_lossy(&read_until_closed(stream).await).into_owned()
}

/// Sends bytes, ends that direction of the connection, and returns all responses.
async fn responses(server: &Server, bytes: &[u8]) -> String {
    let (mut reads, mut writes) = split(server.connect().await);
    let write = async {
        // The server may close the connection before it has read everything.
        let _ = writes.write_all(bytes).await;
        let _ = writes.shutdown().await;
    };
    tokio::join!(text_until_closed(&mut reads), write).0
}

/// Returns the statuses of several responses.
fn statuses(responses: &str) -> Vec<u16> {
    let after =
        responses.match_indices("HTTP/1.1 ").map(|(at, found)| &responses[at + found.len()..]);
    after.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// Sends `begin`, and repeats its last byte every millisecond until the server closes the
/// connection. Returns the response.
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
        text = text_until_closed(&mut reads) => text,
        () = write => unreachable!("the loop never ends"),
    }
}

/// Checks that the server serves another client without delay.
async fn assert_serves_promptly(server: &Server) {
    let started = Instant::now();
    server.assert_serves("others").await;
    assert!(started.elapsed() < Duration::from_secs(5), "promptly: {:?}", started.elapsed());
}

const POST: &str = "POST /events/slow HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn a_trickled_head_gets_no_extra_time() {
    let server =
        Server::with_timeouts(Timeouts { head: SHORT, idle: SHORT, ..Timeouts::default() }).await;
    let mut slow = JoinSet::new();
    for begin in ["G", "GET /events", "GET /events HTTP/1.1\r\nHost: localhost\r\nX: y"] {
        for _ in 0..30 {
            slow.spawn(trickle(server.connect().await, begin.to_owned()));
        }
    }
    assert_serves_promptly(&server).await;
    assert_eq!(slow.join_all().await, [""; 90]);
    server.wait_for_metric(&timeout_metric("head"), |value| value == 90).await;
}

#[tokio::test]
async fn a_trickled_second_head_gets_no_extra_time() {
    let server =
        Server::with_timeouts(Timeouts { head: SHORT, idle: SHORT, ..Timeouts::default() }).await;
    let request = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /x".to_owned();
    assert_eq!(statuses(&trickle(server.connect().await, request).await), [200]);
    server.wait_for_metric(&timeout_metric("idle"), |value| value == 1).await;
}

#[tokio::test]
async fn an_idle_connection_stays_open_for_the_time_of_keep_alive() {
    const REQUEST: &[u8] = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let idle = Duration::from_hours(1);
    let server = Server::with_timeouts(Timeouts { head: SHORT, idle, ..Timeouts::default() }).await;
    let mut persistent = server.connect().await;
    let mut response = [0; 12];
    for expected in [0, 1] {
        persistent.write_all(REQUEST).await.unwrap();
        while !response.ends_with(b"live\n") {
            response.rotate_left(1);
            let last = response.len() - 1;
            persistent.read_exact(&mut response[last..]).await.unwrap();
        }
        response.fill(0);
        // The time for a first head passes.
        let mut half = server.connect().await;
        half.write_all(b"GET /events HT").await.unwrap();
        assert_eq!(text_until_closed(half).await, "");
        server.wait_for_metric(&timeout_metric("head"), |value| value == expected + 1).await;
    }
    assert_eq!(server.metric(&timeout_metric("idle")).await, 0);

    let timeouts = Timeouts { head: idle, idle: SHORT, ..Timeouts::default() };
    let server = Server::with_timeouts(timeouts).await;
    let mut persistent = server.connect().await;
    persistent.write_all(REQUEST).await.unwrap();
    assert!(text_until_closed(persistent).await.ends_with("live\n"));
    server.wait_for_metric(&timeout_metric("idle"), |value| value == 1).await;
}

#[tokio::test]
async fn trickled_and_missing_bodies_get_408() {
    let server = Server::start_with(Settings { body_timeout: SHORT, ..Settings::default() }).await;
    let announced = format!("{POST}Content-Length: 60000\r\n\r\n");
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    let mut slow = JoinSet::new();
    // The last one repeats the zeros at the beginning of a chunk size without end.
    for begin in [format!("{announced}x"), format!("{chunked}ffff\r\nx"), format!("{chunked}0")] {
        for _ in 0..20 {
            slow.spawn(trickle(server.connect().await, begin.clone()));
        }
    }
    for body in ["", "x"] {
        let mut stream = server.connect().await;
        stream.write_all(format!("{announced}{body}").as_bytes()).await.unwrap();
        slow.spawn(text_until_closed(stream));
    }
    assert_serves_promptly(&server).await;
    for response in slow.join_all().await {
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
        assert!(response.contains("connection: close"), "{response}");
        assert!(response.contains("did not arrive in time"), "{response}");
    }
    assert_eq!(server.metric(&timeout_metric("body")).await, 62);
    server.wait_for_metric("waterclock_connections_open", |value| value == 1).await;
    assert_eq!(published_topics(&server).await, ["others"]);
}

#[tokio::test]
async fn an_upload_of_lines_may_be_silent_for_any_time() {
    let timeouts = Timeouts {
        head: SHORT,
        idle: SHORT,
        first_byte: SHORT,
        write: SHORT,
        ..Timeouts::default()
    };
    let settings = Settings { timeouts, body_timeout: SHORT, ..Settings::default() };
    let server = Server::start_with(settings).await;
    let mut lines = server.connect().await;
    let head = "POST /events/build?split=lines HTTP/1.1\r\nHost: localhost\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    lines.write_all(format!("{head}5\r\na\nhal\r\n").as_bytes()).await.unwrap();
    server.wait_for_metric("waterclock_lines_open", |value| value == 1).await;
    // Meanwhile, other bodies time out several times.
    for _ in 0..3 {
        let slow = format!("{POST}Content-Length: 2\r\n\r\nx");
        let response = responses_to_silent(&server, slow.as_bytes()).await;
        assert_eq!(statuses(&response), [408]);
    }
    lines.write_all(b"2\r\nf\n\r\n0\r\n\r\n").await.unwrap();
    let response = text_until_closed(&mut lines).await;
    assert!(response.ends_with("{\"published\":2}"), "{response}");
    assert_eq!(server.metric("waterclock_lines_open").await, 0);
}

/// Sends bytes, keeps the connection open in silence, and returns all responses.
async fn responses_to_silent(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    stream.write_all(bytes).await.unwrap();
    text_until_closed(stream).await
}

#[tokio::test]
async fn a_body_announced_as_too_long_is_refused_before_it_arrives() {
    let server = Server::start().await;
    for length in [64 * 1024 + 1, 1_u64 << 40] {
        let request = format!("{POST}Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(statuses(&responses_to_silent(&server, request.as_bytes()).await), [413]);
    }
    assert_eq!(server.metric(&refusal_metric("too-long")).await, 2);
    // A body in chunks does not announce its length.
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let request = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(1000));
    assert_eq!(statuses(&responses(&server, request.as_bytes()).await), [413]);
    assert_eq!(server.metric(&refusal_metric("too-long")).await, 3);
    assert_eq!(published_topics(&server).await, [""; 0]);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_not_published() {
    let server = Server::start().await;
    for request in [
        format!("{POST}Content-Length: 9\r\n\r\nx"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n9\r\nx"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"),
    ] {
        let response = responses(&server, request.as_bytes()).await;
        assert!(!response.contains("201 Created"), "{request:?}: {response}");
    }
    assert_eq!(published_topics(&server).await, [""; 0]);
    assert_eq!(
        server.metric(&refusal_metric("malformed")).await,
        0,
        "a client that leaves is not an attack"
    );
}

#[tokio::test]
async fn a_thousand_half_open_connections_time_out_for_their_own_reasons() {
    let time = Duration::from_secs(1);
    let timeouts =
        Timeouts { first_byte: time, head: time, idle: time, write: time, ..Timeouts::default() };
    let settings = Settings { timeouts, body_timeout: time, ..Settings::default() };
    let server = Server::start_with(settings).await;
    // More data than the buffers for a client that does not read.
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
    assert_serves_promptly(&server).await;
    for (reason, count) in [("first-byte", 400), ("head", 400), ("body", 150), ("write", 50)] {
        server.wait_for_metric(&timeout_metric(reason), |value| value == count).await;
    }
    drop(connections);
    server.wait_for_metric("waterclock_connections_open", |value| value == 1).await;
    assert_serves_promptly(&server).await;
}

/// A request that publishes if it is taken for one.
const HIDDEN: &str =
    "POST /events/hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";

/// Sends a request with header lines and a body for each case, and checks that it gets one response
/// with the expected status, that only a 201 publishes, and that a 400 or 501 counts as
/// malformed.
async fn check(cases: &[(&str, &str, u16)]) {
    for (headers, body, status) in cases {
        let server = Server::start().await;
        let head = format!("POST /events/seen HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");
        let response = responses(&server, format!("{head}{body}").as_bytes()).await;
        assert_eq!(statuses(&response), [*status], "{headers:?} {body:.99?}: {response}");
        let expected: &[&str] = if *status == 201 { &["seen"] } else { &[] };
        assert_eq!(published_topics(&server).await, expected, "{headers:?} {body:.99?}");
        let is_malformed = [400, 501].contains(status);
        // The metric may change a moment after the response has arrived.
        server
            .wait_for_metric(&refusal_metric("malformed"), |value| value == u64::from(is_malformed))
            .await;
    }
}

#[tokio::test]
async fn conflicting_body_lengths_never_make_two_requests() {
    let whole = format!("0\r\n\r\n{HIDDEN}");
    let in_chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let all = format!("Content-Length: {}\r\nTransfer-Encoding: chunked", whole.len());
    let other_order = format!("Transfer-Encoding: chunked\r\nContent-Length: {}", whole.len());
    let twice = format!("Content-Length: {0}\r\nContent-Length: {0}", HIDDEN.len());
    check(&[
        // The coding overrides the length, and the request is the last one (RFC 9112, 6.3).
        (&all, &whole, 201),
        (&other_order, &whole, 201),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked", &in_chunk, 201),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", &in_chunk, 201),
        ("Transfer-Encoding: chunked\r\nContent-Length: nonsense", &in_chunk, 201),
        // The same length may be repeated.
        (&twice, HIDDEN, 201),
        ("Content-Length: 0\r\nContent-Length: 5", HIDDEN, 400),
        ("Content-Length: 5\r\nContent-Length: 0", HIDDEN, 400),
        ("Content-Length: 5, 5", HIDDEN, 400),
        ("Content-Length: 1\r\nContent-Length:", HIDDEN, 400),
    ])
    .await;
}

#[tokio::test]
async fn an_invalid_content_length_gets_400() {
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
    // A length beyond the range of hyper.
    let server = Server::start().await;
    let longest = format!("{POST}Content-Length: {}\r\n\r\n{HIDDEN}", u64::MAX);
    let response = responses(&server, longest.as_bytes()).await;
    assert_eq!(statuses(&response).len(), 1, "{response}");
    assert_eq!(published_topics(&server).await, [""; 0]);
}

#[tokio::test]
async fn chunked_is_the_only_transfer_coding() {
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
    // HTTP/1.0 has no transfer codings.
    let server = Server::start().await;
    let request = format!("POST /events/seen HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let response = responses(&server, request.as_bytes()).await;
    assert!(
        response.starts_with("HTTP/1.0 400 ") || response.starts_with("HTTP/1.1 400 "),
        "{response}"
    );
    assert_eq!(published_topics(&server).await, [""; 0]);
    // Codings are case-insensitive.
    let server = Server::start().await;
    let request = format!("{POST}Transfer-Encoding: CHUNKED\r\nConnection: close\r\n\r\n{body}");
    assert_eq!(statuses(&responses(&server, request.as_bytes()).await), [201]);
}

#[tokio::test]
async fn a_malformed_header_line_gets_400() {
    let body = format!("0\r\n\r\n{HIDDEN}");
    check(&[
        // No space may precede a colon, and no line may be folded (RFC 9112, 5.1 and 5.2).
        ("Transfer-Encoding : chunked", &body, 400),
        ("Content-Length : 1", HIDDEN, 400),
        ("X: y\r\n Transfer-Encoding: chunked", &body, 400),
        ("Transfer-Encoding:\r\n chunked", &body, 400),
        ("Content-Length: 1\r\n\t0", HIDDEN, 400),
        (" X: y", HIDDEN, 400),
        // A CR alone does not end a line (RFC 9112, 2.2).
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
    // An LF alone ends a line.
    let server = Server::start().await;
    let request = "POST /events/seen HTTP/1.1\nHost: localhost\nX: y\nContent-Length: 1\n\
                   Connection: close\n\nx";
    assert_eq!(statuses(&responses(&server, request.as_bytes()).await), [201]);
    assert_eq!(published_topics(&server).await, ["seen"]);
}

#[tokio::test]
async fn an_invalid_chunk_gets_400_and_ends_the_connection() {
    let long = "x".repeat(20_000);
    for chunks in [
        "-1\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "\r\n",
        "g\r\n",
        "1 1\r\nx\r\n0\r\n\r\n",
        // As 64-bit numbers these would overflow to 0 and 1.
        "10000000000000000\r\n\r\n",
        "10000000000000001\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        // Line ends that only some servers accept.
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
    // Trailers change nothing in the head.
    let trailers = "1\r\nx\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: identity\r\n\r\n";
    check(&[("Transfer-Encoding: chunked\r\nConnection: close", trailers, 201)]).await;
}

#[tokio::test]
async fn an_unexpected_body_is_never_a_second_request() {
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
        ("POST /events", 415, 0),
    ] {
        let server = Server::start().await;
        let length = HIDDEN.len();
        for framing in [
            format!("Content-Length: {length}\r\n\r\n{HIDDEN}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{framing}");
            let response = responses(&server, request.as_bytes()).await;
            assert_eq!(statuses(&response), [status], "{line}: {response}");
        }
        let topics: BTreeSet<_> = published_topics(&server).await.into_iter().collect();
        assert!(!topics.contains("hidden"), "{line}");
        assert_eq!(server.hub.newest(), 2 * events, "{line}");
    }
}

#[tokio::test]
async fn a_request_must_have_exactly_one_valid_host() {
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
        let server = Server::start().await;
        let request = format!("POST /events/seen HTTP/1.1\r\n{hosts}Content-Length: 1\r\n\r\nx");
        let more = HIDDEN.repeat(usize::from(status != 201));
        let response = responses(&server, format!("{request}{more}").as_bytes()).await;
        assert_eq!(statuses(&response), [status], "{hosts:?}: {response}");
        assert_eq!(server.hub.newest(), u64::from(status == 201), "{hosts:?}");
    }
}

#[tokio::test]
async fn an_absolute_target_overrides_the_host_header() {
    let server = Server::start().await;
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
        let response = responses(&server, request.as_bytes()).await;
        assert_eq!(statuses(&response), [status], "{target} {host}: {response}");
    }
    assert_eq!(published_topics(&server).await, ["seen"]);
    let tunnel = b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(server.send(tunnel).await.status(), 404);
}

#[tokio::test]
async fn only_loopback_names_are_local() {
    let server = Server::start().await;
    let published_by = async |lines: &str| {
        let request = format!(
            "POST /events/t HTTP/1.1\r\n{lines}Content-Length: 1\r\nConnection: close\r\n\r\nx"
        );
        statuses(&responses(&server, request.as_bytes()).await)[0]
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
        // Names that only resemble loopback names.
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
        // Forms that browsers never send, since they write an address as four numbers.
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
        // Addresses that reach this machine from its own browsers, but are not loopback addresses.
        "0.0.0.0",
        "0",
        "[::]",
        "[::ffff:0.0.0.0]",
        // Names and addresses of other machines.
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
    assert!(server.metric(&refusal_metric("foreign")).await >= 18);
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_publish_or_act() {
    // One of the pages may read.
    let origins = ["https://reads.test".parse().unwrap()];
    let access = Access { cors_origins: origins.into(), ..Access::default() };
    let server = Server::with_access(access).await;
    let meter = "a-meter-that-nobody-has-used";
    let routes = [
        "/events/t".to_owned(),
        "/events/t?split=lines".to_owned(),
        "/events/t?split=events".to_owned(),
        "/events/t?split=chunks".to_owned(),
        "/events".to_owned(),
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
    // Content types that forms and `fetch` may send without a preflight (Fetch, "CORS-safelisted
    // request-header").
    let contents =
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"];
    for route in &routes {
        for page in pages {
            for content in contents {
                let request = format!(
                    "POST {route} HTTP/1.1\r\nHost: localhost:3000\r\n{page}\r\n\
                     Content-Type: {content}\r\nContent-Length: 3\r\nConnection: close\r\n\r\na=b"
                );
                let status = statuses(&responses(&server, request.as_bytes()).await)[0];
                let expected = if route.contains("/cut") { 404 } else { 403 };
                assert_eq!(status, expected, "{route} {page}");
            }
        }
    }
    // A navigation cannot open a WebSocket.
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
    assert_eq!(server.hub.newest(), 0, "no event and no load");
    assert!(server.metric(&refusal_metric("foreign")).await > 100);
}

#[tokio::test]
async fn bytes_that_are_not_http_get_400_and_a_close() {
    // xorshift yields the same random bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut garbage: Vec<Vec<u8>> = vec![
        // The beginnings of TLS, SSH, Redis and the PROXY protocol.
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
        // No method contains the first byte.
        garbage
            .push((0..length).map(|n| random().to_be_bytes()[3] | u8::from(n == 0) << 7).collect());
    }
    let server = Server::start().await;
    for bytes in &garbage {
        let response = responses(&server, bytes).await;
        assert_eq!(statuses(&response), [400], "{:?}", String::from_utf8_lossy(bytes));
    }
    server
        .wait_for_metric(&refusal_metric("malformed"), |value| value == garbage.len() as u64)
        .await;
    let too_long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    assert_eq!(statuses(&responses(&server, too_long.as_bytes()).await), [431]);
    let too_many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert_eq!(statuses(&responses(&server, too_many.as_bytes()).await), [431]);
    server.wait_for_metric(&refusal_metric("too-long"), |value| value == 2).await;
    assert_serves_promptly(&server).await;
}

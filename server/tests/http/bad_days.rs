//! Clients that do what they should not: the server lets go of them, and serves the others.

use std::time::Duration;

use server::{serve::TimeOuts, streams::StreamLimits};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{DEADLINE, Server, Settings};

const SHORT: Duration = Duration::from_millis(50);

async fn with(time_outs: TimeOuts) -> Server {
    Server::start(Settings { time_outs, ..Settings::default() }).await
}

/// All that comes until the server closes the connection, or resets it.
async fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let closed = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(DEADLINE, closed).await.expect("closed by the server");
    bytes
}

pub async fn serves(server: &Server) {
    let mut answer = server.get("/events").await;
    assert_eq!(answer.message().await.name, "hello");
    server.publish("tick").await;
    assert_eq!(answer.message().await.data, "tick");
}

#[tokio::test]
async fn a_thousand_connections_that_send_nothing() {
    // Long enough for those that do send something.
    let first_byte = Duration::from_secs(1);
    let server = with(TimeOuts { first_byte, ..TimeOuts::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(server.connect().await);
    }
    serves(&server).await;
    for stream in silent {
        assert_eq!(until_closed(stream).await, b"");
    }
    let timed_out = "waterclock_connections_timed_out_total{reason=\"first-byte\"}";
    server.until_metric(timed_out, |value| value >= 1000).await;
    // The one that asks.
    server.until_metric("waterclock_connections_open", |value| value == 1).await;
}

#[tokio::test]
async fn half_a_request_and_then_silence() {
    let server = with(TimeOuts { head: SHORT, ..TimeOuts::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: loc").await.unwrap();
    assert_eq!(until_closed(stream).await, b"");
    server
        .until_metric("waterclock_connections_timed_out_total{reason=\"head\"}", |value| value == 1)
        .await;
    serves(&server).await;
}

#[tokio::test]
async fn a_reader_that_never_reads() {
    let server = with(TimeOuts { write: SHORT, ..TimeOuts::default() }).await;
    let mut stuck = server.get("/events").await;
    stuck.message().await;
    let mut reader = server.get("/events").await;
    reader.message().await;
    let data = "x".repeat(60_000);
    let timed_out = "waterclock_connections_timed_out_total{reason=\"write\"}";
    // One is read as it comes, the other fills its buffers.
    for _ in 0..100 {
        server.publish(&data).await;
        assert_eq!(reader.message().await.data, data);
    }
    server.until_metric(timed_out, |value| value == 1).await;
    server.until_streams(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_for_long_among_a_thousand_that_do_not() {
    let server = Server::start(Settings::default()).await;
    let count = 60;
    // Without a limit, with which each event would be encoded for each of them.
    let (path, last) = ("/events", "\ndata: last\n\n");
    let stopped = server.get(path).await;
    let mut readers = JoinSet::new();
    for _ in 0..1000 {
        readers.spawn(server.get(path).await.until(last));
    }
    server.until_streams(1001).await;
    for _ in 0..count {
        server.publish(&"x".repeat(8192)).await;
    }
    server.publish("last").await;
    let events = |text: &str| text.matches("\ndata: xxx").count();
    while let Some(text) = readers.join_next().await {
        assert_eq!(events(&text.unwrap()), count);
    }
    let behind = server.metric("waterclock_streams_behind").await;
    assert_eq!(behind, 1, "it has not all in buffers");
    assert_eq!(events(&stopped.until(last).await), count);
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_a_frame() {
    let server = Server::start(Settings::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").await.unwrap();
    server.until_streams(1).await;
    server.publish(&"x".repeat(1_000_000)).await;
    let mut some = vec![0; 100_000];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    server.until_streams(0).await;
    serves(&server).await;
}

#[tokio::test]
async fn a_long_header_is_taken_and_one_that_is_too_long_is_431() {
    let server = Server::start(Settings::default()).await;
    let header = |length| {
        format!(
            "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {}\r\n\r\n",
            "x".repeat(length)
        )
    };
    assert_eq!(server.send(header(10_000).as_bytes()).await.status(), 200);
    let answer = server.send(header(100_000).as_bytes()).await;
    assert_eq!(answer.status(), 431);
    let answer = server.send(header(10_000_000).as_bytes()).await;
    assert_eq!(answer.status(), 431);
    serves(&server).await;
}

#[tokio::test]
async fn what_is_no_request_is_400() {
    let server = Server::start(Settings::default()).await;
    for nonsense in [&b"hello\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"\0\r\n\r\n"] {
        assert_eq!(server.send(nonsense).await.status(), 400, "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_stream_too_many_is_told_to_come_back_later() {
    for limits in
        [StreamLimits { in_all: 2, per_address: 10 }, StreamLimits { in_all: 10, per_address: 2 }]
    {
        let server = Server::start(Settings { limits, ..Settings::default() }).await;
        let first = server.get("/events").await;
        let _second = server.get("/events").await;
        let third = server.get("/events").await;
        assert_eq!(third.status(), 200, "a browser gives up at any other");
        let rest = third.rest().await;
        let (retry, rest) =
            rest.strip_prefix("retry: ").and_then(|rest| rest.split_once('\n')).unwrap();
        let expected =
            format!("event: goodbye\ndata: {{\"reason\":\"limit\",\"retry_ms\":{retry}}}\n\n");
        assert_eq!(rest, expected);
        assert!((10_000..20_000).contains(&retry.parse::<u64>().unwrap()), "{retry}");
        assert_eq!(server.metric("waterclock_streams_ended_total{reason=\"limit\"}").await, 1);

        drop(first);
        server.until_metric("waterclock_streams_open", |value| value == 1).await;
        assert_eq!(server.get("/events").await.message().await.name, "hello");
    }
}

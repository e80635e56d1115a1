//! Clients that misbehave without malice: the server disconnects them, and serves the others.

use std::time::Duration;

use server::limits::Timeouts;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};
use waterclock_axum::StreamLimits;

use crate::support::{Server, Settings, read_until_closed, timeout_metric};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_thousand_silent_connections_time_out() {
    // Long enough for the clients that send a request.
    let first_byte = Duration::from_secs(1);
    let server = Server::with_timeouts(Timeouts { first_byte, ..Timeouts::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(server.connect().await);
    }
    server.assert_serves("clock").await;
    for stream in silent {
        assert_eq!(read_until_closed(stream).await, b"");
    }
    let timed_out = &timeout_metric("first-byte");
    server.wait_for_metric(timed_out, |value| value >= 1000).await;
    // Only the connection that reads the metric is open.
    server.wait_for_metric("waterclock_connections_open", |value| value == 1).await;
}

#[tokio::test]
async fn an_incomplete_head_times_out() {
    let server =
        Server::with_timeouts(Timeouts { head: SHORT, idle: SHORT, ..Timeouts::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: loc").await.unwrap();
    assert_eq!(read_until_closed(stream).await, b"");
    server.wait_for_metric(&timeout_metric("head"), |value| value == 1).await;
    server.assert_serves("clock").await;
}

#[tokio::test]
async fn a_stuck_reader_times_out() {
    let server = Server::with_timeouts(Timeouts { write: SHORT, ..Timeouts::default() }).await;
    let mut stuck = server.get("/events").await;
    stuck.message().await;
    let mut reader = server.get("/events").await;
    reader.message().await;
    let data = "x".repeat(60_000);
    let timed_out = &timeout_metric("write");
    // One stream is read continuously, the other one fills its buffers.
    for _ in 0..100 {
        server.publish(&data).await;
        assert_eq!(reader.message().await.data, data);
    }
    server.wait_for_metric(timed_out, |value| value == 1).await;
    server.wait_for_streams(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_reader_among_a_thousand_gets_every_event() {
    let server = Server::start().await;
    let count = 60;
    // Without a limit, the streams share the encoded events.
    let (path, last) = ("/events", "\ndata: last\n\n");
    let stopped = server.get(path).await;
    let mut readers = JoinSet::new();
    for _ in 0..1000 {
        readers.spawn(server.get(path).await.rest_until(last));
    }
    server.wait_for_streams(1001).await;
    for _ in 0..count {
        server.publish(&"x".repeat(8192)).await;
    }
    server.publish("last").await;
    let events = |text: &str| text.matches("\ndata: xxx").count();
    while let Some(text) = readers.join_next().await {
        assert_eq!(events(&text.unwrap()), count);
    }
    let behind = server.metric("waterclock_streams_behind").await;
    assert_eq!(behind, 1, "not all events are in buffers");
    assert_eq!(events(&stopped.rest_until(last).await), count);
}

#[tokio::test]
async fn a_client_that_leaves_within_a_frame_is_noticed() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").await.unwrap();
    server.wait_for_streams(1).await;
    server.publish(&"x".repeat(1_000_000)).await;
    let mut part = vec![0; 100_000];
    stream.read_exact(&mut part).await.unwrap();
    drop(stream);
    server.wait_for_streams(0).await;
    server.assert_serves("clock").await;
}

#[tokio::test]
async fn a_long_header_is_accepted_and_a_too_long_one_gets_431() {
    let server = Server::start().await;
    let header = |length| {
        format!(
            "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {}\r\n\r\n",
            "x".repeat(length)
        )
    };
    assert_eq!(server.send(header(10_000).as_bytes()).await.status(), 200);
    let response = server.send(header(100_000).as_bytes()).await;
    assert_eq!(response.status(), 431);
    let response = server.send(header(10_000_000).as_bytes()).await;
    assert_eq!(response.status(), 431);
    server.assert_serves("clock").await;
}

#[tokio::test]
async fn invalid_requests_get_400() {
    let server = Server::start().await;
    for nonsense in [&b"hello\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"\0\r\n\r\n"] {
        assert_eq!(server.send(nonsense).await.status(), 400, "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_stream_beyond_the_limit_gets_a_goodbye_with_a_retry_time() {
    for limits in
        [StreamLimits { total: 2, per_address: 10 }, StreamLimits { total: 10, per_address: 2 }]
    {
        let server = Server::start_with(Settings { limits, ..Settings::default() }).await;
        let first = server.get("/events").await;
        let _second = server.get("/events").await;
        let third = server.get("/events").await;
        assert_eq!(third.status(), 200, "a browser gives up after any other status");
        let rest = third.rest().await;
        let (retry, rest) =
            rest.strip_prefix("retry: ").and_then(|rest| rest.split_once('\n')).unwrap();
        let expected =
            format!("event: goodbye\ndata: {{\"reason\":\"limit\",\"retry_ms\":{retry}}}\n\n");
        assert_eq!(rest, expected);
        assert!((10_000..20_000).contains(&retry.parse::<u64>().unwrap()), "{retry}");
        assert_eq!(server.metric("waterclock_streams_ended_total{reason=\"limit\"}").await, 1);

        drop(first);
        server.wait_for_metric("waterclock_streams_open", |value| value == 1).await;
        assert_eq!(server.get("/events").await.message().await.name, "hello");
    }
}

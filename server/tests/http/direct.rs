//! The direct path of event streams over HTTP/1.1, and the ordinary path beside it.

use std::time::Duration;

use server::{limits::Timeouts, net::tls::Tls};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    support::{DEADLINE, Server, Settings, TestResponse, read_until_closed, timeout_metric},
    tls,
};

const DIRECT: &str = "waterclock_streams_direct";

async fn both_paths() -> [Server; 2] {
    let start = |is_direct| Server::start_with(Settings { is_direct, ..Settings::default() });
    [start(true).await, start(false).await]
}

/// Starts a server with TLS on each path.
async fn both_paths_over_tls() -> [(Server, Tls, TempDir); 2] {
    let start = |is_direct| tls::start_with(Settings { is_direct, ..Settings::default() });
    [start(true).await, start(false).await]
}

async fn connect(server: &Server, tls: &Tls) -> TlsStream<TcpStream> {
    tls::connect(server, tls.file(), &["http/1.1"]).await
}

/// Reads until the server ends TLS. Fails if only the connection ends.
async fn read_to_end(mut stream: TlsStream<TcpStream>) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut text)).await;
    read.expect("an end").expect("the end of TLS");
    text
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

#[tokio::test]
async fn only_streams_over_http_1_1_take_the_direct_path() {
    let server = Server::start_with(Settings { is_direct: true, ..Settings::default() }).await;
    let mut stream = server.send(get("/events", "").as_bytes()).await;
    assert_eq!(stream.message().await.name, "hello");
    server.wait_for_metric(DIRECT, |streams| streams == 1).await;
    let mut old = server.send(b"GET /events HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.header("transfer-encoding"), None);
    assert_eq!(old.message().await.name, "hello");
    assert_eq!((server.streams.count(), server.metric(DIRECT).await), (2, 1));
    server.publish("tick").await;
    assert_eq!(
        (stream.message().await.data, old.message().await.data),
        ("tick".into(), "tick".into())
    );
    drop(stream);
    server.wait_for_metric(DIRECT, |streams| streams == 0).await;
    server.wait_for_streams(1).await;
}

#[tokio::test]
async fn the_ordinary_path_can_be_chosen() {
    let server = Server::start_with(Settings { is_direct: false, ..Settings::default() }).await;
    let mut stream = server.send(get("/events", "").as_bytes()).await;
    assert_eq!(stream.message().await.name, "hello");
    assert_eq!((server.streams.count(), server.metric(DIRECT).await), (1, 0));
}

#[tokio::test]
async fn a_connection_has_further_requests_after_a_stream() {
    for server in both_paths().await {
        server.publish("tick").await;
        let mut connection = server.connect().await;
        for _ in 0..3 {
            let request = get("/events?last_event_id=earliest&limit=1", "");
            connection.write_all(request.as_bytes()).await.unwrap();
            let mut response = TestResponse::read_from(connection).await;
            assert_eq!(response.header("connection"), None);
            assert_eq!(response.message().await.name, "hello");
            assert_eq!(response.message().await.data, "tick");
            assert_eq!(response.message().await.name, "end");
            assert!(response.has_ended().await);
            connection = response.into_connection();
        }
        connection
            .write_all(get("/health/live", "Connection: close\r\n").as_bytes())
            .await
            .unwrap();
        let answer = String::from_utf8(read_until_closed(connection).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_may_close_the_connection_after_a_stream() {
    for server in both_paths().await {
        server.publish("tick").await;
        let request = get("/events?last_event_id=earliest&limit=1", "Connection: Close\r\n");
        let mut response = server.send(request.as_bytes()).await;
        assert_eq!(response.header("connection"), Some("close"));
        for _ in 0..3 {
            response.message().await;
        }
        assert!(response.has_ended().await);
        let mut connection = response.into_connection();
        assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn requests_that_arrive_together_are_answered_in_order() {
    for server in both_paths().await {
        server.publish("tick").await;
        let stream = get("/events?last_event_id=earliest&limit=1", "");
        let last = get("/health/live", "Connection: close\r\n");
        let mut connection = server.connect().await;
        connection.write_all([&*stream, &*stream, &*last].concat().as_bytes()).await.unwrap();
        let answers = String::from_utf8(read_until_closed(connection).await).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answers}");
        assert_eq!(answers.matches("data: tick\n\n").count(), 2, "{answers}");
        assert_eq!(answers.matches("\r\n0\r\n\r\nHTTP/1.1").count(), 2, "{answers}");
    }
}

#[tokio::test]
async fn a_request_that_follows_during_a_stream_is_answered_after_it() {
    for server in both_paths().await {
        let mut connection = server.connect().await;
        connection.write_all(get("/events?limit=1", "").as_bytes()).await.unwrap();
        server.wait_for_streams(1).await;
        let last = get("/health/live", "Connection: close\r\n");
        connection.write_all(last.as_bytes()).await.unwrap();
        server.publish("tick").await;
        let answers = String::from_utf8(read_until_closed(connection).await).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answers}");
        assert!(answers.contains("\r\n0\r\n\r\nHTTP/1.1 200 OK"), "{answers}");
    }
}

#[tokio::test]
async fn the_body_of_a_request_for_a_stream_is_no_request() {
    for server in both_paths().await {
        let mut connection = server.connect().await;
        let body = get("/nowhere", "");
        let headers = format!("Content-Length: {}\r\n", body.len());
        connection.write_all(get("/events?limit=1", &headers).as_bytes()).await.unwrap();
        server.wait_for_streams(1).await;
        connection.write_all(body.as_bytes()).await.unwrap();
        server.publish("tick").await;
        let last = get("/health/live", "Connection: close\r\n");
        connection.write_all(last.as_bytes()).await.unwrap();
        let answers = String::from_utf8(read_until_closed(connection).await).unwrap();
        assert!(answers.contains("data: tick\n\n"), "{answers}");
        assert!(!answers.contains("404"), "{answers}");
    }
}

#[tokio::test]
async fn streams_over_tls_take_the_direct_path() {
    for ((server, tls, _folder), direct) in both_paths_over_tls().await.into_iter().zip([1, 0]) {
        let mut stream = connect(&server, &tls).await;
        stream.write_all(get("/events", "").as_bytes()).await.unwrap();
        tls::read_until(&mut stream, "event: hello").await;
        assert_eq!(tls::metric(&server, &tls, DIRECT).await, direct);
        for tick in ["one", "two"] {
            server.publish(tick).await;
            tls::read_until(&mut stream, &format!("data: {tick}\n\n\r\n")).await;
        }
        drop(stream);
        server.wait_for_streams(0).await;
        tls::wait_for_metric(&server, &tls, DIRECT, 0).await;
    }
}

#[tokio::test]
async fn requests_over_tls_that_arrive_together_are_answered_in_order() {
    for (server, tls, _folder) in both_paths_over_tls().await {
        server.publish("tick").await;
        let stream = get("/events?last_event_id=earliest&limit=1", "");
        let last = get("/health/live", "Connection: close\r\n");
        let mut connection = connect(&server, &tls).await;
        // One record of TLS, then one for each byte of the next request.
        connection.write_all([&*stream, &*stream].concat().as_bytes()).await.unwrap();
        for byte in last.bytes() {
            connection.write_all(&[byte]).await.unwrap();
        }
        let answers = read_to_end(connection).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answers}");
        assert_eq!(answers.matches("data: tick\n\n").count(), 2, "{answers}");
        assert_eq!(answers.matches("\r\n0\r\n\r\nHTTP/1.1").count(), 2, "{answers}");
    }
}

#[tokio::test]
async fn requests_over_tls_that_follow_during_a_stream_are_answered_after_it() {
    for (server, tls, _folder) in both_paths_over_tls().await {
        let mut connection = connect(&server, &tls).await;
        let mut answers = String::new();
        for round in 1..=3 {
            connection.write_all(get("/events?limit=1", "").as_bytes()).await.unwrap();
            if round == 1 {
                answers += &tls::read_until(&mut connection, "event: hello").await;
            }
            server.wait_for_streams(1).await;
            let next = get("/health/live", "");
            connection.write_all(next.as_bytes()).await.unwrap();
            server.publish("tick").await;
            answers += &tls::read_until(&mut connection, "\r\n0\r\n\r\nHTTP/1.1 200 OK").await;
            server.wait_for_streams(0).await;
        }
        connection
            .write_all(get("/health/live", "Connection: close\r\n").as_bytes())
            .await
            .unwrap();
        answers += &read_to_end(connection).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 7, "{answers}");
        assert_eq!(answers.matches("data: tick\n\n").count(), 3, "{answers}");
    }
}

#[tokio::test]
async fn a_slow_reader_over_tls_gets_everything() {
    for (server, tls, _folder) in both_paths_over_tls().await {
        let mut stream = connect(&server, &tls).await;
        stream.write_all(get("/events?topic=a&limit=500", "").as_bytes()).await.unwrap();
        server.wait_for_streams(1).await;
        let data = |number: usize| format!("{number:03}{}", "x".repeat(20_000));
        // More than the buffers of both systems hold.
        for number in 0..500 {
            server.publish_to("a", &data(number)).await;
        }
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n0\r\n\r\n") {
            let read = tokio::time::timeout(DEADLINE, stream.read_buf(&mut bytes)).await;
            assert_ne!(read.expect("the rest").unwrap(), 0);
        }
        let text = String::from_utf8(bytes).unwrap();
        let mut rest = &*text;
        for number in 0..500 {
            let (_, after) = rest.split_once(&data(number)).expect("the next event");
            rest = after;
        }
    }
}

#[tokio::test]
async fn a_reader_over_tls_that_stalls_is_given_up() {
    let write = Duration::from_millis(200);
    for is_direct in [true, false] {
        let timeouts = Timeouts { write, ..Timeouts::default() };
        let settings = Settings { timeouts, is_direct, ..Settings::default() };
        let (server, tls, _folder) = tls::start_with(settings).await;
        let mut stream = connect(&server, &tls).await;
        stream.write_all(get("/events", "").as_bytes()).await.unwrap();
        server.wait_for_streams(1).await;
        let data = "x".repeat(20_000);
        let published = async {
            while server.streams.count() > 0 {
                server.publish(&data).await;
            }
        };
        tokio::time::timeout(DEADLINE, published).await.expect("the end of the stream");
        tls::wait_for_metric(&server, &tls, &timeout_metric("write"), 1).await;
    }
}

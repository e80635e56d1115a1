//! The direct path of event streams over plain HTTP/1.1, and the ordinary path beside it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Server, Settings, TestResponse, read_until_closed};

const DIRECT: &str = "waterclock_streams_direct";

async fn both_paths() -> [Server; 2] {
    let start = |is_direct| Server::start_with(Settings { is_direct, ..Settings::default() });
    [start(true).await, start(false).await]
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

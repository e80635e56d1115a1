//! Responses that must reach a client that is still sending, or that sends nothing more.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::{Method, Request};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, interval},
};

use crate::{
    support::{DEADLINE, Server, read_until_closed},
    tokens,
};

/// Time for which a slow client sends after the refusal: longer than the server waits for a client
/// that is silent.
const SLOW: Duration = Duration::from_millis(2500);

#[tokio::test]
async fn a_slow_uploader_gets_the_refusal() {
    let server = Server::start().await;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    // Too much data, a body that is not HTTP, and no permission.
    for (line, begin, status) in [
        ("POST /events/t", chunk.repeat(17), 413),
        ("POST /events/t?split=lines", chunk.repeat(17), 413),
        ("POST /events/t", "nonsense\r\n".to_owned(), 400),
        ("POST /events/clock", String::new(), 403),
    ]
    .map(|(line, begin, status)| {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{begin}"
        );
        let (address, chunk) = (server.address, chunk.clone());
        (
            line,
            tokio::spawn(async move {
                let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
                slow.write_all(head.as_bytes()).await.unwrap();
                let begun = Instant::now();
                let mut ticks = interval(Duration::from_millis(20));
                // Like many clients, it reads nothing before it has sent everything.
                while begun.elapsed() < SLOW {
                    ticks.tick().await;
                    slow.write_all(chunk.as_bytes()).await.expect("no broken pipe");
                }
                String::from_utf8_lossy(&read_until_closed(slow).await).into_owned()
            }),
            status,
        )
    }) {
        let response = begin.await.unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {response}");
        assert!(response.contains("application/problem+json"), "{line}: {response}");
    }
    assert_eq!(server.hub.newest(), 0);
}

#[tokio::test]
async fn a_refused_upload_over_http2_is_not_reset() {
    let server = Server::with_access(tokens::access()).await;
    let (requests, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    tokio::spawn(connection);
    let begin = async |path: &str| {
        let uri = format!("http://events.example{path}");
        let request = Request::builder().method(Method::PUT).uri(uri).body(()).unwrap();
        let mut requests: SendRequest<Bytes> = requests.clone().ready().await.unwrap();
        let (response, mut body) = requests.send_request(request, false).unwrap();
        body.send_data("a line\n".into(), false).unwrap();
        (tokio::time::timeout(DEADLINE, response).await.expect("a response").unwrap(), body)
    };
    for path in ["/events/t", "/events/t?split=lines"] {
        let (response, mut body) = begin(path).await;
        assert_eq!(response.status(), 401);
        let text = response.into_body().data().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&text).contains("A token is required"));
        // The client goes on for longer than the windows of flow control, and may end by itself.
        for _ in 0..200 {
            body.reserve_capacity(16_384);
            let granted = std::future::poll_fn(|context| body.poll_capacity(context));
            let granted = tokio::time::timeout(DEADLINE, granted).await.expect("a larger window");
            let granted = granted.expect("not reset").unwrap();
            body.send_data(vec![b'x'; granted].into(), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
    }
    // A shutdown does not wait for clients that go on.
    let (response, _body) = begin("/events/t").await;
    assert_eq!(response.status(), 401);
    server.stop.begin();
    tokio::time::timeout(DEADLINE, server.serving).await.expect("stopped").unwrap();
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_gets_the_response() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let poll = b"GET /poll?topic=t&wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(poll).await.unwrap();
    server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
    client.shutdown().await.unwrap();
    // At once, since a client that has left looks the same, and must not occupy a place.
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    assert!(response.contains("\"events\":[]"), "{response}");
    server.wait_for_metric("waterclock_streams_open", |streams| streams == 0).await;

    let mut client = server.connect().await;
    client.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.ends_with("live\n"), "{response}");
}

//! Responses that must reach a client that is still sending, or that sends nothing more.

use std::time::Duration;

use bytes::Bytes;
use h2::{SendStream, client::SendRequest};
use hyper::{HeaderMap, Method, Request, header::AUTHORIZATION};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, interval, timeout},
};

use crate::{
    support::{DEADLINE, Server, read_until_closed, refusal_metric},
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
        ("POST /events/t?split=events", chunk.repeat(33), 413),
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
    let start = async |path: &str, headers: HeaderMap| {
        let uri = format!("http://events.example{path}");
        let mut request = Request::builder().method(Method::PUT).uri(uri).body(()).unwrap();
        *request.headers_mut() = headers;
        let mut requests: SendRequest<Bytes> = requests.clone().ready().await.unwrap();
        let (response, mut body) = requests.send_request(request, false).unwrap();
        body.send_data("a line\n".into(), false).unwrap();
        (timeout(DEADLINE, response), body)
    };
    let begin = async |path: &str| {
        let (response, body) = start(path, HeaderMap::new()).await;
        (response.await.expect("a response").unwrap(), body)
    };
    let go_on = async |body: &mut SendStream<Bytes>, chunks| {
        for _ in 0..chunks {
            body.reserve_capacity(16_384);
            let granted = std::future::poll_fn(|context| body.poll_capacity(context));
            let granted = timeout(DEADLINE, granted).await.expect("a larger window");
            let granted = granted.expect("not reset").unwrap();
            body.send_data(vec![b'x'; granted].into(), false).unwrap();
        }
    };
    for path in ["/events/t", "/events/t?split=lines"] {
        let (response, mut body) = begin(path).await;
        assert_eq!(response.status(), 401);
        let text = response.into_body().data().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&text).contains("A token is required"));
        // The client goes on for longer than the windows of flow control, and may end by itself.
        go_on(&mut body, 200).await;
        body.send_data(Bytes::new(), true).unwrap();
    }
    // A shutdown does not wait for clients that go on.
    let (response, _body) = begin("/events/t").await;
    assert_eq!(response.status(), 401);
    // At a shutdown, the others learn how many of their lines were published.
    let token = format!("Bearer {}", tokens::token(json!({"publish": ["t"]})));
    let token = HeaderMap::from_iter([(AUTHORIZATION, token.parse().unwrap())]);
    let (response, mut rest) = start("/events/t?split=lines", token).await;
    let stored = async {
        while server.hub.newest() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, stored).await.expect("a line");
    server.stop.begin();
    let response = response.await.expect("a response").unwrap();
    assert_eq!(response.status(), 503);
    go_on(&mut rest, 5).await;
    let text = response.into_body().data().await.unwrap().expect("not reset");
    assert!(String::from_utf8_lossy(&text).contains("\"published\":1"));
    timeout(DEADLINE, server.serving).await.expect("stopped").unwrap();
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

#[tokio::test]
async fn a_raw_wildcard_in_a_url_gets_a_problem_that_says_how_to_write_it() {
    let server = Server::start().await;
    for (head, query) in [
        ("", "/events?topic=orders.>"),
        ("", "/events/orders.>"),
        ("", "/poll?topic=<"),
        ("GET /time HTTP/1.1\r\nHost: localhost\r\n\r\n", "/events/orders.>"),
    ] {
        let mut client = server.connect().await;
        if !head.is_empty() {
            // The first request of the connection is fine.
            client.write_all(head.as_bytes()).await.unwrap();
            let mut bytes = [0; 4096];
            assert!(client.read(&mut bytes).await.unwrap() > 0);
        }
        let request = format!("GET {query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let response = String::from_utf8(read_until_closed(client).await).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").expect(&response);
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
        assert!(head.contains("connection: close\r\n"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).expect(body);
        assert_eq!(problem["status"], 400);
        assert!(problem["detail"].as_str().unwrap().contains("`>` as `%3E`"), "{problem}");
    }
    server.wait_for_metric(&refusal_metric("malformed"), |count| count == 4).await;
}

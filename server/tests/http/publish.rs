//! `POST /events/{topic}` over real sockets.

use server::access::Access;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, DEADLINE, Server, Settings, TIME};

async fn start() -> Server {
    Server::start(Settings::default()).await
}

async fn refused(answer: Answer, status: u16, detail: &str) {
    assert_eq!(answer.status(), status, "{detail}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let body = answer.rest().await;
    assert!(body.contains(detail), "{detail}: {body}");
}

#[tokio::test]
async fn the_answer_is_the_event_and_subscribers_of_the_topic_get_it() {
    let server = start().await;
    let mut orders = server.get("/events?topic=orders.*").await;
    let mut json = server.get("/events?topic=other&topic=orders.eu&format=json").await;
    let mut clock = server.get("/events").await;
    for stream in [&mut orders, &mut json, &mut clock] {
        assert_eq!(stream.message().await.name, "hello");
    }
    let answer = server.post("orders.eu?name=created", "", b"17").await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let event = format!(
        r#"{{"id":"000000000000c10c-1","topic":"orders.eu","name":"created","data":"17","time":"{TIME}"}}"#
    );
    assert_eq!(answer.rest().await, event);
    assert_eq!(orders.block().await, "id: 000000000000c10c-1\nevent: created\ndata: 17\n\n");
    assert_eq!(json.message().await.data, event);

    server.publish("tick").await;
    assert_eq!(clock.block().await, "id: 000000000000c10c-2\ndata: tick\n\n");
}

#[tokio::test]
async fn the_body_is_the_data_whatever_it_is() {
    let server = start().await;
    let mut stream = server.get("/events?topic=t&format=json").await;
    stream.message().await;
    let long = "x".repeat(64 * 1024);
    for body in ["", " ", "a\r\nb\rc\n", "with \0", "id: 1\n\n", "\u{feff}ü", long.as_str()] {
        let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
        let answer = server.post("t", headers, body.as_bytes()).await;
        assert_eq!(answer.status(), 201);
        let event: waterclock::event::Event =
            serde_json::from_str(&stream.message().await.data).unwrap();
        assert_eq!(event.data, body);
    }
}

#[tokio::test]
async fn put_does_the_same() {
    let server = start().await;
    let request = b"PUT /events/t HTTP/1.0\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(server.send(request).await.status(), 201);
}

#[tokio::test]
async fn each_line_is_an_event_the_moment_it_arrives() {
    let server = start().await;
    let mut stream = server.get("/events?topic=build").await;
    stream.message().await;
    let mut publisher = server.connect().await;
    let head = "PUT /events/build?split=lines&name=out HTTP/1.1\r\nHost: localhost\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    publisher.write_all(head.as_bytes()).await.unwrap();
    for line in ["one", "two", ""] {
        let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
        publisher.write_all(chunk.as_bytes()).await.unwrap();
        let message = stream.message().await;
        assert_eq!((message.name.as_str(), message.data.as_str()), ("out", line));
    }
    publisher.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(stream.message().await.data, "last");
    let mut answer = String::new();
    publisher.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("{\"published\":4}"), "{answer}");
}

#[tokio::test]
async fn many_short_lines_come_in_order() {
    let server = start().await;
    let count = 20_000;
    let body = (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    let answer = server.post("t?split=lines", "", body.as_bytes()).await;
    assert_eq!(answer.rest().await, format!("{{\"published\":{count}}}"));
    let mut stream = server.get("/events?topic=t&last_event_id=earliest").await;
    stream.message().await;
    for n in 0..count {
        assert_eq!(stream.message().await.data, n.to_string());
    }
}

#[tokio::test]
async fn lines_before_a_bad_one_are_published_and_counted() {
    let server = start().await;
    let long = [b"a\nb\n".to_vec(), b"x".repeat(64 * 1024 + 1)].concat();
    let answer = server.post("t?split=lines", "", &long).await;
    refused(answer, 413, "at most 65536 bytes long. 2 lines were published before.").await;
    let answer = server.post("t?split=lines", "", b"c\n\xff\nd\n").await;
    refused(answer, 400, "1 lines were published before.").await;
    refused(server.post("t?split=words", "", b"").await, 400, "There is no split").await;
    assert_eq!(server.hub.newest(), 3);
}

#[tokio::test]
async fn a_publisher_that_vanishes_half_way_has_published_its_whole_lines() {
    let server = start().await;
    let mut stream = server.get("/events?topic=t").await;
    stream.message().await;
    let mut publisher = server.connect().await;
    let head =
        "PUT /events/t?split=lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    publisher.write_all(format!("{head}whole\nhal").as_bytes()).await.unwrap();
    assert_eq!(stream.message().await.data, "whole");
    drop(publisher);
    server.until_metric("waterclock_connections_open", |open| open == 2).await;
    assert_eq!(server.hub.newest(), 1);
}

#[tokio::test]
async fn what_cannot_be_published_is_told_why_and_nobody_sees_it() {
    let server = start().await;
    let mut stream = server.get("/events?topic=%3E&last_event_id=earliest").await;
    stream.message().await;
    let long = "x".repeat(64 * 1024 + 1);
    refused(server.post("t", "", long.as_bytes()).await, 413, "at most 65536 bytes").await;
    refused(server.post("t", "", b"\xff\xfe").await, 400, "is UTF-8, and this is not").await;
    refused(server.post("clock", "", b"x").await, 403, "Only the server itself").await;
    let topic = "x".repeat(256);
    for topic in ["a..b", ".", "..", "a.*", "%3E", "a%2Fb", "%20", "a%00", "%ff", &topic] {
        let answer = server.post(topic, "", b"x").await;
        assert_eq!(answer.status(), 400, "{topic}");
    }
    refused(server.post("a.*", "", b"x").await, 400, "\\\"a.*\\\" is not a topic").await;
    for name in ["hello", "gap", "open", "error"] {
        let answer = server.post(&format!("t?name={name}"), "", b"x").await;
        refused(answer, 400, "the name is reserved").await;
    }
    refused(server.post("t?name=a%0ab", "", b"x").await, 400, "without CR, LF and NUL").await;
    assert_eq!(server.post("t?name=", "", b"x").await.status(), 201);
    assert_eq!(stream.message().await.data, "x", "the only one");
    let get = server.get("/events/t").await;
    assert_eq!((get.status(), get.header("allow")), (405, Some("POST,PUT")));
}

#[tokio::test]
async fn a_page_elsewhere_cannot_publish_to_a_developers_machine() {
    let server = start().await;
    for headers in [
        "Host: localhost\r\nOrigin: https://example.org\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: rebound.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n",
    ] {
        let answer = server.post("t", headers, b"x").await;
        refused(answer, 403, "Only the server's own machine may publish").await;
    }
    assert_eq!(server.hub.newest(), 0);

    // Nor one that may read.
    let access = Access { cors_origins: ["*".parse().unwrap()].into(), ..Access::default() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let headers = "Host: localhost\r\nOrigin: https://example.org\r\n";
    assert_eq!(server.post("t", headers, b"x").await.status(), 403);
    let headers = "Host: localhost\r\nOrigin: http://localhost\r\n";
    assert_eq!(server.post("t", headers, b"x").await.status(), 201);
}

#[tokio::test]
async fn only_public_topics_are_read_by_all() {
    let access = Access { public_topics: ["news.*".parse().unwrap()].into(), ..Access::default() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let by_proxy = [("Host", &b"clock.example"[..]), ("X-Forwarded-For", b"192.0.2.1")];
    for (query, status) in [
        ("topic=news.a", 200),
        ("topic=news.*", 200),
        ("topic=news.a&topic=news.b", 200),
        ("topic=news.%3E", 403),
        ("topic=news.a&topic=other", 403),
        ("topic=%3E", 403),
        ("", 403),
    ] {
        let answer = server.request("GET", &format!("/events?{query}"), &by_proxy).await;
        assert_eq!(answer.status(), status, "{query}");
    }
}

#[tokio::test]
async fn what_is_sent_again_with_its_key_is_answered_again_and_not_published_again() {
    let server = start().await;
    let post = async |path: &str, key: &str, body: &[u8]| {
        server.post(path, &format!("Idempotency-Key: {key}\r\n"), body).await
    };
    let first = post("t?name=n", "\"8e03978e\"", b"x").await;
    assert_eq!(first.status(), 201);
    let first = first.rest().await;
    for key in ["\"8e03978e\"", "8e03978e"] {
        let again = post("t?name=n", key, b"x").await;
        assert_eq!(again.status(), 201);
        assert_eq!(again.rest().await, first);
    }
    refused(post("t?name=n", "8e03978e", b"y").await, 422, "of another name or data").await;
    refused(post("t", "8e03978e", b"x").await, 422, "of another name or data").await;
    assert_eq!(post("other", "8e03978e", b"y").await.status(), 201, "of another topic");
    assert_eq!(server.hub.newest(), 2);
    for key in ["", "\"\"", &"x".repeat(256), "a\r\nIdempotency-Key: b", "ä"] {
        refused(post("t", key, b"x").await, 400, "`Idempotency-Key` is given once").await;
    }
    refused(post("t?split=lines", "k", b"x").await, 400, "is for one event").await;
}

#[tokio::test]
async fn a_key_whose_event_is_still_on_its_way_is_409() {
    let server = start().await;
    let mut slow = server.connect().await;
    let head = b"POST /events/t HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\n\
                 Content-Length: 1\r\nConnection: close\r\n\r\n";
    slow.write_all(head).await.unwrap();
    let again = async || server.post("t", "Idempotency-Key: k\r\n", b"x").await;
    // Until the other has been seen, this one is the first, so it ends before its body.
    let busy = async {
        loop {
            let mut probe = server.connect().await;
            let head =
                b"POST /events/t HTTP/1.0\r\nIdempotency-Key: k\r\nContent-Length: 70000\r\n\r\n";
            probe.write_all(head).await.unwrap();
            let mut status = [0; 12];
            probe.read_exact(&mut status).await.unwrap();
            if status.ends_with(b"409") {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, busy).await.expect("409");
    refused(again().await, 409, "is just being published").await;
    slow.write_all(b"x").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(again().await.status(), 201);
    assert_eq!(server.hub.newest(), 1);
}

#[tokio::test]
async fn there_are_only_so_many_topics() {
    let server = Server::start(Settings { max_topics: 1, ..Settings::default() }).await;
    assert_eq!(server.post("first", "", b"x").await.status(), 201);
    refused(server.post("second", "", b"x").await, 507, "The option --max-topics").await;
    assert_eq!(server.post("first", "", b"x").await.status(), 201);
}

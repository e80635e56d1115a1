//! `POST /events/{topic}` over real sockets.

use futures_util::future::join_all;
use server::auth::Access;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use waterclock::{event::Topic, event_log::ReadLimit};

use crate::support::{
    DEADLINE, REMOTE, Server, Settings, TIME, TestResponse, event_id, read_until_closed,
    refusal_metric,
};

/// A limit that no test reaches.
const ALL: ReadLimit = ReadLimit { count: 100_000, bytes: usize::MAX };

/// Checks the status and the detail of a problem. Returns its JSON.
async fn assert_refused(response: TestResponse, status: u16, detail: &str) -> String {
    assert_eq!(response.status(), status, "{detail}");
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let body = response.rest().await;
    assert!(body.contains(detail), "{detail}: {body}");
    body
}

#[tokio::test]
async fn a_published_event_is_the_response_and_reaches_subscribers() {
    let server = Server::start().await;
    let mut orders = server.get("/events?topic=orders.*").await;
    let mut json = server.get("/events?topic=other&topic=orders.eu&format=json").await;
    let mut clock = server.get("/events").await;
    for stream in [&mut orders, &mut json, &mut clock] {
        assert_eq!(stream.message().await.name, "hello");
    }
    let response = server.post("orders.eu?name=created", "", b"17").await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let event = format!(
        "{{\"id\":\"000000000000c10c-1\",\"topic\":\"orders.eu\",\"name\":\"created\",\
         \"data\":\"17\",\"time\":\"{TIME}\"}}"
    );
    assert_eq!(response.rest().await, event);
    assert_eq!(orders.block().await, "id: 000000000000c10c-1\nevent: created\ndata: 17\n\n");
    assert_eq!(json.message().await.data, event);

    server.publish("tick").await;
    assert_eq!(clock.block().await, "id: 000000000000c10c-2\ndata: tick\n\n");
}

#[tokio::test]
async fn any_body_is_published_unchanged() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=t&format=json").await;
    stream.message().await;
    let long = "x".repeat(64 * 1024);
    for body in ["", " ", "a\r\nb\rc\n", "with \0", "id: 1\n\n", "\u{feff}ü", long.as_str()] {
        let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
        let response = server.post("t", headers, body.as_bytes()).await;
        assert_eq!(response.status(), 201);
        let event: waterclock::event::Event =
            serde_json::from_str(&stream.message().await.data).unwrap();
        assert_eq!(event.data, body);
    }
}

/// An encoded topic is left to the router.
#[tokio::test]
async fn publishes_are_answered_alike_with_and_without_the_router() {
    const HEADERS: [&str; 12] = [
        "allow",
        "connection",
        "content-length",
        "content-security-policy",
        "content-type",
        "cross-origin-opener-policy",
        "cross-origin-resource-policy",
        "permissions-policy",
        "referrer-policy",
        "retry-after",
        "www-authenticate",
        "x-content-type-options",
    ];
    let long = vec![b'x'; 64 * 1024 + 1];
    for (query, headers, data, status) in [
        ("", "", "data".as_bytes(), 201),
        ("", "", &[0xff], 400),
        ("", "", &long, 413),
        ("", "Idempotency-Key: k\r\n", b"data", 201),
        ("", "Origin: https://elsewhere.example\r\n", b"data", 403),
        ("", "Host: elsewhere.example\r\n", b"data", 403),
        ("", "Host: a\r\nHost: b\r\n", b"data", 400),
        ("?name=hello", "", b"data", 400),
        ("?split=lines", "", b"data", 200),
        ("?end", "", b"data", 400),
    ] {
        let mut answers = Vec::new();
        for topic in ["topic", "%74opic"] {
            let server = Server::start().await;
            let response = server.post(&format!("{topic}{query}"), headers, data).await;
            assert_eq!(response.status(), status, "{topic}{query} {headers}");
            let found = HEADERS.map(|name| response.header(name).map(str::to_owned));
            let rest = response.rest().await;
            let counted = ["malformed", "too-long", "foreign"].map(refusal_metric);
            let counted = join_all(counted.iter().map(|metric| server.metric(metric))).await;
            answers.push((found, rest, counted));
        }
        assert_eq!(answers[0], answers[1], "{query} {headers}");
    }
}

#[tokio::test]
async fn put_publishes_like_post() {
    let server = Server::start().await;
    let request = b"PUT /events/t HTTP/1.0\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(server.send(request).await.status(), 201);
}

#[tokio::test]
async fn each_line_is_published_as_soon_as_it_arrives() {
    let server = Server::start().await;
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
    let mut response = String::new();
    publisher.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    assert!(response.contains("{\"published\":4}"), "{response}");
}

#[tokio::test]
async fn a_progress_bar_is_published_step_by_step() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=build").await;
    stream.message().await;
    let mut publisher = server.connect().await;
    let head = "PUT /events/build?split=lines HTTP/1.1\r\nHost: localhost\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    publisher.write_all(head.as_bytes()).await.unwrap();
    // Far more than one event may have, without any LF.
    for step in 0..100 {
        let text = format!("\r\u{1b}[32m{step:1000}%");
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        publisher.write_all(chunk.as_bytes()).await.unwrap();
        if step > 0 {
            let expected = format!("\u{1b}[32m{:1000}%", step - 1);
            assert_eq!(stream.message().await.data, expected, "as it was written");
        }
    }
    publisher.write_all(b"2\r\n\r\n\r\n0\r\n\r\n").await.unwrap();
    let mut response = String::new();
    publisher.read_to_string(&mut response).await.unwrap();
    assert!(response.ends_with("{\"published\":100}"), "{response}");
}

#[tokio::test]
async fn a_misspelt_parameter_is_refused() {
    let server = Server::start().await;
    for (query, detail) in [
        ("nmae=a", "Use `name`."),
        ("event=a", "Use `name`."),
        ("splt=lines", "Use `split`."),
        ("key=a", "Use the header `Idempotency-Key`."),
        ("data=a", "Use the request's body."),
    ] {
        assert_refused(server.post(&format!("t?{query}"), "", b"x").await, 400, detail).await;
    }
    let (query, detail) = ("a&".repeat(256), "at most 256 parameters");
    assert_refused(server.post(&format!("t?{query}"), "", b"x").await, 400, detail).await;
    assert_eq!(server.hub.newest(), 0);
    for path in ["/events", "/poll", "/topics", "/diagnose/stream"] {
        let response = server.get(&format!("{path}?{query}")).await;
        assert_refused(response, 400, detail).await;
    }
    assert_eq!(server.post("t?_=1&token=a", "", b"x").await.status(), 201);
}

#[tokio::test]
async fn many_short_lines_stay_in_order() {
    let server = Server::start().await;
    let count = 20_000;
    let body = (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    let response = server.post("t?split=lines", "", body.as_bytes()).await;
    assert_eq!(response.rest().await, format!("{{\"published\":{count}}}"));
    let mut stream = server.get("/events?topic=t&last_event_id=earliest").await;
    stream.message().await;
    for n in 0..count {
        assert_eq!(stream.message().await.data, n.to_string());
    }
}

#[tokio::test]
async fn lines_before_an_invalid_one_are_published_and_counted() {
    let server = Server::start().await;
    let long = [b"a\nb\n".to_vec(), b"x".repeat(64 * 1024 + 1)].concat();
    let response = server.post("t?split=lines", "", &long).await;
    assert_refused(response, 413, "at most 65536 bytes long. This was line 3. 2 lines").await;
    let response = server.post("t?split=lines", "", b"c\n\xff\nd\n").await;
    assert_refused(response, 400, "This was line 2. 1 lines were published before.").await;
    assert_refused(
        server.post("t?split=words", "", b"").await,
        400,
        "\\\"words\\\" is not a way to split. `split` must be `lines`, `events` or `chunks`",
    )
    .await;
    assert_eq!(server.hub.newest(), 3);
}

/// Opens an upload, which sends chunks of HTTP/1.1.
async fn upload(server: &Server, path: &str, headers: &str) -> TcpStream {
    let mut publisher = server.connect().await;
    let head = format!(
        "PUT /events/{path} HTTP/1.1\r\nHost: localhost\r\n{headers}\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    publisher.write_all(head.as_bytes()).await.unwrap();
    publisher
}

async fn send_chunk(publisher: &mut TcpStream, chunk: &[u8]) {
    let size = format!("{:x}\r\n", chunk.len());
    publisher.write_all(&[size.as_bytes(), chunk, b"\r\n"].concat()).await.unwrap();
}

/// Ends an upload, and returns the whole response.
async fn finish(mut publisher: TcpStream) -> String {
    publisher.write_all(b"0\r\n\r\n").await.unwrap();
    String::from_utf8(read_until_closed(publisher).await).unwrap()
}

#[tokio::test]
async fn an_event_stream_is_published_event_by_event() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=answer").await;
    stream.message().await;
    let mut publisher =
        upload(&server, "answer?split=events&name=word", "Content-Type: text/event-stream\r\n")
            .await;
    for (chunk, expected) in [
        (&b": keep-alive\n\nretry: 1\n\nid: 9\nda"[..], None),
        (b"ta: {\"a\":\ndata: 1}\n\n", Some(("word", "{\"a\":\n1}"))),
        (b"event: delta\r\ndata: x\r\n\r\n", Some(("delta", "x"))),
        (b"event: error\rdata: busy\r\r", Some(("upstream-error", "busy"))),
        (b"event: end\ndata\n\n", Some(("upstream-end", ""))),
        (b"data: [DONE]\n\n", Some(("word", "[DONE]"))),
        (b"data: half", None),
    ] {
        send_chunk(&mut publisher, chunk).await;
        if let Some((name, data)) = expected {
            let message = stream.message().await;
            assert_eq!((message.name.as_str(), message.data.as_str()), (name, data));
        }
    }
    let response = finish(publisher).await;
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    assert!(response.ends_with("{\"published\":5,\"discarded\":1}"), "{response}");
    assert_eq!(server.hub.newest(), 5);
    // The body of an error is no event stream.
    let error = b"{\"error\":\"no such model\"}\n";
    let response = server.post("answer?split=events", "", error).await;
    assert_eq!(response.rest().await, "{\"published\":0,\"ignored\":1}");
}

#[tokio::test]
async fn events_before_an_invalid_one_are_published_and_counted() {
    let server = Server::start().await;
    for (block, status, detail) in [
        (format!("data: {}\n\n", "x".repeat(64 * 1024 + 1)), 413, "65536 bytes long"),
        (format!(": {}", "x".repeat(128 * 1024)), 413, "131072 bytes long"),
        (format!("event: {}\ndata\n\n", "n".repeat(256)), 400, "cannot be the name"),
        (format!("event: {}\ndata\n\n", "n".repeat(100_000)), 400, "n\\\" cannot be the name"),
        ("event: a\0b\ndata\n\n".to_owned(), 400, "without CR, LF and NUL"),
    ] {
        let body = format!("data: a\n\ndata: b\n\n{block}data: c\n\n");
        let response = server.post("t?split=events", "", body.as_bytes()).await;
        let body = assert_refused(response, status, detail).await;
        assert!(body.contains("This was event 3. 2 events were published before."), "{body}");
        assert!(body.len() < 2000, "{} bytes", body.len());
    }
    assert_eq!(server.hub.newest(), 10);
}

#[tokio::test]
async fn chunks_are_published_as_they_arrive_in_whole_characters() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=answer").await;
    stream.message().await;
    let mut publisher = upload(&server, "answer?split=chunks&name=word", "").await;
    for (chunk, expected) in [
        (&b"Hi "[..], Some("Hi ")),
        (b"\n", Some("\n")),
        (b"a\xe2\x82", Some("a")),
        (b"\xac\xf0", Some("€")),
        (b"\x9f", None),
        (b"\x98\x80", Some("😀")),
    ] {
        send_chunk(&mut publisher, chunk).await;
        if let Some(expected) = expected {
            let message = stream.message().await;
            assert_eq!((message.name.as_str(), message.data.as_str()), ("word", expected));
        }
    }
    let response = finish(publisher).await;
    assert!(response.ends_with("{\"published\":5,\"bytes\":12}"), "{response}");

    let long = "€".repeat(100_000);
    let response = server.post("long?split=chunks", "", long.as_bytes()).await;
    let response = response.rest().await;
    assert!(response.ends_with(",\"bytes\":300000}"), "{response}");
    let topic = "long".parse::<Topic>().unwrap();
    let events = server.hub.latest(&topic.into(), ALL).await.unwrap().events;
    assert!(events.iter().all(|event| event.data.len() <= 64 * 1024));
    assert_eq!(events.into_iter().map(|event| event.data).collect::<String>(), long);
}

#[tokio::test]
async fn text_before_bytes_that_are_no_text_is_published_and_counted() {
    let server = Server::start().await;
    for body in [&b"abc\xffd"[..], b"abc\xe2\x82"] {
        let response = server.post("t?split=chunks", "", body).await;
        let body = assert_refused(response, 400, "must be UTF-8").await;
        assert!(
            body.contains("This was chunk 2. 1 chunks were published before. They have 3 bytes.")
        );
        assert!(body.contains("\"published\":1") && body.contains("\"bytes\":3"), "{body}");
    }
    assert_eq!(server.hub.newest(), 2);
}

#[tokio::test]
async fn whole_events_and_chunks_of_a_vanished_publisher_are_published() {
    for (split, chunk) in [("events", &b"data: whole\n\ndata: half"[..]), ("chunks", b"whole\xe2")]
    {
        let server = Server::start().await;
        let mut stream = server.get("/events?topic=t").await;
        stream.message().await;
        let mut publisher = upload(&server, &format!("t?split={split}"), "").await;
        send_chunk(&mut publisher, chunk).await;
        assert_eq!(stream.message().await.data, "whole");
        drop(publisher);
        server.wait_for_metric("waterclock_connections_open", |open| open == 2).await;
        assert_eq!(server.hub.newest(), 1);
        assert_eq!(server.metric("waterclock_lines_open").await, 0);
    }
}

#[tokio::test]
async fn complete_lines_of_a_vanished_publisher_are_published() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=t").await;
    stream.message().await;
    let mut publisher = server.connect().await;
    let head =
        "PUT /events/t?split=lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    publisher.write_all(format!("{head}whole\nhal").as_bytes()).await.unwrap();
    assert_eq!(stream.message().await.data, "whole");
    drop(publisher);
    server.wait_for_metric("waterclock_connections_open", |open| open == 2).await;
    assert_eq!(server.hub.newest(), 1);
}

#[tokio::test]
async fn a_refused_event_gets_the_reason_and_reaches_nobody() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=%3E&last_event_id=earliest").await;
    stream.message().await;
    let long = "x".repeat(64 * 1024 + 1);
    assert_refused(server.post("t", "", long.as_bytes()).await, 413, "at most 65536 bytes").await;
    assert_refused(server.post("t", "", b"\xff\xfe").await, 400, "An event's data must be UTF-8.")
        .await;
    assert_refused(server.post("clock", "", b"x").await, 403, "Only the server itself").await;
    let topic = "x".repeat(256);
    for topic in ["a..b", ".", "..", "a.*", "%3E", "a%2Fb", "%20", "a%00", "%ff", &topic] {
        let response = server.post(topic, "", b"x").await;
        assert_eq!(response.status(), 400, "{topic}");
    }
    assert_refused(server.post("a.*", "", b"x").await, 400, "\\\"a.*\\\" is not a topic").await;
    for name in ["hello", "gap", "open", "error"] {
        let response = server.post(&format!("t?name={name}"), "", b"x").await;
        assert_refused(response, 400, "the name is reserved").await;
    }
    assert_refused(server.post("t?name=a%0ab", "", b"x").await, 400, "without CR, LF and NUL")
        .await;
    assert_eq!(server.post("t?name=", "", b"x").await.status(), 201);
    assert_eq!(stream.message().await.data, "x", "the only event");
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_publish_to_a_local_server() {
    let server = Server::start().await;
    for headers in [
        "Host: localhost\r\nOrigin: https://example.org\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: rebound.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n",
    ] {
        let response = server.post("t", headers, b"x").await;
        assert_refused(response, 403, "Only the server's own machine may publish").await;
    }
    assert_eq!(server.hub.newest(), 0);

    // A page with permission to read cannot publish, either.
    let access = Access { cors_origins: ["*".parse().unwrap()].into(), ..Access::default() };
    let server = Server::with_access(access).await;
    let headers = "Host: localhost\r\nOrigin: https://example.org\r\n";
    assert_eq!(server.post("t", headers, b"x").await.status(), 403);
    let headers = "Host: localhost\r\nOrigin: http://localhost\r\n";
    assert_eq!(server.post("t", headers, b"x").await.status(), 201);
}

#[tokio::test]
async fn only_public_topics_may_be_read_by_anyone() {
    let access = Access { public_topics: ["news.*".parse().unwrap()].into(), ..Access::default() };
    let server = Server::with_access(access).await;
    let proxied = [("Host", &b"clock.example"[..]), ("X-Forwarded-For", b"192.0.2.1")];
    for (query, status) in [
        ("topic=news.a", 200),
        ("topic=news.*", 200),
        ("topic=news.a&topic=news.b", 200),
        ("topic=news.%3E", 403),
        ("topic=news.a&topic=other", 403),
        ("topic=%3E", 403),
        ("", 403),
    ] {
        let response = server.request("GET", &format!("/events?{query}"), &proxied).await;
        assert_eq!(response.status(), status, "{query}");
    }
}

#[tokio::test]
async fn a_retry_with_the_same_key_gets_the_same_response() {
    let server = Server::start().await;
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
    assert_refused(
        post("t?name=n", "8e03978e", b"y").await,
        422,
        "for an event with another name or other data",
    )
    .await;
    assert_refused(
        post("t", "8e03978e", b"x").await,
        422,
        "for an event with another name or other data",
    )
    .await;
    assert_eq!(post("other", "8e03978e", b"y").await.status(), 201, "a key belongs to one topic");
    assert_eq!(server.hub.newest(), 2);
    for key in ["", "\"\"", &"x".repeat(256), "a\r\nIdempotency-Key: b", "ä"] {
        assert_refused(post("t", key, b"x").await, 400, "An idempotency key must be given once")
            .await;
    }
}

/// Returns the data of all events of a topic.
async fn data_of(server: &Server, topic: &str) -> Vec<String> {
    let topic = topic.parse::<Topic>().unwrap();
    let events = server.hub.latest(&topic.into(), ALL).await.unwrap().events;
    events.into_iter().map(|event| event.data).collect()
}

#[tokio::test]
async fn a_split_upload_that_is_sent_again_repeats_nothing() {
    let key = "Idempotency-Key: k\r\n";
    for (split, begin, body, published) in [
        ("lines", "a\n\nha", "a\n\nhalf\nd", &["a", "", "half", "d"][..]),
        (
            "events",
            "data:a\n\ndata:a\n\ndata:ha",
            "data:a\n\ndata:a\n\ndata:half\n\n",
            &["a", "a", "half"],
        ),
    ] {
        let server = Server::start().await;
        let mut stream = server.get("/events?topic=t").await;
        stream.message().await;
        let path = format!("t?split={split}");
        let mut publisher = upload(&server, &path, key).await;
        send_chunk(&mut publisher, begin.as_bytes()).await;
        for data in &published[..2] {
            assert_eq!(stream.message().await.data, *data);
        }
        drop(publisher);
        for _ in 0..2 {
            let response = server.post(&path, key, body.as_bytes()).await;
            let expected = format!("{{\"published\":{}}}", published.len());
            assert_eq!(response.rest().await, expected, "{split}");
            assert_eq!(data_of(&server, "t").await, published);
        }
        // The same parts under another key, and without one, are new.
        for headers in ["Idempotency-Key: other\r\n", ""] {
            assert_eq!(server.post(&path, headers, body.as_bytes()).await.status(), 200);
        }
        assert_eq!(data_of(&server, "t").await.len(), 3 * published.len());
    }
}

#[tokio::test]
async fn many_lines_that_are_sent_again_are_stored_once() {
    let server = Server::start().await;
    let lines: Vec<_> = (0..3000).map(|number| number.to_string()).collect();
    let key = "Idempotency-Key: k\r\n";
    for count in [1000, 3000, 3000] {
        let response =
            server.post("t?split=lines", key, lines[..count].join("\n").as_bytes()).await;
        assert_eq!(response.rest().await, format!("{{\"published\":{count}}}"));
    }
    assert_eq!(data_of(&server, "t").await, lines);
}

#[tokio::test]
async fn chunks_that_are_sent_again_repeat_nothing_wherever_they_end() {
    let server = Server::start().await;
    let key = "Idempotency-Key: k\r\n";
    let mut stream = server.get("/events?topic=t").await;
    stream.message().await;
    let mut publisher = upload(&server, "t?split=chunks", key).await;
    for (chunk, expected) in [(&b"one "[..], "one "), (b"two \xe2", "two "), (b"\x82\xac", "€")] {
        send_chunk(&mut publisher, chunk).await;
        assert_eq!(stream.message().await.data, expected);
    }
    drop(publisher);
    let whole = "one two € three";
    let one_by_one: Vec<_> = whole.as_bytes().chunks(1).collect();
    for chunks in [
        // Shorter than what is published.
        vec![&b"one t"[..]],
        vec![b"o", b"ne two \xe2", b"\x82\xac", b" three"],
        vec![whole.as_bytes()],
        one_by_one,
    ] {
        let mut publisher = upload(&server, "t?split=chunks", key).await;
        for chunk in &chunks {
            send_chunk(&mut publisher, chunk).await;
        }
        let response = finish(publisher).await;
        let expected = format!("\"bytes\":{}}}", chunks.concat().len());
        assert!(response.ends_with(&expected), "{response}");
        let so_far = data_of(&server, "t").await.concat();
        assert!(so_far == whole || so_far == "one two €", "{so_far}");
    }
    assert_eq!(data_of(&server, "t").await.concat(), whole);
}

#[tokio::test]
async fn another_body_with_the_key_of_an_upload_is_refused_where_it_differs() {
    let server = Server::start().await;
    let post = async |path: &str, body: &str| {
        server.post(path, "Idempotency-Key: k\r\n", body.as_bytes()).await
    };
    assert_eq!(post("t?split=lines", "a\nb\nc\n").await.status(), 200);
    let body = assert_refused(post("t?split=lines", "a\nB\nC\n").await, 422, "other data").await;
    assert!(body.contains("1 lines were published before."), "{body}");
    let response = post("t?split=lines&name=n", "a\n").await;
    assert_refused(response, 422, "another name").await;
    assert_eq!(data_of(&server, "t").await, ["a", "b", "c"]);

    assert_eq!(post("u?split=chunks", "abc").await.status(), 200);
    let body = assert_refused(post("u?split=chunks", "abd").await, 422, "other data").await;
    assert!(body.contains("\"bytes\":0"), "{body}");
    assert_refused(post("u?split=chunks&name=n", "abc").await, 422, "another name").await;
    assert_eq!(post("u?split=chunks", "abcd").await.status(), 200);
    assert_eq!(data_of(&server, "u").await, ["abc", "d"]);
    // A single event has a key of its own.
    assert_eq!(post("u", "abc").await.status(), 201);
}

#[tokio::test]
async fn an_upload_that_is_sent_again_ends_the_first_one_at_once() {
    for split in ["lines", "events", "chunks"] {
        let server = Server::start().await;
        let mut stream = server.get("/events?topic=t").await;
        stream.message().await;
        let (path, key) = (format!("t?split={split}"), "Idempotency-Key: k\r\n");
        // The connection of the first one hangs.
        let mut first = upload(&server, &path, key).await;
        send_chunk(&mut first, b"data: a\n\n").await;
        stream.message().await;
        let again = server.post(&path, key, b"data: a\n\ndata: b\n\n").await;
        assert_eq!(again.status(), 200, "{split}");
        let mut response = [0; 12];
        first.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"HTTP/1.1 409");
    }
}

#[tokio::test]
async fn a_key_in_flight_gets_409() {
    let server = Server::start().await;
    let mut slow = server.connect().await;
    let head = b"POST /events/t HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\n\
                 Content-Length: 1\r\nConnection: close\r\n\r\n";
    slow.write_all(head).await.unwrap();
    let again = async || server.post("t", "Idempotency-Key: k\r\n", b"x").await;
    // Until the server has seen the slow request, the probe may be the first one. It leaves without
    // its body, so it does not publish.
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
    let refused = again().await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_refused(refused, 409, "An event with this `Idempotency-Key` is being published").await;
    slow.write_all(b"x").await.unwrap();
    let mut response = String::new();
    slow.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
    assert_eq!(again().await.status(), 201);
    assert_eq!(server.hub.newest(), 1);
}

#[tokio::test]
async fn topics_beyond_the_limit_get_507() {
    let server = Server::start_with(Settings { max_topics: 1, ..Settings::default() }).await;
    assert_eq!(server.post("first", "", b"x").await.status(), 201);
    assert_refused(
        server.post("second", "", b"x").await,
        507,
        "The limit on topics that have events is reached",
    )
    .await;
    assert_eq!(server.post("first", "", b"x").await.status(), 201);
}

/// Sends a `DELETE` to a path below `/events/`.
async fn delete(server: &Server, path: &str, headers: &str) -> TestResponse {
    server.send(format!("DELETE /events/{path} HTTP/1.0\r\n{headers}\r\n").as_bytes()).await
}

#[tokio::test]
async fn a_deletion_removes_what_is_kept_of_a_topic() {
    let server = Server::start_with(Settings { max_topics: 2, ..Settings::default() }).await;
    for topic in ["a", "b", "a", "a"] {
        server.publish_to(topic, topic).await;
    }
    let mut live = server.get("/events?topic=a&topic=b").await;
    assert_eq!(live.message().await.name, "hello");
    let response = delete(&server, "a", "").await;
    assert_eq!(
        (response.status(), response.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(response.rest().await, r#"{"deleted":3}"#);
    assert_eq!(delete(&server, "a", "").await.rest().await, r#"{"deleted":0}"#, "again");
    assert_eq!(delete(&server, "never", "").await.rest().await, r#"{"deleted":0}"#);

    let behind = format!("/events?topic=a&topic=b&last_event_id={}", event_id(1));
    let mut behind = server.get(&behind).await;
    assert_eq!(behind.message().await.name, "hello");
    assert_eq!(behind.message().await.data, "b");
    let gap = behind.message().await;
    assert_eq!((gap.name.as_str(), gap.last_event_id), ("gap", event_id(2)));
    assert!(gap.data.contains("expired"), "{}", gap.data);
    let poll = server.get("/poll?topic=a&last_event_id=earliest").await.rest().await;
    assert!(poll.starts_with(r#"{"events":[],"#), "{poll}");

    // Its place is free for another topic, and the numbers go on.
    assert_eq!(server.post("c", "", b"c").await.status(), 201);
    server.publish_to("b", "later").await;
    let next = live.message().await;
    assert_eq!((next.data.as_str(), next.last_event_id), ("later", event_id(6)));
    assert_eq!(server.hub.newest(), 6);
}

#[tokio::test]
async fn a_deletion_needs_permission_to_publish_and_means_all_events() {
    let server = Server::start().await;
    server.publish_to("t", "x").await;
    assert_refused(delete(&server, "clock", "").await, 403, "Only the server itself").await;
    let foreign = "Host: localhost\r\nOrigin: https://example.org\r\n";
    let why = "Only the server's own machine may publish";
    for headers in [foreign, REMOTE] {
        assert_refused(delete(&server, "t", headers).await, 403, why).await;
    }
    assert_refused(delete(&server, "t.*", "").await, 400, "is not a topic").await;
    for query in ["before=1", "last_event_id=x", "limit=1", "name=n", "topic=u"] {
        let response = delete(&server, &format!("t?{query}"), "").await;
        assert_refused(response, 400, "There is no parameter").await;
    }
    assert_eq!(delete(&server, "t?_=1", "").await.rest().await, r#"{"deleted":1}"#);
}

/// Begins to upload lines, and publishes the first.
async fn begin_upload(server: &Server, query: &str) -> tokio::net::TcpStream {
    let mut upload = server.connect().await;
    let head = format!(
        "PUT /events/answer?split=lines&{query} HTTP/1.1\r\nHost: localhost\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\none\n\r\n"
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    upload
}

#[tokio::test]
async fn an_upload_that_nobody_reads_any_more_is_stopped_and_told_so() {
    let server = Server::start().await;
    let mut reader = server.get("/events?topic=answer").await;
    reader.message().await;
    let mut pattern = server.get("/events?topic=*").await;
    pattern.message().await;
    let mut upload = begin_upload(&server, "while=read&patience=1").await;
    for stream in [&mut reader, &mut pattern] {
        assert_eq!(stream.message().await.data, "one");
    }
    drop(reader);
    // The producer goes on, until it gets the answer.
    let mut response = vec![0; 4096];
    let length = tokio::time::timeout(DEADLINE, upload.read(&mut response)).await.unwrap().unwrap();
    let response = String::from_utf8_lossy(&response[..length]).into_owned();
    assert!(response.starts_with("HTTP/1.1 409 Conflict"), "{response}");
    let why = "as `while=read` asks: no reader has named the topic for 1 s. 1 lines were published";
    assert!(response.contains(why), "{response}");
    assert!(response.contains(r#""published":1,"stopped":"unread""#), "{response}");
}

#[tokio::test]
async fn an_upload_goes_on_while_its_topic_is_read() {
    let server = Server::start().await;
    let mut reader = server.get("/events?topic=answer").await;
    reader.message().await;
    let mut upload = begin_upload(&server, "while=read").await;
    assert_eq!(reader.message().await.data, "one");
    upload.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    let mut response = String::new();
    upload.read_to_string(&mut response).await.unwrap();
    assert!(response.ends_with("{\"published\":2}"), "{response}");
    for (query, detail) in [
        ("while=read", "so it needs `split`"),
        ("split=lines&while=watched", "`while` must be `read`"),
        ("split=lines&patience=5", "which needs `while=read`"),
        ("split=lines&while=read&patience=0", "from 1 to 3600"),
        ("split=lines&while=read&patience=x", "from 1 to 3600"),
        ("split=lines&unread=5", "Use `while=read`"),
    ] {
        assert_refused(server.post(&format!("t?{query}"), "", b"x").await, 400, detail).await;
    }
}

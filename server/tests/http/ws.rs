//! The WebSocket at `GET /ws`, frame by frame. Tests that it shares with the other transports are
//! in `transports`.

use std::{num::NonZeroU32, sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};
use server::auth::Access;
use waterclock::transport::Transport;

use crate::{
    readers::{Http1Connection, ReadRequest},
    support::{REMOTE, Server, Settings, TIME, event_id},
    tokens,
};

/// Maximum length of a message, in bytes.
const MAX_MESSAGE: usize = 6 * 65_536 + 4096;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Flag of the last frame of a message.
const FIN: u8 = 0x80;

fn request(server: &Server, query: &str) -> ReadRequest {
    ReadRequest::new(server, Transport::WebSocket, query)
}

/// Encodes a frame of a client, with a mask (RFC 6455, 5.2).
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = unmasked(first_byte, payload);
    frame[1] |= 0x80;
    let at = frame.len() - payload.len();
    for (byte, mask) in frame[at..].iter_mut().zip(MASK.into_iter().cycle()) {
        *byte ^= mask;
    }
    frame.splice(at..at, MASK);
    frame
}

/// Encodes a frame without a mask, which a client must not send.
fn unmasked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match payload.len() {
        length @ 0..126 => frame.push(u8::try_from(length).unwrap()),
        length @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A WebSocket client that does nothing by itself, except that it answers pings while it waits for
/// a message.
pub struct WebSocketClient(Http1Connection);

impl WebSocketClient {
    pub async fn handshake(request: ReadRequest) -> Self {
        Self(request.handshake().await)
    }

    /// Performs the handshake, and reads the hello.
    async fn open(request: ReadRequest) -> Self {
        let mut socket = Self::handshake(request).await;
        let hello = socket.receive().await;
        assert!(hello["hello"].is_object(), "{hello}");
        socket
    }

    /// Returns the first byte and the payload of the next frame, or `None` at the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.0.take(2).await?;
        let length = match head[1] {
            126 => {
                let bytes = self.0.take(2).await?.try_into().unwrap();
                u64::from(u16::from_be_bytes(bytes))
            }
            127 => u64::from_be_bytes(self.0.take(8).await?.try_into().unwrap()),
            length => u64::from(length),
        };
        Some((head[0], self.0.take(usize::try_from(length).unwrap()).await?))
    }

    /// Returns the text of the next message. Answers pings before it.
    async fn text(&mut self) -> String {
        let (first_byte, payload) = loop {
            match self.frame().await.expect("a message") {
                (first_byte, payload) if first_byte == FIN | PING => {
                    self.send(FIN | PONG, &payload).await;
                }
                frame => break frame,
            }
        };
        let text = String::from_utf8_lossy(&payload).into_owned();
        assert_eq!(first_byte, FIN | TEXT, "{text:?}");
        text
    }

    /// Returns the next message.
    pub async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    async fn send(&mut self, first_byte: u8, payload: &[u8]) {
        self.0.send(&frame(first_byte, payload)).await;
    }

    pub async fn send_json(&mut self, message: &Value) {
        self.send(FIN | TEXT, message.to_string().as_bytes()).await;
    }

    async fn publish(&mut self, topic: &str, data: &str) {
        self.send_json(&json!({"publish": {"topic": topic, "data": data}})).await;
    }

    /// Publishes, and returns the response. No event may arrive before it.
    async fn publish_and_receive(&mut self, message: Value) -> Value {
        self.send_json(&json!({"publish": message})).await;
        self.receive().await
    }

    /// Returns the status and the detail of the next message, which must be a problem.
    async fn receive_problem(&mut self) -> (u64, String) {
        let message = self.receive().await;
        let problem = &message["problem"];
        let (status, detail) = (problem["status"].as_u64(), problem["detail"].as_str());
        let (status, detail) = status.zip(detail).unwrap_or_else(|| panic!("{message}"));
        assert!(problem["title"].is_string(), "{message}");
        assert_eq!(message.as_object().unwrap().len(), 1, "{message}");
        (status, detail.to_owned())
    }

    /// Returns the code and the reason of the close, which must be the next and the last frame.
    async fn receive_close(mut self) -> (u16, String) {
        let (first_byte, payload) = self.frame().await.expect("a close");
        assert_eq!(first_byte, FIN | CLOSE, "{:?}", String::from_utf8_lossy(&payload));
        self.send(FIN | CLOSE, &payload[..2]).await;
        assert_eq!(self.frame().await, None);
        assert!(!self.0.was_reset, "after a reset, a client may not see the reason");
        let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
        (u16::from_be_bytes([payload[0], payload[1]]), reason)
    }

    /// Checks that the stream continues: a published event is the next message.
    async fn assert_open(&mut self, server: &Server) {
        server.publish_to("t", "still open").await;
        let message = self.receive().await;
        assert_eq!(message["event"]["data"], "still open", "{message}");
    }
}

#[tokio::test]
async fn a_request_without_a_handshake_gets_426() {
    let server = Server::start().await;
    let complete = String::from_utf8(request(&server, "").encode()).unwrap();
    let mut without = Vec::from(["GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()]);
    for header in ["Upgrade", "Connection", "Sec-WebSocket-Version"] {
        let lines = complete.split_inclusive("\r\n").filter(|line| !line.starts_with(header));
        without.push(lines.collect());
    }
    without.push(complete.replace("Version: 13", "Version: 12"));
    for request in without {
        let response = server.send(request.as_bytes()).await;
        assert_eq!(response.status(), 426, "{request}");
        assert_eq!(response.header("upgrade"), Some("websocket"));
        assert_eq!(response.header("sec-websocket-version"), Some("13"));
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
    let response = server.request("POST", "/ws", &[("Content-Length", b"0")]).await;
    assert_eq!((response.status(), response.header("allow")), (405, Some("GET,HEAD")));
    // An invalid query is refused as for other transports.
    let refused = request(&server, "limit=0").expect_refused().await;
    assert_eq!(refused.status, 400);
    assert_eq!(server.metric("waterclock_streams_total").await, 0);
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_open_a_websocket() {
    let access = Access {
        public_topics: ["t".parse().unwrap()].into(),
        cors_origins: ["https://app.example".parse().unwrap()].into(),
        ..Access::default()
    };
    let server = Server::with_access(access).await;
    for origin in [
        "https://evil.example",
        "http://localhost:3001",
        "https://app.example.evil.example",
        "http://app.example",
        "null",
        "",
    ] {
        let refused = request(&server, "topic=t")
            .with_headers(&format!("Origin: {origin}\r\n"))
            .expect_refused()
            .await;
        assert_eq!(refused.status, 403, "{origin}");
        let detail = refused.problem["detail"].as_str().unwrap();
        let expected = format!("A page of the origin {origin:?} may not open a WebSocket here");
        assert!(detail.starts_with(&expected), "{detail}");
    }
    let two = "Origin: http://localhost\r\nOrigin: https://evil.example\r\n";
    assert_eq!(request(&server, "topic=t").with_headers(two).expect_refused().await.status, 403);
    for headers in [
        "",
        "Origin: http://localhost\r\n",
        "Host: events.example:8080\r\nOrigin: https://events.example:8080\r\n",
        "Origin: https://app.example\r\n",
    ] {
        WebSocketClient::open(request(&server, "topic=t").with_headers(headers))
            .await
            .assert_open(&server)
            .await;
    }
}

#[tokio::test]
async fn a_page_of_a_permitted_origin_cannot_publish() {
    for allowed in ["https://app.example", "*"] {
        let access =
            Access { cors_origins: [allowed.parse().unwrap()].into(), ..Access::default() };
        let server = Server::with_access(access).await;
        let page = request(&server, "topic=t").with_headers("Origin: https://app.example\r\n");
        let mut socket = WebSocketClient::open(page).await;
        socket.publish("t", "x").await;
        let (status, detail) = socket.receive_problem().await;
        assert_eq!(status, 403);
        assert!(detail.contains("it comes from a page of another origin"), "{detail}");
        socket.assert_open(&server).await;
        assert_eq!(server.hub.newest(), 1);
    }
}

#[tokio::test]
async fn a_page_of_a_permitted_origin_cannot_publish_with_a_cookie() {
    let cors_origins = ["https://app.example".parse().unwrap()].into();
    let access = Access { cors_origins, ..tokens::access() };
    let server = Server::with_access(access).await;
    let claims = json!({"exp": tokens::now() + 60.0, "publish": [">"], "subscribe": [">"]});
    let cookie = format!("{REMOTE}Cookie: waterclock_token={}\r\n", tokens::token(claims));
    for (origin, status) in [("Origin: https://app.example\r\n", Some(403)), ("", None)] {
        let mut socket = WebSocketClient::open(
            request(&server, "topic=t").with_headers(&format!("{cookie}{origin}")),
        )
        .await;
        let response = socket.publish_and_receive(json!({"topic": "other", "data": "x"})).await;
        assert_eq!(response["problem"]["status"].as_u64(), status, "{response}");
        socket.assert_open(&server).await;
    }
}

#[tokio::test]
async fn messages_have_the_documented_form() {
    let server = Server::start_with(Settings { retain_count: 2, ..Settings::default() }).await;
    let mut socket = WebSocketClient::handshake(request(&server, "limit=2")).await;
    assert_eq!(
        socket.text().await,
        format!(
            "{{\"hello\":{{\"time\":\"{TIME}\",\"connection\":1,\"heartbeat_ms\":3600000,\
             \"retry_ms\":2000,\"oldest\":null,\"newest\":null}},\"id\":\"{}.0\"}}",
            event_id(0)
        )
    );
    let event = |sequence| {
        let id = event_id(sequence);
        format!(
            "{{\"id\":\"{id}\",\"topic\":\"clock\",\"name\":\"message\",\"data\":\"a\\nb\",\
             \"time\":\"{TIME}\"}}"
        )
    };
    for sequence in [1, 2] {
        server.publish("a\nb").await;
        let expected = format!(
            "{{\"event\":{},\"id\":\"{}.{sequence}\"}}",
            event(sequence),
            event_id(sequence)
        );
        assert_eq!(socket.text().await, expected);
    }
    assert_eq!(socket.text().await, "{\"end\":{\"sent\":2}}");
    assert_eq!(socket.receive_close().await, (1000, "end".to_owned()));

    let mut socket = WebSocketClient::handshake(request(&server, "").after("x")).await;
    let hello = socket.receive().await;
    assert_eq!(hello["hello"]["connection"], 2);
    assert_eq!(hello["id"], Value::Null, "the client keeps its own cursor until the gap arrives");
    let gap = "{\"gap\":{\"reason\":\"malformed\",\"cursor\":\"x\"}";
    assert_eq!(socket.text().await, format!("{gap},\"id\":\"{}\"}}", event_id(2)));
    server.publish("a\nb").await;
    assert_eq!(socket.text().await, format!("{{\"event\":{}}}", event(3)));
    server.stop.begin();
    let goodbye = socket.receive().await;
    let retry = goodbye["goodbye"]["retry_ms"].as_u64().unwrap();
    assert_eq!(goodbye, json!({"goodbye": {"reason": "draining", "retry_ms": retry}}));
    assert!((2000..4000).contains(&retry), "spread: {retry}");
    assert_eq!(socket.receive_close().await, (1001, "draining".to_owned()));
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_publisher_gets_a_response_and_the_event() {
    let server = Server::start().await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
    let mut reader = server.get("/events?topic=t&format=json").await;
    reader.message().await;
    for (sequence, name, data) in [(1, None, "x"), (2, Some("n"), "two\nlines \u{0} ü")] {
        let mut message = json!({"topic": "t", "data": data});
        if let Some(name) = name {
            message["name"] = json!(name);
        }
        socket.send_json(&json!({"publish": message})).await;
        let event = json!({
            "id": event_id(sequence),
            "topic": "t",
            "name": name.unwrap_or("message"),
            "data": data,
            "time": TIME,
        });
        let (first, second) = (socket.receive().await, socket.receive().await);
        let expected = [json!({"event": event}), json!({"published": event})];
        assert!(expected.contains(&first) && expected.contains(&second) && first != second);
        let message = reader.message().await;
        assert_eq!(serde_json::from_str::<Value>(&message.data).unwrap(), event);
    }
    socket.assert_open(&server).await;
}

#[tokio::test]
async fn a_retry_with_the_same_key_is_published_once() {
    let server = Server::start().await;
    let mut socket = WebSocketClient::open(request(&server, "topic=other")).await;
    let message = json!({"topic": "t", "data": "x", "key": "k"});
    let first = socket.publish_and_receive(message.clone()).await;
    assert_eq!(first["published"]["id"], event_id(1));
    assert_eq!(socket.publish_and_receive(message).await, first);
    // The key also applies to other connections, and to HTTP.
    let mut other = WebSocketClient::open(request(&server, "topic=other")).await;
    assert_eq!(
        other.publish_and_receive(json!({"topic": "t", "data": "x", "key": "k"})).await,
        first
    );
    let response = server.post("t", "Idempotency-Key: k\r\n", b"x").await.rest().await;
    assert_eq!(serde_json::from_str::<Value>(&response).unwrap(), first["published"]);
    assert_eq!(server.hub.newest(), 1);

    socket.send_json(&json!({"publish": {"topic": "t", "data": "y", "key": "k"}})).await;
    let (status, detail) = socket.receive_problem().await;
    assert_eq!(status, 422);
    assert!(detail.contains("was used for an event with another name or other data"), "{detail}");
    let no_key = json!({"topic": "t", "data": "x"});
    assert_eq!(socket.publish_and_receive(no_key).await["published"]["id"], event_id(2));
}

#[tokio::test]
async fn responses_keep_the_order_of_the_messages() {
    let server = Server::start().await;
    let mut socket = WebSocketClient::open(request(&server, "topic=other")).await;
    // This exceeds the number of publishes that may be in flight.
    let count = 1000;
    let mut messages = Vec::new();
    for number in 0..count {
        // Every third message is refused at once.
        let topic = if number % 3 == 0 { format!("..{number}") } else { "t".to_owned() };
        let message = json!({"publish": {"topic": topic, "data": number.to_string()}});
        messages.extend(frame(FIN | TEXT, message.to_string().as_bytes()));
    }
    socket.0.send(&messages).await;
    let mut published = 0;
    for number in 0..count {
        let response = socket.receive().await;
        if number % 3 == 0 {
            let detail = response["problem"]["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(&format!("\"..{number}\"")), "{number}: {response}");
        } else {
            published += 1;
            assert_eq!(response["published"]["data"], number.to_string(), "{response}");
            assert_eq!(response["published"]["id"], event_id(published), "{response}");
        }
    }
}

#[tokio::test]
async fn a_refused_event_gets_a_problem_and_the_connection_stays_open() {
    let server = Server::start().await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
    let publish = |message: Value| json!({"publish": message}).to_string();
    let long = "x".repeat(65_537);
    let key = "k".repeat(256);
    let not_valid = "The message is not valid: ";
    for (text, status, detail) in [
        (publish(json!({"topic": "clock", "data": ""})), 403, "Only the server itself publishes"),
        (publish(json!({"topic": "a..b", "data": ""})), 400, "\"a..b\" is not a topic"),
        (publish(json!({"topic": "a.*", "data": ""})), 400, "\"a.*\" is not a topic"),
        (publish(json!({"topic": "", "data": ""})), 400, "\"\" is not a topic"),
        (publish(json!({"topic": long, "data": ""})), 400, "x\" is not a topic"),
        (publish(json!({"topic": "t", "data": "", "key": "a\tb"})), 400, "control characters"),
        (publish(json!({"topic": "t", "data": "", &long: ""})), 400, "expected one of `topic`"),
        (publish(json!({"topic": "t", "data": "", "name": "gap"})), 400, "the name is reserved"),
        (publish(json!({"topic": "t", "data": "", "name": "a\nb"})), 400, "without CR, LF and NUL"),
        (publish(json!({"topic": "t", "data": long})), 413, "at most 65536 bytes long"),
        (publish(json!({"topic": "t", "data": "", "key": ""})), 400, "1 to 255"),
        (publish(json!({"topic": "t", "data": "", "key": key})), 400, "1 to 255"),
        (publish(json!({"topic": "t", "data": "", "time": "x"})), 400, "unknown field `time`"),
        (publish(json!({"topic": "t"})), 400, "missing field `data`"),
        (publish(json!({"data": "x"})), 400, "missing field `topic`"),
        (publish(json!({"topic": "t", "data": 1})), 400, not_valid),
        (publish(json!({"topic": "t", "data": null})), 400, not_valid),
        (publish(json!(null)), 400, not_valid),
        (json!({"subscribe": {"topic": "t"}}).to_string(), 400, "unknown variant `subscribe`"),
        (json!({"publish": {"topic": "t", "data": ""}, "x": 1}).to_string(), 400, not_valid),
        ("{}".to_owned(), 400, not_valid),
        ("[]".to_owned(), 400, not_valid),
        ("publish".to_owned(), 400, not_valid),
        (String::new(), 400, not_valid),
        ("{\"publish\":{\"topic\":\"t\",\"data\":\"".to_owned(), 400, not_valid),
        (format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), 400, not_valid),
        (" ".repeat(MAX_MESSAGE), 400, not_valid),
    ] {
        socket.send(FIN | TEXT, text.as_bytes()).await;
        let (found_status, found) = socket.receive_problem().await;
        let text: String = text.chars().take(80).collect();
        assert_eq!(found_status, status, "{text}: {found}");
        assert!(found.contains(detail), "{text}: {found}");
        assert!(found.len() < 2000, "{text}: {} bytes", found.len());
    }
    assert_eq!(server.hub.newest(), 0, "nothing was published");
    // The largest permitted data, with escapes, in fragments.
    let data = "\u{1}".repeat(65_536);
    let message = json!({"publish": {"topic": "other", "data": data}}).to_string();
    let mut chunks = message.as_bytes().chunks(100_000).peekable();
    let mut first_byte = TEXT;
    while let Some(chunk) = chunks.next() {
        let fin = if chunks.peek().is_none() { FIN } else { 0 };
        socket.send(fin | first_byte, chunk).await;
        first_byte = 0;
        socket.send(FIN | PONG, b"unsolicited").await;
    }
    assert_eq!(socket.receive().await["published"]["data"], data);
    socket.assert_open(&server).await;
}

#[tokio::test]
async fn a_client_without_permission_to_publish_has_a_small_message_limit() {
    let access = Access { public_topics: ["t".parse().unwrap()].into(), ..Access::default() };
    let server = Server::with_access(access).await;
    // The first fragments of messages that are never completed.
    for (bytes, is_accepted) in [(4096, true), (4097, false), (100_000, false)] {
        let mut socket =
            WebSocketClient::open(request(&server, "topic=t").with_headers(REMOTE)).await;
        socket.send(TEXT, &vec![b' '; bytes]).await;
        if is_accepted {
            socket.send(FIN | PING, b"").await;
            assert_eq!(socket.frame().await, Some((FIN | PONG, vec![])), "{bytes}");
        } else {
            let reason =
                "without permission to publish, a message has at most 4,096 bytes".to_owned();
            assert_eq!(socket.receive_close().await, (1009, reason), "{bytes}");
        }
    }
}

#[tokio::test]
async fn a_publish_without_permission_gets_a_problem() {
    let public = || ["t".parse().unwrap()].into();
    let access = Access { public_topics: public(), ..Access::default() };
    let server = Server::with_access(access).await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t").with_headers(REMOTE)).await;
    socket.publish("t", "x").await;
    let (status, detail) = socket.receive_problem().await;
    assert_eq!(status, 403);
    assert!(detail.contains("it came through a proxy"), "{detail}");
    socket.assert_open(&server).await;

    let access = Access { public_topics: public(), ..tokens::access() };
    let server = Server::with_access(access).await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t").with_headers(REMOTE)).await;
    socket.publish("t", "x").await;
    let (status, detail) = socket.receive_problem().await;
    assert_eq!(status, 401);
    assert!(detail.starts_with("A token is required"), "{detail}");

    let token = tokens::bearer(&tokens::token(json!({"publish": ["orders.*"]})));
    let mut socket = WebSocketClient::open(request(&server, "topic=t").with_headers(&token)).await;
    socket.publish("t", "x").await;
    let (status, detail) = socket.receive_problem().await;
    assert_eq!(status, 403);
    let expected = "The token's `publish` does not list `t`. It lists `orders.*`. Send one that does \
                    in `Authorization`.";
    assert_eq!(detail, expected);
    socket.publish("orders.eu", "x").await;
    assert_eq!(socket.receive().await["published"]["topic"], "orders.eu");
    assert_eq!(server.hub.newest(), 1);
}

#[tokio::test]
async fn an_expired_token_publishes_no_more() {
    let access = Access { public_topics: ["t".parse().unwrap()].into(), ..tokens::access() };
    let server = Server::with_access(access).await;
    let expires = tokens::now() + 60.0 - tokens::LEEWAY;
    let token = tokens::token(json!({"exp": expires, "publish": ["orders"]}));
    let mut socket =
        WebSocketClient::open(request(&server, "topic=t").with_headers(&tokens::bearer(&token)))
            .await;
    server.now.fetch_add(59_999, Ordering::Relaxed);
    socket.publish("orders", "x").await;
    assert_eq!(socket.receive().await["published"]["data"], "x");
    server.now.fetch_add(1, Ordering::Relaxed);
    socket.publish("orders", "y").await;
    let (status, detail) = socket.receive_problem().await;
    assert_eq!(status, 401);
    let expected = "The permission to publish expired at 2026-11-22T07:01:00.000Z. Send a new \
                    token in `Authorization`.";
    assert_eq!(detail, expected);
    assert_eq!(server.hub.newest(), 1);
    // The stream of a public topic continues.
    socket.assert_open(&server).await;
}

#[tokio::test]
async fn an_expired_token_ends_its_stream() {
    let server = Server::with_access(tokens::access()).await;
    let token =
        tokens::token(json!({"exp": tokens::now() + 0.2 - tokens::LEEWAY, "subscribe": ["t"]}));
    let mut socket =
        WebSocketClient::open(request(&server, "topic=t").with_headers(&tokens::bearer(&token)))
            .await;
    assert_eq!(socket.receive().await["goodbye"]["reason"], "expired");
    assert_eq!(socket.receive_close().await, (3000, "expired".to_owned()));
    server.wait_for_metric("waterclock_streams_ended_total{reason=\"expired\"}", |n| n == 1).await;
}

#[tokio::test]
async fn too_many_publishes_get_a_429_problem() {
    let access = tokens::access();
    let max_publishes = NonZeroU32::MIN;
    let server =
        Server::start_with(Settings { access, max_publishes, ..Settings::default() }).await;
    let token = tokens::token(json!({"publish": ["t"], "subscribe": ["other"]}));
    let mut socket = WebSocketClient::open(
        request(&server, "topic=other").with_headers(&tokens::bearer(&token)),
    )
    .await;
    // The rate limit is reached sooner or later, depending on the speed.
    loop {
        let response = socket.publish_and_receive(json!({"topic": "t", "data": ""})).await;
        if response["problem"]["status"] == 429 {
            break;
        }
        assert!(response["published"].is_object(), "{response}");
    }
    server.publish_to("other", "x").await;
    assert_eq!(socket.receive().await["event"]["data"], "x");
}

#[tokio::test]
async fn protocol_violations_are_closed_with_their_code() {
    let server = Server::start().await;
    let too_long = vec![b' '; MAX_MESSAGE + 1];
    let mut fragments = frame(TEXT, &too_long[..200_000]);
    fragments.extend(frame(FIN, &too_long[200_000..]));
    let mut many = frame(TEXT, b" ");
    for _ in 0..=(MAX_MESSAGE / 1000) {
        many.extend(frame(0, &too_long[..1000]));
    }
    let mut announced = frame(FIN | TEXT, &too_long);
    announced[2..10].fill(0x7f);
    announced.truncate(14);
    let (split, violation) = (frame(TEXT, b"\xc3"), "this violates RFC 6455");
    let text = br#"{"publish":{"topic":"t","data":""}}"#;
    let (long, not_utf_8) = ("a message has at most 397,312 bytes", "a text message must be UTF-8");
    for (name, bytes, code, reason) in [
        ("a too long frame", frame(FIN | TEXT, &too_long), 1009, long),
        ("two too long fragments", fragments, 1009, long),
        ("many short fragments", many, 1009, long),
        ("the head of an endless frame", announced, 1009, long),
        (
            "a binary frame",
            frame(FIN | BINARY, text),
            1003,
            "only text messages with JSON are supported",
        ),
        ("invalid UTF-8", frame(FIN | TEXT, b"\"\xff\""), 1007, not_utf_8),
        ("half a character", frame(FIN | TEXT, b"\xc3"), 1007, not_utf_8),
        ("half a character, twice", [split.clone(), frame(FIN, b"\xc3")].concat(), 1007, not_utf_8),
        ("a missing mask", unmasked(FIN | TEXT, text), 1002, violation),
        ("a reserved bit", frame(FIN | 0x40 | TEXT, text), 1002, violation),
        ("a reserved opcode", frame(FIN | 3, text), 1002, violation),
        ("a continuation of nothing", frame(FIN, text), 1002, violation),
        (
            "a new message within another",
            [frame(TEXT, b"{"), frame(TEXT, b"}")].concat(),
            1002,
            violation,
        ),
        ("a ping in fragments", frame(PING, b""), 1002, violation),
        ("a too long ping", frame(FIN | PING, &[0; 126]), 1002, violation),
    ] {
        let refused = "waterclock_streams_ended_total{reason=\"refused\"}";
        let before = server.metric(refused).await;
        let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
        socket.0.send(&bytes).await;
        assert_eq!(socket.receive_close().await, (code, reason.to_owned()), "{name}");
        server.wait_for_streams(0).await;
        assert_eq!(server.metric(refused).await, before + 1, "{name}");
    }
    assert_eq!(server.hub.newest(), 0);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed() {
    let heartbeat = Duration::from_millis(100);
    let server = Server::start_with(Settings { heartbeat, ..Settings::default() }).await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
    let mut pings = 0;
    let close = loop {
        let (first_byte, payload) = socket.frame().await.unwrap();
        match first_byte & 0x0f {
            PING => pings += 1,
            TEXT => {}
            _ => break payload,
        }
    };
    assert_eq!(pings, 3);
    assert_eq!(close, [&3008_u16.to_be_bytes()[..], b"no pong"].concat());
    drop(socket);
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_and_gets_heartbeats() {
    let heartbeat = Duration::from_millis(50);
    let server = Server::start_with(Settings { heartbeat, ..Settings::default() }).await;
    server.publish_to("other", "x").await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t&conflate")).await;
    let expected = json!({"heartbeat": {"time": TIME, "skipped": 0}, "id": event_id(1)});
    let (mut pings, mut heartbeats) = (0, 0);
    while pings < 6 || heartbeats < 3 {
        let (first_byte, payload) = socket.frame().await.unwrap();
        if first_byte == FIN | PING {
            pings += 1;
            // Any message is a sign of life.
            let (first_byte, payload) =
                if pings % 2 == 0 { (TEXT, &b"?"[..]) } else { (PONG, &payload[..]) };
            socket.send(FIN | first_byte, payload).await;
            continue;
        }
        assert_eq!(first_byte, FIN | TEXT);
        let message: Value = serde_json::from_slice(&payload).unwrap();
        if message["problem"].is_null() {
            assert_eq!(message, expected);
            heartbeats += 1;
        }
    }
    assert_eq!(server.streams.count(), 1);
}

#[tokio::test]
async fn pings_and_closes_are_answered() {
    let server = Server::start().await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
    for payload in [&b""[..], b"are you there?", &[0xff; 125]] {
        socket.send(FIN | PING, payload).await;
        assert_eq!(socket.frame().await, Some((FIN | PONG, payload.to_vec())));
    }
    socket.assert_open(&server).await;
    for payload in
        [&[][..], &1000_u16.to_be_bytes(), &[&1001_u16.to_be_bytes()[..], b"bye"].concat()]
    {
        let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
        socket.send(FIN | CLOSE, payload).await;
        let (first_byte, response) = socket.frame().await.expect("a close");
        assert_eq!(first_byte, FIN | CLOSE);
        assert_eq!(response.get(..2), payload.get(..2), "the same code");
        assert_eq!(socket.frame().await, None);
    }
    drop(socket);
    let left = "waterclock_streams_ended_total{reason=\"client-left\"}";
    server.wait_for_metric(left, |streams| streams == 4).await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_noticed() {
    let server = Server::start().await;
    let open = "waterclock_connections_open";
    let socket = WebSocketClient::open(request(&server, "topic=t")).await;
    server.wait_for_streams(1).await;
    // The connection that reads the metric is open, too.
    server.wait_for_metric(open, |connections| connections == 2).await;
    drop(socket);
    server.wait_for_streams(0).await;
    server.wait_for_metric(open, |connections| connections == 1).await;

    // The client vanishes within a message of its own, and within the events.
    let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
    for _ in 0..100 {
        server.publish_to("t", &"x".repeat(60_000)).await;
    }
    socket.0.send(&frame(FIN | TEXT, &[b' '; 1000])[..500]).await;
    socket.frame().await.unwrap();
    drop(socket);
    server.wait_for_streams(0).await;
    server.wait_for_metric(open, |connections| connections == 1).await;
}

#[tokio::test]
async fn an_open_websocket_counts_as_a_connection() {
    let server = Server::start().await;
    let mut socket = WebSocketClient::open(request(&server, "topic=t")).await;
    // The connection that reads the metric is open, too.
    assert_eq!(server.metric("waterclock_connections_open").await, 2);
    assert_eq!(server.metric("waterclock_streams_open").await, 1);
    socket.assert_open(&server).await;
    assert_eq!(server.metric("waterclock_connections_open").await, 2);
    assert_eq!(server.metric("waterclock_events_sent_total").await, 1);
    drop(socket);
    server.wait_for_metric("waterclock_connections_open", |connections| connections == 1).await;
    assert_eq!(server.metric("waterclock_streams_open").await, 0);
}

//! What is the WebSocket's own at `GET /ws`, frame by frame. What it shares with the other transports is in
//! `transports`.

use std::{num::NonZeroU32, sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};
use server::access::Access;
use waterclock::transport::Transport;

use crate::{
    readers::{Ask, Http},
    support::{Server, Settings, TIME},
    tokens,
};

/// How long a message may be.
const MAX_MESSAGE: usize = 6 * 65_536 + 4096;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Of the last frame of a message.
const FIN: u8 = 0x80;

/// An id of the test's log.
fn id(sequence: u64) -> String {
    format!("000000000000c10c-{sequence}")
}

fn ask(server: &Server, query: &str) -> Ask {
    Ask::new(server, Transport::WebSocket, query)
}

/// A frame as a client sends it (RFC 6455, 5.2).
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

/// A frame as a client may not send it.
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

/// The client's end of a WebSocket. It does nothing but what it is told: it answers pings only where it waits
/// for a message.
pub struct Socket(Http);

impl Socket {
    pub async fn shake_hands(ask: Ask) -> Self {
        Self(ask.shake_hands().await)
    }

    /// One that has been greeted.
    async fn open(ask: Ask) -> Self {
        let mut socket = Self::shake_hands(ask).await;
        let hello = socket.hear().await;
        assert!(hello["hello"].is_object(), "{hello}");
        socket
    }

    /// The next frame, its first byte and its payload; none at the end.
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

    /// The text of the next message. Pings before it are answered.
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

    pub async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    async fn send(&mut self, first_byte: u8, payload: &[u8]) {
        self.0.send(&frame(first_byte, payload)).await;
    }

    pub async fn say(&mut self, message: &Value) {
        self.send(FIN | TEXT, message.to_string().as_bytes()).await;
    }

    async fn publish(&mut self, topic: &str, data: &str) {
        self.say(&json!({"publish": {"topic": topic, "data": data}})).await;
    }

    /// Publishes, and returns what it is answered; no event may come.
    async fn published(&mut self, message: Value) -> Value {
        self.say(&json!({"publish": message})).await;
        self.hear().await
    }

    /// The status and the detail of the next message, which is a problem.
    async fn problem(&mut self) -> (u64, String) {
        let message = self.hear().await;
        let problem = &message["problem"];
        let (status, detail) = (problem["status"].as_u64(), problem["detail"].as_str());
        let (status, detail) = status.zip(detail).unwrap_or_else(|| panic!("{message}"));
        assert!(problem["title"].is_string(), "{message}");
        assert_eq!(message.as_object().unwrap().len(), 1, "{message}");
        (status, detail.to_owned())
    }

    /// The code and the reason of the close, which comes next, and after which nothing comes.
    async fn closed(mut self) -> (u16, String) {
        let (first_byte, payload) = self.frame().await.expect("a close");
        assert_eq!(first_byte, FIN | CLOSE, "{:?}", String::from_utf8_lossy(&payload));
        self.send(FIN | CLOSE, &payload[..2]).await;
        assert_eq!(self.frame().await, None);
        assert!(!self.0.was_reset, "then a client may not see why");
        let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
        (u16::from_be_bytes([payload[0], payload[1]]), reason)
    }

    /// Whether it goes on: what is published arrives, and nothing else came before.
    async fn goes_on(&mut self, server: &Server) {
        server.publish_to("t", "goes on").await;
        let message = self.hear().await;
        assert_eq!(message["event"]["data"], "goes on", "{message}");
    }
}

async fn start() -> Server {
    Server::start(Settings::default()).await
}

#[tokio::test]
async fn who_asks_for_no_websocket_is_told_to_upgrade() {
    let server = start().await;
    let complete = String::from_utf8(ask(&server, "").request()).unwrap();
    let mut without = Vec::from(["GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()]);
    for header in ["Upgrade", "Connection", "Sec-WebSocket-Version"] {
        let lines = complete.split_inclusive("\r\n").filter(|line| !line.starts_with(header));
        without.push(lines.collect());
    }
    without.push(complete.replace("Version: 13", "Version: 12"));
    for request in without {
        let answer = server.send(request.as_bytes()).await;
        assert_eq!(answer.status(), 426, "{request}");
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let answer = server.request("POST", "/ws", &[("Content-Length", b"0")]).await;
    assert_eq!((answer.status(), answer.header("allow")), (405, Some("GET,HEAD")));
    // What a stream is refused for comes in the same words.
    let refused = ask(&server, "limit=0").refused().await;
    assert_eq!(refused.status, 400);
    assert_eq!(server.metric("waterclock_streams_total").await, 0);
}

#[tokio::test]
async fn a_page_of_another_origin_opens_none_even_for_what_is_public() {
    let access = Access {
        public_topics: ["t".parse().unwrap()].into(),
        cors_origins: ["https://app.example".parse().unwrap()].into(),
        ..Access::default()
    };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    for origin in [
        "https://evil.example",
        "http://localhost:3001",
        "https://app.example.evil.example",
        "http://app.example",
        "null",
        "",
    ] {
        let refused =
            ask(&server, "topic=t").with(&format!("Origin: {origin}\r\n")).refused().await;
        assert_eq!(refused.status, 403, "{origin}");
        let detail = refused.problem["detail"].as_str().unwrap();
        let expected = format!("A page of the origin {origin:?} may not open a WebSocket here");
        assert!(detail.starts_with(&expected), "{detail}");
    }
    let two = "Origin: http://localhost\r\nOrigin: https://evil.example\r\n";
    assert_eq!(ask(&server, "topic=t").with(two).refused().await.status, 403);
    for headers in [
        "",
        "Origin: http://localhost\r\n",
        "Host: events.example:8080\r\nOrigin: https://events.example:8080\r\n",
        "Origin: https://app.example\r\n",
    ] {
        Socket::open(ask(&server, "topic=t").with(headers)).await.goes_on(&server).await;
    }
}

#[tokio::test]
async fn a_page_of_an_origin_that_may_read_does_not_publish() {
    for allowed in ["https://app.example", "*"] {
        let access =
            Access { cors_origins: [allowed.parse().unwrap()].into(), ..Access::default() };
        let server = Server::start(Settings { access, ..Settings::default() }).await;
        let page = ask(&server, "topic=t").with("Origin: https://app.example\r\n");
        let mut socket = Socket::open(page).await;
        socket.publish("t", "x").await;
        let (status, detail) = socket.problem().await;
        assert_eq!(status, 403);
        assert!(detail.contains("it comes from a page of another origin"), "{detail}");
        socket.goes_on(&server).await;
        assert_eq!(server.hub.newest(), 1);
    }
}

#[tokio::test]
async fn nor_does_it_with_the_cookie_of_who_visits_it() {
    let cors_origins = ["https://app.example".parse().unwrap()].into();
    let access = Access { cors_origins, ..tokens::access() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let claims = json!({"exp": tokens::now() + 60.0, "publish": [">"], "subscribe": [">"]});
    let cookie = format!("Via: proxy\r\nCookie: waterclock_token={}\r\n", tokens::token(claims));
    for (origin, status) in [("Origin: https://app.example\r\n", Some(403)), ("", None)] {
        let mut socket =
            Socket::open(ask(&server, "topic=t").with(&format!("{cookie}{origin}"))).await;
        let answer = socket.published(json!({"topic": "other", "data": "x"})).await;
        assert_eq!(answer["problem"]["status"].as_u64(), status, "{answer}");
        socket.goes_on(&server).await;
    }
}

#[tokio::test]
async fn what_each_message_looks_like() {
    let server = Server::start(Settings { retain_count: 2, ..Settings::default() }).await;
    let mut socket = Socket::shake_hands(ask(&server, "limit=2")).await;
    assert_eq!(
        socket.text().await,
        format!(
            "{{\"hello\":{{\"time\":\"{TIME}\",\"connection\":1,\"heartbeat_ms\":3600000,\
             \"retry_ms\":2000,\"oldest\":null,\"newest\":null}},\"id\":\"{}.0\"}}",
            id(0)
        )
    );
    let event = |sequence| {
        let id = id(sequence);
        format!(
            "{{\"id\":\"{id}\",\"topic\":\"clock\",\"name\":\"message\",\"data\":\"a\\nb\",\
             \"time\":\"{TIME}\"}}"
        )
    };
    for sequence in [1, 2] {
        server.publish("a\nb").await;
        let expected =
            format!("{{\"event\":{},\"id\":\"{}.{sequence}\"}}", event(sequence), id(sequence));
        assert_eq!(socket.text().await, expected);
    }
    assert_eq!(socket.text().await, "{\"end\":{\"sent\":2}}");
    assert_eq!(socket.closed().await, (1000, "end".to_owned()));

    let mut socket = Socket::shake_hands(ask(&server, "").after("x")).await;
    let hello = socket.hear().await;
    assert_eq!(hello["hello"]["connection"], 2);
    assert_eq!(hello["id"], Value::Null, "the client keeps its own cursor until the gap is told");
    let gap = "{\"gap\":{\"reason\":\"malformed\",\"cursor\":\"x\"}";
    assert_eq!(socket.text().await, format!("{gap},\"id\":\"{}\"}}", id(2)));
    server.publish("a\nb").await;
    assert_eq!(socket.text().await, format!("{{\"event\":{}}}", event(3)));
    server.stop.begin();
    let goodbye = socket.hear().await;
    let retry = goodbye["goodbye"]["retry_ms"].as_u64().unwrap();
    assert_eq!(goodbye, json!({"goodbye": {"reason": "draining", "retry_ms": retry}}));
    assert!((2000..4000).contains(&retry), "spread: {retry}");
    assert_eq!(socket.closed().await, (1001, "draining".to_owned()));
    server.serving.await.unwrap();
}

#[tokio::test]
async fn who_publishes_is_answered_with_the_event_which_arrives_as_well() {
    let server = start().await;
    let mut socket = Socket::open(ask(&server, "topic=t")).await;
    let mut reader = server.get("/events?topic=t&format=json").await;
    reader.message().await;
    for (sequence, name, data) in [(1, None, "x"), (2, Some("n"), "two\nlines \u{0} ü")] {
        let mut message = json!({"topic": "t", "data": data});
        if let Some(name) = name {
            message["name"] = json!(name);
        }
        socket.say(&json!({"publish": message})).await;
        let event = json!({
            "id": id(sequence), "topic": "t", "name": name.unwrap_or("message"), "data": data, "time": TIME,
        });
        let (first, second) = (socket.hear().await, socket.hear().await);
        let expected = [json!({"event": event}), json!({"published": event})];
        assert!(expected.contains(&first) && expected.contains(&second) && first != second);
        let message = reader.message().await;
        assert_eq!(serde_json::from_str::<Value>(&message.data).unwrap(), event);
    }
    socket.goes_on(&server).await;
}

#[tokio::test]
async fn an_event_that_is_sent_again_with_its_key_is_published_once() {
    let server = start().await;
    let mut socket = Socket::open(ask(&server, "topic=other")).await;
    let message = json!({"topic": "t", "data": "x", "key": "k"});
    let first = socket.published(message.clone()).await;
    assert_eq!(first["published"]["id"], id(1));
    assert_eq!(socket.published(message).await, first);
    // Over another connection, and over HTTP, too.
    let mut other = Socket::open(ask(&server, "topic=other")).await;
    assert_eq!(other.published(json!({"topic": "t", "data": "x", "key": "k"})).await, first);
    let answer = server.post("t", "Idempotency-Key: k\r\n", b"x").await.rest().await;
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), first["published"]);
    assert_eq!(server.hub.newest(), 1);

    socket.say(&json!({"publish": {"topic": "t", "data": "y", "key": "k"}})).await;
    let (status, detail) = socket.problem().await;
    assert_eq!(status, 422);
    assert!(detail.contains("was used for an event of another name or data"), "{detail}");
    let no_key = json!({"topic": "t", "data": "x"});
    assert_eq!(socket.published(no_key).await["published"]["id"], id(2));
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_messages() {
    let server = start().await;
    let mut socket = Socket::open(ask(&server, "topic=other")).await;
    // More than may wait for the log at a time.
    let count = 1000;
    let mut messages = Vec::new();
    for number in 0..count {
        // Some are refused, at once.
        let topic = if number % 3 == 0 { format!("..{number}") } else { "t".to_owned() };
        let message = json!({"publish": {"topic": topic, "data": number.to_string()}});
        messages.extend(frame(FIN | TEXT, message.to_string().as_bytes()));
    }
    socket.0.send(&messages).await;
    let mut published = 0;
    for number in 0..count {
        let answer = socket.hear().await;
        if number % 3 == 0 {
            let detail = answer["problem"]["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(&format!("\"..{number}\"")), "{number}: {answer}");
        } else {
            published += 1;
            assert_eq!(answer["published"]["data"], number.to_string(), "{answer}");
            assert_eq!(answer["published"]["id"], id(published), "{answer}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_published_is_a_problem_and_the_connection_goes_on() {
    let server = start().await;
    let mut socket = Socket::open(ask(&server, "topic=t")).await;
    let of = |message: Value| json!({"publish": message}).to_string();
    let long = "x".repeat(65_537);
    let key = "k".repeat(256);
    let not_understood = "The message is not understood: ";
    for (text, status, detail) in [
        (of(json!({"topic": "clock", "data": ""})), 403, "Only the server itself publishes"),
        (of(json!({"topic": "a..b", "data": ""})), 400, "\"a..b\" is not a topic"),
        (of(json!({"topic": "a.*", "data": ""})), 400, "\"a.*\" is not a topic"),
        (of(json!({"topic": "", "data": ""})), 400, "\"\" is not a topic"),
        (of(json!({"topic": "t", "data": "", "name": "gap"})), 400, "the name is reserved"),
        (of(json!({"topic": "t", "data": "", "name": "a\nb"})), 400, "without CR, LF and NUL"),
        (of(json!({"topic": "t", "data": long})), 413, "at most 65536 bytes long"),
        (of(json!({"topic": "t", "data": "", "key": ""})), 400, "1 to 255"),
        (of(json!({"topic": "t", "data": "", "key": key})), 400, "1 to 255"),
        (of(json!({"topic": "t", "data": "", "time": "x"})), 400, "unknown field `time`"),
        (of(json!({"topic": "t"})), 400, "missing field `data`"),
        (of(json!({"data": "x"})), 400, "missing field `topic`"),
        (of(json!({"topic": "t", "data": 1})), 400, not_understood),
        (of(json!({"topic": "t", "data": null})), 400, not_understood),
        (of(json!(null)), 400, not_understood),
        (json!({"subscribe": {"topic": "t"}}).to_string(), 400, "unknown variant `subscribe`"),
        (json!({"publish": {"topic": "t", "data": ""}, "x": 1}).to_string(), 400, not_understood),
        ("{}".to_owned(), 400, not_understood),
        ("[]".to_owned(), 400, not_understood),
        ("publish".to_owned(), 400, not_understood),
        (String::new(), 400, not_understood),
        ("{\"publish\":{\"topic\":\"t\",\"data\":\"".to_owned(), 400, not_understood),
        (format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), 400, not_understood),
        (" ".repeat(MAX_MESSAGE), 400, not_understood),
    ] {
        socket.send(FIN | TEXT, text.as_bytes()).await;
        let (told, found) = socket.problem().await;
        let text: String = text.chars().take(80).collect();
        assert_eq!(told, status, "{text}: {found}");
        assert!(found.contains(detail), "{text}: {found}");
    }
    assert_eq!(server.hub.newest(), 0, "nothing was published");
    // What is as large as may be, in fragments, and with escapes.
    let data = "\u{1}".repeat(65_536);
    let message = json!({"publish": {"topic": "other", "data": data}}).to_string();
    let mut chunks = message.as_bytes().chunks(100_000).peekable();
    let mut first_byte = TEXT;
    while let Some(chunk) = chunks.next() {
        let fin = if chunks.peek().is_none() { FIN } else { 0 };
        socket.send(fin | first_byte, chunk).await;
        first_byte = 0;
        socket.send(FIN | PONG, b"unasked for").await;
    }
    assert_eq!(socket.hear().await["published"]["data"], data);
    socket.goes_on(&server).await;
}

#[tokio::test]
async fn who_may_only_read_has_no_long_message_kept() {
    let access = Access { public_topics: ["t".parse().unwrap()].into(), ..Access::default() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    // The first half of one whose second never comes.
    for (bytes, is_kept) in [(4096, true), (4097, false), (100_000, false)] {
        let mut socket = Socket::open(ask(&server, "topic=t").with("Via: proxy\r\n")).await;
        socket.send(TEXT, &vec![b' '; bytes]).await;
        if is_kept {
            socket.send(FIN | PING, b"").await;
            assert_eq!(socket.frame().await, Some((FIN | PONG, vec![])), "{bytes}");
        } else {
            let reason = "who may not publish sends at most 4,096 bytes".to_owned();
            assert_eq!(socket.closed().await, (1009, reason), "{bytes}");
        }
    }
}

#[tokio::test]
async fn who_may_only_read_is_told_so_when_it_publishes() {
    let elsewhere = "Via: proxy\r\n";
    let public = || ["t".parse().unwrap()].into();
    let access = Access { public_topics: public(), ..Access::default() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let mut socket = Socket::open(ask(&server, "topic=t").with(elsewhere)).await;
    socket.publish("t", "x").await;
    let (status, detail) = socket.problem().await;
    assert_eq!(status, 403);
    assert!(detail.contains("a proxy has passed it on"), "{detail}");
    socket.goes_on(&server).await;

    let access = Access { public_topics: public(), ..tokens::access() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let mut socket = Socket::open(ask(&server, "topic=t").with(elsewhere)).await;
    socket.publish("t", "x").await;
    let (status, detail) = socket.problem().await;
    assert_eq!(status, 401);
    assert!(detail.starts_with("A token is needed"), "{detail}");

    let token = tokens::bearer(&tokens::token(json!({"publish": ["orders.*"]})));
    let mut socket = Socket::open(ask(&server, "topic=t").with(&token)).await;
    socket.publish("t", "x").await;
    let (status, detail) = socket.problem().await;
    assert_eq!(status, 403);
    let expected = "The token's `publish` does not list `t`. It lists `orders.*`.";
    assert_eq!(detail, expected);
    socket.publish("orders.eu", "x").await;
    assert_eq!(socket.hear().await["published"]["topic"], "orders.eu");
    assert_eq!(server.hub.newest(), 1);
}

#[tokio::test]
async fn a_token_that_expires_meanwhile_publishes_no_more() {
    let access = Access { public_topics: ["t".parse().unwrap()].into(), ..tokens::access() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let token = tokens::token(json!({"publish": ["orders"]}));
    let mut socket = Socket::open(ask(&server, "topic=t").with(&tokens::bearer(&token))).await;
    server.now.fetch_add(59_999, Ordering::Relaxed);
    socket.publish("orders", "x").await;
    assert_eq!(socket.hear().await["published"]["data"], "x");
    server.now.fetch_add(1, Ordering::Relaxed);
    socket.publish("orders", "y").await;
    let (status, detail) = socket.problem().await;
    assert_eq!(status, 401);
    assert_eq!(detail, "The token is refused: it expired at 2026-11-22T07:01:00.000Z.");
    assert_eq!(server.hub.newest(), 1);
    // What anyone may read it reads on.
    socket.goes_on(&server).await;
}

#[tokio::test]
async fn a_token_that_expires_ends_what_is_read_by_it() {
    let server = Server::start(Settings { access: tokens::access(), ..Settings::default() }).await;
    let token = tokens::token(json!({"exp": tokens::now() + 0.2, "subscribe": ["t"]}));
    let mut socket = Socket::open(ask(&server, "topic=t").with(&tokens::bearer(&token))).await;
    assert_eq!(socket.hear().await["goodbye"]["reason"], "expired");
    assert_eq!(socket.closed().await, (3000, "expired".to_owned()));
    server.until_metric("waterclock_streams_ended_total{reason=\"expired\"}", |n| n == 1).await;
}

#[tokio::test]
async fn who_publishes_too_fast_is_told_so() {
    let access = tokens::access();
    let max_publishes = NonZeroU32::MIN;
    let server = Server::start(Settings { access, max_publishes, ..Settings::default() }).await;
    let token = tokens::token(json!({"publish": ["t"], "subscribe": ["other"]}));
    let mut socket = Socket::open(ask(&server, "topic=other").with(&tokens::bearer(&token))).await;
    // How many are too many depends on how fast they come.
    loop {
        let answer = socket.published(json!({"topic": "t", "data": ""})).await;
        if answer["problem"]["status"] == 429 {
            break;
        }
        assert!(answer["published"].is_object(), "{answer}");
    }
    server.publish_to("other", "x").await;
    assert_eq!(socket.hear().await["event"]["data"], "x");
}

#[tokio::test]
async fn what_breaks_the_rules_is_closed_with_a_code_that_says_which() {
    let server = start().await;
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
    let (split, utf_8) = (frame(TEXT, b"\xc3"), "this breaks the rules of RFC 6455");
    let text = br#"{"publish":{"topic":"t","data":""}}"#;
    let (long, not_utf_8) =
        ("a message is at most 397,312 bytes long", "a text message is in UTF-8");
    for (what, bytes, code, reason) in [
        ("a frame that is too long", frame(FIN | TEXT, &too_long), 1009, long),
        ("two fragments that are too long", fragments, 1009, long),
        ("many fragments", many, 1009, long),
        ("the head of an endless frame", announced, 1009, long),
        (
            "a binary frame",
            frame(FIN | BINARY, text),
            1003,
            "only text messages, of JSON, are understood",
        ),
        ("no UTF-8", frame(FIN | TEXT, b"\"\xff\""), 1007, not_utf_8),
        ("half a character", frame(FIN | TEXT, b"\xc3"), 1007, not_utf_8),
        ("half a character, twice", [split.clone(), frame(FIN, b"\xc3")].concat(), 1007, not_utf_8),
        ("no mask", unmasked(FIN | TEXT, text), 1002, utf_8),
        ("a reserved bit", frame(FIN | 0x40 | TEXT, text), 1002, utf_8),
        ("a reserved opcode", frame(FIN | 3, text), 1002, utf_8),
        ("a continuation of nothing", frame(FIN, text), 1002, utf_8),
        ("a beginning in the middle", [frame(TEXT, b"{"), frame(TEXT, b"}")].concat(), 1002, utf_8),
        ("a ping in fragments", frame(PING, b""), 1002, utf_8),
        ("a ping that is too long", frame(FIN | PING, &[0; 126]), 1002, utf_8),
    ] {
        let refused = "waterclock_streams_ended_total{reason=\"refused\"}";
        let before = server.metric(refused).await;
        let mut socket = Socket::open(ask(&server, "topic=t")).await;
        socket.0.send(&bytes).await;
        assert_eq!(socket.closed().await, (code, reason.to_owned()), "{what}");
        server.until_streams(0).await;
        assert_eq!(server.metric(refused).await, before + 1, "{what}");
    }
    assert_eq!(server.hub.newest(), 0);
}

#[tokio::test]
async fn who_answers_no_ping_is_closed() {
    let heartbeat = Duration::from_millis(100);
    let server = Server::start(Settings { heartbeat, ..Settings::default() }).await;
    let mut socket = Socket::open(ask(&server, "topic=t")).await;
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
    server.until_streams(0).await;
}

#[tokio::test]
async fn who_answers_pings_stays_and_hears_heartbeats() {
    let heartbeat = Duration::from_millis(50);
    let server = Server::start(Settings { heartbeat, ..Settings::default() }).await;
    server.publish_to("other", "x").await;
    let mut socket = Socket::open(ask(&server, "topic=t&conflate")).await;
    let expected = json!({"heartbeat": {"time": TIME, "skipped": 0}, "id": id(1)});
    let (mut pings, mut heartbeats) = (0, 0);
    while pings < 6 || heartbeats < 3 {
        let (first_byte, payload) = socket.frame().await.unwrap();
        if first_byte == FIN | PING {
            pings += 1;
            // Anything that it says is a sign of life.
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
    let server = start().await;
    let mut socket = Socket::open(ask(&server, "topic=t")).await;
    for payload in [&b""[..], b"are you there?", &[0xff; 125]] {
        socket.send(FIN | PING, payload).await;
        assert_eq!(socket.frame().await, Some((FIN | PONG, payload.to_vec())));
    }
    socket.goes_on(&server).await;
    for payload in
        [&[][..], &1000_u16.to_be_bytes(), &[&1001_u16.to_be_bytes()[..], b"bye"].concat()]
    {
        let mut socket = Socket::open(ask(&server, "topic=t")).await;
        socket.send(FIN | CLOSE, payload).await;
        let (first_byte, answer) = socket.frame().await.expect("a close");
        assert_eq!(first_byte, FIN | CLOSE);
        assert_eq!(answer.get(..2), payload.get(..2), "the same code");
        assert_eq!(socket.frame().await, None);
    }
    drop(socket);
    let left = "waterclock_streams_ended_total{reason=\"client-left\"}";
    server.until_metric(left, |streams| streams == 4).await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_noticed() {
    let server = start().await;
    let open = "waterclock_connections_open";
    let socket = Socket::open(ask(&server, "topic=t")).await;
    server.until_streams(1).await;
    // With the one that asks.
    server.until_metric(open, |connections| connections == 2).await;
    drop(socket);
    server.until_streams(0).await;
    server.until_metric(open, |connections| connections == 1).await;

    // In the middle of what it sends, and of what it is sent.
    let mut socket = Socket::open(ask(&server, "topic=t")).await;
    for _ in 0..100 {
        server.publish_to("t", &"x".repeat(60_000)).await;
    }
    socket.0.send(&frame(FIN | TEXT, &[b' '; 1000])[..500]).await;
    socket.frame().await.unwrap();
    drop(socket);
    server.until_streams(0).await;
    server.until_metric(open, |connections| connections == 1).await;
}

#[tokio::test]
async fn an_open_websocket_counts_as_a_connection() {
    let server = start().await;
    let mut socket = Socket::open(ask(&server, "topic=t")).await;
    // With the one that asks.
    assert_eq!(server.metric("waterclock_connections_open").await, 2);
    assert_eq!(server.metric("waterclock_streams_open").await, 1);
    socket.goes_on(&server).await;
    assert_eq!(server.metric("waterclock_connections_open").await, 2);
    assert_eq!(server.metric("waterclock_events_sent_total").await, 1);
    drop(socket);
    server.until_metric("waterclock_connections_open", |connections| connections == 1).await;
    assert_eq!(server.metric("waterclock_streams_open").await, 0);
}

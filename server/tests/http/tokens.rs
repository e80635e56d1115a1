//! What others than this machine may do by their token.

use std::{num::NonZeroU32, sync::Arc};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use server::{access::Access, token::Tokens};
use waterclock::timestamp::Timestamp;

use crate::support::{Answer, Server, Settings, TIME};

const SECRET: &[u8; 32] = b"an example of a secret, 32 bytes";
/// Not from this machine, as far as anyone can tell.
const ELSEWHERE: &str = "Via: proxy\r\n";

pub fn access() -> Access {
    let tokens = Tokens::from_secret(SECRET, None).unwrap();
    Access { tokens: Some(Arc::new(tokens)), ..Access::default() }
}

async fn start() -> Server {
    Server::start(Settings { access: access(), ..Settings::default() }).await
}

pub fn now() -> f64 {
    let now: Timestamp = TIME.parse().unwrap();
    f64::from(u32::try_from(now.as_millis() / 1000).unwrap())
}

/// A token of those claims that is valid for a minute.
pub fn token(mut claims: Value) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = json!(now() + 60.0);
    }
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

pub fn bearer(token: &str) -> String {
    format!("{ELSEWHERE}Authorization: Bearer {token}\r\n")
}

async fn refused(answer: Answer, status: u16, authenticate: Option<&str>, detail: &str) {
    let found = answer.header("www-authenticate").map(str::to_owned);
    let told = answer.status();
    let body = answer.rest().await;
    assert_eq!((told, found.as_deref()), (status, authenticate), "{body}");
    assert!(body.contains(detail), "{detail}: {body}");
}

#[tokio::test]
async fn a_token_lists_what_may_be_read_and_published() {
    let server = start().await;
    let reader = token(json!({"subscribe": ["orders.*"]}));
    for (topics, allowed) in [
        ("topic=orders.eu", true),
        ("topic=orders.*", true),
        ("topic=orders.eu&topic=orders.us", true),
        ("topic=orders.%3E", false),
        ("topic=orders.eu&topic=clock", false),
        ("", false),
    ] {
        let answer = server.get_by(&reader, &format!("/poll?{topics}")).await;
        let status = answer.status();
        assert_eq!(status, if allowed { 200 } else { 403 }, "{topics}");
        if !allowed {
            let why = answer.rest().await;
            assert!(why.contains("does not list") && why.contains("`orders.*`"), "{why}");
        }
    }
    let answer = server.post("orders.eu", &bearer(&reader), b"x").await;
    refused(answer, 403, None, "The token's `publish` does not list `orders.eu`. It lists nothing")
        .await;

    let writer = token(json!({"publish": ["orders.>"]}));
    assert_eq!(server.post("orders.eu.new", &bearer(&writer), b"x").await.status(), 201);
    let answer = server.post("other", &bearer(&writer), b"x").await;
    refused(answer, 403, None, "It lists `orders.>`").await;
    assert_eq!(server.get_by(&writer, "/poll?topic=orders.eu").await.status(), 403);
    // However much it lists, the clock is ours, and the metrics are this machine's.
    let all = token(json!({"publish": [">"], "subscribe": [">"]}));
    let answer = server.post("clock", &bearer(&all), b"x").await;
    refused(answer, 403, None, "Only the server itself publishes").await;
    assert_eq!(server.get_by(&all, "/metrics").await.status(), 403);
    assert_eq!(server.get_by(&all, "/poll?topic=%3E").await.status(), 200);
}

#[tokio::test]
async fn a_token_that_is_none_is_401_with_the_reason() {
    let server = start().await;
    let answer = server.post("t", ELSEWHERE, b"x").await;
    refused(answer, 401, Some("Bearer"), "A token is needed").await;
    let invalid = Some("Bearer error=\"invalid_token\"");
    let expired = token(json!({"exp": now(), "publish": ["t"]}));
    let early = token(json!({"nbf": now() + 1.0, "publish": ["t"]}));
    let other = token(json!({"aud": "other", "publish": ["t"]}));
    let unsigned = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTksInB1Ymxpc2giOlsidCJdfQ.";
    for (token, detail) in [
        (&*expired, "it expired at 2026-11-22T07:00:00.000Z"),
        (&early, "it is valid from 2026-11-22T07:00:01.000Z on"),
        (&other, "its `aud` is not this server's audience"),
        (unsigned, "The token is refused"),
        ("nonsense", "it is no JSON Web Token"),
    ] {
        refused(server.post("t", &bearer(token), b"x").await, 401, invalid, detail).await;
        let answer = server.get_by(token, "/events").await;
        assert!(!answer.head.contains("text/event-stream"));
        refused(answer, 401, invalid, detail).await;
    }
    let basic = format!("{ELSEWHERE}Authorization: Basic eDp5\r\n");
    refused(server.post("t", &basic, b"x").await, 401, invalid, "not `Bearer` and a token").await;
    assert_eq!(server.hub.newest(), 0);
}

#[tokio::test]
async fn without_a_key_there_are_no_tokens() {
    let server = Server::start(Settings::default()).await;
    let token = token(json!({"publish": ["t"]}));
    let answer = server.post("t", &bearer(&token), b"x").await;
    refused(answer, 403, None, "a proxy has passed it on").await;
}

#[tokio::test]
async fn this_machine_needs_one_only_if_it_is_told_so() {
    let server = start().await;
    assert_eq!(server.post("t", "", b"x").await.status(), 201);
    let access = Access { is_token_required: true, ..access() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    refused(server.post("t", "", b"x").await, 401, Some("Bearer"), "A token is needed").await;
    refused(server.get("/events").await, 401, Some("Bearer"), "A token is needed").await;
    let page = server.get("/").await;
    assert_eq!(page.status(), 200);
    assert!(page.rest().await.contains("These events are not public."));
    let all = token(json!({"publish": [">"], "subscribe": [">"]}));
    assert_eq!(server.get_by(&all, "/poll").await.status(), 200);
    assert_eq!(server.get("/metrics").await.status(), 200, "not a reader of events");
}

#[tokio::test]
async fn lines_end_when_their_token_expires_also_if_none_comes() {
    let server = start().await;
    let short = token(json!({"exp": now() + 0.2, "publish": ["t"]}));
    let head = format!(
        "POST /events/t?split=lines HTTP/1.0\r\nContent-Length: 99\r\n{}\r\n",
        bearer(&short)
    );
    let answer = server.send(format!("{head}a\nhalf").as_bytes()).await;
    let detail = "it expired at 2026-11-22T07:00:00.200Z. 1 lines were published before.";
    refused(answer, 401, Some("Bearer error=\"invalid_token\""), detail).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let server = start().await;
    let short = token(json!({"exp": now() + 0.2, "subscribe": ["clock"]}));
    let mut stream = server.get_by(&short, "/events").await;
    assert_eq!(stream.message().await.name, "hello");
    let goodbye = stream.message().await;
    assert_eq!(goodbye.name, "goodbye");
    assert!(goodbye.data.contains(r#""reason":"expired""#), "{}", goodbye.data);
    assert!(stream.has_ended().await);
    server.until_metric("waterclock_streams_ended_total{reason=\"expired\"}", |n| n == 1).await;
}

#[tokio::test]
async fn a_cookie_does_where_no_header_can_be_set_but_not_for_pages_elsewhere() {
    let mut access = access();
    access.cors_origins = ["https://app.example.org".parse().unwrap()].into();
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let token = token(json!({"publish": ["t"], "subscribe": ["t"]}));
    let cookie = format!("a=b; waterclock_token={token}; c=d");
    let get = async |origin: Option<&str>| {
        let mut headers = vec![("Host", &b"events.example.org"[..]), ("Cookie", cookie.as_bytes())];
        headers.extend(origin.map(|origin| ("Origin", origin.as_bytes())));
        server.request("GET", "/poll?topic=t", &headers).await
    };
    assert_eq!(get(None).await.status(), 200);
    assert_eq!(get(Some("https://events.example.org")).await.status(), 200);
    let of_app = get(Some("https://app.example.org")).await;
    assert_eq!(of_app.status(), 200);
    assert_eq!(of_app.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(get(Some("https://evil.example")).await.status(), 401);
    assert_eq!(get(Some("null")).await.status(), 401);

    let post = async |origin: &str| {
        let headers =
            format!("Host: events.example.org\r\nCookie: {cookie}\r\nOrigin: {origin}\r\n");
        server.post("t", &headers, b"x").await.status()
    };
    assert_eq!(post("https://events.example.org").await, 201);
    // What a page elsewhere makes the browser send is not what its user has asked for.
    for origin in ["https://app.example.org", "https://evil.example", "null"] {
        assert_eq!(post(origin).await, 401, "{origin}");
    }
}

#[tokio::test]
async fn a_page_elsewhere_publishes_with_its_own_token_where_cors_lets_it() {
    let mut access = access();
    access.cors_origins = ["https://app.example.org".parse().unwrap()].into();
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let preflight = [
        ("Host", &b"events.example.org"[..]),
        ("Origin", b"https://app.example.org"),
        ("Access-Control-Request-Method", b"POST"),
        ("Access-Control-Request-Headers", b"authorization"),
    ];
    let answer = server.request("OPTIONS", "/events/t", &preflight).await;
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,POST,PUT"));
    let token = token(json!({"publish": ["t"]}));
    let headers = format!("Origin: https://app.example.org\r\n{}", bearer(&token));
    assert_eq!(server.post("t", &headers, b"x").await.status(), 201);
}

#[tokio::test]
async fn who_publishes_too_fast_is_told_when_to_go_on() {
    let server = Server::start(Settings {
        access: access(),
        max_publishes: NonZeroU32::new(2).unwrap(),
        trusted_proxies: ["127.0.0.1".parse().unwrap()].into(),
        ..Settings::default()
    })
    .await;
    let token = token(json!({"publish": ["t"]}));
    let post = async |client: &str| {
        let headers = format!("X-Forwarded-For: {client}\r\n{}", bearer(&token));
        server.post("t", &headers, b"x").await
    };
    assert_eq!(post("192.0.2.1").await.status(), 201);
    let (mut answer, mut published) = (post("192.0.2.1").await, 1);
    while answer.status() == 201 {
        published += 1;
        answer = post("192.0.2.1").await;
    }
    assert!(published >= 2, "two at once are allowed");
    assert_eq!(answer.header("retry-after"), Some("1"));
    refused(answer, 429, None, "more than this client may publish").await;
    assert_eq!(post("192.0.2.2").await.status(), 201, "another one is not held up");
    // This machine itself is not counted.
    for _ in 0..5 {
        assert_eq!(server.post("t", "", b"x").await.status(), 201);
    }
    // Lines wait.
    let before = server.hub.newest();
    let headers = format!("X-Forwarded-For: 192.0.2.3\r\n{}", bearer(&token));
    assert_eq!(server.post("t?split=lines", &headers, b"1\n2\n3\n").await.status(), 200);
    assert_eq!(server.hub.newest(), before + 3);
}

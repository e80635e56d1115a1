//! The permissions that tokens give to other machines.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use server::auth::{Access, TokenVerifier};
use tokio::io::AsyncWriteExt as _;
use waterclock::timestamp::Timestamp;

use crate::support::{REMOTE, Server, Settings, TIME, TestResponse, read_until_closed};

const SECRET: &[u8; 32] = b"an example of a secret, 32 bytes";

/// Returns access rules with a verifier of tokens.
pub fn access() -> Access {
    let tokens = TokenVerifier::from_secret(SECRET, None).unwrap();
    Access { tokens: Some(Arc::new(tokens)), ..Access::default() }
}

/// Tolerated difference between the clocks of signer and server, in seconds.
pub const LEEWAY: f64 = 5.0;

async fn start_with_tokens() -> Server {
    Server::with_access(access()).await
}

/// Returns the hub's time in seconds since 1970.
pub fn now() -> f64 {
    let now: Timestamp = TIME.parse().unwrap();
    f64::from(u32::try_from(now.as_millis() / 1000).unwrap())
}

/// Signs a token with these claims. Without `exp`, it is valid for a minute.
pub fn token(mut claims: Value) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = json!(now() + 60.0);
    }
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// Returns the headers of a remote request with a token.
pub fn bearer(token: &str) -> String {
    format!("{REMOTE}Authorization: Bearer {token}\r\n")
}

/// Checks the status, the challenge and the detail of a problem.
async fn assert_refused(
    response: TestResponse,
    status: u16,
    authenticate: Option<&str>,
    detail: &str,
) {
    let found = response.header("www-authenticate").map(str::to_owned);
    let found_status = response.status();
    let body = response.rest().await;
    assert_eq!((found_status, found.as_deref()), (status, authenticate), "{body}");
    assert!(body.contains(detail), "{detail}: {body}");
}

#[tokio::test]
async fn a_token_permits_only_the_topics_that_it_lists() {
    let server = start_with_tokens().await;
    let reader = token(json!({"subscribe": ["orders.*"]}));
    for (topics, allowed) in [
        ("topic=orders.eu", true),
        ("topic=orders.*", true),
        ("topic=orders.eu&topic=orders.us", true),
        ("topic=orders.%3E", false),
        ("topic=orders.eu&topic=clock", false),
        ("", false),
    ] {
        let response = server.get_with_token(&reader, &format!("/poll?{topics}")).await;
        let status = response.status();
        assert_eq!(status, if allowed { 200 } else { 403 }, "{topics}");
        if !allowed {
            let why = response.rest().await;
            assert!(why.contains("does not list") && why.contains("`orders.*`"), "{why}");
        }
    }
    let response = server.post("orders.eu", &bearer(&reader), b"x").await;
    assert_refused(
        response,
        403,
        None,
        "The token's `publish` does not list `orders.eu`. It lists nothing",
    )
    .await;

    let writer = token(json!({"publish": ["orders.>"]}));
    assert_eq!(server.post("orders.eu.new", &bearer(&writer), b"x").await.status(), 201);
    let response = server.post("other", &bearer(&writer), b"x").await;
    assert_refused(response, 403, None, "It lists `orders.>`").await;
    assert_eq!(server.get_with_token(&writer, "/poll?topic=orders.eu").await.status(), 403);
    // Even a token for all topics cannot publish to the clock or read the metrics.
    let all = token(json!({"publish": [">"], "subscribe": [">"]}));
    let response = server.post("clock", &bearer(&all), b"x").await;
    assert_refused(response, 403, None, "Only the server itself publishes").await;
    assert_eq!(server.get_with_token(&all, "/metrics").await.status(), 403);
    assert_eq!(server.get_with_token(&all, "/poll?topic=%3E").await.status(), 200);
}

#[tokio::test]
async fn an_invalid_token_gets_401_with_the_reason() {
    let server = start_with_tokens().await;
    let response = server.post("t", REMOTE, b"x").await;
    assert_refused(response, 401, Some("Bearer"), "A token is required").await;
    let invalid = Some("Bearer error=\"invalid_token\"");
    let expired = token(json!({"exp": now() - LEEWAY, "publish": ["t"]}));
    let early = token(json!({"nbf": now() + LEEWAY + 1.0, "publish": ["t"]}));
    let other = token(json!({"aud": "other", "publish": ["t"]}));
    let unsigned = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTksInB1Ymxpc2giOlsidCJdfQ.";
    for (token, detail) in [
        (&*expired, "it expired at 2026-11-22T06:59:55.000Z"),
        (&early, "it is not valid before 2026-11-22T07:00:06.000Z"),
        (&other, "its `aud` is not this server's audience"),
        (unsigned, "The token is refused"),
        ("nonsense", "it is not a JSON Web Token"),
    ] {
        assert_refused(server.post("t", &bearer(token), b"x").await, 401, invalid, detail).await;
        let response = server.get_with_token(token, "/events").await;
        assert!(!response.head.contains("text/event-stream"));
        assert_refused(response, 401, invalid, detail).await;
    }
    let basic = format!("{REMOTE}Authorization: Basic eDp5\r\n");
    assert_refused(
        server.post("t", &basic, b"x").await,
        401,
        invalid,
        "`Authorization` must be given once, as `Bearer` and a token",
    )
    .await;
    assert_eq!(server.hub.newest(), 0);
}

#[tokio::test]
async fn a_server_without_a_key_ignores_tokens() {
    let server = Server::start().await;
    let token = token(json!({"publish": ["t"]}));
    let response = server.post("t", &bearer(&token), b"x").await;
    assert_refused(response, 403, None, "it came through a proxy").await;
}

#[tokio::test]
async fn local_requests_need_a_token_only_if_the_option_says_so() {
    let server = start_with_tokens().await;
    assert_eq!(server.post("t", "", b"x").await.status(), 201);
    let access = Access { is_token_required: true, ..access() };
    let server = Server::with_access(access).await;
    assert_refused(server.post("t", "", b"x").await, 401, Some("Bearer"), "A token is required")
        .await;
    assert_refused(server.get("/events").await, 401, Some("Bearer"), "A token is required").await;
    let page = server.get("/").await;
    assert_eq!(page.status(), 200);
    assert!(page.rest().await.contains("This page needs an access token."));
    let all = token(json!({"publish": [">"], "subscribe": [">"]}));
    assert_eq!(server.get_with_token(&all, "/poll").await.status(), 200);
    assert_eq!(server.get("/metrics").await.status(), 200, "metrics need no token");
}

#[tokio::test]
async fn a_silent_upload_of_lines_ends_when_its_token_expires() {
    let server = start_with_tokens().await;
    let short = token(json!({"exp": now() + 0.2 - LEEWAY, "publish": ["t"]}));
    let head = format!(
        "POST /events/t?split=lines HTTP/1.0\r\nContent-Length: 99\r\n{}\r\n",
        bearer(&short)
    );
    let response = server.send(format!("{head}a\nhalf").as_bytes()).await;
    let detail = "expired at 2026-11-22T07:00:00.200Z. Send a new token in `Authorization`. 1 lines \
                  were published before.";
    assert_refused(response, 401, Some("Bearer error=\"invalid_token\""), detail).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let server = start_with_tokens().await;
    let short = token(json!({"exp": now() + 0.2 - LEEWAY, "subscribe": ["clock"]}));
    let mut stream = server.get_with_token(&short, "/events").await;
    assert_eq!(stream.message().await.name, "hello");
    let goodbye = stream.message().await;
    assert_eq!(goodbye.name, "goodbye");
    assert!(goodbye.data.contains(r#""reason":"expired""#), "{}", goodbye.data);
    assert!(stream.has_ended().await);
    server.wait_for_metric("waterclock_streams_ended_total{reason=\"expired\"}", |n| n == 1).await;
}

/// Sets the server's clock forward by two hours, as a suspension does.
fn suspend(server: &Server) {
    server.now.fetch_add(2 * 3_600_000, Ordering::Relaxed);
}

#[tokio::test]
async fn a_token_that_expires_during_a_suspension_gets_no_further_event() {
    let server = start_with_tokens().await;
    let token = token(json!({"exp": now() + 3600.0 - LEEWAY, "subscribe": ["clock"]}));
    let mut stream = server.get_with_token(&token, "/events").await;
    assert_eq!(stream.message().await.name, "hello");
    let poll = server.get_with_token(&token, "/poll?wait=55");
    let wakes = async {
        server.wait_for_metric("waterclock_polls_waiting", |count| count == 1).await;
        suspend(&server);
        server.publish("secret").await;
    };
    let (poll, ()) = tokio::join!(poll, wakes);
    let detail = "The permission to read expired at 2026-11-22T08:00:00.000Z";
    assert_refused(poll, 401, Some("Bearer error=\"invalid_token\""), detail).await;
    let goodbye = stream.message().await;
    assert_eq!(goodbye.name, "goodbye");
    assert!(goodbye.data.contains(r#""reason":"expired""#), "{}", goodbye.data);
    assert!(stream.has_ended().await);
}

#[tokio::test]
async fn a_poll_waits_no_longer_than_its_token_is_valid() {
    let server = start_with_tokens().await;
    let short = token(json!({"exp": now() + 0.2 - LEEWAY, "subscribe": ["clock"]}));
    let poll = server.get_with_token(&short, "/poll?wait=55").await;
    let detail = "The permission to read expired at 2026-11-22T07:00:00.200Z";
    assert_refused(poll, 401, Some("Bearer error=\"invalid_token\""), detail).await;
}

#[tokio::test]
async fn a_token_that_expires_during_a_suspension_publishes_no_further_line() {
    let server = start_with_tokens().await;
    let token = token(json!({"exp": now() + 3600.0 - LEEWAY, "publish": ["t"]}));
    let head = format!(
        "POST /events/t?split=lines HTTP/1.0\r\nContent-Length: 99\r\n{}\r\n",
        bearer(&token)
    );
    let mut upload = server.connect().await;
    upload.write_all(format!("{head}a\n").as_bytes()).await.unwrap();
    server.wait_for_metric("waterclock_events_published_total", |count| count == 1).await;
    suspend(&server);
    upload.write_all(b"b\n").await.unwrap();
    let response = String::from_utf8(read_until_closed(upload).await).unwrap();
    assert!(response.starts_with("HTTP/1.0 401 "), "{response}");
    assert!(response.contains("expired at 2026-11-22T08:00:00.000Z"), "{response}");
}

#[tokio::test]
async fn a_cookie_carries_a_token_except_for_pages_of_other_origins() {
    let mut access = access();
    access.cors_origins = ["https://app.example.org".parse().unwrap()].into();
    let server = Server::with_access(access).await;
    let token = token(json!({"publish": ["t"], "subscribe": ["t"]}));
    let cookie = format!("a=b; waterclock_token={token}; c=d");
    let get = async |origin: Option<&str>| {
        let mut headers = vec![("Host", &b"events.example.org"[..]), ("Cookie", cookie.as_bytes())];
        headers.extend(origin.map(|origin| ("Origin", origin.as_bytes())));
        server.request("GET", "/poll?topic=t", &headers).await
    };
    assert_eq!(get(None).await.status(), 200);
    assert_eq!(get(Some("https://events.example.org")).await.status(), 200);
    let from_app = get(Some("https://app.example.org")).await;
    assert_eq!(from_app.status(), 200);
    assert_eq!(from_app.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(get(Some("https://evil.example")).await.status(), 401);
    assert_eq!(get(Some("null")).await.status(), 401);

    let post = async |origin: &str| {
        let headers =
            format!("Host: events.example.org\r\nCookie: {cookie}\r\nOrigin: {origin}\r\n");
        server.post("t", &headers, b"x").await.status()
    };
    assert_eq!(post("https://events.example.org").await, 201);
    // A page of another origin can make the browser send the cookie without its user's consent.
    for origin in ["https://app.example.org", "https://evil.example", "null"] {
        assert_eq!(post(origin).await, 401, "{origin}");
    }
}

#[tokio::test]
async fn tokens_are_found_as_clients_send_them() {
    let server = start_with_tokens().await;
    let good = token(json!({"publish": ["t"]}));
    let old = token(json!({"exp": 1, "publish": ["t"]}));
    let other = token(json!({"publish": ["other"]}));
    let cookie = |value: &str| format!("Cookie: {value}\r\n");
    let is = |value: &str| format!("waterclock_token={value}");
    let many = format!("{};", is("x")).repeat(8);
    for (headers, status) in [
        (format!("authorization: bearer {good}\r\n"), 201),
        (format!("Authorization: BEARER    {good} \r\n"), 201),
        (format!("Authorization: {good}\r\n"), 401),
        ("Authorization: Bearer\r\n".to_owned(), 401),
        // Two are ambiguous, even if a proxy has joined them.
        (format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {good}\r\n"), 401),
        (format!("Authorization: Bearer {good}, Basic eDp5\r\n"), 401),
        (cookie(&is(&good)), 201),
        (cookie(&is(&format!("\"{good}\""))), 201),
        (cookie(&format!("a=\u{fc}; b; {}", is(&good))), 201),
        (format!("{}{}", cookie("a=b"), cookie(&is(&good))), 201),
        (cookie(&is("")), 401),
        (cookie(&format!("x{}", is(&good))), 401),
        // The cookie of a longer path comes first, and may be older than that of the site.
        (cookie(&format!("{}; {}", is(&old), is(&good))), 201),
        (cookie(&format!("{}; {}", is(""), is(&good))), 201),
        (cookie(&format!("{}; {}", is(&other), is(&good))), 403),
        (cookie(&format!("{}; {}", is(&old), is("x"))), 401),
        (cookie(&format!("{many}{}", is(&good))), 401),
        // The header counts before the cookie, unless it is for a proxy.
        (format!("Authorization: Bearer {old}\r\n{}", cookie(&is(&good))), 401),
        (format!("Authorization: Bearer {good}\r\n{}", cookie(&is(&old))), 201),
        (format!("Authorization: Basic eDp5\r\n{}", cookie(&is(&good))), 201),
    ] {
        let response = server.post("t", &format!("{REMOTE}{headers}"), b"x").await;
        assert_eq!(response.status(), status, "{headers}");
    }
    let both = cookie(&format!("{}; {}", is(&old), is("x")));
    let response = server.post("t", &format!("{REMOTE}{both}"), b"x").await;
    let invalid = Some("Bearer error=\"invalid_token\"");
    assert_refused(response, 401, invalid, "it expired at 1970-01-01T00:00:01.000Z").await;
}

#[tokio::test]
async fn a_page_of_a_permitted_origin_publishes_with_its_own_token() {
    let mut access = access();
    access.cors_origins = ["https://app.example.org".parse().unwrap()].into();
    let server = Server::with_access(access).await;
    let preflight = [
        ("Host", &b"events.example.org"[..]),
        ("Origin", b"https://app.example.org"),
        ("Access-Control-Request-Method", b"POST"),
        ("Access-Control-Request-Headers", b"authorization"),
    ];
    let response = server.request("OPTIONS", "/events/t", &preflight).await;
    assert_eq!(response.header("access-control-allow-methods"), Some("GET,POST,PUT,DELETE"));
    let token = token(json!({"publish": ["t"]}));
    let headers = format!("Origin: https://app.example.org\r\n{}", bearer(&token));
    assert_eq!(server.post("t", &headers, b"x").await.status(), 201);
}

#[tokio::test]
async fn too_many_publishes_get_429_with_a_retry_time() {
    let server = Server::start_with(Settings {
        access: Access { trusted_proxies: ["127.0.0.1".parse().unwrap()].into(), ..access() },
        max_publishes: NonZeroU32::new(2).unwrap(),
        ..Settings::default()
    })
    .await;
    let token = token(json!({"publish": ["t"]}));
    let post = async |client: &str| {
        let headers = format!("X-Forwarded-For: {client}\r\n{}", bearer(&token));
        server.post("t", &headers, b"x").await
    };
    assert_eq!(post("192.0.2.1").await.status(), 201);
    let (mut response, mut published) = (post("192.0.2.1").await, 1);
    while response.status() == 201 {
        published += 1;
        response = post("192.0.2.1").await;
    }
    assert!(published >= 2, "the burst allows two");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_refused(response, 429, None, "This client publishes too many events per second.").await;
    assert_eq!(post("192.0.2.2").await.status(), 201, "another client is not limited");
    // Local requests are not limited.
    for _ in 0..5 {
        assert_eq!(server.post("t", "", b"x").await.status(), 201);
    }
    // Lines wait instead.
    let before = server.hub.newest();
    let headers = format!("X-Forwarded-For: 192.0.2.3\r\n{}", bearer(&token));
    assert_eq!(server.post("t?split=lines", &headers, b"1\n2\n3\n").await.status(), 200);
    assert_eq!(server.hub.newest(), before + 3);
}

#[tokio::test]
async fn a_token_may_come_as_a_subprotocol_of_a_websocket() {
    let server = start_with_tokens().await;
    let token = token(json!({"subscribe": ["t"]}));
    let expired = self::token(json!({"subscribe": ["t"], "exp": now() - 60.0}));
    for (protocols, status) in [
        (format!("waterclock, bearer.{token}"), 101),
        (format!("bearer.{token},waterclock"), 101),
        (format!("waterclock, bearer.{expired}"), 401),
        ("waterclock, bearer.".to_owned(), 401),
        ("waterclock".to_owned(), 401),
    ] {
        let request = format!(
            "GET /ws?topic=t HTTP/1.1\r\nHost: localhost\r\n{REMOTE}Connection: Upgrade, close\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocols}\r\n\r\n"
        );
        let response = server.send(request.as_bytes()).await;
        assert_eq!(response.status(), status, "{protocols}");
        // The token is not sent back.
        let chosen = (status == 101).then_some("waterclock");
        assert_eq!(response.header("sec-websocket-protocol"), chosen, "{protocols}");
    }
}

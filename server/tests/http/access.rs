//! Permission to read, over real sockets. Unit tests beside the code cover the cases that loopback
//! cannot.

use std::{num::NonZeroU32, time::Duration};

use serde_json::json;
use server::auth::Access;

use crate::{
    support::{REMOTE, Server, Settings, TestResponse},
    tokens,
};

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> TestResponse {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    server.request("GET", path, &headers).await
}

/// Returns the body of a 403 problem.
async fn refusal(response: TestResponse) -> String {
    assert_eq!(response.status(), 403);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    response.rest().await
}

#[tokio::test]
async fn a_page_with_a_rebound_name_reads_nothing() {
    let server = Server::with_access(Access::default()).await;
    server.publish("confidential").await;
    let foreign = [("Host", "rebound.example:3000")];
    let why = refusal(get(&server, "/events?last_event_id=earliest", &foreign).await).await;
    assert!(why.contains("This topic is not public"), "{why}");
    assert!(why.contains("its `Host` is not a loopback name (the option --allowed-host"), "{why}");
    assert!(refusal(get(&server, "/metrics", &foreign).await).await.contains("`Host`"));
    let page = get(&server, "/", &foreign).await;
    assert_eq!(page.status(), 200);
    let page = page.rest().await;
    assert!(!page.contains("confidential"));
    assert!(page.contains("You may not read these events."));
}

#[tokio::test]
async fn a_page_of_another_origin_reads_only_with_permission() {
    let origin = "https://example.org";
    let foreign = [("Host", "localhost:3000"), ("Origin", origin)];
    let server = Server::with_access(Access::default()).await;
    let why = refusal(get(&server, "/events", &foreign).await).await;
    assert!(why.contains("a page of another origin (the option --cors-origin"), "{why}");

    for allowed in [origin, "*"] {
        let access =
            Access { cors_origins: [allowed.parse().unwrap()].into(), ..Access::default() };
        let server = Server::with_access(access).await;
        let response = get(&server, "/events", &foreign).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.header("access-control-allow-origin"), Some(allowed));
        let preflight = [
            ("Host", &b"localhost:3000"[..]),
            ("Origin", origin.as_bytes()),
            ("Access-Control-Request-Method", b"GET"),
            ("Access-Control-Request-Headers", b"last-event-id"),
        ];
        let response = server.request("OPTIONS", "/events", &preflight).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.header("access-control-allow-origin"), Some(allowed));
        assert_eq!(response.header("access-control-allow-headers"), Some("last-event-id"));
    }
    let own = [("Host", "localhost:3000"), ("Origin", "http://localhost:3000")];
    let response = get(&server, "/events", &own).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("access-control-allow-origin"), None, "off by default");
}

#[tokio::test]
async fn a_preflight_allows_the_headers_that_clients_set() {
    let origin = "https://example.org";
    let access = Access { cors_origins: [origin.parse().unwrap()].into(), ..Access::default() };
    let server = Server::with_access(access).await;
    // Of event-source-polyfill, fetch-event-source, htmx, axios, tracing libraries and our own.
    let wanted = "authorization,cache-control,content-type,hx-current-url,hx-request,\
                  idempotency-key,last-event-id,pragma,traceparent,x-requested-with";
    for path in ["/events", "/events/t", "/poll", "/time", "/health/live"] {
        let preflight = [
            ("Host", &b"localhost:3000"[..]),
            ("Origin", origin.as_bytes()),
            ("Access-Control-Request-Method", b"GET"),
            ("Access-Control-Request-Headers", wanted.as_bytes()),
            ("Access-Control-Request-Private-Network", b"true"),
        ];
        let response = server.request("OPTIONS", path, &preflight).await;
        assert_eq!(response.status(), 200, "{path}");
        for (name, expected) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-headers", wanted),
            ("access-control-allow-methods", "GET,POST,PUT,DELETE"),
            ("access-control-allow-private-network", "true"),
            ("access-control-max-age", "3600"),
        ] {
            assert_eq!(response.header(name), Some(expected), "{path}");
        }
    }
    let mut other = [("Host", &b"localhost:3000"[..]), ("Origin", b"https://evil.test")];
    let response = server.request("OPTIONS", "/events", &other).await;
    assert_eq!(response.header("access-control-allow-origin"), None);
    other[1].1 = b"null";
    let response = server.request("OPTIONS", "/events", &other).await;
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_page_of_a_permitted_origin_can_read_each_refusal() {
    let origin = "https://example.org";
    let access = Access { cors_origins: [origin.parse().unwrap()].into(), ..tokens::access() };
    let server = Server::start_with(Settings {
        access,
        // Enough for the two requests that fail later.
        max_publishes: NonZeroU32::new(3).unwrap(),
        body_timeout: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    let token = tokens::bearer(&tokens::token(json!({"publish": ["t"]})));
    for (line, headers, body, status) in [
        ("GET /poll?wait=x", "", "", 400),
        ("POST /events/t", REMOTE, "x", 401),
        ("POST /events/t", "", "x", 401),
        ("POST /events/clock", &*token, "x", 403),
        ("GET /metrics", "", "", 403),
        ("GET /nothing", "", "", 404),
        ("PUT /poll", "", "", 405),
        ("POST /events/t", &token, "", 408),
        ("POST /events/t", &token, &"x".repeat(65_537), 413),
        ("GET /ws", "", "", 426),
        ("POST /events/t", &token, "x", 429),
        ("GET /time", "", "", 200),
    ] {
        let length = if status == 408 { 9 } else { body.len() };
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost:3000\r\nOrigin: {origin}\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        );
        let mut response = server.send(request.as_bytes()).await;
        // The rate limit is reached sooner or later, depending on the speed.
        while status == 429 && response.status() == 201 {
            response = server.send(request.as_bytes()).await;
        }
        assert_eq!(response.status(), status, "{line}");
        assert_eq!(response.header("access-control-allow-origin"), Some(origin), "{line}");
        let exposed = response.header("access-control-expose-headers");
        assert_eq!(exposed, Some("allow,date,retry-after,www-authenticate"), "{line}");
        let vary: Vec<_> =
            response.head.lines().filter(|line| line.starts_with("vary: ")).collect();
        assert!(vary.iter().any(|vary| vary.contains("origin")), "{vary:?}");
        assert_eq!(status == 404, vary.iter().any(|vary| vary.contains("accept")), "{vary:?}");
    }
}

#[tokio::test]
async fn anyone_may_read_a_public_topic() {
    let access = Access { public_topics: ["clock".parse().unwrap()].into(), ..Access::default() };
    let server = Server::with_access(access).await;
    let proxied = [("Host", "clock.example"), ("X-Forwarded-For", "192.0.2.1")];
    assert_eq!(get(&server, "/events", &proxied).await.status(), 200);
    server.publish("not secret").await;
    assert!(get(&server, "/", &proxied).await.rest().await.contains("not secret"));
    assert!(
        refusal(get(&server, "/metrics", &proxied).await).await.contains("it came through a proxy")
    );
}

#[tokio::test]
async fn each_refused_permission_names_the_option_or_header_that_helps() {
    let open = Server::start().await;
    let closed = Server::with_access(tokens::access()).await;
    let expired = tokens::bearer(&tokens::token(json!({"exp": 1})));
    let other = tokens::bearer(&tokens::token(json!({"publish": ["o"], "subscribe": ["o"]})));
    let foreign = "Host: localhost\r\nOrigin: https://app.example\r\n";
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (server, line, headers, status, help) in [
        (&open, "GET /events", REMOTE, 403, "--public-topic"),
        (&open, "GET /events", foreign, 403, "--cors-origin"),
        (&open, "GET /poll", "Host: app.example\r\n", 403, "--allowed-host"),
        (&open, "GET /topics/t", REMOTE, 403, "--public-topic"),
        (&open, "POST /events/t", REMOTE, 403, "--jwt-secret-file"),
        (&open, "DELETE /events/t", REMOTE, 403, "--jwt-secret-file"),
        (&open, "POST /events/t", foreign, 403, "--jwt-secret-file"),
        (&open, "GET /ws", &format!("{foreign}{socket}"), 403, "--cors-origin"),
        (&open, "GET /metrics", REMOTE, 403, "`Via`"),
        (&open, "POST /load", REMOTE, 403, "`Via`"),
        (&closed, "GET /events/t", REMOTE, 401, "`Authorization: Bearer`"),
        (&closed, "POST /events/t", REMOTE, 401, "`Authorization: Bearer`"),
        (&closed, "GET /poll", &expired, 401, "`Authorization`"),
        (&closed, "GET /poll", &other, 403, "`Authorization`"),
        (&closed, "POST /events/t", &other, 403, "`Authorization`"),
    ] {
        // HTTP/1.1 needs a `Host`.
        let version = if headers.contains("Host: ") { "1.1" } else { "1.0" };
        let request = format!("{line} HTTP/{version}\r\nConnection: close\r\n{headers}\r\n");
        let response = server.send(request.as_bytes()).await;
        assert_eq!(response.status(), status, "{line} {headers}");
        let problem = response.rest().await;
        assert!(problem.contains(help), "{line} {headers}: {problem}");
    }
}

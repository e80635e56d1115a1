//! Permission to read, over real sockets. Unit tests beside the code cover the cases that loopback
//! cannot.

use server::auth::Access;

use crate::support::{Server, TestResponse};

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
    server.publish("secret").await;
    let foreign = [("Host", "rebound.example:3000")];
    let why = refusal(get(&server, "/events?last_event_id=earliest", &foreign).await).await;
    assert!(why.contains("This topic is not public"), "{why}");
    assert!(why.contains("its `Host` is not a loopback name (the option --allowed-host"), "{why}");
    assert!(refusal(get(&server, "/metrics", &foreign).await).await.contains("`Host`"));
    let page = get(&server, "/", &foreign).await;
    assert_eq!(page.status(), 200);
    let page = page.rest().await;
    assert!(!page.contains("secret"));
    assert!(page.contains("These events are not public."));
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
        assert_eq!(
            response.header("access-control-allow-headers"),
            Some("last-event-id,idempotency-key,content-type,authorization")
        );
    }
    let own = [("Host", "localhost:3000"), ("Origin", "http://localhost:3000")];
    let response = get(&server, "/events", &own).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("access-control-allow-origin"), None, "off by default");
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

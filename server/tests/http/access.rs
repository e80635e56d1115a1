//! Who may read, over real sockets. What cannot be tried on loopback is tested beside the code.

use server::access::Access;

use crate::support::{Answer, Server, Settings};

async fn with(access: Access) -> Server {
    Server::start(Settings { access, ..Settings::default() }).await
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    server.request("GET", path, &headers).await
}

async fn reason(answer: Answer) -> String {
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    answer.rest().await
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_to_us_reads_nothing() {
    let server = with(Access::default()).await;
    server.publish("secret").await;
    let foreign = [("Host", "rebound.example:3000")];
    let why = reason(get(&server, "/events?last_event_id=earliest", &foreign).await).await;
    assert!(why.contains("This topic is not public"), "{why}");
    assert!(why.contains("its `Host` is not a loopback name (the option --allowed-host"), "{why}");
    assert!(reason(get(&server, "/metrics", &foreign).await).await.contains("`Host`"));
    let page = get(&server, "/", &foreign).await;
    assert_eq!(page.status(), 200);
    let page = page.rest().await;
    assert!(!page.contains("secret"));
    assert!(page.contains("These events are not public."));
}

#[tokio::test]
async fn a_page_of_another_origin_reads_only_where_it_is_allowed_to() {
    let origin = "https://example.org";
    let foreign = [("Host", "localhost:3000"), ("Origin", origin)];
    let server = with(Access::default()).await;
    let why = reason(get(&server, "/events", &foreign).await).await;
    assert!(why.contains("a page of another origin (the option --cors-origin"), "{why}");

    for allowed in [origin, "*"] {
        let access =
            Access { cors_origins: [allowed.parse().unwrap()].into(), ..Access::default() };
        let server = with(access).await;
        let answer = get(&server, "/events", &foreign).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some(allowed));
        let preflight = [
            ("Host", &b"localhost:3000"[..]),
            ("Origin", origin.as_bytes()),
            ("Access-Control-Request-Method", b"GET"),
            ("Access-Control-Request-Headers", b"last-event-id"),
        ];
        let answer = server.request("OPTIONS", "/events", &preflight).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some(allowed));
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("last-event-id,idempotency-key,content-type,authorization")
        );
    }
    let ours = [("Host", "localhost:3000"), ("Origin", "http://localhost:3000")];
    let answer = get(&server, "/events", &ours).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("access-control-allow-origin"), None, "off unless asked");
}

#[tokio::test]
async fn a_public_topic_is_read_by_all() {
    let access = Access { public_topics: ["clock".parse().unwrap()].into(), ..Access::default() };
    let server = with(access).await;
    let by_proxy = [("Host", "clock.example"), ("X-Forwarded-For", "192.0.2.1")];
    assert_eq!(get(&server, "/events", &by_proxy).await.status(), 200);
    server.publish("not secret").await;
    assert!(get(&server, "/", &by_proxy).await.rest().await.contains("not secret"));
    assert!(reason(get(&server, "/metrics", &by_proxy).await).await.contains("a proxy has passed"));
}

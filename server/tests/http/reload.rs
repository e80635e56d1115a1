//! Rules that are replaced while requests are open, and rules for tokens only and for anyone.

use std::sync::Arc;

use serde_json::json;
use server::auth::{Access, Audience, TopicRule};
use tokio::io::AsyncWriteExt as _;
use waterclock::transport::Transport;
use waterclock_axum::StreamLimits;

use crate::{
    readers::ReadRequest,
    support::{REMOTE, Server, Settings, TestResponse},
    tokens,
    ws::WebSocketClient,
};

/// Returns rules that give the topic `t` to these readers and publishers.
pub fn rule(audience: Audience) -> Access {
    let rule = TopicRule {
        topics: vec!["t".parse().unwrap()],
        read: Some(audience),
        publish: Some(audience),
        max_event_size: None,
        publish_rate: None,
    };
    Access { rules: Arc::new([rule]), ..tokens::access() }
}

#[tokio::test]
async fn a_reload_reaches_publishes_over_an_open_websocket() {
    let access =
        Access { public_topics: Arc::new(["u".parse().unwrap()]), ..rule(Audience::Anyone) };
    let server =
        Server::start_with(Settings { access, is_reloadable: true, ..Settings::default() });
    let server = server.await;
    let request = ReadRequest::new(&server, Transport::WebSocket, "topic=u").with_headers(REMOTE);
    let mut socket = WebSocketClient::handshake(request).await;
    assert!(socket.receive().await["hello"].is_object());
    let message = json!({"publish": {"topic": "t", "data": "x"}});
    for (audience, expected) in [
        (None, "published"),
        (Some(Audience::Nobody), "problem"),
        (Some(Audience::Anyone), "published"),
        (Some(Audience::Token), "problem"),
    ] {
        if let Some(audience) = audience {
            let public_topics = Arc::new(["u".parse().unwrap()]);
            let access = Access { public_topics, ..rule(audience) };
            server.reload.apply(access, StreamLimits { total: 9, per_address: 9 });
        }
        socket.send_json(&message).await;
        let answer = socket.receive().await;
        assert!(!answer[expected].is_null(), "{audience:?}: {answer}");
    }
}

#[tokio::test]
async fn a_reload_ends_a_poll_that_waits() {
    let access = rule(Audience::Anyone);
    let server =
        Server::start_with(Settings { access, is_reloadable: true, ..Settings::default() });
    let server = server.await;
    let mut connection = server.connect().await;
    let poll = format!("GET /poll?topic=t&wait=50 HTTP/1.1\r\nHost: localhost\r\n{REMOTE}\r\n");
    connection.write_all(poll.as_bytes()).await.unwrap();
    server.wait_for_streams(1).await;
    server.reload.apply(rule(Audience::Token), StreamLimits { total: 9, per_address: 9 });
    assert_eq!(TestResponse::read_from(connection).await.status(), 401);
}

#[tokio::test]
async fn a_rule_for_tokens_is_for_this_machine_too() {
    let server = Server::with_access(rule(Audience::Token)).await;
    let status = async |topic: &str, headers: &str| {
        let published = server.post(topic, headers, b"x").await.status();
        let get = format!("GET /poll?topic={topic} HTTP/1.0\r\n{headers}\r\n");
        (published, server.send(get.as_bytes()).await.status())
    };
    assert_eq!(status("t", "").await, (401, 401));
    assert_eq!(status("other", "").await, (201, 200));
    let header = |claims| format!("Authorization: Bearer {}\r\n", tokens::token(claims));
    let of_t = header(json!({"publish": ["t"], "subscribe": ["t"]}));
    assert_eq!(status("t", &of_t).await, (201, 200));
    assert_eq!(status("t", &format!("{of_t}{REMOTE}")).await, (201, 200));
    let of_other = header(json!({"publish": ["other"], "subscribe": ["other"]}));
    assert_eq!(status("t", &of_other).await, (403, 403));
}

#[tokio::test]
async fn anyone_may_publish_but_no_page_of_another_origin() {
    let cors_origins = Arc::new(["https://app.example".parse().unwrap()]);
    let server = Server::with_access(Access { cors_origins, ..rule(Audience::Anyone) }).await;
    let origin = |origin: &str| format!("Host: clock.example\r\nOrigin: {origin}\r\n{REMOTE}");
    for (headers, status) in [
        (REMOTE.to_owned(), 201),
        (String::new(), 201),
        (origin("http://clock.example"), 201),
        (origin("https://app.example"), 201),
        (origin("https://other.example"), 401),
        (origin("null"), 401),
        // A token of the page's own is not that of a visitor.
        (
            origin("https://other.example")
                + &tokens::bearer(&tokens::token(json!({"publish": ["t"]}))),
            201,
        ),
    ] {
        assert_eq!(server.post("t", &headers, b"x").await.status(), status, "{headers}");
    }
}

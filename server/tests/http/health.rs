//! The routes for operators, `/health` and `/metrics`, and the shutdown.

use crate::support::Server;

#[tokio::test]
async fn a_running_server_is_live_and_ready() {
    let server = Server::start().await;
    assert_eq!(server.get("/health/live").await.rest().await, "live\n");
    for path in ["/health/ready", "/health/ready?publish"] {
        assert_eq!(server.get(path).await.rest().await, "ready\n");
    }
    let state = server.get("/health/state").await;
    assert_eq!(state.header("cache-control"), Some("no-store"));
    assert_eq!(state.rest().await, r#"{"ready":true,"publish":true}"#);
}

#[tokio::test]
async fn a_draining_server_is_not_ready_and_still_responds() {
    let server = Server::start().await;
    let mut slow = server.get("/events").await;
    slow.message().await;
    // More data than all buffers between server and client.
    for _ in 0..100 {
        server.publish(&"x".repeat(100_000)).await;
    }
    server.stop.begin();
    let response = server.get("/health/ready").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(server.get("/health/live").await.status(), 200);
    let state = server.get("/health/state").await;
    assert_eq!(state.status(), 200);
    assert_eq!(state.rest().await, r#"{"ready":false,"publish":false}"#);
    let mut late = server.get("/events").await;
    assert_eq!(late.header("connection"), Some("close"));
    assert_eq!(late.message().await.name, "goodbye");
    assert!(late.has_ended().await);
    assert!(!server.serving.is_finished());

    assert!(slow.rest().await.ends_with("}\n\n"), "the goodbye is complete");
    server.serving.await.unwrap();
}

#[tokio::test]
async fn every_stream_gets_a_goodbye() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(server.get("/events").await);
    }
    server.wait_for_streams(50).await;
    server.stop.begin();
    for mut stream in streams {
        assert_eq!(stream.message().await.name, "hello");
        assert_eq!(stream.message().await.name, "goodbye");
        assert!(stream.has_ended().await);
    }
    server.serving.await.unwrap();
}

#[tokio::test]
async fn metrics_count_streams_events_and_bytes() {
    let server = Server::start().await;
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let mut response = server.get("/events?last_event_id=000000000000c10c-1").await;
    response.message().await;
    response.message().await;
    response.message().await;
    server.publish("d").await;
    let bytes = response.block().await.len() as u64;
    let mut gap = server.get("/events?last_event_id=x").await;
    gap.message().await;
    gap.message().await;

    let metrics = server.get("/metrics").await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(metrics.header("content-type"), Some(content_type));
    let metrics = metrics.rest().await;
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for line in [
        "waterclock_streams_open 2",
        "waterclock_streams_total 2",
        "waterclock_streams_behind 0",
        "waterclock_lag_events 0",
        "waterclock_events_published_total 4",
        "waterclock_events_sent_total 3",
        "waterclock_gaps_total{reason=\"malformed\"} 1",
        "waterclock_replay_events_sum 2.0",
        "waterclock_replay_events_count 2",
        // Replayed events are not counted here.
        "waterclock_publish_to_write_seconds_count 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    assert!(server.metric("waterclock_sent_bytes_total").await > 3 * bytes);

    drop((response, gap));
    server.wait_for_metric("waterclock_streams_open", |value| value == 0).await;
    let left = "waterclock_streams_ended_total{reason=\"client-left\"}";
    assert_eq!(server.metric(left).await, 2);
}

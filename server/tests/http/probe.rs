//! `/diagnose/stream`: the stream for measurements of a path.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use server::auth::Access;
use waterclock_axum::StreamLimits;
use waterclock_diagnose::ProbeEvent;

use crate::support::{Server, Settings, TestResponse};

/// Reads the next event of a probe.
async fn event(response: &mut TestResponse) -> ProbeEvent {
    let message = response.message().await;
    assert_eq!(message.name, "probe");
    let probe: ProbeEvent = serde_json::from_str(&message.data).unwrap();
    assert_eq!(message.last_event_id, format!("probe-{}", probe.number));
    probe
}

/// Returns the time in milliseconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

#[tokio::test]
async fn a_probe_begins_with_a_comment_and_a_retry_time() {
    let server = Server::start().await;
    let mut response = server.get("/diagnose/stream?retry=7&events=2").await;
    let block = response.block().await;
    let begin = ": waterclock probe\nretry: 7\nid: probe-1\nevent: probe\ndata: {\"number\":1,";
    assert!(block.starts_with(begin), "{block}");
    let block = response.block().await;
    assert!(block.starts_with("id: probe-2\nevent: probe\ndata: {\"number\":2,"), "{block}");
    assert!(response.has_ended().await);
    let block = server.get("/diagnose/stream").await.block().await;
    assert!(
        block.starts_with(": waterclock probe\nretry: 2000\n"),
        "the server's default: {block}"
    );
}

#[tokio::test]
async fn each_event_has_the_time_and_the_requested_padding() {
    let server = Server::start().await;
    let before = now();
    let mut response = server.get("/diagnose/stream?events=3&every=20&bytes=100").await;
    let mut paddings = Vec::new();
    let mut last = before;
    for number in 1..=3 {
        let probe = event(&mut response).await;
        assert_eq!((probe.number, probe.padding.len()), (number, 100));
        // Timers have a resolution of a millisecond. A late event does not delay the next one.
        let due = before + 20.0 * f64::from(number - 1);
        assert!(probe.time > due - 1.0 && probe.time >= last, "{number}");
        assert_eq!(probe.request.is_some(), number == 1);
        last = probe.time;
        paddings.push(probe.padding);
    }
    assert!(last <= now() + 1.0);
    assert!(response.has_ended().await);
    paddings.dedup();
    assert_eq!(paddings.len(), 3, "padding is random");
}

#[tokio::test]
async fn a_probe_has_the_headers_of_an_event_stream() {
    let server = Server::start().await;
    let head = |response: &TestResponse| {
        let lines = response.head.lines().filter(|line| !line.starts_with("date: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let events = head(&server.send(b"GET /events HTTP/1.0\r\n\r\n").await);
    assert!(events.contains(&"x-accel-buffering: no".to_owned()));
    assert_eq!(head(&server.get("/diagnose/stream").await), events);
    assert_eq!(head(&server.request("POST", "/diagnose/stream", &[]).await), events);
    let mut response = server.request("HEAD", "/diagnose/stream", &[]).await;
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert!(response.has_ended().await);
    assert_eq!(server.request("DELETE", "/diagnose/stream", &[]).await.status(), 405);
}

#[tokio::test]
async fn the_first_event_describes_the_request_without_secrets() {
    let began = Instant::now();
    let server = Server::start().await;
    let headers = [
        ("Last-Event-ID", &b"probe-7"[..]),
        ("Via", b"1.0 a"),
        ("Via", b"1.1 b"),
        ("X-Forwarded-For", "192.0.2.1, \u{fc}".as_bytes()),
        ("Cookie", b"waterclock_token=secret"),
        ("Authorization", b"Bearer secret"),
        ("X-Api-Key", b"secret"),
    ];
    let mut response = server.request("POST", "/diagnose/stream", &headers).await;
    let mut seen = event(&mut response).await.request.unwrap();
    let uptime = seen.uptime_ms.take().unwrap();
    assert!(uptime <= u64::try_from(began.elapsed().as_millis()).unwrap(), "{uptime}");
    let seen = serde_json::to_value(seen).unwrap();
    assert_eq!(
        seen,
        json!({
            "version": "HTTP/1.0",
            "method": "POST",
            "last_event_id": "probe-7",
            "heartbeat_ms": 3_600_000,
            "uptime_ms": null,
            "headers": {"via": "1.0 a, 1.1 b", "x-forwarded-for": "192.0.2.1, \u{fc}"},
        })
    );
    let request = b"GET /diagnose/stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = server.send(request).await.rest().await;
    assert!(
        response.contains("\"version\":\"HTTP/1.1\",\"method\":\"GET\",\"last_event_id\":null")
    );
}

#[tokio::test]
async fn a_probe_has_no_heartbeats() {
    let heartbeat = Duration::from_millis(10);
    let server = Server::start_with(Settings { heartbeat, ..Settings::default() }).await;
    let mut response = server.get("/diagnose/stream?events=2&every=100").await;
    assert_eq!(event(&mut response).await.number, 1);
    assert_eq!(event(&mut response).await.number, 2);
}

#[tokio::test]
async fn anyone_may_probe_except_pages_of_other_origins() {
    let access = Access {
        cors_origins: ["https://app.example".parse().unwrap()].into(),
        ..Access::default()
    };
    let server = Server::with_access(access).await;
    let headers = [("Via", &b"proxy"[..]), ("Origin", b"https://app.example")];
    let response = server.request("GET", "/diagnose/stream", &headers).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn invalid_parameters_get_400_with_the_limits() {
    let server = Server::start().await;
    for query in ["events=0", "events=1001", "every=x", "bytes=8193", "events=3&every=600000"] {
        for method in ["GET", "POST", "HEAD"] {
            let path = format!("/diagnose/stream?{query}");
            let response = server.request(method, &path, &[]).await;
            assert_eq!(response.status(), 400, "{method} {query}");
            if method != "HEAD" {
                let problem: Value = serde_json::from_str(&response.rest().await).unwrap();
                let expected = "`events` must be 1 to 1000, `every` 0 to 600000 milliseconds, \
                                `bytes` 0 to 8192, `retry` a number of milliseconds. A probe may \
                                last at most 15 minutes, and have at most 2097152 bytes of \
                                padding.";
                assert_eq!(problem["detail"], expected);
            }
        }
    }
}

#[tokio::test]
async fn a_probe_counts_as_a_stream() {
    let limits = StreamLimits { total: 10, per_address: 1 };
    let server = Server::start_with(Settings { limits, ..Settings::default() }).await;
    let mut first = server.get("/diagnose/stream?events=2&every=600000").await;
    event(&mut first).await;
    assert_eq!(server.streams.count(), 1);
    for path in ["/diagnose/stream", "/events"] {
        let mut beyond = server.get(path).await;
        assert_eq!(beyond.status(), 200, "an error would make a browser give up");
        let goodbye = beyond.message().await;
        assert_eq!(goodbye.name, "goodbye");
        assert!(goodbye.data.contains("\"reason\":\"limit\""), "{}", goodbye.data);
        assert!(beyond.has_ended().await);
    }
    drop(first);
    server.wait_for_streams(0).await;
    event(&mut server.get("/diagnose/stream").await).await;
    server
        .wait_for_metric("waterclock_streams_ended_total{reason=\"end\"}", |count| count == 1)
        .await;
    assert_eq!(server.metric("waterclock_streams_ended_total{reason=\"client-left\"}").await, 1);
    assert_eq!(server.metric("waterclock_streams_total").await, 2);
    assert_eq!(server.metric("waterclock_events_sent_total").await, 2);
    assert!(server.metric("waterclock_sent_bytes_total").await > 200);
}

#[tokio::test]
async fn a_shutdown_ends_a_probe_with_a_goodbye() {
    let server = Server::start().await;
    let mut response = server.get("/diagnose/stream?events=2&every=600000").await;
    event(&mut response).await;
    server.stop.begin();
    let goodbye = response.message().await;
    assert_eq!(goodbye.name, "goodbye");
    assert!(goodbye.data.contains("\"reason\":\"draining\""), "{}", goodbye.data);
    assert!(response.has_ended().await);
    server.serving.await.unwrap();
}

//! `GET /events` over real sockets.

use std::{sync::atomic::Ordering, time::Duration};

use crate::support::{Server, Settings, TIME, TestResponse, event_id};

/// Reads `count` messages, and returns their data.
async fn data(response: &mut TestResponse, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    for _ in 0..count {
        let message = response.message().await;
        assert_eq!(message.name, "message", "{message:?}");
        data.push(message.data);
    }
    data
}

#[tokio::test]
async fn a_stream_begins_with_its_headers_and_a_hello() {
    let server = Server::start().await;
    let mut response = server.get("/events").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    assert_eq!(
        response.block().await,
        format!(
            "retry: 2000\nid: {}\nevent: hello\ndata: {{\"time\":\"{TIME}\",\"connection\":1,\
             \"heartbeat_ms\":3600000,\"retry_ms\":2000,\"oldest\":null,\"newest\":null}}\n\n",
            event_id(0)
        )
    );
    server.publish("tick").await;
    assert_eq!(response.block().await, format!("id: {}\ndata: tick\n\n", event_id(1)));
    server.publish("two\nlines").await;
    assert_eq!(response.block().await, format!("id: {}\ndata: two\ndata: lines\n\n", event_id(2)));
}

#[tokio::test]
async fn hello_names_the_oldest_and_the_newest_event() {
    let server = Server::start_with(Settings { retain_count: 2, ..Settings::default() }).await;
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let hello = server.get("/events").await.message().await;
    assert_eq!((hello.name.as_str(), hello.last_event_id), ("hello", event_id(3)));
    assert!(hello.data.contains(&format!(
        r#""oldest":"{}","newest":"{}""#,
        event_id(2),
        event_id(3)
    )));
}

#[tokio::test]
async fn json_has_the_whole_event_in_an_unnamed_message() {
    let server = Server::start().await;
    let mut response = server.get("/events?format=json").await;
    response.message().await;
    server.publish("tick").await;
    assert_eq!(
        data(&mut response, 1).await,
        [format!(
            r#"{{"id":"{}","topic":"clock","name":"message","data":"tick","time":"{TIME}"}}"#,
            event_id(1)
        )]
    );
}

#[tokio::test]
async fn a_stream_resumes_after_the_header_or_else_the_query() {
    let server = Server::start().await;
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let (first, second) = (event_id(1), event_id(2));
    let in_query = format!("/events?last_event_id={first}");
    for (path, header, expected) in [
        ("/events", first.as_str(), vec!["b", "c"]),
        (&in_query, "", vec!["b", "c"]),
        (&in_query, &second, vec!["c"]),
        ("/events?last_event_id=earliest", "", vec!["a", "b", "c"]),
        ("/events", &event_id(0), vec!["a", "b", "c"]),
    ] {
        let headers = [("Last-Event-ID", header.as_bytes())];
        let mut response = server.request("GET", path, &headers).await;
        assert_eq!(response.message().await.name, "hello");
        assert_eq!(data(&mut response, expected.len()).await, expected, "{path} {header}");
    }
}

#[tokio::test]
async fn a_polyfills_cursor_counts_before_that_of_the_url_and_after_the_header() {
    let server = Server::start().await;
    for tick in ["a", "b", "c", "d"] {
        server.publish(tick).await;
    }
    for (query, header, expected) in [
        ("lastEventId=ID2&last_event_id=ID1", "", "c"),
        ("last_event_id=ID1&lastEventId=ID2", "", "c"),
        ("last_event_id=ID2&lastEventId=", "", "c"),
        ("lastEventId=ID2&last_event_id=ID1", "ID3", "d"),
    ] {
        let [query, header] =
            [query, header].map(|text| text.replace("ID", event_id(0).trim_end_matches('0')));
        let headers = [("Last-Event-ID", header.as_bytes())];
        let mut response = server.request("GET", &format!("/events?{query}"), &headers).await;
        assert_eq!(response.message().await.name, "hello");
        assert_eq!(data(&mut response, 1).await, [expected], "{query} {header}");
    }
}

#[tokio::test]
async fn a_topic_in_the_path_is_streamed() {
    let server = Server::start().await;
    for (topic, text) in [("orders.eu", "a"), ("orders.us", "b"), ("clock", "c"), ("t", "d")] {
        server.publish_to(topic, text).await;
    }
    for (path, expected) in [
        ("/events/orders.eu?", &["a"][..]),
        ("/events/orders.*?", &["a", "b"]),
        ("/events/orders.%3E?", &["a", "b"]),
        ("/events/orders.us?topic=t&", &["b", "d"]),
    ] {
        let mut response = server.get(&format!("{path}last_event_id=earliest")).await;
        assert_eq!(response.message().await.name, "hello");
        assert_eq!(data(&mut response, expected.len()).await, expected, "{path}");
    }
    let mut response = server.get("/events/orders.eu?limit=1&format=json").await;
    assert_eq!(response.message().await.name, "hello");
    server.publish_to("orders.us", "e").await;
    server.publish_to("orders.eu", "f").await;
    assert!(response.message().await.data.contains(r#""data":"f""#));
}

#[tokio::test]
async fn a_stream_starts_with_the_first_event_of_a_time() {
    let server = Server::start().await;
    let start = server.now.load(Ordering::Relaxed);
    // The clock is set back for the last one.
    for (seconds, tick) in [(0, "a"), (60, "b"), (600, "c"), (300, "d")] {
        server.now.store(start + seconds * 1000, Ordering::Relaxed);
        server.publish(tick).await;
    }
    server.now.store(start + 660_000, Ordering::Relaxed);
    for (since, expected) in [
        ("11m", &["a", "b", "c", "d"][..]),
        ("10m", &["b", "c", "d"]),
        ("9m59s", &["c", "d"]),
        ("60s", &["c", "d"]),
        ("59s", &[]),
        ("2026-11-22T07:01:00Z", &["b", "c", "d"]),
        ("2026-11-22T08:01:01%2B01:00", &["c", "d"]),
        ("2026-11-22T08:01:01+01:00", &["c", "d"]),
        // Within a minute it may be that clocks differ.
        ("2026-11-22T07:12:00Z", &[]),
    ] {
        let mut response = server.get(&format!("/events?since={since}")).await;
        let hello = response.message().await;
        let before = 4 - u64::try_from(expected.len()).unwrap();
        assert_eq!(hello.last_event_id, event_id(before), "a cut here loses nothing: {since}");
        assert_eq!(data(&mut response, expected.len()).await, expected, "{since}");
        let polled = server.get(&format!("/poll?since={since}")).await.rest().await;
        assert_eq!(polled.matches(r#""data""#).count(), expected.len(), "{since}");
    }
    // A browser that reconnects repeats the URL.
    let cursor = event_id(3);
    let headers = [("Last-Event-ID", cursor.as_bytes())];
    let mut response = server.request("GET", "/events?since=11m", &headers).await;
    assert_eq!(response.message().await.name, "hello");
    assert_eq!(data(&mut response, 1).await, ["d"]);
}

#[tokio::test]
async fn a_start_in_the_future_or_malformed_is_refused() {
    let server = Server::start().await;
    for (since, why) in [
        ("2026-11-22T07:01:01Z", "in the future"),
        ("2999-01-01T00:00:00Z", "in the future"),
        ("ten+minutes", "`10m`"),
        ("", "`10m`"),
        ("earliest", "`last_event_id`"),
    ] {
        for path in ["/events", "/poll", "/events/t"] {
            let response = server.get(&format!("{path}?since={since}")).await;
            assert_eq!(response.status(), 400, "{path} {since}");
            let problem = response.rest().await;
            assert!(problem.contains(why), "{problem}");
        }
    }
}

#[tokio::test]
async fn replay_continues_live_without_losses_or_duplicates() {
    let server = Server::start().await;
    for n in 1..=50 {
        server.publish(&n.to_string()).await;
    }
    let mut response = server.get("/events?last_event_id=earliest").await;
    for n in 51..=60 {
        server.publish(&n.to_string()).await;
    }
    assert_eq!(response.message().await.name, "hello");
    let expected: Vec<_> = (1..=60).map(|n| n.to_string()).collect();
    assert_eq!(data(&mut response, 60).await, expected);
}

#[tokio::test]
async fn a_cut_before_the_first_event_loses_nothing() {
    let server = Server::start().await;
    let cursor = server.get("/events").await.message().await.last_event_id;
    server.wait_for_streams(0).await;
    server.publish("meanwhile").await;
    let mut response = server.get(&format!("/events?last_event_id={cursor}")).await;
    response.message().await;
    assert_eq!(data(&mut response, 1).await, ["meanwhile"]);
}

#[tokio::test]
async fn an_unusable_cursor_gets_a_gap() {
    let settings = Settings { retain_count: 2, ..Settings::default() };
    let server = Server::start_after(&["a", "b", "c", "d"], settings).await;
    let long = "9".repeat(300);
    for (cursor, reason, resumes_after) in [
        (event_id(1).as_bytes(), "expired", 2),
        (b"00000000c10cca11-3", "other-epoch", 2),
        (event_id(5).as_bytes(), "future", 4),
        (b"nonsense", "malformed", 4),
        (long.as_bytes(), "malformed", 4),
        (b"\xff\xfe", "malformed", 4),
        (b"a\tb", "malformed", 4),
        (format!("{}.x", event_id(2)).as_bytes(), "malformed", 4),
    ] {
        let headers = [("Last-Event-ID", cursor)];
        let mut response = server.request("GET", "/events", &headers).await;
        let hello = response.message().await;
        assert_eq!(hello.name, "hello");
        assert_eq!(
            hello.last_event_id, "",
            "the client keeps its own cursor until the gap arrives"
        );
        let gap = response.message().await;
        assert_eq!((gap.name.as_str(), gap.last_event_id), ("gap", event_id(resumes_after)));
        let json_cursor = serde_json::to_string(&String::from_utf8_lossy(cursor)).unwrap();
        assert_eq!(gap.data, format!(r#"{{"reason":"{reason}","cursor":{json_cursor}}}"#));
        let expected = ["c", "d"];
        let expected = &expected[usize::try_from(resumes_after).unwrap() - 2..];
        assert_eq!(data(&mut response, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn a_cursor_cannot_add_lines_to_the_stream() {
    let server = Server::start().await;
    for (query, text) in [
        ("%0d%0aid:%20x%0d%0adata:%20y", "\r\nid: x\r\ndata: y"),
        ("%0a%0a", "\n\n"),
        ("%00", "\0"),
        ("%1b[31m", "\u{1b}[31m"),
    ] {
        let mut response = server.get(&format!("/events?last_event_id={query}")).await;
        assert_eq!(response.message().await.name, "hello");
        let json_cursor = serde_json::to_string(text).unwrap();
        let expected = format!(
            "id: {}\nevent: gap\ndata: {{\"reason\":\"malformed\",\"cursor\":{json_cursor}}}\n\n",
            event_id(0)
        );
        assert_eq!(response.block().await, expected);
    }
}

#[tokio::test]
async fn a_quiet_stream_has_heartbeats_with_its_position() {
    let heartbeat = Duration::from_millis(5);
    let server = Server::start_with(Settings { heartbeat, ..Settings::default() }).await;
    server.publish("tick").await;
    let mut response = server.get("/events").await;
    assert_eq!(response.message().await.name, "hello");
    for _ in 0..3 {
        assert_eq!(
            response.block().await,
            format!("id: {}\nevent: heartbeat\ndata: {{\"time\":\"{TIME}\"}}\n\n", event_id(1))
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let server = Server::start().await;
    let mut response = server.get("/events").await;
    response.message().await;
    server.wait_for_streams(1).await;
    drop(response);
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn a_limit_is_counted_in_the_ids_and_ends_the_stream() {
    let server = Server::start().await;
    for tick in ["a", "b", "c", "d"] {
        server.publish(tick).await;
    }
    let mut response = server.get("/events?limit=3&last_event_id=earliest").await;
    assert_eq!(response.message().await.last_event_id, format!("{}.0", event_id(0)));
    for (sequence, tick) in [(1, "a"), (2, "b"), (3, "c")] {
        let expected = format!("id: {}.{sequence}\ndata: {tick}\n\n", event_id(sequence));
        assert_eq!(response.block().await, expected);
    }
    assert_eq!(response.block().await, "event: end\ndata: {\"sent\":3}\n\n");
    assert!(response.has_ended().await);

    // A 204 stops the browser's next attempt.
    let last = format!("{}.3", event_id(3));
    let headers = [("Last-Event-ID", last.as_bytes())];
    let response = server.request("GET", "/events?limit=3&last_event_id=earliest", &headers).await;
    assert_eq!(response.status(), 204);
    assert_eq!(server.request("HEAD", "/events?limit=3", &headers).await.status(), 204);
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn a_resumed_stream_counts_toward_its_original_limit() {
    let server = Server::start().await;
    server.publish("a").await;
    server.publish("b").await;
    let mut response = server.get("/events?limit=5&format=json&last_event_id=earliest").await;
    response.message().await;
    data(&mut response, 1).await;
    let cut = response.message().await.last_event_id;
    assert_eq!(cut, format!("{}.2", event_id(2)));
    drop(response);
    for tick in ["c", "d", "e", "f"] {
        server.publish(tick).await;
    }
    let headers = [("Last-Event-ID", cut.as_bytes())];
    let mut response = server.request("GET", "/events?limit=5", &headers).await;
    assert_eq!(response.message().await.last_event_id, cut, "a cut here keeps the count");
    assert_eq!(data(&mut response, 3).await, ["c", "d", "e"]);
    assert_eq!(response.message().await.data, r#"{"sent":5}"#);
    assert!(response.has_ended().await);
}

#[tokio::test]
async fn gaps_and_heartbeats_keep_the_count_of_a_limit() {
    let heartbeat = Duration::from_millis(5);
    let server = Server::start_with(Settings { heartbeat, ..Settings::default() }).await;
    let cursor = format!("{}.7", event_id(9));
    let headers = [("Last-Event-ID", cursor.as_bytes())];
    let mut response = server.request("GET", "/events?limit=8", &headers).await;
    response.message().await;
    for name in ["gap", "heartbeat", "heartbeat"] {
        let message = response.message().await;
        assert_eq!(
            (message.name.as_str(), message.last_event_id),
            (name, format!("{}.7", event_id(0)))
        );
    }
    server.publish("the eighth").await;
    while response.message().await.name != "end" {}
    assert!(response.has_ended().await);
}

#[tokio::test]
async fn conflate_sends_only_the_latest_event_to_a_late_reader() {
    let heartbeat = Duration::from_millis(5);
    let server = Server::start_with(Settings { heartbeat, ..Settings::default() }).await;
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let mut response = server.get("/events?conflate&last_event_id=earliest").await;
    assert_eq!(response.message().await.name, "hello");
    assert_eq!(response.message().await.data, "c");
    assert_eq!(response.message().await.data, format!(r#"{{"time":"{TIME}","skipped":2}}"#));
    assert_eq!(server.metric("waterclock_events_skipped_total").await, 2);
}

#[tokio::test]
async fn a_shutdown_ends_streams_with_a_goodbye() {
    let server = Server::start().await;
    let mut response = server.get("/events").await;
    response.message().await;
    server.stop.begin();
    let rest = response.rest().await;
    let (retry, rest) =
        rest.strip_prefix("retry: ").and_then(|rest| rest.split_once('\n')).unwrap();
    assert_eq!(
        rest,
        format!("event: goodbye\ndata: {{\"reason\":\"draining\",\"retry_ms\":{retry}}}\n\n")
    );
    let retry: u64 = retry.parse().unwrap();
    assert!((2000..4000).contains(&retry), "spread: {retry}");
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_head_request_opens_no_stream() {
    let server = Server::start().await;
    let response = server.request("HEAD", "/events", &[]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.rest().await, "");
    let hello = server.get("/events").await.message().await;
    assert!(hello.data.contains(r#""connection":1,"#), "the first stream: {}", hello.data);
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let server = Server::start().await;
    for method in ["PUT", "OPTIONS", "DELETE", "NONSENSE"] {
        let response = server.request(method, "/events", &[("Content-Length", b"0")]).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.header("allow"), Some("GET,HEAD,POST"));
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
    let response = server.request("POST", "/", &[("Content-Length", b"0")]).await;
    assert_eq!(response.status(), 405);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn an_invalid_query_gets_400_with_the_permitted_values() {
    let server = Server::start().await;
    let too_many: Vec<_> = (0..65).map(|n| format!("topic={n}")).collect();
    let too_many = format!("/events?{}", too_many.join("&"));
    let invalid_limit = "is not a valid limit. `limit` must be a whole number from 1 to";
    for (path, status, detail) in [
        ("/events?limit=0", 400, invalid_limit),
        ("/events?limit=abc", 400, invalid_limit),
        ("/events?limit=", 400, invalid_limit),
        ("/events?limit=-1", 400, invalid_limit),
        ("/events?limit=1.5", 400, invalid_limit),
        ("/events?limit=99999999999999999999", 400, invalid_limit),
        ("/events?conflate=perhaps", 400, "`conflate` must be `true` or `false`, or be left out"),
        ("/events?topic=", 400, "is not a pattern"),
        (
            "/events?topic=a..b",
            400,
            "\\\"a..b\\\" is not a pattern: a pattern is a topic in which `*`",
        ),
        ("/events?topic=../etc", 400, "is not a pattern"),
        (&too_many, 400, "A subscription may have at most 64 patterns"),
        (
            "/events?format=xml",
            400,
            "\\\"xml\\\" is not a format. `format` must be `json`, or be left out",
        ),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        let body = response.rest().await;
        assert!(body.contains(detail), "{path}: {body}");
    }
}

#[tokio::test]
async fn unknown_parameters_are_ignored() {
    let server = Server::start().await;
    let response = server.get("/events?topic=clock&topic=clock&x=y&=&%ff=%00&x").await;
    assert_eq!(response.status(), 200);
}

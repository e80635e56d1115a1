//! `GET /events` over real sockets.

use std::time::Duration;

use crate::support::{Answer, Server, Settings, TIME};

/// An id of the test's log.
fn id(sequence: u64) -> String {
    format!("000000000000c10c-{sequence}")
}

async fn start() -> Server {
    Server::start(Settings::default()).await
}

/// The data of that many messages, the next ones.
async fn data(answer: &mut Answer, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    for _ in 0..count {
        let message = answer.message().await;
        assert_eq!(message.name, "message", "{message:?}");
        data.push(message.data);
    }
    data
}

#[tokio::test]
async fn the_first_bytes_of_a_stream() {
    let server = start().await;
    let mut answer = server.get("/events").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(
        answer.block().await,
        format!(
            "retry: 2000\nid: {}\nevent: hello\ndata: {{\"time\":\"{TIME}\",\"connection\":1,\
             \"heartbeat_ms\":3600000,\"retry_ms\":2000,\"oldest\":null,\"newest\":null}}\n\n",
            id(0)
        )
    );
    server.publish("tick").await;
    assert_eq!(answer.block().await, format!("id: {}\ndata: tick\n\n", id(1)));
    server.publish("two\nlines").await;
    assert_eq!(answer.block().await, format!("id: {}\ndata: two\ndata: lines\n\n", id(2)));
}

#[tokio::test]
async fn hello_tells_what_is_kept() {
    let server = Server::start(Settings { retain_count: 2, ..Settings::default() }).await;
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let hello = server.get("/events").await.message().await;
    assert_eq!((hello.name.as_str(), hello.last_event_id), ("hello", id(3)));
    assert!(hello.data.contains(&format!(r#""oldest":"{}","newest":"{}""#, id(2), id(3))));
}

#[tokio::test]
async fn json_has_the_whole_event_in_an_unnamed_message() {
    let server = start().await;
    let mut answer = server.get("/events?format=json").await;
    answer.message().await;
    server.publish("tick").await;
    assert_eq!(
        data(&mut answer, 1).await,
        [format!(
            r#"{{"id":"{}","topic":"clock","name":"message","data":"tick","time":"{TIME}"}}"#,
            id(1)
        )]
    );
}

#[tokio::test]
async fn resumes_after_the_header_or_the_query_and_the_header_wins() {
    let server = start().await;
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let (first, second) = (id(1), id(2));
    let in_query = format!("/events?last_event_id={first}");
    for (path, header, expected) in [
        ("/events", first.as_str(), vec!["b", "c"]),
        (&in_query, "", vec!["b", "c"]),
        (&in_query, &second, vec!["c"]),
        ("/events?last_event_id=earliest", "", vec!["a", "b", "c"]),
        ("/events", &id(0), vec!["a", "b", "c"]),
    ] {
        let headers = [("Last-Event-ID", header.as_bytes())];
        let mut answer = server.request("GET", path, &headers).await;
        assert_eq!(answer.message().await.name, "hello");
        assert_eq!(data(&mut answer, expected.len()).await, expected, "{path} {header}");
    }
}

#[tokio::test]
async fn replay_goes_over_into_live_without_loss_or_double() {
    let server = start().await;
    for n in 1..=50 {
        server.publish(&n.to_string()).await;
    }
    let mut answer = server.get("/events?last_event_id=earliest").await;
    for n in 51..=60 {
        server.publish(&n.to_string()).await;
    }
    assert_eq!(answer.message().await.name, "hello");
    let expected: Vec<_> = (1..=60).map(|n| n.to_string()).collect();
    assert_eq!(data(&mut answer, 60).await, expected);
}

#[tokio::test]
async fn a_cut_before_the_first_event_loses_nothing() {
    let server = start().await;
    let cursor = server.get("/events").await.message().await.last_event_id;
    server.until_streams(0).await;
    server.publish("meanwhile").await;
    let mut answer = server.get(&format!("/events?last_event_id={cursor}")).await;
    answer.message().await;
    assert_eq!(data(&mut answer, 1).await, ["meanwhile"]);
}

#[tokio::test]
async fn a_cursor_that_cannot_be_honoured_is_told_as_a_gap() {
    let server = Server::start(Settings { retain_count: 2, ..Settings::default() }).await;
    for tick in ["a", "b", "c", "d"] {
        server.publish(tick).await;
    }
    let long = "9".repeat(300);
    for (cursor, reason, goes_on_after) in [
        (id(1).as_bytes(), "expired", 2),
        (b"00000000c10cca11-3", "other-epoch", 2),
        (id(5).as_bytes(), "future", 4),
        (b"nonsense", "malformed", 4),
        (long.as_bytes(), "malformed", 4),
        (b"\xff\xfe", "malformed", 4),
        (b"a\tb", "malformed", 4),
        (format!("{}.x", id(2)).as_bytes(), "malformed", 4),
    ] {
        let headers = [("Last-Event-ID", cursor)];
        let mut answer = server.request("GET", "/events", &headers).await;
        let hello = answer.message().await;
        assert_eq!(hello.name, "hello");
        assert_eq!(
            hello.last_event_id, "",
            "the client keeps its own cursor until the gap is told"
        );
        let gap = answer.message().await;
        assert_eq!((gap.name.as_str(), gap.last_event_id), ("gap", id(goes_on_after)));
        let asked = serde_json::to_string(&String::from_utf8_lossy(cursor)).unwrap();
        assert_eq!(gap.data, format!(r#"{{"reason":"{reason}","cursor":{asked}}}"#));
        let expected = ["c", "d"];
        let expected = &expected[usize::try_from(goes_on_after).unwrap() - 2..];
        assert_eq!(data(&mut answer, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn a_cursor_cannot_add_lines_to_the_stream() {
    let server = start().await;
    for (query, asked) in [
        ("%0d%0aid:%20x%0d%0adata:%20y", "\r\nid: x\r\ndata: y"),
        ("%0a%0a", "\n\n"),
        ("%00", "\0"),
        ("%1b[31m", "\u{1b}[31m"),
    ] {
        let mut answer = server.get(&format!("/events?last_event_id={query}")).await;
        assert_eq!(answer.message().await.name, "hello");
        let asked = serde_json::to_string(asked).unwrap();
        let expected = format!(
            "id: {}\nevent: gap\ndata: {{\"reason\":\"malformed\",\"cursor\":{asked}}}\n\n",
            id(0)
        );
        assert_eq!(answer.block().await, expected);
    }
}

#[tokio::test]
async fn a_quiet_stream_has_heartbeats_with_its_position() {
    let heartbeat = Duration::from_millis(5);
    let server = Server::start(Settings { heartbeat, ..Settings::default() }).await;
    server.publish("tick").await;
    let mut answer = server.get("/events").await;
    assert_eq!(answer.message().await.name, "hello");
    for _ in 0..3 {
        assert_eq!(
            answer.block().await,
            format!("id: {}\nevent: heartbeat\ndata: {{\"time\":\"{TIME}\"}}\n\n", id(1))
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let server = start().await;
    let mut answer = server.get("/events").await;
    answer.message().await;
    server.until_streams(1).await;
    drop(answer);
    server.until_streams(0).await;
}

#[tokio::test]
async fn a_limit_counts_in_the_ids_and_then_the_stream_ends() {
    let server = start().await;
    for tick in ["a", "b", "c", "d"] {
        server.publish(tick).await;
    }
    let mut answer = server.get("/events?limit=3&last_event_id=earliest").await;
    assert_eq!(answer.message().await.last_event_id, format!("{}.0", id(0)));
    for (sequence, tick) in [(1, "a"), (2, "b"), (3, "c")] {
        let expected = format!("id: {}.{sequence}\ndata: {tick}\n\n", id(sequence));
        assert_eq!(answer.block().await, expected);
    }
    assert_eq!(answer.block().await, "event: end\ndata: {\"sent\":3}\n\n");
    assert!(answer.has_ended().await);

    // What the browser asks then, which makes it stop.
    let last = format!("{}.3", id(3));
    let headers = [("Last-Event-ID", last.as_bytes())];
    let answer = server.request("GET", "/events?limit=3&last_event_id=earliest", &headers).await;
    assert_eq!(answer.status(), 204);
    assert_eq!(server.request("HEAD", "/events?limit=3", &headers).await.status(), 204);
    server.until_streams(0).await;
}

#[tokio::test]
async fn a_stream_with_a_limit_that_was_cut_goes_on_to_as_many_in_all() {
    let server = start().await;
    server.publish("a").await;
    server.publish("b").await;
    let mut answer = server.get("/events?limit=5&format=json&last_event_id=earliest").await;
    answer.message().await;
    data(&mut answer, 1).await;
    let cut = answer.message().await.last_event_id;
    assert_eq!(cut, format!("{}.2", id(2)));
    drop(answer);
    for tick in ["c", "d", "e", "f"] {
        server.publish(tick).await;
    }
    let headers = [("Last-Event-ID", cut.as_bytes())];
    let mut answer = server.request("GET", "/events?limit=5", &headers).await;
    assert_eq!(answer.message().await.last_event_id, cut, "a cut here would not forget the count");
    assert_eq!(data(&mut answer, 3).await, ["c", "d", "e"]);
    assert_eq!(answer.message().await.data, r#"{"sent":5}"#);
    assert!(answer.has_ended().await);
}

#[tokio::test]
async fn with_a_limit_gaps_and_heartbeats_keep_the_count() {
    let heartbeat = Duration::from_millis(5);
    let server = Server::start(Settings { heartbeat, ..Settings::default() }).await;
    let cursor = format!("{}.7", id(9));
    let headers = [("Last-Event-ID", cursor.as_bytes())];
    let mut answer = server.request("GET", "/events?limit=8", &headers).await;
    answer.message().await;
    for name in ["gap", "heartbeat", "heartbeat"] {
        let message = answer.message().await;
        assert_eq!((message.name.as_str(), message.last_event_id), (name, format!("{}.7", id(0))));
    }
    server.publish("the eighth").await;
    while answer.message().await.name != "end" {}
    assert!(answer.has_ended().await);
}

#[tokio::test]
async fn conflate_sends_only_the_latest_when_behind() {
    let heartbeat = Duration::from_millis(5);
    let server = Server::start(Settings { heartbeat, ..Settings::default() }).await;
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let mut answer = server.get("/events?conflate&last_event_id=earliest").await;
    assert_eq!(answer.message().await.name, "hello");
    assert_eq!(answer.message().await.data, "c");
    assert_eq!(answer.message().await.data, format!(r#"{{"time":"{TIME}","skipped":2}}"#));
    assert_eq!(server.metric("waterclock_events_skipped_total").await, 2);
}

#[tokio::test]
async fn when_the_server_stops_streams_say_goodbye_and_end() {
    let server = start().await;
    let mut answer = server.get("/events").await;
    answer.message().await;
    server.stop.begin();
    let rest = answer.rest().await;
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
async fn head_answers_the_head_and_opens_nothing() {
    let server = start().await;
    let answer = server.request("HEAD", "/events", &[]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.rest().await, "");
    let hello = server.get("/events").await.message().await;
    assert!(hello.data.contains(r#""connection":1,"#), "the first one: {}", hello.data);
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let server = start().await;
    for method in ["POST", "OPTIONS", "DELETE", "NONSENSE"] {
        let answer = server.request(method, "/events", &[("Content-Length", b"0")]).await;
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let answer = server.request("POST", "/", &[("Content-Length", b"0")]).await;
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn bad_requests_are_told_what_is_allowed() {
    let server = start().await;
    let too_many: Vec<_> = (0..65).map(|n| format!("topic={n}")).collect();
    let too_many = format!("/events?{}", too_many.join("&"));
    let no_limit = "is no number of events. `limit` is a whole number from 1 to";
    for (path, status, detail) in [
        ("/events?limit=0", 400, no_limit),
        ("/events?limit=abc", 400, no_limit),
        ("/events?limit=", 400, no_limit),
        ("/events?limit=-1", 400, no_limit),
        ("/events?limit=1.5", 400, no_limit),
        ("/events?limit=99999999999999999999", 400, no_limit),
        ("/events?conflate=perhaps", 400, "`conflate` is `true`, `false`, or left out"),
        ("/events?topic=", 400, "is not a pattern"),
        (
            "/events?topic=a..b",
            400,
            "\\\"a..b\\\" is not a pattern: a pattern is a topic in which `*`",
        ),
        ("/events?topic=../etc", 400, "is not a pattern"),
        (&too_many, 400, "A stream has at most 64 patterns"),
        ("/events?format=xml", 400, "There is no format \\\"xml\\\". Leave `format` out"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let body = answer.rest().await;
        assert!(body.contains(detail), "{path}: {body}");
    }
}

#[tokio::test]
async fn unknown_parameters_are_ignored() {
    let server = start().await;
    let answer = server.get("/events?topic=clock&topic=clock&x=y&=&%ff=%00&x").await;
    assert_eq!(answer.status(), 200);
}

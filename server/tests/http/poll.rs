//! `GET /poll` over real sockets.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use serde_json::{Value, json};
use waterclock::notice::TopicEnd;
use waterclock_axum::StreamLimits;

use crate::support::{Server, Settings, event_id};

/// Starts a server that retains four ticks.
async fn start_retaining_four() -> Server {
    Server::start_with(Settings { retain_count: 4, ..Settings::default() }).await
}

/// Polls. Returns the data of the events, the cursor's sequence number, and the gap's reason.
async fn poll(server: &Server, query: &str) -> (Vec<String>, u64, Option<String>) {
    let response = server.get(&format!("/poll?{query}")).await;
    assert_eq!(response.status(), 200, "{query}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    let response: Value = serde_json::from_str(&response.rest().await).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let events = response["events"].as_array().unwrap();
    let data = events.iter().map(|event| text(&event["data"]).unwrap()).collect();
    let cursor = text(&response["cursor"]).unwrap();
    let sequence = cursor.strip_prefix("000000000000c10c-").unwrap().parse().unwrap();
    (data, sequence, text(&response["gap"]["reason"]))
}

fn data(data: &[&str]) -> Vec<String> {
    data.iter().map(|&data| data.to_owned()).collect()
}

#[tokio::test]
async fn each_poll_continues_after_the_previous_one() {
    let server = start_retaining_four().await;
    assert_eq!(poll(&server, "").await, (vec![], 0, None));
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    let after = |n| format!("last_event_id=000000000000c10c-{n}");
    assert_eq!(poll(&server, &after(1)).await, (data(&["b", "c"]), 3, None));
    assert_eq!(poll(&server, &after(3)).await, (vec![], 3, None));
    let earliest = "last_event_id=earliest";
    assert_eq!(poll(&server, &format!("{earliest}&limit=2")).await, (data(&["a", "b"]), 2, None));
    assert_eq!(poll(&server, &format!("{earliest}&conflate")).await, (data(&["c"]), 3, None));
    assert_eq!(poll(&server, &format!("{earliest}&topic=other")).await, (vec![], 3, None));
    let (first, second) = (poll(&server, &after(1)).await, poll(&server, &after(1)).await);
    assert_eq!(first, second, "a repeated poll gets the same response");
}

#[tokio::test]
async fn a_poll_without_a_cursor_has_the_newest_event() {
    let server = start_retaining_four().await;
    for (topic, text) in [("clock", "a"), ("t", "b"), ("clock", "c"), ("u", "d")] {
        server.publish_to(topic, text).await;
    }
    assert_eq!(poll(&server, "").await, (data(&["c"]), 4, None));
    assert_eq!(poll(&server, "topic=t&topic=clock&conflate").await, (data(&["c"]), 4, None));
    assert_eq!(poll(&server, "topic=t&limit=9&last_event_id=").await, (data(&["b"]), 4, None));
    assert_eq!(poll(&server, "topic=none").await, (vec![], 4, None));
    let (_, cursor, _) = poll(&server, "topic=t").await;
    server.publish_to("t", "e").await;
    let after = format!("topic=t&last_event_id=000000000000c10c-{cursor}");
    assert_eq!(poll(&server, &after).await, (data(&["e"]), 5, None));
    let response = server.get("/poll?topic=t").await.rest().await;
    assert!(response.ends_with(r#""gap":null,"more":false}"#), "{response}");
    // A client that repeats such a request would ask without end.
    assert_eq!(poll(&server, "topic=t&wait=1").await, (vec![], 5, None), "`wait` starts now");
}

#[tokio::test]
async fn a_gap_comes_with_the_events_after_it() {
    let settings = Settings { retain_count: 4, ..Settings::default() };
    let server = Server::start_after(&["a", "b", "c", "d", "e", "f"], settings).await;
    let rest = data(&["c", "d", "e", "f"]);
    let expired = Some("expired".to_owned());
    assert_eq!(poll(&server, "last_event_id=000000000000c10c-1").await, (rest, 6, expired));
    let future = Some("future".to_owned());
    assert_eq!(poll(&server, "last_event_id=000000000000c10c-7").await, (vec![], 6, future));
}

#[tokio::test]
async fn a_waiting_poll_is_answered_by_the_next_event() {
    let server = start_retaining_four().await;
    let waiting = poll(&server, "wait=50&topic=t");
    let publishing = async {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls > 0).await;
        // This event has another topic.
        server.publish("tick").await;
        assert_eq!(server.post("t", "", b"x").await.status(), 201);
    };
    let (response, ()) = tokio::join!(waiting, publishing);
    assert_eq!(response, (data(&["x"]), 2, None));
}

#[tokio::test]
async fn a_waiting_poll_without_events_gets_an_empty_response() {
    let server = start_retaining_four().await;
    assert_eq!(poll(&server, "wait=1").await, (vec![], 0, None));
}

#[tokio::test]
async fn a_shutdown_answers_waiting_polls() {
    let server = start_retaining_four().await;
    let waiting = poll(&server, "wait=50");
    let stopping = async {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls > 0).await;
        server.stop.begin();
    };
    let (response, ()) = tokio::join!(waiting, stopping);
    assert_eq!(response, (vec![], 0, None));
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_response_says_if_more_events_are_available() {
    let server = start_retaining_four().await;
    for _ in 0..3 {
        server.publish_to("large", &"x".repeat(60_000)).await;
    }
    server.publish("tick").await;
    let mut responses = Vec::new();
    let mut cursor = "earliest".to_owned();
    for query in ["topic=%3E&limit=2", "topic=%3E&limit=2", "topic=%3E", "topic=large"] {
        let response = server.get(&format!("/poll?{query}&last_event_id={cursor}")).await;
        let response: Value = serde_json::from_str(&response.rest().await).unwrap();
        responses.push((response["events"].as_array().unwrap().len(), response["more"].clone()));
        cursor = response["cursor"].as_str().unwrap().to_owned();
    }
    let [yes, no] = [true, false].map(Value::from);
    assert_eq!(responses, [(2, yes.clone()), (2, no.clone()), (0, no.clone()), (0, no)]);
    for _ in 0..8 {
        server.publish_to("large", &"x".repeat(60_000)).await;
    }
    let response = server.get(&format!("/poll?topic=large&last_event_id={cursor}")).await;
    let response: Value = serde_json::from_str(&response.rest().await).unwrap();
    assert!(response["events"].as_array().unwrap().len() < 8, "the response is bounded in bytes");
    assert_eq!(response["more"], yes);
}

#[tokio::test]
async fn a_long_response_is_streamed_and_a_short_one_has_a_length() {
    let server = Server::start().await;
    let ids = async |query: &str| {
        let response = server.get(&format!("/poll?topic=t&{query}")).await;
        let has_length = response.header("content-length").is_some();
        let response: Value = serde_json::from_str(&response.rest().await).unwrap();
        let events = response["events"].as_array().unwrap().iter();
        let ids: Vec<_> = events.map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        let (last, cursor) = (ids.last().cloned(), response["cursor"].as_str().unwrap().to_owned());
        if let Some(last) = last {
            assert_eq!(last, cursor);
        }
        (ids, cursor, response["more"] == true, has_length)
    };
    for number in 0..30 {
        // Some events are far longer in JSON, with six bytes per character.
        let data = if number % 10 == 0 { "\u{1}".repeat(8000) } else { "x".repeat(1000) };
        server.publish_to("t", &data).await;
    }
    let expected: Vec<_> = (1..=30).map(|n| format!("000000000000c10c-{n}")).collect();
    let (all, _, more, has_length) = ids("last_event_id=earliest").await;
    assert_eq!((&all, more, has_length), (&expected, false, false));
    let (cut, _, more, _) = ids("last_event_id=earliest&limit=25").await;
    assert_eq!((&cut[..], more), (&expected[..25], true));
    let (rest, cursor, more, has_length) = ids("last_event_id=000000000000c10c-25").await;
    assert_eq!((&rest[..], more, has_length), (&expected[25..], false, true));
    let (none, same, _, _) = ids(&format!("last_event_id={cursor}")).await;
    assert_eq!((none, same), (vec![], cursor));
}

#[tokio::test]
async fn a_response_of_many_short_events_is_bounded() {
    let server = Server::start_with(Settings { retain_count: 10_000, ..Settings::default() }).await;
    for _ in 0..5000 {
        server.publish("").await;
    }
    let (mut seen, mut cursor, mut responses) = (0, "earliest".to_owned(), 0);
    loop {
        let response = server.get(&format!("/poll?last_event_id={cursor}")).await.rest().await;
        // The bound includes one batch of a subscriber.
        assert!(response.len() < 512 * 1024, "{} bytes", response.len());
        let response: Value = serde_json::from_str(&response).unwrap();
        seen += response["events"].as_array().unwrap().len();
        response["cursor"].as_str().unwrap().clone_into(&mut cursor);
        responses += 1;
        if response["more"] == false {
            break;
        }
    }
    assert_eq!(seen, 5000);
    assert!(responses > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_answers_a_thousand_waiting_polls() {
    const COUNT: usize = 1000;
    let server = start_retaining_four().await;
    let polls = (0..COUNT).map(|_| poll(&server, "wait=55&topic=t"));
    let publishing = async {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls == COUNT as u64).await;
        server.publish_to("t", "x").await;
    };
    let (responses, ()) = tokio::join!(join_all(polls), publishing);
    for response in responses {
        assert_eq!(response, (data(&["x"]), 1, None));
    }
    server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 0).await;
    // Only the connection that reads the metric is open.
    server.wait_for_metric("waterclock_connections_open", |open| open == 1).await;
}

#[tokio::test]
async fn waiting_polls_count_as_streams() {
    let limits = StreamLimits { total: 3, per_address: 2 };
    let server = Server::start_with(Settings { limits, ..Settings::default() }).await;
    let stream = server.get("/events?topic=t").await;
    let waiting = server.get("/poll?wait=50&topic=t");
    let refused = async {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
        assert_eq!(server.metric("waterclock_streams_open").await, 2);
        let refused = server.get("/poll?wait=50&topic=t").await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((10..=21).contains(&retry), "{retry}");
        assert!(refused.rest().await.contains("from your address"));
        let metric = "waterclock_streams_ended_total{reason=\"limit\"}";
        assert_eq!(server.metric(metric).await, 1);
        // A poll that does not wait needs no room.
        assert_eq!(server.get("/poll?topic=t").await.status(), 200);
        server.publish_to("t", "x").await;
    };
    let (response, ()) = tokio::join!(waiting, refused);
    assert_eq!(response.status(), 200);
    // There is room again, and the events that are there already need none.
    server.wait_for_streams(1).await;
    let earliest = "/poll?wait=50&topic=t&last_event_id=earliest";
    assert_eq!(server.get(earliest).await.status(), 200);
    drop(stream);
}

#[tokio::test]
async fn a_full_server_answers_a_waiting_poll_with_503() {
    let limits = StreamLimits { total: 1, per_address: 2 };
    let server = Server::start_with(Settings { limits, ..Settings::default() }).await;
    let _stream = server.get("/events?topic=t").await;
    let refused = server.get("/poll?wait=50&topic=t").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn a_long_response_without_room_for_a_stream_ends_early() {
    let limits = StreamLimits { total: 1, per_address: 1 };
    let server = Server::start_with(Settings { limits, ..Settings::default() }).await;
    for _ in 0..30 {
        server.publish_to("t", &"x".repeat(4000)).await;
    }
    let poll = async |query: &str| {
        let response = server.get(&format!("/poll?topic=t&last_event_id={query}")).await;
        let response: Value = serde_json::from_str(&response.rest().await).unwrap();
        let cursor = response["cursor"].as_str().unwrap().to_owned();
        (response["events"].as_array().unwrap().len(), cursor, response["more"] == true)
    };
    let (all, _, more) = poll("earliest").await;
    assert_eq!((all, more), (30, false));
    let _stream = server.get("/events?topic=t").await;
    let (first, cursor, more) = poll("earliest").await;
    assert!(first < 30 && more, "{first}");
    let (rest, _, more) = poll(&cursor).await;
    assert_eq!((first + rest, more), (30, false));
}

#[tokio::test]
async fn an_invalid_query_gets_400_with_the_permitted_values() {
    let server = start_retaining_four().await;
    for wait in ["-1", "56", "x", "1.5", "99999999999999999999"] {
        let response = server.get(&format!("/poll?wait={wait}")).await;
        assert_eq!(response.status(), 400, "{wait}");
        assert!(
            response.rest().await.contains("`wait` must be a whole number of seconds from 0 to 55")
        );
    }
    let foreign = [("Host", &b"rebound.example"[..])];
    assert_eq!(server.request("GET", "/poll", &foreign).await.status(), 403);
}

#[tokio::test]
async fn earlier_events_are_read_page_by_page() {
    let server = Server::start().await;
    for number in 1..=5 {
        server.publish_to("t", &format!("{number}")).await;
        server.publish("tick").await;
    }
    end_topic(&server, "t", "").await;
    let (mut before, mut pages) = (event_id(11), Vec::new());
    loop {
        let path = format!("/poll?topic=t&limit=2&before={before}");
        let response = server.get(&path).await;
        assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
        assert!(response.header("content-length").is_some());
        let response: Value = serde_json::from_str(&response.rest().await).unwrap();
        let members: Vec<_> = response.as_object().unwrap().keys().collect();
        assert_eq!(members, ["before", "events", "gap"]);
        assert_eq!(response["gap"], json!(null));
        let data = response["events"].as_array().unwrap().iter();
        pages.push(data.map(|event| event["data"].clone()).collect::<Vec<_>>());
        let Some(rest) = response["before"].as_str() else { break };
        assert_eq!(response["events"][0]["id"], rest);
        before = rest.to_owned();
    }
    assert_eq!(pages, [vec!["4", "5"], vec!["2", "3"], vec!["1"]]);
}

#[tokio::test]
async fn earlier_events_are_read_on_while_others_are_deleted_or_dropped() {
    async fn page(server: &Server, before: u64) -> (Vec<String>, Value) {
        let query = format!("topic=a&topic=b&topic=clock&limit=2&before={}", event_id(before));
        let page = answer(server, &query).await;
        assert_eq!(page["gap"], json!(null));
        let data = page["events"].as_array().unwrap().iter();
        let data = data.map(|event| event["data"].as_str().unwrap().to_owned());
        (data.collect(), page["before"].clone())
    }
    let server = Server::start().await;
    for number in 1..=6 {
        let topic = if number % 2 == 1 { "a" } else { "b" };
        server.publish_to(topic, &number.to_string()).await;
    }
    assert_eq!(page(&server, 6).await, (data(&["4", "5"]), json!(event_id(4))));
    assert_eq!(server.request("DELETE", "/events/a", &[]).await.status(), 200);
    assert_eq!(page(&server, 4).await, (data(&["2"]), json!(null)));

    let server = start_retaining_four().await;
    for number in 1..=4 {
        server.publish(&number.to_string()).await;
    }
    assert_eq!(page(&server, 4).await, (data(&["2", "3"]), json!(event_id(2))));
    server.publish("5").await;
    assert_eq!(page(&server, 2).await, (data(&[]), json!(null)));
    assert_eq!(page(&server, 3).await, (data(&["2"]), json!(null)));
}

#[tokio::test]
async fn a_page_before_an_unknown_place_says_so() {
    let server = start_retaining_four().await;
    for number in 1..=3 {
        server.publish_to("t", &format!("{number}")).await;
    }
    let future = answer(&server, &format!("topic=t&limit=1&before={}", event_id(9))).await;
    assert_eq!(future["gap"], json!({"reason": "future", "cursor": event_id(9)}));
    assert_eq!(
        (&future["events"][0]["data"], &future["before"]),
        (&json!("3"), &json!(event_id(3)))
    );
    let other = "0000000000000bad-2";
    let other_epoch = answer(&server, &format!("topic=t&before={other}")).await;
    let expected = json!({"reason": "other-epoch", "cursor": other});
    assert_eq!(other_epoch, json!({"events": [], "gap": expected, "before": null}));
}

#[tokio::test]
async fn a_page_of_earlier_events_is_bounded_and_counts_as_no_stream() {
    let limits = StreamLimits { total: 0, per_address: 0 };
    let server = Server::start_with(Settings { limits, ..Settings::default() }).await;
    for _ in 0..10 {
        server.publish_to("t", &"\u{1}".repeat(16_000)).await;
    }
    let response = answer(&server, &format!("topic=t&before={}", event_id(11))).await;
    assert_eq!(response["events"].as_array().unwrap().len(), 4);
    assert_eq!(response["before"], event_id(7));
}

#[tokio::test]
async fn a_request_that_contradicts_itself_gets_400() {
    let server = Server::start().await;
    let id = event_id(1);
    for (path, headers) in [
        ("/poll?before=1".to_owned(), &[][..]),
        (format!("/poll?before={id}&wait=5"), &[]),
        (format!("/poll?before={id}"), &[("Last-Event-ID", id.as_bytes())]),
        (format!("/events?before={id}"), &[]),
        (format!("/events/t?before={id}"), &[]),
    ] {
        let response = server.request("GET", &path, headers).await;
        assert_eq!(response.status(), 400, "{path}");
        assert!(response.rest().await.contains("`before`"), "{path}");
    }
    assert_eq!(server.request("HEAD", &format!("/poll?before={id}"), &[]).await.status(), 200);
}

/// Ends a topic as failed. Without a message it is done.
async fn end_topic(server: &Server, topic: &str, message: &str) {
    let topic = topic.parse().unwrap();
    let end = if message.is_empty() {
        TopicEnd::done(topic)
    } else {
        TopicEnd::failed(topic, message.to_owned())
    };
    server.hub.publish(end.draft()).await.unwrap();
}

/// Polls, and returns the whole response.
async fn answer(server: &Server, query: &str) -> Value {
    serde_json::from_str(&server.get(&format!("/poll?{query}")).await.rest().await).unwrap()
}

#[tokio::test]
async fn ends_from_before_do_not_answer_a_waiting_poll_again_and_again() {
    for start in ["", "&since=1s", "&last_event_id=earliest"] {
        let server = Server::start().await;
        end_topic(&server, "ended", "").await;
        server.now.fetch_add(60_000, Ordering::Relaxed);
        let query = format!("topic=ended&topic=open{start}&wait=50");
        let publishing = async {
            server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
            server.publish_to("open", "x").await;
        };
        let (response, ()) = tokio::join!(answer(&server, &query), publishing);
        assert_eq!(response["events"][0]["data"], "x", "{start}");
        assert_eq!(response["ends"][0]["topic"], "ended", "{start}: it comes with the event");
        assert_eq!((&response["cursor"], &response["more"]), (&json!(event_id(2)), &json!(false)));
        // With the cursor, it comes no more.
        let query = format!("topic=ended&topic=open&last_event_id={}", event_id(2));
        assert_eq!(answer(&server, &query).await.get("ends"), None, "{start}");
        // A new end does answer it, and so do ends after which nothing follows.
        let query = format!("topic=open&topic=other&wait=50&last_event_id={}", event_id(2));
        let ending = async {
            server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
            end_topic(&server, "open", "").await;
        };
        let (response, ()) = tokio::join!(answer(&server, &query), ending);
        assert_eq!(response["ends"][0]["topic"], "open", "{start}");
        let over = answer(&server, "topic=ended&topic=open&wait=50").await;
        assert_eq!(over["ends"][1]["last"], true, "{start}");
    }
}

#[tokio::test]
async fn a_waiting_poll_tells_ends_from_before_when_its_time_is_over() {
    let server = Server::start().await;
    end_topic(&server, "ended", "").await;
    let response = answer(&server, "topic=ended&topic=open&wait=1").await;
    assert_eq!(response["ends"][0]["topic"], "ended");
    assert_eq!(response["cursor"], event_id(1));
}

#[tokio::test]
async fn many_ends_come_in_bounded_responses_and_each_once() {
    const COUNT: u64 = 600;
    // The escapes make them several times as long.
    let message = "\u{1}".repeat(300);
    for (start, has_dropped) in [
        ("earliest", false),
        ("earliest", true),
        ("0000000000000bad-7", false),
        ("0000000000000bad-7", true),
    ] {
        let server = Server::start_with(Settings { max_topics: 1000, ..Settings::default() }).await;
        for number in 0..COUNT {
            end_topic(&server, &format!("t.{number}"), &message).await;
        }
        if has_dropped {
            server.publish_to("deleted", "x").await;
            server.hub.delete("deleted".parse().unwrap()).await.unwrap();
        }
        let (mut cursor, mut ends, mut events) = (start.to_owned(), Vec::new(), Vec::new());
        for number in 0.. {
            let path = format!("/poll?topic=%3E&wait=50&last_event_id={cursor}");
            let response = server.get(&path).await.rest().await;
            assert!(response.len() < 300_000, "{} bytes", response.len());
            let response: Value = serde_json::from_str(&response).unwrap();
            if number == 0 {
                assert_eq!(response["gap"].is_object(), start != "earliest");
                // It must not be skipped.
                server.publish_to("t", "meanwhile").await;
            }
            for end in response["ends"].as_array().into_iter().flatten() {
                ends.push(end["id"].as_str().unwrap().to_owned());
            }
            let of_response = response["events"].as_array().unwrap().iter();
            events.extend(of_response.map(|event| event["data"].as_str().unwrap().to_owned()));
            response["cursor"].as_str().unwrap().clone_into(&mut cursor);
            if response["more"] == false {
                break;
            }
            let told = [ends.last(), events.last()];
            assert!(told.contains(&Some(&cursor)), "nothing is skipped: {cursor}");
        }
        let expected: Vec<_> = (1..=COUNT).map(event_id).collect();
        assert_eq!(ends, expected, "{start} {has_dropped}");
        assert_eq!(events, ["meanwhile"], "{start} {has_dropped}");
    }
}

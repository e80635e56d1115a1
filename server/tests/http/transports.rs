//! Tests that run on every transport. All four read the same event log, so a client that changes
//! from one to another finds the same events, cursors, gaps and refusals.

use std::{fmt::Write as _, sync::atomic::Ordering};

use serde_json::json;
use server::auth::Access;
use waterclock::{
    event::{Draft, Name},
    notice::{GapReason, TopicEnd},
    transport::Transport,
};
use waterclock_axum::StreamLimits;

use crate::{
    readers::{Item, PolledEnd, ReadRequest, Reader, RefusedResponse},
    support::{REMOTE, Server, Settings, TIME, event_id},
    tokens,
};

/// Makes a test per case and transport.
macro_rules! table {
    ($($case:ident,)*) => {$(
        mod $case {
            use super::Transport;

            #[tokio::test]
            async fn sse() {
                super::$case(Transport::Sse).await;
            }

            #[tokio::test]
            async fn websocket() {
                super::$case(Transport::WebSocket).await;
            }

            #[tokio::test]
            async fn long_poll() {
                super::$case(Transport::LongPoll).await;
            }

            #[tokio::test]
            async fn poll() {
                super::$case(Transport::Poll).await;
            }
        }
    )*};
}

table![
    events_arrive_complete_in_order_and_once,
    a_reader_starts_at_the_requested_position,
    a_reader_starts_at_a_time_unless_it_has_a_cursor,
    a_cursor_counts_in_each_spelling_that_clients_send,
    a_cut_causes_no_losses_and_no_duplicates,
    an_unusable_cursor_gets_a_gap,
    a_malformed_cursor_gets_a_gap,
    a_limit_is_respected,
    a_topic_that_ends_stops_its_readers,
    a_stream_of_several_topics_ends_with_the_last_one,
    a_reader_of_a_pattern_continues_after_an_end,
    an_ended_topic_that_is_reopened_stops_nobody,
    a_limit_comes_before_an_end,
    a_refused_reader_gets_the_same_problem,
    a_token_reads_the_topics_that_it_lists,
    a_shutdown_ends_streams_and_answers_polls,
    streams_beyond_the_limit_get_a_goodbye,
    a_slow_reader_delays_nobody_and_gets_every_event,
    a_burst_arrives_complete_in_order_and_once,
    topics_and_patterns_combine,
    conflate_skips_outdated_events,
];

/// Returns `true` for a transport with one continuous response.
fn is_stream(transport: Transport) -> bool {
    matches!(transport, Transport::Sse | Transport::WebSocket)
}

/// Opens a reader of the events that are published afterwards.
async fn open_from_now(server: &Server, transport: Transport, query: &str) -> Reader {
    let waiting = server.metric("waterclock_polls_waiting").await;
    let reader = ReadRequest::new(server, transport, query).open().await;
    if transport == Transport::LongPoll {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls == waiting + 1).await;
    }
    reader
}

/// Publishes an event, and checks that it is the next one: no other was in flight.
async fn assert_nothing_pending(server: &Server, reader: &mut Reader, topic: &str) {
    server.publish_to(topic, "nothing else").await;
    assert_eq!(reader.event().await.data, "nothing else", "{:?}", reader.request.transport);
}

async fn events_arrive_complete_in_order_and_once(transport: Transport) {
    let server = Server::start().await;
    server.publish_to("t", "too early").await;
    let mut reader = open_from_now(&server, transport, "topic=t").await;
    let long = "long ".repeat(10_000);
    let data =
        ["", " a ", "two\nlines\n", "\r\r\n", "{\"json\": [\"\\\"]}", "ü €\u{2028}\0😀", &long];
    for (sequence, data) in (2..).zip(data) {
        let name: Name = format!("name {sequence}").parse().unwrap();
        server.hub.publish(Draft::new("t".parse().unwrap(), data).named(name)).await.unwrap();
    }
    for (sequence, data) in (2..).zip(data) {
        let event = reader.event().await;
        assert_eq!(
            (event.id.to_string(), event.topic.as_str(), event.name.as_str(), &*event.data),
            (event_id(sequence), "t", &*format!("name {sequence}"), data),
            "{transport:?}"
        );
        assert_eq!(event.time, TIME.parse().unwrap(), "{transport:?}");
        assert_eq!(reader.request.cursor, Some(event_id(sequence)), "{transport:?}");
    }
    assert_nothing_pending(&server, &mut reader, "t").await;
}

async fn a_reader_starts_at_the_requested_position(transport: Transport) {
    let header = |sequence| format!("Last-Event-ID: {}\r\n", event_id(sequence));
    for (cursor, headers, expected) in [
        ("earliest", "", &["a", "b", "c"][..]),
        (&event_id(0), "", &["a", "b", "c"]),
        (&event_id(1), "", &["b", "c"]),
        // An id of another topic, or of a stream with a limit, is also a position in the log.
        (&event_id(2), "", &["b", "c"]),
        (&format!("{}.7", event_id(2)), "", &["b", "c"]),
        (&event_id(6), "", &[]),
        // The header overrides the query.
        (&event_id(1), &header(3), &["c"]),
        ("earliest", &header(3), &["c"]),
        ("nonsense", &header(3), &["c"]),
        (&event_id(3), "Last-Event-ID: \r\n", &["c"]),
    ] {
        let server = Server::start().await;
        for data in ["a", "b", "c"] {
            server.publish_to("t", data).await;
            server.publish_to("other", "x").await;
        }
        let request =
            ReadRequest::new(&server, transport, "topic=t").after(cursor).with_headers(headers);
        let description = format!("{request:?}");
        let mut reader = request.open().await;
        assert_eq!(reader.data(expected.len()).await, expected, "{description}");
        // The header applies to the first poll only.
        reader.request.headers.clear();
        assert_nothing_pending(&server, &mut reader, "t").await;
        assert_eq!(reader.request.cursor, Some(event_id(7)), "{description}");
    }
}

async fn a_cursor_counts_in_each_spelling_that_clients_send(transport: Transport) {
    let server = Server::start().await;
    for data in ["a", "b", "c"] {
        server.publish_to("t", data).await;
    }
    for spelling in ["lastEventId", "lastEventID", "Last-Event-ID", "evs_last_event_id"] {
        // The polyfill adds it to the URL of the page, which may have a cursor already.
        for before in ["", "&last_event_id=earliest"] {
            let query = format!("topic=t{before}&{spelling}={}&_=1", event_id(1));
            // An empty cursor counts as none.
            let request = ReadRequest::new(&server, transport, &query).after("");
            assert_eq!(request.open().await.data(2).await, ["b", "c"], "{query}");
        }
    }
    for (query, detail) in [
        ("topic=t&last_event_idd=earliest", "\"last_event_idd\" here. Use `last_event_id`."),
        ("topic=t&sinceid=earliest", "\"sinceid\" here. Use `last_event_id`."),
        ("topics=t", "\"topics\" here. Use `topic`."),
        ("topic[]=t", "\"topic[]\" here. Use `topic`."),
    ] {
        let refused = ReadRequest::new(&server, transport, query).expect_refused().await;
        let detail = format!("There is no parameter {detail}");
        assert_eq!(refused, problem_response(400, "Bad Request", None, &detail), "{query}");
    }
    let two = format!("Last-Event-ID: {}\r\nLast-Event-ID: {}\r\n", event_id(1), event_id(2));
    let refused = ReadRequest::new(&server, transport, "topic=t").with_headers(&two);
    let detail = "`Last-Event-ID` must be given once. This request has two of them, and they \
                  differ.";
    assert_eq!(refused.expect_refused().await, problem_response(400, "Bad Request", None, detail));
}

async fn a_reader_starts_at_a_time_unless_it_has_a_cursor(transport: Transport) {
    let server = Server::start().await;
    server.publish_to("t", "a").await;
    server.now.fetch_add(60_000, Ordering::Relaxed);
    for data in ["b", "c"] {
        server.publish_to("t", data).await;
    }
    for (since, cursor, expected) in [
        ("60s", String::new(), &["a", "b", "c"][..]),
        ("59s", String::new(), &["b", "c"]),
        ("2026-11-22T07%3A00%3A01Z", String::new(), &["b", "c"]),
        ("60s", event_id(2), &["c"]),
    ] {
        let query = format!("topic=t&since={since}");
        let mut reader = ReadRequest::new(&server, transport, &query).after(cursor).open().await;
        assert_eq!(reader.data(expected.len()).await, expected, "{transport:?} {since}");
        assert_nothing_pending(&server, &mut reader, "t").await;
    }
    for (since, why) in [("10", "`10m`"), ("2027-01-01T00:00:00Z", "in the future")] {
        let query = format!("topic=t&since={since}");
        let refused = ReadRequest::new(&server, transport, &query).expect_refused().await;
        assert_eq!(refused.status, 400, "{transport:?} {since}");
        assert!(refused.problem["detail"].as_str().unwrap().contains(why), "{refused:?}");
    }
}

async fn a_cut_causes_no_losses_and_no_duplicates(transport: Transport) {
    let server = Server::start().await;
    let mut published = 0;
    let publish = async |published: &mut u64, count| {
        for _ in 0..count {
            *published += 1;
            server.publish_to("t", &published.to_string()).await;
        }
    };
    publish(&mut published, 10).await;
    let mut request = ReadRequest::new(&server, transport, "topic=t").earliest();
    let mut read = Vec::new();
    // Each step reads events, cuts the reader, and publishes more. Some cuts come before the first
    // event, or twice at the same position.
    for (events, meanwhile) in [(0, 0), (4, 3), (0, 2), (1, 0), (10, 5), (5, 0), (0, 1), (1, 0)] {
        let mut reader = request.open().await;
        read.extend(reader.data(events).await);
        request = reader.request.clone();
        drop(reader);
        publish(&mut published, meanwhile).await;
    }
    let expected: Vec<_> = (1..=published).map(|number| number.to_string()).collect();
    assert_eq!(read, expected, "{transport:?}");
    assert_nothing_pending(&server, &mut request.open().await, "t").await;

    // A reader that starts now may be cut before the first event. A long poll has no position
    // before its first response.
    if transport != Transport::LongPoll {
        let reader = open_from_now(&server, transport, "topic=t").await;
        let request = reader.request.clone();
        drop(reader);
        server.publish_to("t", "meanwhile").await;
        assert_eq!(request.open().await.data(1).await, ["meanwhile"], "{transport:?}");
    }
}

/// Starts a server whose log has had four ticks, and has dropped the first two.
async fn start_with_two_of_four() -> Server {
    let settings = Settings { retain_count: 2, ..Settings::default() };
    Server::start_after(&["a", "b", "c", "d"], settings).await
}

async fn an_unusable_cursor_gets_a_gap(transport: Transport) {
    let both = &["c", "d"][..];
    for (cursor, reason, position, events) in [
        (&*event_id(1), GapReason::Expired, 2, both),
        (&event_id(0), GapReason::Expired, 2, both),
        ("00000000c10cca11-3", GapReason::OtherEpoch, 2, both),
        ("00000000c10cca11-99", GapReason::OtherEpoch, 2, both),
        (&event_id(5), GapReason::Future, 4, &[]),
    ] {
        assert_gap(transport, cursor, reason, position, events).await;
    }
    let server = start_with_two_of_four().await;
    let request = |query| ReadRequest::new(&server, transport, query);
    // No event after this position is missing.
    let mut reader = request("").after(event_id(2)).open().await;
    assert_eq!(reader.data(2).await, both, "{transport:?}");
    // No event of this topic is missing.
    server.publish_to("quiet", "e").await;
    let mut reader = request("topic=quiet").after(event_id(1)).open().await;
    assert_eq!(reader.data(1).await, ["e"], "{transport:?}");
    let mut reader = request("topic=quiet&topic=clock").after(event_id(1)).open().await;
    assert!(matches!(reader.next().await, Item::Gap(_)), "{transport:?}");
    assert_eq!(reader.data(3).await, ["c", "d", "e"], "{transport:?}");
    // `earliest` starts at the oldest retained event, without a gap.
    let mut reader = request("").earliest().open().await;
    assert_eq!(reader.data(2).await, both, "{transport:?}");
}

async fn a_malformed_cursor_gets_a_gap(transport: Transport) {
    let long = "9".repeat(300);
    for cursor in [
        "nonsense",
        "EARLIEST",
        &long,
        &format!("{}.", event_id(1)),
        &format!("{}.x", event_id(1)),
        &format!(" {}", event_id(1)),
        "000000000000c10c",
        "000000000000C10C-1",
        "c10c-1",
        "000000000000c10c-01",
        "000000000000c10c--1",
        "000000000000c10c-18446744073709551616",
        // These cursors must not break the format of the response.
        "\r\nid: x\r\ndata: y\n\n",
        "\"}, \"event\": {",
        "\0",
        "ü",
    ] {
        assert_gap(transport, cursor, GapReason::Malformed, 4, &[]).await;
    }
}

/// Checks that a cursor gets a gap, with the reason and the position, and then the events.
async fn assert_gap(
    transport: Transport,
    cursor: &str,
    reason: GapReason,
    position: u64,
    events: &[&str],
) {
    let server = start_with_two_of_four().await;
    let description = format!("{transport:?} {cursor:?}");
    let mut reader = ReadRequest::new(&server, transport, "").after(cursor).open().await;
    assert_eq!(
        reader.request.cursor.as_deref(),
        Some(cursor),
        "until the gap arrives: {description}"
    );
    let Item::Gap(gap) = reader.next().await else { panic!("{description}: no gap") };
    assert_eq!((gap.reason, &*gap.cursor), (reason, cursor), "{description}");
    // The response to a poll has the events with the gap, so it gives the position after them.
    let has_position = is_stream(transport) || events.is_empty();
    let expected = if has_position { &event_id(position) } else { cursor };
    assert_eq!(reader.request.cursor.as_deref(), Some(expected), "{description}");
    assert_eq!(reader.data(events.len()).await, events, "{description}");
    assert_eq!(reader.request.cursor, Some(event_id(4)), "{description}");
    // No other event is in flight, and the cursor is valid.
    let request = reader.request.clone();
    assert_nothing_pending(&server, &mut reader, "clock").await;
    let mut reader = request.open().await;
    assert_eq!(reader.data(1).await, ["nothing else"], "{description}");
}

async fn a_limit_is_respected(transport: Transport) {
    let server = Server::start().await;
    for data in ["a", "b", "c", "d", "e"] {
        server.publish_to("t", data).await;
    }
    let request = ReadRequest::new(&server, transport, "topic=t&limit=3").earliest();
    if !is_stream(transport) {
        // The limit applies to one response. The next one continues.
        let mut reader = request.open().await;
        let response = reader.poll().await.unwrap();
        assert_eq!(
            (response.events.len(), response.cursor, response.more),
            (3, event_id(3), true),
            "{transport:?}"
        );
        let response = reader.poll().await.unwrap();
        assert_eq!(
            (response.events.len(), response.cursor, response.more),
            (2, event_id(5), false),
            "{transport:?}"
        );
        return assert_nothing_pending(&server, &mut reader, "t").await;
    }
    let end = Item::Ended(Some("end".to_owned()));
    let mut reader = request.clone().open().await;
    assert_eq!(reader.data(3).await, ["a", "b", "c"], "{transport:?}");
    assert_eq!(reader.next().await, end, "{transport:?}");
    assert_eq!(reader.request.cursor, Some(format!("{}.3", event_id(3))), "{transport:?}");
    // The limit is reached, so the same request gets only the end.
    let mut again = reader.request.clone().open().await;
    assert_eq!(again.next().await, end, "{transport:?}");
    if transport == Transport::WebSocket {
        assert_eq!((reader.close_code, again.close_code), (Some(1000), Some(1000)));
    }
    // The limit includes the events before a cut.
    let mut reader = request.open().await;
    assert_eq!(reader.data(2).await, ["a", "b"], "{transport:?}");
    let request = reader.request.clone();
    drop(reader);
    let mut reader = request.open().await;
    assert_eq!(reader.data(1).await, ["c"], "{transport:?}");
    assert_eq!(reader.next().await, end, "{transport:?}");
    server.wait_for_streams(0).await;
}

/// Publishes that a topic has failed, or is done if there is no message. Returns the id.
async fn end_topic(server: &Server, topic: &str, message: &str) -> String {
    let (query, status) = if message.is_empty() { ("end", 201) } else { ("end=failed", 201) };
    let response = server.post(&format!("{topic}?{query}"), "", message.as_bytes()).await;
    assert_eq!(response.status(), status);
    let end: PolledEnd = serde_json::from_str(&response.rest().await).unwrap();
    assert_eq!(end.end.topic.as_str(), topic);
    end.id.to_string()
}

fn done(topic: &str, last: bool) -> Item {
    Item::TopicEnd(TopicEnd { last, ..TopicEnd::done(topic.parse().unwrap()) })
}

fn failed(topic: &str, message: &str, last: bool) -> Item {
    Item::TopicEnd(TopicEnd {
        last,
        ..TopicEnd::failed(topic.parse().unwrap(), message.to_owned())
    })
}

/// Checks that the reader has nothing more to expect, and that it learns so when it reconnects.
async fn assert_over(server: &Server, mut reader: Reader, end: &[Item]) {
    let transport = reader.request.transport;
    let over = Item::Ended(Some("end".to_owned()));
    assert_eq!(reader.next().await, over, "{transport:?}");
    if transport == Transport::WebSocket {
        assert_eq!(reader.close_code, Some(1000));
    }
    let request = reader.request.clone();
    let mut again = request.clone().open().await;
    if transport == Transport::WebSocket {
        // No answer to a handshake stops a client, so it is told again.
        for end in end {
            assert_eq!(again.next().await, *end, "{transport:?}");
        }
    }
    assert_eq!(again.next().await, over, "{transport:?}");
    if transport == Transport::Sse {
        let path = format!("/events?{}", request.query);
        let cursor = request.cursor.unwrap();
        let response = server.request("HEAD", &path, &[("Last-Event-ID", cursor.as_bytes())]).await;
        assert_eq!(response.status(), 204);
    }
}

async fn a_topic_that_ends_stops_its_readers(transport: Transport) {
    let server = Server::start().await;
    let mut live = open_from_now(&server, transport, "topic=t").await;
    server.publish_to("t", "a").await;
    server.publish_to("other", "x").await;
    assert_eq!(live.data(1).await, ["a"]);
    let id = end_topic(&server, "t", "disk full").await;
    server.publish_to("other", "x").await;
    let end = || failed("t", "disk full", true);
    assert_eq!(live.next().await, end(), "{transport:?}");
    // The response to a poll gives the position after all that was looked at.
    let position = if is_stream(transport) { id } else { event_id(4) };
    assert_eq!(live.request.cursor.as_deref(), Some(&*position), "{transport:?}");
    assert_over(&server, live, &[end()]).await;
    // After the events, and for a reader that has all of them.
    for (cursor, data) in [("earliest", &["a"][..]), (&event_id(1), &[]), (&event_id(2), &[])] {
        let mut late = ReadRequest::new(&server, transport, "topic=t").after(cursor).open().await;
        assert_eq!(late.data(data.len()).await, data, "{transport:?} {cursor}");
        assert_eq!(late.next().await, end(), "{transport:?} {cursor}");
        assert_over(&server, late, &[end()]).await;
    }
    // Without a cursor.
    if transport != Transport::Poll {
        let mut late = ReadRequest::new(&server, transport, "topic=t").open().await;
        if is_stream(transport) {
            assert_eq!(late.request.cursor, None, "before the end");
        }
        assert_eq!(late.next().await, end(), "{transport:?}");
        assert_eq!(late.request.cursor.as_deref(), Some(&*position), "{transport:?}");
        assert_over(&server, late, &[end()]).await;
    }
}

async fn a_stream_of_several_topics_ends_with_the_last_one(transport: Transport) {
    let server = Server::start().await;
    server.publish_to("a", "1").await;
    end_topic(&server, "a", "").await;
    server.publish_to("b", "2").await;
    let request = ReadRequest::new(&server, transport, "topic=a&topic=b").earliest();
    let mut reader = request.clone().open().await;
    assert_eq!(reader.data(1).await, ["1"]);
    assert_eq!(reader.next().await, done("a", false));
    assert_eq!(reader.data(1).await, ["2"]);
    // A cut causes no repeat.
    let mut reader = reader.request.clone().open().await;
    reader.begin_poll().await;
    server.publish_to("b", "3").await;
    assert_eq!(reader.data(1).await, ["3"], "{transport:?}");
    end_topic(&server, "b", "why").await;
    assert_eq!(reader.next().await, failed("b", "why", true));
    assert_over(&server, reader, &[done("a", false), failed("b", "why", true)]).await;
    let mut late = request.open().await;
    assert_eq!(late.data(1).await, ["1"]);
    assert_eq!(late.next().await, done("a", false));
    assert_eq!(late.data(2).await, ["2", "3"]);
    assert_eq!(late.next().await, failed("b", "why", true));
    assert_over(&server, late, &[done("a", false), failed("b", "why", true)]).await;
}

async fn a_reader_of_a_pattern_continues_after_an_end(transport: Transport) {
    let server = Server::start().await;
    let mut live = open_from_now(&server, transport, "topic=t.*&topic=u").await;
    server.publish_to("t.a", "1").await;
    assert_eq!(live.data(1).await, ["1"]);
    for topic in ["t.a", "u"] {
        end_topic(&server, topic, "").await;
        assert_eq!(live.next().await, done(topic, false), "{transport:?}");
    }
    assert_nothing_pending(&server, &mut live, "t.b").await;
}

async fn an_ended_topic_that_is_reopened_stops_nobody(transport: Transport) {
    let server = Server::start().await;
    let mut reader = open_from_now(&server, transport, "topic=t").await;
    end_topic(&server, "t", "").await;
    assert_eq!(reader.next().await, done("t", true), "{transport:?}");
    let refused = server.post("t", "", b"x").await;
    assert_eq!(refused.status(), 409);
    assert!(refused.rest().await.contains("With `reopen`, a publish opens it again."));
    assert_eq!(server.post("t?reopen", "", b"again").await.status(), 201);
    let mut reader = reader.request.clone().open().await;
    assert_eq!(reader.data(1).await, ["again"], "{transport:?}");
    let mut late = ReadRequest::new(&server, transport, "topic=t").earliest().open().await;
    assert_eq!(late.data(1).await, ["again"], "{transport:?}");
    assert_nothing_pending(&server, &mut reader, "t").await;
}

async fn a_limit_comes_before_an_end(transport: Transport) {
    if !is_stream(transport) {
        return;
    }
    let server = Server::start().await;
    for data in ["a", "b"] {
        server.publish_to("t", data).await;
    }
    end_topic(&server, "t", "").await;
    let over = || Item::Ended(Some("end".to_owned()));
    let request = ReadRequest::new(&server, transport, "topic=t&limit=2").earliest();
    let mut reader = request.open().await;
    assert_eq!(reader.data(2).await, ["a", "b"]);
    assert_eq!(reader.next().await, over(), "{transport:?}: only the end of the limit");
    assert_eq!(reader.request.clone().open().await.next().await, over());
    let mut reader =
        ReadRequest::new(&server, transport, "topic=t&limit=3").earliest().open().await;
    assert_eq!(reader.data(2).await, ["a", "b"]);
    assert_eq!(reader.next().await, done("t", true), "{transport:?}");
    assert_eq!(reader.request.cursor, Some(format!("{}.2", event_id(3))), "{transport:?}");
    assert_over(&server, reader, &[done("t", true)]).await;
}

fn problem_response(
    status: u16,
    title: &str,
    authenticate: Option<&str>,
    detail: &str,
) -> RefusedResponse {
    let problem = json!({"title": title, "status": status, "detail": detail});
    RefusedResponse { status, authenticate: authenticate.map(str::to_owned), problem }
}

fn unauthorized(authenticate: &str, detail: &str) -> RefusedResponse {
    problem_response(401, "Unauthorized", Some(authenticate), detail)
}

async fn a_refused_reader_gets_the_same_problem(transport: Transport) {
    let public = ["public.>".parse().unwrap()];
    let access = Access { public_topics: public.clone().into(), ..Access::default() };
    let server = Server::with_access(access).await;
    let request = |query| ReadRequest::new(&server, transport, query);
    let not_public = |why| {
        let why = format!(
            "This topic is not public, and the request is not local: {why}. The option \
             --public-topic makes topics public, and --jwt-secret-file permits tokens."
        );
        problem_response(403, "Forbidden", None, &why)
    };
    let by_proxy = "it came through a proxy, by a header such as `Via` or `X-Forwarded-For`";
    for query in ["", "topic=t", "topic=public.a&topic=t", "topic=%3E"] {
        let refused = request(query).with_headers(REMOTE).expect_refused().await;
        assert_eq!(refused, not_public(by_proxy), "{transport:?} {query}");
    }
    let by_name = "its `Host` is not a loopback name (the option --allowed-host adds names)";
    let refused =
        request("topic=t").with_headers("Host: rebound.example\r\n").expect_refused().await;
    assert_eq!(refused, not_public(by_name), "{transport:?}");
    let mut reader = request("topic=public.*").earliest().with_headers(REMOTE).open().await;
    assert_nothing_pending(&server, &mut reader, "public.a").await;

    let access = Access { public_topics: public.into(), ..tokens::access() };
    let server = Server::with_access(access).await;
    let request =
        |headers: &str| ReadRequest::new(&server, transport, "topic=t").with_headers(headers);
    let needed = "A token is required: `Authorization: Bearer` with a JSON Web Token, or the \
                  cookie `waterclock_token`.";
    assert_eq!(
        request(REMOTE).expect_refused().await,
        unauthorized("Bearer", needed),
        "{transport:?}"
    );
    let expired = tokens::token(json!({"exp": 1, "subscribe": ["t"]}));
    let invalid = "Bearer error=\"invalid_token\"";
    let detail = "The token is refused: it expired at 1970-01-01T00:00:01.000Z. Send a valid one in \
                  `Authorization` or in the cookie.";
    assert_eq!(
        request(&tokens::bearer(&expired)).expect_refused().await,
        unauthorized(invalid, detail),
        "{transport:?}"
    );
    let detail = "The token is refused: it is not a JSON Web Token. Send a valid one in \
                  `Authorization` or in the cookie.";
    assert_eq!(
        request(&tokens::bearer("nonsense")).expect_refused().await,
        unauthorized(invalid, detail),
        "{transport:?}"
    );
    let other = tokens::token(json!({"subscribe": ["other", "orders.*"], "publish": ["t"]}));
    let detail = "The token's `subscribe` does not list `t`. It lists `other`, `orders.*`. Send one \
                  that does in `Authorization`.";
    assert_eq!(
        request(&tokens::bearer(&other)).expect_refused().await,
        forbidden(detail),
        "{transport:?}"
    );
    server.wait_for_streams(0).await;
    assert_eq!(server.metric("waterclock_streams_total").await, 0, "no stream was opened");
}

fn forbidden(detail: &str) -> RefusedResponse {
    problem_response(403, "Forbidden", None, detail)
}

async fn a_token_reads_the_topics_that_it_lists(transport: Transport) {
    let server = Server::with_access(tokens::access()).await;
    let token = tokens::token(json!({"subscribe": ["orders.*", "t"]}));
    let by_header = tokens::bearer(&token);
    let by_cookie = format!("{REMOTE}Cookie: waterclock_token={token}\r\n");
    for headers in [by_header, by_cookie] {
        let after = event_id(server.hub.newest());
        for (topic, data) in [("orders.eu", "a"), ("secret", "b"), ("t", "c"), ("orders.us", "d")] {
            server.publish_to(topic, data).await;
        }
        let request = ReadRequest::new(&server, transport, "topic=orders.*&topic=t").after(after);
        let mut reader = request.with_headers(&headers).open().await;
        assert_eq!(reader.data(3).await, ["a", "c", "d"], "{transport:?}");
        assert_nothing_pending(&server, &mut reader, "t").await;
    }
}

async fn a_shutdown_ends_streams_and_answers_polls(transport: Transport) {
    let server = Server::start().await;
    // A client that does not read prolongs the shutdown.
    let mut stuck = open_from_now(&server, Transport::Sse, "topic=much").await;
    server.wait_for_streams(1).await;
    publish_much(&server, "much").await;
    assert_eq!(
        server.metric("waterclock_streams_behind").await,
        1,
        "not all events are in buffers"
    );

    let mut reader = open_from_now(&server, transport, "topic=t").await;
    server.stop.begin();
    if is_stream(transport) {
        let draining = Item::Ended(Some("draining".to_owned()));
        assert_eq!(reader.next().await, draining, "{transport:?}");
        let close = (transport == Transport::WebSocket).then_some(1001);
        assert_eq!(reader.close_code, close, "{transport:?}");
        // A late reader gets a goodbye at once.
        let mut late = ReadRequest::new(&server, transport, "topic=t").earliest().open().await;
        assert_eq!(late.next().await, draining, "{transport:?}");
        assert_eq!(late.close_code, close, "{transport:?}");
    } else {
        // A waiting poll gets an empty response. Later polls get the events that are available.
        let response = reader.poll().await.unwrap();
        assert_eq!(response.events, [], "{transport:?}");
        server.publish_to("t", "meanwhile").await;
        assert_eq!(reader.data(1).await, ["meanwhile"], "{transport:?}");
        assert_eq!(reader.poll().await.unwrap().events, [], "{transport:?}");
    }
    // The slow stream gets its goodbye before it has caught up.
    let mut read = 0;
    loop {
        match stuck.next().await {
            Item::Event(event) => assert_eq!(event.data, large_data(read)),
            ended => break assert_eq!(ended, Item::Ended(Some("draining".to_owned()))),
        }
        read += 1;
    }
    assert!(read < MANY, "{transport:?}: the stream was behind");
    drop(reader);
    server.serving.await.unwrap();
}

/// Number of large events that exceed all buffers between server and client.
const MANY: usize = 150;

/// Publishes more data than all buffers between server and client.
pub async fn publish_much(server: &Server, topic: &str) {
    for number in 0..MANY {
        server.publish_to(topic, &large_data(number)).await;
    }
}

fn large_data(number: usize) -> String {
    format!("{number} {}", "x".repeat(60_000))
}

async fn streams_beyond_the_limit_get_a_goodbye(transport: Transport) {
    for limits in
        [StreamLimits { total: 1, per_address: 9 }, StreamLimits { total: 9, per_address: 1 }]
    {
        let server = Server::start_with(Settings { limits, ..Settings::default() }).await;
        let mut first =
            ReadRequest::new(&server, Transport::Sse, "topic=t").earliest().open().await;
        let mut second = ReadRequest::new(&server, transport, "topic=t").earliest().open().await;
        if is_stream(transport) {
            let limit = Item::Ended(Some("limit".to_owned()));
            assert_eq!(second.next().await, limit, "{transport:?}");
            let close = (transport == Transport::WebSocket).then_some(1013);
            assert_eq!(second.close_code, close, "{transport:?}");
            drop(first);
            server.wait_for_streams(0).await;
            first = ReadRequest::new(&server, transport, "topic=t").earliest().open().await;
        } else {
            // The limit does not apply to polls.
            assert_nothing_pending(&server, &mut second, "t").await;
        }
        server.publish_to("t", "last").await;
        while first.event().await.data != "last" {}
    }
}

async fn a_slow_reader_delays_nobody_and_gets_every_event(transport: Transport) {
    let server = Server::start().await;
    server.publish_to("t", "first").await;
    let request = ReadRequest::new(&server, transport, "topic=t").earliest();
    let (mut slow, mut reader) = (request.clone().open().await, request.open().await);
    assert_eq!(reader.data(1).await, ["first"], "{transport:?}");
    for number in 0..MANY {
        if number == MANY / 2 {
            // A poll requests the first half, and does not read the response.
            slow.begin_poll().await;
        }
        server.publish_to("t", &large_data(number)).await;
        assert_eq!(reader.data(1).await, [large_data(number)], "{transport:?}");
    }
    if is_stream(transport) {
        assert_eq!(
            server.metric("waterclock_streams_behind").await,
            1,
            "not all events are in buffers"
        );
    }
    assert_eq!(slow.data(1).await, ["first"], "{transport:?}");
    for number in 0..MANY {
        assert!(slow.data(1).await == [large_data(number)], "{transport:?} {number}");
    }
    assert_nothing_pending(&server, &mut slow, "t").await;
}

async fn a_burst_arrives_complete_in_order_and_once(transport: Transport) {
    const COUNT: usize = 5000;
    let server = Server::start().await;
    let mut reader = open_from_now(&server, transport, "topic=t").await;
    let publish = async {
        let mut publishing = Vec::new();
        for number in 0..COUNT {
            let draft = Draft::new("t".parse().unwrap(), number.to_string());
            publishing.push(server.hub.enqueue(draft).await.unwrap());
        }
        for publishing in publishing {
            publishing.await.unwrap();
        }
    };
    let (data, ()) = tokio::join!(reader.data(COUNT), publish);
    for (number, data) in data.into_iter().enumerate() {
        assert_eq!(data, number.to_string(), "{transport:?}");
    }
    assert_nothing_pending(&server, &mut reader, "t").await;
    // A replay from the log is the same.
    let mut reader = ReadRequest::new(&server, transport, "topic=t").earliest().open().await;
    for (number, data) in reader.data(COUNT).await.into_iter().enumerate() {
        assert_eq!(data, number.to_string(), "{transport:?}");
    }
}

async fn topics_and_patterns_combine(transport: Transport) {
    let server = Server::start().await;
    let request =
        ReadRequest::new(&server, transport, "topic=a&topic=b.*&topic=c.%3E&topic=b.x").earliest();
    let mut live = request.clone().open().await;
    let publish = async || {
        for topic in ["a", "b", "b.x", "a.x", "c", "c.x.y", "b.x.y", "d", "c.z", "a"] {
            server.publish_to(topic, "").await;
        }
    };
    publish().await;
    let expected = ["a", "b.x", "c.x.y", "c.z", "a"];
    for reader in [&mut live, &mut request.open().await] {
        let mut last = 0;
        for topic in expected {
            let event = reader.event().await;
            assert_eq!(event.topic.as_str(), topic, "{transport:?}");
            assert!(event.id.sequence > last, "{transport:?}");
            last = event.id.sequence;
        }
        assert_eq!(last, 10, "{transport:?}");
    }
    // The pattern `>` matches all topics.
    let mut all = ReadRequest::new(&server, transport, "topic=%3E").after(event_id(7)).open().await;
    let topics = [all.event().await, all.event().await, all.event().await].map(|event| event.topic);
    assert_eq!(topics.map(String::from), ["d", "c.z", "a"], "{transport:?}");
    let mut many = String::new();
    for number in 0..65 {
        let _ = write!(many, "topic=t{number}&");
    }
    let refused = ReadRequest::new(&server, transport, &many).expect_refused().await;
    let detail = "A subscription may have at most 64 patterns. Use wildcards, or several streams.";
    assert_eq!(refused, bad_request(detail), "{transport:?}");
    let refused = ReadRequest::new(&server, transport, "topic=a..b").expect_refused().await;
    assert_eq!(refused.status, 400, "{transport:?}");
}

fn bad_request(detail: &str) -> RefusedResponse {
    problem_response(400, "Bad Request", None, detail)
}

async fn conflate_skips_outdated_events(transport: Transport) {
    let server = Server::start().await;
    for (topic, data) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("c", "5"), ("b", "6")] {
        server.publish_to(topic, data).await;
    }
    let request = ReadRequest::new(&server, transport, "topic=a&topic=b&conflate=true").earliest();
    let mut reader = request.open().await;
    assert_eq!(reader.data(2).await, ["4", "6"], "{transport:?}");
    assert_eq!(reader.request.cursor, Some(event_id(6)), "{transport:?}");
    // A reader that keeps up misses no event.
    for data in ["7", "8", "9"] {
        server.publish_to("a", data).await;
        assert_eq!(reader.data(1).await, [data], "{transport:?}");
    }
    // Without `conflate`, no event is skipped.
    let mut reader =
        ReadRequest::new(&server, transport, "topic=a&conflate=false").earliest().open().await;
    assert_eq!(reader.data(6).await, ["1", "3", "4", "7", "8", "9"], "{transport:?}");
}

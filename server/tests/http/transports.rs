//! What holds of all transports: written once, and tried on each. They are four ways to read the same log,
//! so whoever goes over from one to another finds the same events, cursors, gaps and refusals.

use std::fmt::Write as _;

use serde_json::json;
use server::{access::Access, streams::StreamLimits};
use waterclock::{
    event::{Draft, Name},
    notice::GapReason,
    transport::Transport,
};

use crate::{
    readers::{Ask, Item, Reader, Refused},
    support::{Server, Settings, TIME},
    tokens,
};

/// Each case is a test for each transport.
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
    events_come_whole_in_order_and_once,
    a_reader_begins_where_it_asks_to,
    a_cut_loses_and_doubles_nothing,
    a_cursor_that_cannot_be_honoured_is_a_gap,
    what_is_no_cursor_is_a_gap,
    a_limit_is_kept,
    who_may_not_read_is_told_the_same,
    a_token_reads_what_it_lists,
    when_the_server_stops,
    when_there_are_too_many_streams,
    who_does_not_read_delays_nobody_and_gets_all,
    a_burst_comes_whole_in_order_and_once,
    topics_and_patterns_are_read_together,
    conflate_leaves_out_what_is_old,
];

/// An id of the test's log.
fn id(sequence: u64) -> String {
    format!("000000000000c10c-{sequence}")
}

/// Whether it has one answer that goes on, and not one for each request.
fn is_stream(transport: Transport) -> bool {
    matches!(transport, Transport::Sse | Transport::WebSocket)
}

/// Opens one that reads what is published from then on.
async fn from_now(server: &Server, transport: Transport, query: &str) -> Reader {
    let waiting = server.metric("waterclock_polls_waiting").await;
    let reader = Ask::new(server, transport, query).open().await;
    if transport == Transport::LongPoll {
        server.until_metric("waterclock_polls_waiting", |polls| polls == waiting + 1).await;
    }
    reader
}

/// Publishes an event, and reads it as the next: so nothing else was under way.
async fn nothing_but(server: &Server, reader: &mut Reader, topic: &str) {
    server.publish_to(topic, "nothing else").await;
    assert_eq!(reader.event().await.data, "nothing else", "{:?}", reader.ask.transport);
}

async fn events_come_whole_in_order_and_once(transport: Transport) {
    let server = Server::start(Settings::default()).await;
    server.publish_to("t", "too early").await;
    let mut reader = from_now(&server, transport, "topic=t").await;
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
            (id(sequence), "t", &*format!("name {sequence}"), data),
            "{transport:?}"
        );
        assert_eq!(event.time, TIME.parse().unwrap(), "{transport:?}");
        assert_eq!(reader.ask.cursor, Some(id(sequence)), "{transport:?}");
    }
    nothing_but(&server, &mut reader, "t").await;
}

async fn a_reader_begins_where_it_asks_to(transport: Transport) {
    let header = |sequence| format!("Last-Event-ID: {}\r\n", id(sequence));
    for (cursor, headers, expected) in [
        ("earliest", "", &["a", "b", "c"][..]),
        (&id(0), "", &["a", "b", "c"]),
        (&id(1), "", &["b", "c"]),
        // Of another topic, or of a stream with a limit: a position in the log all the same.
        (&id(2), "", &["b", "c"]),
        (&format!("{}.7", id(2)), "", &["b", "c"]),
        (&id(6), "", &[]),
        // The header wins.
        (&id(1), &header(3), &["c"]),
        ("earliest", &header(3), &["c"]),
        ("nonsense", &header(3), &["c"]),
        (&id(3), "Last-Event-ID: \r\n", &["c"]),
    ] {
        let server = Server::start(Settings::default()).await;
        for data in ["a", "b", "c"] {
            server.publish_to("t", data).await;
            server.publish_to("other", "x").await;
        }
        let ask = Ask::new(&server, transport, "topic=t").after(cursor).with(headers);
        let told = format!("{ask:?}");
        let mut reader = ask.open().await;
        assert_eq!(reader.data(expected.len()).await, expected, "{told}");
        // What it said first wins over the polls after it, too.
        reader.ask.headers.clear();
        nothing_but(&server, &mut reader, "t").await;
        assert_eq!(reader.ask.cursor, Some(id(7)), "{told}");
    }
}

async fn a_cut_loses_and_doubles_nothing(transport: Transport) {
    let server = Server::start(Settings::default()).await;
    let mut published = 0;
    let publish = async |published: &mut u64, count| {
        for _ in 0..count {
            *published += 1;
            server.publish_to("t", &published.to_string()).await;
        }
    };
    publish(&mut published, 10).await;
    let mut ask = Ask::new(&server, transport, "topic=t").earliest();
    let mut read = Vec::new();
    // Cut after so many events, also before the first and twice at the same place, while so many are
    // published.
    for (events, meanwhile) in [(0, 0), (4, 3), (0, 2), (1, 0), (10, 5), (5, 0), (0, 1), (1, 0)] {
        let mut reader = ask.open().await;
        read.extend(reader.data(events).await);
        ask = reader.ask.clone();
        drop(reader);
        publish(&mut published, meanwhile).await;
    }
    let expected: Vec<_> = (1..=published).map(|number| number.to_string()).collect();
    assert_eq!(read, expected, "{transport:?}");
    nothing_but(&server, &mut ask.open().await, "t").await;

    // One that began with what was new, and was cut before there was anything. A long poll has nothing to go
    // on with before its first answer.
    if transport != Transport::LongPoll {
        let reader = from_now(&server, transport, "topic=t").await;
        let ask = reader.ask.clone();
        drop(reader);
        server.publish_to("t", "meanwhile").await;
        assert_eq!(ask.open().await.data(1).await, ["meanwhile"], "{transport:?}");
    }
}

/// A server that has dropped the clock's first two ticks and kept its last two.
async fn with_two_of_four() -> Server {
    let server = Server::start(Settings { retain_count: 2, ..Settings::default() }).await;
    for tick in ["a", "b", "c", "d"] {
        server.publish(tick).await;
    }
    server
}

async fn a_cursor_that_cannot_be_honoured_is_a_gap(transport: Transport) {
    let both = &["c", "d"][..];
    for (cursor, reason, position, follows) in [
        (&*id(1), GapReason::Expired, 2, both),
        (&id(0), GapReason::Expired, 2, both),
        ("00000000c10cca11-3", GapReason::OtherEpoch, 2, both),
        ("00000000c10cca11-99", GapReason::OtherEpoch, 2, both),
        (&id(5), GapReason::Future, 4, &[]),
    ] {
        gap(transport, cursor, reason, position, follows).await;
    }
    let server = with_two_of_four().await;
    let ask = |query| Ask::new(&server, transport, query);
    // Nothing after this one is missing.
    let mut reader = ask("").after(id(2)).open().await;
    assert_eq!(reader.data(2).await, both, "{transport:?}");
    // Nor is anything of another topic.
    server.publish_to("quiet", "e").await;
    let mut reader = ask("topic=quiet").after(id(1)).open().await;
    assert_eq!(reader.data(1).await, ["e"], "{transport:?}");
    let mut reader = ask("topic=quiet&topic=clock").after(id(1)).open().await;
    assert!(matches!(reader.next().await, Item::Gap(_)), "{transport:?}");
    assert_eq!(reader.data(3).await, ["c", "d", "e"], "{transport:?}");
    // Nor is what was dropped before the oldest that is kept to be told to who asks for that one.
    let mut reader = ask("").earliest().open().await;
    assert_eq!(reader.data(2).await, both, "{transport:?}");
}

async fn what_is_no_cursor_is_a_gap(transport: Transport) {
    let long = "9".repeat(300);
    for cursor in [
        "nonsense",
        "EARLIEST",
        &long,
        &format!("{}.", id(1)),
        &format!("{}.x", id(1)),
        &format!(" {}", id(1)),
        "000000000000c10c",
        "000000000000C10C-1",
        "c10c-1",
        "000000000000c10c-01",
        "000000000000c10c--1",
        "000000000000c10c-18446744073709551616",
        // Nor may it break the answer.
        "\r\nid: x\r\ndata: y\n\n",
        "\"}, \"event\": {",
        "\0",
        "ü",
    ] {
        gap(transport, cursor, GapReason::Malformed, 4, &[]).await;
    }
}

/// A cursor is answered with that gap. It goes on from that position, with those events.
async fn gap(
    transport: Transport,
    cursor: &str,
    reason: GapReason,
    position: u64,
    follows: &[&str],
) {
    let server = with_two_of_four().await;
    let told = format!("{transport:?} {cursor:?}");
    let mut reader = Ask::new(&server, transport, "").after(cursor).open().await;
    assert_eq!(reader.ask.cursor.as_deref(), Some(cursor), "until the gap is told: {told}");
    let Item::Gap(gap) = reader.next().await else { panic!("{told}: no gap") };
    assert_eq!((gap.reason, &*gap.cursor), (reason, cursor), "{told}");
    // An answer to a poll has the events with the gap, so it says the position after them.
    let is_told = is_stream(transport) || follows.is_empty();
    let expected = if is_told { &id(position) } else { cursor };
    assert_eq!(reader.ask.cursor.as_deref(), Some(expected), "{told}");
    assert_eq!(reader.data(follows.len()).await, follows, "{told}");
    assert_eq!(reader.ask.cursor, Some(id(4)), "{told}");
    // Nothing else was to come, and what it goes on with is good.
    let ask = reader.ask.clone();
    nothing_but(&server, &mut reader, "clock").await;
    let mut reader = ask.open().await;
    assert_eq!(reader.data(1).await, ["nothing else"], "{told}");
}

async fn a_limit_is_kept(transport: Transport) {
    let server = Server::start(Settings::default()).await;
    for data in ["a", "b", "c", "d", "e"] {
        server.publish_to("t", data).await;
    }
    let ask = Ask::new(&server, transport, "topic=t&limit=3").earliest();
    if !is_stream(transport) {
        // It is that of an answer: the next one goes on.
        let mut reader = ask.open().await;
        let polled = reader.poll().await.unwrap();
        assert_eq!(
            (polled.events.len(), polled.cursor, polled.more),
            (3, id(3), true),
            "{transport:?}"
        );
        let polled = reader.poll().await.unwrap();
        assert_eq!(
            (polled.events.len(), polled.cursor, polled.more),
            (2, id(5), false),
            "{transport:?}"
        );
        return nothing_but(&server, &mut reader, "t").await;
    }
    let end = Item::Ended(Some("end".to_owned()));
    let mut reader = ask.clone().open().await;
    assert_eq!(reader.data(3).await, ["a", "b", "c"], "{transport:?}");
    assert_eq!(reader.next().await, end, "{transport:?}");
    assert_eq!(reader.ask.cursor, Some(format!("{}.3", id(3))), "{transport:?}");
    // Who asks again has had all.
    let mut again = reader.ask.clone().open().await;
    assert_eq!(again.next().await, end, "{transport:?}");
    if transport == Transport::WebSocket {
        assert_eq!((reader.close, again.close), (Some(1000), Some(1000)));
    }
    // With a cut in between, it is that of both.
    let mut reader = ask.open().await;
    assert_eq!(reader.data(2).await, ["a", "b"], "{transport:?}");
    let ask = reader.ask.clone();
    drop(reader);
    let mut reader = ask.open().await;
    assert_eq!(reader.data(1).await, ["c"], "{transport:?}");
    assert_eq!(reader.next().await, end, "{transport:?}");
    server.until_streams(0).await;
}

const ELSEWHERE: &str = "Via: proxy\r\n";

fn refused(status: u16, title: &str, authenticate: Option<&str>, detail: &str) -> Refused {
    let problem = json!({"title": title, "status": status, "detail": detail});
    Refused { status, authenticate: authenticate.map(str::to_owned), problem }
}

fn unauthorized(authenticate: &str, detail: &str) -> Refused {
    refused(401, "Unauthorized", Some(authenticate), detail)
}

async fn who_may_not_read_is_told_the_same(transport: Transport) {
    let public = ["public.>".parse().unwrap()];
    let access = Access { public_topics: public.clone().into(), ..Access::default() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let ask = |query| Ask::new(&server, transport, query);
    let not_public = |why| {
        let why = format!(
            "This topic is not public, and the request is not from the server's own machine: {why}."
        );
        refused(403, "Forbidden", None, &why)
    };
    let by_proxy = "a proxy has passed it on";
    for query in ["", "topic=t", "topic=public.a&topic=t", "topic=%3E"] {
        let refused = ask(query).with(ELSEWHERE).refused().await;
        assert_eq!(refused, not_public(by_proxy), "{transport:?} {query}");
    }
    let by_name = "its `Host` is not a loopback name (the option --allowed-host adds others)";
    let refused = ask("topic=t").with("Host: rebound.example\r\n").refused().await;
    assert_eq!(refused, not_public(by_name), "{transport:?}");
    let mut reader = ask("topic=public.*").earliest().with(ELSEWHERE).open().await;
    nothing_but(&server, &mut reader, "public.a").await;

    let access = Access { public_topics: public.into(), ..tokens::access() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let ask = |headers: &str| Ask::new(&server, transport, "topic=t").with(headers);
    let needed = "A token is needed: `Authorization: Bearer` with a JSON Web Token, or the cookie \
                  `waterclock_token`.";
    assert_eq!(ask(ELSEWHERE).refused().await, unauthorized("Bearer", needed), "{transport:?}");
    let expired = tokens::token(json!({"exp": tokens::now(), "subscribe": ["t"]}));
    let invalid = "Bearer error=\"invalid_token\"";
    let detail = format!("The token is refused: it expired at {TIME}.");
    assert_eq!(
        ask(&tokens::bearer(&expired)).refused().await,
        unauthorized(invalid, &detail),
        "{transport:?}"
    );
    let detail = "The token is refused: it is no JSON Web Token.";
    assert_eq!(
        ask(&tokens::bearer("nonsense")).refused().await,
        unauthorized(invalid, detail),
        "{transport:?}"
    );
    let other = tokens::token(json!({"subscribe": ["other", "orders.*"], "publish": ["t"]}));
    let detail = "The token's `subscribe` does not list `t`. It lists `other`, `orders.*`.";
    assert_eq!(ask(&tokens::bearer(&other)).refused().await, refused_403(detail), "{transport:?}");
    server.until_streams(0).await;
    assert_eq!(server.metric("waterclock_streams_total").await, 0, "none was opened");
}

fn refused_403(detail: &str) -> Refused {
    refused(403, "Forbidden", None, detail)
}

async fn a_token_reads_what_it_lists(transport: Transport) {
    let server = Server::start(Settings { access: tokens::access(), ..Settings::default() }).await;
    let token = tokens::token(json!({"subscribe": ["orders.*", "t"]}));
    let by_header = tokens::bearer(&token);
    let by_cookie = format!("{ELSEWHERE}Cookie: waterclock_token={token}\r\n");
    for headers in [by_header, by_cookie] {
        let after = id(server.hub.newest());
        for (topic, data) in [("orders.eu", "a"), ("secret", "b"), ("t", "c"), ("orders.us", "d")] {
            server.publish_to(topic, data).await;
        }
        let ask = Ask::new(&server, transport, "topic=orders.*&topic=t").after(after);
        let mut reader = ask.with(&headers).open().await;
        assert_eq!(reader.data(3).await, ["a", "c", "d"], "{transport:?}");
        nothing_but(&server, &mut reader, "t").await;
    }
}

async fn when_the_server_stops(transport: Transport) {
    let server = Server::start(Settings::default()).await;
    // One who does not read keeps the server from being through with it at once.
    let mut stuck = from_now(&server, Transport::Sse, "topic=much").await;
    server.until_streams(1).await;
    publish_much(&server, "much").await;
    assert_eq!(server.metric("waterclock_streams_behind").await, 1, "it has not all in buffers");

    let mut reader = from_now(&server, transport, "topic=t").await;
    server.stop.begin();
    if is_stream(transport) {
        let draining = Item::Ended(Some("draining".to_owned()));
        assert_eq!(reader.next().await, draining, "{transport:?}");
        let close = (transport == Transport::WebSocket).then_some(1001);
        assert_eq!(reader.close, close, "{transport:?}");
        // Who comes now is told at once.
        let mut late = Ask::new(&server, transport, "topic=t").earliest().open().await;
        assert_eq!(late.next().await, draining, "{transport:?}");
        assert_eq!(late.close, close, "{transport:?}");
    } else {
        // One that waits is answered, with nothing; those that come now are, too, and with what there is.
        let polled = reader.poll().await.unwrap();
        assert_eq!(polled.events, [], "{transport:?}");
        server.publish_to("t", "meanwhile").await;
        assert_eq!(reader.data(1).await, ["meanwhile"], "{transport:?}");
        assert_eq!(reader.poll().await.unwrap().events, [], "{transport:?}");
    }
    // The other one is told, too, in the middle of what it has to read.
    let mut read = 0;
    loop {
        match stuck.next().await {
            Item::Event(event) => assert_eq!(event.data, much(read)),
            ended => break assert_eq!(ended, Item::Ended(Some("draining".to_owned()))),
        }
        read += 1;
    }
    assert!(read < MUCH, "{transport:?}: it was behind");
    drop(reader);
    server.serving.await.unwrap();
}

/// More than all buffers on the way hold.
const MUCH: usize = 150;

pub async fn publish_much(server: &Server, topic: &str) {
    for number in 0..MUCH {
        server.publish_to(topic, &much(number)).await;
    }
}

fn much(number: usize) -> String {
    format!("{number} {}", "x".repeat(60_000))
}

async fn when_there_are_too_many_streams(transport: Transport) {
    for limits in
        [StreamLimits { in_all: 1, per_address: 9 }, StreamLimits { in_all: 9, per_address: 1 }]
    {
        let server = Server::start(Settings { limits, ..Settings::default() }).await;
        let mut first = Ask::new(&server, Transport::Sse, "topic=t").earliest().open().await;
        let mut second = Ask::new(&server, transport, "topic=t").earliest().open().await;
        if is_stream(transport) {
            let limit = Item::Ended(Some("limit".to_owned()));
            assert_eq!(second.next().await, limit, "{transport:?}");
            let close = (transport == Transport::WebSocket).then_some(1013);
            assert_eq!(second.close, close, "{transport:?}");
            drop(first);
            server.until_streams(0).await;
            first = Ask::new(&server, transport, "topic=t").earliest().open().await;
        } else {
            // Polls are no streams.
            nothing_but(&server, &mut second, "t").await;
        }
        server.publish_to("t", "last").await;
        while first.event().await.data != "last" {}
    }
}

async fn who_does_not_read_delays_nobody_and_gets_all(transport: Transport) {
    let server = Server::start(Settings::default()).await;
    server.publish_to("t", "first").await;
    let ask = Ask::new(&server, transport, "topic=t").earliest();
    let (mut slow, mut reader) = (ask.clone().open().await, ask.open().await);
    assert_eq!(reader.data(1).await, ["first"], "{transport:?}");
    for number in 0..MUCH {
        if number == MUCH / 2 {
            // Polls ask for half of it, and do not read the answer.
            slow.begin_poll().await;
        }
        server.publish_to("t", &much(number)).await;
        assert_eq!(reader.data(1).await, [much(number)], "{transport:?}");
    }
    if is_stream(transport) {
        assert_eq!(server.metric("waterclock_streams_behind").await, 1, "not all is in buffers");
    }
    assert_eq!(slow.data(1).await, ["first"], "{transport:?}");
    for number in 0..MUCH {
        assert!(slow.data(1).await == [much(number)], "{transport:?} {number}");
    }
    nothing_but(&server, &mut slow, "t").await;
}

async fn a_burst_comes_whole_in_order_and_once(transport: Transport) {
    const COUNT: usize = 5000;
    let server = Server::start(Settings::default()).await;
    let mut reader = from_now(&server, transport, "topic=t").await;
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
    nothing_but(&server, &mut reader, "t").await;
    // The same again, from the log.
    let mut reader = Ask::new(&server, transport, "topic=t").earliest().open().await;
    for (number, data) in reader.data(COUNT).await.into_iter().enumerate() {
        assert_eq!(data, number.to_string(), "{transport:?}");
    }
}

async fn topics_and_patterns_are_read_together(transport: Transport) {
    let server = Server::start(Settings::default()).await;
    let ask = Ask::new(&server, transport, "topic=a&topic=b.*&topic=c.%3E&topic=b.x").earliest();
    let mut live = ask.clone().open().await;
    let publish = async || {
        for topic in ["a", "b", "b.x", "a.x", "c", "c.x.y", "b.x.y", "d", "c.z", "a"] {
            server.publish_to(topic, "").await;
        }
    };
    publish().await;
    let expected = ["a", "b.x", "c.x.y", "c.z", "a"];
    for reader in [&mut live, &mut ask.open().await] {
        let mut last = 0;
        for topic in expected {
            let event = reader.event().await;
            assert_eq!(event.topic.as_str(), topic, "{transport:?}");
            assert!(event.id.sequence > last, "{transport:?}");
            last = event.id.sequence;
        }
        assert_eq!(last, 10, "{transport:?}");
    }
    // All of the log.
    let mut all = Ask::new(&server, transport, "topic=%3E").after(id(7)).open().await;
    let topics = [all.event().await, all.event().await, all.event().await].map(|event| event.topic);
    assert_eq!(topics.map(String::from), ["d", "c.z", "a"], "{transport:?}");
    let mut many = String::new();
    for number in 0..65 {
        let _ = write!(many, "topic=t{number}&");
    }
    let refused = Ask::new(&server, transport, &many).refused().await;
    let detail = "A stream has at most 64 patterns. Use wildcards, or several streams.";
    assert_eq!(refused, refused_400(detail), "{transport:?}");
    let refused = Ask::new(&server, transport, "topic=a..b").refused().await;
    assert_eq!(refused.status, 400, "{transport:?}");
}

fn refused_400(detail: &str) -> Refused {
    refused(400, "Bad Request", None, detail)
}

async fn conflate_leaves_out_what_is_old(transport: Transport) {
    let server = Server::start(Settings::default()).await;
    for (topic, data) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("c", "5"), ("b", "6")] {
        server.publish_to(topic, data).await;
    }
    let ask = Ask::new(&server, transport, "topic=a&topic=b&conflate=true").earliest();
    let mut reader = ask.open().await;
    assert_eq!(reader.data(2).await, ["4", "6"], "{transport:?}");
    assert_eq!(reader.ask.cursor, Some(id(6)), "{transport:?}");
    // Who keeps up misses nothing.
    for data in ["7", "8", "9"] {
        server.publish_to("a", data).await;
        assert_eq!(reader.data(1).await, [data], "{transport:?}");
    }
    // Without it, nothing is left out.
    let mut reader = Ask::new(&server, transport, "topic=a&conflate=false").earliest().open().await;
    assert_eq!(reader.data(6).await, ["1", "3", "4", "7", "8", "9"], "{transport:?}");
}

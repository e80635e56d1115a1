//! Event streams that have sent everything rest in groups. Each gets what it would get by itself.

use std::{sync::Arc, time::Duration};

use server::{auth::Access, limits::Timeouts};
use tokio::{io::AsyncWriteExt as _, task::JoinSet, time::Instant};
use waterclock::{
    event::Draft,
    id::{Epoch, EventId},
    notice::TopicEnd,
};

use crate::{
    support::{Server, Settings, TestResponse, read_until_closed},
    tokens::{access, now, token},
};

const RESTING: &str = "waterclock_streams_resting";

async fn start() -> Server {
    start_with(Settings::default()).await
}

/// Starts a server with the direct path, whatever path the other tests try.
async fn start_with(settings: Settings) -> Server {
    Server::start_with(Settings { is_direct: true, ..settings }).await
}

/// Opens a stream, and reads its first message.
async fn open(server: &Server, path: &str) -> TestResponse {
    let mut stream = server.get(path).await;
    assert_eq!(stream.message().await.name, "hello");
    stream
}

async fn wait_for_resting(server: &Server, count: u64) {
    server.wait_for_metric(RESTING, |resting| resting == count).await;
}

fn sequence(id: &str) -> u64 {
    id.parse::<EventId>().unwrap().sequence
}

#[tokio::test]
async fn streams_rest_and_get_events_in_each_format() {
    let server = start().await;
    let mut plain = open(&server, "/events?topic=a").await;
    let mut others = [open(&server, "/events?topic=a").await, open(&server, "/events/a").await];
    let mut json = open(&server, "/events?topic=a&format=json").await;
    let mut wildcard = open(&server, "/events?topic=*").await;
    wait_for_resting(&server, 5).await;
    for data in ["one", "two"] {
        server.publish_to("a", data).await;
        let message = plain.message().await;
        assert_eq!(message.data, data);
        for other in &mut others {
            assert_eq!(other.message().await, message);
        }
        assert_eq!(wildcard.message().await, message);
        let message = json.message().await;
        assert!(message.data.contains(&format!(r#""data":"{data}""#)), "{}", message.data);
    }
    server.publish_to("b", "three").await;
    assert_eq!(wildcard.message().await.data, "three");
    assert_eq!(server.metric(RESTING).await, 5, "events do not wake the streams' own tasks");
    assert_eq!(server.metric("waterclock_events_sent_total").await, 11);
    drop(others);
    wait_for_resting(&server, 3).await;
    server.wait_for_streams(3).await;
    server.publish_to("a", "four").await;
    assert_eq!(plain.message().await.data, "four");
}

#[tokio::test]
async fn streams_with_something_of_their_own_do_not_rest() {
    let server = start().await;
    let mut resting = open(&server, "/events?topic=a").await;
    wait_for_resting(&server, 1).await;
    for own in ["limit=1", "conflate=true", "meter=abcdefghijklmnop"] {
        let mut stream = open(&server, &format!("/events?topic=a&{own}")).await;
        server.publish_to("a", own).await;
        assert_eq!(stream.message().await.data, own);
        assert_eq!(resting.message().await.data, own);
        assert_eq!(server.metric(RESTING).await, 1, "{own}");
    }
}

#[tokio::test]
async fn streams_whose_events_leave_together_rest_together() {
    let server = start().await;
    let path = "/events?topic=a&max_delay=300";
    let mut streams = [open(&server, path).await, open(&server, path).await];
    let mut others = [
        open(&server, "/events?topic=a").await,
        open(&server, "/events?topic=a&max_delay=1000").await,
    ];
    wait_for_resting(&server, 4).await;
    let published = Instant::now();
    for number in 1..=3 {
        server.publish_to("a", &number.to_string()).await;
        assert_eq!(others[0].message().await.data, number.to_string());
    }
    for stream in &mut streams {
        assert_eq!(stream.message().await.data, "1");
        assert!(published.elapsed() >= Duration::from_millis(300));
        for number in 2..=3 {
            assert_eq!(stream.message().await.data, number.to_string());
        }
    }
    for number in 1..=3 {
        assert_eq!(others[1].message().await.data, number.to_string());
    }
    assert!(published.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.metric(RESTING).await, 4);
}

#[tokio::test]
async fn a_slow_reader_leaves_the_group_and_misses_nothing() {
    const EVENTS: u64 = 200;
    let server = start_with(Settings { retain_count: 1000, ..Settings::default() }).await;
    let mut slow = open(&server, "/events").await;
    let mut fast = open(&server, "/events").await;
    wait_for_resting(&server, 2).await;
    let data = "x".repeat(60_000);
    for number in 1..=EVENTS {
        server.publish(&data).await;
        assert_eq!(sequence(&fast.message().await.last_event_id), number);
    }
    wait_for_resting(&server, 1).await;
    for number in 1..=EVENTS {
        let message = slow.message().await;
        assert_eq!((sequence(&message.last_event_id), message.data.len()), (number, data.len()));
    }
    wait_for_resting(&server, 2).await;
    server.publish("last").await;
    assert_eq!(
        (slow.message().await.data, fast.message().await.data),
        ("last".into(), "last".into())
    );
}

#[tokio::test]
async fn a_stuck_reader_of_a_group_times_out() {
    let write = Duration::from_millis(50);
    let timeouts = Timeouts { write, ..Timeouts::default() };
    let server = start_with(Settings { timeouts, ..Settings::default() }).await;
    let _stuck = open(&server, "/events").await;
    let mut reader = open(&server, "/events").await;
    wait_for_resting(&server, 2).await;
    let data = "x".repeat(60_000);
    for _ in 0..100 {
        server.publish(&data).await;
        assert_eq!(reader.message().await.data, data);
    }
    server.wait_for_streams(1).await;
    server.publish("tick").await;
    assert_eq!(reader.message().await.data, "tick");
}

#[tokio::test]
async fn streams_that_rest_get_heartbeats_with_their_position() {
    let heartbeat = Duration::from_millis(50);
    let server = start_with(Settings { heartbeat, ..Settings::default() }).await;
    let mut streams =
        [open(&server, "/events?topic=a").await, open(&server, "/events?topic=a").await];
    wait_for_resting(&server, 2).await;
    server.publish_to("other", "x").await;
    server.publish_to("a", "x").await;
    for stream in &mut streams {
        let mut last = String::new();
        let mut names = Vec::new();
        while names.iter().filter(|name| *name == "heartbeat").count() < 3
            || !names.contains(&"message".to_owned())
        {
            let message = stream.message().await;
            assert!(
                last.is_empty() || sequence(&last) <= sequence(&message.last_event_id),
                "{last} {message:?}"
            );
            last = message.last_event_id;
            names.push(message.name);
        }
        while sequence(&last) != 2 {
            last = stream.message().await.last_event_id;
        }
    }
    assert_eq!(server.metric(RESTING).await, 2);
}

#[tokio::test]
async fn an_end_of_one_topic_of_a_group_reaches_all() {
    let server = start().await;
    let mut streams = [
        open(&server, "/events?topic=a&topic=b").await,
        open(&server, "/events?topic=a&topic=b").await,
    ];
    wait_for_resting(&server, 2).await;
    let end = |name: &str| TopicEnd::done(name.parse().unwrap()).draft();
    server.hub.publish(end("a")).await.unwrap();
    for stream in &mut streams {
        let message = stream.message().await;
        assert_eq!((&*message.name, sequence(&message.last_event_id)), ("end", 1));
        assert!(!message.data.contains(r#""last":true"#), "{}", message.data);
    }
    assert_eq!(server.metric(RESTING).await, 2);
    server.hub.publish(end("b")).await.unwrap();
    for stream in &mut streams {
        let message = stream.message().await;
        assert!(message.data.contains(r#""last":true"#), "{}", message.data);
        assert!(stream.has_ended().await);
    }
    server.wait_for_streams(0).await;
    assert_eq!(server.metric("waterclock_streams_ended_total{reason=\"end\"}").await, 2);
}

#[tokio::test]
async fn a_connection_has_further_requests_after_a_stream_that_rested() {
    let server = start().await;
    let mut connection = server.connect().await;
    connection.write_all(b"GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut stream = TestResponse::read_from(connection).await;
    assert_eq!(stream.message().await.name, "hello");
    wait_for_resting(&server, 1).await;
    server.hub.publish(TopicEnd::done("a".parse().unwrap()).draft()).await.unwrap();
    assert_eq!(stream.message().await.name, "end");
    assert!(stream.has_ended().await);
    let mut connection = stream.into_connection();
    connection
        .write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = String::from_utf8(read_until_closed(connection).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn deleted_events_are_a_gap_for_streams_that_rest() {
    let server = start().await;
    let mut stream = open(&server, "/events?topic=a").await;
    wait_for_resting(&server, 1).await;
    // On the one thread of this test, the group reads nothing before the deletion.
    let published = server.hub.enqueue(Draft::new("a".parse().unwrap(), "x")).await.unwrap();
    published.await.unwrap();
    server.hub.delete("a".parse().unwrap()).await.unwrap();
    server.publish_to("a", "next").await;
    let first = stream.message().await;
    if first.name == "gap" {
        assert_eq!(stream.message().await.data, "next");
    } else {
        assert_eq!((&*first.data, &*stream.message().await.data), ("x", "next"));
    }
    wait_for_resting(&server, 1).await;
}

#[tokio::test]
async fn the_permissions_of_streams_that_rest_end() {
    let access = Access { tokens: access().tokens, ..Access::default() };
    let server = start_with(Settings { access, ..Settings::default() }).await;
    let short = token(serde_json::json!({"subscribe": ["t"], "exp": now() + 0.2 - 5.0}));
    let long = token(serde_json::json!({"subscribe": ["t"], "exp": now() + 60.0}));
    let mut ending = server.get_with_token(&short, "/events?topic=t").await;
    let mut staying = server.get_with_token(&long, "/events?topic=t").await;
    assert_eq!(ending.message().await.name, "hello");
    assert_eq!(staying.message().await.name, "hello");
    let goodbye = ending.message().await;
    assert!(goodbye.data.contains(r#""reason":"expired""#), "{}", goodbye.data);
    assert!(ending.has_ended().await);
    wait_for_resting(&server, 1).await;
    server.publish_to("t", "tick").await;
    assert_eq!(staying.message().await.data, "tick");
}

#[tokio::test]
async fn a_stop_says_goodbye_to_streams_that_rest() {
    let server = start().await;
    let mut streams = Vec::new();
    for number in 0..50 {
        streams.push(open(&server, &format!("/events?topic=t{}", number % 3)).await);
    }
    wait_for_resting(&server, 50).await;
    server.stop.begin();
    for mut stream in streams {
        assert_eq!(stream.message().await.name, "goodbye");
        assert!(stream.has_ended().await);
    }
    server.serving.await.unwrap();
}

/// Newcomers are admitted although the next event is always there already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_come_to_rest_while_events_arrive() {
    const STREAMS: u64 = 40;
    let server = Arc::new(start().await);
    let publisher = tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            loop {
                server.publish("tick").await;
            }
        }
    });
    let mut readers = JoinSet::new();
    for _ in 0..STREAMS {
        let mut stream = server.get("/events").await;
        readers.spawn(async move { while !stream.message().await.name.is_empty() {} });
    }
    wait_for_resting(&server, STREAMS).await;
    publisher.abort();
}

/// Readers that come, leave and read slowly while events arrive, on several threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_come_and_go_get_each_event_once() {
    const EVENTS: u64 = 1000;
    let server =
        Arc::new(start_with(Settings { retain_count: 10_000, ..Settings::default() }).await);
    let mut readers = JoinSet::new();
    for number in 0..24 {
        let server = Arc::clone(&server);
        readers.spawn(async move {
            let mut last = 0;
            while last < EVENTS {
                let cursor = EventId { epoch: Epoch::new(0xc10c), sequence: last }.to_string();
                let headers = [("Last-Event-ID", cursor.as_bytes())];
                let mut stream = server.request("GET", "/events", &headers).await;
                assert_eq!(stream.message().await.name, "hello");
                let stay = if number == 0 { EVENTS } else { fastrand::u64(1..200) };
                for _ in 0..stay {
                    if last == EVENTS {
                        break;
                    }
                    let message = stream.message().await;
                    assert_eq!(
                        (&*message.name, sequence(&message.last_event_id)),
                        ("message", last + 1)
                    );
                    last += 1;
                    if number % 4 == 1 {
                        for _ in 0..fastrand::usize(0..50) {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        });
    }
    for number in 0..EVENTS {
        let data = if number % 7 == 0 { "x".repeat(20_000) } else { "tick".to_owned() };
        server.publish(&data).await;
    }
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    server.wait_for_streams(0).await;
    wait_for_resting(&server, 0).await;
}

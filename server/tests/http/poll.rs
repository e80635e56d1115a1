//! `GET /poll` over real sockets.

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::{Server, Settings};

async fn start() -> Server {
    Server::start(Settings { retain_count: 4, ..Settings::default() }).await
}

/// The data of the events, the cursor's sequence number, and the reason of the gap.
async fn poll(server: &Server, query: &str) -> (Vec<String>, u64, Option<String>) {
    let answer = server.get(&format!("/poll?{query}")).await;
    assert_eq!(answer.status(), 200, "{query}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
    let answer: Value = serde_json::from_str(&answer.rest().await).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let events = answer["events"].as_array().unwrap();
    let data = events.iter().map(|event| text(&event["data"]).unwrap()).collect();
    let cursor = text(&answer["cursor"]).unwrap();
    let sequence = cursor.strip_prefix("000000000000c10c-").unwrap().parse().unwrap();
    (data, sequence, text(&answer["gap"]["reason"]))
}

fn data(data: &[&str]) -> Vec<String> {
    data.iter().map(|&data| data.to_owned()).collect()
}

#[tokio::test]
async fn each_poll_goes_on_after_the_one_before() {
    let server = start().await;
    assert_eq!(poll(&server, "").await, (vec![], 0, None));
    for tick in ["a", "b", "c"] {
        server.publish(tick).await;
    }
    assert_eq!(poll(&server, "").await, (vec![], 3, None), "from now");
    let after = |n| format!("last_event_id=000000000000c10c-{n}");
    assert_eq!(poll(&server, &after(1)).await, (data(&["b", "c"]), 3, None));
    assert_eq!(poll(&server, &after(3)).await, (vec![], 3, None));
    let earliest = "last_event_id=earliest";
    assert_eq!(poll(&server, &format!("{earliest}&limit=2")).await, (data(&["a", "b"]), 2, None));
    assert_eq!(poll(&server, &format!("{earliest}&conflate")).await, (data(&["c"]), 3, None));
    assert_eq!(poll(&server, &format!("{earliest}&topic=other")).await, (vec![], 3, None));
    let (first, second) = (poll(&server, &after(1)).await, poll(&server, &after(1)).await);
    assert_eq!(first, second, "asked twice, answered twice");
}

#[tokio::test]
async fn a_gap_comes_with_what_follows_it() {
    let server = start().await;
    for tick in ["a", "b", "c", "d", "e", "f"] {
        server.publish(tick).await;
    }
    let rest = data(&["c", "d", "e", "f"]);
    let expired = Some("expired".to_owned());
    assert_eq!(poll(&server, "last_event_id=000000000000c10c-1").await, (rest, 6, expired));
    let future = Some("future".to_owned());
    assert_eq!(poll(&server, "last_event_id=000000000000c10c-7").await, (vec![], 6, future));
}

#[tokio::test]
async fn with_wait_the_answer_comes_with_the_next_event() {
    let server = start().await;
    let waiting = poll(&server, "wait=50&topic=t");
    let publishing = async {
        server.until_metric("waterclock_polls_waiting", |polls| polls > 0).await;
        // Not of its topic.
        server.publish("tick").await;
        assert_eq!(server.post("t", "", b"x").await.status(), 201);
    };
    let (answer, ()) = tokio::join!(waiting, publishing);
    assert_eq!(answer, (data(&["x"]), 2, None));
}

#[tokio::test]
async fn with_wait_and_nothing_to_come_the_answer_is_empty() {
    let server = start().await;
    assert_eq!(poll(&server, "wait=1").await, (vec![], 0, None));
}

#[tokio::test]
async fn when_the_server_stops_who_waits_is_answered() {
    let server = start().await;
    let waiting = poll(&server, "wait=50");
    let stopping = async {
        server.until_metric("waterclock_polls_waiting", |polls| polls > 0).await;
        server.stop.begin();
    };
    let (answer, ()) = tokio::join!(waiting, stopping);
    assert_eq!(answer, (vec![], 0, None));
    server.serving.await.unwrap();
}

#[tokio::test]
async fn an_answer_says_whether_there_is_more() {
    let server = start().await;
    for _ in 0..3 {
        server.publish_to("large", &"x".repeat(60_000)).await;
    }
    server.publish("tick").await;
    let mut answers = Vec::new();
    let mut cursor = "earliest".to_owned();
    for query in ["topic=%3E&limit=2", "topic=%3E&limit=2", "topic=%3E", "topic=large"] {
        let answer = server.get(&format!("/poll?{query}&last_event_id={cursor}")).await;
        let answer: Value = serde_json::from_str(&answer.rest().await).unwrap();
        answers.push((answer["events"].as_array().unwrap().len(), answer["more"].clone()));
        cursor = answer["cursor"].as_str().unwrap().to_owned();
    }
    let [yes, no] = [true, false].map(Value::from);
    assert_eq!(answers, [(2, yes.clone()), (2, no.clone()), (0, no.clone()), (0, no)]);
    for _ in 0..8 {
        server.publish_to("large", &"x".repeat(60_000)).await;
    }
    let answer = server.get(&format!("/poll?topic=large&last_event_id={cursor}")).await;
    let answer: Value = serde_json::from_str(&answer.rest().await).unwrap();
    assert!(answer["events"].as_array().unwrap().len() < 8, "an answer is bounded in bytes");
    assert_eq!(answer["more"], yes);
}

#[tokio::test]
async fn a_long_answer_is_read_on_while_it_is_taken_and_a_short_one_says_how_long_it_is() {
    let server = Server::start(Settings::default()).await;
    let ids = async |query: &str| {
        let answer = server.get(&format!("/poll?topic=t&{query}")).await;
        let has_length = answer.header("content-length").is_some();
        let answer: Value = serde_json::from_str(&answer.rest().await).unwrap();
        let events = answer["events"].as_array().unwrap().iter();
        let ids: Vec<_> = events.map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        let (last, cursor) = (ids.last().cloned(), answer["cursor"].as_str().unwrap().to_owned());
        if let Some(last) = last {
            assert_eq!(last, cursor);
        }
        (ids, cursor, answer["more"] == true, has_length)
    };
    for number in 0..30 {
        // Some that are far longer in JSON, six bytes a character.
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
async fn an_answer_of_many_short_events_is_bounded_too() {
    let server = Server::start(Settings { retain_count: 10_000, ..Settings::default() }).await;
    for _ in 0..5000 {
        server.publish("").await;
    }
    let (mut seen, mut cursor, mut answers) = (0, "earliest".to_owned(), 0);
    loop {
        let answer = server.get(&format!("/poll?last_event_id={cursor}")).await.rest().await;
        // With what a subscriber takes at a time.
        assert!(answer.len() < 512 * 1024, "{} bytes", answer.len());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        seen += answer["events"].as_array().unwrap().len();
        answer["cursor"].as_str().unwrap().clone_into(&mut cursor);
        answers += 1;
        if answer["more"] == false {
            break;
        }
    }
    assert_eq!(seen, 5000);
    assert!(answers > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_that_wait_are_answered_by_one_event() {
    const COUNT: usize = 1000;
    let server = start().await;
    let polls = (0..COUNT).map(|_| poll(&server, "wait=55&topic=t"));
    let publishing = async {
        server.until_metric("waterclock_polls_waiting", |polls| polls == COUNT as u64).await;
        server.publish_to("t", "x").await;
    };
    let (answers, ()) = tokio::join!(join_all(polls), publishing);
    for answer in answers {
        assert_eq!(answer, (data(&["x"]), 1, None));
    }
    server.until_metric("waterclock_polls_waiting", |polls| polls == 0).await;
    // The one that asks.
    server.until_metric("waterclock_connections_open", |open| open == 1).await;
}

#[tokio::test]
async fn bad_requests_are_told_what_is_allowed() {
    let server = start().await;
    for wait in ["-1", "56", "x", "1.5", "99999999999999999999"] {
        let answer = server.get(&format!("/poll?wait={wait}")).await;
        assert_eq!(answer.status(), 400, "{wait}");
        assert!(answer.rest().await.contains("a whole number of seconds from 0 to 55"));
    }
    let foreign = [("Host", &b"rebound.example"[..])];
    assert_eq!(server.request("GET", "/poll", &foreign).await.status(), 403);
}

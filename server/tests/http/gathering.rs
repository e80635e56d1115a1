//! Readers whose events leave together: `max_delay`.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use waterclock::{notice::TopicEnd, transport::Transport};

use crate::{
    readers::{Http1Connection, Item, ReadRequest},
    support::{Server, TIME, event_id},
    tokens,
    ws::WebSocketClient,
};

/// A delay within which all events of a test are published.
const DELAY: Duration = Duration::from_millis(300);
/// The longest delay. Nothing that comes sooner has waited for it.
const LONGEST: &str = "max_delay=1000";
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A stream over HTTP/1.1, read chunk by chunk. It takes the direct path if the server has it.
struct ChunkedStream(Http1Connection);

impl ChunkedStream {
    async fn open(server: &Server, path: &str) -> Self {
        let mut http = Http1Connection::connect(server.address).await;
        http.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        let head = http.head().await.expect("a response");
        assert_eq!(head.header("transfer-encoding"), Some("chunked"), "{head:?}");
        Self(http)
    }

    async fn chunk(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.0.take(1).await.expect("a chunk"));
        }
        let length = usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        String::from_utf8(self.0.take(length + 2).await.expect("a whole chunk")).unwrap()
    }
}

async fn publish(server: &Server, count: usize) {
    for number in 1..=count {
        server.publish_to("t", &number.to_string()).await;
    }
}

async fn end(server: &Server) {
    server.hub.publish(TopicEnd::done("t".parse().unwrap()).draft()).await.unwrap();
}

#[tokio::test]
async fn the_events_of_a_delay_leave_in_one_chunk() {
    let server = Server::start().await;
    for path in ["/events?topic=t&", "/events/t?"] {
        let mut stream = ChunkedStream::open(&server, &format!("{path}max_delay=300")).await;
        assert!(stream.chunk().await.contains("event: hello"));
        for _ in 0..2 {
            let start = Instant::now();
            publish(&server, 10).await;
            let chunk = stream.chunk().await;
            assert!(start.elapsed() >= DELAY, "{path}: too early");
            let data: Vec<_> =
                chunk.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            assert_eq!(data, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], "{path}");
        }
    }
}

#[tokio::test]
async fn events_leave_at_once_without_a_delay() {
    let server = Server::start().await;
    for path in ["/events?topic=t", "/events?topic=t&max_delay=0", "/events/t?max_delay=0"] {
        let mut stream = ChunkedStream::open(&server, path).await;
        assert!(!stream.chunk().await.contains("max_delay"), "{path}");
        for data in ["a", "b"] {
            server.publish_to("t", data).await;
            let chunk = stream.chunk().await;
            assert!(chunk.ends_with(&format!("\ndata: {data}\n\n\r\n")), "{path}: {chunk}");
        }
    }
}

#[tokio::test]
async fn the_events_of_a_delay_come_together_over_a_websocket() {
    let server = Server::start().await;
    let request = ReadRequest::new(&server, Transport::WebSocket, "topic=t&max_delay=300");
    let mut socket = WebSocketClient::handshake(request).await;
    assert_eq!(socket.receive().await["hello"]["max_delay_ms"], 300);
    let start = Instant::now();
    publish(&server, 10).await;
    for number in 1..=10 {
        assert_eq!(socket.receive().await["event"]["data"], number.to_string());
        assert!(start.elapsed() >= DELAY, "too early");
    }
    // The answer to a publish is no event of the stream.
    let start = Instant::now();
    socket.send_json(&json!({"publish": {"topic": "t", "data": "x"}})).await;
    assert_eq!(socket.receive().await["published"]["data"], "x");
    assert_eq!(socket.receive().await["event"]["data"], "x");
    assert!(start.elapsed() >= DELAY, "too early");
}

#[tokio::test]
async fn a_poll_that_waits_has_all_events_of_a_delay() {
    let server = Server::start().await;
    let poll = async |query: &str| -> Vec<String> {
        let answer = server.get(&format!("/poll?topic=t&{query}")).await.rest().await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let events = answer["events"].as_array().unwrap();
        events.iter().map(|event| event["data"].as_str().unwrap().to_owned()).collect()
    };
    let start = Instant::now();
    let publishing = async {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
        publish(&server, 3).await;
    };
    let (data, ()) = tokio::join!(poll("wait=50&max_delay=300"), publishing);
    assert_eq!(data, ["1", "2", "3"]);
    assert!(start.elapsed() >= DELAY, "too early");
    let start = Instant::now();
    // Events that are available do not wait, and neither do the last ones of a response.
    let data = poll(&format!("wait=50&{LONGEST}&last_event_id={}", event_id(1))).await;
    assert_eq!(data, ["2", "3"]);
    assert!(start.elapsed() < LONGEST_DELAY, "too late");
    let start = Instant::now();
    let publishing = async {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
        publish(&server, 1).await;
    };
    let limited = format!("wait=50&{LONGEST}&limit=1");
    let (data, ()) = tokio::join!(poll(&limited), publishing);
    assert_eq!(data, ["1"]);
    assert!(start.elapsed() < LONGEST_DELAY, "too late");
}

#[tokio::test]
async fn a_stop_answers_a_poll_whose_events_wait() {
    let server = Server::start().await;
    let start = Instant::now();
    let stopping = async {
        server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
        publish(&server, 2).await;
        // The response gives the poll time to see the events.
        assert_eq!(server.metric("waterclock_polls_waiting").await, 1);
        server.stop.begin();
    };
    let path = format!("/poll?topic=t&wait=50&{LONGEST}");
    let (answer, ()) = tokio::join!(server.get(&path), stopping);
    let answer: Value = serde_json::from_str(&answer.rest().await).unwrap();
    assert_eq!(answer["events"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(answer["cursor"], event_id(2));
    assert!(start.elapsed() < LONGEST_DELAY, "too late");
}

#[tokio::test]
async fn hello_says_for_how_long_events_may_wait() {
    let server = Server::start().await;
    let mut stream = server.get("/events?max_delay=20&topic=t").await;
    assert_eq!(
        stream.block().await,
        format!(
            "retry: 2000\nid: {}\nevent: hello\ndata: {{\"time\":\"{TIME}\",\"connection\":1,\
             \"heartbeat_ms\":3600000,\"retry_ms\":2000,\"oldest\":null,\"newest\":null,\
             \"max_delay_ms\":20}}\n\n",
            event_id(0)
        )
    );
}

#[tokio::test]
async fn a_reader_that_returns_misses_no_event_and_has_none_twice() {
    const COUNT: usize = 300;
    let server = Arc::new(Server::start().await);
    let publisher = Arc::clone(&server);
    let publishing = tokio::spawn(async move {
        for number in 1..=COUNT {
            publisher.publish_to("t", &number.to_string()).await;
            tokio::task::yield_now().await;
        }
    });
    let expected: Vec<_> = (1..=COUNT).map(|number| number.to_string()).collect();
    let by_hand = async {
        let (mut cursor, mut read) = (event_id(0), Vec::new());
        while read.len() < COUNT {
            let path = format!("/events/t?max_delay=5&last_event_id={cursor}");
            let mut stream = server.get(&path).await;
            assert_eq!(stream.message().await.name, "hello");
            for _ in 0..7.min(COUNT - read.len()) {
                let message = stream.message().await;
                cursor = message.last_event_id;
                read.push(message.data);
            }
        }
        read
    };
    let other = async |transport: Transport| {
        let request = ReadRequest::new(&server, transport, "topic=t&max_delay=5");
        let (mut request, mut read) = (request.after(event_id(0)), Vec::new());
        while read.len() < COUNT {
            let mut reader = request.open().await;
            read.extend(reader.data(7.min(COUNT - read.len())).await);
            request = reader.request.clone();
        }
        read
    };
    let (by_hand, sse, websocket, poll) = tokio::join!(
        by_hand,
        other(Transport::Sse),
        other(Transport::WebSocket),
        other(Transport::LongPoll)
    );
    for read in [by_hand, sse, websocket, poll] {
        assert_eq!(read, expected);
    }
    publishing.await.unwrap();
}

#[tokio::test]
async fn a_replay_and_the_end_of_a_limit_do_not_wait() {
    for transport in [Transport::Sse, Transport::WebSocket] {
        let server = Server::start().await;
        publish(&server, 5).await;
        let start = Instant::now();
        let query = format!("topic=t&limit=6&{LONGEST}");
        let mut reader =
            ReadRequest::new(&server, transport, &query).after(event_id(0)).open().await;
        assert_eq!(reader.data(5).await, ["1", "2", "3", "4", "5"]);
        server.publish_to("t", "6").await;
        assert_eq!(reader.data(1).await.len(), 1);
        assert_eq!(reader.next().await, Item::Ended(Some("end".to_owned())));
        assert!(start.elapsed() < LONGEST_DELAY, "{transport:?}: too late");
    }
    let server = Server::start().await;
    let start = Instant::now();
    let mut stream = server.get(&format!("/events/t?limit=1&{LONGEST}")).await;
    assert_eq!(stream.message().await.name, "hello");
    server.publish_to("t", "x").await;
    assert_eq!(
        (stream.message().await.data, stream.message().await.data),
        ("x".into(), "{\"sent\":1}".into())
    );
    assert!(stream.has_ended().await);
    assert!(start.elapsed() < LONGEST_DELAY, "too late");
}

#[tokio::test]
async fn the_end_of_a_topic_follows_its_events() {
    let server = Server::start().await;
    let query = "topic=t&max_delay=300";
    let mut socket = ReadRequest::new(&server, Transport::WebSocket, query).open().await;
    let mut stream = server.get(&format!("/events?{query}")).await;
    assert_eq!(stream.message().await.name, "hello");
    let start = Instant::now();
    publish(&server, 2).await;
    end(&server).await;
    assert_eq!(
        (stream.message().await.data, stream.message().await.data),
        ("1".into(), "2".into())
    );
    assert!(start.elapsed() >= DELAY, "too early");
    let last = stream.message().await;
    assert_eq!(last.name, "end");
    assert!(last.data.contains("\"last\":true"), "{}", last.data);
    assert!(stream.has_ended().await);
    assert_eq!(socket.data(2).await, ["1", "2"]);
    assert!(matches!(socket.next().await, Item::TopicEnd(_)));
    assert_eq!(socket.next().await, Item::Ended(Some("end".to_owned())));
}

#[tokio::test]
async fn events_that_wait_do_not_delay_a_stop() {
    let server = Server::start().await;
    let query = format!("topic=t&{LONGEST}");
    let mut stream = server.get(&format!("/events?{query}")).await;
    assert_eq!(stream.message().await.name, "hello");
    let mut socket = ReadRequest::new(&server, Transport::WebSocket, &query).open().await;
    let start = Instant::now();
    publish(&server, 2).await;
    server.stop.begin();
    // A stream that rested sends them before its goodbye.
    let mut message = stream.message().await;
    while message.name == "message" {
        message = stream.message().await;
    }
    assert!(message.data.contains(r#""reason":"draining""#), "{message:?}");
    assert!(stream.has_ended().await);
    assert!(start.elapsed() < LONGEST_DELAY, "too late");
    assert_eq!(socket.next().await, Item::Ended(Some("draining".to_owned())));
    assert_eq!(socket.request.cursor, Some(event_id(0)), "the events follow after the return");
    drop(socket);
    server.serving.await.unwrap();
}

#[tokio::test]
async fn events_that_wait_do_not_delay_an_expiry() {
    let server = Server::with_access(tokens::access()).await;
    let expires = tokens::now() + 0.3 - tokens::LEEWAY;
    let token = tokens::token(json!({"exp": expires, "subscribe": ["t"]}));
    let mut stream = server.get_with_token(&token, &format!("/events/t?{LONGEST}")).await;
    assert_eq!(stream.message().await.name, "hello");
    publish(&server, 2).await;
    // Instead of the events.
    let goodbye = stream.message().await;
    assert!(goodbye.data.contains(r#""reason":"expired""#), "{goodbye:?}");
    assert!(stream.has_ended().await);
}

#[tokio::test]
async fn a_delay_out_of_bounds_is_refused() {
    let server = Server::start().await;
    for value in ["-1", "1001", "x", "", "20ms"] {
        let query = format!("max_delay={value}");
        let request = ReadRequest::new(&server, Transport::WebSocket, &query);
        assert_eq!(request.expect_refused().await.status, 400, "/ws {value}");
        for path in ["/events?", "/events/t?", "/poll?", "/poll?wait=5&"] {
            let response = server.get(&format!("{path}max_delay={value}")).await;
            assert_eq!(response.status(), 400, "{path} {value}");
            let problem = response.rest().await;
            let bounds = "`max_delay` must be a whole number of milliseconds from 0 to 1000";
            assert!(problem.contains(bounds), "{path} {value}: {problem}");
        }
    }
    for query in ["max_delay=1000", "max_delay=0", "wait=0&max_delay=20"] {
        assert_eq!(server.get(&format!("/poll?{query}")).await.status(), 200, "{query}");
    }
}

//! HTTP/2, without TLS: many streams on one connection, its beginning and its end.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use server::serve::TimeOuts;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};
use waterclock::sse::{Message, Parsed, Parser};

use crate::{
    frames,
    support::{DEADLINE, Server, Settings},
};

/// A client's connection.
pub struct Connection {
    requests: SendRequest<Bytes>,
    pub driver: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    pub async fn open(server: &Server) -> Self {
        Self::over(server.connect().await).await
    }

    pub async fn over(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let mut client = h2::client::Builder::new();
        // By itself it closes a connection on which a hundred short messages come before it has read one.
        Self::with(client.data_frame_budget(10_000_000), socket).await
    }

    pub async fn with(
        client: &h2::client::Builder,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let (requests, connection) = client.handshake(socket).await.unwrap();
        Self { requests, driver: tokio::spawn(connection) }
    }

    pub async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        let uri = format!("http://localhost{path}");
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, mut sent) = requests.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            sent.send_data(body.to_owned().into(), true).unwrap();
        }
        let answer = tokio::time::timeout(DEADLINE, answer).await.expect("an answer").unwrap();
        let (head, body) = answer.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
            parser: Parser::default(),
            messages: Vec::new(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    /// Waits until the server has closed it.
    pub async fn closed(self) -> Result<(), h2::Error> {
        // Without anybody who might ask for more, the client would close it.
        let Self { requests: _requests, driver } = self;
        tokio::time::timeout(DEADLINE, driver).await.expect("closed").unwrap()
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: RecvStream,
    parser: Parser,
    messages: Vec<Message>,
}

impl Answer {
    async fn data(&mut self) -> Option<Bytes> {
        let data = tokio::time::timeout(DEADLINE, self.body.data()).await.expect("more bytes")?;
        let data = data.unwrap();
        self.body.flow_control().release_capacity(data.len()).unwrap();
        Some(data)
    }

    pub async fn message(&mut self) -> Message {
        while self.messages.is_empty() {
            let data = self.data().await.expect("more messages");
            self.messages.extend(self.parser.feed(&data).into_iter().filter_map(|parsed| {
                match parsed {
                    Parsed::Message(message) => Some(message),
                    Parsed::Retry(_) => None,
                }
            }));
        }
        self.messages.remove(0)
    }

    pub async fn text(mut self) -> String {
        let mut bytes = Vec::new();
        while let Some(data) = self.data().await {
            bytes.extend(data);
        }
        String::from_utf8(bytes).unwrap()
    }
}

async fn with(time_outs: TimeOuts) -> Server {
    Server::start(Settings { time_outs, ..Settings::default() }).await
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_thousand_streams_on_one_connection() {
    let server = Server::start(Settings::default()).await;
    let connection = Connection::open(&server).await;
    let mut streams = JoinSet::new();
    for number in 0..1000 {
        let mut stream = connection.get("/events").await;
        assert_eq!(stream.status, 200);
        assert_eq!(stream.headers["content-type"], "text/event-stream");
        assert_eq!(stream.message().await.name, "hello");
        streams.spawn(async move {
            assert_eq!(stream.message().await.data, "tick");
            if number >= 10 {
                // The client cancels it.
                return None;
            }
            assert_eq!(stream.message().await.data, "tock");
            Some(stream)
        });
    }
    server.until_streams(1000).await;
    assert_eq!(server.metric("waterclock_connections_open").await, 2, "and the one that asks");
    server.publish("tick").await;
    server.until_streams(10).await;
    server.publish("tock").await;
    let left: Vec<_> = streams.join_all().await.into_iter().flatten().collect();
    server.until_streams(left.len()).await;
    // They end with their connection.
    connection.driver.abort();
    server.until_streams(0).await;
}

#[tokio::test]
async fn it_does_what_http_1_does() {
    let server = Server::start(Settings::default()).await;
    let connection = Connection::open(&server).await;
    let mut stream = connection.get("/events?topic=orders").await;
    stream.message().await;
    let published = connection.send(Method::POST, "/events/orders", "an order").await;
    assert_eq!(published.status, 201);
    let event: Value = serde_json::from_str(&published.text().await).unwrap();
    let message = stream.message().await;
    assert_eq!(message.data, "an order");
    assert_eq!(event["id"], message.last_event_id);
    let poll = connection.get("/poll?topic=orders&last_event_id=earliest").await.text().await;
    let poll: Value = serde_json::from_str(&poll).unwrap();
    assert_eq!(poll["events"], json!([event]));
    assert_eq!(connection.get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn a_websocket_is_for_http_1() {
    let server = Server::start(Settings::default()).await;
    let answer = Connection::open(&server).await.get("/ws").await;
    assert_eq!(answer.status, 426);
    let text = answer.text().await;
    assert!(text.contains("ask over HTTP/1.1"), "{text}");
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_is_let_go_and_one_with_a_quiet_stream_is_not() {
    let server = with(TimeOuts { head: SHORT, ..TimeOuts::default() }).await;
    let busy = Connection::open(&server).await;
    let mut stream = busy.get("/events").await;
    stream.message().await;

    let silent = Connection::open(&server).await;
    silent.closed().await.unwrap();
    let head = "waterclock_connections_timed_out_total{reason=\"head\"}";
    server.until_metric(head, |value| value == 1).await;
    let idle = Connection::open(&server).await;
    assert_eq!(idle.get("/health/live").await.status, 200);
    idle.closed().await.unwrap();
    let idle = "waterclock_connections_timed_out_total{reason=\"idle\"}";
    server.until_metric(idle, |value| value == 1).await;

    server.publish("tick").await;
    assert_eq!(stream.message().await.data, "tick");
}

#[tokio::test]
async fn a_client_that_does_not_answer_whether_it_is_there() {
    let silence = Duration::from_secs(2);
    let server = with(TimeOuts { ping: SHORT, silence, ..TimeOuts::default() }).await;
    let here = Connection::open(&server).await;
    let mut stream = here.get("/events").await;
    stream.message().await;
    let (requests, mut connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let request = Request::builder().uri("http://localhost/events").body(()).unwrap();
    let mut requests = requests;
    let (mut answer, _) = requests.send_request(request, true).unwrap();
    let answered = poll_fn(|context| {
        // Only as long as this is polled, it answers pings.
        let _ = Pin::new(&mut connection).poll(context);
        Pin::new(&mut answer).poll(context)
    });
    let _stuck = tokio::time::timeout(DEADLINE, answered).await.expect("an answer").unwrap();
    let gone = "waterclock_connections_timed_out_total{reason=\"ping\"}";
    server.until_metric(gone, |value| value == 1).await;
    server.until_streams(1).await;
    server.publish("tick").await;
    assert_eq!(stream.message().await.data, "tick");
}

#[tokio::test]
async fn a_reader_that_is_slow_is_not_let_go_before_it_reads_no_more() {
    const LENGTH: usize = 60_000;
    const COUNT: usize = 100;
    let silence = Duration::from_secs(2);
    let server = with(TimeOuts { ping: SHORT, silence, ..TimeOuts::default() }).await;
    for _ in 0..COUNT {
        server.publish_to("long", &"x".repeat(LENGTH)).await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    // So that little of it is on its way.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut slow = socket.connect(server.address).await.unwrap();
    let windows = frames::setting(frames::INITIAL_WINDOW_SIZE, 0x7fff_ffff);
    let windows = [
        frames::frame(frames::SETTINGS, 0, 0, &windows),
        // The connection's (RFC 9113, 6.9).
        frames::frame(8, 0, 0, &0x7000_0000_u32.to_be_bytes()),
    ];
    let request = frames::get(1, "/events?topic=long&last_event_id=earliest");
    slow.write_all(&[frames::preface(), windows.concat(), request].concat()).await.unwrap();
    // It answers no ping, as if each were behind the data until then, for longer than a silence may last.
    let mut turns = tokio::time::interval(2 * silence / u32::try_from(COUNT).unwrap());
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut part = vec![0; LENGTH];
    for _ in 0..COUNT {
        turns.tick().await;
        let read = slow.read_exact(&mut part);
        tokio::time::timeout(DEADLINE, read).await.expect("more bytes").expect("it is there");
    }
    server.until_streams(1).await;
    let gone = "waterclock_connections_timed_out_total{reason=\"ping\"}";
    server.until_metric(gone, |value| value == 1).await;
    server.until_streams(0).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_no_other_of_its_connection() {
    let server = Server::start(Settings::default()).await;
    let connection = Connection::open(&server).await;
    let mut stuck = connection.get("/events").await;
    stuck.message().await;
    let mut read = connection.get("/events").await;
    read.message().await;
    let data = "x".repeat(60_000);
    for _ in 0..50 {
        server.publish(&data).await;
        assert_eq!(read.message().await.data, data);
    }
    assert_eq!(server.metric("waterclock_streams_behind").await, 1, "it has not all in buffers");
    for _ in 0..50 {
        assert_eq!(stuck.message().await.data, data);
    }
}

#[tokio::test]
async fn a_stop_says_goodbye_and_closes_the_connection() {
    let server = Server::start(Settings::default()).await;
    let connection = Connection::open(&server).await;
    let mut stream = connection.get("/events").await;
    stream.message().await;
    server.stop.begin();
    let goodbye = stream.message().await;
    assert_eq!((&*goodbye.name, goodbye.data.contains("draining")), ("goodbye", true));
    connection.closed().await.unwrap();
    tokio::time::timeout(DEADLINE, server.serving).await.expect("stopped").unwrap();
}

#[tokio::test]
async fn what_crosses_a_shared_connection_is_counted_for_all_of_it() {
    let server = Server::start(Settings::default()).await;
    let connection = Connection::open(&server).await;
    let meter = "meter=abcdefghijklmnop";
    let mut stream = connection.get(&format!("/events?{meter}")).await;
    stream.message().await;
    let poll = connection.get(&format!("/poll?{meter}")).await;
    poll.text().await;
    for _ in 0..10 {
        server.publish(&"x".repeat(10_000)).await;
        stream.message().await;
    }
    let reading: Value =
        serde_json::from_str(&server.get("/meters/abcdefghijklmnop").await.rest().await).unwrap();
    for (transport, requests) in [("sse", 1), ("poll", 1), ("long-poll", 0)] {
        let expected = json!({
            "connections": requests, "open": 0, "requests": requests, "received": 0, "sent": 0
        });
        assert_eq!(reading[transport], expected, "{transport}");
    }
    let shared = &reading["shared"];
    assert_eq!(
        (&shared["connections"], &shared["open"], &shared["requests"]),
        (&json!(1), &json!(1), &json!(2))
    );
    let sent = shared["sent"].as_u64().unwrap();
    assert!((100_000..110_000).contains(&sent), "{sent}");
    assert!(shared["received"].as_u64().unwrap() > 0);

    let cut = server.send(b"POST /meters/abcdefghijklmnop/cut HTTP/1.0\r\n\r\n").await;
    assert_eq!(cut.rest().await, r#"{"cut":1}"#);
    server.until_streams(0).await;
    let _ = connection.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_with_many_streams() {
    let server = Server::start(Settings::default()).await;
    let mut readers = JoinSet::new();
    for _ in 0..20 {
        let connection = Connection::open(&server).await;
        for _ in 0..20 {
            let mut stream = connection.get("/events").await;
            readers.spawn(async move {
                for _ in 0..=30 {
                    stream.message().await;
                }
            });
        }
        drop(connection.requests);
    }
    server.until_streams(400).await;
    for number in 0..30 {
        server.publish(&format!("{number} {}", "x".repeat(5000))).await;
    }
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    server.until_streams(0).await;
}

#[tokio::test]
async fn an_answer_of_which_nothing_is_taken_is_taken_back_and_the_others_go_on() {
    let server = with(TimeOuts { write: SHORT, ..TimeOuts::default() }).await;
    for _ in 0..20 {
        server.publish(&"x".repeat(10_000)).await;
    }
    let mut client = h2::client::Builder::new();
    // As a proxy with several clients does, one of whom does not read.
    client.initial_window_size(1024).initial_connection_window_size(1024 * 1024);
    let here = Connection::with(&client, server.connect().await).await;
    let mut stream = here.get("/events").await;
    stream.message().await;
    let mut stuck = Vec::new();
    for path in ["/poll?last_event_id=earliest", "/events?last_event_id=earliest"] {
        stuck.push(here.get(path).await);
    }
    let metric = "waterclock_connections_timed_out_total{reason=\"write\"}";
    server.until_metric(metric, |value| value == 2).await;
    server.until_streams(1).await;
    for answer in &mut stuck {
        let mut bytes = 0;
        let error = loop {
            let data =
                tokio::time::timeout(DEADLINE, poll_fn(|context| answer.body.poll_data(context)));
            match data.await.expect("its end").expect("not as if it were complete") {
                Ok(data) => bytes += data.len(),
                Err(error) => break error,
            }
        };
        assert_eq!((bytes, error.reason()), (1024, Some(h2::Reason::CANCEL)));
    }
    server.publish("tock").await;
    assert_eq!(stream.message().await.data, "tock");
}

#[tokio::test]
async fn one_that_takes_up_the_whole_window_of_the_connection_goes_alone() {
    // Half of it must be enough for the client to hear of it.
    let write = Duration::from_secs(2);
    let server = with(TimeOuts { write, ..TimeOuts::default() }).await;
    // With the window that RFC 9113 has by default, 65,535 bytes for each answer and for all together.
    let here = Connection::with(&h2::client::Builder::new(), server.connect().await).await;
    let mut stream = here.get("/events?topic=live").await;
    stream.message().await;
    for _ in 0..20 {
        server.publish(&"x".repeat(10_000)).await;
    }
    let mut stuck = here.get("/poll?last_event_id=earliest").await;
    let mut taken = 0;
    let error = loop {
        let data = poll_fn(|context| stuck.body.poll_data(context));
        let data = tokio::time::timeout(DEADLINE, data).await.expect("its end");
        match data.expect("not as if it were complete") {
            // The window is not given back.
            Ok(data) => taken += data.len(),
            Err(error) => break error,
        }
        if taken > 65_000 {
            // So this has to wait.
            server.publish_to("live", "tick").await;
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    drop(stuck);
    assert_eq!(stream.message().await.data, "tick");
}

#[tokio::test]
async fn what_is_asked_for_just_as_an_idle_connection_is_closed_is_served_to_its_end() {
    let write = Duration::from_secs(1);
    let server = with(TimeOuts { head: SHORT, write, ..TimeOuts::default() }).await;
    let mut client = server.connect().await;
    client.write_all(&frames::preface()).await.unwrap();
    let mut bytes = Vec::new();
    let mut until = async |wanted: &[u8], client: &mut TcpStream| {
        while !bytes.windows(wanted.len()).any(|window| window == wanted) {
            let read = tokio::time::timeout(DEADLINE, client.read_buf(&mut bytes)).await;
            assert!(read.expect("more bytes").unwrap() > 0, "closed");
        }
    };
    // The first GOAWAY (RFC 9113, 6.8) names the highest stream there can be.
    until(&frames::frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]), &mut client).await;
    client.write_all(&frames::get(1, "/events")).await.unwrap();
    until(b"event: hello", &mut client).await;
    // Meanwhile others come and are closed for being idle, which takes longer than that.
    for _ in 0..15 {
        let idle = Connection::open(&server).await;
        idle.closed().await.unwrap();
    }
    server.publish("tick").await;
    until(b"data: tick", &mut client).await;
}

//! HTTP/2 without TLS: connections with many streams, timeouts, and shutdown.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use server::limits::Timeouts;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};
use waterclock::sse::{Message, Parsed, Parser};

use crate::{
    frames,
    support::{DEADLINE, Server, timeout_metric},
};

/// A client's HTTP/2 connection.
pub struct Http2Connection {
    requests: SendRequest<Bytes>,
    pub driver: JoinHandle<Result<(), h2::Error>>,
}

impl Http2Connection {
    pub async fn open(server: &Server) -> Self {
        Self::handshake(server.connect().await).await
    }

    /// Performs the handshake on a socket.
    pub async fn handshake(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let mut client = h2::client::Builder::new();
        // By default the client closes a connection on which a hundred short messages arrive before
        // it has read one.
        Self::handshake_with(client.data_frame_budget(10_000_000), socket).await
    }

    /// Performs the handshake on a socket, with settings of the client.
    pub async fn handshake_with(
        client: &h2::client::Builder,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let (requests, connection) = client.handshake(socket).await.unwrap();
        Self { requests, driver: tokio::spawn(connection) }
    }

    pub async fn send(&self, method: Method, path: &str, body: &str) -> Http2Response {
        let uri = format!("http://localhost{path}");
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (response, mut body_stream) = requests.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            body_stream.send_data(body.to_owned().into(), true).unwrap();
        }
        let response = tokio::time::timeout(DEADLINE, response).await.expect("a response").unwrap();
        let (head, body) = response.into_parts();
        Http2Response {
            status: head.status,
            headers: head.headers,
            body,
            parser: Parser::default(),
            messages: Vec::new(),
        }
    }

    pub async fn get(&self, path: &str) -> Http2Response {
        self.send(Method::GET, path, "").await
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(self) -> Result<(), h2::Error> {
        // The client itself would close a connection without a handle for requests.
        let Self { requests: _requests, driver } = self;
        tokio::time::timeout(DEADLINE, driver).await.expect("closed").unwrap()
    }
}

/// The response to a request over HTTP/2.
pub struct Http2Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: RecvStream,
    parser: Parser,
    messages: Vec<Message>,
}

impl Http2Response {
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

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn one_connection_carries_a_thousand_streams() {
    let server = Server::start().await;
    let connection = Http2Connection::open(&server).await;
    let mut streams = JoinSet::new();
    for number in 0..1000 {
        let mut stream = connection.get("/events").await;
        assert_eq!(stream.status, 200);
        assert_eq!(stream.headers["content-type"], "text/event-stream");
        assert_eq!(stream.message().await.name, "hello");
        streams.spawn(async move {
            assert_eq!(stream.message().await.data, "tick");
            if number >= 10 {
                // Dropping the stream cancels it.
                return None;
            }
            assert_eq!(stream.message().await.data, "tock");
            Some(stream)
        });
    }
    server.wait_for_streams(1000).await;
    assert_eq!(
        server.metric("waterclock_connections_open").await,
        2,
        "with the one that reads the metric"
    );
    server.publish("tick").await;
    server.wait_for_streams(10).await;
    server.publish("tock").await;
    let left: Vec<_> = streams.join_all().await.into_iter().flatten().collect();
    server.wait_for_streams(left.len()).await;
    // The other streams end with their connection.
    connection.driver.abort();
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn http_2_serves_the_same_routes_as_http_1() {
    let server = Server::start().await;
    let connection = Http2Connection::open(&server).await;
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
async fn a_websocket_over_http_2_gets_426() {
    let server = Server::start().await;
    let response = Http2Connection::open(&server).await.get("/ws").await;
    assert_eq!(response.status, 426);
    let text = response.text().await;
    assert!(text.contains("HTTP/2 has none; use HTTP/1.1"), "{text}");
}

#[tokio::test]
async fn idle_connections_time_out_and_quiet_streams_do_not() {
    let server =
        Server::with_timeouts(Timeouts { head: SHORT, idle: SHORT, ..Timeouts::default() }).await;
    let busy = Http2Connection::open(&server).await;
    let mut stream = busy.get("/events").await;
    stream.message().await;

    let silent = Http2Connection::open(&server).await;
    silent.closed().await.unwrap();
    let head = &timeout_metric("head");
    server.wait_for_metric(head, |value| value == 1).await;
    let idle = Http2Connection::open(&server).await;
    assert_eq!(idle.get("/health/live").await.status, 200);
    idle.closed().await.unwrap();
    let idle = &timeout_metric("idle");
    server.wait_for_metric(idle, |value| value == 1).await;

    server.publish("tick").await;
    assert_eq!(stream.message().await.data, "tick");

    // A connection that was used may be idle for another time.
    let idle = Duration::from_hours(1);
    let server = Server::with_timeouts(Timeouts { head: SHORT, idle, ..Timeouts::default() }).await;
    let used = Http2Connection::open(&server).await;
    assert_eq!(used.get("/health/live").await.status, 200);
    Http2Connection::open(&server).await.closed().await.unwrap();
    assert_eq!(used.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_times_out() {
    let silence = Duration::from_secs(2);
    let server =
        Server::with_timeouts(Timeouts { ping: SHORT, silence, ..Timeouts::default() }).await;
    let connection = Http2Connection::open(&server).await;
    let mut stream = connection.get("/events").await;
    stream.message().await;
    let (requests, mut stuck_connection) =
        h2::client::handshake(server.connect().await).await.unwrap();
    let request = Request::builder().uri("http://localhost/events").body(()).unwrap();
    let mut requests = requests;
    let (mut response, _) = requests.send_request(request, true).unwrap();
    let response = poll_fn(|context| {
        // The client answers pings only while this future is polled.
        let _ = Pin::new(&mut stuck_connection).poll(context);
        Pin::new(&mut response).poll(context)
    });
    let _stuck = tokio::time::timeout(DEADLINE, response).await.expect("a response").unwrap();
    let gone = &timeout_metric("ping");
    server.wait_for_metric(gone, |value| value == 1).await;
    server.wait_for_streams(1).await;
    server.publish("tick").await;
    assert_eq!(stream.message().await.data, "tick");
}

#[tokio::test]
async fn a_slow_reader_times_out_only_after_it_stops_reading() {
    const LENGTH: usize = 60_000;
    const COUNT: usize = 100;
    let silence = Duration::from_secs(2);
    let server =
        Server::with_timeouts(Timeouts { ping: SHORT, silence, ..Timeouts::default() }).await;
    for _ in 0..COUNT {
        server.publish_to("long", &"x".repeat(LENGTH)).await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    // A small buffer keeps little data in flight.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut slow = socket.connect(server.address).await.unwrap();
    let windows = frames::setting(frames::INITIAL_WINDOW_SIZE, 0x7fff_ffff);
    let windows = [
        frames::frame(frames::SETTINGS, 0, 0, &windows),
        // The connection's window (RFC 9113, 6.9).
        frames::frame(8, 0, 0, &0x7000_0000_u32.to_be_bytes()),
    ];
    let request = frames::get(1, "/events?topic=long&last_event_id=earliest");
    slow.write_all(&[frames::preface(), windows.concat(), request].concat()).await.unwrap();
    // The client answers no ping for longer than the permitted silence, as if each ping were queued
    // behind the data.
    let mut turns = tokio::time::interval(2 * silence / u32::try_from(COUNT).unwrap());
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut part = vec![0; LENGTH];
    for _ in 0..COUNT {
        turns.tick().await;
        let read = slow.read_exact(&mut part);
        tokio::time::timeout(DEADLINE, read)
            .await
            .expect("more bytes")
            .expect("the connection is open");
    }
    server.wait_for_streams(1).await;
    let gone = &timeout_metric("ping");
    server.wait_for_metric(gone, |value| value == 1).await;
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn an_unread_stream_delays_no_other_stream_of_its_connection() {
    let server = Server::start().await;
    let connection = Http2Connection::open(&server).await;
    let mut stuck = connection.get("/events").await;
    stuck.message().await;
    let mut read = connection.get("/events").await;
    read.message().await;
    let data = "x".repeat(60_000);
    for _ in 0..50 {
        server.publish(&data).await;
        assert_eq!(read.message().await.data, data);
    }
    assert_eq!(
        server.metric("waterclock_streams_behind").await,
        1,
        "not all events are in buffers"
    );
    for _ in 0..50 {
        assert_eq!(stuck.message().await.data, data);
    }
}

#[tokio::test]
async fn a_shutdown_says_goodbye_and_closes_the_connection() {
    let server = Server::start().await;
    let connection = Http2Connection::open(&server).await;
    let mut stream = connection.get("/events").await;
    stream.message().await;
    server.stop.begin();
    let goodbye = stream.message().await;
    assert_eq!((&*goodbye.name, goodbye.data.contains("draining")), ("goodbye", true));
    connection.closed().await.unwrap();
    tokio::time::timeout(DEADLINE, server.serving).await.expect("stopped").unwrap();
}

#[tokio::test]
async fn a_shared_connection_is_metered_as_a_whole() {
    let server = Server::start().await;
    let connection = Http2Connection::open(&server).await;
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
    server.wait_for_streams(0).await;
    let _ = connection.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_carry_many_streams() {
    let server = Server::start().await;
    let mut readers = JoinSet::new();
    for _ in 0..20 {
        let connection = Http2Connection::open(&server).await;
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
    server.wait_for_streams(400).await;
    for number in 0..30 {
        server.publish(&format!("{number} {}", "x".repeat(5000))).await;
    }
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn an_unread_response_is_reset_and_other_streams_continue() {
    let server = Server::with_timeouts(Timeouts { write: SHORT, ..Timeouts::default() }).await;
    for _ in 0..20 {
        server.publish(&"x".repeat(10_000)).await;
    }
    let mut client = h2::client::Builder::new();
    // A proxy with several clients does this if one of them does not read.
    client.initial_window_size(1024).initial_connection_window_size(1024 * 1024);
    let connection = Http2Connection::handshake_with(&client, server.connect().await).await;
    let mut stream = connection.get("/events").await;
    stream.message().await;
    let mut stuck = Vec::new();
    for path in ["/poll?last_event_id=earliest", "/events?last_event_id=earliest"] {
        stuck.push(connection.get(path).await);
    }
    let metric = &timeout_metric("write");
    server.wait_for_metric(metric, |value| value == 2).await;
    server.wait_for_streams(1).await;
    for response in &mut stuck {
        let mut bytes = 0;
        let error = loop {
            let data =
                tokio::time::timeout(DEADLINE, poll_fn(|context| response.body.poll_data(context)));
            match data.await.expect("the end").expect("not a complete response") {
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
async fn a_response_that_fills_the_connection_window_is_reset_alone() {
    // Half of it must suffice for the client to notice.
    let write = Duration::from_secs(2);
    let server = Server::with_timeouts(Timeouts { write, ..Timeouts::default() }).await;
    // By default, the windows of a response and of the connection are 65,535 bytes (RFC 9113).
    let connection =
        Http2Connection::handshake_with(&h2::client::Builder::new(), server.connect().await).await;
    let mut stream = connection.get("/events?topic=live").await;
    stream.message().await;
    for _ in 0..20 {
        server.publish(&"x".repeat(10_000)).await;
    }
    let mut stuck = connection.get("/poll?last_event_id=earliest").await;
    let mut taken = 0;
    let error = loop {
        let data = poll_fn(|context| stuck.body.poll_data(context));
        let data = tokio::time::timeout(DEADLINE, data).await.expect("the end");
        match data.expect("not a complete response") {
            // The client does not extend the window.
            Ok(data) => taken += data.len(),
            Err(error) => break error,
        }
        if taken > 65_000 {
            // This event must wait for the window.
            server.publish_to("live", "tick").await;
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    drop(stuck);
    assert_eq!(stream.message().await.data, "tick");
}

#[tokio::test]
async fn a_request_during_an_idle_close_is_served_completely() {
    let write = Duration::from_secs(1);
    let server =
        Server::with_timeouts(Timeouts { head: SHORT, idle: SHORT, write, ..Timeouts::default() })
            .await;
    let mut client = server.connect().await;
    client.write_all(&frames::preface()).await.unwrap();
    let mut bytes = Vec::new();
    let mut until = async |wanted: &[u8], client: &mut TcpStream| {
        while !bytes.windows(wanted.len()).any(|window| window == wanted) {
            let read = tokio::time::timeout(DEADLINE, client.read_buf(&mut bytes)).await;
            assert!(read.expect("more bytes").unwrap() > 0, "closed");
        }
    };
    // The first GOAWAY (RFC 9113, 6.8) names the highest possible stream.
    until(&frames::frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]), &mut client).await;
    client.write_all(&frames::get(1, "/events")).await.unwrap();
    until(b"event: hello", &mut client).await;
    // Meanwhile other connections are closed for being idle, which takes longer than the close.
    for _ in 0..15 {
        let idle = Http2Connection::open(&server).await;
        idle.closed().await.unwrap();
    }
    server.publish("tick").await;
    until(b"data: tick", &mut client).await;
}

//! The meters, compared with a proxy in between that counts bytes itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;
use waterclock::transport::Transport;

use crate::{
    readers::{Http1Connection, Item, ReadRequest, Reader},
    support::{DEADLINE, REMOTE, Server},
};

/// A proxy that forwards bytes, and counts those of each connection.
struct CountingProxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<ByteCounts>>>>,
    _task: AbortOnDropHandle<()>,
}

/// The byte counts of a connection.
#[derive(Default)]
struct ByteCounts {
    /// Bytes that the server has received.
    received: AtomicU64,
    /// Bytes that the server has sent.
    sent: AtomicU64,
}

impl CountingProxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Arc<ByteCounts>>>> = Arc::default();
        let all = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) =
                    TcpStream::connect(server).await.unwrap().into_split();
                let counts = Arc::new(ByteCounts::default());
                all.lock().unwrap().push(Arc::clone(&counts));
                tokio::spawn({
                    let counts = Arc::clone(&counts);
                    async move { forward(from_client, to_server, &counts.received).await }
                });
                tokio::spawn(async move { forward(from_server, to_client, &counts.sent).await });
            }
        });
        Self { address, connections, _task: AbortOnDropHandle::new(task) }
    }

    /// Returns the total bytes that the server has received and sent.
    fn counted(&self) -> (u64, u64) {
        let connections = self.connections.lock().unwrap();
        let sum = |count: fn(&ByteCounts) -> &AtomicU64| {
            connections.iter().map(|one| count(one).load(Ordering::SeqCst)).sum()
        };
        (sum(|one| &one.received), sum(|one| &one.sent))
    }

    fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counted: &AtomicU64) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        counted.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Returns the name of a meter for a transport.
fn meter_name(transport: Transport) -> String {
    format!("{:0>16}", transport.as_str())
}

/// Reads a meter.
async fn read_meter(server: &Server, name: &str) -> Value {
    let response = server.get(&format!("/meters/{name}")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    serde_json::from_str(&response.rest().await).unwrap()
}

/// Waits until a meter has the expected counts of a transport. All others must be zero.
async fn wait_for_counts(
    server: &Server,
    name: &str,
    transport: Transport,
    expected: impl Fn() -> Value,
) {
    let mut found = Value::Null;
    let reached = async {
        loop {
            let reading = read_meter(server, name).await;
            found = reading[transport.as_str()].clone();
            let others = Transport::ALL.into_iter().filter(|&other| other != transport);
            for other in others {
                assert_eq!(reading[other.as_str()], zero_counts(), "{transport:?} {other:?}");
            }
            if found == expected() {
                return;
            }
        }
    };
    if tokio::time::timeout(DEADLINE, reached).await.is_err() {
        assert_eq!(found, expected(), "{transport:?}");
    }
}

fn zero_counts() -> Value {
    transport_counts(0, 0, 0, 0, 0)
}

fn transport_counts(
    connections: usize,
    open: usize,
    requests: u64,
    received: u64,
    sent: u64,
) -> Value {
    json!({
        "connections": connections,
        "open": open,
        "requests": requests,
        "received": received,
        "sent": sent,
    })
}

/// Opens a reader that is metered.
async fn open_metered(
    server: &Server,
    transport: Transport,
    at: SocketAddr,
    meter: &str,
) -> Reader {
    let request = ReadRequest::new(server, transport, &format!("topic=t&meter={meter}")).earliest();
    ReadRequest { address: at, ..request }.open().await
}

#[tokio::test]
async fn a_meter_counts_exactly_the_bytes_on_the_socket() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        let proxy = CountingProxy::start(server.address).await;
        let name = meter_name(transport);
        let mut reader = open_metered(&server, transport, proxy.address, &name).await;
        let mut published = 0;
        for size in [0, 1, 100, 5000, 60_000, 10, 60_000] {
            for _ in 0..5 {
                server.publish_to("t", &"x".repeat(size)).await;
                published += 1;
            }
            reader.data(5).await;
        }
        if transport == Transport::WebSocket {
            // Messages of the client, and the responses to them, are counted, too.
            let publish = json!({"publish": {"topic": "t", "data": "y".repeat(30_000)}});
            let socket = reader.websocket();
            socket.send(Message::text(publish.to_string())).await.unwrap();
            socket.send(Message::Ping(vec![1; 100].into())).await.unwrap();
            published += 1;
            assert_eq!(reader.data(1).await[0].len(), 30_000);
        }
        assert_eq!(server.hub.newest(), published);
        let expected = |open| {
            let (received, sent) = proxy.counted();
            transport_counts(proxy.connections(), open, reader.request_count, received, sent)
        };
        wait_for_counts(&server, &name, transport, || expected(1)).await;
        let (received, sent) = proxy.counted();
        assert!(received > 100 && sent > 600_000, "{transport:?}: {received} {sent}");

        // The counts of a second connection are added, and remain when both are closed.
        let mut second = open_metered(&server, transport, proxy.address, &name).await;
        second.data(usize::try_from(published).unwrap()).await;
        let requests = reader.request_count + second.request_count;
        let expected = |open| {
            let (received, sent) = proxy.counted();
            transport_counts(2, open, requests, received, sent)
        };
        wait_for_counts(&server, &name, transport, || expected(2)).await;
        drop(second);
        wait_for_counts(&server, &name, transport, || expected(1)).await;
        drop(reader);
        wait_for_counts(&server, &name, transport, || expected(0)).await;
    }
}

#[tokio::test]
async fn a_stream_is_counted_through_its_end() {
    for transport in [Transport::Sse, Transport::WebSocket] {
        let server = Server::start().await;
        let proxy = CountingProxy::start(server.address).await;
        for _ in 0..3 {
            server.publish_to("t", "x").await;
        }
        let name = meter_name(transport);
        let query = format!("topic=t&limit=2&meter={name}");
        let request = ReadRequest::new(&server, transport, &query).earliest();
        let mut reader = ReadRequest { address: proxy.address, ..request }.open().await;
        reader.data(2).await;
        assert_eq!(reader.next().await, Item::Ended(Some("end".to_owned())));
        // The same request again gets only the end.
        let mut reader = reader.request.clone().open().await;
        assert_eq!(reader.next().await, Item::Ended(Some("end".to_owned())));
        wait_for_counts(&server, &name, transport, || {
            let (received, sent) = proxy.counted();
            transport_counts(2, 0, 2, received, sent)
        })
        .await;
    }
}

#[tokio::test]
async fn bytes_that_a_closing_websocket_discards_are_counted() {
    let server = Server::start().await;
    let proxy = CountingProxy::start(server.address).await;
    let name = meter_name(Transport::WebSocket);
    let mut reader = open_metered(&server, Transport::WebSocket, proxy.address, &name).await;
    // The message exceeds the limit, so the server discards most of it.
    reader.websocket().send(Message::text("x".repeat(1_000_000))).await.unwrap();
    assert_eq!(reader.next().await, Item::Ended(None));
    assert_eq!(reader.close_code, Some(1009));
    wait_for_counts(&server, &name, Transport::WebSocket, || {
        let (received, sent) = proxy.counted();
        transport_counts(1, 0, 1, received, sent)
    })
    .await;
    assert!(proxy.counted().0 > 1_000_000);
}

#[tokio::test]
async fn only_metered_requests_of_a_shared_connection_are_counted() {
    let server = Server::start().await;
    let (first, second) = ("first-first-first", "second_second_2222");
    let mut http = Http1Connection::connect(server.address).await;
    // Requests, bytes sent, and bytes received, as counted by this client.
    let mut counts = [[0; 3]; 4];
    let (unmetered, poll, long_poll, other) = (0, 1, 2, 3);
    for round in 0..4 {
        let after = format!("topic=t&last_event_id=000000000000c10c-{}", server.hub.newest());
        let earliest = "topic=t&last_event_id=earliest";
        let body = "x".repeat(50_000);
        for (counter, method, path, body) in [
            (poll, "GET", format!("/poll?{after}&meter={first}"), ""),
            (unmetered, "GET", "/time".to_owned(), ""),
            (unmetered, "GET", format!("/poll?{earliest}"), ""),
            (unmetered, "POST", "/events/t".to_owned(), &body),
            (long_poll, "GET", format!("/poll?{after}&wait=9&meter={first}"), ""),
            (other, "GET", format!("/poll?{earliest}&meter={second}"), ""),
            (poll, "GET", format!("/poll?{earliest}&wait=0&meter={first}"), ""),
            (unmetered, "GET", format!("/poll?meter={first}&limit=none"), ""),
        ] {
            let before = (http.sent, http.received);
            let length = body.len();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            );
            // The request arrives in one piece, in two, byte by byte, or with a body in chunks.
            let at = request.len() / 2;
            match round {
                0 => http.send(format!("{request}{body}").as_bytes()).await,
                1 => {
                    http.send(&request.as_bytes()[..at]).await;
                    tokio::task::yield_now().await;
                    http.send(&request.as_bytes()[at..]).await;
                    tokio::task::yield_now().await;
                    http.send(body.as_bytes()).await;
                }
                2 => {
                    for byte in request.bytes() {
                        http.send(&[byte]).await;
                        tokio::task::yield_now().await;
                    }
                    http.send(body.as_bytes()).await;
                }
                _ => {
                    http.send(request.as_bytes()).await;
                    for chunk in body.as_bytes().chunks(1000) {
                        http.send(chunk).await;
                        tokio::task::yield_now().await;
                    }
                }
            }
            http.response().await.expect("a response");
            let more = [1, http.sent - before.0, http.received - before.1];
            for (count, more) in counts[counter].iter_mut().zip(more) {
                *count += more;
            }
        }
    }
    assert!(counts[unmetered][1] > 200_000, "{counts:?}");
    assert_eq!(server.hub.newest(), 4);
    // The last request was not metered.
    let of = |counter: usize| {
        let [requests, sent, received] = counts[counter];
        transport_counts(1, 0, requests, sent, received)
    };
    let expected = |poll, long_poll| {
        let zero = zero_counts();
        json!({
            "sse": zero,
            "websocket": zero,
            "long-poll": long_poll,
            "poll": poll,
            "shared": zero,
        })
    };
    assert_eq!(read_meter(&server, first).await, expected(of(poll), of(long_poll)));
    assert_eq!(read_meter(&server, second).await, expected(of(other), zero_counts()));

    http.request("GET", &format!("/poll?meter={second}"), "").await;
    let open = async |name| read_meter(&server, name).await["poll"]["open"].clone();
    assert_eq!((open(first).await, open(second).await), (json!(0), json!(1)));
    assert_eq!(read_meter(&server, second).await["poll"]["requests"], 5);
}

#[tokio::test]
async fn refused_requests_are_not_counted() {
    let server = Server::start().await;
    for transport in Transport::ALL {
        let name = meter_name(transport);
        let request = ReadRequest::new(&server, transport, &format!("topic=t&meter={name}"));
        let refused = request.with_headers(REMOTE).expect_refused().await;
        assert_eq!(refused.status, 403);
        assert_eq!(server.get(&format!("/meters/{name}")).await.status(), 404);
    }
}

#[tokio::test]
async fn a_cut_closes_only_the_connections_of_its_meter_and_loses_nothing() {
    let other = "another-meter-16";
    for transport in Transport::ALL {
        let server = Server::start().await;
        let name = meter_name(transport);
        let mut reader = open_metered(&server, transport, server.address, &name).await;
        let mut others = open_metered(&server, transport, server.address, other).await;
        let mut published = 0;
        let mut read = Vec::new();
        for _ in 0..3 {
            for _ in 0..5 {
                published += 1;
                server.publish_to("t", &published.to_string()).await;
            }
            read.extend(reader.data(3).await);
            // A waiting long poll is cut, too.
            if transport == Transport::LongPoll && published == 10 {
                read.extend(reader.data(2 + 2).await);
                reader.begin_poll().await;
                server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 1).await;
            }
            let response = server.send(&cut_request(&name)).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.rest().await, "{\"cut\":1}", "{transport:?}");
            // Events in flight may still arrive before the end.
            loop {
                match reader.next().await {
                    Item::Event(event) => read.push(event.data),
                    ended => break assert_eq!(ended, Item::Ended(None), "{transport:?}"),
                }
            }
            server.wait_for_metric("waterclock_polls_waiting", |polls| polls == 0).await;
            let streams = usize::from(matches!(transport, Transport::Sse | Transport::WebSocket));
            server.wait_for_streams(streams).await;
            published += 1;
            server.publish_to("t", &published.to_string()).await;
            reader = reader.request.clone().open().await;
        }
        let missing = published - read.len();
        read.extend(reader.data(missing).await);
        let expected: Vec<_> = (1..=published).map(|number| number.to_string()).collect();
        assert_eq!(read, expected, "{transport:?}");
        // The cuts did not affect the other meter.
        assert_eq!(others.data(published).await, expected, "{transport:?}");
    }
}

fn cut_request(name: &str) -> Vec<u8> {
    format!("POST /meters/{name}/cut HTTP/1.0\r\nContent-Length: 0\r\n\r\n").into()
}

#[tokio::test]
async fn a_guessable_meter_name_is_refused() {
    let server = Server::start().await;
    let (short, long) = ("x".repeat(15), "x".repeat(65));
    for name in [&short, &long, "", "sixteen%20letters", "sixteen.letters.", "%C3%BCxxxxxxxxxxxxxx"]
    {
        for transport in Transport::ALL {
            let request = ReadRequest::new(&server, transport, &format!("meter={name}"));
            let refused = request.expect_refused().await;
            assert_eq!(refused.status, 400, "{transport:?} {name}");
            let detail = refused.problem["detail"].as_str().unwrap();
            assert!(
                detail.contains("It must be 16 to 64 random characters of `A-Za-z0-9_-`."),
                "{detail}"
            );
        }
    }
    for name in [&"x".repeat(16), &"x".repeat(64), "-_AZaz09-_AZaz09"] {
        assert_eq!(server.get(&format!("/meters/{name}")).await.status(), 404, "not used yet");
        assert_eq!(server.send(&cut_request(name)).await.status(), 404);
        assert_eq!(server.get(&format!("/poll?meter={name}")).await.status(), 200);
        assert_eq!(read_meter(&server, name).await["poll"]["requests"], 1, "{name}");
    }
}

#[tokio::test]
async fn the_least_recently_used_of_a_thousand_meters_is_dropped() {
    let server = Server::start().await;
    let name = |number: usize| format!("meter-{number:010}");
    let mut http = Http1Connection::connect(server.address).await;
    let mut status = async |path: String| http.request("GET", &path, "").await.0.status();
    for number in 0..1000 {
        assert_eq!(status(format!("/poll?meter={}", name(number))).await, 200);
    }
    // The first three are used again: one is read, one counts a request, one is cut.
    assert_eq!(status(format!("/meters/{}", name(0))).await, 200);
    assert_eq!(status(format!("/poll?meter={}", name(1))).await, 200);
    assert_eq!(server.send(&cut_request(&name(2))).await.status(), 200);
    for number in 1000..1003 {
        assert_eq!(status(format!("/poll?meter={}", name(number))).await, 200);
    }
    for number in 0..1003 {
        let expected = if (3..6).contains(&number) { 404 } else { 200 };
        assert_eq!(status(format!("/meters/{}", name(number))).await, expected, "{number}");
    }
}

//! The meters, against a proxy in between that counts for itself.

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
    readers::{Ask, Http, Item, Reader},
    support::{DEADLINE, Server, Settings},
};

/// A proxy that passes bytes on, and counts those of each connection.
struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Connection {
    /// Bytes that the server has received.
    received: AtomicU64,
    /// Bytes that it has sent.
    sent: AtomicU64,
}

impl Proxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Arc<Connection>>>> = Arc::default();
        let all = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) =
                    TcpStream::connect(server).await.unwrap().into_split();
                let counts = Arc::new(Connection::default());
                all.lock().unwrap().push(Arc::clone(&counts));
                tokio::spawn({
                    let counts = Arc::clone(&counts);
                    async move { pass_on(from_client, to_server, &counts.received).await }
                });
                tokio::spawn(async move { pass_on(from_server, to_client, &counts.sent).await });
            }
        });
        Self { address, connections, _task: AbortOnDropHandle::new(task) }
    }

    /// What all connections together have received and sent.
    fn counted(&self) -> (u64, u64) {
        let connections = self.connections.lock().unwrap();
        let sum = |count: fn(&Connection) -> &AtomicU64| {
            connections.iter().map(|one| count(one).load(Ordering::SeqCst)).sum()
        };
        (sum(|one| &one.received), sum(|one| &one.sent))
    }

    fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counted: &AtomicU64) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        counted.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// A meter's name.
fn name(transport: Transport) -> String {
    format!("{:0>16}", transport.as_str())
}

/// What a meter says.
async fn read(server: &Server, name: &str) -> Value {
    let answer = server.get(&format!("/meters/{name}")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_str(&answer.rest().await).unwrap()
}

/// Waits until a meter says that of one transport; it says nothing of the others.
async fn until(server: &Server, name: &str, transport: Transport, expected: impl Fn() -> Value) {
    let mut found = Value::Null;
    let reached = async {
        loop {
            let reading = read(server, name).await;
            found = reading[transport.as_str()].clone();
            let others = Transport::ALL.into_iter().filter(|&other| other != transport);
            for other in others {
                assert_eq!(reading[other.as_str()], nothing(), "{transport:?} {other:?}");
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

fn nothing() -> Value {
    counted(0, 0, 0, 0, 0)
}

fn counted(connections: usize, open: usize, requests: u64, received: u64, sent: u64) -> Value {
    json!({
        "connections": connections, "open": open, "requests": requests, "received": received, "sent": sent,
    })
}

async fn open(server: &Server, transport: Transport, at: SocketAddr, meter: &str) -> Reader {
    let ask = Ask::new(server, transport, &format!("topic=t&meter={meter}")).earliest();
    Ask { address: at, ..ask }.open().await
}

#[tokio::test]
async fn what_a_meter_says_is_what_crosses_the_socket() {
    for transport in Transport::ALL {
        let server = Server::start(Settings::default()).await;
        let proxy = Proxy::start(server.address).await;
        let name = name(transport);
        let mut reader = open(&server, transport, proxy.address, &name).await;
        let mut published = 0;
        for size in [0, 1, 100, 5000, 60_000, 10, 60_000] {
            for _ in 0..5 {
                server.publish_to("t", &"x".repeat(size)).await;
                published += 1;
            }
            reader.data(5).await;
        }
        if transport == Transport::WebSocket {
            // What the client sends, and what that is answered.
            let publish = json!({"publish": {"topic": "t", "data": "y".repeat(30_000)}});
            let socket = reader.socket();
            socket.send(Message::text(publish.to_string())).await.unwrap();
            socket.send(Message::Ping(vec![1; 100].into())).await.unwrap();
            published += 1;
            assert_eq!(reader.data(1).await[0].len(), 30_000);
        }
        assert_eq!(server.hub.newest(), published);
        let expected = |open| {
            let (received, sent) = proxy.counted();
            counted(proxy.connections(), open, reader.requests, received, sent)
        };
        until(&server, &name, transport, || expected(1)).await;
        let (received, sent) = proxy.counted();
        assert!(received > 100 && sent > 600_000, "{transport:?}: {received} {sent}");

        // A second connection is added to the first, and what was counted stays when both are closed.
        let mut second = open(&server, transport, proxy.address, &name).await;
        second.data(usize::try_from(published).unwrap()).await;
        let requests = reader.requests + second.requests;
        let expected = |open| {
            let (received, sent) = proxy.counted();
            counted(2, open, requests, received, sent)
        };
        until(&server, &name, transport, || expected(2)).await;
        drop(second);
        until(&server, &name, transport, || expected(1)).await;
        drop(reader);
        until(&server, &name, transport, || expected(0)).await;
    }
}

#[tokio::test]
async fn a_stream_to_its_end_is_counted_to_its_end() {
    for transport in [Transport::Sse, Transport::WebSocket] {
        let server = Server::start(Settings::default()).await;
        let proxy = Proxy::start(server.address).await;
        for _ in 0..3 {
            server.publish_to("t", "x").await;
        }
        let name = name(transport);
        let query = format!("topic=t&limit=2&meter={name}");
        let ask = Ask::new(&server, transport, &query).earliest();
        let mut reader = Ask { address: proxy.address, ..ask }.open().await;
        reader.data(2).await;
        assert_eq!(reader.next().await, Item::Ended(Some("end".to_owned())));
        // Once more, which is answered with the end alone.
        let mut reader = reader.ask.clone().open().await;
        assert_eq!(reader.next().await, Item::Ended(Some("end".to_owned())));
        until(&server, &name, transport, || {
            let (received, sent) = proxy.counted();
            counted(2, 0, 2, received, sent)
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_websocket_drops_at_its_end_is_counted() {
    let server = Server::start(Settings::default()).await;
    let proxy = Proxy::start(server.address).await;
    let name = name(Transport::WebSocket);
    let mut reader = open(&server, Transport::WebSocket, proxy.address, &name).await;
    // More than a message may have, so most of it is not looked at.
    reader.socket().send(Message::text("x".repeat(1_000_000))).await.unwrap();
    assert_eq!(reader.next().await, Item::Ended(None));
    assert_eq!(reader.close, Some(1009));
    until(&server, &name, Transport::WebSocket, || {
        let (received, sent) = proxy.counted();
        counted(1, 0, 1, received, sent)
    })
    .await;
    assert!(proxy.counted().0 > 1_000_000);
}

#[tokio::test]
async fn of_a_connection_that_is_shared_only_what_is_metered_is_counted() {
    let server = Server::start(Settings::default()).await;
    let (first, second) = ("first-first-first", "second_second_2222");
    let mut http = Http::connect(server.address).await;
    // Requests, and bytes sent and received, as this client counts them.
    let mut counts = [[0; 3]; 4];
    let (nobody, poll, long_poll, other) = (0, 1, 2, 3);
    for round in 0..4 {
        let after = format!("topic=t&last_event_id=000000000000c10c-{}", server.hub.newest());
        let earliest = "topic=t&last_event_id=earliest";
        let body = "x".repeat(50_000);
        for (counter, method, path, body) in [
            (poll, "GET", format!("/poll?{after}&meter={first}"), ""),
            (nobody, "GET", "/time".to_owned(), ""),
            (nobody, "GET", format!("/poll?{earliest}"), ""),
            (nobody, "POST", "/events/t".to_owned(), &body),
            (long_poll, "GET", format!("/poll?{after}&wait=9&meter={first}"), ""),
            (other, "GET", format!("/poll?{earliest}&meter={second}"), ""),
            (poll, "GET", format!("/poll?{earliest}&wait=0&meter={first}"), ""),
            (nobody, "GET", format!("/poll?meter={first}&limit=none"), ""),
        ] {
            let before = (http.sent, http.received);
            let length = body.len();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            );
            // In one piece, in two, and byte for byte, as it may arrive.
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
            http.answer().await.expect("an answer");
            let more = [1, http.sent - before.0, http.received - before.1];
            for (count, more) in counts[counter].iter_mut().zip(more) {
                *count += more;
            }
        }
    }
    assert!(counts[nobody][1] > 200_000, "{counts:?}");
    assert_eq!(server.hub.newest(), 4);
    // It was used last for nobody.
    let of = |counter: usize| {
        let [requests, sent, received] = counts[counter];
        counted(1, 0, requests, sent, received)
    };
    let expected = |poll, long_poll| {
        let nothing = nothing();
        json!({"sse": nothing, "websocket": nothing, "long-poll": long_poll, "poll": poll, "shared": nothing})
    };
    assert_eq!(read(&server, first).await, expected(of(poll), of(long_poll)));
    assert_eq!(read(&server, second).await, expected(of(other), nothing()));

    http.request("GET", &format!("/poll?meter={second}"), "").await;
    let open = async |name| read(&server, name).await["poll"]["open"].clone();
    assert_eq!((open(first).await, open(second).await), (json!(0), json!(1)));
    assert_eq!(read(&server, second).await["poll"]["requests"], 5);
}

#[tokio::test]
async fn what_is_refused_is_not_counted() {
    let server = Server::start(Settings::default()).await;
    for transport in Transport::ALL {
        let name = name(transport);
        let ask = Ask::new(&server, transport, &format!("topic=t&meter={name}"));
        assert_eq!(ask.with("Via: proxy\r\n").refused().await.status, 403);
        assert_eq!(server.get(&format!("/meters/{name}")).await.status(), 404);
    }
}

#[tokio::test]
async fn a_cut_closes_the_connections_of_its_meter_and_resuming_loses_nothing() {
    let other = "another-meter-16";
    for transport in Transport::ALL {
        let server = Server::start(Settings::default()).await;
        let name = name(transport);
        let mut reader = open(&server, transport, server.address, &name).await;
        let mut others = open(&server, transport, server.address, other).await;
        let mut published = 0;
        let mut read = Vec::new();
        for _ in 0..3 {
            for _ in 0..5 {
                published += 1;
                server.publish_to("t", &published.to_string()).await;
            }
            read.extend(reader.data(3).await);
            // A long poll is cut while it waits, too.
            if transport == Transport::LongPoll && published == 10 {
                read.extend(reader.data(2 + 2).await);
                reader.begin_poll().await;
                server.until_metric("waterclock_polls_waiting", |polls| polls == 1).await;
            }
            let answer = server.send(&cut(&name)).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.rest().await, "{\"cut\":1}", "{transport:?}");
            // Until the end it may still have read what was under way.
            loop {
                match reader.next().await {
                    Item::Event(event) => read.push(event.data),
                    ended => break assert_eq!(ended, Item::Ended(None), "{transport:?}"),
                }
            }
            server.until_metric("waterclock_polls_waiting", |polls| polls == 0).await;
            let streams = usize::from(matches!(transport, Transport::Sse | Transport::WebSocket));
            server.until_streams(streams).await;
            published += 1;
            server.publish_to("t", &published.to_string()).await;
            reader = reader.ask.clone().open().await;
        }
        let missing = published - read.len();
        read.extend(reader.data(missing).await);
        let expected: Vec<_> = (1..=published).map(|number| number.to_string()).collect();
        assert_eq!(read, expected, "{transport:?}");
        // Nobody else has noticed.
        assert_eq!(others.data(published).await, expected, "{transport:?}");
    }
}

fn cut(name: &str) -> Vec<u8> {
    format!("POST /meters/{name}/cut HTTP/1.0\r\nContent-Length: 0\r\n\r\n").into()
}

#[tokio::test]
async fn a_name_that_can_be_guessed_is_none() {
    let server = Server::start(Settings::default()).await;
    let (short, long) = ("x".repeat(15), "x".repeat(65));
    for name in [&short, &long, "", "sixteen%20letters", "sixteen.letters.", "%C3%BCxxxxxxxxxxxxxx"]
    {
        for transport in Transport::ALL {
            let refused = Ask::new(&server, transport, &format!("meter={name}")).refused().await;
            assert_eq!(refused.status, 400, "{transport:?} {name}");
            let detail = refused.problem["detail"].as_str().unwrap();
            assert!(detail.contains("16 to 64 of `A-Za-z0-9_-`, drawn at random"), "{detail}");
        }
    }
    for name in [&"x".repeat(16), &"x".repeat(64), "-_AZaz09-_AZaz09"] {
        assert_eq!(server.get(&format!("/meters/{name}")).await.status(), 404, "not yet");
        assert_eq!(server.send(&cut(name)).await.status(), 404);
        assert_eq!(server.get(&format!("/poll?meter={name}")).await.status(), 200);
        assert_eq!(read(&server, name).await["poll"]["requests"], 1, "{name}");
    }
}

#[tokio::test]
async fn of_more_than_a_thousand_meters_the_one_goes_that_was_not_used_for_longest() {
    let server = Server::start(Settings::default()).await;
    let name = |number: usize| format!("meter-{number:010}");
    let mut http = Http::connect(server.address).await;
    let mut status = async |path: String| http.request("GET", &path, "").await.0.status();
    for number in 0..1000 {
        assert_eq!(status(format!("/poll?meter={}", name(number))).await, 200);
    }
    // The first three are used again: read, used by a client, cut.
    assert_eq!(status(format!("/meters/{}", name(0))).await, 200);
    assert_eq!(status(format!("/poll?meter={}", name(1))).await, 200);
    assert_eq!(server.send(&cut(&name(2))).await.status(), 200);
    for number in 1000..1003 {
        assert_eq!(status(format!("/poll?meter={}", name(number))).await, 200);
    }
    for number in 0..1003 {
        let expected = if (3..6).contains(&number) { 404 } else { 200 };
        assert_eq!(status(format!("/meters/{}", name(number))).await, expected, "{number}");
    }
}

//! The end of a shutdown: requests in flight are completed, and no client can prolong it.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::post,
};
use futures_util::{FutureExt as _, StreamExt as _, future::select_all};
use server::{
    auth::Access,
    limits::Timeouts,
    net::{Capacity, Serving, serve},
    state::AppState,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
};
use tower::ServiceExt as _;
use waterclock::hub::Hub;

use crate::{
    frames::{
        END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, SETTINGS, frame, get, head, preface, setting,
    },
    http2::Http2Connection,
    support::{DEADLINE, Server, read_until_closed},
    tls,
};

/// Timeouts that end nothing but a shutdown.
fn timeouts() -> Timeouts {
    let never = Duration::from_hours(1);
    Timeouts {
        first_byte: never,
        handshake: never,
        head: never,
        idle: never,
        write: never,
        ping: never,
        silence: never,
        goodbye: Duration::from_millis(100),
        closing: Duration::from_millis(100),
    }
}

/// Opens a connection, sends bytes, and waits until the server has read them.
async fn send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut socket = server.connect().await;
    socket.write_all(bytes).await.unwrap();
    for _ in 0..5 {
        server.connect().await.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").await.unwrap();
    }
    socket
}

/// Stops the server, which must end although these clients stay.
async fn assert_stops(server: Server, clients: Vec<TcpStream>) {
    server.stop.begin();
    tokio::time::timeout(DEADLINE, server.serving).await.expect("stopped").unwrap();
    for client in clients {
        read_until_closed(client).await;
    }
}

const REQUEST: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /events/t HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn half_a_request_does_not_prolong_a_shutdown() {
    let server = Server::with_timeouts(timeouts()).await;
    let mut clients = Vec::new();
    for bytes in [
        "",
        "G",
        "GET /events HT",
        &REQUEST[..REQUEST.len() - 2],
        &format!("{REQUEST}GET /events HT"),
        &format!("{POST}Content-Length: 2\r\n\r\nx"),
        &format!("{POST}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"),
        &format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nx"),
    ] {
        clients.push(send(&server, bytes.as_bytes()).await);
    }
    assert_stops(server, clients).await;
}

#[tokio::test]
async fn half_a_request_over_http_2_does_not_prolong_a_shutdown() {
    let server = Server::with_timeouts(timeouts()).await;
    let half_head = frame(HEADERS, 0, 1, &head("GET", "/events"));
    let half_body = frame(HEADERS, END_HEADERS, 1, &head("POST", "/events/t"));
    let mut clients = Vec::new();
    for frames in [vec![], half_head, half_body, get(1, "/health/live")] {
        clients.push(send(&server, &[preface(), frames].concat()).await);
    }
    for length in [3, 20, 24, 30] {
        clients.push(send(&server, &preface()[..length]).await);
    }
    assert_stops(server, clients).await;
}

#[tokio::test]
async fn idle_connections_do_not_prolong_a_shutdown() {
    let server = Server::with_timeouts(timeouts()).await;
    let mut idle = send(&server, REQUEST.as_bytes()).await;
    idle.read_exact(&mut [0; 12]).await.unwrap();
    let http2 = Http2Connection::open(&server).await;
    assert_eq!(http2.get("/health/live").await.status, 200);
    assert_stops(server, vec![idle]).await;
}

#[tokio::test]
async fn an_unread_response_does_not_prolong_a_shutdown() {
    let server = Server::with_timeouts(timeouts()).await;
    // Together, the responses are longer than all buffers between server and client.
    let http1 = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let no_window = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, 0));
    let http2 = [preface(), no_window, get(1, "/metrics")].concat();
    let clients = vec![send(&server, http1.as_bytes()).await, send(&server, &http2).await];
    assert_stops(server, clients).await;
}

#[tokio::test]
async fn streams_that_are_not_read_do_not_prolong_a_shutdown() {
    const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let server = Server::with_timeouts(timeouts()).await;
    for _ in 0..100 {
        server.publish_to("t", &"x".repeat(60_000)).await;
    }
    let query = "topic=t&last_event_id=earliest";
    let (events, poll) = (format!("/events?{query}"), format!("/poll?{query}"));
    let http1 = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").into_bytes()
    };
    let no_window = [preface(), frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, 0))].concat();
    let requests = [
        http1(&events, ""),
        http1(&poll, ""),
        http1(&format!("/ws?{query}"), WEBSOCKET),
        [no_window, get(1, &events), get(3, &poll)].concat(),
        // Longer than the buffers between server and client.
        [preface(), get(1, &events), get(3, &events), get(5, &poll)].concat(),
    ];
    let mut clients = Vec::new();
    for request in requests {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(server.address).await.unwrap();
        socket.write_all(&request).await.unwrap();
        clients.push(socket);
    }
    server.wait_for_streams(8).await;
    server.stop.begin();
    // Those who read now would get their goodbye.
    tokio::time::timeout(DEADLINE, server.serving).await.expect("stopped").unwrap();
}

#[tokio::test]
async fn a_long_poll_response_ends_early_at_a_shutdown() {
    let server = Server::with_timeouts(Timeouts { goodbye: DEADLINE, ..timeouts() }).await;
    for _ in 0..10 {
        server.publish_to("t", &"x".repeat(60_000)).await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(server.address).await.unwrap();
    let request = "GET /poll?topic=t&last_event_id=earliest HTTP/1.0\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    server.wait_for_streams(1).await;
    server.stop.begin();
    let response = String::from_utf8(read_until_closed(socket).await).unwrap();
    let body = response.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let events = body["events"].as_array().unwrap();
    // Five of them make a response.
    assert!((1..5).contains(&events.len()), "{}", events.len());
    assert_eq!(body["more"], true);
    assert_eq!(body["cursor"], events.last().unwrap()["id"]);
    tokio::time::timeout(DEADLINE, server.serving).await.expect("stopped").unwrap();
}

#[tokio::test]
async fn half_a_handshake_does_not_prolong_a_shutdown() {
    let (server, tls, _folder) = tls::start_server(timeouts()).await;
    let mut clients = Vec::new();
    // A record of a handshake (RFC 8446, 5.1), and its beginning.
    for bytes in [&[22][..], &[22, 3, 1, 2, 0, 1, 0]] {
        let mut socket = server.connect().await;
        socket.write_all(bytes).await.unwrap();
        clients.push(socket);
    }
    let mut idle = Vec::new();
    for (protocol, bytes) in [("http/1.1", &b"GET /events HT"[..]), ("h2", &preface())] {
        let mut socket = tls::connect(&server, tls.file(), &[protocol]).await;
        socket.write_all(bytes).await.unwrap();
        idle.push(socket);
    }
    assert_stops(server, clients).await;
}

#[tokio::test]
async fn a_response_that_the_server_owes_is_sent_however_long_that_takes() {
    let hub = Arc::new(Hub::in_memory());
    let leptos = leptos::config::LeptosOptions::builder().output_name("waterclock").build();
    let settings = waterclock_axum::Settings::default();
    let state = AppState::new(hub, Access::default(), settings, leptos);
    let (arrived, answer) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let handler = {
        let (arrived, answer) = (Arc::clone(&arrived), Arc::clone(&answer));
        move |_: Bytes| async move {
            arrived.notify_one();
            answer.notified().await;
            "stored"
        }
    };
    // Reads a part of the body, and drops the rest early or late.
    let of_part = |is_early: bool| {
        let (arrived, answer) = (Arc::clone(&arrived), Arc::clone(&answer));
        move |body: Body| async move {
            let mut body = Some(body.into_data_stream());
            body.as_mut().unwrap().next().await.unwrap().unwrap();
            body.take_if(|_| is_early);
            arrived.notify_one();
            answer.notified().await;
            "stored"
        }
    };
    let serving = Serving {
        timeouts: timeouts(),
        tls: None,
        capacity: Capacity::new(usize::MAX, Arc::clone(&state.metrics)),
        streams: state.events.streams(),
        metrics: Arc::clone(&state.metrics),
        stop: state.stop.clone(),
        is_direct: true,
        is_backlog_kept: false,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/slow", post(handler))
        .route("/early", post(of_part(true)))
        .route("/late", post(of_part(false)));
    let responder = Arc::new(move |request| {
        let response = router.clone().oneshot(request);
        async { response.await.unwrap() }.boxed()
    });
    let serving = tokio::spawn(serve(listener, responder, serving));

    let head = "POST /slow HTTP/1.1\r\nHost: localhost\r\n";
    let requests = [
        format!("{head}Content-Length: 0\r\n\r\n"),
        format!("{head}Content-Length: 1\r\n\r\nx"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        "POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nx".to_owned(),
        "POST /late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nx".to_owned(),
    ];
    let mut http1 = Vec::new();
    for request in requests {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        arrived.notified().await;
        http1.push(socket);
    }
    let http2 = Http2Connection::handshake(TcpStream::connect(address).await.unwrap()).await;
    let http2 = tokio::spawn(async move {
        http2.send(axum::http::Method::POST, "/slow", "x").await.text().await
    });
    arrived.notified().await;
    // Half a request, whose end tells that the time for clients is over.
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(format!("{head}Content-Length: 2\r\n\r\nx").as_bytes()).await.unwrap();

    state.stop.begin();
    read_until_closed(half).await;
    // The others are still open after the time for clients.
    let closed = select_all(http1.iter().map(|socket| Box::pin(socket.readable())));
    assert!(tokio::time::timeout(2 * timeouts().closing, closed).await.is_err());
    answer.notify_waiters();
    for socket in http1 {
        let response = String::from_utf8(read_until_closed(socket).await).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nstored"), "{response}");
    }
    assert_eq!(http2.await.unwrap(), "stored");
    tokio::time::timeout(DEADLINE, serving).await.expect("stopped").unwrap();
}

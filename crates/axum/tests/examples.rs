//! The examples over a real socket.
#![expect(clippy::unwrap_used, reason = "an error fails a test")]

#[expect(dead_code, reason = "a test calls parts of it")]
#[path = "../examples/app.rs"]
mod app;
#[expect(dead_code, reason = "a test calls parts of it")]
#[path = "../examples/publisher.rs"]
mod publisher;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::request::Parts};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use waterclock::{
    event::{Draft, Topic},
    hub::Hub,
    pattern::Patterns,
};
use waterclock_axum::{Denied, EventRoutes, Expiry, Policy, Publisher};

/// The bound of every wait.
const DEADLINE: Duration = Duration::from_secs(60);

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    address
}

/// Reads `/events` after a cursor until `data` has arrived.
async fn read_until(address: SocketAddr, query: &str, data: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /events?{query} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&bytes).contains(&format!("data: {data}\n\n")) {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the stream ended");
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_reader_of_the_app_resumes_exactly() {
    let hub = Arc::new(Hub::in_memory());
    let address = serve(app::app(Arc::clone(&hub))).await;
    let topic: Topic = "orders.eu".parse().unwrap();
    let mut ids = Vec::new();
    for number in 1..=3 {
        let draft = Draft::new(topic.clone(), format!("order {number}"));
        ids.push(hub.publish(draft).await.unwrap().event().id);
    }
    let query = format!("topic=orders.*&last_event_id={}", ids[0]);
    let text = read_until(address, &query, "order 3").await;
    assert!(!text.contains("order 1"), "{text}");
    assert_eq!(text.matches("data: order 2\n").count(), 1, "{text}");
}

struct Anyone;

impl Policy for Anyone {
    fn may_read(&self, _: &Parts, _: &Patterns) -> Result<Expiry, Denied> {
        Ok(None)
    }

    fn may_publish(&self, _: &Parts, _: &Topic) -> Result<Publisher, Denied> {
        Ok(Publisher::new("anyone"))
    }
}

#[tokio::test]
async fn lines_are_published_once_even_if_they_are_sent_again() {
    let hub = Arc::new(Hub::in_memory());
    let address = serve(EventRoutes::new(Arc::clone(&hub)).with_policy(Anyone).router()).await;
    let url = format!("http://{address}/events/build");
    for _ in 0..2 {
        publisher::publish(&url, "run", &b"a\nb\n"[..]).await.unwrap();
    }
    let text = read_until(address, "topic=build&last_event_id=earliest", "b").await;
    assert_eq!((hub.newest(), text.matches("data: a\n").count()), (2, 1), "{text}");
}

#[tokio::test]
async fn by_default_nobody_may_publish_over_http() {
    let hub = Arc::new(Hub::in_memory());
    let address = serve(app::app(Arc::clone(&hub))).await;
    let url = format!("http://{address}/events/build");
    let error = publisher::publish(&url, "run", &b"a\n"[..]).await.unwrap_err().to_string();
    assert!(error.contains("403 Forbidden"), "{error}");
    assert_eq!(hub.newest(), 0);
}

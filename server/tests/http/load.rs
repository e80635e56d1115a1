//! `/load`: the built-in load, over real sockets.

use serde_json::{Value, json};
use server::auth::Access;
use waterclock::transport::Transport;

use crate::{
    readers::{Http1Connection, ReadRequest, Reader},
    support::{DEADLINE, REMOTE, Server, Settings},
    tokens,
    transports::publish_much,
};

/// Requests `/load`, and returns the status and the body, or `null` without a body.
async fn load(server: &Server, method: &str, query: &str, headers: &str) -> (u16, Value) {
    let mut http = Http1Connection::connect(server.address).await;
    let host = if headers.contains("Host: ") { "" } else { "Host: localhost\r\n" };
    let request = format!(
        "{method} /load{query} HTTP/1.1\r\n{host}Content-Length: 0\r\nConnection: close\r\n\
         {headers}\r\n"
    );
    http.send(request.as_bytes()).await;
    let head = http.head().await.expect("a response");
    while http.read().await {}
    (head.status(), serde_json::from_slice(&http.unread).unwrap_or_default())
}

/// Starts a server that retains all events.
async fn start_retaining_all() -> Server {
    Server::start_with(Settings { retain_count: 1_000_000, ..Settings::default() }).await
}

async fn open_reader(server: &Server) -> Reader {
    ReadRequest::new(server, Transport::Sse, "topic=waterclock.load").open().await
}

#[tokio::test]
async fn a_load_publishes_events_of_the_requested_size() {
    let server = start_retaining_all().await;
    for size in [0, 1, 7, 100, 65_536] {
        let mut reader = open_reader(&server).await;
        let query = format!("?rate=100&size={size}&seconds=600");
        let parameters = json!({"rate": 100, "size": size, "seconds": 600});
        assert_eq!(load(&server, "POST", &query, "").await, (201, parameters));
        for number in 1..=9 {
            // Events of the previous load may come first.
            let event = loop {
                let event = reader.event().await;
                if event.data.len() == size {
                    break event;
                }
            };
            assert_eq!((event.topic.as_str(), event.name.as_str()), ("waterclock.load", "message"));
            let start = format!("{number} abcdefgh");
            assert!(event.data.starts_with(&start[..start.len().min(size)]), "{}", event.data);
        }
        assert_eq!(load(&server, "DELETE", "", "").await, (204, Value::Null));
        drop(reader);
    }
}

#[tokio::test]
async fn only_one_load_runs_at_a_time() {
    let server = start_retaining_all().await;
    // Ending a load that does not run succeeds, too.
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);
    let defaults = json!({"rate": 10, "size": 100, "seconds": 60});
    assert_eq!(load(&server, "POST", "", "").await, (201, defaults));
    for query in ["?rate=11", "?size=101", "?rate=1000&size=0&seconds=1"] {
        let (status, problem) = load(&server, "POST", query, "").await;
        assert_eq!(status, 409, "{query}");
        let start = "A load of 10 events per second of 100 bytes is already running";
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(start) && detail.ends_with("or with `DELETE /load`."),
            "{detail}"
        );
    }
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);

    // Only the next load publishes now.
    let mut reader = open_reader(&server).await;
    assert_eq!(load(&server, "POST", "?rate=1000&size=5", "").await.0, 201);
    while reader.event().await.data != "1 abc" {}
    for number in 2..100 {
        let data = reader.event().await.data;
        assert!(data.starts_with(&format!("{number} ")) && data.len() == 5, "{data}");
    }
}

#[tokio::test]
async fn a_repeated_request_extends_the_load() {
    let server = start_retaining_all().await;
    let mut reader = open_reader(&server).await;
    for (seconds, status) in [(1, 201), (600, 200), (1, 200)] {
        let query = format!("?rate=1000&size=10&seconds={seconds}");
        let parameters = json!({"rate": 1000, "size": 10, "seconds": seconds});
        assert_eq!(load(&server, "POST", &query, "").await, (status, parameters));
    }
    // The events exceed those of one second, and none is repeated.
    for number in 1..2000 {
        let data = reader.event().await.data;
        assert!(data.starts_with(&format!("{number} ")), "{number}: {data}");
    }
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);
    assert_eq!(load(&server, "POST", "?rate=1", "").await.0, 201);
}

#[tokio::test]
async fn a_load_ends_with_its_last_user() {
    let server = start_retaining_all().await;
    assert_eq!(load(&server, "POST", "?rate=100&name=a", "").await.0, 201);
    assert_eq!(load(&server, "POST", "?rate=100&name=b", "").await.0, 200);
    assert_eq!(load(&server, "DELETE", "?name=a", "").await.0, 204);
    assert_eq!(load(&server, "POST", "?rate=1&name=a", "").await.0, 409, "b uses the load");
    assert_eq!(load(&server, "DELETE", "?name=b", "").await.0, 204);
    assert_eq!(load(&server, "POST", "?rate=1&name=a", "").await.0, 201);
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);
    assert_eq!(
        load(&server, "POST", "?rate=2", "").await.0,
        201,
        "an unnamed request ends the load for all"
    );
}

#[tokio::test]
async fn a_load_ends_after_its_duration() {
    let server = Server::start().await;
    assert_eq!(load(&server, "POST", "?rate=1000&size=0&seconds=1", "").await.0, 201);
    let ended = async { while load(&server, "POST", "?rate=1", "").await.0 == 409 {} };
    tokio::time::timeout(DEADLINE, ended).await.expect("the end");
    // The exact number is random.
    let published = server.hub.newest();
    assert!((500..2000).contains(&published), "{published}");
}

#[tokio::test]
async fn a_load_ends_at_a_shutdown() {
    let server = Server::start().await;
    // A client that does not read prolongs the shutdown.
    let stuck = ReadRequest::new(&server, Transport::Sse, "topic=much").earliest().open().await;
    publish_much(&server, "much").await;
    assert_eq!(load(&server, "POST", "", "").await.0, 201);
    server.stop.begin();
    // Requests extend the load until it has ended. Then one starts it again, and it ends at once.
    let ended = async { while load(&server, "POST", "", "").await.0 != 201 {} };
    tokio::time::timeout(DEADLINE, ended).await.expect("the end");
    drop(stuck);
    server.serving.await.unwrap();
}

#[tokio::test]
async fn invalid_parameters_get_400_with_the_limits() {
    let server = Server::start().await;
    for query in [
        "rate=0",
        "rate=1001",
        "rate=-1",
        "rate=1.5",
        "rate=",
        "rate=x",
        "size=65537",
        "size=-1",
        "size=",
        "seconds=0",
        "seconds=601",
        "seconds=x",
        "rate=5&rate=0",
        "rate=99999999999999999999",
    ] {
        let (status, problem) = load(&server, "POST", &format!("?{query}"), "").await;
        assert_eq!(status, 400, "{query}");
        let expected = "`rate` must be 1 to 1000 events per second, `size` 0 to 65536 bytes, \
                        `seconds` 1 to 600.";
        assert_eq!(problem["detail"], expected, "{query}");
    }
    // Unknown parameters are ignored.
    assert_eq!(load(&server, "POST", "?rate=1000&size=65536&seconds=600&x=y", "").await.0, 201);
    assert_eq!(load(&server, "GET", "", "").await.0, 405);
}

#[tokio::test]
async fn only_local_requests_start_or_end_a_load() {
    let mut access = tokens::access();
    access.cors_origins = ["https://app.example".parse().unwrap()].into();
    access.public_topics = [">".parse().unwrap()].into();
    let server = Server::with_access(access).await;
    let all = json!({"publish": [">"], "subscribe": [">"]});
    let by_token = tokens::bearer(&tokens::token(all));
    let start = "This is for the server's own machine only, and the request is not local: ";
    for (headers, why) in [
        ("Origin: https://evil.example\r\n", "it comes from a page of another origin"),
        ("Origin: null\r\n", "it comes from a page of another origin"),
        ("Origin: https://app.example\r\n", "it comes from a page of another origin"),
        ("Host: rebound.example\r\n", "its `Host` is not a loopback name"),
        (REMOTE, "it came through a proxy"),
        (&by_token, "it came through a proxy"),
    ] {
        for method in ["POST", "DELETE"] {
            let (status, problem) = load(&server, method, "?rate=1000", headers).await;
            assert_eq!(status, 403, "{method} {headers}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with(&format!("{start}{why}")), "{headers}: {detail}");
        }
    }
    // A page of the server itself may start a load.
    let own = "Origin: http://localhost\r\n";
    assert_eq!(load(&server, "POST", "", own).await.0, 201, "none was started");
    // A request through a proxy cannot end it.
    assert_eq!(load(&server, "DELETE", "", REMOTE).await.0, 403);
    assert_eq!(load(&server, "POST", "", own).await.0, 200, "none was ended");

    let access = Access { is_token_required: true, ..tokens::access() };
    let server = Server::with_access(access).await;
    assert_eq!(load(&server, "POST", "", "").await.0, 403);
}

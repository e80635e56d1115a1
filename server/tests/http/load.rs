//! `/load`: the built-in load, over real sockets.

use serde_json::{Value, json};
use server::access::Access;
use waterclock::transport::Transport;

use crate::{
    readers::{Ask, Http, Reader},
    support::{DEADLINE, Server, Settings},
    tokens,
    transports::publish_much,
};

/// The answer to a request of `/load`: its status, and its body if it has one.
async fn load(server: &Server, method: &str, query: &str, headers: &str) -> (u16, Value) {
    let mut http = Http::connect(server.address).await;
    let host = if headers.contains("Host: ") { "" } else { "Host: localhost\r\n" };
    let request = format!(
        "{method} /load{query} HTTP/1.1\r\n{host}Content-Length: 0\r\nConnection: close\r\n\
         {headers}\r\n"
    );
    http.send(request.as_bytes()).await;
    let head = http.head().await.expect("an answer");
    while http.read().await {}
    (head.status(), serde_json::from_slice(&http.unread).unwrap_or_default())
}

/// One that keeps all events.
async fn with_room() -> Server {
    Server::start(Settings { retain_count: 1_000_000, ..Settings::default() }).await
}

async fn reader(server: &Server) -> Reader {
    Ask::new(server, Transport::Sse, "topic=waterclock.load").open().await
}

#[tokio::test]
async fn it_publishes_events_of_the_size_that_was_chosen() {
    let server = with_room().await;
    for size in [0, 1, 7, 100, 65_536] {
        let mut reader = reader(&server).await;
        let query = format!("?rate=100&size={size}&seconds=600");
        let plan = json!({"rate": 100, "size": size, "seconds": 600});
        assert_eq!(load(&server, "POST", &query, "").await, (201, plan));
        for number in 1..=9 {
            // Some of the one before may come first.
            let event = loop {
                let event = reader.event().await;
                if event.data.len() == size {
                    break event;
                }
            };
            assert_eq!((event.topic.as_str(), event.name.as_str()), ("waterclock.load", "message"));
            let begin = format!("{number} abcdefgh");
            assert!(event.data.starts_with(&begin[..begin.len().min(size)]), "{}", event.data);
        }
        assert_eq!(load(&server, "DELETE", "", "").await, (204, Value::Null));
        drop(reader);
    }
}

#[tokio::test]
async fn there_is_one_at_a_time() {
    let server = with_room().await;
    // Also if there is none to end.
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);
    let defaults = json!({"rate": 10, "size": 100, "seconds": 60});
    assert_eq!(load(&server, "POST", "", "").await, (201, defaults));
    for query in ["?rate=11", "?size=101", "?rate=1000&size=0&seconds=1"] {
        let (status, problem) = load(&server, "POST", query, "").await;
        assert_eq!(status, 409, "{query}");
        let begin = "A load of 10 events a second of 100 bytes runs already";
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(begin) && detail.ends_with("or by `DELETE /load`."), "{detail}");
    }
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);

    // The next one is alone.
    let mut reader = reader(&server).await;
    assert_eq!(load(&server, "POST", "?rate=1000&size=5", "").await.0, 201);
    while reader.event().await.data != "1 abc" {}
    for number in 2..100 {
        let data = reader.event().await.data;
        assert!(data.starts_with(&format!("{number} ")) && data.len() == 5, "{data}");
    }
}

#[tokio::test]
async fn it_goes_on_for_as_long_as_anyone_asks_for_the_same() {
    let server = with_room().await;
    let mut reader = reader(&server).await;
    for (seconds, status) in [(1, 201), (600, 200), (1, 200)] {
        let query = format!("?rate=1000&size=10&seconds={seconds}");
        let plan = json!({"rate": 1000, "size": 10, "seconds": seconds});
        assert_eq!(load(&server, "POST", &query, "").await, (status, plan));
    }
    // More than a second's, each once.
    for number in 1..2000 {
        let data = reader.event().await.data;
        assert!(data.starts_with(&format!("{number} ")), "{number}: {data}");
    }
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);
    assert_eq!(load(&server, "POST", "?rate=1", "").await.0, 201);
}

#[tokio::test]
async fn it_ends_with_the_last_who_wants_it() {
    let server = with_room().await;
    assert_eq!(load(&server, "POST", "?rate=100&name=a", "").await.0, 201);
    assert_eq!(load(&server, "POST", "?rate=100&name=b", "").await.0, 200);
    assert_eq!(load(&server, "DELETE", "?name=a", "").await.0, 204);
    assert_eq!(load(&server, "POST", "?rate=1&name=a", "").await.0, 409, "b wants it");
    assert_eq!(load(&server, "DELETE", "?name=b", "").await.0, 204);
    assert_eq!(load(&server, "POST", "?rate=1&name=a", "").await.0, 201);
    assert_eq!(load(&server, "DELETE", "", "").await.0, 204);
    assert_eq!(load(&server, "POST", "?rate=2", "").await.0, 201, "nobody's, for anybody");
}

#[tokio::test]
async fn it_ends_by_itself() {
    let server = Server::start(Settings::default()).await;
    assert_eq!(load(&server, "POST", "?rate=1000&size=0&seconds=1", "").await.0, 201);
    let ended = async { while load(&server, "POST", "?rate=1", "").await.0 == 409 {} };
    tokio::time::timeout(DEADLINE, ended).await.expect("the end");
    // About a thousand, by chance.
    let published = server.hub.newest();
    assert!((500..2000).contains(&published), "{published}");
}

#[tokio::test]
async fn it_ends_when_the_server_stops() {
    let server = Server::start(Settings::default()).await;
    // One who does not read keeps the server from being through at once.
    let stuck = Ask::new(&server, Transport::Sse, "topic=much").earliest().open().await;
    publish_much(&server, "much").await;
    assert_eq!(load(&server, "POST", "", "").await.0, 201);
    server.stop.begin();
    // While it runs, it is gone on with; then it is begun again, only to end as well.
    let ended = async { while load(&server, "POST", "", "").await.0 != 201 {} };
    tokio::time::timeout(DEADLINE, ended).await.expect("the end");
    drop(stuck);
    server.serving.await.unwrap();
}

#[tokio::test]
async fn what_it_cannot_be_is_told() {
    let server = Server::start(Settings::default()).await;
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
        let expected = "`rate` is 1 to 1000 events a second, `size` 0 to 65536 bytes, `seconds` 1 to \
                        600.";
        assert_eq!(problem["detail"], expected, "{query}");
    }
    // What is not known is not minded, as everywhere.
    assert_eq!(load(&server, "POST", "?rate=1000&size=65536&seconds=600&x=y", "").await.0, 201);
    assert_eq!(load(&server, "GET", "", "").await.0, 405);
}

#[tokio::test]
async fn nobody_elsewhere_starts_or_ends_one() {
    let mut access = tokens::access();
    access.cors_origins = ["https://app.example".parse().unwrap()].into();
    access.public_topics = [">".parse().unwrap()].into();
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    let all = json!({"publish": [">"], "subscribe": [">"]});
    let by_token = tokens::bearer(&tokens::token(all));
    let begin = "This is for the server's own machine only, and the request is not from there: ";
    for (headers, why) in [
        ("Origin: https://evil.example\r\n", "it comes from a page of another origin"),
        ("Origin: null\r\n", "it comes from a page of another origin"),
        ("Origin: https://app.example\r\n", "it comes from a page of another origin"),
        ("Host: rebound.example\r\n", "its `Host` is not a loopback name"),
        ("Via: proxy\r\n", "a proxy has passed it on"),
        (&by_token, "a proxy has passed it on"),
    ] {
        for method in ["POST", "DELETE"] {
            let (status, problem) = load(&server, method, "?rate=1000", headers).await;
            assert_eq!(status, 403, "{method} {headers}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with(&format!("{begin}{why}")), "{headers}: {detail}");
        }
    }
    // A page of ours does.
    let ours = "Origin: http://localhost\r\n";
    assert_eq!(load(&server, "POST", "", ours).await.0, 201, "none runs");
    // And nobody else has ended it.
    assert_eq!(load(&server, "DELETE", "", "Via: proxy\r\n").await.0, 403);
    assert_eq!(load(&server, "POST", "", ours).await.0, 200, "it runs");

    let access = Access { is_token_required: true, ..tokens::access() };
    let server = Server::start(Settings { access, ..Settings::default() }).await;
    assert_eq!(load(&server, "POST", "", "").await.0, 403);
}

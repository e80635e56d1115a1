//! `GET /topics` and `GET /topics/{topic}` over real sockets.

use futures_util::future::join_all;
use serde_json::{Value, json};
use server::auth::{Access, Audience, TopicRule};
use tokio::{io::AsyncWriteExt as _, net::TcpSocket};
use waterclock::notice::TopicEnd;
use waterclock_axum::StreamLimits;

use crate::{
    support::{DEADLINE, REMOTE, Server, Settings, TIME, TestResponse, event_id},
    tokens,
};

/// Returns the JSON of a successful response.
async fn body(response: TestResponse) -> Value {
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("private, no-cache, no-transform"));
    serde_json::from_str(&response.rest().await).unwrap()
}

/// Returns the names of the listed topics, and the next page.
async fn list(server: &Server, query: &str) -> (Vec<String>, Value) {
    names(&body(server.get(&format!("/topics?{query}")).await).await)
}

fn names(page: &Value) -> (Vec<String>, Value) {
    let topics = page["topics"].as_array().unwrap().iter();
    (
        topics.map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect(),
        page["next"].clone(),
    )
}

#[tokio::test]
async fn a_topic_has_figures_of_its_events() {
    let server = Server::start_with(Settings { retain_count: 2, ..Settings::default() }).await;
    for (topic, data) in [("orders.eu", "ü"), ("other", "x"), ("orders.eu", "xyz")] {
        server.publish_to(topic, data).await;
    }
    assert_eq!(
        body(server.get("/topics/orders.eu").await).await,
        json!({
            "topic": "orders.eu", "events": 2, "bytes": 5, "published": 2,
            "oldest": {"id": event_id(1), "time": TIME},
            "newest": {"id": event_id(3), "time": TIME},
            "readers": 0, "pattern_readers": 0, "ended": false, "outcome": null,
        })
    );
    let nothing = json!({
        "topic": "never", "events": 0, "bytes": 0, "published": 0,
        "oldest": null, "newest": null,
        "readers": 0, "pattern_readers": 0, "ended": false, "outcome": null,
    });
    assert_eq!(body(server.get("/topics/never").await).await, nothing);
    for tick in ["a", "bb", "ccc"] {
        server.publish(tick).await;
    }
    let clock = body(server.get("/topics/clock").await).await;
    assert_eq!((&clock["events"], &clock["bytes"]), (&json!(2), &json!(5)));
    assert_eq!(clock["published"], 3, "also those that are no longer kept");
    assert_eq!(clock["oldest"]["id"], event_id(5));
    for (query, outcome) in
        [("end=failed", json!("failed")), ("reopen", json!(null)), ("end", json!("done"))]
    {
        let body_text = if query == "reopen" { "x" } else { "" };
        let length = body_text.len();
        let request = format!(
            "POST /events/orders.eu?{query} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body_text}"
        );
        assert_eq!(server.send(request.as_bytes()).await.status(), 201, "{query}");
        let topic = body(server.get("/topics/orders.eu").await).await;
        assert_eq!((&topic["ended"], &topic["outcome"]), (&json!(!outcome.is_null()), &outcome));
    }
    let response = server.get("/topics/a.*").await;
    assert_eq!(response.status(), 400);
    assert!(response.rest().await.contains("is not a topic"));
}

#[tokio::test]
async fn a_producer_learns_how_many_readers_a_topic_has() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for query in ["topic=a", "topic=a&topic=a.*&topic=%3E", "topic=*", "topic=b"] {
        let mut stream = server.get(&format!("/events?{query}")).await;
        stream.message().await;
        streams.push(stream);
    }
    let mut poll = server.connect().await;
    poll.write_all(b"GET /poll?topic=a&wait=55 HTTP/1.0\r\n\r\n").await.unwrap();
    let readers = async |topic: &str, expected: (u64, u64)| {
        let reached = async {
            loop {
                let topic = body(server.get(&format!("/topics/{topic}")).await).await;
                let count = |name: &str| topic[name].as_u64().unwrap();
                if (count("readers"), count("pattern_readers")) == expected {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.expect(topic);
    };
    readers("a", (3, 1)).await;
    readers("b", (1, 2)).await;
    readers("a.x", (0, 1)).await;
    streams.truncate(1);
    readers("a", (2, 0)).await;
    readers("b", (0, 0)).await;
}

#[tokio::test]
async fn topics_are_listed_in_pages() {
    let server = Server::start().await;
    for n in 0..30 {
        server.publish_to(&format!("t.{n:02}"), "x").await;
    }
    server.publish_to("a-b", "x").await;
    let (first, next) = list(&server, "").await;
    assert_eq!((first.len(), &next), (31, &Value::Null));
    assert_eq!((&*first[0], &*first[30]), ("a-b", "t.29"));
    assert_eq!(list(&server, "after=").await.0, first, "as without it");
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let (page, next) = list(&server, &format!("match=t.*&match=x&limit=12{after}")).await;
        listed.extend(page);
        let Some(next) = next.as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(listed, first[1..]);
    assert_eq!(list(&server, "match=t.*&limit=30").await.1, Value::Null, "exactly a page");
}

#[tokio::test]
async fn a_long_page_counts_as_a_stream_or_ends_early() {
    let limits = StreamLimits { total: 1, per_address: 1 };
    let settings = Settings { limits, max_topics: 1000, ..Settings::default() };
    let server = Server::start_with(settings).await;
    let expected: Vec<_> = (100..900).map(|n| format!("t.{n}.{}", "x".repeat(240))).collect();
    let publishes = expected.iter().map(|topic| server.publish_to(topic, "x"));
    join_all(publishes).await;
    // A client that reads nothing, and whose system takes little for it.
    let slow = TcpSocket::new_v4().unwrap();
    slow.set_recv_buffer_size(4096).unwrap();
    let mut slow = slow.connect(server.address).await.unwrap();
    slow.write_all(b"GET /topics?limit=800 HTTP/1.0\r\n\r\n").await.unwrap();
    server.wait_for_streams(1).await;
    let (mut listed, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = server.get(&format!("/topics?limit=800{after}")).await.rest().await;
        assert!(page.len() <= 33 * 1024, "{}", page.len());
        let (topics, next) = names(&serde_json::from_str(&page).unwrap());
        listed.extend(topics);
        pages += 1;
        let Some(next) = next.as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!((&listed, pages > 9), (&expected, true));
    drop(slow);
    server.wait_for_streams(0).await;
    assert_eq!(list(&server, "limit=800").await, (expected, Value::Null), "whole");
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn only_topics_that_the_caller_may_read_are_listed() {
    let access = Access { public_topics: ["clock".parse().unwrap()].into(), ..tokens::access() };
    let server = Server::with_access(access).await;
    for topic in ["clock", "orders.eu", "orders.us", "orders.eu.new", "secret"] {
        server.publish_to(topic, "x").await;
    }
    let all = list(&server, "").await.0;
    assert_eq!(all, ["clock", "orders.eu", "orders.eu.new", "orders.us", "secret"]);
    let remote = server.send(format!("GET /topics HTTP/1.0\r\n{REMOTE}\r\n").as_bytes()).await;
    assert_eq!(names(&body(remote).await).0, ["clock"]);
    for (subscribe, path, expected) in [
        (json!(["orders.*"]), "/topics", &["clock", "orders.eu", "orders.us"][..]),
        (json!(["orders.*"]), "/topics?match=orders.%3E", &["orders.eu", "orders.us"]),
        (json!(["orders.*"]), "/topics?match=secret", &[]),
        (json!(["*.eu"]), "/topics?match=orders.*", &["orders.eu"]),
        (json!(["*.eu"]), "/topics?match=orders.*&limit=1", &["orders.eu"]),
        (json!([">"]), "/topics?match=*", &["clock", "secret"]),
        (json!([]), "/topics", &["clock"]),
    ] {
        let token = tokens::token(json!({ "subscribe": subscribe }));
        let page = body(server.get_with_token(&token, path).await).await;
        assert_eq!(names(&page), (expected.iter().map(ToString::to_string).collect(), Value::Null));
    }
    let token = tokens::token(json!({"subscribe": ["orders.*"]}));
    assert_eq!(server.get_with_token(&token, "/topics/secret").await.status(), 403);
    assert_eq!(server.get_with_token(&token, "/topics/orders.eu").await.status(), 200);
    assert_eq!(server.get_with_token("nonsense", "/topics").await.status(), 401);
    let nothing_is_public = Server::with_access(tokens::access()).await;
    let remote = format!("GET /topics HTTP/1.0\r\n{REMOTE}\r\n");
    assert_eq!(nothing_is_public.send(remote.as_bytes()).await.status(), 401);
}

#[tokio::test]
async fn rules_leave_topics_out_of_the_list() {
    let rule = |topics: &str, read| TopicRule {
        topics: vec![topics.parse().unwrap()],
        read: Some(read),
        publish: None,
        max_event_size: None,
        publish_rate: None,
    };
    let rules = [
        rule("a.open", Audience::Anyone),
        rule("a.>", Audience::Nobody),
        rule("b.>", Audience::Token),
        rule("c", Audience::Local),
    ];
    let server = Server::with_access(Access { rules: rules.into(), ..tokens::access() }).await;
    for topic in ["a.open", "a.x", "b.eu", "b.us", "c", "d"] {
        server.publish_to(topic, "x").await;
    }
    assert_eq!(list(&server, "").await.0, ["a.open", "c", "d"]);
    assert_eq!(list(&server, "match=a.*&match=b.eu&limit=1").await.0, ["a.open"]);
    let remote = server.send(format!("GET /topics HTTP/1.0\r\n{REMOTE}\r\n").as_bytes()).await;
    assert_eq!(names(&body(remote).await).0, ["a.open"]);
    for (subscribe, expected) in [
        (json!(["*.eu"]), &["a.open", "b.eu"][..]),
        (json!([">"]), &["a.open", "b.eu", "b.us", "d"]),
        (json!(["a.x", "c", "d"]), &["a.open", "d"]),
    ] {
        let token = tokens::token(json!({ "subscribe": subscribe }));
        let page = body(server.get_with_token(&token, "/topics").await).await;
        assert_eq!(names(&page).0, expected, "{subscribe}");
    }
    let rules = [rule(">", Audience::Nobody)];
    let server = Server::with_access(Access { rules: rules.into(), ..tokens::access() }).await;
    assert_eq!(server.get("/topics").await.status(), 403);
}

#[tokio::test]
async fn an_invalid_query_for_topics_gets_400_with_the_permitted_values() {
    let server = Server::start().await;
    let many: Vec<_> = (0..65).map(|n| format!("match={n}")).collect();
    for (query, detail) in [
        ("match=a..b", "is not a pattern"),
        ("match=", "is not a pattern"),
        ("after=*", "`after` must be the `next` of the page before"),
        ("limit=0", "a whole number from 1 to 1000"),
        ("limit=1001", "a whole number from 1 to 1000"),
        ("topic=a", "Use `match`"),
        ("matches=a", "Use `match`"),
        ("page=2", "Use `after`"),
        (&many.join("&"), "at most 64 patterns"),
        (&["match=a"; 65].join("&"), "at most 64 patterns"),
    ] {
        let response = server.get(&format!("/topics?{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
        let why = response.rest().await;
        assert!(why.contains(detail), "{query}: {why}");
    }
    assert_eq!(server.get("/topics?_=1").await.status(), 200);
}

#[tokio::test]
async fn a_live_view_sends_the_figures_of_topics_that_change() {
    let access = Access { public_topics: ["a.*".parse().unwrap()].into(), ..tokens::access() };
    let server = Server::with_access(access).await;
    for topic in ["a.b", "secret"] {
        server.publish_to(topic, "x").await;
    }
    let accept = "Accept: application/json;q=0.5, Text/Event-Stream\r\n";
    for path in ["/topics", "/topics/a.b"] {
        let request = format!("GET {path} HTTP/1.0\r\n{REMOTE}{accept}\r\n");
        let mut view = server.send(request.as_bytes()).await;
        assert_eq!((view.status(), view.header("vary")), (200, Some("accept")));
        assert_eq!(view.header("content-type"), Some("text/event-stream"));
        let hello = view.message().await;
        assert_eq!((hello.name.as_str(), hello.last_event_id.as_str()), ("hello", ""));
        let mut topics = async || {
            let message = view.message().await;
            assert_eq!(message.name, "message");
            let page: Value = serde_json::from_str(&message.data).unwrap();
            assert_eq!(page["complete"], true);
            let topic = &page["topics"][0];
            assert_eq!(
                (page["topics"].as_array().unwrap().len(), &topic["topic"]),
                (1, &json!("a.b"))
            );
            (topic["events"].as_u64().unwrap(), topic["readers"].as_u64().unwrap())
        };
        let (before, _) = topics().await;
        server.publish_to("secret", "x").await;
        server.publish_to("a.b", "x").await;
        assert_eq!(topics().await, (before + 1, 0));
    }
    server.wait_for_streams(0).await;
    let head = server.request("HEAD", "/topics", &[("Accept", b"text/event-stream")]).await;
    assert_eq!((head.status(), head.header("content-type")), (200, Some("text/event-stream")));
    let secret = format!("GET /topics/secret HTTP/1.0\r\n{REMOTE}{accept}\r\n");
    assert_eq!(server.send(secret.as_bytes()).await.status(), 401);
    assert_eq!(server.streams.count(), 0);
}

/// The header of a browser that opens a page.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

/// Requests the page as a browser does, and returns its text.
async fn page(server: &Server, target: &str, headers: &str) -> String {
    let request = format!("GET {target} HTTP/1.0\r\n{BROWSER}{headers}\r\n");
    let response = server.send(request.as_bytes()).await;
    assert_eq!((response.status(), response.header("vary")), (200, Some("accept")), "{target}");
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"), "{target}");
    response.rest().await
}

/// Returns the topics in the rows of a page.
fn rows(page: &str) -> Vec<&str> {
    page.split("<a href=\"/?topic=").skip(1).filter_map(|row| row.split('"').next()).collect()
}

/// Returns `true` if a page says that there are no topics.
fn says_empty(page: &str) -> bool {
    let tags = page.split('<').filter_map(|tag| tag.split('>').next());
    let mut tags = tags.filter(|tag| tag.starts_with("div") && tag.contains("\"empty\""));
    tags.any(|tag| !tag.contains("hidden"))
}

#[tokio::test]
async fn a_browser_gets_a_page_and_all_others_what_they_accept() {
    let server = Server::start().await;
    server.publish_to("orders.eu", "x").await;
    for (accept, expected) in [
        ("", "application/json"),
        ("Accept: */*\r\n", "application/json"),
        ("Accept: application/json, text/html\r\n", "application/json"),
        ("Accept: text/html;q=0.4, application/json;q=0.5\r\n", "application/json"),
        ("Accept: text/html;q=0, */*\r\n", "application/json"),
        (BROWSER, "text/html; charset=utf-8"),
        ("Accept: TEXT/HTML;q=0.5, application/json;q=0.4\r\n", "text/html; charset=utf-8"),
        ("Accept: */*;q=0.1\r\nAccept: text/html\r\n", "text/html; charset=utf-8"),
        ("Accept: text/event-stream\r\n", "text/event-stream"),
        ("Accept: text/html, text/event-stream\r\n", "text/event-stream"),
        ("Accept: text/html, image/jxr, */*\r\n", "text/html; charset=utf-8"),
    ] {
        for method in ["GET", "HEAD"] {
            let request = format!("{method} /topics HTTP/1.0\r\n{accept}\r\n");
            let response = server.send(request.as_bytes()).await;
            assert_eq!(response.header("content-type"), Some(expected), "{method} {accept}");
            assert_eq!(response.header("vary"), Some("accept"), "{method} {accept}");
            if method == "HEAD" {
                assert_eq!(response.rest().await, "");
            }
        }
    }
    // One topic has no page of its own.
    let one = server.send(format!("GET /topics/t HTTP/1.0\r\n{BROWSER}\r\n").as_bytes()).await;
    assert_eq!(one.header("content-type"), Some("application/json"));
    assert_eq!(one.header("vary"), Some("accept"));
    let post = format!("POST /topics HTTP/1.0\r\nContent-Length: 0\r\n{BROWSER}\r\n");
    assert_eq!(server.send(post.as_bytes()).await.status(), 405);
}

#[tokio::test]
async fn a_refusal_of_topics_depends_on_accept_too() {
    let server = Server::with_access(tokens::access()).await;
    let token = tokens::bearer(&tokens::token(json!({"subscribe": []})));
    for (target, headers, status) in [
        ("/topics?limit=0", "", 400),
        ("/topics", REMOTE, 401),
        ("/topics", &token, 403),
        ("/topics/a..b", "", 400),
        ("/topics/t", REMOTE, 401),
        ("/topics/t", &token, 403),
    ] {
        for accept in ["", "Accept: text/event-stream\r\n"] {
            let request = format!("GET {target} HTTP/1.0\r\n{accept}{headers}\r\n");
            let response = server.send(request.as_bytes()).await;
            let found = (response.status(), response.header("vary"));
            assert_eq!(found, (status, Some("accept")), "{target} {accept}");
            assert_eq!(response.header("content-type"), Some("application/problem+json"));
        }
    }
    // A browser gets the page, which says why it has no topics.
    server.publish_to("secret", "x").await;
    for (headers, why) in [(REMOTE, "A token is required"), (&token, "does not list")] {
        let page = page(&server, "/topics", headers).await;
        assert!(page.contains(why), "{page}");
        assert!(!page.contains("secret") && !says_empty(&page), "{page}");
        assert!(!page.contains("Publish an event"), "{page}");
    }
}

#[tokio::test]
async fn the_page_of_topics_reads_without_a_program() {
    let settings = Settings { max_topics: 1000, ..Settings::default() };
    let server = Server::start_with(settings).await;
    let empty = page(&server, "/topics", "").await;
    assert!(says_empty(&empty), "{empty}");
    assert!(empty.contains("/events/orders.eu"), "it says how to publish");
    for n in 0..230 {
        server.publish_to(&format!("t.{n:03}"), "x").await;
    }
    server.publish_to("clocks.eu", "x").await;
    server.hub.publish(TopicEnd::done("clocks.eu".parse().unwrap()).draft()).await.unwrap();
    let (mut listed, mut target) = (Vec::new(), "/topics".to_owned());
    for _ in 0..3 {
        let page = page(&server, &target, "").await;
        assert!(!says_empty(&page), "{page}");
        listed.extend(rows(&page).into_iter().map(str::to_owned));
        let next = page.split("<a href=\"/topics?").nth(1).and_then(|link| link.split('"').next());
        target = format!("/topics?{}", next.unwrap_or("nothing").replace("&amp;", "&"));
    }
    assert_eq!((listed.len(), &*listed[0], &*listed[230]), (231, "clocks.eu", "t.229"));
    assert_eq!(target, "/topics?nothing", "the last page has no next one");
    let ended = page(&server, "/topics?match=CLOCK", "").await;
    assert_eq!(rows(&ended), ["clocks.eu"]);
    assert!(ended.contains(">Ended<"), "{ended}");
    for (query, expected) in [
        ("match=t.22*", 0),
        ("match=t.*", 100),
        ("match=t.*&after=t.199", 30),
        ("match=22", 12),
        ("match=t.001&match=t.002%2Cclocks", 3),
        ("match=nothing", 0),
    ] {
        let found = page(&server, &format!("/topics?{query}"), "").await;
        assert_eq!(rows(&found).len(), expected, "{query}");
        assert!(!says_empty(&found), "{query}");
        assert_eq!(found.contains("is not a pattern"), query == "match=t.22*", "{query}");
    }
    let many = ["match=t"; 65].join("&");
    let found = page(&server, &format!("/topics?{many}"), "").await;
    assert!(rows(&found).is_empty() && found.contains("at most 64 words and patterns"), "{found}");
    for (after, is_said) in [("", false), ("t.001", false), ("t.*", true), ("%3C", true)] {
        let found = page(&server, &format!("/topics?after={after}"), "").await;
        assert_eq!(rows(&found).len(), 100, "{after}");
        assert_eq!(found.contains("This is the first page."), is_said, "{after}: {found}");
    }
    let hostile = page(&server, "/topics?match=%3C%22%26%3E", "").await;
    assert!(!hostile.contains("<\"&"), "{hostile}");
}

#[tokio::test]
async fn the_page_has_only_topics_that_its_reader_may_read() {
    let access = Access { public_topics: ["a.*".parse().unwrap()].into(), ..tokens::access() };
    let server = Server::with_access(access).await;
    for topic in ["a.b", "b.c", "secret"] {
        server.publish_to(topic, "x").await;
    }
    let token = tokens::bearer(&tokens::token(json!({"subscribe": ["b.*"], "publish": ["b.c"]})));
    for (headers, expected, may_publish) in [
        ("", &["a.b", "b.c", "secret"][..], true),
        (REMOTE, &["a.b"], false),
        (&token, &["a.b", "b.c"], true),
    ] {
        let page = page(&server, "/topics", headers).await;
        assert_eq!(rows(&page), expected, "{headers}");
        assert_eq!(page.contains("Publish an event"), may_publish, "{headers}");
    }
}

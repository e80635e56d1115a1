//! `POST /events`: lines of JSON, over real sockets.

use std::num::NonZeroU32;

use serde_json::{Value, json};
use server::auth::Access;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    support::{DEADLINE, REMOTE, Server, Settings, TestResponse, event_id, read_until_closed},
    tokens,
};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

/// Publishes lines of JSON.
async fn post(server: &Server, headers: &str, body: &str) -> TestResponse {
    let length = body.len();
    let head =
        format!("POST /events HTTP/1.0\r\nContent-Length: {length}\r\n{NDJSON}{headers}\r\n");
    server.send(format!("{head}{body}").as_bytes()).await
}

/// Returns the answers to lines.
async fn answers(server: &Server, headers: &str, body: &str) -> Vec<Value> {
    let response = post(server, headers, body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    parsed(&response.rest().await)
}

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A client that sends and reads line by line.
struct Client {
    stream: TcpStream,
    unread: String,
}

impl Client {
    async fn open(server: &Server, headers: &str) -> Self {
        let mut stream = server.connect().await;
        let head = format!(
            "POST /events HTTP/1.1\r\nHost: localhost\r\n{NDJSON}{headers}\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { stream, unread: String::new() }
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// Reads the next answer.
    async fn answer(&mut self) -> Value {
        loop {
            if let Some((line, rest)) = self.unread.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.unread = rest;
                // The other lines belong to the head and to the chunks.
                if line.starts_with('{') {
                    return serde_json::from_str(&line).unwrap();
                }
                continue;
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes);
            let read = tokio::time::timeout(DEADLINE, read).await.expect("an answer").unwrap();
            assert!(read > 0, "ended: {}", self.unread);
            self.unread.push_str(str::from_utf8(&bytes[..read]).unwrap());
        }
    }
}

#[tokio::test]
async fn each_line_of_json_is_answered_while_others_still_arrive() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=orders.*").await;
    stream.message().await;
    let mut client = Client::open(&server, "").await;
    client
        .send("{\"topic\":\"orders.eu\",\"name\":\"created\",\"data\":\"a\\nb\"}\n{\"topic\":")
        .await;
    assert_eq!(client.answer().await, json!({"line": 1, "id": event_id(1)}));
    let message = stream.message().await;
    assert_eq!((message.name.as_str(), message.data.as_str()), ("created", "a\nb"));
    client.send("\"orders.us\",\"data\":\"c\"}\r\n\n").await;
    assert_eq!(client.answer().await, json!({"line": 2, "id": event_id(2)}));
    assert_eq!(stream.message().await.data, "c");
    // An empty line has no answer, and the last one needs no end.
    client.send("{\"topic\":\"orders.us\",\"data\":\"d\"}").await;
    client.stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(client.answer().await, json!({"line": 4, "id": event_id(3)}));
    let rest = read_until_closed(client.stream).await;
    assert!([client.unread.as_bytes(), &rest].concat().ends_with(b"0\r\n\r\n"), "nothing more");
}

#[tokio::test]
async fn a_bad_line_gets_its_problem_and_stops_no_other() {
    let server = Server::start().await;
    let long = "x".repeat(64 * 1024 + 1);
    let very_long = "x".repeat(2 << 20);
    let cases = [
        (r#"{"topic":"t","data":"1"}"#.to_owned(), 0, ""),
        ("nonsense".to_owned(), 400, "The line is not valid: expected"),
        ("[]".to_owned(), 400, "The line is not valid"),
        (r#"{"topic":"t"}"#.to_owned(), 400, "missing field `data`"),
        (r#"{"topic":"t","data":{"a":1}}"#.to_owned(), 400, "all strings"),
        (r#"{"topic":"t","data":"","nmae":"n"}"#.to_owned(), 400, "unknown field `nmae`"),
        (r#"{"topic":"t..u","data":""}"#.to_owned(), 400, "not a topic"),
        (r#"{"topic":"t.*","data":""}"#.to_owned(), 400, "not a topic"),
        (r#"{"topic":"t","data":"","name":"gap"}"#.to_owned(), 400, "reserved"),
        (r#"{"topic":"t","data":"","key":""}"#.to_owned(), 400, "1 to 255"),
        // Otherwise it might be that of a part of an upload.
        (r#"{"topic":"t","data":"","key":"k\nlines 1"}"#.to_owned(), 400, "control characters"),
        (r#"{"topic":"t","data":"","key":"a\u007fb"}"#.to_owned(), 400, "control characters"),
        (r#"{"topic":"clock","data":""}"#.to_owned(), 403, "Only the server itself"),
        (format!(r#"{{"topic":"t","data":"{long}"}}"#), 413, "at most 65536 bytes"),
        (format!(r#"{{"topic":"t","data":"{very_long}"}}"#), 413, "It was skipped."),
        (format!(r#"{{"topic":"{long}","data":""}}"#), 400, "xxx…"),
        (r#"{"topic":"t","data":"2","key":"k"}"#.to_owned(), 0, ""),
    ];
    let lines: Vec<_> = cases.iter().map(|(line, ..)| line.as_str()).collect();
    let answers = answers(&server, "", &lines.join("\n")).await;
    assert_eq!(answers.len(), cases.len());
    let mut events = 0;
    for (number, (answer, (line, status, detail))) in (1..).zip(answers.iter().zip(&cases)) {
        let line = &line[..line.len().min(100)];
        if *status == 0 {
            events += 1;
            assert_eq!(*answer, json!({"line": number, "id": event_id(events)}), "{line}");
        } else {
            assert_eq!(
                (&answer["line"], &answer["status"]),
                (&json!(number), &json!(status)),
                "{line}"
            );
            assert!(answer["title"].is_string());
            assert!(answer["detail"].as_str().unwrap().contains(detail), "{line}: {answer}");
        }
    }
    assert_eq!(server.hub.newest(), 2);
}

#[tokio::test]
async fn many_lines_are_stored_and_answered_in_their_order() {
    let server = Server::start().await;
    let line = |number: usize| match number % 7 {
        0 => "nonsense".to_owned(),
        rest => format!(r#"{{"topic":"t{}","data":"{number}"}}"#, rest / 3),
    };
    let body: Vec<_> = (1..=2000).map(line).collect();
    let answers = answers(&server, "", &body.join("\n")).await;
    assert_eq!(answers.len(), body.len());
    let mut events = 0;
    for (number, answer) in (1..).zip(&answers) {
        assert_eq!(answer["line"], json!(number));
        if number % 7 == 0 {
            assert_eq!(answer["status"], json!(400));
        } else {
            events += 1;
            assert_eq!(answer["id"], json!(event_id(events)), "{number}");
        }
    }
    assert_eq!(server.hub.newest(), events);
}

#[tokio::test]
async fn lines_that_are_sent_again_with_their_keys_are_stored_once() {
    let server = Server::start().await;
    let body = "{\"topic\":\"t\",\"data\":\"1\",\"key\":\"a\"}\n{\"topic\":\"t\",\"data\":\"2\",\"key\":\"b\"}\n";
    let first = answers(&server, "", body).await;
    assert_eq!(first.len(), 2);
    assert_eq!(answers(&server, "", body).await, first);
    let other = answers(&server, "", &body.replace("\"1\"", "\"one\"")).await;
    assert_eq!((&other[0]["status"], &other[1]), (&json!(422), &first[1]));
    assert_eq!(server.hub.newest(), 2);
}

#[tokio::test]
async fn lines_of_a_client_that_reads_only_at_the_end_are_all_answered() {
    let server = Server::start().await;
    let count = 10_000;
    let lines: Vec<_> =
        (0..count).map(|n| format!("{{\"topic\":\"t\",\"data\":\"{n}\"}}\n")).collect();
    let body = lines.concat();
    // It blocks until all is sent, so it would wait for ever if the server waited for it.
    let response = tokio::time::timeout(DEADLINE, post(&server, "", &body)).await.expect("sent");
    let answers = parsed(&response.rest().await);
    assert_eq!(answers.len(), count);
    for (number, answer) in (1..).zip(answers) {
        assert_eq!(answer, json!({"line": number, "id": event_id(number)}));
    }
}

#[tokio::test]
async fn a_client_that_leaves_half_way_has_published_its_whole_lines() {
    let server = Server::start().await;
    let mut stream = server.get("/events?topic=t").await;
    stream.message().await;
    let mut client = Client::open(&server, "").await;
    let whole = ["1", "2", "3"].map(|data| format!("{{\"topic\":\"t\",\"data\":\"{data}\"}}\n"));
    // The last one would be valid, but its end has not come.
    let half = "{\"topic\":\"t\",\"data\":\"half\"}";
    client.send(&format!("{}{half}", whole.concat())).await;
    for data in ["1", "2", "3"] {
        assert_eq!(stream.message().await.data, data);
    }
    assert_eq!(server.metric("waterclock_lines_open").await, 1);
    // It has read none of the answers.
    drop(client);
    server.wait_for_metric("waterclock_lines_open", |open| open == 0).await;
    server.publish_to("t", "later").await;
    assert_eq!(stream.message().await.data, "later", "half a line is not published");
}

#[tokio::test]
async fn each_line_of_json_needs_permission_for_its_topic() {
    let server = Server::with_access(tokens::access()).await;
    let body = "{\"topic\":\"t\",\"data\":\"1\"}\n{\"topic\":\"u\",\"data\":\"2\"}\n{\"topic\":\"t\",\"data\":\"3\"}";
    let token = tokens::bearer(&tokens::token(json!({"publish": ["t"]})));
    let found = answers(&server, &token, body).await;
    assert_eq!([&found[0]["id"], &found[2]["id"]], [&json!(event_id(1)), &json!(event_id(2))]);
    assert_eq!(found[1]["status"], json!(403));
    // Without any permission, there is no answer line by line.
    let reader = tokens::bearer(&tokens::token(json!({"subscribe": ["t"]})));
    for (headers, status) in [(REMOTE, 401), (&*reader, 403)] {
        let response = post(&server, headers, body).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(server.hub.newest(), 2);

    let expires = tokens::now() + 0.2 - tokens::LEEWAY;
    let short = tokens::bearer(&tokens::token(json!({"exp": expires, "publish": ["t"]})));
    let mut client = Client::open(&server, &short).await;
    client.send("{\"topic\":\"t\",\"data\":\"4\"}\n").await;
    assert_eq!(client.answer().await["id"], json!(event_id(3)));
    let end = client.answer().await;
    assert_eq!((&end["line"], &end["status"]), (&json!(2), &json!(401)), "it is silent");
}

#[tokio::test]
async fn lines_of_json_beyond_the_rate_limit_wait() {
    let server = Server::start_with(Settings {
        access: Access {
            trusted_proxies: ["127.0.0.1".parse().unwrap()].into(),
            ..tokens::access()
        },
        max_publishes: NonZeroU32::new(2).unwrap(),
        ..Settings::default()
    })
    .await;
    let token = tokens::bearer(&tokens::token(json!({"publish": ["t"]})));
    let body = "{\"topic\":\"t\",\"data\":\"1\"}\n".repeat(3);
    let found = answers(&server, &format!("X-Forwarded-For: 192.0.2.3\r\n{token}"), &body).await;
    assert_eq!(found.iter().filter(|answer| answer["id"].is_string()).count(), 3);
}

#[tokio::test]
async fn what_ends_the_lines_early_is_the_answer_to_the_next_one() {
    let server = Server::start().await;
    let mut client = Client::open(&server, "").await;
    client.send("{\"topic\":\"t\",\"data\":\"1\"}\n").await;
    client.answer().await;
    client.stream.write_all(b"no chunk\r\n").await.unwrap();
    let end = client.answer().await;
    assert_eq!((&end["line"], &end["status"]), (&json!(2), &json!(400)), "{end}");

    let mut client = Client::open(&server, "").await;
    client.send("{\"topic\":\"t\",\"data\":\"1\"}\n{\"topic\":").await;
    client.answer().await;
    server.stop.begin();
    let end = client.answer().await;
    assert_eq!((&end["line"], &end["status"]), (&json!(2), &json!(503)), "{end}");
}

#[tokio::test]
async fn a_request_that_is_no_lines_of_json_is_refused_with_advice() {
    let server = Server::start().await;
    let line = "{\"topic\":\"t\",\"data\":\"\"}";
    let send = async |query: &str, headers: &str| {
        let length = line.len();
        let head =
            format!("POST /events{query} HTTP/1.0\r\nContent-Length: {length}\r\n{headers}\r\n");
        server.send(format!("{head}{line}").as_bytes()).await
    };
    let json = "Content-Type: application/json\r\n";
    let keyed = format!("{NDJSON}Idempotency-Key: k\r\n");
    for (query, headers, status, advice) in [
        ("", "", 415, "application/x-ndjson"),
        ("", json, 415, "name its topic in the path"),
        ("", &*keyed, 400, "Give each line its own `key`."),
        ("?topic=t", NDJSON, 400, "Use the member `topic` of each line."),
        ("?split=lines", NDJSON, 400, "as the path"),
    ] {
        let response = send(query, headers).await;
        assert_eq!(response.status(), status, "{query} {headers}");
        let body = response.rest().await;
        assert!(body.contains(advice), "{advice}: {body}");
    }
    let parameters = "Content-Type: Application/X-NDJSON; charset=utf-8\r\n";
    assert_eq!(send("?_=1", parameters).await.status(), 200);
    assert_eq!(server.hub.newest(), 1);
}

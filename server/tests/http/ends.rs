//! Publishes that end a topic, and uploads that do. What readers get is tested in `transports`.

use std::time::Duration;

use server::auth::Access;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{REMOTE, Server, Settings, event_id};

/// Publishes, and checks the status and a part of the answer.
async fn expect(server: &Server, path: &str, headers: &str, body: &str, status: u16, part: &str) {
    let response = server.post(path, headers, body.as_bytes()).await;
    let found = response.status();
    assert_eq!(response.header("retry-after"), None, "{path}: the same request fails again");
    let answer = response.rest().await;
    assert_eq!(found, status, "{path}: {answer}");
    assert!(answer.contains(part), "{path}: {answer}");
}

#[tokio::test]
async fn each_way_to_end_and_reopen_a_topic_has_a_defined_answer() {
    let server = Server::start().await;
    let (key, other_key) = ("Idempotency-Key: k\r\n", "Idempotency-Key: l\r\n");
    let done = format!("{{\"id\":\"{}\",\"topic\":\"t\",\"outcome\":\"done\"}}", event_id(2));
    let failed = format!(
        "{{\"id\":\"{}\",\"topic\":\"u\",\"outcome\":\"failed\",\"message\":\"no \\\"x\\\"\"}}",
        event_id(3)
    );
    let long = "x".repeat(1025);
    for (path, headers, body, status, part) in [
        ("t", "", "x", 201, "\"data\":\"x\""),
        ("t?end", key, "", 201, &*done),
        ("t?end=done", "", "", 201, &*done),
        ("t?end", other_key, "", 201, &*done),
        ("t?end", key, "", 201, &*done),
        ("t?end=failed", key, "why", 422, "was used for an event with another name"),
        ("t?end=failed", "", "why", 409, "The topic has ended."),
        ("t", "", "x", 409, "The topic has ended. With `reopen`, a publish opens it again."),
        ("u?end=failed", "", "no \"x\"", 201, &*failed),
        ("u?end=failed", "", "no \"x\"", 201, &*failed),
        ("u?reopen=true", "", "x", 201, "\"data\":\"x\""),
        ("u", "", "x", 201, "\"data\":\"x\""),
        ("t?reopen", "", "x", 201, "\"data\":\"x\""),
        // A late retry of the end does not end the topic again, whichever request it repeats.
        ("t?end", key, "", 201, &*done),
        ("t?end", other_key, "", 201, &*done),
        ("t?reopen=false", "", "x", 201, "\"data\":\"x\""),
        ("v?end=failed", "", "", 201, "\"outcome\":\"failed\"}"),
        // Nothing is lost silently.
        ("w?end", "", "x", 400, "Publish the last event before it, or use `end=failed`"),
        ("w?end=failed", "", &long, 413, "at most 1024 bytes long"),
        ("w?end=fail", "", "", 400, "\\\"fail\\\" is not an outcome."),
        ("w?end&name=n", "", "", 400, "The end of a topic has no name."),
        ("w?end&reopen", "", "", 400, "cannot end a topic and reopen it"),
        ("w?reopen=1", "", "", 400, "\\\"1\\\" is not a boolean."),
        ("w?split=lines&end=failed", "", "", 400, "Use `end` without a value."),
        ("w?complete", "", "", 400, "Use `end`."),
        ("w?ends", "", "", 400, "Use `end`."),
        ("w?reopne", "", "", 400, "Use `reopen`."),
        ("w.*?end", "", "", 400, "is not a topic"),
        ("w?end", REMOTE, "", 403, "not local"),
        ("clock?end", "", "", 403, "Only the server itself"),
    ] {
        expect(&server, path, headers, body, status, part).await;
    }
    assert_eq!(server.hub.newest(), 8);
    assert_eq!(server.metric("waterclock_events_published_total").await, 5, "ends are no events");
}

#[tokio::test]
async fn an_end_counts_as_a_topic_and_makes_room_for_another() {
    let server = Server::start_with(Settings { max_topics: 2, ..Settings::default() }).await;
    for (path, body, status) in [
        ("a", "x", 201),
        ("b?end", "", 201),
        // `b` has no events, so it makes room.
        ("c", "x", 201),
        ("d?end", "", 507),
        ("c?end", "", 201),
        ("b", "x", 507),
    ] {
        expect(&server, path, "", body, status, "").await;
    }
    let all = server.get("/poll?topic=%3E&last_event_id=earliest").await.rest().await;
    assert!(all.contains("\"ends\":[{"), "{all}");
    assert!(all.contains("\"topic\":\"c\",\"outcome\":\"done\"}],\"more\":false"), "{all}");
}

#[tokio::test]
async fn a_reader_without_a_cursor_is_told_by_a_poll_and_then_stopped() {
    let server = Server::start().await;
    expect(&server, "t", "", "x", 201, "").await;
    expect(&server, "t?end", "", "", 201, "").await;
    let first = server.get("/poll?topic=t").await;
    assert_eq!(first.status(), 200);
    let first = first.rest().await;
    assert!(first.contains("\"outcome\":\"done\",\"last\":true}]"), "{first}");
    assert!(first.contains(&format!("\"cursor\":\"{}\"", event_id(2))), "{first}");
    let next = server.get(&format!("/poll?topic=t&last_event_id={}", event_id(2))).await;
    assert_eq!((next.status(), next.rest().await.as_str()), (204, ""));
}

#[tokio::test]
async fn an_end_on_a_stream_has_the_documented_form() {
    let server = Server::start().await;
    expect(&server, "t", "", "x", 201, "").await;
    let mut stream = server.get("/events?topic=t&last_event_id=earliest").await;
    stream.message().await;
    assert_eq!(stream.block().await, format!("id: {}\ndata: x\n\n", event_id(1)));
    expect(&server, "t?end=failed", "", "why", 201, "").await;
    assert_eq!(
        stream.block().await,
        format!(
            "id: {}\nevent: end\ndata: {{\"topic\":\"t\",\"outcome\":\"failed\",\
             \"message\":\"why\",\"last\":true}}\n\n",
            event_id(2)
        )
    );
    assert!(stream.has_ended().await);
    let mut pattern = server.get("/events?topic=*&last_event_id=earliest").await;
    pattern.message().await;
    pattern.block().await;
    let end = "event: end\ndata: {\"topic\":\"t\",\"outcome\":\"failed\",\"message\":\"why\"}";
    assert_eq!(pattern.block().await, format!("id: {}\n{end}\n\n", event_id(2)));
}

/// Begins an upload of lines that is to end the topic `t`.
async fn begin(server: &Server, query: &str, lines: &str) -> TcpStream {
    let mut publisher = server.connect().await;
    let head = format!(
        "PUT /events/t?split=lines&{query} HTTP/1.1\r\nHost: localhost\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
    publisher.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
    publisher
}

/// Completes an upload, and returns the response.
async fn complete(mut publisher: TcpStream) -> String {
    publisher.write_all(b"0\r\n\r\n").await.unwrap();
    String::from_utf8(crate::support::read_until_closed(publisher).await).unwrap()
}

/// Waits until this number of uploads is open.
async fn wait_for_uploads(server: &Server, count: u64) {
    server.wait_for_metric("waterclock_lines_open", |open| open == count).await;
}

#[tokio::test]
async fn a_complete_upload_ends_its_topic_as_done() {
    let server = Server::start().await;
    let mut reader = server.get("/events?topic=t").await;
    reader.message().await;
    let upload = begin(&server, "end", "one\ntwo").await;
    assert_eq!(reader.message().await.data, "one");
    let response = complete(upload).await;
    let end = format!("{{\"id\":\"{}\",\"topic\":\"t\",\"outcome\":\"done\"}}", event_id(3));
    assert!(response.contains(&format!("{{\"published\":2,\"end\":{end}}}")), "{response}");
    assert_eq!(reader.message().await.data, "two");
    assert!(reader.message().await.data.contains("\"done\""));
    assert!(reader.has_ended().await);
    // Without lines; and lines to an ended topic, which their producer must open.
    expect(&server, "u?split=lines&end", "", "", 200, "{\"published\":0,\"end\":{").await;
    expect(&server, "t?split=lines&end", "", "x", 409, "0 lines were published before.").await;
    expect(&server, "t?split=lines&end&reopen", "", "a\nb", 200, "{\"published\":2,\"end\"").await;
    assert_eq!(server.hub.newest(), 7);
}

#[tokio::test]
async fn an_upload_that_breaks_off_fails_its_topic_after_the_grace_time() {
    let upload_grace = Duration::from_millis(1);
    let server = Server::start_with(Settings { upload_grace, ..Settings::default() }).await;
    let mut reader = server.get("/events?topic=t").await;
    reader.message().await;
    drop(begin(&server, "end", "whole\nhal").await);
    assert_eq!(reader.message().await.data, "whole");
    let end = reader.message().await.data;
    assert!(end.contains("\"failed\",\"message\":\"The upload broke off.\""), "{end}");
    // A line that the server refuses breaks it off, too, with the reason.
    let mut reader = server.get("/events?topic=u").await;
    reader.message().await;
    let lines = [b"a\n", &[0xff, b'\n'][..]].concat();
    let response = server.post("u?split=lines&end", "", &lines).await;
    assert_eq!(response.status(), 400);
    assert_eq!(reader.message().await.data, "a");
    assert!(reader.message().await.data.contains("must be UTF-8"));
}

#[tokio::test]
async fn an_upload_that_continues_one_that_broke_off_ends_its_topic_as_done() {
    let server = Server::start().await;
    let mut reader = server.get("/events?topic=t").await;
    reader.message().await;
    let broken = begin(&server, "end", "one\n").await;
    assert_eq!(reader.message().await.data, "one");
    drop(broken);
    wait_for_uploads(&server, 0).await;
    let upload = begin(&server, "end", "two\n").await;
    assert_eq!(reader.message().await.data, "two");
    let response = complete(upload).await;
    assert!(response.contains("\"outcome\":\"done\""), "{response}");
    assert_eq!(server.hub.newest(), 3);
}

#[tokio::test]
async fn an_upload_that_nobody_reads_fails_its_topic_with_that_reason() {
    let upload_grace = Duration::from_millis(1);
    let server = Server::start_with(Settings { upload_grace, ..Settings::default() }).await;
    let upload = begin(&server, "end&while=read&patience=1", "one\n").await;
    let response = crate::support::read_until_closed(upload).await;
    let response = String::from_utf8(response).unwrap();
    let why =
        "The upload was stopped, as `while=read` asks: no reader has named the topic for 1 s.";
    assert!(response.starts_with("HTTP/1.1 409") && response.contains(why), "{response}");
    let polled = server.get("/poll?topic=t&wait=50").await.rest().await;
    let end = format!("\"outcome\":\"failed\",\"message\":\"{why}\"");
    assert!(polled.contains(&end), "{polled}");
}

/// Waits out the grace time of an upload to another topic, which broke off later.
async fn outlast(server: &Server) {
    let mut reader = server.get("/events?topic=other").await;
    reader.message().await;
    assert_eq!(server.post("other?split=lines&end", "", b"\xff").await.status(), 400);
    assert!(reader.message().await.data.contains("failed"));
}

#[tokio::test]
async fn an_upload_that_breaks_off_beside_another_fails_no_topic() {
    let upload_grace = Duration::from_millis(50);
    let server = Server::start_with(Settings { upload_grace, ..Settings::default() }).await;
    let first = begin(&server, "end", "one\n").await;
    wait_for_uploads(&server, 1).await;
    let second = begin(&server, "end", "two\n").await;
    wait_for_uploads(&server, 2).await;
    drop(second);
    wait_for_uploads(&server, 1).await;
    outlast(&server).await;
    let response = complete(first).await;
    assert!(response.contains("\"outcome\":\"done\""), "{response}");
}

#[tokio::test]
async fn a_server_that_drains_fails_no_topic() {
    let upload_grace = Duration::from_millis(1);
    let server = Server::start_with(Settings { upload_grace, ..Settings::default() }).await;
    let upload = begin(&server, "end", "one\n").await;
    wait_for_uploads(&server, 1).await;
    server.wait_for_metric("waterclock_events_published_total", |events| events == 1).await;
    server.stop.begin();
    let response = crate::support::read_until_closed(upload).await;
    assert!(String::from_utf8_lossy(&response).contains("The server is shutting down."));
    server.serving.await.unwrap();
    assert_eq!(server.hub.newest(), 1);
}

#[tokio::test]
async fn only_who_may_publish_ends_a_topic() {
    let public_topics = vec!["t".parse().unwrap()].into();
    let server = Server::with_access(Access { public_topics, ..Access::default() }).await;
    expect(&server, "t?end", REMOTE, "", 403, "").await;
    expect(&server, "t", "", "x", 201, "").await;
}

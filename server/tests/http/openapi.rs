//! The `OpenAPI` document, compared with the behaviour of the server.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use serde_json::{Value, json};
use waterclock::{notice::TopicEnd, transport::Transport};
use waterclock_axum::StreamLimits;

use crate::{
    readers::ReadRequest,
    support::{REMOTE, Server, Settings, TestResponse},
    tokens,
    ws::WebSocketClient,
};

/// Returns the documented response of an operation for a status.
fn documented<'a>(document: &'a Value, path: &str, method: &str, status: u16) -> &'a Value {
    let response = &document["paths"][path][method]["responses"][status.to_string()];
    assert!(!response.is_null(), "{method} {path} has no documented response {status}");
    match response["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => response,
    }
}

/// Compares a response with the documented one.
async fn check(document: &Value, path: &str, method: &str, response: TestResponse) {
    let expected = documented(document, path, method, response.status());
    for (name, header) in expected["headers"].as_object().into_iter().flatten() {
        let found = response.header(&name.to_lowercase());
        assert!(found.is_some() || header["required"] != true, "{method} {path}: {name}");
    }
    let Some(content) = expected["content"].as_object() else {
        assert_eq!(response.header("content-type"), None, "{method} {path}");
        return;
    };
    let found = response.header("content-type").expect("a content type").to_owned();
    let found = found.split(';').next().unwrap_or_default();
    let media = content.get(found);
    let media = media
        .unwrap_or_else(|| panic!("{method} {path} has the undocumented content type {found}"));
    if !found.ends_with("json") || method == "head" {
        return;
    }
    // Only lines of JSON may be several values, or none.
    let body = response.rest().await;
    let values = serde_json::Deserializer::from_str(&body).into_iter::<Value>();
    let values: Vec<_> = values.map(Result::unwrap).collect();
    assert!(values.len() == 1 || found == "application/x-ndjson", "{method} {path}: {body}");
    for value in values {
        let errors = validation_errors(document, &media["schema"], &value);
        assert!(errors.is_empty(), "{method} {path}: {errors:?}: {value}");
    }
}

/// Validates a value against a schema of the document, and returns the errors.
fn validation_errors(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    // A schema refers to other schemas of the document.
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(value).map(|error| error.to_string()).collect()
}

async fn document(server: &Server) -> Value {
    serde_json::from_str(&server.get("/openapi.json").await.rest().await).unwrap()
}

/// The cursor of a stream with a limit that has sent one event.
const ONE_SENT: &str = "Last-Event-ID: 000000000000c10c-1.1\r\n";

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn every_response_matches_the_document() {
    let server = Server::start_with(Settings {
        access: tokens::access(),
        max_topics: 2,
        max_publishes: NonZeroU32::MIN,
        ..Settings::default()
    })
    .await;
    let document = document(&server).await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let key = "Idempotency-Key: k\r\n";
    let token = tokens::bearer(&tokens::token(json!({"publish": ["t"]})));
    let long = "x".repeat(65_537);
    let socket = "Host: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (socket_remote, socket_token) = (format!("{socket}{REMOTE}"), format!("{socket}{token}"));
    let meter = "/meters/meter-of-the-test";
    let (cut, no_meter, no_cut) =
        (format!("{meter}/cut"), format!("{meter}-"), format!("{meter}-/cut"));
    let tag = server.get("/client.js").await.header("etag").unwrap().to_owned();
    let client = format!("If-None-Match: {tag}\r\n");
    let mut seen = BTreeSet::new();
    let (ndjson, line) =
        ("Content-Type: application/x-ndjson\r\n", "{\"topic\":\"t\",\"data\":\"\"}");
    let ndjson_with_token = format!("{ndjson}{}", tokens::bearer(&tokens::token(json!({}))));
    for (path, method, target, headers, body, status) in [
        ("/events/{topic}", "post", "/events/t?end=failed", "", "why", 201),
        ("/events/{topic}", "post", "/events/t", "", "x", 409),
        ("/poll", "get", "/poll?topic=t", "", "", 200),
        ("/poll", "get", "/poll?topic=t&last_event_id=000000000000c10c-1", "", "", 204),
        ("/events/{topic}", "post", "/events/t?split=lines&end&reopen", "", "a\nb", 200),
        ("/events/{topic}", "post", "/events/t?reopen", "", "x", 201),
        ("/events", "post", "/events", ndjson, line, 200),
        ("/events", "post", "/events", ndjson, "", 200),
        ("/events", "post", "/events?topic=t", ndjson, line, 400),
        ("/events", "post", "/events", REMOTE, line, 401),
        ("/events", "post", "/events", &ndjson_with_token, line, 403),
        ("/events", "post", "/events", "", line, 415),
        ("/events/{topic}", "post", "/events/t", "", "x", 201),
        ("/events/{topic}", "post", "/events/t?name=n", key, "x", 201),
        ("/events/{topic}", "post", "/events/t", key, "y", 422),
        ("/events/{topic}", "post", "/events/t?split=lines", "", "a\nb", 200),
        ("/events/{topic}", "post", "/events/t?split=events", "", "x\ndata: a\n\ndata", 200),
        ("/events/{topic}", "post", "/events/t?split=chunks", "", "a", 200),
        ("/events/{topic}", "post", "/events/t?name=gap", "", "x", 400),
        ("/events/{topic}", "post", "/events/t", REMOTE, "x", 401),
        ("/events/{topic}", "post", "/events/clock", "", "x", 403),
        ("/events/{topic}", "post", "/events/t", "", &long, 413),
        ("/events/{topic}", "put", "/events/t", &token, "x", 429),
        ("/events/{topic}", "put", "/events/second", "", "x", 201),
        ("/events/{topic}", "put", "/events/third", "", "x", 507),
        ("/events/{topic}", "delete", "/events/t", "", "", 200),
        ("/events/{topic}", "delete", "/events/t?before=x", "", "", 400),
        ("/events/{topic}", "delete", "/events/t", REMOTE, "", 401),
        ("/events/{topic}", "delete", "/events/clock", "", "", 403),
        ("/topics", "get", "/topics?limit=1", "", "", 200),
        ("/topics", "get", "/topics?match=t.*", "Accept: text/html\r\n", "", 200),
        ("/topics", "get", "/topics?limit=0", "", "", 400),
        ("/topics", "get", "/topics", REMOTE, "", 401),
        ("/topics", "get", "/topics", &token, "", 403),
        ("/topics/{topic}", "get", "/topics/second", "", "", 200),
        ("/topics/{topic}", "get", "/topics/a..b", "", "", 400),
        ("/topics/{topic}", "get", "/topics/second", REMOTE, "", 401),
        ("/topics/{topic}", "get", "/topics/second", &token, "", 403),
        ("/events", "get", "/events", "", "", 200),
        ("/events", "get", "/events?limit=1", ONE_SENT, "", 204),
        ("/events", "get", "/events?topic=a..b", "", "", 400),
        ("/events", "get", "/events", REMOTE, "", 401),
        ("/events", "get", "/events", &token, "", 403),
        ("/events", "head", "/events", "", "", 200),
        ("/events", "head", "/events?limit=1", ONE_SENT, "", 204),
        ("/events", "head", "/events?topic=a..b", "", "", 400),
        ("/events", "head", "/events", REMOTE, "", 401),
        ("/events", "head", "/events", &token, "", 403),
        ("/events/{topic}", "get", "/events/t", "", "", 200),
        ("/events/{topic}", "get", "/events/t?limit=1", ONE_SENT, "", 204),
        ("/events/{topic}", "get", "/events/a..b", "", "", 400),
        ("/events/{topic}", "get", "/events/t?meter=short", "", "", 400),
        ("/events/{topic}", "get", "/events/t", REMOTE, "", 401),
        ("/events/{topic}", "get", "/events/u", &token, "", 403),
        ("/events/{topic}", "head", "/events/t", "", "", 200),
        ("/events/{topic}", "head", "/events/t?limit=1", ONE_SENT, "", 204),
        ("/events/{topic}", "head", "/events/t?since=x", "", "", 400),
        ("/events/{topic}", "head", "/events/t", REMOTE, "", 401),
        ("/events/{topic}", "head", "/events/u", &token, "", 403),
        ("/poll", "get", "/poll?topic=t&last_event_id=earliest", "", "", 200),
        ("/poll", "get", "/poll?topic=t&last_event_id=nonsense", "", "", 200),
        ("/poll", "get", "/poll?topic=t&before=000000000000c10c-2&limit=1", "", "", 200),
        ("/poll", "get", "/poll?topic=t&before=000000000000c10d-2", "", "", 200),
        ("/poll", "get", "/poll?wait=100", "", "", 400),
        ("/poll", "get", "/poll", REMOTE, "", 401),
        ("/poll", "get", "/poll", &token, "", 403),
        ("/ws", "get", "/ws?meter=meter-of-the-test", socket, "", 101),
        ("/ws", "get", "/ws?meter=short", socket, "", 400),
        ("/ws", "get", "/ws", &socket_remote, "", 401),
        ("/ws", "get", "/ws", &socket_token, "", 403),
        ("/ws", "get", "/ws", "", "", 426),
        ("/events", "get", "/events?meter=meter.of.the.test", "", "", 400),
        ("/poll", "get", "/poll?meter=meter-of-the-test", "", "", 200),
        ("/meters/{meter}", "get", meter, REMOTE, "", 200),
        ("/meters/{meter}", "get", &no_meter, "", "", 404),
        ("/meters/{meter}/cut", "post", &cut, REMOTE, "", 200),
        ("/meters/{meter}/cut", "post", &no_cut, "", "", 404),
        ("/load", "post", "/load?rate=0", "", "", 400),
        ("/load", "post", "/load", REMOTE, "", 403),
        ("/load", "post", "/load?rate=1&size=0&seconds=9", "", "", 201),
        ("/load", "post", "/load?rate=1&size=0", "", "", 200),
        ("/load", "post", "/load", "", "", 409),
        ("/load", "delete", "/load", REMOTE, "", 403),
        ("/load", "delete", "/load", "", "", 204),
        ("/diagnose/stream", "get", "/diagnose/stream?events=2", REMOTE, "", 200),
        ("/diagnose/stream", "get", "/diagnose/stream?events=0", "", "", 400),
        ("/diagnose/stream", "post", "/diagnose/stream", "", "", 200),
        ("/diagnose/stream", "post", "/diagnose/stream?bytes=9000", "", "", 400),
        ("/diagnose/stream", "head", "/diagnose/stream", "", "", 200),
        ("/diagnose/stream", "head", "/diagnose/stream?events=0", "", "", 400),
        ("/metrics", "get", "/metrics", "", "", 200),
        ("/metrics", "get", "/metrics", REMOTE, "", 403),
        ("/client.js", "get", "/client.js", "", "", 200),
        ("/client.js", "get", "/client.js", &client, "", 304),
        ("/time", "get", "/time", "", "", 200),
        ("/health/live", "get", "/health/live", "", "", 200),
        ("/health/ready", "get", "/health/ready", "", "", 200),
        ("/health/ready", "get", "/health/ready?publish=1", "", "", 400),
        ("/health/state", "get", "/health/state", "", "", 200),
        ("/openapi.json", "get", "/openapi.json", "", "", 200),
    ] {
        let (verb, length) = (method.to_uppercase(), body.len());
        let version = if headers.contains("Upgrade") { "1.1" } else { "1.0" };
        let request = format!(
            "{verb} {target} HTTP/{version}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        let mut response = server.send(request.as_bytes()).await;
        // The rate limit is reached sooner or later, depending on the speed.
        while status == 429 && response.status() == 201 {
            response = server.send(request.as_bytes()).await;
        }
        assert_eq!(response.status(), status, "{verb} {target}");
        seen.insert((path, method, status));
        check(&document, path, method, response).await;
    }

    for (total, per_address, status) in [(9, 0, 429), (0, 9, 503)] {
        let limits = StreamLimits { total, per_address };
        let full = Server::start_with(Settings { limits, ..Settings::default() }).await;
        let response = full.get("/poll?wait=1").await;
        assert_eq!(response.status(), status);
        seen.insert(("/poll", "get", status));
        check(&document, "/poll", "get", response).await;
    }

    // The other documented responses need a slow client, or a server that fails or stops.
    let not_tested_here = [408, 500, 503];
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for (status, _) in operation["responses"].as_object().into_iter().flatten() {
                let status: u16 = status.parse().unwrap();
                let is_seen = |method| seen.contains(&(path.as_str(), method, status));
                // PUT and POST are equivalent.
                let is_seen = is_seen(method.as_str())
                    || path == "/events/{topic}" && (is_seen("post") || is_seen("put"));
                assert!(is_seen || not_tested_here.contains(&status), "{method} {path} {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_pattern_is_accepted_exactly_if_it_matches_its_schema() {
    let server = Server::start().await;
    let document = document(&server).await;
    let schema = &document["components"]["schemas"]["pattern"];
    let (many, long) = (vec!["t"; 20].join("."), "t".repeat(255));
    for pattern in [
        "t",
        "t.u",
        "*",
        ">",
        "t.*.u",
        "t.>",
        "*.>",
        "*.*.*.*.*",
        "*.*.*.*.*.*",
        "*.*.*.*.*.>",
        "",
        ".",
        "t.",
        ".t",
        "t..u",
        ">.t",
        "t>",
        "*t",
        "t.**",
        "t u",
        "t\n",
        "\u{fc}",
        &many,
        &long,
        &format!("{many}.*"),
        &format!("{many}.>"),
        &format!("{long}t"),
        "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.>",
    ] {
        let is_valid = validation_errors(&document, schema, &json!(pattern)).is_empty();
        let query: String =
            form_urlencoded::Serializer::new(String::new()).append_pair("topic", pattern).finish();
        let status = server.get(&format!("/poll?{query}")).await.status();
        assert_eq!(status, if is_valid { 200 } else { 400 }, "{pattern:?}");
    }
}

#[tokio::test]
async fn a_probe_event_matches_its_schema() {
    let server = Server::start().await;
    let document = document(&server).await;
    let mut response = server.get("/diagnose/stream?events=2&bytes=3").await;
    for number in 1..=2 {
        let probe = serde_json::from_str(&response.message().await.data).unwrap();
        let errors =
            validation_errors(&document, &document["components"]["schemas"]["probe"], &probe);
        assert!(errors.is_empty(), "{errors:?}: {probe}");
        assert_eq!(probe["number"], number);
    }
}

#[tokio::test]
async fn websocket_messages_match_their_schemas() {
    let heartbeat = Duration::from_millis(50);
    let server = Server::start_with(Settings { heartbeat, ..Settings::default() }).await;
    let document = document(&server).await;
    let schemas = &document["components"]["schemas"];
    let mut seen = BTreeSet::new();
    let mut check = |message: &Value| {
        let errors = validation_errors(&document, &schemas["serverMessage"], message);
        assert!(errors.is_empty(), "{errors:?}: {message}");
        let name = message.as_object().unwrap().keys().find(|name| *name != "id").unwrap();
        seen.insert(name.clone());
        name.clone()
    };
    let request = |query| ReadRequest::new(&server, Transport::WebSocket, query);

    // The streams differ in gaps, limits and retained events.
    let mut socket = WebSocketClient::handshake(request("topic=t")).await;
    while check(&socket.receive().await) != "heartbeat" {}
    for (message, is_valid) in [
        (json!({"topic": "t", "data": ""}), true),
        (json!({"topic": "t.u", "data": "x", "name": "n", "key": "k"}), true),
        (json!({"topic": "t", "data": "\0", "name": "", "key": "ü"}), true),
        (json!({"topic": "t..u", "data": ""}), false),
        (json!({"topic": "*", "data": ""}), false),
        (json!({"topic": "t".repeat(256), "data": ""}), false),
        (json!({"topic": "t", "data": "", "name": "gap"}), false),
        (json!({"topic": "t", "data": "", "name": "n".repeat(256)}), false),
        (json!({"topic": "t", "data": "", "key": ""}), false),
        (json!({"topic": "t", "data": "", "key": "k".repeat(256)}), false),
        (json!({"topic": "t", "data": "", "key": "a\nb"}), false),
        (json!({"topic": "t", "data": "x".repeat(65_537)}), false),
        (json!({"topic": "t", "data": 1}), false),
        (json!({"topic": "t"}), false),
        (json!({"topic": "t", "data": "", "id": ""}), false),
    ] {
        let message = json!({"publish": message});
        let matches_schema =
            validation_errors(&document, &schemas["clientMessage"], &message).is_empty();
        assert_eq!(matches_schema, is_valid, "{message}");
        socket.send_json(&message).await;
        let response = loop {
            let name = check(&socket.receive().await);
            if name == "published" || name == "problem" {
                break name;
            }
        };
        assert_eq!(response, if is_valid { "published" } else { "problem" }, "{message}");
    }
    let mut socket = WebSocketClient::handshake(
        request("topic=t&limit=9&conflate&max_delay=20").after("nonsense"),
    )
    .await;
    while check(&socket.receive().await) != "heartbeat" {}
    let mut socket = WebSocketClient::handshake(request("topic=t&limit=1").earliest()).await;
    while check(&socket.receive().await) != "end" {}
    for topic in ["t.u", "t"] {
        let end = TopicEnd::failed(topic.parse().unwrap(), "why".to_owned());
        server.hub.publish(end.draft()).await.unwrap();
    }
    for query in ["topic=t&topic=t.u", "topic=t&topic=t.u&limit=9"] {
        let mut socket = WebSocketClient::handshake(request(query).after("nonsense")).await;
        for expected in ["hello", "gap", "end", "end"] {
            assert_eq!(check(&socket.receive().await), expected);
        }
    }
    let mut socket = WebSocketClient::handshake(request("topic=t.*").earliest()).await;
    check(&socket.receive().await);
    server.stop.begin();
    while check(&socket.receive().await) != "goodbye" {}
    let kinds = schemas["serverMessage"]["oneOf"].as_array().unwrap().iter();
    let kinds: BTreeSet<_> = kinds.map(|kind| kind["required"][0].as_str().unwrap()).collect();
    assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), kinds);
}

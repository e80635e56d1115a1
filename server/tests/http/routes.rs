//! Every route with every method and malformed parts: each refusal is typed and comes at once.

use serde_json::Value;
use server::routes::paths;

use crate::support::{REMOTE, Server, TestResponse};

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// Sends a request with any bytes in it. The last line end of `headers` belongs to the caller.
async fn send(server: &Server, line: &str, headers: &[u8], body: &[u8]) -> TestResponse {
    let head = format!("{line} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    server.send(&[head.as_bytes(), headers, b"\r\n", body].concat()).await
}

/// Checks that a refusal is a problem with its own status, and that `HEAD` has no body. Returns
/// the status.
async fn check(response: TestResponse, method: &str, description: &str) -> u16 {
    let status = response.status();
    assert!(status < 500, "{description}: {status}");
    let content_type = response.header("content-type").unwrap_or_default().to_owned();
    if status >= 400 {
        assert_eq!(content_type, "application/problem+json", "{description}: {status}");
    }
    if method == "HEAD" {
        assert_eq!(response.rest().await, "", "{description}: {status}");
    } else if status >= 400 {
        let problem: Value = serde_json::from_str(&response.rest().await).expect(description);
        assert_eq!(problem["status"], status, "{description}");
        assert!(problem["detail"].as_str().is_some_and(|why| why.ends_with('.')), "{problem}");
    }
    status
}

fn filled(path: &str) -> String {
    path.replace("{topic}", "t").replace("{meter}", "a-meter-that-nobody-has-used")
}

#[tokio::test]
async fn each_route_answers_each_method_at_once() {
    let server = Server::start().await;
    for path in paths() {
        let path = &filled(path);
        let unknown = send(&server, &format!("NONSENSE {path}"), b"", b"").await;
        let allow = unknown.header("allow").expect(path).to_owned();
        assert_eq!(check(unknown, "NONSENSE", path).await, 405);
        let allowed: Vec<_> = allow.split(',').collect();
        assert!(!allowed.is_empty() && allowed.iter().all(|one| METHODS.contains(one)), "{allow}");
        // Whoever may read a resource may ask for its head.
        assert_eq!(allowed.contains(&"GET"), allowed.contains(&"HEAD"), "{path}");
        let mut head = None;
        for method in METHODS {
            // A `HEAD` that waited would exceed the deadline of the test's client.
            let query = if method == "HEAD" && path == "/poll" { "?wait=55" } else { "" };
            let description = format!("{method} {path}{query}");
            let response = send(&server, &description, b"", b"").await;
            let found = response.header("allow").map(str::to_owned);
            let content_type = response.header("content-type").map(str::to_owned);
            let status = check(response, method, &description).await;
            assert_eq!(status == 405, !allowed.contains(&method), "{description}");
            if status == 405 {
                assert_eq!(found.as_ref(), Some(&allow), "{description}");
            }
            match method {
                "GET" => head = Some((status, content_type)),
                "HEAD" => assert_eq!(Some((status, content_type)), head, "{description}"),
                _ => {}
            }
        }
    }
    assert_eq!(server.streams.count(), 0, "none is left open");
}

#[tokio::test]
async fn malformed_parts_get_a_problem() {
    let server = Server::start().await;
    let long = format!("/{}", "x".repeat(300));
    let values = "?limit=x&wait=x&since=x&format=x&conflate=x&max_delay=x&events=x&bytes=x&rate=x\
                  &split=x&meter=x";
    let headers: &[&[u8]] = &[
        b"Authorization: Bearer \xff\r\n",
        b"Cookie: waterclock_token=\xff; =;;\r\n",
        b"Last-Event-ID: \xff\r\n",
        b"Idempotency-Key: \xff\r\n",
        b"Accept: \xff\r\nAccept-Encoding: \xff\r\n",
        b"Origin: \xff\r\nHost: localhost\r\n",
        b"Content-Type: \xff\r\n",
        b"Content-Type: application/x-ndjson\r\n",
        b"Upgrade: x\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\n",
        b"Range: bytes=9-1\r\nIf-Match: x\r\nIf-Modified-Since: x\r\n",
        REMOTE.as_bytes(),
    ];
    for path in paths() {
        for method in METHODS {
            let target = filled(path);
            for query in ["", "?", "?&&=", "?%ff=%00&%", values] {
                let line = format!("{method} {target}{query}");
                check(send(&server, &line, b"", b"").await, method, &line).await;
                check(send(&server, &line, b"", b"\xff\0{").await, method, &line).await;
            }
            for headers in headers {
                let line = format!("{method} {target}");
                let description = format!("{line} {}", String::from_utf8_lossy(headers));
                let response = send(&server, &line, headers, b"").await;
                check(response, method, &description).await;
            }
            for part in ["%ff", "%00", "%2F", "..", "a..b", "%", "*", "%0d%0a", &long[1..]] {
                let target = path.replace("{topic}", part).replace("{meter}", part);
                if target != path {
                    let line = format!("{method} {target}");
                    let status = check(send(&server, &line, b"", b"x").await, method, &line).await;
                    // A pattern can be read.
                    let is_read = ["GET /events/*", "HEAD /events/*"].contains(&&*line);
                    assert_eq!(status < 400, is_read, "{line}: {status}");
                }
            }
        }
    }
    for target in ["/nothing", "/events/", "/events/t/u", "//", "/%ff"] {
        for method in METHODS {
            let line = format!("{method} {target}");
            assert_eq!(check(send(&server, &line, b"", b"").await, method, &line).await, 404);
        }
    }
}

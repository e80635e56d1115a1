//! `waterclock diagnose` against the server itself, and against proxies with one fault each. It
//! must find that fault, and no other.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

#[path = "../binary/mod.rs"]
mod binary;
mod origin;
mod proxy;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::Stdio,
    sync::{Condvar, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use origin::{CHUNKED, End, Http2End, STREAM};
use proxy::Proxy;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

/// Timeout of every wait.
const DEADLINE: Duration = Duration::from_secs(100);

/// A server that ends with the test.
struct TestServer {
    address: SocketAddr,
    child: Child,
    _data: TempDir,
}

impl TestServer {
    async fn start(options: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(binary::waterclock())
            .args(["--listen=127.0.0.1:0", "--store=memory"])
            .args(options)
            .current_dir(data.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, stdout.next_line()).await.unwrap().unwrap().unwrap();
        let (_, address) = line.split_once("://").unwrap();
        let address = address.parse().unwrap();
        Self { address, child, _data: data }
    }
}

/// The exit code and the output of the program.
struct ProgramOutput {
    code: i32,
    stdout: String,
    stderr: String,
}

impl ProgramOutput {
    fn report(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

/// A command whose environment names no proxy and no server.
fn command(options: &[&str]) -> Command {
    let mut command = Command::new(binary::waterclock());
    command
        .arg("diagnose")
        .args(options)
        // The machine's own proxy must not be part of the path.
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("https_proxy")
        .env_remove("HTTPS_PROXY")
        .env_remove("all_proxy")
        .env_remove("ALL_PROXY")
        .env_remove("WATERCLOCK_URL")
        .env_remove("WATERCLOCK_TOKEN")
        .kill_on_drop(true);
    command
}

async fn diagnose(options: &[&str]) -> ProgramOutput {
    let output = timeout(DEADLINE, command(options).output()).await.expect("the end").unwrap();
    ProgramOutput {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn faults(report: &Value) -> BTreeSet<&str> {
    let findings = report["findings"].as_array().unwrap().iter();
    let faults = findings.flat_map(|finding| finding["faults"].as_array().unwrap());
    faults.map(|fault| fault["name"].as_str().unwrap()).collect()
}

fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["check"] == check).expect(check)
}

/// The checks in the order of the report.
const CHECKS: [&str; 12] = [
    "protocol",
    "event-source",
    "streams-at-once",
    "first-event",
    "delivery",
    "fields",
    "headers",
    "idle",
    "resume",
    "post",
    "clock",
    "round-trip",
];

#[tokio::test]
async fn a_clean_path_has_no_faults() {
    let server = TestServer::start(&["--heartbeat=1s"]).await;
    let url = format!("http://{}/events?topic=x", server.address);
    let (json, text) = (
        [&*url, "--json", "--idle=1500ms", "--streams=8"],
        [&*url, "--idle=1500ms", "--streams=200"],
    );
    let (output, text) = tokio::join!(diagnose(&json), diagnose(&text));
    let report = output.report();
    assert_eq!(output.code, 0, "{report:#}");
    assert_eq!(report["outcome"], "good", "{report:#}");
    assert_eq!(report["url"], format!("http://{}/events?…", server.address));
    assert_eq!(report["stream"], format!("http://{}/diagnose/stream", server.address));
    assert_eq!(report["probe"], true);
    assert!(report["time"].as_str().unwrap().ends_with('Z'));
    let path =
        serde_json::json!({"client": "HTTP/1.1", "server": "HTTP/1.1", "intermediaries": []});
    assert_eq!(report["path"], path);
    let findings = report["findings"].as_array().unwrap();
    let checks: Vec<_> =
        findings.iter().map(|finding| finding["check"].as_str().unwrap()).collect();
    assert_eq!(checks, CHECKS);
    for finding in findings {
        assert_eq!(finding["verdict"], "good", "{finding}");
        assert_eq!(finding["faults"], serde_json::json!([]));
        let keys: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 5, "{keys:?}");
        assert!(!finding["measured"].as_str().unwrap().is_empty());
        // Progress, one line for each finding.
        assert!(output.stderr.contains(finding["measured"].as_str().unwrap()), "{}", output.stderr);
    }

    assert_eq!((text.code, &*text.stderr), (0, ""), "{}", text.stdout);
    let expected = "Concurrent streams      good            all 200 opened; more were not tried\n";
    assert!(text.stdout.contains(expected), "{}", text.stdout);
    assert!(text.stdout.starts_with("URL       http://"), "{}", text.stdout);
    assert!(
        text.stdout.ends_with("\n\nNo problems found: streams work here.\n"),
        "{}",
        text.stdout
    );
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn each_fault_of_a_proxy_is_found() {
    let server = TestServer::start(&[]).await;
    let cases: Vec<(Proxy, &[&str], &str, &str)> = vec![
        (Proxy::default(), &[], "delivery", "as they are sent"),
        (
            Proxy { holds_bytes: 8 * 1024, ..Proxy::default() },
            &["buffering"],
            "delivery",
            "a buffer holds back about 8.",
        ),
        (
            Proxy { holds_for: Some(Duration::from_millis(700)), ..Proxy::default() },
            &["buffering"],
            "delivery",
            "a buffer holds events back for about ",
        ),
        (
            Proxy { holds_all: true, ..Proxy::default() },
            &["buffering"],
            "delivery",
            "everything is held back until the stream ends",
        ),
        (
            Proxy { holds_all: true, holds_gets_only: true, ..Proxy::default() },
            &["buffering", "get-unlike-post"],
            "first-event",
            "only after ",
        ),
        (
            Proxy { cuts_after: Some(Duration::from_millis(1100)), ..Proxy::default() },
            &["idle-timeout"],
            "idle",
            "cut after ",
        ),
        (
            // Like nginx with default settings, but with a shorter timeout. A cut is not a limit.
            Proxy {
                holds_bytes: 4096,
                cuts_after: Some(Duration::from_millis(1100)),
                ..Proxy::default()
            },
            &["buffering", "idle-timeout"],
            "delivery",
            "a buffer holds back about ",
        ),
        (
            // Compresses only long responses.
            Proxy {
                responds: |head| {
                    let compressed = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                                      Cache-Control: no-cache, no-transform\r\n\
                                      Content-Encoding: br\r\nConnection: close\r\n\r\n";
                    let accepts = head.contains("gzip, deflate, br");
                    (accepts && head.contains("bytes=4096 ")).then_some(compressed)
                },
                ..Proxy::default()
            },
            &["compression"],
            "headers",
            "compressed with `br`",
        ),
        (
            Proxy {
                request: |line| {
                    let is_id = line.to_lowercase().starts_with("last-event-id");
                    (!is_id).then(|| line.to_owned())
                },
                ..Proxy::default()
            },
            &["last-event-id-lost"],
            "resume",
            "does not reach the server",
        ),
        (
            Proxy {
                response: |line| Some(line.replace("text/event-stream", "text/plain")),
                ..Proxy::default()
            },
            &["content-type"],
            "headers",
            "the content type is `text/plain`",
        ),
        (
            Proxy {
                response: |line| Some(line.replace("no-cache, no-transform", "max-age=60")),
                ..Proxy::default()
            },
            &["cache-control"],
            "headers",
            "`Cache-Control` is `max-age=60`",
        ),
        (
            Proxy {
                response: |line| {
                    Some(line.replace("x-accel-buffering: no", "content-encoding: gzip"))
                },
                ..Proxy::default()
            },
            &["compression"],
            "headers",
            "compressed with `gzip`",
        ),
        (
            Proxy { passes: |line| !line.starts_with(':'), ..Proxy::default() },
            &["comments-lost"],
            "fields",
            "lost: comments",
        ),
        (
            Proxy { passes: |line| !line.starts_with("retry"), ..Proxy::default() },
            &["retry-lost"],
            "fields",
            "lost: `retry`",
        ),
        (
            Proxy { passes: |line| !line.starts_with("id"), ..Proxy::default() },
            &["ids-lost"],
            "fields",
            "lost: ids",
        ),
        (
            Proxy { passes: |line| !line.contains("\"number\":3,"), ..Proxy::default() },
            &["events-lost"],
            "delivery",
            "19 of 20 events arrived",
        ),
        (
            Proxy {
                request: |line| Some(line.replace(" HTTP/1.1", " HTTP/1.0")),
                // The server responds in the version of the request, the proxy in its own.
                response: |line| Some(line.replace("HTTP/1.0", "HTTP/1.1")),
                ..Proxy::default()
            },
            &["http-1.0-upstream"],
            "protocol",
            "HTTP/1.1 at the client, HTTP/1.0 at the server",
        ),
        (
            Proxy {
                response: |line| Some(line.replace("HTTP/1.1", "HTTP/1.0")),
                ..Proxy::default()
            },
            &["http-1.0"],
            "protocol",
            "HTTP/1.0 at the client, HTTP/1.1 at the server",
        ),
        (
            Proxy {
                responds: |head| {
                    let refused = "HTTP/1.1 405 Method Not Allowed\r\n\
                                   Content-Length: 0\r\nConnection: close\r\n\r\n";
                    head.starts_with("POST").then_some(refused)
                },
                ..Proxy::default()
            },
            &["post-refused"],
            "post",
            "a POST is refused with status 405",
        ),
        (
            Proxy { connections: 4, ..Proxy::default() },
            &["connection-limit"],
            "streams-at-once",
            "of 6 opened",
        ),
        (
            Proxy { chunks: 1, ..Proxy::default() },
            &["ends-at-once", "events-lost"],
            "idle",
            "the stream ended cleanly after ",
        ),
        (
            Proxy {
                response: |line| Some(line.replace("HTTP/1.1 200 OK", "HTTP/1.1 202 Accepted")),
                ..Proxy::default()
            },
            &["status"],
            "event-source",
            "the status is 202; a browser accepts only 200",
        ),
        (
            Proxy {
                response: |line| {
                    Some(line.replace("text/event-stream", "text/event-stream; charset=latin1"))
                },
                ..Proxy::default()
            },
            &["content-type"],
            "event-source",
            "the charset is `latin1`",
        ),
        (
            // Requests that hit the cache do not reach the server, and neither do their headers.
            Proxy { caches: true, ..Proxy::default() },
            &["cached", "last-event-id-lost"],
            "headers",
            "a response came from a cache",
        ),
    ];
    let server = server.address;
    join_all(cases.into_iter().map(async |(proxy, expected, check, measured)| {
        let url = format!("http://{}", proxy.before(server).await);
        let output = diagnose(&[&url, "--json", "--idle=2500ms", "--streams=6"]).await;
        let report = output.report();
        assert_eq!(faults(&report), expected.iter().copied().collect(), "{check}: {report:#}");
        assert_eq!(output.code, i32::from(!expected.is_empty()), "{check}");
        let found = finding(&report, check)["measured"].as_str().unwrap();
        assert!(found.contains(measured), "{check}: {found}");
    }))
    .await;
}

/// Diagnoses, and calls `meanwhile` as soon as the finding of a check is printed.
async fn while_diagnosing(
    server: &mut TestServer,
    check: &str,
    meanwhile: impl AsyncFnOnce(&mut TestServer),
) -> ProgramOutput {
    let url = format!("http://{}", server.address);
    let mut child = command(&[&url, "--json", "--idle=3s", "--streams=4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut stderr = Vec::new();
    let follow = async {
        while let Some(line) = progress.next_line().await.unwrap() {
            let is_it = line.starts_with(check);
            stderr.push(line);
            if is_it {
                break;
            }
        }
        meanwhile(server).await;
        while let Some(line) = progress.next_line().await.unwrap() {
            stderr.push(line);
        }
        child.wait_with_output().await.unwrap()
    };
    let output = timeout(DEADLINE, follow).await.expect("the end");
    let stdout = String::from_utf8(output.stdout).unwrap();
    ProgramOutput { code: output.status.code().unwrap(), stdout, stderr: stderr.join("\n") }
}

#[tokio::test]
async fn a_server_that_goes_down_is_not_a_fault_of_the_path() {
    // At this time, the idle stream and the slow streams are open.
    let check = "Concurrent streams";
    let mut killed = TestServer::start(&[]).await;
    let killed = while_diagnosing(&mut killed, check, async |server| {
        server.child.kill().await.unwrap();
    });
    let mut stopped = TestServer::start(&[]).await;
    let stopped = while_diagnosing(&mut stopped, check, async |server| {
        let id = server.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
    });
    let (killed, stopped) = tokio::join!(killed, stopped);
    for output in [killed, stopped] {
        let report = output.report();
        assert_eq!(faults(&report), BTreeSet::new(), "{report:#}");
        assert_eq!(finding(&report, "idle")["verdict"], "unknown", "{report:#}");
        assert_eq!(finding(&report, "streams-at-once")["verdict"], "good", "{report:#}");
        let line = "\nerror: not all checks could be completed: the server is gone: no response";
        assert!(output.stderr.ends_with(line), "{}", output.stderr);
        assert_eq!(output.code, 2);
    }
}

#[tokio::test]
async fn a_limit_of_the_server_is_not_a_fault_of_the_path() {
    let server = TestServer::start(&["--max-streams=3"]).await;
    let output =
        diagnose(&[&format!("http://{}", server.address), "--json", "--idle=500ms", "--streams=6"])
            .await;
    let report = output.report();
    assert_eq!(faults(&report), BTreeSet::new(), "{report:#}");
    let found = finding(&report, "streams-at-once");
    assert_eq!(found["measured"], "3 of 6 opened; the server refused the rest (`limit`)");
    assert_eq!((output.code, &found["verdict"]), (0, &"unknown".into()), "{report:#}");
}

#[tokio::test]
async fn a_detected_proxy_has_its_own_remedy() {
    let server = TestServer::start(&[]).await;
    let nginx = Proxy {
        holds_bytes: 4096,
        response: |line| Some(line.replace("x-accel-buffering: no", "Server: nginx/1.22.1")),
        ..Proxy::default()
    };
    let url = format!("http://{}", nginx.before(server.address).await);
    let text = [&*url, "--idle=1s", "--streams=2"];
    let json = [&text[..], &["--json"]].concat();
    let (json, text) = tokio::join!(diagnose(&json), diagnose(&text));
    let report = json.report();
    let intermediary = &report["path"]["intermediaries"][0];
    assert_eq!(intermediary["name"], "nginx");
    assert_eq!(intermediary["by"], "`server: nginx/1.22.1` in the response");
    let remedies = finding(&report, "delivery")["faults"][0]["mends"].as_array().unwrap();
    assert_eq!(remedies.len(), 1);
    assert_eq!(remedies[0]["intermediary"], "nginx");
    assert!(remedies[0]["text"].as_str().unwrap().starts_with("Set `proxy_buffering off;`"));

    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("Path      nginx (by "), "{}", text.stdout);
    assert!(text.stdout.contains("\n  nginx: Set `proxy_buffering off;`"), "{}", text.stdout);
}

#[tokio::test]
async fn a_server_without_a_probe_is_measured_as_far_as_possible() {
    let server = TestServer::start(&["--interval=100ms"]).await;
    let other = Proxy {
        responds: |head| {
            let none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            head.starts_with("GET /diagnose").then_some(none)
        },
        ..Proxy::default()
    };
    let url = format!("http://{}/events", other.before(server.address).await);
    let output = diagnose(&[&url, "--json", "--idle=1s", "--streams=5"]).await;
    let report = output.report();
    assert_eq!((output.code, &report["probe"]), (0, &Value::Bool(false)), "{report:#}");
    assert_eq!(report["stream"], url);
    for check in CHECKS {
        let expected: &[_] = match check {
            "protocol" | "event-source" | "streams-at-once" | "first-event" | "fields"
            | "headers" | "idle" => &["good"],
            // A busy machine may be slow.
            "round-trip" => &["good", "warning"],
            _ => &["unknown"],
        };
        let verdict = finding(&report, check)["verdict"].as_str().unwrap();
        assert!(expected.contains(&verdict), "{check}: {report:#}");
    }
}

#[tokio::test]
async fn a_stream_without_ids_and_retry_has_a_warning_but_no_fault() {
    let address = origin::serve(|request| {
        if request.starts_with("OPTIONS ") {
            return (String::new(), End::Close);
        }
        (format!("{STREAM}data: x\n\n"), End::Open)
    })
    .await;
    let url = format!("http://{address}/");
    let output = diagnose(&[&url, "--json", "--idle=100ms", "--streams=1"]).await;
    let report = output.report();
    assert_eq!((output.code, faults(&report)), (0, BTreeSet::new()), "{report:#}");
    let found = finding(&report, "fields");
    assert_eq!(found["verdict"], "warning", "{report:#}");
    let measured = found["measured"].as_str().unwrap();
    assert!(measured.contains("no ids") && measured.contains("no `retry`"), "{measured}");
    // The time until a stream has a response is no round trip: it may begin with the first event.
    assert_eq!(finding(&report, "round-trip")["verdict"], "unknown", "{report:#}");
}

#[tokio::test]
async fn a_stream_that_ends_at_once_is_a_fault_however_it_ends() {
    const EVENT: &str = "7\r\ndata: x\r\n3\r\n\r\n\n\r\n";
    let length = STREAM.replace("Connection: close", "Connection: close\r\nContent-Length: 100");
    let cases = [
        (STREAM.to_owned(), End::Close, "the stream ended cleanly", 0),
        (format!("{CHUNKED}0\r\n\r\n"), End::Close, "the stream ended cleanly", 0),
        (length.replace("100", "0"), End::Open, "the stream ended cleanly", 0),
        (STREAM.to_owned(), End::Reset, "the connection was reset", 0),
        (CHUNKED.to_owned(), End::Reset, "the connection was reset", 0),
        (format!("{STREAM}data: x\n\n"), End::Close, "the stream ended cleanly", 1),
        (format!("{CHUNKED}{EVENT}0\r\n\r\n"), End::Close, "the stream ended cleanly", 1),
        (
            format!("{CHUNKED}{EVENT}"),
            End::Close,
            "the connection was closed in the middle of the response",
            1,
        ),
        (
            format!("{CHUNKED}100\r\ndata: x\n\n"),
            End::Close,
            "the connection was closed in the middle of the response",
            1,
        ),
        (
            format!("{length}data: x\n\n"),
            End::Close,
            "the connection was closed in the middle of the response",
            1,
        ),
        (
            format!("{CHUNKED}{EVENT}no chunk\r\n"),
            End::Open,
            "the chunks of the response became invalid",
            1,
        ),
        (format!("{STREAM}data: x\n\n"), End::Reset, "the connection was reset", 1),
    ];
    let close_notify = "the connection was closed without TLS's `close_notify`";
    let over_tls = [
        (format!("{STREAM}data: x\n\n"), End::Close, "the stream ended cleanly", 1),
        (format!("{STREAM}data: x\n\n"), End::NoCloseNotify, close_notify, 1),
        (format!("{CHUNKED}{EVENT}"), End::NoCloseNotify, close_notify, 1),
        (STREAM.to_owned(), End::NoCloseNotify, close_notify, 0),
    ];
    let over_http2 = [
        (Http2End::Reset(h2::Reason::INTERNAL_ERROR), "was reset (`INTERNAL_ERROR`)"),
        (Http2End::Reset(h2::Reason::CANCEL), "was reset (`CANCEL`)"),
        (Http2End::Close, "the connection was closed in the middle of the response"),
        (Http2End::CloseAtFourth, "the connection was closed in the middle of the response"),
    ];
    let mut runs: Vec<(String, &str, &str, usize)> = Vec::new();
    for (bytes, end, words, events) in cases {
        let address = origin::serve(move |_| (bytes.clone(), end)).await;
        runs.push((format!("http://{address}/events"), "--http1", words, events));
    }
    for (bytes, end, words, events) in over_tls {
        let address = origin::serve_tls(move |_| (bytes.clone(), end)).await;
        runs.push((format!("https://{address}/events"), "--http1", words, events));
    }
    for (end, words) in over_http2 {
        let address = origin::serve_http2(end).await;
        runs.push((format!("http://{address}/events"), "--http2", words, 1));
    }
    let address = origin::serve_go_away().await;
    let words = "the HTTP/2 connection was ended (`GOAWAY`, `ENHANCE_YOUR_CALM`)";
    runs.push((format!("http://{address}/events"), "--http2", words, 1));
    let runs = runs.into_iter().map(async |(url, version, words, events)| {
        let options = [&*url, version, "--insecure", "--json", "--idle=20s", "--streams=3"];
        let output = diagnose(&options).await;
        let report = output.report();
        let about = format!("{words}, {events} events: {report:#}");
        assert_eq!(output.code, 1, "{about}");
        assert_eq!(faults(&report), BTreeSet::from(["ends-at-once"]), "{about}");
        let found = finding(&report, "idle");
        let measured = found["measured"].as_str().unwrap();
        assert_eq!(found["verdict"], "bad", "{about}");
        assert!(measured.contains("; on another request, "), "{about}");
        // The end of one stream may break another one on the same connection.
        if version == "--http1" {
            assert_eq!(measured.matches(&format!("{words} after ")).count(), 2, "{about}");
            let count = if events == 0 { "with no event" } else { "with one event" };
            assert_eq!(measured.matches(count).count(), 2, "{about}");
            let first = finding(&report, "first-event");
            let verdict = if events == 0 { "bad" } else { "good" };
            assert_eq!(first["verdict"], verdict, "{about}");
            let is_explained = first["measured"].as_str().unwrap().contains(words);
            assert_eq!(is_explained, events == 0, "{about}");
        } else {
            assert!(measured.contains(words), "{about}");
        }
    });
    stream::iter(runs).buffer_unordered(4).collect::<()>().await;
}

/// A response with a status and headers, and a stream with an event that stays open.
fn head(status: &str, headers: &[&str]) -> (String, End) {
    let headers: String = headers.iter().flat_map(|header| [header, "\r\n"]).collect();
    (format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}\r\ndata: x\n\n"), End::Open)
}

/// The verdict on a response: `good` for one that a browser accepts, and then everything is
/// measured.
struct Judgement {
    url: String,
    options: Vec<String>,
    verdict: &'static str,
    fault: Option<&'static str>,
    measured: String,
}

const MIME: &str = "Content-Type: text/event-stream";

/// One server for each behaviour, and the verdict of a browser.
#[expect(clippy::too_many_lines, reason = "a table")]
async fn judgements() -> Vec<Judgement> {
    let mut all = Vec::new();
    let mut add = |address: SocketAddr, options: &[&str], verdict, fault, measured: &str| {
        all.push(Judgement {
            url: format!("http://{address}/events"),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            verdict,
            fault,
            measured: measured.to_owned(),
        });
    };
    // Only 200 is a stream, whatever the content type says.
    for status in [
        "201", "202", "203", "204", "205", "206", "210", "299", "300", "302", "304", "401", "403",
        "404", "410", "429", "500", "503",
    ] {
        let address = origin::serve(move |_| head(status, &[MIME])).await;
        add(address, &[], "bad", Some("status"), &format!("the status is {status}"));
    }
    // Only an essence of `text/event-stream` is one.
    for (content_type, words) in [
        ("X-Other: x", "there is no content type"),
        ("Content-Type: ", "the content type is ``"),
        ("Content-Type: text/plain", "the content type is `text/plain`"),
        ("Content-Type: text/x-bogus", "the content type is `text/x-bogus`"),
        ("Content-Type: text/event-stream bogus", "the content type is `text/event-stream bogus`"),
        ("Content-Type: application/json; charset=utf-8", "the content type is `application/json"),
    ] {
        let address = origin::serve(move |_| head("200", &[content_type])).await;
        add(address, &[], "bad", Some("content-type"), words);
    }
    for content_type in [
        "text/event-stream;",
        "TEXT/event-stream;charset=\"UTF-8\"",
        "text/event-stream; x=y;; charset=utf-8",
    ] {
        let header = format!("Content-Type: {content_type}");
        let address = origin::serve(move |_| head("200", &[&header])).await;
        add(address, &[], "good", None, "accepted");
    }
    let latin = "Content-Type: text/event-stream; charset=windows-1252";
    let address = origin::serve(move |_| head("200", &[latin])).await;
    add(address, &[], "bad", Some("content-type"), "the charset is `windows-1252`");

    // Redirects within an origin.
    for status in ["301", "302", "303", "307", "308"] {
        for location in ["/moved", "moved?x=y#z"] {
            let location = format!("Location: {location}");
            let address = origin::serve(move |request| {
                if request.starts_with("GET /moved") {
                    return head("200", &[MIME]);
                }
                head(status, &[&location])
            })
            .await;
            add(address, &[], "good", None, &format!("accepted after a redirect ({status})"));
        }
    }
    for (location, fault, words) in [
        ("Location: ftp://stream.example/", "redirect", "a URL of the scheme `ftp`"),
        ("Location: http://", "redirect", "leads to an invalid URL"),
        ("Location: /events", "redirect", "is one too many: browsers follow 20"),
        ("Location: http://a:b@stream.example/", "redirect", "to another origin, with a password"),
        ("Location: /error", "status", "the status is 503"),
    ] {
        let address = origin::serve(move |request| {
            if request.starts_with("GET /error") {
                return head("503", &[MIME]);
            }
            head("307", &[location])
        })
        .await;
        add(address, &[], "bad", Some(fault), words);
    }

    // Redirects across origins, and the origin of a page.
    let closed = origin::serve(|_| head("200", &[MIME])).await;
    let open = origin::serve(|_| head("200", &[MIME, "Access-Control-Allow-Origin: *"])).await;
    let mirror = origin::serve(|request| {
        let mut lines = request.lines();
        let origin = lines.find_map(|line| line.strip_prefix("origin: ")).unwrap_or("nobody");
        head("200", &[MIME, &format!("Access-Control-Allow-Origin: {origin}")])
    })
    .await;
    for (target, is_allowed) in [(closed, false), (open, true), (mirror, true)] {
        let location = format!("Location: http://{target}/");
        let address = origin::serve(move |_| head("302", &[&location])).await;
        if is_allowed {
            add(address, &[], "good", None, "accepted after a redirect (302)");
        } else {
            let words = format!("http://{target} does not allow the page's `Origin: http://");
            add(address, &[], "warning", Some("cors"), &words);
        }
        let page = "--origin=http://app.example";
        let words = "does not allow the page's `Origin: http://app.example` (no `Access";
        add(address, &[page], "bad", Some("cors"), words);
        if is_allowed {
            add(target, &[page], "good", None, "accepted");
        } else {
            add(target, &[page], "bad", Some("cors"), words);
        }
    }
    let page = "--origin=https://app.example";
    add(open, &[page], "good", None, "accepted");
    let secure =
        origin::serve_tls(|_| head("302", &["Location: http://stream.example/events"])).await;
    let words = "may not request http://stream.example: browsers block mixed content";
    all.push(Judgement {
        url: format!("https://{secure}/events"),
        options: vec!["--insecure".to_owned()],
        verdict: "bad",
        fault: Some("mixed-content"),
        measured: words.to_owned(),
    });
    all.push(Judgement {
        url: "http://stream.example/events".to_owned(),
        options: vec![page.to_owned()],
        verdict: "bad",
        fault: Some("mixed-content"),
        measured: words.to_owned(),
    });
    all
}

#[tokio::test]
async fn the_verdict_on_a_response_is_that_of_a_browser() {
    let runs = judgements().await.into_iter().map(async |judgement| {
        let Judgement { url, options, verdict, fault, measured } = judgement;
        let mut arguments = vec![&*url, "--json", "--idle=100ms", "--streams=1"];
        arguments.extend(options.iter().map(String::as_str));
        let output = diagnose(&arguments).await;
        let report = output.report();
        let about = format!("{verdict} {fault:?} {measured} {options:?}: {report:#}");
        let found = finding(&report, "event-source");
        assert_eq!(found["verdict"], verdict, "{about}");
        assert!(found["measured"].as_str().unwrap().contains(&measured), "{about}");
        assert_eq!(faults(&report), fault.into_iter().collect(), "{about}");
        assert_eq!(output.code, i32::from(fault.is_some()), "{about}");
        assert_eq!(report["findings"].as_array().unwrap().len(), CHECKS.len(), "{about}");
    });
    stream::iter(runs).buffer_unordered(4).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_stream_in_a_browser_is_found_without_a_probe() {
    let events = |events: &str| (format!("{STREAM}{events}"), End::Open);
    let cases = [
        (
            origin::serve(move |_| events("{\"a\":1}\n\n")).await,
            ("fields", "bad", "malformed"),
            "`{\"a\"` is not the name of a field",
        ),
        (
            origin::serve(move |_| events("data: x\n")).await,
            ("fields", "bad", "malformed"),
            "no empty line follows the `data`",
        ),
        (
            origin::serve(move |_| events("data: x\n\nretry: 1 s\n\n")).await,
            ("fields", "warning", "malformed"),
            "a `retry` is not a number",
        ),
        (
            // Some servers fail only when a stream is resumed.
            origin::serve(move |request| {
                if request.contains("last-event-id: 7\r\n") {
                    return head("412", &[MIME]);
                }
                events("id: 7\ndata: x\n\n")
            })
            .await,
            ("resume", "bad", "status"),
            "a reconnect with `Last-Event-ID` is refused: the status is 412",
        ),
        (
            serve_in_turn(move |request| match request {
                0..3 => events("data: x\n\n"),
                _ => head("503", &[]),
            })
            .await,
            ("streams-at-once", "bad", "connection-limit"),
            "1 of 4 opened; others got the status 503, at which a browser stops for good",
        ),
        (
            // The idle stream is refused, so it is not one of those that are open.
            serve_in_turn(move |request| match request {
                0 | 1 | 3 | 6.. => events("data: x\n\n"),
                _ => head("503", &[]),
            })
            .await,
            ("streams-at-once", "bad", "connection-limit"),
            "1 of 3 opened; others got the status 503, at which a browser stops for good",
        ),
    ];
    join_all(cases.into_iter().map(async |(address, (check, verdict, fault), measured)| {
        let url = format!("http://{address}/");
        let output = diagnose(&[&url, "--json", "--idle=100ms", "--streams=3"]).await;
        let report = output.report();
        let found = finding(&report, check);
        assert_eq!(found["verdict"], verdict, "{report:#}");
        assert!(found["measured"].as_str().unwrap().contains(measured), "{report:#}");
        assert_eq!(faults(&report), BTreeSet::from([fault]), "{report:#}");
        assert_eq!(output.code, 1, "{report:#}");
    }))
    .await;
}

/// Serves streams to a diagnosis whose concurrent streams come after the idle one. `respond` gets
/// the number of the request: 1 finds the stream, 2 is the idle stream, and 3 the first of the
/// concurrent ones. The request for the headers has the number 0.
async fn serve_in_turn(
    respond: impl Fn(usize) -> (String, End) + Send + Sync + 'static,
) -> SocketAddr {
    let (requests, changed) = (Mutex::new(0), Condvar::new());
    origin::serve(move |request| {
        if request.starts_with("OPTIONS ") {
            return (origin::NOT_FOUND.to_owned(), End::Close);
        }
        let mut requests = requests.lock().unwrap();
        // Only the request for the headers accepts compression. The concurrent streams are
        // requested after its response.
        if !request.contains("accept-encoding: identity") {
            let is_early = |requests: &mut usize| *requests < 2;
            tokio::task::block_in_place(|| {
                drop(changed.wait_timeout_while(requests, DEADLINE, is_early).unwrap());
            });
            return respond(0);
        }
        *requests += 1;
        changed.notify_all();
        respond(*requests)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_short_stream_is_no_fault_if_the_next_one_is_fine() {
    let fine = || (format!("{STREAM}data: x\n\n"), End::Open);
    let ends_at_once = || (STREAM.to_owned(), End::Close);
    let refused = || {
        let head = "HTTP/1.1 503 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        (head.to_owned(), End::Close)
    };
    let serve = |idle: fn() -> (String, End), second: fn() -> (String, End)| {
        serve_in_turn(move |request| match request {
            2 => idle(),
            4 => second(),
            _ => fine(),
        })
    };
    let cases = [
        (serve(ends_at_once, fine).await, "good", "did not end at once"),
        (serve(refused, fine).await, "good", "the response status was 503"),
        (serve(ends_at_once, refused).await, "unknown", "the response status was 503"),
    ];
    join_all(cases.into_iter().map(async |(address, first_event, idle)| {
        let url = format!("http://{address}/");
        let output = diagnose(&[&url, "--json", "--idle=100ms", "--streams=1"]).await;
        let report = output.report();
        assert_eq!(faults(&report), BTreeSet::new(), "{report:#}");
        assert_eq!(output.code, 0, "{report:#}");
        assert_eq!(finding(&report, "first-event")["verdict"], first_event, "{report:#}");
        let found = finding(&report, "idle");
        assert_eq!(found["verdict"], "unknown", "{report:#}");
        assert!(found["measured"].as_str().unwrap().contains(idle), "{report:#}");
    }))
    .await;
}

#[tokio::test]
async fn only_the_events_need_to_be_open_to_the_page_of_another_origin() {
    let runs = [
        (&["--cors-origin=http://app.example"][..], "", &[][..]),
        (&["--cors-origin=*"], "/events?topic=x", &[]),
        (&["--cors-origin=http://other.example"], "/events", &["cors"]),
        (&[], "/events", &["cors"]),
    ];
    join_all(runs.into_iter().map(async |(options, path, expected)| {
        let server = TestServer::start(&[&["--heartbeat=1s"], options].concat()).await;
        let url = format!("http://{}{path}", server.address);
        let page = "--origin=http://app.example";
        let output = diagnose(&[&url, page, "--json", "--idle=100ms", "--streams=1"]).await;
        let report = output.report();
        assert_eq!(report["probe"], true, "{report:#}");
        assert_eq!(faults(&report), expected.iter().copied().collect(), "{options:?}: {report:#}");
        assert_eq!(output.code, i32::from(!expected.is_empty()), "{options:?}: {report:#}");
    }))
    .await;
}

#[tokio::test]
async fn a_redirect_of_the_probe_to_elsewhere_does_not_matter() {
    let stream = origin::serve(|_| head("200", &[MIME])).await;
    let proxy = Proxy {
        responds: |head| {
            // Nothing listens there.
            let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/login\r\n\
                         Content-Length: 0\r\nConnection: close\r\n\r\n";
            head.starts_with("GET /diagnose").then_some(moved)
        },
        ..Proxy::default()
    };
    let proxy = proxy.before(stream).await;
    let url = format!("http://{proxy}/events");
    for header in [&[][..], &["--header=X-Key: secret"]] {
        let options = [&[&*url, "--json", "--idle=100ms", "--streams=1"], header].concat();
        let output = diagnose(&options).await;
        assert_eq!(output.code, 0, "{header:?}: {}{}", output.stdout, output.stderr);
        assert_eq!(finding(&output.report(), "event-source")["verdict"], "good");
    }
}

#[tokio::test]
async fn a_redirect_to_the_probe_is_followed() {
    let server = TestServer::start(&["--heartbeat=1s"]).await;
    let proxy = Proxy {
        responds: |head| {
            let moved = "HTTP/1.1 308 Permanent Redirect\r\nLocation: /diagnose/stream\r\n\
                         Content-Length: 0\r\nConnection: close\r\n\r\n";
            head.starts_with("GET /old/").then_some(moved)
        },
        ..Proxy::default()
    };
    let address = proxy.before(server.address).await;
    let url = format!("http://{address}/old/events");
    let output = diagnose(&[&url, "--json", "--idle=1500ms", "--streams=2"]).await;
    let report = output.report();
    assert_eq!((output.code, &report["probe"]), (0, &Value::Bool(true)), "{report:#}");
    assert_eq!(report["stream"], format!("http://{address}/diagnose/stream"));
    let measured = &finding(&report, "event-source")["measured"];
    assert_eq!(measured, "accepted after a redirect (308)");
}

/// A proxy that lets only requests with the token `let-me-in` pass.
fn token_required() -> Proxy {
    Proxy {
        responds: |head| {
            let refused =
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            (!head.contains("Bearer let-me-in")).then_some(refused)
        },
        ..Proxy::default()
    }
}

#[tokio::test]
async fn an_error_is_one_line_with_advice() {
    let server = TestServer::start(&["--max-streams=0"]).await;
    let full = format!("http://{}", server.address);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}/");
    let token = format!("http://{}", token_required().before(server.address).await);
    for (options, line) in [
        (vec!["clock.example"], "error: invalid value 'clock.example' for '[URL]': expected a URL"),
        (
            vec!["http://h/", "--idle=1h"],
            "error: invalid value '1h' for '--idle <TIME>': expected a time from",
        ),
        (vec!["http://h/", "--streams=201"], "error: invalid value '201' for '--streams <COUNT>'"),
        (vec!["http://h/", "--header=x"], "error: invalid value 'x' for '--header <HEADER>'"),
        (vec![&*token, "--token-file=/nowhere"], "error: /nowhere cannot be read"),
        (vec![&*closed], "cannot be reached: Connection refused"),
        (vec![&*full], "accepts no more streams at the moment (limit). Try again later"),
        (
            vec![&*token, "--header", "Authorization: Bearer let-me-in"],
            "accepts no more streams at the moment",
        ),
    ] {
        let output = diagnose(&options).await;
        assert_eq!((output.code, &*output.stdout), (2, ""), "{options:?}: {}", output.stderr);
        assert!(output.stderr.starts_with("error: "), "{options:?}: {}", output.stderr);
        assert!(output.stderr.contains(line), "{options:?}: {}", output.stderr);
    }
}

#[tokio::test]
async fn the_token_of_the_environment_is_only_for_the_server_that_it_names() {
    let server = TestServer::start(&["--max-streams=0"]).await;
    let url = format!("http://{}", token_required().before(server.address).await);
    let diagnose = async |options: &[&str], named: &str| {
        let mut command = command(options);
        command.env("WATERCLOCK_TOKEN", "let-me-in").env("WATERCLOCK_URL", named);
        let output = timeout(DEADLINE, command.output()).await.expect("the end").unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let events = format!("{url}/events");
    for options in [vec![], vec![&*events]] {
        let (code, text) = diagnose(&options, &url).await;
        assert!(text.contains("accepts no more streams"), "{options:?}: {text}");
        assert_eq!(code, 2);
    }
    let (code, text) = diagnose(&[&url], "http://127.0.0.1:1").await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the status is 401"), "{text}");
    // A header that is given comes first.
    let (_, text) = diagnose(&[&url, "--header=Authorization: Bearer other"], &url).await;
    assert!(text.contains("the status is 401"), "{text}");
}

#[tokio::test]
async fn over_tls_it_uses_http_2_and_accepts_an_unknown_certificate_only_with_insecure() {
    let server = TestServer::start(&["--heartbeat=1s", "--tls-self-signed"]).await;
    let url = format!("https://{}", server.address);
    let output = diagnose(&[&url]).await;
    assert_eq!(output.code, 2, "{}", output.stderr);
    assert!(
        output
            .stderr
            .contains("To trust its certificate, use --ca-file; to accept any, --insecure"),
        "{}",
        output.stderr
    );
    let trusting = [&*url, "--json", "--insecure", "--idle=1500ms", "--streams=200"];
    let old = [&trusting[..], &["--http1"]].concat();
    let (output, old) = tokio::join!(diagnose(&trusting), diagnose(&old));
    for (output, version) in [(output, "HTTP/2"), (old, "HTTP/1.1")] {
        let report = output.report();
        assert_eq!(output.code, 0, "{report:#}");
        let path = &report["path"];
        assert_eq!((&path["client"], &path["server"]), (&version.into(), &version.into()));
        assert_eq!(finding(&report, "streams-at-once")["verdict"], "good", "{report:#}");
    }
    let server = TestServer::start(&["--heartbeat=1s"]).await;
    let url = format!("http://{}", server.address);
    let output = diagnose(&[&url, "--json", "--http2", "--idle=1500ms"]).await;
    assert_eq!(output.report()["path"]["client"], "HTTP/2", "with prior knowledge");
}

/// Starts a server that responds with the same bytes to everything. Returns its address.
async fn serve_bytes(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    });
    address
}

#[tokio::test]
async fn an_error_suggests_the_other_scheme() {
    let (plain, tls) =
        (TestServer::start(&[]).await, TestServer::start(&["--tls-self-signed"]).await);
    // Alerts of TLS (RFC 8446, 6): protocol_version, no_application_protocol.
    let alert = serve_bytes(b"\x15\x03\x03\x00\x02\x02\x46").await;
    let no_protocol = serve_bytes(b"\x15\x03\x03\x00\x02\x02\x78").await;
    let old = serve_bytes(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let silent = serve_bytes(b"").await;
    for (scheme, address, option, hint) in [
        ("https", plain.address, "--json", "The server does not use TLS: try http://"),
        ("https", old, "--http2", "The server does not use TLS: try http://"),
        ("https", silent, "--json", "If the server does not use TLS, try http://"),
        ("http", tls.address, "--json", "If the port uses TLS, try https://"),
        ("http", alert, "--json", "If the server uses TLS, try https://"),
        ("http", silent, "--json", "If the server uses TLS, try https://"),
        ("http", tls.address, "--http2", "If the server uses TLS, try https://"),
    ] {
        let output = diagnose(&[&format!("{scheme}://{address}/events"), option]).await;
        assert_eq!((output.code, &*output.stdout), (2, ""), "{}", output.stderr);
        let hint = format!("{hint}{address}/events");
        assert!(output.stderr.contains(&hint), "{scheme} {option} {hint}: {}", output.stderr);
    }
    let perhaps = "f the server does not support HTTP/2, leave out --http2\n";
    let surely = "The server does not support that version of HTTP: leave out --http1 or --http2\n";
    for (scheme, address, hint) in
        [("http", old, perhaps), ("http", tls.address, perhaps), ("https", no_protocol, surely)]
    {
        let output = diagnose(&[&format!("{scheme}://{address}"), "--http2"]).await;
        assert_eq!(output.code, 2);
        assert!(output.stderr.ends_with(hint), "{scheme} {hint}: {}", output.stderr);
    }
}

#[tokio::test]
async fn a_header_is_not_sent_to_another_origin() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", elsewhere.local_addr().unwrap());
    let asked = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = asked.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = asked.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let head = format!(
                "HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await.unwrap();
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    });
    let output = diagnose(&[&format!("http://{address}/"), "--header", "X-Key: secret"]).await;
    assert_eq!(output.code, 2, "{}", output.stderr);
    assert!(
        output.stderr.contains("your headers and token are not sent to another origin"),
        "{}",
        output.stderr
    );
    let nobody = timeout(Duration::ZERO, elsewhere.accept()).await;
    assert!(nobody.is_err(), "no request");
}

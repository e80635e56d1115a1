//! `waterclock diagnose` against the server itself, and against proxies that each do one thing wrong: it names
//! that, and nothing else.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails a test")]

mod proxy;

use std::{collections::BTreeSet, net::SocketAddr, process::Stdio, time::Duration};

use futures_util::future::join_all;
use proxy::Proxy;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

/// What every wait in these tests is bounded by.
const DEADLINE: Duration = Duration::from_secs(100);

/// The server; it ends with the test.
struct Server {
    address: SocketAddr,
    child: Child,
    _data: TempDir,
}

impl Server {
    async fn start(options: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_waterclock"))
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

/// What the program has said.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn report(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waterclock"));
    command
        .arg("diagnose")
        .args(options)
        // This machine's own way out is not to be measured.
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("https_proxy")
        .env_remove("HTTPS_PROXY")
        .env_remove("all_proxy")
        .env_remove("ALL_PROXY")
        .kill_on_drop(true);
    command
}

async fn diagnose(options: &[&str]) -> Said {
    let output = timeout(DEADLINE, command(options).output()).await.expect("ends").unwrap();
    Said {
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

/// In the order of the report.
const CHECKS: [&str; 11] = [
    "protocol",
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
async fn on_a_straight_path_nothing_is_found() {
    let server = Server::start(&["--heartbeat=1s"]).await;
    let url = format!("http://{}/events?topic=x", server.address);
    let (json, text) = (
        [&*url, "--json", "--idle=1500ms", "--streams=8"],
        [&*url, "--idle=1500ms", "--streams=200"],
    );
    let (said, text) = tokio::join!(diagnose(&json), diagnose(&text));
    let report = said.report();
    assert_eq!(said.code, 0, "{report:#}");
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
        // Progress, a line each.
        assert!(said.stderr.contains(finding["measured"].as_str().unwrap()), "{}", said.stderr);
    }

    assert_eq!((text.code, &*text.stderr), (0, ""), "{}", text.stdout);
    let expected = "Streams at once         good            200; more were not tried\n";
    assert!(text.stdout.contains(expected), "{}", text.stdout);
    assert!(text.stdout.starts_with("URL       http://"), "{}", text.stdout);
    assert!(
        text.stdout.ends_with("\n\nNothing was found: streams work here.\n"),
        "{}",
        text.stdout
    );
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
#[tokio::test]
async fn each_misdeed_of_a_proxy_is_named() {
    let server = Server::start(&[]).await;
    let cases: Vec<(Proxy, &[&str], &str, &str)> = vec![
        (Proxy::default(), &[], "delivery", "as they are sent"),
        (
            Proxy { holds_bytes: 8 * 1024, ..Proxy::default() },
            &["buffering"],
            "delivery",
            "something holds back about 8.",
        ),
        (
            Proxy { holds_for: Some(Duration::from_millis(700)), ..Proxy::default() },
            &["buffering"],
            "delivery",
            "something holds events back for about ",
        ),
        (
            Proxy { holds_all: true, ..Proxy::default() },
            &["buffering"],
            "delivery",
            "something holds back everything until the stream ends",
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
            "cut after 1.",
        ),
        (
            // As nginx does without any setting, but sooner. What is cut is not taken for a limit.
            Proxy {
                holds_bytes: 4096,
                cuts_after: Some(Duration::from_millis(1100)),
                ..Proxy::default()
            },
            &["buffering", "idle-timeout"],
            "delivery",
            "something holds back about ",
        ),
        (
            // It does not compress what is short.
            Proxy {
                answers: |head| {
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
            "compressed by `br`",
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
                answer: |line| Some(line.replace("text/event-stream", "text/plain")),
                ..Proxy::default()
            },
            &["content-type"],
            "headers",
            "the content type is `text/plain`",
        ),
        (
            Proxy {
                answer: |line| Some(line.replace("no-cache, no-transform", "max-age=60")),
                ..Proxy::default()
            },
            &["cache-control"],
            "headers",
            "`Cache-Control` is `max-age=60`",
        ),
        (
            Proxy {
                answer: |line| {
                    Some(line.replace("x-accel-buffering: no", "content-encoding: gzip"))
                },
                ..Proxy::default()
            },
            &["compression"],
            "headers",
            "compressed by `gzip`",
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
                // The server answers as it is asked, the proxy as it is.
                answer: |line| Some(line.replace("HTTP/1.0", "HTTP/1.1")),
                ..Proxy::default()
            },
            &["http-1.0-upstream"],
            "protocol",
            "HTTP/1.1 to here, HTTP/1.0 to the server",
        ),
        (
            Proxy { answer: |line| Some(line.replace("HTTP/1.1", "HTTP/1.0")), ..Proxy::default() },
            &["http-1.0"],
            "protocol",
            "HTTP/1.0 to here, HTTP/1.1 to the server",
        ),
        (
            Proxy {
                answers: |head| {
                    let refused = "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    head.starts_with("POST").then_some(refused)
                },
                ..Proxy::default()
            },
            &["post-refused"],
            "post",
            "a POST is answered 405",
        ),
        (
            Proxy { connections: 4, ..Proxy::default() },
            &["connection-limit"],
            "streams-at-once",
            "of 6 that were tried",
        ),
        (
            // What it gives out again, it does not ask for again either.
            Proxy { caches: true, ..Proxy::default() },
            &["cached", "last-event-id-lost"],
            "headers",
            "an answer came from a cache",
        ),
    ];
    let server = server.address;
    join_all(cases.into_iter().map(async |(proxy, expected, check, measured)| {
        let url = format!("http://{}", proxy.before(server).await);
        let said = diagnose(&[&url, "--json", "--idle=2500ms", "--streams=6"]).await;
        let report = said.report();
        assert_eq!(faults(&report), expected.iter().copied().collect(), "{check}: {report:#}");
        assert_eq!(said.code, i32::from(!expected.is_empty()), "{check}");
        let found = finding(&report, check)["measured"].as_str().unwrap();
        assert!(found.contains(measured), "{check}: {found}");
    }))
    .await;
}

/// Diagnoses, and does something to the server as soon as that check is told.
async fn while_diagnosing(
    server: &mut Server,
    check: &str,
    meanwhile: impl AsyncFnOnce(&mut Server),
) -> Said {
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
    let output = timeout(DEADLINE, follow).await.expect("ends");
    let stdout = String::from_utf8(output.stdout).unwrap();
    Said { code: output.status.code().unwrap(), stdout, stderr: stderr.join("\n") }
}

#[tokio::test]
async fn a_server_that_goes_meanwhile_is_no_fault_of_the_path() {
    // The silence and the slow streams are open then.
    let check = "Streams at once";
    let mut killed = Server::start(&[]).await;
    let killed = while_diagnosing(&mut killed, check, async |server| {
        server.child.kill().await.unwrap();
    });
    let mut stopped = Server::start(&[]).await;
    let stopped = while_diagnosing(&mut stopped, check, async |server| {
        let id = server.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
    });
    let (killed, stopped) = tokio::join!(killed, stopped);
    for said in [killed, stopped] {
        let report = said.report();
        assert_eq!(faults(&report), BTreeSet::new(), "{report:#}");
        assert_eq!(finding(&report, "idle")["verdict"], "unknown", "{report:#}");
        assert_eq!(finding(&report, "streams-at-once")["verdict"], "good", "{report:#}");
        let line = "\nerror: the checks were not finished: the server does not answer any more: there was no answer";
        assert!(said.stderr.ends_with(line), "{}", said.stderr);
        assert_eq!(said.code, 2);
    }
}

#[tokio::test]
async fn a_limit_of_the_server_is_none_of_the_path() {
    let server = Server::start(&["--max-streams=3"]).await;
    let said =
        diagnose(&[&format!("http://{}", server.address), "--json", "--idle=500ms", "--streams=6"])
            .await;
    let report = said.report();
    assert_eq!(faults(&report), BTreeSet::new(), "{report:#}");
    let found = finding(&report, "streams-at-once");
    assert_eq!(found["measured"], "3 of 6; the server itself takes no more now (`limit`)");
    assert_eq!((said.code, &found["verdict"]), (0, &"unknown".into()), "{report:#}");
}

#[tokio::test]
async fn who_is_recognised_is_told_what_to_set() {
    let server = Server::start(&[]).await;
    let nginx = Proxy {
        holds_bytes: 4096,
        answer: |line| Some(line.replace("x-accel-buffering: no", "Server: nginx/1.22.1")),
        ..Proxy::default()
    };
    let url = format!("http://{}", nginx.before(server.address).await);
    let text = [&*url, "--idle=1s", "--streams=2"];
    let json = [&text[..], &["--json"]].concat();
    let (json, text) = tokio::join!(diagnose(&json), diagnose(&text));
    let report = json.report();
    let intermediary = &report["path"]["intermediaries"][0];
    assert_eq!(intermediary["name"], "nginx");
    assert_eq!(intermediary["by"], "`server: nginx/1.22.1` in the answer");
    let mends = finding(&report, "delivery")["faults"][0]["mends"].as_array().unwrap();
    assert_eq!(mends.len(), 1);
    assert_eq!(mends[0]["intermediary"], "nginx");
    assert!(mends[0]["text"].as_str().unwrap().starts_with("`proxy_buffering off;`"));

    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("Path      nginx (by "), "{}", text.stdout);
    assert!(text.stdout.contains("\n  nginx: `proxy_buffering off;`"), "{}", text.stdout);
}

#[tokio::test]
async fn a_stream_without_a_probe_is_measured_as_far_as_it_goes() {
    let server = Server::start(&["--interval=100ms"]).await;
    let other = Proxy {
        answers: |head| {
            let none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            head.starts_with("GET /diagnose").then_some(none)
        },
        ..Proxy::default()
    };
    let url = format!("http://{}/events", other.before(server.address).await);
    let said = diagnose(&[&url, "--json", "--idle=1s", "--streams=5"]).await;
    let report = said.report();
    assert_eq!((said.code, &report["probe"]), (0, &Value::Bool(false)), "{report:#}");
    assert_eq!(report["stream"], url);
    for check in CHECKS {
        let expected = match check {
            "protocol" | "streams-at-once" | "first-event" | "headers" | "idle" | "round-trip" => {
                "good"
            }
            // The server has no comments in its events.
            _ => "unknown",
        };
        assert_eq!(finding(&report, check)["verdict"], expected, "{check}: {report:#}");
    }
}

#[tokio::test]
async fn what_cannot_be_measured_is_one_clear_line() {
    let server = Server::start(&["--max-streams=0"]).await;
    let full = format!("http://{}", server.address);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}/");
    let token = Proxy {
        answers: |head| {
            let refused =
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            (!head.contains("Bearer let-me-in")).then_some(refused)
        },
        ..Proxy::default()
    };
    let token = format!("http://{}", token.before(server.address).await);
    let (live, nothing) = (format!("{full}/health/live"), format!("{full}/nothing"));
    for (options, line) in [
        (
            vec!["clock.example"],
            "error: invalid value 'clock.example' for '<URL>': an address is needed",
        ),
        (
            vec!["http://h/", "--idle=1h"],
            "error: invalid value '1h' for '--idle <TIME>': a time from",
        ),
        (vec!["http://h/", "--streams=201"], "error: invalid value '201' for '--streams <COUNT>'"),
        (vec!["http://h/", "--header=x"], "error: invalid value 'x' for '--header <HEADER>'"),
        (vec![], "error: the following required arguments were not provided"),
        (vec![&*closed], "cannot be reached: Connection refused"),
        (vec![&*full], "takes no more streams just now (limit). Try again later"),
        (vec![&*live], "is no stream of events: its content type is \"text/plain; charset=utf-8\""),
        (vec![&*nothing], "answers 404 Not Found, and there is no Waterclock either"),
        (vec![&*token], "answers 401 Unauthorized. A token may be needed: --header"),
        (
            vec![&*token, "--header", "Authorization: Bearer let-me-in"],
            "takes no more streams just now",
        ),
    ] {
        let said = diagnose(&options).await;
        assert_eq!((said.code, &*said.stdout), (2, ""), "{options:?}: {}", said.stderr);
        assert!(said.stderr.starts_with("error: "), "{options:?}: {}", said.stderr);
        assert!(said.stderr.contains(line), "{options:?}: {}", said.stderr);
    }
}

#[tokio::test]
async fn over_tls_it_speaks_http_2_and_takes_an_unknown_certificate_only_if_asked_to() {
    let server = Server::start(&["--heartbeat=1s", "--tls-self-signed"]).await;
    let url = format!("https://{}", server.address);
    let said = diagnose(&[&url]).await;
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("With --insecure, any certificate will do"), "{}", said.stderr);
    let trusting = [&*url, "--json", "--insecure", "--idle=1500ms", "--streams=200"];
    let old = [&trusting[..], &["--http1"]].concat();
    let (said, old) = tokio::join!(diagnose(&trusting), diagnose(&old));
    for (said, version) in [(said, "HTTP/2"), (old, "HTTP/1.1")] {
        let report = said.report();
        assert_eq!(said.code, 0, "{report:#}");
        let path = &report["path"];
        assert_eq!((&path["client"], &path["server"]), (&version.into(), &version.into()));
        assert_eq!(finding(&report, "streams-at-once")["verdict"], "good", "{report:#}");
    }
    let server = Server::start(&["--heartbeat=1s"]).await;
    let url = format!("http://{}", server.address);
    let said = diagnose(&[&url, "--json", "--http2", "--idle=1500ms"]).await;
    assert_eq!(said.report()["path"]["client"], "HTTP/2", "with prior knowledge");
}

/// Who answers all that comes with those bytes, and closes. Its address.
async fn who_answers(bytes: &'static [u8]) -> SocketAddr {
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
async fn who_mixes_up_http_and_https_is_told_so() {
    let (plain, tls) = (Server::start(&[]).await, Server::start(&["--tls-self-signed"]).await);
    // Alerts of TLS (RFC 8446, 6): protocol_version, no_application_protocol.
    let alert = who_answers(b"\x15\x03\x03\x00\x02\x02\x46").await;
    let no_protocol = who_answers(b"\x15\x03\x03\x00\x02\x02\x78").await;
    let old = who_answers(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let silent = who_answers(b"").await;
    for (scheme, address, option, hint) in [
        ("https", plain.address, "--json", "What answers there does not speak TLS: try http://"),
        ("https", old, "--http2", "What answers there does not speak TLS: try http://"),
        ("https", silent, "--json", "If it does not speak TLS, try http://"),
        ("http", tls.address, "--json", "If that port speaks TLS, try https://"),
        ("http", alert, "--json", "If it speaks TLS, try https://"),
        ("http", silent, "--json", "If it speaks TLS, try https://"),
        ("http", tls.address, "--http2", "If it speaks TLS, try https://"),
    ] {
        let said = diagnose(&[&format!("{scheme}://{address}/events"), option]).await;
        assert_eq!((said.code, &*said.stdout), (2, ""), "{}", said.stderr);
        let hint = format!("{hint}{address}/events");
        assert!(said.stderr.contains(&hint), "{scheme} {option} {hint}: {}", said.stderr);
    }
    let perhaps = "f it does not speak HTTP/2, leave out --http2\n";
    let surely = "It does not speak that version of HTTP: leave out --http1 or --http2\n";
    for (scheme, address, hint) in
        [("http", old, perhaps), ("http", tls.address, perhaps), ("https", no_protocol, surely)]
    {
        let said = diagnose(&[&format!("{scheme}://{address}"), "--http2"]).await;
        assert_eq!(said.code, 2);
        assert!(said.stderr.ends_with(hint), "{scheme} {hint}: {}", said.stderr);
    }
}

#[tokio::test]
async fn a_header_is_not_sent_where_a_redirection_leads() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", elsewhere.local_addr().unwrap());
    let asked = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = asked.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = asked.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let head =
                format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    });
    let said = diagnose(&[&format!("http://{address}/"), "--header", "X-Key: secret"]).await;
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("which is not sent your headers"), "{}", said.stderr);
    let nobody = timeout(Duration::ZERO, elsewhere.accept()).await;
    assert!(nobody.is_err(), "it was asked all the same");
}

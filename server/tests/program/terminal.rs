//! The commands for a terminal, against a running server and against others.

use std::{
    collections::HashSet, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path,
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use waterclock::event::Event;

use super::{DEADLINE, Program, signal};

/// The end of a command.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(arguments: &[&str], url: &str) -> Command {
    let mut command = Command::new(crate::binary::waterclock());
    command.args(arguments).env("WATERCLOCK_URL", url).env_remove("WATERCLOCK_TOKEN");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run_with_input(arguments: &[&str], url: &str, input: &str) -> Ended {
    let mut child = command(arguments, url).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that has failed reads nothing.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(DEADLINE, child.wait_with_output()).await.expect("ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

async fn run(arguments: &[&str], url: &str) -> Ended {
    run_with_input(arguments, url, "").await
}

/// Returns the output of a command that must succeed.
async fn output(arguments: &[&str], url: &str) -> String {
    let Ended { code, stdout, stderr } = run(arguments, url).await;
    assert_eq!((code, &*stderr), (0, ""), "{arguments:?}");
    stdout
}

/// Runs a command that must fail. Returns its error, which must be one line.
async fn error(arguments: &[&str], url: &str) -> String {
    let Ended { code, stdout, stderr } = run(arguments, url).await;
    assert_eq!((code, &*stdout), (1, ""), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr:?}");
    stderr
}

/// Starts a server whose log is in `data`.
async fn serve(data: &Path, listen: &str) -> (Program, SocketAddr, String) {
    let (data, listen) = (format!("--data-dir={}", data.display()), format!("--listen={listen}"));
    let mut program = Program::start(&[&data, &listen, "--retry=100ms", "--interval=1h"]);
    let address = program.address().await;
    (program, address, format!("http://{address}"))
}

#[tokio::test]
async fn events_are_published_read_and_listed() {
    let data = TempDir::new().unwrap();
    let (_program, _, url) = serve(data.path(), "127.0.0.1:0").await;
    let url = url.as_str();
    assert_eq!(output(&["health", "--publish"], url).await, "ready\n");
    let id = output(&["publish", "orders.eu", "a\nb", "--name=created"], url).await;
    let line = output(&["tail", "orders.>", "--since=start", "--limit=1"], url).await;
    assert!(line.ends_with(" orders.eu created a\\nb\n"), "{line:?}");
    let json = output(&["tail", "orders.>", "--since=start", "--limit=1", "--json"], url).await;
    let event: Event = serde_json::from_str(&json).unwrap();
    assert_eq!((event.id.to_string(), &*event.data), (id.trim().to_owned(), "a\nb"));

    let first = output(&["publish", "keys", "x", "--key=K"], url).await;
    assert_eq!(output(&["publish", "keys", "x", "--key=K"], url).await, first);
    assert!(error(&["publish", "keys", "y", "--key=K"], url).await.contains("(status 422)"));

    let lines: String = (0..1000).map(|number: u32| number.to_string() + "\n").collect();
    let arguments = ["publish", "lines", "--lines", "--end", "--outcome=failed", "--reason=why"];
    let published = run_with_input(&arguments, url, &lines).await;
    assert!(published.stdout.starts_with("1000 events\n"), "{}", published.stderr);
    let read = run(&["tail", "lines", "--since=start", "--raw"], url).await;
    assert_eq!((read.code, read.stdout), (1, lines), "the topic has failed");
    assert_eq!(read.stderr, "lines has ended as failed: why\n");
    assert!(error(&["publish", "lines", "x"], url).await.contains("(status 409)"));
    let again = run_with_input(&["publish", "lines", "--lines", "--reopen"], url, "a\nb").await;
    assert_eq!(again.stdout, "2 events\n", "{}", again.stderr);

    let table = output(&["topics"], url).await;
    assert!(table.starts_with("TOPIC "), "{table}");
    assert!(
        table.lines().any(|row| row.starts_with("lines ") && row.contains(" 1002 ")),
        "{table}"
    );
    assert_eq!(output(&["topics", "orders.*", "--json"], url).await.lines().count(), 1);

    let mut long = vec![b'x'; 70_000];
    long.push(b'\n');
    let long = format!("a\n{}", String::from_utf8(long).unwrap());
    let arguments = ["publish", "long", "--lines", "--key=K"];
    let refused = run_with_input(&arguments, url, &long).await;
    assert_eq!(refused.code, 1);
    let expected = "error: 1 lines were published (the same lines with --key K publish the \
                    others), but then: line 2 is longer than 64 KiB\n";
    assert_eq!(refused.stderr, expected);
    let rest = run_with_input(&arguments, url, "a\nb\n").await;
    assert_eq!(rest.stdout, "2 events\n", "{}", rest.stderr);
    assert_eq!(
        output(&["tail", "long", "--since=start", "--raw", "--limit=2"], url).await,
        "a\nb\n"
    );
    assert!(error(&["publish", "x", "--end", "--name=n"], url).await.contains("--name is for an"));
}

/// A running `waterclock tail --json`.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    events: Vec<Event>,
}

impl Tail {
    fn start(arguments: &[&str], url: &str) -> Self {
        let mut child = command(&[&["tail", "--json"], arguments].concat(), url).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, events: Vec::new() }
    }

    /// Reads up to an event with this data.
    async fn read_to(&mut self, data: &str) {
        while self.events.last().is_none_or(|event| event.data != data) {
            let line = timeout(DEADLINE, self.lines.next_line()).await.expect("an event").unwrap();
            self.events.push(serde_json::from_str(&line.expect("no end")).unwrap());
        }
    }
}

#[tokio::test]
async fn two_tails_resume_exactly_after_kill_9() {
    let data = TempDir::new().unwrap();
    let (mut program, address, url) = serve(data.path(), "127.0.0.1:0").await;
    let lines: String = (0..300).map(|number: u32| number.to_string() + "\n").collect();
    let mut tails =
        [Tail::start(&["a", "--since=start"], &url), Tail::start(&["a", "b", "--since=1h"], &url)];
    for round in ["first", "second", "third"] {
        let published = run_with_input(&["publish", "a", "--lines"], &url, &lines).await;
        assert_eq!(published.code, 0, "{}", published.stderr);
        output(&["publish", "a", round], &url).await;
        tails[0].read_to(round).await;
        if round != "third" {
            program.child.kill().await.unwrap();
            (program, ..) = serve(data.path(), &address.to_string()).await;
        }
    }
    for mut tail in tails {
        tail.read_to("third").await;
        let ids: HashSet<_> = tail.events.iter().map(|event| event.id).collect();
        assert_eq!((tail.events.len(), ids.len()), (903, 903));
        signal(&tail.child, "-INT").await;
        let output = timeout(DEADLINE, tail.child.wait_with_output()).await.expect("ends").unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.ends_with("reconnected\n"), "{stderr}");
        assert!(!stderr.contains("gap"), "{stderr}");
    }
}

#[tokio::test]
async fn a_closed_pipe_ends_a_tail_quietly() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--interval=10ms"]);
    let url = format!("http://{}", program.address().await);
    let mut child = command(&["tail", "clock"], &url).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    timeout(DEADLINE, lines.next_line()).await.expect("a line").unwrap().unwrap();
    drop(lines);
    let output = timeout(DEADLINE, child.wait_with_output()).await.expect("ends").unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

/// Passes connections on to a server, but the answers of the first ones are lost.
async fn lose_answers(count: usize, server: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(server).await.unwrap();
            if number >= count {
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
                continue;
            }
            let (mut requests, mut to_client) = client.split();
            let (mut answers, mut to_server) = server.split();
            let mut first = [0; 1];
            tokio::select! {
                _ = tokio::io::copy(&mut requests, &mut to_server) => {}
                read = answers.read(&mut first) => { read.unwrap(); }
            }
            let _ = to_client.shutdown().await;
        }
    });
    url
}

#[tokio::test]
async fn a_lost_answer_publishes_nothing_twice() {
    let data = TempDir::new().unwrap();
    let (_program, address, url) = serve(data.path(), "127.0.0.1:0").await;
    let lossy = lose_answers(2, address).await;
    let id = output(&["publish", "one", "x"], &lossy).await;
    let tail = output(&["tail", "one", "--since=start", "--limit=1", "--json"], &url).await;
    assert!(tail.contains(id.trim()), "{tail}");
    let lossy = lose_answers(2, address).await;
    let lines: String = (0..100).map(|number: u32| number.to_string() + "\n").collect();
    let published = run_with_input(&["publish", "many", "--lines", "--end"], &lossy, &lines).await;
    assert_eq!(published.code, 0, "{}", published.stderr);
    let read = output_without_messages(&["tail", "many", "--since=start", "--raw"], &url).await;
    assert_eq!(read, lines);
    let topics = output(&["topics", "one", "--json"], &url).await;
    assert!(topics.contains(r#""events":1,"#), "{topics}");

    let lossy = lose_answers(usize::MAX, address).await;
    let unknown = error(&["publish", "one", "y", "--key=K", "--patience=1s"], &lossy).await;
    assert!(unknown.contains("it is unknown if the event was published"), "{unknown}");
    assert!(unknown.ends_with("repeat the command with --key K\n"), "{unknown}");
}

#[tokio::test]
async fn lines_wait_for_a_server_that_restarts() {
    let data = TempDir::new().unwrap();
    let (mut program, address, url) = serve(data.path(), "127.0.0.1:0").await;
    let mut publish = command(&["publish", "a", "--lines", "--end"], &url).spawn().unwrap();
    let mut stdin = publish.stdin.take().unwrap();
    stdin.write_all(b"first\n").await.unwrap();
    let mut tail = Tail::start(&["a", "--since=start"], &url);
    tail.read_to("first").await;
    program.child.kill().await.unwrap();
    stdin.write_all(b"second\n").await.unwrap();
    let _program = serve(data.path(), &address.to_string()).await;
    tail.read_to("second").await;
    drop(stdin);
    let output = timeout(DEADLINE, publish.wait_with_output()).await.expect("ends").unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"2 events\n"), "{output:?}");
}

#[tokio::test]
async fn a_topic_ends_although_nobody_reads_the_output() {
    let data = TempDir::new().unwrap();
    let (_program, _, url) = serve(data.path(), "127.0.0.1:0").await;
    let mut publish = command(&["publish", "a", "x", "--end"], &url).spawn().unwrap();
    drop(publish.stdout.take());
    let output = timeout(DEADLINE, publish.wait_with_output()).await.expect("ends").unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(error(&["publish", "a", "y"], &url).await.contains("(status 409)"));
}

/// Returns the standard output of a command that must succeed.
async fn output_without_messages(arguments: &[&str], url: &str) -> String {
    let Ended { code, stdout, stderr } = run(arguments, url).await;
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// Answers each request with the same bytes.
async fn stub(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                // The handshake of TLS, which begins with this byte, is answered at once.
                let is_whole = |head: &[u8]| {
                    head.first() == Some(&0x16) || head.windows(4).any(|end| end == b"\r\n\r\n")
                };
                while !is_whole(&head) {
                    if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = client.write_all(answer.as_bytes()).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn what_is_no_waterclock_is_told_in_one_line() {
    let commands = [&["tail"][..], &["publish", "t", "x"], &["topics"], &["health"]];
    for (answer, expected) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "responds with 404 Not Found"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
            "is no Waterclock",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n",
            "is no Waterclock",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "is no Waterclock"),
        (
            "HTTP/1.1 307 There\r\nLocation: https://u:p@a.example/b\r\nContent-Length: 0\r\n\r\n",
            "redirects to https://a.example/b: give",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            "If the port uses TLS, try https://127",
        ),
    ] {
        let url = stub(answer).await;
        for command in commands {
            let error = error(command, &url).await;
            assert!(error.contains(expected), "{command:?}: {error}");
        }
    }
    let plain = stub("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for command in commands {
        assert!(error(command, &closed).await.contains("Connection refused"));
        let tls = error(command, &plain.replace("http:", "https:")).await;
        assert!(tls.contains("does not use TLS: try http://127"), "{tls}");
    }
}

#[tokio::test]
async fn a_token_and_a_certificate_are_given_by_files() {
    let data = TempDir::new().unwrap();
    let file = |name: &str| data.path().join(name).display().to_string();
    std::fs::write(file("secret"), "0123456789abcdef0123456789abcdef").unwrap();
    let options = [
        "--listen=127.0.0.1:0",
        "--tls-self-signed",
        "--require-token",
        &format!("--data-dir={}", data.path().display()),
        &format!("--jwt-secret-file={}", file("secret")),
    ];
    let mut program = Program::start(&options);
    let line = program.line().await;
    let url = line.strip_prefix("listening on ").unwrap();
    let trust = format!("--ca-file={}", file("self-signed.pem"));
    let unknown = error(&["health"], url).await;
    assert!(unknown.ends_with("give it with --ca-file\n"), "{unknown}");
    assert_eq!(output(&["health", &trust], url).await, "ready\n");
    let publish = ["publish", "t", "x", &trust];
    assert!(error(&publish, url).await.contains("--token-file or WATERCLOCK_TOKEN"));
    let key = jsonwebtoken::EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
    let claims = serde_json::json!({ "sub": "s", "exp": 4_000_000_000_u64, "publish": ["t"] });
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    std::fs::write(file("token"), format!("{token}\n")).unwrap();
    let by_file = format!("--token-file={}", file("token"));
    output(&["publish", "t", "x", &trust, &by_file], url).await;
    let by_variable = command(&publish, url).env("WATERCLOCK_TOKEN", token).output().await.unwrap();
    assert!(by_variable.status.success());
}

#[tokio::test]
async fn the_health_of_another_server_is_asked_without_the_token_of_the_environment() {
    let data = TempDir::new().unwrap();
    let (_program, _, url) = serve(data.path(), "127.0.0.1:0").await;
    let health = async |arguments: &[&str], named: &str| {
        let output = command(arguments, named).env("WATERCLOCK_TOKEN", "a b").output().await;
        let output = output.unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(health(&["health", &url], "http://127.0.0.1:1").await, "ready\n");
    // The token would be sent to this one, and cannot be.
    for arguments in [&["health"][..], &["health", &url]] {
        let text = health(arguments, &url).await;
        assert!(text.contains("WATERCLOCK_TOKEN is not a token"), "{arguments:?}: {text}");
    }
}

#[tokio::test]
async fn a_backup_is_restored_by_commands() {
    let data = TempDir::new().unwrap();
    let copies = TempDir::new().unwrap();
    let file = copies.path().join("backup.db").display().to_string();
    let folder = format!("--data-dir={}", data.path().display());
    let (program, _, url) = serve(data.path(), "127.0.0.1:0").await;
    let before = output(&["publish", "t", "before"], &url).await;
    let saved = output(&["backup", &file, &folder], "").await;
    assert!(saved.starts_with(&format!("backed up to {file}: ")), "{saved}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(error(&["backup", &file, &folder], "").await.contains("exists already"));
    output(&["publish", "t", "after"], &url).await;
    let running = error(&["restore", &file, &folder], "").await;
    assert!(running.contains("is in use by another waterclock"), "{running}");
    output(&["publish", "t", "still"], &url).await;
    program.signal("-TERM").await;
    assert_eq!(program.end().await.0, 0);

    let restored = output_without_messages(&["restore", &file, &folder], "").await;
    assert!(restored.starts_with("restored to "), "{restored}");
    let (_program, _, url) = serve(data.path(), "127.0.0.1:0").await;
    let json = output(&["tail", "t", "--since=start", "--limit=1", "--json"], &url).await;
    let event: Event = serde_json::from_str(&json).unwrap();
    assert_eq!(event.data, "before");
    assert_ne!(event.id.to_string(), before.trim(), "a new epoch");
    let topics = output(&["topics", "t", "--json"], &url).await;
    assert!(topics.contains(r#""events":1,"#), "{topics}");
}

#[tokio::test]
async fn completions_and_man_pages_are_of_all_commands() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("man").display().to_string();
    output(&["man", &path], "").await;
    for name in ["tail", "publish", "topics", "health", "backup", "restore", "diagnose"] {
        let page = std::fs::read_to_string(format!("{path}/waterclock-{name}.1")).unwrap();
        assert!(page.contains(".TH"), "{name}");
        for shell in ["bash", "zsh", "fish"] {
            assert!(output(&["completions", shell], "").await.contains(name), "{shell}: {name}");
        }
    }
}

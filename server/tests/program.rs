//! The program `waterclock` itself: how it starts, what it says, how it stops.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails a test")]

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// What every wait in these tests is bounded by.
const DEADLINE: Duration = Duration::from_secs(20);

struct Program {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Where its log is, if a test does not say.
    _data: TempDir,
}

impl Program {
    fn start(options: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_waterclock"))
            .env("WATERCLOCK_DATA_DIR", data.path())
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout, _data: data }
    }

    /// Where it listens, as it says; each time the next address.
    async fn address(&mut self) -> SocketAddr {
        let line = timeout(DEADLINE, self.stdout.next_line()).await.unwrap().unwrap();
        line.unwrap().strip_prefix("listening on http://").unwrap().parse().unwrap()
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    }

    /// Its exit code, and all that it has written to standard error.
    async fn end(self) -> (i32, String) {
        let Self { child, _data, .. } = self;
        let output = timeout(DEADLINE, child.wait_with_output()).await.expect("ends").unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

async fn request(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("ends").unwrap();
    text
}

async fn get(address: SocketAddr, path: &str) -> String {
    rest(request(address, &format!("GET {path} HTTP/1.0\r\n\r\n")).await).await
}

/// A client that has sent half a request, and then says nothing.
async fn silent_client(address: SocketAddr) -> TcpStream {
    let stream = request(address, "GET /events HT").await;
    // By the time that others have been served, it has been heard.
    for _ in 0..10 {
        get(address, "/health/live").await;
    }
    stream
}

#[tokio::test]
async fn it_listens_on_each_address_and_says_where() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--listen=127.0.0.1:0"]);
    let (first, second) = (program.address().await, program.address().await);
    assert_ne!(first.port(), second.port());
    for address in [first, second] {
        assert!(get(address, "/health/ready").await.ends_with("ready\n"));
    }
}

#[tokio::test]
async fn what_it_cannot_start_with_is_one_clear_line() {
    let mut program = Program::start(&["--listen=127.0.0.1:0"]);
    let taken = program.address().await;
    for (option, line) in [
        (
            format!("--listen={taken}"),
            format!("error: cannot listen on {taken}: Address already in use"),
        ),
        (
            // An address for documentation (RFC 5737), which no machine has.
            "--listen=192.0.2.1:3000".to_owned(),
            "error: cannot listen on 192.0.2.1:3000: Cannot assign requested address".to_owned(),
        ),
        (
            "--listen=nowhere".to_owned(),
            "error: invalid value 'nowhere' for '--listen <ADDRESS>': an address and a port are \
             needed, such as 127.0.0.1:3000 or [::1]:3000"
                .to_owned(),
        ),
        ("--nonsense".to_owned(), "error: unexpected argument '--nonsense' found".to_owned()),
    ] {
        let (code, stderr) = Program::start(&[&option]).end().await;
        assert_eq!(code, 2, "{option}");
        assert!(stderr.starts_with(&line), "{option}: {stderr}");
    }
}

#[tokio::test]
async fn asked_to_stop_it_says_goodbye_and_exits_with_0() {
    for signal in ["-TERM", "-INT"] {
        let mut program = Program::start(&["--listen=127.0.0.1:0"]);
        let mut stream = request(program.address().await, "GET /events HTTP/1.0\r\n\r\n").await;
        let mut some = [0; 300];
        stream.read_exact(&mut some).await.unwrap();
        program.signal(signal).await;
        let rest = rest(stream).await;
        assert!(rest.contains("event: goodbye\ndata: {\"reason\":\"draining\","), "{rest}");
        assert_eq!(program.end().await.0, 0, "{signal}");
    }
}

#[tokio::test]
async fn it_stops_within_its_time_whatever_a_client_does() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--drain=100ms"]);
    let _silent = silent_client(program.address().await).await;
    program.signal("-TERM").await;
    assert_eq!(program.end().await.0, 0);
}

#[tokio::test]
async fn a_second_signal_stops_it_at_once() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--drain=1h"]);
    let _silent = silent_client(program.address().await).await;
    program.signal("-TERM").await;
    program.signal("-INT").await;
    assert_eq!(program.end().await.0, 0);
}

#[tokio::test]
async fn its_log_can_be_json() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--log=json"]);
    let mut stream = request(program.address().await, "GET /events HTTP/1.0\r\n\r\n").await;
    let peer = stream.local_addr().unwrap().to_string();
    stream.read_exact(&mut [0; 300]).await.unwrap();
    program.signal("-TERM").await;
    rest(stream).await;
    let (code, log) = program.end().await;
    assert_eq!(code, 0);
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let closed = lines.iter().find(|line| line["message"] == "stream closed").expect(&log);
    assert_eq!(closed["end"], "draining");
    assert_eq!(closed["span"]["peer"], peer, "a span a connection");
}

#[tokio::test]
async fn its_help_names_each_option_and_its_variable() {
    let program = Command::new(env!("CARGO_BIN_EXE_waterclock")).arg("--help").output();
    let help =
        String::from_utf8(timeout(DEADLINE, program).await.unwrap().unwrap().stdout).unwrap();
    for option in [
        "listen",
        "interval",
        "heartbeat",
        "retry",
        "store",
        "data-dir",
        "retain-count",
        "retain-age",
        "retain-bytes",
        "max-topics",
        "max-publishes",
        "max-streams",
        "max-streams-per-address",
        "public-topic",
        "cors-origin",
        "allowed-host",
        "trusted-proxy",
        "jwt-secret-file",
        "jwt-public-key-file",
        "jwt-audience",
        "require-token",
        "drain",
        "log",
    ] {
        let variable = format!("WATERCLOCK_{}", option.replace('-', "_").to_uppercase());
        let is_there = help.contains(&format!("--{option} <")) || help.contains(&format!("--{option}\n"));
        assert!(is_there, "{option}: {help}");
        assert!(help.contains(&format!("[env: {variable}=]")), "{variable}: {help}");
    }
}

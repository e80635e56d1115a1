//! The program `waterclock`: its start, its output, and its shutdown.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails a test")]

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    process::Stdio,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};
use waterclock::{
    event::Event,
    notice::Hello,
    sse::{Parsed, Parser},
};

#[path = "../binary/mod.rs"]
mod binary;
#[cfg(target_os = "linux")]
mod churn;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod crowd;
#[path = "../http/frames.rs"]
mod frames;
mod output;
mod reload;
mod service_manager;
mod terminal;

use frames::{
    CONTINUATION, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM, SETTINGS, field,
    frame, head, preface, setting,
};

/// Limit of every wait in these tests.
const DEADLINE: Duration = Duration::from_mins(1);

/// A running program.
struct Program {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Folder of the event log, unless a test sets another.
    _data: TempDir,
}

impl Program {
    fn start(options: &[&str]) -> Self {
        // An empty `RUST_LOG` counts as not set.
        Self::start_with_level("", options)
    }

    /// Starts with messages of `level` and above. They must be few, since they stay in a pipe of
    /// small capacity until the end.
    fn start_with_level(level: &str, options: &[&str]) -> Self {
        Self::run(Command::new(binary::waterclock()), level, options)
    }

    /// Starts with a limit of `count` open files, and prints warnings.
    fn start_with_files(count: usize, options: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let program = binary::waterclock();
        shell.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\""), program]);
        Self::run(shell, "warn", options)
    }

    /// Starts with the system's reaction to SIGHUP, whatever that of these tests is: under `nohup`
    /// they ignore it, and the program would, too.
    fn start_with_hangup(options: &[&str]) -> Self {
        let mut command = Command::new(binary::waterclock());
        if cfg!(target_os = "linux") {
            command = Command::new("env");
            command.args(["--default-signal=HUP", binary::waterclock()]);
        }
        Self::run(command, "", options)
    }

    fn run(command: Command, level: &str, options: &[&str]) -> Self {
        let (mut child, data) = spawn(command, level, options, Stdio::piped(), Stdio::piped());
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout, _data: data }
    }

    /// Returns the next address that the program prints.
    async fn address(&mut self) -> SocketAddr {
        self.line().await.strip_prefix("listening on http://").unwrap().parse().unwrap()
    }

    /// Returns the next line of the standard output.
    async fn line(&mut self) -> String {
        let line = timeout(DEADLINE, self.stdout.next_line()).await.expect("a line").unwrap();
        if let Some(line) = line {
            return line;
        }
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
        panic!("the program has ended: {errors}")
    }

    async fn signal(&self, name: &str) {
        signal(&self.child, name).await;
    }

    /// Returns the resident memory in bytes (proc(5)).
    #[cfg(target_os = "linux")]
    fn memory(&self) -> u64 {
        let file = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(file).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// Waits for the end. Returns the exit code, and all of the standard error.
    async fn end(self) -> (i32, String) {
        let Self { child, _data, .. } = self;
        let output = timeout(DEADLINE, child.wait_with_output()).await.expect("ends").unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// Sends a signal to a process.
async fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
}

/// Starts a program with a folder of its own for the event log.
fn spawn(
    mut command: Command,
    level: &str,
    options: &[&str],
    stdout: impl Into<Stdio>,
    stderr: impl Into<Stdio>,
) -> (Child, TempDir) {
    let data = tempfile::tempdir().unwrap();
    command.env("WATERCLOCK_DATA_DIR", data.path()).env("RUST_LOG", level).args(options);
    let child = command.stdout(stdout).stderr(stderr).kill_on_drop(true).spawn().unwrap();
    (child, data)
}

/// Connects, and sends a request.
async fn request(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until the end of the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("ends").unwrap();
    text
}

async fn get(address: SocketAddr, path: &str) -> String {
    rest(request(address, &format!("GET {path} HTTP/1.0\r\n\r\n")).await).await
}

/// Opens a stream with more data than all buffers between server and client, and does not read it.
async fn client_that_does_not_read(address: SocketAddr) -> TcpStream {
    let body = "x".repeat(60_000);
    let event = format!("POST /events/t HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..100 {
        assert!(rest(request(address, &event).await).await.starts_with("HTTP/1.0 201"));
    }
    let path = "/events?topic=t&last_event_id=earliest";
    let mut stream = request(address, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
    stream.read_exact(&mut [0; 12]).await.unwrap();
    stream
}

#[tokio::test]
async fn the_program_prints_each_address_that_it_listens_on() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--listen=127.0.0.1:0"]);
    let (first, second) = (program.address().await, program.address().await);
    assert_ne!(first.port(), second.port());
    for address in [first, second] {
        assert!(get(address, "/health/ready").await.ends_with("ready\n"));
    }
}

#[tokio::test]
async fn a_start_failure_is_one_clear_line() {
    let mut program = Program::start(&["--listen=127.0.0.1:0"]);
    let taken = program.address().await;
    for (option, line) in [
        (format!("--listen={taken}"), format!("error: cannot listen on {taken}: Address in use")),
        (
            // An address that is reserved for documentation (RFC 5737).
            "--listen=192.0.2.1:3000".to_owned(),
            "error: cannot listen on 192.0.2.1:3000: Address not available".to_owned(),
        ),
        (
            "--listen=nowhere".to_owned(),
            "error: invalid value 'nowhere' for '--listen <ADDRESS>': expected an address and a \
             port, such as 127.0.0.1:3000 or [::1]:3000"
                .to_owned(),
        ),
        ("--nonsense".to_owned(), "error: unexpected argument '--nonsense' found".to_owned()),
        (
            "--tls-cert=chain.pem".to_owned(),
            "error: the following required arguments were not provided:\n  --tls-key <FILE>"
                .to_owned(),
        ),
    ] {
        let (code, stderr) = Program::start(&[&option]).end().await;
        assert_eq!(code, 2, "{option}");
        // The words are those of musl; other C libraries have others.
        let stderr = stderr
            .replace("Address already in use", "Address in use")
            .replace("Cannot assign requested address", "Address not available");
        assert!(stderr.starts_with(&line), "{option}: {stderr}");
    }
}

/// Runs the program to its end. Returns the exit code and the standard error.
async fn run_to_end(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(binary::waterclock());
    command.args(arguments).envs(variables.iter().copied()).kill_on_drop(true);
    // A proxy of the machine must not be used.
    command.env("NO_PROXY", "127.0.0.1");
    let output = timeout(DEADLINE, command.output()).await.expect("ends").unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn diagnose_ignores_the_environment_of_the_server() {
    let variables = [("WATERCLOCK_LISTEN", "bad"), ("WATERCLOCK_TLS_CERT", "chain.pem")];
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (code, stderr) = run_to_end(&["diagnose", &format!("http://{closed}/")], &variables).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("cannot be reached: Connection refused"), "{stderr}");
    let (code, stderr) = run_to_end(&[], &variables).await;
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: invalid value 'bad' for '--listen"), "{stderr}");
}

#[tokio::test]
async fn an_empty_variable_counts_as_not_set() {
    let help = Command::new(binary::waterclock()).arg("--help").output();
    let help = String::from_utf8(timeout(DEADLINE, help).await.unwrap().unwrap().stdout).unwrap();
    let names = help.split("[env: ").skip(1).map(|rest| rest.split_once('=').unwrap().0);
    let variables: Vec<_> = names.map(|name| (name, "")).collect();
    assert!(variables.len() > 20, "{help}");
    // All options are read before listening fails on this address (RFC 5737).
    let data = tempfile::tempdir().unwrap();
    let options = ["--listen=192.0.2.1:3000", &format!("--data-dir={}", data.path().display())];
    let (code, stderr) = run_to_end(&options, &variables).await;
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: cannot listen on 192.0.2.1:3000: "), "{stderr}");
}

#[tokio::test]
async fn a_self_signed_certificate_has_a_stable_fingerprint_that_is_printed() {
    let data = tempfile::tempdir().unwrap();
    let folder = format!("--data-dir={}", data.path().display());
    let options = ["--listen=127.0.0.1:0", "--tls-self-signed", &folder];
    let mut fingerprints = HashSet::new();
    for _ in 0..2 {
        let mut program = Program::start_with_level("warn", &options);
        let line = program.line().await;
        assert!(line.starts_with("listening on https://127.0.0.1:"), "{line}");
        fingerprints.insert(program.line().await);
        program.signal("-TERM").await;
        assert_eq!(program.end().await, (0, String::new()));
    }
    let file = data.path().join("self-signed.pem");
    let certificate = pem::parse_many(std::fs::read(&file).unwrap()).unwrap().remove(0);
    let digest = digest(&SHA256, certificate.contents());
    let bytes: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let expected = format!("the certificate's SHA-256 fingerprint: {}", bytes.join(":"));
    assert_eq!(fingerprints, HashSet::from([expected]));

    // The fingerprint of a certificate from files appears in the messages only.
    let file = file.display();
    let files = [format!("--tls-cert={file}"), format!("--tls-key={file}")];
    let mut program = Program::start(&["--listen=127.0.0.1:0", &files[0], &files[1]]);
    assert!(program.line().await.starts_with("listening on https://127.0.0.1:"));
    program.signal("-TERM").await;
    assert_eq!(timeout(DEADLINE, program.stdout.next_line()).await.unwrap().unwrap(), None);
    let (code, stderr) = program.end().await;
    assert_eq!(code, 0);
    assert!(stderr.contains(&format!("fingerprint=\"{}\"", bytes.join(":"))), "{stderr}");

    let missing = ["--tls-cert=missing.pem", "--tls-key=missing.pem", &folder];
    let (code, stderr) = Program::start(&missing).end().await;
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: missing.pem cannot be used: I/O error"), "{stderr}");
}

#[tokio::test]
async fn an_unreadable_certificate_does_not_delay_a_shutdown() {
    let data = tempfile::tempdir().unwrap();
    let folder = format!("--data-dir={}", data.path().display());
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--tls-self-signed", &folder]);
    assert!(program.line().await.starts_with("listening on https://127.0.0.1:"));
    // Reading from a pipe blocks until its writer writes.
    let pipe = data.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.unwrap().success());
    std::fs::rename(&pipe, data.path().join("self-signed.pem")).unwrap();
    let file = data.path().join("self-signed.pem");
    // The pipe can be opened once the program reads it.
    let mut writer = tokio::fs::OpenOptions::new();
    let opened = timeout(DEADLINE, writer.write(true).open(file)).await;
    let _writer = opened.expect("the program reads the pipe").unwrap();
    program.signal("-TERM").await;
    assert_eq!(program.end().await.0, 0);
}

#[tokio::test]
async fn a_signal_causes_goodbyes_and_exit_code_0() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let mut program = Program::start_with_hangup(&["--listen=127.0.0.1:0"]);
        let mut stream = request(program.address().await, "GET /events HTTP/1.0\r\n\r\n").await;
        let mut part = [0; 300];
        stream.read_exact(&mut part).await.unwrap();
        program.signal(signal).await;
        let rest = rest(stream).await;
        assert!(rest.contains("event: goodbye\ndata: {\"reason\":\"draining\","), "{rest}");
        assert_eq!(program.end().await.0, 0, "{signal}");
    }
}

#[tokio::test]
async fn a_shutdown_ends_within_the_drain_time() {
    let options = ["--listen=127.0.0.1:0", "--store=memory", "--drain=100ms"];
    let mut program = Program::start(&options);
    let _stuck = client_that_does_not_read(program.address().await).await;
    program.signal("-TERM").await;
    assert_eq!(program.end().await.0, 0);
}

/// Opens streams, and reads each to its end in a task of its own.
async fn open_streams(address: SocketAddr, count: usize) -> JoinSet<String> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = request(address, "GET /events HTTP/1.0\r\n\r\n").await;
        timeout(DEADLINE, stream.read_exact(&mut [0; 300])).await.expect("its start").unwrap();
        streams.push(rest(stream));
    }
    streams.into_iter().collect()
}

#[tokio::test]
async fn a_second_signal_stops_the_program_at_once() {
    for [first, second] in [["TERM", "INT"], ["INT", "TERM"]] {
        let mut program = Program::start(&["--listen=127.0.0.1:0", "--store=memory"]);
        // The goodbyes of so many take their time.
        let streams = open_streams(program.address().await, 300).await;
        let id = program.child.id().unwrap();
        let both = format!("kill -{first} {id}; kill -{second} {id}");
        assert!(Command::new("sh").args(["-c", &both]).status().await.unwrap().success());
        assert_eq!(program.end().await.0, 0);
        let ends = streams.join_all().await;
        assert!(!ends.iter().all(|end| end.contains("event: goodbye")), "{first}, {second}");
    }
}

#[tokio::test]
async fn a_closed_terminal_does_not_cut_off_the_goodbyes() {
    // The shell and the system send SIGHUP. Some service managers send it along with SIGTERM.
    for [first, second] in [["-HUP", "-HUP"], ["-TERM", "-HUP"], ["-HUP", "-TERM"]] {
        let mut program = Program::start_with_hangup(&["--listen=127.0.0.1:0", "--store=memory"]);
        let mut streams = open_streams(program.address().await, 300).await;
        program.signal(first).await;
        let mut ends = vec![streams.join_next().await.unwrap().unwrap()];
        program.signal(second).await;
        ends.extend(streams.join_all().await);
        for end in ends {
            assert!(end.contains("event: goodbye"), "{first}, {second}: {end:?}");
        }
        assert_eq!(program.end().await.0, 0);
    }
}

#[tokio::test]
async fn clients_with_half_a_request_do_not_prolong_a_stop() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--drain=1h"]);
    let address = program.address().await;
    let preface = String::from_utf8(preface()).unwrap();
    let mut clients = Vec::new();
    for half in ["GET /events HT", &preface] {
        clients.push(request(address, half).await);
    }
    // Once others have been served, the server has read these.
    for _ in 0..10 {
        get(address, "/health/live").await;
    }
    program.signal("-TERM").await;
    assert_eq!(program.end().await.0, 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    let options = &["--listen=127.0.0.1:0"];
    // As by nohup(1).
    let mut ignoring = Command::new("sh");
    let program = binary::waterclock();
    ignoring.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", program]);
    for (mut program, is_caught) in
        [(Program::start_with_hangup(options), true), (Program::run(ignoring, "", options), false)]
    {
        program.address().await;
        let file = format!("/proc/{}/status", program.child.id().unwrap());
        let status = std::fs::read_to_string(file).unwrap();
        for (name, expected) in [("SigCgt:", is_caught), ("SigIgn:", !is_caught)] {
            let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
            // SIGHUP is signal 1.
            assert_eq!(mask & 1 == 1, expected, "{name} {mask:x}");
        }
        program.signal("-HUP").await;
        program.signal("-TERM").await;
        assert_eq!(program.end().await.0, 0);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_waiting_long_polls_take_little_memory() {
    const COUNT: u64 = 1000;
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--store=memory"]);
    let address = program.address().await;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    get(address, "/poll?topic=t").await;
    let before = program.memory();
    let mut polls = Vec::new();
    for _ in 0..COUNT {
        polls.push(request(address, "GET /poll?topic=t&wait=55 HTTP/1.0\r\n\r\n").await);
    }
    let all = format!("\nwaterclock_polls_waiting {COUNT}\n");
    let waiting = async { while !get(address, "/metrics").await.contains(&all) {} };
    timeout(DEADLINE, waiting).await.expect("all wait");
    let each = program.memory().saturating_sub(before) / COUNT;
    // Each takes a few buffers in an unoptimised build.
    assert!(each < 32 * 1024, "{each} bytes each");
    let event = "POST /events/t HTTP/1.0\r\nContent-Length: 1\r\n\r\nx";
    assert!(rest(request(address, event).await).await.starts_with("HTTP/1.0 201"));
    for poll in polls {
        let response = rest(poll).await;
        assert_eq!(response.matches("\"data\":\"x\"").count(), 1, "{response}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_half_open_connections_take_little_memory_and_delay_nobody() {
    // A connection buffers a head of 32 KiB, the data of an event, or as much of a stream.
    const BUFFERED: u64 = 96 * 1024;
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--store=memory"]);
    let address = program.address().await;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let body = "x".repeat(60_000);
    let event = format!("POST /events/t HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..100 {
        assert!(rest(request(address, &event).await).await.starts_with("HTTP/1.0 201"));
    }
    let before = program.memory();
    let half = format!("GET /events HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(30_000));
    let unread = "GET /events?topic=t&last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let slow = &event[..event.len() - 1];
    let (mut open, mut count) = (Vec::new(), 0);
    for (more, bytes) in [(400, ""), (250, &half), (250, slow), (100, unread)] {
        for _ in 0..more {
            open.push(request(address, bytes).await);
        }
        count += more;
    }
    let streams = async {
        while !get(address, "/metrics").await.contains("\nwaterclock_streams_open 100\n") {}
    };
    timeout(DEADLINE, streams).await.expect("all are open");
    for _ in 0..100 {
        assert!(get(address, "/health/live").await.starts_with("HTTP/1.0 200"));
    }
    // The connection that reads the metric is open, too.
    let all = format!("\nwaterclock_connections_open {}\n", count + 1);
    let counted = async { while !get(address, "/metrics").await.contains(&all) {} };
    timeout(DEADLINE, counted).await.expect("all are counted");
    let each = program.memory().saturating_sub(before) / count;
    assert!(each < BUFFERED, "{each} bytes each");
}

/// Sends bytes, and reads until the server closes the connection.
#[cfg(target_os = "linux")]
async fn attack(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut response = Vec::new();
    let both = async { tokio::join!(write.write_all(bytes), read.read_to_end(&mut response)) };
    // Both directions may be cut off.
    let _ = timeout(DEADLINE, both).await.expect("closed by the server");
}

/// Waits until `/metrics` contains a line.
#[cfg(target_os = "linux")]
async fn wait_for_metric(address: SocketAddr, line: &str) {
    let is_listed =
        async { while !get(address, "/metrics").await.lines().any(|found| found == line) {} };
    timeout(DEADLINE, is_listed).await.expect(line);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn attacks_over_http_2_take_little_memory() {
    const GROWTH: u64 = 16 << 20;
    const ROUNDS: usize = 3;
    let mut program =
        Program::start_with_level("warn", &["--listen=127.0.0.1:0", "--store=memory"]);
    let address = program.address().await;
    get(address, "/metrics").await;
    let before = program.memory();
    let resets = (0..20_000).flat_map(|number| {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [frames::get(stream, "/events"), reset].concat()
    });
    let resets = [preface(), resets.collect()].concat();
    let begin = frame(HEADERS, END_STREAM, 1, &head("GET", "/events"));
    let more = frame(CONTINUATION, 0, 1, &field("x", &"x".repeat(16_000)));
    let continuations = [preface(), begin, more.repeat(2000)].concat();
    for _ in 0..ROUNDS {
        attack(address, &resets).await;
        attack(address, &continuations).await;
    }
    let refused = "waterclock_refused_total{reason=\"http2\"}";
    wait_for_metric(address, &format!("{refused} {}", 2 * ROUNDS)).await;
    let growth = program.memory().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unread_data_of_a_thousand_http_2_streams_is_bounded() {
    const COUNT: u32 = 1000;
    let event =
        format!("POST /events/t HTTP/1.0\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000));
    for (path, kib_each) in [
        // All streams share the encoded event,
        ("/events?topic=t", 32),
        // unless its ids have counts. Then one is in h2's buffer, and one waits for space there.
        ("/events?topic=t&limit=1000", 160),
        // One event of the response is buffered. The next is encoded when that one was taken.
        ("/poll?topic=t&last_event_id=earliest", 96),
    ] {
        for window in [0, 0x7fff_ffff] {
            let options = ["--listen=127.0.0.1:0", "--store=memory"];
            let mut program = Program::start_with_level("warn", &options);
            let address = program.address().await;
            for _ in 0..10 {
                rest(request(address, &event).await).await;
            }
            let before = program.memory();
            let settings = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, window));
            let requests = (0..COUNT).flat_map(|number| frames::get(2 * number + 1, path));
            let attack = [preface(), settings, requests.collect()].concat();
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&attack).await.unwrap();
            if path.starts_with("/events") {
                wait_for_metric(address, &format!("waterclock_streams_open {COUNT}")).await;
            }
            let mut most = 0;
            for _ in 0..10 {
                rest(request(address, &event).await).await;
                most = most.max(program.memory());
            }
            let each = most.saturating_sub(before) / 1024 / u64::from(COUNT);
            assert!(each < kib_each, "{path}: {each} KiB each, with a window of {window}");
        }
    }
}

/// Requests a path on a persistent connection, and returns the body of the response.
async fn get_persistent(stream: &mut BufReader<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut line, mut length) = (String::new(), 0);
    while timeout(DEADLINE, stream.read_line(&mut line)).await.expect("a response").unwrap() > 2 {
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    timeout(DEADLINE, stream.read_exact(&mut body)).await.expect("a body").unwrap();
    String::from_utf8(body).unwrap()
}

/// Waits until `/metrics` contains all of these lines.
async fn wait_for_metrics(stream: &mut BufReader<TcpStream>, lines: &[&str]) {
    let is_listed = async {
        loop {
            let metrics = get_persistent(stream, "/metrics").await;
            if lines.iter().all(|line| metrics.lines().any(|found| found == *line)) {
                return;
            }
        }
    };
    timeout(DEADLINE, is_listed).await.unwrap_or_else(|_| panic!("{lines:?}"));
}

#[tokio::test]
async fn connections_beyond_the_limit_of_open_files_wait_with_one_warning() {
    // It waits for the rest of the head, longer than this test takes.
    const HALF: &str = "GET /health/live HTTP/1.0\r\n";
    const CAPACITY: usize = 80;
    let options = ["--listen=127.0.0.1:0", "--store=memory", "--max-streams=10"];
    // The program reserves 64 files for other purposes.
    let mut program = Program::start_with_files(64 + CAPACITY, &options);
    let address = program.address().await;
    let mut persistent = BufReader::new(TcpStream::connect(address).await.unwrap());
    wait_for_metrics(&mut persistent, &["waterclock_connections_max 80"]).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(request(address, "GET /events HTTP/1.0\r\n\r\n").await);
    }
    wait_for_metrics(&mut persistent, &["waterclock_streams_open 10"]).await;
    let goodbye = get(address, "/events").await;
    assert!(goodbye.contains("event: goodbye\ndata: {\"reason\":\"limit\""), "{goodbye}");

    while open.len() < CAPACITY - 1 {
        open.push(request(address, HALF).await);
    }
    let full = ["waterclock_connections_open 80", "waterclock_connections_full_total 1"];
    wait_for_metrics(&mut persistent, &full).await;
    let newcomer = request(address, "GET /health/live HTTP/1.0\r\n\r\n").await;
    for _ in 0..10 {
        get_persistent(&mut persistent, "/health/live").await;
    }
    let read = newcomer.try_read(&mut [0]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it waits");
    drop(open.pop());
    assert!(rest(newcomer).await.starts_with("HTTP/1.0 200"));
    // A single free slot does not end the full state.
    open.push(request(address, HALF).await);
    wait_for_metrics(&mut persistent, &full).await;

    open.clear();
    wait_for_metrics(&mut persistent, &["waterclock_connections_open 1"]).await;
    while open.len() < CAPACITY - 1 {
        open.push(request(address, HALF).await);
    }
    let again = ["waterclock_connections_open 80", "waterclock_connections_full_total 2"];
    wait_for_metrics(&mut persistent, &again).await;
    program.signal("-TERM").await;
    let (code, stderr) = program.end().await;
    assert_eq!((code, stderr.matches("further connections wait").count()), (0, 2), "{stderr}");
}

#[tokio::test]
async fn a_client_cannot_fill_the_output_with_messages() {
    let mut program = Program::start(&["--listen=127.0.0.1:0"]);
    let mut stream = TcpStream::connect(program.address().await).await.unwrap();
    let acknowledgements = frame(PING, 1, 0, b"unasked!").repeat(1000);
    let last = frame(PING, 0, 0, b"the last");
    stream.write_all(&[preface(), acknowledgements, last].concat()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(8).any(|window| window == b"the last") {
        let read = timeout(DEADLINE, stream.read_buf(&mut bytes)).await.expect("a response");
        assert!(read.unwrap() > 0);
    }
    drop(stream);
    program.signal("-TERM").await;
    let (_, stderr) = program.end().await;
    assert!(stderr.lines().count() < 20, "{stderr}");
}

#[tokio::test]
async fn the_output_can_be_json() {
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--log=json"]);
    let mut stream = request(program.address().await, "GET /events HTTP/1.0\r\n\r\n").await;
    let peer = stream.local_addr().unwrap().to_string();
    stream.read_exact(&mut [0; 300]).await.unwrap();
    program.signal("-TERM").await;
    rest(stream).await;
    let (code, stderr) = program.end().await;
    assert_eq!(code, 0);
    let lines: Vec<serde_json::Value> =
        stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let closed = lines.iter().find(|line| line["message"] == "stream closed").expect(&stderr);
    assert_eq!(closed["end"], "draining");
    assert_eq!(closed["span"]["peer"], peer, "the span names the client");
    let opened = lines.iter().find(|line| line["message"] == "stream opened").expect(&stderr);
    for line in [opened, closed] {
        assert_eq!((&line["topics"], &line["client"]), (&"clock".into(), &"127.0.0.1".into()));
    }
}

#[tokio::test]
async fn a_refused_permission_is_printed_once_a_minute_for_each_origin_or_address() {
    let options = ["--listen=127.0.0.1:0", "--log=json", "--store=memory"];
    let mut program = Program::start(&options);
    let address = program.address().await;
    let refused = async |head: &str| {
        let response = rest(request(address, &format!("{head}\r\n")).await).await;
        assert!(response.starts_with("HTTP/1.0 403 Forbidden"), "{response}");
    };
    for _ in 0..3 {
        refused("GET /events/t?token=secret HTTP/1.0\r\nOrigin: http://app.example\r\n").await;
        refused("POST /events/t HTTP/1.0\r\nVia: proxy\r\n").await;
    }
    refused("GET /poll HTTP/1.0\r\nOrigin: http://other.example\r\n").await;
    // A page says so itself, with 200.
    for (path, origin) in [("/", "home"), ("/topics", "topics")] {
        let head = format!(
            "GET {path} HTTP/1.0\r\nAccept: text/html\r\nOrigin: http://{origin}.example\r\n\r\n"
        );
        let response = rest(request(address, &head).await).await;
        assert!(response.starts_with("HTTP/1.0 200 OK"), "{response}");
    }
    program.signal("-TERM").await;
    let (_, stderr) = program.end().await;
    let lines = stderr.lines().filter(|line| line.contains("request refused"));
    let lines: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).expect(line)).collect();
    let [page, program, other, home, topics] = &lines[..] else { panic!("{stderr}") };
    for (field, expected) in [
        ("status", serde_json::Value::from(403)),
        ("method", "GET".into()),
        ("path", "/events/t".into()),
        ("origin", "http://app.example".into()),
        ("client", "127.0.0.1".into()),
        ("repeats", 0.into()),
    ] {
        assert_eq!(page[field], expected, "{field}: {page}");
    }
    assert!(page["detail"].as_str().unwrap().contains("--cors-origin"), "{page}");
    assert_eq!(
        (&program["method"], &program["origin"]),
        (&"POST".into(), &serde_json::Value::Null)
    );
    assert_eq!(other["origin"], "http://other.example");
    for (line, path) in [(home, "/"), (topics, "/topics")] {
        assert_eq!((&line["status"], &line["path"]), (&403.into(), &path.into()), "{line}");
    }
}

#[tokio::test]
async fn a_permission_refused_for_a_line_or_a_message_is_printed_like_that_of_a_request() {
    let options = ["--listen=127.0.0.1:0", "--log=json", "--store=memory"];
    let mut program = Program::start(&options);
    let address = program.address().await;
    let lines = "{\"topic\":\"clock\",\"data\":\"\"}\n".repeat(3);
    let length = lines.len();
    let head = format!(
        "POST /events?_=secret HTTP/1.0\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let answers = rest(request(address, &format!("{head}{lines}")).await).await;
    assert_eq!(answers.matches("\"status\":403").count(), 3, "{answers}");
    let handshake = format!(
        "GET /ws?topic=t HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut socket = request(address, &handshake).await;
    let publish = b"{\"publish\":{\"topic\":\"clock\",\"data\":\"\"}}";
    for _ in 0..3 {
        // A text message, with a mask of zeros.
        let length = 0x80 | u8::try_from(publish.len()).unwrap();
        socket.write_all(&[&[0x81, length, 0, 0, 0, 0], &publish[..]].concat()).await.unwrap();
    }
    let mut received = Vec::new();
    while String::from_utf8_lossy(&received).matches("\"status\":403").count() < 3 {
        let read = timeout(DEADLINE, socket.read_buf(&mut received)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&received));
    }
    drop(socket);
    program.signal("-TERM").await;
    let (_, stderr) = program.end().await;
    let lines = stderr.lines().filter(|line| line.contains("request refused"));
    let lines: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).expect(line)).collect();
    let [line, message] = &lines[..] else { panic!("{stderr}") };
    for (found, method, path) in [(line, "POST", "/events"), (message, "GET", "/ws")] {
        assert_eq!((&found["method"], &found["path"]), (&method.into(), &path.into()), "{found}");
        assert_eq!(found["status"], 403, "{found}");
        assert!(found["detail"].as_str().unwrap().contains("Only the server itself"), "{found}");
    }
    assert_eq!(line["client"], "127.0.0.1", "{line}");
    assert_eq!(message["origin"], format!("http://{address}"), "{message}");
}

#[tokio::test]
async fn the_help_names_each_option_and_its_variable() {
    let program = Command::new(binary::waterclock()).arg("--help").output();
    let help =
        String::from_utf8(timeout(DEADLINE, program).await.unwrap().unwrap().stdout).unwrap();
    for option in [
        "config",
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
        "jwt-jwks",
        "jwt-issuer",
        "jwt-audience",
        "require-token",
        "keep-alive",
        "drain",
        "end-grace",
        "log",
        "log-level",
    ] {
        let variable = format!("WATERCLOCK_{}", option.replace('-', "_").to_uppercase());
        let is_listed =
            help.contains(&format!("--{option} <")) || help.contains(&format!("--{option}\n"));
        assert!(is_listed, "{option}: {help}");
        assert!(help.contains(&format!("[env: {variable}=]")), "{variable}: {help}");
    }
}

#[tokio::test]
async fn an_unusable_event_log_or_key_is_one_clear_line() {
    let data = tempfile::tempdir().unwrap();
    let at = |name: &str| data.path().join(name);
    let in_data = |folder: &str| format!("--data-dir={}", at(folder).display());
    let mut running = Program::start(&["--listen=127.0.0.1:0", &in_data("used")]);
    running.address().await;
    std::fs::write(at("file"), "").unwrap();
    std::fs::create_dir(at("other")).unwrap();
    std::fs::write(at("other/log.db"), "Dear diary, ".repeat(100)).unwrap();
    std::fs::write(at("secret"), "short").unwrap();
    let secret = format!("--jwt-secret-file={}", at("secret").display());
    let no_secret = format!("--jwt-public-key-file={}", at("none").display());
    for (options, line) in [
        (vec![in_data("used")], "is in use by another waterclock"),
        (vec![in_data("file/below")], "cannot be kept in"),
        (vec![in_data("other")], "log.db is not an event log of waterclock"),
        (vec![secret], "cannot be used: a secret must have at least 32 bytes"),
        (vec![no_secret], "cannot be read: No such file"),
        (
            vec!["--jwt-jwks=http://login.example/keys".to_owned()],
            "expected a file or an https URL",
        ),
        (
            vec!["--require-token".to_owned()],
            "error: tokens need --jwt-secret-file, --jwt-public-key-file or --jwt-jwks",
        ),
        (
            vec!["--jwt-audience=x".to_owned()],
            "error: tokens need --jwt-secret-file, --jwt-public-key-file or --jwt-jwks",
        ),
    ] {
        let mut options: Vec<_> = options.iter().map(String::as_str).collect();
        options.push("--listen=127.0.0.1:0");
        let (code, stderr) = Program::start(&options).end().await;
        assert_eq!(code, 2, "{options:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(line), "{options:?}: {stderr}");
    }
}

/// Publishes one event after the other until the server is gone. Returns the acknowledged events.
async fn publish(address: SocketAddr, publisher: String) -> Vec<Event> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let body = format!("{publisher} {number}");
        let head = format!(
            "POST /events/t.{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            number % 3,
            body.len()
        );
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            break;
        }
        let mut line = String::new();
        // The body is a line of JSON without a line feed. The head gives its length.
        let mut length = 0;
        while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut response = vec![0; length];
        if length == 0 || stream.read_exact(&mut response).await.is_err() {
            break;
        }
        let event: Event = serde_json::from_slice(&response).unwrap();
        assert_eq!(event.data, body);
        acknowledged.push(event);
    }
    acknowledged
}

/// Reads all topics after a cursor, until the server is gone. With `until_newest`, reads only up to
/// the event that was the newest at the beginning.
async fn subscribe(
    address: SocketAddr,
    cursor: &mut String,
    seen: &mut Vec<(String, String)>,
    until_newest: bool,
) {
    let path = format!("/events?topic=%3E&last_event_id={cursor}");
    let mut stream = request(address, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
    let mut parser = Parser::default();
    let mut bytes = vec![0; 64 * 1024];
    let mut newest = None;
    while let Ok(read @ 1..) = timeout(DEADLINE, stream.read(&mut bytes)).await.expect("events") {
        for parsed in parser.feed(&bytes[..read]) {
            let Parsed::Message(message) = parsed else { continue };
            message.last_event_id.clone_into(cursor);
            match &*message.name {
                "message" => seen.push((message.last_event_id, message.data)),
                "hello" => newest = serde_json::from_str::<Hello>(&message.data).unwrap().newest,
                other => panic!("{other}: {}", message.data),
            }
        }
        if until_newest && newest.is_some_and(|newest| newest.to_string() == *cursor) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_during_publishing_cause_no_losses_or_duplicates() {
    let data = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", data.path().display());
    let start = || Program::start(&["--listen=127.0.0.1:0", "--interval=24h", &data]);
    let (mut cursor, mut seen) = ("earliest".to_owned(), Vec::new());
    let mut acknowledged: Vec<Event> = Vec::new();
    for round in 0..20 {
        let mut program = start();
        let address = program.address().await;
        let publishers: Vec<_> = (0..16)
            .map(|number| tokio::spawn(publish(address, format!("{round} {number}"))))
            .collect();
        let kill = async {
            // Each round kills the program after another number of events.
            let enough = 100 + round * 37 % 200;
            let published = async {
                while !get(address, "/metrics").await.lines().any(|line| {
                    let count = line.strip_prefix("waterclock_events_published_total ");
                    count.is_some_and(|count| count.parse::<u64>().unwrap() >= enough)
                }) {}
            };
            timeout(DEADLINE, published).await.expect("events");
            program.signal("-KILL").await;
        };
        tokio::join!(kill, subscribe(address, &mut cursor, &mut seen, false));
        for publisher in publishers {
            acknowledged.extend(publisher.await.unwrap());
        }
    }

    let mut program = start();
    let address = program.address().await;
    subscribe(address, &mut cursor, &mut seen, true).await;
    let (mut all, mut from) = (Vec::new(), "earliest".to_owned());
    subscribe(address, &mut from, &mut all, true).await;
    assert_eq!(seen, all, "the resumed subscriber has seen each event once, in order");
    let ids: HashMap<_, _> = all.iter().cloned().collect();
    assert_eq!(ids.len(), all.len(), "no id was used twice");
    assert_eq!(all.iter().map(|(_, data)| data).collect::<HashSet<_>>().len(), all.len());
    assert!(acknowledged.len() > 20 * 100 - 20 * 16);
    for Event { id, data, .. } in acknowledged {
        assert_eq!(ids.get(&id.to_string()), Some(&data), "an acknowledged event is in the log");
    }
}

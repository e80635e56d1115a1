//! The program's output: whatever becomes of it, no client notices.

use std::{fs::OpenOptions, io::pipe, process::Stdio};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        unix::pipe::{Receiver, pipe as async_pipe},
    },
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    DEADLINE, PING, SocketAddr, frame, get, preface, request, rest, run_to_end, signal, spawn,
};

fn program() -> Command {
    Command::new(crate::binary::waterclock())
}

/// The standard input of a pipe whose reader has left.
fn without_reader() -> Stdio {
    let (_, writer) = pipe().unwrap();
    writer.into()
}

/// The standard input of a pipe whose reader pauses: nothing more fits into it.
fn with_paused_reader() -> (Receiver, Stdio) {
    let (writer, reader) = async_pipe().unwrap();
    while writer.try_write(&[b'.'; 4096]).is_ok() {}
    while writer.try_write(b".").is_ok() {}
    (reader, writer.into_blocking_fd().unwrap().into())
}

/// An output on a disk that is full.
fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// An address that nobody uses. Other tests listen on 127.0.0.1 only.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.77:0").await.unwrap().local_addr().unwrap()
}

/// Waits until the server can be reached.
async fn started(address: SocketAddr) {
    let starts = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, starts).await.expect("the server starts");
}

/// Reads the metric of lost lines.
async fn lost_lines(address: SocketAddr) -> u64 {
    let metrics = get(address, "/metrics").await;
    let value = metrics.lines().find_map(|line| line.strip_prefix("waterclock_output_lost_total "));
    value.expect(&metrics).parse().unwrap()
}

/// Tests that streams open, that requests are answered, and that SIGTERM ends the program with 0.
async fn test_service_and_stop(address: SocketAddr, mut child: Child) {
    let mut streams = Vec::new();
    // In the past, two hundred were enough to block everything.
    for _ in 0..300 {
        streams.push(request(address, "GET /events HTTP/1.0\r\n\r\n").await);
    }
    for stream in &mut streams {
        let mut head = [0; 12];
        timeout(DEADLINE, stream.read_exact(&mut head)).await.expect("a stream").unwrap();
        assert_eq!(&head, b"HTTP/1.0 200");
    }
    assert!(get(address, "/health/live").await.starts_with("HTTP/1.0 200"));
    signal(&child, "-TERM").await;
    for stream in streams {
        assert!(rest(stream).await.contains("event: goodbye"));
    }
    assert_eq!(timeout(DEADLINE, child.wait()).await.expect("ends").unwrap().code(), Some(0));
}

/// Starts the program with a certain standard error. Returns its address.
async fn start_with(stderr: impl Into<Stdio>) -> (SocketAddr, Child, tempfile::TempDir) {
    let (mut child, data) = spawn(program(), "", &["--listen=127.0.0.1:0"], Stdio::piped(), stderr);
    let address = first_address(child.stdout.as_mut().unwrap()).await;
    (address, child, data)
}

async fn first_address(stdout: &mut ChildStdout) -> SocketAddr {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        timeout(DEADLINE, stdout.read_buf(&mut line)).await.expect("a line").unwrap();
    }
    let line = String::from_utf8(line).unwrap();
    line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap()
}

#[tokio::test]
async fn messages_that_nobody_reads_any_more_are_lost_and_counted() {
    for stderr in [without_reader(), full_disk()] {
        let (address, child, _data) = start_with(stderr).await;
        let mut stream = request(address, "GET /events HTTP/1.0\r\n\r\n").await;
        stream.read_exact(&mut [0; 300]).await.unwrap();
        let counted = async { while lost_lines(address).await == 0 {} };
        timeout(DEADLINE, counted).await.expect("the message of that stream is counted");
        drop(stream);
        test_service_and_stop(address, child).await;
    }
}

#[tokio::test]
async fn a_reader_of_the_messages_that_pauses_delays_nobody() {
    let (_paused, stderr) = with_paused_reader();
    let (address, child, _data) = start_with(stderr).await;
    test_service_and_stop(address, child).await;
}

#[tokio::test]
async fn a_reader_that_goes_on_gets_the_messages_and_the_number_of_lost_ones() {
    let (mut paused, stderr) = with_paused_reader();
    let options = ["--listen=127.0.0.1:0", "--log=json"];
    let (mut child, _data) = spawn(program(), "warn,h2=trace", &options, Stdio::piped(), stderr);
    let address = first_address(child.stdout.as_mut().unwrap()).await;
    // Each of these causes several messages.
    let pings = [preface(), frame(PING, 0, 0, b"anything").repeat(2000)].concat();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&pings).await.unwrap();
    let overflows = async { while lost_lines(address).await == 0 {} };
    timeout(DEADLINE, overflows).await.expect("lines are lost");
    let (mut text, mut lines) = (Vec::new(), Vec::new());
    let reported = async {
        loop {
            paused.read_buf(&mut text).await.unwrap();
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(text.drain(..=end).collect()).unwrap();
                let line = line.trim_start_matches('.');
                lines.push(serde_json::from_str::<serde_json::Value>(line).expect(line));
                let lost = &lines.last().unwrap()["lines"];
                if lost.as_u64().is_some_and(|lost| lost > 0) {
                    return;
                }
            }
        }
    };
    timeout(DEADLINE, reported).await.expect("the number of lost lines");
    assert!(lines.len() > 100, "{}", lines.len());
    drop((paused, client));
    test_service_and_stop(address, child).await;
}

#[tokio::test]
async fn standard_output_that_nobody_reads_neither_ends_nor_delays_the_server() {
    let (_paused, paused) = with_paused_reader();
    for stdout in [without_reader(), full_disk(), paused] {
        let address = free_address().await;
        let listen = format!("--listen={address}");
        let (child, _data) = spawn(program(), "warn", &[&listen], stdout, Stdio::null());
        started(address).await;
        test_service_and_stop(address, child).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_closed_output_is_not_taken_for_a_socket_or_the_event_log() {
    let address = free_address().await;
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 0>&- 1>&- 2>&-", crate::binary::waterclock()]);
    let listen = format!("--listen={address}");
    let (child, _data) = spawn(shell, "", &[&listen], Stdio::null(), Stdio::null());
    started(address).await;
    for number in 0..3 {
        let file = format!("/proc/{}/fd/{number}", child.id().unwrap());
        assert_eq!(std::fs::read_link(file).unwrap().to_str(), Some("/dev/null"));
    }
    test_service_and_stop(address, child).await;
}

#[tokio::test]
async fn an_error_at_the_start_has_its_exit_code_without_a_reader_too() {
    let (_paused, paused) = with_paused_reader();
    for stderr in [without_reader(), full_disk(), paused] {
        // An address that is reserved for documentation (RFC 5737).
        let options = ["--listen=192.0.2.1:3000"];
        let (mut child, _data) = spawn(program(), "", &options, Stdio::null(), stderr);
        assert_eq!(timeout(DEADLINE, child.wait()).await.expect("ends").unwrap().code(), Some(2));
    }
}

#[tokio::test]
async fn help_and_diagnosis_have_their_exit_codes_without_a_reader_too() {
    let closed = free_address().await;
    let url = format!("http://{closed}/");
    for (arguments, expected) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["--nonsense"], 2),
        (&["diagnose", "--help"], 0),
        (&["diagnose", &url], 2),
    ] {
        let (mut child, _data) =
            spawn(program(), "", arguments, without_reader(), without_reader());
        let code = timeout(DEADLINE, child.wait()).await.expect("ends").unwrap().code();
        assert_eq!(code, Some(expected), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_invalid_rust_log_is_reported_and_ignored() {
    let options = ["--listen=192.0.2.1:3000"];
    let (code, stderr) = run_to_end(&options, &[("RUST_LOG", "server=loud")]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("RUST_LOG is ignored: error parsing level filter"), "{stderr}");
    let (mut child, _data) =
        spawn(program(), "server=loud", &options, Stdio::null(), without_reader());
    assert_eq!(timeout(DEADLINE, child.wait()).await.expect("ends").unwrap().code(), Some(2));
}

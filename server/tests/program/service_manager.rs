//! The program under a service manager: the sockets that the manager holds, and the messages that
//! it gets. These tests are the manager.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixDatagram},
    process::Command,
    time::timeout,
};

use super::{DEADLINE, Program, get, request, rest};

/// Number of connections of the test of restarts, each with one request.
const CONNECTIONS: usize = 1000;
/// Number of connections that are open at a time.
const AT_ONCE: usize = 20;
const RESTARTS: usize = 4;

/// Starts the program with the sockets that a shell has taken as `descriptors`: `3<&0 4<&2`.
fn start(descriptors: &str, count: usize, stdin: Stdio, options: &[&str]) -> Program {
    let mut shell = Command::new("sh");
    let run = format!(
        "exec {descriptors} 0</dev/null; LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES=http \
         exec \"$0\" \"$@\""
    );
    shell.args(["-c", &run, crate::binary::waterclock()]).stdin(stdin);
    Program::run(shell, "warn", options)
}

fn handed_over(listener: &TcpListener) -> Stdio {
    OwnedFd::from(listener.try_clone().unwrap()).into()
}

/// Sends a request on a connection of its own. Returns the response.
async fn ask(address: SocketAddr, head: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(head.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_behind_a_held_socket_refuse_and_reset_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let data = TempDir::new().unwrap();
    let folder = format!("--data-dir={}", data.path().display());
    let start = || start("3<&0", 1, handed_over(&listener), &[&folder, "--listen=192.0.2.1:1"]);
    let (made, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (made, answered) = (Arc::clone(&made), Arc::clone(&answered));
            tokio::spawn(async move {
                loop {
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    if number >= CONNECTIONS {
                        return;
                    }
                    let (head, status) = if number % 2 == 0 {
                        ("GET /health/live HTTP/1.0\r\n\r\n", "200")
                    } else {
                        ("POST /events/t HTTP/1.0\r\nContent-Length: 4\r\n\r\nload", "201")
                    };
                    let response = timeout(DEADLINE, ask(address, head)).await.expect("an answer");
                    let response = response.expect("neither refused nor reset");
                    let expected = format!("HTTP/1.0 {status} ");
                    assert!(response.starts_with(&expected), "{number}: {response:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut reader = None;
    for restart in 0..RESTARTS {
        let mut program = start();
        assert_eq!(program.address().await, address, "--listen is replaced");
        let enough = CONNECTIONS * (restart + 1) / (RESTARTS + 1);
        let load = async {
            while answered.load(Ordering::Relaxed) < enough {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, load).await.expect("the load goes on");
        let stream = request(address, "GET /events HTTP/1.0\r\n\r\n");
        let mut opened = timeout(DEADLINE, stream).await.unwrap();
        timeout(DEADLINE, opened.read_exact(&mut [0; 300])).await.expect("a stream").unwrap();
        if let Some(stream) = reader.replace(opened) {
            assert!(rest(stream).await.contains("event: goodbye"));
        }
        program.signal("-TERM").await;
        assert_eq!(program.end().await, (0, String::new()));
    }
    let last = start();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(answered.load(Ordering::Relaxed), CONNECTIONS);
    last.signal("-TERM").await;
    assert_eq!(last.end().await.0, 0);
}

#[tokio::test]
async fn connections_during_a_shutdown_wait_for_the_next_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let start = || start("3<&0", 1, handed_over(&listener), &["--drain=500ms"]);
    let mut program = start();
    program.address().await;
    // A client that does not read keeps the program from its end for the time of the drain.
    let stuck = super::client_that_does_not_read(address).await;
    program.signal("-TERM").await;
    let is_stopping = async {
        // Connections are accepted until the program has noticed the signal.
        loop {
            let asked = ask(address, "GET /health/live HTTP/1.0\r\n\r\n");
            if timeout(Duration::from_millis(100), asked).await.is_err() {
                return;
            }
        }
    };
    timeout(DEADLINE, is_stopping).await.expect("it stops to accept");
    let waiting = request(address, "GET /health/live HTTP/1.0\r\n\r\n").await;
    assert_eq!(program.end().await.0, 0);
    drop(stuck);
    let next = start();
    assert!(rest(waiting).await.ends_with("live\n"));
    next.signal("-TERM").await;
    assert_eq!(next.end().await.0, 0);
}

#[tokio::test]
async fn sockets_may_have_addresses_of_both_families() {
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let data = TempDir::new().unwrap();
    let mut shell = Command::new("sh");
    let run = "exec 3<&0 4<&2 2>/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\"";
    shell.args(["-c", run, crate::binary::waterclock()]).stdin(handed_over(&listeners[0]));
    shell.env("WATERCLOCK_DATA_DIR", data.path()).kill_on_drop(true);
    let mut child = shell.stdout(Stdio::null()).stderr(handed_over(&listeners[1])).spawn().unwrap();
    for address in addresses {
        assert!(get(address, "/health/live").await.ends_with("live\n"), "{address}");
    }
    super::signal(&child, "-TERM").await;
    assert!(timeout(DEADLINE, child.wait()).await.expect("ends").unwrap().success());
}

#[tokio::test]
async fn a_socket_that_cannot_be_served_is_one_clear_line() {
    let expected = "error: socket 1 (http) of the service manager is not a listening TCP socket";
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let held = TempDir::new().unwrap();
    let unix = std::os::unix::net::UnixListener::bind(held.path().join("socket")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accepted = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for socket in [OwnedFd::from(udp), unix.into(), accepted.into()] {
        let (code, stderr) = start("3<&0", 1, socket.into(), &[]).end().await;
        assert_eq!(code, 2);
        assert!(stderr.starts_with(expected) && stderr.lines().count() == 1, "{stderr}");
    }
    let (code, stderr) = start("3<&-", 1, Stdio::null(), &[]).end().await;
    assert_eq!(code, 2);
    assert!(stderr.starts_with(expected), "{stderr}");
}

#[tokio::test]
async fn sockets_of_another_process_are_left_alone() {
    let mut shell = Command::new("sh");
    let run = "LISTEN_PID=1 LISTEN_FDS=1 exec \"$0\" \"$@\"";
    shell.args(["-c", run, crate::binary::waterclock()]);
    let mut program = Program::run(shell, "warn", &["--listen=127.0.0.1:0"]);
    let address = program.address().await;
    assert!(get(address, "/health/live").await.ends_with("live\n"));
}

/// Waits for a message with this line.
async fn message(manager: &UnixDatagram, line: &str) -> String {
    let mut bytes = [0; 1024];
    let received = async {
        loop {
            let read = manager.recv(&mut bytes).await.unwrap();
            let message = String::from_utf8(bytes[..read].to_vec()).unwrap();
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    };
    timeout(DEADLINE, received).await.expect(line)
}

#[tokio::test]
async fn the_service_manager_learns_of_the_start_the_life_and_the_stop() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut command = Command::new("sh");
    let run = "WATCHDOG_PID=$$ WATCHDOG_USEC=100000 exec \"$0\" \"$@\"";
    command.args(["-c", run, crate::binary::waterclock()]).env("NOTIFY_SOCKET", &path);
    let mut program = Program::run(command, "warn", &["--listen=127.0.0.1:0"]);
    message(&manager, "READY=1").await;
    let address = program.address().await;
    assert!(get(address, "/health/ready").await.starts_with("HTTP/1.0 200"));
    let _stream = request(address, "GET /events HTTP/1.0\r\n\r\n").await;
    let ping = message(&manager, "STATUS=serving 1 streams").await;
    assert!(ping.contains("WATCHDOG=1"), "{ping}");
    program.signal("-TERM").await;
    message(&manager, "STOPPING=1").await;
    assert_eq!(program.end().await, (0, String::new()));
}

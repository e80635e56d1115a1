//! A crowd of streams that rest: all of its clients may leave at once, and each of them gets its
//! `goodbye`. `make soak` runs this with as many as a limit of 20,000 open files allows.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{Program, churn::wait_for, get, request};

/// Time in which a crowd gets what it waits for.
const PATIENCE: Duration = Duration::from_mins(3);
const STREAM: &str = "GET /events/crowd HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /events/crowd HTTP/1.0\r\nContent-Length: 4\r\n\r\ntick";

type Reader = BufReader<TcpStream>;

/// Returns the size of a crowd: some hundred, or that in CROWD, but at most `max`.
fn size(max: usize) -> usize {
    std::env::var("CROWD").map_or(500, |text| text.parse().unwrap()).min(max)
}

/// Starts a program, and opens streams until they rest.
async fn start(streams: usize) -> (Program, SocketAddr, Vec<Reader>) {
    // Fails if the system allows fewer, as then does the test.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let max = ["", "-per-address"].map(|of| format!("--max-streams{of}={}", streams + 1));
    let options = ["--listen=127.0.0.1:0", "--interval=1h", "--drain=20s", &max[0], &max[1]];
    let mut program = Program::start_with_level("warn", &options);
    let address = program.address().await;
    let mut readers = Vec::with_capacity(streams);
    while readers.len() < streams {
        let mut stream = BufReader::new(request(address, STREAM).await);
        read_until(&mut stream, "event: hello").await;
        readers.push(stream);
    }
    wait_for(address, &format!("streams_resting {streams}")).await;
    (program, address, readers)
}

/// Reads up to a line.
async fn read_until(stream: &mut Reader, line: &str) {
    let mut read = String::new();
    while read.trim_end() != line {
        read.clear();
        let reading = timeout(PATIENCE, stream.read_line(&mut read)).await.expect(line);
        assert_ne!(reading.unwrap(), 0, "ended before {line:?}");
    }
}

async fn publish(address: SocketAddr) {
    let response = super::rest(request(address, POST).await).await;
    assert!(response.starts_with("HTTP/1.0 201"), "{response}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_may_leave_at_once() {
    let (program, address, mut readers) = start(size(15_000)).await;
    publish(address).await;
    for reader in &mut readers {
        read_until(reader, "data: tick").await;
    }
    // Half of them reset their connections.
    for reader in readers.iter().step_by(2) {
        reader.get_ref().set_zero_linger().unwrap();
    }
    drop(readers);
    // The server notices while it goes on with its work.
    publish(address).await;
    assert!(get(address, "/health/live").await.starts_with("HTTP/1.0 200"));
    for metric in ["connections_open 1", "streams_open 0", "streams_direct 0", "streams_resting 0"]
    {
        wait_for(address, metric).await;
    }
    let mut newcomer = BufReader::new(request(address, STREAM).await);
    read_until(&mut newcomer, "event: hello").await;
    publish(address).await;
    read_until(&mut newcomer, "data: tick").await;
    drop(newcomer);
    program.signal("-TERM").await;
    assert_eq!(program.end().await, (0, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stream_that_rests_gets_its_goodbye() {
    let (program, _, readers) = start(size(10_000)).await;
    program.signal("-TERM").await;
    let mut goodbyes = JoinSet::new();
    for mut reader in readers {
        goodbyes.spawn(async move {
            read_until(&mut reader, "event: goodbye").await;
            read_until(&mut reader, "0").await;
        });
    }
    timeout(PATIENCE, goodbyes.join_all()).await.expect("all goodbyes");
    assert_eq!(program.end().await, (0, String::new()));
}

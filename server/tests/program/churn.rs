//! A server under load whose clients come and go: no event is lost, no stream is forgotten, and
//! the memory does not grow. `make soak` runs this for ten minutes.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{DEADLINE, Program, get, request};

/// Number of readers that stay.
const READERS: usize = 300;
/// Number of events in a second, if the machine is fast enough.
const EVENTS: u64 = 100;
/// Number of clients in a second that connect, read something, and cut the connection.
const VISITORS: u32 = 200;
/// Number of seconds of a run that shows if the memory grows. Before, the hub fills its own.
const LONG: u64 = 300;

const STREAM: &str = "GET /events/load HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Reads a stream up to the event `last`. The events are numbered from 1.
async fn read_all(address: SocketAddr, last: u64) {
    let mut lines = BufReader::new(request(address, STREAM).await).lines();
    let mut read = 0;
    while read < last {
        let line = timeout(DEADLINE, lines.next_line()).await.expect("an event").unwrap().unwrap();
        if let Some(number) = line.strip_prefix("data: ").and_then(|data| data.parse().ok()) {
            assert_eq!(number, read + 1);
            read = number;
        }
    }
}

/// Reads some lines of a stream, and cuts the connection: by its end, or by a reset.
async fn visit(address: SocketAddr) {
    let mut lines = BufReader::new(request(address, STREAM).await).lines();
    for _ in 0..fastrand::u32(0..30) {
        timeout(DEADLINE, lines.next_line()).await.expect("a line").unwrap();
    }
    if fastrand::bool() {
        lines.into_inner().into_inner().set_zero_linger().unwrap();
    }
}

async fn publish(connection: &mut BufReader<TcpStream>, number: u64) {
    let body = number.to_string();
    let head = "POST /events/load HTTP/1.1\r\nHost: localhost";
    let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    connection.write_all(text.as_bytes()).await.unwrap();
    let mut response = String::new();
    while !response.ends_with("\r\n\r\n") {
        assert_ne!(connection.read_line(&mut response).await.unwrap(), 0, "{response}");
    }
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
    let length = response.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    tokio::io::AsyncReadExt::read_exact(connection, &mut body).await.unwrap();
}

/// Ticks that are late do not come together.
fn ticks(a_second: u32) -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_secs(1) / a_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

pub(super) async fn wait_for(address: SocketAddr, metric: &str) {
    let line = format!("waterclock_{metric}\n");
    let reached = async { while !get(address, "/metrics").await.contains(&line) {} };
    timeout(DEADLINE, reached).await.expect(metric);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_and_go_cost_no_event_and_no_memory() {
    let seconds = std::env::var("CHURN_SECONDS").map_or(2, |text| text.parse().unwrap());
    let last = seconds * EVENTS;
    let mut program = Program::start(&["--listen=127.0.0.1:0", "--interval=1h"]);
    let address = program.address().await;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(read_all(address, last));
    }
    wait_for(address, &format!("streams_resting {READERS}")).await;

    let visitors = tokio::spawn(async move {
        let (mut ticks, mut visits) = (ticks(VISITORS), JoinSet::new());
        loop {
            tokio::select! {
                _ = ticks.tick() => drop(visits.spawn(visit(address))),
                Some(visit) = visits.join_next() => visit.unwrap(),
            }
        }
    });
    let mut connection = BufReader::new(TcpStream::connect(address).await.unwrap());
    let (mut ticks, mut memory) = (ticks(u32::try_from(EVENTS).unwrap()), 0);
    for number in 1..=last {
        ticks.tick().await;
        publish(&mut connection, number).await;
        if number == last / 3 {
            memory = program.memory();
        }
    }
    let grown = program.memory();
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    assert!(!visitors.is_finished(), "{:?}", visitors.await);
    visitors.abort();
    drop(connection);
    // The connection that reads the metrics is the only one.
    wait_for(address, "connections_open 1").await;
    wait_for(address, "streams_open 0").await;
    wait_for(address, "streams_direct 0").await;
    wait_for(address, "streams_resting 0").await;
    println!("memory after a third: {memory}, at the end: {grown} bytes");
    assert!(seconds < LONG || grown < memory + memory / 10, "{memory} grew to {grown} bytes");
}

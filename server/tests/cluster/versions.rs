//! A node that meets an entry of a later version.

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::{
    cursors::acknowledged,
    nodes::{NodeCluster, has_nats},
};

/// Publishes a message to a server of NATS in the protocol of its clients, and waits until the
/// server has it.
async fn publish_raw(port: u16, subject: &str, payload: &str) {
    let stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let mut lines = stream.lines();
    let message = format!(
        "CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n{payload}\r\nPING\r\n",
        payload.len()
    );
    lines.get_mut().write_all(message.as_bytes()).await.unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        assert!(!line.starts_with("-ERR"), "{line}");
        if line.starts_with("PONG") {
            return;
        }
    }
    panic!("no answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_node_stops_at_a_newer_entry() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=24h"]).await;
    acknowledged(&cluster.nodes[0], "t", "first").await;
    let node = &cluster.nodes[2];
    // A node that is away meets it at its start.
    node.terminate().await;
    acknowledged(&cluster.nodes[0], "t", "second").await;
    let port = cluster.servers[0].lock().port;
    publish_raw(port, "faults.entries", r#"{"v":99,"to":"this version it means nothing"}"#).await;
    for node in &cluster.nodes[..2] {
        assert_eq!(node.ends().await, Some(1), "{}", node.name);
    }
    node.restart();
    assert_eq!(node.ends().await, Some(1));
    for node in &cluster.nodes {
        let text = "was written by a newer waterclock: its format is 99, this program knows 2";
        assert!(node.output().contains(text), "{}", node.output());
    }
}

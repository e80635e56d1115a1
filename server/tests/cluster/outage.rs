//! A cluster whose servers of NATS are all away.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use waterclock::transport::Transport;

use crate::{
    clients::{ReaderStart, get, publish, whole_log},
    cursors::{acknowledged, read},
    nodes::{DEADLINE, NodeCluster, has_nats, until},
};

/// The value of `--cluster-timeout`.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(4);
/// Time that an answer may take in addition, on a busy machine.
const TOLERANCE: Duration = Duration::from_secs(4);

/// Returns the state that a node tells of itself.
async fn state(address: SocketAddr) -> Value {
    let (status, body) = get(&format!("http://{address}/health/state")).await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_wait_and_then_get_503_while_nats_is_away() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=24h", "--cluster-timeout=4s"]).await;
    let ids: Vec<_> = cluster.nodes.iter().map(|node| node.id()).collect();
    let first = acknowledged(&cluster.nodes[0], "t", "first").await;
    let mut published = vec![first.clone(), acknowledged(&cluster.nodes[1], "t", "second").await];
    for node in &cluster.nodes {
        let state = state(node.listens().await).await;
        let Value::Number(_) = &state["lag"] else { panic!("no lag: {state}") };
        assert_eq!((&state["node"], &state["away"]), (&json!(node.name), &json!(false)), "{state}");
        let start = ReaderStart::Oldest;
        assert_eq!(read(node, Transport::Poll, "t", start, 2).await, published);
    }
    // These readers must not be cut until the end.
    let mut readers = Vec::new();
    for (node, transport) in cluster.nodes.iter().zip(Transport::ALL) {
        let (node, start) = (node.clone(), ReaderStart::After(first.id));
        readers.push(tokio::spawn(async move { read(&node, transport, "t", start, 4).await }));
    }

    cluster.servers.iter().for_each(|server| server.lock().kill());
    for (number, node) in cluster.nodes.iter().enumerate() {
        let address = node.listens().await;
        let asked = Instant::now();
        let answer = publish(address, "t", &format!("unavailable {number}"), None).await;
        assert!(asked.elapsed() < CLUSTER_TIMEOUT + TOLERANCE, "{:?}", asked.elapsed());
        assert_eq!(answer.status, Some(503));
        assert!(answer.retry_after.is_some());
        until("503 of /health/ready?publish", async || {
            let url = format!("http://{address}/health/ready?publish");
            (get(&url).await?.0 == 503).then_some(())
        })
        .await;
        let (status, text) = get(&format!("http://{address}/health/ready")).await.unwrap();
        assert_eq!(status, 200, "{text}");
        let state = state(address).await;
        assert_eq!((&state["ready"], &state["publish"]), (&json!(true), &json!(false)), "{state}");
        assert_eq!((&state["away"], &state["lag"]), (&json!(true), &json!(0)), "{state}");
        assert_eq!(whole_log(address).await.unwrap(), published);
        let replay = read(node, Transport::WebSocket, "t", ReaderStart::After(first.id), 1).await;
        assert_eq!(replay, published[1..]);
    }

    cluster.servers.iter().for_each(|server| server.lock().restart());
    for node in &cluster.nodes {
        let address = node.can_publish().await;
        assert_eq!(state(address).await["away"], false);
        published.push(acknowledged(node, "t", &format!("again at {}", node.name)).await);
    }
    assert!(published.is_sorted_by_key(|event| event.id.sequence));
    let log = until("log with all events", async || {
        let log = whole_log(cluster.nodes[0].listens().await).await?;
        (log.last() == published.last()).then_some(log)
    })
    .await;
    assert!(published.iter().all(|event| log.contains(event)), "{log:?}");
    for node in &cluster.nodes {
        let address = node.listens().await;
        until("the same log", async || (whole_log(address).await? == log).then_some(())).await;
    }
    for reader in readers {
        let read = timeout(DEADLINE, reader).await.expect("a reader has all events").unwrap();
        assert_eq!(read, log[1..5]);
    }
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
    assert_eq!(cluster.nodes.iter().map(|node| node.id()).collect::<Vec<_>>(), ids);
}

//! A reload of the configuration while the servers of NATS are away.

use std::fs;

use rustix::process::Signal;

use crate::{
    clients::log_of,
    cursors::acknowledged,
    links::Passage,
    nodes::{NodeCluster, has_nats, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_the_cluster_does_not_answer_can_be_repeated() {
    if !has_nats() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let retain = |count: u32| fs::write(&file, format!("retain-count = {count}\n")).unwrap();
    retain(100);
    let config = format!("--config={}", file.display());
    let options = ["--interval=24h", "--cluster-timeout=4s", &config];
    let cluster = NodeCluster::start(&options).await;
    let node = &cluster.nodes[0];
    for number in 0..5 {
        acknowledged(node, "t", &format!("event {number}")).await;
    }

    // The node cannot tell if its request has arrived.
    cluster.set_node(0, Passage::Held);
    retain(3);
    node.signal(Signal::HUP);
    let result = "the configuration was not reloaded, the one before applies";
    until(result, async || node.output().contains(result).then_some(())).await;
    let advice = "it is unknown if the event log has changed what it keeps: reload once more";
    assert!(node.output().contains(advice), "{}", node.output());

    cluster.set_node(0, Passage::Open);
    node.can_publish().await;
    node.signal(Signal::HUP);
    let result = "the configuration was reloaded";
    until(result, async || node.output().contains(result).then_some(())).await;
    // Events beyond the new bound are dropped at some of the next publishes.
    let address = node.listens().await;
    let log = until("fewer events than before", async || {
        let last = acknowledged(node, "t", "another event").await;
        let log = log_of(address, "topic=t").await?;
        (log.len() < 5 && log.last() == Some(&last)).then_some(log)
    })
    .await;
    for node in &cluster.nodes {
        let address = node.listens().await;
        until("the same events", async || (log_of(address, "topic=t").await? == log).then_some(()))
            .await;
    }
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
}

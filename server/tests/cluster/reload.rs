//! A reload of the configuration while the servers of NATS are away.

use std::fs;

use rustix::process::Signal;

use crate::{
    clients::whole_log,
    cursors::acknowledged,
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
    let options = ["--interval=24h", "--cluster-timeout=1s", &config];
    let cluster = NodeCluster::start(&options).await;
    let node = &cluster.nodes[0];
    for number in 0..5 {
        acknowledged(node, "t", &format!("event {number}")).await;
    }

    cluster.servers.iter().for_each(|server| server.lock().kill());
    retain(3);
    node.signal(Signal::HUP);
    let result = "the configuration was not reloaded, the one before applies";
    until(result, async || node.output().contains(result).then_some(())).await;
    let advice = "it is unknown if the event log has changed what it keeps: reload once more";
    assert!(node.output().contains(advice), "{}", node.output());

    cluster.servers.iter().for_each(|server| server.lock().restart());
    node.can_publish().await;
    node.signal(Signal::HUP);
    let result = "the configuration was reloaded";
    until(result, async || node.output().contains(result).then_some(())).await;
    let last = acknowledged(node, "t", "last").await;
    for node in &cluster.nodes {
        let address = node.listens().await;
        until("three events", async || {
            let log = whole_log(address).await?;
            (log.len() == 3 && log.last() == Some(&last)).then_some(())
        })
        .await;
    }
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
}

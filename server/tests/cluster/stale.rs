//! A server of NATS that believes to lead the stream although the others have another leader.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use waterclock::id::EventId;

use crate::{
    clients::{get, publish, whole_log},
    cursors::acknowledged,
    histories::AttemptOutcome,
    links::Passage,
    nodes::{COUNT, ClusterNode, NodeCluster, has_nats, until},
};

/// Time for which the nodes are observed that reach only the old leader.
const OBSERVED: Duration = Duration::from_secs(8);

/// Returns the index of the server that leads the stream, as a server sees it.
async fn leader(cluster: &NodeCluster, at: usize) -> Option<usize> {
    let monitoring = cluster.servers[at].lock().monitoring();
    let (_, text) = get(&format!("{monitoring}/jsz?streams=true")).await?;
    let state: Value = serde_json::from_str(&text).ok()?;
    let streams = state["account_details"][0]["stream_detail"].as_array()?;
    let stream = streams.iter().find(|stream| stream["name"] == "faults")?;
    stream["cluster"]["leader"].as_str()?.strip_prefix('s')?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_not_believed() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=24h"]).await;
    acknowledged(&cluster.nodes[0], "t", "first").await;
    let old = until("leader", async || leader(&cluster, 0).await).await;
    // The first node reaches only the leader, and the others reach only the other servers.
    let reach = |node: usize, is_reached: &dyn Fn(usize) -> bool| {
        for server in 0..COUNT {
            let passage = if is_reached(server) { Passage::Open } else { Passage::Closed };
            cluster.set_link(node, server, passage);
        }
    };
    for node in 0..COUNT {
        reach(node, &|server| (node == 0) == (server == old));
    }
    for node in &cluster.nodes {
        until("way to the leader", async || {
            let answer = publish(node.address()?, "t", "before", None).await;
            matches!(answer.outcome, AttemptOutcome::Acknowledged(_)).then_some(())
        })
        .await;
    }

    cluster.set_server(old, Passage::Held);
    let [cut, there, late] = &cluster.nodes[..] else { panic!("three nodes") };
    let event = until("event by the new leader", async || {
        let answer = publish(there.address()?, "t", "by the new leader", Some("new")).await;
        match answer.outcome {
            AttemptOutcome::Acknowledged(event) => Some(event),
            _ => None,
        }
    })
    .await;
    let address = late.listens().await;
    let has_event = async || whole_log(address).await?.contains(&event).then_some(());
    until("event at the last node", has_event).await;
    // This node has more than the old leader now, which must not count as a loss.
    reach(2, &|server| server == old);
    // And the event must not be "in the future" for the node that does not have it.
    let until_then = Instant::now() + OBSERVED;
    while Instant::now() < until_then {
        for node in [cut, late] {
            assert_no_gap(node, event.id).await;
        }
    }

    cluster.set_server(old, Passage::Open);
    (0..COUNT).for_each(|node| reach(node, &|_| true));
    let last = acknowledged(there, "t", "last").await;
    let log = whole_log(there.listens().await).await.unwrap();
    assert_eq!(log.last(), Some(&last));
    for node in &cluster.nodes {
        let address = node.listens().await;
        until("the same log", async || (whole_log(address).await? == log).then_some(())).await;
    }
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
    cluster.assert_no_loss();
}

/// Checks that a node tells of no gap after an event that exists.
async fn assert_no_gap(node: &ClusterNode, after: EventId) {
    let address = node.address().expect("it listens");
    let url = format!("http://{address}/poll?topic=t&last_event_id={after}&wait=1");
    if let Some((200, text)) = get(&url).await {
        assert!(text.contains(r#""gap":null"#), "{text}");
    }
}

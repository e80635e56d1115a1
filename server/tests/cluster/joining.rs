//! A node that joins a cluster later.

use futures_util::future::join_all;
use waterclock::transport::Transport;

use crate::{
    clients::{ReaderStart, whole_log},
    cursors::{acknowledged, read},
    nodes::{NodeCluster, has_nats, until},
};

/// Number of events that each node publishes before another one joins.
const COUNT: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_later_has_the_same_log() {
    if !has_nats() {
        return;
    }
    let mut cluster = NodeCluster::start(&["--interval=24h"]).await;
    let publishers = cluster.nodes.iter().map(async |node| {
        let mut last = None;
        for number in 0..COUNT {
            let (topic, data) = (format!("t.{}", number % 7), format!("{number} at {}", node.name));
            last = Some(acknowledged(node, &topic, &data).await);
        }
        last.unwrap()
    });
    let published = join_all(publishers).await;
    let last = published.into_iter().max_by_key(|event| event.id.sequence).unwrap();

    let joined = cluster.add().await;
    // A cursor of another node is good even before it has the events.
    let address = joined.listens().await;
    let next = acknowledged(&cluster.nodes[0], "t.0", "next").await;
    let start = ReaderStart::After(last.id);
    for transport in Transport::ALL {
        assert_eq!(read(&joined, transport, "t.0", start, 1).await, std::slice::from_ref(&next));
    }
    let log = whole_log(address).await.unwrap();
    assert_eq!(log.len(), 3 * COUNT + 1);
    for node in &cluster.nodes {
        assert!(whole_log(node.listens().await).await.as_ref() == Some(&log), "{}", node.name);
    }

    joined.can_publish().await;
    let by_joined = acknowledged(&joined, "t.0", "published by the node that has joined").await;
    let start = ReaderStart::After(next.id);
    let read = read(&cluster.nodes[0], Transport::Sse, "t.0", start, 1).await;
    assert_eq!(read, [by_joined]);

    // It is a member from now on.
    joined.kill();
    let missed = acknowledged(&cluster.nodes[0], "t.0", "missed").await;
    joined.restart();
    let address = joined.listens().await;
    until("missed event", async || (whole_log(address).await?.last()? == &missed).then_some(()))
        .await;
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
}

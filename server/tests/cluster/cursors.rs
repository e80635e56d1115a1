//! Cursors that go from node to node, and the one clock of a cluster.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use waterclock::{event::Event, id::EventId, timestamp::Timestamp, transport::Transport};

use crate::{
    clients::{ReadAttempt, ReadEnd, ReaderStart, Reading, publish},
    histories::{AttemptOutcome, Receipt},
    nodes::{COUNT, ClusterNode, DEADLINE, NodeCluster, has_nats},
};

/// Publishes an event, which must be acknowledged.
pub async fn acknowledged(node: &ClusterNode, topic: &str, data: &str) -> Event {
    let answer = publish(node.address().expect("it listens"), topic, data, None).await;
    match answer.outcome {
        AttemptOutcome::Acknowledged(event) => event,
        other => panic!("{:?}, {other:?}", answer.status),
    }
}

/// Reads the next events of a topic. There must be no gap and no cut, and `hello` must name the
/// node.
pub async fn read(
    node: &ClusterNode,
    transport: Transport,
    topic: &str,
    start: ReaderStart,
    count: usize,
) -> Vec<Event> {
    let address = node.address().expect("it listens");
    let topics = format!("topic={topic}");
    let until = Instant::now() + DEADLINE;
    let attempt = ReadAttempt { address, transport, topics: &topics, start, until };
    let (mut events, mut hello) = (Vec::new(), None);
    let end = attempt
        .run(|reading| {
            match reading {
                Reading::Hello(node) => hello = node,
                Reading::Receipt(Receipt::Event(event)) => events.push(event),
                Reading::Receipt(Receipt::Position(_)) => {}
                other => panic!("{other:?}"),
            }
            events.len() < count
        })
        .await;
    assert_eq!((end, events.len()), (ReadEnd::Finished, count), "{transport:?}: {events:?}");
    if matches!(transport, Transport::Sse | Transport::WebSocket) {
        assert_eq!(hello.as_ref(), Some(&node.name));
    }
    events
}

/// Reads the next event after a cursor, at all nodes and on all transports.
async fn read_everywhere(cluster: &NodeCluster, topic: &str, after: EventId) -> Vec<Event> {
    let nodes = cluster.nodes.iter();
    let ways = nodes.flat_map(|node| Transport::ALL.map(|transport| (node, transport)));
    let start = ReaderStart::After(after);
    let read = join_all(ways.map(|(node, transport)| read(node, transport, topic, start, 1)));
    read.await.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_one_node_continues_at_every_other() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=24h"]).await;
    let everywhere = |event: &Event| vec![event.clone(); COUNT * Transport::ALL.len()];
    let mut last = acknowledged(&cluster.nodes[0], "orders", "first").await;
    for round in 0..3 {
        for (index, node) in cluster.nodes.iter().enumerate() {
            // The other nodes may not have it yet.
            let data = format!("{round} at {}", node.name);
            let event = acknowledged(node, "orders", &data).await;
            assert_eq!(read_everywhere(&cluster, "orders", last.id).await, everywhere(&event));

            // Nor the place from which they shall continue.
            let other = acknowledged(node, "other", &data).await;
            let next = &cluster.nodes[(index + 1) % COUNT];
            let (read, published) = tokio::join!(
                read_everywhere(&cluster, "orders", other.id),
                acknowledged(next, "orders", "next")
            );
            assert_eq!(read, everywhere(&published));
            last = published;
        }
    }
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_has_one_clock() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=1s"]).await;
    let read_clock = async |node: usize, start| {
        read(&cluster.nodes[node], Transport::Sse, "clock", start, 4).await
    };
    let from_now = ReaderStart::Now;
    let (mut ticks, same) = tokio::join!(read_clock(0, from_now), read_clock(2, from_now));
    let last = ticks[3].id;
    assert!(same.contains(&ticks[3]) || ticks.contains(&same[3]), "{ticks:?}, {same:?}");
    // One that is left must tick, whichever has ticked until now.
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    ticks.extend(read_clock(2, ReaderStart::After(last)).await);
    let times: Vec<Timestamp> = ticks.iter().map(|tick| tick.data.parse().unwrap()).collect();
    for (pair, tick) in times.windows(2).zip(&ticks[1..]) {
        assert_eq!(pair[1].since(pair[0]), Duration::from_secs(1), "{ticks:#?}");
        assert!(tick.time.since(pair[1]) < Duration::from_secs(1), "{tick:?}");
    }
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
}

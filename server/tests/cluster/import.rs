//! The log of a single process that becomes the beginning of a cluster.

use std::{net::SocketAddr, sync::Arc};

use reqwest::Method;
use waterclock::{event::Event, transport::Transport};

use crate::{
    clients::{ReaderStart, get, log_of, publish, request},
    cursors::{acknowledged, read},
    histories::AttemptOutcome,
    nodes::{ClusterNode, NodeCluster, has_nats, until},
};

/// Number of lines of each topic.
const LINES: usize = 1000;
const OPTIONS: [&str; 1] = ["--interval=24h"];

/// Publishes an event with a key.
async fn publish_with_key(address: SocketAddr, topic: &str, key: &str) -> Event {
    match publish(address, topic, key, Some(key)).await.outcome {
        AttemptOutcome::Acknowledged(event) => event,
        other => panic!("{other:?}"),
    }
}

async fn ok(method: Method, url: String, body: String) -> String {
    let (status, text) = request(method, &url, body).await.unwrap();
    assert_eq!(status, 200, "{url}: {text}");
    text
}

/// Returns the topics with their outcomes.
async fn topics(address: SocketAddr) -> String {
    let (status, text) = get(&format!("http://{address}/topics")).await.unwrap();
    assert_eq!(status, 200);
    text
}

/// Starts a single process and publishes events. Kills it.
async fn single_process() -> (Arc<tempfile::TempDir>, Vec<Event>, Vec<Event>) {
    let alone = ClusterNode::alone(&OPTIONS);
    let address = alone.listens().await;
    for topic in ["orders", "builds.1", "builds.2", "deleted"] {
        let lines: Vec<_> = (0..LINES).map(|line| format!("{line} \u{1f40c} of {topic}")).collect();
        let url = format!("http://{address}/events/{topic}?split=lines");
        ok(Method::POST, url, lines.join("\n")).await;
    }
    ok(Method::POST, format!("http://{address}/events/builds.1?split=lines&end"), String::new())
        .await;
    let mut keyed = Vec::new();
    for number in 0..20 {
        keyed.push(publish_with_key(address, "orders", &format!("k{number}")).await);
    }
    ok(Method::DELETE, format!("http://{address}/events/deleted"), String::new()).await;
    let log = kept(address).await;
    alone.kill();
    (alone.folder(), log, keyed)
}

/// Reads the events of the topics that were not deleted.
async fn kept(address: SocketAddr) -> Vec<Event> {
    log_of(address, "topic=orders&topic=builds.*").await.unwrap()
}

/// Reads the events of the topic `orders`.
async fn orders(address: SocketAddr) -> Option<Vec<Event>> {
    log_of(address, "topic=orders").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_one_process_becomes_the_beginning_of_a_cluster() {
    if !has_nats() {
        return;
    }
    let mut cluster = NodeCluster::start_servers(&OPTIONS).await;
    let (folder, log, keyed) = single_process().await;
    // Without the option, the node leaves the log as it is.
    let refused = cluster.add_in(Arc::clone(&folder), &[]).await;
    refused.ends().await;
    let output = refused.output();
    assert!(output.contains("--cluster-import"), "{output}");
    // With the wrong folder, it does not begin with nothing.
    let wrong = cluster
        .add_in(
            Arc::new(tempfile::tempdir().unwrap()),
            &["--cluster-import", "--cluster-timeout=1s"],
        )
        .await;
    wrong.ends().await;
    let output = wrong.output();
    assert!(output.contains("no log to begin with"), "{output}");
    cluster.nodes.clear();

    let first = cluster.add_in(folder, &["--cluster-import"]).await;
    first.can_publish().await;
    assert_eq!(kept(first.address().unwrap()).await, log);
    for _ in 0..2 {
        cluster.add().await;
    }
    let expected = topics(first.address().unwrap()).await;
    for node in &cluster.nodes {
        let address = node.can_publish().await;
        assert!(kept(address).await == log, "{}", node.name);
        assert_eq!(topics(address).await, expected, "{}", node.name);
        // A key of before is answered with the first event.
        let repeated = &keyed[7];
        assert_eq!(&publish_with_key(address, "orders", "k7").await, repeated);
        // The deletion is told, and no cursor of before is unknown.
        let start = log[0].id;
        let url = format!("http://{address}/poll?topic=deleted&last_event_id={start}");
        let (_, text) = get(&url).await.unwrap();
        assert!(text.contains(r#""reason":"expired""#), "{text}");
        // A topic stays ended.
        let (status, _) =
            request(Method::POST, &format!("http://{address}/events/builds.1"), String::new())
                .await
                .unwrap();
        assert_eq!(status, 409);
    }
    // A reader with an old cursor continues at other nodes.
    let of_orders: Vec<_> =
        log.iter().filter(|event| event.topic.as_str() == "orders").cloned().collect();
    let start = ReaderStart::After(of_orders[LINES / 2].id);
    let rest = &of_orders[LINES / 2 + 1..];
    let next = acknowledged(&cluster.nodes[2], "orders", "next").await;
    let newest = log.iter().map(|event| event.id.sequence).max().unwrap();
    assert!(next.id.sequence > newest && next.id.epoch == of_orders[0].id.epoch);
    for (node, transport) in cluster.nodes.iter().zip(Transport::ALL) {
        let found = read(node, transport, "orders", start, rest.len() + 1).await;
        assert!(found == [rest, std::slice::from_ref(&next)].concat(), "{}", node.name);
    }

    // Later, the option does nothing.
    first.kill();
    let missed = acknowledged(&cluster.nodes[1], "orders", "missed").await;
    first.restart();
    let address = first.listens().await;
    until("missed event", async || (orders(address).await?.last()? == &missed).then_some(())).await;
    let asides = std::fs::read_dir(first.folder().path().join("data")).unwrap();
    let asides = asides.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().contains("-set-aside-")
    });
    assert_eq!(asides.count(), 1);

    // Another log comes too late, and stays.
    let alone = ClusterNode::alone(&OPTIONS);
    let address = alone.listens().await;
    let event = acknowledged(&alone, "orders", "other").await;
    assert_eq!(orders(address).await.unwrap(), std::slice::from_ref(&event));
    alone.kill();
    let late = cluster.add_in(alone.folder(), &["--cluster-import"]).await;
    late.ends().await;
    let output = late.output();
    assert!(output.contains("has begun already"), "{output}");
    cluster.nodes.pop();
    alone.restart();
    let address = alone.listens().await;
    assert_eq!(orders(address).await.unwrap(), [event]);
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
}

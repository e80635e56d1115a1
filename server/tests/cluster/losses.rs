//! Servers of NATS that have lost entries.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use waterclock::{event::Event, id::EventId, transport::Transport};

use crate::{
    clients::{ReadAttempt, ReaderStart, Reading, publish, whole_log},
    cursors::acknowledged,
    histories::{AttemptOutcome, Receipt},
    nodes::{ClusterNode, DEADLINE, NodeCluster, has_nats, until},
};

/// Pause of a reader before it connects again.
const PAUSE: Duration = Duration::from_millis(100);

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Makes the servers' streams those of an earlier time, or takes them away. All servers are down
/// meanwhile.
async fn restore(cluster: &NodeCluster, saved: Option<&TempDir>) {
    cluster.servers.iter().for_each(|server| server.lock().kill());
    for (index, server) in cluster.servers.iter().enumerate() {
        let store = server.lock().store();
        fs::remove_dir_all(&store).unwrap();
        if let Some(saved) = saved {
            copy(&saved.path().join(index.to_string()), &store);
        }
    }
    restart(cluster).await;
}

async fn restart(cluster: &NodeCluster) {
    cluster.servers.iter().for_each(|server| server.lock().restart());
    for index in 0..cluster.servers.len() {
        cluster.healthy(index).await;
    }
}

/// Reads after an event at a node until a gap, and returns it.
async fn gap(node: Arc<ClusterNode>, after: EventId) -> String {
    let (start, until) = (ReaderStart::After(after), Instant::now() + DEADLINE);
    while Instant::now() < until {
        let Some(address) = node.address() else {
            sleep(PAUSE).await;
            continue;
        };
        let (transport, topics) = (Transport::Sse, "topic=t");
        let mut found = None;
        let attempt = ReadAttempt { address, transport, topics, start, until };
        attempt
            .run(|reading| {
                if let Reading::Receipt(Receipt::Gap(text)) = reading {
                    found = Some(text);
                }
                found.is_none()
            })
            .await;
        if let Some(found) = found {
            return found;
        }
        sleep(PAUSE).await;
    }
    panic!("no gap at {}", node.name);
}

/// Reads after an event at all nodes, until a gap.
fn gaps(cluster: &NodeCluster, after: &Event) -> JoinSet<String> {
    cluster.nodes.iter().map(|node| gap(Arc::clone(node), after.id)).collect()
}

/// Returns the folders of logs that nodes have set aside.
fn set_aside(node: &ClusterNode) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.data()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("-set-aside-")).collect()
}

/// Publishes until it is acknowledged.
async fn insist(node: &ClusterNode, data: &str) -> Event {
    until("acknowledgement", async || {
        match publish(node.address()?, "t", data, Some(data)).await.outcome {
            AttemptOutcome::Acknowledged(event) => Some(event),
            _ => None,
        }
    })
    .await
}

/// Checks that all nodes come to have the same events.
async fn assert_equal_logs(cluster: &NodeCluster, data: &[&str]) {
    for node in &cluster.nodes {
        until(&format!("events of {}", node.name), async || {
            let log = whole_log(node.address()?).await?;
            let found: Vec<_> = log.iter().map(|event| event.data.as_str()).collect();
            (found == data).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_told_of_a_stream_from_an_earlier_time() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=24h", "--cluster-timeout=5s"]).await;
    acknowledged(&cluster.nodes[0], "t", "kept").await;
    let saved = tempfile::tempdir().unwrap();
    cluster.servers.iter().for_each(|server| server.lock().kill());
    for (index, server) in cluster.servers.iter().enumerate() {
        copy(&server.lock().store(), &saved.path().join(index.to_string()));
    }
    restart(&cluster).await;
    let lost = insist(&cluster.nodes[1], "lost").await;
    assert_equal_logs(&cluster, &["kept", "lost"]).await;

    let gaps = gaps(&cluster, &lost);
    restore(&cluster, Some(&saved)).await;
    // These fill the positions of the lost entries, so that the nodes need not wait.
    for number in 0..4 {
        insist(&cluster.nodes[number % 3], &format!("new {number}")).await;
    }
    for gap in gaps.join_all().await {
        assert!(gap.contains("other-epoch"), "{gap}");
    }
    for node in &cluster.nodes {
        assert_ne!(until("log", async || whole_log(node.address()?).await).await, []);
    }
    let newest = insist(&cluster.nodes[2], "last").await;
    assert_ne!(newest.id.epoch, lost.id.epoch);
    let log = whole_log(cluster.nodes[2].listens().await).await.unwrap();
    let data: Vec<_> = log.iter().map(|event| event.data.as_str()).collect();
    assert_eq!((data[0], data.last()), ("kept", Some(&"last")));
    assert!(!data.contains(&"lost"), "{data:?}");
    assert_equal_logs(&cluster, &data).await;
    // The lost event is still on the disk of a node.
    assert!(cluster.nodes.iter().any(|node| !set_aside(node).is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_told_of_another_stream() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=24h", "--cluster-timeout=5s"]).await;
    let lost = acknowledged(&cluster.nodes[0], "t", "lost").await;
    assert_equal_logs(&cluster, &["lost"]).await;
    let gaps = gaps(&cluster, &lost);
    restore(&cluster, None).await;
    // Nobody makes a stream by himself while it may still be restored.
    let answer = publish(cluster.nodes[1].listens().await, "t", "too early", None).await;
    assert_eq!(answer.status, Some(503));
    assert_equal_logs(&cluster, &["lost"]).await;
    cluster.nodes[0].terminate().await;
    cluster.nodes[0].restart();
    for gap in gaps.join_all().await {
        assert!(gap.contains("other-epoch"), "{gap}");
    }
    let new = insist(&cluster.nodes[2], "new").await;
    assert_ne!(new.id.epoch, lost.id.epoch);
    assert_equal_logs(&cluster, &["new"]).await;
    for node in &cluster.nodes {
        assert_eq!(set_aside(node).len(), 1, "{}", node.name);
    }
}

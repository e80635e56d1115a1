//! Two nodes on one server, each with a hub.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::timeout;
use waterclock::{
    Cursor, Delivery, Draft, Hub, Pattern, Retention, SqliteLog, Timestamp, Topic,
    cluster::{ClusterLog, NodeSettings},
};
use waterclock_nats::{NatsSequencer, NatsSettings};

use crate::support::{Configuration, NatsServer, soon, until};

/// Number of events that each node publishes at the same time as the other.
const COUNT: usize = 20;

async fn node(server: &NatsServer, folder: &TempDir) -> Arc<Hub> {
    joined(server.sequencer().await, folder).await
}

async fn joined(sequencer: NatsSequencer, folder: &TempDir) -> Arc<Hub> {
    let (name, retention) = ("a".to_owned(), Retention::default());
    let timeout = Duration::from_secs(10);
    let settings = NodeSettings { name, retention, timeout, may_begin: true };
    let mirror = SqliteLog::open_mirror(folder.path()).unwrap();
    let log = ClusterLog::join(mirror, sequencer, settings).await;
    Arc::new(Hub::new(log.unwrap(), Timestamp::now))
}

/// Reads the first events of all topics: their ids, topics and data.
async fn events(hub: &Hub, count: usize) -> Vec<(String, String, String)> {
    let all = ">".parse::<Pattern>().unwrap();
    let mut subscriber = hub.subscribe(all.into(), Cursor::Earliest);
    let mut events = Vec::new();
    while events.len() < count {
        match soon(subscriber.next()).await.unwrap() {
            Delivery::Events(batch) => events.extend(batch.iter().map(|frame| {
                let event = frame.event();
                (event.id.to_string(), event.topic.to_string(), event.data.clone())
            })),
            other => panic!("no events: {other:?}"),
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_have_the_same_events() {
    let server = NatsServer::start();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let nodes = [node(&server, &folders[0]).await, node(&server, &folders[1]).await];

    // Each node delivers the events of the other.
    let published =
        nodes[0].publish(Draft::new("orders".parse().unwrap(), "order 7")).await.unwrap();
    let [(id, topic, data)] = &events(&nodes[1], 1).await[..] else { panic!("not one event") };
    assert_eq!(id, &published.event().id.to_string());
    assert_eq!((topic.as_str(), data.as_str()), ("orders", "order 7"));

    // Both publish at once.
    let publishers = nodes.clone().map(|node| {
        tokio::spawn(async move {
            for number in 0..COUNT {
                let draft = Draft::new("orders".parse().unwrap(), format!("order {number}"));
                node.publish(draft).await.unwrap();
            }
        })
    });
    for publisher in publishers {
        soon(publisher).await.unwrap();
    }
    let count = 1 + 2 * COUNT;
    let orders = [events(&nodes[0], count).await, events(&nodes[1], count).await];
    assert_eq!(orders[0], orders[1]);

    // A node that starts again has the same events, and reads what it has missed.
    let [one, two] = nodes;
    drop(two);
    one.publish(Draft::new("orders".parse().unwrap(), "missed")).await.unwrap();
    let two = node(&server, &folders[1]).await;
    assert_eq!(events(&two, count + 1).await, events(&one, count + 1).await);
}

/// Waits until a node counts so many subscribers that name a topic.
async fn until_readers(hub: &Hub, topic: &Topic, count: usize) {
    until("number of readers", async || {
        (hub.readers(std::slice::from_ref(topic)).await[0].exact == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readers_of_all_nodes_count() {
    let server = NatsServer::start();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [node(&server, &folders[0]).await, node(&server, &folders[1]).await];
    let topic: Topic = "orders".parse().unwrap();
    let read = |hub: &Hub| hub.subscribe(topic.clone().into(), Cursor::Now);

    let at_two = read(&two);
    until_readers(&one, &topic, 1).await;
    let at_one = read(&one);
    until_readers(&one, &topic, 2).await;
    until_readers(&two, &topic, 2).await;
    // More topics than one message has.
    let topics: Vec<Topic> =
        (0..2500).map(|number| format!("t.{number}").parse().unwrap()).collect();
    let last = two.subscribe(topics[2499].clone().into(), Cursor::Now);
    let readers = soon(one.readers(&topics)).await;
    assert_eq!((readers.len(), readers[2498].exact, readers[2499].exact), (2500, 0, 1));
    drop((at_one, last));

    // A view of one node learns of readers of the other.
    let mut view = one.watch_topic(topic.clone());
    let more = read(&two);
    soon(view.changed()).await;
    until_readers(&one, &topic, 2).await;
    drop((view, more));

    // A producer goes on while a reader of the other node is there, and waits for others after.
    let patience = Duration::from_secs(1);
    let mut watch = one.watch_readers(topic.clone());
    let is_absent = timeout(Duration::from_secs(4), watch.absent(patience)).await;
    assert!(is_absent.is_err(), "the reader does not count");
    drop(at_two);
    soon(watch.absent(patience)).await;
    until_readers(&one, &topic, 0).await;

    // Without NATS, a node counts its own readers, and no producer is stopped.
    let _at_two = read(&two);
    let _at_one = read(&one);
    until_readers(&one, &topic, 2).await;
    server.suspend();
    until_readers(&one, &topic, 1).await;
    let other = "other".parse().unwrap();
    let mut watch = one.watch_readers(other);
    let is_absent = timeout(Duration::from_secs(5), watch.absent(patience)).await;
    assert!(is_absent.is_err(), "nobody could be asked");
    server.resume();
    until_readers(&one, &topic, 2).await;
    soon(watch.absent(patience)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_not_ask_counts_its_own_readers() {
    let permissions = |subscribe: &str| {
        format!(r#"publish: ["$JS.API.>", "waterclock.>"], subscribe: ["_INBOX.>"{subscribe}]"#)
    };
    let user = |name: &str, permissions: &str| {
        format!("{{ user: {name}, password: p, permissions: {{ {permissions} }} }}")
    };
    let users =
        [user("all", &permissions(r#", "waterclock.readers.*""#)), user("few", &permissions(""))];
    let more = format!("authorization {{ users: [{}] }}", users.join(", "));
    let server = NatsServer::configured(&Configuration { more, ..Configuration::default() });
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let node = async |user: &str, folder| {
        let servers = vec![format!("nats://{user}:p@127.0.0.1:{}", server.port)];
        let settings = NatsSettings { servers, ..server.settings() };
        joined(NatsSequencer::connect(settings).await.unwrap(), folder).await
    };
    let [all, few] = [node("all", &folders[0]).await, node("few", &folders[1]).await];
    let topic: Topic = "orders".parse().unwrap();
    let _readers = [&all, &few].map(|hub| hub.subscribe(topic.clone().into(), Cursor::Now));
    for hub in [&all, &few] {
        // Each can stop a producer: the one asks only itself, and the other knows of nobody else.
        let mut watch = hub.watch_readers("other".parse().unwrap());
        soon(watch.absent(Duration::from_secs(1))).await;
        assert_eq!(hub.readers(std::slice::from_ref(&topic)).await[0].exact, 1);
    }
}

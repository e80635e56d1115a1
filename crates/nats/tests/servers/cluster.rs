//! The order on three servers.

use std::time::Duration;

use waterclock::cluster::{EntryKind, RawEntry, Sequencer as _};
use waterclock_nats::{NatsSequencer, NatsSettings};

use crate::support::{
    Configuration, DEADLINE, NatsServer, free_ports, propose, read, read_until, soon, texts, until,
};

/// Starts servers of one cluster.
fn cluster<const N: usize>() -> [NatsServer; N] {
    let routes: [u16; N] = free_ports();
    let urls = routes.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
    let mut number = 0;
    routes.map(|port| {
        number += 1;
        NatsServer::configured(&Configuration {
            name: format!("n{number}"),
            more: format!(
                "cluster {{\nname: c\nlisten: \"127.0.0.1:{port}\"\nroutes: [{urls}]\n}}"
            ),
            ..Configuration::default()
        })
    })
}

fn settings(servers: &[NatsServer]) -> NatsSettings {
    NatsSettings {
        servers: servers.iter().map(NatsServer::url).collect(),
        monitoring: servers.iter().map(NatsServer::monitoring).collect(),
        replicas: 3,
        timeout: DEADLINE,
        ..NatsSettings::default()
    }
}

/// Returns the index of the server that leads the stream.
async fn leader(server: &NatsServer) -> Option<usize> {
    let jetstream = async_nats::jetstream::new(server.client().await);
    let stream = jetstream.get_stream("waterclock").await.ok()?;
    let name = stream.cached_info().cluster.as_ref()?.leader.clone()?;
    Some(name.strip_prefix('n')?.parse::<usize>().ok()? - 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_outlives_its_leader() {
    let mut servers = cluster::<3>();
    // Nodes may start at the same time, before the cluster has a leader.
    let connect = || NatsSequencer::connect(settings(&servers));
    let (sequencer, other) = tokio::try_join!(connect(), connect()).unwrap();
    sequencer.propose("first".into(), EntryKind::First).await.unwrap();
    let large = vec![b'x'; sequencer.max_entry()];
    assert_eq!(sequencer.propose(large.clone(), EntryKind::Other).await.unwrap(), 2);
    assert_eq!(sequencer.entry(2).await.unwrap().as_ref(), Some(&large));
    let stream = sequencer.bounds().await.unwrap().stream;
    // Another node follows all the time.
    let is_end = |entry: &RawEntry| entry.bytes == END.as_bytes();
    let follower =
        tokio::spawn(
            async move { read_until(&other, 0, |read| read.last().is_some_and(is_end)).await },
        );

    let mut proposed = vec!["first".to_owned()];
    for round in 0..2 {
        let killed = until("leader", async || leader(&servers[0]).await).await;
        servers[killed].kill();
        for number in 0..3 {
            let text = format!("round {round}, entry {number}");
            propose(&sequencer, &text).await;
            proposed.push(text);
        }
        assert_eq!(sequencer.bounds().await.unwrap().stream, stream);
        servers[killed].restart();
        let is_whole = async || {
            let jetstream = async_nats::jetstream::new(servers[0].client().await);
            let stream = jetstream.get_stream("waterclock").await.ok()?;
            let cluster = stream.cached_info().cluster.clone()?;
            cluster.replicas.iter().all(|replica| replica.current).then_some(())
        };
        until("cluster of three", is_whole).await;
    }
    propose(&sequencer, END).await;
    proposed.push(END.to_owned());

    let last = sequencer.bounds().await.unwrap().last;
    let mut entries = read(&sequencer, 0, usize::try_from(last).unwrap()).await;
    assert_eq!(soon(follower).await.unwrap(), entries);
    assert_eq!(entries.remove(1).bytes, large);
    // A proposal that was not acknowledged may have been stored, and was sent again.
    let mut texts = texts(&entries);
    texts.dedup();
    assert_eq!(texts, proposed);
}

/// The last entry that a test proposes.
const END: &str = "end";

#[tokio::test]
async fn no_entry_is_accepted_by_a_minority() {
    let mut servers = cluster::<3>();
    let sequencer = NatsSequencer::connect(settings(&servers)).await.unwrap();
    assert_eq!(sequencer.propose("first".into(), EntryKind::First).await.unwrap(), 1);
    servers[1].kill();
    servers[2].kill();
    // The one that is left may take entries for a moment, but cannot acknowledge them.
    for _ in 0..3 {
        sequencer.propose("lost?".into(), EntryKind::Other).await.unwrap_err();
    }
    servers[1].restart();
    let position = propose(&sequencer, "after").await;
    let entries = read(&sequencer, 0, usize::try_from(position).unwrap()).await;
    assert_eq!(texts(&entries).last(), Some(&"after"));
    assert_eq!(texts(&entries)[0], "first");
}

#[tokio::test]
async fn a_cluster_must_have_enough_servers() {
    let servers = cluster::<2>();
    let settings = |timeout| NatsSettings {
        monitoring: Vec::new(),
        allow_unsafe_sync: true,
        timeout,
        ..settings(&servers)
    };
    // They elect a leader first.
    let two = NatsSettings { replicas: 1, stream: "one".to_owned(), ..settings(DEADLINE) };
    NatsSequencer::connect(two).await.unwrap();
    let error = NatsSequencer::connect(settings(Duration::from_secs(2))).await.err().unwrap();
    assert!(error.may_pass(), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("the cluster has too few servers with free room"), "{text}");
    assert!(text.contains("error code 10005"), "{text}");
}

#[tokio::test]
async fn a_minority_of_the_servers_is_not_enough() {
    let mut servers = cluster::<3>();
    servers[1].kill();
    servers[2].kill();
    let settings = NatsSettings {
        monitoring: Vec::new(),
        allow_unsafe_sync: true,
        timeout: Duration::from_secs(3),
        ..settings(&servers)
    };
    let error = NatsSequencer::connect(settings).await.err().unwrap();
    assert!(error.may_pass(), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("NATS does not describe the stream in time"), "{text}");
}

//! The order on one server.

use std::time::Duration;

use tokio::time::Instant;
use waterclock::{
    Timestamp,
    cluster::{EntryKind, OrderBounds, RawEntry, Sequencer as _, SequencerError},
};
use waterclock_nats::NatsSequencer;

use crate::support::{NatsServer, propose, read, soon, texts, until};

#[tokio::test]
async fn entries_come_back_in_order() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    let bounds = sequencer.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (0, 0));
    assert_eq!(sequencer.entry(1).await.unwrap(), None);

    let before = Timestamp::now();
    assert_eq!(sequencer.propose("first".into(), EntryKind::First).await.unwrap(), 1);
    assert_eq!(sequencer.propose("second".into(), EntryKind::Other).await.unwrap(), 2);
    let after = Timestamp::now();

    let stream = bounds.stream;
    let bounds = sequencer.bounds().await.unwrap();
    assert_eq!(bounds, OrderBounds { stream, first: 1, last: 2 });
    assert_eq!(sequencer.entry(1).await.unwrap().as_deref(), Some(&b"first"[..]));
    assert_eq!(sequencer.entry(2).await.unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(sequencer.entry(3).await.unwrap(), None);

    let entries = read(&sequencer, 0, 2).await;
    assert_eq!(texts(&entries), ["first", "second"]);
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), [1, 2]);
    assert!(before <= entries[0].time && entries[0].time <= entries[1].time);
    assert!(entries[1].time <= after);
    assert_eq!(texts(&read(&sequencer, 1, 1).await), ["second"]);
}

#[tokio::test]
async fn other_nodes_follow_as_entries_come() {
    let server = NatsServer::start();
    let (one, two) = (server.sequencer().await, server.sequencer().await);
    let mut entries = soon(two.follow(0)).await.unwrap();
    for number in 1..=3 {
        let text = format!("entry {number}");
        // A read that is given up loses nothing.
        let unread = tokio::time::timeout(Duration::from_millis(1), entries.next()).await;
        assert!(unread.is_err());
        assert_eq!(one.propose(text.clone().into(), EntryKind::Other).await.unwrap(), number);
        let entry = soon(entries.next()).await.unwrap();
        assert_eq!((entry.position, entry.bytes), (number, text.into_bytes()));
    }
}

#[tokio::test]
async fn the_order_begins_once() {
    let server = NatsServer::start();
    let (one, two) = (server.sequencer().await, server.sequencer().await);
    one.propose("one".into(), EntryKind::First).await.unwrap();
    for sequencer in [&one, &two] {
        let error = sequencer.propose("two".into(), EntryKind::First).await.unwrap_err();
        assert!(matches!(error, SequencerError::Begun), "{error:?}");
    }
    assert_eq!(texts(&read(&two, 0, 1).await), ["one"]);
    assert_eq!(two.bounds().await.unwrap().last, 1);
}

#[tokio::test]
async fn entries_may_be_as_large_as_the_sequencer_says() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    assert_eq!(sequencer.max_entry(), (1 << 20) - (4 << 10));
    let large = vec![b'x'; sequencer.max_entry()];
    sequencer.propose(large.clone(), EntryKind::First).await.unwrap();
    assert_eq!(read(&sequencer, 0, 1).await[0].bytes, large);
    assert_eq!(sequencer.entry(1).await.unwrap(), Some(large));

    let error = sequencer.propose(vec![b'x'; 1 << 20], EntryKind::Other).await.unwrap_err();
    assert!(matches!(error, SequencerError::Unavailable(_)), "{error:?}");
    // The connection has not suffered.
    assert_eq!(sequencer.propose("small".into(), EntryKind::Other).await.unwrap(), 2);
}

#[tokio::test]
async fn a_long_order_is_read_in_several_batches() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    let proposed: Vec<_> = (1..=500).map(|number| format!("entry {number}")).collect();
    for text in &proposed {
        sequencer.propose(text.clone().into(), EntryKind::Other).await.unwrap();
    }
    // Less time than it takes until a request that was not answered is repeated.
    let started = Instant::now();
    assert_eq!(texts(&read(&sequencer, 0, 500).await), proposed);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn snapshots_are_found_and_take_the_place_of_entries() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    assert_eq!(sequencer.snapshots().await.unwrap(), []);
    for (kind, text) in (1..).zip(["first", "one", "second", "two", "third"]) {
        let kind = if kind % 2 == 0 { EntryKind::Snapshot } else { EntryKind::Other };
        sequencer.propose(text.into(), kind).await.unwrap();
    }
    let texts = async || {
        let found = sequencer.snapshots().await.unwrap();
        let text = |raw: RawEntry| (raw.position, String::from_utf8(raw.bytes).unwrap());
        found.into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(texts().await, [(2, "one".to_owned()), (4, "two".to_owned())]);
    sequencer.trim(3).await.unwrap();
    let OrderBounds { first, last, .. } = sequencer.bounds().await.unwrap();
    assert_eq!((first, last), (4, 5));
    assert_eq!(texts().await, [(4, "two".to_owned())]);
    sequencer.trim(2).await.unwrap();
    assert_eq!(sequencer.bounds().await.unwrap().first, 4);
}

#[tokio::test]
async fn purged_entries_leave_holes() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    for number in 1..=5 {
        assert_eq!(propose(&sequencer, &format!("entry {number}")).await, number);
    }
    let jetstream = async_nats::jetstream::new(server.client().await);
    let stream = jetstream.get_stream("waterclock").await.unwrap();
    stream.purge().sequence(4).await.unwrap();
    let bounds = sequencer.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (4, 5));
    assert_eq!(texts(&read(&sequencer, 3, 2).await), ["entry 4", "entry 5"]);
    // A reader that needs them hears of it.
    let error = sequencer.follow(1).await.unwrap().next().await.unwrap_err();
    assert!(error.to_string().contains("entry 4 follows on entry 1"), "{error}");
    assert_eq!(sequencer.entry(3).await.unwrap(), None);
    // Only the end of the order may go.
    stream.delete_message(5).await.unwrap_err();

    stream.purge().await.unwrap();
    let bounds = sequencer.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (6, 5));
    let error = sequencer.propose("again".into(), EntryKind::First).await.unwrap_err();
    assert!(matches!(error, SequencerError::Begun), "{error:?}");
}

#[tokio::test]
async fn consumers_are_deleted_once_they_are_dropped() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    let jetstream = async_nats::jetstream::new(server.client().await);
    let count = async || {
        let mut stream = jetstream.get_stream("waterclock").await.unwrap();
        stream.info().await.unwrap().state.consumer_count
    };
    let entries = sequencer.follow(0).await.unwrap();
    // The one with which `connect` has tested that it may read is gone soon.
    until("single consumer", async || (count().await == 1).then_some(())).await;
    drop(entries);
    until("stream without consumers", async || (count().await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_server_that_was_away_is_used_again() {
    let mut server = NatsServer::start();
    let sequencer = server.sequencer().await;
    sequencer.propose("before".into(), EntryKind::First).await.unwrap();
    let stream = sequencer.bounds().await.unwrap().stream;
    let mut entries = sequencer.follow(0).await.unwrap();
    assert_eq!(soon(entries.next()).await.unwrap().position, 1);

    server.kill();
    for kind in [EntryKind::Other, EntryKind::First] {
        let error = soon(sequencer.propose("away".into(), kind)).await.unwrap_err();
        assert!(!matches!(error, SequencerError::Begun), "{error:?}");
    }
    // Once the client has noticed, nothing is sent.
    until("error that is certain", async || {
        let error = sequencer.propose("away".into(), EntryKind::Other).await.unwrap_err();
        matches!(error, SequencerError::Unavailable(_)).then_some(())
    })
    .await;
    for error in [
        sequencer.bounds().await.unwrap_err(),
        sequencer.follow(0).await.err().unwrap(),
        sequencer.entry(1).await.unwrap_err(),
    ] {
        assert!(matches!(error, SequencerError::Unavailable(_)), "{error:?}");
    }

    server.restart();
    let position = propose(&sequencer, "after").await;
    assert_eq!(sequencer.bounds().await.unwrap().stream, stream);
    // The old consumer was in the memory of the server.
    let ended = async { while entries.next().await.is_ok() {} };
    soon(ended).await;
    // The client may have kept a proposal and sent it later.
    let entries = read(&sequencer, 1, usize::try_from(position).unwrap() - 1).await;
    let texts = texts(&entries);
    let (last, away) = texts.split_last().unwrap();
    assert_eq!(*last, "after");
    assert!(away.len() <= 2 && away.iter().all(|text| *text == "away"), "{texts:?}");
}

#[tokio::test]
async fn an_entry_that_is_not_acknowledged_may_be_stored() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    sequencer.propose("first".into(), EntryKind::First).await.unwrap();
    server.suspend();
    let error = soon(sequencer.propose("second".into(), EntryKind::Other)).await.unwrap_err();
    assert!(matches!(error, SequencerError::Unconfirmed(_)), "{error:?}");
    // The client finds out that nobody answers.
    until("error that is certain", async || {
        let error = sequencer.propose("third".into(), EntryKind::Other).await.unwrap_err();
        matches!(error, SequencerError::Unavailable(_)).then_some(())
    })
    .await;
    server.resume();
    propose(&sequencer, "last").await;
    assert_eq!(sequencer.entry(2).await.unwrap().as_deref(), Some(&b"second"[..]));
}

#[tokio::test]
async fn a_node_can_start_while_the_server_is_away() {
    let mut server = NatsServer::start();
    let stream = server.sequencer().await.bounds().await.unwrap().stream;
    server.terminate();
    let sequencer = NatsSequencer::resume(server.settings()).await.unwrap();
    let error = sequencer.propose("away".into(), EntryKind::Other).await.unwrap_err();
    assert!(matches!(error, SequencerError::Unavailable(_)), "{error:?}");
    server.restart();
    assert_eq!(propose(&sequencer, "after").await, 1);
    assert_eq!(sequencer.bounds().await.unwrap().stream, stream);
}

#[tokio::test]
async fn a_node_that_has_started_meanwhile_checks_the_server_once_it_is_back() {
    let mut server = NatsServer::start();
    drop(server.sequencer().await);
    server.kill();
    server.unset("sync_interval: always");
    let sequencer = NatsSequencer::resume(server.settings()).await.unwrap();
    server.restart();
    until("refusal", async || {
        let proposed = sequencer.propose("x".into(), EntryKind::Other).await;
        let error = proposed.err()?.to_string();
        error.starts_with("the server n1 acknowledges entries before").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_has_started_meanwhile_does_not_make_a_stream() {
    let mut server = NatsServer::start();
    drop(server.sequencer().await);
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    let sequencer = NatsSequencer::resume(server.settings()).await.unwrap();
    server.restart();
    until("refusal", async || {
        let proposed = sequencer.propose("x".into(), EntryKind::Other).await;
        proposed.err()?.to_string().starts_with("there is no stream").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_made_again_is_another_one() {
    let server = NatsServer::start();
    let sequencer = server.sequencer().await;
    let stream = sequencer.bounds().await.unwrap().stream;
    assert_eq!(server.sequencer().await.bounds().await.unwrap().stream, stream);
    let mut entries = sequencer.follow(0).await.unwrap();

    let jetstream = async_nats::jetstream::new(server.client().await);
    jetstream.delete_stream("waterclock").await.unwrap();
    // Nobody takes entries now.
    let error = sequencer.propose("lost".into(), EntryKind::Other).await.unwrap_err();
    assert!(matches!(error, SequencerError::Unavailable(_)), "{error:?}");
    sequencer.bounds().await.unwrap_err();
    soon(entries.next()).await.unwrap_err();

    let again = server.sequencer().await;
    assert_ne!(again.bounds().await.unwrap().stream, stream);
    assert_eq!(sequencer.bounds().await.unwrap(), again.bounds().await.unwrap());
}

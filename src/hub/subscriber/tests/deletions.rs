//! Tests of readers while events are deleted.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::select};

use super::{logs::ShrinkingLog, *};

#[tokio::test(start_paused = true)]
async fn a_reader_behind_a_deletion_gets_a_gap_and_the_rest() {
    let hub = hub(10_000);
    // Its next batch is shared, in the ring, or in the log.
    for before in [1, 20, 3000] {
        let mut live = hub.subscribe(patterns("a"), Cursor::Now);
        let mut late = hub.subscribe(patterns("a b"), Cursor::Now);
        let mut other = hub.subscribe(patterns("b"), Cursor::Now);
        let start = hub.newest();
        for _ in 0..before {
            publish_to(&hub, "a").await;
        }
        assert_eq!(take(&mut live).await.len(), before);
        publish_to(&hub, "b").await;
        let kept = hub.newest();
        assert_eq!(hub.delete("a".parse().unwrap()).await.unwrap(), before as u64);
        let expected = (GapReason::Expired, id(start).to_string());
        assert_eq!(gap(&mut late).await, expected, "{before}");
        assert_eq!(take(&mut late).await, [kept]);
        assert_eq!(take(&mut other).await, [kept], "nothing of its topic was deleted");
        let mut new = hub.subscribe(patterns("a b"), Cursor::After(id(start)));
        assert_eq!(gap(&mut new).await, expected);
        assert_eq!(take(&mut new).await, [kept]);
        publish_to(&hub, "a").await;
        for reader in [&mut live, &mut late] {
            assert_eq!(take(reader).await, [kept + 1], "it goes on");
        }
        hub.delete("a".parse().unwrap()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_running_goes_on_behind_a_deletion() {
    let hub = hub(10_000);
    for _ in 0..1000 {
        publish_to(&hub, "a").await;
        publish_to(&hub, "b").await;
    }
    // Far behind the ring.
    publish(&hub, 9000).await;
    let mut replay = hub.subscribe(patterns("a b"), Cursor::Earliest);
    let Delivery::Events(batch) = replay.next().await.unwrap() else { panic!("a gap") };
    let read = batch.last().unwrap().event().id;
    hub.delete("a".parse().unwrap()).await.unwrap();
    assert_eq!(gap(&mut replay).await, (GapReason::Expired, read.to_string()));
    let rest: Vec<_> = (read.sequence + 1..=2000).filter(|n| n.is_multiple_of(2)).collect();
    assert_eq!(take(&mut replay).await, rest);
}

#[tokio::test(start_paused = true)]
async fn no_deleted_event_is_shown_after_its_deletion() {
    let hub = std::sync::Arc::new(hub(10_000));
    for _ in 0..100 {
        let publishing = tokio::spawn({
            let hub = std::sync::Arc::clone(&hub);
            async move { publish_to(&hub, "a").await }
        });
        tokio::task::yield_now().await;
        hub.delete("a".parse().unwrap()).await.unwrap();
        let mut subscriber = hub.subscribe(patterns("a"), Cursor::Earliest);
        let shown = take(&mut subscriber).await;
        publishing.await.unwrap();
        let log = hub.latest(&patterns("a"), 9).await.unwrap();
        let kept: Vec<_> = log.events.iter().map(|event| event.id.sequence).collect();
        assert!(shown.is_empty() || shown == kept, "{shown:?} {kept:?}");
        hub.delete("a".parse().unwrap()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_sends_only_the_readers_of_its_topic_to_the_log() {
    let log = ShrinkingLog::new(log(20_000), |_| (0, 0));
    let reads = Arc::clone(&log.reads);
    let hub = Hub::new(log, || Timestamp::from_millis(0));
    let mut others = ["b", "b.*", "b c"].map(|topics| hub.subscribe(patterns(topics), Cursor::Now));
    let mut of_topic = ["a", "a b", "*"].map(|topics| hub.subscribe(patterns(topics), Cursor::Now));
    for topic in ["b", "a", "b.x", "a", "b"] {
        publish_to(&hub, topic).await;
    }
    hub.delete("a".parse().unwrap()).await.unwrap();
    publish_to(&hub, "a").await;
    for (reader, expected) in others.iter_mut().zip([&[1, 5][..], &[3], &[1, 5]]) {
        assert_eq!(take(reader).await, expected);
    }
    assert_eq!(reads.load(Ordering::Relaxed), 0, "the others read on from the ring");
    assert_eq!(gap(&mut of_topic[0]).await, (GapReason::Expired, id(1).to_string()));
    assert_eq!(take(&mut of_topic[0]).await, [6]);
    for reader in &mut of_topic[1..] {
        let Delivery::Events(before) = reader.next().await.unwrap() else { panic!("a gap") };
        assert_eq!((before[0].event().id, before.len()), (id(1), 1));
        assert_eq!(gap(reader).await, (GapReason::Expired, id(1).to_string()));
        assert_eq!(take(reader).await, [5, 6]);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_deleted_is_delivered_after_the_gap_of_its_deletion() {
    let log = ShrinkingLog { is_slow: true, ..ShrinkingLog::new(log(20_000), |_| (0, 0)) };
    let hub = Hub::new(log, || Timestamp::from_millis(0));
    for is_conflated in [false, true] {
        let start = hub.newest();
        for topic in ["a", "b", "a", "b"] {
            publish_to(&hub, topic).await;
        }
        // Far behind the ring.
        publish(&hub, 9000).await;
        let mut reader = hub.subscribe(patterns("a b"), Cursor::After(id(start)));
        if is_conflated {
            reader = reader.conflated_without_count();
        }
        let mut reading = tokio_test::task::spawn(reader.next());
        assert!(reading.poll().is_pending(), "it has read, and does not know it yet");
        hub.delete("a".parse().unwrap()).await.unwrap();
        let Delivery::Gap(gap) = reading.await.unwrap() else { panic!("no gap") };
        assert_eq!((gap.reason, gap.cursor), (GapReason::Expired, id(start).to_string()));
        let kept = [start + 2, start + 4];
        assert_eq!(take(&mut reader).await, kept[usize::from(is_conflated)..]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_fails_is_no_gap() {
    // The second reader is told of no event up to 100 that another topic has lost.
    for lost in [|_| (0, 0), |_| (0, 100)] as [fn(u64) -> (u64, u64); 2] {
        let log = ShrinkingLog { cannot_delete: true, ..ShrinkingLog::new(log(20_000), lost) };
        let hub = Hub::new(log, || Timestamp::from_millis(0));
        let mut reader = hub.subscribe(patterns(">"), Cursor::Now);
        for topic in ["a", "b", "a"] {
            publish_to(&hub, topic).await;
        }
        hub.delete("a".parse().unwrap()).await.unwrap_err();
        publish_to(&hub, "a").await;
        assert_eq!(take(&mut reader).await, [1, 2, 3, 4]);
    }
}

/// A reader with what it has received.
struct TestReader {
    subscriber: Subscriber,
    received: Vec<u64>,
    has_gap: bool,
    /// The events that were deleted before its last gap.
    gone: BTreeSet<u64>,
}

impl TestReader {
    /// Takes the next delivery, unless the reader has to wait for it.
    fn poll(&mut self, deleted: &BTreeSet<u64>) {
        let mut next = tokio_test::task::spawn(self.subscriber.next());
        match next.poll() {
            Poll::Pending => {}
            Poll::Ready(Ok(Delivery::Events(batch))) => {
                for id in batch.iter().map(|frame| frame.event().id.sequence) {
                    assert!(self.received.last().is_none_or(|last| *last < id), "{id} again");
                    assert!(!self.gone.contains(&id), "{id} after the gap of its deletion");
                    self.received.push(id);
                }
            }
            Poll::Ready(Ok(Delivery::Gap(_))) => {
                self.has_gap = true;
                self.gone.clone_from(deleted);
            }
            Poll::Ready(other) => panic!("{other:?}"),
        }
    }
}

/// A step of a test: publishes to a topic, deletes its events, or lets a reader read.
#[derive(Clone, Copy, Debug)]
enum DeletionStep {
    Publish(&'static str),
    Delete(&'static str),
    Read(usize),
}

fn deletion_steps() -> impl Strategy<Value = Vec<DeletionStep>> {
    let topics = || select(&["a", "b", "c"][..]);
    let step = prop_oneof![
        3 => topics().prop_map(DeletionStep::Publish),
        1 => topics().prop_map(DeletionStep::Delete),
        4 => (0..READERS.len()).prop_map(DeletionStep::Read),
    ];
    proptest::collection::vec(step, 1..80)
}

/// The topics of readers, and `true` for those that conflate.
const READERS: [(&str, bool); 6] =
    [("a", false), ("a b", false), (">", false), ("a *", false), ("b", true), (">", true)];

proptest! {
    #[test]
    fn deletions_hide_no_other_event_and_are_announced(steps in deletion_steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run_deletions(&steps));
    }
}

async fn run_deletions(steps: &[DeletionStep]) {
    let log = ShrinkingLog { is_slow: true, ..ShrinkingLog::new(log(20_000), |_| (0, 0)) };
    let hub = Hub::new(log, || Timestamp::from_millis(0));
    let mut readers = READERS.map(|(topics, is_conflated)| {
        let subscriber = hub.subscribe(patterns(topics), Cursor::Now);
        let subscriber = if is_conflated { subscriber.conflated() } else { subscriber };
        TestReader { subscriber, received: Vec::new(), has_gap: false, gone: BTreeSet::new() }
    });
    let (mut published, mut deleted) = (Vec::new(), BTreeSet::new());
    for step in steps {
        match *step {
            DeletionStep::Publish(topic) => {
                publish_to(&hub, topic).await;
                published.push(topic);
            }
            DeletionStep::Delete(topic) => {
                hub.delete(topic.parse().unwrap()).await.unwrap();
                let of_topic = (1..).zip(&published).filter(|(_, other)| **other == topic);
                deleted.extend(of_topic.map(|(id, _)| id));
            }
            DeletionStep::Read(reader) => readers[reader].poll(&deleted),
        }
    }
    for (mut reader, (topics, is_conflated)) in readers.into_iter().zip(READERS) {
        for _ in 0..3 * steps.len() {
            reader.poll(&deleted);
        }
        for (id, topic) in (1..).zip(&published) {
            let is_wanted = patterns(topics).matches(&topic.parse().unwrap());
            if !is_wanted || reader.received.contains(&id) {
                continue;
            }
            let at = usize::try_from(id).unwrap();
            let is_old = is_conflated && published[at..].contains(topic);
            let is_announced = deleted.contains(&id) && reader.has_gap;
            assert!(is_old || is_announced, "{topics}: {id} is missing");
        }
    }
}

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
        let log = hub.latest(&patterns("a"), at_most(9)).await.unwrap();
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
async fn a_read_of_which_everything_was_dropped_is_not_the_end_of_what_there_is() {
    let log = ShrinkingLog::new(log(20_000), |_| (0, 0));
    let hub =
        Hub::new(ShrinkingLog { is_slow: true, max_read: 3, ..log }, || Timestamp::from_millis(0));
    for is_conflated in [false, true] {
        let start = hub.newest();
        for topic in ["a", "a", "a", "b"] {
            publish_to(&hub, topic).await;
        }
        // Far behind the ring.
        publish(&hub, 9000).await;
        let mut reader = hub.subscribe(patterns("a b"), Cursor::After(id(start)));
        if is_conflated {
            reader = reader.conflated();
        }
        let mut reading = tokio_test::task::spawn(reader.try_next());
        assert!(reading.poll().is_pending(), "it has read, and does not know it yet");
        hub.delete("a".parse().unwrap()).await.unwrap();
        let Some(Delivery::Gap(_)) = reading.await.unwrap() else { panic!("no gap") };
        let rest = reader.try_next().await.unwrap();
        let Some(Delivery::Events(rest)) = rest else { panic!("{rest:?}") };
        assert_eq!(rest.iter().map(|frame| frame.event().id).collect::<Vec<_>>(), [id(start + 4)]);
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

/// Returns the number of events of the next delivery.
async fn batch(subscriber: &mut Subscriber) -> usize {
    match subscriber.try_next().await.unwrap() {
        Some(Delivery::Events(batch)) => batch.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_of_two_deletions_is_announced_in_either_order() {
    let topics = ["a", "b"];
    for ((patterns_of, is_in_ring), order) in ["a b", ">", "a *"]
        .into_iter()
        .flat_map(|patterns| [(patterns, false), (patterns, true)])
        .flat_map(|case| [(case, ["a", "b"]), (case, ["b", "a"])])
    {
        let drafts = topics.map(|topic| Draft::new(topic.parse().unwrap(), ""));
        let drafts: Vec<_> = drafts.iter().cycle().take(2000).cloned().collect();
        let log = log(10_000);
        let hub = if is_in_ring {
            let hub = Hub::new(log, || Timestamp::from_millis(0));
            for draft in drafts {
                hub.publish(draft).await.unwrap();
            }
            hub
        } else {
            log.append(drafts, Timestamp::from_millis(0)).await.unwrap();
            Hub::new(log, || Timestamp::from_millis(0))
        };
        let case = format!("{patterns_of} {is_in_ring} {order:?}");
        let mut reader = hub.subscribe(patterns(patterns_of), Cursor::Earliest);
        assert_eq!(batch(&mut reader).await, 512, "{case}");
        for (topic, left) in order.into_iter().zip([512, 0]) {
            assert_eq!(hub.delete(topic.parse().unwrap()).await.unwrap(), 1000);
            // In the ring, the events before the next deleted one come first.
            while let Delivery::Events(batch) = reader.try_next().await.unwrap().expect(&case) {
                assert!(batch.iter().all(|frame| frame.event().topic.as_str() != topic), "{case}");
            }
            if left > 0 {
                // Every other one of the frames that it looks at in the ring is deleted.
                let left = if is_in_ring { left / 2 } else { left };
                assert_eq!(batch(&mut reader).await, left, "{case}");
            }
        }
        publish_to(&hub, "a").await;
        assert_eq!(take(&mut reader).await, [2001], "{case}: no gap is told twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_announced_after_another_topic_has_lost_later_events() {
    for topics in ["a b", ">"] {
        let hub = hub(2);
        let mut live = hub.subscribe(patterns(topics), Cursor::Now);
        for topic in ["b", "b", "a", "a", "a", "a", "a"] {
            publish_to(&hub, topic).await;
        }
        let mut late = hub.subscribe(patterns(topics), Cursor::Earliest);
        hub.delete("b".parse().unwrap()).await.unwrap();
        for reader in [&mut live, &mut late] {
            assert_eq!(gap(reader).await, (GapReason::Expired, id(0).to_string()), "{topics}");
            // Retention has dropped the first ones from the log, but the ring has them.
            assert_eq!(take(reader).await, [3, 4, 5, 6, 7]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retention_is_announced_after_another_topic_has_lost_later_events() {
    for topics in ["a b", ">"] {
        let log = log(600);
        let drafts = |topic: &str, count| vec![Draft::new(topic.parse().unwrap(), ""); count];
        for (topic, count) in [("b", 600), ("a", 601)] {
            log.append(drafts(topic, count), Timestamp::from_millis(0)).await.unwrap();
        }
        let hub = Hub::new(log, || Timestamp::from_millis(0));
        let mut reader = hub.subscribe(patterns(topics), Cursor::Earliest);
        assert_eq!(batch(&mut reader).await, 512);
        for _ in 0..600 {
            publish_to(&hub, "b").await;
        }
        assert_eq!(gap(&mut reader).await, (GapReason::Expired, id(512).to_string()), "{topics}");
        assert_eq!(take(&mut reader).await, (602..=1801).collect::<Vec<_>>());
    }
}

/// The events that the log has had.
#[derive(Clone, Default)]
struct LogModel {
    /// The topic of each event.
    topics: Vec<&'static str>,
    kept: BTreeSet<u64>,
    deleted: BTreeSet<u64>,
}

impl LogModel {
    /// Number of events that are kept of each topic.
    const COUNT: usize = 5;

    fn of_topic(&self, topic: &str) -> Vec<u64> {
        let is_of_topic = |id: &&u64| self.topics[usize::try_from(**id - 1).unwrap()] == topic;
        self.kept.iter().filter(is_of_topic).copied().collect()
    }

    fn publish(&mut self, topic: &'static str) {
        self.topics.push(topic);
        self.kept.insert(self.topics.len() as u64);
        let kept = self.of_topic(topic);
        if kept.len() > Self::COUNT {
            self.kept.remove(&kept[0]);
        }
    }

    fn delete(&mut self, topic: &str) {
        for id in self.of_topic(topic) {
            self.kept.remove(&id);
            self.deleted.insert(id);
        }
    }
}

/// A reader with what it has received.
struct TestReader {
    subscriber: Subscriber,
    topics: Patterns,
    is_conflated: bool,
    received: Vec<u64>,
    /// The events that it has asked for and that it knows to be gone or has received.
    known: BTreeSet<u64>,
    /// The events that were deleted before its last gap.
    deleted: BTreeSet<u64>,
}

impl TestReader {
    fn new(hub: &Hub, log: &LogModel, (topics, is_conflated, is_old): (&str, bool, bool)) -> Self {
        let topics = patterns(topics);
        let cursor = if is_old { Cursor::Earliest } else { Cursor::Now };
        let subscriber = hub.subscribe(topics.clone(), cursor);
        let subscriber = if is_conflated { subscriber.conflated() } else { subscriber };
        let is_known = |id: &u64| !is_old || !log.kept.contains(id);
        let known = (1..=log.topics.len() as u64).filter(is_known).collect();
        let (received, deleted) = Default::default();
        Self { subscriber, topics, is_conflated, received, known, deleted }
    }

    /// Returns the events that it asks for and does not know of.
    fn unknown(&self, log: &LogModel) -> BTreeSet<u64> {
        let all = (1..).zip(&log.topics);
        let wanted = all.filter(|(_, topic)| self.topics.matches(&topic.parse().unwrap()));
        wanted.map(|(id, _)| id).filter(|id| !self.known.contains(id)).collect()
    }

    /// Takes the next delivery. Returns `false` if the reader has to wait for it.
    fn poll(&mut self, log: &LogModel) -> bool {
        let mut next = tokio_test::task::spawn(self.subscriber.next());
        let Poll::Ready(delivery) = next.poll() else { return false };
        drop(next);
        match delivery.unwrap() {
            Delivery::Events(batch) => {
                for id in batch.iter().map(|frame| frame.event().id.sequence) {
                    assert!(self.received.last().is_none_or(|last| *last < id), "{id} again");
                    assert!(!self.deleted.contains(&id), "{id} after the gap of its deletion");
                    self.received.push(id);
                    self.known.insert(id);
                }
            }
            Delivery::Gap(_) => {
                let unknown = self.unknown(log);
                let gone: BTreeSet<_> = unknown.difference(&log.kept).copied().collect();
                // Of a conflating reader, some may be old.
                assert!(self.is_conflated || !gone.is_empty(), "nothing more is missing");
                self.known.extend(gone);
                self.deleted.clone_from(&log.deleted);
            }
            other @ Delivery::End { .. } => panic!("{other:?}"),
        }
        true
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
    let step = prop_oneof![
        3 => select(&TOPICS[..]).prop_map(DeletionStep::Publish),
        1 => select(&TOPICS[..]).prop_map(DeletionStep::Delete),
        4 => (0..READERS.len()).prop_map(DeletionStep::Read),
    ];
    proptest::collection::vec(step, 1..100)
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

/// The topics of readers, `true` for those that conflate, and `true` for those that begin with the
/// events from before the hub, which only the log has.
const READERS: [(&str, bool, bool); 9] = [
    ("a", false, false),
    ("a b", false, false),
    (">", false, false),
    ("a b", false, true),
    ("a *", false, true),
    (">", false, true),
    ("b", true, false),
    (">", true, false),
    (">", true, true),
];

proptest! {
    #[test]
    fn each_drop_is_announced_to_those_who_miss_its_events_and_hides_no_other(
        old in proptest::collection::vec(select(&TOPICS[..]), 0..30),
        steps in deletion_steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run_deletions(&old, &steps));
    }
}

async fn run_deletions(old: &[&'static str], steps: &[DeletionStep]) {
    let (log, mut model) = (log(LogModel::COUNT), LogModel::default());
    for topic in old {
        let draft = Draft::new(topic.parse().unwrap(), "");
        log.append(vec![draft], Timestamp::from_millis(0)).await.unwrap();
        model.publish(topic);
    }
    let log = ShrinkingLog { is_slow: true, max_read: 3, ..ShrinkingLog::new(log, |_| (0, 0)) };
    let hub = Hub::new(log, || Timestamp::from_millis(0));
    let mut readers = READERS.map(|reader| TestReader::new(&hub, &model, reader));
    for step in steps {
        match *step {
            DeletionStep::Publish(topic) => {
                publish_to(&hub, topic).await;
                model.publish(topic);
            }
            DeletionStep::Delete(topic) => {
                hub.delete(topic.parse().unwrap()).await.unwrap();
                model.delete(topic);
            }
            DeletionStep::Read(reader) => {
                readers[reader].poll(&model);
            }
        }
    }
    for (mut reader, case) in readers.into_iter().zip(READERS) {
        // Each read is pending once.
        let mut pending = 0;
        while pending <= model.topics.len() {
            pending = if reader.poll(&model) { 0 } else { pending + 1 };
        }
        for id in reader.unknown(&model) {
            let topic = model.topics[usize::try_from(id - 1).unwrap()];
            let later = &model.topics[usize::try_from(id).unwrap()..];
            let is_old = reader.is_conflated && later.contains(&topic);
            assert!(is_old, "{case:?}: {id} is missing");
        }
    }
}

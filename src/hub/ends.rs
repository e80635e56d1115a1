//! Tests of topics that end: what readers get, wherever they resume.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{event::Topic, notice::TopicEnd};

const EPOCH: Epoch = Epoch::new(1);

fn hub(retention: Retention) -> Hub {
    Hub::new(MemoryLog::new(EPOCH, retention), || Timestamp::from_millis(0))
}

/// Creates a hub over a log that has had these drafts already.
async fn hub_after(retention: Retention, drafts: Vec<Draft>) -> Hub {
    let log = MemoryLog::new(EPOCH, retention);
    for draft in drafts {
        log.append(vec![draft], Timestamp::from_millis(0)).await.unwrap().remove(0).unwrap();
    }
    Hub::new(log, || Timestamp::from_millis(0))
}

fn at_most(count: usize) -> ReadLimit {
    ReadLimit { count, bytes: usize::MAX }
}

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

fn patterns(text: &str) -> Patterns {
    Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
}

fn after(sequence: u64) -> Cursor {
    Cursor::After(EventId { epoch: EPOCH, sequence })
}

fn event(name: &str) -> Draft {
    Draft::new(topic(name), "x")
}

fn ending(name: &str) -> Draft {
    TopicEnd::done(topic(name)).draft()
}

async fn publish(hub: &Hub, topics: &str) {
    for name in topics.split(' ') {
        hub.publish(event(name)).await.unwrap();
    }
}

async fn end(hub: &Hub, name: &str) {
    hub.publish(ending(name)).await.unwrap();
}

/// Returns the deliveries that are available: `3` for an event, `end 4` for an end, `last 4` for
/// the last of a stream, `gap`. Ends from before the cursor have brackets until the last of them.
async fn take(subscriber: &mut Subscriber) -> Vec<String> {
    let mut taken = Vec::new();
    while let Some(delivery) = subscriber.try_next().await.unwrap() {
        match delivery {
            Delivery::Events(batch) => {
                taken.extend(batch.iter().map(|frame| frame.event().id.sequence.to_string()));
            }
            Delivery::End { id, end } => {
                let kind = if end.last { "last" } else { "end" };
                let text = format!("{kind} {}", id.sequence);
                taken.push(if subscriber.is_settled() { text } else { format!("({text})") });
                if end.last {
                    break;
                }
            }
            Delivery::Gap(_) => taken.push("gap".to_owned()),
        }
    }
    taken
}

#[tokio::test]
async fn each_reader_gets_the_ends_of_its_topics_in_order() {
    let hub = hub(Retention::default());
    let topics = ["a", "b", "a b", "a c", "*", "a b.>"];
    let mut live = topics.map(|topics| hub.subscribe(patterns(topics), Cursor::Now));
    publish(&hub, "a b").await;
    end(&hub, "a").await;
    publish(&hub, "c b").await;
    end(&hub, "b").await;
    publish(&hub, "b.x c").await;
    let expected = [
        vec!["1", "last 3"],
        vec!["2", "5", "last 6"],
        vec!["1", "2", "end 3", "5", "last 6"],
        vec!["1", "end 3", "4", "8"],
        vec!["1", "2", "end 3", "4", "5", "end 6", "8"],
        vec!["1", "end 3", "7"],
    ];
    for ((live, topics), expected) in live.iter_mut().zip(topics).zip(&expected) {
        assert_eq!(take(live).await, *expected, "live: {topics}");
        // From the ring, and from the log.
        for cursor in [after(0), Cursor::Earliest] {
            let mut late = hub.subscribe(patterns(topics), cursor);
            assert_eq!(take(&mut late).await, *expected, "late: {topics}");
        }
    }
}

#[tokio::test]
async fn an_end_that_has_made_room_for_another_topic_is_a_gap() {
    for (topics, before, after) in
        [("a", vec![], vec![]), ("a d", vec!["1"], vec![]), ("*", vec!["1"], vec!["3", "4"])]
    {
        let hub = hub(Retention { topics: 3, ..Retention::default() });
        let mut live = hub.subscribe(patterns(topics), Cursor::Now);
        publish(&hub, "d").await;
        end(&hub, "a").await;
        publish(&hub, "b c").await;
        let expected = [before, vec!["gap"], after].concat();
        assert_eq!(take(&mut live).await, expected, "{topics}");
        assert_eq!(live.cursor().sequence, 4);
        // Whoever comes later has asked for nothing that is missing.
        let mut late = hub.subscribe(patterns(topics), Cursor::Earliest);
        let kept: Vec<_> = expected.into_iter().filter(|delivery| *delivery != "gap").collect();
        assert_eq!(take(&mut late).await, kept, "{topics}");
    }
    // A topic that is in use again has no end.
    for reopening in [true, false] {
        let topics = if reopening { 9 } else { 1 };
        let hub = hub(Retention { topics, count: 0, ..Retention::default() });
        let mut live = hub.subscribe(patterns("a b"), Cursor::Now);
        end(&hub, "a").await;
        if reopening {
            hub.publish(Draft::new(topic("a"), "x").reopening()).await.unwrap();
        } else {
            publish(&hub, "b a").await;
        }
        let expected = if reopening { vec!["2"] } else { vec!["2", "3"] };
        assert_eq!(take(&mut live).await, expected, "{reopening}");
    }
}

#[tokio::test]
async fn a_late_reader_gets_the_ends_first_and_then_nothing_follows() {
    let hub = hub(Retention::default());
    publish(&hub, "a b c").await;
    for name in ["a", "b"] {
        end(&hub, name).await;
    }
    publish(&hub, "c").await;
    for (topics, expected, cursor) in [
        ("a", vec!["last 4"], 4),
        ("a b", vec!["(end 4)", "last 5"], 5),
        // An open topic has no end, and a pattern begins with what comes.
        ("a c", vec!["end 4"], 6),
        ("a b c", vec!["(end 4)", "end 5"], 6),
        ("c", vec![], 6),
        ("a *", vec!["end 4"], 6),
        (">", vec![], 6),
    ] {
        let mut late = hub.subscribe(patterns(topics), Cursor::Now);
        assert_eq!(late.is_settled(), expected.is_empty());
        assert_eq!(take(&mut late).await, expected, "{topics}");
        assert_eq!(late.cursor().sequence, cursor, "{topics}");
        let is_over = expected.last().is_some_and(|last| last.starts_with("last"));
        assert_eq!(hub.is_over(&patterns(topics), &after(cursor)), is_over, "{topics}");
    }
    for (cursor, expected) in [
        (after(3), false),
        (after(4), true),
        (after(6), true),
        (after(7), false),
        (Cursor::Now, false),
        (Cursor::Earliest, false),
        (Cursor::After(EventId { epoch: Epoch::new(2), sequence: 4 }), false),
    ] {
        assert_eq!(hub.is_over(&patterns("a"), &cursor), expected, "{cursor:?}");
    }
    // A page that was rendered with the newest events has the ends, too, or gets them.
    for (topics, events, ends, cursor) in [
        ("a", 1, vec![], 3),
        ("a b", 2, vec![4], 4),
        ("a c", 3, vec![4], 6),
        ("b *", 4, vec![5], 6),
        (">", 4, vec![], 6),
    ] {
        let latest = hub.latest(&patterns(topics), at_most(9)).await.unwrap();
        let found: Vec<u64> = latest.ends.iter().map(|end| end.id.sequence).collect();
        assert_eq!((latest.events.len(), latest.cursor.sequence), (events, cursor), "{topics}");
        assert_eq!(found, ends, "{topics}");
    }
}

#[tokio::test]
async fn a_reader_from_a_time_on_gets_earlier_ends_of_the_topics_that_it_names() {
    let hub = hub(Retention::default());
    publish(&hub, "a b").await;
    for name in ["a", "b"] {
        end(&hub, name).await;
    }
    publish(&hub, "c").await;
    let later = Timestamp::from_millis(1);
    for (topics, expected) in
        [("a", vec!["last 3"]), ("a c", vec!["end 3"]), ("a *", vec!["end 3"]), (">", vec![])]
    {
        let mut reader = hub.subscribe_since(patterns(topics), later).await.unwrap();
        assert_eq!(take(&mut reader).await, expected, "{topics}");
    }
    let mut reader = hub.subscribe_since(patterns(">"), Timestamp::from_millis(0)).await.unwrap();
    assert_eq!(take(&mut reader).await, ["1", "2", "end 3", "end 4", "5"]);
}

#[tokio::test]
async fn an_old_end_stops_nobody() {
    let hub = hub(Retention::default());
    let mut slow = hub.subscribe(patterns("a"), Cursor::Now);
    let mut all = hub.subscribe(patterns(">"), Cursor::Now);
    publish(&hub, "a").await;
    end(&hub, "a").await;
    assert_eq!(take(&mut all).await, ["1", "end 2"]);
    hub.publish(Draft::new(topic("a"), "x").reopening()).await.unwrap();
    assert_eq!(take(&mut slow).await, ["1", "3"]);
    assert_eq!(take(&mut all).await, ["3"]);
    // A browser that has seen the end continues after it.
    assert!(!hub.is_over(&patterns("a"), &after(2)));
    let mut back = hub.subscribe(patterns("a"), after(2));
    assert_eq!(take(&mut back).await, ["3"]);
    end(&hub, "a").await;
    for reader in [&mut slow, &mut back] {
        assert_eq!(take(reader).await, ["last 4"]);
    }
    assert_eq!(hub.published(), 2, "an end is no event");
}

#[tokio::test]
async fn a_reader_that_gets_its_ends_again_misses_no_event_of_a_reopened_topic() {
    let hub = hub(Retention::default());
    publish(&hub, "a b").await;
    for name in ["a", "b"] {
        end(&hub, name).await;
    }
    publish(&hub, "c").await;
    let again = |cursor| hub.subscribe(patterns("a b"), cursor).repeating_ends();
    for cursor in [after(4), after(5)] {
        assert!(hub.is_over(&patterns("a b"), &cursor));
        assert_eq!(take(&mut again(cursor)).await, ["(end 3)", "last 4"]);
    }
    // Between that look and the subscription, and after it.
    let mut before = again(after(4));
    hub.publish(Draft::new(topic("b"), "x").reopening()).await.unwrap();
    let mut later = again(after(4));
    publish(&hub, "b").await;
    assert_eq!(take(&mut later).await, ["end 3", "6", "7"]);
    assert_eq!(take(&mut before).await, ["(end 3)", "6", "7"]);
    // A gap and its ends come first in any case.
    let mut other = again(Cursor::Malformed("x".to_owned()));
    publish(&hub, "b").await;
    assert_eq!(take(&mut other).await, ["gap", "end 3", "8"]);
}

#[tokio::test]
async fn an_end_follows_the_gap_over_its_dropped_events() {
    let drafts = {
        let [a, b] = ["a", "b"].map(event);
        let reopening = a.clone().reopening();
        vec![a.clone(), a.clone(), b.clone(), ending("a"), reopening, a, ending("a"), b.clone(), b]
    };
    let retention = Retention { count: 1, clock_count: 0, ..Retention::default() };
    let hub = hub_after(retention, drafts).await;
    for (topics, cursor, expected) in [
        ("a", after(1), vec!["gap", "6", "last 7"]),
        ("a", after(5), vec!["6", "last 7"]),
        ("a", after(6), vec!["last 7"]),
        (
            "a",
            Cursor::After(EventId { epoch: Epoch::new(2), sequence: 9 }),
            vec!["gap", "6", "last 7"],
        ),
        ("a", after(99), vec!["gap", "last 7"]),
        ("a", Cursor::Malformed("x".to_owned()), vec!["gap", "last 7"]),
        ("a b", after(99), vec!["gap", "end 7"]),
        (">", after(1), vec!["gap", "6", "end 7", "9"]),
    ] {
        let mut reader = hub.subscribe(patterns(topics), cursor.clone());
        assert_eq!(take(&mut reader).await, expected, "{topics} {cursor:?}");
    }
    // With all of its events, and those of others, gone.
    let retention = Retention { count: 0, clock_count: 0, ..Retention::default() };
    let drafts = vec![event("a"), ending("a"), ending("b"), event("c")];
    let hub = hub_after(retention, drafts).await;
    let other = || Cursor::After(EventId { epoch: Epoch::new(2), sequence: 9 });
    for (topics, cursor, expected) in [
        ("a", after(0), vec!["gap", "last 2"]),
        ("a", after(1), vec!["last 2"]),
        ("a", Cursor::Earliest, vec!["last 2"]),
        (">", Cursor::Earliest, vec!["(end 2)", "end 3"]),
        (">", other(), vec!["gap", "(end 2)", "end 3"]),
        ("a b", after(0), vec!["gap", "(end 2)", "last 3"]),
        (">", after(2), vec!["gap", "end 3"]),
    ] {
        let mut reader = hub.subscribe(patterns(topics), cursor.clone());
        assert_eq!(take(&mut reader).await, expected, "{topics} {cursor:?}");
    }
}

#[tokio::test]
async fn a_conflating_reader_gets_the_newest_event_and_the_end() {
    let hub = hub(Retention { count: 20_000, ..Retention::default() });
    let both = || {
        let subscribe = || hub.subscribe(patterns(">"), after(0));
        [subscribe().conflated(), subscribe().conflated_without_count()]
    };
    publish(&hub, "a b a").await;
    end(&hub, "a").await;
    publish(&hub, "b b").await;
    for mut reader in both() {
        assert_eq!(take(&mut reader).await, ["3", "end 4", "6"]);
    }
    hub.publish(Draft::new(topic("a"), "x").reopening()).await.unwrap();
    for mut reader in both() {
        assert_eq!(take(&mut reader).await, ["6", "7"]);
    }
    end(&hub, "a").await;
    // More events than the ring holds.
    for _ in 0..10_000 {
        publish(&hub, "c").await;
    }
    for mut reader in both() {
        assert_eq!(take(&mut reader).await, ["6", "7", "end 8", "10008"]);
    }
}

/// A step of the model test. The numbers choose a topic.
#[derive(Clone, Debug)]
enum Step {
    Publish(Index),
    End(Index),
    Reopen(Index),
    /// Takes some deliveries.
    Take(u8),
    /// Loses the connection, and resumes at the cursor that the reader was told.
    Cut,
}

const TOPICS: [&str; 4] = ["a", "b", "c", "d.e"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let topic = any::<Index>;
    let step = prop_oneof![
        4 => topic().prop_map(Step::Publish),
        2 => topic().prop_map(Step::End),
        1 => topic().prop_map(Step::Reopen),
        3 => (0..4_u8).prop_map(Step::Take),
        2 => Just(Step::Cut),
    ];
    vec(step, 0..80)
}

/// A reader of the model, which notes what it gets.
struct Reader<'a> {
    hub: &'a Hub,
    patterns: Patterns,
    conflates: bool,
    subscriber: Subscriber,
    /// The position that it was told last.
    cursor: Cursor,
    events: Vec<u64>,
    ends: Vec<u64>,
    /// Number of the ends up to that position. Those after a gap are repeated with the gap.
    settled: usize,
    has_gap: bool,
    is_over: bool,
}

impl<'a> Reader<'a> {
    fn new(hub: &'a Hub, patterns: Patterns, conflates: bool) -> Self {
        let cursor = after(0);
        let subscriber = Self::subscribe(hub, &patterns, conflates, &cursor);
        let (events, ends) = (Vec::new(), Vec::new());
        let (has_gap, is_over, settled) = (false, false, 0);
        Self {
            hub,
            patterns,
            conflates,
            subscriber,
            cursor,
            events,
            ends,
            settled,
            has_gap,
            is_over,
        }
    }

    fn subscribe(hub: &Hub, patterns: &Patterns, conflates: bool, cursor: &Cursor) -> Subscriber {
        let subscriber = hub.subscribe(patterns.clone(), cursor.clone());
        if conflates { subscriber.conflated() } else { subscriber }
    }

    /// Takes one delivery. Returns `false` if there is none.
    async fn take(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        let Some(delivery) = self.subscriber.try_next().await.unwrap() else { return false };
        match delivery {
            Delivery::Events(batch) => {
                self.events.extend(batch.iter().map(|frame| frame.event().id.sequence));
            }
            Delivery::End { id, end } => {
                self.ends.push(id.sequence);
                self.is_over = end.last;
            }
            Delivery::Gap(_) => self.has_gap = true,
        }
        if self.subscriber.is_settled() {
            self.cursor = Cursor::After(self.subscriber.cursor());
            self.settled = self.ends.len();
        }
        true
    }

    fn reconnect(&mut self) {
        self.ends.truncate(self.settled);
        self.is_over = self.hub.is_over(&self.patterns, &self.cursor);
        self.subscriber = Self::subscribe(self.hub, &self.patterns, self.conflates, &self.cursor);
    }
}

async fn run(steps: &[Step], texts: &str, conflates: bool, retention: Retention) {
    let keeps_all = retention.count > steps.len();
    let hub = hub(retention);
    let patterns = patterns(texts);
    let mut reader = Reader::new(&hub, patterns.clone(), conflates);
    let (mut events, mut ended) = (Vec::new(), std::collections::HashMap::new());
    for step in steps {
        let draft = match step {
            Step::Publish(at) => Draft::new(topic(at.get(&TOPICS)), "x"),
            Step::Reopen(at) => Draft::new(topic(at.get(&TOPICS)), "x").reopening(),
            Step::End(at) => TopicEnd::done(topic(at.get(&TOPICS))).draft(),
            Step::Take(count) => {
                for _ in 0..*count {
                    reader.take().await;
                }
                continue;
            }
            Step::Cut => {
                reader.reconnect();
                continue;
            }
        };
        let (name, is_end) = (draft.topic.clone(), draft.name.is_topic_end());
        let is_refused = ended.contains_key(&name) && !is_end && !draft.is_reopening;
        let published = hub.publish(draft).await;
        assert_eq!(published.is_err(), is_refused, "{step:?}");
        let Ok(frame) = published else { continue };
        let sequence = frame.event().id.sequence;
        if is_end {
            let is_new = !ended.contains_key(&name);
            assert_eq!(*ended.entry(name).or_insert(sequence), sequence, "{is_new}");
        } else {
            ended.remove(&name);
            events.push((sequence, name));
        }
    }
    reader.reconnect();
    while reader.take().await {}
    let expected: Vec<_> = events.iter().filter(|(_, topic)| patterns.matches(topic)).collect();
    if keeps_all {
        assert!(!reader.has_gap);
        if !conflates {
            let expected: Vec<_> = expected.iter().map(|(sequence, _)| *sequence).collect();
            assert_eq!(reader.events, expected, "every event once, in order");
        }
    }
    for name in TOPICS {
        let newest = expected.iter().rfind(|(_, topic)| topic.as_str() == name);
        if keeps_all && let Some((newest, _)) = newest {
            assert!(reader.events.contains(newest), "the newest event of {name}");
        }
    }
    assert!(reader.events.is_sorted_by(|a, b| a < b) && reader.ends.is_sorted_by(|a, b| a < b));
    let mut current: Vec<_> = ended.iter().filter(|(topic, _)| patterns.matches(topic)).collect();
    current.sort_unstable_by_key(|(_, sequence)| **sequence);
    for (topic, sequence) in &current {
        assert!(reader.ends.contains(sequence), "the end of {topic}: {:?}", reader.ends);
    }
    let is_over = patterns.are_exact() && current.len() == patterns.iter().count();
    assert_eq!(reader.is_over, is_over, "over if all topics have ended");
    let last = current.last().map(|(_, sequence)| **sequence);
    assert!(!is_over || reader.ends.last().copied() == last);
}

proptest! {
    #[test]
    fn every_reader_gets_each_end_once_wherever_it_resumes(
        steps in steps(),
        texts in proptest::sample::select(&["a", "a b", "a d.e c", ">", "a d.>", "* b"][..]),
        conflates: bool,
        count in proptest::sample::select(&[0, 1, 3, 1000][..]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let retention = Retention { count, ..Retention::default() };
        runtime.block_on(run(&steps, texts, conflates, retention));
    }
}

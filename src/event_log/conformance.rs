//! Tests that every event log must pass.

use std::time::Duration;

use super::{topics::MAX_END_KEYS, *};
use crate::{
    event::{Draft, IdempotencyKey, Name, Topic},
    id::Epoch,
    notice::TopicEnd,
    pattern::{Pattern, Patterns},
    timestamp::Timestamp,
};

/// The time of events in these tests.
const NOW: Timestamp = Timestamp::from_millis(10_000_000);

/// A log under test.
struct TestLog {
    name: &'static str,
    log: Box<dyn EventLog>,
    #[cfg(feature = "sqlite")]
    sqlite: Option<(std::sync::Arc<SqliteLog>, tempfile::TempDir)>,
}

impl TestLog {
    fn memory(retention: Retention) -> Self {
        Self {
            name: "MemoryLog",
            log: Box::new(MemoryLog::new(Epoch::new(1), retention)),
            #[cfg(feature = "sqlite")]
            sqlite: None,
        }
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(retention: Retention) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = std::sync::Arc::new(SqliteLog::open(folder.path(), retention, || NOW).unwrap());
        Self::of_sqlite(log, folder)
    }

    #[cfg(feature = "sqlite")]
    fn sqlite_with_clock(
        retention: Retention,
        clock: std::sync::Arc<std::sync::atomic::AtomicU64>,
    ) -> Self {
        let folder = folder();
        let now = move || Timestamp::from_millis(clock.load(std::sync::atomic::Ordering::SeqCst));
        let log = std::sync::Arc::new(SqliteLog::open(folder.path(), retention, now).unwrap());
        Self::of_sqlite(log, folder)
    }

    #[cfg(feature = "sqlite")]
    fn of_sqlite(log: std::sync::Arc<SqliteLog>, folder: tempfile::TempDir) -> Self {
        let shared = Box::new(std::sync::Arc::clone(&log));
        Self { name: "SqliteLog", log: shared, sqlite: Some((log, folder)) }
    }

    /// Creates a log of each kind.
    fn all(retention: Retention) -> Vec<Self> {
        vec![
            #[cfg(feature = "sqlite")]
            Self::sqlite(retention.clone()),
            Self::memory(retention),
        ]
    }

    async fn append_drafts(&self, drafts: Vec<Draft>) -> Vec<Result<Appended, Rejected>> {
        self.append_at(drafts, NOW).await
    }

    /// Appends the drafts, and drops what exceeds the retention.
    async fn append_at(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> Vec<Result<Appended, Rejected>> {
        let appended = self.log.append(drafts, time).await.unwrap();
        #[cfg(feature = "sqlite")]
        if let Some((sqlite, _)) = &self.sqlite {
            sqlite.tidy().await;
        }
        appended
    }

    /// Appends one event to the topic of each letter, in a commit of its own.
    async fn append(&self, topics: &str) {
        for topic in topics.chars() {
            let appended = self.append_drafts(vec![draft(&topic.to_string(), "x")]).await;
            assert!(matches!(appended[..], [Ok(Appended { is_duplicate: false, .. })]));
        }
    }

    async fn read(&self, topics: &str, after: u64, count: usize) -> Vec<u64> {
        // A read may return less than the limit, so it is repeated.
        let mut found: Vec<u64> = Vec::new();
        while found.len() < count {
            let limit = ReadLimit { count: count - found.len(), bytes: usize::MAX };
            let after = found.last().copied().unwrap_or(after);
            let read = self.log.read(&patterns(topics), after, limit).await.unwrap();
            if read.is_empty() {
                break;
            }
            found.extend(read.iter().map(|event| event.id.sequence));
        }
        found
    }

    /// Reads backwards. Returns the sequence numbers in their order.
    async fn read_before(&self, topics: &str, before: u64, count: usize) -> Vec<u64> {
        let mut found: Vec<u64> = Vec::new();
        while found.len() < count {
            let limit = ReadLimit { count: count - found.len(), bytes: usize::MAX };
            let before = found.first().copied().unwrap_or(before);
            let read = self.log.read_before(&patterns(topics), before, limit).await.unwrap();
            if read.is_empty() {
                break;
            }
            found.splice(..0, read.iter().map(|event| event.id.sequence));
        }
        found
    }

    async fn latest(&self, topics: &str, count: usize) -> Vec<u64> {
        self.read_before(topics, u64::MAX, count).await
    }

    fn ends(&self, topics: &str) -> Vec<u64> {
        let ends = self.log.ends(&patterns(topics), 0, u64::MAX);
        ends.iter().map(|end| end.id.sequence).collect()
    }

    fn dropped(&self, topics: &str) -> u64 {
        self.log.dropped(&patterns(topics))
    }

    /// Returns the sequence numbers before the oldest event and of the newest.
    fn bounds(&self) -> (u64, u64) {
        let Bounds { start, newest, .. } = self.log.bounds();
        (start, newest)
    }
}

#[cfg(feature = "sqlite")]
impl<L: EventLog> EventLog for std::sync::Arc<L> {
    fn size(&self) -> LogSize {
        L::size(self)
    }

    fn bounds(&self) -> Bounds {
        L::bounds(self)
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        L::dropped_after(self, topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<crate::event::Event> {
        L::ends(self, topics, after, up_to)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        L::append(self, drafts, time)
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<crate::event::Event>> {
        L::read(self, topics, after, limit)
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        L::before(self, time)
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<crate::event::Event>> {
        L::newest_of_each(self, topics, after, limit)
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<crate::event::Event>> {
        L::read_before(self, topics, before, limit)
    }

    fn note_changes(&self, changed: &std::sync::Arc<ChangedTopics>) {
        L::note_changes(self, changed);
    }

    fn topics(
        &self,
        topics: &Patterns,
        after: Option<&crate::event::Topic>,
        limit: usize,
    ) -> Vec<crate::event::Topic> {
        L::topics(self, topics, after, limit)
    }

    fn figures<'a>(
        &'a self,
        topics: &'a [crate::event::Topic],
    ) -> EventLogFuture<'a, Vec<TopicFigures>> {
        L::figures(self, topics)
    }

    fn delete<'a>(&'a self, topic: &'a crate::event::Topic) -> EventLogFuture<'a, u64> {
        L::delete(self, topic)
    }

    fn set_retention(&self, retention: Retention) -> EventLogFuture<'_, ()> {
        L::set_retention(self, retention)
    }

    fn find<'a>(
        &'a self,
        topic: &'a crate::event::Topic,
        key: &'a IdempotencyKey,
    ) -> EventLogFuture<'a, Option<crate::event::Event>> {
        L::find(self, topic, key)
    }

    fn stopped(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        L::stopped(self)
    }
}

fn keeping(count: usize) -> Retention {
    Retention { count, ..Retention::default() }
}

fn draft(topic: &str, data: &str) -> Draft {
    Draft::new(topic.parse().unwrap(), data)
}

fn keyed(topic: &str, data: &str, publisher: &str, key: &str) -> Draft {
    let key = IdempotencyKey { publisher: publisher.to_owned(), key: key.to_owned() };
    draft(topic, data).with_key(key)
}

fn patterns(text: &str) -> Patterns {
    Patterns::new(text.split(' ').map(|text| text.parse::<Pattern>().unwrap())).unwrap()
}

/// Returns the event's sequence number, which is negative for a duplicate.
fn outcome(appended: &Result<Appended, Rejected>) -> Result<i64, Rejected> {
    let Appended { event, is_duplicate } = appended.as_ref().map_err(|rejected| *rejected)?;
    let sequence = event.id.sequence.cast_signed();
    Ok(if *is_duplicate { -sequence } else { sequence })
}

#[tokio::test]
async fn the_size_counts_what_is_kept() {
    for log in TestLog::all(Retention { count: 2, ..Retention::default() }) {
        assert_eq!(LogSize { disk: None, ..log.log.size() }, LogSize::default());
        log.append("aaab").await;
        log.append_drafts(vec![draft("b", "four"), ending("c")]).await;
        let size = LogSize { disk: None, ..log.log.size() };
        assert_eq!(size, LogSize { topics: 3, events: 4, bytes: 7, disk: None });
        log.log.delete(&"a".parse().unwrap()).await.unwrap();
        let size = LogSize { disk: None, ..log.log.size() };
        assert_eq!(size, LogSize { topics: 2, events: 2, bytes: 5, disk: None });
    }
}

#[tokio::test]
async fn events_are_numbered_from_one_and_read_after_a_sequence_number() {
    for log in TestLog::all(keeping(10)) {
        assert_eq!(log.bounds(), (0, 0));
        let drafts = vec![draft("a", "first"), draft("a", "second")];
        let appended = log.append_drafts(drafts).await;
        assert_eq!(appended.iter().map(outcome).collect::<Vec<_>>(), [Ok(1), Ok(2)]);
        log.append("a").await;
        assert_eq!(log.bounds(), (0, 3));
        assert_eq!(log.read("a", 0, 2).await, [1, 2]);
        assert_eq!(log.read("a", 2, 9).await, [3]);
        assert!(log.read("a", 3, 9).await.is_empty());
        assert!(log.read("a", i64::MAX as u64, 9).await.is_empty());
        assert!(log.read("a", u64::MAX, 9).await.is_empty());
    }
}

#[tokio::test]
async fn an_event_is_read_as_it_was_appended() {
    for log in TestLog::all(keeping(10)) {
        let long = "ü".repeat(32 * 1024);
        for data in ["", "a\0b", "a\r\nb\nc\rd", "\u{feff}x", &long] {
            let name: Name = "näme".parse().unwrap();
            let time = Timestamp::from_millis(9_999_999);
            let appended = log.append_at(vec![draft("orders.eu", data).named(name)], time).await;
            let [Ok(Appended { event, is_duplicate: false })] = &appended[..] else {
                panic!("{appended:?}")
            };
            assert_eq!((&*event.data, event.time), (data, time));
            let topics = patterns("orders.*");
            let after = event.id.sequence - 1;
            let limit = ReadLimit { count: 9, bytes: 0 };
            let read = log.log.read(&topics, after, limit).await.unwrap();
            assert_eq!(read, std::slice::from_ref(event));
            let read = log.log.read_before(&topics, u64::MAX, limit).await.unwrap();
            assert_eq!(read, std::slice::from_ref(event));
        }
    }
}

#[tokio::test]
async fn topics_are_read_together_in_the_order_of_the_log() {
    for log in TestLog::all(keeping(10)) {
        log.append("abcabcba").await;
        assert_eq!(log.read("a", 0, 9).await, [1, 4, 8]);
        assert_eq!(log.read("a b", 1, 9).await, [2, 4, 5, 7, 8]);
        assert_eq!(log.read("a b", 1, 3).await, [2, 4, 5]);
        assert_eq!(log.read("b c", 0, 9).await, [2, 3, 5, 6, 7]);
        assert_eq!(log.read(">", 3, 2).await, [4, 5]);
        assert!(log.read("d", 0, 9).await.is_empty());
        assert_eq!(log.latest("a b", 3).await, [5, 7, 8]);
        assert_eq!(log.latest("c", 9).await, [3, 6]);
        assert!(log.latest("d", 9).await.is_empty());
    }
}

#[tokio::test]
async fn no_event_of_many_topics_is_left_out() {
    for log in TestLog::all(keeping(1000)) {
        let busy = vec![draft("z.busy", "x"); 400];
        let mut expected = Vec::new();
        for round in 0..4_u64 {
            log.append_drafts(busy.clone()).await;
            let others = (0..40).map(|n| draft(&format!("a.{n}"), "x")).collect();
            log.append_drafts(others).await;
            expected.extend((1..=40).map(|n| round * 440 + 400 + n));
        }
        for count in [1, 7, 39, 41, 1000] {
            let limit = ReadLimit { count, bytes: usize::MAX };
            let (mut found, mut after): (Vec<u64>, _) = (Vec::new(), 0);
            loop {
                let read = log.log.read(&patterns("a.*"), after, limit).await.unwrap();
                assert!(read.len() <= count);
                let Some(last) = read.last() else { break };
                after = last.id.sequence;
                found.extend(read.iter().map(|event| event.id.sequence));
            }
            assert_eq!(found, expected, "{count} at a time");
        }
        assert_eq!(log.latest("a.*", 50).await, expected[110..]);
    }
}

#[tokio::test]
async fn runs_of_a_topic_are_stored_as_they_were_appended() {
    for log in TestLog::all(keeping(10_000)) {
        let mut expected = Vec::new();
        // Above and below multiples of the events that a log may insert at a time.
        for length in [0, 1, 2, 15, 16, 17, 31, 32, 33, 64] {
            let run = |topic: &'static str| {
                (0..length).map(move |n| {
                    draft(topic, &format!("{topic}\n{n}")).named(format!("n{n}").parse().unwrap())
                })
            };
            let once = keyed("a", "once", "me", &length.to_string());
            let mut drafts: Vec<_> = run("a").chain([once.clone()]).chain(run("a")).collect();
            drafts.extend([once, draft("b", "x"), ending("e")].into_iter().chain(run("b")));
            drafts.extend(run("e").chain(run("c")).chain(run("b")));
            for appended in log.append_drafts(drafts).await {
                match appended {
                    Ok(Appended { event, is_duplicate: false }) => expected.push(event),
                    Ok(Appended { event, .. }) => {
                        assert!(event.data == "once" || event.name.is_topic_end());
                    }
                    Err(error) => assert_eq!(error, Rejected::Ended),
                }
            }
        }
        expected.retain(|event| !event.name.is_topic_end());
        let limit = ReadLimit { count: 10_000, bytes: usize::MAX };
        let read = log.log.read(&patterns(">"), 0, limit).await.unwrap();
        assert_eq!(read, expected);
        assert_eq!(log.bounds().1, expected.last().unwrap().id.sequence);
    }
}

#[tokio::test]
async fn the_newest_event_of_each_topic_is_read_by_itself() {
    for log in TestLog::all(keeping(100)) {
        log.append("aaabbac").await;
        let read = async |topics: &str, after, count| {
            let limit = ReadLimit { count, bytes: usize::MAX };
            let read = log.log.newest_of_each(&patterns(topics), after, limit).await.unwrap();
            read.iter().map(|event| event.id.sequence).collect::<Vec<_>>()
        };
        assert_eq!(read(">", 0, 9).await, [5, 6, 7]);
        assert_eq!(read(">", 0, 2).await, [5, 6]);
        assert_eq!(read(">", 5, 9).await, [6, 7]);
        assert_eq!(read("a b", 4, 9).await, [5, 6]);
        assert_eq!(read("a", 6, 9).await, [0; 0]);
        let limit = ReadLimit { count: 9, bytes: 1 };
        let read = log.log.newest_of_each(&patterns(">"), 0, limit).await.unwrap();
        assert_eq!(read.len(), 1);
    }
    // Topics without events do not take the places of others.
    let hour = Duration::from_secs(60 * 60);
    for log in TestLog::all(Retention { age: hour, ..Retention::default() }) {
        let earlier = Timestamp::from_millis(NOW.as_millis() - 2 * 60 * 60 * 1000);
        let old = ["a", "b", "c", "d", "e", "f"].map(|topic| draft(topic, "x"));
        log.append_at(old.into(), earlier).await;
        log.append("ghi").await;
        let limit = ReadLimit { count: 2, bytes: usize::MAX };
        let read = log.log.newest_of_each(&patterns(">"), 0, limit).await.unwrap();
        assert_eq!(read.iter().map(|event| event.id.sequence).collect::<Vec<_>>(), [7, 8]);
    }
}

/// Reads with every kind of selection are compared with a plain filter.
#[tokio::test]
async fn each_selection_of_many_topics_reads_what_matches() {
    for log in TestLog::all(keeping(1000)) {
        // Busy and quiet topics, at the beginning, at the end and all over.
        let topic = |n: u64| match n {
            0..300 => format!("early.{}", n % 150),
            300..2000 if n.is_multiple_of(7) => format!("quiet.{}", n % 61),
            300..2000 => format!("busy.{}", n % 2),
            _ => format!("late.{}", n % 10),
        };
        let topics: Vec<_> = (1..=2200).map(topic).collect();
        for drafts in topics.chunks(700) {
            log.append_drafts(drafts.iter().map(|topic| draft(topic, "x")).collect()).await;
        }
        for texts in [">", "quiet.*", "early.>", "early.* late.1", "busy.0", "*.3 *.4", "no.*"] {
            let patterns = patterns(texts);
            for (after, count) in [(0, 9), (0, 5000), (299, 512), (1500, 512), (2199, 1)] {
                let expected: Vec<u64> = (1..)
                    .zip(&topics)
                    .filter(|(n, topic)| *n > after && patterns.matches(&topic.parse().unwrap()))
                    .map(|(n, _)| n)
                    .take(count)
                    .collect();
                assert_eq!(log.read(texts, after, count).await, expected, "{texts} {after}");
            }
            for (before, count) in [(u64::MAX, 9), (2201, 5000), (2000, 512), (700, 512), (2, 1)] {
                let matching = (1..)
                    .zip(&topics)
                    .filter(|(n, topic)| *n < before && patterns.matches(&topic.parse().unwrap()));
                let all: Vec<u64> = matching.map(|(n, _)| n).collect();
                let expected = &all[all.len().saturating_sub(count)..];
                let found = log.read_before(texts, before, count).await;
                assert_eq!(found, expected, "{texts} before {before}");
            }
            let matching =
                (1..).zip(&topics).filter(|(_, t)| patterns.matches(&t.parse().unwrap()));
            let newest: std::collections::BTreeMap<_, u64> =
                matching.map(|(n, topic)| (topic, n)).collect();
            let mut newest: Vec<u64> = newest.into_values().collect();
            newest.sort_unstable();
            let limit = ReadLimit { count: 5000, bytes: usize::MAX };
            let read = log.log.newest_of_each(&patterns, 0, limit).await.unwrap();
            let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
            assert_eq!(read, newest, "{texts}");
        }
    }
}

#[tokio::test]
async fn many_topics_with_a_long_pause_are_read_in_order() {
    for log in TestLog::all(keeping(20_000)) {
        let quiet = || (0..600).map(|n| draft(&format!("quiet.{n}"), "x")).collect::<Vec<_>>();
        log.append_drafts(quiet()).await;
        log.append_drafts(vec![draft("busy", "x"); 15_000]).await;
        log.append_drafts(quiet()).await;
        let limit = ReadLimit { count: 512, bytes: usize::MAX };
        let (mut found, mut after, mut reads): (Vec<u64>, _, _) = (Vec::new(), 0, 0);
        loop {
            let read = log.log.read(&patterns("quiet.*"), after, limit).await.unwrap();
            let Some(last) = read.last() else { break };
            after = last.id.sequence;
            found.extend(read.iter().map(|event| event.id.sequence));
            reads += 1;
        }
        assert_eq!(found, (1..=600).chain(15_601..=16_200).collect::<Vec<_>>());
        assert!(reads <= 6, "{reads} reads, of a few events each");
        let (mut left, mut before, mut reads) = (found.len(), u64::MAX, 0);
        loop {
            let read = log.log.read_before(&patterns("quiet.*"), before, limit).await.unwrap();
            let Some(first) = read.first() else { break };
            before = first.id.sequence;
            let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
            assert_eq!(read, found[left - read.len()..left]);
            left -= read.len();
            reads += 1;
        }
        assert!(left == 0 && reads <= 6, "{reads} reads, {left} left");
    }
}

#[tokio::test]
async fn events_are_read_backwards_from_any_place() {
    for log in TestLog::all(keeping(3)) {
        assert!(log.read_before(">", u64::MAX, 9).await.is_empty());
        log.append("abaabcaa").await;
        let end = ending("b");
        log.append_drafts(vec![end]).await;
        for (topics, before, count, expected) in [
            ("a", u64::MAX, 9, &[4, 7, 8][..]),
            ("a", 8, 9, &[4, 7]),
            ("a", 4, 9, &[]),
            ("a", 0, 9, &[]),
            ("a", 1, 9, &[]),
            ("a b", 8, 3, &[4, 5, 7]),
            ("a b", 5, 9, &[2, 4]),
            ("a b", 3, 9, &[2]),
            ("c", 7, 1, &[6]),
            ("c", 6, 1, &[]),
            (">", 10, 2, &[7, 8]),
            ("d", 9, 9, &[]),
        ] {
            let found = log.read_before(topics, before, count).await;
            assert_eq!(found, expected, "{topics} before {before}");
        }
        // At least one is read, and no more than fit.
        for (bytes, expected) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            let limit = ReadLimit { count: 9, bytes };
            let read = log.log.read_before(&patterns(">"), 9, limit).await.unwrap();
            assert_eq!(read.len(), expected);
            assert_eq!(read.last().unwrap().id.sequence, 8);
        }
        // Topics whose newest events were deleted do not take the places of others.
        for topic in ["a", "c"] {
            log.log.delete(&topic.parse().unwrap()).await.unwrap();
        }
        assert_eq!(log.read_before(">", u64::MAX, 1).await, [5]);
        assert!(log.read_before("a c", u64::MAX, 1).await.is_empty());
    }
}

#[tokio::test]
async fn a_topic_that_is_no_longer_busy_is_read_to_its_end() {
    for log in TestLog::all(keeping(1000)) {
        for (topic, count) in [("a", 300), ("b", 100), ("a", 1)] {
            log.append_drafts(vec![draft(topic, "x"); count]).await;
        }
        let limit = ReadLimit { count: 5, bytes: usize::MAX };
        for (after, expected) in [(298, vec![299, 300]), (310, vec![401]), (401, vec![])] {
            let read = log.log.read(&patterns("a"), after, limit).await.unwrap();
            let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
            assert!(!read.is_empty() || expected.is_empty(), "after {after}");
            assert_eq!(read[..read.len().min(2)], expected, "after {after}");
        }
    }
}

#[tokio::test]
async fn a_topic_that_was_busy_is_read_backwards_in_one_read() {
    for log in TestLog::all(keeping(20_000)) {
        log.append_drafts(vec![draft("a", "x"); 1000]).await;
        for _ in 0..40 {
            let others = vec![draft("b", "x"); 109];
            log.append_drafts([others, vec![draft("a", "x")]].concat()).await;
        }
        let limit = ReadLimit { count: 21, bytes: usize::MAX };
        let read = log.log.read_before(&patterns("a"), u64::MAX, limit).await.unwrap();
        let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
        assert_eq!(read, (20..=40).map(|round| 1000 + round * 110).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn events_that_exceed_the_retention_are_dropped_and_their_numbers_never_reused() {
    for log in TestLog::all(keeping(2)) {
        log.append("aaab").await;
        assert_eq!(log.bounds(), (1, 4));
        assert_eq!(log.read(">", 0, 9).await, [2, 3, 4]);
        let dropped = ["a", "b", "c", ">"].map(|topics| log.dropped(topics));
        assert_eq!(dropped, [1, 0, 0, 1]);
        log.append("aaaa").await;
        assert_eq!(log.bounds(), (3, 8));
        assert_eq!(log.read(">", 0, 9).await, [4, 7, 8], "each topic keeps its own");
        assert_eq!(log.dropped("a b"), 6);
    }
}

#[tokio::test]
async fn a_log_that_keeps_nothing_still_counts() {
    for log in TestLog::all(keeping(0)) {
        log.append("ab").await;
        assert_eq!(log.bounds(), (2, 2));
        assert!(log.read(">", 0, 9).await.is_empty());
        assert_eq!((log.dropped("a"), log.dropped(">")), (1, 2));
    }
}

#[tokio::test]
async fn a_read_is_bounded_in_bytes_but_returns_at_least_one_event() {
    for log in TestLog::all(keeping(10)) {
        log.append("aaaaabbbbbb").await;
        for (bytes, expected) in [(0, vec![2]), (1, vec![2]), (3, vec![2, 3, 4])] {
            // Of a majority of all events, and of a minority.
            for topics in ["a b", "a"] {
                let limit = ReadLimit { count: 9, bytes };
                let read = log.log.read(&patterns(topics), 1, limit).await.unwrap();
                let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
                assert_eq!(read, expected, "{topics} {bytes}");
            }
        }
    }
}

#[tokio::test]
async fn the_clock_has_its_own_retention() {
    for log in TestLog::all(Retention { clock_count: 1, ..Retention::default() }) {
        for topic in ["clock", "other", "clock", "other"] {
            log.append_drafts(vec![draft(topic, "x")]).await;
        }
        assert_eq!(log.read(">", 0, 9).await, [2, 3, 4]);
    }
}

#[tokio::test]
async fn events_that_are_too_old_are_dropped() {
    let hour = Duration::from_secs(60 * 60);
    for log in TestLog::all(Retention { age: hour, ..Retention::default() }) {
        for (topic, seconds) in [("a", 3601), ("b", 1800), ("c", 0)] {
            let time = Timestamp::from_millis(NOW.as_millis() - seconds * 1000);
            log.append_at(vec![draft(topic, "x")], time).await;
        }
        assert_eq!(log.read(">", 0, 9).await, [2, 3]);
        assert_eq!((log.dropped("a"), log.dropped("b c")), (1, 0));
    }
}

#[tokio::test]
async fn an_event_from_the_future_does_not_keep_those_behind_it() {
    let hour = Duration::from_secs(60 * 60);
    for log in TestLog::all(Retention { age: hour, ..Retention::default() }) {
        let minutes = |minutes: i64| {
            Timestamp::from_millis(NOW.as_millis().saturating_add_signed(minutes * 60_000))
        };
        // The clock was a month ahead for one event, and then an hour and a half behind.
        for (topic, time) in [("a", 30 * 24 * 60), ("b", -90), ("a", -61), ("b", -59), ("a", 0)] {
            log.append_at(vec![draft(topic, "x")], minutes(time)).await;
        }
        assert_eq!(log.read(">", 0, 9).await, [4, 5]);
        assert_eq!((log.dropped("a"), log.dropped("b")), (3, 2));
    }
}

#[tokio::test]
async fn an_event_from_the_past_does_not_drop_those_before_it() {
    let hour = Duration::from_secs(60 * 60);
    for log in TestLog::all(Retention { age: hour, ..Retention::default() }) {
        // The clock was at its beginning for one event.
        for (topic, time) in [("a", NOW), ("b", Timestamp::from_millis(0)), ("a", NOW)] {
            log.append_at(vec![draft(topic, "x")], time).await;
        }
        log.append("b").await;
        assert_eq!(log.read(">", 0, 9).await, [1, 2, 3, 4]);
        assert_eq!(log.dropped(">"), 0);
    }
}

fn rule(pattern: &str, count: Option<usize>, seconds: Option<u64>) -> RetentionRule {
    let age = seconds.map(Duration::from_secs);
    RetentionRule { pattern: pattern.parse().unwrap(), count, age }
}

/// The time so many seconds before [`NOW`].
fn seconds_ago(seconds: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() - seconds * 1000)
}

/// Events of topics with a longer and a shorter age, and with other numbers, are kept by these.
#[tokio::test]
async fn rules_decide_on_the_topics_that_they_match() {
    let rules = vec![
        rule("long.*", None, Some(7200)),
        rule("short.>", Some(1), Some(600)),
        rule(">", Some(3), None),
    ];
    let age = Duration::from_secs(3600);
    for log in TestLog::all(Retention { age, rules, ..keeping(10) }) {
        for (topic, seconds) in [
            ("long.a", 7300),  // 1, too old
            ("long.a", 7100),  // 2
            ("other", 3700),   // 3, too old
            ("long.b", 3700),  // 4
            ("short.a", 3000), // 5, too old
            ("long.b", 3000),  // 6
            ("other", 3000),   // 7
            ("short.b", 500),  // 8, one too many
            ("short.b", 400),  // 9
            ("long.a", 300),   // 10
            ("long.a", 200),   // 11
            ("long.a", 100),   // 12: 2 is one too many
            ("clock", 0),      // 13
        ] {
            log.append_at(vec![draft(topic, "x")], seconds_ago(seconds)).await;
        }
        assert_eq!(log.read(">", 0, 99).await, [4, 6, 7, 9, 10, 11, 12, 13]);
        let dropped = ["long.a", "other", "long.b", "short.a", "short.b", "clock"];
        assert_eq!(dropped.map(|topic| log.dropped(topic)), [2, 3, 0, 5, 8, 0]);
        assert_eq!(log.bounds(), (3, 13));
        let topics = ["short.a", "short.b"].map(|topic| topic.parse().unwrap());
        let figures = log.log.figures(&topics).await.unwrap();
        assert_eq!(figures.iter().map(|figures| figures.events).collect::<Vec<_>>(), [0, 1]);
    }
}

#[tokio::test]
async fn an_own_age_of_zero_keeps_only_events_of_now() {
    for log in TestLog::all(Retention { rules: vec![rule("a", None, Some(0))], ..keeping(10) }) {
        log.append_at(vec![draft("a", "x"), draft("b", "x")], seconds_ago(1)).await;
        log.append("ab").await;
        assert_eq!(log.read(">", 0, 9).await, [2, 3, 4]);
    }
}

/// The clock was ahead for the first events of a topic, and then behind.
#[tokio::test]
async fn an_own_age_is_not_held_up_by_events_from_the_future() {
    for log in TestLog::all(Retention { rules: vec![rule("a", None, Some(60))], ..keeping(9) }) {
        let future = Timestamp::from_millis(NOW.as_millis() + 1_000_000);
        log.append_at(vec![draft("a", "x"), draft("a", "x")], future).await;
        log.append_at(vec![draft("b", "x")], seconds_ago(1000)).await;
        log.append_at(vec![draft("a", "x")], seconds_ago(61)).await;
        log.append_at(vec![draft("a", "x")], seconds_ago(60)).await;
        log.append("a").await;
        assert_eq!(log.read(">", 0, 9).await, [3, 5, 6]);
        assert_eq!((log.dropped("a"), log.dropped("b")), (4, 0));
    }
}

#[tokio::test]
async fn the_size_counts_before_longer_ages_and_higher_numbers() {
    let rules = vec![rule("a", Some(usize::MAX), Some(u64::MAX))];
    for log in TestLog::all(Retention { bytes: 1 << 20, rules, ..keeping(100) }) {
        let data = "x".repeat(1000);
        for _ in 0..40 {
            log.append_drafts((0..100).map(|_| draft("a", &data)).collect()).await;
        }
        let (start, newest) = log.bounds();
        assert_eq!(newest, 4000);
        assert!((700..=1000).contains(&(newest - start)), "{start}");
        assert_eq!(log.dropped("a"), start);
    }
}

/// Ends and idempotency keys keep their rules, whichever rule drops the events.
#[tokio::test]
async fn ends_outlive_and_keys_share_the_ages_of_their_topics() {
    let rules = vec![rule("long", None, Some(7200)), rule("short", None, Some(60))];
    let age = Duration::from_secs(3600);
    for log in TestLog::all(Retention { age, rules, ..keeping(10) }) {
        let topics = ["long", "short", "other"];
        let drafts = || topics.map(|topic| keyed(topic, "x", "p", "k")).into();
        log.append_at(drafts(), seconds_ago(3700)).await;
        let end = |topic: &&str| failing(topic, "over");
        log.append_at(topics[1..].iter().map(end).collect(), seconds_ago(3600)).await;
        log.append("z").await;
        assert_eq!(log.read(">", 0, 9).await, [1, 6]);
        assert_eq!(log.ends(">"), [4, 5]);
        let again = log.append_drafts(drafts()).await;
        let again: Vec<_> = again.iter().map(outcome).collect();
        assert_eq!(again, [Ok(-1), Err(Rejected::Ended), Err(Rejected::Ended)]);
    }
}

#[tokio::test]
async fn the_retention_is_changed_while_the_log_is_open() {
    let age = Duration::from_secs(3600);
    for log in TestLog::all(Retention { age, ..keeping(10) }) {
        for seconds in [3000, 2000, 1000, 0] {
            let drafts = ["a", "b", "c"].map(|topic| draft(topic, "x"));
            log.append_at(drafts.into(), seconds_ago(seconds)).await;
        }
        let set = async |retention: Retention| {
            log.log.set_retention(retention).await.unwrap();
            // Time passes, for the log in memory with an event.
            log.append("z").await;
        };
        set(Retention { age, ..keeping(3) }).await;
        assert_eq!(log.read("a b c", 0, 99).await, [4, 5, 6, 7, 8, 9, 10, 11, 12]);
        // A raise brings nothing back.
        set(Retention { age, ..keeping(10) }).await;
        assert_eq!(log.dropped("a"), 1);
        // A shorter age for some, and then for all others.
        let rules = vec![rule("b", None, Some(1500)), rule("c", Some(1), None)];
        set(Retention { age, rules: rules.clone(), ..keeping(10) }).await;
        assert_eq!(log.read("a b c", 0, 99).await, [4, 7, 8, 10, 11, 12]);
        let long = vec![rule("a", None, Some(9999))];
        let short = Duration::from_secs(500);
        set(Retention { age: short, rules: long, ..keeping(10) }).await;
        assert_eq!(log.read("a b c", 0, 99).await, [4, 7, 10, 11, 12]);
        // Without the rule, the general age finds the events that it has passed before.
        set(Retention { age: short, ..keeping(10) }).await;
        assert_eq!(log.read("a b c", 0, 99).await, [10, 11, 12]);
        assert_eq!(["a", "b", "c"].map(|topic| log.dropped(topic)), [7, 8, 9]);
        // A longer age counts from now on.
        set(Retention { age, ..keeping(10) }).await;
        log.append_at(vec![draft("a", "x")], seconds_ago(2000)).await;
        assert_eq!(log.read("a", 0, 99).await, [10, 19]);
        // Other topics make no room for new ones.
        set(Retention { topics: 4, age, ..keeping(10) }).await;
        assert_eq!(
            log.append_drafts(vec![draft("new", "x")])
                .await
                .iter()
                .map(outcome)
                .collect::<Vec<_>>(),
            [Err(Rejected::TooManyTopics)]
        );
        set(Retention { bytes: 0, ..keeping(10) }).await;
        assert!(log.read("a b c", 0, 99).await.is_empty());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(if cfg!(miri) { 1 } else { 24 }))]

    /// Rules, appends, deletions and changes are compared with a plain filter. The clock goes only
    /// forward.
    #[test]
    fn what_is_kept_by_rules_is_what_a_plain_filter_keeps(
        steps in proptest::collection::vec((0..16_u8, 0..5_usize, 0..40_u64), 1..80),
        retentions in proptest::collection::vec(
            (1..8_usize, 5..60_u64, proptest::collection::vec(
                (0..5_usize, proptest::option::of(0..6_usize), proptest::option::of(0..200_u64)),
                0..4,
            )),
            1..5,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let retentions: Vec<_> = retentions.into_iter().map(|(count, age, rules)| {
            let patterns = ["a", "*", "b.*", "b.>", ">"];
            let rules = rules.iter().map(|(n, count, age)| rule(patterns[*n], *count, *age));
            Retention { age: Duration::from_secs(age), rules: rules.collect(), ..keeping(count) }
        }).collect();
        runtime.block_on(compare_with_filter(&steps, &retentions));
    }
}

async fn compare_with_filter(steps: &[(u8, usize, u64)], retentions: &[Retention]) {
    const TOPICS: [&str; 5] = ["a", "c", "b.a", "b.c", "b.c.d"];
    let clock = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(NOW.as_millis()));
    let logs = [
        TestLog::memory(retentions[0].clone()),
        #[cfg(feature = "sqlite")]
        TestLog::sqlite_with_clock(retentions[0].clone(), std::sync::Arc::clone(&clock)),
    ];
    let (mut retention, mut sequence) = (&retentions[0], 0);
    // Topics, sequence numbers and times.
    let mut kept: Vec<(Topic, u64, Timestamp)> = Vec::new();
    for (action, topic, seconds) in steps {
        let now = clock.load(std::sync::atomic::Ordering::SeqCst);
        let topic: Topic = TOPICS[*topic].parse().unwrap();
        let mut dropped_before = kept.clone();
        match action {
            0 => {
                retention = &retentions[usize::try_from(*seconds).unwrap() % retentions.len()];
                for log in &logs {
                    log.log.set_retention(retention.clone()).await.unwrap();
                }
            }
            1 => {
                for log in &logs {
                    log.log.delete(&topic).await.unwrap();
                }
                kept.retain(|(of, ..)| *of != topic);
            }
            2..5 => {
                let later = now + seconds * 1000;
                clock.store(later, std::sync::atomic::Ordering::SeqCst);
            }
            _ => {}
        }
        // Each step appends, since the log in memory has no clock.
        let now = Timestamp::from_millis(clock.load(std::sync::atomic::Ordering::SeqCst));
        sequence += 1;
        for log in &logs {
            log.append_at(vec![draft(topic.as_str(), "x")], now).await;
        }
        kept.push((topic.clone(), sequence, now));
        dropped_before.push((topic, sequence, now));
        kept = {
            let is_kept = |(topic, sequence, time): &(Topic, u64, Timestamp)| {
                let later = kept.iter().filter(|(of, other, _)| of == topic && other >= sequence);
                later.count() <= retention.count_of(topic)
                    && now.since(*time) <= retention.age_of(topic)
            };
            kept.iter().filter(|event| is_kept(event)).cloned().collect()
        };
        let expected: Vec<_> = kept.iter().map(|(_, sequence, _)| *sequence).collect();
        for log in &logs {
            assert_eq!(log.read(">", 0, 999).await, expected, "{} {retention:?}", log.name);
            for (topic, sequence, _) in &dropped_before {
                let is_gone = !expected.contains(sequence);
                assert_eq!(log.dropped(topic.as_str()) >= *sequence, is_gone);
            }
        }
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_event_from_the_future_does_not_keep_those_behind_it_after_a_restart() {
    let age = Duration::from_secs(60 * 60);
    let retention = Retention { age, ..Retention::default() };
    let folder = tempfile::tempdir().unwrap();
    let at = |minutes: u64| Timestamp::from_millis(NOW.as_millis() + minutes * 60_000);
    let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
    for time in [10_000, 0, 30] {
        log.append(vec![draft("a", "x")], at(time)).await.unwrap();
    }
    drop(log);
    let log = SqliteLog::open(folder.path(), retention, move || at(75)).unwrap();
    log.tidy().await;
    assert_eq!((log.bounds().start, log.dropped(&patterns("a"))), (2, 2));
}

/// Times of appends, in seconds. The clock is set forward for one event, and back later.
const UNSTEADY: [u64; 9] = [10, 20, 90, 30, 40, 50, 35, 45, 60];

/// Appends an event at each of these times, and returns the log's answers for each whole ten
/// seconds.
async fn before(log: &dyn EventLog) -> Vec<u64> {
    let mut found = Vec::new();
    for seconds in (0..=100).step_by(10) {
        found.push(log.before(Timestamp::from_millis(seconds * 1000)).await.unwrap());
    }
    found
}

#[tokio::test]
async fn the_first_event_of_a_time_or_later_is_found_though_the_clock_was_set_back() {
    let retention = Retention { age: Duration::from_hours(1_000), ..keeping(4) };
    for log in TestLog::all(retention) {
        assert_eq!(before(&*log.log).await, [0; 11], "an empty log");
        for seconds in UNSTEADY {
            let time = Timestamp::from_millis(seconds * 1000);
            log.append_at(vec![draft(&format!("t{seconds}"), "x")], time).await;
        }
        assert_eq!(before(&*log.log).await, [0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 9]);
        // The event of the wrong time is dropped, and so are those of one topic.
        let time = Timestamp::from_millis(60_000);
        for topic in ["t90"; 4].into_iter().chain(["t10"; 4]) {
            log.append_at(vec![draft(topic, "x")], time).await;
        }
        assert_eq!(before(&*log.log).await, [1, 1, 1, 3, 4, 5, 8, 17, 17, 17, 17]);
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_first_event_of_a_time_is_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteLog::open(folder.path(), keeping(4), || NOW).unwrap();
    let log = open();
    for seconds in UNSTEADY {
        let time = Timestamp::from_millis(seconds * 1000);
        // The events of one append have the same time.
        log.append(vec![draft("a", "x"), draft("b", "x")], time).await.unwrap();
    }
    log.tidy().await;
    let kept = [10, 10, 10, 10, 10, 10, 16, 18, 18, 18, 18];
    assert_eq!(before(&log).await, kept);
    drop(log);
    assert_eq!(before(&open()).await, kept);
}

#[tokio::test]
async fn all_topics_together_are_bounded_in_bytes() {
    let bytes = 1 << 20;
    for log in TestLog::all(Retention { bytes, ..Retention::default() }) {
        let data = "x".repeat(1000);
        for _ in 0..40 {
            let drafts = (0..100).map(|n| draft(if n % 2 == 0 { "a" } else { "b" }, &data));
            log.append_drafts(drafts.collect()).await;
        }
        let (start, newest) = log.bounds();
        assert_eq!(newest, 4000);
        let kept = newest - start;
        assert!((700..=1000).contains(&kept), "{kept}");
        assert_eq!(log.read(">", 0, 9999).await, (start + 1..=4000).collect::<Vec<_>>());
        assert_eq!(log.dropped("a").max(log.dropped("b")), start);
        #[cfg(feature = "sqlite")]
        if let Some((_, folder)) = &log.sqlite {
            let size = |name| folder.path().join(name).metadata().map_or(0, |file| file.len());
            let size = size("log.db") + size("log.db-wal");
            assert!(size < 8 << 20, "{size} bytes");
        }
    }
}

#[tokio::test]
async fn many_ended_topics_push_out_no_event() {
    for log in TestLog::all(Retention { bytes: 512 << 10, ..Retention::default() }) {
        let reason = "x".repeat(1000);
        let key = "k".repeat(250);
        let end = |n| with_key(failing(&format!("ended.{n}"), &reason), &key);
        log.append_drafts((0..1000).map(end).collect()).await;
        let drafts = vec![draft("a", &"x".repeat(1000)); 100];
        for _ in 0..2 {
            log.append_drafts(drafts.clone()).await;
        }
        assert_eq!((log.dropped(">"), log.read("a", 0, 999).await.len()), (0, 200));
        for _ in 0..8 {
            log.append_drafts(drafts.clone()).await;
        }
        let kept = log.read("a", 0, 9999).await.len();
        assert!((300..=500).contains(&kept), "{kept} within the bytes");
        // Further ends push out none either, in a log that is full.
        log.append_drafts((1000..2000).map(end).collect()).await;
        log.append("a").await;
        let left = log.read("a", 0, 9999).await.len();
        assert!(left + 50 > kept, "{left} of {kept}");
        assert_eq!(log.ends(">").len(), 2000);
    }
}

#[tokio::test]
async fn a_draft_with_a_used_key_is_a_duplicate() {
    for log in TestLog::all(keeping(3)) {
        let first = log.append_drafts(vec![
            keyed("a", "x", "me", "k"),
            // A duplicate within the same append.
            keyed("a", "x", "me", "k"),
            keyed("a", "x", "you", "k"),
            keyed("b", "x", "me", "k"),
            keyed("a", "y", "me", "k"),
            draft("a", "x"),
        ]);
        let first = first.await;
        let reused = Err(Rejected::KeyReused);
        assert_eq!(
            first.iter().map(outcome).collect::<Vec<_>>(),
            [Ok(1), Ok(-1), Ok(2), Ok(3), reused, Ok(4)]
        );
        let [Ok(new), Ok(duplicate), ..] = &first[..] else { panic!("{first:?}") };
        assert_eq!(new.event, duplicate.event);
        let renamed = keyed("a", "x", "me", "k").named("other".parse().unwrap());
        let again = log.append_drafts(vec![keyed("a", "x", "me", "k"), renamed]).await;
        assert_eq!(again.iter().map(outcome).collect::<Vec<_>>(), [Ok(-1), reused]);
        assert_eq!(log.bounds(), (0, 4));
        // A key is dropped with its event.
        log.append("a").await;
        let late = log.append_drafts(vec![keyed("a", "y", "me", "k")]).await;
        assert_eq!(outcome(&late[0]), Ok(6));
    }
}

#[tokio::test]
async fn an_event_is_found_by_its_key_as_long_as_it_is_kept() {
    for log in TestLog::all(keeping(2)) {
        let find = async |topic: &str, publisher: &str, key: &str| {
            let key = IdempotencyKey { publisher: publisher.to_owned(), key: key.to_owned() };
            let found = log.log.find(&topic.parse().unwrap(), &key).await.unwrap();
            found.map(|event| event.data)
        };
        assert_eq!(find("a", "me", "k").await, None);
        let drafts = vec![keyed("a", "x", "me", "k"), keyed("b", "y", "me", "k"), draft("a", "z")];
        log.append_drafts(drafts).await;
        assert_eq!(find("a", "me", "k").await.as_deref(), Some("x"));
        assert_eq!(find("b", "me", "k").await.as_deref(), Some("y"));
        for (topic, publisher, key) in [("a", "you", "k"), ("a", "me", "l"), ("c", "me", "k")] {
            assert_eq!(find(topic, publisher, key).await, None);
        }
        log.append("a").await;
        assert_eq!(find("a", "me", "k").await, None);
    }
}

#[tokio::test]
async fn the_topic_limit_is_kept_and_empty_topics_make_room() {
    for log in TestLog::all(Retention { topics: 2, count: 2, age: Duration::MAX, ..keeping(2) }) {
        let drafts = ["a", "b", "c", "a"].map(|topic| draft(topic, "x"));
        let appended = log.append_drafts(drafts.into()).await;
        let outcomes: Vec<_> = appended.iter().map(outcome).collect();
        assert_eq!(outcomes, [Ok(1), Ok(2), Err(Rejected::TooManyTopics), Ok(3)]);
        assert_eq!(log.read(">", 0, 9).await, [1, 2, 3]);
    }
    for log in TestLog::all(Retention { topics: 2, ..keeping(0) }) {
        log.append("abc").await;
        // `a` was forgotten, but not its dropped events.
        assert_eq!(["a", "b", "c", "d", ">"].map(|topics| log.dropped(topics)), [1, 2, 3, 0, 3]);
        // A topic that gets an event in the same append is not forgotten.
        for (topics, expected) in [(["b", "e"], [Ok(4), Ok(5)]), (["d", "a"], [Ok(6), Ok(7)])] {
            let both = topics.map(|topic| draft(topic, "x"));
            let appended = log.append_drafts(both.into()).await;
            assert_eq!(appended.iter().map(outcome).collect::<Vec<_>>(), expected);
        }
        assert_eq!(log.bounds(), (7, 7));
        assert_eq!(["a", "b", "c", "d"].map(|topics| log.dropped(topics)), [7, 4, 3, 6]);
    }
    // The topic `clock` is always admitted.
    for log in TestLog::all(Retention { topics: 1, ..keeping(2) }) {
        let drafts = ["a", "clock", "b"].map(|topic| draft(topic, "x"));
        let appended = log.append_drafts(drafts.into()).await;
        let outcomes: Vec<_> = appended.iter().map(outcome).collect();
        assert_eq!(outcomes, [Ok(1), Ok(2), Err(Rejected::TooManyTopics)]);
    }
}

fn ending(topic: &str) -> Draft {
    TopicEnd::done(topic.parse().unwrap()).draft()
}

fn failing(topic: &str, message: &str) -> Draft {
    TopicEnd::failed(topic.parse().unwrap(), message.to_owned()).draft()
}

fn with_key(draft: Draft, key: &str) -> Draft {
    draft.with_key(IdempotencyKey { publisher: "me".to_owned(), key: key.to_owned() })
}

#[tokio::test]
async fn an_ended_topic_takes_no_event_until_it_is_reopened() {
    let ended = Err(Rejected::Ended);
    for log in TestLog::all(keeping(10)) {
        // In one append, and in several.
        for (first, drafts) in [(1_i64, 1), (8, 9)] {
            let all = [
                draft("a", "x").reopening(),
                failing("a", "why"),
                draft("a", "y"),
                ending("a"),
                ending("b"),
                draft("c", "x"),
                draft("a", "z").reopening(),
                draft("a", "z"),
                draft("b", "x").reopening(),
            ];
            let mut outcomes = Vec::new();
            for drafts in all.chunks(drafts) {
                let appended = log.append_drafts(drafts.to_vec()).await;
                outcomes.extend(appended.iter().map(outcome));
            }
            let n = |n| Ok(first + n);
            let expected = [n(0), n(1), ended, ended, n(2), n(3), n(4), n(5), n(6)];
            assert_eq!(outcomes, expected);
        }
        assert!(log.ends(">").is_empty(), "all are open");
    }
}

#[tokio::test]
async fn a_draft_may_ask_for_a_topic_that_has_not_ended_since() {
    let ended = Err(Rejected::Ended);
    for log in TestLog::all(keeping(10)) {
        let late = |after| Draft { unless_ended_after: Some(after), ..failing("a", "late") };
        let reopening = || draft("a", "x").reopening();
        for (drafts, expected) in [
            (
                vec![draft("a", "x"), ending("a"), late(1), late(2)],
                vec![Ok(1), Ok(2), ended, ended],
            ),
            // The end counts although the topic is open again.
            (vec![reopening(), late(1), draft("a", "x")], vec![Ok(3), ended, Ok(4)]),
            (vec![late(2), late(4)], vec![Ok(5), ended]),
        ] {
            let appended = log.append_drafts(drafts).await;
            assert_eq!(appended.iter().map(outcome).collect::<Vec<_>>(), expected);
        }
    }
}

#[tokio::test]
async fn an_end_has_its_place_in_the_order_and_is_no_event() {
    for log in TestLog::all(keeping(10)) {
        log.append("aab").await;
        let appended = log.append_drafts(vec![failing("a", "disk"), ending("b")]).await;
        let Ok(Appended { event, .. }) = &appended[0] else { panic!("{appended:?}") };
        assert_eq!((event.id.sequence, event.time), (4, NOW));
        let end = TopicEnd::failed("a".parse().unwrap(), "disk".to_owned());
        assert_eq!(TopicEnd::of(event), Some(end));
        log.append("c").await;
        assert_eq!(log.bounds(), (0, 6));
        assert_eq!(log.read(">", 0, 9).await, [1, 2, 3, 6]);
        assert_eq!(log.latest("a b", 9).await, [1, 2, 3]);
        assert_eq!(log.ends(">"), [4, 5]);
        assert_eq!(log.log.ends(&patterns("a"), 0, 9), std::slice::from_ref(event));
        for (topics, after, up_to, expected) in [
            ("*", 4, 9, vec![5]),
            ("*", 0, 4, vec![4]),
            ("b c", 0, 9, vec![5]),
            ("c", 0, 9, vec![]),
        ] {
            let ends = log.log.ends(&patterns(topics), after, up_to);
            let ends: Vec<_> = ends.iter().map(|end| end.id.sequence).collect();
            assert_eq!(ends, expected, "{topics} {after} {up_to}");
        }
    }
}

#[tokio::test]
async fn ending_again_in_the_same_way_is_a_duplicate() {
    for log in TestLog::all(keeping(10)) {
        let drafts = [ending("a"), ending("a"), failing("a", ""), failing("b", "x")];
        let appended = log.append_drafts(drafts.into()).await;
        let outcomes: Vec<_> = appended.iter().map(outcome).collect();
        assert_eq!(outcomes, [Ok(1), Ok(-1), Err(Rejected::Ended), Ok(2)]);
        let drafts = vec![ending("a"), failing("b", "y"), failing("b", "x"), ending("b")];
        let appended = log.append_drafts(drafts).await;
        let outcomes: Vec<_> = appended.iter().map(outcome).collect();
        assert_eq!(outcomes, [Ok(-1), Err(Rejected::Ended), Ok(-2), Err(Rejected::Ended)]);
    }
}

#[tokio::test]
async fn a_key_of_an_end_is_kept_until_the_next_end() {
    let reused = Err(Rejected::KeyReused);
    for log in TestLog::all(keeping(10)) {
        let event = || with_key(draft("a", "x"), "event");
        let end = || with_key(ending("a"), "end");
        let all = [
            event(),
            with_key(ending("a"), "event"),
            end(),
            // A retry of an event from before the end finds that event.
            event(),
            with_key(draft("a", "x"), "end"),
            with_key(failing("a", "x"), "end"),
            draft("a", "y").reopening(),
            // A late retry must not end the topic again.
            end(),
            draft("a", "z"),
            with_key(ending("a"), "other"),
            with_key(draft("a", "x").reopening(), "end"),
            ending("a"),
            // Requests for the end that it has already keep their keys, too.
            with_key(ending("a"), "second"),
            with_key(ending("a"), "third"),
            draft("a", "y").reopening(),
            with_key(ending("a"), "second"),
            with_key(ending("a"), "third"),
            with_key(failing("a", "x"), "third"),
        ];
        for (draft, expected) in all.into_iter().zip([
            Ok(1),
            reused,
            Ok(2),
            Ok(-1),
            reused,
            reused,
            Ok(3),
            Ok(-2),
            Ok(4),
            Ok(5),
            Ok(6),
            Ok(7),
            Ok(-7),
            Ok(-7),
            Ok(8),
            Ok(-7),
            Ok(-7),
            reused,
        ]) {
            let appended = log.append_drafts(vec![draft.clone()]).await;
            assert_eq!(outcome(&appended[0]), expected, "{draft:?}");
        }
    }
}

#[tokio::test]
async fn the_first_keys_of_an_end_are_kept() {
    for log in TestLog::all(keeping(10)) {
        let end = |number: usize| with_key(ending("a"), &number.to_string());
        for number in 0..=MAX_END_KEYS {
            log.append_drafts(vec![end(number)]).await;
        }
        log.append_drafts(vec![draft("a", "x").reopening()]).await;
        for number in 0..MAX_END_KEYS {
            assert_eq!(outcome(&log.append_drafts(vec![end(number)]).await[0]), Ok(-1), "{number}");
        }
        assert_eq!(outcome(&log.append_drafts(vec![end(MAX_END_KEYS)]).await[0]), Ok(3));
    }
}

#[tokio::test]
async fn an_end_outlives_its_events_and_goes_with_its_topic() {
    for log in TestLog::all(Retention { topics: 2, ..keeping(0) }) {
        log.append("a").await;
        assert_eq!(outcome(&log.append_drafts(vec![ending("a")]).await[0]), Ok(2));
        log.append("b").await;
        assert_eq!((log.ends(">"), log.dropped("a")), (vec![2], 1));
        let listed = log.log.topics(&patterns("a"), None, 9);
        assert_eq!(listed, ["a".parse().unwrap()], "it has ended");
        // The other topic's event was dropped later than this one has ended.
        log.append("c").await;
        assert_eq!((log.ends(">"), log.dropped("a"), log.bounds()), (vec![], 2, (4, 4)));
        // It is a new topic now.
        log.append("a").await;
    }
    // An end alone makes a topic, which makes room for another one.
    for log in TestLog::all(Retention { topics: 2, ..keeping(1) }) {
        log.append("b").await;
        assert_eq!(outcome(&log.append_drafts(vec![ending("a")]).await[0]), Ok(2));
        assert_eq!(log.ends(">"), [2]);
        log.append("d").await;
        assert!(log.ends(">").is_empty());
        let full = log.append_drafts(vec![ending("c")]).await;
        assert_eq!(outcome(&full[0]), Err(Rejected::TooManyTopics));
    }
}

#[tokio::test]
async fn the_bounds_of_a_log_with_ends_only_hold_no_event() {
    for log in TestLog::all(keeping(1)) {
        log.append_drafts(vec![ending("a"), ending("b")]).await;
        assert_eq!(log.bounds(), (2, 2), "no event yet");
        log.append("cc").await;
        assert_eq!(log.log.delete(&"c".parse().unwrap()).await.unwrap(), 1);
        assert_eq!(log.bounds(), (4, 4), "none any more");
        log.append_drafts(vec![ending("c")]).await;
        assert_eq!(log.bounds(), (5, 5));
        log.append_drafts(vec![ending("d"), draft("e", "x"), draft("f", "x")]).await;
        assert_eq!(log.bounds(), (6, 8));
        log.append("f").await;
        assert_eq!((log.bounds(), log.read(">", 0, 9).await), ((6, 9), vec![7, 9]));
    }
}

#[tokio::test]
async fn an_empty_append_changes_nothing() {
    for log in TestLog::all(keeping(2)) {
        assert!(log.append_drafts(Vec::new()).await.is_empty());
        assert_eq!(log.bounds(), (0, 0));
    }
}

#[tokio::test]
async fn deleted_events_of_a_topic_are_gone_and_count_as_dropped() {
    for log in TestLog::all(Retention { topics: 2, ..keeping(2000) }) {
        log.append_drafts(vec![draft("a", "x"); 1200]).await;
        log.append_drafts(vec![draft("b", "x"), keyed("a", "x", "me", "k")]).await;
        let a = "a".parse().unwrap();
        let deleting = log.log.delete(&a);
        // From the call on, no read finds any of them.
        assert_eq!(log.read(">", 0, 9).await, [1201]);
        assert_eq!((log.read("a", 0, 9).await, log.latest(">", 9).await), (vec![], vec![1201]));
        let limit = ReadLimit { count: 9, bytes: usize::MAX };
        let newest = log.log.newest_of_each(&patterns(">"), 0, limit).await.unwrap();
        assert_eq!(newest.len(), 1);
        assert_eq!((log.dropped("a"), log.dropped("b")), (1202, 0));
        // A later event stays, and so does the key of a topic only as long as its event.
        let later = log.append_drafts(vec![draft("a", "later")]);
        let (deleted, later) = tokio::join!(deleting, later);
        assert_eq!((deleted.unwrap(), outcome(&later[0])), (1201, Ok(1203)));
        assert_eq!(log.read(">", 0, 9).await, [1201, 1203]);
        assert_eq!(log.bounds(), (1200, 1203));
        let again = log.append_drafts(vec![keyed("a", "y", "me", "k")]).await;
        assert_eq!(outcome(&again[0]), Ok(1204));

        assert_eq!(log.log.delete(&"a".parse().unwrap()).await.unwrap(), 2);
        for topic in ["a", "never"] {
            assert_eq!(log.log.delete(&topic.parse().unwrap()).await.unwrap(), 0, "again");
        }
        assert_eq!((log.bounds(), log.dropped("a")), ((1200, 1204), 1204));
        // The topic without events makes room for another one.
        let c = log.append_drafts(vec![draft("c", "x")]).await;
        assert_eq!(outcome(&c[0]), Ok(1205));
        assert_eq!(log.log.delete(&"b".parse().unwrap()).await.unwrap(), 1);
        assert_eq!(log.bounds(), (1204, 1205));
    }
}

#[tokio::test]
async fn retention_counts_right_after_a_deletion() {
    for log in TestLog::all(keeping(3)) {
        log.append("aaab").await;
        assert_eq!(log.log.delete(&"a".parse().unwrap()).await.unwrap(), 3);
        log.append("aaaa").await;
        assert_eq!(log.read(">", 0, 9).await, [4, 6, 7, 8]);
        assert_eq!(log.dropped("a"), 5);
    }
}

#[tokio::test]
async fn drops_are_found_by_the_order_in_which_they_happened() {
    for log in TestLog::all(keeping(3)) {
        let after = |topics, drops| log.log.dropped_after(&patterns(topics), 0, drops);
        let delete = async |topic: &str| log.log.delete(&topic.parse().unwrap()).await.unwrap();
        log.append("abab").await;
        let before = after(">", 0).drops;
        assert_eq!(delete("b").await, 2);
        let Dropped { newest, drops: b } = after(">", before);
        assert_eq!((newest, after(">", b)), (4, Dropped { newest: 0, drops: b }));
        assert_eq!(delete("a").await, 2);
        // The events of the later deletion are older.
        let newest_after_b = [">", "a b", "a", "b"].map(|topics| after(topics, b).newest);
        assert_eq!((newest_after_b, log.dropped(">")), ([3, 3, 3, 0], 4));
        assert_eq!(delete("a").await, 0);
        let drops = after(">", b).drops;
        assert_eq!((drops, after(">", drops).newest), (b + 1, 0), "a deletion is one drop");

        // So are those that retention drops later.
        log.append("cccaaaa").await;
        let a = after("a", drops);
        assert_eq!((a.newest, after("c", drops).newest), (8, 0));
        log.append("c").await;
        assert_eq!([">", "c", "a"].map(|topics| after(topics, a.drops).newest), [5, 5, 0]);

        // Those up to a place are left out.
        for topics in [">", "a", "b", "c"] {
            for (drops, place) in
                (0..=a.drops + 1).flat_map(|drops| (0..9).map(move |n| (drops, n)))
            {
                let newest = log.log.dropped_after(&patterns(topics), place, drops).newest;
                let of_all = after(topics, drops).newest;
                assert_eq!(newest, if of_all > place { of_all } else { 0 }, "{topics} {place}");
            }
        }
    }
    // That a topic is forgotten drops none of its events, but its end.
    for log in TestLog::all(Retention { topics: 2, ..keeping(0) }) {
        let after = |topics, drops| log.log.dropped_after(&patterns(topics), 0, drops);
        log.append("ab").await;
        log.append_drafts(vec![ending("b")]).await;
        let Dropped { drops, .. } = after(">", 0);
        log.append("c").await;
        assert_eq!(["a", ">"].map(|topics| after(topics, drops).newest), [0, 4]);
        let Dropped { drops, .. } = after(">", 0);
        log.append("d").await;
        assert_eq!(["b", "d"].map(|topics| after(topics, drops).newest), [3, 5]);
        assert_eq!(after("e", drops).newest, 0, "it has had no events");
    }
}

#[tokio::test]
async fn topics_with_events_are_listed_in_pages() {
    for log in TestLog::all(keeping(0)) {
        log.append("ab").await;
        assert_eq!(log.log.topics(&patterns(">"), None, 9), []);
    }
    for log in TestLog::all(keeping(9)) {
        let topics = ["b", "a-b", "a", "a.b", "a.a", "clock"];
        log.append_drafts(topics.map(|topic| draft(topic, "x")).into()).await;
        let list = |texts: &str, after: Option<&str>, limit| {
            let after = after.map(|after| after.parse().unwrap());
            let listed = log.log.topics(&patterns(texts), after.as_ref(), limit);
            listed.iter().map(|topic| topic.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(list(">", None, 9), ["a", "a.a", "a.b", "a-b", "b", "clock"]);
        assert_eq!(list(">", None, 2), ["a", "a.a"]);
        assert_eq!(list(">", Some("a.a"), 2), ["a.b", "a-b"]);
        assert_eq!(list("*", Some("a.z"), 9), ["a-b", "b", "clock"]);
        assert_eq!(list("a.* b", Some("never"), 9), [""; 0]);
        log.log.delete(&"b".parse().unwrap()).await.unwrap();
        assert_eq!(list("*", None, 9), ["a", "a-b", "clock"]);
        log.append_drafts(vec![ending("e")]).await;
        assert_eq!(list("*", None, 9), ["a", "a-b", "clock", "e"]);
    }
}

#[tokio::test]
async fn the_figures_of_a_topic_follow_its_events() {
    for log in TestLog::all(keeping(2)) {
        let figures = async || {
            let topics = ["a", "b", "never"].map(|topic| topic.parse().unwrap());
            let figures = log.log.figures(&topics).await.unwrap();
            let stamp = |stamp: EventStamp| (stamp.id.sequence, stamp.time.as_millis());
            let figures = figures
                .into_iter()
                .map(|of| (of.events, of.bytes, of.oldest.map(stamp), of.newest.map(stamp)));
            figures.collect::<Vec<_>>()
        };
        let published = async || {
            let topics = ["a", "b", "never"].map(|topic| topic.parse().unwrap());
            let figures = log.log.figures(&topics).await.unwrap();
            figures.iter().map(|of| of.published).collect::<Vec<_>>()
        };
        let none = (0, 0, None, None);
        assert_eq!(figures().await, [none, none, none]);
        let at = |seconds| Timestamp::from_millis(NOW.as_millis() + seconds);
        log.append_at(vec![draft("a", "ü"), draft("b", "")], at(0)).await;
        let (first, b) = (Some((1, at(0).as_millis())), Some((2, at(0).as_millis())));
        assert_eq!(figures().await, [(1, 2, first, first), (1, 0, b, b), none]);
        for seconds in 1..=2 {
            log.append_at(vec![draft("a", "xxx")], at(seconds)).await;
        }
        // The first event exceeds the retention.
        let [oldest, newest] = [(3, at(1).as_millis()), (4, at(2).as_millis())].map(Some);
        assert_eq!(figures().await, [(2, 6, oldest, newest), (1, 0, b, b), none]);
        log.log.delete(&"b".parse().unwrap()).await.unwrap();
        assert_eq!(figures().await, [(2, 6, oldest, newest), none, none]);
        assert_eq!(published().await, [3, 1, 0], "also of events that are no longer kept");
        #[cfg(feature = "sqlite")]
        if let Some((sqlite, folder)) = log.sqlite {
            drop((log.log, sqlite));
            let log = SqliteLog::open(folder.path(), keeping(2), || NOW).unwrap();
            let of = log.figures(&["a".parse().unwrap()]).await.unwrap().remove(0);
            assert_eq!((of.events, of.bytes, of.published), (2, 6, 0), "after a restart");
            let times = [of.oldest, of.newest].map(|stamp| stamp.map(|stamp| stamp.time));
            assert_eq!(times, [Some(at(1)), Some(at(2))]);
        }
    }
}

#[tokio::test]
async fn topics_that_lose_events_are_noted() {
    for log in TestLog::all(Retention { bytes: 100_000, ..keeping(2) }) {
        let topic = |text: &str| std::sync::Arc::new(text.parse().unwrap());
        let changed = std::sync::Arc::default();
        log.log.note_changes(&changed);
        let mut watch = changed.watch();
        let mut look = || {
            let topics = std::iter::from_fn(|| watch.take(9).filter(|topics| !topics.is_empty()));
            topics.flatten().collect::<Vec<_>>()
        };
        log.append("aabb").await;
        assert!(look().is_empty());
        log.append("a").await;
        assert_eq!(look(), [topic("a")]);
        log.log.delete(&"b".parse().unwrap()).await.unwrap();
        assert_eq!(look(), [topic("b")]);
        // Events of one topic push out those of another.
        for _ in 0..4 {
            log.append_drafts(vec![draft("c", &"x".repeat(60_000))]).await;
        }
        assert!(look().contains(&topic("a")));
    }
}

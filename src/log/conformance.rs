//! What every log does, wherever it keeps its events.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::pattern::Pattern;

/// Later than what is published in these tests.
const NOW: Timestamp = Timestamp::from_millis(10_000_000);

/// A log, and what it takes to see that its retention is kept.
struct Home {
    log: Box<dyn Log>,
    file: Option<(Arc<FileLog>, TempDir)>,
}

impl Home {
    fn memory(retention: Retention) -> Self {
        Self { log: Box::new(MemoryLog::new(Epoch::new(1), retention)), file: None }
    }

    fn file(retention: Retention) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(FileLog::open(folder.path(), retention, || NOW).unwrap());
        Self { log: Box::new(Arc::clone(&file)), file: Some((file, folder)) }
    }

    /// Both homes.
    fn all(retention: Retention) -> [Self; 2] {
        [Self::memory(retention), Self::file(retention)]
    }

    async fn append_drafts(&self, drafts: Vec<Draft>) -> Vec<Result<Appended, Refused>> {
        let appended = self.log.append(drafts).await.unwrap();
        if let Some((file, _)) = &self.file {
            file.tidy().await;
        }
        appended
    }

    /// Appends events of one letter each to the topics of those names, in as many commits.
    async fn append(&self, topics: &str) {
        for topic in topics.chars() {
            let appended = self.append_drafts(vec![draft(&topic.to_string(), "x")]).await;
            assert!(matches!(appended[..], [Ok(Appended::New(_))]));
        }
    }

    async fn read(&self, topics: &str, after: u64, count: usize) -> Vec<u64> {
        // What a reader does not see at once, it sees as it reads on.
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

    async fn latest(&self, topics: &str, limit: usize) -> Vec<u64> {
        let events = self.log.latest(&patterns(topics), limit).await.unwrap();
        events.iter().map(|event| event.id.sequence).collect()
    }

    fn dropped(&self, topics: &str) -> u64 {
        self.log.dropped(&patterns(topics))
    }

    /// Sequence numbers before the oldest and of the newest event.
    fn bounds(&self) -> (u64, u64) {
        let Bounds { start, newest, .. } = self.log.bounds();
        (start, newest)
    }
}

impl<L: Log> Log for Arc<L> {
    fn bounds(&self) -> Bounds {
        L::bounds(self)
    }

    fn dropped(&self, topics: &Patterns) -> u64 {
        L::dropped(self, topics)
    }

    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Result<Appended, Refused>>> {
        L::append(self, drafts)
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> LogFuture<'a, Vec<Event>> {
        L::read(self, topics, after, limit)
    }

    fn latest<'a>(&'a self, topics: &'a Patterns, limit: usize) -> LogFuture<'a, Vec<Event>> {
        L::latest(self, topics, limit)
    }
}

fn keeping(count: usize) -> Retention {
    Retention { count, ..Retention::default() }
}

fn draft(topic: &str, data: &str) -> Draft {
    at(topic, data, NOW.as_millis() / 1000)
}

fn at(topic: &str, data: &str, seconds: u64) -> Draft {
    Draft {
        topic: topic.parse().unwrap(),
        name: Name::default(),
        data: data.to_owned(),
        time: Timestamp::from_millis(seconds * 1000),
        key: None,
    }
}

fn keyed(topic: &str, data: &str, publisher: &str, key: &str) -> Draft {
    let key = IdempotencyKey { publisher: publisher.to_owned(), key: key.to_owned() };
    Draft { key: Some(key), ..draft(topic, data) }
}

fn patterns(text: &str) -> Patterns {
    Patterns::new(text.split(' ').map(|text| text.parse::<Pattern>().unwrap())).unwrap()
}

/// The sequence number of what is new, negative of what was known.
fn outcome(appended: &Result<Appended, Refused>) -> Result<i64, Refused> {
    appended.as_ref().map_err(|refused| *refused).map(|appended| match appended {
        Appended::New(event) => event.id.sequence.cast_signed(),
        Appended::Known(event) => -event.id.sequence.cast_signed(),
    })
}

#[tokio::test]
async fn events_are_numbered_from_one_and_read_after_a_sequence_number() {
    for home in Home::all(keeping(10)) {
        assert_eq!(home.bounds(), (0, 0));
        let drafts = vec![draft("a", "first"), draft("a", "second")];
        let appended = home.append_drafts(drafts).await;
        assert_eq!(appended.iter().map(outcome).collect::<Vec<_>>(), [Ok(1), Ok(2)]);
        home.append("a").await;
        assert_eq!(home.bounds(), (0, 3));
        assert_eq!(home.read("a", 0, 2).await, [1, 2]);
        assert_eq!(home.read("a", 2, 9).await, [3]);
        assert!(home.read("a", 3, 9).await.is_empty());
        assert!(home.read("a", i64::MAX as u64, 9).await.is_empty());
        assert!(home.read("a", u64::MAX, 9).await.is_empty());
    }
}

#[tokio::test]
async fn an_event_is_read_as_it_was_appended() {
    for home in Home::all(keeping(10)) {
        let long = "ü".repeat(32 * 1024);
        for data in ["", "a\0b", "a\r\nb\nc\rd", "\u{feff}x", &long] {
            let name: Name = "näme".parse().unwrap();
            let sent = Draft { name, ..at("orders.eu", data, 9_999_999) };
            let appended = home.append_drafts(vec![sent]).await;
            let [Ok(Appended::New(event))] = &appended[..] else { panic!("{appended:?}") };
            assert_eq!(event.data, data);
            let topics = patterns("orders.*");
            let after = event.id.sequence - 1;
            let limit = ReadLimit { count: 9, bytes: 0 };
            let read = home.log.read(&topics, after, limit).await.unwrap();
            assert_eq!(read, std::slice::from_ref(event));
            assert_eq!(home.log.latest(&topics, 1).await.unwrap(), std::slice::from_ref(event));
        }
    }
}

#[tokio::test]
async fn topics_are_read_together_in_the_order_of_the_log() {
    for home in Home::all(keeping(10)) {
        home.append("abcabcba").await;
        assert_eq!(home.read("a", 0, 9).await, [1, 4, 8]);
        assert_eq!(home.read("a b", 1, 9).await, [2, 4, 5, 7, 8]);
        assert_eq!(home.read("a b", 1, 3).await, [2, 4, 5]);
        assert_eq!(home.read("b c", 0, 9).await, [2, 3, 5, 6, 7]);
        assert_eq!(home.read(">", 3, 2).await, [4, 5]);
        assert!(home.read("d", 0, 9).await.is_empty());
        assert_eq!(home.latest("a b", 3).await, [5, 7, 8]);
        assert_eq!(home.latest("c", 9).await, [3, 6]);
        assert!(home.latest("d", 9).await.is_empty());
    }
}

#[tokio::test]
async fn of_many_topics_none_is_left_out() {
    for home in Home::all(keeping(1000)) {
        let busy = vec![draft("z.busy", "x"); 400];
        let mut expected = Vec::new();
        for round in 0..4_u64 {
            home.append_drafts(busy.clone()).await;
            let others = (0..40).map(|n| draft(&format!("a.{n}"), "x")).collect();
            home.append_drafts(others).await;
            expected.extend((1..=40).map(|n| round * 440 + 400 + n));
        }
        for count in [1, 7, 39, 41, 1000] {
            let limit = ReadLimit { count, bytes: usize::MAX };
            let (mut found, mut after): (Vec<u64>, _) = (Vec::new(), 0);
            loop {
                let read = home.log.read(&patterns("a.*"), after, limit).await.unwrap();
                assert!(read.len() <= count);
                let Some(last) = read.last() else { break };
                after = last.id.sequence;
                found.extend(read.iter().map(|event| event.id.sequence));
            }
            assert_eq!(found, expected, "{count} at a time");
        }
        assert_eq!(home.latest("a.*", 50).await, expected[110..]);
    }
}

#[tokio::test]
async fn a_topic_that_was_busy_and_is_quiet_is_read_on() {
    for home in Home::all(keeping(1000)) {
        for (topic, count) in [("a", 300), ("b", 100), ("a", 1)] {
            home.append_drafts(vec![draft(topic, "x"); count]).await;
        }
        let limit = ReadLimit { count: 5, bytes: usize::MAX };
        for (after, expected) in [(298, vec![299, 300]), (310, vec![401]), (401, vec![])] {
            let read = home.log.read(&patterns("a"), after, limit).await.unwrap();
            let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
            assert!(!read.is_empty() || expected.is_empty(), "after {after}");
            assert_eq!(read[..read.len().min(2)], expected, "after {after}");
        }
    }
}

#[tokio::test]
async fn what_is_over_the_retention_is_dropped_and_its_numbers_are_never_used_again() {
    for home in Home::all(keeping(2)) {
        home.append("aaab").await;
        assert_eq!(home.bounds(), (1, 4));
        assert_eq!(home.read(">", 0, 9).await, [2, 3, 4]);
        let dropped = ["a", "b", "c", ">"].map(|topics| home.dropped(topics));
        assert_eq!(dropped, [1, 0, 0, 1]);
        home.append("aaaa").await;
        assert_eq!(home.bounds(), (3, 8));
        assert_eq!(home.read(">", 0, 9).await, [4, 7, 8], "each topic keeps its own");
        assert_eq!(home.dropped("a b"), 6);
    }
}

#[tokio::test]
async fn a_log_that_keeps_nothing_counts_on() {
    for home in Home::all(keeping(0)) {
        home.append("ab").await;
        assert_eq!(home.bounds(), (2, 2));
        assert!(home.read(">", 0, 9).await.is_empty());
        assert_eq!((home.dropped("a"), home.dropped(">")), (1, 2));
    }
}

#[tokio::test]
async fn as_many_are_read_as_fit_and_at_least_one() {
    for home in Home::all(keeping(10)) {
        home.append("aaaaabbbbbb").await;
        for (bytes, expected) in [(0, vec![2]), (1, vec![2]), (3, vec![2, 3, 4])] {
            // Of most of what there is, and of a small part of it.
            for topics in ["a b", "a"] {
                let limit = ReadLimit { count: 9, bytes };
                let read = home.log.read(&patterns(topics), 1, limit).await.unwrap();
                let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
                assert_eq!(read, expected, "{topics} {bytes}");
            }
        }
    }
}

#[tokio::test]
async fn the_clock_keeps_its_own_count() {
    for home in Home::all(Retention { clock_count: 1, ..Retention::default() }) {
        for topic in ["clock", "other", "clock", "other"] {
            home.append_drafts(vec![draft(topic, "x")]).await;
        }
        assert_eq!(home.read(">", 0, 9).await, [2, 3, 4]);
    }
}

#[tokio::test]
async fn what_is_too_old_is_dropped() {
    let hour = Duration::from_hours(1);
    for home in Home::all(Retention { age: hour, ..Retention::default() }) {
        let now = NOW.as_millis() / 1000;
        let drafts = [("a", now - 3601), ("b", now - 1800), ("c", now)];
        let drafts = drafts.map(|(topic, time)| at(topic, "x", time)).into();
        home.append_drafts(drafts).await;
        assert_eq!(home.read(">", 0, 9).await, [2, 3]);
        assert_eq!((home.dropped("a"), home.dropped("b c")), (1, 0));
    }
}

#[tokio::test]
async fn bytes_bound_the_whole() {
    let bytes = 1 << 20;
    for home in Home::all(Retention { bytes, ..Retention::default() }) {
        let data = "x".repeat(1000);
        for _ in 0..40 {
            let drafts = (0..100).map(|n| draft(if n % 2 == 0 { "a" } else { "b" }, &data));
            home.append_drafts(drafts.collect()).await;
        }
        let (start, newest) = home.bounds();
        assert_eq!(newest, 4000);
        let kept = newest - start;
        assert!((700..=1000).contains(&kept), "{kept}");
        assert_eq!(home.read(">", 0, 9999).await, (start + 1..=4000).collect::<Vec<_>>());
        assert_eq!(home.dropped("a").max(home.dropped("b")), start);
        if let Some((_, folder)) = &home.file {
            let size = |name| folder.path().join(name).metadata().map_or(0, |file| file.len());
            let size = size("log.db") + size("log.db-wal");
            assert!(size < 8 << 20, "{size} bytes");
        }
    }
}

#[tokio::test]
async fn what_is_sent_again_with_its_key_is_not_appended_again() {
    for home in Home::all(keeping(3)) {
        let first = home.append_drafts(vec![
            keyed("a", "x", "me", "k"),
            // At once, too.
            keyed("a", "x", "me", "k"),
            keyed("a", "x", "you", "k"),
            keyed("b", "x", "me", "k"),
            keyed("a", "y", "me", "k"),
            draft("a", "x"),
        ]);
        let first = first.await;
        let taken = Err(Refused::KeyTaken);
        assert_eq!(
            first.iter().map(outcome).collect::<Vec<_>>(),
            [Ok(1), Ok(-1), Ok(2), Ok(3), taken, Ok(4)]
        );
        let (Ok(Appended::New(new)), Ok(Appended::Known(known))) = (&first[0], &first[1]) else {
            panic!("{first:?}")
        };
        assert_eq!(new, known);
        let other = "other".parse().unwrap();
        let renamed = Draft { name: other, ..keyed("a", "x", "me", "k") };
        let again = home.append_drafts(vec![keyed("a", "x", "me", "k"), renamed]).await;
        assert_eq!(again.iter().map(outcome).collect::<Vec<_>>(), [Ok(-1), taken]);
        assert_eq!(home.bounds(), (0, 4));
        // When the event is dropped, so is its key.
        home.append("a").await;
        let late = home.append_drafts(vec![keyed("a", "y", "me", "k")]).await;
        assert_eq!(outcome(&late[0]), Ok(6));
    }
}

#[tokio::test]
async fn there_are_only_so_many_topics_and_empty_ones_make_room() {
    for home in Home::all(Retention { topics: 2, count: 2, age: Duration::MAX, ..keeping(2) }) {
        let drafts = ["a", "b", "c", "a"].map(|topic| draft(topic, "x"));
        let appended = home.append_drafts(drafts.into()).await;
        let outcomes: Vec<_> = appended.iter().map(outcome).collect();
        assert_eq!(outcomes, [Ok(1), Ok(2), Err(Refused::TooManyTopics), Ok(3)]);
        assert_eq!(home.read(">", 0, 9).await, [1, 2, 3]);
    }
    for home in Home::all(Retention { topics: 2, ..keeping(0) }) {
        home.append("abc").await;
        // `a` had to go. So what was dropped of it is known no more precisely than this.
        assert_eq!(["a", "b", "c", "d", ">"].map(|topics| home.dropped(topics)), [1, 2, 3, 1, 3]);
        // One that is used again is not the one to go for another.
        for (topics, expected) in [(["b", "e"], [Ok(4), Ok(5)]), (["d", "a"], [Ok(6), Ok(7)])] {
            let both = topics.map(|topic| draft(topic, "x"));
            let appended = home.append_drafts(both.into()).await;
            assert_eq!(appended.iter().map(outcome).collect::<Vec<_>>(), expected);
        }
        assert_eq!(home.bounds(), (7, 7));
        assert_eq!(["a", "b", "c", "d"].map(|topics| home.dropped(topics)), [7, 5, 5, 6]);
    }
    // The clock always has its place.
    for home in Home::all(Retention { topics: 1, ..keeping(2) }) {
        let drafts = ["a", "clock", "b"].map(|topic| draft(topic, "x"));
        let appended = home.append_drafts(drafts.into()).await;
        let outcomes: Vec<_> = appended.iter().map(outcome).collect();
        assert_eq!(outcomes, [Ok(1), Ok(2), Err(Refused::TooManyTopics)]);
    }
}

#[tokio::test]
async fn an_empty_append_is_none() {
    for home in Home::all(keeping(2)) {
        assert!(home.append_drafts(Vec::new()).await.is_empty());
        assert_eq!(home.bounds(), (0, 0));
    }
}

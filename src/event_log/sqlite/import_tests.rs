//! Tests of logs of a single process that become the beginning of an order.

use std::{path::Path, time::Duration};

use tempfile::TempDir;

use super::{
    mirror_tests::{dump, dump_content},
    tests::damage,
    *,
};
use crate::{
    event::Name,
    event_log::entry::{Entry, OrderPlace, Proposal, Tag},
    id::Epoch,
    notice::TopicEnd,
    pattern::Pattern,
};

const TOPICS: [&str; 5] = ["a", "a.b", "b", "c", "clock"];
/// The time of the last event of a log of a single process.
const NOW: u64 = 1_000_000;
/// The retention of the cluster.
const RETENTION: Retention = Retention {
    count: 1000,
    clock_count: 1000,
    age: Duration::from_secs(1000),
    bytes: 1 << 20,
    topics: 10,
    rules: Vec::new(),
};

/// Creates a folder in memory, if the system has such a place.
pub(crate) fn folder() -> TempDir {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() {
        TempDir::new_in(shared_memory).unwrap()
    } else {
        TempDir::new().unwrap()
    }
}

fn all() -> Patterns {
    ">".parse::<Pattern>().unwrap().into()
}

fn random_draft(random: &mut fastrand::Rng) -> Draft {
    let topic: Topic = TOPICS[random.usize(..TOPICS.len())].parse().unwrap();
    let draft = Draft::new(topic, "\"x\u{1}".repeat(random.usize(..20)));
    let key = random.u64(..200).to_string();
    match random.usize(..20) {
        0 => TopicEnd::failed(draft.topic, draft.data).draft(),
        1 => draft.reopening(),
        2..8 => draft.with_key(IdempotencyKey { publisher: "p".to_owned(), key }),
        8..10 => draft.named("created".parse::<Name>().unwrap()),
        _ => draft,
    }
}

/// Fills the log of a single process: with keys, ends, deletions, drops, forgotten topics, and a
/// clock that is set back.
pub async fn random_log(folder: &Path, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let retention = Retention {
        count: random.usize(1..40),
        topics: random.usize(3..6),
        ..Retention::default()
    };
    let log = SqliteLog::open(folder, retention, || Timestamp::from_millis(NOW)).unwrap();
    let mut time = NOW - 200_000;
    for _ in 0..random.usize(1..60) {
        let drafts = (0..random.usize(1..8)).map(|_| random_draft(&mut random)).collect();
        time = time.saturating_add_signed(random.i64(-500..3000));
        log.append(drafts, Timestamp::from_millis(time)).await.unwrap();
        if random.usize(..10) == 0 {
            let topic = TOPICS[random.usize(..TOPICS.len())].parse().unwrap();
            log.delete(&topic).await.unwrap();
        }
        log.tidy().await;
    }
    // The one event that every log has.
    let draft = Draft::new("last".parse().unwrap(), "");
    log.append(vec![draft], Timestamp::from_millis(NOW)).await.unwrap();
}

/// The order of a cluster.
#[derive(Default)]
struct Order {
    entries: Vec<Arc<Sequenced>>,
    place: OrderPlace,
    number: u64,
    time: u64,
}

impl Order {
    fn propose(&mut self, entry: Entry) -> Arc<Sequenced> {
        self.number += 1;
        let tag = Tag { sender: "n".to_owned(), number: self.number };
        let bytes = Proposal { tag, seen: self.place, entry }.encode();
        self.time = self.time.max(NOW) + 10;
        let time = Timestamp::from_millis(self.time);
        let entry = Sequenced::decode(self.place.position + 1, time, &bytes).unwrap();
        self.place = self.place.after(&entry);
        let entry = Arc::new(entry);
        self.entries.push(Arc::clone(&entry));
        entry
    }

    /// Proposes an entry, and applies it to a mirror.
    async fn apply(&mut self, mirror: &SqliteLog, entry: Entry) -> EntryOutcome {
        let entry = self.propose(entry);
        mirror.apply(entry).await.unwrap()
    }

    /// Imports a log into a mirror, in parts of about `size` bytes.
    async fn import(&mut self, mirror: &SqliteLog, source: &ImportSource, size: usize) {
        while let Some(after) = next(mirror) {
            let part = source.part(after, size).await.unwrap();
            assert_eq!(self.apply(mirror, Entry::Import(part)).await, EntryOutcome::Imported);
        }
    }
}

/// Returns the place up to which a mirror has the log; `None` if it has all of it.
fn next(mirror: &SqliteLog) -> Option<u64> {
    match mirror.mirrored().unwrap().import {
        None => Some(0),
        Some(import) => (!import.is_complete).then_some(import.up_to),
    }
}

async fn source(folder: &TempDir) -> ImportSource {
    ImportSource::open(folder.path()).await.unwrap().unwrap()
}

fn begin(source: &ImportSource) -> Entry {
    Entry::Begin { epoch: source.epoch(), retention: RETENTION }
}

/// Returns what a log shows to readers.
async fn shown(log: &SqliteLog) -> impl PartialEq + std::fmt::Debug + use<> {
    let newest = log.bounds().newest;
    let mut topics: Vec<Topic> = TOPICS.iter().map(|topic| topic.parse().unwrap()).collect();
    topics.push("last".parse().unwrap());
    let limit = ReadLimit { count: usize::MAX, bytes: usize::MAX };
    let dropped: Vec<_> = topics
        .iter()
        .map(|topic| log.dropped_after(&topic.clone().into(), 0, 0).newest)
        .chain([log.dropped_after(&all(), 0, 0).newest])
        .collect();
    let figures = log.figures(&topics).await.unwrap().into_iter();
    let figures: Vec<_> = figures.map(|figures| TopicFigures { published: 0, ..figures }).collect();
    let key = |key: u64| IdempotencyKey { publisher: "p".to_owned(), key: key.to_string() };
    let mut found = Vec::new();
    for topic in &topics {
        for number in 0..200 {
            found.extend(log.find(topic, &key(number)).await.unwrap());
        }
    }
    (
        log.bounds(),
        log.read(&all(), 0, limit).await.unwrap(),
        log.newest_of_each(&all(), 0, limit).await.unwrap(),
        log.ends(&all(), 0, newest),
        log.topics(&all(), None, 100),
        (dropped, figures, found),
        log.before(Timestamp::from_millis(NOW - 50_000)).await.unwrap(),
    )
}

#[tokio::test]
async fn an_imported_log_is_the_same() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folders = [(); 3].map(|()| folder());
        let [old, steady, restarted] = &folders;
        random_log(old.path(), seed).await;
        let source = source(old).await;
        let mut mirror = SqliteLog::open_mirror(restarted.path()).unwrap();
        let mut order = Order::default();
        while let Some(after) = next(&mirror) {
            let size = random.usize(1..2000);
            let part = source.part(after, size).await.unwrap();
            let outcome = order.apply(&mirror, Entry::Import(part.clone())).await;
            assert_eq!(outcome, EntryOutcome::Imported);
            // A repeated part and entries of others change nothing, nor does the time.
            order.time += random.u64(..20_000_000);
            for other in [
                Entry::Import(part),
                Entry::Append(vec![random_draft(&mut random)]),
                Entry::Begin { epoch: Epoch::new(7), retention: RETENTION },
                Entry::Delete("a".parse().unwrap()),
            ] {
                assert_eq!(order.apply(&mirror, other).await, EntryOutcome::Unchanged);
            }
            if random.bool() {
                drop(mirror);
                mirror = SqliteLog::open_mirror(restarted.path()).unwrap();
            }
        }
        order.time = NOW;
        assert_eq!(order.apply(&mirror, begin(&source)).await, EntryOutcome::Begun);
        let expected = shown(&source.log).await;
        let found = shown(&mirror).await;
        assert!(found == expected, "seed {seed}: {found:#?} is not {expected:#?}");
        // Nothing but a node's own life is lost by a restart.
        drop(mirror);
        let mirror = SqliteLog::open_mirror(restarted.path()).unwrap();
        assert!(shown(&mirror).await == expected, "seed {seed}");

        let at_once = SqliteLog::open_mirror(steady.path()).unwrap();
        for entry in &order.entries {
            at_once.apply(Arc::clone(entry)).await.unwrap();
        }
        assert!(shown(&at_once).await == expected, "seed {seed}");
        // The next event has the next number, and a topic that was forgotten has its drops.
        let newest = mirror.bounds().newest;
        let draft = || Draft::new("a.new".parse().unwrap(), "");
        let appended = order.apply(&mirror, Entry::Append(vec![draft()])).await;
        let EntryOutcome::Appended(appended) = appended else { panic!("{appended:?}") };
        assert_eq!(appended[0].as_ref().unwrap().event.id.sequence, newest + 1);
        drop((mirror, at_once));
        let in_old = dump_content(old.path());
        assert_eq!(dump_content(steady.path()), in_old, "seed {seed}");
    }
}

#[tokio::test]
async fn only_one_log_is_imported_and_only_once() {
    let folders = [(); 3].map(|()| folder());
    random_log(folders[0].path(), 1).await;
    random_log(folders[1].path(), 2).await;
    let (first, second) = (source(&folders[0]).await, source(&folders[1]).await);
    let mirror = SqliteLog::open_mirror(folders[2].path()).unwrap();
    let mut order = Order::default();
    let part = first.part(0, 100).await.unwrap();
    assert_eq!(order.apply(&mirror, Entry::Import(part)).await, EntryOutcome::Imported);
    let imported = mirror.mirrored().unwrap().import;
    for after in [0, imported.as_ref().unwrap().up_to] {
        let part = second.part(after, 100).await.unwrap();
        assert_eq!(order.apply(&mirror, Entry::Import(part)).await, EntryOutcome::Unchanged);
    }
    // Neither log begins before the first one is complete.
    for source in [&first, &second] {
        assert_eq!(order.apply(&mirror, begin(source)).await, EntryOutcome::Unchanged);
    }
    assert_eq!(mirror.mirrored().unwrap().import, imported);
    order.import(&mirror, &first, 100).await;
    assert_eq!(order.apply(&mirror, begin(&second)).await, EntryOutcome::Unchanged);
    assert_eq!(order.apply(&mirror, begin(&first)).await, EntryOutcome::Begun);
    for after in [0, first.end()] {
        let part = first.part(after, 100).await.unwrap();
        assert_eq!(order.apply(&mirror, Entry::Import(part)).await, EntryOutcome::Unchanged);
    }
    assert_eq!(order.apply(&mirror, begin(&first)).await, EntryOutcome::Unchanged);
    assert_eq!(mirror.bounds(), first.log.bounds());
}

#[tokio::test]
async fn a_log_that_has_changed_is_another_one() {
    let folder = folder();
    random_log(folder.path(), 3).await;
    let id = source(&folder).await.id().clone();
    assert_eq!(*source(&folder).await.id(), id);
    let log = SqliteLog::open(folder.path(), RETENTION, || Timestamp::from_millis(NOW)).unwrap();
    let limit = ReadLimit { count: 1, bytes: 1 };
    let events = log.read(&all(), 0, limit).await.unwrap();
    assert!(log.delete(&events[0].topic).await.unwrap() > 0);
    drop(log);
    assert_ne!(*source(&folder).await.id(), id);
}

#[tokio::test]
async fn a_node_begins_with_a_snapshot_whose_base_is_within_the_import() {
    let mut checked = 0;
    for seed in 0..10 {
        let folders = [(); 3].map(|()| folder());
        let [old, first, joined] = &folders;
        random_log(old.path(), seed).await;
        let source = source(old).await;
        let mirror = SqliteLog::open_mirror(first.path()).unwrap();
        mirror.join("s".to_owned()).await.unwrap();
        let mut order = Order::default();
        // Entries of others are between the parts.
        while let Some(after) = next(&mirror) {
            let part = source.part(after, 1).await.unwrap();
            order.apply(&mirror, Entry::Import(part)).await;
            order.apply(&mirror, Entry::Append(vec![Draft::new("a".parse().unwrap(), "")])).await;
        }
        let imported = order.place.position;
        assert!(mirror.snapshot(1).await.unwrap().is_none(), "the order has not begun");
        let kept = source.log.shared.index.lock().count;
        let retention = Retention { bytes: kept / 2 * 64, ..RETENTION };
        order.apply(&mirror, Entry::Begin { epoch: source.epoch(), retention }).await;
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            order.apply(&mirror, Entry::Append(vec![random_draft(&mut random)])).await;
        }
        let Some(snapshot) = mirror.snapshot(1).await.unwrap() else { continue };
        let snapshot = Arc::new(snapshot);
        let base = snapshot.base.place.position;
        if base >= imported {
            continue;
        }
        let node = SqliteLog::open_mirror(joined.path()).unwrap();
        node.load(Arc::clone(&snapshot), "s".to_owned()).await.unwrap();
        for entry in order.entries.iter().filter(|entry| entry.position > base) {
            node.apply(Arc::clone(entry)).await.unwrap();
        }
        let node = node.settle(snapshot).await.unwrap();
        assert!(shown(&node).await == shown(&mirror).await, "seed {seed}");
        for _ in 0..30 {
            let entry = order.propose(Entry::Append(vec![random_draft(&mut random)]));
            let outcome = node.apply(Arc::clone(&entry)).await.unwrap();
            assert_eq!(outcome, mirror.apply(entry).await.unwrap(), "seed {seed}");
        }
        drop((node, mirror));
        let dumps = [first, joined].map(|folder| dump(folder.path()));
        assert_eq!(dumps[0], dumps[1], "seed {seed}");
        checked += 1;
    }
    assert!(checked > 2, "{checked}");
}

#[tokio::test]
async fn a_damaged_event_is_a_gap_in_the_cluster() {
    let folders = [(); 2].map(|()| folder());
    let [old, new] = &folders;
    let log = SqliteLog::open(old.path(), RETENTION, || Timestamp::from_millis(NOW)).unwrap();
    for topic in ["a", "b", "c", "a", "b", "c"] {
        let draft = Draft::new(topic.parse().unwrap(), "x");
        log.append(vec![draft], Timestamp::from_millis(NOW)).await.unwrap();
    }
    drop(log);
    damage(old, "UPDATE events SET data = x'61' WHERE sequence IN (2, 6)");
    damage(old, "UPDATE events SET topic = 77 WHERE sequence = 1");
    let source = source(old).await;
    let mirror = SqliteLog::open_mirror(new.path()).unwrap();
    let mut order = Order::default();
    order.import(&mirror, &source, 1).await;
    assert_eq!(order.apply(&mirror, begin(&source)).await, EntryOutcome::Begun);
    let limit = ReadLimit { count: usize::MAX, bytes: usize::MAX };
    let events = mirror.read(&all(), 0, limit).await.unwrap();
    let kept: Vec<_> = events.iter().map(|event| event.id.sequence).collect();
    assert_eq!(kept, [3, 4, 5]);
    let dropped = |topic: &str| {
        let topic: Topic = topic.parse().unwrap();
        mirror.dropped_after(&topic.into(), 0, 0).newest
    };
    assert_eq!(["a", "b", "c", "d"].map(dropped), [0, 2, 6, 1]);
    assert_eq!(mirror.bounds().newest, 6, "the number of a damaged event is not used again");
}

#[tokio::test]
async fn events_of_a_clock_that_was_ahead_are_dropped_when_they_are_old() {
    let folders = [(); 2].map(|()| folder());
    let [old, new] = &folders;
    let log = SqliteLog::open(old.path(), RETENTION, || Timestamp::from_millis(NOW)).unwrap();
    for ahead in [4000, 5000] {
        let draft = Draft::new("a".parse().unwrap(), "x");
        log.append(vec![draft], Timestamp::from_millis(NOW + ahead)).await.unwrap();
    }
    drop(log);
    let source = source(old).await;
    let mirror = SqliteLog::open_mirror(new.path()).unwrap();
    let mut order = Order::default();
    order.import(&mirror, &source, 1 << 20).await;
    assert_eq!(order.apply(&mirror, begin(&source)).await, EntryOutcome::Begun);
    let mut count_at = async |time: u64| {
        order.time = time;
        for _ in 0..32 {
            order.apply(&mirror, Entry::Append(Vec::new())).await;
        }
        mirror.shared.index.lock().count
    };
    assert_eq!(count_at(NOW).await, 2);
    let age = u64::try_from(RETENTION.age.as_millis()).unwrap();
    assert_eq!(count_at(NOW + 3000 + age).await, 2);
    assert_eq!(count_at(NOW + 4100 + age).await, 1);
    assert_eq!(count_at(NOW + 5100 + age).await, 0);
}

#[tokio::test]
async fn an_import_that_was_cut_short_between_its_last_steps_is_completed() {
    let old = folder();
    random_log(old.path(), 4).await;
    let source = source(&old).await;
    let mirror = source.open_mirror().unwrap();
    let mut order = Order::default();
    order.import(&mirror, &source, 1000).await;
    order.apply(&mirror, begin(&source)).await;
    let expected = shown(&source.log).await;
    drop((mirror, source));
    let beside = old.path().join("log.db-import");
    assert!(beside.is_dir());
    files::set_aside(&files::database_in(old.path())).unwrap();

    assert!(ImportSource::open(old.path()).await.unwrap().is_none());
    assert!(!beside.exists());
    assert!(shown(&SqliteLog::open_mirror(old.path()).unwrap()).await == expected);
    // Later, the option does nothing.
    assert!(ImportSource::open(old.path()).await.unwrap().is_none());
    assert!(shown(&SqliteLog::open_mirror(old.path()).unwrap()).await == expected);
}

#[tokio::test]
async fn a_folder_without_events_has_no_log_to_import() {
    let folder = folder();
    assert!(ImportSource::open(folder.path()).await.unwrap().is_none());
    drop(SqliteLog::open(folder.path(), RETENTION, || Timestamp::from_millis(NOW)).unwrap());
    assert!(ImportSource::open(folder.path()).await.unwrap().is_none());
    // Nothing hinders an empty node.
    SqliteLog::open_mirror(folder.path()).unwrap();
}

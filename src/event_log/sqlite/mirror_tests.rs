//! Tests of logs that follow the order of a cluster.

use std::{fs, path::Path, time::Duration};

use rusqlite::types::Value;
use tempfile::TempDir;

use super::*;
use crate::{
    event_log::{
        entry::{Entry, OrderPlace, Proposal, Tag},
        random_rules,
    },
    id::Epoch,
    notice::TopicEnd,
};

const TOPICS: [&str; 5] = ["a", "a.b", "b", "c", "clock"];

fn open(folder: &TempDir) -> SqliteLog {
    SqliteLog::open_mirror(folder.path()).unwrap()
}

fn some_retention(random: &mut fastrand::Rng) -> Retention {
    Retention {
        count: random.usize(1..20),
        clock_count: 3,
        age: Duration::from_millis(random.u64(1000..60_000)),
        bytes: random.usize(1000..20_000),
        topics: random.usize(2..6),
        rules: random_rules(random),
    }
}

/// The order of a cluster.
struct Order {
    random: fastrand::Rng,
    entries: Vec<Arc<Sequenced>>,
    place: OrderPlace,
    time: u64,
    numbers: [u64; 3],
}

impl Order {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let retention = some_retention(&mut random);
        let (entries, place, numbers) = Default::default();
        let mut order = Self { random, entries, place, time: 1_000_000, numbers };
        order.propose(Entry::Begin { epoch: Epoch::new(1), retention });
        order
    }

    fn propose(&mut self, entry: Entry) {
        let sender = self.random.usize(..3);
        // Some come twice, some too late.
        let is_late = self.random.usize(..20) == 0;
        self.numbers[sender] += u64::from(!is_late);
        let tag = Tag { sender: sender.to_string(), number: self.numbers[sender] };
        let bytes = Proposal { tag, seen: self.place, entry }.encode();
        // The sequencer's clock may be set back.
        self.time = self.time.saturating_add_signed(self.random.i64(-500..3000));
        let position = self.place.position + self.random.u64(1..3);
        let time = Timestamp::from_millis(self.time);
        let entry = Sequenced::decode(position, time, &bytes).unwrap();
        self.place = self.place.after(&entry);
        self.entries.push(Arc::new(entry));
    }

    fn propose_some(&mut self) {
        let topic = |random: &mut fastrand::Rng| -> Topic {
            TOPICS[random.usize(..TOPICS.len())].parse().unwrap()
        };
        let entry = match self.random.usize(..20) {
            0 => Entry::Delete(topic(&mut self.random)),
            1 => {
                let newest = self.random.u64(..100);
                Entry::Epoch { epoch: Epoch::new(newest), newest }
            }
            2 => Entry::Retain(some_retention(&mut self.random)),
            _ => {
                let drafts = (0..self.random.usize(1..8)).map(|_| {
                    let data = "x".repeat(self.random.usize(..40));
                    let draft = Draft::new(topic(&mut self.random), data);
                    let key = self.random.u64(..200).to_string();
                    match self.random.usize(..10) {
                        0 => draft.reopening(),
                        1 => TopicEnd::failed(draft.topic, draft.data).draft(),
                        2..6 => draft.with_key(IdempotencyKey { publisher: "p".to_owned(), key }),
                        _ => draft,
                    }
                });
                Entry::Append(drafts.collect())
            }
        };
        self.propose(entry);
    }
}

/// Returns the rows of the tables, without the numbers of topics.
pub fn dump(folder: &Path) -> Vec<Vec<Value>> {
    let place = [
        "SELECT stream, position, digest, last, time, retention FROM mirror",
        "SELECT sender, number, position FROM senders ORDER BY sender",
    ];
    [dump_content(folder), dump_tables(folder, &place)].concat()
}

/// Returns the rows that do not depend on the place of a mirror.
pub fn dump_content(folder: &Path) -> Vec<Vec<Value>> {
    let tables = [
        "SELECT epoch, forgotten FROM log",
        "SELECT topic, dropped FROM topics ORDER BY topic",
        "SELECT sequence, topics.topic, name, time, data, publisher, key
         FROM events JOIN topics ON topics.id = events.topic ORDER BY sequence",
        "SELECT topics.topic, sequence, time, data, is_reopened
         FROM ends JOIN topics ON topics.id = ends.topic ORDER BY topics.topic",
        "SELECT topics.topic, publisher, key
         FROM end_keys JOIN topics ON topics.id = end_keys.topic ORDER BY 1, 2, 3",
    ];
    dump_tables(folder, &tables)
}

fn dump_tables(folder: &Path, tables: &[&str]) -> Vec<Vec<Value>> {
    let connection = Connection::open(folder.join("log.db")).unwrap();
    let rows = tables.iter().flat_map(|table| {
        let mut select = connection.prepare(table).unwrap();
        let columns = select.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        select.query_map([], row).unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap()
    });
    rows.collect()
}

/// Applies entries in as many lives as they have epochs.
async fn apply_all(folder: &TempDir, entries: &[Arc<Sequenced>]) -> Vec<EntryOutcome> {
    let (mut log, mut outcomes) = (open(folder), Vec::new());
    for entry in entries {
        let outcome = log.apply(Arc::clone(entry)).await.unwrap();
        if matches!(outcome, EntryOutcome::NewEpoch(_)) {
            drop(log);
            log = open(folder);
        }
        outcomes.push(outcome);
    }
    outcomes
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test]
async fn mirrors_are_equal_wherever_they_were_stopped() {
    for seed in 0..12 {
        let mut order = Order::new(seed);
        (0..150).for_each(|_| order.propose_some());
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [steady, restarted, restored] = &folders;
        let expected = apply_all(steady, &order.entries).await;

        let (mut next, mut saved) = (0, tempfile::tempdir().unwrap());
        while next < order.entries.len() {
            let last = (next + order.random.usize(1..40)).min(order.entries.len());
            // Some were applied before.
            let repeated = next.saturating_sub(3);
            let outcomes = apply_all(restarted, &order.entries[repeated..last]).await;
            assert!(
                outcomes[..next - repeated]
                    .iter()
                    .all(|outcome| *outcome == EntryOutcome::Repeated)
            );
            assert!(outcomes[next - repeated..] == expected[next..last], "seed {seed}");
            if order.random.bool() {
                saved = tempfile::tempdir().unwrap();
                copy(restarted.path(), saved.path());
            }
            next = last;
        }
        // A copy of another node's file, from an earlier time.
        copy(saved.path(), restored.path());
        apply_all(restored, &order.entries).await;

        let expected = dump(steady.path());
        assert_eq!(dump(restarted.path()), expected, "seed {seed}");
        assert_eq!(dump(restored.path()), expected, "seed {seed}");
    }
}

#[tokio::test]
async fn an_entry_of_a_node_that_has_seen_others_raises_a_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut order, log) = (Order::new(1), open(&folder));
    for has_seen_others in [false, false, true, false] {
        order.place.digest += u64::from(has_seen_others);
        let seen = order.place;
        order.propose_some();
        log.apply(Arc::clone(order.entries.last().unwrap())).await.unwrap();
        order.place = log.mirrored().unwrap().place;
        assert_eq!(log.mirrored().unwrap().doubt, has_seen_others.then_some(seen));
    }
}

#[tokio::test]
async fn ids_stay_as_they_are_until_the_log_is_opened_in_its_new_epoch() {
    let (folder, mut order) = (tempfile::tempdir().unwrap(), Order::new(1));
    let draft = |text: &str| Draft::new("a".parse().unwrap(), text);
    order.propose(Entry::Append(vec![draft("1")]));
    order.propose(Entry::Epoch { epoch: Epoch::new(2), newest: 9 });
    order.propose(Entry::Append(vec![draft("2")]));
    let log = open(&folder);
    for entry in &order.entries[..3] {
        log.apply(Arc::clone(entry)).await.unwrap();
    }
    let epoch = |sequence| Bounds { epoch: Epoch::new(1), start: 0, newest: sequence };
    assert_eq!(log.bounds(), epoch(1));
    log.apply(Arc::clone(&order.entries[3])).await.unwrap_err();
    drop(log);
    let log = open(&folder);
    log.apply(Arc::clone(&order.entries[3])).await.unwrap();
    let Bounds { epoch, newest, .. } = log.bounds();
    assert_eq!((epoch, newest), (Epoch::new(2), 10));
}

#[tokio::test]
async fn a_damaged_mirror_joins_again() {
    let (folder, mut order) = (tempfile::tempdir().unwrap(), Order::new(1));
    order.propose(Entry::Append(vec![Draft::new("a".parse().unwrap(), "1")]));
    apply_all(&folder, &order.entries).await;
    assert!(!open(&folder).mirrored().unwrap().is_joining);
    let connection = Connection::open(folder.path().join("log.db")).unwrap();
    connection.execute("UPDATE topics SET topic = 'no topic'", []).unwrap();
    drop(connection);
    assert!(open(&folder).mirrored().unwrap().is_joining);
}

#[tokio::test]
async fn a_log_of_one_process_is_no_mirror_and_the_reverse() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder));
    let one = || SqliteLog::open(folder.path(), Retention::default(), || Timestamp::from_millis(1));
    assert!(matches!(one().err(), Some(OpenError::Mirror(_))));
    let folder = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(folder.path(), Retention::default(), || Timestamp::from_millis(1));
    let draft = Draft::new("a".parse().unwrap(), "x");
    log.unwrap().append(vec![draft], Timestamp::from_millis(1)).await.unwrap();
    let mirror = SqliteLog::open_mirror(folder.path());
    assert!(matches!(mirror.err(), Some(OpenError::NoMirror(_))));
}

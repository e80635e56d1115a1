//! Tests of the SQLite log alone: restarts, restored copies, damage, and concurrent reads.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicBool, Ordering},
};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::event::{IdempotencyKey, Topic};

/// Name of the database.
const FILE: &str = "log.db";

const NOW: Timestamp = Timestamp::from_millis(1000);

fn try_open(folder: &TempDir) -> Result<SqliteLog, OpenError> {
    SqliteLog::open(folder.path(), Retention::default(), || NOW)
}

fn open(folder: &TempDir) -> SqliteLog {
    try_open(folder).unwrap()
}

/// Opens a log that must be refused and left unchanged.
fn refusal(folder: &TempDir) -> OpenError {
    let before = fs::read(folder.path().join(FILE)).unwrap();
    let Err(error) = try_open(folder) else { panic!("it was opened") };
    assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), before, "nothing is overwritten");
    assert!(!error.to_string().contains('\n'));
    error
}

fn database(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join(FILE)).unwrap()
}

fn draft(topic: &str) -> Draft {
    Draft::new(topic.parse().unwrap(), "x".repeat(100))
}

async fn append(log: &SqliteLog, topics: &str) {
    let drafts = topics.chars().map(|topic| draft(&topic.to_string())).collect();
    let appended = log.append(drafts, NOW).await.unwrap();
    assert!(
        appended
            .iter()
            .all(|appended| matches!(appended, Ok(Appended { is_duplicate: false, .. })))
    );
}

fn all() -> Patterns {
    Patterns::new([">".parse().unwrap()]).unwrap()
}

const MANY: ReadLimit = ReadLimit { count: 100_000, bytes: usize::MAX };

async fn read(log: &SqliteLog) -> Vec<u64> {
    let events = log.read(&all(), 0, MANY).await.unwrap();
    events.iter().map(|event| event.id.sequence).collect()
}

#[tokio::test]
async fn events_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { count: 2, ..Retention::default() };
    let log = SqliteLog::open(folder.path(), retention, || NOW).unwrap();
    append(&log, "aaab").await;
    let key = IdempotencyKey { publisher: "me".to_owned(), key: "k".to_owned() };
    let keyed = draft("c").with_key(key);
    log.append(vec![keyed.clone()], NOW).await.unwrap();
    log.tidy().await;
    let (bounds, events) = (log.bounds(), log.read(&all(), 0, MANY).await.unwrap());
    drop(log);

    let log = SqliteLog::open(folder.path(), retention, || NOW).unwrap();
    assert_eq!(log.bounds(), bounds);
    assert_eq!(log.read(&all(), 0, MANY).await.unwrap(), events);
    assert_eq!(log.dropped(&Topic::clock().into()), 0);
    assert_eq!(log.dropped(&all()), 1);
    let again = log.append(vec![keyed, draft("a")], NOW).await.unwrap();
    assert_eq!(again[0], Ok(Appended { event: events[3].clone(), is_duplicate: true }));
    let Ok(Appended { event, is_duplicate: false }) = &again[1] else { panic!("{again:?}") };
    assert_eq!(event.id.sequence, 6);
}

#[tokio::test]
async fn numbers_of_dropped_events_are_not_reused_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { count: 0, topics: 1, ..Retention::default() };
    for newest in [2, 4] {
        let log = SqliteLog::open(folder.path(), retention, || NOW).unwrap();
        append(&log, "a").await;
        log.tidy().await;
        append(&log, "b").await;
        log.tidy().await;
        assert_eq!((log.bounds().start, log.bounds().newest), (newest, newest));
    }
}

#[tokio::test]
async fn a_restored_copy_starts_a_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name| folder.path().join(name);
    let log = open(&folder);
    append(&log, "aaa").await;
    let first = log.bounds().epoch;
    drop(log);
    fs::copy(at(FILE), at("copy")).unwrap();
    assert_eq!(open(&folder).bounds().epoch, first, "the database is the same");

    // Another file in its place, with the same events.
    fs::rename(at("copy"), at(FILE)).unwrap();
    let log = open(&folder);
    let second = log.bounds().epoch;
    assert_ne!(second, first);
    assert_eq!(log.bounds().newest, 3, "its events are kept");
    drop(log);
    assert_eq!(open(&folder).bounds().epoch, second);

    // An older copy, written into the same file.
    let copy = fs::read(at(FILE)).unwrap();
    let log = open(&folder);
    append(&log, "a").await;
    drop(log);
    fs::write(at(FILE), copy).unwrap();
    let log = open(&folder);
    assert!(![first, second].contains(&log.bounds().epoch));
    assert_eq!(log.bounds().newest, 3);
    drop(log);

    // A database without its life file.
    let third = open(&folder).bounds().epoch;
    fs::remove_file(at("log.life")).unwrap();
    assert_ne!(open(&folder).bounds().epoch, third);
}

#[tokio::test]
async fn a_log_of_the_first_format_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let old = database(&folder);
    old.pragma_update(None, "journal_mode", "WAL").unwrap();
    old.execute_batch(schema::MIGRATIONS[0]).unwrap();
    old.execute_batch(
        "PRAGMA application_id = 0x77636c6b; PRAGMA user_version = 1;
         INSERT INTO log VALUES ('00000000c10cca11', 0);
         INSERT INTO topics VALUES (7, 'a', 3), (8, 'b', 0);
         INSERT INTO events VALUES (4, 7, 'message', 5, 'x'), (5, 8, 'other', 6, 'y');",
    )
    .unwrap();
    drop(old);
    LifeFile::open(folder.path()).unwrap().begin(5).unwrap();

    let log = open(&folder);
    let bounds = Bounds { epoch: "00000000c10cca11".parse().unwrap(), start: 3, newest: 5 };
    assert_eq!(log.bounds(), bounds);
    assert_eq!(log.dropped(&all()), 3);
    let events = log.read(&all(), 0, MANY).await.unwrap();
    assert_eq!((events[1].name.as_str(), &*events[1].data), ("other", "y"));
    append(&log, "ab").await;
    drop(log);
    assert_eq!(read(&open(&folder)).await, [4, 5, 6, 7]);
}

#[tokio::test]
async fn unusable_databases_are_refused_and_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, &"a".repeat(1000)).await;
    let used = try_open(&folder);
    assert!(matches!(used, Err(OpenError::InUse(_))));
    drop(log);
    let good = fs::read(folder.path().join(FILE)).unwrap();

    // Locked by another program.
    let other = database(&folder);
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    assert!(matches!(refusal(&folder), OpenError::Locked(_)));
    drop(other);

    // From a later version.
    let newer = database(&folder);
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(matches!(refusal(&folder), OpenError::Newer { format: 99, .. }));

    // Damaged, in the middle and at the end.
    let file = folder.path().join(FILE);
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle..][..5000].fill(7);
    fs::write(&file, damaged).unwrap();
    assert!(matches!(refusal(&folder), OpenError::Damaged { .. }));
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert!(matches!(refusal(&folder), OpenError::Damaged { .. }));

    // Other content.
    fs::write(&file, "Dear diary, ".repeat(100)).unwrap();
    assert!(matches!(refusal(&folder), OpenError::NotALog(_)));
    fs::remove_file(&file).unwrap();
    database(&folder).execute_batch("CREATE TABLE diary (day TEXT)").unwrap();
    assert!(matches!(refusal(&folder), OpenError::NotALog(_)));

    // The folder itself is still usable.
    fs::write(&file, good).unwrap();
    assert_eq!(read(&open(&folder)).await.len(), 1000);
}

/// Copies the files of a folder, as a crash would leave them.
fn crashed(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn a_first_start_that_was_cut_short_is_done_again() {
    // Earlier versions created the database in its place.
    let old = tempfile::tempdir().unwrap();
    fs::write(old.path().join(FILE), "").unwrap();
    let mut leftovers = vec![crashed(&old)];
    let connection = database(&old);
    for step in [
        "PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA journal_mode = WAL",
        "BEGIN IMMEDIATE",
        schema::MIGRATIONS[0],
        schema::MIGRATIONS[1],
        "INSERT INTO log VALUES ('00000000c10cca11', 0); PRAGMA application_id = 0x77636c6b;
         PRAGMA user_version = 2",
        "COMMIT",
    ] {
        connection.execute_batch(step).unwrap();
        leftovers.push(crashed(&old));
    }
    // The journal may be written up to any byte.
    let journal = fs::read(old.path().join("log.db-wal")).unwrap();
    for length in (0..journal.len()).step_by(5000) {
        let leftover = crashed(&old);
        fs::write(leftover.path().join("log.db-wal"), &journal[..length]).unwrap();
        leftovers.push(leftover);
    }
    // This version creates it under another name.
    let new = tempfile::tempdir().unwrap();
    drop(open(&new));
    let complete = fs::read(new.path().join(FILE)).unwrap();
    for length in (0..=complete.len()).step_by(10 * 1024) {
        let leftover = tempfile::tempdir().unwrap();
        fs::write(leftover.path().join("log.db.new"), &complete[..length]).unwrap();
        fs::write(leftover.path().join("log.db.new-wal"), &complete[..length]).unwrap();
        fs::write(leftover.path().join("log.db-wal"), &journal).unwrap();
        fs::write(leftover.path().join("log.life"), "").unwrap();
        leftovers.push(leftover);
    }
    for (n, leftover) in leftovers.iter().enumerate() {
        let log = try_open(leftover).unwrap_or_else(|error| panic!("{n}: {error}"));
        append(&log, "ab").await;
        drop(log);
        assert_eq!(read(&open(leftover)).await, [1, 2], "{n}");
        let mut names: Vec<_> =
            fs::read_dir(leftover.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log.db", "log.life", "log.reserve"], "{n}");
    }
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_user_of_the_server_may_read_its_files() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("new/data");
    let open = || SqliteLog::open(&folder, Retention::default(), || NOW).unwrap();
    let files = || fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let log = open();
    append(&log, "a").await;
    assert!(files().count() >= 4);
    assert_eq!(mode(&folder), 0o700);
    for file in files() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(log);
    // An earlier version left the files readable by all.
    for file in files().filter(|file| !file.ends_with("log.reserve")) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let log = open();
    append(&log, "a").await;
    for file in files() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&folder), 0o755, "the folder's mode is its owner's");
    drop(log);
    // The owner has let a group read it.
    fs::set_permissions(folder.join(FILE), fs::Permissions::from_mode(0o640)).unwrap();
    let log = open();
    append(&log, "a").await;
    assert_eq!(["log.db", "log.db-wal"].map(|name| mode(&folder.join(name))), [0o640; 2]);
}

#[tokio::test]
async fn a_drop_that_fails_is_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { count: 2, ..Retention::default() };
    let log = SqliteLog::open(folder.path(), retention, || NOW).unwrap();
    append(&log, "aaa").await;
    let fail = "CREATE TRIGGER fail BEFORE DELETE ON events BEGIN SELECT RAISE(FAIL, ''); END";
    database(&folder).execute_batch(fail).unwrap();
    log.tidy().await;
    assert_eq!(log.dropped(&all()), 0);
    assert_eq!(read(&log).await, [1, 2, 3]);
    database(&folder).execute_batch("DROP TRIGGER fail").unwrap();
    log.tidy().await;
    assert_eq!(log.dropped(&all()), 1);
    assert_eq!(read(&log).await, [2, 3]);
}

#[tokio::test]
async fn a_read_waits_for_the_drop_of_events_that_it_may_have_missed() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { count: 3, ..Retention::default() };
    let log = Arc::new(SqliteLog::open(folder.path(), retention, || NOW).unwrap());
    append(&log, "aaab").await;
    let topic = |name: &str| Patterns::from(name.parse::<Topic>().unwrap());
    let sequences =
        |events: Vec<Event>| -> Vec<_> { events.iter().map(|event| event.id.sequence).collect() };
    // The writer is about to drop the first event.
    Arc::make_mut(&mut log.shared.index.lock().dropping).insert("a".parse().unwrap(), 1);
    let affected = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            let events = log.read(&topic("a"), 0, MANY).await.unwrap();
            (events, log.dropped(&topic("a")))
        }
    });
    for _ in 0..20 {
        assert_eq!(sequences(log.read(&topic("a"), 1, MANY).await.unwrap()), [2, 3]);
        assert_eq!(sequences(log.read(&topic("b"), 0, MANY).await.unwrap()), [4]);
    }
    assert!(!affected.is_finished());
    append(&log, "a").await;
    log.tidy().await;
    assert_eq!(affected.await.unwrap().1, 1);
}

#[test]
fn a_folder_that_cannot_be_created_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let opened = SqliteLog::open(&file.join("below"), Retention::default(), || NOW);
    assert!(matches!(opened, Err(OpenError::Folder { .. })));
}

#[tokio::test]
async fn a_full_disk_fails_appends_but_not_reads() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, "ab").await;
    log.limit_pages(Some(1)).await;
    let drafts = || vec![draft("a"); 1000];
    assert!(log.condition().append_error.is_none());
    assert!(matches!(log.append(drafts(), NOW).await, Err(EventLogError::DiskFull)));
    assert!(matches!(log.condition().append_error, Some(EventLogError::DiskFull)));
    assert_eq!(log.bounds().newest, 2);
    assert_eq!(read(&log).await, [1, 2]);
    log.limit_pages(None).await;
    log.append(drafts(), NOW).await.unwrap();
    assert!(log.condition().append_error.is_none());
    assert_eq!(read(&log).await, (1..=1002).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_drop_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { count: 2, ..Retention::default() };
    let log = SqliteLog::open(folder.path(), retention, || NOW).unwrap();
    append(&log, "aaa").await;
    let fail = "CREATE TRIGGER fail BEFORE DELETE ON events BEGIN SELECT RAISE(FAIL, ''); END";
    database(&folder).execute_batch(fail).unwrap();
    assert_eq!(log.condition().failed_drops, 0);
    log.tidy().await;
    assert_eq!(log.condition().failed_drops, 1);
}

#[tokio::test]
async fn a_log_whose_files_were_moved_accepts_nothing_until_they_are_back() {
    let parent = tempfile::tempdir().unwrap();
    let [folder, other] = ["data", "other"].map(|name| parent.path().join(name));
    let log = SqliteLog::open(&folder, Retention::default(), || NOW).unwrap();
    append(&log, "a").await;
    let files = ["", "log.db", "log.db-wal", "log.life"].map(|name| folder.join(name));
    for (newest, file) in (1..).zip(files) {
        fs::rename(&file, &other).unwrap();
        for is_replaced in [false, true] {
            if is_replaced && file != folder {
                fs::copy(&other, &file).unwrap();
            }
            let result = log.append(vec![draft("a")], NOW).await;
            assert!(matches!(result, Err(EventLogError::Misplaced)), "{}", file.display());
            log.probe().await;
            let Condition { append_error, read_error, .. } = log.condition();
            assert!(matches!(append_error, Some(EventLogError::Misplaced)));
            assert!(read_error.is_none());
            assert_eq!(log.bounds().newest, newest);
            assert_eq!(read(&log).await, (1..=newest).collect::<Vec<_>>());
        }
        fs::rename(&other, &file).unwrap();
        log.probe().await;
        assert!(log.condition().append_error.is_none(), "{}", file.display());
        append(&log, "a").await;
    }
    assert_eq!(read(&log).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_log_whose_writer_has_panicked_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(open(&folder));
    append(&log, "a").await;
    let hub = crate::hub::Hub::new(Arc::clone(&log), || NOW);
    let mut stopped = tokio_test::task::spawn(hub.stopped());
    assert!(stopped.poll().is_pending());
    let interrupted = log.command(Command::Panic).await;
    assert!(matches!(interrupted, Err(EventLogError::Unconfirmed(_))));
    stopped.await;
    let result = log.append(vec![draft("a")], NOW).await;
    assert!(matches!(result, Err(EventLogError::Stopped)));
    let error = hub.publish(draft("a")).await.unwrap_err();
    assert_eq!(error.failure(), Some("log-stopped"));
    assert_eq!(read(&log).await, [1]);
}

#[tokio::test]
async fn a_burst_exceeds_the_size_only_a_little() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { bytes: 2 << 20, ..Retention::default() };
    let log = SqliteLog::open(folder.path(), retention, || NOW).unwrap();
    // Small events first, of which many must go for one large one.
    for _ in 0..10 {
        log.append(vec![draft("a"); 1000], NOW).await.unwrap();
    }
    let large = || Draft::new(Topic::clock(), "x".repeat(60_000));
    for _ in 0..40 {
        log.append(vec![large(); 10], NOW).await.unwrap();
        let size = folder.path().join(FILE).metadata().unwrap().len();
        assert!(size < 4 << 20, "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_readers_miss_only_events_that_count_as_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { count: 10, ..Retention::default() };
    let log = Arc::new(SqliteLog::open(folder.path(), retention, || NOW).unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = ["z.>", "z.1 z.2", ">"]
        .into_iter()
        .map(|topics| {
            let topics = Patterns::new(topics.split(' ').map(|text| text.parse().unwrap()));
            let (topics, log, is_over) = (topics.unwrap(), Arc::clone(&log), is_over.clone());
            tokio::spawn(async move {
                let (mut found, mut after, mut lost) = (BTreeSet::new(), 0, 0);
                loop {
                    let was_over = is_over.load(Ordering::SeqCst);
                    let limit = ReadLimit { count: 64, bytes: usize::MAX };
                    let read = log.read(&topics, after, limit).await.unwrap();
                    let dropped = log.dropped(&topics);
                    if dropped > after {
                        lost = dropped;
                    }
                    if read.is_empty() && was_over {
                        return (topics, found, lost);
                    }
                    if let Some(last) = read.last() {
                        after = last.id.sequence;
                    }
                    found.extend(read.into_iter().map(|event| event.id.sequence));
                }
            })
        })
        .collect();
    let mut published = Vec::new();
    for round in 0..200_u64 {
        let drafts = (0..10).map(|n| draft(&format!("z.{}", (round * 7 + n) % 50))).collect();
        if round % 3 == 0 {
            log.tidy().await;
        }
        for appended in log.append(drafts, NOW).await.unwrap() {
            let Ok(Appended { event, is_duplicate: false }) = appended else {
                panic!("{appended:?}")
            };
            published.push(event);
        }
    }
    is_over.store(true, Ordering::SeqCst);
    assert!(log.dropped(&all()) > 1000, "events were dropped during the reads");
    for reader in readers {
        let (topics, found, lost) = reader.await.unwrap();
        let expected = published.iter().filter(|event| topics.matches(&event.topic));
        let expected = expected.map(|event| event.id.sequence);
        let missed: Vec<_> = expected.filter(|n| *n > lost && !found.contains(n)).collect();
        assert!(missed.is_empty(), "{topics:?}: {missed:?}");
    }
}

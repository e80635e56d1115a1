//! Tests of the SQLite log alone: restarts, restored copies, damage, and concurrent reads.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{
    event::{IdempotencyKey, Topic},
    event_log::RetentionRule,
    id::Epoch,
    notice::TopicEnd,
};

/// Name of the database.
const FILE: &str = "log.db";

const NOW: Timestamp = Timestamp::from_millis(1000);
/// Limit of a wait that is expected to end at once.
const DEADLINE: Duration = Duration::from_secs(60);

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
async fn deleted_events_stay_deleted_and_their_numbers_are_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, "abaa").await;
    let (epoch, a) = (log.bounds().epoch, "a".parse().unwrap());
    assert_eq!(log.delete(&a).await.unwrap(), 3);
    drop(log);
    let log = open(&folder);
    assert_eq!(log.bounds(), Bounds { epoch, start: 1, newest: 4 });
    assert_eq!((read(&log).await, log.dropped(&a.clone().into())), (vec![2], 4));
    assert_eq!(log.delete(&a).await.unwrap(), 0);
    append(&log, "a").await;
    assert_eq!(read(&log).await, [2, 5]);
}

#[tokio::test]
async fn events_that_could_not_be_deleted_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, "ab").await;
    fs::rename(folder.path().join(FILE), folder.path().join("moved")).unwrap();
    let error = log.delete(&"a".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, EventLogError::Misplaced), "{error:?}");
    fs::rename(folder.path().join("moved"), folder.path().join(FILE)).unwrap();
    assert_eq!((read(&log).await, log.dropped(&all())), (vec![1, 2], 0));
    assert_eq!(log.delete(&"a".parse().unwrap()).await.unwrap(), 1);
    assert_eq!((read(&log).await, log.dropped(&all())), (vec![2], 1));
    // Of those that are deleted in slices, the first ones may be gone.
    log.append(vec![draft("a"); 600], NOW).await.unwrap();
    let fail = "CREATE TRIGGER fail BEFORE DELETE ON events WHEN old.sequence > 550
                BEGIN SELECT RAISE(FAIL, ''); END";
    database(&folder).execute_batch(fail).unwrap();
    log.delete(&"a".parse().unwrap()).await.unwrap_err();
    assert_eq!(log.dropped(&all()), 502);
    assert_eq!(log.read(&all(), 2, MANY).await.unwrap()[0].id.sequence, 503);
}

#[tokio::test]
async fn events_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { count: 2, ..Retention::default() };
    let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
    append(&log, "aaab").await;
    let key = IdempotencyKey { publisher: "me".to_owned(), key: "k".to_owned() };
    let keyed = draft("c").with_key(key);
    log.append(vec![keyed.clone()], NOW).await.unwrap();
    log.tidy().await;
    let (bounds, events) = (log.bounds(), log.read(&all(), 0, MANY).await.unwrap());
    drop(log);

    let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
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
        let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
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
async fn a_log_of_the_format_without_ends_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let old = database(&folder);
    old.pragma_update(None, "journal_mode", "WAL").unwrap();
    old.execute_batch(&schema::MIGRATIONS[..2].concat()).unwrap();
    old.execute_batch(
        "PRAGMA application_id = 0x77636c6b; PRAGMA user_version = 2;
         INSERT INTO log VALUES ('00000000c10cca11', 0);
         INSERT INTO topics VALUES (7, 'a', 3);
         INSERT INTO events VALUES (4, 7, 'message', 5, 'x', NULL, NULL);
         PRAGMA foreign_keys = OFF;
         INSERT INTO events VALUES (3, 9, 'of no topic', 5, 'x', 'me', 'k');",
    )
    .unwrap();
    drop(old);
    LifeFile::open(folder.path()).unwrap().begin(4).unwrap();
    let log = open(&folder);
    let bounds = Bounds { epoch: "00000000c10cca11".parse().unwrap(), start: 2, newest: 4 };
    assert_eq!(log.bounds(), bounds, "also with an event of no topic");
    end(&log, "a", "why").await.unwrap();
    let ends = log.ends(&all(), 0, 9);
    drop(log);
    let log = open(&folder);
    assert_eq!((log.ends(&all(), 0, 9), ends.len()), (ends, 1));
    let again = end(&log, "a", "why").await.unwrap();
    assert!(again.is_duplicate, "its key is kept");
    let format = database(&folder).pragma_query_value(None, "user_version", |row| row.get(0));
    assert_eq!((format, schema::FORMAT), (Ok(5), 5));
}

/// A search for old events passes those with a longer age of their own a part at a time, once.
#[tokio::test]
async fn many_events_with_a_longer_age_do_not_hold_up_others() {
    let folder = tempfile::tempdir().unwrap();
    let age = Duration::from_millis(100);
    let rule =
        RetentionRule { age: Some(100 * age), ..RetentionRule::new("kept".parse().unwrap()) };
    let retention = Retention { age, rules: vec![rule], ..Retention::default() };
    let open =
        |retention: &Retention| SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
    let log = open(&Retention::default());
    let old = Timestamp::from_millis(NOW.as_millis() - 500);
    let drafts = |topic: &str, count| vec![Draft::new(topic.parse().unwrap(), "x"); count];
    for _ in 0..2 {
        log.append(drafts("kept", 10_000), old).await.unwrap();
        log.append(drafts("other", 700), old).await.unwrap();
    }
    drop(log);
    let log = open(&retention);
    log.tidy().await;
    let counts = async |log: &SqliteLog| {
        let topics = ["kept", "other"].map(|topic| topic.parse().unwrap());
        let figures = log.figures(&topics).await.unwrap();
        figures.iter().map(|figures| figures.events).collect::<Vec<_>>()
    };
    assert_eq!(counts(&log).await, [20_000, 0]);
    assert_eq!(log.dropped(&all()), 21_400);
    // Later events are found as well, and so are those that were passed, without the rule.
    log.append(drafts("other", 3), old).await.unwrap();
    log.tidy().await;
    assert_eq!(counts(&log).await, [20_000, 0]);
    log.set_retention(Retention { rules: Vec::new(), ..retention }).await.unwrap();
    log.tidy().await;
    assert_eq!(counts(&log).await, [0, 0]);
}

async fn end(log: &SqliteLog, topic: &str, why: &str) -> Result<Appended, Rejected> {
    end_with_key(log, topic, why, why).await
}

async fn end_with_key(
    log: &SqliteLog,
    topic: &str,
    why: &str,
    key: &str,
) -> Result<Appended, Rejected> {
    let end = TopicEnd::failed(topic.parse().unwrap(), why.to_owned());
    let key = IdempotencyKey { publisher: "me".to_owned(), key: key.to_owned() };
    log.append(vec![end.draft().with_key(key)], NOW).await.unwrap().remove(0)
}

#[tokio::test]
async fn ends_survive_a_restart_with_their_keys_and_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let retention = || Retention { count: 0, topics: 2, ..Retention::default() };
    let reopen = || SqliteLog::open(folder.path(), retention(), || NOW).unwrap();
    let log = reopen();
    append(&log, "a").await;
    let first = end(&log, "a", "first").await.unwrap();
    log.tidy().await;
    drop(log);

    // The end is the newest number, and the topic's only trace.
    let log = reopen();
    assert_eq!((log.bounds().newest, log.ends(&all(), 0, 9)), (2, vec![first.event.clone()]));
    assert_eq!(log.bounds().epoch, first.event.id.epoch);
    assert_eq!(log.append(vec![draft("a")], NOW).await.unwrap(), [Err(Rejected::Ended)]);
    end_with_key(&log, "a", "first", "other").await.unwrap();
    log.append(vec![draft("a").reopening()], NOW).await.unwrap()[0].as_ref().unwrap();
    drop(log);

    // It was reopened, but a retry of the end does not end it again, whoever sends it.
    let log = reopen();
    assert!(log.ends(&all(), 0, 9).is_empty());
    for key in ["first", "other"] {
        let again = end_with_key(&log, "a", "first", key).await.unwrap();
        assert_eq!(again, Appended { is_duplicate: true, ..first.clone() });
    }
    let second = end(&log, "a", "second").await.unwrap();
    assert_eq!(second.event.id.sequence, 4);
    log.tidy().await;
    // The topic of the end is forgotten, and the log opens with the next number.
    append(&log, "b").await;
    log.tidy().await;
    append(&log, "c").await;
    log.tidy().await;
    drop(log);
    let log = reopen();
    assert!(log.ends(&all(), 0, 9).is_empty());
    let a = Topic::try_from("a".to_owned()).unwrap();
    assert_eq!((log.bounds().newest, log.dropped(&a.into())), (6, 4));
}

#[tokio::test]
async fn a_damaged_end_opens_its_topic_and_starts_a_new_epoch() {
    for change in [
        "UPDATE ends SET data = '{}'",
        "UPDATE ends SET data = replace(data, '\"a\"', '\"b\"')",
        "UPDATE ends SET sequence = -1",
        "UPDATE topics SET topic = '' WHERE topic = 'a'",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder);
        append(&log, "ab").await;
        end(&log, "a", "why").await.unwrap();
        let epoch = log.bounds().epoch;
        drop(log);
        database(&folder).execute_batch(change).unwrap();
        let log = open(&folder);
        assert_ne!(log.bounds().epoch, epoch, "{change}");
        assert!(log.ends(&all(), 0, 9).is_empty(), "{change}");
        append(&log, "ab").await;
    }
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
    let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
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
    let log = Arc::new(SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap());
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
async fn commits_and_the_room_on_disk_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&commits);
    let count = move |time: Duration| {
        assert!(time > Duration::ZERO);
        counted.fetch_add(1, Ordering::SeqCst);
    };
    log.commits().unwrap().set(count);
    log.commits().unwrap().set(|_| panic!("only the first observer counts"));
    append(&log, "ab").await;
    log.append(vec![draft("a"); 100], NOW).await.unwrap();
    // Each append is one commit, whatever the number of its events.
    assert_eq!(commits.load(Ordering::SeqCst), 2);
    log.probe().await;
    let disk = log.size().disk.unwrap();
    assert!(disk.files > fs::metadata(folder.path().join(FILE)).unwrap().len());
    assert!(disk.free > 0 && disk.free < disk.volume, "{disk:?}");
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
    let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
    // The next one by itself is long after the test.
    log.tidy().await;
    append(&log, "aaa").await;
    let fail = "CREATE TRIGGER fail BEFORE DELETE ON events BEGIN SELECT RAISE(FAIL, ''); END";
    database(&folder).execute_batch(fail).unwrap();
    assert_eq!(log.condition().failed_drops, 0);
    log.tidy().await;
    assert_eq!(log.condition().failed_drops, 1);
}

#[tokio::test]
async fn a_log_that_stores_no_event_is_not_reported_as_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, "a").await;
    // An empty commit still succeeds.
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, ''); END";
    database(&folder).execute_batch(fail).unwrap();
    let result = log.append(vec![draft("a")], NOW).await;
    assert!(matches!(result, Err(EventLogError::Failed(_))));
    log.probe().await;
    assert!(matches!(log.condition().append_error, Some(EventLogError::Failed(_))));
    database(&folder).execute_batch("DROP TRIGGER fail").unwrap();
    log.probe().await;
    assert!(log.condition().append_error.is_none());
    append(&log, "a").await;
    assert_eq!(read(&log).await, [1, 2], "the check leaves no event");
}

#[tokio::test]
async fn a_log_whose_files_were_moved_accepts_nothing_until_they_are_back() {
    let parent = tempfile::tempdir().unwrap();
    let [folder, other] = ["data", "other"].map(|name| parent.path().join(name));
    let log = SqliteLog::open(&folder, Retention::default(), || NOW).unwrap();
    append(&log, "a").await;
    let files =
        ["", "log.db", "log.db-wal", "log.db-shm", "log.life"].map(|name| folder.join(name));
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
    assert_eq!(read(&log).await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn tidying_up_ends_while_the_files_are_elsewhere() {
    let parent = tempfile::tempdir().unwrap();
    let [folder, other] = ["data", "other"].map(|name| parent.path().join(name));
    let retention = Retention { count: 1, ..Retention::default() };
    let log = SqliteLog::open(&folder, retention, || NOW).unwrap();
    append(&log, "aa").await;
    fs::rename(&folder, &other).unwrap();
    if timeout(DEADLINE, log.tidy()).await.is_err() {
        // To drop it would wait for the writer.
        std::mem::forget(log);
        panic!("the writer does not come to an end");
    }
    fs::rename(&other, &folder).unwrap();
    log.tidy().await;
    assert_eq!(log.dropped(&all()), 1);
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
async fn a_log_whose_disk_hangs_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    let later = || log.condition_at(Instant::now() + Duration::from_secs(31));
    let (release, until) = std::sync::mpsc::channel();
    log.command(|reply| Command::Work { until, reply }).await.unwrap();
    assert!(log.condition().append_error.is_none());
    assert!(matches!(later().append_error, Some(EventLogError::Failed(_))));
    drop::<std::sync::mpsc::Sender<()>>(release);
    append(&log, "a").await;
    // The writer waits again after this command, and not before its reply.
    let waits = async {
        while later().append_error.is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, waits).await.unwrap();
}

#[tokio::test]
async fn a_burst_exceeds_the_size_only_a_little() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { bytes: 2 << 20, ..Retention::default() };
    let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
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
    let log = Arc::new(SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap());
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

/// Reads all events of the topics. Returns their sequence numbers, and those of damaged ones as
/// negative numbers.
async fn replay(log: &SqliteLog, topics: &str) -> Vec<i64> {
    let topics = Patterns::new([topics.parse().unwrap()]).unwrap();
    let (mut found, mut after) = (Vec::new(), 0);
    let signed = |sequence: u64| i64::try_from(sequence).unwrap();
    loop {
        let limit = ReadLimit { count: 7, bytes: usize::MAX };
        match log.read(&topics, after, limit).await {
            Ok(events) if events.is_empty() => return found,
            Ok(events) => {
                found.extend(events.iter().map(|event| signed(event.id.sequence)));
                after = events.last().unwrap().id.sequence;
            }
            Err(EventLogError::Damaged { last }) => {
                assert!(last > after);
                found.push(-signed(last));
                after = last;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Reads all events of the topics backwards, as [`replay`] reads them.
async fn replay_back(log: &SqliteLog, topics: &str) -> Vec<i64> {
    let topics = Patterns::new([topics.parse().unwrap()]).unwrap();
    let (mut found, mut before) = (Vec::new(), u64::MAX);
    let signed = |sequence: u64| i64::try_from(sequence).unwrap();
    loop {
        let limit = ReadLimit { count: 7, bytes: usize::MAX };
        match log.read_before(&topics, before, limit).await {
            Ok(events) if events.is_empty() => return found,
            Ok(events) => {
                found.extend(events.iter().rev().map(|event| signed(event.id.sequence)));
                before = events[0].id.sequence;
            }
            Err(EventLogError::Damaged { last }) => {
                assert!(last < before);
                found.push(-signed(last));
                before = last;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_read_of_one_topic_looks_at_no_other_events() {
    let folder = tempfile::tempdir().unwrap();
    append(&open(&folder), "abc").await;
    let database = database(&folder);
    for statement in read::statements() {
        let explained = format!("EXPLAIN QUERY PLAN {statement}");
        let mut plan = database.prepare(&explained).unwrap();
        let mut rows = plan.raw_query();
        let mut steps: Vec<String> = Vec::new();
        while let Some(step) = rows.next().unwrap() {
            steps.push(step.get("detail").unwrap());
        }
        let expected = if statement.contains("topic = ?1") {
            "SEARCH events USING COVERING INDEX events_of_topic \
             (topic=? AND sequence>? AND sequence<?)"
        } else {
            "SEARCH events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
        };
        assert_eq!(steps, [expected], "{statement}");
    }
}

/// Changes a closed database as damage would: constraints do not hold, and indexes do not follow.
pub(super) fn damage(folder: &TempDir, change: &str) {
    let schema = "PRAGMA writable_schema = ON;
        CREATE TEMP TABLE before AS SELECT rowid AS place, * FROM sqlite_schema;
        DELETE FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL;
        UPDATE sqlite_schema SET sql = replace(replace(replace(sql, 'STRICT', ''), 'NOT NULL', ''),
                'UNIQUE', '')
            WHERE type = 'table';
        DELETE FROM sqlite_schema WHERE name LIKE 'sqlite_autoindex%';
        PRAGMA writable_schema = RESET;";
    let database = database(folder);
    database.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    database.execute_batch(schema).unwrap();
    assert!(database.execute(change, []).unwrap() > 0, "{change}");
    let restore = "PRAGMA writable_schema = ON;
        DELETE FROM sqlite_schema;
        INSERT INTO sqlite_schema (rowid, type, name, tbl_name, rootpage, sql)
            SELECT place, type, name, tbl_name, rootpage, sql FROM before;
        PRAGMA writable_schema = RESET;";
    database.execute_batch(restore).unwrap();
    database.close().unwrap();
}

/// Creates a log in which the topic `a` has the events 1, 102, 203, 304 and 405, and the topic `b`
/// all others.
async fn sparse_log(folder: &TempDir) -> Epoch {
    let log = open(folder);
    append(&log, &format!("a{}", "b".repeat(100)).repeat(5)).await;
    log.bounds().epoch
}

#[tokio::test]
async fn a_damaged_event_costs_only_itself() {
    for change in [
        "data = CAST(x'61ff61' AS TEXT)",
        "data = x'61'",
        "data = NULL",
        "name = CAST(x'ff' AS TEXT)",
        "name = 'a' || char(10)",
        "name = NULL",
        "time = -1",
        "time = 1 << 62",
        "time = NULL",
        "time = 'soon'",
        "topic = 99",
        "topic = NULL",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let epoch = sparse_log(&folder).await;
        damage(&folder, &format!("UPDATE events SET {change} WHERE sequence = 203"));

        let log = try_open(&folder).unwrap_or_else(|error| panic!("{change}: {error}"));
        assert_eq!(log.bounds(), Bounds { epoch, start: 0, newest: 505 }, "{change}");
        for _ in 0..2 {
            assert_eq!(replay(&log, "a").await, [1, 102, -203, 304, 405], "{change}");
            let expected = (1..=505).map(|n| if n == 203 { -n } else { n }).collect::<Vec<_>>();
            assert_eq!(replay(&log, ">").await, expected, "{change}");
            assert_eq!(replay_back(&log, "a").await, [405, 304, -203, 102, 1], "{change}");
            let backwards = expected.into_iter().rev().collect::<Vec<_>>();
            assert_eq!(replay_back(&log, ">").await, backwards, "{change}");
            assert_eq!(log.condition().damaged_events, 1, "{change}");
        }
        append(&log, "ab").await;
        drop(log);

        // It does not keep itself, or those behind it.
        let retention = Retention { count: 0, ..Retention::default() };
        let log = SqliteLog::open(folder.path(), retention.clone(), || NOW).unwrap();
        log.tidy().await;
        log.tidy().await;
        let left = replay(&log, ">").await;
        assert!([&[] as &[_], &[-203]].contains(&&*left), "{change}: {left:?}");
        append(&log, "ab").await;
        drop(log);
        let later = || Timestamp::from_millis(1_000_000_000);
        let log = SqliteLog::open(folder.path(), Retention::default(), later).unwrap();
        log.tidy().await;
        assert_eq!((log.bounds().start, log.dropped(&all())), (509, 509), "{change}");
        append(&log, "ab").await;
    }
}

#[tokio::test]
async fn a_wrong_bit_in_one_time_drops_no_other_event() {
    let now = Timestamp::from_millis(1_000_000_000_000);
    let retention = Retention::default();
    for bit in 0..63 {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(folder.path(), retention.clone(), move || now).unwrap();
        log.append(vec![draft("a"); 9], now).await.unwrap();
        drop(log);
        // SQLite has no operator for it.
        let flip = format!("(time | (1 << {bit})) - (time & (1 << {bit}))");
        damage(&folder, &format!("UPDATE events SET time = {flip} WHERE sequence = 5"));
        let log = SqliteLog::open(folder.path(), retention.clone(), move || now).unwrap();
        log.tidy().await;
        assert_eq!((log.bounds().start, log.dropped(&all())), (0, 0), "{bit}");
        drop(log);
        // It is dropped with the others.
        let later = Timestamp::from_millis(now.as_millis() + 3 * 24 * 60 * 60 * 1000);
        let log = SqliteLog::open(folder.path(), retention.clone(), move || later).unwrap();
        log.append(vec![draft("a")], later).await.unwrap();
        log.tidy().await;
        assert_eq!(log.bounds().start, 9, "{bit}");
    }
}

#[tokio::test]
async fn several_damaged_events_are_one_gap() {
    let folder = tempfile::tempdir().unwrap();
    sparse_log(&folder).await;
    damage(&folder, "UPDATE events SET data = x'61' WHERE sequence IN (203, 204, 205, 304)");
    let log = open(&folder);
    assert_eq!(replay(&log, "a").await, [1, 102, -304, 405]);
    assert_eq!(replay_back(&log, "a").await, [405, -203, 102, 1]);
    assert_eq!(replay(&log, "b").await.iter().filter(|n| **n < 0).collect::<Vec<_>>(), [&-205]);
    assert_eq!(log.condition().damaged_events, 4);
    let newest = log.newest_of_each(&all(), 0, MANY).await.unwrap();
    assert_eq!(newest.iter().map(|event| event.id.sequence).collect::<Vec<_>>(), [405, 505]);
    drop(log);
    damage(&folder, "UPDATE events SET data = x'61' WHERE sequence = 405");
    let newest = open(&folder).newest_of_each(&all(), 0, MANY).await;
    assert!(matches!(newest, Err(EventLogError::Damaged { last: 405 })), "{newest:?}");
}

#[tokio::test]
async fn a_key_of_a_damaged_event_does_not_fail_other_publishes() {
    let folder = tempfile::tempdir().unwrap();
    let key = IdempotencyKey { publisher: "me".to_owned(), key: "k".to_owned() };
    let keyed = draft("a").with_key(key);
    open(&folder).append(vec![keyed.clone()], NOW).await.unwrap();
    for change in ["time = -1", "data = NULL"] {
        damage(&folder, &format!("UPDATE events SET {change} WHERE sequence = 1"));
        let again = open(&folder).append(vec![keyed.clone(), draft("a")], NOW).await.unwrap();
        assert_eq!(again[0], Err(Rejected::KeyReused), "{change}");
        assert!(again[1].is_ok());
    }
}

#[tokio::test]
async fn damaged_bookkeeping_starts_a_new_epoch_and_costs_no_event() {
    for change in [
        "UPDATE topics SET topic = CAST(x'ff' AS TEXT) WHERE topic = 'a'",
        "UPDATE topics SET topic = 'c' WHERE topic = 'a'",
        "UPDATE topics SET topic = NULL WHERE topic = 'a'",
        "UPDATE topics SET dropped = -1",
        "UPDATE topics SET dropped = 9223372036854775807",
        "UPDATE topics SET dropped = 'x'",
        "UPDATE log SET forgotten = -1",
        "UPDATE log SET forgotten = NULL",
        "UPDATE log SET epoch = 'x'",
        "UPDATE log SET epoch = NULL",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let before = sparse_log(&folder).await;
        damage(&folder, change);
        let log = try_open(&folder).unwrap_or_else(|error| panic!("{change}: {error}"));
        let epoch = log.bounds().epoch;
        assert_ne!(epoch, before, "{change}");
        assert_eq!(replay(&log, ">").await, (1..=505).collect::<Vec<_>>(), "{change}");
        append(&log, "ab").await;
        drop(log);
        let log = open(&folder);
        assert_eq!(log.bounds().epoch, epoch, "it is repaired: {change}");
        assert_eq!(replay(&log, ">").await.len(), 507, "{change}");
    }
}

#[tokio::test]
async fn a_wrong_bit_that_makes_two_topics_equal_costs_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, "abcab").await;
    // The names that a repair would give first.
    let taken = ["damaged.1", "damaged.2", "damaged.2.x", "damaged.3"].map(draft);
    log.append(taken.into(), NOW).await.unwrap();
    let before = log.bounds().epoch;
    drop(log);
    damage(&folder, "UPDATE topics SET topic = 'a' WHERE topic = 'b'");
    damage(&folder, "UPDATE topics SET topic = 'c' || char(10) WHERE topic = 'c'");
    let log = open(&folder);
    assert_ne!(log.bounds().epoch, before);
    for (topic, expected) in
        [("a", vec![1, 4]), ("damaged.2.x.x", vec![2, 5]), ("damaged.3.x", vec![3])]
    {
        assert_eq!(replay(&log, topic).await, expected, "{topic}");
    }
    append(&log, "abc").await;
    drop(log);
    let log = open(&folder);
    assert_eq!(replay(&log, ">").await, (1..=12).collect::<Vec<_>>());
    assert_eq!(replay(&log, "b").await, [11]);
}

#[tokio::test]
async fn a_repair_and_its_new_epoch_are_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let before = sparse_log(&folder).await;
    damage(&folder, "UPDATE topics SET dropped = -1");
    // A start that is cut short right after the repair.
    let opened = schema::open(&folder.path().join(FILE), &Retention::default());
    let (_, index, is_repaired) = opened.unwrap();
    assert!(is_repaired);
    assert_ne!(index.epoch, before);
    assert_eq!(open(&folder).bounds().epoch, index.epoch);
}

/// SQLite has no checksums, so a wrong byte in the data cannot be seen.
#[tokio::test]
async fn a_log_with_wrong_bytes_opens_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = |sequence: usize| format!("{sequence} ").repeat(10 + 300 * (sequence % 5));
    let log = open(&folder);
    for sequence in 1..=60 {
        let topic = ["a", "b.c", "b.d"][sequence % 3].parse().unwrap();
        log.append(vec![Draft::new(topic, data(sequence))], NOW).await.unwrap();
    }
    drop(log);
    let good = fs::read(folder.path().join(FILE)).unwrap();
    let all_data: Vec<_> = (1..=60).map(data).collect();
    let (mut refused, mut opened) = (0, 0);
    for seed in 0..120 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = good.clone();
        for _ in 0..rng.usize(1..4) {
            // Half of the time, where a page begins and has its structure.
            let at = rng.usize(..bytes.len());
            let at = if rng.bool() { at } else { at / 4096 * 4096 + rng.usize(..20) };
            bytes[at] ^= 1 << rng.u32(..8);
        }
        fs::write(folder.path().join(FILE), bytes).unwrap();
        let log = match try_open(&folder) {
            Ok(log) => log,
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                refused += 1;
                continue;
            }
        };
        opened += 1;
        for topics in [">", "a", "b.*"] {
            replay(&log, topics).await;
            replay_back(&log, topics).await;
        }
        for event in log.read_before(&all(), u64::MAX, MANY).await.unwrap_or_default() {
            let sequence = usize::try_from(event.id.sequence).unwrap();
            let of = all_data.iter().position(|data| *data == event.data).map(|at| at + 1);
            assert!(
                of.is_none_or(|of| of == sequence),
                "seed {seed}: {sequence} has data of {of:?}"
            );
        }
        // It may fail, but must not wait or panic.
        let _ = log.append(vec![draft("a"), draft("e")], NOW).await;
        log.tidy().await;
    }
    assert!(refused > 20 && opened > 20, "{refused} {opened}");
}

#[tokio::test]
async fn a_journal_that_has_its_size_in_advance_is_recovered_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, "abc").await;
    let length = || fs::metadata(folder.path().join("log.db-wal")).unwrap().len();
    let before = length();
    assert!(before > 1 << 20, "{before}");
    for _ in 0..20 {
        append(&log, "abc").await;
    }
    assert_eq!(length(), before);
    // The files as a crash leaves them.
    let crashed = tempfile::tempdir().unwrap();
    for name in [FILE, "log.db-wal"] {
        fs::copy(folder.path().join(name), crashed.path().join(name)).unwrap();
    }
    let count = "SELECT count(*) FROM events";
    let count: usize = database(&crashed).query_one(count, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 63);
}

#[tokio::test]
async fn each_draft_of_an_append_finds_its_topic_as_the_ones_before_it_left_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    append(&log, "ab").await;
    let end = || TopicEnd::done("a".parse().unwrap()).draft();
    let drafts = vec![draft("a"), draft("b"), draft("a"), end(), draft("a"), draft("b")];
    let appended = log.append(drafts, NOW).await.unwrap();
    let is_stored: Vec<_> = appended.iter().map(Result::is_ok).collect();
    assert_eq!(is_stored, [true, true, true, true, false, true]);
    let drafts =
        vec![draft("a").reopening(), draft("a"), end(), draft("a"), draft("c"), draft("c")];
    let appended = log.append(drafts, NOW).await.unwrap();
    let is_stored: Vec<_> = appended.iter().map(Result::is_ok).collect();
    assert_eq!(is_stored, [true, true, true, false, true, true]);
    let counts = log.figures(&["a", "b", "c"].map(|topic| topic.parse().unwrap())).await.unwrap();
    assert_eq!(counts.iter().map(|figures| figures.events).collect::<Vec<_>>(), [5, 3, 2]);
}

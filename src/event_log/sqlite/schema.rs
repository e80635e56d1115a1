//! The tables of the database, its creation, and the checks when it is opened.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, TransactionBehavior,
};

use super::{error::OpenError, files, index::Index};
use crate::{
    event::{IdempotencyKey, Topic},
    event_log::{
        ages::AgeMarks,
        drops::Dropped,
        retention::Retention,
        times::TimeRuns,
        topics::{KeptEvents, StoredEnd, TopicEntry, Topics},
    },
    id::Epoch,
    notice::TopicEnd,
    timestamp::Timestamp,
};

/// "wclk", by which this program and the tool `file` recognize the database.
const APPLICATION_ID: usize = 0x7763_6c6b;
/// Each migration brings a file of the format before it to its own. A new file has format 0. They
/// come before the repair, so none of them may depend on the content of rows.
pub(super) const MIGRATIONS: [&str; 5] = [
    "CREATE TABLE log (epoch TEXT NOT NULL, forgotten INTEGER NOT NULL) STRICT;
     CREATE TABLE topics (
         id INTEGER PRIMARY KEY,
         topic TEXT NOT NULL UNIQUE,
         dropped INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE events (
         sequence INTEGER PRIMARY KEY,
         topic INTEGER NOT NULL REFERENCES topics,
         name TEXT NOT NULL,
         time INTEGER NOT NULL,
         data TEXT NOT NULL
     ) STRICT;
     CREATE INDEX events_of_topic ON events (topic, sequence);",
    "ALTER TABLE events ADD COLUMN publisher TEXT;
     ALTER TABLE events ADD COLUMN key TEXT;
     CREATE UNIQUE INDEX events_by_key ON events (topic, publisher, key) WHERE key IS NOT NULL;",
    "CREATE TABLE ends (
         topic INTEGER PRIMARY KEY REFERENCES topics,
         sequence INTEGER NOT NULL,
         time INTEGER NOT NULL,
         data TEXT NOT NULL,
         is_reopened INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE end_keys (
         topic INTEGER NOT NULL REFERENCES topics,
         publisher TEXT NOT NULL,
         key TEXT NOT NULL,
         PRIMARY KEY (topic, publisher, key)
     ) STRICT, WITHOUT ROWID;",
    "CREATE TABLE mirror (
         stream TEXT NOT NULL,
         position INTEGER NOT NULL,
         digest INTEGER NOT NULL,
         last INTEGER NOT NULL,
         time INTEGER NOT NULL,
         retention TEXT NOT NULL,
         is_joining INTEGER NOT NULL,
         imported_epoch TEXT,
         imported_digest INTEGER,
         imported_up_to INTEGER,
         is_imported INTEGER
     ) STRICT;
     CREATE TABLE marks (
         position INTEGER PRIMARY KEY,
         digest INTEGER NOT NULL,
         last INTEGER NOT NULL,
         time INTEGER NOT NULL,
         newest INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE refused (
         position INTEGER NOT NULL,
         draft INTEGER NOT NULL,
         PRIMARY KEY (position, draft)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE senders (
         sender TEXT PRIMARY KEY,
         number INTEGER NOT NULL,
         position INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;",
    // In JSON, the position of each entry that has changed the retention of a cluster, and the
    // retention before it. A table of its own would take a page in each log.
    "ALTER TABLE mirror ADD COLUMN retentions TEXT NOT NULL DEFAULT '[]';",
];
/// The current format.
pub(super) const FORMAT: usize = MIGRATIONS.len();
/// Timeout for a lock that another program holds, such as `sqlite3`.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Size to which SQLite truncates its journal after a checkpoint.
const JOURNAL_BYTES: u64 = 16 << 20;

/// Opens the database for writing. Creates it if it is missing, and migrates it to the current
/// format. The last part of the result is `true` if the bookkeeping had to be repaired, so that the
/// log has a new epoch.
pub(super) fn open(
    file: &Path,
    retention: &Retention,
) -> Result<(Connection, Index, bool), OpenError> {
    let failed = |error: rusqlite::Error| open_error(file, error);
    if !file.exists() {
        create(file)?;
    }
    let mut connection = connect(file).map_err(failed)?;
    if is_unfinished(&connection).map_err(failed)? {
        drop(connection);
        create(file)?;
        connection = connect(file).map_err(failed)?;
    }
    let format = format(&connection, file)?;
    check(&connection, file)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES).map_err(failed)?;
    // Statements keep in memory the pages that they may have to restore. There may be no place for
    // temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(failed)?;
    migrate(&mut connection, format).map_err(failed)?;
    let is_repaired = repair(&mut connection).map_err(failed)?;
    let index = build_index(&connection, retention).map_err(failed)?;
    files::make_private(file);
    for suffix in files::COMPANIONS {
        files::make_private(&files::beside(file, suffix));
    }
    Ok((connection, index, is_repaired))
}

/// Opens the database of a log that may be in use, for reading only.
pub(super) fn open_to_read(file: &Path) -> Result<Connection, OpenError> {
    let connection = connect_with(file, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = connection.map_err(|error| open_error(file, error))?;
    format(&connection, file)?;
    Ok(connection)
}

/// Returns the format of a database, which must be one that this program knows.
fn format(connection: &Connection, file: &Path) -> Result<usize, OpenError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let failed = |error| open_error(file, error);
    let format = usize::try_from(pragma("user_version").map_err(failed)?);
    let application = usize::try_from(pragma("application_id").map_err(failed)?);
    match (application, format) {
        (Ok(APPLICATION_ID), Ok(format)) if format > FORMAT => {
            Err(OpenError::Newer { file: file.to_owned(), format, supported: FORMAT })
        }
        (Ok(APPLICATION_ID), Ok(format)) => Ok(format),
        _ => Err(OpenError::NotALog(file.to_owned())),
    }
}

pub(super) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    connect_with(file, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn connect_with(file: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Returns `true` if the database has no content, as an earlier version left it if its first start
/// was cut short.
fn is_unfinished(connection: &Connection) -> rusqlite::Result<bool> {
    for name in ["application_id", "user_version"] {
        if connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0))? != 0 {
            return Ok(false);
        }
    }
    connection.query_one("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Creates the database, completely or not at all: under another name, which it keeps until it is
/// on disk.
fn create(file: &Path) -> Result<(), OpenError> {
    let new = files::beside(file, ".new");
    let remove_new = || {
        files::remove(&new)?;
        files::remove_companions(&new)
    };
    let io_error = |error| OpenError::of_file(file, error);
    // A start that was cut short may have left some.
    remove_new().map_err(io_error)?;
    files::private().create_new(true).open(&new).map_err(io_error)?;
    let created = build(&new).map_err(|error| open_error(file, error)).and_then(|()| {
        files::remove_companions(file)
            .and_then(|()| files::put_in_place(&new, file))
            .map_err(io_error)
    });
    if created.is_err() {
        // The next start removes what this cannot.
        let _ = remove_new();
    }
    created
}

/// Creates an empty log in an empty file.
fn build(file: &Path) -> rusqlite::Result<()> {
    let mut connection = connect(file)?;
    // Nobody reads the file before it is complete and synced.
    connection.pragma_update(None, "journal_mode", "MEMORY")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    // Lets the writer return unused pages to the file system.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    migrate(&mut connection, 0)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.close().map_err(|(_, error)| error)
}

/// Checks all pages for damage, but does not compare the indexes with the tables.
///
/// A value of a wrong type is no reason to refuse the log: of an event, it costs that event, and
/// the bookkeeping can be repaired.
pub(super) fn check(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let failed = |error| open_error(file, error);
    let mut check = connection.prepare("PRAGMA quick_check(1000000)").map_err(failed)?;
    let mut rows = check.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let found: String = row.get(0).map_err(failed)?;
        if found != "ok" && !is_wrong_value(&found) {
            return Err(OpenError::Damaged { file: file.to_owned(), details: one_line(&found) });
        }
    }
    Ok(())
}

/// Returns `true` if SQLite has found a value that is missing or has a wrong type, such as
/// `non-TEXT value in events.data`.
fn is_wrong_value(found: &str) -> bool {
    let what = found.split_once(" value in ").map(|(what, _)| what);
    what.is_some_and(|what| what == "NULL" || what.starts_with("non-"))
}

/// Repairs the bookkeeping. Returns `true` if there was damage. Then the log has a new epoch, since
/// the next sequence numbers may have been used before.
///
/// A topic whose name is invalid, or is another one's, gets a name that begins with `damaged.`, so
/// that its events are kept. An end that is invalid is removed, so its topic is open. Numbers that
/// are invalid become 0.
fn repair(connection: &mut Connection) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Compares the names with their index, too.
    let found: String =
        transaction.query_row("PRAGMA integrity_check(topics)", [], |row| row.get(0))?;
    let renamed = topics_to_rename(&transaction)?;
    let mut is_damaged = found != "ok" || !renamed.is_empty();
    if is_damaged {
        // Otherwise SQLite changes no row that its index does not have.
        transaction.pragma_update(None, "writable_schema", true)?;
        for (id, name) in renamed {
            transaction.execute("UPDATE topics SET topic = ?2 WHERE id = ?1", (id, name))?;
        }
        transaction.execute_batch("REINDEX topics")?;
        transaction.pragma_update(None, "writable_schema", false)?;
    }
    is_damaged |= remove_invalid_ends(&transaction)?;
    for repair in [
        "UPDATE topics SET dropped = 0
         WHERE typeof(dropped) != 'integer' OR dropped NOT BETWEEN 0 AND 1 << 62",
        "UPDATE log SET forgotten = 0
         WHERE typeof(forgotten) != 'integer' OR forgotten NOT BETWEEN 0 AND 1 << 62",
    ] {
        is_damaged |= transaction.execute(repair, [])? > 0;
    }
    let epoch = transaction.query_one("SELECT epoch FROM log", [], |row| {
        Ok(row.get_ref(0)?.as_str().ok().and_then(|epoch| epoch.parse::<Epoch>().ok()))
    })?;
    is_damaged |= epoch.is_none();
    if is_damaged {
        // A crash must not leave a repaired log with its old epoch. A mirror is no longer equal to
        // those of other nodes, and joins its cluster anew.
        set_new_epoch(&transaction)?;
        transaction.execute("UPDATE mirror SET is_joining = 1", [])?;
    }
    transaction.commit()?;
    Ok(is_damaged)
}

/// Returns the row ids of the topics whose name is invalid or is another one's, with new names.
fn topics_to_rename(connection: &Connection) -> rusqlite::Result<Vec<(i64, String)>> {
    // The index may have other names.
    let mut select = connection.prepare("SELECT id, topic FROM topics NOT INDEXED ORDER BY id")?;
    let names = select.query_map([], |row| {
        let name = row.get_ref(1)?.as_str().ok().filter(|name| name.parse::<Topic>().is_ok());
        Ok((row.get::<_, i64>(0)?, name.map(str::to_owned)))
    })?;
    let names: Vec<_> = names.collect::<rusqlite::Result<_>>()?;
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for name in names.iter().filter_map(|(_, name)| name.as_deref()) {
        *uses.entry(name).or_default() += 1;
    }
    let mut renamed = Vec::new();
    for (id, name) in &names {
        let uses_of = name.as_deref().map_or(0, |name| uses[name]);
        if uses_of == 1 || (uses_of > 1 && has_in_index(connection, *id, name.as_deref())?) {
            continue;
        }
        // Clients may have published to the first one.
        let mut free = format!("damaged.{id}");
        while uses.contains_key(free.as_str()) {
            free.push_str(".x");
        }
        renamed.push((*id, free));
    }
    Ok(renamed)
}

/// Returns `true` if the index, which has each name once, has this name for the topic.
fn has_in_index(connection: &Connection, id: i64, name: Option<&str>) -> rusqlite::Result<bool> {
    let find = "SELECT id FROM topics WHERE topic = ?1";
    connection
        .query_row(find, [name], |row| row.get::<_, i64>(0))
        .optional()
        .map(|found| found == Some(id))
}

/// Removes the ends that no program has written. Returns `true` if there were any.
fn remove_invalid_ends(connection: &Connection) -> rusqlite::Result<bool> {
    let mut ends = connection.prepare(
        "SELECT ends.topic, topics.topic, sequence, time, data, is_reopened
         FROM ends LEFT JOIN topics ON topics.id = ends.topic",
    )?;
    let mut rows = ends.query([])?;
    let mut invalid: Vec<i64> = Vec::new();
    while let Some(row) = rows.next()? {
        let is_valid = || {
            let end = read_end(row).ok()?;
            let notice: TopicEnd = serde_json::from_str(&end.data).ok()?;
            (Some(notice.topic.as_str()) == row.get_ref(1).ok()?.as_str().ok()
                && (1..=1 << 62).contains(&end.sequence))
            .then_some(())
        };
        if is_valid().is_none() {
            invalid.push(row.get(0)?);
        }
    }
    for topic in &invalid {
        connection.execute("DELETE FROM ends WHERE topic = ?1", [topic])?;
        connection.execute("DELETE FROM end_keys WHERE topic = ?1", [topic])?;
    }
    if !invalid.is_empty() {
        tracing::error!(count = invalid.len(), "ends of topics are damaged: the topics are open");
    }
    Ok(!invalid.is_empty())
}

/// Reads the end of a row whose columns from the third on are those of the table. Its keys are in
/// a table of their own.
fn read_end(row: &Row<'_>) -> rusqlite::Result<StoredEnd> {
    Ok(StoredEnd {
        sequence: row.get(2)?,
        time: Timestamp::from_millis(row.get(3)?),
        data: row.get(4)?,
        keys: Vec::new(),
        is_reopened: row.get(5)?,
    })
}

fn migrate(connection: &mut Connection, format: usize) -> rusqlite::Result<()> {
    let missing = &MIGRATIONS[format..];
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    if format == 0 {
        let epoch = Epoch::random().to_string();
        transaction.execute("INSERT INTO log (epoch, forgotten) VALUES (?1, 0)", [epoch])?;
    }
    set_application_id(&transaction)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Marks the database as one of this program.
pub(super) fn set_application_id(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)
}

/// Gives the log a new epoch.
pub(super) fn begin_life(connection: &Connection, file: &Path) -> Result<Epoch, OpenError> {
    set_new_epoch(connection).map_err(|error| open_error(file, error))
}

fn set_new_epoch(connection: &Connection) -> rusqlite::Result<Epoch> {
    let epoch = Epoch::random();
    connection.execute("UPDATE log SET epoch = ?1", [epoch.to_string()])?;
    Ok(epoch)
}

/// Summarizes the database.
fn build_index(connection: &Connection, retention: &Retention) -> rusqlite::Result<Index> {
    let (epoch, forgotten): (String, u64) =
        connection.query_one("SELECT epoch, forgotten FROM log", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let mut by_row_id: HashMap<i64, (String, u64)> = HashMap::new();
    let mut statement = connection.prepare("SELECT id, topic, dropped FROM topics")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        by_row_id.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
    }
    let mut ends: HashMap<i64, StoredEnd> = HashMap::new();
    let mut statement =
        connection.prepare("SELECT topic, NULL, sequence, time, data, is_reopened FROM ends")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        ends.insert(row.get(0)?, read_end(row)?);
    }
    let mut statement = connection.prepare("SELECT topic, publisher, key FROM end_keys")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // A damaged key costs that key only.
        if let (Ok(topic), Ok(publisher), Ok(key)) = (row.get(0), row.get(1), row.get(2))
            && let Some(end) = ends.get_mut(&topic)
        {
            end.keys.push(IdempotencyKey { publisher, key });
        }
    }
    // The topic of a damaged event may be of another type.
    let mut kept: HashMap<Option<i64>, (usize, u64)> = HashMap::new();
    let mut statement =
        connection.prepare("SELECT topic, count(*), max(sequence) FROM events GROUP BY topic")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        kept.insert(row.get(0).ok(), (row.get(1)?, row.get(2)?));
    }
    // An index may have another opinion, but a number must not be used again.
    let (mut oldest, mut newest) = (None, forgotten);
    let (mut ages, mut times) = (AgeMarks::new(retention), TimeRuns::new());
    let mut statement = connection.prepare(
        "SELECT sequence, time, topic, octet_length(data) FROM events ORDER BY sequence",
    )?;
    let mut by_topic: HashMap<i64, KeptEvents> = HashMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let sequence: u64 = row.get(0)?;
        oldest = oldest.or(Some(sequence));
        newest = newest.max(sequence);
        let time = row.get(1).map(Timestamp::from_millis);
        if let Ok(time) = time {
            ages.add(sequence, time);
            times.add(sequence, time);
        }
        if let Ok(topic) = row.get(2) {
            let bytes: Option<usize> = row.get(3)?;
            let time = time.unwrap_or(Timestamp::from_millis(0));
            by_topic.entry(topic).or_default().add((sequence, time), bytes.unwrap_or_default());
        }
    }

    let (mut topics, mut all) = (Vec::new(), 0);
    for (row_id, (topic, dropped)) in by_row_id {
        let (count, of_topic) = kept.remove(&Some(row_id)).unwrap_or((0, 0));
        newest = newest.max(of_topic).max(dropped);
        let topic = topic.parse().map_err(|_| damaged("a topic is invalid"))?;
        let entry = TopicEntry::new(topic, row_id, Dropped::before_start(dropped));
        entry.restore(count, of_topic, by_topic.remove(&row_id).unwrap_or_default());
        if let Some(end) = ends.remove(&row_id) {
            newest = newest.max(end.sequence);
            entry.set_end(Arc::new(end));
        }
        topics.push(entry);
        all += count;
    }
    if !kept.is_empty() {
        let count: usize = kept.values().map(|(count, _)| count).sum();
        tracing::error!(count, "stored events are damaged: their topic does not exist");
    }
    Ok(Index {
        epoch: epoch.parse().map_err(|_| damaged("the epoch is invalid"))?,
        start: oldest.map_or(newest, |oldest| oldest.saturating_sub(1)),
        newest,
        count: all,
        topics: Arc::new(Topics::new(topics, forgotten)),
        ages,
        times,
        dropping: Arc::default(),
    })
}

fn damaged(details: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(details.to_owned()))
}

/// Returns SQLite's words, which may quote a statement, in one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn open_error(file: &Path, reason: rusqlite::Error) -> OpenError {
    let file = file.to_owned();
    match reason.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked(file),
        Some(ErrorCode::NotADatabase) => OpenError::NotALog(file),
        Some(ErrorCode::DiskFull) => OpenError::DiskFull(file),
        Some(ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { file, details: one_line(&reason.to_string()) }
        }
        _ => OpenError::Failed { file, reason },
    }
}

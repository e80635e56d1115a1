//! Copies of a log in one file: a backup of it, also while a server writes to it, and its
//! restoration.

use std::{
    fmt, fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode,
    backup::{Backup as PageCopy, StepResult},
};

use super::{error::OpenError, files, life_file::LifeFile, schema};

/// Pages that are copied between two calls of the progress function.
const PAGES_PER_STEP: i32 = 256;
/// Pause after a step that met a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Number of such pauses in a row, after which another program blocks the copy.
const MAX_LOCK_PAUSES: usize = 500;

/// A function that is called during a copy, with the pages copied so far and the number of all. Its
/// result can stop the copy.
pub type CopyProgress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// The content of a complete copy of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCopy {
    /// Number of events in it.
    pub events: u64,
    /// Size of its file.
    pub bytes: u64,
    /// The folder that has the files of the log before a restoration, if there was one.
    pub aside: Option<PathBuf>,
}

/// A reason for which a log is not copied. Nothing is left of the copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The folder has no log.
    #[error("there is no event log in {}: name its folder with --data-dir", .0.display())]
    NoLog(PathBuf),
    /// The backup does not exist.
    #[error("there is no backup {}", .0.display())]
    NoBackup(PathBuf),
    /// The file for the backup exists already.
    #[error("{} exists already: choose another name, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// The name for the backup is that of a folder.
    #[error("{} is a folder: name a file in it", .0.display())]
    Folder(PathBuf),
    /// The name for the backup is that of a device, or another special file.
    #[error("{} is no regular file, and is not replaced: choose another name", .0.display())]
    Special(PathBuf),
    /// The file for the backup is one of the log's own.
    #[error("{} is a name of the event log's own files: choose another one", .0.display())]
    OwnFile(PathBuf),
    /// The backup cannot be used.
    #[error("{} cannot be restored: {reason}", file.display())]
    Unusable {
        /// The backup.
        file: PathBuf,
        /// The reason.
        reason: Unusable,
    },
    /// The log cannot be opened or replaced.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// There is no room for the copy.
    #[error("the disk is full: there is no room for {}", .0.display())]
    DiskFull(PathBuf),
    /// The copy cannot be written.
    #[error("{} cannot be written: {reason}", file.display())]
    File {
        /// The copy.
        file: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The copy does not have the same events.
    #[error("the copy has {copied} events instead of {expected}: the disk may be failing")]
    Incomplete {
        /// Number of events in the copy.
        copied: u64,
        /// Number of events in the log.
        expected: u64,
    },
    /// The copy could not take the place of the log that was there.
    #[error("the log cannot be replaced: {reason}. What it had is in {}", aside.display())]
    Replace {
        /// The folder with the files of the log.
        aside: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The progress function has stopped the copy.
    #[error("stopped; nothing has changed")]
    Stopped,
}

/// A reason for which a file cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is no backup of an event log.
    NotALog,
    /// It was written by a later version.
    Newer,
    /// It is damaged or truncated.
    Damaged(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALog => f.write_str("it is not an event log of waterclock"),
            Self::Newer => f.write_str("a later version of waterclock has written it"),
            Self::Damaged(details) => write!(f, "it is damaged or truncated: {details}"),
        }
    }
}

/// Copies the log in `folder` to `file`, which only this user may read. The log may be in use: the
/// copy has the events of one moment. An existing file is replaced only if `may_replace` is set.
///
/// # Errors
///
/// If there is no log, or the copy cannot be completed and checked.
pub fn back_up(
    folder: &Path,
    file: &Path,
    may_replace: bool,
    progress: &mut CopyProgress<'_>,
) -> Result<LogCopy, CopyError> {
    let database = files::database_in(folder);
    match fs::metadata(&database) {
        Ok(metadata) if metadata.is_file() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::of_file(&database, error).into());
        }
        _ => return Err(CopyError::NoLog(folder.to_owned())),
    }
    if is_own_file(folder, file) {
        return Err(CopyError::OwnFile(file.to_owned()));
    }
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => return Err(CopyError::Folder(file.to_owned())),
        Ok(metadata) if !metadata.is_file() => return Err(CopyError::Special(file.to_owned())),
        _ => {}
    }
    if file.symlink_metadata().is_ok() && !may_replace {
        return Err(CopyError::Exists(file.to_owned()));
    }
    let partial = Partial::beside(file);
    let copied = partial.fill(&database, progress)?;
    partial.put_in_place(may_replace)?;
    Ok(copied)
}

/// Makes a backup the log in `folder`. The files of the log that was there are moved into a folder
/// beside it. The next server that opens the log gives it a new epoch.
///
/// # Errors
///
/// If a server uses the folder, or the backup cannot be used. Then the log is unchanged. If it
/// cannot be replaced at the end, the error names the folder that has it.
pub fn restore(
    file: &Path,
    folder: &Path,
    progress: &mut CopyProgress<'_>,
) -> Result<LogCopy, CopyError> {
    if !file.exists() {
        return Err(CopyError::NoBackup(file.to_owned()));
    }
    if let Some(reason) = unusable_head(file) {
        return Err(CopyError::Unusable { file: file.to_owned(), reason });
    }
    // Its lock keeps servers away until the end.
    let life_file = LifeFile::open(folder)?;
    let database = life_file.database.clone();
    let partial = Partial::beside(&database);
    let copied = partial.fill(file, progress).map_err(|error| of_backup(file, error))?;
    // All of it is on disk before anything else changes.
    partial.sync()?;
    let log_error = |error| CopyError::Log(OpenError::of_file(&database, error));
    let has_log = |suffix: &&str| files::beside(&database, suffix).exists();
    let aside = if ["", "-wal", "-journal"].iter().any(has_log) {
        Some(files::keep_aside(&database).map_err(log_error)?)
    } else {
        None
    };
    // A record that fits to no database, so that even a log without events gets a new epoch.
    life_file.record(0);
    let replaced = files::remove_companions(&database)
        .and_then(|()| files::put_in_place(&partial.file, &database));
    replaced.map_err(|error| match &aside {
        Some(aside) => CopyError::Replace { aside: aside.clone(), reason: error },
        None => partial.error(error),
    })?;
    Ok(LogCopy { aside, ..copied })
}

/// Returns `true` if a file has the name of one that the log in `folder` has.
fn is_own_file(folder: &Path, file: &Path) -> bool {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let is_beside = match (parent.canonicalize(), folder.canonicalize()) {
        (Ok(parent), Ok(folder)) => parent == folder,
        _ => false,
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    is_beside && (name.starts_with("log.db") || name == "log.life" || name == "log.reserve")
}

/// Returns the reason for which a file is no database at all. SQLite takes an empty file for an
/// empty database.
fn unusable_head(file: &Path) -> Option<Unusable> {
    let is_empty =
        fs::metadata(file).is_ok_and(|metadata| !metadata.is_file() || metadata.len() == 0);
    is_empty.then_some(Unusable::NotALog)
}

/// Returns the error about a log as one about the backup that was to be restored.
fn of_backup(file: &Path, error: CopyError) -> CopyError {
    let CopyError::Log(error) = error else { return error };
    let reason = match error {
        OpenError::NotALog(_) => Unusable::NotALog,
        OpenError::Newer { .. } => Unusable::Newer,
        OpenError::Damaged { details, .. } => Unusable::Damaged(details),
        error => return CopyError::Log(error),
    };
    CopyError::Unusable { file: file.to_owned(), reason }
}

/// The incomplete copy of a log, beside its final place. It is removed unless it gets there.
struct Partial {
    file: PathBuf,
    target: PathBuf,
}

impl Partial {
    fn beside(target: &Path) -> Self {
        let suffix = format!(".partial-{:08x}", fastrand::u32(..));
        Self { file: files::beside(target, &suffix), target: target.to_owned() }
    }

    /// Copies a log into the file, and checks the copy.
    fn fill(&self, log: &Path, progress: &mut CopyProgress<'_>) -> Result<LogCopy, CopyError> {
        files::private().create_new(true).open(&self.file).map_err(|error| self.error(error))?;
        let source = schema::open_to_read(log)?;
        let of_log = |error| CopyError::Log(schema::open_error(log, error));
        // A read keeps the source as it is, so writers cannot make the copy begin again.
        source.execute_batch("BEGIN").map_err(of_log)?;
        let expected = count(&source).map_err(of_log)?;
        let events = {
            let of_copy = |error| self.sqlite_error(error);
            let mut copy = schema::connect(&self.file).map_err(of_copy)?;
            copy.pragma_update(None, "synchronous", "OFF").map_err(of_copy)?;
            let pages = PageCopy::new(&source, &mut copy).map_err(of_copy)?;
            let mut pauses = 0;
            loop {
                match pages.step(PAGES_PER_STEP).map_err(of_copy)? {
                    StepResult::Done => break,
                    StepResult::More => pauses = 0,
                    _ if pauses < MAX_LOCK_PAUSES => {
                        pauses += 1;
                        std::thread::sleep(LOCK_PAUSE);
                    }
                    _ => return Err(OpenError::Locked(log.to_owned()).into()),
                }
                let state = pages.progress();
                let number = |pages: i32| u64::try_from(pages).unwrap_or_default();
                let all = number(state.pagecount);
                if progress(all - number(state.remaining).min(all), all).is_break() {
                    return Err(CopyError::Stopped);
                }
            }
            drop(pages);
            // A server may shorten its journal again.
            drop(source);
            // One file without companions, which can be copied and read anywhere.
            copy.pragma_update(None, "journal_mode", "DELETE").map_err(of_copy)?;
            schema::check(&copy, log)?;
            let events = count(&copy).map_err(of_copy)?;
            copy.close().map_err(|(_, error)| of_copy(error))?;
            events
        };
        if events != expected {
            return Err(CopyError::Incomplete { copied: events, expected });
        }
        let bytes = fs::metadata(&self.file).map_err(|error| self.error(error))?.len();
        // The check of a large copy takes a while, too.
        if progress(bytes, bytes).is_break() {
            return Err(CopyError::Stopped);
        }
        Ok(LogCopy { events, bytes, aside: None })
    }

    /// Moves the complete file to its final place, durably.
    fn put_in_place(&self, may_replace: bool) -> Result<(), CopyError> {
        if !may_replace {
            self.sync()?;
            // Unlike a rename, a new link replaces nothing that has come in the meantime. Not all
            // file systems have links.
            match fs::hard_link(&self.file, &self.target) {
                Ok(()) => {
                    // The file has both names; the one for the copy is removed at the end.
                    let _ = self.target.parent().map_or(Ok(()), files::sync_folder);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(CopyError::Exists(self.target.clone()));
                }
                Err(_) => {}
            }
        }
        files::put_in_place(&self.file, &self.target).map_err(|error| self.error(error))
    }

    /// Writes the file to disk.
    fn sync(&self) -> Result<(), CopyError> {
        let synced = fs::File::open(&self.file).and_then(|file| file.sync_all());
        synced.map_err(|error| self.error(error))
    }

    fn error(&self, reason: io::Error) -> CopyError {
        match reason.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                CopyError::DiskFull(self.target.clone())
            }
            _ => CopyError::File { file: self.target.clone(), reason },
        }
    }

    fn sqlite_error(&self, error: rusqlite::Error) -> CopyError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => CopyError::DiskFull(self.target.clone()),
            _ => CopyError::File { file: self.target.clone(), reason: io::Error::other(error) },
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        for suffix in [""].iter().chain(&files::COMPANIONS) {
            // Nothing else can be done about a file that stays.
            let _ = files::remove(&files::beside(&self.file, suffix));
        }
    }
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_one("SELECT count(*) FROM events", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Draft,
        event_log::{EventLog as _, Retention, SqliteLog},
        timestamp::Timestamp,
    };

    fn open(folder: &Path) -> SqliteLog {
        SqliteLog::open(folder, Retention::default(), Timestamp::now).unwrap()
    }

    async fn append(log: &SqliteLog, count: usize) {
        let draft = || Draft::new("t".parse().unwrap(), "x".repeat(5000));
        let drafts = (0..count).map(|_| draft()).collect();
        for appended in log.append(drafts, Timestamp::now()).await.unwrap() {
            appended.unwrap();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Continues any copy.
    fn go_on(_: u64, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[tokio::test]
    async fn a_backup_of_a_log_in_use_has_the_events_of_one_moment() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = elsewhere.path().join("copy.db");
        let log = open(data.path());
        append(&log, 500).await;
        // Appends in the middle of the copy are not in it, and do not make it begin again.
        let runtime = tokio::runtime::Handle::current();
        let (log, copied) = tokio::task::spawn_blocking({
            let (data, file) = (data.path().to_owned(), file.clone());
            move || {
                let mut steps = 0;
                let copied = back_up(&data, &file, false, &mut |done, all| {
                    steps += 1;
                    assert!(done <= all && steps < 10, "step {steps}: {done} of {all}");
                    runtime.block_on(append(&log, 1));
                    ControlFlow::Continue(())
                });
                (log, copied.unwrap())
            }
        })
        .await
        .unwrap();
        assert_eq!(copied.events, 500);
        assert_eq!(names(elsewhere.path()), ["copy.db"]);
        let newest = log.bounds().newest;
        assert!(newest > 500, "something was appended meanwhile");

        assert!(matches!(
            back_up(data.path(), &file, false, &mut go_on),
            Err(CopyError::Exists(_))
        ));
        let folder = back_up(data.path(), elsewhere.path(), true, &mut go_on);
        assert!(matches!(folder, Err(CopyError::Folder(_))), "{folder:?}");
        let device = back_up(data.path(), Path::new("/dev/null"), true, &mut go_on);
        assert!(matches!(device, Err(CopyError::Special(_))), "{device:?}");
        let own = data.path().join("log.db");
        assert!(matches!(back_up(data.path(), &own, true, &mut go_on), Err(CopyError::OwnFile(_))));
        let copied = back_up(data.path(), &file, true, &mut go_on).unwrap();
        assert_eq!(copied.events, newest);

        let in_use = restore(&file, data.path(), &mut go_on);
        assert!(matches!(in_use, Err(CopyError::Log(OpenError::InUse(_)))), "{in_use:?}");
        let epoch = log.bounds().epoch;
        append(&log, 1).await;
        drop(log);
        let restored = restore(&file, data.path(), &mut go_on).unwrap();
        let aside = restored.aside.unwrap();
        assert_eq!(names(&aside), ["log.db"]);
        let log = open(data.path());
        assert_eq!(log.bounds().newest, newest);
        assert_ne!(log.bounds().epoch, epoch, "ids are not used again");
    }

    #[tokio::test]
    async fn a_log_that_is_set_aside_stays_until_another_takes_its_place() {
        let data = tempfile::tempdir().unwrap();
        let log = open(data.path());
        append(&log, 3).await;
        drop(log);
        let aside = files::keep_aside(&files::database_in(data.path())).unwrap();
        // A power cut at this moment leaves both.
        for folder in [data.path(), &aside] {
            assert_eq!(open(folder).bounds().newest, 3, "{}", folder.display());
        }
    }

    #[test]
    fn a_copy_that_is_stopped_leaves_nothing() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(open(data.path()));
        let file = elsewhere.path().join("copy.db");
        assert!(matches!(
            back_up(elsewhere.path(), &file, false, &mut go_on),
            Err(CopyError::NoLog(_))
        ));
        back_up(data.path(), &file, false, &mut go_on).unwrap();
        let before = names(data.path());
        // A small log is complete after one step: it can be stopped after it, a large one in it.
        let stopped = restore(&file, data.path(), &mut |_, _| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
        assert_eq!(names(data.path()), before);
        let connection = schema::connect(&file).unwrap();
        let insert =
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
            INSERT INTO events (sequence, topic, name, time, data)
            SELECT i, 1, 'message', 0, hex(zeroblob(2000)) FROM n";
        connection.execute_batch("INSERT INTO topics VALUES (1, 't', 0)").unwrap();
        connection.execute_batch(insert).unwrap();
        drop(connection);
        let stopped = restore(&file, data.path(), &mut |_, _| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
        assert_eq!(names(data.path()), before);
    }

    #[test]
    fn what_is_no_backup_changes_nothing() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(open(data.path()));
        let good = elsewhere.path().join("good.db");
        back_up(data.path(), &good, false, &mut go_on).unwrap();
        // SQLite leaves its companions beside a log that was only read.
        let before = names(data.path());
        let content = fs::read(&good).unwrap();
        let file = elsewhere.path().join("bad.db");
        let mut newer = content.clone();
        // The user version, at byte 60 of the header.
        newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
        for (content, expected) in [
            (&content[..content.len() / 2], "damaged or truncated"),
            (&content[..50], "not an event log"),
            (&[], "not an event log"),
            (b"some text", "not an event log"),
            (&newer, "a later version"),
        ] {
            fs::write(&file, content).unwrap();
            let error = restore(&file, data.path(), &mut go_on).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains('\n'), "{error}");
            assert_eq!(names(data.path()), before);
        }
        let missing = restore(&elsewhere.path().join("missing"), data.path(), &mut go_on);
        assert!(matches!(missing, Err(CopyError::NoBackup(_))));
        // A log that is damaged itself is not taken for a copy that cannot be written.
        let damaged = tempfile::tempdir().unwrap();
        fs::write(damaged.path().join("log.db"), &content[..content.len() / 2]).unwrap();
        let error = back_up(damaged.path(), &file, true, &mut go_on).unwrap_err();
        assert!(matches!(error, CopyError::Log(OpenError::Damaged { .. })), "{error:?}");
        restore(&good, data.path(), &mut go_on).unwrap();
    }
}

//! The threads that read concurrently with the writer. A read takes one or more short steps. Each
//! step has a thread and its connection to itself. Between two steps, other reads take their turn.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle, available_parallelism},
};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::{in_place, schema};
use crate::event_log::store::EventLogError;

/// Maximum number of threads. It is less on a system with fewer cores.
const MAX_THREADS: usize = 4;
/// Addition to the nice value of the threads. On a busy system, the kernel gives the writer and the
/// network their turn first, so that old events do not hold up new ones.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// A step of a read, with the connection that it has to itself. Removes the connection if it
/// cannot be used any more.
type ReadStep = Box<dyn FnOnce(&mut Option<Connection>) + Send>;

/// Threads with a read-only connection each. Steps wait for a thread, in order.
pub(super) struct ReaderThreads {
    file: PathBuf,
    /// `None` once they must end.
    steps: Mutex<Option<mpsc::Sender<ReadStep>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The connection of [`check`](Self::check).
    checking: Mutex<Option<Connection>>,
}

impl ReaderThreads {
    pub fn start(file: PathBuf) -> io::Result<Self> {
        let (sender, steps) = mpsc::channel();
        let steps = Arc::new(Mutex::new(steps));
        // One core is left to the writer and the network.
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = (0..(cores - 1).clamp(1, MAX_THREADS)).map(|_| {
            // Opened now, since the files may be moved or deleted later.
            let (connection, steps) = (open(&file).ok(), Arc::clone(&steps));
            let run = move || run(&steps, connection);
            thread::Builder::new().name("log-reader".to_owned()).spawn(run)
        });
        let threads = Mutex::new(threads.collect::<io::Result<_>>()?);
        let checking = Mutex::new(open(&file).ok());
        Ok(Self { file, steps: Mutex::new(Some(sender)), threads, checking })
    }

    /// Reads a little.
    pub fn check(&self) -> rusqlite::Result<()> {
        let checking = &mut *self.checking.lock();
        let connection = checking.take().map_or_else(|| open(&self.file), Ok)?;
        read_epoch(&connection)?;
        *checking = Some(connection);
        Ok(())
    }

    /// Ends the threads and closes all connections, after the steps that wait.
    pub fn stop(&self) {
        *self.steps.lock() = None;
        for thread in self.threads.lock().drain(..) {
            // A panic of a step has already been printed.
            let _ = thread.join();
        }
        *self.checking.lock() = None;
    }

    /// Runs a step. It does not begin once the caller has stopped waiting.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, EventLogError> {
        let (reply, replied) = oneshot::channel();
        let readers = Arc::clone(self);
        let step: ReadStep = Box::new(move |connection| {
            if !reply.is_closed() {
                let _ = reply.send(readers.read(connection, read));
            }
        });
        let sent = self.steps.lock().as_ref().is_some_and(|steps| steps.send(step).is_ok());
        if !sent {
            return Err(EventLogError::Stopped);
        }
        // An error means that the step has panicked.
        Ok(in_place::reply(replied).await.map_err(EventLogError::new)??)
    }

    /// Reads in one transaction. Leaves the connection there if it can be used again.
    fn read<T>(
        &self,
        connection: &mut Option<Connection>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let opened = connection.take().map_or_else(|| open(&self.file), Ok)?;
        // All queries of a step must see the same state.
        let transaction = opened.unchecked_transaction()?;
        let result = read(&transaction)?;
        transaction.finish()?;
        *connection = Some(opened);
        Ok(result)
    }
}

/// Runs steps until there are no more senders of them.
fn run(steps: &Mutex<mpsc::Receiver<ReadStep>>, mut connection: Option<Connection>) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the readers of the event log have the usual priority");
    }
    loop {
        // One thread waits for the next step, and the others for the lock.
        let step = steps.lock().recv();
        let Ok(step) = step else { return };
        // The connection of a step that panics is closed.
        let _ = catch_unwind(AssertUnwindSafe(|| step(&mut connection)));
    }
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(schema::BUSY_TIMEOUT)?;
    // SQLite opens the files at the first read.
    read_epoch(&connection)?;
    Ok(connection)
}

fn read_epoch(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_one("SELECT epoch FROM log", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio_test::{assert_pending, task};

    use super::*;
    use crate::{
        event_log::{retention::Retention, sqlite::SqliteLog},
        timestamp::Timestamp,
    };

    /// Starts the readers of an empty log.
    fn readers() -> (tempfile::TempDir, SqliteLog, Arc<ReaderThreads>) {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(folder.path(), Retention::default(), Timestamp::now).unwrap();
        let readers = Arc::clone(&log.shared.readers);
        (folder, log, readers)
    }

    #[tokio::test]
    async fn a_step_that_panics_ends_no_thread() {
        let (_folder, _log, readers) = readers();
        for _ in 0..2 * MAX_THREADS {
            let panics =
                |_: &Connection| -> rusqlite::Result<()> { panic!("as the test wants it") };
            let error = readers.run(panics).await.unwrap_err();
            assert!(matches!(error, EventLogError::Failed(_)), "{error:?}");
        }
        readers.run(read_epoch).await.unwrap();
    }

    #[tokio::test]
    async fn a_step_does_not_begin_once_its_caller_has_left() {
        let (_folder, _log, readers) = readers();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let wait = |_| {
            let released = Arc::clone(&released);
            let mut waiting = task::spawn(readers.run(move |_| {
                let _ = released.lock().recv();
                Ok(())
            }));
            assert_pending!(waiting.poll());
            waiting
        };
        let of_all_threads: Vec<_> = (0..readers.threads.lock().len()).map(wait).collect();
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&has_begun);
        let mut left = task::spawn(readers.run(move |_| {
            begun.store(true, Ordering::Relaxed);
            Ok(())
        }));
        assert_pending!(left.poll());
        drop(left);
        drop(release);
        for waiting in of_all_threads {
            waiting.await.unwrap();
        }
        // Behind the last step.
        readers.stop();
        assert!(!has_begun.load(Ordering::Relaxed));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_threads_leave_the_writer_its_turn() {
        // That of a thread, on Linux.
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let usual = nice();
        let (_folder, _log, readers) = readers();
        assert_eq!(readers.run(move |_| Ok(nice())).await.unwrap(), (usual + NICE).min(19));
        assert_eq!(nice(), usual);
    }
}

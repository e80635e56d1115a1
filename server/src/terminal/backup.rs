//! `waterclock backup` and `waterclock restore`: copies of the event log in one file.

use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use waterclock::event_log::{CopyError, LogCopy};

use super::output::{FAILED, say, stop_signal};

/// Time between two messages on the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// The options of `waterclock backup`.
#[derive(Args, Debug)]
pub struct Backup {
    /// File for the backup. Only its owner may read it
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replace the file if it exists
    #[arg(long)]
    force: bool,

    /// Folder of the event log, which may be in use
    #[arg(long, env = "WATERCLOCK_DATA_DIR", value_name = "FOLDER", default_value = "data")]
    data_dir: PathBuf,
}

/// The options of `waterclock restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Folder of the event log, which no server may use. What it has is moved aside
    #[arg(long, env = "WATERCLOCK_DATA_DIR", value_name = "FOLDER", default_value = "data")]
    data_dir: PathBuf,
}

/// Backs up the event log. Returns the exit code.
pub async fn back_up(options: &Backup) -> u8 {
    let (folder, file, force) = (options.data_dir.clone(), options.file.clone(), options.force);
    let copied = run("backup", move |progress| {
        waterclock::event_log::back_up(&folder, &file, force, progress)
    });
    report(copied.await, &format!("backed up to {}", options.file.display()))
}

/// Restores the event log. Returns the exit code.
pub async fn restore(options: &Restore) -> u8 {
    let (folder, file) = (options.data_dir.clone(), options.file.clone());
    let copied =
        run("restore", move |progress| waterclock::event_log::restore(&file, &folder, progress));
    report(copied.await, &format!("restored to {}", options.data_dir.display()))
}

/// Runs a copy on a thread of its own, with messages on its progress. Signals to stop end it.
async fn run(
    name: &'static str,
    copy: impl FnOnce(&mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<LogCopy, CopyError>
    + Send
    + 'static,
) -> Result<LogCopy, CopyError> {
    let is_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&is_stopped);
    let stop = tokio::spawn(async move {
        stop_signal().await;
        stopped.store(true, Ordering::Relaxed);
    });
    let copied = tokio::task::spawn_blocking(move || {
        let is_terminal = io::stderr().is_terminal();
        let mut told = Instant::now();
        copy(&mut |done, all| {
            if is_stopped.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            if is_terminal && told.elapsed() >= PROGRESS_INTERVAL {
                told = Instant::now();
                let percent = (100 * done).checked_div(all).unwrap_or(100);
                let _ = write!(io::stderr(), "\r{name}: {percent} %");
            }
            ControlFlow::Continue(())
        })
    });
    let copied = copied.await;
    stop.abort();
    if io::stderr().is_terminal() {
        // Removes the progress.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    copied.unwrap_or(Err(CopyError::Stopped))
}

fn report(copied: Result<LogCopy, CopyError>, done: &str) -> u8 {
    match copied {
        Ok(LogCopy { events, bytes, aside }) => {
            if let Some(aside) = aside {
                say(format_args!("the log that was there is in {}", aside.display()));
            }
            // The copy is complete, whoever reads this.
            let _ = writeln!(io::stdout(), "{done}: {events} events, {bytes} bytes");
            0
        }
        Err(error) => {
            say(format_args!("error: {error}"));
            FAILED
        }
    }
}

//! What the commands print about themselves, their exit code, and the signals that end them.

use std::{
    fmt::Display,
    future::pending,
    io::{self, Write as _},
};

use tokio::signal::unix::{SignalKind, signal};

use super::error::TerminalError;

/// Exit code of a command that has failed.
pub(super) const FAILED: u8 = 1;

/// Prints the error of a command, if there is one. Returns the exit code.
pub(super) fn exit_code(result: Result<u8, TerminalError>) -> u8 {
    match result {
        Ok(code) => code,
        // The reader of the output wants no more of it.
        Err(TerminalError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            say(format_args!("error: {error}"));
            FAILED
        }
    }
}

/// Prints a line on standard error. What cannot be written there can be told nobody.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Waits for SIGINT, SIGTERM, or SIGHUP, which the end of a terminal sends.
pub(super) async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return pending().await };
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else { return pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}

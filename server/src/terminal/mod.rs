//! The commands for a terminal: they read and publish over HTTP, and keep backups of the event log.
//!
//! | module | content |
//! |---|---|
//! | `tail` | `waterclock tail`: events as they arrive |
//! | `publish` | `waterclock publish` |
//! | `topics` | `waterclock topics`: the list of topics |
//! | `health` | `waterclock health`, for programs that watch a server |
//! | `backup` | `waterclock backup` and `waterclock restore` |
//! | `manual` | completions of shells, and man pages |
//! | `server` | the HTTP client |
//! | `backoff` | the delay before another attempt |
//! | `error` | the reasons for which a server does not answer as expected |

mod backoff;
mod backup;
mod error;
mod health;
mod manual;
mod publish;
mod server;
mod tail;
mod topics;

use std::{
    fmt::Display,
    future::pending,
    io::{self, Write as _},
};

use tokio::signal::unix::{SignalKind, signal};

pub use backup::{Backup, Restore, back_up, restore};
pub use error::TerminalError;
pub use health::{Health, check_health};
pub use manual::{Completions, Manual, print_completions, write_manual};
pub use publish::{Publish, publish};
pub use server::ServerArgs;
pub use tail::{Tail, tail};
pub use topics::{TopicList, list_topics};

/// Exit code of a command that has failed.
const FAILED: u8 = 1;

/// Prints the error of a command, if there is one. Returns the exit code.
fn exit_code(result: Result<u8, TerminalError>) -> u8 {
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
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Waits for SIGINT or SIGTERM.
async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Replaces control characters, which a terminal would obey, by escapes such as `\n` or `\u{1b}`.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() && char != '\t' {
            visible.extend(char.escape_default());
        } else {
            visible.push(char);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_event() {
        assert_eq!(visible("a\tü\u{1b}[2J\r\n\u{9b}"), "a\tü\\u{1b}[2J\\r\\n\\u{9b}");
    }
}

//! The program's own output: messages on standard error.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts to print messages. `RUST_LOG` sets their level.
pub fn start(format: OutputFormat) {
    // h2 warns of each unsolicited PING, so a client could fill the disk with messages.
    let level = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    let directives = format!("h2=error,{}", level.as_deref().unwrap_or("info"));
    let filter = EnvFilter::builder().parse_lossy(directives);
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        OutputFormat::Text => output.with_ansi(io::stderr().is_terminal()).init(),
        OutputFormat::Json => output.json().flatten_event(true).with_span_list(false).init(),
    }
}

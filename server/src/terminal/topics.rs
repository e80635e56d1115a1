//! `waterclock topics`: the list of topics.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;
use reqwest::{Method, header::ACCEPT};
use serde::Deserialize;
use serde_json::Value;
use waterclock::pattern::Pattern;

use super::{error::TerminalError, output::exit_code, server::ServerClient, visible::visible};
use crate::client::ServerArgs;

/// Timeout of one page.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Topics on a page.
const PAGE: &str = "1000";

/// The options of `waterclock topics`.
#[derive(Args, Debug)]
#[command(after_help = "The token may also be in the environment variable WATERCLOCK_TOKEN.")]
pub struct TopicList {
    /// Topics, or patterns of topics [default: all]
    #[arg(value_name = "PATTERN")]
    patterns: Vec<Pattern>,

    /// Print the figures of each topic as JSON, in one line
    #[arg(long)]
    json: bool,

    /// The server to ask.
    #[command(flatten)]
    server: ServerArgs,
}

/// A page of the list. The topics stay as they are, for the output as JSON.
#[derive(Deserialize)]
struct Page {
    topics: Vec<Value>,
    next: Option<String>,
}

/// The figures of a topic, as far as the table has them.
#[derive(Deserialize)]
struct Row {
    topic: String,
    events: u64,
    bytes: u64,
    newest: Option<Newest>,
    readers: u64,
    pattern_readers: u64,
    outcome: Option<String>,
}

#[derive(Deserialize)]
struct Newest {
    time: String,
}

/// Prints the list of topics. Returns the exit code.
pub async fn list_topics(options: &TopicList) -> u8 {
    exit_code(list(options).await)
}

async fn list(options: &TopicList) -> Result<u8, TerminalError> {
    let server = ServerClient::new(&options.server)?;
    let mut rows = Vec::new();
    let mut after = String::new();
    let mut output = io::BufWriter::new(io::stdout().lock());
    loop {
        let mut query = vec![("limit", PAGE), ("after", &*after)];
        query.extend(options.patterns.iter().map(|pattern| ("match", pattern.as_str())));
        let request = server.request(Method::GET, "/topics", &query)?;
        let answer = server.call(request.header(ACCEPT, "application/json"), TIMEOUT).await?;
        let page: Page = server.json(&answer)?;
        for topic in page.topics {
            if options.json {
                writeln!(output, "{topic}")?;
                continue;
            }
            let row = serde_json::from_value::<Row>(topic);
            rows.push(row.map_err(|_| server.not_waterclock(200, "its list is not that of one"))?);
        }
        match page.next {
            Some(next) if next != after => after = next,
            _ => break,
        }
    }
    if !options.json {
        write!(output, "{}", table(&rows))?;
    }
    output.flush()?;
    Ok(0)
}

/// Formats the table. Numbers are aligned on the right.
fn table(rows: &[Row]) -> String {
    let head = ["TOPIC", "EVENTS", "BYTES", "LAST EVENT", "READERS", "BY PATTERN", "ENDED"];
    let mut cells = vec![head.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            visible(&row.topic),
            row.events.to_string(),
            row.bytes.to_string(),
            row.newest.as_ref().map_or_else(|| "-".to_owned(), |newest| visible(&newest.time)),
            row.readers.to_string(),
            row.pattern_readers.to_string(),
            row.outcome.as_deref().map_or_else(|| "-".to_owned(), visible),
        ]
    }));
    let mut widths = [0; 7];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut table = String::new();
    for row in &cells {
        let padded = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if matches!(column, 1 | 2 | 4 | 5) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        table.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |topic: &str, events, outcome: Option<&str>| Row {
            topic: topic.to_owned(),
            events,
            bytes: 7,
            newest: None,
            readers: 0,
            pattern_readers: 1,
            outcome: outcome.map(str::to_owned),
        };
        assert_eq!(
            table(&[row("a", 12345, None), row("orders.eu", 0, Some("done"))]),
            "TOPIC      EVENTS  BYTES  LAST EVENT  READERS  BY PATTERN  ENDED\n\
             a           12345      7  -                 0           1  -\n\
             orders.eu       0      7  -                 0           1  done\n"
        );
        assert_eq!(table(&[]).lines().count(), 1);
    }
}

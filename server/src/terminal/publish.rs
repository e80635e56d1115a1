//! `waterclock publish`: publishes events, each exactly once.

use std::{
    cell::Cell,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::Args;
use reqwest::{
    Method,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use waterclock::{
    event::{Name, Topic},
    notice::Outcome,
};
use waterclock_axum::limits::MAX_DATA;

use super::{
    backoff,
    error::TerminalError,
    output::exit_code,
    server::{Answer, ServerClient},
    visible::visible,
};
use crate::client::ServerArgs;

/// Timeout of one attempt.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Delay before the first repetition.
const RETRY: Duration = Duration::from_millis(250);
/// Maximum number of lines in one request.
const MAX_LINES: usize = 256;
/// Maximum size of the lines in one request, beyond which no further one joins them.
const MAX_LINES_BYTES: usize = 256 << 10;

/// The options of `waterclock publish`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  waterclock publish orders.eu 'a new order' --name created
  make 2>&1 | waterclock publish build --lines --reopen
  waterclock publish build --end
  waterclock publish build --end --outcome failed --reason 'out of memory'

If an answer is lost, the event is sent again with its idempotency key, so it is never published \
twice.
The token may also be in the environment variable WATERCLOCK_TOKEN.
Exit codes: 0 published; 1 not published, or unknown.")]
pub struct Publish {
    /// Topic to publish to
    #[arg(value_name = "TOPIC")]
    topic: Topic,

    /// Data of the event; `-` or nothing for standard input, up to 64 KiB
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,

    /// Read the data from a file
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,

    /// Publish each line of the input as an event, as soon as it arrives
    #[arg(long)]
    lines: bool,

    /// Name of the event
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,

    /// Idempotency key, up to 200 characters: the same command with the same key publishes nothing
    /// twice
    #[arg(long, value_name = "KEY", value_parser = key)]
    key: Option<String>,

    /// End the topic afterwards. Without data, publish nothing before it
    #[arg(long)]
    end: bool,

    /// Outcome of the topic: done or failed
    #[arg(long, value_name = "OUTCOME", requires = "end", default_value = "done", value_parser = outcome)]
    outcome: Outcome,

    /// Reason of a failure
    #[arg(long, value_name = "TEXT", requires = "end")]
    reason: Option<String>,

    /// Open the topic again if it has ended
    #[arg(long)]
    reopen: bool,

    /// Time after which no further attempt is made to publish an event. An attempt takes up to 20 s
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    patience: Duration,

    /// The server to publish to.
    #[command(flatten)]
    server: ServerArgs,
}

fn key(text: &str) -> Result<String, &'static str> {
    let is_key = (1..=200).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
    is_key.then(|| text.to_owned()).ok_or("expected up to 200 characters of ASCII without quotes")
}

fn outcome(text: &str) -> Result<Outcome, &'static str> {
    let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text);
    outcome.ok_or("expected done or failed")
}

/// Publishes what the options name. Returns the exit code.
pub async fn publish(options: &Publish) -> u8 {
    exit_code(publish_all(options).await)
}

async fn publish_all(options: &Publish) -> Result<u8, TerminalError> {
    if options.reason.is_some() && options.outcome == Outcome::Done {
        let message = "--reason is for --outcome failed: a topic that is done has none";
        return Err(TerminalError::Input(message.to_owned()));
    }
    let has_event = options.lines || options.data.is_some() || options.file.is_some();
    if options.name.is_some() && options.end && !has_event {
        let message = "--name is for an event: the end of a topic has none";
        return Err(TerminalError::Input(message.to_owned()));
    }
    let random = || format!("cli-{:032x}", fastrand::u128(..));
    let key = options.key.clone().unwrap_or_else(random);
    let server = ServerClient::new(&options.server)?;
    let publisher = Publisher { options, server, key, has_reached: Cell::new(false) };
    if options.lines {
        let count = publisher.lines().await?;
        print(format_args!("{count} events"));
    } else if !options.end || has_event {
        let (key, reopen) = (&publisher.key, options.reopen);
        let id = publisher.event(data(options)?, key, reopen, false).await?;
        print(format_args!("{}", visible(&id)));
    }
    if options.end {
        print(format_args!("{}", visible(&publisher.end().await?)));
    }
    Ok(0)
}

/// Prints a line on standard output. The events are published, whoever reads it.
fn print(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Returns the data of a single event.
fn data(options: &Publish) -> Result<Vec<u8>, TerminalError> {
    if let Some(data) = options.data.as_ref().filter(|data| *data != "-") {
        return Ok(data.clone().into_bytes());
    }
    let input = input(options.file.as_deref())?;
    let mut data = Vec::new();
    let read = input.take(MAX_DATA as u64 + 1).read_to_end(&mut data);
    read.map_err(|error| TerminalError::Input(format!("the data cannot be read: {error}")))?;
    if data.len() > MAX_DATA {
        let message = "the data is longer than 64 KiB: publish it in parts, or with --lines";
        return Err(TerminalError::Input(message.to_owned()));
    }
    Ok(data)
}

/// Opens the input: a file, or standard input.
fn input(file: Option<&Path>) -> Result<Box<dyn Read + Send>, TerminalError> {
    let Some(path) = file else { return Ok(Box::new(io::stdin())) };
    let file = File::open(path).map_err(|error| {
        TerminalError::Input(format!("{} cannot be read: {error}", path.display()))
    })?;
    Ok(Box::new(file))
}

/// The answer to an event or an end.
#[derive(Deserialize)]
struct AssignedId {
    id: String,
}

/// The answer to a line.
#[derive(Deserialize)]
struct LineAnswer {
    line: u64,
    id: Option<String>,
}

struct Publisher<'a> {
    options: &'a Publish,
    server: ServerClient,
    key: String,
    /// `true` once a request may have reached a server.
    has_reached: Cell<bool>,
}

impl Publisher<'_> {
    /// Publishes one event, which may be published already if `is_in_doubt` is set. Returns its id.
    async fn event(
        &self,
        data: Vec<u8>,
        key: &str,
        is_reopening: bool,
        is_in_doubt: bool,
    ) -> Result<String, TerminalError> {
        let mut query = Vec::new();
        query.extend(self.options.name.as_ref().map(|name| ("name", name.as_str())));
        if is_reopening {
            query.push(("reopen", ""));
        }
        self.settle(&query, data, key, "the event was published", is_in_doubt).await
    }

    /// Ends the topic. Returns the id of the end.
    async fn end(&self) -> Result<String, TerminalError> {
        let (value, reason) = match self.options.outcome {
            Outcome::Done => ("", String::new()),
            Outcome::Failed => ("failed", self.options.reason.clone().unwrap_or_default()),
        };
        let key = format!("{}-end", self.key);
        self.settle(&[("end", value)], reason.into_bytes(), &key, "the topic has ended", false)
            .await
    }

    /// Sends a request until its answer has come. An earlier request may have done the same if
    /// `is_in_doubt` is set.
    async fn settle(
        &self,
        query: &[(&str, &str)],
        body: Vec<u8>,
        key: &str,
        what: &str,
        mut is_in_doubt: bool,
    ) -> Result<String, TerminalError> {
        let path = format!("/events/{}", self.options.topic);
        let deadline = Instant::now() + self.options.patience;
        let mut failures = 0;
        loop {
            let request = self.server.request(Method::POST, &path, query)?;
            let request = request
                .header("idempotency-key", key)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, body.len())
                .body(body.clone());
            let error = match self.server.call(request, ATTEMPT).await {
                Ok(answer) => {
                    self.has_reached.set(true);
                    return Ok(self.server.json::<AssignedId>(&answer)?.id);
                }
                Err(error) => error,
            };
            let may_be_done = error.may_have_arrived();
            is_in_doubt |= may_be_done;
            self.has_reached.set(self.has_reached.get() || may_be_done);
            let delay = backoff::delay(RETRY, failures, fastrand::f64());
            let delay = error.retry_after().map_or(delay, |after| after.max(delay));
            // Nobody needs to wait for a server that was never there.
            let is_given_up =
                !error.may_pass() || !self.has_reached.get() || Instant::now() + delay > deadline;
            if is_given_up {
                if !is_in_doubt || error.is_about_the_key() {
                    return Err(error);
                }
                let (what, key) = (what.to_owned(), self.key.clone());
                return Err(TerminalError::Unconfirmed { what, reason: error.to_string(), key });
            }
            failures += 1;
            sleep(delay).await;
        }
    }

    /// Publishes the lines of the input. Returns their number.
    async fn lines(&self) -> Result<u64, TerminalError> {
        let options = self.options;
        let mut lines: mpsc::Receiver<io::Result<Vec<u8>>> =
            match options.data.as_ref().filter(|data| *data != "-") {
                Some(data) => read_lines(io::Cursor::new(data.clone().into_bytes())),
                None => read_lines(input(options.file.as_deref())?),
            };
        let mut published = 0;
        // Lines that have arrived together are published together.
        let mut arrived = Vec::new();
        while lines.recv_many(&mut arrived, MAX_LINES).await > 0 {
            let mut batch = Vec::new();
            let mut problem = None;
            for line in arrived.drain(..) {
                match check_line(line, published + batch.len() as u64) {
                    Ok(text) => batch.push(text),
                    Err(error) => {
                        problem = Some(error);
                        break;
                    }
                }
            }
            while !batch.is_empty() {
                let mut bytes = 0;
                let fits = |line: &&String| {
                    let is_first = bytes == 0;
                    bytes += line.len() + 1;
                    is_first || bytes <= MAX_LINES_BYTES
                };
                let count = batch.iter().take_while(fits).count();
                // The first line opens a topic again.
                let count = if options.reopen && published == 0 { 1 } else { count };
                let part: Vec<_> = batch.drain(..count).collect();
                let sent = self.part(&part, published).await;
                sent.map_err(|(done, error)| self.broken_off(published + done, &error))?;
                published += count as u64;
            }
            if let Some(error) = problem {
                return Err(self.broken_off(published, &error));
            }
        }
        Ok(published)
    }

    /// Explains that only so many lines were published, and how to publish the others.
    fn broken_off(&self, published: u64, error: &TerminalError) -> TerminalError {
        let key = match error {
            // It has the key.
            TerminalError::Unconfirmed { .. } => String::new(),
            _ if published == 0 => String::new(),
            _ => format!(" (the same lines with --key {} publish the others)", self.key),
        };
        TerminalError::Input(format!("{published} lines were published{key}, but then: {error}"))
    }

    /// Publishes lines that follow so many others, all of them in one request if nothing fails. The
    /// error comes with the number of those that are published.
    async fn part(&self, lines: &[String], before: u64) -> Result<(), (u64, TerminalError)> {
        let key = |index: usize| format!("{}-{}", self.key, before + index as u64 + 1);
        let is_reopening = self.options.reopen && before == 0;
        let (mut done, mut is_in_doubt) = (0, false);
        if lines.len() > 1 {
            match self.batch(lines, &key).await {
                Ok(count) => {
                    self.has_reached.set(true);
                    done = count;
                }
                Err(error) if error.may_pass() => {
                    is_in_doubt = error.may_have_arrived();
                    self.has_reached.set(self.has_reached.get() || is_in_doubt);
                }
                Err(error) => return Err((0, error)),
            }
        }
        // One by one, since these know to retry. A line that is published already has its key.
        for (index, line) in lines.iter().enumerate().skip(done) {
            let data = line.clone().into_bytes();
            let published = self.event(data, &key(index), is_reopening, is_in_doubt).await;
            published.map_err(|error| (index as u64, error))?;
        }
        Ok(())
    }

    /// Publishes lines in one request. Returns the number of those before the first that failed.
    async fn batch(
        &self,
        lines: &[String],
        key: &impl Fn(usize) -> String,
    ) -> Result<usize, TerminalError> {
        let mut body = String::new();
        for (index, line) in lines.iter().enumerate() {
            let mut draft =
                json!({ "topic": self.options.topic.as_str(), "data": line, "key": key(index) });
            if let Some(name) = &self.options.name {
                draft["name"] = name.as_str().into();
            }
            body.push_str(&draft.to_string());
            body.push('\n');
        }
        let request = self.server.request(Method::POST, "/events", &[])?;
        let request = request.header(CONTENT_TYPE, "application/x-ndjson").body(body);
        let Answer { body } = self.server.call(request, ATTEMPT).await?;
        let answers = String::from_utf8_lossy(&body);
        let mut done = 0;
        for answer in answers.lines() {
            let Ok(answer) = serde_json::from_str::<LineAnswer>(answer) else {
                return Err(self.server.not_waterclock(200, "its answer is not that of one"));
            };
            if answer.id.is_none() || answer.line != done as u64 + 1 {
                break;
            }
            done += 1;
        }
        Ok(done)
    }
}

/// Checks the line that follows so many others.
fn check_line(line: io::Result<Vec<u8>>, before: u64) -> Result<String, TerminalError> {
    let number = before + 1;
    let line = line.map_err(|error| format!("line {number} cannot be read: {error}"));
    let line = line.and_then(|line| {
        if line.len() > MAX_DATA {
            return Err(format!("line {number} is longer than 64 KiB"));
        }
        String::from_utf8(line).map_err(|_| format!("line {number} is not UTF-8"))
    });
    line.map_err(TerminalError::Input)
}

/// Reads lines on a thread of its own, since a read of standard input cannot be cancelled. They end
/// with LF or CRLF.
fn read_lines(input: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::channel(MAX_LINES);
    thread::spawn(move || {
        let mut input = BufReader::new(input);
        loop {
            let line = read_line(&mut input).transpose();
            let Some(line) = line else { return };
            let is_last = line.as_ref().map_or(true, |line| line.len() > MAX_DATA);
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    lines
}

/// Reads a line without its end. One that is too long is returned in part.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // With CRLF.
    if input.take(MAX_DATA as u64 + 2).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_lf_or_crlf_or_the_input() {
        let mut lines = read_lines(io::Cursor::new("a\n\nb\r\nc\rd\r"));
        let mut read = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            read.push(String::from_utf8(line.unwrap()).unwrap());
        }
        assert_eq!(read, ["a", "", "b", "c\rd\r"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_the_last() {
        let long = [vec![b'x'; MAX_DATA], b"\r\n".to_vec(), vec![b'y'; MAX_DATA + 1]].concat();
        let endless = io::Cursor::new(long).chain(io::repeat(b'y'));
        let mut lines = read_lines(endless);
        assert_eq!(lines.blocking_recv().unwrap().unwrap().len(), MAX_DATA);
        assert!(lines.blocking_recv().unwrap().unwrap().len() > MAX_DATA);
        assert!(lines.blocking_recv().is_none());
    }

    #[test]
    fn keys_are_safe_in_a_header() {
        for text in ["", "a\nb", "a\"b", "ä", &"x".repeat(201)] {
            assert!(key(text).is_err(), "{text:?}");
        }
        assert_eq!(key("order 17").unwrap(), "order 17");
    }
}

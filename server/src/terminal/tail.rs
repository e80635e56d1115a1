//! `waterclock tail`: prints events as they arrive, and resumes exactly after a cut.

use std::{
    env,
    io::{self, IsTerminal as _, StdoutLock, Write as _},
    time::Duration,
};

use clap::Args;
use reqwest::{
    Method, Response,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use waterclock::{
    event::Event,
    notice::{End, Gap, Goodbye, Heartbeat, Hello, Notice as _, Outcome, TopicEnd},
    pattern::Pattern,
    sse::{self, Message, Parsed, Parser},
};

use super::{
    backoff,
    error::TerminalError,
    output::{FAILED, exit_code, say, stop_signal},
    server::ServerClient,
    visible::{visible, visible_json},
};
use crate::client::ServerArgs;

/// Timeout of the head of the response, and of the first message.
const FIRST_TIMEOUT: Duration = Duration::from_secs(15);
/// Delay before a reconnect if the server has named none.
const DEFAULT_RETRY: Duration = Duration::from_secs(2);
/// Bounds of the time without a byte after which a stream counts as cut.
const SILENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_hours(1));
/// Maximum size of a message, in bytes. An event of 64 KiB takes up to six times as much in JSON.
const MAX_MESSAGE: usize = 1 << 20;

/// The options of `waterclock tail`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  waterclock tail clock
  waterclock tail 'orders.>' --since 10m
  waterclock tail build --since start --raw

The token may also be in the environment variable WATERCLOCK_TOKEN.
Messages about the stream go to standard error.
Exit codes: 0 stopped, or the topics have ended as done; 1 failed, or a topic has ended as failed.")]
pub struct Tail {
    /// Topics, or patterns of topics: `*` matches one token, a final `>` all remaining tokens
    #[arg(value_name = "PATTERN", default_value = ">")]
    patterns: Vec<Pattern>,

    /// Print each event as JSON, in one line
    #[arg(long, conflicts_with = "raw")]
    json: bool,

    /// Print the data of events only, as it is
    #[arg(long)]
    raw: bool,

    /// Begin at a time, such as 10m (ago) or 2026-11-22T07:00:00Z; `start` for the oldest event
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Begin after the event with this id
    #[arg(long, value_name = "ID", conflicts_with = "since")]
    after: Option<String>,

    /// End after so many events
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// End as soon as a topic ends. Without patterns that have a wildcard, a stream ends by itself
    /// once all of its topics have
    #[arg(long)]
    exit_on_end: bool,

    /// The server to read from.
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints events until the stream ends, or SIGINT or SIGTERM arrives. Returns the exit code.
pub async fn tail(options: &Tail) -> u8 {
    tokio::spawn(async {
        stop_signal().await;
        // The main task ends the program. But it may be writing to a pager that waits for its user.
        sleep(Duration::from_millis(300)).await;
        std::process::exit(0);
    });
    tokio::select! {
        // First, since events may arrive faster than they can be printed.
        biased;
        () = stop_signal() => 0,
        result = follow(options) => exit_code(result),
    }
}

/// Reads the stream, over as many connections as it takes.
async fn follow(options: &Tail) -> Result<u8, TerminalError> {
    let mut stream = Stream {
        options,
        server: ServerClient::new(&options.server)?,
        printer: EventPrinter::new(options),
        cursor: options.after.clone(),
        retry: DEFAULT_RETRY,
        has_begun: false,
        is_open: false,
        has_failed_topic: false,
    };
    if options.since.as_deref() == Some("start") {
        stream.cursor = Some("earliest".to_owned());
    }
    let mut failures = 0;
    loop {
        let had_begun = stream.has_begun;
        stream.is_open = false;
        let cut = match stream.connect().await {
            Ok(None) => return Ok(stream.code()),
            Ok(Some(response)) => stream.read(response).await,
            Err(error) => Err(error),
        };
        let (reason, delay) = match cut {
            Ok(Cut::Complete) => return Ok(stream.code()),
            Ok(Cut::Goodbye(reason, delay)) => (reason, Some(delay)),
            Ok(Cut::Broken(reason)) => (reason, None),
            Err(error) if had_begun && may_come_back(&error) => {
                (error.to_string(), error.retry_after())
            }
            Err(error) => return Err(error),
        };
        failures = if stream.is_open { 0 } else { failures + 1 };
        let delay =
            delay.unwrap_or_else(|| backoff::delay(stream.retry, failures, fastrand::f64()));
        say(format_args!("{reason}; reconnecting in {:.1} s", delay.as_secs_f64()));
        sleep(delay).await;
    }
}

/// Returns `true` if a server that was there before may come back after this error. Meanwhile, a
/// proxy may answer in its place.
fn may_come_back(error: &TerminalError) -> bool {
    error.may_pass() || matches!(error, TerminalError::NotWaterclock { .. })
}

/// The end of a connection.
enum Cut {
    /// Nothing follows.
    Complete,
    /// The server wants the client to come back after the delay.
    Goodbye(String, Duration),
    Broken(String),
}

struct Stream<'a> {
    options: &'a Tail,
    server: ServerClient,
    printer: EventPrinter,
    /// The position after the last event that was printed.
    cursor: Option<String>,
    retry: Duration,
    /// `true` once the server has turned out to be a Waterclock.
    has_begun: bool,
    /// `true` once this connection has begun.
    is_open: bool,
    has_failed_topic: bool,
}

impl Stream<'_> {
    fn code(&self) -> u8 {
        if self.has_failed_topic { FAILED } else { 0 }
    }

    /// Opens a connection. Returns `None` if the server says that nothing follows.
    async fn connect(&self) -> Result<Option<Response>, TerminalError> {
        let options = self.options;
        let limit = options.limit.map(|limit| limit.to_string());
        let mut query = vec![("format", "json")];
        query.extend(options.patterns.iter().map(|pattern| ("topic", pattern.as_str())));
        query.extend(limit.as_deref().map(|limit| ("limit", limit)));
        match (&self.cursor, &options.since) {
            (Some(cursor), _) => query.push(("last_event_id", cursor)),
            (None, Some(since)) => query.push(("since", since)),
            (None, None) => {}
        }
        let request = self.server.request(Method::GET, "/events", &query)?;
        let request = request.header(ACCEPT, sse::CONTENT_TYPE).header(CACHE_CONTROL, "no-cache");
        let response = self.server.open(request, FIRST_TIMEOUT).await?;
        if response.status() == 204 {
            return Ok(None);
        }
        let media_type = response.headers().get(CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        if media_type.split(';').next().unwrap_or_default().trim() != sse::CONTENT_TYPE {
            let found = format!("it responds with {media_type:?} instead of an event stream");
            return Err(self.server.not_waterclock(200, &found));
        }
        Ok(Some(response))
    }

    /// Reads the stream of one connection.
    async fn read(&mut self, mut response: Response) -> Result<Cut, TerminalError> {
        let was_begun = self.has_begun;
        let mut parser = Parser::default();
        let (mut silence, mut is_first) = (FIRST_TIMEOUT, true);
        loop {
            let chunk = match timeout(silence, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Err(_) if !self.has_begun => {
                    return Err(self.server.not_waterclock(200, "its stream has no hello"));
                }
                Ok(Ok(None)) if !self.has_begun => {
                    return Err(self.server.not_waterclock(200, "its stream ends without a hello"));
                }
                Ok(Ok(None) | Err(_)) => return Ok(Cut::Broken("the connection was cut".into())),
                Err(_) => {
                    let reason = format!("no sign of life for {} s", silence.as_secs());
                    return Ok(Cut::Broken(reason));
                }
            };
            // By lines, so that of messages with long ids only one is in memory.
            let lines = chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r'));
            for parsed in lines.flat_map(|line| parser.feed(line)) {
                let message = match parsed {
                    Parsed::Retry(retry) => {
                        self.retry = retry;
                        continue;
                    }
                    Parsed::Message(message) => message,
                };
                if std::mem::take(&mut is_first) && message.name != Goodbye::NAME {
                    let hello = self.notice::<Hello>(&message, Hello::NAME)?;
                    let heartbeat = Duration::from_millis(hello.heartbeat_ms);
                    silence = heartbeat.saturating_mul(2).clamp(SILENCE.0, SILENCE.1);
                    self.has_begun = true;
                    self.is_open = true;
                    if was_begun {
                        say("reconnected");
                    }
                }
                let cut = self.take(&message)?;
                if !message.last_event_id.is_empty() {
                    self.cursor = Some(message.last_event_id);
                }
                if let Some(cut) = cut {
                    self.printer.flush()?;
                    return Ok(cut);
                }
            }
            self.printer.flush()?;
            if parser.buffered() > MAX_MESSAGE {
                return Err(self.server.not_waterclock(200, "it sends a message without an end"));
            }
        }
    }

    /// Prints a message. Returns the end of the connection if it is the last one.
    fn take(&mut self, message: &Message) -> Result<Option<Cut>, TerminalError> {
        match message.name.as_str() {
            Hello::NAME | Heartbeat::NAME => {}
            Gap::NAME => {
                let Gap { reason, cursor } = self.notice(message, Gap::NAME)?;
                self.printer.flush()?;
                say(format_args!(
                    "gap: events after {} are missing, or may be ({})",
                    visible(&cursor),
                    reason.as_str()
                ));
            }
            Goodbye::NAME => {
                self.has_begun = true;
                let Goodbye { reason, retry_ms } = self.notice(message, Goodbye::NAME)?;
                let reason = format!("the server says goodbye ({})", reason.as_str());
                return Ok(Some(Cut::Goodbye(reason, Duration::from_millis(retry_ms))));
            }
            TopicEnd::NAME if serde_json::from_str::<End>(&message.data).is_ok() => {
                return Ok(Some(Cut::Complete));
            }
            TopicEnd::NAME => return self.end(message),
            _ => {
                let event = self.notice(message, "event")?;
                self.printer.print(&event, &message.data)?;
            }
        }
        Ok(None)
    }

    fn end(&mut self, message: &Message) -> Result<Option<Cut>, TerminalError> {
        let TopicEnd { topic, outcome, message: reason, last } =
            self.notice(message, TopicEnd::NAME)?;
        self.printer.flush()?;
        let reason = reason.map(|reason| format!(": {}", visible(&reason))).unwrap_or_default();
        say(format_args!("{topic} has ended as {}{reason}", outcome.as_str()));
        self.has_failed_topic |= outcome == Outcome::Failed;
        Ok((last || self.options.exit_on_end).then_some(Cut::Complete))
    }

    /// Parses the data of a message.
    fn notice<T: DeserializeOwned>(
        &self,
        message: &Message,
        name: &str,
    ) -> Result<T, TerminalError> {
        let is_of_name = name == "event" || message.name == name;
        let parsed = is_of_name.then(|| serde_json::from_str(&message.data).ok()).flatten();
        parsed.ok_or_else(|| {
            self.server.not_waterclock(200, &format!("its stream has no valid {name}"))
        })
    }
}

/// Prints events on standard output.
struct EventPrinter {
    output: io::BufWriter<StdoutLock<'static>>,
    is_json: bool,
    is_raw: bool,
    has_colours: bool,
}

impl EventPrinter {
    fn new(options: &Tail) -> Self {
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            output: io::BufWriter::new(io::stdout().lock()),
            is_json: options.json,
            is_raw: options.raw,
            has_colours: !is_plain && io::stdout().is_terminal(),
        }
    }

    fn print(&mut self, event: &Event, json: &str) -> io::Result<()> {
        let output = &mut self.output;
        if self.is_json {
            return writeln!(output, "{}", visible_json(json));
        }
        if self.is_raw {
            return writeln!(output, "{}", event.data);
        }
        let line = line(event, self.has_colours);
        writeln!(output, "{line}")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Formats an event in one line: time, topic, name unless it is `message`, and data.
fn line(event: &Event, has_colours: bool) -> String {
    let paint = |code: &str, text: &str| {
        if has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut line = paint("2", &event.time.to_string());
    line.push(' ');
    line.push_str(&paint("36", event.topic.as_str()));
    if event.name.as_str() != "message" {
        line.push(' ');
        line.push_str(&paint("33", &visible(event.name.as_str())));
    }
    line.push(' ');
    line.push_str(&visible(&event.data));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut event: Event = serde_json::from_str(
            r#"{"id":"00000000c10cca11-42","topic":"orders.eu","name":"created",
                "data":"a\nb\u001b[1m","time":"2026-11-22T07:00:01.000Z"}"#,
        )
        .unwrap();
        let expected = r"2026-11-22T07:00:01.000Z orders.eu created a\nb\u{1b}[1m";
        assert_eq!(line(&event, false), expected);
        event.name = "message".parse().unwrap();
        let coloured = line(&event, true);
        assert!(coloured.contains("\x1b[36morders.eu\x1b[0m a\\nb"), "{coloured:?}");
    }
}

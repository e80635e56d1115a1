//! A reader of event streams that records arrival times.

use std::{mem, time::Duration};

use waterclock::{
    notice::{Goodbye, GoodbyeReason, Notice as _},
    sse::{Message, Parsed, Parser},
};

use crate::probe::{ProbeEvent, RequestEcho};

/// The arrival of one event of the probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Time at which the event was sent, by the server's clock, in milliseconds since 1970.
    pub sent: f64,
    /// Time at which the event arrived, by the client's clock, in milliseconds since 1970.
    pub arrived: f64,
    /// Size on the wire, in bytes.
    pub bytes: u64,
}

/// Scans the lines of a stream for what the parser skips: comments, and what browsers ignore or
/// change.
#[derive(Clone, Debug, Default)]
struct LineScanner {
    has_comment: bool,
    has_data: bool,
    ignored: Option<String>,
    is_past_first_line: bool,
    /// The beginning of the current line.
    line: Vec<u8>,
}

impl LineScanner {
    fn feed(&mut self, chunk: &[u8]) {
        for byte in chunk {
            if matches!(byte, b'\r' | b'\n') {
                self.end_line();
            } else {
                self.line.push(*byte);
                self.has_comment |= self.line[0] == b':';
            }
        }
    }

    fn end_line(&mut self) {
        let bytes = mem::take(&mut self.line);
        let mut line = &bytes[..];
        if !mem::replace(&mut self.is_past_first_line, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        let Ok(line) = str::from_utf8(line) else {
            self.ignored.get_or_insert_with(|| "a line is not UTF-8".to_owned());
            return;
        };
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let problem = match field {
            "data" => {
                self.has_data = true;
                return;
            }
            "id" if value.contains('\0') => "an `id` has the character NUL".to_owned(),
            "retry" if value.is_empty() || value.bytes().any(|byte| !byte.is_ascii_digit()) => {
                "a `retry` is not a number".to_owned()
            }
            // A comment has an empty name.
            "" | "event" | "id" | "retry" => return,
            field => {
                let start: String = field.chars().take(20).collect();
                let start = start.escape_debug().to_string().replace("\\\"", "\"");
                format!("`{start}` is not the name of a field")
            }
        };
        self.ignored.get_or_insert(problem);
    }
}

/// Parses an event stream and records arrival times. It keeps everything it reads, so the caller
/// must limit the size of the stream.
#[derive(Debug, Default)]
pub struct StreamReader {
    parser: Parser,
    lines: LineScanner,
    /// Number of bytes read.
    bytes: u64,
    /// The part of `bytes` that belongs to complete events.
    complete_bytes: u64,
    /// Time of the last read, by the client's clock, in milliseconds since 1970.
    pub last_read: Option<f64>,
    /// The reconnect delay that the stream has set with `retry`.
    pub retry: Option<Duration>,
    /// The events with their arrival times, by the client's clock, in milliseconds since 1970.
    pub messages: Vec<(Message, f64)>,
    /// The arrivals of the probe's events.
    pub arrivals: Vec<Arrival>,
    /// The numbers of the probe's events, in the order of arrival.
    pub numbers: Vec<u32>,
    /// The request as the server received it; `None` if the stream is not a probe.
    pub echo: Option<RequestEcho>,
}

impl StreamReader {
    /// Reads the next bytes of the stream. `now` is their arrival time, by the client's clock, in
    /// milliseconds since 1970.
    pub fn feed(&mut self, chunk: &[u8], now: f64) {
        self.last_read = Some(now);
        self.lines.feed(chunk);
        // Line by line, to attribute the bytes of a chunk to the events in it.
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += line.len() as u64;
            for parsed in self.parser.feed(line) {
                match parsed {
                    Parsed::Retry(retry) => self.retry = Some(retry),
                    Parsed::Message(message) => self.record(message, now),
                }
            }
        }
    }

    fn record(&mut self, message: Message, now: f64) {
        let bytes = self.bytes - self.complete_bytes;
        self.complete_bytes = self.bytes;
        if message.name == ProbeEvent::NAME
            && let Ok(event) = serde_json::from_str::<ProbeEvent>(&message.data)
        {
            self.arrivals.push(Arrival { sent: event.time, arrived: now, bytes });
            self.numbers.push(event.number);
            self.echo = self.echo.take().or(event.request);
        }
        self.messages.push((message, now));
    }

    /// Returns the reason with which the server ended the stream. Returns `None` if it gave none.
    pub fn goodbye(&self) -> Option<GoodbyeReason> {
        let (message, _) = self.messages.iter().find(|(one, _)| one.name == Goodbye::NAME)?;
        serde_json::from_str(&message.data).ok().map(|Goodbye { reason, .. }| reason)
    }

    /// Returns `true` if the stream contains a comment.
    pub fn has_comment(&self) -> bool {
        self.lines.has_comment
    }

    /// Returns the first part of the stream that browsers ignore or change, in words.
    pub fn ignored(&self) -> Option<&str> {
        let is_incomplete = self.messages.is_empty() && self.lines.has_data;
        let incomplete = "no empty line follows the `data`, so there is no event";
        self.lines.ignored.as_deref().or_else(|| is_incomplete.then_some(incomplete))
    }

    /// Returns `true` if the stream contains ids.
    pub fn has_ids(&self) -> bool {
        !self.parser.last_event_id().is_empty()
    }

    /// Returns `true` if exactly this number of the probe's events arrived, in order.
    pub fn is_complete(&self, events: u32) -> bool {
        self.numbers.iter().copied().eq(1..=events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": waterclock probe\nretry: 7\nid: probe-1\nevent: probe\ndata: \
        {\"number\":1,\"time\":5.5,\"padding\":\"\",\"request\":{\"version\":\"HTTP/1.1\",\
        \"method\":\"GET\",\"last_event_id\":null,\"heartbeat_ms\":9,\"headers\":{\"via\":\
        \"1.1 x\"}}}\n\n\
        id: probe-2\nevent: probe\ndata: {\"number\":2,\"time\":6,\"padding\":\"ab\"}\n\n";

    #[test]
    fn a_stream_is_read_whatever_its_chunks() {
        let mut reader = StreamReader::default();
        for chunk in STREAM.as_bytes().chunks(7) {
            reader.feed(chunk, 100.0);
        }
        assert!(reader.has_comment() && reader.has_ids() && reader.is_complete(2));
        assert_eq!(reader.retry, Some(Duration::from_millis(7)));
        let sent: Vec<_> = reader.arrivals.iter().map(|arrival| arrival.sent).collect();
        assert_eq!(sent, [5.5, 6.0]);
        let bytes: u64 = reader.arrivals.iter().map(|arrival| arrival.bytes).sum();
        assert_eq!(bytes, STREAM.len() as u64);
        let echo = reader.echo.unwrap();
        assert_eq!((echo.last_event_id.as_ref(), echo.heartbeat_ms), (None, 9));
        assert_eq!(echo.headers().collect::<Vec<_>>(), [("via", "1.1 x")]);
    }

    #[test]
    fn a_comment_is_a_line_that_begins_with_a_colon() {
        for (stream, expected) in [
            ("data: a:b\n\n", false),
            ("data:\n\nid\n", false),
            (":\n", true),
            ("data: x\n\r: y", true),
            ("data\r:y", true),
        ] {
            let mut reader = StreamReader::default();
            stream.as_bytes().chunks(1).for_each(|chunk| reader.feed(chunk, 0.0));
            assert_eq!(reader.has_comment(), expected, "{stream:?}");
        }
    }

    #[test]
    fn what_browsers_ignore_in_a_stream_is_found() {
        let no_event = "no empty line follows the `data`, so there is no event";
        for (stream, expected) in [
            (&b"\xef\xbb\xbfdata: a\r\n\r\n"[..], None),
            (b": x\rdata\r\r", None),
            (b"id: 1\nid\nevent: x\nretry: 010\ndata: a\0b\n\n", None),
            (b"data: a\n\ndata: not complete yet", None),
            ("data: \u{e9}\n\n".as_bytes(), None),
            (b"data: a\n", Some(no_event)),
            (b"data: a\ndata: b\n", Some(no_event)),
            (b"{\"a\":1}\n\n", Some("`{\"a\"` is not the name of a field")),
            (b"data: a\n\n data: b\n\n", Some("` data` is not the name of a field")),
            (b"Data: a\n\n", Some("`Data` is not the name of a field")),
            (
                b"data: a\n\n\xef\xbb\xbfdata: b\n\n",
                Some("`\\u{feff}data` is not the name of a field"),
            ),
            (b"da\0ta: a\n\n", Some("`da\\0ta` is not the name of a field")),
            (b"retry: 1000x\ndata: a\n\n", Some("a `retry` is not a number")),
            (b"retry\ndata: a\n\n", Some("a `retry` is not a number")),
            (b"id: a\0b\ndata: a\n\n", Some("an `id` has the character NUL")),
            (b"data: a\xff\n\n", Some("a line is not UTF-8")),
        ] {
            let mut reader = StreamReader::default();
            reader.feed(stream, 0.0);
            assert_eq!(reader.ignored(), expected, "{:?}", stream.escape_ascii().to_string());
        }
    }
}

//! A reader of event streams that records arrival times.

use std::time::Duration;

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

/// Detects comments in a stream, which the parser skips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CommentDetector {
    is_found: bool,
    /// `Some` within a line, and then `true` if the line is a comment.
    line: Option<bool>,
}

impl CommentDetector {
    fn feed(&mut self, chunk: &[u8]) {
        for byte in chunk {
            self.line = match byte {
                b'\r' | b'\n' => None,
                _ => Some(self.line.unwrap_or(*byte == b':')),
            };
            self.is_found |= self.line == Some(true);
        }
    }
}

/// Parses an event stream and records arrival times. It keeps everything it reads, so the caller
/// must limit the size of the stream.
#[derive(Debug, Default)]
pub struct StreamReader {
    parser: Parser,
    comment: CommentDetector,
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
        self.comment.feed(chunk);
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
        self.comment.is_found
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
            let mut comment = CommentDetector::default();
            stream.as_bytes().chunks(1).for_each(|chunk| comment.feed(chunk));
            assert_eq!(comment.is_found, expected, "{stream:?}");
        }
    }
}

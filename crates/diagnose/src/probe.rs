//! The probe on the wire, `/diagnose/stream`: its event, and a reader of its stream that notes when what
//! arrived.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use waterclock::{
    notice::{Goodbye, GoodbyeReason, Notice as _},
    sse::{Message, Parsed, Parser},
};

use crate::Arrival;

/// The headers of a request that tell of the path it has come by. None of them is a secret.
pub const PATH_HEADERS: [&str; 40] = [
    "host",
    "connection",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
    "x-unique-id",
    "x-varnish",
    "accept-encoding",
    "cache-control",
    "te",
    "upgrade",
    "cdn-loop",
    "cf-ray",
    "x-amz-cf-id",
    "x-amzn-trace-id",
    "x-amzn-apigateway-api-id",
    "x-cloud-trace-context",
    "x-azure-ref",
    "x-azure-fdid",
    "x-appgw-trace-id",
    "x-original-host",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-internal",
    "fastly-ff",
    "fastly-client-ip",
    "x-request-start",
    "connect-time",
    "x-vercel-id",
    "x-nf-request-id",
    "fly-request-id",
    "fly-forwarded-port",
    "fly-region",
    "front-end-https",
];

/// An event of the probe, as JSON in its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Counted from 1.
    pub number: u32,
    /// When it was written, by the server's clock: milliseconds since 1970.
    pub time: f64,
    /// Random letters that make it as long as was asked for.
    pub padding: String,
    /// What the server saw of the request; in the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Seen>,
}

impl Probe {
    /// The name of its events.
    pub const NAME: &str = "probe";
    /// What its stream begins with, as a comment.
    pub const COMMENT: &str = "waterclock probe";

    /// The id of an event.
    pub fn id(number: u32) -> String {
        format!("probe-{number}")
    }
}

/// What the server saw of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Such as `HTTP/1.1`.
    pub version: String,
    /// Such as `GET`.
    pub method: String,
    /// The header `Last-Event-ID`.
    pub last_event_id: Option<String>,
    /// After how many milliseconds without an event the server's streams have a heartbeat.
    pub heartbeat_ms: u64,
    /// For how many milliseconds the server has been running; older ones do not tell.
    #[serde(default)]
    pub uptime_ms: Option<u64>,
    /// Those of [`PATH_HEADERS`] that there were; several of one name with commas between them.
    pub headers: BTreeMap<String, String>,
}

impl Seen {
    /// The headers, as [`recognise`](crate::recognise) takes them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Whether there was a comment in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comment {
    seen: bool,
    /// Within a line, and whether that is a comment; none at the beginning of one.
    line: Option<bool>,
}

impl Comment {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, chunk: &[u8]) {
        for byte in chunk {
            self.line = match byte {
                b'\r' | b'\n' => None,
                _ => Some(self.line.unwrap_or(*byte == b':')),
            };
            self.seen |= self.line == Some(true);
        }
    }

    /// Whether there was one.
    pub fn is_seen(self) -> bool {
        self.seen
    }
}

/// Reads a stream and notes when what arrived. It keeps all that it reads: whoever feeds it bounds that.
#[derive(Debug, Default)]
pub struct Reader {
    parser: Parser,
    comment: Comment,
    /// How many bytes have come.
    bytes: u64,
    /// How many of them had come when the last event was complete.
    counted: u64,
    /// What the server tells a client to wait.
    pub retry: Option<Duration>,
    /// Each event, and when it arrived, by the client's clock: milliseconds since 1970.
    pub messages: Vec<(Message, f64)>,
    /// Those of the probe.
    pub arrivals: Vec<Arrival>,
    /// What the server saw of the request, if it is a probe.
    pub seen: Option<Seen>,
    /// The numbers of the probe's events, in the order in which they came.
    pub numbers: Vec<u32>,
}

impl Reader {
    /// Takes the next bytes of the stream, which arrived just now by the client's clock: milliseconds since
    /// 1970.
    pub fn feed(&mut self, chunk: &[u8], now: f64) {
        self.comment.feed(chunk);
        // By line, so that the bytes of events that came in one chunk are counted to each.
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += line.len() as u64;
            for parsed in self.parser.feed(line) {
                match parsed {
                    Parsed::Retry(retry) => self.retry = Some(retry),
                    Parsed::Message(message) => self.message(message, now),
                }
            }
        }
    }

    fn message(&mut self, message: Message, now: f64) {
        let bytes = self.bytes - self.counted;
        self.counted = self.bytes;
        if message.name == Probe::NAME
            && let Ok(probe) = serde_json::from_str::<Probe>(&message.data)
        {
            self.arrivals.push(Arrival { sent: probe.time, arrived: now, bytes });
            self.numbers.push(probe.number);
            self.seen = self.seen.take().or(probe.request);
        }
        self.messages.push((message, now));
    }

    /// Why the server has ended the stream, if it has said so.
    pub fn goodbye(&self) -> Option<GoodbyeReason> {
        let (message, _) = self.messages.iter().find(|(one, _)| one.name == Goodbye::NAME)?;
        serde_json::from_str(&message.data).ok().map(|Goodbye { reason, .. }| reason)
    }

    /// Whether there was a comment.
    pub fn has_comment(&self) -> bool {
        self.comment.is_seen()
    }

    /// Whether its events have had ids.
    pub fn has_ids(&self) -> bool {
        !self.parser.last_event_id().is_empty()
    }

    /// Whether the probe's events are all there, in order, if there should be so many.
    pub fn is_complete(&self, events: u32) -> bool {
        self.numbers.iter().copied().eq(1..=events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": waterclock probe\nretry: 7\nid: probe-1\nevent: probe\ndata: \
        {\"number\":1,\"time\":5.5,\"padding\":\"\",\"request\":{\"version\":\"HTTP/1.1\",\"method\":\"GET\",\
        \"last_event_id\":null,\"heartbeat_ms\":9,\"headers\":{\"via\":\"1.1 x\"}}}\n\n\
        id: probe-2\nevent: probe\ndata: {\"number\":2,\"time\":6,\"padding\":\"ab\"}\n\n";

    #[test]
    fn what_a_reader_notes() {
        let mut reader = Reader::default();
        for chunk in STREAM.as_bytes().chunks(7) {
            reader.feed(chunk, 100.0);
        }
        assert!(reader.has_comment() && reader.has_ids() && reader.is_complete(2));
        assert_eq!(reader.retry, Some(Duration::from_millis(7)));
        let sent: Vec<_> = reader.arrivals.iter().map(|arrival| arrival.sent).collect();
        assert_eq!(sent, [5.5, 6.0]);
        let bytes: u64 = reader.arrivals.iter().map(|arrival| arrival.bytes).sum();
        assert_eq!(bytes, STREAM.len() as u64);
        let seen = reader.seen.unwrap();
        assert_eq!((seen.last_event_id.as_ref(), seen.heartbeat_ms), (None, 9));
        assert_eq!(seen.headers().collect::<Vec<_>>(), [("via", "1.1 x")]);
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
            let mut comment = Comment::default();
            stream.as_bytes().chunks(1).for_each(|chunk| comment.feed(chunk));
            assert_eq!(comment.is_seen(), expected, "{stream:?}");
        }
    }

    #[test]
    fn no_header_of_the_path_is_a_secret() {
        for name in PATH_HEADERS {
            assert!(!["cookie", "authorization", "proxy-authorization"].contains(&name));
            assert_eq!(name, name.to_lowercase());
        }
    }
}

//! The path between a client and an SSE server: what was measured of it, what that means, and what mends
//! it. It measures nothing itself, so the terminal and the page share it.
//!
//! A [`run`] has a [`Client`] ask for the [`probe`](Probe), has a [`Reader`] take in what comes, and gives what was
//! observed to the [`judge`] of each check, each of which tells a [`Finding`]. All of them are a [`Report`].
//!
//! ```
//! use waterclock_diagnose::{Fault, Intermediary, Protocol, Verdict, judge, mend};
//!
//! let finding = judge::protocol(Some(Protocol::Http2), Some(Protocol::Http10));
//! assert_eq!(finding.verdict, Verdict::Warning);
//! assert_eq!(finding.measured, "HTTP/2 to here, HTTP/1.0 to the server");
//! assert_eq!(finding.faults, [Fault::Http10Upstream]);
//! let mend = mend(Fault::Http10Upstream, Intermediary::Nginx);
//! assert!(mend.is_some_and(|text| text.starts_with("`proxy_http_version 1.1;")));
//! ```
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | `run` | what is asked for, one after the other, and which judge is given what came |
//! | `client` | who asks, in its own way: the terminal or a page |
//! | `probe` | the probe's event on the wire, and a reader of its stream |
//! | [`judge`] | what the observations of each check mean |
//! | `delivery` | the one check that takes more thought: whether events arrive as they are sent |
//! | `intermediary` | which proxies there are, and what they are recognised by |
//! | `fault` | what can be wrong |
//! | `mend` | the table of the settings that mend it |
//! | `report` | all findings, as text and as JSON |

mod client;
mod delivery;
mod fault;
mod intermediary;
pub mod judge;
mod mend;
mod probe;
mod report;
mod run;

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

pub use client::{Answer, Client, End, Method, NoAnswer, PATIENCE, Question};
pub use delivery::{Arrival, Delivery, PACES, Pace};
pub use fault::Fault;
pub use intermediary::{Intermediary, Recognised, recognise};
pub use mend::{Mend, mend, mends};
pub use probe::{Comment, PATH_HEADERS, Probe, Reader, Seen};
pub use report::{Path, Report};
pub use run::{Plan, run};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The versions of HTTP at both ends.
    Protocol,
    /// How many streams can be open.
    StreamsAtOnce,
    /// How long the first event takes.
    FirstEvent,
    /// Whether events arrive as they are sent.
    Delivery,
    /// Whether comments, `retry` and ids get through.
    Fields,
    /// The headers of the answer.
    Headers,
    /// Whether a stream survives a silence.
    Idle,
    /// Whether `Last-Event-ID` reaches the server.
    Resume,
    /// Whether a GET that lasts is treated as a POST is.
    Post,
    /// Whether a service worker is between the page and the network.
    ServiceWorker,
    /// How far the clocks are apart.
    Clock,
    /// How long a question and its answer take.
    RoundTrip,
}

impl Check {
    /// All that there are, in the order of a report.
    pub const ALL: [Self; 12] = [
        Self::Protocol,
        Self::StreamsAtOnce,
        Self::FirstEvent,
        Self::Delivery,
        Self::Fields,
        Self::Headers,
        Self::Idle,
        Self::Resume,
        Self::Post,
        Self::ServiceWorker,
        Self::Clock,
        Self::RoundTrip,
    ];

    /// Its name, which stays.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::StreamsAtOnce => "streams-at-once",
            Self::FirstEvent => "first-event",
            Self::Delivery => "delivery",
            Self::Fields => "fields",
            Self::Headers => "headers",
            Self::Idle => "idle",
            Self::Resume => "resume",
            Self::Post => "post",
            Self::ServiceWorker => "service-worker",
            Self::Clock => "clock",
            Self::RoundTrip => "round-trip",
        }
    }

    /// What it asks, in a sentence.
    pub fn question(self) -> &'static str {
        match self {
            Self::Protocol => "Which versions of HTTP are spoken, here and at the server?",
            Self::StreamsAtOnce => "How many streams can be open?",
            Self::FirstEvent => "Does the first event arrive at once?",
            Self::Delivery => "Do events arrive as they are sent, or in clumps?",
            Self::Fields => "Do they get through?",
            Self::Headers => "Is the answer as it was sent: its type, not compressed, not cached?",
            Self::Idle => "How long may a stream be silent before something cuts it?",
            Self::Resume => "Does it reach the server when a stream is resumed?",
            Self::Post => "Is a GET that lasts treated as a POST is?",
            Self::ServiceWorker => "Does one stand between the page and the network?",
            Self::Clock => "How far are they apart?",
            Self::RoundTrip => "How long do a question and its answer take?",
        }
    }

    /// What it looks at, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Protocol => "Protocol",
            Self::StreamsAtOnce => "Streams at once",
            Self::FirstEvent => "First event",
            Self::Delivery => "Delivery",
            Self::Fields => "Comments, retry and ids",
            Self::Headers => "Headers",
            Self::Idle => "Silence",
            Self::Resume => "Last-Event-ID",
            Self::Post => "GET and POST",
            Self::ServiceWorker => "Service worker",
            Self::Clock => "Clocks",
            Self::RoundTrip => "Round trip",
        }
    }
}

/// What was found, from the least to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Could not tell.
    Unknown,
    /// As it should be.
    Good,
    /// It works, but not as well as it could.
    Warning,
    /// Streams do not work well, or not at all.
    Bad,
}

impl Verdict {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Good, Self::Warning, Self::Bad];

    /// Its name, which stays.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Unknown => "could not tell",
            other => other.as_str(),
        }
    }
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.0, or even older.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
}

impl Protocol {
    /// Reads what HTTP calls it (`HTTP/1.1`), what Rust's crate `http` does (`HTTP/2.0`), or what a browser does
    /// in `nextHopProtocol` (`h2`).
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http/0.9" | "http/1.0" => Some(Self::Http10),
            "http/1.1" => Some(Self::Http11),
            "http/2" | "http/2.0" | "h2" | "h2c" => Some(Self::Http2),
            "http/3" | "http/3.0" | "h3" => Some(Self::Http3),
            _ => None,
        }
    }

    /// As HTTP calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }
}

macro_rules! serialized_by_name {
    ($($name:ty),*) => {
        $(
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(self.as_str())
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(self.as_str())
                }
            }
        )*
    };
}

serialized_by_name!(Check, Verdict, Protocol, Fault, Intermediary);

/// What a check has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// What it means.
    pub verdict: Verdict,
    /// What was measured, in words with units; or why nothing could be.
    pub measured: String,
    /// What is wrong; [`mends`] tells what is to be done.
    pub faults: Vec<Fault>,
}

impl Finding {
    /// All is well.
    pub fn good(check: Check, measured: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, measured: measured.into(), faults: Vec::new() }
    }

    /// Something is wrong.
    pub fn wrong(
        check: Check,
        verdict: Verdict,
        measured: impl Into<String>,
        faults: impl Into<Vec<Fault>>,
    ) -> Self {
        Self { check, verdict, measured: measured.into(), faults: faults.into() }
    }

    /// Could not tell, and why.
    pub fn unknown(check: Check, why: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Unknown, measured: why.into(), faults: Vec::new() }
    }
}

/// A time in words: `20 ms`, `1.5 s`, `4 min`.
pub fn time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..9_950.0 if time.subsec_millis() != 0 => format!("{:.1} s", millis / 1000.0),
        ..119_500.0 => format!("{:.0} s", millis / 1000.0),
        _ => format!("{:.0} min", millis / 60_000.0),
    }
}

/// So many milliseconds; none if they are negative, or no number.
pub fn duration(millis: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}

/// A number of bytes in words: `300 bytes`, `4.1 kB`, `128 kB`. A kB is 1024 bytes, as the settings of proxies
/// have it.
pub fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
    let kilo = bytes as f64 / 1024.0;
    match kilo {
        ..0.75 => format!("{bytes} bytes"),
        ..9.95 => format!("{kilo:.1} kB"),
        _ => format!("{kilo:.0} kB"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_kebab_case_and_each_its_own() {
        let checks = Check::ALL.map(Check::as_str);
        let verdicts = Verdict::ALL.map(Verdict::as_str);
        let faults = Fault::ALL.map(Fault::as_str);
        let intermediaries = Intermediary::ALL.map(Intermediary::as_str);
        for names in [&checks[..], &verdicts, &faults, &intermediaries] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
            for name in names {
                let is_kebab = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
                assert!(name.bytes().all(is_kebab), "{name}");
            }
        }
    }

    #[test]
    fn the_names_are_those_that_are_written_down() {
        let document = include_str!("../../../docs/diagnose.md");
        let names = Check::ALL.map(Check::as_str).into_iter();
        let names = names.chain(Verdict::ALL.map(Verdict::as_str));
        let names = names.chain(Fault::ALL.map(Fault::as_str));
        for name in names.chain(Intermediary::ALL.map(Intermediary::as_str)) {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn times_and_bytes_in_words() {
        let times = [0, 9, 340, 1000, 1500, 9940, 15_000, 119_000, 240_000];
        assert_eq!(
            times.map(|millis| time(Duration::from_millis(millis))),
            ["0.0 ms", "9.0 ms", "340 ms", "1 s", "1.5 s", "9.9 s", "15 s", "119 s", "4 min"]
        );
        let sizes = [0, 700, 1024, 4200, 16_384, 131_072];
        assert_eq!(
            sizes.map(bytes),
            ["0 bytes", "700 bytes", "1.0 kB", "4.1 kB", "16 kB", "128 kB"]
        );
    }

    #[test]
    fn protocols_by_all_their_names() {
        for (text, expected) in [
            ("HTTP/1.0", Protocol::Http10),
            ("http/1.1", Protocol::Http11),
            ("HTTP/2.0", Protocol::Http2),
            ("h2", Protocol::Http2),
            ("h3", Protocol::Http3),
        ] {
            assert_eq!(Protocol::parse(text), Some(expected));
            assert_eq!(Protocol::parse(expected.as_str()), Some(expected));
        }
        assert_eq!(Protocol::parse(""), None);
    }
}

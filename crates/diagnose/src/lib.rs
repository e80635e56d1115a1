//! A diagnosis of the network path between a client and a server of Server-Sent Events: which
//! proxy holds events back, cuts idle streams or drops headers, and which setting fixes it.
//!
//! The crate has the rules only. It opens no connection and has no clock of its own, so it also
//! compiles to WebAssembly. A program implements [`ProbeClient`] with its HTTP client, and
//! [`diagnose`] then measures the path with the help of a Waterclock server, whose
//! `/diagnose/stream` sends events on a requested [`Schedule`].
//!
//! The rules also work on observations of your own. Here, a proxy has compressed a stream:
//!
//! ```
//! use waterclock_diagnose::{Fault, Verdict, assess, detect_intermediaries, remedies};
//!
//! let headers = [
//!     ("content-type", "text/event-stream"),
//!     ("content-encoding", "gzip"),
//!     ("server", "nginx/1.22.1"),
//! ];
//! let finding = assess::headers(headers, false, false);
//! assert_eq!(finding.verdict, Verdict::Bad);
//! assert_eq!(finding.faults, [Fault::Compression]);
//! assert_eq!(finding.measured, "compressed with `gzip` if the client accepts it");
//!
//! let path = detect_intermediaries(headers, []);
//! let remedy = &remedies(Fault::Compression, &path)[0];
//! assert!(remedy.text.starts_with("Set `gzip off;` in the location"));
//! ```
//!
//! A [`StreamReader`] records when events arrive. If they arrive in batches although they were
//! sent one by one, something buffers the stream:
//!
//! ```
//! use waterclock_diagnose::{DeliveryTrace, ProbeEvent, StreamReader};
//!
//! let mut reader = StreamReader::default();
//! for number in 1..=20 {
//!     let sent = 100.0 * f64::from(number);
//!     let event = format!(
//!         "event: {}\ndata: {{\"number\":{number},\"time\":{sent},\"padding\":\"\"}}\n\n",
//!         ProbeEvent::NAME,
//!     );
//!     // Each batch of ten events arrives when its last event is sent.
//!     let arrived = (sent / 1000.0).ceil() * 1000.0;
//!     reader.feed(event.as_bytes(), arrived);
//! }
//! assert!(DeliveryTrace::is_held_back(&reader.arrivals));
//! ```
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `diagnosis` | [`diagnose`]: the requests for each check, in order |
//! | `client` | [`ProbeClient`], its requests and responses |
//! | `probe` | the probe's events on the wire |
//! | `stream_reader` | [`StreamReader`]: parses a stream and records arrival times |
//! | [`assess`] | the assessments: from the observations of a check to its [`Finding`] |
//! | [`event_source`] | the rules by which a browser accepts a response |
//! | `delivery` | [`DeliveryTrace`]: the assessment that finds buffers |
//! | `intermediary` | the proxies, and the headers that reveal them |
//! | `check`, `fault`, `finding`, `protocol` | the vocabulary |
//! | `remedy` | the table of settings that fix a fault |
//! | `report` | [`Report`]: all findings, as text and as JSON |
//! | `format` | durations and sizes in words |

pub mod assess;
mod check;
mod client;
mod delivery;
mod diagnosis;
pub mod event_source;
mod fault;
mod finding;
mod format;
mod intermediary;
mod probe;
mod protocol;
mod remedy;
mod report;
mod stream_reader;

pub use check::Check;
pub use client::{
    CutKind, FetchError, Objection, ProbeClient, ProbeMethod, ProbeRequest, RESPONSE_TIMEOUT,
    Redirects, Schedule, StreamEnd, StreamResponse,
};
pub use delivery::DeliveryTrace;
pub use diagnosis::{DiagnosisOptions, ServerLost, diagnose};
pub use fault::Fault;
pub use finding::{Finding, Verdict};
pub use format::{duration_from_millis, format_bytes, format_duration};
pub use intermediary::{Detection, Intermediary, detect_intermediaries};
pub use probe::{PATH_HEADERS, ProbeEvent, RequestEcho};
pub use protocol::Protocol;
pub use remedy::{Remedy, remedies, remedy_for};
pub use report::{PathInfo, Report};
pub use stream_reader::{Arrival, StreamReader};

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

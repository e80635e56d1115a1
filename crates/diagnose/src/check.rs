//! The checks of a diagnosis.

use serde::Serialize;
use strum::{Display, IntoStaticStr, VariantArray};

/// One aspect of the path that a diagnosis tests. The names in kebab case are stable.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Display,
    IntoStaticStr,
    VariantArray,
    Serialize,
)]
#[strum(serialize_all = "kebab-case")]
#[serde(into = "&'static str")]
pub enum Check {
    /// The versions of HTTP at the client and at the server.
    Protocol,
    /// The acceptance of the response by a browser's `EventSource`.
    EventSource,
    /// The number of streams that can be open at the same time.
    #[strum(serialize = "streams-at-once")]
    ConcurrentStreams,
    /// The time from the request to the first event.
    FirstEvent,
    /// The arrival of events at the pace at which they are sent.
    Delivery,
    /// The delivery of comments, `retry` and ids.
    Fields,
    /// The headers of the response.
    Headers,
    /// The time for which a stream can stay idle.
    Idle,
    /// The delivery of `Last-Event-ID` to the server.
    Resume,
    /// The treatment of a long GET, compared with a POST.
    Post,
    /// The presence of a service worker between the page and the network.
    ServiceWorker,
    /// The offset between the clocks of the client and the server.
    Clock,
    /// The round-trip time.
    RoundTrip,
}

impl Check {
    /// All checks, in the order of a report.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// Returns the name in kebab case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the heading of the check in a report.
    pub fn title(self) -> &'static str {
        match self {
            Self::Protocol => "Protocol",
            Self::EventSource => "EventSource",
            Self::ConcurrentStreams => "Concurrent streams",
            Self::FirstEvent => "First event",
            Self::Delivery => "Delivery",
            Self::Fields => "Comments, retry and ids",
            Self::Headers => "Headers",
            Self::Idle => "Idle timeout",
            Self::Resume => "Last-Event-ID",
            Self::Post => "GET and POST",
            Self::ServiceWorker => "Service worker",
            Self::Clock => "Clock offset",
            Self::RoundTrip => "Round-trip time",
        }
    }

    /// Returns the question that the check answers, as one sentence.
    pub fn question(self) -> &'static str {
        match self {
            Self::Protocol => "Which HTTP versions do the client and the server see?",
            Self::EventSource => "Does a browser's EventSource accept the response?",
            Self::ConcurrentStreams => "How many streams can be open at the same time?",
            Self::FirstEvent => "Does the first event arrive without delay?",
            Self::Delivery => "Do events arrive as they are sent, or in batches?",
            Self::Fields => "Do comments, retry and ids reach the client?",
            Self::Headers => {
                "Does the response have the right content type, without compression or caching?"
            }
            Self::Idle => "How long can a stream stay idle before something closes it?",
            Self::Resume => "Does Last-Event-ID reach the server when a stream is resumed?",
            Self::Post => "Is a long GET treated like a POST?",
            Self::ServiceWorker => "Is there a service worker between the page and the network?",
            Self::Clock => "How far apart are the clocks of this client and the server?",
            Self::RoundTrip => "How long do a request and its response take?",
        }
    }
}

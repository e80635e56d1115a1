//! The faults that a path can have.

use serde::Serialize;
use strum::{Display, IntoStaticStr, VariantArray};

/// A fault of the path. The names in kebab case are stable.
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
pub enum Fault {
    /// The response uses HTTP/1.0, which cannot stream over a persistent connection.
    #[strum(serialize = "http-1.0")]
    Http10,
    /// The server receives the request over HTTP/1.0.
    #[strum(serialize = "http-1.0-upstream")]
    Http10Upstream,
    /// The status is not 200, so a browser gives up.
    Status,
    /// A redirect leads nowhere that a browser goes.
    Redirect,
    /// A page over HTTPS must not read a stream over HTTP.
    MixedContent,
    /// The response does not allow pages of another origin to read it.
    Cors,
    /// The browser opens only six connections to a host over HTTP/1.1.
    SixConnections,
    /// Something limits the number of concurrent streams.
    ConnectionLimit,
    /// The first event is late.
    LateFirstEvent,
    /// Each stream ends as soon as it was opened, or breaks.
    EndsAtOnce,
    /// Events are held back in a buffer.
    Buffering,
    /// Events are delayed for a moment, to be sent together.
    Coalescing,
    /// Some events did not arrive, or arrived out of order.
    EventsLost,
    /// Comments do not arrive.
    CommentsLost,
    /// `retry` does not arrive.
    RetryLost,
    /// Ids do not arrive.
    IdsLost,
    /// The stream has parts that browsers ignore or change.
    Malformed,
    /// The stream is compressed, which holds events back.
    Compression,
    /// The content type is not `text/event-stream`, so browsers reject the stream.
    ContentType,
    /// `Cache-Control` no longer forbids to cache and to transform the stream.
    CacheControl,
    /// The same response was served twice.
    Cached,
    /// The stream is cut while it is idle.
    IdleTimeout,
    /// `Last-Event-ID` does not reach the server.
    LastEventIdLost,
    /// POST requests are refused.
    PostRefused,
    /// Events of a GET are held back, those of a POST are not.
    GetUnlikePost,
    /// A service worker answers the page's requests.
    ServiceWorker,
    /// The clocks are far apart.
    ClockOff,
}

impl Fault {
    /// All faults, in the order of the checks that find them.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// Returns the name in kebab case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns a description of a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Http10 => "the response uses HTTP/1.0",
            Self::Http10Upstream => "the server receives the request over HTTP/1.0",
            Self::Status => "the status is not 200",
            Self::Redirect => "a redirect cannot be followed",
            Self::MixedContent => "browsers block HTTP for a page over HTTPS",
            Self::Cors => "pages of another origin may not read the stream",
            Self::SixConnections => "the browser opens only six connections over HTTP/1.1",
            Self::ConnectionLimit => "something limits the number of concurrent streams",
            Self::LateFirstEvent => "the first event is late",
            Self::EndsAtOnce => "streams end as soon as they were opened",
            Self::Buffering => "events are held back in a buffer",
            Self::Coalescing => "events are delayed to be sent together",
            Self::EventsLost => "events are lost",
            Self::CommentsLost => "comments are lost",
            Self::RetryLost => "`retry` is lost",
            Self::IdsLost => "ids are lost",
            Self::Malformed => "browsers ignore or change a part of the stream",
            Self::Compression => "the stream is compressed",
            Self::ContentType => "browsers do not accept the content type",
            Self::CacheControl => "`Cache-Control` was changed",
            Self::Cached => "a response came from a cache",
            Self::IdleTimeout => "an idle stream is cut",
            Self::LastEventIdLost => "`Last-Event-ID` does not reach the server",
            Self::PostRefused => "POST requests are refused",
            Self::GetUnlikePost => "a long GET is held back, a POST is not",
            Self::ServiceWorker => "a service worker answers the page's requests",
            Self::ClockOff => "the clocks are far apart",
        }
    }
}

//! The client side of the diagnosis: the requests for the probe, the responses, and the trait of
//! the HTTP client that carries them.

use std::time::Duration;

use strum::Display;

use crate::{
    check::Check,
    fault::Fault,
    finding::{Finding, Verdict},
    format::{duration_from_millis, format_duration},
    probe::RequestEcho,
    stream_reader::StreamReader,
};

/// Timeout of a response, in addition to the planned duration of its stream.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP client with which [`diagnose`](crate::diagnose) measures the path. A terminal and a page
/// each have their own.
pub trait ProbeClient {
    /// `true` for a browser, which limits its own connections.
    const IS_BROWSER: bool;

    /// Requests the probe and reads the response until its end, or for
    /// [`timeout`](ProbeRequest::timeout) at most. Calls `on_read` after each read. If the future
    /// is dropped early, the client must close the stream.
    fn fetch(
        &self,
        request: ProbeRequest,
        on_read: impl Fn(&StreamReader),
    ) -> impl Future<Output = Result<StreamResponse, FetchError>>;

    /// Resumes a stream after the probe's first event, and returns that request as the server
    /// received it. Returns `None` if the server does not respond within [`RESPONSE_TIMEOUT`].
    fn resume(&self) -> impl Future<Output = Option<RequestEcho>>;

    /// Waits for a duration.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Called when checks begin. Each of them ends with a call of
    /// [`on_finding`](Self::on_finding).
    fn on_start(&self, checks: &[Check]);

    /// Called with the result of a check.
    fn on_finding(&self, finding: Finding);
}

/// The method of a [`ProbeRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeMethod {
    /// GET, as `EventSource` uses it.
    Get,
    /// POST, as clients use it that cannot stream over GET.
    Post,
}

/// A request for the probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The method of the request.
    pub method: ProbeMethod,
    /// The events to be sent.
    pub schedule: Schedule,
    /// `true` if the request accepts compression. A terminal measures only headers through it; a
    /// browser always accepts it.
    pub accepts_compression: bool,
    /// A text that makes the URL unique. It bypasses caches, and the browser's own queue of
    /// requests to the same URL.
    pub nonce: Option<String>,
}

impl ProbeRequest {
    /// Creates a GET request.
    pub fn get(schedule: Schedule) -> Self {
        Self { method: ProbeMethod::Get, schedule, accepts_compression: false, nonce: None }
    }

    /// Returns the query of the URL, without `?`.
    pub fn query(&self) -> String {
        let Schedule { events, interval, padding } = self.schedule;
        let nonce = self.nonce.as_ref().map(|nonce| format!("&nonce={nonce}"));
        let nonce = nonce.unwrap_or_default();
        format!("events={events}&every={}&bytes={padding}{nonce}", interval.as_millis())
    }

    /// Returns the time limit for the whole response.
    pub fn timeout(&self) -> Duration {
        self.schedule.duration() + RESPONSE_TIMEOUT
    }
}

/// The events that the probe is asked to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Number of events.
    pub events: u32,
    /// Time from one event to the next.
    pub interval: Duration,
    /// Size of the padding in each event, in bytes.
    pub padding: u32,
}

impl Schedule {
    /// A single event, sent immediately.
    pub const SINGLE: Self = Self { events: 1, interval: Duration::ZERO, padding: 0 };
    /// A single event that is long enough to be compressed: Caddy compresses only responses whose
    /// first write has 512 bytes or more.
    pub const COMPRESSIBLE: Self = Self { padding: 4096, ..Self::SINGLE };
    /// Three seconds of small events, for the streams that are open at the same time. They are
    /// never idle for long, because an idle stream might be cut.
    pub const CONCURRENT: Self =
        Self { events: 13, interval: Duration::from_millis(250), padding: 0 };
    /// Two seconds of small events.
    pub const SLOW: Self = Self { events: 20, interval: Duration::from_millis(100), padding: 0 };
    /// Two seconds of large events: with the text around the padding, 1 kB each.
    pub const BURST: Self = Self { events: 128, interval: Duration::from_millis(15), padding: 910 };
    /// Twelve seconds of small events.
    pub const LONG: Self = Self { events: 13, interval: Duration::from_secs(1), padding: 0 };

    /// Returns the time from the first to the last event.
    pub fn duration(self) -> Duration {
        self.interval * self.events.saturating_sub(1)
    }
}

/// A response, and all that was read of its stream. Times are by the client's clock, in
/// milliseconds since 1970.
#[derive(Debug)]
pub struct StreamResponse {
    /// The status code.
    pub status: u16,
    /// The headers that are text and that the client has access to.
    pub headers: Vec<(String, String)>,
    /// The redirects on the way to the response.
    pub redirects: Redirects,
    /// Time of the request.
    pub requested_at: f64,
    /// Time at which the head of the response arrived.
    pub responded_at: f64,
    /// Time at which reading ended.
    pub ended_at: f64,
    /// The reason why reading ended.
    pub end: StreamEnd,
    /// The content of the stream.
    pub reader: StreamReader,
}

impl StreamResponse {
    /// Returns the time from the request to the end of reading.
    pub fn duration(&self) -> Duration {
        duration_from_millis(self.ended_at - self.requested_at).unwrap_or_default()
    }

    /// Describes the end of a stream that the client did not stop: how, and when. Returns `None`
    /// if it was still open.
    pub fn describe_end(&self) -> Option<String> {
        let how = match &self.end {
            StreamEnd::Stopped | StreamEnd::TimedOut => return None,
            StreamEnd::Complete => "the stream ended cleanly".to_owned(),
            StreamEnd::Cut(kind) => kind.to_string(),
        };
        Some(format!("{how} after {}", format_duration(self.duration())))
    }

    /// Returns the headers as [`detect_intermediaries`](crate::detect_intermediaries) takes them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// The redirects on the way to a response. A browser that measures its own path has none to report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// The statuses of the redirects that were followed.
    pub statuses: Vec<u16>,
    /// The reason why a browser would not read the response.
    pub objection: Option<Objection>,
}

/// The reason why a browser would not follow a redirect, or would not let a page read a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The fault.
    pub fault: Fault,
    /// The rating.
    pub verdict: Verdict,
    /// The reason in words.
    pub reason: String,
}

impl Objection {
    /// Returns the finding for a request that got no further.
    pub fn finding(&self) -> Finding {
        Finding::new(Check::EventSource, self.verdict, &*self.reason, [self.fault])
    }
}

/// The reason why reading a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The client stopped, because it has read as much as it needs.
    Stopped,
    /// The response is complete.
    Complete,
    /// The stream broke.
    Cut(CutKind),
    /// The timeout elapsed.
    TimedOut,
}

/// The way in which a stream broke. A browser does not tell its pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Display)]
pub enum CutKind {
    /// The way is not known.
    #[default]
    #[strum(to_string = "the connection broke")]
    Unknown,
    /// TCP reset.
    #[strum(to_string = "the connection was reset")]
    Reset,
    /// The connection was closed before the last chunk, or before all of `Content-Length`.
    #[strum(to_string = "the connection was closed in the middle of the response")]
    Incomplete,
    /// The chunks of the response do not follow RFC 9112.
    #[strum(to_string = "the chunks of the response became invalid")]
    InvalidChunk,
    /// The connection was closed without the end of TLS, as an attacker may also do.
    #[strum(to_string = "the connection was closed without TLS's `close_notify`")]
    NoCloseNotify,
    /// `RST_STREAM` of HTTP/2, with the name of its error code.
    #[strum(to_string = "the HTTP/2 stream was reset (`{0}`)")]
    StreamReset(String),
    /// `GOAWAY` of HTTP/2, with the name of its error code.
    #[strum(to_string = "the HTTP/2 connection was ended (`GOAWAY`, `{0}`)")]
    GoAway(String),
}

/// The reason why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No connection could be opened.
    #[error("the connection failed")]
    Unreachable,
    /// The connection broke this long after the request. A client that cannot distinguish this from
    /// `Unreachable` must report this.
    #[error("the connection broke")]
    Cut(Duration),
    /// No response arrived within the timeout.
    #[error("the request timed out")]
    TimedOut,
}

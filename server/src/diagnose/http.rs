//! The HTTP client of `waterclock diagnose`.

use std::{
    error::Error as _,
    io::{self, ErrorKind},
    iter,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url, Version,
    header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL},
    redirect::Policy,
};
use tokio::time::{Instant, timeout_at};
use waterclock::sse;
use waterclock_diagnose::{
    CutKind, FetchError, StreamEnd, StreamReader, StreamResponse, duration_from_millis,
};

use super::args::Diagnose;

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes read of a response, because a stream may be endless.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Sends requests, with the headers that all of them have.
pub(super) struct HttpClient {
    client: Client,
    clock: MonotonicClock,
}

/// A clock of milliseconds since 1970 that ignores changes of the system's clock.
#[derive(Clone, Copy)]
struct MonotonicClock {
    started: Instant,
    started_at: f64,
}

impl MonotonicClock {
    fn start() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_at: since.as_secs_f64() * 1000.0 }
    }

    fn now(self) -> f64 {
        self.started_at + self.started.elapsed().as_secs_f64() * 1000.0
    }
}

/// The reason why there is no response.
pub(super) enum RequestError {
    /// No connection could be opened, or it broke this long after the request.
    Broken(reqwest::Error, Duration),
    /// No response arrived within the timeout.
    TimedOut,
}

impl RequestError {
    /// Returns the error in the terms of the diagnosis.
    pub(super) fn kind(&self) -> FetchError {
        match self {
            Self::Broken(error, _) if error.is_connect() => FetchError::Unreachable,
            Self::Broken(_, after) => FetchError::Cut(*after),
            Self::TimedOut => FetchError::TimedOut,
        }
    }
}

/// A response, and the facts about it that only a terminal has access to.
pub(super) struct Exchange {
    pub(super) response: StreamResponse,
    pub(super) version: Version,
    /// The URL after redirects.
    pub(super) url: Url,
    /// The longest time between two chunks, in milliseconds.
    pub(super) longest_pause: f64,
    /// Time from the last chunk to the end, in milliseconds.
    pub(super) last_pause: f64,
}

/// Follows redirects. With headers, which may be secrets, only within the origin that they are for.
fn redirect_policy(has_headers: bool) -> Policy {
    Policy::custom(move |attempt| {
        let first = attempt.previous().first().map(Url::origin);
        if has_headers && first != Some(attempt.url().origin()) {
            let origin = attempt.url().origin().ascii_serialization();
            let message = format!(
                "it redirects to {origin}, and your headers are not sent to another origin"
            );
            return attempt.error(message);
        }
        Policy::default().redirect(attempt)
    })
}

/// Returns the way in which a response broke, given the error of its body.
fn cut_kind(error: &reqwest::Error) -> CutKind {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    let kinds = causes.filter_map(|cause| {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let Some(code) = error.reason().map(|reason| format!("{reason:?}")) else {
                // h2 reports the end of the connection as a broken pipe.
                let is_reset = error.get_io()?.kind() == ErrorKind::ConnectionReset;
                return Some(if is_reset { CutKind::Reset } else { CutKind::Incomplete });
            };
            return Some(if error.is_go_away() {
                CutKind::GoAway(code)
            } else {
                CutKind::StreamReset(code)
            });
        }
        let error = cause.downcast_ref::<io::Error>()?;
        match error.kind() {
            ErrorKind::ConnectionReset => Some(CutKind::Reset),
            // Of rustls, which has no error of its own for it.
            ErrorKind::UnexpectedEof if error.to_string().contains("close_notify") => {
                Some(CutKind::NoCloseNotify)
            }
            ErrorKind::UnexpectedEof => Some(CutKind::Incomplete),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => Some(CutKind::InvalidChunk),
            _ => None,
        }
    });
    kinds.last().unwrap_or_default()
}

impl HttpClient {
    pub(super) fn new(options: &Diagnose) -> reqwest::Result<Self> {
        let mut client = Client::builder()
            .user_agent(concat!("waterclock/", env!("CARGO_PKG_VERSION")))
            .default_headers(options.headers.iter().cloned().collect())
            .redirect(redirect_policy(!options.headers.is_empty()))
            .connect_timeout(CONNECT_TIMEOUT)
            // A connection that is idle for longer may be dead without a sign of it.
            .pool_idle_timeout(Duration::from_secs(2))
            .tls_danger_accept_invalid_certs(options.insecure);
        if options.http1 {
            client = client.http1_only();
        } else if options.http2 {
            client = client.http2_prior_knowledge();
        }
        Ok(Self { client: client.build()?, clock: MonotonicClock::start() })
    }

    /// Builds a request like those of `EventSource`, but without compression, which would hide the
    /// sizes of events.
    pub(super) fn uncompressed(&self, method: Method, url: &Url) -> RequestBuilder {
        self.request(method, url).header(ACCEPT_ENCODING, "identity")
    }

    /// Builds a request that accepts compression, like those of browsers.
    pub(super) fn compressed(&self, method: Method, url: &Url) -> RequestBuilder {
        self.request(method, url).header(ACCEPT_ENCODING, "gzip, deflate, br, zstd")
    }

    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.client
            .request(method, url.clone())
            .header(ACCEPT, sse::CONTENT_TYPE)
            .header(CACHE_CONTROL, "no-cache")
    }

    /// Opens a stream, which stays open until the response is dropped. Returns `None` unless the
    /// status is 200.
    pub(super) async fn open(&self, url: &Url) -> Option<Response> {
        let response = self.uncompressed(Method::GET, url).send().await;
        response.ok().filter(|response| response.status() == StatusCode::OK)
    }

    /// Sends a request, and reads the response until `is_enough` returns `true`, the response ends,
    /// or the timeout elapses.
    pub(super) async fn read(
        &self,
        request: RequestBuilder,
        timeout: Duration,
        is_enough: impl Fn(&StreamReader) -> bool,
    ) -> Result<Exchange, RequestError> {
        let deadline = Instant::now() + timeout;
        let requested_at = self.clock.now();
        let response = timeout_at(deadline, request.send()).await;
        let mut response = response.map_err(|_| RequestError::TimedOut)?.map_err(|error| {
            let after = duration_from_millis(self.clock.now() - requested_at);
            RequestError::Broken(error, after.unwrap_or_default())
        })?;
        let mut reader = StreamReader::default();
        let responded_at = self.clock.now();
        let (mut bytes, mut last, mut longest_pause) = (0, responded_at, 0.0_f64);
        let end = loop {
            if bytes >= MAX_BYTES || is_enough(&reader) {
                break StreamEnd::Stopped;
            }
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let now = self.clock.now();
                    longest_pause = longest_pause.max(now - last);
                    last = now;
                    bytes += chunk.len();
                    reader.feed(&chunk, now);
                }
                Ok(Ok(None)) => break StreamEnd::Complete,
                Ok(Err(error)) => break StreamEnd::Cut(cut_kind(&error)),
                Err(_) => break StreamEnd::TimedOut,
            }
        };
        let ended_at = self.clock.now();
        let headers = response.headers().iter();
        let headers = headers.filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Exchange {
            response: StreamResponse {
                status: response.status().as_u16(),
                headers: headers.collect(),
                requested_at,
                responded_at,
                ended_at,
                end,
                reader,
            },
            version: response.version(),
            url: response.url().clone(),
            longest_pause: longest_pause.max(ended_at - last),
            last_pause: ended_at - last,
        })
    }
}

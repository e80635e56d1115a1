//! The HTTP client of `waterclock diagnose`.

use std::{
    error::Error as _,
    io::{self, ErrorKind},
    iter,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Method, Request, RequestBuilder, Response, StatusCode, Url, Version,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, HeaderMap, ORIGIN},
    redirect::Policy,
};
use tokio::time::{Instant, timeout_at};
use waterclock::sse;
use waterclock_diagnose::{
    CutKind, FetchError, Objection, RESPONSE_TIMEOUT, StreamEnd, StreamReader, StreamResponse,
    duration_from_millis,
};

use super::{args::Diagnose, hops::Hops};
use crate::client::CredentialsError;

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes read of a response, because a stream may be endless.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Sends requests, with the headers that all of them have.
pub(super) struct HttpClient {
    client: Client,
    /// A URL of the origin of the page that reads the stream; `None` for that of the stream.
    page: Option<Url>,
    /// `true` if the user gave headers or a token, which must not go to another origin.
    has_headers: bool,
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
    /// A browser would not send the request, or not follow a redirect.
    Refused(Objection),
    /// A redirect leads to this origin, which is not the one that the user's headers are for.
    OtherOrigin(String),
}

impl RequestError {
    /// Returns the error in the terms of the diagnosis.
    pub(super) fn kind(&self) -> FetchError {
        match self {
            Self::Broken(error, _) if error.is_connect() => FetchError::Unreachable,
            Self::Refused(_) | Self::OtherOrigin(_) => FetchError::Unreachable,
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
    pub(super) fn new(options: &Diagnose) -> Result<Self, CredentialsError> {
        let mut headers: HeaderMap = options.headers.iter().cloned().collect();
        if !headers.contains_key(AUTHORIZATION)
            && let Some(token) = options.server.authorization(options.url())?
        {
            headers.insert(AUTHORIZATION, token);
        }
        let has_headers = !headers.is_empty();
        let client = options.server.credentials.client(|| {
            let client = Client::builder()
                .user_agent(concat!("waterclock/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone())
                // Followed by the rules of a browser instead.
                .redirect(Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                // A connection that is idle for longer may be dead without a sign of it.
                .pool_idle_timeout(Duration::from_secs(2))
                .tls_danger_accept_invalid_certs(options.insecure);
            match (options.http1, options.http2) {
                (true, _) => client.http1_only(),
                (false, true) => client.http2_prior_knowledge(),
                (false, false) => client,
            }
        })?;
        Ok(Self {
            client,
            clock: MonotonicClock::start(),
            page: options.origin.clone(),
            has_headers,
        })
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

    /// Sends a request for a stream, which stays open until the response is dropped.
    pub(super) async fn open(&self, url: &Url) -> Option<Response> {
        self.send(self.uncompressed(Method::GET, url)).await.ok().map(|(response, _)| response)
    }

    /// Sends a request, and follows redirects as a browser does.
    async fn send(&self, request: RequestBuilder) -> Result<(Response, Hops), RequestError> {
        let requested_at = self.clock.now();
        let broken = |error| {
            let after = duration_from_millis(self.clock.now() - requested_at);
            RequestError::Broken(error, after.unwrap_or_default())
        };
        let mut request = request.build().map_err(broken)?;
        let first = request.url().origin();
        let hops = Hops::start(request.url().clone(), self.page.as_ref());
        let mut hops = hops.map_err(RequestError::Refused)?;
        loop {
            request.headers_mut().remove(ORIGIN);
            if let Some(origin) = hops.origin().and_then(|origin| origin.parse().ok()) {
                request.headers_mut().insert(ORIGIN, origin);
            }
            let mut hop = Request::new(request.method().clone(), request.url().clone());
            hop.headers_mut().clone_from(request.headers());
            let response = self.client.execute(hop).await.map_err(broken)?;
            let status = response.status();
            if !hops.follow(status.as_u16(), response.headers()).map_err(RequestError::Refused)? {
                return Ok((response, hops));
            }
            let origin = hops.url().origin();
            if self.has_headers && origin != first {
                return Err(RequestError::OtherOrigin(origin.ascii_serialization()));
            }
            if origin != request.url().origin() {
                // From the user name and the password in the URL.
                request.headers_mut().remove(AUTHORIZATION);
            }
            let is_post = *request.method() == Method::POST;
            if is_post && matches!(status.as_u16(), 301..=303) {
                *request.method_mut() = Method::GET;
            }
            request.url_mut().clone_from(hops.url());
        }
    }

    /// Sends a request, and reads the response until `is_enough` returns `true`, the response ends,
    /// or the timeout elapses. The first event has at least [`RESPONSE_TIMEOUT`] to arrive.
    pub(super) async fn read(
        &self,
        request: RequestBuilder,
        timeout: Duration,
        is_enough: impl Fn(&StreamReader) -> bool,
    ) -> Result<Exchange, RequestError> {
        self.read_with_status(request, timeout, |_| (), is_enough).await
    }

    /// Does the same as [`Self::read`], and passes the status to `on_status` as soon as it arrives.
    pub(super) async fn read_with_status(
        &self,
        request: RequestBuilder,
        timeout: Duration,
        on_status: impl FnOnce(StatusCode),
        is_enough: impl Fn(&StreamReader) -> bool,
    ) -> Result<Exchange, RequestError> {
        let started = Instant::now();
        let mut deadline = started + timeout.max(RESPONSE_TIMEOUT);
        let requested_at = self.clock.now();
        let sent = timeout_at(deadline, self.send(request)).await;
        let (mut response, hops) = sent.map_err(|_| RequestError::TimedOut)??;
        on_status(response.status());
        let mut reader = StreamReader::default();
        let responded_at = self.clock.now();
        let (mut bytes, mut last, mut longest_pause) = (0, responded_at, 0.0_f64);
        let end = loop {
            if bytes >= MAX_BYTES || is_enough(&reader) {
                break StreamEnd::Stopped;
            }
            if !reader.messages.is_empty() {
                deadline = started + timeout;
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
                redirects: hops.into_redirects(),
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

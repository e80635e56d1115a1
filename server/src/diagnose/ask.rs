//! One request, and what is read of its answer within a time.

use std::time::{Duration, SystemTime};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url, Version,
    header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL},
    redirect::Policy,
};
use tokio::time::{Instant, timeout_at};
use waterclock::sse;
use waterclock_diagnose::{Answer, End, Reader, duration};

use super::{CONNECT, CouldNotRun, Diagnose, common_headers};

/// How many bytes of an answer are read at most; a stream may have no end.
const MOST: usize = 4 * 1024 * 1024;

/// Asks, with what all requests have in common.
pub(super) struct Asker {
    client: Client,
    clock: Clock,
}

/// Milliseconds since 1970 that go on evenly, also if the system's clock is set meanwhile.
#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    began_at: f64,
}

impl Clock {
    fn now(self) -> f64 {
        self.began_at + self.began.elapsed().as_secs_f64() * 1000.0
    }
}

/// Why there is no answer at all.
pub(super) enum Failure {
    /// There is no connection, or it broke, so long after the request.
    NotReached(reqwest::Error, Duration),
    /// None came in time.
    NoAnswer,
}

/// An answer, and what only we know of it.
pub(super) struct Read {
    pub(super) answer: Answer,
    pub(super) version: Version,
    /// Where it is from, after redirections.
    pub(super) url: Url,
    /// The longest time between two pieces of it, in milliseconds.
    pub(super) longest_silence: f64,
    /// The time from the last piece to the end.
    pub(super) last_silence: f64,
}

/// Follows redirections; with headers, which may be secrets, only to where they were meant for.
fn redirects(has_headers: bool) -> Policy {
    Policy::custom(move |attempt| {
        let first = attempt.previous().first().map(Url::origin);
        if has_headers && first != Some(attempt.url().origin()) {
            let elsewhere = attempt.url().origin().ascii_serialization();
            return attempt
                .error(format!("it leads to {elsewhere}, which is not sent your headers"));
        }
        Policy::default().redirect(attempt)
    })
}

impl Asker {
    pub(super) fn new(options: &Diagnose) -> Result<Self, CouldNotRun> {
        let mut client = Client::builder()
            .user_agent(concat!("waterclock/", env!("CARGO_PKG_VERSION")))
            .default_headers(common_headers(options))
            .redirect(redirects(!options.headers.is_empty()))
            .connect_timeout(CONNECT)
            // A connection that was idle may be dead without telling.
            .pool_idle_timeout(Duration::from_secs(2))
            .tls_danger_accept_invalid_certs(options.insecure);
        if options.http1 {
            client = client.http1_only();
        } else if options.http2 {
            client = client.http2_prior_knowledge();
        }
        let client = client.build().map_err(|error| CouldNotRun::Client("TLS", error))?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = Clock { began: Instant::now(), began_at: since.as_secs_f64() * 1000.0 };
        Ok(Self { client, clock })
    }

    /// A request as `EventSource` makes it, but without compression, through which nothing could be measured.
    pub(super) fn get(&self, url: &Url) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    pub(super) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.plain(method, url).header(ACCEPT_ENCODING, "identity")
    }

    /// As a browser makes it, which accepts compression.
    pub(super) fn as_browsers_do(&self, method: Method, url: &Url) -> RequestBuilder {
        self.plain(method, url).header(ACCEPT_ENCODING, "gzip, deflate, br, zstd")
    }

    fn plain(&self, method: Method, url: &Url) -> RequestBuilder {
        self.client
            .request(method, url.clone())
            .header(ACCEPT, sse::CONTENT_TYPE)
            .header(CACHE_CONTROL, "no-cache")
    }

    /// Opens a stream, which lasts until it is dropped; none if there is no good answer.
    pub(super) async fn open(&self, request: RequestBuilder) -> Option<Response> {
        request.send().await.ok().filter(|response| response.status() == StatusCode::OK)
    }

    /// Asks, and reads until that is enough, the answer ends, or so long a time has passed.
    pub(super) async fn read(
        &self,
        request: RequestBuilder,
        within: Duration,
        is_enough: impl Fn(&Reader) -> bool,
    ) -> Result<Read, Failure> {
        let until = Instant::now() + within;
        let asked = self.clock.now();
        let response = timeout_at(until, request.send()).await;
        let mut response = response.map_err(|_| Failure::NoAnswer)?.map_err(|error| {
            Failure::NotReached(error, duration(self.clock.now() - asked).unwrap_or_default())
        })?;
        let mut reader = Reader::default();
        let (mut bytes, mut last, mut longest_silence) = (0, self.clock.now(), 0.0_f64);
        let end = loop {
            if bytes >= MOST || is_enough(&reader) {
                break End::Enough;
            }
            match timeout_at(until, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let now = self.clock.now();
                    longest_silence = longest_silence.max(now - last);
                    last = now;
                    bytes += chunk.len();
                    reader.feed(&chunk, now);
                }
                Ok(Ok(None)) => break End::Complete,
                Ok(Err(_)) => break End::Cut,
                Err(_) => break End::TimedOut,
            }
        };
        let ended = self.clock.now();
        let headers = response.headers().iter();
        let headers = headers.filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Read {
            answer: Answer {
                status: response.status().as_u16(),
                headers: headers.collect(),
                asked,
                ended,
                end,
                reader,
            },
            version: response.version(),
            url: response.url().clone(),
            longest_silence: longest_silence.max(ended - last),
            last_silence: ended - last,
        })
    }
}

//! A JWK Set (RFC 7517) at a URL: its address, one bounded request for it, and the times of the
//! next ones. A set is public, so the request carries no credentials.

use std::{error::Error as _, fmt, iter, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, CACHE_CONTROL, HeaderMap},
    redirect::{Attempt, Policy},
};

use super::key::{InvalidKey, MAX_FILE};
use crate::ops::http_client::http_client;

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of redirects.
const MAX_REDIRECTS: usize = 3;
/// Time after which a set is fetched again, unless its `Cache-Control` says otherwise.
const FRESH: Duration = Duration::from_mins(10);
/// Bounds of the time that `Cache-Control` may say.
const MIN_FRESH: Duration = Duration::from_mins(1);
const MAX_FRESH: Duration = Duration::from_hours(1);
/// Time to the first repetition of a request that failed. It doubles with each further failure.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Maximum of the same.
const MAX_RETRY: Duration = Duration::from_mins(1);

/// The place of a JWK Set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksPlace {
    /// A URL: https, or http on this machine.
    Url(Url),
    /// A file.
    File(PathBuf),
}

impl FromStr for JwksPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(EXPECTED);
        }
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url = Url::parse(text).map_err(|_| EXPECTED)?;
        let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
        if is_safe && url.username().is_empty() && url.password().is_none() {
            Ok(Self::Url(url))
        } else {
            Err(EXPECTED)
        }
    }
}

const EXPECTED: &str = "expected a file or an https URL without a password, such as \
                        https://login.example/keys; http is allowed on this machine only";

/// Returns `true` if a URL is of this machine.
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost" || host.ends_with(".localhost"), |one| one.is_loopback())
}

/// The reason for which a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchKeysError {
    #[error("{}", causes(.0))]
    Request(#[from] reqwest::Error),
    #[error("the response has the status {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Content(#[from] InvalidKey),
    #[error("{0}")]
    Refused(String),
}

/// The causes of an error of reqwest, without the URL, which the caller prints.
fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no complete response within {} s", REQUEST_TIMEOUT.as_secs());
    }
    let causes = iter::successors(error.source(), |&cause| cause.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    if causes.is_empty() { "the request failed".to_owned() } else { causes.join(": ") }
}

/// The body of a response, and the time for which it is fresh.
pub(super) struct FetchedKeys {
    pub(super) body: Vec<u8>,
    pub(super) fresh_for: Duration,
}

/// The HTTP client for key sets.
pub(super) struct JwksClient(Client);

impl JwksClient {
    /// Creates the client for one URL.
    pub(super) fn new(url: &Url) -> reqwest::Result<Self> {
        let options = || {
            let client = Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(REQUEST_TIMEOUT)
                .redirect(Policy::custom(redirect))
                .user_agent(concat!("waterclock/", env!("CARGO_PKG_VERSION")));
            if is_loopback(url) { client.no_proxy() } else { client }
        };
        http_client(options, &[]).map(Self)
    }

    /// Fetches the set, of at most [`MAX_FILE`] bytes.
    pub(super) async fn fetch(&self, url: &Url) -> Result<FetchedKeys, FetchKeysError> {
        let request = self.0.get(url.clone()).header(ACCEPT, "application/jwk-set+json, */*;q=0.5");
        let response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchKeysError::Status(response.status()));
        }
        let fresh_for = fresh_for(response.headers());
        Ok(FetchedKeys { body: bounded_body(response).await?, fresh_for })
    }
}

async fn bounded_body(mut response: Response) -> Result<Vec<u8>, FetchKeysError> {
    let too_long = |length| length > MAX_FILE as u64;
    if response.content_length().is_some_and(too_long) {
        return Err(InvalidKey::TooLong.into());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_FILE {
            return Err(InvalidKey::TooLong.into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An issuer decides about its own host only, and never leaves https.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let is_same_host = attempt.previous().first().is_some_and(|first| {
        let (scheme, host, port) =
            (first.scheme(), first.host_str(), first.port_or_known_default());
        let next = attempt.url();
        (scheme, host, port) == (next.scheme(), next.host_str(), next.port_or_known_default())
    });
    if !is_same_host {
        attempt.error(Redirected("it redirects to another host: name the final URL"))
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error(Redirected("it redirects too often"))
    } else {
        attempt.follow()
    }
}

#[derive(Debug)]
struct Redirected(&'static str);

impl fmt::Display for Redirected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Redirected {}

/// Returns the time after which a response is to be fetched again (RFC 9111, 5.2.2.1).
fn fresh_for(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).into_iter();
    let mut directives =
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let seconds = directives.find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        let is_age = name.eq_ignore_ascii_case("max-age");
        is_age.then(|| value.trim_matches('"').parse().ok()).flatten()
    });
    seconds.map_or(FRESH, |seconds| Duration::from_secs(seconds).clamp(MIN_FRESH, MAX_FRESH))
}

/// Returns the time to the next request after so many failed ones in a row. `random` is between 0
/// and 1.
pub(super) fn retry_after(failures: u32, random: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(MAX_RETRY);
    doubled.mul_f64(0.75 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_a_file_or_a_safe_url() {
        let parse = |text: &str| text.parse::<JwksPlace>();
        for file in ["keys.json", "/etc/keys.json", "C:keys"] {
            assert_eq!(parse(file), Ok(JwksPlace::File(file.into())));
        }
        for url in [
            "https://login.example/keys?x=1",
            "http://127.0.0.1:8080/keys",
            "http://[::1]/keys",
            "http://localhost/keys",
            "http://login.localhost/keys",
        ] {
            assert_eq!(parse(url), Ok(JwksPlace::Url(url.parse().unwrap())), "{url}");
        }
        for bad in [
            "",
            "http://login.example/keys",
            "http://localhost.example/keys",
            "ftp://127.0.0.1/keys",
            "file:///keys",
            "https://user:password@login.example/keys",
            "https://",
        ] {
            assert!(parse(bad).is_err_and(|why| why.contains("https URL")), "{bad}");
        }
    }

    #[test]
    fn the_time_of_the_next_request_has_bounds() {
        let fresh = |value: &str| {
            let headers = [(CACHE_CONTROL, value.parse().unwrap())].into_iter().collect();
            fresh_for(&headers).as_secs()
        };
        assert_eq!(fresh("public, max-age=300"), 300);
        assert_eq!(fresh("Max-Age=\"300\""), 300);
        assert_eq!((fresh("max-age=0"), fresh("max-age=31536000")), (60, 3600));
        assert_eq!((fresh("no-store"), fresh("max-age=soon")), (600, 600));
        assert_eq!((fresh("s-maxage=9, max-age"), fresh("max-age=-1")), (600, 600));
        assert_eq!(fresh_for(&HeaderMap::new()), FRESH);
        let retries: Vec<_> =
            (1..=6).map(|failures| retry_after(failures, 0.5).as_secs()).collect();
        assert_eq!(retries, [5, 10, 20, 40, 60, 60]);
        assert_eq!(retry_after(u32::MAX, 1.0), Duration::from_secs(75));
        assert_eq!(retry_after(1, 0.0), Duration::from_millis(3750));
    }
}

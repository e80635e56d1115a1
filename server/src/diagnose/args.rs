//! The command line of `waterclock diagnose`.

use std::time::Duration;

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};

use crate::client::{ServerArgs, server_url};

/// Minimum length of an idle period.
const MIN_IDLE: Duration = Duration::from_millis(100);
/// Maximum length of an idle period.
const MAX_IDLE: Duration = Duration::from_mins(10);

/// The options of `waterclock diagnose`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "\
Exit codes: 0 no problems found; 1 a check is bad, or is a warning with a remedy; 2 the diagnosis \
could not run, or could not finish because the server went away.

The token may also be in the environment variable WATERCLOCK_TOKEN.")]
pub struct Diagnose {
    /// URL of a Waterclock server, or of any stream of Server-Sent Events, in the place of --url
    #[arg(value_name = "URL", value_parser = server_url)]
    address: Option<Url>,

    /// Print the report as JSON; progress goes to standard error
    #[arg(long)]
    pub(super) json: bool,

    /// Length of the idle period to test, such as 20s or 2m
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = idle)]
    pub(super) idle: Duration,

    /// Number of concurrent streams to try, up to 200
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=200)
    )]
    pub(super) streams: u16,

    /// Origin of the page that reads the stream [default: that of the URL]
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub(super) origin: Option<Url>,

    /// Header for each request, such as 'Authorization: Bearer ...'. Can be given several times
    #[arg(long = "header", value_name = "HEADER", value_parser = header)]
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,

    /// The server to measure the path to.
    #[command(flatten)]
    pub(super) server: ServerArgs,

    /// Accept any certificate
    #[arg(long)]
    pub(super) insecure: bool,

    /// Use HTTP/1.1 only
    #[arg(long, conflicts_with = "http2")]
    pub(super) http1: bool,

    /// Use HTTP/2 only, even without TLS
    #[arg(long)]
    pub(super) http2: bool,
}

impl Diagnose {
    /// Returns the URL to which the path is measured.
    pub(super) fn url(&self) -> &Url {
        self.address.as_ref().unwrap_or(&self.server.url)
    }
}

fn origin(text: &str) -> Result<Url, &'static str> {
    let is_origin = |url: &Url| url.as_str() == format!("{}/", url.origin().ascii_serialization());
    server_url(text).ok().filter(is_origin).ok_or("expected an origin such as https://app.example")
}

fn idle(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (MIN_IDLE..=MAX_IDLE).contains(time))
        .ok_or("expected a time from 100ms to 10m, such as 20s or 2m")
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let parse = || {
        let (name, value) = text.split_once(':')?;
        let mut value: HeaderValue = value.trim().parse().ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    parse().ok_or("expected a name and a value, such as 'Authorization: Bearer ...'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_rejected() {
        for text in ["", "clock.example", "localhost:3000", "ftp://clock.example/", "http://"] {
            assert!(server_url(text).is_err(), "{text}");
        }
        for text in
            ["", "*", "null", "app.example", "https://app.example/x", "http://a@b", "http://b?c"]
        {
            assert!(origin(text).is_err(), "{text}");
        }
        assert_eq!(origin("https://App.example:443").unwrap().as_str(), "https://app.example/");
        for text in ["", "1", "0s", "99ms", "11m"] {
            assert!(idle(text).is_err(), "{text}");
        }
        for text in ["", "Name", "a b: c", "name: a\nb"] {
            assert!(header(text).is_err(), "{text:?}");
        }
        assert_eq!(header("Name: a:b").unwrap().1, "a:b");
    }
}

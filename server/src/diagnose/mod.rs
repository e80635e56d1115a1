//! `waterclock diagnose`: a client that measures the path to a server of events. What its measurements mean is
//! [`waterclock_diagnose`]'s.
//!
//! | module | what is there |
//! |---|---|
//! | `ask` | one request, and what is read of its answer within a time |
//! | `by_probe` | the checks, where the server helps by its probe |
//! | `by_stream` | the checks, where it does not |

mod ask;
mod by_probe;
mod by_stream;

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write},
    iter,
    time::Duration,
};

use reqwest::{
    StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use waterclock::{sse, timestamp::Timestamp};
use waterclock_diagnose::{Answer, Finding, PATIENCE, Path, Protocol, Report, Seen, recognise};

use ask::{Asker, Failure, Read};

/// How long a connection is waited for.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a silence may be tried.
const LONGEST_IDLE: Duration = Duration::from_mins(10);
/// What the program exits with where nothing could be measured.
const COULD_NOT_RUN: u8 = 2;

/// What to measure.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "\
Exit codes: 0 nothing was found; 1 something is bad, or there is a warning with a mend; 2 it could not be run, or \
not to its end, as the server went.")]
pub struct Diagnose {
    /// The address of a Waterclock, or of any stream of Server-Sent Events
    #[arg(value_name = "URL", value_parser = url)]
    url: Url,

    /// Print the report as JSON; progress goes to standard error
    #[arg(long)]
    json: bool,

    /// How long a silence is tried, such as 20s or 2m
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = silence)]
    idle: Duration,

    /// How many streams at once are tried, up to 200
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=200))]
    streams: u16,

    /// A header for each request, such as 'Authorization: Bearer ...'. Can be given several times
    #[arg(long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// Take any certificate
    #[arg(long)]
    insecure: bool,

    /// Speak HTTP/1.1 only
    #[arg(long, conflicts_with = "http2")]
    http1: bool,

    /// Speak HTTP/2 only, also without TLS
    #[arg(long)]
    http2: bool,
}

fn url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.filter(Url::has_host)
        .ok_or("an address is needed, such as https://clock.example/ or http://127.0.0.1:3000")
}

fn silence(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (Duration::from_millis(100)..=LONGEST_IDLE).contains(time))
        .ok_or("a time from 100ms to 10m is needed, such as 20s or 2m")
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let parse = || {
        let (name, value) = text.split_once(':')?;
        let mut value: HeaderValue = value.trim().parse().ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    parse().ok_or("a name and a value are needed, such as 'Authorization: Bearer ...'")
}

/// Measures, and tells what was found. What the program is to exit with.
pub async fn run(options: &Diagnose) -> u8 {
    match diagnose(options).await {
        Ok((report, was_there)) => {
            if options.json {
                // It is made of strings and numbers, which are JSON.
                let json = serde_json::to_string_pretty(&report).unwrap_or_default();
                say(&mut io::stdout(), json);
            } else {
                say(&mut io::stdout(), format_args!("\n{}", report.tail()));
            }
            match was_there {
                Ok(()) => report.exit_code(),
                Err(why) => {
                    let error = format!("error: the checks were not finished: {why}");
                    say(&mut io::stderr(), error);
                    COULD_NOT_RUN
                }
            }
        }
        Err(error) => {
            say(&mut io::stderr(), format_args!("error: {error}"));
            COULD_NOT_RUN
        }
    }
}

/// Writes a line. Who has closed the pipe has read enough.
fn say(to: &mut impl Write, line: impl Display) {
    let _ = writeln!(to, "{}", line.to_string().trim_end());
    let _ = to.flush();
}

/// A report in the making, whose findings are told as they come.
struct Progress {
    report: Report,
    is_json: bool,
}

impl Progress {
    fn begin(report: Report, is_json: bool) -> Self {
        let progress = Self { report, is_json };
        progress.say(progress.report.head());
        progress.say("");
        progress
    }

    fn tell(&mut self, finding: Finding) {
        self.say(&finding);
        self.report.findings.push(finding);
    }

    fn say(&self, line: impl Display) {
        if self.is_json {
            say(&mut io::stderr(), line);
        } else {
            say(&mut io::stdout(), line);
        }
    }

    /// The report, in the order of the checks.
    fn end(mut self) -> Report {
        self.report.findings.sort_by_key(|finding| finding.check);
        self.report
    }
}

/// Why nothing could be measured, in a line that says what to do.
#[derive(Debug, thiserror::Error)]
enum CouldNotRun {
    #[error("{0} cannot be used: {1}")]
    Client(&'static str, reqwest::Error),
    #[error("{url} cannot be reached: {why}. {hint}")]
    NotReached { url: String, why: String, hint: String },
    #[error("{0} did not answer within {seconds} s. Is it a server of events?", seconds = PATIENCE.as_secs())]
    NoAnswer(String),
    #[error(
        "{0} takes no more streams just now ({1}). Try again later, or see its --max-streams and \
         --max-streams-per-address"
    )]
    Goodbye(String, &'static str),
    #[error("{0} answers {1}. A token may be needed: --header 'Authorization: Bearer ...'")]
    NotAllowed(String, StatusCode),
    #[error("{0} answers {1}, and there is no Waterclock either. {hint}", hint = Self::hint_at(.0, *.1))]
    Status(String, StatusCode),
    #[error(
        "{0} is no stream of events: its content type is {1:?}, not \"text/event-stream\". Give the address of a \
         Waterclock, or of a stream"
    )]
    NoStream(String, String),
}

impl CouldNotRun {
    fn of(failure: Failure, url: &Url) -> Self {
        let url = shown(url);
        match failure {
            Failure::NoAnswer => Self::NoAnswer(url),
            Failure::NotReached(error, _) => {
                // The error itself has the address in its words.
                let causes: Vec<_> = iter::successors(error.source(), |&cause| cause.source())
                    .map(ToString::to_string)
                    .collect();
                let why = causes.last().cloned().unwrap_or_else(|| error.to_string());
                let hint = Self::hint(&error, &causes, &url);
                Self::NotReached { url, why, hint }
            }
        }
    }

    /// What to try, by the causes of an error, the deepest last. Their words are all that there is to go by.
    fn hint(error: &reqwest::Error, causes: &[String], url: &str) -> String {
        let has = |words: &str| causes.iter().any(|cause| cause.contains(words));
        let (is_tls, other) = (url.starts_with("https:"), with_other_scheme(url));
        // What only HTTP/2's part says; HTTP/1's says "Connection reset by peer".
        let is_http2 = ["http2 error", "channel closed", "canceled", "connection reset"];
        let is_http2 = is_http2.into_iter().any(has);
        let had_connection = error.is_request() && !error.is_connect();
        if has("certificate") {
            "With --insecure, any certificate will do".to_owned()
        } else if has("NoApplicationProtocol") {
            "It does not speak that version of HTTP: leave out --http1 or --http2".to_owned()
        } else if had_connection && is_tls && is_http2 {
            "If it does not speak HTTP/2, leave out --http2".to_owned()
        } else if is_tls && has("corrupt message") {
            format!("What answers there does not speak TLS: try {other}")
        } else if is_tls && (has("handshake eof") || has("Connection reset")) {
            format!("If it does not speak TLS, try {other}")
        } else if had_connection && !is_tls {
            let http2 =
                if is_http2 { "; if it does not speak HTTP/2, leave out --http2" } else { "" };
            format!("If it speaks TLS, try {other}{http2}")
        } else {
            "Is the address right, and the server running?".to_owned()
        }
    }

    /// What to try after such an answer. A port that speaks TLS gives 400 to who does not.
    fn hint_at(url: &str, status: StatusCode) -> String {
        if status == StatusCode::BAD_REQUEST && url.starts_with("http:") {
            return format!("If that port speaks TLS, try {}", with_other_scheme(url));
        }
        "Give the address of a Waterclock, or of a stream".to_owned()
    }
}

/// The same address with https instead of http, or the reverse.
fn with_other_scheme(url: &str) -> String {
    match url.strip_prefix("https:") {
        Some(rest) => format!("http:{rest}"),
        None => url.replacen("http:", "https:", 1),
    }
}

/// The report, and why not all checks could be made, if so.
async fn diagnose(options: &Diagnose) -> Result<(Report, Result<(), String>), CouldNotRun> {
    let asker = Asker::new(options)?;
    let probe = probe_of(&options.url);
    let report = Report {
        url: shown(&options.url),
        stream: shown(&probe),
        time: Timestamp::now(),
        is_probe: true,
        path: Path::default(),
        findings: Vec::new(),
    };
    let read = asker.read(asker.get(&probe), PATIENCE, |reader| !reader.messages.is_empty()).await;
    let read = read.map_err(|failure| CouldNotRun::of(failure, &options.url))?;
    if let Some(reason) = read.answer.reader.goodbye() {
        return Err(CouldNotRun::Goodbye(shown(&probe), reason.as_str()));
    }
    if read.answer.reader.seen.is_some() {
        // Where it was redirected to.
        let mut probe = read.url.clone();
        probe.set_query(None);
        let report = Report { stream: shown(&probe), path: path(&read), ..report };
        let progress = Progress::begin(report, options.json);
        return Ok(by_probe::measure(&asker, probe, &read.answer, options, progress).await);
    }

    let url = &options.url;
    let read = asker.read(asker.get(url), PATIENCE, |_| true).await;
    let read = read.map_err(|failure| CouldNotRun::of(failure, url))?;
    let content_type = content_type(&read.answer);
    match StatusCode::from_u16(read.answer.status).unwrap_or_default() {
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(CouldNotRun::NotAllowed(shown(url), status));
        }
        status if !status.is_success() => return Err(CouldNotRun::Status(shown(url), status)),
        _ if !is_stream(content_type) => {
            return Err(CouldNotRun::NoStream(shown(url), content_type.to_owned()));
        }
        _ => {}
    }
    let stream = shown(&read.url);
    let report = Report { stream, is_probe: false, path: path(&read), ..report };
    let progress = Progress::begin(report, options.json);
    Ok((by_stream::measure(&asker, &read, options, progress).await, Ok(())))
}

/// Where the probe of a Waterclock is that has this address.
fn probe_of(url: &Url) -> Url {
    let mut probe = url.clone();
    probe.set_fragment(None);
    probe.set_query(None);
    let path = url.path().trim_end_matches('/');
    let base = ["/diagnose/stream", "/diagnose", "/events"]
        .into_iter()
        .find_map(|end| path.strip_suffix(end))
        .unwrap_or(path);
    probe.set_path(&format!("{base}/diagnose/stream"));
    probe
}

/// What is known of the path by an answer, and by what the server says of its request.
fn path(read: &Read) -> Path {
    let seen = read.answer.reader.seen.as_ref();
    Path {
        client: Protocol::parse(&format!("{:?}", read.version)),
        server: seen.and_then(|seen| Protocol::parse(&seen.version)),
        intermediaries: recognise(read.answer.headers(), seen.into_iter().flat_map(Seen::headers)),
    }
}

/// An address as it may stand in a ticket: without a password, or a token in its query.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails for addresses without a host, which have neither.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_fragment(None);
    match url.query() {
        Some(_) => {
            url.set_query(None);
            format!("{url}?…")
        }
        None => url.to_string(),
    }
}

fn content_type(answer: &Answer) -> &str {
    let mut headers = answer.headers();
    let found = headers.find(|(name, _)| *name == CONTENT_TYPE.as_str());
    found.map_or("", |(_, value)| value)
}

fn is_stream(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case(sse::CONTENT_TYPE)
}

/// The headers that all requests have.
fn common_headers(options: &Diagnose) -> HeaderMap {
    options.headers.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_an_address_is_shown() {
        for (url, expected) in [
            (
                "http://user:password@host/events?topic=a&access_token=secret#x",
                "http://host/events?…",
            ),
            ("https://host:1/a", "https://host:1/a"),
        ] {
            assert_eq!(shown(&url.parse().unwrap()), expected);
        }
    }

    #[test]
    fn where_the_probe_is() {
        for (url, expected) in [
            ("http://host", "http://host/diagnose/stream"),
            ("http://host/", "http://host/diagnose/stream"),
            ("http://host:1/events", "http://host:1/diagnose/stream"),
            ("http://host/events?topic=a#x", "http://host/diagnose/stream"),
            ("http://host/a/b", "http://host/a/b/diagnose/stream"),
            ("http://host/a/b/", "http://host/a/b/diagnose/stream"),
            ("http://host/events/", "http://host/diagnose/stream"),
            ("http://host/a/events", "http://host/a/diagnose/stream"),
            ("http://host/diagnose", "http://host/diagnose/stream"),
            ("http://host/diagnose/stream", "http://host/diagnose/stream"),
        ] {
            assert_eq!(probe_of(&Url::parse(url).unwrap()).as_str(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_option() {
        for text in ["", "clock.example", "localhost:3000", "ftp://clock.example/", "http://"] {
            assert!(url(text).is_err(), "{text}");
        }
        for text in ["", "1", "0s", "99ms", "11m"] {
            assert!(silence(text).is_err(), "{text}");
        }
        for text in ["", "Name", "a b: c", "name: a\nb"] {
            assert!(header(text).is_err(), "{text:?}");
        }
        assert_eq!(header("Name: a:b").unwrap().1, "a:b");
    }
}

//! `waterclock diagnose`: measures the path to a server of Server-Sent Events. The rules are those
//! of the crate [`waterclock_diagnose`].
//!
//! | module | content |
//! |---|---|
//! | `args` | the command line |
//! | `with_probe` | the checks on a server with a probe |
//! | `without_probe` | the checks on any other server |
//! | `http` | the HTTP client |
//! | `hops` | redirects, by the rules of a browser |
//! | `printer` | the output while the checks run |
//! | `error` | the reasons why nothing could be measured |

mod args;
mod error;
mod hops;
mod http;
mod printer;
mod with_probe;
mod without_probe;

use std::io;

use reqwest::{Method, Url};
use waterclock::timestamp::Timestamp;
use waterclock_diagnose::{
    PathInfo, Protocol, RESPONSE_TIMEOUT, Report, RequestEcho, ServerLost, StreamReader,
    detect_intermediaries, event_source,
};

pub use args::Diagnose;

use crate::client::urls::{display_url, events_url, probe_url, with_other_scheme};
use error::DiagnoseError;
use http::{Exchange, HttpClient, RequestError};
use printer::{ReportPrinter, print_line};

/// Exit code if nothing could be measured, or not all.
const INCOMPLETE: u8 = 2;

/// Measures the path, and prints the report. Returns the exit code.
pub async fn run(options: &Diagnose) -> u8 {
    let (report, result) = match measure(options).await {
        Ok(measured) => measured,
        Err(error) => {
            print_line(&mut io::stderr(), format_args!("error: {error}"));
            return INCOMPLETE;
        }
    };
    if options.json {
        // Serialization cannot fail: the report consists of strings and numbers.
        let json = serde_json::to_string_pretty(&report).unwrap_or_default();
        print_line(&mut io::stdout(), json);
    } else {
        print_line(&mut io::stdout(), format_args!("\n{}", report.tail()));
    }
    match result {
        Ok(()) => report.exit_code(),
        Err(lost) => {
            let message = format!("error: not all checks could be completed: {lost}");
            print_line(&mut io::stderr(), message);
            INCOMPLETE
        }
    }
}

/// Makes the checks: with the probe, or else on an ordinary stream. Returns the report, and an
/// error if the server went away before the end.
async fn measure(options: &Diagnose) -> Result<(Report, Result<(), ServerLost>), DiagnoseError> {
    let client = HttpClient::new(options)?;
    let probe = probe_url(options.url());
    let report = Report {
        url: display_url(options.url()),
        stream: display_url(&probe),
        time: Timestamp::now(),
        is_probe: true,
        path: PathInfo::default(),
        findings: Vec::new(),
    };
    let request = client.uncompressed(Method::GET, &probe);
    let has_message = |reader: &StreamReader| !reader.messages.is_empty();
    match client.read(request, RESPONSE_TIMEOUT, has_message).await {
        Ok(mut exchange) => {
            if let Some(reason) = exchange.response.reader.goodbye() {
                return Err(DiagnoseError::Refused(display_url(&probe), reason.as_str()));
            }
            if exchange.response.reader.echo.is_some() {
                if exchange.response.redirects.objection.is_some() {
                    // The server allows no page of another origin to read the probe, whichever may
                    // read the events. So the response to their request counts.
                    let request = client.uncompressed(Method::GET, &events_url(options.url()));
                    if let Ok(events) = client.read(request, RESPONSE_TIMEOUT, |_| true).await {
                        let objection = events.response.redirects.objection;
                        exchange.response.redirects.objection = objection;
                    }
                }
                // The URL after redirects.
                let mut probe = exchange.url.clone();
                probe.set_query(None);
                let (stream, path) = (display_url(&probe), path(&exchange));
                let printer = ReportPrinter::start(Report { stream, path, ..report }, options.json);
                let first = &exchange.response;
                return Ok(with_probe::measure(&client, probe, first, options, printer).await);
            }
        }
        // A server without the probe may break, ignore or redirect requests for it.
        Err(RequestError::TimedOut | RequestError::Refused(_) | RequestError::OtherOrigin(_)) => {}
        Err(RequestError::Broken(error, _))
            if error.is_request() && (!error.is_connect() || is_elsewhere(&error, &probe)) => {}
        Err(error) => return Err(DiagnoseError::of(error, options.url())),
    }

    let url = options.url();
    let report = Report { stream: display_url(url), is_probe: false, ..report };
    let request = client.uncompressed(Method::GET, url);
    let exchange = match client.read(request, RESPONSE_TIMEOUT, |_| true).await {
        Ok(exchange) => exchange,
        Err(RequestError::Refused(objection)) => {
            let printer = ReportPrinter::start(report, options.json);
            return Ok((without_probe::refuse(objection.finding(), printer), Ok(())));
        }
        Err(error) => return Err(DiagnoseError::of(error, url)),
    };
    if exchange.response.status == 400 && exchange.url.scheme() == "http" {
        let url = display_url(url);
        return Err(DiagnoseError::BadRequest { other: with_other_scheme(&url), url });
    }
    let (stream, path) = (display_url(&exchange.url), path(&exchange));
    let printer = ReportPrinter::start(Report { stream, path, ..report }, options.json);
    if !event_source::is_stream(&exchange.response) {
        let finding = event_source::assess(&exchange.response);
        return Ok((without_probe::refuse(finding, printer), Ok(())));
    }
    Ok(without_probe::measure(&client, &exchange.response, options, printer).await)
}

/// Returns `true` if an error is that of a redirect to another origin.
fn is_elsewhere(error: &reqwest::Error, url: &Url) -> bool {
    error.url().is_some_and(|target| target.origin() != url.origin())
}

/// Collects the facts about a path from a response, and from the server's echo of the request.
fn path(exchange: &Exchange) -> PathInfo {
    let echo = exchange.response.reader.echo.as_ref();
    let request_headers = echo.into_iter().flat_map(RequestEcho::headers);
    PathInfo {
        client: Protocol::parse(&format!("{:?}", exchange.version)),
        server: echo.and_then(|echo| Protocol::parse(&echo.version)),
        intermediaries: detect_intermediaries(exchange.response.headers(), request_headers),
    }
}

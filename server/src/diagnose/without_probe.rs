//! The checks on a server without a probe, as far as an ordinary stream shows something.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::{Method, Url};
use tokio::time::{Instant, timeout_at};
use waterclock_diagnose::{
    Check, Finding, Protocol, RESPONSE_TIMEOUT, Report, StreamEnd, assess, duration_from_millis,
    format_duration,
};

use super::{
    args::Diagnose,
    http::{Exchange, HttpClient},
    printer::ReportPrinter,
};

/// Timeout of the concurrent streams.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum pause, in milliseconds, before an end that counts as an idle timeout.
const MIN_IDLE: f64 = 500.0;
/// Reason of findings without a response.
const NO_RESPONSE: &str = "no response";

/// Makes the checks that are possible. `first` is the response by which the stream was found.
pub(super) async fn measure(
    client: &HttpClient,
    first: &Exchange,
    options: &Diagnose,
    mut printer: ReportPrinter,
) -> Report {
    let url = &first.url;
    let protocol = printer.report.path.client;
    printer.add(assess::protocol(protocol, None));
    let others = async {
        let request = client.compressed(Method::GET, url);
        let exchange = client.read(request, RESPONSE_TIMEOUT, |_| true).await;
        printer.add(exchange.map_or_else(
            |_| Finding::unknown(Check::Headers, NO_RESPONSE),
            |exchange| assess::headers(exchange.response.headers(), false, false),
        ));
        let streams = usize::from(options.streams);
        let (finding, round_trip) = concurrent_streams(client, url, streams, protocol).await;
        printer.add(finding);
        printer.add(assess::round_trip(round_trip));
        for check in [Check::Delivery, Check::Resume, Check::Post, Check::Clock] {
            printer.add(Finding::unknown(check, assess::NO_PROBE));
        }
    };
    let timeout = options.idle.max(RESPONSE_TIMEOUT);
    let request = client.uncompressed(Method::GET, url);
    let (exchange, ()) = tokio::join!(client.read(request, timeout, |_| false), others);
    match exchange {
        Ok(exchange) => {
            printer.add(first_event(&exchange, timeout));
            printer.add(assess::fields_without_probe(&exchange.response.reader));
            printer.add(idle(&exchange));
        }
        Err(_) => {
            for check in [Check::FirstEvent, Check::Fields, Check::Idle] {
                printer.add(Finding::unknown(check, NO_RESPONSE));
            }
        }
    }
    printer.finish()
}

/// Assesses the time to the first event. A late one is inconclusive: the server may have had no
/// event to send.
fn first_event(exchange: &Exchange, timeout: Duration) -> Finding {
    let response = &exchange.response;
    let first = response.reader.messages.first();
    let took = first.and_then(|(_, time)| duration_from_millis(time - response.requested_at));
    let measured = match took {
        Some(took) if took <= assess::MAX_FIRST_EVENT => {
            return assess::first_event(Ok(took), false);
        }
        Some(took) => format!("after {}", format_duration(took)),
        None => format!("none within {}", format_duration(timeout)),
    };
    Finding::unknown(Check::FirstEvent, measured)
}

/// Assesses the pauses of a stream, and its end.
fn idle(exchange: &Exchange) -> Finding {
    let last = duration_from_millis(exchange.last_pause).unwrap_or_default();
    let longest = duration_from_millis(exchange.longest_pause).unwrap_or_default();
    match exchange.response.end {
        StreamEnd::Stopped | StreamEnd::TimedOut => assess::idle(None, None, longest),
        StreamEnd::Complete | StreamEnd::Cut if exchange.last_pause > MIN_IDLE => {
            assess::idle(Some(last), None, last)
        }
        StreamEnd::Complete | StreamEnd::Cut => {
            let longest = format_duration(longest);
            let measured = format!("the stream ended on its own; its longest pause was {longest}");
            Finding::unknown(Check::Idle, measured)
        }
    }
}

/// Opens streams until all of them are open at the same time, or the timeout elapses. Also returns
/// the time that the quickest took.
async fn concurrent_streams(
    client: &HttpClient,
    url: &Url,
    tried: usize,
    protocol: Option<Protocol>,
) -> (Finding, Option<Duration>) {
    let started = Instant::now();
    let mut opening: FuturesUnordered<_> = (0..tried).map(|_| client.open(url)).collect();
    let mut open = Vec::new();
    let mut quickest = None;
    while let Ok(Some(response)) = timeout_at(started + OPEN_TIMEOUT, opening.next()).await {
        if let Some(response) = response {
            quickest.get_or_insert(started.elapsed());
            open.push(response);
        }
    }
    (assess::concurrent_streams(open.len(), tried, protocol, false), quickest)
}

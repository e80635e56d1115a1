//! The checks on a server without a probe, as far as an ordinary stream shows something.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use waterclock_diagnose::{
    Check, FetchError, Finding, Protocol, RESPONSE_TIMEOUT, Report, ServerLost, StreamEnd,
    StreamResponse, assess, duration_from_millis, event_source, format_duration,
};

use super::{
    args::Diagnose,
    http::{Exchange, HttpClient, RequestError},
    printer::ReportPrinter,
};

/// Timeout of the concurrent streams.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reports a response that is no stream, given the finding about it.
pub(super) fn refuse(finding: Finding, mut printer: ReportPrinter) -> Report {
    printer.add(assess::protocol(printer.report.path.client, None));
    printer.add(finding);
    for check in Check::ALL {
        let is_known = printer.report.findings.iter().any(|finding| finding.check == *check);
        // Only a browser has service workers.
        if !is_known && *check != Check::ServiceWorker {
            // Not printed: all of them say the same.
            printer.report.findings.push(Finding::unknown(*check, "there is no stream"));
        }
    }
    printer.finish()
}

/// Makes the checks that are possible. `found` is the response by which the stream was found.
/// Returns the report, and an error if the server went away.
pub(super) async fn measure(
    client: &HttpClient,
    found: &StreamResponse,
    options: &Diagnose,
    mut printer: ReportPrinter,
) -> (Report, Result<(), ServerLost>) {
    // A browser starts each request with the URL that it was given.
    let url = options.url();
    let protocol = printer.report.path.client;
    printer.add(assess::protocol(protocol, None));
    printer.add(event_source::assess(found));
    let (state, states) = watch::channel(IdleStream::Requested);
    let others = async {
        let request = client.compressed(Method::GET, url);
        let exchange = client.read(request, RESPONSE_TIMEOUT, |_| true).await;
        printer.add(exchange.map_or_else(
            |_| Finding::unknown(Check::Headers, assess::NO_RESPONSE),
            |exchange| assess::headers(exchange.response.headers(), false, false),
        ));
        let streams = usize::from(options.streams);
        printer.add(concurrent_streams(client, url, streams, protocol, states).await);
        printer.add(assess::round_trip(round_trip(client, url).await));
        for check in [Check::Delivery, Check::Post, Check::Clock] {
            printer.add(Finding::unknown(check, assess::NO_PROBE));
        }
    };
    let request = client.uncompressed(Method::GET, url);
    let on_status = |status| {
        let is_open = status == StatusCode::OK;
        state.send_replace(if is_open { IdleStream::Open } else { IdleStream::Refused });
    };
    let idle_stream = async {
        let first = client.read_with_status(request, options.idle, on_status, |_| false).await;
        match first.as_ref().map(|exchange| &exchange.response.end) {
            Ok(StreamEnd::Complete | StreamEnd::Cut(_)) => {
                state.send_replace(IdleStream::Ended);
            }
            Err(_) => {
                state.send_replace(IdleStream::Refused);
            }
            // The diagnosis has read enough of it.
            Ok(StreamEnd::Stopped | StreamEnd::TimedOut) => {}
        }
        first
    };
    let (first, ()) = tokio::join!(idle_stream, others);
    let is_short = match &first {
        Ok(exchange) => assess::ends_at_once(&exchange.response),
        Err(error) => matches!(error.kind(), FetchError::Cut(_)),
    };
    let (ended, exchange) = if is_short {
        let request = client.uncompressed(Method::GET, url);
        let second = client.read(request, assess::MIN_DURATION, |_| false).await;
        let ended = assess::short_stream(outcome(&first), outcome(&second));
        // One short stream alone may have met a restart.
        let is_fault = ended.as_ref().is_some_and(|finding| !finding.faults.is_empty());
        (ended, if is_fault { first.or(second) } else { second })
    } else {
        (None, first)
    };
    let is_lost = ended.as_ref().is_none_or(|finding| finding.faults.is_empty());
    let result = match &exchange {
        Err(_) if is_lost => Err(ServerLost::Gone(assess::NO_RESPONSE.to_owned())),
        _ => Ok(()),
    };
    let id = exchange.as_ref().ok().and_then(|exchange| exchange.response.reader.messages.last());
    let id = id.map(|(message, _)| &*message.last_event_id).filter(|id| !id.is_empty());
    printer.add(match id {
        Some(id) => {
            let request = client.uncompressed(Method::GET, url).header("last-event-id", id);
            let resumed = client.read(request, RESPONSE_TIMEOUT, |_| true).await.ok();
            assess::resume_without_probe(resumed.as_ref().map(|resumed| &resumed.response))
        }
        None => Finding::unknown(Check::Resume, assess::NO_PROBE),
    });
    let judged = match &exchange {
        Ok(exchange) => assess::refusal(&exchange.response).map_or(Ok(exchange), Err),
        Err(_) => Err(assess::NO_RESPONSE.to_owned()),
    };
    match judged {
        Ok(exchange) => {
            printer.add(assess::first_event_without_probe(&exchange.response));
            printer.add(assess::fields_without_probe(&exchange.response.reader));
            printer.add(ended.unwrap_or_else(|| idle(exchange)));
        }
        Err(reason) => {
            printer.add(Finding::unknown(Check::FirstEvent, &*reason));
            printer.add(Finding::unknown(Check::Fields, &*reason));
            printer.add(ended.unwrap_or_else(|| Finding::unknown(Check::Idle, reason)));
        }
    }
    (printer.finish(), result)
}

/// Returns the outcome of a request in the terms of the diagnosis.
fn outcome(exchange: &Result<Exchange, RequestError>) -> Result<&StreamResponse, FetchError> {
    exchange.as_ref().map(|exchange| &exchange.response).map_err(RequestError::kind)
}

/// Assesses the pauses of a stream, and its end.
fn idle(exchange: &Exchange) -> Finding {
    let last = duration_from_millis(exchange.last_pause).unwrap_or_default();
    let longest = duration_from_millis(exchange.longest_pause).unwrap_or_default();
    match exchange.response.end {
        StreamEnd::Stopped | StreamEnd::TimedOut => assess::idle(None, None, longest),
        StreamEnd::Complete | StreamEnd::Cut(_) if last > assess::MIN_IDLE => {
            assess::idle(Some(last), None, last)
        }
        StreamEnd::Complete | StreamEnd::Cut(_) => {
            let end = exchange.response.describe_end().unwrap_or_default();
            let longest = format_duration(longest);
            let measured = format!("{end}; its longest pause was {longest}");
            Finding::unknown(Check::Idle, measured)
        }
    }
}

/// Measures a round trip by two requests that are no streams, since a server may respond to those
/// only with its first event. The second one may reuse a connection.
async fn round_trip(client: &HttpClient, url: &Url) -> Option<Duration> {
    let mut shortest = None;
    for _ in 0..2 {
        let request = client.uncompressed(Method::OPTIONS, url);
        let exchange = client.read(request, RESPONSE_TIMEOUT, |_| true).await.ok()?;
        let response = exchange.response;
        let took = duration_from_millis(response.responded_at - response.requested_at)?;
        shortest = Some(shortest.map_or(took, |shortest: Duration| shortest.min(took)));
    }
    shortest
}

/// The state of the stream whose pauses are measured while the other checks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdleStream {
    Requested,
    /// It got another status than 200, or no response.
    Refused,
    Open,
    Ended,
}

/// Opens streams until all of them are open at the same time, or the timeout elapses. The idle
/// stream is one of them if it is open.
async fn concurrent_streams(
    client: &HttpClient,
    url: &Url,
    tried: usize,
    protocol: Option<Protocol>,
    mut idle: watch::Receiver<IdleStream>,
) -> Finding {
    let started = Instant::now();
    let mut opening: FuturesUnordered<_> = (0..tried).map(|_| client.open(url)).collect();
    let mut open = Vec::new();
    let mut refused = None;
    let mut has_broken = false;
    while let Ok(Some(response)) = timeout_at(started + OPEN_TIMEOUT, opening.next()).await {
        match response {
            Some(response) if response.status() == StatusCode::OK => open.push(response),
            Some(response) => refused = Some(response.status().as_u16()),
            None => has_broken = true,
        }
    }
    let has_response = idle.wait_for(|state| *state != IdleStream::Requested);
    let _ = timeout_at(started + OPEN_TIMEOUT, has_response).await;
    if has_broken {
        // Streams on one HTTP/2 connection break together, but are not told at the same moment.
        let has_ended = idle.wait_for(|state| *state != IdleStream::Open);
        let _ = timeout(assess::MIN_IDLE, has_ended).await;
    }
    let idle = *idle.borrow();
    if idle == IdleStream::Ended || open.iter_mut().any(has_ended) {
        let measured = "streams ended before all of them were open";
        return Finding::unknown(Check::ConcurrentStreams, measured);
    }
    let idle = usize::from(idle == IdleStream::Open);
    let mut finding = assess::concurrent_streams(open.len() + idle, tried + idle, protocol, false);
    if let Some(status) = refused {
        let note = format!("; others got the status {status}, at which a browser stops for good");
        finding.measured.push_str(&note);
    }
    finding
}

/// Returns `true` if a response has ended already. Reads what has arrived of it.
fn has_ended(response: &mut Response) -> bool {
    loop {
        match response.chunk().now_or_never() {
            Some(Ok(Some(_))) => {}
            Some(Ok(None) | Err(_)) => return true,
            None => return false,
        }
    }
}

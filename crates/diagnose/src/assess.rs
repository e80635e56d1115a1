//! The assessments: the finding of each check, given its observations.
//!
//! The delivery check has its own module; see
//! [`DeliveryTrace::assess`](crate::DeliveryTrace::assess).

use std::time::Duration;

use waterclock::{notice::GoodbyeReason, offset::Offset};

use crate::{
    check::Check,
    client::{FetchError, Schedule, StreamEnd, StreamResponse},
    delivery::DeliveryTrace,
    event_source,
    fault::Fault,
    finding::{Finding, Verdict},
    format::{duration_from_millis, format_duration, format_millis},
    probe::RequestEcho,
    protocol::Protocol,
    stream_reader::StreamReader,
};

/// Maximum time to the first event.
pub const MAX_FIRST_EVENT: Duration = Duration::from_secs(2);
/// Minimum duration of a stream. Browsers wait for about as long before they reconnect, so a
/// shorter stream is closed for most of the time.
pub const MIN_DURATION: Duration = Duration::from_secs(3);
/// Minimum pause before an end that counts as an idle timeout.
pub const MIN_IDLE: Duration = Duration::from_millis(500);
/// Maximum clock offset.
const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(2);
/// Maximum round-trip time that is good.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);
/// Maximum time between the first events of streams that were open at the same time. It is less
/// than the duration of [`Schedule::CONCURRENT`].
pub const MAX_START_GAP: Duration = Duration::from_millis(2500);
/// Maximum time without data in a stream with heartbeats. WHATWG HTML 9.2.7 advises a comment
/// every 15 seconds or so.
const MAX_SILENCE: Duration = Duration::from_secs(16);
/// Part of the idle period after which a stream counts as having survived it.
const ALMOST_ALL: f64 = 0.98;
/// Number of connections that a browser opens to one host over HTTP/1.1.
pub const BROWSER_CONNECTIONS: usize = 6;

/// Measurement of the checks that need the probe, on a server without one.
pub const NO_PROBE: &str = "the server has no Waterclock probe";
/// Measurement of the checks that got no response.
pub const NO_RESPONSE: &str = "no response";

/// Assesses the versions of HTTP: of the response as the client received it, and of the request as
/// the server received it.
pub fn protocol(client: Option<Protocol>, server: Option<Protocol>) -> Finding {
    let check = Check::Protocol;
    let measured = match (client, server) {
        (Some(client), Some(server)) if client == server => format!("{client} at both ends"),
        (Some(client), Some(server)) => format!("{client} at the client, {server} at the server"),
        (Some(client), None) => format!("{client} at the client, not known at the server"),
        (None, Some(server)) => format!("{server} at the server, not known at the client"),
        (None, None) => return Finding::unknown(check, "no HTTP version is known"),
    };
    let mut faults = Vec::new();
    if client == Some(Protocol::Http10) {
        faults.push(Fault::Http10);
    }
    if server == Some(Protocol::Http10) {
        faults.push(Fault::Http10Upstream);
    }
    let verdict = if faults.is_empty() { Verdict::Good } else { Verdict::Warning };
    Finding::new(check, verdict, measured, faults)
}

/// Returns the number of streams that were open at the same time, out of those that were requested
/// together with [`Schedule::CONCURRENT`].
///
/// `started` has the times of their first events by the server's clock, in milliseconds. The times
/// of arrival would not do: a buffer may hold all events back until the end.
pub fn count_concurrent(started: &[f64]) -> usize {
    let first = started.iter().copied().fold(f64::INFINITY, f64::min);
    let max_gap = MAX_START_GAP.as_secs_f64() * 1000.0;
    started.iter().filter(|time| **time < first + max_gap).count()
}

/// Assesses the number of concurrent streams: those that opened, out of those that were tried.
pub fn concurrent_streams(
    open: usize,
    tried: usize,
    protocol: Option<Protocol>,
    is_browser: bool,
) -> Finding {
    let check = Check::ConcurrentStreams;
    if open >= tried {
        return Finding::good(check, format!("all {open} opened; more were not tried"));
    }
    if open == 0 {
        // The other checks open one stream at a time, so this is not a limit of zero.
        return Finding::unknown(check, format!("none of {tried} had an event in time"));
    }
    let measured = format!("{open} of {tried} opened");
    let is_http1 = protocol.is_none_or(|protocol| protocol <= Protocol::Http11);
    if is_browser && is_http1 && open >= BROWSER_CONNECTIONS - 1 {
        // Another page may use one of the connections.
        return Finding::new(check, Verdict::Warning, measured, [Fault::SixConnections]);
    }
    let verdict = if open < BROWSER_CONNECTIONS { Verdict::Bad } else { Verdict::Warning };
    Finding::new(check, verdict, measured, [Fault::ConnectionLimit])
}

/// Assesses the number of concurrent streams if the server itself refused some of them. This is not
/// a fault of the path.
pub fn refused_streams(open: usize, tried: usize, reason: GoodbyeReason) -> Finding {
    let reason = reason.as_str();
    let measured = format!("{open} of {tried} opened; the server refused the rest (`{reason}`)");
    Finding::unknown(Check::ConcurrentStreams, measured)
}

/// Returns the time from the request to the first event. Returns the reason in words if there was
/// none.
fn time_to_first_event(response: &StreamResponse) -> Result<Duration, String> {
    let first = response.reader.messages.first();
    let took = first.and_then(|(_, time)| duration_from_millis(time - response.requested_at));
    took.ok_or_else(|| match response.describe_end() {
        Some(end) => format!("none: {end}"),
        None => format!("none within {}", format_duration(response.duration())),
    })
}

/// Returns `true` if there was a first event, but a late one.
pub(crate) fn is_late(response: &StreamResponse) -> bool {
    time_to_first_event(response).is_ok_and(|took| took > MAX_FIRST_EVENT)
}

/// Assesses the time to the first event, measured from the request. A late first event is explained
/// by `is_held_back`: the whole stream was.
pub fn first_event(response: &StreamResponse, is_held_back: bool) -> Finding {
    let check = Check::FirstEvent;
    let fault = if is_held_back { Fault::Buffering } else { Fault::LateFirstEvent };
    match time_to_first_event(response) {
        Ok(took) if took <= MAX_FIRST_EVENT && !is_held_back => {
            Finding::good(check, format!("after {}", format_duration(took)))
        }
        Ok(took) => {
            let measured = format!("only after {}", format_duration(took));
            let verdict = if is_held_back { Verdict::Bad } else { Verdict::Warning };
            Finding::new(check, verdict, measured, [fault])
        }
        Err(measured) => {
            let fault = if ends_at_once(response) { Fault::EndsAtOnce } else { fault };
            Finding::new(check, Verdict::Bad, measured, [fault])
        }
    }
}

/// Assesses the time to the first event in a stream that may have had none to send. A late first
/// event is therefore inconclusive.
pub fn first_event_without_probe(response: &StreamResponse) -> Finding {
    match time_to_first_event(response) {
        Ok(took) if took > MAX_FIRST_EVENT => {
            Finding::unknown(Check::FirstEvent, format!("after {}", format_duration(took)))
        }
        Err(measured) if !ends_at_once(response) => Finding::unknown(Check::FirstEvent, measured),
        _ => first_event(response, false),
    }
}

/// Returns `true` if a stream ended, or broke, as soon as it was opened. An end after a pause may
/// be an idle timeout instead.
pub fn ends_at_once(response: &StreamResponse) -> bool {
    let is_ended = matches!(response.end, StreamEnd::Complete | StreamEnd::Cut(_));
    let last_read = response.reader.last_read.unwrap_or(response.responded_at);
    let pause = duration_from_millis(response.ended_at - last_read).unwrap_or_default();
    is_ended && pause <= MIN_IDLE && response.duration() < MIN_DURATION
}

/// Describes a request whose stream ended at once, or that broke before it had a response. Returns
/// `None` for any other request.
fn describe_short(attempt: Result<&StreamResponse, FetchError>) -> Option<String> {
    match attempt {
        Ok(response) if ends_at_once(response) => {
            let events = match response.reader.messages.len() {
                0 => "no event".to_owned(),
                1 => "one event".to_owned(),
                events => format!("{events} events"),
            };
            Some(format!("{}, with {events}", response.describe_end()?))
        }
        Err(FetchError::Cut(after)) if after < MIN_DURATION => {
            Some(format!("the connection broke after {}, without response", format_duration(after)))
        }
        _ => None,
    }
}

/// Assesses two requests for the same stream. Returns `None` unless the first one was short: its
/// stream ended at once, or it broke before it had a response. One short stream alone is
/// inconclusive, because the server may have been restarted just then.
pub fn short_stream(
    first: Result<&StreamResponse, FetchError>,
    second: Result<&StreamResponse, FetchError>,
) -> Option<Finding> {
    let measured = describe_short(first)?;
    let refused = [first, second].into_iter().flatten().find_map(refusal);
    Some(match (refused, describe_short(second)) {
        (Some(reason), _) => Finding::unknown(Check::Idle, format!("{measured}; {reason}")),
        (None, Some(again)) => {
            let measured = format!("{measured}; on another request, {again}");
            Finding::new(Check::Idle, Verdict::Bad, measured, [Fault::EndsAtOnce])
        }
        (None, None) => {
            let other = if second.is_ok() {
                "another one did not end at once"
            } else {
                "another one had no response"
            };
            Finding::unknown(Check::Idle, format!("{measured}; {other}"))
        }
    })
}

/// Fields of a stream: `true` if the stream has them, their name, and the fault if they are lost.
fn seen_fields(reader: &StreamReader) -> [(bool, &'static str, Fault); 3] {
    [
        (reader.has_comment(), "comments", Fault::CommentsLost),
        (reader.retry.is_some(), "`retry`", Fault::RetryLost),
        (reader.has_ids(), "ids", Fault::IdsLost),
    ]
}

/// Joins the names of the fields that a stream has, or of those that it has not.
fn join_fields(fields: &[(bool, &'static str, Fault)], are_seen: bool) -> String {
    let fields = fields.iter().filter(|field| field.0 == are_seen);
    fields.map(|field| field.1).collect::<Vec<_>>().join(", ")
}

/// Measurement of a stream that has all fields.
const ALL_FIELDS: &str = "comments, `retry` and ids arrive";

/// Adds the fault of a stream with parts that browsers ignore or change.
fn with_ignored(mut finding: Finding, reader: &StreamReader) -> Finding {
    if let Some(ignored) = reader.ignored() {
        let verdict = if reader.messages.is_empty() { Verdict::Bad } else { Verdict::Warning };
        finding.verdict = finding.verdict.max(verdict);
        finding.measured = format!("browsers ignore or change a part of the stream: {ignored}");
        finding.faults.push(Fault::Malformed);
    }
    finding
}

/// Assesses the delivery of comments, `retry` and ids in a stream of the probe.
pub fn fields(reader: &StreamReader) -> Finding {
    let check = Check::Fields;
    if reader.messages.is_empty() {
        return with_ignored(Finding::unknown(check, "no event arrived"), reader);
    }
    let fields = seen_fields(reader);
    let faults: Vec<_> = fields.iter().filter(|field| !field.0).map(|field| field.2).collect();
    if faults.is_empty() {
        return with_ignored(Finding::good(check, ALL_FIELDS), reader);
    }
    let is_bad = faults.contains(&Fault::IdsLost);
    let verdict = if is_bad { Verdict::Bad } else { Verdict::Warning };
    Finding::new(check, verdict, format!("lost: {}", join_fields(&fields, false)), faults)
}

/// Assesses the ids and the `retry` of a stream that may have been sent without them. Says what
/// clients lose without them, which is no fault of the path.
pub fn fields_without_probe(reader: &StreamReader) -> Finding {
    let check = Check::Fields;
    if reader.messages.is_empty() {
        return with_ignored(Finding::unknown(check, "no event arrived"), reader);
    }
    let missing: Vec<_> = [
        (reader.has_ids(), "no ids, so a client that reconnects misses events"),
        (reader.retry.is_some(), "no `retry`, so each client chooses when to reconnect"),
    ]
    .into_iter()
    .filter_map(|(is_seen, consequence)| (!is_seen).then_some(consequence))
    .collect();
    let finding = if missing.is_empty() {
        Finding::good(check, "ids and `retry` arrive")
    } else {
        Finding::new(check, Verdict::Warning, missing.join("; "), [])
    };
    with_ignored(finding, reader)
}

/// Assesses the response to a request that resumes a stream of a server without a probe, if there
/// is one. The server may not support it, but must accept the request.
pub fn resume_without_probe(response: Option<&StreamResponse>) -> Finding {
    let check = Check::Resume;
    let Some(response) = response else { return Finding::unknown(check, NO_RESPONSE) };
    let finding = event_source::assess(response);
    if finding.verdict == Verdict::Bad {
        let measured = format!("a reconnect with `Last-Event-ID` is refused: {}", finding.measured);
        return Finding::new(check, finding.verdict, measured, finding.faults);
    }
    Finding::unknown(check, format!("a reconnect is accepted, but {NO_PROBE}"))
}

/// Assesses the headers of a response to a request that accepts compression, like those of
/// browsers.
///
/// `is_cached` is `true` if a response was served twice. `is_waterclock` is `true` if the server is
/// a Waterclock, which sends `Cache-Control: no-cache, no-transform`.
pub fn headers<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    is_cached: bool,
    is_waterclock: bool,
) -> Finding {
    let headers: Vec<_> = headers.into_iter().collect();
    // Several headers of one name are equivalent to one with commas (RFC 9110, section 5.3).
    let get = |wanted: &str| {
        let found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let values: Vec<_> = found.map(|(_, value)| value.trim().to_ascii_lowercase()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    let mut problems = Vec::new();
    let mut verdict = Verdict::Good;
    let mut add = |fault, severity, measured: String| {
        verdict = verdict.max(severity);
        problems.push((fault, measured));
    };
    if let Err(measured) = event_source::check_content_type(headers.iter().copied()) {
        add(Fault::ContentType, Verdict::Bad, measured);
    }
    if let Some(encoding) = get("content-encoding").filter(|encoding| encoding != "identity") {
        let measured = format!("compressed with `{encoding}` if the client accepts it");
        add(Fault::Compression, Verdict::Bad, measured);
    }
    let cache_control = get("cache-control").unwrap_or_default();
    let has = |directive: &str| cache_control.split(',').any(|part| part.trim() == directive);
    let is_complete = (has("no-cache") || has("no-store")) && has("no-transform");
    // Other servers need not send the header.
    if is_waterclock && !is_complete {
        let measured = match &*cache_control {
            "" => "no `Cache-Control`".to_owned(),
            other => format!("`Cache-Control` is `{other}`"),
        };
        add(Fault::CacheControl, Verdict::Warning, measured);
    }
    let age = get("age").and_then(|age| age.parse::<u64>().ok()).unwrap_or_default();
    let is_hit = get("x-cache").is_some_and(|value| value.starts_with("hit"));
    if is_cached || age > 0 || is_hit {
        add(Fault::Cached, Verdict::Bad, "a response came from a cache".to_owned());
    }
    if problems.is_empty() {
        let measured = "right content type, not compressed, not cached";
        return Finding::good(Check::Headers, measured);
    }
    let (faults, measured): (Vec<_>, Vec<_>) = problems.into_iter().unzip();
    Finding::new(Check::Headers, verdict, measured.join("; "), faults)
}

/// Returns the reason why a response says nothing about the path: it is neither of status 200 nor
/// of the probe, or the server ended the stream with a `goodbye`. Returns `None` if it can be
/// assessed.
pub fn refusal(response: &StreamResponse) -> Option<String> {
    // The status of a stream of the probe has a finding of its own.
    if response.status != 200 && response.reader.echo.is_none() {
        return Some(format!("the response status was {}", response.status));
    }
    let reason = response.reader.goodbye()?;
    Some(format!("the server ended the stream (`{}`)", reason.as_str()))
}

/// Assesses a stream that lost events or reordered them. Returns `None` if it is complete.
pub fn lost_events(response: &StreamResponse, schedule: Schedule) -> Option<Finding> {
    if response.reader.is_complete(schedule.events) {
        return None;
    }
    let end = match &response.end {
        StreamEnd::Cut(_) => {
            format!(", then {}", response.describe_end().unwrap_or_default())
        }
        StreamEnd::TimedOut => ", then no more until the timeout".to_owned(),
        StreamEnd::Stopped | StreamEnd::Complete => String::new(),
    };
    let (arrived, events) = (response.reader.numbers.len(), schedule.events);
    let order = if arrived < events as usize { "" } else { " in a different order" };
    let measured = format!("{arrived} of {events} events arrived{order}{end}");
    Some(Finding::new(Check::Delivery, Verdict::Bad, measured, [Fault::EventsLost]))
}

/// Assesses a stream of two events with an idle period between them. `heartbeat` is the server's
/// heartbeat interval, `tried` the length of the idle period.
pub fn idle_stream(response: &StreamResponse, heartbeat: Duration, tried: Duration) -> Finding {
    let StreamResponse { reader, requested_at, ended_at, end, .. } = response;
    if let Some(reason) = refusal(response) {
        return Finding::unknown(Check::Idle, reason);
    }
    if reader.is_complete(2) {
        return idle(None, Some(heartbeat), tried);
    }
    if let Some(end) = response.describe_end()
        && ends_at_once(response)
    {
        return Finding::new(Check::Idle, Verdict::Bad, end, [Fault::EndsAtOnce]);
    }
    let since = |time: f64| duration_from_millis(ended_at - time).unwrap_or_default();
    if *end != StreamEnd::TimedOut && since(*requested_at) > tried.mul_f64(ALMOST_ALL) {
        let reason = "the event after the idle period did not arrive";
        return Finding::unknown(Check::Idle, reason);
    }
    // The idle period began with the first event, unless a buffer held that back.
    let began = reader.messages.last().map_or(*requested_at, |(_, arrived)| *arrived);
    // A stream without its second event is as good as cut, even if the connection is open.
    idle(Some(since(began).min(tried)), Some(heartbeat), tried)
}

/// Assesses an idle period.
///
/// `cut_after` is the idle time after which the stream was cut; `None` if it survived. `heartbeat`
/// is the server's heartbeat interval, if known. `tried` is the length of the idle period.
pub fn idle(cut_after: Option<Duration>, heartbeat: Option<Duration>, tried: Duration) -> Finding {
    let check = Check::Idle;
    let faults = [Fault::IdleTimeout];
    let survived = format_duration(tried);
    match (cut_after, heartbeat) {
        (Some(cut), Some(heartbeat)) => {
            let measured = |margin| {
                let (cut, heartbeat) = (format_duration(cut), format_duration(heartbeat));
                format!("cut after {cut} without data; the heartbeat (every {heartbeat}) {margin}")
            };
            // With equal times, either may come first.
            if cut <= heartbeat + heartbeat / 10 {
                Finding::new(check, Verdict::Bad, measured("comes too late"), faults)
            } else if cut < 2 * heartbeat {
                Finding::new(check, Verdict::Warning, measured("comes only just in time"), faults)
            } else {
                Finding::good(check, measured("comes in time"))
            }
        }
        (Some(cut), None) => {
            let measured = format!("cut after {} without data", format_duration(cut));
            Finding::new(check, Verdict::Bad, measured, faults)
        }
        (None, Some(heartbeat)) => {
            let interval = format_duration(heartbeat);
            if tried < heartbeat {
                Finding::unknown(
                    check,
                    format!(
                        "survives {survived} without data, but the heartbeat comes only every \
                         {interval}: try a longer time"
                    ),
                )
            } else {
                let measured = format!(
                    "survives {survived} without data; the heartbeat comes every {interval}"
                );
                Finding::good(check, measured)
            }
        }
        (None, None) if tried > MAX_SILENCE => {
            let measured = format!(
                "survives {survived} without data, but no heartbeat came; proxies cut such \
                 streams, and clients cannot tell them from dead ones"
            );
            Finding::new(check, Verdict::Warning, measured, [])
        }
        (None, None) => Finding::good(check, format!("survives {survived} without data")),
    }
}

/// Assesses the delivery of `Last-Event-ID`: the id that was sent, and the request as the server
/// received it.
pub fn resume(sent: &str, echo: Option<&RequestEcho>) -> Finding {
    let check = Check::Resume;
    let Some(echo) = echo else {
        return Finding::unknown(check, "the server did not report the request");
    };
    match &echo.last_event_id {
        Some(id) if id == sent => Finding::good(check, "reaches the server"),
        Some(id) => {
            let id: String = id.chars().take(40).collect();
            let measured = format!("reaches the server as `{id}` instead of `{sent}`");
            Finding::new(check, Verdict::Bad, measured, [Fault::LastEventIdLost])
        }
        None => {
            let measured = "does not reach the server, so a reconnect loses events";
            Finding::new(check, Verdict::Bad, measured, [Fault::LastEventIdLost])
        }
    }
}

/// Assesses the response to a POST, if there is one, compared with a GET for the same schedule.
/// `is_get_held_back` is `true` if the events of the GET were held back.
pub fn post(
    response: Option<&StreamResponse>,
    schedule: Schedule,
    is_get_held_back: bool,
) -> Finding {
    let check = Check::Post;
    let Some(response) = response else {
        return Finding::unknown(check, "no response to a POST");
    };
    if response.status != 200 && response.reader.echo.is_none() {
        let measured = format!("a POST is refused with status {}", response.status);
        return Finding::new(check, Verdict::Warning, measured, [Fault::PostRefused]);
    }
    if let Some(reason) = refusal(response) {
        return Finding::unknown(check, reason);
    }
    if lost_events(response, schedule).is_some() {
        return Finding::unknown(check, "some events of the POST did not arrive");
    }
    match (DeliveryTrace::is_held_back(&response.reader.arrivals), is_get_held_back) {
        (false, true) => {
            let measured = "events of a GET are held back, those of a POST are not";
            Finding::new(check, Verdict::Bad, measured, [Fault::GetUnlikePost])
        }
        (true, false) => {
            Finding::good(check, "events of a POST are held back, those of a GET are not")
        }
        (true, true) => Finding::good(check, "treated alike: both are held back"),
        (false, false) => Finding::good(check, "treated alike"),
    }
}

/// Assesses a service worker. `is_controlled` is `true` if one controls the page, `is_intercepted`
/// if it answered a request for the probe.
pub fn service_worker(is_controlled: bool, is_intercepted: bool) -> Finding {
    let check = Check::ServiceWorker;
    match (is_controlled, is_intercepted) {
        (_, true) => {
            let measured = "a service worker answers the requests for the stream";
            Finding::new(check, Verdict::Warning, measured, [Fault::ServiceWorker])
        }
        (true, false) => Finding::good(check, "present, but it leaves the stream alone"),
        (false, false) => Finding::good(check, "none"),
    }
}

/// Assesses the clock offset.
pub fn clock(offset: Option<Offset>) -> Finding {
    let check = Check::Clock;
    let Some(Offset { millis, uncertainty }) = offset else {
        return Finding::unknown(check, "the server's time is not known");
    };
    let direction = if millis < 0.0 { "behind" } else { "ahead" };
    let measured = format!(
        "the server's clock is {} {direction}, give or take {}",
        format_millis(millis.abs()),
        format_millis(uncertainty)
    );
    let duration = |millis| duration_from_millis(millis).unwrap_or_default();
    if duration(millis.abs()) > MAX_CLOCK_OFFSET + duration(uncertainty) {
        return Finding::new(check, Verdict::Warning, measured, [Fault::ClockOff]);
    }
    Finding::good(check, measured)
}

/// Assesses the shortest round-trip time, measured to the end of the response.
pub fn round_trip(shortest: Option<Duration>) -> Finding {
    let check = Check::RoundTrip;
    let Some(shortest) = shortest else {
        return Finding::unknown(check, "no response");
    };
    let verdict = if shortest > MAX_ROUND_TRIP { Verdict::Warning } else { Verdict::Good };
    Finding::new(check, verdict, format_duration(shortest), [])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{CutKind, Redirects},
        stream_reader::Arrival,
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn is(finding: &Finding, verdict: Verdict, faults: &[Fault], measured: &str) {
        assert_eq!((finding.verdict, &*finding.faults), (verdict, faults), "{}", finding.measured);
        assert_eq!(finding.measured, measured);
    }

    #[test]
    fn http_1_0_at_either_end_is_a_warning() {
        use Protocol::{Http2, Http10, Http11};
        is(
            &protocol(Some(Http2), Some(Http11)),
            Verdict::Good,
            &[],
            "HTTP/2 at the client, HTTP/1.1 at the server",
        );
        is(&protocol(Some(Http11), Some(Http11)), Verdict::Good, &[], "HTTP/1.1 at both ends");
        is(
            &protocol(Some(Http10), Some(Http10)),
            Verdict::Warning,
            &[Fault::Http10, Fault::Http10Upstream],
            "HTTP/1.0 at both ends",
        );
        assert_eq!(protocol(None, None).verdict, Verdict::Unknown);
        assert_eq!(protocol(Some(Http2), None).verdict, Verdict::Good);
    }

    #[test]
    fn too_few_concurrent_streams_are_a_limit() {
        use Protocol::{Http2, Http11};
        assert_eq!(concurrent_streams(32, 32, Some(Http11), false).verdict, Verdict::Good);
        assert_eq!(concurrent_streams(0, 32, Some(Http2), false).verdict, Verdict::Unknown);
        for (open, protocol, is_browser, verdict, fault) in [
            (6, Http11, true, Verdict::Warning, Fault::SixConnections),
            (5, Http11, true, Verdict::Warning, Fault::SixConnections),
            (3, Http11, true, Verdict::Bad, Fault::ConnectionLimit),
            (6, Http2, true, Verdict::Warning, Fault::ConnectionLimit),
            (6, Http11, false, Verdict::Warning, Fault::ConnectionLimit),
            (1, Http2, false, Verdict::Bad, Fault::ConnectionLimit),
        ] {
            let finding = concurrent_streams(open, 32, Some(protocol), is_browser);
            is(&finding, verdict, &[fault], &format!("{open} of 32 opened"));
        }
    }

    #[test]
    fn a_late_first_event_is_explained_by_a_buffer() {
        let took = |millis| read(&[(millis, "data: x\n\n")], StreamEnd::Stopped, millis);
        is(&first_event(&took(20.0), false), Verdict::Good, &[], "after 20 ms");
        let late = [Fault::LateFirstEvent];
        is(&first_event(&took(3000.0), false), Verdict::Warning, &late, "only after 3 s");
        let buffering = [Fault::Buffering];
        is(&first_event(&took(2000.0), true), Verdict::Bad, &buffering, "only after 2 s");
        let none = read(&[], StreamEnd::TimedOut, 10_000.0);
        is(&first_event(&none, false), Verdict::Bad, &late, "none within 10 s");
        // Without a probe, there may have been none to send.
        is(&first_event_without_probe(&took(20.0)), Verdict::Good, &[], "after 20 ms");
        is(&first_event_without_probe(&took(3000.0)), Verdict::Unknown, &[], "after 3 s");
        is(&first_event_without_probe(&none), Verdict::Unknown, &[], "none within 10 s");
    }

    /// A response that has these chunks at these times, in milliseconds after the request.
    fn read(chunks: &[(f64, &str)], end: StreamEnd, ended_at: f64) -> StreamResponse {
        let mut reader = StreamReader::default();
        for (time, chunk) in chunks {
            reader.feed(chunk.as_bytes(), *time);
        }
        StreamResponse {
            status: 200,
            headers: Vec::new(),
            redirects: Redirects::default(),
            requested_at: 0.0,
            responded_at: 0.0,
            ended_at,
            end,
            reader,
        }
    }

    #[test]
    fn a_stream_that_ends_at_once_is_a_fault_however_it_ends() {
        let kinds = [
            (StreamEnd::Complete, "the stream ended cleanly"),
            (StreamEnd::Cut(CutKind::Unknown), "the connection broke"),
            (StreamEnd::Cut(CutKind::Reset), "the connection was reset"),
            (
                StreamEnd::Cut(CutKind::StreamReset("CANCEL".to_owned())),
                "the HTTP/2 stream was reset (`CANCEL`)",
            ),
        ];
        let fault = [Fault::EndsAtOnce];
        for (end, words) in kinds {
            let none = read(&[], end.clone(), 3.0);
            let one = read(&[(2.0, "data: x\n\n")], end.clone(), 4.0);
            let finding = short_stream(Ok(&none), Ok(&one)).unwrap();
            let measured = format!(
                "{words} after 3.0 ms, with no event; on another request, {words} after 4.0 ms, \
                 with one event"
            );
            is(&finding, Verdict::Bad, &fault, &measured);
            let measured = format!("none: {words} after 3.0 ms");
            is(&first_event(&none, false), Verdict::Bad, &fault, &measured);
            is(&first_event_without_probe(&none), Verdict::Bad, &fault, &measured);
            let measured = format!("{words} after 4.0 ms");
            let finding = idle_stream(&one, seconds(15), seconds(20));
            is(&finding, Verdict::Bad, &fault, &measured);
        }
        let cut = Err(FetchError::Cut(Duration::from_millis(3)));
        let finding = short_stream(cut, cut).unwrap();
        let measured = "the connection broke after 3.0 ms, without response; on another request, \
                        the connection broke after 3.0 ms, without response";
        is(&finding, Verdict::Bad, &fault, measured);
    }

    #[test]
    fn a_stream_that_ends_at_once_only_once_is_inconclusive() {
        let short = read(&[(2.0, "data: x\n\n")], StreamEnd::Complete, 4.0);
        let goodbye = "event: goodbye\ndata: {\"reason\":\"limit\",\"retry_ms\":1}\n\n";
        let goodbye = read(&[(1.0, goodbye)], StreamEnd::Complete, 1.0);
        let open = read(&[], StreamEnd::TimedOut, 4000.0);
        for (second, words) in [
            (Ok(&open), "another one did not end at once"),
            (Err(FetchError::Unreachable), "another one had no response"),
            (Err(FetchError::TimedOut), "another one had no response"),
            (Ok(&goodbye), "the server ended the stream (`limit`)"),
        ] {
            let finding = short_stream(Ok(&short), second).unwrap();
            let measured =
                format!("the stream ended cleanly after 4.0 ms, with one event; {words}");
            is(&finding, Verdict::Unknown, &[], &measured);
        }
        for first in [Ok(&open), Err(FetchError::Unreachable), Err(FetchError::TimedOut)] {
            assert_eq!(short_stream(first, Ok(&short)), None);
        }
    }

    #[test]
    fn an_end_after_a_pause_or_after_a_while_is_not_at_once() {
        let event = "data: x\n\n";
        let busy = [0.0, 1000.0, 2000.0, 2900.0].map(|time| (time, event));
        for (chunks, end, ended_at, expected) in [
            (&busy[..1], StreamEnd::Complete, 400.0, true),
            (&busy[..1], StreamEnd::Complete, 600.0, false),
            (&[][..], StreamEnd::Complete, 600.0, false),
            (&busy[..], StreamEnd::Complete, 2999.0, true),
            (&busy[..], StreamEnd::Complete, 3000.0, false),
            (&busy[..1], StreamEnd::Stopped, 1.0, false),
        ] {
            let response = read(chunks, end, ended_at);
            assert_eq!(ends_at_once(&response), expected, "{ended_at}");
        }
    }

    #[test]
    fn a_lost_field_is_a_fault_only_if_the_server_sends_it() {
        let read = |stream: &str| {
            let mut reader = StreamReader::default();
            reader.feed(stream.as_bytes(), 0.0);
            reader
        };
        let all = read(": x\nretry: 1\nid: 1\ndata: x\n\n");
        is(&fields(&all), Verdict::Good, &[], "comments, `retry` and ids arrive");
        let none = read("data: x\n\n");
        let faults = [Fault::CommentsLost, Fault::RetryLost, Fault::IdsLost];
        is(&fields(&none), Verdict::Bad, &faults, "lost: comments, `retry`, ids");
        let finding = fields(&read("retry: 1\nid: 1\ndata: x\n\n"));
        is(&finding, Verdict::Warning, &[Fault::CommentsLost], "lost: comments");
        assert_eq!(fields(&StreamReader::default()).verdict, Verdict::Unknown);
        is(&fields_without_probe(&all), Verdict::Good, &[], "ids and `retry` arrive");
        let measured = "no ids, so a client that reconnects misses events; no `retry`, so each \
                        client chooses when to reconnect";
        is(&fields_without_probe(&none), Verdict::Warning, &[], measured);
        let finding = fields_without_probe(&read("id: 1\ndata: x\n\n"));
        let measured = "no `retry`, so each client chooses when to reconnect";
        is(&finding, Verdict::Warning, &[], measured);
        assert_eq!(fields_without_probe(&StreamReader::default()).verdict, Verdict::Unknown);
        // Parts that browsers ignore or change are a fault of any stream, and a serious one without
        // events.
        let malformed = [Fault::Malformed];
        let measured =
            "browsers ignore or change a part of the stream: `x` is not the name of a field";
        let some = read(": x\nretry: 1\nid: 1\nx: y\ndata: x\n\n");
        is(&fields(&some), Verdict::Warning, &malformed, measured);
        is(&fields_without_probe(&some), Verdict::Warning, &malformed, measured);
        let none = read("x: y\n\n");
        is(&fields(&none), Verdict::Bad, &malformed, measured);
        is(&fields_without_probe(&none), Verdict::Bad, &malformed, measured);
    }

    #[test]
    fn each_header_that_breaks_a_stream_is_a_fault() {
        const SENT: [(&str, &str); 2] =
            [("content-type", "text/event-stream"), ("cache-control", "no-cache, no-transform")];
        let with = |headers: &[(&'static str, &'static str)], is_cached| {
            let others = SENT.iter().filter(|sent| headers.iter().all(|one| one.0 != sent.0));
            let all: Vec<_> = others.chain(headers).copied().collect();
            super::headers(all, is_cached, true)
        };
        assert_eq!(with(&[], false).verdict, Verdict::Good);
        assert_eq!(with(&[("content-type", "text/event-stream; charset=utf-8")], false).faults, []);
        for (header, verdict, fault) in [
            (("content-type", "text/html"), Verdict::Bad, Fault::ContentType),
            (("content-type", ""), Verdict::Bad, Fault::ContentType),
            (("content-encoding", "gzip"), Verdict::Bad, Fault::Compression),
            (("cache-control", "no-cache"), Verdict::Warning, Fault::CacheControl),
            (("cache-control", "max-age=60"), Verdict::Warning, Fault::CacheControl),
            (("age", "3"), Verdict::Bad, Fault::Cached),
            (("x-cache", "HIT"), Verdict::Bad, Fault::Cached),
        ] {
            let finding = with(&[header], false);
            assert_eq!(
                (finding.verdict, &finding.faults[..]),
                (verdict, &[fault][..]),
                "{header:?}"
            );
        }
        assert_eq!(with(&[], true).faults, [Fault::Cached]);
        // Other servers need not send `Cache-Control`.
        let finding = headers([("Content-Type", "text/event-stream")], false, false);
        assert_eq!(finding.verdict, Verdict::Good);
    }

    #[test]
    fn a_cut_of_an_idle_stream_is_compared_with_the_heartbeat() {
        let heartbeat = Some(seconds(15));
        let fault = [Fault::IdleTimeout];
        is(
            &idle(None, heartbeat, seconds(20)),
            Verdict::Good,
            &[],
            "survives 20 s without data; the heartbeat comes every 15 s",
        );
        is(
            &idle(Some(seconds(1)), heartbeat, seconds(20)),
            Verdict::Bad,
            &fault,
            "cut after 1 s without data; the heartbeat (every 15 s) comes too late",
        );
        assert_eq!(idle(Some(seconds(16)), heartbeat, seconds(60)).verdict, Verdict::Bad);
        assert_eq!(idle(Some(seconds(20)), heartbeat, seconds(60)).verdict, Verdict::Warning);
        assert_eq!(idle(Some(seconds(60)), heartbeat, seconds(90)).verdict, Verdict::Good);
        assert_eq!(idle(None, heartbeat, seconds(5)).verdict, Verdict::Unknown);
        assert_eq!(idle(None, None, seconds(15)).verdict, Verdict::Good);
        let silent = idle(None, None, seconds(17));
        assert_eq!((silent.verdict, &*silent.faults), (Verdict::Warning, &[][..]));
        is(
            &idle(Some(seconds(5)), None, seconds(9)),
            Verdict::Bad,
            &fault,
            "cut after 5 s without data",
        );
    }

    #[test]
    fn last_event_id_must_arrive_unchanged() {
        let echo = |id: Option<&str>| RequestEcho {
            last_event_id: id.map(str::to_owned),
            ..RequestEcho::default()
        };
        assert_eq!(resume("probe-7", Some(&echo(Some("probe-7")))).verdict, Verdict::Good);
        for received in [None, Some("x")] {
            assert_eq!(resume("probe-7", Some(&echo(received))).faults, [Fault::LastEventIdLost]);
        }
        assert_eq!(resume("probe-7", None).verdict, Verdict::Unknown);
    }

    /// A response whose events arrived as they were sent, or all at the end.
    fn response(status: u16, is_held_back: bool) -> StreamResponse {
        let mut reader = StreamReader::default();
        for number in 1..=20 {
            let sent = f64::from(number) * 100.0;
            let arrived = if is_held_back { 2000.0 } else { sent };
            reader.arrivals.push(Arrival { sent, arrived, bytes: 100 });
            reader.numbers.push(number);
        }
        StreamResponse {
            status,
            headers: Vec::new(),
            redirects: Redirects::default(),
            requested_at: 0.0,
            responded_at: 0.0,
            ended_at: 2000.0,
            end: StreamEnd::Complete,
            reader,
        }
    }

    #[test]
    fn a_post_is_compared_with_a_get() {
        const SCHEDULE: Schedule = Schedule { events: 20, ..Schedule::SINGLE };
        let post = |response: Option<&StreamResponse>, is_get_held_back| {
            super::post(response, SCHEDULE, is_get_held_back)
        };
        let (prompt, held) = (response(200, false), response(200, true));
        assert_eq!(post(Some(&prompt), false).verdict, Verdict::Good);
        assert_eq!(post(Some(&held), false).verdict, Verdict::Good);
        assert_eq!(post(Some(&held), true).verdict, Verdict::Good);
        assert_eq!(post(Some(&prompt), true).faults, [Fault::GetUnlikePost]);
        assert_eq!(post(None, false).verdict, Verdict::Unknown);
        is(
            &post(Some(&response(405, false)), false),
            Verdict::Warning,
            &[Fault::PostRefused],
            "a POST is refused with status 405",
        );
        let mut cut = response(200, false);
        cut.reader.numbers.pop();
        assert_eq!(post(Some(&cut), true).verdict, Verdict::Unknown);
        let mut ended = response(200, false);
        ended.reader.feed(b"event: goodbye\ndata: {\"reason\":\"limit\",\"retry_ms\":1}\n\n", 0.0);
        is(
            &post(Some(&ended), true),
            Verdict::Unknown,
            &[],
            "the server ended the stream (`limit`)",
        );
    }

    #[test]
    fn lost_and_reordered_events_are_distinguished() {
        let schedule = Schedule { events: 20, ..Schedule::SINGLE };
        let mut response = response(200, false);
        assert_eq!(lost_events(&response, schedule), None);
        response.reader.numbers.swap(1, 2);
        let finding = lost_events(&response, schedule).unwrap();
        assert_eq!(finding.measured, "20 of 20 events arrived in a different order");
        response.reader.numbers.remove(2);
        for (end, words) in [
            (StreamEnd::Complete, ""),
            (StreamEnd::Cut(CutKind::Reset), ", then the connection was reset after 2 s"),
        ] {
            response.end = end;
            let measured = format!("19 of 20 events arrived{words}");
            let finding = lost_events(&response, schedule).unwrap();
            is(&finding, Verdict::Bad, &[Fault::EventsLost], &measured);
        }
    }

    #[test]
    fn a_service_worker_is_a_warning_only_if_it_answers() {
        assert_eq!(service_worker(true, true).faults, [Fault::ServiceWorker]);
        assert_eq!(service_worker(true, false).verdict, Verdict::Good);
        assert_eq!(service_worker(false, false).measured, "none");
    }

    #[test]
    fn clocks_far_apart_and_slow_round_trips_are_warnings() {
        let apart = |millis| clock(Some(Offset { millis, uncertainty: 10.0 }));
        is(
            &apart(-30.0),
            Verdict::Good,
            &[],
            "the server's clock is 30 ms behind, give or take 10 ms",
        );
        assert_eq!(apart(3000.0).faults, [Fault::ClockOff]);
        assert_eq!(clock(None).verdict, Verdict::Unknown);
        assert_eq!(round_trip(Some(Duration::from_millis(20))).measured, "20 ms");
        assert_eq!(round_trip(Some(seconds(2))).verdict, Verdict::Warning);
        assert_eq!(round_trip(None).verdict, Verdict::Unknown);
    }
}

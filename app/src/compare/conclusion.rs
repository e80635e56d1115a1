//! The conclusion of a comparison: what its figures say, in plain sentences. Pure.

use super::{
    format::{every, joined, rough_millis, times, transport_name},
    results::{Results, TransportResult},
    stats::Health,
};
use crate::labels::{capitalized, count};

/// Number of events below which the figures are too uncertain to be compared.
const FEW_EVENTS: u64 = 10;
/// Greatest difference between latencies that count as equal, in milliseconds.
const TIE_MILLIS: f64 = 1.0;
/// Greatest difference between latencies that count as equal, as a fraction of the shorter one.
const TIE_FRACTION: f64 = 0.2;
/// Time that a connection may take to open without a remark, in seconds.
const OPEN_TIMEOUT: u64 = 5;

/// Transports with equal latencies.
type Tie<'a> = Vec<&'a TransportResult>;

/// Returns the state of a run as a key of the style sheet, and as a text.
pub(crate) fn progress(results: &Results) -> (&'static str, String) {
    let has = |health| results.transports.iter().any(|of| of.counters.health == health);
    let text = format!("Running for {} s", results.seconds);
    if has(Health::Open) {
        ("live", text)
    } else if has(Health::Lost) {
        ("reconnecting", "Connection lost, reconnecting".to_owned())
    } else if has(Health::Full) {
        ("waiting", "Server full, trying again".to_owned())
    } else {
        ("connecting", text)
    }
}

/// Writes the main result as one sentence.
pub(crate) fn headline(results: &Results) -> String {
    let ties = ties(results);
    let Some((fastest, slower)) = ties.split_first() else {
        return without_latencies(results).to_owned();
    };
    let events = most_events(results);
    if results.is_running && events < FEW_EVENTS {
        return format!("Measuring: {} so far.", count(events, "event"));
    }
    if let [TransportResult { latency: Some(latency), .. }] = &results.transports[..] {
        let (half, most) = (rough_millis(latency.p50), rough_millis(latency.p99));
        let name = capitalized(&names(results, fastest));
        return if half == most {
            format!("{name} delivers in {most}.")
        } else {
            format!("{name} delivers half of the events within {half}, and 99% within {most}.")
        };
    }
    let verb = match (fastest.len(), slower) {
        (1, _) => "delivers",
        (2, []) => "both deliver",
        (_, []) => "all deliver",
        _ => "deliver",
    };
    let name = capitalized(&names(results, fastest));
    let mut sentence = format!("{name} {verb} in {}", time(results, fastest));
    for (i, tie) in slower.iter().enumerate() {
        let and = if i > 0 && i + 1 == slower.len() { "and " } else { "" };
        let (name, time) = (names(results, tie), time(results, tie));
        let verb = if tie.len() == 1 { "takes" } else { "take" };
        sentence = format!("{sentence}; {and}{name} {verb} {time}");
        if let [only] = tie[..] {
            sentence += &cost(only, fewest_requests(fastest));
        }
    }
    sentence + "."
}

/// Writes the main result, and the further ones, in one paragraph.
pub(crate) fn paragraph(results: &Results) -> String {
    format!("{} {}", headline(results), remarks(results)).trim_end().to_owned()
}

/// Writes the further results and problems in a few sentences. Returns an empty text if there are
/// none.
pub(crate) fn remarks(results: &Results) -> String {
    let ties = ties(results);
    let mut remarks = connection_remarks(results, ties.is_empty());
    if results.is_running && ties.is_empty() && results.seconds >= OPEN_TIMEOUT {
        let is_open = |of: &TransportResult| of.counters.health == Health::Open;
        if results.transports.iter().any(is_open) {
            remarks.push("Publish to these topics to have something to measure.".to_owned());
        }
    }
    // The headline has the cost of a transport that is slower than all others.
    let baseline = ties.first().map_or(0, |fastest| fewest_requests(fastest));
    let is_unmentioned = |(i, tie): &(usize, &Tie)| *i == 0 || tie.len() > 1;
    for result in ties.iter().enumerate().filter(is_unmentioned).flat_map(|(_, tie)| tie) {
        if baseline > 0 && result.counters.requests >= 2 * baseline {
            let name = capitalized(transport_name(result.transport));
            let factor = times(result.counters.requests, baseline);
            remarks.push(format!("{name} needs {factor} the requests."));
        }
    }
    for result in &results.transports {
        let name = capitalized(transport_name(result.transport));
        let (missing, duplicates) = (result.counters.missing, result.counters.duplicates);
        if missing > 0 {
            remarks.push(format!("{name} missed {}.", count(missing, "event")));
        }
        if duplicates > 0 {
            remarks.push(format!("{name} delivered {}.", count(duplicates, "duplicate")));
        }
    }
    let is_complete = |of: &TransportResult| {
        of.counters.missing + of.counters.duplicates + of.counters.gaps == 0 && of.latency.is_some()
    };
    if !results.is_running && !ties.is_empty() {
        let events = most_events(results);
        if events < FEW_EVENTS {
            let verb = if events == 1 { "is" } else { "are" };
            remarks.push(format!("{} {verb} too few to be sure.", count(events, "event")));
        }
        if results.in_log.is_some() && results.transports.iter().all(is_complete) {
            remarks.push("No event was lost or delivered twice.".to_owned());
        }
    }
    remarks.join(" ")
}

/// Writes remarks about connections that are not open, and about transports without events.
fn connection_remarks(results: &Results, is_without_latencies: bool) -> Vec<String> {
    let is_running = results.is_running;
    let mut remarks = Vec::new();
    for problem in [
        ConnectionProblem::Full,
        ConnectionProblem::Blocked,
        ConnectionProblem::Slow,
        ConnectionProblem::Lost,
        ConnectionProblem::Silent,
        ConnectionProblem::Few,
    ] {
        let has_it = |of: &&TransportResult| ConnectionProblem::of(results, of) == Some(problem);
        let affected: Vec<_> = results.transports.iter().filter(has_it).collect();
        let is_one = affected.len() == 1;
        // The headline says so if it is the same for all.
        if affected.is_empty() || is_without_latencies && problem == ConnectionProblem::Silent {
            continue;
        }
        let name = capitalized(&joined(&of_each(&affected, transport_name)));
        let or = |one: &'static str, many: &'static str| if is_one { one } else { many };
        remarks.push(match problem {
            ConnectionProblem::Full if is_running => format!(
                "{name} {} refused: the server has reached its limit of streams.",
                or("is", "are")
            ),
            ConnectionProblem::Full => format!(
                "{name} {} refused: the server had reached its limit of streams.",
                or("was", "were")
            ),
            ConnectionProblem::Blocked if is_running => format!(
                "{name} cannot connect: something between this browser and the server may block {}.",
                or("it", "them")
            ),
            ConnectionProblem::Slow if is_running => format!(
                "{name} {} been waiting for a connection for {} s. Other tabs may be using all of \
                 the browser's connections.",
                or("has", "have"),
                results.seconds
            ),
            ConnectionProblem::Blocked | ConnectionProblem::Slow => format!("{name} never connected."),
            ConnectionProblem::Lost => format!(
                "{name} {}, and {} reconnecting.",
                or("has lost its connection", "have lost their connections"),
                or("is", "are")
            ),
            ConnectionProblem::Silent if is_running => {
                format!("{name} {} delivered nothing yet.", or("has", "have"))
            }
            ConnectionProblem::Silent => format!("{name} delivered nothing."),
            ConnectionProblem::Few => {
                let have = if is_running { or("has ", "have ") } else { "" };
                format!("{name} {have}delivered too few events to be compared.")
            }
        });
    }
    remarks
}

/// The reason why a transport has no events, or no further ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionProblem {
    /// The server has reached its limit of streams.
    Full,
    /// Several attempts to connect have failed.
    Blocked,
    /// The first attempt to connect takes long.
    Slow,
    /// The connection was lost, and the client is reconnecting.
    Lost,
    /// The connection is open, or was, and nothing has arrived.
    Silent,
    /// Too little has arrived to be compared.
    Few,
}

impl ConnectionProblem {
    fn of(results: &Results, result: &TransportResult) -> Option<Self> {
        let is_over = !results.is_running;
        match result.counters.health {
            Health::Full => Some(Self::Full),
            Health::Connecting if result.counters.requests > 1 => Some(Self::Blocked),
            Health::Connecting => {
                (is_over || results.seconds >= OPEN_TIMEOUT).then_some(Self::Slow)
            }
            Health::Lost if results.is_running => Some(Self::Lost),
            Health::Lost | Health::Open if result.latency.is_none() => Some(Self::Silent),
            Health::Lost | Health::Open => (!is_comparable(results, result)).then_some(Self::Few),
        }
    }
}

/// Writes the sentence in place of the main result if no transport has delivered an event.
fn without_latencies(results: &Results) -> &'static str {
    let has = |health| results.transports.iter().any(|of| of.counters.health == health);
    let has_opened = has(Health::Open) || has(Health::Lost);
    match results.is_running {
        true if has(Health::Open) => "No events have arrived yet.",
        true if has(Health::Lost) => "There is no connection at the moment.",
        true if has(Health::Full) => "The server is full, so there is nothing to compare yet.",
        true if results.seconds < OPEN_TIMEOUT => "Connecting…",
        true => "No connection could be opened yet.",
        false if has_opened => "No events arrived, so there is nothing to compare.",
        false => "No transport could connect, so there is nothing to compare.",
    }
}

/// Returns `true` if a transport has delivered enough events, or if no other has done better.
fn is_comparable(results: &Results, result: &TransportResult) -> bool {
    let few = FEW_EVENTS.min(most_events(results));
    result.latency.is_some() && (few < FEW_EVENTS || result.counters.events >= few)
}

/// Groups the transports that can be compared by their median latency, fastest first.
fn ties(results: &Results) -> Vec<Tie<'_>> {
    let mut rest: Tie = results.transports.iter().filter(|of| is_comparable(results, of)).collect();
    let mut ties = Vec::new();
    while let Some(fastest) = rest.iter().map(|of| median(of)).reduce(f64::min) {
        let limit = fastest + (fastest * TIE_FRACTION).max(TIE_MILLIS);
        let (tie, slower) = rest.into_iter().partition(|of| median(of) <= limit);
        ties.push(tie);
        rest = slower;
    }
    ties
}

fn median(result: &TransportResult) -> f64 {
    result.latency.as_ref().map_or(f64::INFINITY, |latency| latency.p50)
}

/// Writes the median latencies of transports that are equally fast.
fn time(results: &Results, tie: &[&TransportResult]) -> String {
    let shortest = tie.iter().map(|of| median(of)).fold(f64::INFINITY, f64::min);
    let longest = tie.iter().map(|of| median(of)).fold(f64::NEG_INFINITY, f64::max);
    let (from, to) = (rough_millis(shortest.max(1.0)), rough_millis(longest));
    let about = if results.uncertainty > shortest / 2.0 && longest >= 1.0 { "about " } else { "" };
    if from == to || longest < 1.0 {
        return format!("{about}{to}");
    }
    // "3 to 4 ms"
    let from = match (from.split_once(' '), to.split_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => number,
        _ => &from,
    };
    format!("{about}{from} to {to}")
}

/// Writes the requests of a transport, as a multiple of those of another one.
fn cost(result: &TransportResult, baseline: u64) -> String {
    let requests = result.counters.requests;
    if baseline == 0 || requests == 0 {
        String::new()
    } else if requests >= 2 * baseline {
        format!(" and {} the requests", times(requests, baseline))
    } else if 2 * requests <= baseline {
        let fewer = (100 * (baseline - requests) / baseline).min(99);
        format!(", with {fewer}% fewer requests")
    } else {
        String::new()
    }
}

fn fewest_requests(tie: &[&TransportResult]) -> u64 {
    tie.iter().map(|result| result.counters.requests).min().unwrap_or(0)
}

fn most_events(results: &Results) -> u64 {
    results.transports.iter().map(|of| of.counters.events).max().unwrap_or(0)
}

/// Names transports, and the interval of polling.
fn names(results: &Results, tie: &[&TransportResult]) -> String {
    let name = |transport| match transport_name(transport) {
        "polling" => format!("polling {}", every(results.poll_interval)),
        name => name.to_owned(),
    };
    joined(&of_each(tie, name))
}

fn of_each<T>(
    tie: &[&TransportResult],
    name: impl Fn(waterclock::transport::Transport) -> T,
) -> Vec<T> {
    tie.iter().map(|result| name(result.transport)).collect()
}

#[cfg(test)]
mod tests {
    use waterclock::{timestamp::Timestamp, transport::Transport};

    use super::*;
    use crate::compare::{
        latency::LatencySummary,
        stats::{Counters, CutOutcome},
    };

    const SSE: Transport = Transport::Sse;
    const WEBSOCKET: Transport = Transport::WebSocket;
    const LONG_POLL: Transport = Transport::LongPoll;
    const POLL: Transport = Transport::Poll;

    /// A transport with a median latency in milliseconds and a number of requests.
    fn measured(transport: Transport, p50: f64, requests: u64) -> TransportResult {
        let latency = LatencySummary {
            p50,
            p95: p50 * 2.0,
            p99: p50 * 3.0,
            maximum: p50 * 4.0,
            mean: p50,
            bars: Vec::new(),
        };
        let counters =
            Counters { health: Health::Open, events: 1152, requests, ..Counters::default() };
        TransportResult {
            transport,
            counters,
            latency: Some(latency),
            cut: CutOutcome::None,
            server: None,
            browser: None,
        }
    }

    /// A transport without events.
    fn silent(transport: Transport, health: Health, requests: u64) -> TransportResult {
        let counters = Counters { health, requests, ..Counters::default() };
        TransportResult { counters, latency: None, ..measured(transport, 1.0, 1) }
    }

    fn stopped(transports: Vec<TransportResult>) -> Results {
        Results {
            began: Timestamp::from_millis(1_795_388_401_000),
            seconds: 60,
            topics: "clock".to_owned(),
            poll_interval: 1000,
            protocol: "http/1.1".to_owned(),
            offset: 0.25,
            uncertainty: 0.5,
            in_log: Some(1152),
            is_running: false,
            was_hidden: false,
            transports,
            shared: None,
        }
    }

    fn running(seconds: u64, transports: Vec<TransportResult>) -> Results {
        Results { seconds, is_running: true, in_log: None, ..stopped(transports) }
    }

    fn four() -> Vec<TransportResult> {
        vec![
            measured(SSE, 3.0, 2),
            measured(WEBSOCKET, 3.1, 2),
            measured(LONG_POLL, 5.2, 1131),
            measured(POLL, 519.0, 60),
        ]
    }

    #[test]
    fn the_headline_compares_latencies_and_requests() {
        let measured = |of: &[(Transport, f64, u64)]| {
            of.iter()
                .map(|&(transport, p50, requests)| measured(transport, p50, requests))
                .collect()
        };
        for (transports, expected) in [
            (
                four(),
                "SSE and WebSocket deliver in 3 ms; long polling takes 5 ms and 570 times the \
                 requests; and polling every second takes 519 ms and 30 times the requests.",
            ),
            (
                measured(&[(SSE, 4.1, 1), (WEBSOCKET, 3.6, 1), (POLL, 500.0, 60)]),
                "SSE and WebSocket deliver in 4 ms; polling every second takes 500 ms and 60 times \
                 the requests.",
            ),
            (
                measured(&[(SSE, 9.0, 1), (WEBSOCKET, 4.0, 1)]),
                "WebSocket delivers in 4 ms; SSE takes 9 ms.",
            ),
            (
                measured(&[(LONG_POLL, 5.0, 1131), (POLL, 1519.0, 60)]),
                "Long polling delivers in 5 ms; polling every second takes 1.5 s, with 94% fewer \
                 requests.",
            ),
            (
                measured(&[(LONG_POLL, 5.0, 60), (POLL, 519.0, 60)]),
                "Long polling delivers in 5 ms; polling every second takes 519 ms.",
            ),
            (
                measured(&[(POLL, 519.0, 2), (SSE, 5.0, 1)]),
                "SSE delivers in 5 ms; polling every second takes 519 ms and twice the requests.",
            ),
            (
                measured(&[(SSE, 5.0, 0), (POLL, 519.0, 60)]),
                "SSE delivers in 5 ms; polling every second takes 519 ms.",
            ),
            (
                measured(&[(SSE, 5.0, 1), (LONG_POLL, 100.0, 9), (POLL, 105.0, 9)]),
                "SSE delivers in 5 ms; long polling and polling every second take 100 to 105 ms.",
            ),
        ] {
            assert_eq!(headline(&stopped(transports.clone())), expected);
            assert_eq!(headline(&running(60, transports)), expected, "while it runs");
        }
    }

    #[test]
    fn latencies_within_the_noise_are_equal() {
        let of = |first, second| {
            headline(&stopped(vec![measured(SSE, first, 1), measured(WEBSOCKET, second, 1)]))
        };
        assert_eq!(of(4.0, 4.3), "SSE and WebSocket both deliver in 4 ms.");
        assert_eq!(of(4.0, 5.0), "SSE and WebSocket both deliver in 4 to 5 ms.");
        assert_eq!(of(4.0, 5.1), "SSE delivers in 4 ms; WebSocket takes 5 ms.");
        assert_eq!(of(119.0, 100.0), "SSE and WebSocket both deliver in 100 to 119 ms.");
        assert_eq!(of(121.0, 100.0), "WebSocket delivers in 100 ms; SSE takes 121 ms.");
        assert_eq!(of(950.0, 1040.0), "SSE and WebSocket both deliver in 950 ms to 1.0 s.");
        assert_eq!(of(0.2, 0.6), "SSE and WebSocket both deliver in less than 1 ms.");
        assert_eq!(of(-0.4, 0.3), "SSE and WebSocket both deliver in less than 1 ms.");
        assert_eq!(of(1.4, 2.2), "SSE and WebSocket both deliver in 1 to 2 ms.");
        let three = vec![
            measured(SSE, 4.0, 1),
            measured(WEBSOCKET, 4.2, 1),
            measured(LONG_POLL, 4.4, 1131),
        ];
        let results = stopped(three);
        assert_eq!(headline(&results), "SSE, WebSocket and long polling all deliver in 4 ms.");
        assert_eq!(
            remarks(&results),
            "Long polling needs 1,100 times the requests. No event was lost or delivered twice."
        );
    }

    #[test]
    fn a_latency_below_the_uncertainty_is_an_estimate() {
        let results = Results { uncertainty: 2.5, ..stopped(four()) };
        assert_eq!(
            headline(&results),
            "SSE and WebSocket deliver in about 3 ms; long polling takes 5 ms and 570 times the \
             requests; and polling every second takes 519 ms and 30 times the requests."
        );
    }

    #[test]
    fn a_single_transport_has_two_percentiles() {
        assert_eq!(
            headline(&stopped(vec![measured(SSE, 4.0, 1)])),
            "SSE delivers half of the events within 4 ms, and 99% within 12 ms."
        );
        assert_eq!(
            headline(&stopped(vec![measured(SSE, 0.2, 1)])),
            "SSE delivers in less than 1 ms."
        );
        for (interval, expected) in [(250, "every 250 ms"), (2000, "every 2 seconds")] {
            let results =
                Results { poll_interval: interval, ..stopped(vec![measured(POLL, 130.0, 1)]) };
            assert_eq!(
                headline(&results),
                format!(
                    "Polling {expected} delivers half of the events within 130 ms, and 99% within \
                     390 ms."
                )
            );
        }
    }

    #[test]
    fn a_run_that_has_just_begun_has_no_result_yet() {
        let mut transports = four();
        for result in &mut transports {
            result.counters.events = 1;
        }
        assert_eq!(headline(&running(0, transports.clone())), "Measuring: 1 event so far.");
        transports[0].counters.events = 9;
        assert_eq!(headline(&running(1, transports.clone())), "Measuring: 9 events so far.");
        for result in &mut transports {
            result.counters.events = 10;
        }
        assert!(headline(&running(1, transports.clone())).starts_with("SSE and WebSocket deliver"));
        // A short run has a result with a caveat.
        for result in &mut transports {
            result.counters.events = 9;
        }
        let results = stopped(transports);
        assert!(headline(&results).starts_with("SSE and WebSocket deliver"));
        assert_eq!(
            remarks(&results),
            "9 events are too few to be sure. No event was lost or delivered twice."
        );
        let connecting = [SSE, POLL].map(|transport| silent(transport, Health::Connecting, 1));
        let results = running(1, connecting.to_vec());
        assert_eq!([headline(&results), remarks(&results)], ["Connecting…", ""]);
    }

    #[test]
    fn a_transport_without_events_is_a_remark() {
        let with = |broken: TransportResult| vec![measured(SSE, 4.0, 1), broken];
        for (broken, while_running, after) in [
            (
                silent(POLL, Health::Open, 3),
                "Polling has delivered nothing yet.",
                "Polling delivered nothing.",
            ),
            (
                silent(WEBSOCKET, Health::Connecting, 4),
                "WebSocket cannot connect: something between this browser and the server may block \
                 it.",
                "WebSocket never connected.",
            ),
            (
                silent(WEBSOCKET, Health::Connecting, 1),
                "WebSocket has been waiting for a connection for 9 s. Other tabs may be using all \
                 of the browser's connections.",
                "WebSocket never connected.",
            ),
            (
                silent(LONG_POLL, Health::Full, 4),
                "Long polling is refused: the server has reached its limit of streams.",
                "Long polling was refused: the server had reached its limit of streams.",
            ),
            (
                silent(LONG_POLL, Health::Lost, 4),
                "Long polling has lost its connection, and is reconnecting.",
                "Long polling delivered nothing.",
            ),
        ] {
            let results = running(9, with(broken.clone()));
            assert_eq!(headline(&results), "SSE delivers in 4 ms.");
            assert_eq!(remarks(&results), while_running);
            let results = stopped(with(broken));
            assert_eq!(headline(&results), "SSE delivers in 4 ms.");
            assert_eq!(remarks(&results), after);
        }
        let results = running(1, with(silent(WEBSOCKET, Health::Connecting, 1)));
        assert_eq!(remarks(&results), "", "it may still connect");
        let mut transports = four();
        transports[0].counters.health = Health::Lost;
        transports[1].counters.health = Health::Lost;
        assert_eq!(
            remarks(&running(60, transports)),
            "SSE and WebSocket have lost their connections, and are reconnecting."
        );
    }

    #[test]
    fn a_transport_with_few_events_is_not_compared() {
        let mut poll = measured(POLL, 32.0, 1);
        poll.counters.events = 3;
        let transports = vec![measured(SSE, 4.0, 1), poll];
        let results = running(9, transports.clone());
        assert_eq!(headline(&results), "SSE delivers in 4 ms.");
        assert_eq!(
            remarks(&results),
            "Polling has delivered too few events to be compared.",
            "its only response may have come by chance just after an event"
        );
        assert_eq!(
            remarks(&stopped(transports)),
            "Polling delivered too few events to be compared. No event was lost or delivered twice."
        );
    }

    #[test]
    fn a_run_without_any_event_says_why() {
        let all = |health, requests| {
            [SSE, WEBSOCKET].map(|transport| silent(transport, health, requests)).to_vec()
        };
        for (health, requests, while_running, after) in [
            (
                Health::Connecting,
                3,
                "No connection could be opened yet. SSE and WebSocket cannot connect: something \
                 between this browser and the server may block them.",
                "No transport could connect, so there is nothing to compare. SSE and WebSocket \
                 never connected.",
            ),
            (
                Health::Full,
                3,
                "The server is full, so there is nothing to compare yet. SSE and WebSocket are \
                 refused: the server has reached its limit of streams.",
                "No transport could connect, so there is nothing to compare. SSE and WebSocket \
                 were refused: the server had reached its limit of streams.",
            ),
            (
                Health::Lost,
                3,
                "There is no connection at the moment. SSE and WebSocket have lost their \
                 connections, and are reconnecting.",
                "No events arrived, so there is nothing to compare. ",
            ),
            (
                Health::Open,
                1,
                "No events have arrived yet. Publish to these topics to have something to measure.",
                "No events arrived, so there is nothing to compare. ",
            ),
        ] {
            let text = |results: &Results| format!("{} {}", headline(results), remarks(results));
            assert_eq!(text(&running(9, all(health, requests))), while_running);
            assert_eq!(text(&stopped(all(health, requests))), after);
        }
        let results = running(1, all(Health::Open, 1));
        assert_eq!(remarks(&results), "", "there may be events soon");
    }

    #[test]
    fn the_state_is_that_of_the_best_connection() {
        let of = |healths: &[Health]| {
            let lanes = healths.iter().map(|&health| silent(SSE, health, 1));
            progress(&running(9, lanes.collect())).0
        };
        let [connecting, open, lost, full] =
            [Health::Connecting, Health::Open, Health::Lost, Health::Full];
        assert_eq!(of(&[connecting, full, lost, open]), "live");
        assert_eq!(of(&[connecting, full, lost]), "reconnecting");
        assert_eq!(of(&[connecting, full]), "waiting");
        assert_eq!(of(&[connecting]), "connecting");
    }

    #[test]
    fn lost_and_doubled_events_are_remarks() {
        let mut transports = four();
        transports[3].counters.missing = 1;
        transports[0].counters.duplicates = 12;
        assert_eq!(
            remarks(&stopped(transports)),
            "SSE delivered 12 duplicates. Polling missed 1 event."
        );
        assert_eq!(remarks(&stopped(four())), "No event was lost or delivered twice.");
        assert_eq!(remarks(&running(60, four())), "", "it was not checked yet");
        let unchecked = Results { in_log: None, ..stopped(four()) };
        assert_eq!(remarks(&unchecked), "");
    }
}

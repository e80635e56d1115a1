//! The results of a comparison, for the table, a link, and the clipboard.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use waterclock::{offset::Offset, timestamp::Timestamp, transport::Transport};
use waterclock_diagnose::Protocol;

use super::{
    format::{millis, transport_label, whole_millis},
    latency::LatencySummary,
    stats::{Counters, CutOutcome, Health, RecoveryResult},
};
use crate::{
    browser::MeterCounts,
    labels::{count, grouped},
};

/// Text of an empty cell.
const EMPTY: &str = "–";

/// The results of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) began: Timestamp,
    /// Duration so far, or in all.
    pub(crate) seconds: u64,
    /// The events that were read: patterns of topics, or the size of the load.
    pub(crate) topics: String,
    /// Interval of polling, in milliseconds.
    #[serde(rename = "every")]
    pub(crate) poll_interval: u64,
    /// Protocol of the page, by its ALPN name (RFC 7301). Empty if unknown.
    pub(crate) protocol: String,
    /// Offset of the server's clock, in milliseconds.
    pub(crate) offset: f64,
    /// Uncertainty of the offset, in milliseconds.
    pub(crate) uncertainty: f64,
    /// Number of events of the run in the log, once the results were checked against it.
    pub(crate) in_log: Option<u64>,
    /// `true` if the page was hidden for a time. Browsers delay the timers of hidden pages.
    pub(crate) was_hidden: bool,
    /// `true` while the comparison runs in this page.
    #[serde(skip)]
    pub(crate) is_running: bool,
    #[serde(rename = "lanes")]
    pub(crate) transports: Vec<TransportResult>,
    /// The server's counts for connections that several transports share.
    #[serde(default)]
    pub(crate) shared: Option<MeterCounts>,
}

/// The results of one transport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TransportResult {
    pub(crate) transport: Transport,
    #[serde(rename = "figures")]
    pub(crate) counters: Counters,
    pub(crate) latency: Option<LatencySummary>,
    pub(crate) cut: CutOutcome,
    /// The server's counts.
    pub(crate) server: Option<MeterCounts>,
    /// Bytes received, by the browser's count.
    pub(crate) browser: Option<u64>,
}

/// A group of rows of the table.
pub(crate) struct MetricGroup {
    pub(crate) title: &'static str,
    pub(crate) metrics: &'static [Metric],
}

/// Writes a value for one transport.
pub(crate) type WriteValue = fn(&Results, &TransportResult) -> String;

/// A row of the table.
pub(crate) struct Metric {
    pub(crate) label: &'static str,
    /// Writes the value.
    pub(crate) text: WriteValue,
    /// Returns `true` if the metric has a place in the table. It does not change when the first
    /// value arrives, so that the table keeps its height.
    pub(crate) applies: fn(&Results) -> bool,
}

/// The rows of the table.
pub(crate) static GROUPS: [MetricGroup; 4] = [
    MetricGroup {
        title: "Latency",
        metrics: &[
            Metric::new("p50", |_, result| latency(result, |latency| latency.p50)),
            Metric::new("p95", |_, result| latency(result, |latency| latency.p95)),
            Metric::new("p99", |_, result| latency(result, |latency| latency.p99)),
            Metric::new("Max", |_, result| latency(result, |latency| latency.maximum)),
            Metric::new("Mean", |_, result| latency(result, |latency| latency.mean)),
            Metric::new("Theoretical mean", |results, result| {
                text(results.theoretical_mean(result.transport).map(millis))
            })
            .only_if(|results| results.has(&[Transport::Poll])),
        ],
    },
    MetricGroup {
        title: "Delivery",
        metrics: &[
            Metric::new("Events", |_, result| grouped(result.counters.events)),
            Metric::new("Missing", |_, result| grouped(result.counters.missing)),
            Metric::new("Duplicates", |_, result| grouped(result.counters.duplicates)),
            Metric::new("Gaps", |_, result| grouped(result.counters.gaps))
                .only_if(|results| results.transports.iter().any(|of| of.counters.gaps > 0)),
        ],
    },
    MetricGroup {
        title: "Cost",
        metrics: &[
            Metric::new("Requests", |_, result| grouped(result.counters.requests)),
            Metric::new("Empty responses", |_, result| empty_responses(result))
                .only_if(|results| results.has(&POLLS)),
            Metric::new("Connections", |_, result| text(result.server.map(|of| of.connections))),
            Metric::new("Bytes per event, down", |_, result| bytes(result, |of| of.sent)),
            Metric::new("Bytes per event, up", |_, result| bytes(result, |of| of.received)),
            Metric::new("Bytes per event, down (browser)", |_, result| {
                text(result.browser.and_then(|of| of.checked_div(result.counters.events)))
            })
            .only_if(|results| results.has(&POLLS)),
        ],
    },
    MetricGroup {
        title: "Recovery",
        metrics: &[
            Metric::new("Reconnects", |_, result| grouped(result.counters.reconnects)),
            Metric::new("Time to reconnect", |_, result| cut(result, |of| millis(of.opened)))
                .only_if(Results::has_cut),
            Metric::new("Time to catch up", |_, result| cut(result, |of| millis(of.caught_up)))
                .only_if(Results::has_cut),
            Metric::new("Replayed", |_, result| cut(result, |of| grouped(of.replayed)))
                .only_if(Results::has_cut),
            Metric::new("Lost", |_, result| cut(result, |of| grouped(of.lost)))
                .only_if(Results::has_cut),
        ],
    },
];

/// The transports that poll.
const POLLS: [Transport; 2] = [Transport::LongPoll, Transport::Poll];

impl Metric {
    const fn new(label: &'static str, text: WriteValue) -> Self {
        Self { label, text, applies: |_| true }
    }

    const fn only_if(self, applies: fn(&Results) -> bool) -> Self {
        Self { applies, ..self }
    }

    /// Returns `true` if the metric has a value for at least one transport.
    fn has_values(&self, results: &Results) -> bool {
        let values = results.transports.iter().map(|result| (self.text)(results, result));
        (self.applies)(results) && values.into_iter().any(|value| value != EMPTY)
    }
}

impl Results {
    /// Creates the results of a run that is starting.
    pub(crate) fn starting(
        began: Timestamp,
        transports: &[Transport],
        poll_interval: u64,
        topics: String,
    ) -> Self {
        let result = |&transport: &Transport| TransportResult {
            transport,
            counters: Counters::default(),
            latency: None,
            cut: CutOutcome::None,
            server: None,
            browser: None,
        };
        Self {
            began,
            seconds: 0,
            topics,
            poll_interval,
            protocol: String::new(),
            offset: 0.0,
            uncertainty: 0.0,
            in_log: None,
            was_hidden: false,
            is_running: true,
            transports: transports.iter().map(result).collect(),
            shared: None,
        }
    }

    /// Returns `true` if the run has one of these transports.
    fn has(&self, transports: &[Transport]) -> bool {
        self.transports.iter().any(|result| transports.contains(&result.transport))
    }

    /// Returns `true` if the connections were cut.
    fn has_cut(&self) -> bool {
        self.transports.iter().any(|result| result.cut != CutOutcome::None)
    }

    /// Returns the theoretical mean latency of polling, in milliseconds: half an interval, which an
    /// event waits on average, and a round trip.
    pub(crate) fn theoretical_mean(&self, transport: Transport) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "an interval is short")]
        let half = self.poll_interval as f64 / 2.0;
        (transport == Transport::Poll).then_some(half + self.round_trip())
    }

    /// Returns the shortest round-trip time to the server, in milliseconds, by which the clock
    /// offset was measured.
    pub(crate) fn round_trip(&self) -> f64 {
        Offset { millis: self.offset, uncertainty: self.uncertainty }.round_trip()
    }

    /// Writes the results in JSON.
    pub(crate) fn to_json(&self) -> String {
        // Strings and finite numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the output of [`to_json`](Self::to_json). Returns `None` for any other text.
    pub(crate) fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Writes the results as a table in Markdown, with the conclusion and a description of the run
    /// below.
    pub(crate) fn to_markdown(&self, conclusion: &str) -> String {
        let mut table = "|".to_owned();
        let mut rule = "|---".to_owned();
        for result in &self.transports {
            // Writing to a string cannot fail.
            let _ = write!(table, " | {}", transport_label(result.transport));
            rule.push_str("|---:");
        }
        table = format!("{table} |\n{rule}|\n");
        let metrics = GROUPS.iter().flat_map(|group| group.metrics);
        for Metric { label, text, .. } in metrics.filter(|metric| metric.has_values(self)) {
            let cells = self.transports.iter().map(|result| text(self, result));
            let _ = writeln!(table, "| {label} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        format!("{table}\n{conclusion}\n\n{}\n", self.description())
    }

    /// Describes the run in a few sentences.
    pub(crate) fn description(&self) -> String {
        let Self { began, seconds, topics, .. } = self;
        let interval = whole_millis(self.poll_interval);
        let protocol = Protocol::parse(&self.protocol);
        let protocol = protocol.map_or(String::new(), |protocol| format!(" Over {protocol}."));
        let in_log = match self.in_log {
            Some(events) => format!(" Checked against the log: {}.", count(events, "event")),
            None => String::new(),
        };
        let hidden = if self.was_hidden {
            " The page was hidden for part of the time. Browsers delay the timers of hidden pages, \
             so polling is slower."
        } else {
            ""
        };
        let shared = match self.shared {
            Some(MeterCounts { connections, sent, received, .. }) => {
                let connections = match connections {
                    1 => "one connection".to_owned(),
                    connections => format!("{connections} connections"),
                };
                format!(
                    " The transports without byte counts of their own have shared {connections}. \
                     With the page's other requests, {} bytes went down and {} bytes went up.",
                    grouped(sent),
                    grouped(received),
                )
            }
            None => String::new(),
        };
        format!(
            "{topics}, {seconds} s from {began}. Polling interval {interval}.{protocol}{shared} \
             Round-trip time {}, clock offset ± {}.{in_log}{hidden}",
            millis(self.round_trip()),
            millis(self.uncertainty),
        )
    }
}

/// Describes the state of a transport's connection.
pub(crate) fn health_label(health: Health) -> &'static str {
    match health {
        Health::Connecting => "connecting",
        Health::Open => "open",
        Health::Lost => "lost, reconnecting",
        Health::Full => "server full",
    }
}

/// Describes the latencies of a transport for readers who cannot see the picture.
pub(crate) fn latency_label(result: &TransportResult) -> String {
    let name = transport_label(result.transport);
    result.latency.as_ref().map_or(format!("{name}: no events yet"), |latency| {
        format!(
            "{name}: p50 {}, p95 {}, p99 {}, max {}",
            millis(latency.p50),
            millis(latency.p95),
            millis(latency.p99),
            millis(latency.maximum),
        )
    })
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or(EMPTY.to_owned(), |value| value.to_string())
}

fn latency(result: &TransportResult, of: fn(&LatencySummary) -> f64) -> String {
    text(result.latency.as_ref().map(|latency| millis(of(latency))))
}

fn bytes(result: &TransportResult, of: fn(&MeterCounts) -> u64) -> String {
    // Zero if the server has counted them for several transports together.
    let bytes = result.server.as_ref().map(of).filter(|bytes| *bytes > 0);
    text(bytes.and_then(|bytes| bytes.checked_div(result.counters.events)))
}

fn empty_responses(result: &TransportResult) -> String {
    text(POLLS.contains(&result.transport).then(|| grouped(result.counters.empty_responses)))
}

fn cut(result: &TransportResult, of: fn(&RecoveryResult) -> String) -> String {
    match &result.cut {
        CutOutcome::None => EMPTY.to_owned(),
        CutOutcome::Waiting => "not yet".to_owned(),
        CutOutcome::Recovered(recovery) => of(recovery),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let sse = TransportResult {
            transport: Transport::Sse,
            counters: Counters {
                health: Health::Open,
                events: 4,
                requests: 1,
                ..Counters::default()
            },
            latency: None,
            cut: CutOutcome::None,
            server: Some(MeterCounts { connections: 1, requests: 1, received: 100, sent: 1002 }),
            browser: None,
        };
        let poll =
            TransportResult { transport: Transport::Poll, browser: Some(2000), ..sse.clone() };
        Results {
            began: Timestamp::from_millis(1_795_388_401_000),
            seconds: 60,
            topics: "clock".to_owned(),
            poll_interval: 1000,
            protocol: "http/1.1".to_owned(),
            offset: 0.25,
            uncertainty: 1.5,
            in_log: Some(4),
            is_running: false,
            was_hidden: false,
            transports: vec![sse, poll],
            shared: None,
        }
    }

    #[test]
    fn results_survive_a_round_trip() {
        let results = results();
        assert_eq!(Results::from_json(&results.to_json()), Some(results));
        for other in ["", "{}", "[]", "\u{fffd}"] {
            assert_eq!(Results::from_json(other), None, "{other}");
        }
    }

    #[test]
    fn the_keys_in_json_stay_as_they_are() {
        let json = results().to_json();
        for key in ["every", "lanes", "figures", "doubled", "empty", "in_log", "was_hidden"] {
            assert!(json.contains(&format!("\"{key}\":")), "{key}: {json}");
        }
    }

    #[test]
    fn results_are_a_table_in_markdown() {
        let markdown = results().to_markdown("No events arrived.");
        let lines: Vec<_> = markdown.lines().collect();
        assert_eq!(lines[..2], ["| | SSE | Polling |", "|---|---:|---:|"]);
        for line in [
            "| Theoretical mean | – | 502 ms |",
            "| Events | 4 | 4 |",
            "| Empty responses | – | 0 |",
            "| Bytes per event, down | 250 | 250 |",
            "| Bytes per event, down (browser) | – | 500 |",
            "No events arrived.",
        ] {
            assert!(lines.contains(&line), "{line}: {markdown}");
        }
        assert!(!markdown.contains("Time to"), "no connection was cut");
        assert!(markdown.ends_with(
            "clock, 60 s from 2026-11-22T23:00:01.000Z. Polling interval 1 s. Over HTTP/1.1. \
             Round-trip time 2.0 ms, clock offset ± 1.5 ms. Checked against the log: 4 events.\n"
        ));
    }

    #[test]
    fn bytes_of_shared_connections_are_reported_together() {
        let mut results = results();
        for result in &mut results.transports {
            result.server = Some(MeterCounts { connections: 1, requests: 1, received: 0, sent: 0 });
        }
        results.shared =
            Some(MeterCounts { connections: 1, requests: 9, received: 200, sent: 3000 });
        assert_eq!(Results::from_json(&results.to_json()), Some(results.clone()));
        let markdown = results.to_markdown("No events arrived.");
        assert!(!markdown.contains("Bytes per event, down |"), "{markdown}");
        assert!(
            markdown.contains("have shared one connection")
                && markdown.contains("3,000 bytes went down and 200 bytes went up"),
            "{markdown}"
        );
    }
}

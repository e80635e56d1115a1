//! What a run has found, as it is shown, kept in a link, and pasted elsewhere.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use waterclock::{offset::Offset, timestamp::Timestamp, transport::Transport};
use waterclock_diagnose::Protocol;

use super::{
    latency::Summary,
    stats::{Cut, Figures, Health},
};
use crate::browser::Counted;

/// What is shown where there is nothing to say.
const NOTHING: &str = "–";

/// What a run has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) began: Timestamp,
    /// How long it has been running, or was.
    pub(crate) seconds: u64,
    /// What was read: patterns of topics, and of the load how much.
    pub(crate) topics: String,
    /// How often the polling lane asks, in milliseconds.
    pub(crate) every: u64,
    /// As ALPN calls it (RFC 7301); empty if unknown.
    pub(crate) protocol: String,
    /// How far the server's clock is ahead, in milliseconds.
    pub(crate) offset: f64,
    /// So many milliseconds more or less.
    pub(crate) uncertainty: f64,
    /// How many events the log has of the run, once that was looked up.
    pub(crate) in_log: Option<u64>,
    /// Whether the page was hidden meanwhile, when browsers let timers wait.
    pub(crate) was_hidden: bool,
    /// Whether it is going on here.
    #[serde(skip)]
    pub(crate) is_running: bool,
    pub(crate) lanes: Vec<LaneResult>,
    /// What the server has counted of connections that lanes share, which is of no lane alone.
    #[serde(default)]
    pub(crate) shared: Option<Counted>,
}

/// What it has found about a lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LaneResult {
    pub(crate) transport: Transport,
    pub(crate) figures: Figures,
    pub(crate) latency: Option<Summary>,
    pub(crate) cut: Cut,
    /// What the server has counted.
    pub(crate) server: Option<Counted>,
    /// Bytes that the browser says to have received.
    pub(crate) browser: Option<u64>,
}

/// A line of the table: what it says, and of what.
pub(crate) struct Row {
    pub(crate) label: &'static str,
    pub(crate) text: fn(&Results, &LaneResult) -> String,
}

/// The lines of the table.
pub(crate) static ROWS: [Row; 21] = [
    Row { label: "Half took at most", text: |_, lane| latency(lane, |latency| latency.p50) },
    Row { label: "95% took at most", text: |_, lane| latency(lane, |latency| latency.p95) },
    Row { label: "99% took at most", text: |_, lane| latency(lane, |latency| latency.p99) },
    Row { label: "The longest took", text: |_, lane| latency(lane, |latency| latency.longest) },
    Row { label: "Mean", text: |_, lane| latency(lane, |latency| latency.mean) },
    Row {
        label: "Mean in theory",
        text: |results, lane| text(results.in_theory(lane.transport).map(millis)),
    },
    Row { label: "Events", text: |_, lane| lane.figures.events.to_string() },
    Row { label: "Missing", text: |_, lane| lane.figures.missing.to_string() },
    Row { label: "Doubled", text: |_, lane| lane.figures.doubled.to_string() },
    Row {
        label: "Gaps told",
        text: |_, lane| text(Some(lane.figures.gaps).filter(|gaps| *gaps > 0)),
    },
    Row { label: "Requests", text: |_, lane| lane.figures.requests.to_string() },
    Row { label: "Answered with nothing", text: |_, lane| of_polls(lane, lane.figures.empty) },
    Row { label: "Connections", text: |_, lane| text(lane.server.map(|of| of.connections)) },
    Row { label: "Connected again", text: |_, lane| lane.figures.reconnects.to_string() },
    Row { label: "Bytes down for an event", text: |_, lane| bytes(lane, |of| of.sent) },
    Row { label: "Bytes up for an event", text: |_, lane| bytes(lane, |of| of.received) },
    Row {
        label: "Down, says the browser",
        text: |_, lane| text(lane.browser.and_then(|of| of.checked_div(lane.figures.events))),
    },
    Row { label: "Cut: open again after", text: |_, lane| cut(lane, |of| millis(of.opened)) },
    Row { label: "Cut: had all after", text: |_, lane| cut(lane, |of| millis(of.caught_up)) },
    Row { label: "Cut: made up for", text: |_, lane| cut(lane, |of| of.replayed.to_string()) },
    Row { label: "Cut: lost", text: |_, lane| cut(lane, |of| of.lost.to_string()) },
];

impl Row {
    /// Whether it says something of some lane.
    pub(crate) fn is_of_use(&self, results: &Results) -> bool {
        results.lanes.iter().any(|lane| (self.text)(results, lane) != NOTHING)
    }
}

impl Results {
    /// The mean latency that theory has for polling, in milliseconds: an event waits for half the interval
    /// on average, and asking takes a round trip.
    pub(crate) fn in_theory(&self, transport: Transport) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "an interval is short")]
        let half = self.every as f64 / 2.0;
        (transport == Transport::Poll).then_some(half + self.round_trip())
    }

    /// The shortest round trip to the server, in milliseconds: what the clocks were compared by.
    pub(crate) fn round_trip(&self) -> f64 {
        Offset { millis: self.offset, uncertainty: self.uncertainty }.round_trip()
    }

    /// For who reads it by a program.
    pub(crate) fn to_json(&self) -> String {
        // It is made of strings and finite numbers, which are JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// A table in Markdown, with what it is of below.
    pub(crate) fn to_markdown(&self) -> String {
        let mut table = "|".to_owned();
        let mut rule = "|---".to_owned();
        for lane in &self.lanes {
            // A text takes whatever is written.
            let _ = write!(table, " | {}", name(lane.transport));
            rule.push_str("|---:");
        }
        table = format!("{table} |\n{rule}|\n");
        for Row { label, text } in ROWS.iter().filter(|row| row.is_of_use(self)) {
            let cells = self.lanes.iter().map(|lane| text(self, lane)).collect::<Vec<_>>();
            let _ = writeln!(table, "| {label} | {} |", cells.join(" | "));
        }
        format!("{table}\n{}\n", self.about())
    }

    /// What was measured, in a sentence or two.
    pub(crate) fn about(&self) -> String {
        let Self { began, seconds, topics, .. } = self;
        let every = millis_of(self.every);
        let protocol = Protocol::parse(&self.protocol);
        let protocol = protocol.map_or(String::new(), |protocol| format!(" Over {protocol}."));
        let in_log = match self.in_log {
            Some(events) => format!(" Checked against the log, which has {events} events of it."),
            None => String::new(),
        };
        let hidden = if self.was_hidden {
            " The page was hidden for a part of it: browsers then let its timers wait, so polling is slower."
        } else {
            ""
        };
        let shared = match self.shared {
            Some(Counted { connections, sent, received, .. }) => {
                let connections = match connections {
                    1 => "one connection".to_owned(),
                    connections => format!("{connections} connections"),
                };
                format!(
                    " The lanes without bytes of their own have shared {connections}, over which, with \
                     all else that the page asks, {sent} bytes came down and {received} went up."
                )
            }
            None => String::new(),
        };
        format!(
            "{topics}, {seconds} s from {began} on; polling every {every}.{protocol}{shared} Round trip {}, \
             clocks compared to ± {}.{in_log}{hidden}",
            millis(self.round_trip()),
            millis(self.uncertainty),
        )
    }
}

/// What a transport is called in a sentence.
pub(crate) fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Sse => "SSE",
        Transport::WebSocket => "WebSocket",
        Transport::LongPoll => "Long polling",
        Transport::Poll => "Polling",
    }
}

/// How a lane is doing, in words.
pub(crate) fn health_in_words(health: Health) -> &'static str {
    match health {
        Health::Connecting => "connecting",
        Health::Open => "open",
        Health::Lost => "lost, trying again",
    }
}

/// A time, as exactly as makes sense.
pub(crate) fn millis(millis: f64) -> String {
    let size = millis.abs();
    if size < 10.0 {
        format!("{millis:.1} ms")
    } else if size < 1000.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.2} s", millis / 1000.0)
    }
}

/// A time of whole milliseconds.
pub(crate) fn millis_of(millis: u64) -> String {
    if millis < 1000 { format!("{millis} ms") } else { format!("{} s", millis / 1000) }
}

/// The latencies of a lane, for who cannot see the plot.
pub(crate) fn latency_in_words(lane: &LaneResult) -> String {
    let name = name(lane.transport);
    lane.latency.as_ref().map_or(format!("{name}: no event yet"), |latency| {
        format!(
            "{name}: of the events, half took at most {}, 95% {}, 99% {}, the longest {}",
            millis(latency.p50),
            millis(latency.p95),
            millis(latency.p99),
            millis(latency.longest),
        )
    })
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or(NOTHING.to_owned(), |value| value.to_string())
}

fn latency(lane: &LaneResult, of: fn(&Summary) -> f64) -> String {
    text(lane.latency.as_ref().map(|latency| millis(of(latency))))
}

fn bytes(lane: &LaneResult, of: fn(&Counted) -> u64) -> String {
    // None if they were counted for all lanes together.
    let bytes = lane.server.as_ref().map(of).filter(|bytes| *bytes > 0);
    text(bytes.and_then(|bytes| bytes.checked_div(lane.figures.events)))
}

fn of_polls(lane: &LaneResult, value: u64) -> String {
    let is_poll = matches!(lane.transport, Transport::Poll | Transport::LongPoll);
    text(is_poll.then_some(value))
}

fn cut(lane: &LaneResult, of: fn(&super::stats::Recovered) -> String) -> String {
    match &lane.cut {
        Cut::None => NOTHING.to_owned(),
        Cut::Waiting => "not yet".to_owned(),
        Cut::Over(recovered) => of(recovered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let lane = LaneResult {
            transport: Transport::Sse,
            figures: Figures { events: 4, requests: 1, ..Figures::default() },
            latency: None,
            cut: Cut::None,
            server: Some(Counted { connections: 1, requests: 1, received: 100, sent: 1002 }),
            browser: None,
        };
        let poll = LaneResult { transport: Transport::Poll, browser: Some(2000), ..lane.clone() };
        Results {
            began: Timestamp::from_millis(1_795_388_401_000),
            seconds: 60,
            topics: "clock".to_owned(),
            every: 1000,
            protocol: "http/1.1".to_owned(),
            offset: 0.25,
            uncertainty: 1.5,
            in_log: Some(4),
            is_running: false,
            was_hidden: false,
            lanes: vec![lane, poll],
            shared: None,
        }
    }

    #[test]
    fn results_come_back_as_they_were() {
        let results = results();
        assert_eq!(Results::from_json(&results.to_json()), Some(results));
        for other in ["", "{}", "[]", "\u{fffd}"] {
            assert_eq!(Results::from_json(other), None, "{other}");
        }
    }

    #[test]
    fn a_table_to_paste() {
        let markdown = results().to_markdown();
        let lines: Vec<_> = markdown.lines().collect();
        assert_eq!(lines[..2], ["| | SSE | Polling |", "|---|---:|---:|"]);
        for line in [
            "| Mean in theory | – | 502 ms |",
            "| Events | 4 | 4 |",
            "| Answered with nothing | – | 0 |",
            "| Bytes down for an event | 250 | 250 |",
            "| Down, says the browser | – | 500 |",
        ] {
            assert!(lines.contains(&line), "{line}: {markdown}");
        }
        assert!(!markdown.contains("Cut"), "there was none");
        assert!(markdown.ends_with(
            "clock, 60 s from 2026-11-22T23:00:01.000Z on; polling every 1 s. Over HTTP/1.1. Round trip 2.0 ms, \
             clocks compared to ± 1.5 ms. Checked against the log, which has 4 events of it.\n"
        ));
    }

    #[test]
    fn bytes_that_were_counted_for_lanes_together_are_told_together() {
        let mut results = results();
        for lane in &mut results.lanes {
            lane.server = Some(Counted { connections: 1, requests: 1, received: 0, sent: 0 });
        }
        results.shared = Some(Counted { connections: 1, requests: 9, received: 200, sent: 3000 });
        assert_eq!(Results::from_json(&results.to_json()), Some(results.clone()));
        let markdown = results.to_markdown();
        assert!(!markdown.contains("Bytes down"), "{markdown}");
        assert!(
            markdown.contains("have shared one connection, over which, with all else")
                && markdown.contains("3000 bytes came down and 200 went up"),
            "{markdown}"
        );
    }

    #[test]
    fn times_are_as_exact_as_makes_sense() {
        for (time, expected) in [
            (-0.26, "-0.3 ms"),
            (9.94, "9.9 ms"),
            (12.5, "12 ms"),
            (502.0, "502 ms"),
            (1234.0, "1.23 s"),
        ] {
            assert_eq!(millis(time), expected);
        }
    }
}

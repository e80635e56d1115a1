//! The picture of the results: the latencies of all transports on one logarithmic axis.

use std::fmt::Write as _;

use leptos::prelude::*;
use waterclock::transport::Transport;

use super::{
    column::Column,
    format::{millis, transport_label},
    latency::{LatencySummary, x_of},
    results::{Results, TransportResult, WriteValue, latency_label},
};
use crate::reactive::text;

/// Vertical position of the foot of the bars, and height of the tallest bar, in units of the
/// picture, which is 40 high.
const FOOT: u32 = 26;
/// Vertical position of the marks.
const MARKS: u32 = 34;
/// Lines at the factors of ten.
const GRID: &str = "M10 0V40M20 0V40M30 0V40M40 0V40M50 0V40";
/// Labels of the axis, a factor of ten from one to the next.
const LABELS: [&str; 7] = ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"];
/// Factors of ten on the axis, unless a latency or the interval of polling is longer.
const DECADES: usize = 5;

/// The latencies of the transports.
#[component]
pub(crate) fn Picture(
    transports: Memo<Vec<Transport>>,
    results: RwSignal<Option<Results>>,
) -> impl IntoView {
    let is_long = Memo::new(move |_| results.with(|of| of.as_ref().is_some_and(is_long)));
    let is_short = move || !is_long.get();
    let view_box = text(move || if is_long.get() { "0 0 60 40" } else { "0 0 50 40" }.to_owned());
    let lanes = move || {
        let lane = |transport| lane(Column { results, transport }, view_box);
        transports.get().into_iter().map(lane).collect_view()
    };
    let has_no_polling = move || !transports.read().contains(&Transport::Poll);
    view! {
        <figure aria-label="Latency by transport">
            <figcaption>
                "Latency: " <span class="key p50">"p50"</span> <span class="key p95">"to p95"</span>
                <span class="key p99">"to p99"</span> <span class="key max">"to max"</span>
                <span class="key theory" hidden=has_no_polling>
                    "theoretical mean"
                </span>
            </figcaption>
            {lanes}
            <svg class="axis" aria-hidden="true" hidden=is_long>
                {axis(DECADES)}
            </svg>
            <svg class="axis" aria-hidden="true" hidden=is_short>
                {axis(DECADES + 1)}
            </svg>
        </figure>
    }
}

/// One transport: its name, its median latency, the numbers of events by latency, and the marks at
/// the percentiles.
fn lane(column: Column, view_box: Signal<String>) -> impl IntoView {
    let name = transport_label(column.transport);
    let measured = column.text(|_, result| latency_label(result));
    let label = text(move || match measured.get() {
        label if label.is_empty() => format!("{name}: not measured yet"),
        label => label,
    });
    let median = column.text(|_, result| {
        result.latency.as_ref().map_or(String::new(), |of| format!("p50 {}", millis(of.p50)))
    });
    let paths: [(_, WriteValue); 6] = [
        ("bars", |_, result| bars(result)),
        ("theory", theory),
        ("max", |_, result| range(result, |of| [of.p99, of.maximum], "m0-5v10")),
        ("p99", |_, result| range(result, |of| [of.p95, of.p99], "")),
        ("p95", |_, result| range(result, |of| [of.p50, of.p95], "")),
        ("p50", |_, result| range(result, |of| [of.p50, of.p50], "")),
    ];
    let paths = paths.map(|(class, d)| view! { <path class=class d=column.text(d) /> });
    view! {
        <div class="lane">
            <p>
                <strong>{name}</strong>
                " "
                <span prop:textContent=median></span>
            </p>
            <svg viewBox=view_box preserveAspectRatio="none" role="img" aria-label=label>
                <path class="grid" d=GRID />
                {paths}
            </svg>
        </div>
    }
}

fn axis(decades: usize) -> impl IntoView {
    let labels = LABELS.into_iter().enumerate().take(decades + 1).map(move |(i, label)| {
        let anchor = match i {
            0 => "start",
            i if i == decades => "end",
            _ => "middle",
        };
        view! {
            <text x=format!("{}%", 100 * i / decades) y="16" text-anchor=anchor>
                {label}
            </text>
        }
    });
    labels.collect_view()
}

/// Returns `true` if the axis needs one more factor of ten.
fn is_long(results: &Results) -> bool {
    let limit = 10_000.0;
    let is_long = |result: &TransportResult| {
        let theory = results.theoretical_mean(result.transport).unwrap_or_default();
        let longest = result.latency.as_ref().map_or(0.0, |latency| latency.maximum);
        longest > limit || 2.0 * theory > limit
    };
    results.transports.iter().any(is_long)
}

/// Writes the bars as a path. A bar with events has at least a fiftieth of the greatest height.
fn bars(result: &TransportResult) -> String {
    let Some(latency) = &result.latency else { return String::new() };
    let most = latency.bars.iter().copied().max().unwrap_or(0).max(1);
    let mut path = String::new();
    for (x, &count) in latency.bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = f64::from(FOOT) * (f64::from(count) / f64::from(most)).max(0.02);
        // Writing to a string cannot fail.
        let _ = write!(path, "M{x} {FOOT}v-{height:.1}h1V{FOOT}");
    }
    path
}

/// Writes the line between two latencies as a path, with an end.
fn range(result: &TransportResult, of: fn(&LatencySummary) -> [f64; 2], end: &str) -> String {
    let Some(latency) = &result.latency else { return String::new() };
    let [from, to] = of(latency).map(x_of);
    format!("M{from:.1} {MARKS}H{to:.1}{end}")
}

fn theory(results: &Results, result: &TransportResult) -> String {
    let mean = results.theoretical_mean(result.transport);
    mean.map_or(String::new(), |mean| format!("M{:.1} 0V40", x_of(mean)))
}

#[cfg(test)]
mod tests {
    use waterclock::timestamp::Timestamp;

    use super::*;
    use crate::compare::latency::LatencyWindow;

    fn results(poll_interval: u64, latencies: &[f64]) -> Results {
        let began = Timestamp::from_millis(0);
        let mut results =
            Results::starting(began, &[Transport::Poll], poll_interval, String::new());
        let mut window = LatencyWindow::default();
        for &millis in latencies {
            window.add(millis);
        }
        results.transports[0].latency = window.summary();
        results
    }

    #[test]
    fn bars_and_marks_stand_at_the_latencies() {
        let results = results(1000, &[1.05, 1.05, 1.05, 1.05, 105.0]);
        let result = &results.transports[0];
        assert_eq!(bars(result), "M10 26v-26.0h1V26M30 26v-6.5h1V26");
        assert_eq!(range(result, |of| [of.p50, of.p95], ""), "M10.2 34H30.2");
        assert_eq!(theory(&results, result), "M37.0 0V40");
    }

    #[test]
    fn a_transport_without_events_has_no_bars() {
        let results = results(1000, &[]);
        assert_eq!(bars(&results.transports[0]), "");
        assert_eq!(range(&results.transports[0], |of| [of.p50, of.p95], ""), "");
    }

    #[test]
    fn the_axis_is_longer_for_long_latencies() {
        assert!(!is_long(&results(1000, &[])));
        assert!(!is_long(&results(1000, &[9999.0])));
        assert!(is_long(&results(1000, &[10_001.0])));
        assert!(!is_long(&results(10_000, &[])));
        assert!(is_long(&results(30_000, &[])));
    }
}

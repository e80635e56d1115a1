//! The plot of a transport's latencies.

use std::fmt::Write as _;

use leptos::prelude::*;

use super::{
    column::Column,
    latency::{BARS, x_of},
    results::{Results, TransportResult, latency_label},
};

/// Height of the tallest bar, in units of the plot. The plot is [`BARS`] wide.
const HEIGHT: u32 = 24;
/// The axis, with a tick for each decade.
const AXIS: &str = "M0 24H60M0 24v1.5M10 24v1.5M20 24v1.5M30 24v1.5M40 24v1.5M50 24v1.5M60 24v1.5";
/// Labels of the axis and their positions.
const MARKS: [(&str, u32); 3] = [("1 ms", 10), ("100 ms", 30), ("10 s", 50)];

/// The distribution of a transport's latencies on a logarithmic scale, with lines at p50, p95 and
/// p99, and for polling a dashed line at the theoretical mean.
#[component]
pub(crate) fn Plot(column: Column) -> impl IntoView {
    let label = column.text(|_, result| latency_label(result));
    let marks = MARKS.map(|(mark, x)| {
        view! { <text x=x y=HEIGHT + 7>{mark}</text> }
    });
    let view_box = format!("0 -1 {BARS} {}", HEIGHT + 9);
    view! {
        <svg viewBox=view_box role="img" aria-label=label>
            <path class="bars" d=column.text(|_, result| bars(result)) />
            <path class="percentiles" d=column.text(|_, result| percentiles(result)) />
            <path class="theory" d=column.text(theory) />
            <path class="axis" d=AXIS />
            {marks}
        </svg>
    }
}

/// Writes the bars as a path. A bar with events is at least a fiftieth of the height of the plot.
fn bars(result: &TransportResult) -> String {
    let Some(latency) = &result.latency else { return String::new() };
    let most = latency.bars.iter().copied().max().unwrap_or(0).max(1);
    let mut path = String::new();
    for (x, &count) in latency.bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = f64::from(HEIGHT) * (f64::from(count) / f64::from(most)).max(0.02);
        // Writing to a string cannot fail.
        let _ = write!(path, "M{x} {HEIGHT}v-{height:.1}h1V{HEIGHT}");
    }
    path
}

fn percentiles(result: &TransportResult) -> String {
    let Some(latency) = &result.latency else { return String::new() };
    [latency.p50, latency.p95, latency.p99].map(line).concat()
}

fn theory(results: &Results, result: &TransportResult) -> String {
    results.theoretical_mean(result.transport).map(line).unwrap_or_default()
}

fn line(millis: f64) -> String {
    format!("M{:.1} -1V{HEIGHT}", x_of(millis))
}

#[cfg(test)]
mod tests {
    use waterclock::transport::Transport;

    use super::*;
    use crate::compare::{
        latency::LatencyWindow,
        stats::{Counters, CutOutcome},
    };

    #[test]
    fn bars_stand_at_the_latencies() {
        let mut latencies = LatencyWindow::default();
        for millis in [1.05, 1.05, 1.05, 1.05, 105.0] {
            latencies.add(millis);
        }
        let result = TransportResult {
            transport: Transport::Sse,
            counters: Counters::default(),
            latency: latencies.summary(),
            cut: CutOutcome::None,
            server: None,
            browser: None,
        };
        assert_eq!(bars(&result), "M10 24v-24.0h1V24M30 24v-6.0h1V24");
        assert_eq!(percentiles(&result), "M10.2 -1V24M30.2 -1V24M30.2 -1V24");
        assert_eq!(bars(&TransportResult { latency: None, ..result }), "");
    }
}

//! The plot of a lane's latencies.

use std::fmt::Write as _;

use leptos::prelude::*;

use super::{
    latency::{BARS, across},
    results::{LaneResult, Results, latency_in_words},
    table::Column,
};

/// How high the bars are at most, in units of the plot; it is [`BARS`] wide.
const HEIGHT: u32 = 24;
/// As wide as the plot, with a tick for each tenfold.
const AXIS: &str = "M0 24H60M0 24v1.5M10 24v1.5M20 24v1.5M30 24v1.5M40 24v1.5M50 24v1.5M60 24v1.5";
/// What is written below, where: for each second tenfold from 1 ms on.
const MARKS: [(&str, u32); 3] = [("1 ms", 10), ("100 ms", 30), ("10 s", 50)];

/// The distribution of a lane's latencies on a logarithmic scale, with lines where half, 95% and 99% of the
/// events are, and, for polling, a dashed one where theory has the mean.
#[component]
pub(crate) fn Plot(lane: Column) -> impl IntoView {
    let label = lane.text(|_, lane| latency_in_words(lane));
    let marks = MARKS.map(|(mark, x)| {
        view! { <text x=x y=HEIGHT + 7>{mark}</text> }
    });
    let view_box = format!("0 -1 {BARS} {}", HEIGHT + 9);
    view! {
        <svg viewBox=view_box role="img" aria-label=label>
            <path class="bars" d=lane.text(|_, lane| bars(lane)) />
            <path class="quantiles" d=lane.text(|_, lane| quantiles(lane)) />
            <path class="theory" d=lane.text(theory) />
            <path class="axis" d=AXIS />
            {marks}
        </svg>
    }
}

/// The tallest bar is as high as the plot; none that has an event is flatter than a fiftieth of it.
fn bars(lane: &LaneResult) -> String {
    let Some(latency) = &lane.latency else { return String::new() };
    let most = latency.bars.iter().copied().max().unwrap_or(0).max(1);
    let mut path = String::new();
    for (x, &count) in latency.bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = f64::from(HEIGHT) * (f64::from(count) / f64::from(most)).max(0.02);
        // A text takes whatever is written.
        let _ = write!(path, "M{x} {HEIGHT}v-{height:.1}h1V{HEIGHT}");
    }
    path
}

fn quantiles(lane: &LaneResult) -> String {
    let Some(latency) = &lane.latency else { return String::new() };
    [latency.p50, latency.p95, latency.p99].map(line).concat()
}

fn theory(results: &Results, lane: &LaneResult) -> String {
    results.in_theory(lane.transport).map(line).unwrap_or_default()
}

fn line(millis: f64) -> String {
    format!("M{:.1} -1V{HEIGHT}", across(millis))
}

#[cfg(test)]
mod tests {
    use waterclock::transport::Transport;

    use super::*;
    use crate::compare::{
        latency::Latencies,
        stats::{Cut, Figures},
    };

    #[test]
    fn bars_stand_where_the_events_are() {
        let mut latencies = Latencies::default();
        for millis in [1.05, 1.05, 1.05, 1.05, 105.0] {
            latencies.add(millis);
        }
        let lane = LaneResult {
            transport: Transport::Sse,
            figures: Figures::default(),
            latency: latencies.summary(),
            cut: Cut::None,
            server: None,
            browser: None,
        };
        assert_eq!(bars(&lane), "M10 24v-24.0h1V24M30 24v-6.0h1V24");
        assert_eq!(quantiles(&lane), "M10.2 -1V24M30.2 -1V24M30.2 -1V24");
        assert_eq!(bars(&LaneResult { latency: None, ..lane }), "");
    }
}

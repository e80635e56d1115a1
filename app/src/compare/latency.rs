//! The latencies of a transport's events.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Number of events that count: the latest ones.
pub(crate) const WINDOW: usize = 10_000;
/// Bars of the plot per decade.
const BARS_PER_DECADE: usize = 10;
/// Decades of the plot: from 0.1 ms to 100 s.
const DECADES: usize = 6;
/// Left edge of the plot, in milliseconds.
const BEGIN: f64 = 0.1;
/// Bars of the plot.
pub(crate) const BARS: usize = BARS_PER_DECADE * DECADES;

/// The latencies of the latest events.
#[derive(Debug, Default)]
pub(crate) struct LatencyWindow(VecDeque<f64>);

/// A summary of latencies, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencySummary {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    #[serde(rename = "longest")]
    pub(crate) maximum: f64,
    pub(crate) mean: f64,
    /// A histogram, with bars of the same width on a logarithmic scale.
    pub(crate) bars: Vec<u32>,
}

impl LatencyWindow {
    /// Adds the latency of an event, in milliseconds.
    pub(crate) fn add(&mut self, millis: f64) {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(millis);
    }

    /// Returns `None` without events.
    pub(crate) fn summary(&self) -> Option<LatencySummary> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let maximum = *sorted.last()?;
        let mut bars = vec![0; BARS];
        for &millis in &sorted {
            bars[bar(millis)] += 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "they are few")]
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let percentile = |percent| percentile(&sorted, percent);
        Some(LatencySummary {
            p50: percentile(50),
            p95: percentile(95),
            p99: percentile(99),
            maximum,
            mean,
            bars,
        })
    }
}

/// Returns a percentile by the nearest-rank method.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns the horizontal position of a latency in the plot, from 0 to [`BARS`].
pub(crate) fn x_of(millis: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let (per_decade, bars) = (BARS_PER_DECADE as f64, BARS as f64);
    // The uncertainty of the clocks can make a latency negative. It is then at the left edge.
    ((millis / BEGIN).max(1.0).log10() * per_decade).min(bars)
}

fn bar(millis: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to the number of bars"
    )]
    let bar = x_of(millis) as usize;
    bar.min(BARS - 1)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut latencies = LatencyWindow::default();
        assert_eq!(latencies.summary(), None);
        latencies.add(7.0);
        let LatencySummary { p50, p95, p99, maximum, mean, .. } = latencies.summary().unwrap();
        assert_eq!([p50, p95, p99, maximum, mean], [7.0; 5]);
        let mut latencies = LatencyWindow::default();
        for millis in (1..=200).rev() {
            latencies.add(f64::from(millis));
        }
        let LatencySummary { p50, p95, p99, maximum, mean, .. } = latencies.summary().unwrap();
        assert_eq!([p50, p95, p99, maximum, mean], [100.0, 190.0, 198.0, 200.0, 100.5]);
    }

    #[test]
    fn only_the_latest_events_count() {
        let mut latencies = LatencyWindow::default();
        latencies.add(1e9);
        for _ in 0..WINDOW {
            latencies.add(1.0);
        }
        assert_eq!(latencies.summary().unwrap().maximum, 1.0);
    }

    #[test]
    fn each_latency_has_its_bar() {
        for (millis, expected) in [
            (-3.0, 0),
            (0.0, 0),
            (0.1, 0),
            (0.99, 9),
            (1.01, 10),
            (101.0, 30),
            (99_999.0, 59),
            (1e9, 59),
        ] {
            assert_eq!(bar(millis), expected, "{millis}");
        }
    }

    proptest! {
        #[test]
        fn every_event_is_in_a_bar(latencies in proptest::collection::vec(-10.0..1e7_f64, 1..50)) {
            let mut all = LatencyWindow::default();
            for &millis in &latencies {
                all.add(millis);
            }
            let summary = all.summary().unwrap();
            prop_assert_eq!(summary.bars.iter().sum::<u32>() as usize, latencies.len());
            prop_assert!(summary.p50 <= summary.p95 && summary.p95 <= summary.p99);
            prop_assert!(summary.p99 <= summary.maximum);
        }
    }
}

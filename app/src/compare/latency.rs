//! How long a lane's events took.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// So many events count, the latest.
pub(crate) const LATEST: usize = 10_000;
/// Bars of the plot for a tenfold.
const BARS_PER_DECADE: usize = 10;
/// From 0.1 ms to 100 s.
const DECADES: usize = 6;
/// Where the plot begins, in milliseconds.
const BEGIN: f64 = 0.1;
/// Bars of the plot.
pub(crate) const BARS: usize = BARS_PER_DECADE * DECADES;

/// The latest events' latencies.
#[derive(Debug, Default)]
pub(crate) struct Latencies(VecDeque<f64>);

/// What they say. All in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) longest: f64,
    pub(crate) mean: f64,
    /// How many events took so long: bars of the same width on a logarithmic scale.
    pub(crate) bars: Vec<u32>,
}

impl Latencies {
    /// An event took so many milliseconds.
    pub(crate) fn add(&mut self, millis: f64) {
        if self.0.len() == LATEST {
            self.0.pop_front();
        }
        self.0.push_back(millis);
    }

    /// None if there was no event.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let longest = *sorted.last()?;
        let mut bars = vec![0; BARS];
        for &millis in &sorted {
            bars[bar(millis)] += 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "they are few")]
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let quantile = |per_cent| quantile(&sorted, per_cent);
        Some(Summary {
            p50: quantile(50),
            p95: quantile(95),
            p99: quantile(99),
            longest,
            mean,
            bars,
        })
    }
}

/// The least that so many per cent are not above (the nearest rank).
fn quantile(sorted: &[f64], per_cent: usize) -> f64 {
    let rank = (sorted.len() * per_cent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// How far to the right of the plot that is: 0 to [`BARS`].
pub(crate) fn across(millis: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let (per_decade, bars) = (BARS_PER_DECADE as f64, BARS as f64);
    // What the clocks' uncertainty makes negative is at the left.
    ((millis / BEGIN).max(1.0).log10() * per_decade).min(bars)
}

fn bar(millis: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to the number of bars"
    )]
    let bar = across(millis) as usize;
    bar.min(BARS - 1)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), None);
        latencies.add(7.0);
        let Summary { p50, p95, p99, longest, mean, .. } = latencies.summary().unwrap();
        assert_eq!([p50, p95, p99, longest, mean], [7.0; 5]);
        let mut latencies = Latencies::default();
        for millis in (1..=200).rev() {
            latencies.add(f64::from(millis));
        }
        let Summary { p50, p95, p99, longest, mean, .. } = latencies.summary().unwrap();
        assert_eq!([p50, p95, p99, longest, mean], [100.0, 190.0, 198.0, 200.0, 100.5]);
    }

    #[test]
    fn only_the_latest_count() {
        let mut latencies = Latencies::default();
        latencies.add(1e9);
        for _ in 0..LATEST {
            latencies.add(1.0);
        }
        assert_eq!(latencies.summary().unwrap().longest, 1.0);
    }

    #[test]
    fn where_bars_are() {
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
            let mut all = Latencies::default();
            for &millis in &latencies {
                all.add(millis);
            }
            let summary = all.summary().unwrap();
            prop_assert_eq!(summary.bars.iter().sum::<u32>() as usize, latencies.len());
            prop_assert!(summary.p50 <= summary.p95 && summary.p95 <= summary.p99);
            prop_assert!(summary.p99 <= summary.longest);
        }
    }
}

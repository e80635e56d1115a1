//! Counters of the key sets that are fetched from issuers of tokens.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use strum::{IntoStaticStr, VariantArray};
use waterclock_axum::metrics::gauge;

/// The result of fetching a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum RefreshResult {
    /// The set is in use.
    Ok,
    /// The previous set stays in use.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The counters of all key sets that have a URL.
#[derive(Debug)]
pub struct KeyMetrics {
    refreshes: Family<ResultLabel, Counter>,
    age: Gauge,
    /// The time of the last successful refresh of each set, or else of the start.
    refreshed: Mutex<Vec<Instant>>,
}

impl Default for KeyMetrics {
    fn default() -> Self {
        let refreshes = Family::<ResultLabel, Counter>::default();
        for result in RefreshResult::VARIANTS {
            drop(refreshes.get_or_create(&ResultLabel { result: result.into() }));
        }
        Self { refreshes, age: Gauge::default(), refreshed: Mutex::default() }
    }
}

impl KeyMetrics {
    /// Registers each metric.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "jwks_refreshes",
            "Key sets fetched from issuers of tokens, by result",
            self.refreshes.clone(),
        );
        registry.register_with_unit(
            "jwks_age",
            "Time since the last successful refresh of the key set that waits longest for one",
            Unit::Seconds,
            self.age.clone(),
        );
    }

    /// Updates the gauge.
    pub(super) fn measure(&self) {
        let ages = self.refreshed.lock().iter().map(Instant::elapsed).max();
        let seconds = ages.unwrap_or(Duration::ZERO).as_secs();
        self.age.set(gauge(usize::try_from(seconds).unwrap_or(usize::MAX)));
    }

    /// Adds a key set, and returns its number.
    pub fn add_set(&self) -> usize {
        let mut refreshed = self.refreshed.lock();
        refreshed.push(Instant::now());
        refreshed.len() - 1
    }

    /// Counts a refresh of a key set.
    pub fn refreshed(&self, set: usize, result: RefreshResult) {
        self.refreshes.get_or_create(&ResultLabel { result: result.into() }).inc();
        if result == RefreshResult::Ok
            && let Some(time) = self.refreshed.lock().get_mut(set)
        {
            *time = Instant::now();
        }
    }
}

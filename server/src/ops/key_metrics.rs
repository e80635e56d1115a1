//! Counters of the key sets that are fetched from issuers of tokens.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

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
    /// The sets that are still refreshed, and some that are not.
    sets: Mutex<Vec<Weak<RefreshTime>>>,
}

/// The time of the last successful refresh of a set, or else of the start. The set counts until
/// this is dropped.
#[derive(Debug)]
pub struct RefreshTime(Mutex<Instant>);

impl Default for KeyMetrics {
    fn default() -> Self {
        let refreshes = Family::<ResultLabel, Counter>::default();
        for result in RefreshResult::VARIANTS {
            drop(refreshes.get_or_create(&ResultLabel { result: result.into() }));
        }
        Self { refreshes, age: Gauge::default(), sets: Mutex::default() }
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
        let sets = self.sets.lock();
        let ages = sets.iter().filter_map(|set| Some(set.upgrade()?.0.lock().elapsed())).max();
        let seconds = ages.unwrap_or(Duration::ZERO).as_secs();
        self.age.set(gauge(usize::try_from(seconds).unwrap_or(usize::MAX)));
    }

    /// Adds a key set.
    pub fn add_set(&self) -> Arc<RefreshTime> {
        let set = Arc::new(RefreshTime(Mutex::new(Instant::now())));
        let mut sets = self.sets.lock();
        sets.retain(|set| set.strong_count() > 0);
        sets.push(Arc::downgrade(&set));
        set
    }

    /// Counts a refresh of a key set.
    pub fn refreshed(&self, set: &RefreshTime, result: RefreshResult) {
        self.refreshes.get_or_create(&ResultLabel { result: result.into() }).inc();
        if result == RefreshResult::Ok {
            *set.0.lock() = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_set_that_is_still_refreshed_counts() {
        let metrics = KeyMetrics::default();
        let age = || {
            metrics.measure();
            metrics.age.get()
        };
        assert_eq!(age(), 0);
        let (old, new) = (metrics.add_set(), metrics.add_set());
        *old.0.lock() -= Duration::from_secs(100);
        *new.0.lock() -= Duration::from_secs(10);
        assert!((100..110).contains(&age()));
        metrics.refreshed(&old, RefreshResult::Failed);
        assert!((100..110).contains(&age()));
        metrics.refreshed(&old, RefreshResult::Ok);
        assert!((10..20).contains(&age()));
        drop(new);
        assert!(age() < 10);
    }
}

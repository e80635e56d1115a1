//! The task that keeps a key set fresh. The last good set stays in use while the issuer is away.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    issuer::Issuer,
    jwks::{FetchKeysError, FetchedKeys, retry_after},
    key,
    key_set::{KeySet, RefreshState},
};
use crate::ops::key_metrics::{KeyMetrics, RefreshResult};

/// Refreshes a set when it is due, and on demand, at most once per `min_interval`. Never ends.
pub(super) async fn keep_fresh(
    issuer: Arc<Issuer>,
    number: usize,
    metrics: Arc<KeyMetrics>,
    min_interval: Duration,
) {
    let set = &issuer.sets[number];
    let mut keeper = Keeper { issuer: &issuer, number, failures: 0, reported: None, body: None };
    // After a reload, the previous verifier has fetched the set.
    let time = if let Some(state) = set.state() {
        let RefreshState { due, earliest, failures, reported, body, time } = state;
        wait(set, due, earliest).await;
        keeper = Keeper { failures, reported, body, ..keeper };
        time
    } else {
        metrics.add_set()
    };
    loop {
        let fetched = set.fetch().await;
        let (result, pause) = match fetched.and_then(|fetched| keeper.take(set, fetched)) {
            Ok(fresh_for) => (RefreshResult::Ok, fresh_for),
            Err(error) => {
                keeper.report(set, &error.to_string());
                (RefreshResult::Failed, retry_after(keeper.failures, fastrand::f64()))
            }
        };
        metrics.refreshed(&time, result);
        let (due, earliest) = (Instant::now() + pause, Instant::now() + min_interval);
        let (failures, reported) = (keeper.failures, keeper.reported.clone());
        let (body, time) = (keeper.body.clone(), Arc::clone(&time));
        set.end_refresh(result, RefreshState { due, earliest, failures, reported, body, time });
        wait(set, due, earliest).await;
    }
}

/// Waits until a refresh is due, or demanded.
async fn wait(set: &KeySet, due: Instant, earliest: Instant) {
    tokio::select! {
        () = sleep_until(due) => {}
        () = set.demanded() => sleep_until(earliest).await,
    }
}

/// The state of a set's refreshes.
struct Keeper<'a> {
    issuer: &'a Issuer,
    number: usize,
    /// Number of failed refreshes in a row.
    failures: u32,
    /// The error that was printed last, since a success.
    reported: Option<String>,
    /// The response in use.
    body: Option<Vec<u8>>,
}

impl Keeper<'_> {
    /// Uses a response. Returns the time until the next refresh.
    fn take(&mut self, set: &KeySet, fetched: FetchedKeys) -> Result<Duration, FetchKeysError> {
        let FetchedKeys { body, fresh_for } = fetched;
        if self.body.as_ref() != Some(&body) {
            let keys = key::from_jwks(&body)?;
            let count = keys.len();
            let replaced = self.issuer.replace_set(self.number, keys);
            replaced.map_err(|why| FetchKeysError::Refused(why.to_string()))?;
            tracing::info!(url = %set.name(), keys = count, "new keys of an issuer of tokens");
            set.store(&body);
            self.body = Some(body);
        } else if self.failures > 0 {
            tracing::info!(url = %set.name(), "the issuer's keys can be fetched again");
        }
        self.failures = 0;
        self.reported = None;
        Ok(fresh_for)
    }

    /// Prints an error, once for as long as it stays the same.
    fn report(&mut self, set: &KeySet, error: &str) {
        self.failures = self.failures.saturating_add(1);
        if self.reported.as_deref() == Some(error) {
            return;
        }
        let reaction = match self.issuer.count_in_set(self.number) {
            0 => "tokens that need them are refused".to_owned(),
            count => format!("the last {count} stay in use"),
        };
        tracing::warn!(url = %set.name(), "the issuer's keys cannot be fetched, and {reaction}: {error}");
        self.reported = Some(error.to_owned());
    }
}

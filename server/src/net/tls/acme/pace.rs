//! The times of attempts: rare enough for any authority's limits, and soon enough for any outage.

use std::time::Duration;

/// Factor from one wait to the next.
const GROWTH: u32 = 3;
/// Maximum of a wait that an authority asks for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The times of attempts to get a certificate. Tests have shorter ones than the default.
#[derive(Clone, Copy, Debug)]
pub struct AcmePace {
    /// The wait after the first failure. Each further one is three times as long.
    pub first_retry: Duration,
    /// The maximum of a wait that the authority has not asked for.
    pub max_retry: Duration,
    /// The first wait for the progress of an order. Each further one is twice as long.
    pub poll: Duration,
    /// The maximum time between two looks at the certificate.
    pub look: Duration,
}

impl Default for AcmePace {
    /// Five attempts in the first hour, which is what Let's Encrypt permits for a name.
    fn default() -> Self {
        Self {
            first_retry: Duration::from_mins(1),
            max_retry: Duration::from_hours(1),
            poll: Duration::from_secs(1),
            look: Duration::from_hours(1),
        }
    }
}

/// The waits between attempts that bring no lasting certificate.
#[derive(Debug)]
pub(super) struct Backoff {
    pace: AcmePace,
    /// The next wait.
    wait: Duration,
    /// `true` if the last attempt brought a certificate that nobody has looked at.
    has_succeeded: bool,
}

impl Backoff {
    pub(super) fn new(pace: AcmePace) -> Self {
        Self { pace, wait: pace.first_retry, has_succeeded: false }
    }

    /// Begins again with short waits, since there is a certificate that lasts.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.pace);
    }

    /// Notes that an attempt brought a certificate. That it lasts is not known yet.
    pub(super) fn succeeded(&mut self) {
        self.has_succeeded = true;
    }

    pub(super) fn has_succeeded(&self) -> bool {
        self.has_succeeded
    }

    /// Returns the wait before the next attempt, in milliseconds at the finest. It is at least what
    /// the authority asks for. Up to a tenth is random, so that servers that failed together do not
    /// return together.
    pub(super) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let wait = self.wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
        self.wait = (self.wait * GROWTH).min(self.pace.max_retry);
        self.has_succeeded = false;
        let wait = wait.mul_f64(1.0 + fastrand::f64() / 10.0).as_millis();
        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX));
        // Whole seconds are enough for people, and for all but tests.
        if wait < Duration::from_secs(10) { wait } else { Duration::from_secs(wait.as_secs()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn is_about(wait: Duration, expected: Duration) -> bool {
        wait >= expected && wait <= expected.mul_f64(1.1)
    }

    #[test]
    fn waits_grow_to_an_hour_and_the_first_hour_has_five_attempts() {
        let mut backoff = Backoff::new(AcmePace::default());
        let waits: Vec<_> = (0..6).map(|_| backoff.next(None)).collect();
        for (wait, minutes) in waits.iter().zip([1, 3, 9, 27, 60, 60]) {
            assert!(is_about(*wait, minutes * MINUTE), "{waits:?}");
        }
        let before_the_sixth: Duration = waits[..5].iter().sum();
        assert!(before_the_sixth > Duration::from_hours(1));
        backoff.reset();
        assert!(is_about(backoff.next(None), MINUTE));
    }

    #[test]
    fn an_authority_may_ask_for_a_longer_wait_of_at_most_a_day() {
        let mut backoff = Backoff::new(AcmePace::default());
        let day = Duration::from_hours(24);
        assert!(is_about(backoff.next(Some(Duration::from_hours(3))), Duration::from_hours(3)));
        assert!(is_about(backoff.next(Some(Duration::MAX)), day));
        assert!(is_about(backoff.next(Some(Duration::from_secs(1))), 9 * MINUTE));
    }
}

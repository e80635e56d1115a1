//! The end of a permission, by the clock that reaches it first.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::Instant;
use waterclock::{hub::Hub, timestamp::Timestamp};

/// Time between two looks at the hub's clock.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// The time at which a permission ends.
///
/// Timers stand still while the machine is suspended, and the hub's clock may be set back. So the
/// permission ends as soon as either of them says so.
#[derive(Clone)]
pub(crate) struct Deadline {
    hub: Arc<Hub>,
    time: Timestamp,
    timer: Instant,
}

impl Deadline {
    /// Creates the deadline of a permission that ends at `time`.
    pub(crate) fn new(hub: &Arc<Hub>, time: Timestamp) -> Self {
        Self { hub: Arc::clone(hub), time, timer: Instant::now() + time.since(hub.now()) }
    }

    /// The end of the permission.
    pub(crate) fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns `true` if the permission has ended.
    pub(crate) fn has_passed(&self) -> bool {
        self.time <= self.hub.now() || self.timer <= Instant::now()
    }

    /// Returns the time at which to look next if the permission has ended.
    pub(crate) fn next_look(&self) -> Instant {
        self.timer.min(Instant::now() + LOOK_INTERVAL)
    }

    /// Waits until the permission ends. After a suspension that takes up to 15 s.
    pub(crate) async fn passed(&self) {
        while !self.has_passed() {
            tokio::time::sleep_until(self.next_look()).await;
        }
    }
}

/// Waits until a deadline, or forever without one.
pub(crate) async fn passed(deadline: Option<&Deadline>) {
    match deadline {
        Some(deadline) => deadline.passed().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use waterclock::{
        event_log::{MemoryLog, Retention},
        id::Epoch,
    };

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const HOUR_MS: i64 = 3_600_000;

    /// Creates a deadline in an hour. Its hub's clock is tokio's paused time plus `jump`
    /// milliseconds.
    fn in_an_hour() -> (Deadline, Arc<AtomicI64>) {
        let jump = Arc::new(AtomicI64::new(0));
        let start: Timestamp = "2026-11-22T07:00:00.000Z".parse().unwrap();
        let began = Instant::now();
        let now = {
            let jump = Arc::clone(&jump);
            move || {
                let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
                let jump = jump.load(Ordering::Relaxed);
                Timestamp::from_millis((start.as_millis() + passed).wrapping_add_signed(jump))
            }
        };
        let hub = Arc::new(Hub::new(MemoryLog::new(Epoch::new(1), Retention::default()), now));
        let time = "2026-11-22T08:00:00.000Z".parse().unwrap();
        (Deadline::new(&hub, time), jump)
    }

    #[tokio::test(start_paused = true)]
    async fn a_permission_ends_at_its_time() {
        let (deadline, _) = in_an_hour();
        let began = Instant::now();
        assert!(!deadline.has_passed());
        deadline.passed().await;
        assert!(deadline.has_passed());
        assert_eq!(began.elapsed(), HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_permission_that_ends_during_a_suspension_ends_soon_after_it() {
        let (deadline, jump) = in_an_hour();
        let (began, ended) = (Instant::now(), deadline.passed());
        let suspension = async {
            tokio::time::sleep(Duration::from_mins(1)).await;
            jump.fetch_add(2 * HOUR_MS, Ordering::Relaxed);
            assert!(deadline.has_passed());
        };
        tokio::join!(ended, suspension);
        assert!(began.elapsed() <= Duration::from_mins(1) + LOOK_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_does_not_prolong_a_permission() {
        let (deadline, jump) = in_an_hour();
        let began = Instant::now();
        jump.fetch_sub(24 * HOUR_MS, Ordering::Relaxed);
        deadline.passed().await;
        assert_eq!(began.elapsed(), HOUR);
    }
}

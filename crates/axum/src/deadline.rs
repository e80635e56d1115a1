//! The end of a permission, by the clock that reaches it first, or by a change of the policy.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use waterclock::{hub::Hub, timestamp::Timestamp};

use crate::{
    policy::Expiry,
    standing::{PolicyChanges, StandingPermission},
};

/// Time between two looks at the hub's clock.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// The end of a permission.
///
/// Timers stand still while the machine is suspended, and the hub's clock may be set back. So the
/// permission ends as soon as either of them says so, or a change of the policy takes it away.
#[derive(Clone)]
pub(crate) struct Deadline {
    hub: Arc<Hub>,
    /// The time by both clocks; `None` for a permission that does not expire.
    expiry: Option<(Timestamp, Instant)>,
    /// `None` for a permission that no change of the policy takes away.
    standing: Option<Arc<Standing>>,
}

/// A permission that a change of the policy may take away.
struct Standing {
    changes: PolicyChanges,
    /// Number of changes after which the permission was found to hold.
    seen: AtomicU64,
    permission: StandingPermission,
}

/// Number that [`Standing::seen`] has once the permission is taken away.
const REVOKED: u64 = u64::MAX;

impl Standing {
    /// Decides again if the policy has changed. Costs one look at a counter if it has not.
    fn is_revoked(&self) -> bool {
        let count = self.changes.count();
        let seen = self.seen.load(Ordering::Relaxed);
        if seen == REVOKED || seen == count {
            return seen == REVOKED;
        }
        let holds = self.permission.holds();
        self.seen.store(if holds { count } else { REVOKED }, Ordering::Relaxed);
        !holds
    }

    async fn revoked(&self) {
        while !self.is_revoked() {
            self.changes.after(self.seen.load(Ordering::Relaxed)).await;
        }
    }
}

impl Deadline {
    /// Creates the deadline of a permission that ends at `time`.
    #[cfg(test)]
    pub(crate) fn new(hub: &Arc<Hub>, time: Timestamp) -> Self {
        let expiry = Some((time, Instant::now() + time.since(hub.now())));
        Self { hub: Arc::clone(hub), expiry, standing: None }
    }

    /// Creates the deadline of a permission. Returns `None` for one that never ends. `seen` is the
    /// number of changes before the permission was asked for.
    pub(crate) fn of(
        hub: &Arc<Hub>,
        expires: Expiry,
        standing: Option<StandingPermission>,
        (changes, seen): (&PolicyChanges, u64),
    ) -> Option<Self> {
        if expires.is_none() && standing.is_none() {
            return None;
        }
        let expiry = expires.map(|time| (time, Instant::now() + time.since(hub.now())));
        let standing = standing.map(|permission| {
            let (changes, seen) = (changes.clone(), AtomicU64::new(seen));
            Arc::new(Standing { changes, seen, permission })
        });
        Some(Self { hub: Arc::clone(hub), expiry, standing })
    }

    /// Returns `true` if a change of the policy has taken the permission away.
    pub(crate) fn is_revoked(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.is_revoked())
    }

    /// The time at which the permission expires.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.expiry.map(|(time, _)| time)
    }

    /// Returns `true` if the permission has ended.
    pub(crate) fn has_passed(&self) -> bool {
        let has_expired = self
            .expiry
            .is_some_and(|(time, timer)| time <= self.hub.now() || timer <= Instant::now());
        has_expired || self.is_revoked()
    }

    /// Returns the time at which to look next if the permission has expired.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.expiry.map(|(_, timer)| timer.min(Instant::now() + LOOK_INTERVAL))
    }

    /// Waits until the permission ends. After a suspension that takes up to 15 s.
    pub(crate) async fn passed(&self) {
        let revoked = async {
            match &self.standing {
                Some(standing) => standing.revoked().await,
                None => pending().await,
            }
        };
        let expired = async {
            while let Some(look) = self.next_look().filter(|_| !self.has_passed()) {
                tokio::time::sleep_until(look).await;
            }
            if self.expiry.is_none() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = revoked => {}
            () = expired => {}
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

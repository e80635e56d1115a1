//! The built-in clock: publishes one tick per interval to the topic `clock`, at the multiples of
//! the interval since 1970-01-01T00:00:00Z. So a tick per second is on the second.
//!
//! ```
//! use std::time::Duration;
//! use waterclock::{Cursor, Delivery, Hub, Topic, clock};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let hub = Hub::in_memory();
//! let mut subscriber = hub.subscribe(Topic::clock().into(), Cursor::Now);
//! tokio::select! {
//!     () = clock::run(&hub, Duration::from_millis(10)) => unreachable!("the clock never stops"),
//!     delivery = subscriber.next() => {
//!         let Delivery::Events(ticks) = delivery? else { panic!("a gap") };
//!         println!("{}", ticks[0].event().data); // 2026-11-22T07:00:01.010Z
//!     }
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

use std::time::Duration;

use crate::{
    event::{Draft, IdempotencyKey, Topic},
    hub::Hub,
    timestamp::Timestamp,
};

/// Time between two looks at the hub's clock, which may be set during a long interval. Timers stand
/// still while the machine is suspended.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which a node of a cluster waits for the tick of the one that ticks.
const MAX_STANDBY_WAIT: Duration = Duration::from_millis(250);
/// Maximum time for which that one waits, in case that there are two.
const MAX_RIVAL_WAIT: Duration = Duration::from_millis(20);

/// Publishes a tick at every multiple of `interval`, until the future is dropped.
///
/// The data of a tick is its time in RFC 3339. Ticks that were missed while the machine was
/// suspended, or that lie between the old and the new time of a clock that was set forward, are
/// skipped. A clock that is set back repeats times. The interval is at least one millisecond.
pub async fn run(hub: &Hub, interval: Duration) {
    let interval = interval.max(Duration::from_millis(1));
    let mut last = None;
    let mut has_failed = false;
    let mut shift = hub.node().map(|_| Shift::default());
    loop {
        let due = next_tick(hub.now(), interval);
        let now = wait_until(due, hub, interval).await;
        // Skips a tick if the time was set back during the sleep or just before, or if the tick was
        // missed by an interval or more.
        if now < due || last == Some(due) || now.since(due) >= interval {
            continue;
        }
        last = Some(due);
        let draft = Draft::new(Topic::clock(), due.to_string());
        let draft = match &mut shift {
            None => draft,
            Some(shift) => {
                if shift.is_done_by_others(hub, due, interval).await {
                    continue;
                }
                draft.with_key(key(due))
            }
        };
        let published = hub.publish(draft).await;
        // A failure may last, and then it is enough to print the first one.
        let is_first = published.is_err() && !has_failed;
        has_failed = published.is_err();
        if let Err(error) = published
            && is_first
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a tick of the clock could not be published"
            );
        }
    }
}

/// The part of a node in the ticks of a cluster. All nodes give a tick the same key, so that it is
/// published once. One node ticks, and the others wait a little longer to see if it does.
#[derive(Debug, Default)]
struct Shift {
    /// `true` if this node has published the last tick.
    ticks: bool,
}

impl Shift {
    /// Waits for another node to publish the tick. Returns `true` if one has.
    async fn is_done_by_others(&mut self, hub: &Hub, due: Timestamp, interval: Duration) -> bool {
        // Of two nodes that tick, the one that is later finds the other's tick soon.
        let bound = if self.ticks { MAX_RIVAL_WAIT } else { MAX_STANDBY_WAIT };
        let wait = bound.min(interval / 4);
        let wait = if self.ticks { wait.mul_f64(fastrand::f64()) } else { wait };
        tokio::time::sleep(wait).await;
        // If the log cannot be read, the key still keeps the tick from being published twice.
        let found = hub.find(&Topic::clock(), &key(due)).await;
        let is_published = found.is_ok_and(|found| found.is_some());
        self.ticks = !is_published;
        is_published
    }
}

/// Returns the key of a tick.
fn key(due: Timestamp) -> IdempotencyKey {
    IdempotencyKey { publisher: Topic::CLOCK.to_owned(), key: due.to_string() }
}

/// Waits until `due`, or until the clock is set back, so that it is further away than an interval.
/// Returns the time then.
async fn wait_until(due: Timestamp, hub: &Hub, interval: Duration) -> Timestamp {
    loop {
        let now = hub.now();
        let left = due.since(now);
        if left.is_zero() || left > interval {
            return now;
        }
        tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
    }
}

/// Returns the first multiple of `interval` after `now`.
fn next_tick(now: Timestamp, interval: Duration) -> Timestamp {
    let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let since_last = now.as_millis() % interval;
    Timestamp::from_millis(now.as_millis().saturating_add(interval - since_last))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use super::*;
    use crate::{
        event_log::{MemoryLog, Retention},
        hub::{Delivery, Subscriber},
        id::{Cursor, Epoch},
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// Starts the clock on a hub whose time is tokio's paused time, from 07:00:00.250 on, plus
    /// `jump` milliseconds.
    fn start() -> (Subscriber, Arc<AtomicI64>) {
        start_with(SECOND)
    }

    fn start_with(interval: Duration) -> (Subscriber, Arc<AtomicI64>) {
        let jump = Arc::new(AtomicI64::new(0));
        let start: Timestamp = "2026-11-22T07:00:00.250Z".parse().unwrap();
        let began = tokio::time::Instant::now();
        let now = {
            let jump = Arc::clone(&jump);
            move || {
                let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
                let jump = jump.load(Ordering::Relaxed);
                Timestamp::from_millis((start.as_millis() + passed).wrapping_add_signed(jump))
            }
        };
        let hub = Hub::new(MemoryLog::new(Epoch::new(1), Retention::default()), now);
        let subscriber = hub.subscribe(Topic::clock().into(), Cursor::Now);
        tokio::spawn(async move { run(&hub, interval).await });
        (subscriber, jump)
    }

    async fn tick(subscriber: &mut Subscriber) -> String {
        // Paused time advances at once if no task is ready.
        let next = tokio::time::timeout(3600 * SECOND, subscriber.next()).await.expect("a tick");
        let Delivery::Events(frames) = next.unwrap() else { panic!("a gap") };
        assert_eq!(frames.len(), 1);
        let event = frames[0].event();
        assert!(event.time.since(event.data.parse().unwrap()) < SECOND, "late: {event:?}");
        event.data[11..].to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_ticks_on_the_second() {
        let (mut subscriber, _) = start();
        let began = tokio::time::Instant::now();
        assert_eq!(tick(&mut subscriber).await, "07:00:01.000Z");
        assert_eq!(began.elapsed(), Duration::from_millis(750));
        assert_eq!(tick(&mut subscriber).await, "07:00:02.000Z");
        assert_eq!(began.elapsed(), Duration::from_millis(1750));
    }

    #[tokio::test(start_paused = true)]
    async fn missed_ticks_are_skipped() {
        let (mut subscriber, jump) = start();
        assert_eq!(tick(&mut subscriber).await, "07:00:01.000Z");
        // A minute of suspension: tokio's time stands still, but the system's does not.
        jump.fetch_add(60_000, Ordering::Relaxed);
        assert_eq!(tick(&mut subscriber).await, "07:01:03.000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_keeps_ticking() {
        let (mut subscriber, jump) = start();
        assert_eq!(tick(&mut subscriber).await, "07:00:01.000Z");
        jump.fetch_sub(3_600_000, Ordering::Relaxed);
        assert_eq!(tick(&mut subscriber).await, "06:00:03.000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_slightly_repeats_no_tick() {
        let (mut subscriber, jump) = start();
        assert_eq!(tick(&mut subscriber).await, "07:00:01.000Z");
        jump.fetch_sub(20, Ordering::Relaxed);
        assert_eq!(tick(&mut subscriber).await, "07:00:02.000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_interval_ends_on_time_after_a_suspension() {
        let (mut subscriber, jump) = start_with(3600 * SECOND);
        tokio::time::sleep(SECOND).await;
        jump.fetch_add(1_800_000, Ordering::Relaxed);
        // `tick` requires that it is at most a second late.
        assert_eq!(tick(&mut subscriber).await, "08:00:00.000Z");
        jump.fetch_sub(5 * 1_800_000, Ordering::Relaxed);
        assert_eq!(tick(&mut subscriber).await, "06:00:00.000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_forward_causes_one_tick_per_interval() {
        let (mut subscriber, jump) = start();
        assert_eq!(tick(&mut subscriber).await, "07:00:01.000Z");
        jump.fetch_add(365 * 86_400_000, Ordering::Relaxed);
        let began = tokio::time::Instant::now();
        for _ in 0..10 {
            tick(&mut subscriber).await;
        }
        assert!(began.elapsed() >= 9 * SECOND, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_interval_is_a_millisecond() {
        let log = MemoryLog::new(Epoch::new(1), Retention::default());
        let hub = Arc::new(Hub::new(log, {
            let began = tokio::time::Instant::now();
            move || Timestamp::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap())
        }));
        let mut subscriber = hub.subscribe(Topic::clock().into(), Cursor::Now);
        tokio::spawn(async move { run(&hub, Duration::ZERO).await });
        let Delivery::Events(frames) = subscriber.next().await.unwrap() else { panic!("a gap") };
        assert_eq!(frames[0].event().data, "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn the_next_tick_is_always_later() {
        let next = |now, interval| {
            next_tick(Timestamp::from_millis(now), Duration::from_millis(interval)).as_millis()
        };
        assert_eq!(next(0, 1000), 1000);
        assert_eq!(next(999, 1000), 1000);
        assert_eq!(next(1000, 1000), 2000);
    }
}

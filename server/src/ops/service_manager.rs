//! Messages to a service manager that has started the program with `Type=notify` (`sd_notify(3)`):
//! ready, stopping, a line of status, and the watchdog. Without one, they go nowhere.

use std::{future::pending, time::Duration};

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::MissedTickBehavior;

/// Interval of the status if there is no watchdog.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The program serves.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The program reads its configuration again, until [`ready`].
pub fn reloading(status: &str) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now, NotifyState::Status(status)]),
        Err(error) => tracing::warn!(%error, "the service manager was not told of the reload"),
    }
}

/// The program stops.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Sends a line that describes the state of the program.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// Sends the status at each interval and, if the service manager watches the program, that it is
/// alive. Never returns. `health` returns the status, or the part that is stuck. Then nothing more
/// is sent, and the service manager ends the program once its time is over (`WatchdogSec=`).
///
/// It must run on the runtime that serves, so that it stops with it.
pub async fn keep_alive(health: impl Fn() -> Result<String, &'static str>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return pending().await;
    }
    report(watchdog_enabled(), health, send).await;
}

async fn report(
    watchdog: Option<Duration>,
    health: impl Fn() -> Result<String, &'static str>,
    send: impl Fn(&[NotifyState<'_>]),
) {
    // Half of the time, as sd_watchdog_enabled(3) recommends.
    let interval = watchdog.map_or(STATUS_INTERVAL, |time| time / 2);
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_stuck = false;
    loop {
        ticks.tick().await;
        match health() {
            Ok(status) => {
                was_stuck = false;
                let states = [NotifyState::Status(&status), NotifyState::Watchdog];
                send(&states[..1 + usize::from(watchdog.is_some())]);
            }
            Err(part) if !was_stuck => {
                was_stuck = true;
                tracing::error!("{part} is stuck");
                send(&[NotifyState::Status(&format!("{part} is stuck"))]);
            }
            Err(_) => {}
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::debug!(%error, "the service manager cannot be reached");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_stuck_gets_no_further_ping() {
        let (sent, is_stuck) = (RefCell::new(Vec::new()), Cell::new(false));
        let health = || if is_stuck.get() { Err("the writer") } else { Ok("serving".to_owned()) };
        let send = |states: &[NotifyState<'_>]| {
            sent.borrow_mut().push(states.iter().map(ToString::to_string).collect::<Vec<_>>());
        };
        let watchdog = Some(Duration::from_secs(2));
        let mut reports = Box::pin(report(watchdog, health, send));
        let ping = vec!["STATUS=serving".to_owned(), "WATCHDOG=1".to_owned()];
        for (stuck, expected) in [
            (false, vec![ping.clone(); 3]),
            (true, vec![vec!["STATUS=the writer is stuck".to_owned()]]),
            (false, vec![ping; 2]),
        ] {
            is_stuck.set(stuck);
            // The first report is sent at once, and the others a second apart.
            let time = Duration::from_millis(if sent.borrow().is_empty() { 2500 } else { 2000 });
            let _ = tokio::time::timeout(time, &mut reports).await;
            assert_eq!(sent.take(), expected);
        }
    }
}

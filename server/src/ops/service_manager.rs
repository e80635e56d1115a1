//! Messages to a service manager that has started the program with `Type=notify` (`sd_notify(3)`):
//! ready, stopping, a line of status, and the watchdog. Without one, they go nowhere.
//!
//! The crates for this wait without a limit if the manager does not read, and the server with them.

use std::{
    env,
    ffi::OsStr,
    future::pending,
    io,
    os::unix::{
        ffi::OsStrExt as _,
        net::{SocketAddr, UnixDatagram},
    },
    process,
    time::Duration,
};

use tokio::time::MissedTickBehavior;

/// Interval of the status if there is no watchdog.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time that a message waits for the manager. It is lost then.
const PATIENCE: Duration = Duration::from_secs(1);

/// The program serves. A manager that does not learn of it ends the program at last, so this is the
/// message whose failure is reported.
pub fn ready(status: &str) {
    if let Err(error) = try_send(&format!("READY=1\nSTATUS={status}")) {
        tracing::warn!(%error, "the service manager that NOTIFY_SOCKET names cannot be reached");
    }
}

/// The program reads its configuration again, until [`ready`].
pub fn reloading(status: &str) {
    send(&format!("RELOADING=1\nSTATUS={status}"));
}

/// The program stops.
pub fn stopping(status: &str) {
    send(&format!("STOPPING=1\nSTATUS={status}"));
}

/// Sends a line that describes the state of the program.
pub fn status(status: &str) {
    send(&format!("STATUS={status}"));
}

/// Sends the status at each interval and, if the service manager watches the program, that it is
/// alive. Never returns. `health` returns the status, or the part that is stuck. Then nothing more
/// is sent, and the service manager ends the program once its time is over (`WatchdogSec=`).
///
/// It must run on the runtime that serves, so that it stops with it.
pub async fn keep_alive(health: impl Fn() -> Result<String, &'static str>) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return pending().await;
    }
    report(watchdog(), health, send).await;
}

async fn report(
    watchdog: Option<Duration>,
    health: impl Fn() -> Result<String, &'static str>,
    send: impl Fn(&str),
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
                let ping = if watchdog.is_some() { "\nWATCHDOG=1" } else { "" };
                send(&format!("STATUS={status}{ping}"));
            }
            Err(part) if !was_stuck => {
                was_stuck = true;
                tracing::error!("{part} is stuck");
                send(&format!("STATUS={part} is stuck"));
            }
            Err(_) => {}
        }
    }
}

/// Returns the time within which the manager expects a ping (`sd_watchdog_enabled(3)`).
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = env::var_os("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID") == Some(process::id().into());
    number("WATCHDOG_USEC").filter(|time| *time > 0 && is_ours).map(Duration::from_micros)
}

fn send(message: &str) {
    if let Err(error) = try_send(message) {
        tracing::debug!(%error, "the service manager cannot be reached");
    }
}

fn try_send(message: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message.as_bytes(), &address(path.as_encoded_bytes())?)?;
    Ok(())
}

/// Returns the address of the manager: a path, or an abstract name after `@`, on Linux.
fn address(path: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_stuck_gets_no_further_ping() {
        let (messages, is_stuck) = (RefCell::new(Vec::new()), Cell::new(false));
        let health = || if is_stuck.get() { Err("the writer") } else { Ok("serving".to_owned()) };
        let send = |message: &str| messages.borrow_mut().push(message.to_owned());
        let watchdog = Some(Duration::from_secs(2));
        let mut reports = Box::pin(report(watchdog, health, send));
        let ping = "STATUS=serving\nWATCHDOG=1";
        // The first report is sent at once, and the others a second apart.
        for (stuck, millis, expected) in [
            (false, 2500, vec![ping; 3]),
            (true, 2000, vec!["STATUS=the writer is stuck"]),
            (false, 2000, vec![ping; 2]),
        ] {
            is_stuck.set(stuck);
            let _ = tokio::time::timeout(Duration::from_millis(millis), &mut reports).await;
            assert_eq!(messages.take(), expected);
        }
    }
}

//! The signals that stop the program.

use std::{future::pending, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop the program: SIGTERM, SIGINT, and SIGHUP unless the program was started by
/// `nohup`, or reloads its configuration at SIGHUP.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    /// `true` if SIGHUP does not stop the program.
    has_reload: bool,
    /// Number of SIGTERM and SIGINT so far.
    requests: u32,
}

impl StopSignals {
    /// Starts to listen. Without that, the signals end the program at once. With `has_reload`,
    /// SIGHUP stops nothing, and [`hangup`](Self::hangup) returns it.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn listen(has_reload: bool) -> io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if is_ignored(hangup) && !has_reload { None } else { Some(signal(hangup)?) },
            has_reload,
            requests: 0,
        })
    }

    /// Takes SIGHUP, if it is for a reload.
    pub fn hangup(&mut self) -> Option<Signal> {
        self.hangup.take_if(|_| self.has_reload)
    }

    /// Waits for the first signal, at which the program stops in order.
    pub async fn first(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(signal) if !self.has_reload => signal.recv().await,
                _ => pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => self.requests += 1,
            _ = self.interrupt.recv() => self.requests += 1,
            _ = hangup => {}
        }
    }

    /// Waits for the second SIGTERM or SIGINT, at which the program ends at once.
    ///
    /// SIGHUP counts for none, since nobody sends it twice on purpose: a closed terminal does, by
    /// the shell and by the system, and service managers may send it along with SIGTERM.
    pub async fn second(&mut self) {
        while self.requests < 2 {
            tokio::select! {
                _ = self.terminate.recv() => self.requests += 1,
                _ = self.interrupt.recv() => self.requests += 1,
            }
        }
    }
}

/// Returns `true` if the program ignores a signal, as it may have been told by the program that
/// started it. Only Linux tells, in proc(5).
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_in_mask(&status, signal.as_raw_value())
}

fn is_in_mask(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u128::from_str_radix(mask.trim(), 16).ok());
    // Signals are counted from 1.
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_found_in_the_mask() {
        let status = "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\tf\n";
        let ignored: Vec<_> = (1..=64).filter(|signal| is_in_mask(status, *signal)).collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!is_in_mask("", 1));
    }
}

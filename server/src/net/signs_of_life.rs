//! Signs of life of a client: received bytes, and progress in reading. A successful write is none,
//! since the system accepts data long after a client has stopped reading.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// The signs of life of one connection.
#[derive(Debug, Default)]
pub(super) struct SignsOfLife {
    /// Number of signs.
    signs: AtomicU64,
    /// `true` while data waits for the client to read.
    is_blocked: AtomicBool,
    /// `true` if data has waited since [`take_blocked`](Self::take_blocked) was last called.
    has_blocked: AtomicBool,
}

impl SignsOfLife {
    /// Notes that bytes were received.
    pub(super) fn received(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a write must wait for the client to read.
    pub(super) fn blocked(&self) {
        self.is_blocked.store(true, Ordering::Relaxed);
        self.has_blocked.store(true, Ordering::Relaxed);
    }

    /// Notes that a write has succeeded.
    pub(super) fn sent(&self) {
        // Most writes did not have to wait. One task at a time writes to a connection.
        if self.is_blocked.load(Ordering::Relaxed) {
            self.is_blocked.store(false, Ordering::Relaxed);
            self.signs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns `true` if data waits, or has waited since the last call.
    pub(super) fn take_blocked(&self) -> bool {
        self.has_blocked.swap(self.is_blocked.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    /// Waits until there was no sign of life for `time` to one and a half times that.
    pub(super) async fn silent(&self, time: Duration) {
        let (mut seen, mut halves) = (self.signs.load(Ordering::Relaxed), 0);
        while halves < 2 {
            tokio::time::sleep(time / 2).await;
            let signs = self.signs.load(Ordering::Relaxed);
            halves = if signs == seen { halves + 1 } else { 0 };
            seen = signs;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const TIME: Duration = Duration::from_mins(2);

    #[tokio::test(start_paused = true)]
    async fn a_client_without_received_bytes_and_progress_is_silent() {
        let progress = SignsOfLife::default();
        let begun = Instant::now();
        let heartbeats = async {
            loop {
                // The system accepts these although the client does not read.
                progress.sent();
                tokio::time::sleep(TIME / 8).await;
            }
        };
        tokio::select! {
            () = progress.silent(TIME) => {}
            () = heartbeats => {}
        }
        assert!((TIME..=TIME + TIME / 2).contains(&begun.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_or_reads_is_not_silent() {
        let progress = SignsOfLife::default();
        let reads_on = || {
            progress.blocked();
            progress.sent();
        };
        let signs: [&dyn Fn(); 2] = [&|| progress.received(), &reads_on];
        for sign in signs {
            let sends = async {
                for _ in 0..20 {
                    tokio::time::sleep(3 * TIME / 4).await;
                    sign();
                }
            };
            tokio::select! {
                () = progress.silent(TIME) => panic!("it is there"),
                () = sends => {}
            }
        }
        timeout(2 * TIME, progress.silent(TIME)).await.expect("no sign any more");
    }

    #[test]
    fn waiting_data_counts_until_it_is_sent() {
        let progress = SignsOfLife::default();
        assert!(!progress.take_blocked());
        progress.blocked();
        assert!(progress.take_blocked());
        assert!(progress.take_blocked(), "it still waits");
        progress.sent();
        progress.blocked();
        progress.sent();
        assert!(progress.take_blocked(), "it had to meanwhile");
        assert!(!progress.take_blocked());
    }
}

//! What shows that a connection's other end is there, and reads. That the system takes something to send does
//! not: it does so long after a client has stopped to read.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How often something came, or something was taken that had to wait.
    signs: AtomicU64,
    /// Whether something waits for the client to read.
    is_blocked: AtomicBool,
    /// Whether something did, since that was last asked.
    has_blocked: AtomicBool,
}

impl Progress {
    /// Something was received.
    pub(super) fn received(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Something has to wait for the client to read.
    pub(super) fn blocks(&self) {
        self.is_blocked.store(true, Ordering::Relaxed);
        self.has_blocked.store(true, Ordering::Relaxed);
    }

    /// Something was sent.
    pub(super) fn sent(&self) {
        // Mostly it did not have to wait. One task at a time writes to a connection.
        if self.is_blocked.load(Ordering::Relaxed) {
            self.is_blocked.store(false, Ordering::Relaxed);
            self.signs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether something waits, or has waited since this was last called.
    pub(super) fn take_blocked(&self) -> bool {
        self.has_blocked.swap(self.is_blocked.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    /// Waits until there was no sign of the client for that long, and up to half as long again.
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
    async fn a_client_is_silent_if_nothing_comes_and_nothing_moves() {
        let progress = Progress::default();
        let begun = Instant::now();
        let heartbeats = async {
            loop {
                // Which the system takes for a client that does not read.
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
    async fn a_client_is_not_silent_that_sends_or_reads_on() {
        let progress = Progress::default();
        let reads_on = || {
            progress.blocks();
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
    fn what_waits_counts_until_it_is_sent() {
        let progress = Progress::default();
        assert!(!progress.take_blocked());
        progress.blocks();
        assert!(progress.take_blocked());
        assert!(progress.take_blocked(), "it still waits");
        progress.sent();
        progress.blocks();
        progress.sent();
        assert!(progress.take_blocked(), "it had to meanwhile");
        assert!(!progress.take_blocked());
    }
}

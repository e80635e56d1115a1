//! Signs of life of a client: received bytes, and progress in reading. A successful write is none,
//! since the system accepts data long after a client has stopped reading.
//!
//! The direct path asks here, too, if more than one request has arrived, or data waits.

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
    /// `true` if the last bytes received end the head of a request, and belong to no other one.
    ends_with_head: AtomicBool,
}

impl SignsOfLife {
    /// Notes that bytes were received.
    pub(super) fn received(&self, bytes: &[u8]) {
        self.signs.fetch_add(1, Ordering::Relaxed);
        self.ends_with_head.store(is_end_of_head(bytes), Ordering::Relaxed);
    }

    /// Returns `true` if the last bytes received end the head of a request, and belong to no other
    /// one. So nothing of a further request has been read.
    pub(super) fn ends_with_head(&self) -> bool {
        self.ends_with_head.load(Ordering::Relaxed)
    }

    /// Returns `true` while data waits for the client to read.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
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

/// Returns `true` if the bytes end with an empty line, and have no other one. A line may end with
/// LF alone (RFC 9112, 2.2).
fn is_end_of_head(bytes: &[u8]) -> bool {
    let Some(before) = bytes.strip_suffix(b"\r\n\r\n") else { return false };
    let lines = [before, b"\r\n"].concat();
    !lines.windows(2).any(|end| end == b"\n\n") && !lines.windows(3).any(|end| end == b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const TIME: Duration = Duration::from_mins(2);

    #[test]
    fn the_end_of_one_head_is_told_from_more() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("ost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n", false),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\n\nGET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\n\r\nGET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\r\nGET", false),
            ("GET / HTTP/1.1\n\n", false),
            ("", false),
        ] {
            let progress = SignsOfLife::default();
            progress.received(bytes.as_bytes());
            assert_eq!(progress.ends_with_head(), expected, "{bytes:?}");
        }
    }

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
        let signs: [&dyn Fn(); 2] = [&|| progress.received(b"GET"), &reads_on];
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

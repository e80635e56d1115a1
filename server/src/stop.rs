//! The server's stop: that it has begun, and when.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Whether the server is stopping. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    /// Set before the token is cancelled.
    began: Arc<OnceLock<Instant>>,
}

impl Stop {
    /// Begins the stop, unless it has begun.
    pub fn begin(&self) {
        self.began.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it begins, and tells when that was.
    pub async fn begun(&self) -> Instant {
        self.token.cancelled().await;
        *self.began.get_or_init(Instant::now)
    }
}

//! The shutdown signal of a server: open streams say goodbye once it is given.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A shutdown signal. Its clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    /// Set before the token is cancelled.
    began: Arc<OnceLock<Instant>>,
}

impl Stop {
    /// Begins the shutdown. Further calls have no effect.
    pub fn begin(&self) {
        self.began.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// Returns `true` once the shutdown has begun.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the shutdown to begin, and returns the time at which it began.
    pub async fn begun(&self) -> Instant {
        self.token.cancelled().await;
        *self.began.get_or_init(Instant::now)
    }
}

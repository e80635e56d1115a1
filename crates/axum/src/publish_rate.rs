//! The rate limit of publishes, per client.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};

use crate::limits::MAX_RATED_CLIENTS;

/// The rate limit of each client's publishes.
#[derive(Debug)]
pub struct PublishRate(DefaultKeyedRateLimiter<Option<IpAddr>>);

impl PublishRate {
    /// Creates a limit in events per second, which is also the burst size.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self(RateLimiter::keyed(Quota::per_second(per_second)))
    }

    /// Counts an event of a client.
    ///
    /// # Errors
    ///
    /// The time to wait, if the limit is reached. Then the event is not counted.
    pub(crate) fn count(&self, client: Option<IpAddr>) -> Result<(), Duration> {
        // Bounds the memory. A client that has not published for a while counts as new.
        if self.0.len() > MAX_RATED_CLIENTS {
            self.0.retain_recent();
        }
        let until = self.0.check_key(&client);
        until.map_err(|until| until.wait_time_from(self.0.clock().now()))
    }

    /// Counts an event of a client as soon as the limit permits it.
    pub(crate) async fn wait_and_count(&self, client: Option<IpAddr>) {
        while let Err(wait) = self.count(client) {
            tokio::time::sleep(wait).await;
        }
    }
}

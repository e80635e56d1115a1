//! The consumer that reads entries in order.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::ConsumerErrorKind,
};
use futures_util::StreamExt as _;
use serde::de::IgnoredAny;
use tokio::runtime::Handle;
use waterclock::{
    Timestamp,
    cluster::{Entries, RawEntry, SequencerError, SequencerFuture},
};

use crate::api::{Api, ApiError, Refusal};

/// Maximum number of entries to ask for at once. Up to half as many more are on their way, or wait
/// in memory.
const BATCH: usize = 64;
/// Interval at which the server confirms that it has no further entry. The consumer counts as lost
/// after two of them.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Time after which the server asks for a new request, although it had no entry.
const EXPIRY: Duration = Duration::from_secs(30);
/// Time after which the server drops a consumer that nobody reads.
const INACTIVE: Duration = Duration::from_secs(30);

/// A consumer of its own for each reader, in the memory of one server. It acknowledges nothing: the
/// reader knows its position, and begins again with a new consumer.
///
/// The client's ordered consumer does the same and also makes new consumers by itself, but a reader
/// cannot tell why it receives nothing, and it asks for 500 entries at once.
pub(crate) struct NatsEntries {
    messages: pull::Stream,
    /// The position of the last entry. Positions have no holes, unless entries were removed.
    position: u64,
    /// The number of the consumer's last message. They have no holes, either.
    delivered: u64,
    _consumer: Consumer,
}

/// A consumer, which is deleted once it is dropped.
struct Consumer {
    api: Api,
    stream: String,
    name: String,
}

/// A message that does not continue the order.
#[derive(Debug, PartialEq, thiserror::Error)]
enum Discontinuity {
    #[error("message {number} of the consumer follows on message {delivered}")]
    Lost { delivered: u64, number: u64 },
    #[error("entry {next} follows on entry {position}")]
    Hole { position: u64, next: u64 },
}

impl NatsEntries {
    /// Begins to read the entries after a position.
    pub async fn follow(api: &Api, stream: &str, after: u64) -> Result<Self, ApiError> {
        let config = pull::Config {
            description: Some("A node of Waterclock".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let created = api.jetstream()?.create_consumer_on_stream(config, stream).await;
        let consumer = created.map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(error) => ApiError::Refused(Refusal(error)),
            ConsumerErrorKind::TimedOut => api.silence(&format!("CONSUMER.CREATE.{stream}")),
            _ => ApiError::Client(error.into()),
        })?;
        let name = consumer.cached_info().name.clone();
        let guard = Consumer { api: api.clone(), stream: stream.to_owned(), name };
        let messages = consumer.stream().max_messages_per_batch(BATCH).heartbeat(HEARTBEAT);
        let messages = messages.expires(EXPIRY).messages().await;
        let messages = messages.map_err(|error| ApiError::Client(error.into()))?;
        Ok(Self { messages, position: after, delivered: 0, _consumer: guard })
    }

    /// Checks that a message is the next one, and moves on.
    fn advance(&mut self, number: u64, position: u64) -> Result<(), Discontinuity> {
        let Self { delivered, position: last, .. } = *self;
        check(delivered, number, last, position)?;
        (self.delivered, self.position) = (number, position);
        Ok(())
    }
}

/// Checks that a message is the one after message `delivered` with the entry at `position`.
fn check(delivered: u64, number: u64, position: u64, next: u64) -> Result<(), Discontinuity> {
    if number != delivered + 1 {
        return Err(Discontinuity::Lost { delivered, number });
    }
    if next != position + 1 {
        return Err(Discontinuity::Hole { position, next });
    }
    Ok(())
}

impl Entries for NatsEntries {
    fn next(&mut self) -> SequencerFuture<'_, RawEntry> {
        Box::pin(async move {
            let message = match self.messages.next().await {
                Some(message) => message.map_err(SequencerError::unavailable)?,
                None => return Err(SequencerError::unavailable("the consumer has ended")),
            };
            let info = message.info().map_err(SequencerError::unavailable)?;
            let (number, position) = (info.consumer_sequence, info.stream_sequence);
            let time = timestamp(info.published.unix_timestamp_nanos());
            self.advance(number, position).map_err(SequencerError::unavailable)?;
            Ok(RawEntry { position, time, bytes: message.payload.to_vec() })
        })
    }
}

/// Returns the time that a message has in its stream, in nanoseconds.
pub(crate) fn timestamp(nanos: i128) -> Timestamp {
    Timestamp::from_millis(u64::try_from(nanos / 1_000_000).unwrap_or_default())
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Without a runtime, the server drops the consumer once it is inactive.
        let Ok(runtime) = Handle::try_current() else { return };
        let (api, action) =
            (self.api.clone(), format!("CONSUMER.DELETE.{}.{}", self.stream, self.name));
        runtime.spawn(async move {
            if let Err(error) = api.request::<IgnoredAny>(&action, &serde_json::json!({})).await {
                tracing::debug!("a consumer was not deleted: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_must_not_be_lost_or_repeated() {
        assert_eq!(check(0, 1, 7, 8), Ok(()));
        // Entries were removed from the stream before the reader had them.
        assert_eq!(check(4, 5, 7, 12), Err(Discontinuity::Hole { position: 7, next: 12 }));
        assert_eq!(check(4, 6, 7, 8), Err(Discontinuity::Lost { delivered: 4, number: 6 }));
        assert_eq!(check(4, 4, 7, 8), Err(Discontinuity::Lost { delivered: 4, number: 4 }));
        assert_eq!(check(4, 5, 7, 7), Err(Discontinuity::Hole { position: 7, next: 7 }));
    }
}

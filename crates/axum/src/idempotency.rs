//! Idempotency keys of events and uploads in flight. Once an event is stored, the event log
//! remembers its key.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use waterclock::event::{IdempotencyKey, Topic};

/// A key of a topic.
type TopicKey = (Topic, IdempotencyKey);

/// The idempotency keys that are in flight. Clones share one set.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeysInFlight(Arc<Mutex<HashMap<TopicKey, Reserved>>>);

/// The signals of a reserved key. Clones share them.
#[derive(Clone, Debug, Default)]
struct Reserved {
    /// Tells the holder that another upload wants to take its place.
    superseded: CancellationToken,
    /// Tells that upload that the key is free.
    released: CancellationToken,
}

/// A reserved idempotency key, until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyReservation {
    keys: KeysInFlight,
    entry: TopicKey,
    reserved: Reserved,
}

impl KeysInFlight {
    /// Reserves a key. Returns `None` if it is reserved already.
    pub(crate) fn reserve(&self, topic: Topic, key: IdempotencyKey) -> Option<KeyReservation> {
        self.try_reserve((topic, key)).ok()
    }

    /// Reserves a key. Tells its holder to end, and waits until it has: a client that sends its
    /// upload again has given up the connection of the first one, which may not know that yet.
    pub(crate) async fn take_over(&self, topic: Topic, key: IdempotencyKey) -> KeyReservation {
        let entry = (topic, key);
        loop {
            match self.try_reserve(entry.clone()) {
                Ok(reservation) => return reservation,
                Err(Reserved { superseded, released }) => {
                    superseded.cancel();
                    released.cancelled().await;
                }
            }
        }
    }

    /// Reserves a key. Returns the signals of its holder if it is reserved already.
    fn try_reserve(&self, entry: TopicKey) -> Result<KeyReservation, Reserved> {
        let mut keys = self.0.lock();
        if let Some(reserved) = keys.get(&entry) {
            return Err(reserved.clone());
        }
        let reserved = Reserved::default();
        keys.insert(entry.clone(), reserved.clone());
        Ok(KeyReservation { keys: self.clone(), entry, reserved })
    }
}

impl KeyReservation {
    /// The reserved key.
    pub(crate) fn key(&self) -> &IdempotencyKey {
        &self.entry.1
    }

    /// Waits until another upload wants to take the place of this one.
    pub(crate) async fn superseded(&self) {
        self.reserved.superseded.cancelled().await;
    }
}

impl Drop for KeyReservation {
    fn drop(&mut self) {
        self.keys.0.lock().remove(&self.entry);
        self.reserved.released.cancel();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_upload_takes_the_place_of_an_earlier_one_once_that_has_ended() {
        let keys = KeysInFlight::default();
        let topic: Topic = "t".parse().unwrap();
        let key = IdempotencyKey { publisher: "me".to_owned(), key: "k".to_owned() };
        let first = keys.take_over(topic.clone(), key.clone()).await;
        assert!(first.superseded().now_or_never().is_none());
        assert!(keys.reserve(topic.clone(), key.clone()).is_none());
        let mut second = Box::pin(keys.take_over(topic.clone(), key.clone()));
        assert!((&mut second).now_or_never().is_none());
        assert!(first.superseded().now_or_never().is_some());
        assert!((&mut second).now_or_never().is_none(), "the first one has not ended yet");
        drop(first);
        let second = (&mut second).now_or_never().unwrap();
        assert!(second.superseded().now_or_never().is_none());
        drop(second);
        assert!(keys.reserve(topic, key).is_some());
    }
}

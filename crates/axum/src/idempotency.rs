//! Idempotency keys of events in flight. Once an event is stored, the event log remembers its key.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use waterclock::event::{IdempotencyKey, Topic};

/// The idempotency keys of events that are in flight. Clones share one set.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeysInFlight(Arc<Mutex<HashSet<(Topic, IdempotencyKey)>>>);

/// A reserved idempotency key, until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyReservation {
    keys: KeysInFlight,
    entry: (Topic, IdempotencyKey),
}

impl KeysInFlight {
    /// Reserves a key. Returns `None` if it is reserved already.
    pub(crate) fn reserve(&self, topic: Topic, key: IdempotencyKey) -> Option<KeyReservation> {
        let entry = (topic, key);
        let is_new = self.0.lock().insert(entry.clone());
        is_new.then(|| KeyReservation { keys: self.clone(), entry })
    }
}

impl KeyReservation {
    /// The reserved key.
    pub(crate) fn key(&self) -> &IdempotencyKey {
        &self.entry.1
    }
}

impl Drop for KeyReservation {
    fn drop(&mut self) {
        self.keys.0.lock().remove(&self.entry);
    }
}

//! Inboxes of groups, which take messages from any thread. A stream goes to the running group of
//! its key, or else to a new one. The model check in `tests/inbox.rs` compiles this file with the
//! lock of loom, so it depends on nothing of the server but `lock`.

use std::{
    collections::HashMap,
    hash::Hash,
    mem,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use super::lock::Mutex;

/// The inboxes of the running groups. This lock is taken before that of an inbox.
pub(super) struct Inboxes<K, A>(Mutex<HashMap<K, Arc<Mutex<Messages<A>>>>>);

/// The inbox of a group. When it is dropped, it leaves the table.
pub(super) struct Inbox<K: Eq + Hash, A> {
    inboxes: Arc<Inboxes<K, A>>,
    key: K,
    messages: Arc<Mutex<Messages<A>>>,
}

struct Messages<A> {
    arrivals: Vec<A>,
    /// The members whose sockets may have become readable.
    readable: Vec<usize>,
    /// The waker of the group, if it waits.
    waker: Option<Waker>,
}

/// The waker of a member's socket.
struct Readable<A> {
    messages: Arc<Mutex<Messages<A>>>,
    member: usize,
}

impl<K, A> Default for Inboxes<K, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, A> Inboxes<K, A> {
    /// Sends an arrival to the running group of its key. Without one, returns the inbox of a new
    /// group, which contains the arrival.
    pub(super) fn join(self: &Arc<Self>, key: K, arrival: A) -> Option<Inbox<K, A>> {
        let mut by_key = self.0.lock();
        if let Some(messages) = by_key.get(&key) {
            send(messages, |messages| messages.arrivals.push(arrival));
            return None;
        }
        let messages = Messages { arrivals: vec![arrival], readable: Vec::new(), waker: None };
        let messages = Arc::new(Mutex::new(messages));
        by_key.insert(key.clone(), Arc::clone(&messages));
        Some(Inbox { inboxes: Arc::clone(self), key, messages })
    }
}

impl<K: Eq + Hash, A> Inbox<K, A> {
    /// Takes the arrivals, and the members whose sockets may have become readable. Without any, the
    /// next message wakes the task.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<(Vec<A>, Vec<usize>)> {
        let mut messages = self.messages.lock();
        if messages.arrivals.is_empty() && messages.readable.is_empty() {
            messages.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready((mem::take(&mut messages.arrivals), mem::take(&mut messages.readable)))
    }

    /// Leaves the table, unless there are arrivals. Returns `true` if it has left.
    pub(super) fn try_close(&self) -> bool {
        let mut by_key = self.inboxes.0.lock();
        let is_empty = self.messages.lock().arrivals.is_empty();
        if is_empty {
            by_key.remove(&self.key);
        }
        is_empty
    }
}

impl<K: Eq + Hash, A: Send + 'static> Inbox<K, A> {
    /// Creates a waker for the socket of a member.
    pub(super) fn waker(&self, member: usize) -> Waker {
        Arc::new(Readable { messages: Arc::clone(&self.messages), member }).into()
    }
}

impl<K: Eq + Hash, A> Drop for Inbox<K, A> {
    /// Leaves the table if the group has failed, so that further streams form another one.
    fn drop(&mut self) {
        let mut by_key = self.inboxes.0.lock();
        if by_key.get(&self.key).is_some_and(|messages| Arc::ptr_eq(messages, &self.messages)) {
            by_key.remove(&self.key);
            // Their ends run code of others, which must not run under the locks.
            let arrivals = mem::take(&mut self.messages.lock().arrivals);
            drop(by_key);
            drop(arrivals);
        }
    }
}

impl<A: Send + 'static> Wake for Readable<A> {
    fn wake(self: Arc<Self>) {
        send(&self.messages, |messages| messages.readable.push(self.member));
    }
}

/// Adds a message, and wakes the group.
fn send<A>(messages: &Mutex<Messages<A>>, add: impl FnOnce(&mut Messages<A>)) {
    let waker = {
        let mut messages = messages.lock();
        add(&mut messages);
        messages.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

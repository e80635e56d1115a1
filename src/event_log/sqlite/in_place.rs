//! Waiting for the threads of a log. A simulation waits in place, so that nothing else happens in
//! its own thread meanwhile.

#[cfg(test)]
use std::{
    cell::Cell,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use tokio::sync::oneshot::{Receiver, error::RecvError};

#[cfg(test)]
thread_local! {
    static WAITS_IN_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// Waits for a reply.
pub(super) async fn reply<T>(replied: Receiver<T>) -> Result<T, RecvError> {
    #[cfg(test)]
    if waits_in_place() {
        return block_on(replied);
    }
    replied.await
}

/// Makes the logs that this thread uses wait in place.
#[cfg(test)]
pub fn wait_in_place() {
    WAITS_IN_PLACE.set(true);
}

/// Returns `true` if this thread waits in place.
#[cfg(test)]
pub(super) fn waits_in_place() -> bool {
    WAITS_IN_PLACE.get()
}

#[cfg(test)]
struct Unpark(Thread);

#[cfg(test)]
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

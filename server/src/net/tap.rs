//! Byte counts of a connection, for requests that ask for them (`meter=…`). A connection without
//! such a request pays the load of a flag, and the load and store of a number, per read and write.
//! Without the feature `compare`, this module does nothing.

#[cfg(feature = "compare")]
mod counting {
    use std::{
        fmt::Debug,
        net::Shutdown,
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
    };

    use parking_lot::Mutex;
    use socket2::SockRef;
    use tokio::net::TcpStream;

    /// The receiver of a connection's byte counts.
    pub(crate) trait ByteCounter: Debug + Send + Sync {
        /// Returns `true` if received bytes are counted as they arrive, and `false` if they are
        /// counted with the first bytes of the response, since they may belong to the next request.
        fn counts_at_once(&self) -> bool;

        /// Counts bytes that the server has received.
        fn received(&self, bytes: u64);

        /// Counts bytes that the server has sent.
        fn sent(&self, bytes: u64);
    }

    /// The tap of one connection. Every request has it as an extension.
    #[derive(Debug)]
    pub(crate) struct Tap {
        stream: Arc<TcpStream>,
        /// `true` if several requests may be in flight at once (HTTP/2).
        is_shared: AtomicBool,
        /// `true` while there is a counter. Without one, no lock is taken.
        is_open: AtomicBool,
        counter: Mutex<Option<Arc<dyn ByteCounter>>>,
        /// Bytes received since bytes were last sent. They belong to the next response's request.
        pending: AtomicU64,
    }

    impl Tap {
        pub(crate) fn new(stream: &Arc<TcpStream>) -> Self {
            Self {
                stream: Arc::clone(stream),
                is_shared: AtomicBool::new(false),
                is_open: AtomicBool::new(false),
                counter: Mutex::default(),
                pending: AtomicU64::new(0),
            }
        }

        /// Notes that several requests may be in flight at once.
        pub(crate) fn share(&self) {
            self.is_shared.store(true, Ordering::Relaxed);
        }

        /// Returns `true` if several requests may be in flight at once.
        pub(crate) fn is_shared(&self) -> bool {
            self.is_shared.load(Ordering::Relaxed)
        }

        /// Stops counting, since another request begins.
        pub(crate) fn begin_request(&self) {
            if self.is_counting() {
                self.is_open.store(false, Ordering::Relaxed);
                *self.counter.lock() = None;
            }
        }

        /// Counts for the request in flight, with the bytes that it has sent so far.
        pub(crate) fn open(&self, counter: Arc<dyn ByteCounter>) {
            if !self.is_shared() {
                counter.received(self.pending.swap(0, Ordering::Relaxed));
            }
            *self.counter.lock() = Some(counter);
            // One task at a time reads, answers and writes a connection.
            self.is_open.store(true, Ordering::Relaxed);
        }

        /// Returns `true` while there is a counter.
        pub(crate) fn is_counting(&self) -> bool {
            self.is_open.load(Ordering::Relaxed)
        }

        /// The present counter.
        pub(crate) fn counter(&self) -> Option<Arc<dyn ByteCounter>> {
            if self.is_counting() { self.counter.lock().clone() } else { None }
        }

        /// Counts bytes that the server has received.
        pub(crate) fn received(&self, bytes: usize) {
            match self.counter() {
                Some(counter) if counter.counts_at_once() => counter.received(bytes as u64),
                // Only the connection's own task adds, so the sum needs no atomic operation.
                _ => {
                    let sum = self.pending.load(Ordering::Relaxed) + bytes as u64;
                    self.pending.store(sum, Ordering::Relaxed);
                }
            }
        }

        /// Counts bytes that the server has sent.
        pub(crate) fn sent(&self, bytes: usize) {
            if let Some(counter) = self.counter() {
                counter.received(self.pending.load(Ordering::Relaxed));
                counter.sent(bytes as u64);
            }
            self.pending.store(0, Ordering::Relaxed);
        }

        /// Closes the connection at once, like a network that fails.
        pub(crate) fn cut(&self) {
            // Fails if the connection is closed already.
            let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Both);
        }
    }
}

#[cfg(not(feature = "compare"))]
mod nothing {
    #![expect(clippy::unused_self, reason = "the same methods as with the feature")]

    use std::sync::Arc;

    use tokio::net::TcpStream;

    #[derive(Debug)]
    pub(crate) struct Tap;

    impl Tap {
        pub(crate) fn new(_: &Arc<TcpStream>) -> Self {
            Self
        }

        pub(crate) fn share(&self) {}

        pub(crate) fn is_counting(&self) -> bool {
            false
        }

        pub(crate) fn received(&self, _: usize) {}

        pub(crate) fn sent(&self, _: usize) {}

        pub(crate) fn begin_request(&self) {}
    }
}

#[cfg(feature = "compare")]
pub(crate) use counting::{ByteCounter, Tap};
#[cfg(not(feature = "compare"))]
pub(super) use nothing::Tap;

//! The hand-over of streams to groups, in all orders in which threads can take its locks, up to a
//! number of preemptions (loom). A lost wake-up fails a model as a deadlock.
#![expect(clippy::unwrap_used, reason = "a failure here fails a test")]

#[path = "../src/net/inbox.rs"]
mod inbox;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use loom::{future::block_on, model::Builder, thread};

use inbox::Inboxes;

/// The groups of streams that have the same key.
#[derive(Default)]
struct Groups<A> {
    inboxes: Arc<Inboxes<(), A>>,
    /// `true` while a group runs that has members.
    has_members: AtomicBool,
}

/// The lock of the inboxes.
mod lock {
    use loom::sync::{self, MutexGuard};

    /// The mutex of loom, with the interface of that of `parking_lot`.
    #[derive(Default)]
    pub(super) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

/// Runs a model in all orders with at most `LOOM_MAX_PREEMPTIONS` preemptions, by default three.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(model);
}

impl<A> Groups<A> {
    /// Lets a stream join. Runs the group if it is a new one, from which all members leave at once.
    /// Returns the streams that this group has admitted.
    fn join(&self, arrival: A) -> Vec<A> {
        let mut admitted = Vec::new();
        let Some(inbox) = self.inboxes.join((), arrival) else { return admitted };
        loop {
            assert!(!self.has_members.swap(true, Relaxed), "there is one group at a time");
            admitted.extend(block_on(poll_fn(|context| inbox.poll_take(context))).0);
            self.has_members.store(false, Relaxed);
            if inbox.try_close() {
                return admitted;
            }
        }
    }
}

#[test]
fn each_stream_is_admitted_once_while_groups_end() {
    check(|| {
        let groups = Arc::new(Groups::default());
        let threads = [1, 2].map(|arrival| {
            let groups = Arc::clone(&groups);
            thread::spawn(move || groups.join(arrival))
        });
        let mut admitted = groups.join(0);
        for thread in threads {
            admitted.extend(thread.join().unwrap());
        }
        admitted.sort_unstable();
        assert_eq!(admitted, [0, 1, 2]);
        assert!(groups.inboxes.join((), 3).is_some(), "all groups have left the table");
    });
}

#[test]
fn messages_wake_a_group_that_waits() {
    check(|| {
        let inboxes = Arc::<Inboxes<_, _>>::default();
        let inbox = inboxes.join((), 0).unwrap();
        let waker = inbox.waker(7);
        let socket = thread::spawn(move || waker.wake());
        let newcomer = thread::spawn(move || assert!(inboxes.join((), 1).is_none()));
        let (mut admitted, mut looked_at) = (Vec::new(), Vec::new());
        block_on(async {
            while admitted.len() < 2 || looked_at.is_empty() {
                let (arrivals, readable) = poll_fn(|context| inbox.poll_take(context)).await;
                admitted.extend(arrivals);
                looked_at.extend(readable);
            }
        });
        assert_eq!((admitted, looked_at), (vec![0, 1], vec![7]));
        assert!(inbox.try_close());
        socket.join().unwrap();
        newcomer.join().unwrap();
    });
}

#[test]
fn a_group_that_fails_drops_its_arrivals_and_gives_way_to_another() {
    check(|| {
        let (groups, stream) = (Arc::new(Groups::default()), Arc::new(()));
        let inbox = groups.inboxes.join((), Arc::clone(&stream)).unwrap();
        // A socket may outlive the group of its stream.
        let _waker = inbox.waker(0);
        let newcomer = thread::spawn({
            let (groups, stream) = (Arc::clone(&groups), Arc::clone(&stream));
            move || groups.join(stream)
        });
        drop(inbox);
        let admitted = newcomer.join().unwrap();
        assert_eq!(Arc::strong_count(&stream), 1 + admitted.len());
        assert!(groups.inboxes.join((), stream).is_some(), "all groups have left the table");
    });
}

//! The streams that are open: how many there may be, how far each is, and when the last has ended.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;
use waterclock::hub::Subscriber;

/// How many streams may be open.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// In all.
    pub in_all: usize,
    /// From one address.
    pub per_address: usize,
}

/// The open streams.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: StreamLimits,
    open: Mutex<Open>,
    /// How many are open; always told with `open` locked.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Open {
    /// The number of the last one that was opened.
    last: u64,
    /// By number.
    streams: HashMap<u64, Position>,
    per_address: HashMap<IpAddr, usize>,
}

/// How far a stream is.
#[derive(Debug)]
struct Position {
    /// The sequence number that it has passed.
    passed: Arc<AtomicU64>,
    /// That of the newest event of its topics.
    newest: Arc<AtomicU64>,
}

impl Position {
    fn behind(&self) -> u64 {
        self.newest.load(Ordering::Relaxed).saturating_sub(self.passed.load(Ordering::Relaxed))
    }
}

/// An open stream, until it is dropped.
#[derive(Debug)]
pub struct OpenStream {
    streams: Streams,
    number: u64,
    address: IpAddr,
    passed: Arc<AtomicU64>,
}

/// How far the streams are behind the newest events of their topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many are behind at all.
    pub streams: usize,
    /// How many events of the log, of any topic, the one that is furthest behind has yet to pass.
    pub events: u64,
}

impl Streams {
    /// No stream yet, and at most so many.
    pub fn new(limits: StreamLimits) -> Self {
        let shared = Shared { limits, open: Mutex::default(), count: watch::Sender::default() };
        Self(Arc::new(shared))
    }

    /// Opens one for that subscriber; none if there are as many as there may be.
    pub fn open(&self, address: IpAddr, subscriber: &Subscriber) -> Option<OpenStream> {
        self.open_at(address, subscriber.cursor().sequence, subscriber.newest())
    }

    /// Opens one that reads no events of the log, so that it is never behind.
    pub fn open_aside(&self, address: IpAddr) -> Option<OpenStream> {
        self.open_at(address, 0, Arc::default())
    }

    fn open_at(
        &self,
        address: IpAddr,
        position: u64,
        newest: Arc<AtomicU64>,
    ) -> Option<OpenStream> {
        let mut open = self.lock();
        let of_address = open.per_address.get(&address).copied().unwrap_or(0);
        let StreamLimits { in_all, per_address } = self.0.limits;
        if open.streams.len() >= in_all || of_address >= per_address {
            return None;
        }
        open.per_address.insert(address, of_address + 1);
        open.last += 1;
        let number = open.last;
        let passed = Arc::new(AtomicU64::new(position));
        open.streams.insert(number, Position { passed: Arc::clone(&passed), newest });
        self.0.count.send_replace(open.streams.len());
        Some(OpenStream { streams: self.clone(), number, address, passed })
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        *self.0.count.borrow()
    }

    /// Waits until none is open.
    pub async fn ended(&self) {
        // The sender is ours, so it is there.
        let _ = self.0.count.subscribe().wait_for(|&count| count == 0).await;
    }

    /// How far they are behind.
    pub fn lag(&self) -> Lag {
        let open = self.lock();
        let behind = open.streams.values().map(Position::behind).filter(|&events| events > 0);
        behind.fold(Lag::default(), |lag, events| Lag {
            streams: lag.streams + 1,
            events: lag.events.max(events),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code panics half-way through a change of what the lock holds.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenStream {
    /// Its number, counted from 1 since the server's start.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// It has passed that sequence number.
    pub fn passed(&self, position: u64) {
        self.passed.store(position, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.streams.remove(&self.number);
        if let Some(count) = open.per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.per_address.remove(&self.address);
            }
        }
        self.streams.0.count.send_replace(open.streams.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn open(streams: &Streams, address: IpAddr, position: u64, newest: u64) -> Option<OpenStream> {
        streams.open_at(address, position, Arc::new(AtomicU64::new(newest)))
    }

    #[test]
    fn there_are_only_so_many_in_all_and_per_address() {
        let streams = Streams::new(StreamLimits { in_all: 3, per_address: 2 });
        let first = open(&streams, A, 0, 10).unwrap();
        let second = open(&streams, A, 0, 10).unwrap();
        assert!(open(&streams, A, 0, 10).is_none(), "two of that address");
        let third = open(&streams, B, 0, 10).unwrap();
        assert!(open(&streams, B, 0, 10).is_none(), "three in all");
        assert_eq!((first.number(), second.number(), third.number()), (1, 2, 3));
        drop(second);
        assert_eq!(open(&streams, A, 0, 10).unwrap().number(), 4);
        drop((first, third));
        assert_eq!(streams.count(), 0);
        assert!(streams.lock().per_address.is_empty(), "nothing is left of who is gone");
    }

    #[test]
    fn how_far_they_are_behind() {
        let streams = Streams::new(StreamLimits { in_all: 4, per_address: 4 });
        assert_eq!(streams.lag(), Lag::default());
        let (first, second) =
            (open(&streams, A, 4, 10).unwrap(), open(&streams, A, 6, 10).unwrap());
        let _third = open(&streams, A, 10, 10).unwrap();
        let _of_a_quiet_topic = open(&streams, A, 3, 2).unwrap();
        assert_eq!(streams.lag(), Lag { streams: 2, events: 6 });
        first.passed(10);
        second.passed(9);
        assert_eq!(streams.lag(), Lag { streams: 1, events: 1 });
    }

    #[tokio::test]
    async fn the_end_is_when_the_last_has_ended() {
        let streams = Streams::new(StreamLimits { in_all: 3, per_address: 3 });
        streams.ended().await;
        let stream = open(&streams, A, 0, 10).unwrap();
        let ended = tokio::spawn({
            let streams = streams.clone();
            async move { streams.ended().await }
        });
        assert!(!ended.is_finished());
        drop(stream);
        ended.await.unwrap();
    }
}

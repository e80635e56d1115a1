//! The streams that are open: how many there may be, how far each is, and when the last has ended.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

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
    /// By number, the sequence number that each has passed.
    positions: HashMap<u64, Arc<AtomicU64>>,
    per_address: HashMap<IpAddr, usize>,
}

/// An open stream, until it is dropped.
#[derive(Debug)]
pub struct OpenStream {
    streams: Streams,
    number: u64,
    address: IpAddr,
    position: Arc<AtomicU64>,
}

/// How far the streams are behind the newest event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many are behind at all.
    pub streams: usize,
    /// How many events the one that is furthest behind lacks.
    pub events: u64,
}

impl Streams {
    /// No stream yet, and at most so many.
    pub fn new(limits: StreamLimits) -> Self {
        let shared = Shared { limits, open: Mutex::default(), count: watch::Sender::default() };
        Self(Arc::new(shared))
    }

    /// Opens one that starts at that sequence number; none if there are as many as there may be.
    pub fn open(&self, address: IpAddr, position: u64) -> Option<OpenStream> {
        let address = of_one_client(address);
        let mut open = self.lock();
        let of_address = open.per_address.get(&address).copied().unwrap_or(0);
        let StreamLimits { in_all, per_address } = self.0.limits;
        if open.positions.len() >= in_all || of_address >= per_address {
            return None;
        }
        open.per_address.insert(address, of_address + 1);
        open.last += 1;
        let number = open.last;
        let position = Arc::new(AtomicU64::new(position));
        open.positions.insert(number, Arc::clone(&position));
        self.0.count.send_replace(open.positions.len());
        Some(OpenStream { streams: self.clone(), number, address, position })
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

    /// How far they are behind the newest event.
    pub fn lag(&self, newest: u64) -> Lag {
        let open = self.lock();
        let behind =
            open.positions.values().map(|at| newest.saturating_sub(at.load(Ordering::Relaxed)));
        behind.filter(|&events| events > 0).fold(Lag::default(), |lag, events| Lag {
            streams: lag.streams + 1,
            events: lag.events.max(events),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code panics half-way through a change of what the lock holds.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same for all addresses that one client is usually given: of IPv6, a /64.
fn of_one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl OpenStream {
    /// Its number, counted from 1 since the server's start.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// It has passed that sequence number.
    pub fn passed(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.positions.remove(&self.number);
        if let Some(count) = open.per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.per_address.remove(&self.address);
            }
        }
        self.streams.0.count.send_replace(open.positions.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn there_are_only_so_many_in_all_and_per_address() {
        let streams = Streams::new(StreamLimits { in_all: 3, per_address: 2 });
        let first = streams.open(A, 0).unwrap();
        let second = streams.open(A, 0).unwrap();
        assert!(streams.open(A, 0).is_none(), "two of that address");
        let third = streams.open(B, 0).unwrap();
        assert!(streams.open(B, 0).is_none(), "three in all");
        assert_eq!((first.number(), second.number(), third.number()), (1, 2, 3));
        drop(second);
        assert_eq!(streams.open(A, 0).unwrap().number(), 4);
        drop((first, third));
        assert_eq!(streams.count(), 0);
        assert!(streams.lock().per_address.is_empty(), "nothing is left of who is gone");
    }

    #[test]
    fn a_client_has_many_addresses_of_ipv6_and_one_of_ipv4() {
        let same = |a: &str, b: &str| {
            of_one_client(a.parse().unwrap()) == of_one_client(b.parse().unwrap())
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:1:2:3"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    }

    #[test]
    fn how_far_they_are_behind() {
        let streams = Streams::new(StreamLimits { in_all: 3, per_address: 3 });
        assert_eq!(streams.lag(9), Lag::default());
        let (first, second) = (streams.open(A, 4).unwrap(), streams.open(A, 6).unwrap());
        let _third = streams.open(A, 10).unwrap();
        assert_eq!(streams.lag(10), Lag { streams: 2, events: 6 });
        first.passed(10);
        second.passed(9);
        assert_eq!(streams.lag(10), Lag { streams: 1, events: 1 });
    }

    #[tokio::test]
    async fn the_end_is_when_the_last_has_ended() {
        let streams = Streams::new(StreamLimits { in_all: 3, per_address: 3 });
        streams.ended().await;
        let stream = streams.open(A, 0).unwrap();
        let ended = tokio::spawn({
            let streams = streams.clone();
            async move { streams.ended().await }
        });
        assert!(!ended.is_finished());
        drop(stream);
        ended.await.unwrap();
    }
}

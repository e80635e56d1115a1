//! The registry of open streams: it enforces their limits, knows the position of each, and tells
//! when the last one has ended. A poll that waits, or whose answer is not complete yet, counts as a
//! stream.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use waterclock::hub::Subscriber;

use crate::{limits::StreamLimits, stop::Stop};

/// Time between the goodbyes of two streams in a shutdown, if the drain time allows it.
const BETWEEN_GOODBYES: Duration = Duration::from_millis(1);
/// Time for which a stream may lack an event before it counts as slow: well above the longest
/// `max_delay`.
const SLOW: Duration = Duration::from_secs(10);
/// Maximum number of moments that are remembered of a stream that is behind.
const MAX_MARKS: usize = 8;
/// Minimum time between two of these moments.
const BETWEEN_MARKS: Duration = Duration::from_secs(1);
/// Share of the drain time over which the goodbyes are spread. The rest is for slow clients.
const GOODBYES_SHARE: f64 = 0.8;

/// The open streams of a server. Clones share one registry.
#[derive(Clone, Debug)]
pub struct OpenStreams(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    /// Time that a shutdown may take.
    drain: Duration,
    entries: Mutex<Entries>,
    /// Number of open streams. Updated only while `entries` is locked.
    count: watch::Sender<usize>,
}

#[derive(Debug)]
struct Entries {
    limits: StreamLimits,
    /// Number of the stream that was opened last.
    last: u64,
    by_number: HashMap<u64, Position>,
    per_address: HashMap<IpAddr, usize>,
    /// The streams that were behind at the last measurement, by number.
    behind: HashMap<u64, Vec<Mark>>,
}

/// A limit on open streams that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReachedLimit {
    /// That of all streams together.
    Total,
    /// That of the streams from one address.
    PerAddress,
}

/// The position of a stream in the event log.
#[derive(Debug, Default)]
struct Position {
    /// Sequence number up to which the stream has sent or skipped events.
    passed: Arc<AtomicU64>,
    /// Sequence number of the newest event that matches its patterns.
    newest: Arc<AtomicU64>,
}

impl Position {
    fn behind(&self) -> u64 {
        self.newest.load(Ordering::Relaxed).saturating_sub(self.passed.load(Ordering::Relaxed))
    }
}

/// A moment at which a stream was behind, with the sequence number of its newest event then.
#[derive(Clone, Copy, Debug)]
struct Mark {
    time: Instant,
    newest: u64,
}

/// Forgets the marks that a stream has passed, adds one, and returns the time for which it has
/// lacked an event at least.
fn lacking(marks: &mut Vec<Mark>, position: &Position, now: Instant) -> Duration {
    let passed = position.passed.load(Ordering::Relaxed);
    marks.retain(|mark| mark.newest > passed);
    let newest = position.newest.load(Ordering::Relaxed);
    let is_news = marks.last().is_none_or(|last| {
        newest > last.newest && now.saturating_duration_since(last.time) >= BETWEEN_MARKS
    });
    if is_news && marks.len() < MAX_MARKS {
        marks.push(Mark { time: now, newest });
    }
    marks.first().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.time))
}

/// The registration of one open stream. Dropping it removes the stream from the registry.
#[derive(Debug)]
pub(crate) struct OpenStream {
    streams: OpenStreams,
    number: u64,
    address: Option<IpAddr>,
    passed: Arc<AtomicU64>,
}

/// The distance between streams and the newest events that match their patterns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Number of streams that are behind.
    pub streams: usize,
    /// Events of the log, of any topic, that the furthest one has yet to pass.
    pub events: u64,
    /// Number of streams that have lacked an event for more than ten seconds.
    pub slow: usize,
    /// Time for which a stream has lacked an event, at most. It counts from the measurement that
    /// first found the event missing.
    pub time: Duration,
}

impl OpenStreams {
    /// Creates an empty registry.
    pub(crate) fn new(limits: StreamLimits, drain: Duration) -> Self {
        let (by_number, per_address, behind) = Default::default();
        let entries = Mutex::new(Entries { limits, last: 0, by_number, per_address, behind });
        Self(Arc::new(Registry { drain, entries, count: watch::Sender::default() }))
    }

    /// Replaces the limits. Streams beyond the new ones stay open.
    pub fn set_limits(&self, limits: StreamLimits) {
        self.0.entries.lock().limits = limits;
    }

    /// Registers a stream. It counts as never behind until it [follows](OpenStream::follow) a
    /// subscriber.
    ///
    /// # Errors
    ///
    /// If a limit is reached.
    pub(crate) fn open(&self, address: Option<IpAddr>) -> Result<OpenStream, ReachedLimit> {
        let mut entries = self.0.entries.lock();
        // Clients with an unknown address count towards the total only.
        let of_address =
            address.and_then(|address| entries.per_address.get(&address)).copied().unwrap_or(0);
        let StreamLimits { total, per_address } = entries.limits;
        if of_address >= per_address {
            return Err(ReachedLimit::PerAddress);
        }
        if entries.by_number.len() >= total {
            return Err(ReachedLimit::Total);
        }
        if let Some(address) = address {
            entries.per_address.insert(address, of_address + 1);
        }
        entries.last += 1;
        let number = entries.last;
        let position = Position::default();
        let passed = Arc::clone(&position.passed);
        entries.by_number.insert(number, position);
        self.0.count.send_replace(entries.by_number.len());
        Ok(OpenStream { streams: self.clone(), number, address, passed })
    }

    /// Number of open streams.
    pub fn count(&self) -> usize {
        *self.0.count.borrow()
    }

    /// Waits for the last open stream to end. Returns at once if no stream is open.
    pub async fn ended(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.0.count.subscribe().wait_for(|&count| count == 0).await;
    }

    /// Waits for the streams in a shutdown: until the last one has ended, or until `time` after the
    /// last goodbye was due. A stream that is open after that has a client that does not read.
    pub async fn drained(&self, stop: &Stop, time: Duration) {
        let began = stop.begun().await;
        let end = began + goodbyes_spread(self.count(), self.0.drain) + time;
        let _ = tokio::time::timeout_at(end, self.ended()).await;
    }

    /// Draws the time of a stream's goodbye in a shutdown that began at `began`.
    pub(crate) fn goodbye_at(&self, began: Instant) -> Instant {
        began + goodbyes_spread(self.count(), self.0.drain).mul_f64(fastrand::f64())
    }

    /// Measures the lag of the open streams. The times are known from repeated measurements: a
    /// stream lacks an event for as long as it has not passed what it lacked in an earlier one.
    pub fn lag(&self) -> Lag {
        let now = Instant::now();
        let Entries { by_number, behind, .. } = &mut *self.0.entries.lock();
        let mut lag = Lag::default();
        let mut still_behind = HashMap::new();
        for (number, position) in by_number.iter() {
            let events = position.behind();
            if events == 0 {
                continue;
            }
            let mut marks = behind.remove(number).unwrap_or_default();
            let time = lacking(&mut marks, position, now);
            still_behind.insert(*number, marks);
            lag.streams += 1;
            lag.events = lag.events.max(events);
            lag.slow += usize::from(time > SLOW);
            lag.time = lag.time.max(time);
        }
        *behind = still_behind;
        lag
    }
}

/// Time over which the goodbyes of `streams` streams are spread, so that their clients do not
/// reconnect all at once.
fn goodbyes_spread(streams: usize, drain: Duration) -> Duration {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    BETWEEN_GOODBYES.saturating_mul(streams).min(drain.mul_f64(GOODBYES_SHARE))
}

impl OpenStream {
    /// Number of the stream, counted from 1 since the server's start.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The client's address, as far as it counts towards a limit.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Measures from now on how far the stream is behind the events of its subscriber.
    pub(crate) fn follow(&self, subscriber: &Subscriber) {
        self.set_position(subscriber.cursor().sequence, subscriber.newest());
    }

    fn set_position(&self, position: u64, newest: Arc<AtomicU64>) {
        self.passed(position);
        if let Some(entry) = self.streams.0.entries.lock().by_number.get_mut(&self.number) {
            entry.newest = newest;
        }
    }

    /// Takes the position from now on from `passed`, which several streams share.
    pub(crate) fn share_position(&mut self, passed: &Arc<AtomicU64>) {
        self.passed = Arc::clone(passed);
        if let Some(entry) = self.streams.0.entries.lock().by_number.get_mut(&self.number) {
            entry.passed = Arc::clone(passed);
        }
    }

    /// Gives the stream a position of its own again.
    pub(crate) fn own_position(&mut self, position: u64) {
        self.share_position(&Arc::new(AtomicU64::new(position)));
    }

    /// Notes that the stream has passed a sequence number.
    pub(crate) fn passed(&self, position: u64) {
        self.passed.store(position, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut entries = self.streams.0.entries.lock();
        entries.by_number.remove(&self.number);
        if let Some(address) = self.address
            && let Some(count) = entries.per_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                entries.per_address.remove(&address);
            }
        }
        self.streams.0.count.send_replace(entries.by_number.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);
    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn open(
        streams: &OpenStreams,
        address: IpAddr,
        position: u64,
        newest: u64,
    ) -> Option<OpenStream> {
        let stream = streams.open(Some(address)).ok()?;
        stream.set_position(position, Arc::new(AtomicU64::new(newest)));
        Some(stream)
    }

    #[test]
    fn streams_are_limited_in_total_and_per_address() {
        let streams = OpenStreams::new(StreamLimits { total: 3, per_address: 2 }, DRAIN);
        let first = open(&streams, A, 0, 10).unwrap();
        let second = open(&streams, A, 0, 10).unwrap();
        assert_eq!(streams.open(Some(A)).unwrap_err(), ReachedLimit::PerAddress);
        let third = open(&streams, B, 0, 10).unwrap();
        assert_eq!(streams.open(Some(B)).unwrap_err(), ReachedLimit::Total);
        assert_eq!((first.number(), second.number(), third.number()), (1, 2, 3));
        drop(second);
        assert_eq!(open(&streams, A, 0, 10).unwrap().number(), 4);
        drop((first, third));
        assert_eq!(streams.count(), 0);
        assert!(
            streams.0.entries.lock().per_address.is_empty(),
            "closed streams leave nothing behind"
        );
    }

    #[test]
    fn clients_of_unknown_addresses_count_towards_the_total_only() {
        let streams = OpenStreams::new(StreamLimits { total: 2, per_address: 1 }, DRAIN);
        let (_first, _second) = (streams.open(None).unwrap(), streams.open(None).unwrap());
        assert_eq!(streams.open(None).unwrap_err(), ReachedLimit::Total);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_slow_while_it_lacks_what_it_lacked_long_ago() {
        let streams = OpenStreams::new(StreamLimits { total: 4, per_address: 4 }, DRAIN);
        let newest = Arc::new(AtomicU64::new(10));
        let stuck = streams.open(Some(A)).unwrap();
        stuck.set_position(4, Arc::clone(&newest));
        let steady = streams.open(Some(A)).unwrap();
        steady.set_position(9, Arc::clone(&newest));
        let measured = |streams: &OpenStreams| {
            let Lag { streams, slow, time, .. } = streams.lag();
            (streams, slow, time.as_secs())
        };
        assert_eq!(measured(&streams), (2, 0, 0));
        // One is behind each time, but by another event each time. The other reads slowly, and
        // lacks the event 10.
        for (step, lag) in [(1, 5), (2, 10), (3, 15), (4, 20)] {
            tokio::time::advance(Duration::from_secs(5)).await;
            newest.store(10 + step, Ordering::Relaxed);
            steady.passed(9 + step);
            stuck.passed(4 + step);
            assert_eq!(measured(&streams), (2, usize::from(lag > 10), lag));
        }
        // It has read what it lacked at first, but not what it has lacked for 15 s.
        stuck.passed(10);
        assert_eq!(measured(&streams), (2, 1, 15));
        stuck.passed(14);
        assert_eq!(measured(&streams), (1, 0, 0));
        steady.passed(14);
        assert_eq!(streams.lag(), Lag::default());
        assert!(streams.0.entries.lock().behind.is_empty(), "no marks are left");
    }

    #[tokio::test(start_paused = true)]
    async fn many_measurements_need_little_memory() {
        let streams = OpenStreams::new(StreamLimits { total: 4, per_address: 4 }, DRAIN);
        let newest = Arc::new(AtomicU64::new(1));
        let stuck = streams.open(Some(A)).unwrap();
        stuck.set_position(0, Arc::clone(&newest));
        for _ in 0..1000 {
            newest.fetch_add(1, Ordering::Relaxed);
            streams.lag();
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(streams.0.entries.lock().behind[&stuck.number()].len(), MAX_MARKS);
        assert!(streams.lag().time >= Duration::from_secs(99));
        drop(stuck);
        streams.lag();
        assert!(streams.0.entries.lock().behind.is_empty());
    }

    #[test]
    fn lag_counts_streams_and_the_furthest_distance() {
        let streams = OpenStreams::new(StreamLimits { total: 4, per_address: 4 }, DRAIN);
        assert_eq!(streams.lag(), Lag::default());
        let (first, second) =
            (open(&streams, A, 4, 10).unwrap(), open(&streams, A, 6, 10).unwrap());
        let _third = open(&streams, A, 10, 10).unwrap();
        let _of_a_quiet_topic = open(&streams, A, 3, 2).unwrap();
        let lag = |streams: &OpenStreams| Lag { time: Duration::ZERO, ..streams.lag() };
        assert_eq!(lag(&streams), Lag { streams: 2, events: 6, ..Lag::default() });
        first.passed(10);
        second.passed(9);
        assert_eq!(lag(&streams), Lag { streams: 1, events: 1, ..Lag::default() });
    }

    #[tokio::test]
    async fn ended_resolves_after_the_last_stream() {
        let streams = OpenStreams::new(StreamLimits { total: 3, per_address: 3 }, DRAIN);
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

    #[test]
    fn goodbyes_are_spread_and_leave_time_for_slow_clients() {
        assert_eq!(goodbyes_spread(1, DRAIN), Duration::from_millis(1));
        assert_eq!(goodbyes_spread(2500, DRAIN), Duration::from_millis(2500));
        assert_eq!(goodbyes_spread(10_000, DRAIN), Duration::from_secs(8));
        assert_eq!(goodbyes_spread(usize::MAX, DRAIN), Duration::from_secs(8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_end_does_not_hold_up_a_shutdown() {
        let streams = OpenStreams::new(StreamLimits { total: 2000, per_address: 2000 }, DRAIN);
        let mut open: Vec<_> = (0..2000).map(|_| streams.open(Some(A)).unwrap()).collect();
        let (stop, time) = (Stop::default(), Duration::from_secs(3));
        stop.begin();
        let began = Instant::now();
        tokio::join!(streams.drained(&stop, time), async {
            tokio::time::sleep(time).await;
            open.truncate(1);
        });
        let expected = Duration::from_secs(2) + time;
        assert!((expected..expected + time).contains(&began.elapsed()));
        open.clear();
        let ended = Instant::now();
        streams.drained(&stop, time).await;
        assert_eq!(ended.elapsed(), Duration::ZERO);
    }
}

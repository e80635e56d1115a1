//! Meters: byte counts of the transports that a page compares, in both directions, headers and
//! framing included. A page cannot see most of these bytes, so the server counts them.
//!
//! A client chooses a name for its meter, and adds `meter=…` to its requests. On an HTTP/1.1
//! connection, bytes received before a request belong to that request, and bytes sent until the
//! next request belong to its response. A WebSocket has its connection to itself. HTTP/2 requests
//! share a connection, whose bytes cannot be told apart (heads are compressed together, and TLS
//! wraps all of them), so they are counted once for all, including other requests of that client.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::{StatusCode, Uri};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use waterclock::transport::Transport;
use waterclock_axum::Problem;

use crate::net::{ByteCounter, Tap};

/// Maximum number of meters. Beyond it, the least recently used one is removed.
const MAX_METERS: usize = 1000;
/// Length of a meter's name in characters. It must be too long to guess, since the name is all that
/// is needed to read a meter and to cut its connections.
const NAME_LENGTH: RangeInclusive<usize> = 16..=64;

/// An invalid or unknown name of a meter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeterError {
    #[error(
        "{0:?} is not a valid meter name. It must be 16 to 64 random characters of `A-Za-z0-9_-`."
    )]
    Name(String),
    #[error("There is no such meter, or it has not been used for a long time.")]
    Unknown,
}

impl From<MeterError> for Problem {
    fn from(error: MeterError) -> Self {
        let status = match error {
            MeterError::Name(_) => StatusCode::BAD_REQUEST,
            MeterError::Unknown => StatusCode::NOT_FOUND,
        };
        Self::new(status, error.to_string())
    }
}

/// The counts of one transport of a meter, or of the connections that they share.
#[derive(Debug)]
struct TransportCounter {
    /// `None` for shared connections.
    transport: Option<Transport>,
    connections: AtomicU64,
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Those of its connections that are still open.
    taps: Mutex<Vec<Weak<Tap>>>,
}

impl ByteCounter for TransportCounter {
    fn counts_at_once(&self) -> bool {
        matches!(self.transport, None | Some(Transport::WebSocket))
    }

    fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl TransportCounter {
    fn new(transport: Option<Transport>) -> Self {
        Self {
            transport,
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            taps: Mutex::default(),
        }
    }

    /// Counts a request, and notes its connection.
    fn count_request(&self, tap: &Arc<Tap>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut taps = self.taps.lock();
        taps.retain(|other| other.strong_count() > 0);
        if !taps.iter().any(|other| other.as_ptr() == Arc::as_ptr(tap)) {
            taps.push(Arc::downgrade(tap));
            self.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The open connections whose last request was counted here.
    fn open(&self) -> Vec<Arc<Tap>> {
        let taps: Vec<_> = self.taps.lock().iter().filter_map(Weak::upgrade).collect();
        let is_ours = |tap: &Arc<Tap>| {
            tap.counter().is_some_and(|counter| {
                std::ptr::addr_eq(Arc::as_ptr(&counter), std::ptr::from_ref(self))
            })
        };
        taps.into_iter().filter(is_ours).collect()
    }

    fn read(&self) -> TransportCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TransportCounts {
            connections: read(&self.connections),
            open: self.open().len(),
            requests: read(&self.requests),
            received: read(&self.received),
            sent: read(&self.sent),
        }
    }
}

/// The counts of one transport, or of the connections that several share.
#[derive(Serialize)]
pub(crate) struct TransportCounts {
    /// Number of connections used.
    connections: u64,
    /// Number of those that are open.
    open: usize,
    requests: u64,
    /// Bytes received by the server.
    received: u64,
    /// Bytes sent by the server.
    sent: u64,
}

/// One meter: a counter per transport, and one for shared connections.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    transports: Vec<Arc<TransportCounter>>,
    shared: Arc<TransportCounter>,
}

impl Meter {
    fn new() -> Self {
        let counter = |transport| Arc::new(TransportCounter::new(transport));
        let transports = Transport::ALL.map(|transport| counter(Some(transport))).into_iter();
        Self { transports: transports.collect(), shared: counter(None) }
    }

    /// Counts a request that has just arrived, and its response.
    pub(crate) fn count(&self, transport: Transport, tap: &Arc<Tap>) {
        let mut counters = self.transports.iter();
        let Some(counter) = counters.find(|counter| counter.transport == Some(transport)) else {
            return;
        };
        counter.count_request(tap);
        if tap.is_shared() {
            self.shared.count_request(tap);
            tap.open(Arc::<TransportCounter>::clone(&self.shared));
        } else {
            tap.open(Arc::<TransportCounter>::clone(counter));
        }
    }

    fn counters(&self) -> impl Iterator<Item = &Arc<TransportCounter>> {
        self.transports.iter().chain([&self.shared])
    }

    /// Reads the counters, each with the name of its transport.
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, TransportCounts)> {
        self.counters()
            .map(|counter| (counter.transport.map_or("shared", Transport::as_str), counter.read()))
    }

    /// Cuts the open connections, like a network that fails. Returns their number.
    pub(crate) fn cut(&self) -> usize {
        let open: Vec<_> = self.counters().flat_map(|counter| counter.open()).collect();
        for tap in &open {
            tap.cut();
        }
        open.len()
    }
}

/// A valid name of a meter.
pub(crate) struct MeterName(String);

impl MeterName {
    /// Returns the name in a query, or `None` if the query has none.
    pub(crate) fn requested(uri: &Uri) -> Result<Option<Self>, MeterError> {
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let Some((_, name)) = query.filter(|(name, _)| name == "meter").last() else {
            return Ok(None);
        };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !NAME_LENGTH.contains(&name.len()) || !name.bytes().all(is_allowed) {
            return Err(MeterError::Name(name.into_owned()));
        }
        Ok(Some(Self(name.into_owned())))
    }
}

/// The meters by name. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<HashMap<String, (Meter, Instant)>>>);

impl Meters {
    /// Returns the meter of that name, and creates it if it is new.
    pub(crate) fn get_or_create(&self, MeterName(name): &MeterName) -> Meter {
        let mut meters = self.0.lock();
        if !meters.contains_key(name) && meters.len() >= MAX_METERS {
            let oldest = meters.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                meters.remove(&oldest);
            }
        }
        let new = || (Meter::new(), Instant::now());
        let (meter, used) = meters.entry(name.clone()).or_insert_with(new);
        *used = Instant::now();
        meter.clone()
    }

    /// Returns the meter of that name.
    pub(crate) fn get(&self, name: &str) -> Result<Meter, MeterError> {
        let mut meters = self.0.lock();
        let (meter, used) = meters.get_mut(name).ok_or(MeterError::Unknown)?;
        *used = Instant::now();
        Ok(meter.clone())
    }
}

//! How many bytes cross the sockets, both ways, headers and framing included: for who compares the
//! transports. A page cannot see most of it, so the server counts for it.
//!
//! A client draws a name for its meter and puts it into its requests, `meter=…`. On a connection of
//! HTTP/1.1, what is received before a request belongs to that request, and what is sent until the next
//! one belongs to its answer. A WebSocket has its connection to itself. The requests of HTTP/2 share one, and
//! what crosses it (also their heads, which are compressed together, and TLS around all of it) cannot be told
//! apart: it is counted for all of them at once, whatever else the client asks for over it included.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    Json,
    extract::{Path, State},
    http::{Extensions, HeaderName, header::CACHE_CONTROL},
};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use socket2::SockRef;
use tokio::{net::TcpStream, time::Instant};
use waterclock::transport::Transport;

use crate::{problem::Problem, router::AppState};

/// How many meters there may be; then the one goes that nobody has used for longest.
const MAX_METERS: usize = 1000;
/// How long the name of a meter is, in characters: too many to guess, as it is all that it takes to read
/// it and to cut its connections.
const NAME: std::ops::RangeInclusive<usize> = 16..=64;

/// What crosses the socket of one connection. Every request has it as an extension.
#[derive(Debug)]
pub(crate) struct Traffic {
    stream: Arc<TcpStream>,
    /// How many bytes were received since anything was sent, which belong to the next request.
    received: AtomicU64,
    /// How many bytes the request has that is being answered.
    request: AtomicU64,
    /// Whether several requests are under way at once (HTTP/2).
    is_shared: AtomicBool,
    /// Whether there is an account: mostly not, and then no lock is taken for what is sent.
    is_counted: AtomicBool,
    /// For whom it is counted now.
    account: Mutex<Option<Arc<Account>>>,
}

/// What was counted for one transport of a meter, or for the connections that they share.
#[derive(Debug)]
struct Account {
    /// None for the shared ones.
    transport: Option<Transport>,
    connections: AtomicU64,
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// The connections that it was on and that are still there.
    open: Mutex<Vec<Weak<Traffic>>>,
}

impl Traffic {
    pub(crate) fn new(stream: Arc<TcpStream>) -> Self {
        Self {
            stream,
            received: AtomicU64::new(0),
            request: AtomicU64::new(0),
            is_shared: AtomicBool::new(false),
            is_counted: AtomicBool::new(false),
            account: Mutex::default(),
        }
    }

    /// Several requests will be under way at once.
    pub(crate) fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    /// So many bytes were received.
    pub(crate) fn received(&self, bytes: usize) {
        match self.account() {
            // There is no next request, or which one it belongs to cannot be seen.
            Some(account) if matches!(account.transport, None | Some(Transport::WebSocket)) => {
                add(&account.received, bytes as u64);
            }
            _ => add(&self.received, bytes as u64),
        }
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&self, bytes: usize) {
        // Before the answer comes, it was still of the request: its body.
        let body = self.received.swap(0, Ordering::Relaxed);
        if let Some(account) = self.account() {
            add(&account.received, body);
            add(&account.sent, bytes as u64);
        }
    }

    /// A request has come. It is counted for nobody yet.
    pub(crate) fn begin_request(&self) {
        self.request.store(self.received.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.set_account(None);
    }

    fn account(&self) -> Option<Arc<Account>> {
        let is_counted = self.is_counted.load(Ordering::Relaxed);
        if is_counted { lock(&self.account).clone() } else { None }
    }

    fn set_account(&self, account: Option<Arc<Account>>) {
        // A connection is read, answered and written to by one task at a time.
        self.is_counted.store(account.is_some(), Ordering::Relaxed);
        *lock(&self.account) = account;
    }

    /// Closes the connection as it is, like a network that fails.
    fn cut(&self) {
        // Fails if it is closed already.
        let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Both);
    }

    /// Closes our side, and drops what the client still sends until it closes its own: that would be answered
    /// with a reset otherwise, and the client might never see what it was sent last.
    pub(crate) async fn finish(&self) {
        // Fails if it is closed already.
        let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
        while self.stream.readable().await.is_ok() {
            // One who sends without end holds up nobody.
            tokio::task::consume_budget().await;
            match self.stream.try_read(&mut [0; 8 * 1024]) {
                Ok(0) => return,
                Ok(bytes) => self.received(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics half-way through a change of what these locks hold.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    fn new(transport: Option<Transport>) -> Self {
        Self {
            transport,
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// Counts the request that has just come over that connection, and its answer; the bytes of a shared one
    /// for `shared`.
    fn count(self: &Arc<Self>, traffic: &Arc<Traffic>, shared: &Arc<Self>) {
        add(&self.requests, 1);
        self.count_connection(traffic);
        if traffic.is_shared.load(Ordering::Relaxed) {
            add(&shared.requests, 1);
            shared.count_connection(traffic);
            traffic.set_account(Some(Arc::clone(shared)));
        } else {
            add(&self.received, traffic.request.load(Ordering::Relaxed));
            traffic.set_account(Some(Arc::clone(self)));
        }
    }

    fn count_connection(&self, traffic: &Arc<Traffic>) {
        let mut open = lock(&self.open);
        open.retain(|other| other.strong_count() > 0);
        if !open.iter().any(|other| other.as_ptr() == Arc::as_ptr(traffic)) {
            open.push(Arc::downgrade(traffic));
            add(&self.connections, 1);
        }
    }

    /// The connections that are open and were used for this last.
    fn open(self: &Arc<Self>) -> Vec<Arc<Traffic>> {
        let open: Vec<_> = lock(&self.open).iter().filter_map(Weak::upgrade).collect();
        let is_ours = |traffic: &Arc<Traffic>| {
            traffic.account().is_some_and(|account| Arc::ptr_eq(&account, self))
        };
        open.into_iter().filter(is_ours).collect()
    }

    fn counted(self: &Arc<Self>) -> Counted {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            connections: of(&self.connections),
            open: self.open().len(),
            requests: of(&self.requests),
            received: of(&self.received),
            sent: of(&self.sent),
        }
    }
}

#[derive(Clone, Debug)]
struct Accounts {
    of_transports: [Arc<Account>; 4],
    shared: Arc<Account>,
}

/// The meters, by name. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<HashMap<String, Meter>>>);

#[derive(Debug)]
struct Meter {
    accounts: Accounts,
    used: Instant,
}

impl Meters {
    /// The accounts of a meter, which is made if there is none.
    fn make(&self, name: &str) -> Accounts {
        let mut meters = lock(&self.0);
        if !meters.contains_key(name) && meters.len() >= MAX_METERS {
            let oldest = meters.iter().min_by_key(|(_, meter)| meter.used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                meters.remove(&oldest);
            }
        }
        let meter = meters.entry(name.to_owned()).or_insert_with(|| {
            let account = |transport| Arc::new(Account::new(transport));
            let of_transports = Transport::ALL.map(|transport| account(Some(transport)));
            Meter {
                accounts: Accounts { of_transports, shared: account(None) },
                used: Instant::now(),
            }
        });
        meter.used = Instant::now();
        meter.accounts.clone()
    }

    /// The accounts of a meter.
    fn accounts(&self, name: &str) -> Option<Accounts> {
        let mut meters = lock(&self.0);
        let meter = meters.get_mut(name)?;
        meter.used = Instant::now();
        Some(meter.accounts.clone())
    }
}

impl Accounts {
    fn count(&self, transport: Transport, traffic: &Arc<Traffic>) {
        let account =
            self.of_transports.iter().find(|account| account.transport == Some(transport));
        if let Some(account) = account {
            account.count(traffic, &self.shared);
        }
    }
}

/// A request that is to be counted.
#[derive(Debug)]
pub(crate) struct Metered {
    meter: String,
    /// Always there over a socket.
    traffic: Option<Arc<Traffic>>,
}

impl Metered {
    pub(crate) fn new(meter: &str, extensions: &Extensions) -> Result<Self, Problem> {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !NAME.contains(&meter.len()) || !meter.bytes().all(is_of_name) {
            return Err(Problem::BadMeter(meter.to_owned()));
        }
        let traffic = extensions.get::<Arc<Traffic>>().cloned();
        Ok(Self { meter: meter.to_owned(), traffic })
    }

    pub(crate) fn count(&self, meters: &Meters, transport: Transport) {
        if let Some(traffic) = &self.traffic {
            meters.make(&self.meter).count(transport, traffic);
        }
    }
}

/// What a meter says: by transport, and of the connections that they share.
pub(crate) struct Reading(Vec<(&'static str, Counted)>);

impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, counted) in &self.0 {
            map.serialize_entry(name, counted)?;
        }
        map.end()
    }
}

/// What was counted of one transport, or of what they share.
#[derive(Serialize)]
struct Counted {
    /// Connections that it was on.
    connections: u64,
    /// How many of them are open.
    open: usize,
    requests: u64,
    /// Bytes that the server has received.
    received: u64,
    /// Bytes that it has sent.
    sent: u64,
}

/// `GET /meters/{meter}`: what was counted.
pub(crate) async fn read(
    State(state): State<AppState>,
    Path(meter): Path<String>,
) -> Result<([(HeaderName, &'static str); 1], Json<Reading>), Problem> {
    let accounts = state.meters.accounts(&meter).ok_or(Problem::NoSuchMeter)?;
    let accounts = accounts.of_transports.iter().chain([&accounts.shared]);
    let reading = accounts
        .map(|account| (account.transport.map_or("shared", Transport::as_str), account.counted()));
    Ok(([(CACHE_CONTROL, "no-store")], Json(Reading(reading.collect()))))
}

/// How many connections were cut.
#[derive(Serialize)]
pub(crate) struct Cut {
    cut: usize,
}

/// `POST /meters/{meter}/cut`: closes its connections as a network would that fails.
pub(crate) async fn cut(
    State(state): State<AppState>,
    Path(meter): Path<String>,
) -> Result<Json<Cut>, Problem> {
    let accounts = state.meters.accounts(&meter).ok_or(Problem::NoSuchMeter)?;
    let accounts = accounts.of_transports.iter().chain([&accounts.shared]);
    let open: Vec<_> = accounts.flat_map(Account::open).collect();
    for traffic in &open {
        traffic.cut();
    }
    Ok(Json(Cut { cut: open.len() }))
}

//! How many bytes cross the sockets, both ways, headers and framing included: for who compares the
//! transports. A page cannot see most of it, so the server counts for it.
//!
//! A client draws a name for its meter and puts it into its requests, `meter=…`. On a connection of
//! HTTP/1.1, what is received before a request belongs to that request, and what is sent until the next
//! one belongs to its answer. A WebSocket has its connection to itself.

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
    /// Whether there is an account: mostly not, and then no lock is taken for what is sent.
    is_counted: AtomicBool,
    /// For whom it is counted now.
    account: Mutex<Option<Arc<Account>>>,
}

/// What was counted for one transport of a meter.
#[derive(Debug)]
struct Account {
    transport: Transport,
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
            is_counted: AtomicBool::new(false),
            account: Mutex::default(),
        }
    }

    /// So many bytes were received.
    pub(crate) fn received(&self, bytes: usize) {
        match self.account() {
            // There is no next request.
            Some(account) if account.transport == Transport::WebSocket => {
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
    fn new(transport: Transport) -> Self {
        Self {
            transport,
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// Counts the request that has just come over that connection, and its answer.
    fn count(self: &Arc<Self>, traffic: &Arc<Traffic>) {
        let mut open = lock(&self.open);
        open.retain(|other| other.strong_count() > 0);
        if !open.iter().any(|other| other.as_ptr() == Arc::as_ptr(traffic)) {
            open.push(Arc::downgrade(traffic));
            add(&self.connections, 1);
        }
        add(&self.requests, 1);
        add(&self.received, traffic.request.load(Ordering::Relaxed));
        traffic.set_account(Some(Arc::clone(self)));
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

/// The meters, by name. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<HashMap<String, Meter>>>);

#[derive(Debug)]
struct Meter {
    accounts: [Arc<Account>; 4],
    used: Instant,
}

impl Meters {
    /// A meter's account of that transport; the meter is made if there is none.
    fn account(&self, name: &str, transport: Transport) -> Option<Arc<Account>> {
        let mut meters = lock(&self.0);
        if !meters.contains_key(name) && meters.len() >= MAX_METERS {
            let oldest = meters.iter().min_by_key(|(_, meter)| meter.used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                meters.remove(&oldest);
            }
        }
        let meter = meters.entry(name.to_owned()).or_insert_with(|| Meter {
            accounts: Transport::ALL.map(|transport| Arc::new(Account::new(transport))),
            used: Instant::now(),
        });
        meter.used = Instant::now();
        meter.of(transport)
    }

    /// All accounts of a meter.
    fn accounts(&self, name: &str) -> Option<[Arc<Account>; 4]> {
        let mut meters = lock(&self.0);
        let meter = meters.get_mut(name)?;
        meter.used = Instant::now();
        Some(meter.accounts.clone())
    }
}

impl Meter {
    fn of(&self, transport: Transport) -> Option<Arc<Account>> {
        self.accounts.iter().find(|account| account.transport == transport).cloned()
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
        let account = meters.account(&self.meter, transport);
        if let Some((account, traffic)) = account.zip(self.traffic.as_ref()) {
            account.count(traffic);
        }
    }
}

/// What a meter says, by transport.
pub(crate) struct Reading(Vec<(Transport, Counted)>);

impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (transport, counted) in &self.0 {
            map.serialize_entry(transport.as_str(), counted)?;
        }
        map.end()
    }
}

/// What was counted of one transport.
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
    let reading = accounts.map(|account| (account.transport, account.counted()));
    Ok(([(CACHE_CONTROL, "no-store")], Json(Reading(reading.into()))))
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
    let open: Vec<_> = accounts.iter().flat_map(Account::open).collect();
    for traffic in &open {
        traffic.cut();
    }
    Ok(Json(Cut { cut: open.len() }))
}

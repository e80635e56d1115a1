//! Sockets: serves a router from listeners until shutdown.
//!
//! The accept loop is our own, on hyper-util, since no ready-made one has all of this: a timeout before
//! a connection's first byte, small send buffers, so that a slow reader occupies little memory, and a
//! shutdown that keeps answering while streams say goodbye.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `connection` | one connection, from its first byte to its end |
//! | `http1`, `http2` | its protocol |
//! | `socket` | its socket, with a write timeout and a graceful close |
//! | `peer` | its other end |
//! | `tap` | its byte counts, for requests that ask for them |
//! | `progress` | signs of life of its client |
//! | `capacity` | the limit on open connections |
//! | `tls` | the certificate |

mod capacity;
mod connection;
mod http1;
mod http2;
mod peer;
mod progress;
mod socket;
mod tap;
pub mod tls;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use waterclock_axum::{OpenStreams, Stop, metrics::GaugeGuard};

use crate::{limits::Timeouts, ops::metrics::Metrics};

pub use capacity::Capacity;
pub use peer::Peer;
#[cfg(feature = "compare")]
pub(crate) use tap::{ByteCounter, Tap};

use capacity::Slot;
use tls::Tls;

/// Length of the listen backlog: the number of clients that may reconnect at once after an outage.
/// Clients beyond it retry after a second. The system may allow fewer.
const BACKLOG: u32 = 8192;
/// Pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Minimum time between two messages about that.
const REPORT_INTERVAL: Duration = Duration::from_mins(1);

/// The parts that serving needs in addition to a router.
#[derive(Clone)]
pub struct Serving {
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The certificate; without it, plain HTTP is served.
    pub tls: Option<Tls>,
    /// The limit on open connections. Further connections wait in the listen backlog: a refused client
    /// would retry at once, and gain nothing.
    pub capacity: Capacity,
    /// The open streams, which a shutdown waits for.
    pub streams: OpenStreams,
    /// Counters of connections.
    pub metrics: Arc<Metrics>,
    /// The shutdown signal.
    pub stop: Stop,
}

/// Guards that live as long as a connection: it counts as open, a shutdown waits for it, and it
/// occupies a slot.
type ConnectionGuards = (GaugeGuard, TaskTrackerToken, Slot);

/// Starts to listen. Must be called within a runtime.
///
/// # Errors
///
/// If the address is in use, or does not belong to this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Like tokio's own `bind`, so that an address can be reused at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until shutdown. Then the streams say goodbye, requests are answered until the last stream
/// has ended, and requests in flight are completed. The caller bounds the time that this may take.
pub async fn serve(listener: TcpListener, router: Router, serving: Serving) {
    let serving = Arc::new(serving);
    let closing = CancellationToken::new();
    let connections = TaskTracker::new();
    let mut drained = pin!(async {
        serving.stop.begun().await;
        serving.streams.ended().await;
    });
    let mut reported: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &serving.capacity) => accepted,
            () = &mut drained => break,
        };
        match accepted {
            Ok((stream, address, slot)) => {
                let guards = (serving.metrics.connection_open(), connections.token(), slot);
                let (router, closing) = (router.clone(), closing.clone());
                let serving = Arc::clone(&serving);
                tokio::spawn(connection::serve(stream, address, router, serving, closing, guards));
            }
            // The client left before its connection was accepted.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                    tracing::error!(%error, "no connection can be accepted; retrying");
                    reported = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    closing.cancel();
    connections.close();
    connections.wait().await;
}

/// Accepts a connection as soon as a slot is free.
async fn accept(
    listener: &TcpListener,
    capacity: &Capacity,
) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let slot = capacity.acquire().await;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, slot))
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

//! Serves a router from listeners until it is told to stop: the accept loop.
//!
//! It is our own, on hyper-util, because nothing ready-made has all of this: a time-out before a
//! connection's first byte, small send buffers, so that a client which does not read costs little, and
//! a stop that goes on answering while the streams say goodbye.

mod connection;
mod http1;
mod http2;
mod progress;
mod room;
mod socket;

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
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

use crate::{
    metrics::{Counted, Metrics},
    stop::Stop,
    streams::Streams,
    tls::Tls,
};

pub use room::Room;
pub(crate) use socket::Socket;

use room::Place;

/// How many connections may wait to be accepted: as many as come back at once after a cut. What is beyond
/// tries again only after a second. The system may allow fewer.
const BACKLOG: u32 = 8192;
/// How long the loop waits after the system could not give it a connection.
const NO_CONNECTION: Duration = Duration::from_millis(100);
/// How long it does not say so again.
const SAID: Duration = Duration::from_mins(1);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct TimeOuts {
    /// From the connection to its first byte.
    pub first_byte: Duration,
    /// For the handshake of TLS.
    pub handshake: Duration,
    /// For the head of a request; also from the end of an answer to the end of the next head.
    pub head: Duration,
    /// For the body of a request that is an event's data.
    pub body: Duration,
    /// For reading anything at all of what is being sent to it; of HTTP/2, of any one answer.
    pub write: Duration,
    /// For a request, of HTTP/2: when none came for so long, a ping asks for a sign of life.
    pub ping: Duration,
    /// For any sign of life, of HTTP/2: that something comes, or that it reads on. Longer than `ping` by as much
    /// as the answer may take of a slow reader, who reads first what is on its way before the ping. Its system,
    /// too, may not say that it reads before it has read most of that.
    pub silence: Duration,
}

impl Default for TimeOuts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            ping: Duration::from_secs(20),
            silence: Duration::from_mins(2),
        }
    }
}

/// The other end of a connection. Every request has it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether it reached us on a loopback address, which only this machine can.
    pub is_local: bool,
}

/// What serving needs besides a router.
#[derive(Clone)]
pub struct Serving {
    /// How long clients may take.
    pub time_outs: TimeOuts,
    /// With what TLS is spoken; without it, HTTP is as it is.
    pub tls: Option<Tls>,
    /// How many connections there may be. Who comes then waits in the backlog: one who is sent away would try
    /// again at once, and be no better off.
    pub room: Room,
    /// The streams, which a stop waits for.
    pub streams: Streams,
    /// Counts the connections.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub stop: Stop,
}

/// What lasts as long as a connection: it counts as open, a stop waits for it, and it has a place.
type Open = (Counted, TaskTrackerToken, Place);

/// Begins to listen. Must be called in a runtime.
///
/// # Errors
///
/// If the address is taken, or none of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As tokio's own `bind` does: an address that was in use a moment ago can be had.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the stop begins. From then on the streams say goodbye; requests are
/// still answered until the last stream has ended, and what is under way then is brought to its end. Who
/// calls this bounds how long that may take.
pub async fn serve(listener: TcpListener, router: Router, serving: Serving) {
    let serving = Arc::new(serving);
    let closing = CancellationToken::new();
    let connections = TaskTracker::new();
    let mut drained = pin!(async {
        serving.stop.begun().await;
        serving.streams.ended().await;
    });
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &serving.room) => accepted,
            () = &mut drained => break,
        };
        match accepted {
            Ok((stream, address, place)) => {
                let open = (serving.metrics.connection(), connections.token(), place);
                let (router, closing) = (router.clone(), closing.clone());
                let serving = Arc::clone(&serving);
                tokio::spawn(connection::serve(stream, address, router, serving, closing, open));
            }
            // The client was gone before we looked.
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                if said.is_none_or(|at| at.elapsed() >= SAID) {
                    tracing::error!(%error, "no connection can be accepted; trying again");
                    said = Some(Instant::now());
                }
                tokio::time::sleep(NO_CONNECTION).await;
            }
        }
    }
    drop(listener);
    closing.cancel();
    connections.close();
    connections.wait().await;
}

/// Accepts a connection once there is room for one.
async fn accept(listener: &TcpListener, room: &Room) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let place = room.place().await;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

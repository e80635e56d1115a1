//! Serves a router from listeners until it is told to stop: the accept loop.
//!
//! It is our own, on hyper-util, because nothing ready-made has all of this: a time-out before a
//! connection's first byte, small send buffers, so that a client which does not read costs little, and
//! a stop that goes on answering while the streams say goodbye.

mod socket;

use std::{
    convert::Infallible,
    error::Error,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, StatusCode, header::CONNECTION},
};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tower::ServiceExt as _;
use tracing::Instrument as _;

use socket::Socket;

use crate::{
    meter::Traffic,
    metrics::{Metrics, Refusal, TimedOut},
    rarely::Rarely,
    stop::Stop,
    streams::Streams,
};

/// How many bytes a request's head may have (more is answered with 431), and how many bytes of an
/// answer hyper holds back for a client that does not read, give or take one chunk.
const BUFFER: usize = 32 * 1024;
/// How many bytes the system holds back for a client that does not read. Linux doubles it.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a connection is silent before the system asks whether its other end is still there.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// How long the system waits for a sign that something sent has arrived. By itself it would try for a
/// quarter of an hour, and probes only where nothing is under way.
#[cfg(target_os = "linux")]
const NO_ANSWER: Duration = Duration::from_secs(30);
/// How many connections may wait to be accepted: as many as come back at once after a cut. What is beyond
/// tries again only after a second. The system may allow fewer.
const BACKLOG: u32 = 8192;
/// How long the loop waits after the system could not give it a connection.
const NO_CONNECTION: Duration = Duration::from_millis(100);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct TimeOuts {
    /// From the connection to its first byte.
    pub first_byte: Duration,
    /// For the head of a request; also from the end of an answer to the end of the next head.
    pub head: Duration,
    /// For the body of a request that is an event's data.
    pub body: Duration,
    /// For reading anything at all of what is being sent to it.
    pub write: Duration,
}

impl Default for TimeOuts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
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
    /// The streams, which a stop waits for.
    pub streams: Streams,
    /// Counts the connections.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub stop: Stop,
}

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
    let closing = CancellationToken::new();
    let connections = TaskTracker::new();
    let mut drained = pin!(async {
        serving.stop.begun().await;
        serving.streams.ended().await;
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut drained => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let (serving, closing) = (serving.clone(), closing.clone());
                let (router, tracked) = (router.clone(), connections.token());
                tokio::spawn(connection(stream, address, router, serving, closing, tracked));
            }
            // The client was gone before we looked.
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(NO_CONNECTION).await;
            }
        }
    }
    drop(listener);
    closing.cancel();
    connections.close();
    connections.wait().await;
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

/// What happens besides requests.
enum Besides {
    /// The client has left while it was being answered.
    Left,
    /// The server closes its connections.
    Closing,
}

/// Serves one connection to its end; once `closing` is cancelled, to the end of the request that is
/// under way.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    Serving { time_outs, metrics, stop, .. }: Serving,
    closing: CancellationToken,
    tracked: TaskTrackerToken,
) {
    let open = metrics.connection();
    // Entered only where something is to be told: this runs for every event.
    let span = tracing::info_span!("connection", peer = %address);
    if let Err(error) = set_options(&stream) {
        tracing::debug!(parent: &span, %error, "the connection's options could not be set");
    }
    let peer = Peer {
        address: address.ip().to_canonical(),
        is_local: stream.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback()),
    };

    let mut first_byte = [0];
    tokio::select! {
        // What has arrived is served.
        biased;
        // Not `readable`, which may also return when there is nothing to read.
        _ = stream.peek(&mut first_byte) => {}
        () = tokio::time::sleep(time_outs.first_byte) => {
            tracing::debug!(parent: &span, "the client said nothing");
            return metrics.timed_out(TimedOut::FirstByte);
        }
        () = closing.cancelled() => return,
    }

    let stream = Arc::new(stream);
    let traffic = Arc::new(Traffic::new(Arc::clone(&stream)));
    let socket =
        Socket::new(Arc::clone(&stream), time_outs.write, Arc::clone(&traffic), (open, tracked));
    let answering = Notify::new();
    let has_served = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Incoming>| {
        has_served.store(true, Ordering::Relaxed);
        traffic.begin_request();
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Arc::clone(&traffic));
        if request.body().is_end_stream() {
            answering.notify_one();
        }
        let answer = router.clone().oneshot(request.map(Body::new)).instrument(span.clone());
        let stop = &stop;
        async move {
            let mut answer = answer.await.unwrap_or_else(|never| match never {});
            if stop.has_begun() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                // The client is to go elsewhere with its next request.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(time_outs.head)
        .max_buf_size(BUFFER)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let besides = Rarely::new(async {
        tokio::select! {
            () = left(&stream, &answering) => Besides::Left,
            () = closing.cancelled() => Besides::Closing,
        }
    });
    let served = tokio::select! {
        // First, so that what has arrived is seen before the connection is closed for being idle.
        biased;
        served = &mut connection => served,
        besides = besides => match besides {
            Besides::Left => return,
            Besides::Closing => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = served {
        if error.is_timeout() {
            let is_idle = has_served.load(Ordering::Relaxed);
            metrics.timed_out(if is_idle { TimedOut::Idle } else { TimedOut::Head });
        } else if is_write_time_out(&error) {
            metrics.timed_out(TimedOut::Write);
        } else if error.is_parse_too_large() {
            metrics.refused(Refusal::TooLong);
        } else if error.is_parse() {
            metrics.refused(Refusal::Malformed);
        }
        tracing::debug!(parent: &span, error = &error as &dyn Error, "the connection failed");
    }
}

/// Waits until the client leaves while it is being answered and has nothing more to send. hyper does not
/// look for that, since it would keep a buffer of 8 KiB for each client.
async fn left(stream: &TcpStream, answering: &Notify) {
    loop {
        answering.notified().await;
        match stream.peek(&mut [0]).await {
            Ok(0) | Err(_) => return,
            // It asks for something else, which hyper reads after this.
            Ok(_) => {}
        }
    }
}

fn is_write_time_out(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.is_some_and(|error: &io::Error| error.kind() == ErrorKind::TimedOut)
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // An event is a small write that must not wait for the next one (RFC 896).
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(NO_ANSWER))?;
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 6))
}

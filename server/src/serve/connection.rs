//! One connection, from its first byte to its end: through TLS where the listener speaks it, then HTTP/1.1
//! or HTTP/2.

use std::{
    convert::Infallible,
    error::Error,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION},
};
use bytes::Bytes;
use hyper::{
    body::{Body as _, Frame, Incoming, SizeHint},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};

use super::{Open, Peer, Serving, progress::Progress, socket::Socket};
use crate::{
    meter::Traffic,
    metrics::{Refusal, TimedOut},
    rarely::Rarely,
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

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4): no request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a connection of TLS begins with: the type of a handshake's record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// How many bytes a request's head may have in HTTP/2, unpacked: more is answered with 431, and more than four
/// times as many end the connection.
const MAX_HEAD: u32 = 32 * 1024;
/// How many requests a connection of HTTP/2 may have open: as many streams as an address may have.
const MAX_CONCURRENT_STREAMS: u32 = 1000;
/// How many requests may be taken back before we have looked at them: a page that is closed takes back all
/// that it had, an attack ("rapid reset", CVE-2023-44487) any number.
const MAX_PENDING_RESETS: usize = 200;
/// How many bytes of an answer h2 holds back for a client that does not read that one, give or take a chunk;
/// hyper has the next chunk in hand already.
const STREAM_SEND_BUFFER: usize = 16 * 1024;
/// How many bytes of one request's body a client may send before we have read them; and of all together.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How long hyper waits for the answer to a ping: we look for signs of the client ourselves, as that answer comes
/// only once the client has read all that was sent before the ping.
const NO_TIME_OUT: Duration = Duration::from_hours(365 * 24);

/// What one is told who speaks HTTP to a port that speaks TLS.
const NO_TLS: &str = "This port speaks TLS: use https:// instead of http://.\n";

/// Serves one connection to its end; once `closing` is cancelled, to the end of the requests that are
/// under way.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    serving: Serving,
    closing: CancellationToken,
    open: Open,
) {
    let Serving { time_outs, metrics, tls, .. } = &serving;
    // Entered only where something is to be told: this runs for every event.
    let span = tracing::info_span!("connection", peer = %address);
    if let Err(error) = set_options(&stream) {
        tracing::debug!(parent: &span, %error, "the connection's options could not be set");
    }
    let peer = Peer {
        address: address.ip().to_canonical(),
        is_local: stream.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback()),
    };

    let mut first_bytes = [0; PREFACE.len()];
    let arrived = tokio::select! {
        // What has arrived is served.
        biased;
        // Not `readable`, which may also return when there is nothing to read.
        arrived = stream.peek(&mut first_bytes) => arrived.unwrap_or(0),
        () = tokio::time::sleep(time_outs.first_byte) => {
            tracing::debug!(parent: &span, "the client said nothing");
            return metrics.timed_out(TimedOut::FirstByte);
        }
        () = closing.cancelled() => return,
    };
    let first_bytes = &first_bytes[..arrived];

    let stream = Arc::new(stream);
    let traffic = Arc::new(Traffic::new(Arc::clone(&stream)));
    let progress = Arc::<Progress>::default();
    let mut socket = Socket::new(
        Arc::clone(&stream),
        time_outs.write,
        Arc::clone(&traffic),
        Arc::clone(&progress),
        open,
    );
    let serving = serving.clone();
    let connection = Connection { router, peer, traffic, progress, span, serving, closing };
    match tls {
        // They come in one piece. Who sends them one by one is answered as by HTTP/1.1.
        None if first_bytes.len() > 2 && PREFACE.starts_with(first_bytes) => {
            connection.wait_for_reader(&mut socket);
            connection.http2(socket).await;
        }
        None => connection.http1(socket, Some(&stream)).await,
        Some(tls) if first_bytes.first() == Some(&HANDSHAKE) => {
            match tokio::time::timeout(time_outs.handshake, tls.accept(socket)).await {
                Ok(Ok(mut socket)) if socket.get_ref().1.alpn_protocol() == Some(b"h2") => {
                    connection.wait_for_reader(socket.get_mut().0);
                    connection.http2(socket).await;
                }
                Ok(Ok(socket)) => connection.http1(socket, None).await,
                Ok(Err(error)) => {
                    tracing::debug!(parent: &connection.span, %error, "no TLS");
                    metrics.refused(Refusal::Tls);
                }
                Err(_) => metrics.timed_out(TimedOut::Handshake),
            }
        }
        Some(_) if first_bytes.is_empty() => {}
        Some(_) => {
            metrics.refused(Refusal::NoTls);
            say_that_it_is_tls(socket).await;
        }
    }
}

/// What serving a connection takes, besides its socket.
struct Connection {
    router: Router,
    peer: Peer,
    traffic: Arc<Traffic>,
    progress: Arc<Progress>,
    span: Span,
    serving: Serving,
    closing: CancellationToken,
}

/// What happens besides requests.
enum Besides {
    /// The client has left while it was being answered.
    Left,
    /// The connection is to be closed once nothing is under way.
    Closing,
    /// The client has asked for nothing for too long.
    Idle,
}

impl Connection {
    /// Has a request answered.
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(Arc::clone(&self.traffic));
        let answer = self.router.clone().oneshot(request.map(Body::new));
        let answer = answer.instrument(self.span.clone());
        async { answer.await.unwrap_or_else(|never| match never {}) }
    }

    /// Serves HTTP/1.1. A client that leaves is noticed in its stream if that is given, and by reading on
    /// otherwise, as in TLS its leave comes with bytes.
    async fn http1<S>(self, socket: S, stream: Option<&TcpStream>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { time_outs, metrics, stop, .. } = &self.serving;
        let answering = Notify::new();
        let has_served = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            has_served.store(true, Ordering::Relaxed);
            self.traffic.begin_request();
            if request.body().is_end_stream() {
                answering.notify_one();
            }
            let answer = self.answer(request);
            async {
                let mut answer = answer.await;
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
            .half_close(stream.is_some())
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let besides = Rarely::new(async {
            tokio::select! {
                () = left(stream, &answering) => Besides::Left,
                () = self.closing.cancelled() => Besides::Closing,
            }
        });
        let served = tokio::select! {
            // First, so that what has arrived is seen before the connection is closed for being idle.
            biased;
            served = &mut connection => served,
            besides = besides => match besides {
                Besides::Left | Besides::Idle => return,
                Besides::Closing => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        let Err(error) = served else { return };
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
        self.failed(&error);
    }

    /// Over HTTP/2, pings find who is gone, so that a slow reader need not hurry.
    fn wait_for_reader(&self, socket: &mut Socket) {
        if let Err(error) = socket.wait_for_reader(self.serving.time_outs.silence) {
            tracing::debug!(parent: &self.span, %error, "the connection's options could not be set");
        }
    }

    /// Serves HTTP/2 (RFC 9113).
    async fn http2<S>(self, socket: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { time_outs, metrics, stop, .. } = &self.serving;
        self.traffic.share();
        let open = watch::Sender::new(0_usize);
        let answers = Answers::default();
        let has_served = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            has_served.store(true, Ordering::Relaxed);
            let under_way = UnderWay::new(&open);
            let (answer, answers) = (self.answer(request), answers.clone());
            async move {
                let answer = answer.await;
                let kept = |body| Kept { body, waits: answers.begin(), _open: under_way };
                Ok::<_, Infallible>(answer.map(|body| Body::new(kept(body))))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_send_buf_size(STREAM_SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(time_outs.ping)
            .keep_alive_timeout(NO_TIME_OUT)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let mut gone = Rarely::new(async {
            tokio::select! {
                () = answers.stuck(&self.progress, time_outs.write) => TimedOut::Write,
                () = self.progress.silent(time_outs.silence) => TimedOut::Ping,
            }
        });
        let besides = Rarely::new(async {
            tokio::select! {
                () = idle(open.subscribe(), time_outs.head) => Besides::Idle,
                // So that the client goes elsewhere with its next request.
                _ = stop.begun() => Besides::Closing,
                () = self.closing.cancelled() => Besides::Closing,
            }
        });
        let is_idle = tokio::select! {
            biased;
            served = &mut connection => return self.http2_served(served),
            gone = &mut gone => return metrics.timed_out(gone),
            besides = besides => matches!(besides, Besides::Idle),
        };
        if is_idle {
            let has_served = has_served.load(Ordering::Relaxed);
            metrics.timed_out(if has_served { TimedOut::Idle } else { TimedOut::Head });
        }
        connection.as_mut().graceful_shutdown();
        // A client that is there answers; what it has asked for meanwhile, it gets.
        let idle = async {
            idle(open.subscribe(), time_outs.write).await;
            while self.progress.take_blocked() {
                idle(open.subscribe(), time_outs.write).await;
            }
        };
        tokio::select! {
            biased;
            served = connection => self.http2_served(served),
            gone = gone => metrics.timed_out(gone),
            () = idle, if is_idle => {}
        }
    }

    /// Tells how a connection of HTTP/2 has ended by itself.
    fn http2_served(&self, served: hyper::Result<()>) {
        let metrics = &self.serving.metrics;
        let Err(error) = served else { return };
        let of_http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        if is_write_time_out(&error) {
            metrics.timed_out(TimedOut::Write);
        } else if of_http2.is_some_and(h2::Error::is_library) {
            metrics.refused(Refusal::Http2);
        }
        self.failed(&error);
    }

    fn failed(&self, error: &hyper::Error) {
        tracing::debug!(parent: &self.span, error = error as &dyn Error, "the connection failed");
    }
}

/// Waits until the client leaves while it is being answered and has nothing more to send. hyper does not
/// look for that, since it would keep a buffer of 8 KiB for each client.
async fn left(stream: Option<&TcpStream>, answering: &Notify) {
    let Some(stream) = stream else { return std::future::pending().await };
    loop {
        answering.notified().await;
        match stream.peek(&mut [0]).await {
            Ok(0) | Err(_) => return,
            // It asks for something else, which hyper reads after this.
            Ok(_) => {}
        }
    }
}

/// Waits until no request was under way for that long.
async fn idle(mut open: watch::Receiver<usize>, time: Duration) {
    loop {
        let nothing_comes = open.wait_for(|&count| count > 0);
        if tokio::time::timeout(time, nothing_comes).await.is_err() {
            return;
        }
        // The sender is the connection's.
        let _ = open.wait_for(|&count| count == 0).await;
    }
}

/// Counts a request as under way until it is dropped.
struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count += 1);
        Self(open.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The answers of a connection, and since when each waits for the client to take more of it.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<Weak<Waits>>>>);

/// Since when something waits, if it does.
type Waits = Mutex<Option<Instant>>;

impl Answers {
    /// One begins: it waits from now on.
    fn begin(&self) -> Arc<Waits> {
        let waits = Arc::new(Mutex::new(Some(Instant::now())));
        let mut all = lock(&self.0);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&waits));
        waits
    }

    /// Waits until one has waited for so long, while the connection took all that there was.
    async fn stuck(&self, progress: &Progress, time: Duration) {
        loop {
            tokio::time::sleep(time / 2).await;
            let since = |waits: &Weak<Waits>| *lock(&*waits.upgrade()?);
            let oldest = lock(&self.0).iter().filter_map(since).min();
            // Where the line is slow, each waits for its turn.
            if !progress.take_blocked() && oldest.is_some_and(|since| since.elapsed() >= time) {
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics half-way through a change of what these locks hold.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of an answer, which is under way as long as this is there.
struct Kept {
    body: Body,
    waits: Arc<Waits>,
    _open: UnderWay,
}

impl hyper::body::Body for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // hyper asks for more as soon as the client takes more.
        let frame = Pin::new(&mut self.body).poll_frame(context);
        *lock(&self.waits) = matches!(frame, Poll::Ready(Some(_))).then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tells who has not expected TLS, where a browser shows it.
async fn say_that_it_is_tls(mut socket: Socket) {
    let length = NO_TLS.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{NO_TLS}"
    );
    // It may have left.
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
}

fn is_write_time_out(error: &hyper::Error) -> bool {
    let Some(source) = error.source() else { return false };
    let of_http2 = source.downcast_ref().and_then(h2::Error::get_io);
    let error: Option<&io::Error> = source.downcast_ref().or(of_http2);
    error.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
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

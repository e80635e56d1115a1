//! An HTTP/2 connection (RFC 9113).

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, http::Request};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::Instant,
};
use waterclock_axum::Stop;

use super::{
    connection::{Connection, is_write_timeout},
    serving::Serving,
    signs_of_life::SignsOfLife,
    socket::Socket,
};
use crate::{
    limits::{LINGER, MAX_LINGER},
    ops::metrics::{Metrics, RefusalReason, TimedOut},
};

/// Maximum size of a request's head after decompression, in bytes. A larger one gets 431; one of
/// more than four times the size ends the connection.
const MAX_HEAD: u32 = 32 * 1024;
/// Maximum number of open requests per connection: the default limit of streams per address.
const MAX_CONCURRENT_STREAMS: u32 = 1000;
/// Maximum number of requests that a client may cancel before they are looked at. A page that
/// closes cancels all of its requests; an attack ("rapid reset", CVE-2023-44487) cancels without
/// end.
const MAX_PENDING_RESETS: usize = 200;
/// Size of h2's buffer for a response that its client does not read, in bytes, give or take a
/// chunk. hyper holds the next chunk in addition.
const STREAM_SEND_BUFFER: usize = 16 * 1024;
/// Flow-control window of one request's body, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of all request bodies together, in bytes.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Time that hyper waits for the answer to a ping: practically forever. That answer arrives only
/// after the client has read everything sent before the ping, so [`SignsOfLife`] looks for signs of
/// life instead.
const NO_TIMEOUT: Duration = Duration::from_hours(365 * 24);

impl Connection {
    /// Gives a slow reader more time. Over HTTP/2, pings detect clients that are gone.
    pub(super) fn wait_for_reader(&self, socket: &mut Socket) {
        if let Err(error) = socket.wait_for_reader(self.serving().timeouts.silence) {
            tracing::debug!(parent: &self.span, %error, "the connection's options could not be set");
        }
    }

    /// Serves HTTP/2 (RFC 9113).
    pub(super) async fn http2<S>(self, socket: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { timeouts, metrics, stop, .. } = self.serving();
        self.tap.share();
        let open = watch::Sender::new(0_usize);
        let responses = ResponseTasks::default();
        let has_served = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            has_served.store(true, Ordering::Relaxed);
            let guard = RequestGuard::new(&open);
            let discarded = |body| RequestBody { body: Some(body), stop: stop.clone() };
            let response = self.respond(request.map(discarded));
            async move {
                let tracked = |body| TrackedBody::new(body, guard);
                Ok::<_, Infallible>(response.await.map(|body| Body::new(tracked(body))))
            }
        });
        let connection = http2::Builder::new(responses.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_send_buf_size(STREAM_SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(timeouts.ping)
            .keep_alive_timeout(NO_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        // The sets poll a future only after its own waker has fired, not for every event.
        let mut gone = FuturesUnordered::from_iter([async {
            let cancel = responses.cancel_stuck(&self.progress, timeouts.write, metrics);
            tokio::select! {
                () = self.progress.silent(timeouts.silence) => {}
                never = cancel => match never {},
            }
        }]);
        let mut closing = FuturesUnordered::from_iter([async {
            tokio::select! {
                () = idle(open.subscribe(), timeouts.head, timeouts.idle) => true,
                // The client must send its next request elsewhere.
                _ = stop.begun() => false,
                () = self.closing().cancelled() => false,
            }
        }]);
        let is_idle = tokio::select! {
            biased;
            served = after_others(connection.as_mut()) => return self.http2_served(served),
            Some(()) = gone.next() => return metrics.timed_out(TimedOut::Ping),
            Some(is_idle) = closing.next() => is_idle,
        };
        if is_idle {
            let has_served = has_served.load(Ordering::Relaxed);
            metrics.timed_out(if has_served { TimedOut::Idle } else { TimedOut::Head });
        }
        connection.as_mut().graceful_shutdown();
        // A client that is alive confirms that, and gets the responses that it still asked for.
        let idle = async {
            idle(open.subscribe(), timeouts.write, timeouts.write).await;
            while self.progress.take_blocked() {
                idle(open.subscribe(), timeouts.write, timeouts.write).await;
            }
        };
        let closed = async {
            self.closing().cancelled().await;
            self.nothing_owed(timeouts.closing).await;
        };
        tokio::select! {
            biased;
            served = after_others(connection.as_mut()) => self.http2_served(served),
            Some(()) = gone.next() => metrics.timed_out(TimedOut::Ping),
            () = idle, if is_idle => {}
            () = closed => {}
        }
    }

    /// Counts and prints the end of a connection that ended by itself.
    fn http2_served(&self, served: hyper::Result<()>) {
        let metrics = &self.serving().metrics;
        let Err(error) = served else { return };
        let of_http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        if is_write_timeout(&error) {
            metrics.timed_out(TimedOut::Write);
        } else if of_http2.is_some_and(h2::Error::is_library) {
            metrics.refused(RefusalReason::Http2);
        }
        self.failed(&error);
    }
}

/// Polls a connection after the tasks that were ready before it. So the output of all its
/// responses, such as one event on a hundred streams, leaves in one write instead of a hundred.
async fn after_others<F: Future>(mut connection: Pin<&mut F>) -> F::Output {
    let mut has_waited = false;
    poll_fn(|context| {
        has_waited = !has_waited;
        if has_waited {
            // Wakes this task after those.
            let _ = pin!(tokio::task::yield_now()).poll(context);
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    })
    .await
}

/// Waits until no request has been in flight for `first`, or for `further` after a request.
async fn idle(mut open: watch::Receiver<usize>, first: Duration, further: Duration) {
    let mut time = first;
    loop {
        let nothing_comes = open.wait_for(|&count| count > 0);
        if tokio::time::timeout(time, nothing_comes).await.is_err() {
            return;
        }
        // Cannot fail: the connection holds the sender.
        let _ = open.wait_for(|&count| count == 0).await;
        time = further;
    }
}

/// The body of a request. If it is dropped before its end, the rest is read and discarded for a
/// while, which is shorter at a stop.
///
/// h2 would reset the request at once, after the response. That is allowed (RFC 9113, 8.1), but
/// clients such as curl before 8.0 then report an error, and not the response.
struct RequestBody {
    /// `None` once it is dropped.
    body: Option<Incoming>,
    stop: Stop,
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        // There is none at the end of the program.
        let runtime = Handle::try_current();
        if let Some((mut body, runtime)) = body.zip(runtime.ok()) {
            let stop = self.stop.clone();
            runtime.spawn(async move {
                let rest = async {
                    while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    }
                };
                let stopped = async {
                    stop.begun().await;
                    tokio::time::sleep(LINGER).await;
                };
                tokio::select! {
                    () = rest => {}
                    () = tokio::time::sleep(MAX_LINGER) => {}
                    () = stopped => {}
                }
            });
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let body = self.body.as_mut();
        body.map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

/// Counts a request as in flight until it is dropped.
struct RequestGuard(watch::Sender<usize>);

impl RequestGuard {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count += 1);
        Self(open.clone())
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The tasks of a connection's responses, which hyper spawns here.
#[derive(Clone, Default)]
struct ResponseTasks(Arc<Mutex<Vec<(AbortHandle, StalledSince)>>>);

/// Time since which a response waits for the client to take more of it; `None` while it does not.
type StalledSince = Arc<Mutex<Option<Instant>>>;

tokio::task_local! {
    /// The state of the response that this task sends.
    static STALLED_SINCE: StalledSince;
}

impl<F> Executor<F> for ResponseTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, response: F) {
        let stalled = StalledSince::default();
        let task = tokio::spawn(STALLED_SINCE.scope(Arc::clone(&stalled), response));
        let mut all = self.0.lock();
        all.retain(|(other, _)| !other.is_finished());
        all.push((task.abort_handle(), stalled));
    }
}

impl ResponseTasks {
    /// Cancels responses that have stalled for `time` although the connection was not blocked.
    /// Behind a proxy, the other responses belong to other clients. So the one that stalled first
    /// is cancelled first: the rest may wait only for its share of the flow-control window. Each
    /// further look cancels twice as many.
    async fn cancel_stuck(
        &self,
        progress: &SignsOfLife,
        time: Duration,
        metrics: &Metrics,
    ) -> Infallible {
        let mut most = 1_usize;
        loop {
            tokio::time::sleep(time / 2).await;
            // On a slow line, each response waits for its turn.
            if progress.take_blocked() {
                continue;
            }
            let all = self.0.lock();
            let since = |(_, stalled): &&(AbortHandle, StalledSince)| *stalled.lock();
            let is_stuck = |one: &&(AbortHandle, StalledSince)| {
                since(one).is_some_and(|since| since.elapsed() >= time)
            };
            let mut stuck: Vec<_> = all.iter().filter(is_stuck).collect();
            stuck.sort_by_key(since);
            most = if stuck.is_empty() { 1 } else { most.saturating_mul(2) };
            for (task, stalled) in stuck.into_iter().take(most / 2) {
                // Each is cancelled once, even if it takes a moment to end.
                *stalled.lock() = None;
                task.abort();
                metrics.timed_out(TimedOut::Write);
            }
        }
    }
}

/// The body of a response, which is in flight as long as this lives.
struct TrackedBody {
    body: Body,
    stalled: StalledSince,
    _open: RequestGuard,
}

impl TrackedBody {
    /// Wraps a body. Must be called within the task of its response.
    fn new(body: Body, open: RequestGuard) -> Self {
        let stalled = STALLED_SINCE.get();
        *stalled.lock() = Some(Instant::now());
        Self { body, stalled, _open: open }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // hyper polls for more as soon as the client takes more.
        let frame = Pin::new(&mut self.body).poll_frame(context);
        *self.stalled.lock() = matches!(frame, Poll::Ready(Some(_))).then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! A connection of HTTP/2 (RFC 9113).

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, http::Request};
use bytes::Bytes;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::AbortHandle,
    time::Instant,
};

use super::{
    Serving, Socket,
    connection::{Connection, is_write_time_out},
    progress::Progress,
};
use crate::{
    metrics::{Metrics, Refusal, TimedOut},
    rarely::Rarely,
};

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

impl Connection {
    /// Over HTTP/2, pings find who is gone, so that a slow reader need not hurry.
    pub(super) fn wait_for_reader(&self, socket: &mut Socket) {
        if let Err(error) = socket.wait_for_reader(self.serving.time_outs.silence) {
            tracing::debug!(parent: &self.span, %error, "the connection's options could not be set");
        }
    }

    /// Serves HTTP/2 (RFC 9113).
    pub(super) async fn http2<S>(self, socket: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { time_outs, metrics, stop, .. } = &*self.serving;
        self.traffic.share();
        let open = watch::Sender::new(0_usize);
        let answers = Answers::default();
        let has_served = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            has_served.store(true, Ordering::Relaxed);
            let under_way = UnderWay::new(&open);
            let answer = self.answer(request);
            async move {
                let kept = |body| Kept::new(body, under_way);
                Ok::<_, Infallible>(answer.await.map(|body| Body::new(kept(body))))
            }
        });
        let connection = http2::Builder::new(answers.clone())
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
                () = self.progress.silent(time_outs.silence) => {}
                never = answers.give_up_stuck(&self.progress, time_outs.write, metrics) => match never {},
            }
        });
        let is_idle = Rarely::new(async {
            tokio::select! {
                () = idle(open.subscribe(), time_outs.head) => true,
                // So that the client goes elsewhere with its next request.
                _ = stop.begun() => false,
                () = self.closing.cancelled() => false,
            }
        });
        let is_idle = tokio::select! {
            biased;
            served = after_others(connection.as_mut()) => return self.http2_served(served),
            () = &mut gone => return metrics.timed_out(TimedOut::Ping),
            is_idle = is_idle => is_idle,
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
            served = after_others(connection.as_mut()) => self.http2_served(served),
            () = gone => metrics.timed_out(TimedOut::Ping),
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
}

/// Polls a connection only after the tasks that were ready before: what all its answers have to send, such as one
/// event to a hundred streams, goes out in one write then, and not each in its own.
async fn after_others<F: Future>(mut connection: Pin<&mut F>) -> F::Output {
    let mut has_waited = false;
    poll_fn(|context| {
        has_waited = !has_waited;
        if has_waited {
            // Has the task woken then.
            let _ = pin!(tokio::task::yield_now()).poll(context);
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    })
    .await
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

/// The answers of a connection, each a task, which hyper has us run.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<(AbortHandle, Waits)>>>);

/// Since when an answer waits for the client to take more of it, if it does.
type Waits = Arc<Mutex<Option<Instant>>>;

tokio::task_local! {
    /// Of the answer that this task is.
    static WAITS: Waits;
}

impl<F> Executor<F> for Answers
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, answer: F) {
        let waits = Waits::default();
        let task = tokio::spawn(WAITS.scope(Arc::clone(&waits), answer));
        let mut all = lock(&self.0);
        all.retain(|(other, _)| !other.is_finished());
        all.push((task.abort_handle(), waits));
    }
}

impl Answers {
    /// Takes back answers that have waited for so long while the connection took all that there was. The others may
    /// be for other clients, of a proxy: so the one that has waited longest goes first, as the rest may wait only for
    /// what it has taken up of the client's window, and of those that still wait at the next look twice as many.
    async fn give_up_stuck(
        &self,
        progress: &Progress,
        time: Duration,
        metrics: &Metrics,
    ) -> Infallible {
        let mut most = 1_usize;
        loop {
            tokio::time::sleep(time / 2).await;
            // Where the line is slow, each waits for its turn.
            if progress.take_blocked() {
                continue;
            }
            let all = lock(&self.0);
            let since = |(_, waits): &&(AbortHandle, Waits)| *lock(waits);
            let is_stuck = |one: &&(AbortHandle, Waits)| {
                since(one).is_some_and(|since| since.elapsed() >= time)
            };
            let mut stuck: Vec<_> = all.iter().filter(is_stuck).collect();
            stuck.sort_by_key(since);
            most = if stuck.is_empty() { 1 } else { most.saturating_mul(2) };
            for (task, waits) in stuck.into_iter().take(most / 2) {
                // Once only, also if it takes a moment to end.
                *lock(waits) = None;
                task.abort();
                metrics.timed_out(TimedOut::Write);
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
    waits: Waits,
    _open: UnderWay,
}

impl Kept {
    /// Must be called by the answer's task.
    fn new(body: Body, open: UnderWay) -> Self {
        let waits = WAITS.get();
        *lock(&waits) = Some(Instant::now());
        Self { body, waits, _open: open }
    }
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

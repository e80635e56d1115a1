//! An HTTP/1.1 connection (RFC 9112).

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, Request, Response, StatusCode, Version,
        header::{CONNECTION, CONTENT_TYPE},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Notify,
};
use waterclock::sse;
use waterclock_axum::{DirectStream, StreamHandover, metrics::GaugeGuard};

use super::{
    connection::{Connection, is_write_timeout},
    hyper_socket::HyperSocket,
    serving::Serving,
};
use crate::ops::metrics::{RefusalReason, TimedOut};

/// Maximum size of a request's head, in bytes (431 beyond it), and size of hyper's buffer for a
/// client that does not read, give or take one chunk.
const BUFFER: usize = 32 * 1024;

/// The end of hyper's work.
enum Served {
    /// The connection has ended.
    All(hyper::Result<()>),
    /// The direct path goes on with a stream.
    Head(DirectStream),
}

/// The end of a connection that its requests do not cause.
enum ConnectionEnd {
    /// The client left during a stream.
    ClientLeft,
    /// The head of the first request did not arrive in time.
    NoHead,
    /// The connection must close after the requests in flight.
    Closing,
}

impl Connection {
    /// Serves HTTP/1.1, beginning with bytes that were read before, to the end of the connection or
    /// until the direct path takes an event stream over. Over plain HTTP, the client's departure is
    /// detected at the TCP stream. In TLS it arrives as bytes, so reading detects it.
    pub(super) async fn http1<S>(
        &self,
        socket: S,
        unread: Bytes,
        is_plain: bool,
        has_served: bool,
    ) -> Option<(S, TakenStream)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { timeouts, metrics, stop, is_direct, .. } = self.serving();
        let stream = is_plain.then_some(&*self.accepted.stream);
        let (answering, responding) = (&Notify::new(), &Notify::new());
        let is_streaming = &AtomicBool::new(false);
        let leaves_hyper = Arc::new(AtomicBool::new(false));
        let has_served = AtomicBool::new(has_served);
        let (handover, continues) = (StreamHandover::default(), AtomicBool::new(true));
        let service = service_fn(|mut request: Request<Incoming>| {
            has_served.store(true, Ordering::Relaxed);
            self.tap.begin_request();
            is_streaming.store(false, Ordering::Relaxed);
            let is_complete = request.body().is_end_stream();
            if is_complete {
                answering.notify_one();
            }
            handover.take();
            continues.store(!closes(request.headers()), Ordering::Relaxed);
            // Of an incomplete request, the rest would be taken for the next one.
            if *is_direct && is_complete && request.version() == Version::HTTP_11 {
                request.extensions_mut().insert(handover.clone());
            }
            let response = self.respond(request);
            let (handover, leaves_hyper) = (&handover, &leaves_hyper);
            async move {
                let mut response = response.await;
                let streams = is_stream(&response);
                is_streaming.store(streams, Ordering::Relaxed);
                leaves_hyper.store(streams && handover.has_stream(), Ordering::Relaxed);
                responding.notify_one();
                if stop.has_begun() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    // The client must send its next request elsewhere.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let socket = HyperSocket::new(socket, unread, Arc::clone(&leaves_hyper));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // For each head, counted from the end of the last response. The first one has
            // [`without_head`], too, and the shorter time ends it.
            .header_read_timeout(timeouts.idle)
            .max_buf_size(BUFFER)
            // In TLS, nothing but reading would notice that a client has left.
            .half_close(stream.is_some())
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        // The set polls the future only after its own waker has fired, not for every event.
        let mut end = FuturesUnordered::from_iter([async {
            tokio::select! {
                () = async {
                    client_ended(stream, answering).await;
                    self.client_end.reached();
                    while !is_streaming.load(Ordering::Relaxed) {
                        responding.notified().await;
                    }
                } => ConnectionEnd::ClientLeft,
                () = without_head(timeouts.head, &has_served) => ConnectionEnd::NoHead,
                () = self.closing().cancelled() => ConnectionEnd::Closing,
            }
        }]);
        // hyper has just written the head.
        let mut taken = poll_fn(|_| {
            let stream = leaves_hyper.load(Ordering::Relaxed).then(|| handover.take()).flatten();
            stream.map_or(Poll::Pending, Poll::Ready)
        });
        let served = tokio::select! {
            // Requests that have arrived take precedence over closing an idle connection.
            biased;
            served = &mut connection => Served::All(served),
            events = &mut taken => Served::Head(events),
            Some(end) = end.next() => match end {
                ConnectionEnd::ClientLeft => return None,
                ConnectionEnd::NoHead => {
                    metrics.timed_out(TimedOut::Head);
                    return None;
                }
                // hyper would wait for the rest of a head.
                ConnectionEnd::Closing if !has_served.load(Ordering::Relaxed) => return None,
                ConnectionEnd::Closing => {
                    pin::Pin::new(&mut connection).graceful_shutdown();
                    tokio::select! {
                        biased;
                        served = &mut connection => Served::All(served),
                        events = taken => Served::Head(events),
                        () = self.nothing_owed(timeouts.closing) => return None,
                    }
                }
            }
        };
        let events = match served {
            Served::All(served) => {
                self.http1_served(served, has_served.load(Ordering::Relaxed));
                return None;
            }
            Served::Head(events) => events,
        };
        let parts = connection.into_parts()?;
        let (socket, unread, head) = parts.io.into_inner().into_parts(&parts.read_buf);
        let continues = continues.load(Ordering::Relaxed);
        let (unsent, direct) = (Bytes::new(), metrics.stream_direct());
        Some((socket, TakenStream { unread, head, unsent, events, continues, direct }))
    }

    /// Counts and prints the end of a connection that ended by itself.
    fn http1_served(&self, served: hyper::Result<()>, has_served: bool) {
        let metrics = &self.serving().metrics;
        let Err(error) = served else { return };
        if error.is_timeout() {
            metrics.timed_out(if has_served { TimedOut::Idle } else { TimedOut::Head });
        } else if is_write_timeout(&error) {
            metrics.timed_out(TimedOut::Write);
        } else if error.is_parse_too_large() {
            metrics.refused(RefusalReason::TooLong);
        } else if error.is_parse() {
            metrics.refused(RefusalReason::Malformed);
        }
        self.failed(&error);
    }
}

/// An event stream for the direct path.
pub(super) struct TakenStream {
    /// Bytes that were read after the request.
    pub(super) unread: Bytes,
    /// The head of its response, unless that is sent.
    pub(super) head: Vec<u8>,
    /// Bytes of a chunk that is sent in part.
    pub(super) unsent: Bytes,
    pub(super) events: DirectStream,
    /// `true` if the connection may have further requests after it.
    pub(super) continues: bool,
    /// Counts the stream.
    pub(super) direct: GaugeGuard,
}

/// Returns `true` if a client wants to close the connection after the response (RFC 9112, 9.6).
fn closes(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// Waits until the time for the first head is over. Never returns if a head has arrived.
async fn without_head(time: Duration, has_served: &AtomicBool) {
    tokio::time::sleep(time).await;
    if has_served.load(Ordering::Relaxed) {
        pending::<()>().await;
    }
}

/// Returns `true` for a response that may never end.
fn is_stream(response: &Response<Body>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|found| found == sse::CONTENT_TYPE)
}

/// Waits until the client ends its side during a response, with nothing more to send. hyper does
/// not notice that unless it keeps a read buffer of 8 KiB for each client.
///
/// A client that has left looks the same as one that waits for the response. A stream ends then,
/// and any other response is completed. A poll that waits responds at once.
async fn client_ended(stream: Option<&TcpStream>, answering: &Notify) {
    let Some(stream) = stream else { return pending().await };
    loop {
        answering.notified().await;
        match stream.peek(&mut [0]).await {
            Ok(0) | Err(_) => return,
            // The client has sent another request, which hyper reads after this one.
            Ok(_) => {}
        }
    }
}

//! A connection of HTTP/1.1 (RFC 9112).

use std::{
    convert::Infallible,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::http::{HeaderValue, Request, StatusCode, header::CONNECTION};
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

use super::{
    Serving,
    connection::{Connection, is_write_time_out},
};
use crate::{
    metrics::{Refusal, TimedOut},
    rarely::Rarely,
};

/// How many bytes a request's head may have (more is answered with 431), and how many bytes of an
/// answer hyper holds back for a client that does not read, give or take one chunk.
const BUFFER: usize = 32 * 1024;

/// What happens besides requests.
enum Besides {
    /// The client has left while it was being answered.
    Left,
    /// The connection is to be closed once nothing is under way.
    Closing,
}

impl Connection {
    /// Serves HTTP/1.1. A client that leaves is noticed in its stream if that is given, and by reading on
    /// otherwise, as in TLS its leave comes with bytes.
    pub(super) async fn http1<S>(self, socket: S, stream: Option<&TcpStream>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { time_outs, metrics, stop, .. } = &*self.serving;
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
                Besides::Left => return,
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

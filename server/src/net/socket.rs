//! A connection's socket as hyper uses it: with a write timeout, and a close that lets the client
//! read the end.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::Shutdown,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};
use waterclock_axum::metrics::GaugeGuard;

use super::{capacity::Slot, signs_of_life::SignsOfLife, tap::Tap};
use crate::limits::{LINGER, MAX_LINGER, Timeouts};

/// Number of consecutive reads before other tasks get a turn.
const READS_AT_ONCE: usize = 16;
/// Number of bytes up to which one slice is written faster than several, copying included.
const SMALL: usize = 2048;

/// Guards that live as long as a connection: it counts as open, a shutdown waits for it, and it
/// occupies a slot.
pub(super) type ConnectionGuards = (GaugeGuard, TaskTrackerToken, Slot);

/// The socket of one connection.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// Number of reads since there was nothing to read, or other tasks had a turn.
    reads: usize,
    /// Time that a client may take to read any part of what is being sent.
    write_timeout: Duration,
    /// The same, once all connections must close.
    closing_timeout: Duration,
    /// Runs while data waits to be sent.
    write_timer: Option<BoxFuture<'static, ()>>,
    /// Time at which this side was closed.
    closed: Option<Instant>,
    /// Runs once this side is closed, while the client sends nothing.
    close_timer: Option<Pin<Box<Sleep>>>,
    /// Cancelled when all connections must close.
    closing: CancellationToken,
    tap: Arc<Tap>,
    /// Notified of signs of life.
    progress: Arc<SignsOfLife>,
    /// Live as long as the connection, also after an upgrade to a WebSocket.
    _guards: Arc<ConnectionGuards>,
}

impl Socket {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        timeouts: &Timeouts,
        tap: Arc<Tap>,
        progress: Arc<SignsOfLife>,
        closing: CancellationToken,
        guards: Arc<ConnectionGuards>,
    ) -> Self {
        Self {
            stream,
            reads: 0,
            write_timeout: timeouts.write,
            closing_timeout: timeouts.closing,
            write_timer: None,
            closed: None,
            close_timer: None,
            closing,
            tap,
            progress,
            _guards: guards,
        }
    }
}

impl AsyncRead for Socket {
    /// Returns `Pending` from time to time although there is something to read. h2 reads as long as
    /// bytes arrive, so a client that sends without end would hold up others.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads == READS_AT_ONCE {
            self.reads = 0;
            // Wakes the task after those whose bytes have arrived, not at once.
            let _ = pin!(tokio::task::yield_now()).poll(context);
            return Poll::Pending;
        }
        loop {
            match self.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.reads = 0;
                    ready!(self.stream.poll_read_ready(context))?;
                }
                read => {
                    self.reads += 1;
                    return Poll::Ready(read.map(|bytes| {
                        self.tap.received(bytes);
                        self.progress.received();
                    }));
                }
            }
        }
    }
}

impl Socket {
    /// Sets the write timeout for slow readers, and disables the system's own. Linux would give up
    /// a reader whose window stays smaller than the next segment, although it goes on reading.
    pub(super) fn wait_for_reader(&mut self, time: Duration) -> io::Result<()> {
        self.write_timeout = time;
        #[cfg(target_os = "linux")]
        SockRef::from(&*self.stream).set_tcp_user_timeout(None)?;
        Ok(())
    }

    /// Retries a write until it succeeds, or the client has not read for too long.
    fn poll_writing(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => {
                    self.write_timer = None;
                    self.progress.sent();
                    self.tap.sent(*written.as_ref().unwrap_or(&0));
                    return Poll::Ready(written);
                }
            }
            if let Poll::Ready(ready) = self.stream.poll_write_ready(context) {
                ready?;
                continue;
            }
            self.progress.blocked();
            let Self { write_timeout, closing_timeout, ref closing, .. } = *self;
            let timer = self.write_timer.get_or_insert_with(|| {
                let closing = closing.clone();
                Box::pin(async move {
                    let closed = closing.cancelled();
                    if tokio::time::timeout(write_timeout, closed).await.is_ok() {
                        tokio::time::sleep(closing_timeout).await;
                    }
                })
            });
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length > SMALL {
            return self.poll_writing(context, |stream| stream.try_write_vectored(slices));
        }
        let mut bytes = [0; SMALL];
        let mut rest = &mut bytes[..];
        for slice in slices {
            let (place, after) = rest.split_at_mut(slice.len());
            place.copy_from_slice(slice);
            rest = after;
        }
        self.poll_writing(context, |stream| stream.try_write(&bytes[..length]))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes this side, and discards what the client still sends. Otherwise a reset could reach
    /// the client before the response does (RFC 9112, 9.6). A stop gives it less time.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = if let Some(closed) = self.closed {
            closed
        } else {
            SockRef::from(&*self.stream).shutdown(Shutdown::Write)?;
            *self.closed.insert(Instant::now())
        };
        let mut bytes = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = self.as_mut().poll_read(context, &mut buffer)?;
            let has_closed = read.is_ready() && buffer.filled().is_empty();
            let max = if self.closing.is_cancelled() { LINGER } else { MAX_LINGER };
            if has_closed || closed.elapsed() >= max {
                return Poll::Ready(Ok(()));
            }
            if read.is_pending() {
                let start = || Box::pin(tokio::time::sleep(LINGER));
                return self.close_timer.get_or_insert_with(start).as_mut().poll(context).map(Ok);
            }
            self.close_timer = None;
        }
    }
}

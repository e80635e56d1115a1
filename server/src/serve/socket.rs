//! A connection's socket as hyper writes to it: with a time-out for what a client does not read, and a
//! close that lets the client see the end.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::Shutdown,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

use super::{Open, progress::Progress};
use crate::meter::Traffic;

/// How long a connection that we close waits for its client to close it, too.
const LINGER: Duration = Duration::from_secs(1);
/// How often a connection is read before others get a turn.
const READS_AT_ONCE: usize = 16;
/// Up to so many bytes, the system takes one piece faster than several, even if they must be put together.
const SMALL: usize = 2048;

pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    /// How often it was read since there was last nothing to read, or others had a turn.
    reads: usize,
    /// How long a client may take to read anything of what is being sent to it.
    write_time_out: Duration,
    /// Until when, while something waits to be sent.
    writing: Option<Pin<Box<Sleep>>>,
    /// Until when, once we have closed our side.
    closing: Option<Pin<Box<Sleep>>>,
    /// Counts what crosses it.
    traffic: Arc<Traffic>,
    /// Told of what shows that the client is there.
    progress: Arc<Progress>,
    /// As long as the connection: also once it is a WebSocket's.
    _open: Open,
}

impl Socket {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        write_time_out: Duration,
        traffic: Arc<Traffic>,
        progress: Arc<Progress>,
        open: Open,
    ) -> Self {
        Self {
            stream,
            reads: 0,
            write_time_out,
            writing: None,
            closing: None,
            traffic,
            progress,
            _open: open,
        }
    }
}

/// Polls a timer that runs from the first time on.
fn poll_timer(
    timer: &mut Option<Pin<Box<Sleep>>>,
    time: Duration,
    context: &mut Context<'_>,
) -> Poll<()> {
    let timer =
        timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + time)));
    timer.as_mut().poll(context)
}

impl AsyncRead for Socket {
    /// Has nothing to read from time to time, even if there is something: h2 reads on as long as anything
    /// comes, so one who sends without end would hold up others.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads == READS_AT_ONCE {
            self.reads = 0;
            // Unlike by waking it at once, the task comes after what has arrived for others.
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
                        self.traffic.received(bytes);
                        self.progress.received();
                    }));
                }
            }
        }
    }
}

impl Socket {
    /// Waits for so long for a slow reader. The system is not to give it up before: Linux does as soon as what
    /// is to be sent next is for so long more than the reader has room for, though it reads on.
    pub(super) fn wait_for_reader(&mut self, time: Duration) -> io::Result<()> {
        self.write_time_out = time;
        #[cfg(target_os = "linux")]
        SockRef::from(&*self.stream).set_tcp_user_timeout(None)?;
        Ok(())
    }

    /// Tries that write again until it does not have to wait, or has waited for too long.
    fn poll_writing(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => {
                    self.writing = None;
                    self.progress.sent();
                    self.traffic.sent(*written.as_ref().unwrap_or(&0));
                    return Poll::Ready(written);
                }
            }
            if let Poll::Ready(ready) = self.stream.poll_write_ready(context) {
                ready?;
                continue;
            }
            self.progress.blocks();
            let time_out = self.write_time_out;
            ready!(poll_timer(&mut self.writing, time_out, context));
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

    /// Reads and drops for a moment what the client is still sending: it would be answered with a reset,
    /// and the client might never see our answer (RFC 9112, 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            SockRef::from(&*self.stream).shutdown(Shutdown::Write)?;
        }
        let mut bytes = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = self.as_mut().poll_read(context, &mut buffer)?;
            let has_closed = read.is_ready() && buffer.filled().is_empty();
            if has_closed || poll_timer(&mut self.closing, LINGER, context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            ready!(read);
        }
    }
}

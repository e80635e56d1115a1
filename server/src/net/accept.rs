//! The accept loop.

use std::{
    future::pending,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    capacity::{Capacity, Slot},
    connection::{Accepted, Server},
    group::Groups,
    protocol,
    serving::{Responder, Serving},
};

/// Length of the listen backlog: the number of clients that may reconnect at once after an outage.
/// Clients beyond it retry after a second. The system may allow fewer.
const BACKLOG: u32 = 8192;
/// Pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Minimum time between two messages about that.
const REPORT_INTERVAL: Duration = Duration::from_mins(1);

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
/// has ended whose client reads, and requests in flight are completed. The caller bounds the time
/// that this may take.
///
/// If a service manager holds the socket, a shutdown stops to accept at once instead. Connections
/// that arrive meanwhile wait in the backlog, which belongs to the socket and not to the program:
/// the next start accepts them. To accept them here would cost each client a `goodbye` and another
/// connection. Those accepted just before get the time to send their first request, since to close
/// them would look like a refusal.
pub async fn serve(listener: TcpListener, responder: Responder, serving: Serving) {
    let server =
        Server { responder, serving, closing: CancellationToken::new(), groups: Groups::new() };
    let server = Arc::new(server);
    let (serving, connections) = (&server.serving, TaskTracker::new());
    let mut drained = pin!(serving.streams.drained(&serving.stop, serving.timeouts.goodbye));
    let mut reported: Option<Instant> = None;
    let mut last_accepted = Instant::now();
    loop {
        let accepted = tokio::select! {
            // A connection that is accepted after the shutdown has begun would be lost.
            biased;
            () = next_takes_over(serving) => break,
            () = &mut drained => break,
            accepted = accept(&listener, &serving.capacity) => accepted,
        };
        match accepted {
            Ok((stream, address, slot)) => {
                last_accepted = Instant::now();
                let guards = (serving.metrics.connection_open(), connections.token(), slot);
                let (stream, guards) = (Arc::new(stream), Arc::new(guards));
                let server = Arc::clone(&server);
                tokio::spawn(protocol::serve(Accepted { stream, address, guards, server }));
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
    // A socket that a service manager holds stays open, with its backlog.
    drop(listener);
    connections.close();
    if serving.is_backlog_kept {
        drained.await;
        let newest_is_served = last_accepted + serving.timeouts.closing;
        let _ = tokio::time::timeout_at(newest_is_served, connections.wait()).await;
    }
    server.closing.cancel();
    connections.wait().await;
}

/// Waits for the shutdown, if the next start of the program accepts the connections from then on.
async fn next_takes_over(serving: &Serving) {
    if serving.is_backlog_kept {
        serving.stop.begun().await;
    } else {
        pending::<()>().await;
    }
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

//! The client at the other end of a connection.

use std::{
    io::ErrorKind,
    net::{IpAddr, Shutdown},
    sync::Arc,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use socket2::SockRef;
use tokio::net::TcpStream;
use waterclock_axum::GracefulClose;

use super::tap::Tap;

/// The other end of a connection. Every request has it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// `true` if it reached the server on a loopback address, which only this machine can.
    pub is_local: bool,
}

/// The TCP stream of a connection, for closing it from within a request.
#[derive(Debug)]
pub(super) struct PeerStream {
    pub(super) stream: Arc<TcpStream>,
    pub(super) tap: Arc<Tap>,
}

impl GracefulClose for PeerStream {
    fn close(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            // Fails if the stream is closed already.
            let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
            while self.stream.readable().await.is_ok() {
                // A client that sends without end must not hold up other tasks.
                tokio::task::consume_budget().await;
                match self.stream.try_read(&mut [0; 8 * 1024]) {
                    Ok(0) => return,
                    Ok(bytes) => self.tap.received(bytes),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
        .boxed()
    }
}

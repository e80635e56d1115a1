//! Listening sockets that a service manager holds and hands over at the start (`sd_listen_fds(3)`).
//! They outlive the program, so a restart refuses no connection.

use std::{env, io, net::TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net;

/// The listening sockets that the program was started with.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<TcpListener>);

impl InheritedSockets {
    /// Takes the sockets that `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` announce. If the
    /// variables are missing or meant for another process, there are no sockets. Must be called
    /// once, before there are threads, because it removes the variables.
    ///
    /// # Errors
    ///
    /// If one of them is not a listening TCP socket.
    pub fn take() -> Result<Self, String> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut names = names.split(':');
        let listeners = (0..sockets.len()).map(|index| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unnamed");
            let listener = sockets.take_tcp_listener(index).ok().flatten();
            let listener =
                listener.filter(|socket| SockRef::from(socket).is_listener().is_ok_and(|is| is));
            listener.ok_or_else(|| {
                format!(
                    "socket {} ({name}) of the service manager is not a listening TCP socket: use \
                     ListenStream= with an address and a port, and Accept=no",
                    index + 1
                )
            })
        });
        listeners.collect::<Result<_, _>>().map(Self)
    }

    /// Returns `true` if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the listeners. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn listeners(&self) -> io::Result<Vec<net::TcpListener>> {
        let listener = |socket: &TcpListener| {
            let socket = socket.try_clone()?;
            socket.set_nonblocking(true)?;
            net::TcpListener::from_std(socket)
        };
        self.0.iter().map(listener).collect()
    }
}

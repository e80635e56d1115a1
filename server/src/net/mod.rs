//! Sockets: serves requests from listeners until shutdown.
//!
//! The accept loop is our own, on hyper-util, since no ready-made one has all of this: a timeout
//! before a connection's first byte, small send buffers, so that a slow reader occupies little
//! memory, and a shutdown that keeps answering while streams say goodbye.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `accept` | the accept loop |
//! | `inherited` | listening sockets that a service manager holds |
//! | `serving` | the parts that it needs |
//! | `protocol` | the protocol of a connection, from its first bytes |
//! | `http1`, `http2` | the protocols |
//! | `stream` | the direct path: event streams over HTTP/1.1 |
//! | `group` | event streams that rest |
//! | `inbox`, `lock` | messages to their groups, from any thread |
//! | `persistent` | connections over HTTP/1.1: requests, event streams, and their rest |
//! | `connection` | the state of a connection that they share |
//! | `hyper_socket` | a socket as hyper uses it: streams that leave hyper, and its own refusals |
//! | `socket` | its socket, with a write timeout and a graceful close |
//! | `peer` | its other end |
//! | `tap` | its byte counts, for requests that ask for them |
//! | `signs_of_life` | signs of life of its client |
//! | `capacity` | the limit on open connections |
//! | `tls` | the certificate |

mod accept;
mod capacity;
mod connection;
mod group;
mod http1;
mod http2;
mod hyper_socket;
mod inbox;
mod inherited;
mod lock;
mod peer;
mod persistent;
mod protocol;
mod serving;
mod signs_of_life;
mod socket;
mod stream;
mod tap;
pub mod tls;

pub use accept::{listen, serve};
pub use capacity::Capacity;
pub use inherited::InheritedSockets;
pub use peer::Peer;
pub use serving::{Responder, Serving};
#[cfg(feature = "compare")]
pub(crate) use tap::{ByteCounter, Tap};

//! The context of the accept loop.

use std::sync::Arc;

use axum::{body::Body, extract::Request, response::Response};
use futures_util::future::BoxFuture;
use waterclock_axum::{OpenStreams, Stop};

use super::{capacity::Capacity, tls::Tls};
use crate::{limits::Timeouts, ops::metrics::Metrics};

/// A function that answers a request.
pub type Responder = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The parts that serving needs in addition to a responder.
#[derive(Clone)]
pub struct Serving {
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The certificate; without it, plain HTTP is served.
    pub tls: Option<Tls>,
    /// The limit on open connections. Further connections wait in the listen backlog: a refused
    /// client would retry at once, and gain nothing.
    pub capacity: Capacity,
    /// The open streams, which a shutdown waits for.
    pub streams: OpenStreams,
    /// Counters of connections.
    pub metrics: Arc<Metrics>,
    /// The shutdown signal.
    pub stop: Stop,
    /// `true` if event streams over HTTP/1.1 take the direct path.
    pub is_direct: bool,
    /// `true` if a service manager holds the listening sockets, and the next start of the program
    /// goes on with their backlog.
    pub is_backlog_kept: bool,
}

//! The server's limits on clients. Those of the event routes are in [`waterclock_axum::limits`];
//! constants of a single protocol are with that protocol.

use std::time::Duration;

/// Number of open files that are reserved for other purposes than connections: listeners, the event
/// log, and the site's files while they are read.
pub const RESERVED_FILES: usize = 64;
/// Maximum number of events that a page contains when it arrives.
pub const PAGE_EVENTS: usize = 20;
/// The same for a page that is not refreshed where its program does not run.
pub const PAUSED_PAGE_EVENTS: usize = 100;
/// Maximum size of the data of these events, in bytes. The rest can be loaded by the page. The
/// newest event is on the page whatever its size.
pub const PAGE_BYTES: usize = 256 * 1024;
/// Number of topics that a page contains when it arrives.
pub const PAGE_TOPICS: usize = 100;
/// Number of names of topics that the server compares with a search for one page. The rest is on
/// the next page.
pub const SEARCHED_TOPICS: usize = 20_000;

/// Time without a byte after which a client counts as having read the end of a connection.
pub const LINGER: Duration = Duration::from_secs(2);
/// Time for which the rest of a refused request is read and discarded. A client that is still
/// sending would lose the response otherwise (RFC 9112, 9.6).
pub const MAX_LINGER: Duration = Duration::from_secs(30);

/// Time limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the connection to its first byte.
    pub first_byte: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of the first request of a connection.
    pub head: Duration,
    /// For the head of a further request, counted from the end of the last response (keep-alive).
    pub idle: Duration,
    /// For reading any part of what is being sent; in HTTP/2, of any one response.
    pub write: Duration,
    /// For a request, in HTTP/2. After that time without one, a ping asks for a sign of life.
    pub ping: Duration,
    /// For any sign of life, in HTTP/2: received bytes, or progress in reading. Longer than `ping`
    /// by the time that a slow reader may take, who must first read what was sent before the ping.
    /// Its system may not report progress before it has read most of that.
    pub silence: Duration,
    /// For a client to take what was sent to its stream before, from the time on at which the last
    /// goodbye of a shutdown is due.
    pub goodbye: Duration,
    /// For a client to send the rest of a request, or to read the rest of a response, when the
    /// server closes. The server's own part, such as storing an event, is not limited by it.
    pub closing: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            ping: Duration::from_secs(20),
            silence: Duration::from_mins(2),
            goodbye: Duration::from_secs(2),
            closing: Duration::from_secs(1),
        }
    }
}

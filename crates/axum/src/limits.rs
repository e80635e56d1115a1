//! The limits of the interface in one place: fixed ones as constants, adjustable ones in
//! [`Settings`].

use std::{num::NonZeroU32, time::Duration};

/// Maximum number of patterns of one subscription.
pub const MAX_PATTERNS: usize = 64;
/// Maximum number of parameters of a query: each of the patterns, and others.
pub const MAX_PARAMETERS: usize = 256;
/// Maximum length of the reason for which a topic has failed, in bytes. It is kept as long as the
/// topic.
pub(crate) const MAX_END_MESSAGE: usize = 1024;
/// Maximum length of an event's data, in bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// Prefix of a name in a published event stream that belongs to the streams of this server, such as
/// `error`.
pub const RESERVED_NAME_PREFIX: &str = "upstream-";
/// Maximum length of an idempotency key, in bytes.
pub const MAX_KEY: usize = 255;
/// Longest time that a poll may ask to wait, in seconds. Most proxies wait longer than that.
pub const MAX_WAIT: u64 = 55;

/// Longest time that the events of a reader may wait for others, in milliseconds.
pub const MAX_DELAY: u64 = 1000;

/// Time without a reader after which an upload with `while=read` is stopped, in seconds, unless the
/// client asks for another one. A browser reconnects sooner.
pub const DEFAULT_PATIENCE: u64 = 10;
/// Longest time that an upload with `while=read` may go on without a reader, in seconds.
pub const MAX_PATIENCE: u64 = 3600;

/// Number of topics on a page of their list, unless the client asks for fewer or more.
pub const DEFAULT_TOPICS: usize = 100;
/// Maximum number of topics on a page of their list.
pub const MAX_TOPICS: usize = 1000;

/// Time in which a node must reach the cursor of a new reader.
pub(crate) const MAX_CATCH_UP: Duration = Duration::from_secs(3);
/// Time after which a client may publish again while the cluster cannot be reached.
pub(crate) const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

/// Maximum length of a WebSocket message from a client that may publish, and of a line of JSON, in
/// bytes. JSON may spend six bytes on one character of an event's data.
pub(crate) const MAX_MESSAGE: usize = 6 * MAX_DATA + 4096;
/// Maximum length of a WebSocket message from a client that may only read, in bytes. It is long
/// enough to be answered with the reason. An incomplete message occupies memory as long as its
/// client answers pings.
pub(crate) const MAX_READER_MESSAGE: usize = 4096;
/// Maximum length of the unfinished part of a block in a published event stream, in bytes. The data
/// have room in it, beside an id and comments.
pub(crate) const MAX_BLOCK: usize = 2 * MAX_DATA;
/// Maximum number of one client's publishes in flight over a WebSocket. Beyond it, nothing more is
/// read from the client.
pub(crate) const MAX_IN_FLIGHT: usize = 256;
/// Maximum number of an upload's pieces in flight, and about that of lines of JSON. Beyond it,
/// nothing more is read from the client. It has room for several groups: while the log stores one,
/// the next one is read.
pub(crate) const MAX_PIECES_IN_FLIGHT: usize = 1024;
/// Length of an upload's data in flight beyond which nothing more is read from the client, in
/// bytes.
pub(crate) const MAX_BYTES_IN_FLIGHT: usize = 1024 * 1024;
/// Maximum number of an upload's pieces, or of lines, that are handed to the hub together.
pub(crate) const MAX_GROUP: usize = 256;
/// Maximum length of the answers to lines of JSON that a client has not read, in bytes: those to
/// some 20,000 lines. Beyond it, no further line is published.
pub(crate) const MAX_UNREAD_ANSWERS: usize = 1024 * 1024;
/// Approximate maximum length of the answer to a poll, in bytes.
pub(crate) const MAX_POLL_BYTES: usize = 256 * 1024;
/// Number of clients with a publish rate of their own before idle ones are forgotten.
pub(crate) const MAX_RATED_CLIENTS: usize = 10_000;

/// Limits on open streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Maximum number of open streams in total.
    pub total: usize,
    /// Maximum number of open streams per client address.
    pub per_address: usize,
}

/// Adjustable behaviour of the event routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time without an event after which a stream sends a heartbeat.
    pub heartbeat: Duration,
    /// Time that clients are told to wait before they reconnect.
    pub retry: Duration,
    /// Time that a shutdown may take. The goodbyes of the streams are spread over most of it.
    pub drain: Duration,
    /// Limits on open streams.
    pub streams: StreamLimits,
    /// Maximum publishes per second and client address, for callers whose
    /// [`Publisher`](crate::Publisher) is rate-limited.
    pub publish_rate: NonZeroU32,
    /// Time that a client may take to send an event's data.
    pub body_timeout: Duration,
    /// Time after which an upload that was to end its topic and broke off ends it as failed, unless
    /// another upload continues.
    pub upload_grace: Duration,
}

impl Settings {
    /// Clamps times to the range of timers.
    pub(crate) fn clamped(self) -> Self {
        const MIN: Duration = Duration::from_millis(1);
        const MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
        Self {
            heartbeat: self.heartbeat.clamp(MIN, MAX),
            retry: self.retry.min(MAX),
            drain: self.drain.min(MAX),
            body_timeout: self.body_timeout.min(MAX),
            upload_grace: self.upload_grace.min(MAX),
            ..self
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            retry: Duration::from_secs(2),
            drain: Duration::from_secs(10),
            streams: StreamLimits { total: 10_000, per_address: 1000 },
            publish_rate: const { NonZeroU32::new(1000).expect("not zero") },
            body_timeout: Duration::from_secs(30),
            upload_grace: Duration::from_secs(10),
        }
    }
}

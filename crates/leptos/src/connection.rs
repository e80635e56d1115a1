//! The connection rules: a page opens its stream, reconnects with backoff, and resumes after the
//! last event.
//!
//! [`Connection::step`] is a pure function from a state and an input to a state and effects, so the
//! rules are tested without a browser.
//!
//! `EventSource` reconnects by itself while its `readyState` is `CONNECTING` (WHATWG HTML 9.2.3).
//! These rules leave those attempts alone. After a response that is not 200, or not a stream,
//! `EventSource` gives up and its `readyState` is `CLOSED`. Then the rules ask the server for the
//! reason, wait with exponential backoff and full jitter, and open a new connection with the
//! cursor. They do not repeat a request that the server refuses for good ([`REFUSALS`]): the user
//! must do something about it first. A connection that stays silent for three heartbeat intervals
//! counts as dead and is replaced.
//!
//! A connection can also be a WebSocket, which does not count among the six connections that a
//! browser opens over HTTP/1.1. No browser reconnects a WebSocket by itself, so the rules do, as
//! after an `EventSource` that gave up. Where no WebSocket gets through, they use `EventSource`.
//!
//! [`tab`](crate::tab) decides which of several tabs holds the connection.

use std::time::Duration;

use waterclock::{id::EventId, notice::GoodbyeReason};

/// Upper bound of the first backoff. The bound doubles with each further failure.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Upper bound of any backoff.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Time after which a live connection counts as stable, and the backoff starts over.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Number of silent heartbeat intervals that make a connection stale.
pub const MAX_SILENT_INTERVALS: u32 = 3;
/// Number of times in a row that a WebSocket may be refused before the rules use `EventSource`. The
/// first one may have met a server that was about to stop or to start.
pub const MAX_REFUSED_SOCKETS: u32 = 2;
/// Statuses of a request that would fail again in the same way: it is malformed (400), has no
/// permission (401, 403), asks for another media type (406), or is too long (414, 431).
///
/// 404 is none of them. Proxies answer with it while they replace a server.
pub const REFUSALS: [u16; 6] = [400, 401, 403, 406, 414, 431];
/// Intervals assumed until the server's `hello` gives its own.
pub const DEFAULT_INTERVALS: Intervals =
    Intervals { heartbeat: Duration::from_secs(15), retry: Duration::from_secs(5) };

/// A point in time: the time since the first reading of a clock that never goes back
/// ([`Stopwatch`](crate::stopwatch::Stopwatch)).
pub type PageTime = Duration;

/// The server's intervals, as its `hello` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Intervals {
    /// Longest pause between two messages of a healthy stream.
    pub heartbeat: Duration,
    /// Delay before the browser reconnects by itself.
    pub retry: Duration,
}

/// The state of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum ConnectionState {
    /// The stream has not been requested yet.
    Idle,
    /// Opening for the first time, or after a backoff.
    Connecting,
    /// Open, and at least one message was received.
    Live,
    /// Lost; the browser is reconnecting by itself.
    Reconnecting,
    /// Silent for too long; a new connection is being opened.
    Stale,
    /// The browser gave up; the rules wait before the next attempt.
    Waiting {
        /// Time of the next attempt.
        until: PageTime,
    },
    /// Stopped by the user, or by a server that has nothing more to send.
    Stopped,
    /// Refused by the server. Only the user can try again.
    Refused,
}

impl ConnectionState {
    /// Returns the state as a lower-case word, for a `data-` attribute or a message between tabs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Reconnecting => "reconnecting",
            Self::Stale => "stale",
            Self::Waiting { .. } => "waiting",
            Self::Stopped => "stopped",
            Self::Refused => "refused",
        }
    }
}

/// An input of the connection rules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum ConnectionInput {
    /// The user requests the stream, or an immediate attempt.
    Connect,
    /// The user stops the stream.
    Stop,
    /// The connection is open, but no message has been received yet.
    Opened,
    /// A message was received.
    Received(ReceivedMessage),
    /// The connection was lost, and the browser is reconnecting.
    Lost,
    /// The connection was lost, and the browser has given up.
    GaveUp,
    /// The answer to [`ConnectionEffect::Explain`].
    Explained(DisconnectReason),
    /// The browser reports that the network is back.
    Online,
    /// Time has passed. This input should come about once a second, and when the page becomes
    /// visible: the timers of a hidden page are slow.
    Tick,
}

/// A message of the stream, as the rules see it.
///
/// An id behind the cursor leaves the cursor where it is, except in a gap. Such ids come from a
/// connection that was replaced, or in the `hello` of its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum ReceivedMessage {
    /// An event.
    Event {
        /// Its id.
        id: Option<EventId>,
    },
    /// The beginning of the stream.
    Hello {
        /// Position at which the stream starts.
        id: Option<EventId>,
        /// The server's intervals; `None` if they could not be parsed.
        intervals: Option<Intervals>,
    },
    /// A heartbeat, or a message of unknown meaning.
    Heartbeat {
        /// Position of the stream.
        id: Option<EventId>,
    },
    /// The server cannot honour the cursor and has set another, or a topic has ended. Of several
    /// ends from before the start of a stream, only the last has an id, so such a message means
    /// something only at the cursor after which it was sent.
    Gap {
        /// Position from which the stream continues.
        cursor: Option<EventId>,
    },
    /// The server is about to close the connection.
    Goodbye {
        /// The server's reason.
        reason: GoodbyeReason,
        /// Delay before the browser reconnects.
        retry: Duration,
    },
}

/// The reason why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum DisconnectReason {
    /// The server has closed it.
    Goodbye(GoodbyeReason),
    /// The server cannot be reached.
    Unreachable,
    /// The server cannot be reached, and the browser reports that it is offline.
    Offline,
    /// The status of the response was not 200.
    Status {
        /// The status code.
        status: u16,
        /// The `detail` of the problem in the response (RFC 9457), if it had one.
        detail: Option<String>,
    },
    /// The response was not a stream but had this content type.
    ContentType(String),
    /// The server answers with a stream again.
    Recovered,
}

impl DisconnectReason {
    /// Returns `true` for a response after which the same request would be refused again.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status, .. } if REFUSALS.contains(status))
    }
}

/// An effect that the page must carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum ConnectionEffect {
    /// Open a connection that resumes after the cursor, and close the one before it, if any.
    Open {
        /// The cursor; `None` starts with the next event.
        after: Option<EventId>,
        /// `true` for a WebSocket, `false` for an `EventSource`.
        is_socket: bool,
    },
    /// Close the connection.
    Close,
    /// Ask the server, with one request, why the connection failed.
    Explain,
}

/// The state machine of one page's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Connection {
    state: ConnectionState,
    cursor: Option<EventId>,
    reason: Option<DisconnectReason>,
    intervals: Intervals,
    /// Time of the last message, or of the last attempt to get one.
    last_activity: PageTime,
    /// Value of `last_activity` when a tick first found the connection silent for too long.
    /// Messages that arrived while the page slept are handled before the next tick, so only a
    /// second tick with the same value makes the connection stale.
    suspected: Option<PageTime>,
    /// Time since which the connection is live; `None` while it is not.
    live_since: Option<PageTime>,
    /// Number of failures since the connection was last stable.
    failures: u32,
    /// The server's reason to close the connection, once a `goodbye` was received.
    goodbye: Option<GoodbyeReason>,
    /// `true` if a connection may be a WebSocket.
    may_use_sockets: bool,
    /// Number of times in a row that a WebSocket was refused although the server answers with a
    /// stream.
    refused_sockets: u32,
}

impl Connection {
    /// Creates an idle connection that will start after `cursor`.
    pub fn new(cursor: Option<EventId>) -> Self {
        Self {
            state: ConnectionState::Idle,
            cursor,
            reason: None,
            intervals: DEFAULT_INTERVALS,
            last_activity: PageTime::ZERO,
            suspected: None,
            live_since: None,
            failures: 0,
            goodbye: None,
            may_use_sockets: false,
            refused_sockets: 0,
        }
    }

    /// Permits a WebSocket, or forbids it, from the next connection on.
    pub fn set_may_use_sockets(&mut self, may_use_sockets: bool) {
        self.may_use_sockets = may_use_sockets;
    }

    /// Returns `true` if the next connection is a WebSocket.
    fn is_socket(&self) -> bool {
        self.may_use_sockets && self.refused_sockets < MAX_REFUSED_SOCKETS
    }

    /// Returns the state of the connection.
    pub fn state(&self) -> &ConnectionState {
        &self.state
    }

    /// Returns the cursor after which the next connection will start.
    pub fn cursor(&self) -> Option<EventId> {
        self.cursor
    }

    /// Returns `true` unless the event is at or before the cursor. A connection that replaces
    /// another may repeat events of its predecessor.
    pub fn is_new(&self, id: EventId) -> bool {
        let is_behind =
            |cursor: EventId| cursor.epoch == id.epoch && id.sequence <= cursor.sequence;
        !self.cursor.is_some_and(is_behind)
    }

    /// Returns the reason for the missing connection, if it is known.
    pub fn reason(&self) -> Option<&DisconnectReason> {
        self.reason.as_ref()
    }

    /// Returns `true` if there is, or will be, a connection. A button then shows "Stop".
    pub fn is_wanted(&self) -> bool {
        use ConnectionState::{Idle, Refused, Stopped};
        !matches!(self.state, Idle | Stopped | Refused)
    }

    /// Applies an input at time `now`. Returns the effects, in order.
    ///
    /// `random` must be between 0 and 1. It spreads the reconnects of many pages, and only
    /// [`ConnectionInput::GaveUp`] uses it.
    #[must_use]
    pub fn step(
        &mut self,
        now: PageTime,
        random: f64,
        input: ConnectionInput,
    ) -> Vec<ConnectionEffect> {
        match (&self.state, input) {
            (_, ConnectionInput::Connect)
            | (ConnectionState::Waiting { .. }, ConnectionInput::Online)
                if !self.is_open() =>
            {
                self.reason = None;
                self.open(now, ConnectionState::Connecting)
            }
            (_, ConnectionInput::Stop) => {
                self.reason = None;
                self.failures = 0;
                self.close(ConnectionState::Stopped)
            }

            (ConnectionState::Waiting { .. }, ConnectionInput::Explained(reason)) => {
                match reason {
                    DisconnectReason::Recovered if self.is_socket() => self.refused_sockets += 1,
                    // 204 No Content tells `EventSource` not to reconnect (WHATWG HTML 9.2.3).
                    DisconnectReason::Status { status: 204, .. } => {
                        self.state = ConnectionState::Stopped;
                    }
                    _ if reason.is_refusal() => self.state = ConnectionState::Refused,
                    _ => {}
                }
                self.reason = Some(reason);
                Vec::new()
            }
            (ConnectionState::Waiting { until }, ConnectionInput::Tick) if now >= *until => {
                self.open(now, ConnectionState::Connecting)
            }

            // Late inputs of a connection that is closed.
            _ if !self.is_open() => Vec::new(),

            (_, ConnectionInput::Opened) => {
                self.last_activity = now;
                if self.is_socket() {
                    self.refused_sockets = 0;
                }
                Vec::new()
            }
            (_, ConnectionInput::Received(received)) => {
                self.follow(&received);
                if let ReceivedMessage::Goodbye { reason, retry } = received {
                    self.last_activity = now;
                    self.goodbye = Some(reason);
                    self.intervals.retry = retry;
                } else {
                    self.set_live(now);
                }
                Vec::new()
            }
            (_, ConnectionInput::Lost) => {
                self.reset_if_stable(now);
                self.reason = self.goodbye.take().map(DisconnectReason::Goodbye);
                self.last_activity = now;
                self.live_since = None;
                self.state = ConnectionState::Reconnecting;
                Vec::new()
            }
            (_, ConnectionInput::GaveUp) => {
                self.reset_if_stable(now);
                if let Some(reason) = self.goodbye.take() {
                    // The server has said when to come back.
                    self.reason = Some(DisconnectReason::Goodbye(reason));
                    let until = now.saturating_add(self.intervals.retry);
                    return self.close(ConnectionState::Waiting { until });
                }
                let bound = INITIAL_BACKOFF
                    .saturating_mul(2_u32.saturating_pow(self.failures))
                    .min(MAX_BACKOFF);
                self.failures = self.failures.saturating_add(1);
                let until = now + bound.mul_f64(random.clamp(0.0, 1.0));
                let mut effects = self.close(ConnectionState::Waiting { until });
                effects.push(ConnectionEffect::Explain);
                effects
            }
            (_, ConnectionInput::Tick) => {
                self.reset_if_stable(now);
                if now.saturating_sub(self.last_activity) <= self.max_silence() {
                    return Vec::new();
                }
                if self.suspected.replace(self.last_activity) == Some(self.last_activity) {
                    self.open(now, ConnectionState::Stale)
                } else {
                    Vec::new()
                }
            }
            // A goodbye says when to come back. Without one, the network was at fault.
            (ConnectionState::Reconnecting, ConnectionInput::Online) if self.reason.is_none() => {
                self.open(now, ConnectionState::Connecting)
            }
            // An attempt in flight is not restarted, and the reason of an earlier failure is out of
            // date.
            (
                _,
                ConnectionInput::Connect | ConnectionInput::Online | ConnectionInput::Explained(_),
            ) => Vec::new(),
        }
    }

    /// Returns `true` if there is a connection, or the browser is reconnecting.
    pub(crate) fn is_open(&self) -> bool {
        self.is_wanted() && !matches!(self.state, ConnectionState::Waiting { .. })
    }

    /// Takes over the cursor and the intervals of a message that this tab or its leader has
    /// received.
    pub(crate) fn follow(&mut self, received: &ReceivedMessage) {
        match *received {
            ReceivedMessage::Event { id }
            | ReceivedMessage::Heartbeat { id }
            | ReceivedMessage::Hello { id, .. } => {
                self.cursor = id.filter(|&id| self.is_new(id)).or(self.cursor);
            }
            ReceivedMessage::Gap { cursor } => self.cursor = cursor.or(self.cursor),
            ReceivedMessage::Goodbye { .. } => {}
        }
        if let ReceivedMessage::Hello { intervals: Some(intervals), .. } = *received {
            self.intervals = intervals;
        }
    }

    /// Sets the cursor, as the server has said.
    pub(crate) fn set_cursor(&mut self, cursor: EventId) {
        self.cursor = Some(cursor);
    }

    /// Takes over the reason for which the server will refuse the stream. Only the user can try it.
    pub fn refuse(&mut self, reason: DisconnectReason) {
        self.finish(ConnectionState::Refused, Some(reason));
    }

    /// Takes over a final state that was found elsewhere.
    pub(crate) fn finish(&mut self, state: ConnectionState, reason: Option<DisconnectReason>) {
        (self.state, self.reason) = (state, reason);
    }

    /// Returns the server's intervals.
    pub(crate) fn intervals(&self) -> Intervals {
        self.intervals
    }

    /// Returns the longest silence of a healthy connection.
    fn max_silence(&self) -> Duration {
        let Intervals { heartbeat, retry } = self.intervals;
        let pause =
            if self.state == ConnectionState::Reconnecting { retry } else { Duration::ZERO };
        pause.saturating_add(heartbeat.saturating_mul(MAX_SILENT_INTERVALS))
    }

    fn open(&mut self, now: PageTime, state: ConnectionState) -> Vec<ConnectionEffect> {
        self.last_activity = now;
        self.live_since = None;
        self.goodbye = None;
        self.state = state;
        vec![ConnectionEffect::Open { after: self.cursor, is_socket: self.is_socket() }]
    }

    fn close(&mut self, state: ConnectionState) -> Vec<ConnectionEffect> {
        self.live_since = None;
        self.state = state;
        vec![ConnectionEffect::Close]
    }

    fn set_live(&mut self, now: PageTime) {
        self.last_activity = now;
        self.live_since.get_or_insert(now);
        self.reason = None;
        self.state = ConnectionState::Live;
    }

    /// Resets the backoff once the connection has been live for long enough.
    fn reset_if_stable(&mut self, now: PageTime) {
        if self.live_since.is_some_and(|since| now.saturating_sub(since) >= STABLE_AFTER) {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::traces::{self, Trace, Traces};

    const HEARTBEAT: ConnectionInput =
        ConnectionInput::Received(ReceivedMessage::Heartbeat { id: None });

    const INTERVALS: Intervals =
        Intervals { heartbeat: Duration::from_secs(2), retry: Duration::from_mins(1) };

    fn id(sequence: u64) -> EventId {
        EventId { epoch: waterclock::id::Epoch::new(1), sequence }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A connection, and a record of its effects.
    struct FakePage {
        connection: Connection,
        now: PageTime,
        is_open: bool,
        /// `true` if the last `Open` was for a WebSocket.
        is_socket: bool,
        /// Cursor of the last `Open`.
        after: Option<EventId>,
        explains: usize,
    }

    impl FakePage {
        fn new() -> Self {
            Self {
                connection: Connection::new(None),
                now: PageTime::ZERO,
                is_open: false,
                is_socket: false,
                after: None,
                explains: 0,
            }
        }

        fn input(&mut self, input: ConnectionInput) -> &ConnectionState {
            for effect in self.connection.step(self.now, 1.0, input) {
                match effect {
                    ConnectionEffect::Open { after, is_socket } => {
                        (self.is_open, self.after, self.is_socket) = (true, after, is_socket);
                    }
                    ConnectionEffect::Close => self.is_open = false,
                    ConnectionEffect::Explain => self.explains += 1,
                }
            }
            self.connection.state()
        }

        fn later(&mut self, by: Duration) -> &ConnectionState {
            self.now += by;
            self.input(ConnectionInput::Tick)
        }
    }

    #[test]
    fn a_stopped_stream_resumes_after_its_last_event() {
        let mut page = FakePage::new();
        assert_eq!(page.input(ConnectionInput::Connect), &ConnectionState::Connecting);
        assert!(page.is_open);
        assert_eq!(
            page.input(ConnectionInput::Opened),
            &ConnectionState::Connecting,
            "no message yet"
        );
        assert_eq!(page.input(HEARTBEAT), &ConnectionState::Live);
        page.input(ConnectionInput::Received(ReceivedMessage::Event { id: Some(id(7)) }));
        assert_eq!(page.input(ConnectionInput::Stop), &ConnectionState::Stopped);
        assert!(!page.is_open);
        page.input(ConnectionInput::Connect);
        assert_eq!((page.is_open, page.after), (true, Some(id(7))));
    }

    #[test]
    fn a_message_without_an_id_leaves_the_cursor() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::Received(ReceivedMessage::Event { id: Some(id(7)) }));
        page.input(HEARTBEAT);
        assert_eq!(page.connection.cursor(), Some(id(7)));
    }

    #[test]
    fn events_of_a_replaced_connection_are_not_new_when_they_repeat() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::Received(ReceivedMessage::Event { id: Some(id(5)) }));
        page.later(DEFAULT_INTERVALS.heartbeat * MAX_SILENT_INTERVALS + seconds(1));
        page.later(seconds(1));
        assert_eq!(page.after, Some(id(5)), "a new one was opened");
        // A late event of the old connection, then the new one's hello and first events.
        for (sequence, is_new) in [(6, true), (5, false), (6, false), (7, true)] {
            assert_eq!(page.connection.is_new(id(sequence)), is_new, "{sequence}");
            page.input(ConnectionInput::Received(ReceivedMessage::Event {
                id: Some(id(sequence)),
            }));
        }
        assert_eq!(page.connection.cursor(), Some(id(7)));
    }

    #[test]
    fn a_gap_sets_the_cursor_even_backwards() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::Received(ReceivedMessage::Event { id: Some(id(5)) }));
        page.input(ConnectionInput::Received(ReceivedMessage::Gap { cursor: Some(id(2)) }));
        assert_eq!(page.connection.cursor(), Some(id(2)));
        let other = EventId { epoch: waterclock::id::Epoch::new(2), sequence: 1 };
        assert!(page.connection.is_new(other));
    }

    #[test]
    fn a_browser_that_reconnects_is_left_alone() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::Received(ReceivedMessage::Hello {
            id: None,
            intervals: Some(INTERVALS),
        }));
        page.is_open = false;
        assert_eq!(page.input(ConnectionInput::Lost), &ConnectionState::Reconnecting);
        for _ in 0..100 {
            page.later(INTERVALS.retry);
            page.input(ConnectionInput::Lost);
        }
        assert_eq!((page.is_open, page.explains), (false, 0));
        assert_eq!(page.input(HEARTBEAT), &ConnectionState::Live);
    }

    #[test]
    fn after_a_goodbye_the_browser_has_the_time_that_the_server_gave() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::Received(ReceivedMessage::Hello {
            id: None,
            intervals: Some(INTERVALS),
        }));
        let retry = seconds(1000);
        page.input(ConnectionInput::Received(ReceivedMessage::Goodbye {
            reason: GoodbyeReason::Limit,
            retry,
        }));
        page.input(ConnectionInput::Lost);
        let reason = DisconnectReason::Goodbye(GoodbyeReason::Limit);
        assert_eq!(page.connection.reason(), Some(&reason));
        assert_eq!(page.later(retry), &ConnectionState::Reconnecting);
        // It reconnects, and the server is still full.
        assert_eq!(page.input(ConnectionInput::Opened), &ConnectionState::Reconnecting);
        page.input(ConnectionInput::Received(ReceivedMessage::Goodbye {
            reason: GoodbyeReason::Limit,
            retry,
        }));
        assert_eq!(page.input(ConnectionInput::Lost), &ConnectionState::Reconnecting);
        assert_eq!(page.connection.reason(), Some(&reason));
        // Then the server cannot be reached.
        page.input(ConnectionInput::Lost);
        assert_eq!(page.connection.reason(), None);
        assert_eq!(page.input(HEARTBEAT), &ConnectionState::Live);
    }

    #[test]
    fn a_browser_that_gives_up_leads_to_an_explanation_and_a_new_attempt() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        assert_eq!(
            page.input(ConnectionInput::GaveUp),
            &ConnectionState::Waiting { until: seconds(1) }
        );
        assert_eq!((page.is_open, page.explains), (false, 1));
        let reason = DisconnectReason::Status { status: 502, detail: None };
        page.input(ConnectionInput::Explained(reason.clone()));
        assert_eq!(page.connection.reason(), Some(&reason));
        assert_eq!(page.later(seconds(1)), &ConnectionState::Connecting);
        assert!(page.is_open);
        assert_eq!(page.connection.reason(), Some(&reason), "shown until the connection is live");
        page.input(HEARTBEAT);
        assert_eq!(page.connection.reason(), None);
    }

    #[test]
    fn the_backoff_doubles_up_to_a_bound_and_restarts_after_a_stable_connection() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        let mut backoffs = Vec::new();
        for _ in 0..7 {
            page.input(HEARTBEAT);
            page.later(STABLE_AFTER.saturating_sub(seconds(1)));
            let ConnectionState::Waiting { until } = *page.input(ConnectionInput::GaveUp) else {
                panic!("not waiting")
            };
            backoffs.push(until.saturating_sub(page.now).as_secs());
            page.now = until;
            page.input(ConnectionInput::Tick);
        }
        assert_eq!(backoffs, [1, 2, 4, 8, 16, 30, 30]);

        page.input(HEARTBEAT);
        page.now += STABLE_AFTER;
        let until = page.now + INITIAL_BACKOFF;
        assert_eq!(page.input(ConnectionInput::GaveUp), &ConnectionState::Waiting { until });
    }

    #[test]
    fn no_content_ends_the_stream() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::GaveUp);
        let no_content = DisconnectReason::Status { status: 204, detail: None };
        assert_eq!(page.input(ConnectionInput::Explained(no_content)), &ConnectionState::Stopped);
        assert_eq!(page.later(seconds(100)), &ConnectionState::Stopped);
        assert!(!page.is_open);
    }

    #[test]
    fn what_cannot_become_right_by_itself_is_not_retried() {
        for status in 200..600 {
            let mut page = FakePage::new();
            page.input(ConnectionInput::Connect);
            page.input(ConnectionInput::GaveUp);
            let reason = DisconnectReason::Status { status, detail: None };
            page.input(ConnectionInput::Explained(reason.clone()));
            page.input(ConnectionInput::Online);
            let is_refused = *page.later(MAX_BACKOFF) == ConnectionState::Refused;
            assert_eq!(is_refused, [400, 401, 403, 406, 414, 431].contains(&status), "{status}");
            assert_eq!(page.is_open, !is_refused && status != 204, "{status}");
            if is_refused {
                assert!(!page.connection.is_wanted());
                assert_eq!(page.connection.reason(), Some(&reason));
                assert_eq!(page.input(ConnectionInput::Connect), &ConnectionState::Connecting);
                assert_eq!((page.is_open, page.connection.reason()), (true, None));
            }
        }
    }

    #[test]
    fn three_silent_intervals_lead_to_a_new_connection() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::Received(ReceivedMessage::Hello {
            id: Some(id(7)),
            intervals: Some(INTERVALS),
        }));
        page.is_open = false;
        assert_eq!(page.later(seconds(6)), &ConnectionState::Live);
        assert_eq!(
            page.later(seconds(1)),
            &ConnectionState::Live,
            "messages may be waiting to be handled"
        );
        assert_eq!(page.later(seconds(1)), &ConnectionState::Stale);
        assert_eq!((page.is_open, page.after), (true, Some(id(7))));
        assert_eq!(page.input(HEARTBEAT), &ConnectionState::Live);
    }

    #[test]
    fn a_server_that_accepts_and_stays_silent_leads_to_a_new_attempt() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.is_open = false;
        page.later(DEFAULT_INTERVALS.heartbeat * MAX_SILENT_INTERVALS + seconds(1));
        page.later(seconds(1));
        assert!(page.is_open);
    }

    #[test]
    fn a_page_that_slept_first_handles_the_messages_that_arrived() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(HEARTBEAT);
        page.is_open = false;
        for _ in 0..10 {
            assert_eq!(page.later(seconds(3600)), &ConnectionState::Live);
            assert_eq!(page.input(HEARTBEAT), &ConnectionState::Live);
        }
        assert!(!page.is_open, "not replaced");
    }

    #[test]
    fn online_means_an_immediate_attempt_unless_a_goodbye_gave_a_time() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::GaveUp);
        assert_eq!(page.input(ConnectionInput::Online), &ConnectionState::Connecting);
        assert!(page.is_open);

        page.is_open = false;
        page.input(ConnectionInput::Lost);
        assert_eq!(page.input(ConnectionInput::Online), &ConnectionState::Connecting);
        assert!(page.is_open);

        page.is_open = false;
        page.input(ConnectionInput::Received(ReceivedMessage::Goodbye {
            reason: GoodbyeReason::Limit,
            retry: seconds(9),
        }));
        page.input(ConnectionInput::Lost);
        assert_eq!(page.input(ConnectionInput::Online), &ConnectionState::Reconnecting);
        page.input(HEARTBEAT);
        assert_eq!(page.input(ConnectionInput::Online), &ConnectionState::Live);
        assert!(!page.is_open, "left alone");
    }

    #[test]
    fn connect_ends_a_backoff() {
        let mut page = FakePage::new();
        page.input(ConnectionInput::Connect);
        page.input(ConnectionInput::GaveUp);
        assert_eq!(page.input(ConnectionInput::Connect), &ConnectionState::Connecting);
        assert!(page.is_open);
    }

    /// A page whose connection may be a WebSocket.
    fn page_with_sockets() -> FakePage {
        let mut page = FakePage::new();
        page.connection.set_may_use_sockets(true);
        page.input(ConnectionInput::Connect);
        assert!(page.is_socket);
        page
    }

    #[test]
    fn a_websocket_that_is_cut_is_opened_again_after_its_last_event() {
        let mut page = page_with_sockets();
        for sequence in 1..9 {
            page.input(ConnectionInput::Opened);
            let received = ReceivedMessage::Event { id: Some(id(sequence)) };
            page.input(ConnectionInput::Received(received));
            page.input(ConnectionInput::GaveUp);
            let recovered = DisconnectReason::Recovered;
            page.input(ConnectionInput::Explained(recovered));
            page.later(MAX_BACKOFF);
            assert!(page.is_open && page.is_socket, "it got through before");
            assert_eq!(page.after, Some(id(sequence)));
        }
    }

    #[test]
    fn where_no_websocket_gets_through_the_browser_uses_an_event_source() {
        let mut page = page_with_sockets();
        // A server that is away says nothing about WebSockets.
        for (reason, is_socket) in [
            (DisconnectReason::Unreachable, true),
            (DisconnectReason::Recovered, true),
            (DisconnectReason::Unreachable, true),
            (DisconnectReason::Recovered, false),
            (DisconnectReason::Recovered, false),
        ] {
            page.input(ConnectionInput::GaveUp);
            page.input(ConnectionInput::Explained(reason));
            page.later(MAX_BACKOFF);
            assert_eq!(page.is_socket, is_socket);
        }
        page.input(ConnectionInput::Opened);
        page.input(ConnectionInput::Stop);
        page.input(ConnectionInput::Connect);
        assert!(!page.is_socket, "an open EventSource says nothing about WebSockets, either");
    }

    #[test]
    fn a_websocket_is_opened_again_when_the_goodbye_said() {
        let mut page = page_with_sockets();
        let (reason, retry) = (GoodbyeReason::Limit, seconds(7));
        page.input(ConnectionInput::Received(ReceivedMessage::Goodbye { reason, retry }));
        let until = page.now + retry;
        assert_eq!(page.input(ConnectionInput::GaveUp), &ConnectionState::Waiting { until });
        assert_eq!(page.connection.reason(), Some(&DisconnectReason::Goodbye(reason)));
        assert_eq!(page.explains, 0, "the reason is known");
        assert_eq!(page.later(retry), &ConnectionState::Connecting);
        // Without another goodbye, the network is at fault.
        page.input(ConnectionInput::GaveUp);
        assert_eq!(page.explains, 1);
    }

    fn input() -> impl Strategy<Value = ConnectionInput> {
        let reason = prop_oneof![
            Just(DisconnectReason::Unreachable),
            (200..600_u16).prop_map(|status| DisconnectReason::Status { status, detail: None }),
            Just(DisconnectReason::Status { status: 204, detail: None }),
            proptest::sample::select(&REFUSALS[..])
                .prop_map(|status| DisconnectReason::Status { status, detail: None }),
            Just(DisconnectReason::ContentType("text/html".to_owned())),
            Just(DisconnectReason::Recovered),
        ];
        let intervals = (1..60_u64, 1..60_u64).prop_map(|(heartbeat, retry)| Intervals {
            heartbeat: Duration::from_secs(heartbeat),
            retry: Duration::from_secs(retry),
        });
        let intervals = proptest::option::of(intervals);
        prop_oneof![
            Just(ConnectionInput::Connect),
            Just(ConnectionInput::Stop),
            Just(ConnectionInput::Opened),
            (proptest::option::of((0..99_u64).prop_map(id)), intervals).prop_map(
                |(id, intervals)| ConnectionInput::Received(ReceivedMessage::Hello {
                    id,
                    intervals
                })
            ),
            proptest::option::of((0..99_u64).prop_map(id))
                .prop_map(|id| ConnectionInput::Received(ReceivedMessage::Event { id })),
            proptest::option::of((0..99_u64).prop_map(id))
                .prop_map(|cursor| ConnectionInput::Received(ReceivedMessage::Gap { cursor })),
            (1..60_u64).prop_map(|retry| ConnectionInput::Received(ReceivedMessage::Goodbye {
                reason: GoodbyeReason::Draining,
                retry: Duration::from_secs(retry),
            })),
            Just(ConnectionInput::Lost),
            Just(ConnectionInput::GaveUp),
            Just(ConnectionInput::Online),
            reason.prop_map(ConnectionInput::Explained),
            // Ticks are the most frequent input.
            Just(ConnectionInput::Tick),
            Just(ConnectionInput::Tick),
            Just(ConnectionInput::Tick),
        ]
    }

    proptest! {
        #[test]
        fn invariants_hold_for_any_inputs(
            inputs in proptest::collection::vec((input(), 0..60_000_u64, 0.0..=1.0_f64), 0..80),
        ) {
            let mut connection = Connection::new(None);
            let mut now = PageTime::ZERO;
            let mut open = false;
            for (input, pause, random) in inputs {
                now += Duration::from_millis(pause);
                let before = connection.cursor();
                connection.set_may_use_sockets(true);
                let news = match &input {
                    ConnectionInput::Received(
                        ReceivedMessage::Event { id } | ReceivedMessage::Hello { id, .. },
                    ) if open => {
                        id.filter(|id| before.is_none_or(|before| before.sequence < id.sequence))
                    }
                    ConnectionInput::Received(ReceivedMessage::Gap { cursor }) if open => *cursor,
                    _ => None,
                };
                for effect in connection.step(now, random, input.clone()) {
                    match effect {
                        ConnectionEffect::Open { after, .. } => {
                            prop_assert_eq!(after, before, "resumes after the last event");
                            open = true;
                        }
                        ConnectionEffect::Close => open = false,
                        ConnectionEffect::Explain => {}
                    }
                }
                prop_assert_eq!(connection.cursor(), news.or(before), "the cursor is never lost");
                match connection.state() {
                    ConnectionState::Waiting { until } => {
                        let bound = MAX_BACKOFF.max(connection.intervals().retry);
                        prop_assert!(!open && *until <= now + bound);
                    }
                    ConnectionState::Idle | ConnectionState::Stopped | ConnectionState::Refused => {
                        prop_assert!(!open);
                    }
                    _ => prop_assert!(open, "open, waiting, or stopped"),
                }
                if input == ConnectionInput::Stop {
                    prop_assert_eq!(connection.state(), &ConnectionState::Stopped);
                }
            }
            // Without further inputs, it tries again.
            let retry = connection.intervals().retry;
            let longest = connection.max_silence().max(MAX_BACKOFF).max(retry);
            let is_wanted = connection.is_wanted();
            let mut opens = 0;
            for later in [longest + seconds(1), longest + seconds(2)] {
                opens += connection.step(now + later, 0.5, ConnectionInput::Tick).len();
            }
            prop_assert_eq!(opens > 0, is_wanted);
        }
    }

    #[test]
    fn traces_are_written_for_the_client_in_typescript() {
        let mut traces = Traces::create("connection");
        let inputs = traces.pool((input(), 0..60_000_u64));
        for seed in 0..10_000 {
            let mut connection = Connection::new((seed % 2 == 0).then(|| id(seed % 50)));
            let may_use_sockets = seed % 4 < 2;
            connection.set_may_use_sockets(may_use_sockets);
            let start = (connection.cursor(), may_use_sockets);
            let (mut now, mut trace) = (PageTime::ZERO, Trace::new(start));
            for (number, (input, pause)) in traces.pick(&inputs, 40).into_iter().enumerate() {
                now += Duration::from_millis(pause);
                let random = traces::random(number);
                let effects = connection.step(now, random, input.clone());
                let seen = (connection.state(), connection.reason(), connection.cursor());
                trace.step(now, random, &input, &effects, &seen);
            }
            traces.write(&trace, &connection);
        }
        traces.finish();
    }
}

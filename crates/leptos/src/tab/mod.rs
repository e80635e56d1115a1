//! The rules by which the tabs of a browser share one connection. Over HTTP/1.1 a browser opens at
//! most six connections to a server, for all its tabs, so a stream in each tab would soon block
//! everything else.
//!
//! Of the tabs that want the same stream, one is the leader: the tab that holds a lock (W3C Web
//! Locks). When a tab is closed or dies, the browser gives its lock to the next. The leader holds
//! the connection and relays each message together with the cursor that it had before the message.
//! A follower therefore knows if it has missed something, and fetches just that. Events that it
//! already has, it drops. A leader that does not answer, because the browser has put its tab to
//! sleep, loses the lock to the tab that asked.
//!
//! Where the browser has no locks (plain HTTP on any name but localhost), each tab has a connection
//! of its own: a WebSocket, which does not count among the six.
//!
//! Like [`connection`](crate::connection), whose rules the leader follows, this is a function from
//! a state and an input to a state and effects.

use std::{collections::VecDeque, time::Duration};

use waterclock::id::EventId;

use crate::connection::{
    Connection, ConnectionEffect, ConnectionInput, ConnectionState, DisconnectReason, PageTime,
    ReceivedMessage,
};

/// Time that a leader has to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence of a live leader, on top of a heartbeat interval, after which a follower asks it.
pub const ASK_AFTER: Duration = Duration::from_secs(5);
/// Silence of a leader without a connection after which a follower asks it. The timers of a hidden
/// tab are slow, and each question advances the leader's rules.
pub const ASK_DISCONNECTED_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of messages that a follower buffers while it fetches what comes before them.
pub const MAX_BUFFERED: usize = 10_000;

/// The part that a tab plays in sharing the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum Role {
    /// This tab does not want the stream.
    Inactive,
    /// The browser has put the page into its back/forward cache, and may bring it back.
    Suspended,
    /// Another tab holds the connection, or the leader is still unknown.
    Follower,
    /// This tab holds the connection for all.
    Leader,
    /// This tab holds a connection for itself, because the browser cannot share one.
    Standalone,
}

/// A message of the stream, in both its meanings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct StreamMessage<M> {
    /// The meaning for the rules.
    pub received: ReceivedMessage,
    /// The meaning for the page.
    pub content: M,
}

/// The state of the leader's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct LeaderStatus {
    /// State of the connection. In [`ConnectionState::Waiting`] between tabs, `until` is the
    /// remaining time.
    pub state: ConnectionState,
    /// Reason for the missing connection, if it is known.
    pub reason: Option<DisconnectReason>,
    /// The leader's cursor.
    pub cursor: Option<EventId>,
    /// The server's heartbeat interval.
    pub heartbeat: Duration,
}

/// The answer to [`TabEffect::Fetch`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Fetched<M> {
    /// The number of the request.
    pub number: u64,
    /// A gap to show, if the server could not honour the cursor.
    pub gap: Option<M>,
    /// The events, in order.
    pub events: Vec<M>,
    /// The cursor for the next request.
    pub cursor: EventId,
}

/// An input of a tab's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum TabInput<M> {
    /// The user requests the stream, or an immediate attempt.
    Connect,
    /// The user stops the stream in this tab.
    Stop,
    /// The browser puts the page away (`pagehide`).
    PageHide,
    /// The browser brings the page back (`pageshow`).
    PageShow,
    /// The browser reports that the network is back.
    Online,
    /// Time has passed, as for [`ConnectionInput::Tick`].
    Tick,
    /// This tab has got the lock.
    Granted,
    /// This tab has lost the lock to another tab.
    Stolen,
    /// This tab cannot share, or does not want to.
    CannotShare {
        /// `true` if its connection may be a WebSocket. Without one, the browser's seventh tab
        /// would not even load over HTTP/1.1.
        may_use_sockets: bool,
    },
    /// The browser knows of no other tab in the group.
    NoOtherTabs,
    /// An input of this tab's own connection, except its messages.
    Connection(ConnectionInput),
    /// A message of this tab's own connection.
    Message(StreamMessage<M>),
    /// Another tab asks for the leader's status.
    Asked,
    /// The leader announces its status.
    Announced(LeaderStatus),
    /// The leader relays a message.
    Relayed {
        /// The leader's cursor before the message.
        after: Option<EventId>,
        /// The message.
        message: StreamMessage<M>,
    },
    /// A fetch has succeeded.
    Fetched(Fetched<M>),
    /// A fetch has failed.
    FetchFailed {
        /// The number of the request.
        number: u64,
        /// The reason.
        reason: DisconnectReason,
    },
}

/// An effect that the page must carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum TabEffect<M> {
    /// An effect of the connection rules.
    Connection(ConnectionEffect),
    /// Request the lock, and listen to the other tabs.
    Join,
    /// Take the lock from the tab that holds it.
    Steal,
    /// Release the lock or withdraw the request for it, and stop listening to the other tabs.
    Leave,
    /// Ask the leader for its status.
    Ask,
    /// Announce this to the other tabs.
    Announce(LeaderStatus),
    /// Relay the message of this step's input to the other tabs.
    Relay {
        /// This tab's cursor before the message.
        after: Option<EventId>,
    },
    /// Fetch the events after the cursor (`GET /poll`).
    Fetch {
        /// The number of the request, which its answer must have.
        number: u64,
        /// The cursor.
        after: EventId,
    },
    /// Deliver this content to the page: it is new, and next in order.
    Deliver(M),
}

/// The state machine of one tab.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Tab<M> {
    role: Role,
    /// Keeps the cursor in any role, and the rules of the tab's own connection.
    connection: Connection,
    leader: Leader,
    fetch: FetchState,
    /// Number of the request whose answer counts. It also advances when this tab leaves or takes
    /// the lead, so the answers to earlier requests no longer count.
    fetches: u64,
    /// Messages that the leader has relayed since something was missing, in order, each with the
    /// leader's cursor before it.
    buffer: VecDeque<(Option<EventId>, StreamMessage<M>)>,
    /// Time at which another tab was last heard; `None` if there is no tab to relay messages to.
    others: Option<PageTime>,
}

/// A follower's knowledge of its leader.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(serde::Serialize))]
struct Leader {
    status: LeaderStatus,
    /// Time of its last message.
    last_heard: PageTime,
    /// Time of an unanswered question, and the number of ticks since.
    asked: Option<(PageTime, u32)>,
}

/// The state of a follower's fetching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
enum FetchState {
    /// Nothing is missing.
    Idle,
    /// A request is in flight.
    InFlight {
        /// Position that the leader has reached, at least.
        target: Option<EventId>,
        /// Number of messages in the buffer at the time of the request. The server's log had their
        /// events already.
        buffered: usize,
    },
    /// The last request brought nothing. The next tick starts another.
    Later,
}

impl<M> Tab<M> {
    /// Creates an inactive tab that will start after `cursor`.
    pub fn new(cursor: Option<EventId>) -> Self {
        let connection = Connection::new(cursor);
        Self {
            role: Role::Inactive,
            leader: Leader::unknown(PageTime::ZERO, &connection),
            connection,
            fetch: FetchState::Idle,
            fetches: 0,
            buffer: VecDeque::new(),
            others: None,
        }
    }

    /// Returns the tab's role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the state of the connection, in whichever tab it is.
    pub fn state(&self) -> &ConnectionState {
        if self.role == Role::Follower {
            &self.leader.status.state
        } else {
            self.connection.state()
        }
    }

    /// Returns the reason for the missing connection, if it is known.
    pub fn reason(&self) -> Option<&DisconnectReason> {
        if self.role == Role::Follower {
            self.leader.status.reason.as_ref()
        } else {
            self.connection.reason()
        }
    }

    /// Returns the cursor after which this tab continues.
    pub fn cursor(&self) -> Option<EventId> {
        self.connection.cursor()
    }

    /// Takes over a refusal that is known already, as [`Connection::refuse`] does.
    pub(crate) fn refuse(&mut self, reason: DisconnectReason) {
        self.connection.refuse(reason);
    }

    /// Returns `true` if this tab wants the stream. A button then shows "Stop".
    pub fn is_wanted(&self) -> bool {
        match self.role {
            Role::Inactive => false,
            Role::Suspended | Role::Follower => true,
            Role::Leader | Role::Standalone => self.connection.is_wanted(),
        }
    }

    /// Applies an input at time `now`. Returns the effects, in order.
    ///
    /// `random` must be between 0 and 1, as in [`Connection::step`].
    #[must_use]
    pub fn step(&mut self, now: PageTime, random: f64, input: TabInput<M>) -> Vec<TabEffect<M>> {
        let was_leader = self.role == Role::Leader;
        let before = was_leader.then(|| (self.state().clone(), self.reason().cloned()));
        let mut effects = Vec::new();
        self.apply(now, random, input, &mut effects);
        let has_changed = before.as_ref().map(|(state, reason)| (state, reason.as_ref()))
            != Some((self.connection.state(), self.connection.reason()));
        if has_changed && self.role == Role::Leader && self.others.is_some() {
            effects.push(TabEffect::Announce(self.status(now)));
        }
        effects
    }

    #[expect(clippy::match_same_arms, reason = "the order of the arms is the rules' order")]
    fn apply(
        &mut self,
        now: PageTime,
        random: f64,
        input: TabInput<M>,
        effects: &mut Vec<TabEffect<M>>,
    ) {
        match (self.role, input) {
            (Role::Inactive, TabInput::Connect)
            | (Role::Suspended, TabInput::Connect | TabInput::PageShow) => {
                self.role = Role::Follower;
                self.leader = Leader::unknown(now, &self.connection);
                effects.extend([TabEffect::Join, TabEffect::Ask]);
            }
            (Role::Inactive | Role::Suspended, TabInput::Granted) => effects.push(TabEffect::Leave),
            (Role::Suspended, TabInput::Stop) => self.role = Role::Inactive,
            (Role::Inactive | Role::Suspended, _) => {}

            // The stream has ended or is refused. The others have been told, and have had the time
            // to hear of it before one of them gets the lock.
            (Role::Leader | Role::Standalone, TabInput::Tick | TabInput::PageHide)
                if !self.is_wanted() =>
            {
                self.depart(Role::Inactive, effects);
            }

            (_, TabInput::Stop) => self.leave(now, Role::Inactive, effects),
            (_, TabInput::PageHide) => self.leave(now, Role::Suspended, effects),

            (Role::Follower, TabInput::Granted) => {
                self.role = Role::Leader;
                self.reset_sharing();
                self.connection.set_may_use_sockets(false);
                // The announcement tells the others that the leader has changed.
                self.others = Some(now);
                self.step_connection(now, random, ConnectionInput::Connect, effects);
            }
            (Role::Follower, TabInput::CannotShare { may_use_sockets }) => {
                self.role = Role::Standalone;
                self.reset_sharing();
                self.connection.set_may_use_sockets(may_use_sockets);
                self.step_connection(now, random, ConnectionInput::Connect, effects);
            }
            (Role::Follower, TabInput::Relayed { after, message }) => {
                self.leader.heard(now);
                if !matches!(message.received, ReceivedMessage::Goodbye { .. }) {
                    (self.leader.status.state, self.leader.status.reason) =
                        (ConnectionState::Live, None);
                }
                self.push_buffer(after, message);
                self.catch_up(None, effects);
            }
            (Role::Follower, TabInput::Announced(status)) => {
                self.handle_status(now, status, effects);
            }
            (Role::Follower, TabInput::Fetched(fetched)) => {
                self.handle_fetched(fetched, effects);
            }
            (Role::Follower, TabInput::FetchFailed { number, reason }) => {
                if number != self.fetches {
                    return;
                }
                if reason.is_refusal() {
                    // This tab's own credentials were refused, not those of the leader.
                    self.finish(now, ConnectionState::Refused, Some(reason), effects);
                } else {
                    self.fetch = FetchState::Later;
                }
            }
            (Role::Follower, TabInput::Tick) => {
                if self.fetch == FetchState::Later {
                    self.fetch(None, effects);
                }
                self.watch_leader(now, random, effects);
            }
            // A follower can be stolen from before it knows that it has the lock.
            (Role::Leader | Role::Follower, TabInput::Stolen) => {
                self.step_connection(now, random, ConnectionInput::Stop, effects);
                self.reset_sharing();
                self.role = Role::Follower;
                self.leader = Leader::unknown(now, &self.connection);
                effects.extend([TabEffect::Join, TabEffect::Ask]);
            }
            (Role::Leader, TabInput::Asked) => {
                self.others = Some(now);
                self.step_connection(now, random, ConnectionInput::Tick, effects);
                effects.push(TabEffect::Announce(self.status(now)));
                // Its next tick may be a minute away, if its tab is hidden.
                if !self.is_wanted() {
                    self.depart(Role::Inactive, effects);
                }
            }
            (Role::Leader, TabInput::NoOtherTabs) => {
                // A tab that came while the browser counted is not in its count.
                if self.others.is_some_and(|heard| now.saturating_sub(heard) > ANSWER_TIMEOUT) {
                    self.others = None;
                }
            }
            (Role::Leader | Role::Standalone, TabInput::Message(message)) => {
                self.handle_message(now, random, message, effects);
            }
            (Role::Leader | Role::Standalone, TabInput::Connection(input)) => {
                self.step_connection(now, random, input, effects);
            }
            (Role::Leader | Role::Standalone, TabInput::Connect) => {
                self.step_connection(now, random, ConnectionInput::Connect, effects);
            }
            (Role::Leader | Role::Standalone, TabInput::Online) => {
                self.step_connection(now, random, ConnectionInput::Online, effects);
            }
            (Role::Leader | Role::Standalone, TabInput::Tick) => {
                self.step_connection(now, random, ConnectionInput::Tick, effects);
            }
            // Late inputs of a connection that another tab has now.
            (Role::Follower, _) => {}
            // Fetched events come over the stream, too. So do the messages of a former leader that
            // has not yet learned that it is no longer the leader.
            (Role::Leader | Role::Standalone, _) => {}
        }
    }

    /// Applies an input to the tab's own connection.
    fn step_connection(
        &mut self,
        now: PageTime,
        random: f64,
        input: ConnectionInput,
        effects: &mut Vec<TabEffect<M>>,
    ) {
        effects.extend(
            self.connection.step(now, random, input).into_iter().map(TabEffect::Connection),
        );
    }

    /// Forgets the state that belongs to sharing.
    fn reset_sharing(&mut self) {
        self.fetch = FetchState::Idle;
        self.fetches += 1;
        self.buffer.clear();
        self.others = None;
    }

    /// Closes the connection, and leaves the group.
    fn leave(&mut self, now: PageTime, role: Role, effects: &mut Vec<TabEffect<M>>) {
        self.step_connection(now, 0.0, ConnectionInput::Stop, effects);
        self.depart(role, effects);
    }

    /// Leaves the group.
    fn depart(&mut self, role: Role, effects: &mut Vec<TabEffect<M>>) {
        self.reset_sharing();
        effects.push(TabEffect::Leave);
        self.role = role;
    }

    /// Returns the status of this tab as the leader.
    fn status(&self, now: PageTime) -> LeaderStatus {
        let state = match *self.connection.state() {
            ConnectionState::Waiting { until } => {
                ConnectionState::Waiting { until: until.saturating_sub(now) }
            }
            ref state => state.clone(),
        };
        LeaderStatus {
            state,
            reason: self.connection.reason().cloned(),
            cursor: self.connection.cursor(),
            heartbeat: self.connection.intervals().heartbeat,
        }
    }

    /// Handles a message of the tab's own connection.
    fn handle_message(
        &mut self,
        now: PageTime,
        random: f64,
        message: StreamMessage<M>,
        effects: &mut Vec<TabEffect<M>>,
    ) {
        if !self.connection.is_open() {
            // The connection was closed before its message was handled. The next one repeats it.
            return;
        }
        let after = self.connection.cursor();
        let is_repeated = self.is_known(&message.received);
        self.step_connection(now, random, ConnectionInput::Received(message.received), effects);
        if is_repeated {
            return;
        }
        if self.others.is_some() {
            effects.push(TabEffect::Relay { after });
        }
        effects.push(TabEffect::Deliver(message.content));
    }

    /// Returns `true` for an event that this tab already has.
    fn is_known(&self, received: &ReceivedMessage) -> bool {
        matches!(*received, ReceivedMessage::Event { id: Some(id) } if !self.connection.is_new(id))
    }

    /// Returns `true` if nothing is missing between this tab's cursor and a message that was sent
    /// after `after`.
    fn is_next(&self, after: Option<EventId>, received: &ReceivedMessage) -> bool {
        let cursor = self.connection.cursor();
        match *received {
            // The leader's gap or end is also this tab's only if both had the same cursor.
            ReceivedMessage::Gap { .. } => cursor.is_none() || cursor == after,
            ReceivedMessage::Event { id }
            | ReceivedMessage::Heartbeat { id }
            | ReceivedMessage::Hello { id, .. } => {
                // Before its first message, the leader is at the position of that message.
                after.or(id).is_none_or(|start| self.has_reached(start))
            }
            ReceivedMessage::Goodbye { .. } => true,
        }
    }

    /// Returns `true` if this tab has reached that position of the log.
    fn has_reached(&self, position: EventId) -> bool {
        self.connection.cursor().is_none_or(|cursor| {
            cursor.epoch == position.epoch && position.sequence <= cursor.sequence
        })
    }

    fn push_buffer(&mut self, after: Option<EventId>, message: StreamMessage<M>) {
        if self.buffer.len() >= MAX_BUFFERED {
            // A fetch brings them, and the messages after them.
            self.buffer.clear();
        }
        self.buffer.push_back((after, message));
    }

    /// Shows the buffered messages up to the first gap between them, and fetches what is missing
    /// there.
    fn catch_up(&mut self, target: Option<EventId>, effects: &mut Vec<TabEffect<M>>) {
        if self.fetch != FetchState::Idle {
            return;
        }
        while let Some((after, message)) = self.buffer.pop_front() {
            if self.is_known(&message.received) {
                continue;
            }
            if !self.is_next(after, &message.received) {
                self.buffer.push_front((after, message));
                self.fetch(target, effects);
                return;
            }
            self.connection.follow(&message.received);
            effects.push(TabEffect::Deliver(message.content));
        }
        if target.is_some_and(|target| !self.has_reached(target)) {
            self.fetch(target, effects);
        }
    }

    fn fetch(&mut self, target: Option<EventId>, effects: &mut Vec<TabEffect<M>>) {
        // A tab without a cursor has started with nothing, so nothing is missing.
        let Some(after) = self.connection.cursor() else {
            self.fetch = FetchState::Idle;
            return;
        };
        self.fetch = FetchState::InFlight { target, buffered: self.buffer.len() };
        self.fetches += 1;
        effects.push(TabEffect::Fetch { number: self.fetches, after });
    }

    fn handle_fetched(&mut self, fetched: Fetched<M>, effects: &mut Vec<TabEffect<M>>) {
        let FetchState::InFlight { target, buffered } = self.fetch else { return };
        let Fetched { number, gap, events, cursor } = fetched;
        if number != self.fetches {
            return;
        }
        let is_progress =
            gap.is_some() || !events.is_empty() || self.connection.cursor() != Some(cursor);
        self.connection.set_cursor(cursor);
        effects.extend(gap.into_iter().chain(events).map(TabEffect::Deliver));
        self.fetch = FetchState::Idle;
        self.drop_unreachable(buffered);
        if is_progress {
            self.catch_up(target, effects);
            return;
        }
        // Messages that still do not follow belong to a log that the server no longer has, or does
        // not have yet.
        let mut caught_up = Vec::new();
        self.catch_up(target, &mut caught_up);
        let is_incomplete = self.fetch != FetchState::Idle;
        caught_up.retain(|effect| !matches!(effect, TabEffect::Fetch { .. }));
        effects.append(&mut caught_up);
        if is_incomplete {
            self.buffer.clear();
            self.fetch = FetchState::Later;
        }
    }

    /// Drops those of the oldest `count` buffered messages that belong to another log than the one
    /// that the server has answered from. They would never be next.
    fn drop_unreachable(&mut self, count: usize) {
        let later = self.buffer.split_off(count.min(self.buffer.len()));
        let earlier = std::mem::replace(&mut self.buffer, later);
        for (after, message) in earlier.into_iter().rev() {
            let id = match message.received {
                ReceivedMessage::Gap { cursor } => cursor,
                ReceivedMessage::Event { id }
                | ReceivedMessage::Heartbeat { id }
                | ReceivedMessage::Hello { id, .. } => id.or(after),
                ReceivedMessage::Goodbye { .. } => None,
            };
            let is_gap = matches!(message.received, ReceivedMessage::Gap { .. });
            let epoch = |id: Option<EventId>| id.map(|id| id.epoch);
            let is_same_log = epoch(id) == epoch(self.connection.cursor());
            if self.is_next(after, &message.received) || (is_same_log && !is_gap) {
                self.buffer.push_front((after, message));
            }
        }
    }

    fn handle_status(
        &mut self,
        now: PageTime,
        status: LeaderStatus,
        effects: &mut Vec<TabEffect<M>>,
    ) {
        self.leader.heard(now);
        let target = status.cursor;
        let is_for_all = match (&status.state, &status.reason) {
            // This tab may not have read all of it.
            (ConnectionState::Stopped, _) => target.is_none_or(|target| self.has_reached(target)),
            // The token of the leader may have expired before that of this tab.
            (_, Some(DisconnectReason::Status { status: 401, .. })) => false,
            (state, _) => *state == ConnectionState::Refused,
        };
        if is_for_all {
            return self.finish(now, status.state, status.reason, effects);
        }
        match status.state {
            // The leader is about to leave, and the next one finds out by itself.
            ConnectionState::Stopped | ConnectionState::Refused => {
                self.leader = Leader::unknown(now, &self.connection);
            }
            ConnectionState::Waiting { until } => {
                let until = until.saturating_add(now);
                self.leader.status =
                    LeaderStatus { state: ConnectionState::Waiting { until }, ..status };
            }
            _ => self.leader.status = status,
        }
        self.catch_up(target, effects);
    }

    /// Leaves the group in a final state.
    fn finish(
        &mut self,
        now: PageTime,
        state: ConnectionState,
        reason: Option<DisconnectReason>,
        effects: &mut Vec<TabEffect<M>>,
    ) {
        self.leave(now, Role::Inactive, effects);
        self.connection.finish(state, reason);
    }

    /// Asks a silent leader for its status, and steals the lock from a leader that does not answer.
    fn watch_leader(&mut self, now: PageTime, random: f64, effects: &mut Vec<TabEffect<M>>) {
        let leader = &mut self.leader;
        if let Some((asked, ticks)) = &mut leader.asked {
            *ticks += 1;
            // An answer that came while this tab slept is handled between two ticks. The random
            // part keeps the followers of a dead leader from stealing all at once.
            let timeout =
                ANSWER_TIMEOUT.saturating_add(ANSWER_TIMEOUT.mul_f64(random.clamp(0.0, 1.0)));
            if *ticks >= 3 && now.saturating_sub(*asked) >= timeout {
                *leader = Leader::unknown(now, &self.connection);
                effects.push(TabEffect::Steal);
            }
            return;
        }
        let max_silence = if leader.status.state == ConnectionState::Live {
            leader.status.heartbeat.saturating_add(ASK_AFTER)
        } else {
            ASK_DISCONNECTED_AFTER
        };
        if now.saturating_sub(leader.last_heard) >= max_silence {
            leader.asked = Some((now, 0));
            effects.push(TabEffect::Ask);
        }
    }
}

impl Leader {
    fn unknown(now: PageTime, connection: &Connection) -> Self {
        let status = LeaderStatus {
            state: ConnectionState::Connecting,
            reason: None,
            cursor: None,
            heartbeat: connection.intervals().heartbeat,
        };
        Self { status, last_heard: now, asked: None }
    }

    fn heard(&mut self, now: PageTime) {
        self.last_heard = now;
        self.asked = None;
    }
}

#[cfg(test)]
mod tests;

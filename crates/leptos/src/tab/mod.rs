//! How the tabs of a browser share one connection. A browser keeps six connections to a server over
//! HTTP/1.1, for all its tabs, so a stream for each tab would soon leave none for anything else.
//!
//! Of the tabs that want the same stream, one owns it: the one that holds a lock, which the browser
//! gives to the next when a tab is closed or dies (W3C Web Locks). The owner passes on what the stream
//! says, each message with the cursor that it had before it. So a tab knows whether it has missed
//! something, and fetches just that; what it has already, it drops. An owner that does not answer, since
//! the browser has put its tab to sleep, loses the lock to the tab that asked.
//!
//! Like [`connection`], whose rules the owner keeps, this is a function from a state and
//! an input to a state and effects.

use std::{collections::VecDeque, time::Duration};

use waterclock::id::EventId;

use crate::connection::{self, Connection, Instant, Reason, Said, State};

/// An owner that was asked has so long to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// After so long without a word from an owner that is live, above a heartbeat, it is asked.
pub const ASK_AFTER: Duration = Duration::from_secs(5);
/// An owner that has no connection is asked that often: the timers of a hidden tab are slow, and each
/// question moves its rules on.
pub const ASK_DISCONNECTED_AFTER: Duration = Duration::from_secs(1);
/// At most so many messages are held back while what is missing before them is fetched.
pub const MAX_HELD: usize = 10_000;

/// Who has the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This tab does not want the stream.
    Out,
    /// The browser has put the page away, and may bring it back.
    Away,
    /// Another tab, or it is not known yet.
    Follower,
    /// This tab, for all.
    Owner,
    /// This tab, for itself: the browser cannot share.
    Alone,
}

/// Something that the stream has said, and what the page makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<M> {
    /// What it means to the rules.
    pub said: Said,
    /// What it is to the page.
    pub content: M,
}

/// What tabs say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Post<M> {
    /// Is there an owner, and how is its connection?
    Ask,
    /// The owner's answer, and its news whenever that changes.
    Status(Status),
    /// The owner has had a message.
    Passed {
        /// The owner's cursor before it.
        after: Option<EventId>,
        /// The message.
        message: Message<M>,
    },
}

/// How the owner's connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its state. [`State::Waiting`] tells how long it will be.
    pub state: State,
    /// Why there is no connection.
    pub reason: Option<Reason>,
    /// Its cursor.
    pub cursor: Option<EventId>,
    /// The server's heartbeat interval.
    pub heartbeat: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<M> {
    /// The user wants the stream, or wants the next try now.
    Connect,
    /// The user wants it to end, in this tab.
    Stop,
    /// The browser puts the page away (`pagehide`).
    Hide,
    /// It has brought it back (`pageshow`).
    Show,
    /// The browser says that it has a network again.
    Online,
    /// Time has passed, as for [`connection::Input::Tick`].
    Tick,
    /// This tab has got the lock.
    Granted,
    /// It has lost the lock to another tab.
    Stolen,
    /// The browser has no locks or channels for us.
    Unshared,
    /// This tab is the only one, of all that the browser knows of.
    Only,
    /// News of this tab's own connection: opened, lost, given up, or explained.
    Own(connection::Input),
    /// A message of this tab's own connection.
    Message(Message<M>),
    /// Another tab has said something.
    Posted(Post<M>),
    /// What was asked for by [`Effect::Fetch`] is there.
    Fetched {
        /// After what it was asked for.
        after: EventId,
        /// What to tell if the cursor could not be honoured.
        gap: Option<M>,
        /// The events, in order.
        events: Vec<M>,
        /// Where to go on.
        cursor: EventId,
    },
    /// It could not be had.
    NotFetched,
}

/// What the page has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<M> {
    /// What the rules of the connection ask for.
    Own(connection::Effect),
    /// Ask for the lock, and listen to the other tabs.
    Join,
    /// Take the lock from whoever holds it.
    Steal,
    /// Give the lock back, or no longer wait for it, and listen to the other tabs no more.
    Leave,
    /// Say this to the other tabs.
    Post(Post<M>),
    /// Fetch the events after that one (`GET /poll`).
    Fetch {
        /// The cursor.
        after: EventId,
    },
    /// Show this: it is new, and next in order.
    Show(M),
}

/// One tab's memory.
#[derive(Clone, Debug)]
pub struct Tab<M> {
    role: Role,
    /// The cursor, in any role, and the rules of the tab's own connection.
    connection: Connection,
    owner: Owner,
    fetch: Fetch,
    /// What the owner has passed on since something was missing, in order.
    held: VecDeque<(Option<EventId>, Message<M>)>,
    /// Whether there may be another tab to pass anything on to, and when one was last heard of.
    others: Option<Instant>,
}

/// What a follower knows of its owner.
#[derive(Clone, Debug)]
struct Owner {
    status: Status,
    /// When it was last heard.
    heard: Instant,
    /// When it was asked, and how often time has passed since, if it has not answered.
    asked: Option<(Instant, u32)>,
}

/// What a follower does about what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
    /// Nothing: it lacks nothing.
    Idle,
    /// It was asked for.
    Asked {
        /// The owner has come at least so far.
        target: Option<EventId>,
        /// So many messages were held then: what they tell was in the server's log already.
        held: usize,
    },
    /// It is to be asked for at the next tick: the last time brought nothing.
    Later,
}

impl<M: Clone> Tab<M> {
    /// Before anything has happened, with the cursor to start after.
    pub fn new(cursor: Option<EventId>) -> Self {
        let connection = Connection::new(cursor);
        Self {
            role: Role::Out,
            owner: Owner::unknown(Instant::ZERO, &connection),
            connection,
            fetch: Fetch::Idle,
            held: VecDeque::new(),
            others: None,
        }
    }

    /// Who has the connection.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How the connection is, whosever it is.
    pub fn state(&self) -> &State {
        if self.role == Role::Follower { &self.owner.status.state } else { self.connection.state() }
    }

    /// Why there is none, while that is still of interest.
    pub fn reason(&self) -> Option<&Reason> {
        if self.role == Role::Follower {
            self.owner.status.reason.as_ref()
        } else {
            self.connection.reason()
        }
    }

    /// After which event this tab goes on.
    pub fn cursor(&self) -> Option<EventId> {
        self.connection.cursor()
    }

    /// Whether this tab wants the stream: what a button shows as "Stop".
    pub fn is_wanted(&self) -> bool {
        match self.role {
            Role::Out => false,
            Role::Away | Role::Follower => true,
            Role::Owner | Role::Alone => self.connection.is_wanted(),
        }
    }

    /// What an input at time `now` makes of the tab, and what is to be done, in order.
    ///
    /// `random` is a number from 0 to 1, as in [`Connection::step`].
    #[must_use]
    pub fn step(&mut self, now: Instant, random: f64, input: Input<M>) -> Vec<Effect<M>> {
        let is_owner = self.role == Role::Owner;
        let before = is_owner.then(|| (self.state().clone(), self.reason().cloned()));
        let mut effects = Vec::new();
        self.apply(now, random, input, &mut effects);
        let is_news = before.as_ref().map(|(state, reason)| (state, reason.as_ref()))
            != Some((self.connection.state(), self.connection.reason()));
        if is_news && self.role == Role::Owner && self.others.is_some() {
            effects.push(Effect::Post(Post::Status(self.status(now))));
        }
        effects
    }

    #[expect(clippy::match_same_arms, reason = "the order of the arms is the rules' order")]
    fn apply(&mut self, now: Instant, random: f64, input: Input<M>, effects: &mut Vec<Effect<M>>) {
        match (self.role, input) {
            (Role::Out, Input::Connect) | (Role::Away, Input::Connect | Input::Show) => {
                self.role = Role::Follower;
                self.owner = Owner::unknown(now, &self.connection);
                effects.extend([Effect::Join, Effect::Post(Post::Ask)]);
            }
            (Role::Out | Role::Away, Input::Granted) => effects.push(Effect::Leave),
            (Role::Away, Input::Stop) => self.role = Role::Out,
            (Role::Out | Role::Away, _) => {}

            // The server has said that there is no more. The others have been told, and had time to hear of
            // it before one of them would be given the lock.
            (Role::Owner | Role::Alone, Input::Tick | Input::Hide) if !self.is_wanted() => {
                self.forget_others();
                effects.push(Effect::Leave);
                self.role = Role::Out;
            }

            (_, Input::Stop) => self.leave(now, Role::Out, effects),
            (_, Input::Hide) => self.leave(now, Role::Away, effects),

            (Role::Follower, Input::Granted) => {
                self.role = Role::Owner;
                self.forget_others();
                // Whoever is there is told who is the owner now.
                self.others = Some(now);
                self.own(now, random, connection::Input::Connect, effects);
            }
            (Role::Follower, Input::Unshared) => {
                self.role = Role::Alone;
                self.forget_others();
                self.own(now, random, connection::Input::Connect, effects);
            }
            (Role::Follower, Input::Posted(Post::Passed { after, message })) => {
                self.owner.hear(now);
                if !matches!(message.said, Said::Goodbye { .. }) {
                    (self.owner.status.state, self.owner.status.reason) = (State::Live, None);
                }
                self.hold(after, message);
                self.catch_up(None, effects);
            }
            (Role::Follower, Input::Posted(Post::Status(status))) => {
                self.hear_status(now, status, effects);
            }
            (Role::Follower, Input::Fetched { after, gap, events, cursor }) => {
                self.take_fetched(after, gap, events, cursor, effects);
            }
            (Role::Follower, Input::NotFetched) => {
                if matches!(self.fetch, Fetch::Asked { .. }) {
                    self.fetch = Fetch::Later;
                }
            }
            (Role::Follower, Input::Tick) => {
                if self.fetch == Fetch::Later {
                    self.fetch(None, effects);
                }
                self.watch_owner(now, random, effects);
            }
            // A follower, if that came before it knew that it had the lock.
            (Role::Owner | Role::Follower, Input::Stolen) => {
                self.close(now, effects);
                self.role = Role::Follower;
                self.owner = Owner::unknown(now, &self.connection);
                effects.extend([Effect::Join, Effect::Post(Post::Ask)]);
            }
            (Role::Owner, Input::Posted(Post::Ask)) => {
                self.others = Some(now);
                self.own(now, random, connection::Input::Tick, effects);
                effects.push(Effect::Post(Post::Status(self.status(now))));
            }
            (Role::Owner, Input::Only) => {
                // Not of one that came while the browser counted.
                if self.others.is_some_and(|heard| now.saturating_sub(heard) > ANSWER_WITHIN) {
                    self.others = None;
                }
            }
            (Role::Owner | Role::Alone, Input::Message(message)) => {
                self.take_own(now, random, message, effects);
            }
            (Role::Owner | Role::Alone, Input::Own(input)) => self.own(now, random, input, effects),
            (Role::Owner | Role::Alone, Input::Connect) => {
                self.own(now, random, connection::Input::Connect, effects);
            }
            (Role::Owner | Role::Alone, Input::Online) => {
                self.own(now, random, connection::Input::Online, effects);
            }
            (Role::Owner | Role::Alone, Input::Tick) => {
                self.own(now, random, connection::Input::Tick, effects);
            }
            // Late news of a connection that another tab has now.
            (Role::Follower, _) => {}
            // What was fetched comes over the stream too; what another owner says, before it has
            // learned that it is none any more, is known or will be.
            (Role::Owner | Role::Alone, _) => {}
        }
    }

    /// Lets the rules of the tab's own connection decide.
    fn own(
        &mut self,
        now: Instant,
        random: f64,
        input: connection::Input,
        effects: &mut Vec<Effect<M>>,
    ) {
        effects.extend(self.connection.apply(now, random, input).into_iter().map(Effect::Own));
    }

    fn close(&mut self, now: Instant, effects: &mut Vec<Effect<M>>) {
        self.own(now, 0.0, connection::Input::Stop, effects);
        self.forget_others();
    }

    /// Forgets what this tab was to other tabs, and they to it.
    fn forget_others(&mut self) {
        self.fetch = Fetch::Idle;
        self.held.clear();
        self.others = None;
    }

    fn leave(&mut self, now: Instant, role: Role, effects: &mut Vec<Effect<M>>) {
        self.close(now, effects);
        effects.push(Effect::Leave);
        self.role = role;
    }

    /// How the owner, which is this tab, is.
    fn status(&self, now: Instant) -> Status {
        let state = match *self.connection.state() {
            State::Waiting { until } => State::Waiting { until: until.saturating_sub(now) },
            ref state => state.clone(),
        };
        Status {
            state,
            reason: self.connection.reason().cloned(),
            cursor: self.connection.cursor(),
            heartbeat: self.connection.intervals().heartbeat,
        }
    }

    /// A message of the tab's own connection.
    fn take_own(
        &mut self,
        now: Instant,
        random: f64,
        message: Message<M>,
        effects: &mut Vec<Effect<M>>,
    ) {
        if !self.connection.is_open() {
            // Of a connection that was closed before this was taken; the next one brings it again.
            return;
        }
        let after = self.connection.cursor();
        let is_repeated = self.is_known(&message.said);
        self.own(now, random, connection::Input::Said(message.said.clone()), effects);
        if is_repeated {
            return;
        }
        if self.others.is_some() {
            effects.push(Effect::Post(Post::Passed { after, message: message.clone() }));
        }
        effects.push(Effect::Show(message.content));
    }

    /// Whether it is an event that this tab has had.
    fn is_known(&self, said: &Said) -> bool {
        matches!(*said, Said::Event { id: Some(id) } if !self.connection.is_new(id))
    }

    /// Whether nothing is missing between this tab's cursor and what was said after `after`.
    fn is_next(&self, after: Option<EventId>, said: &Said) -> bool {
        let cursor = self.connection.cursor();
        match *said {
            // The same gap is this tab's own only if it was at the same place, or at none.
            Said::Gap { .. } => cursor.is_none() || cursor == after,
            Said::Event { id } | Said::Heartbeat { id } | Said::Hello { id, .. } => {
                // Before its first message, an owner is where that one says.
                after.or(id).is_none_or(|start| self.has(start))
            }
            Said::Goodbye { .. } => true,
        }
    }

    /// Whether this tab is at that place of the log, or past it.
    fn has(&self, place: EventId) -> bool {
        self.connection
            .cursor()
            .is_none_or(|cursor| cursor.epoch == place.epoch && place.sequence <= cursor.sequence)
    }

    fn hold(&mut self, after: Option<EventId>, message: Message<M>) {
        if self.held.len() >= MAX_HELD {
            // All of them, and what follows until then, is fetched.
            self.held.clear();
        }
        self.held.push_back((after, message));
    }

    /// Takes what is held as far as nothing is missing, and fetches what is.
    fn catch_up(&mut self, target: Option<EventId>, effects: &mut Vec<Effect<M>>) {
        if self.fetch != Fetch::Idle {
            return;
        }
        while let Some((after, message)) = self.held.pop_front() {
            if self.is_known(&message.said) {
                continue;
            }
            if !self.is_next(after, &message.said) {
                self.held.push_front((after, message));
                self.fetch(target, effects);
                return;
            }
            self.connection.follow(&message.said);
            effects.push(Effect::Show(message.content));
        }
        if target.is_some_and(|target| !self.has(target)) {
            self.fetch(target, effects);
        }
    }

    fn fetch(&mut self, target: Option<EventId>, effects: &mut Vec<Effect<M>>) {
        // A tab without a cursor has begun with nothing, so it lacks nothing.
        let Some(after) = self.connection.cursor() else {
            self.fetch = Fetch::Idle;
            return;
        };
        self.fetch = Fetch::Asked { target, held: self.held.len() };
        effects.push(Effect::Fetch { after });
    }

    fn take_fetched(
        &mut self,
        after: EventId,
        gap: Option<M>,
        events: Vec<M>,
        cursor: EventId,
        effects: &mut Vec<Effect<M>>,
    ) {
        let Fetch::Asked { target, held } = self.fetch else { return };
        if self.connection.cursor() != Some(after) {
            // It was asked for before this tab was last stopped or put away.
            return;
        }
        let has_brought = gap.is_some() || !events.is_empty() || cursor != after;
        self.connection.set_cursor(cursor);
        effects.extend(gap.into_iter().chain(events).map(Effect::Show));
        self.fetch = Fetch::Idle;
        self.drop_stale(held);
        if has_brought {
            self.catch_up(target, effects);
            return;
        }
        // What still does not follow is of a log that the server no longer has, or has not yet.
        let mut caught_up = Vec::new();
        self.catch_up(target, &mut caught_up);
        let lacks = self.fetch != Fetch::Idle;
        caught_up.retain(|effect| !matches!(effect, Effect::Fetch { .. }));
        effects.append(&mut caught_up);
        if lacks {
            self.held.clear();
            self.fetch = Fetch::Later;
        }
    }

    /// Drops what of the oldest `count` messages held is not of the log that the server has answered from:
    /// it would never be next.
    fn drop_stale(&mut self, count: usize) {
        let later = self.held.split_off(count.min(self.held.len()));
        let earlier = std::mem::replace(&mut self.held, later);
        for (after, message) in earlier.into_iter().rev() {
            let id = match message.said {
                Said::Gap { cursor } => cursor,
                Said::Event { id } | Said::Heartbeat { id } | Said::Hello { id, .. } => {
                    id.or(after)
                }
                Said::Goodbye { .. } => None,
            };
            let is_gap = matches!(message.said, Said::Gap { .. });
            let epoch = |id: Option<EventId>| id.map(|id| id.epoch);
            let is_of_this_log = epoch(id) == epoch(self.connection.cursor());
            if self.is_next(after, &message.said) || (is_of_this_log && !is_gap) {
                self.held.push_front((after, message));
            }
        }
    }

    fn hear_status(&mut self, now: Instant, status: Status, effects: &mut Vec<Effect<M>>) {
        self.owner.hear(now);
        let target = status.cursor;
        self.owner.status = status;
        match &mut self.owner.status.state {
            State::Stopped => {
                // For all: the server has said that there is no more.
                let reason = self.owner.status.reason.take();
                self.leave(now, Role::Out, effects);
                self.connection.finish(reason);
                return;
            }
            State::Waiting { until } => *until = until.saturating_add(now),
            _ => {}
        }
        self.catch_up(target, effects);
    }

    /// Asks an owner that is silent, and steals from one that does not answer.
    fn watch_owner(&mut self, now: Instant, random: f64, effects: &mut Vec<Effect<M>>) {
        let owner = &mut self.owner;
        if let Some((asked, ticks)) = &mut owner.asked {
            *ticks += 1;
            // An answer that has come while this tab slept is handled between two ticks. Not all
            // followers of a dead owner should steal at once.
            let patience =
                ANSWER_WITHIN.saturating_add(ANSWER_WITHIN.mul_f64(random.clamp(0.0, 1.0)));
            if *ticks >= 3 && now.saturating_sub(*asked) >= patience {
                *owner = Owner::unknown(now, &self.connection);
                effects.push(Effect::Steal);
            }
            return;
        }
        let may_be_silent = if owner.status.state == State::Live {
            owner.status.heartbeat.saturating_add(ASK_AFTER)
        } else {
            ASK_DISCONNECTED_AFTER
        };
        if now.saturating_sub(owner.heard) >= may_be_silent {
            owner.asked = Some((now, 0));
            effects.push(Effect::Post(Post::Ask));
        }
    }
}

impl Owner {
    fn unknown(now: Instant, connection: &Connection) -> Self {
        let status = Status {
            state: State::Connecting,
            reason: None,
            cursor: None,
            heartbeat: connection.intervals().heartbeat,
        };
        Self { status, heard: now, asked: None }
    }

    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }
}

#[cfg(test)]
mod tests;

//! The connection rules: when a page opens its stream, gives it up, and comes back. A pure function
//! from a state and an input to a state and effects, so that it is tested without a browser.
//!
//! `EventSource` reconnects by itself while its `readyState` is `CONNECTING` (WHATWG HTML 9.2.3), and
//! those tries are left alone. It gives up when it says `CLOSED`: after an answer that is not 200, or
//! not a stream. Then these rules ask why, wait with full jitter, and open a new one with the cursor.
//! A connection that says nothing for three heartbeat intervals is taken for dead and replaced.
//!
//! Which of several tabs has the connection is the matter of [`tab`](crate::tab).

use std::time::Duration;

use waterclock::{id::EventId, notice::GoodbyeReason};

/// The longest first wait; each further one may be twice as long.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait of all.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A connection that lived this long starts the waits anew.
pub const STABLE: Duration = Duration::from_secs(10);
/// So many heartbeat intervals of silence make a connection stale.
pub const SILENT_INTERVALS: u32 = 3;
/// What is taken for the intervals until the server's `hello` has told its own.
pub const DEFAULT_INTERVALS: Intervals =
    Intervals { heartbeat: Duration::from_secs(15), retry: Duration::from_secs(5) };

/// A point in time: how long after the page began, by a clock that never goes back
/// ([`Stopwatch`](crate::stopwatch::Stopwatch)).
pub type Instant = Duration;

/// What the server keeps to, as its `hello` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Before the browser tries again by itself.
    pub retry: Duration,
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has asked for the stream yet.
    Idle,
    /// Opening for the first time, or after a wait.
    Connecting,
    /// Open, and the server has said something.
    Live,
    /// Was lost; the browser is trying again by itself.
    Reconnecting,
    /// Was silent for too long; a new one is being opened.
    Stale,
    /// The browser gave up; the next try comes at that time.
    Waiting {
        /// When.
        until: Instant,
    },
    /// Stopped: by the user, or by a server that said that there is no more.
    Stopped,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The user wants the stream, or wants the next try now.
    Connect,
    /// The user wants it to end.
    Stop,
    /// The connection is open, but nothing was heard of it yet.
    Opened,
    /// The server has said something.
    Said(Said),
    /// The connection was lost, and the browser tries again by itself.
    Lost,
    /// The connection was lost, and the browser has given up.
    GaveUp,
    /// What asking for the reason has found.
    Explained(Reason),
    /// The browser says that it has a network again.
    Online,
    /// Time has passed. To come about once a second, or when the page can be seen again: a hidden
    /// page's timers are slow.
    Tick,
}

/// What a stream has said. An id that is behind the cursor, of a connection that was replaced or of the
/// `hello` of the one that replaced it, leaves the cursor where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An event.
    Event {
        /// Its id.
        id: Option<EventId>,
    },
    /// The beginning of the stream.
    Hello {
        /// Where it starts.
        id: Option<EventId>,
        /// What the server keeps to, if it could be understood.
        intervals: Option<Intervals>,
    },
    /// A sign of life.
    Heartbeat {
        /// Where the stream is.
        id: Option<EventId>,
    },
    /// The server cannot honour the cursor, and has set another.
    Gap {
        /// From where it goes on.
        cursor: Option<EventId>,
    },
    /// The server is about to end the connection.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
        /// After what pause the browser tries again.
        retry: Duration,
    },
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The server has ended it.
    Goodbye(GoodbyeReason),
    /// The server cannot be reached.
    Unreachable,
    /// The same, and the browser says that it has no network.
    Offline,
    /// The answer's status was not 200.
    Status {
        /// The status.
        status: u16,
        /// What the server says of it, if it does (RFC 9457).
        detail: Option<String>,
    },
    /// The answer was no stream, but of that content type.
    ContentType(String),
    /// The server answers as it should, now.
    Recovered,
}

/// What the page has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a connection that goes on after the cursor, in place of any that there is.
    Open {
        /// The cursor; none to start from now.
        after: Option<EventId>,
    },
    /// Close the connection.
    Close,
    /// Ask the server, with one request, why the connection failed.
    Explain,
}

/// The rules' memory of one page's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    state: State,
    cursor: Option<EventId>,
    reason: Option<Reason>,
    intervals: Intervals,
    /// When something was last heard of the connection, or was done about it.
    heard: Instant,
    /// What `heard` was when a tick first found the connection silent for too long. What has arrived
    /// while the page slept is handled before the next tick, so only a second one makes it stale.
    suspected: Option<Instant>,
    /// Since when it is live, while it is.
    live_since: Option<Instant>,
    /// How many waits there were since a connection was stable.
    waits: u32,
    /// Why the server is about to end the connection, if it has said so.
    goodbye: Option<GoodbyeReason>,
}

impl Connection {
    /// Before anything has happened, with the cursor to start after.
    pub fn new(cursor: Option<EventId>) -> Self {
        Self {
            state: State::Idle,
            cursor,
            reason: None,
            intervals: DEFAULT_INTERVALS,
            heard: Instant::ZERO,
            suspected: None,
            live_since: None,
            waits: 0,
            goodbye: None,
        }
    }

    /// How the connection is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// After which event the next connection will go on.
    pub fn cursor(&self) -> Option<EventId> {
        self.cursor
    }

    /// Whether an event of that id was not yet heard of. A connection that replaces another may bring
    /// once more what the other had brought.
    pub fn is_new(&self, id: EventId) -> bool {
        let is_behind =
            |cursor: EventId| cursor.epoch == id.epoch && id.sequence <= cursor.sequence;
        !self.cursor.is_some_and(is_behind)
    }

    /// Why the browser gave up, while that is still of interest.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    /// Whether there is, or will be, a connection: what a button shows as "Stop".
    pub fn is_wanted(&self) -> bool {
        !matches!(self.state, State::Idle | State::Stopped)
    }

    /// What an input at time `now` makes of the connection, and what is to be done, in order.
    ///
    /// `random` is a number from 0 to 1, to spread the waits of many pages; it is used only by
    /// [`Input::GaveUp`].
    #[must_use]
    pub fn step(mut self, now: Instant, random: f64, input: Input) -> (Self, Vec<Effect>) {
        let effects = self.apply(now, random, input);
        (self, effects)
    }

    pub(crate) fn apply(&mut self, now: Instant, random: f64, input: Input) -> Vec<Effect> {
        match (&self.state, input) {
            (State::Idle | State::Stopped | State::Waiting { .. }, Input::Connect)
            | (State::Waiting { .. }, Input::Online) => {
                self.reason = None;
                self.open(now, State::Connecting)
            }
            (_, Input::Stop) => {
                self.reason = None;
                self.waits = 0;
                self.close(State::Stopped)
            }

            (
                State::Waiting { .. },
                Input::Explained(reason @ Reason::Status { status: 204, .. }),
            ) => {
                // No Content is how a server says that there is no more (WHATWG HTML 9.2.3).
                self.reason = Some(reason);
                self.state = State::Stopped;
                Vec::new()
            }
            (State::Waiting { .. }, Input::Explained(reason)) => {
                self.reason = Some(reason);
                Vec::new()
            }
            (State::Waiting { until }, Input::Tick) if now >= *until => {
                self.open(now, State::Connecting)
            }

            // Late news of a connection that is closed.
            (State::Idle | State::Stopped | State::Waiting { .. }, _) => Vec::new(),

            (_, Input::Opened) => {
                self.heard = now;
                Vec::new()
            }
            (_, Input::Said(said)) => {
                self.follow(&said);
                if let Said::Goodbye { reason, retry } = said {
                    self.heard = now;
                    self.goodbye = Some(reason);
                    self.intervals.retry = retry;
                } else {
                    self.live(now);
                }
                Vec::new()
            }
            (_, Input::Lost) => {
                self.settle(now);
                self.reason = self.goodbye.take().map(Reason::Goodbye);
                self.heard = now;
                self.live_since = None;
                self.state = State::Reconnecting;
                Vec::new()
            }
            (_, Input::GaveUp) => {
                self.settle(now);
                let longest =
                    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.waits)).min(LONGEST_WAIT);
                self.waits = self.waits.saturating_add(1);
                let until = now + longest.mul_f64(random.clamp(0.0, 1.0));
                let mut effects = self.close(State::Waiting { until });
                effects.push(Effect::Explain);
                effects
            }
            (_, Input::Tick) => {
                self.settle(now);
                if now.saturating_sub(self.heard) <= self.patience() {
                    return Vec::new();
                }
                if self.suspected.replace(self.heard) == Some(self.heard) {
                    self.open(now, State::Stale)
                } else {
                    Vec::new()
                }
            }
            // Without a goodbye, which says when to come back, the pause was for want of a network.
            (State::Reconnecting, Input::Online) if self.reason.is_none() => {
                self.open(now, State::Connecting)
            }
            // A try that is under way is not begun again, and what went wrong before is over.
            (_, Input::Connect | Input::Online | Input::Explained(_)) => Vec::new(),
        }
    }

    /// Whether there is a connection, be it one that the browser tries again.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Idle | State::Waiting { .. } | State::Stopped)
    }

    /// Moves the cursor, and takes the server's intervals, to what a stream has said: this one's, or
    /// another tab's.
    pub(crate) fn follow(&mut self, said: &Said) {
        match *said {
            Said::Event { id } | Said::Heartbeat { id } | Said::Hello { id, .. } => {
                self.cursor = id.filter(|&id| self.is_new(id)).or(self.cursor);
            }
            Said::Gap { cursor } => self.cursor = cursor.or(self.cursor),
            Said::Goodbye { .. } => {}
        }
        if let Said::Hello { intervals: Some(intervals), .. } = *said {
            self.intervals = intervals;
        }
    }

    /// Sets the cursor, by the server's word.
    pub(crate) fn set_cursor(&mut self, cursor: EventId) {
        self.cursor = Some(cursor);
    }

    /// Stopped, since another tab has found that there is no more.
    pub(crate) fn finish(&mut self, reason: Option<Reason>) {
        self.reason = reason;
        self.state = State::Stopped;
    }

    /// What the server keeps to.
    pub(crate) fn intervals(&self) -> Intervals {
        self.intervals
    }

    /// How long a connection may be silent.
    fn patience(&self) -> Duration {
        let Intervals { heartbeat, retry } = self.intervals;
        let pause = if self.state == State::Reconnecting { retry } else { Duration::ZERO };
        pause.saturating_add(heartbeat.saturating_mul(SILENT_INTERVALS))
    }

    fn open(&mut self, now: Instant, state: State) -> Vec<Effect> {
        self.heard = now;
        self.live_since = None;
        self.goodbye = None;
        self.state = state;
        vec![Effect::Open { after: self.cursor }]
    }

    fn close(&mut self, state: State) -> Vec<Effect> {
        self.live_since = None;
        self.state = state;
        vec![Effect::Close]
    }

    fn live(&mut self, now: Instant) {
        self.heard = now;
        self.live_since.get_or_insert(now);
        self.reason = None;
        self.state = State::Live;
    }

    /// Starts the waits anew once the connection was live for long enough.
    fn settle(&mut self, now: Instant) {
        if self.live_since.is_some_and(|since| now.saturating_sub(since) >= STABLE) {
            self.waits = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEARD: Input = Input::Said(Said::Heartbeat { id: None });

    const INTERVALS: Intervals =
        Intervals { heartbeat: Duration::from_secs(2), retry: Duration::from_mins(1) };

    fn id(sequence: u64) -> EventId {
        EventId { epoch: waterclock::id::Epoch::new(1), sequence }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A connection, and what has been asked of the page so far.
    struct Page {
        connection: Connection,
        now: Instant,
        is_open: bool,
        /// The cursor that the last connection was opened with.
        after: Option<EventId>,
        explains: usize,
    }

    impl Page {
        fn new() -> Self {
            Self {
                connection: Connection::new(None),
                now: Instant::ZERO,
                is_open: false,
                after: None,
                explains: 0,
            }
        }

        fn input(&mut self, input: Input) -> &State {
            let (connection, effects) = self.connection.clone().step(self.now, 1.0, input);
            self.connection = connection;
            for effect in effects {
                match effect {
                    Effect::Open { after } => (self.is_open, self.after) = (true, after),
                    Effect::Close => self.is_open = false,
                    Effect::Explain => self.explains += 1,
                }
            }
            self.connection.state()
        }

        fn later(&mut self, by: Duration) -> &State {
            self.now += by;
            self.input(Input::Tick)
        }
    }

    #[test]
    fn connect_open_stop_and_connect_again_goes_on_after_the_last_event() {
        let mut page = Page::new();
        assert_eq!(page.input(Input::Connect), &State::Connecting);
        assert!(page.is_open);
        assert_eq!(page.input(Input::Opened), &State::Connecting, "nothing was heard yet");
        assert_eq!(page.input(HEARD), &State::Live);
        page.input(Input::Said(Said::Event { id: Some(id(7)) }));
        assert_eq!(page.input(Input::Stop), &State::Stopped);
        assert!(!page.is_open);
        page.input(Input::Connect);
        assert_eq!((page.is_open, page.after), (true, Some(id(7))));
    }

    #[test]
    fn what_has_no_id_leaves_the_cursor() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::Said(Said::Event { id: Some(id(7)) }));
        page.input(HEARD);
        assert_eq!(page.connection.cursor(), Some(id(7)));
    }

    #[test]
    fn what_a_replaced_connection_had_brought_is_not_new_when_it_comes_again() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::Said(Said::Event { id: Some(id(5)) }));
        page.later(DEFAULT_INTERVALS.heartbeat * SILENT_INTERVALS + seconds(1));
        page.later(seconds(1));
        assert_eq!(page.after, Some(id(5)), "a new one was opened");
        // What the old one had still brought, and then the new one's hello and first event.
        for (sequence, is_new) in [(6, true), (5, false), (6, false), (7, true)] {
            assert_eq!(page.connection.is_new(id(sequence)), is_new, "{sequence}");
            page.input(Input::Said(Said::Event { id: Some(id(sequence)) }));
        }
        assert_eq!(page.connection.cursor(), Some(id(7)));
    }

    #[test]
    fn a_gap_sets_the_cursor_wherever_that_is() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::Said(Said::Event { id: Some(id(5)) }));
        page.input(Input::Said(Said::Gap { cursor: Some(id(2)) }));
        assert_eq!(page.connection.cursor(), Some(id(2)));
        let other = EventId { epoch: waterclock::id::Epoch::new(2), sequence: 1 };
        assert!(page.connection.is_new(other));
    }

    #[test]
    fn while_the_browser_tries_again_it_is_left_alone() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::Said(Said::Hello { id: None, intervals: Some(INTERVALS) }));
        page.is_open = false;
        assert_eq!(page.input(Input::Lost), &State::Reconnecting);
        for _ in 0..100 {
            page.later(INTERVALS.retry);
            page.input(Input::Lost);
        }
        assert_eq!((page.is_open, page.explains), (false, 0));
        assert_eq!(page.input(HEARD), &State::Live);
    }

    #[test]
    fn after_a_goodbye_the_browser_is_given_the_time_that_the_server_asked_for() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::Said(Said::Hello { id: None, intervals: Some(INTERVALS) }));
        let retry = seconds(1000);
        page.input(Input::Said(Said::Goodbye { reason: GoodbyeReason::Limit, retry }));
        page.input(Input::Lost);
        let reason = Reason::Goodbye(GoodbyeReason::Limit);
        assert_eq!(page.connection.reason(), Some(&reason));
        assert_eq!(page.later(retry), &State::Reconnecting);
        // It comes back, and the server still has no room.
        assert_eq!(page.input(Input::Opened), &State::Reconnecting);
        page.input(Input::Said(Said::Goodbye { reason: GoodbyeReason::Limit, retry }));
        assert_eq!(page.input(Input::Lost), &State::Reconnecting);
        assert_eq!(page.connection.reason(), Some(&reason));
        // And then cannot be reached.
        page.input(Input::Lost);
        assert_eq!(page.connection.reason(), None);
        assert_eq!(page.input(HEARD), &State::Live);
    }

    #[test]
    fn when_the_browser_gives_up_we_ask_why_and_come_back() {
        let mut page = Page::new();
        page.input(Input::Connect);
        assert_eq!(page.input(Input::GaveUp), &State::Waiting { until: seconds(1) });
        assert_eq!((page.is_open, page.explains), (false, 1));
        let reason = Reason::Status { status: 502, detail: None };
        page.input(Input::Explained(reason.clone()));
        assert_eq!(page.connection.reason(), Some(&reason));
        assert_eq!(page.later(seconds(1)), &State::Connecting);
        assert!(page.is_open);
        assert_eq!(page.connection.reason(), Some(&reason), "shown until it is over");
        page.input(HEARD);
        assert_eq!(page.connection.reason(), None);
    }

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew_after_a_stable_connection() {
        let mut page = Page::new();
        page.input(Input::Connect);
        let mut waits = Vec::new();
        for _ in 0..7 {
            page.input(HEARD);
            page.later(STABLE.saturating_sub(seconds(1)));
            let State::Waiting { until } = *page.input(Input::GaveUp) else {
                panic!("not waiting")
            };
            waits.push(until.saturating_sub(page.now).as_secs());
            page.now = until;
            page.input(Input::Tick);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);

        page.input(HEARD);
        page.now += STABLE;
        let until = page.now + FIRST_WAIT;
        assert_eq!(page.input(Input::GaveUp), &State::Waiting { until });
    }

    #[test]
    fn no_content_means_that_there_is_no_more() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::GaveUp);
        let no_content = Reason::Status { status: 204, detail: None };
        assert_eq!(page.input(Input::Explained(no_content)), &State::Stopped);
        assert_eq!(page.later(seconds(100)), &State::Stopped);
        assert!(!page.is_open);
    }

    #[test]
    fn three_silent_intervals_make_it_stale_and_a_new_one_is_opened() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::Said(Said::Hello { id: Some(id(7)), intervals: Some(INTERVALS) }));
        page.is_open = false;
        assert_eq!(page.later(seconds(6)), &State::Live);
        assert_eq!(page.later(seconds(1)), &State::Live, "what has arrived may not be handled yet");
        assert_eq!(page.later(seconds(1)), &State::Stale);
        assert_eq!((page.is_open, page.after), (true, Some(id(7))));
        assert_eq!(page.input(HEARD), &State::Live);
    }

    #[test]
    fn a_server_that_accepts_and_says_nothing_is_tried_again() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.is_open = false;
        page.later(DEFAULT_INTERVALS.heartbeat * SILENT_INTERVALS + seconds(1));
        page.later(seconds(1));
        assert!(page.is_open);
    }

    #[test]
    fn a_page_that_slept_first_handles_what_has_arrived_meanwhile() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(HEARD);
        page.is_open = false;
        for _ in 0..10 {
            assert_eq!(page.later(seconds(3600)), &State::Live);
            assert_eq!(page.input(HEARD), &State::Live);
        }
        assert!(!page.is_open, "not replaced");
    }

    #[test]
    fn online_means_try_now_unless_the_server_has_said_when() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::GaveUp);
        assert_eq!(page.input(Input::Online), &State::Connecting);
        assert!(page.is_open);

        page.is_open = false;
        page.input(Input::Lost);
        assert_eq!(page.input(Input::Online), &State::Connecting);
        assert!(page.is_open);

        page.is_open = false;
        page.input(Input::Said(Said::Goodbye { reason: GoodbyeReason::Limit, retry: seconds(9) }));
        page.input(Input::Lost);
        assert_eq!(page.input(Input::Online), &State::Reconnecting);
        page.input(HEARD);
        assert_eq!(page.input(Input::Online), &State::Live);
        assert!(!page.is_open, "left alone");
    }

    #[test]
    fn connect_while_waiting_means_now() {
        let mut page = Page::new();
        page.input(Input::Connect);
        page.input(Input::GaveUp);
        assert_eq!(page.input(Input::Connect), &State::Connecting);
        assert!(page.is_open);
    }

    fn input() -> impl Strategy<Value = Input> {
        let reason = prop_oneof![
            Just(Reason::Unreachable),
            (200..600_u16).prop_map(|status| Reason::Status { status, detail: None }),
            Just(Reason::Status { status: 204, detail: None }),
            Just(Reason::ContentType("text/html".to_owned())),
            Just(Reason::Recovered),
        ];
        let intervals = (1..60_u64, 1..60_u64).prop_map(|(heartbeat, retry)| Intervals {
            heartbeat: Duration::from_secs(heartbeat),
            retry: Duration::from_secs(retry),
        });
        let intervals = proptest::option::of(intervals);
        prop_oneof![
            Just(Input::Connect),
            Just(Input::Stop),
            Just(Input::Opened),
            (proptest::option::of((0..99_u64).prop_map(id)), intervals)
                .prop_map(|(id, intervals)| Input::Said(Said::Hello { id, intervals })),
            proptest::option::of((0..99_u64).prop_map(id))
                .prop_map(|id| Input::Said(Said::Event { id })),
            proptest::option::of((0..99_u64).prop_map(id))
                .prop_map(|cursor| Input::Said(Said::Gap { cursor })),
            (1..60_u64).prop_map(|retry| Input::Said(Said::Goodbye {
                reason: GoodbyeReason::Draining,
                retry: Duration::from_secs(retry),
            })),
            Just(Input::Lost),
            Just(Input::GaveUp),
            Just(Input::Online),
            reason.prop_map(Input::Explained),
            // Time passes more often than anything else happens.
            Just(Input::Tick),
            Just(Input::Tick),
            Just(Input::Tick),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens(
            inputs in proptest::collection::vec((input(), 0..60_000_u64, 0.0..=1.0_f64), 0..80),
        ) {
            let mut connection = Connection::new(None);
            let mut now = Instant::ZERO;
            let mut open = false;
            for (input, pause, random) in inputs {
                now += Duration::from_millis(pause);
                let before = connection.cursor();
                let news = match &input {
                    Input::Said(Said::Event { id } | Said::Hello { id, .. }) if open => {
                        id.filter(|id| before.is_none_or(|before| before.sequence < id.sequence))
                    }
                    Input::Said(Said::Gap { cursor }) if open => *cursor,
                    _ => None,
                };
                let (next, effects) = connection.step(now, random, input.clone());
                for effect in &effects {
                    match effect {
                        Effect::Open { after } => {
                            prop_assert_eq!(*after, before, "goes on after the last event");
                            open = true;
                        }
                        Effect::Close => open = false,
                        Effect::Explain => {}
                    }
                }
                prop_assert_eq!(next.cursor(), news.or(before), "the cursor is never lost");
                match next.state() {
                    State::Waiting { until } => {
                        prop_assert!(!open && *until <= now + LONGEST_WAIT);
                    }
                    State::Idle | State::Stopped => prop_assert!(!open),
                    _ => prop_assert!(open, "open, or with a planned next try, or stopped"),
                }
                if input == Input::Stop {
                    prop_assert_eq!(next.state(), &State::Stopped);
                }
                connection = next;
            }
            // Left alone from here on, it is not given up.
            let longest = connection.patience().max(LONGEST_WAIT);
            let is_wanted = connection.is_wanted();
            let mut opens = 0;
            for later in [longest + seconds(1), longest + seconds(2)] {
                let (next, effects) = connection.step(now + later, 0.5, Input::Tick);
                opens += effects.len();
                connection = next;
            }
            prop_assert_eq!(opens > 0, is_wanted);
        }
    }
}

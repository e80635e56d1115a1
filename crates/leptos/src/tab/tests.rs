//! Single situations, and a model of a browser in which tabs die, sleep and come back at any
//! moment.

use proptest::prelude::*;
use waterclock::id::Epoch;

use super::*;
use crate::traces::{self, Trace, Traces};

/// The content of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
enum Content {
    Event(EventId),
    Notice,
}

fn id(sequence: u64) -> EventId {
    EventId { epoch: Epoch::new(1), sequence }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn event(id: EventId) -> StreamMessage<Content> {
    StreamMessage { received: ReceivedMessage::Event { id: Some(id) }, content: Content::Event(id) }
}

/// The end of a topic, or an event.
fn event_or_end(id: EventId) -> StreamMessage<Content> {
    let StreamMessage { received, content } = event(id);
    let cursor = Some(id);
    let is_end = id.sequence % 4 == 3;
    StreamMessage {
        received: if is_end { ReceivedMessage::Gap { cursor } } else { received },
        content,
    }
}

fn answered(status: u16) -> DisconnectReason {
    DisconnectReason::Status { status, detail: None }
}

fn relayed(after: u64, sequence: u64) -> TabInput<Content> {
    TabInput::Relayed { after: Some(id(after)), message: event(id(sequence)) }
}

fn fetch(number: u64, after: u64) -> TabEffect<Content> {
    TabEffect::Fetch { number, after: id(after) }
}

fn fetched(number: u64, events: &[u64], cursor: u64) -> TabInput<Content> {
    let events = events.iter().map(|&sequence| Content::Event(id(sequence))).collect();
    TabInput::Fetched(Fetched { number, gap: None, events, cursor: id(cursor) })
}

fn shown(effects: &[TabEffect<Content>]) -> Vec<u64> {
    let sequence = |effect: &TabEffect<Content>| match effect {
        TabEffect::Deliver(Content::Event(id)) => Some(id.sequence),
        _ => None,
    };
    effects.iter().filter_map(sequence).collect()
}

/// A tab that waits for the lock, after event 5.
fn follower() -> Tab<Content> {
    let mut tab = Tab::new(Some(id(5)));
    let effects = tab.step(seconds(0), 0.0, TabInput::Connect);
    assert_eq!(effects, [TabEffect::Join, TabEffect::Ask]);
    tab
}

fn open(after: u64, is_socket: bool) -> TabEffect<Content> {
    TabEffect::Connection(ConnectionEffect::Open { after: Some(id(after)), is_socket })
}

/// The leader, after event 5, which has heard of other tabs.
fn leader() -> Tab<Content> {
    let mut tab = follower();
    let effects = tab.step(seconds(0), 0.0, TabInput::Granted);
    assert_eq!(effects[0], open(5, false));
    assert!(matches!(effects[1], TabEffect::Announce(_)), "the others hear who it is");
    tab
}

#[test]
fn a_leader_relays_new_messages_with_the_cursor_before_them() {
    let mut tab = leader();
    let effects = tab.step(seconds(1), 0.0, TabInput::Message(event(id(7))));
    assert_eq!(effects[0], TabEffect::Relay { after: Some(id(5)) });
    assert_eq!(shown(&effects), [7]);
    let effects = tab.step(seconds(1), 0.0, TabInput::Message(event(id(7))));
    assert_eq!(effects, [], "it is a repetition");
}

#[test]
fn a_leader_without_other_tabs_relays_nothing() {
    let mut tab = leader();
    assert_eq!(tab.step(seconds(9), 0.0, TabInput::NoOtherTabs), []);
    let effects = tab.step(seconds(9), 0.0, TabInput::Message(event(id(7))));
    assert_eq!(effects, [TabEffect::Deliver(Content::Event(id(7)))]);
    // It relays again once it hears of another tab.
    let effects = tab.step(seconds(9), 0.0, TabInput::Asked);
    assert!(matches!(
        *effects,
        [TabEffect::Announce(LeaderStatus { state: ConnectionState::Live, .. })]
    ));
    assert_eq!(
        tab.step(seconds(10), 0.0, TabInput::NoOtherTabs),
        [],
        "counted before the other came"
    );
    assert_eq!(tab.step(seconds(10), 0.0, TabInput::Message(event(id(8)))).len(), 2);
}

#[test]
fn a_follower_drops_repetitions_and_fetches_missing_events() {
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, relayed(3, 5)), []);
    assert_eq!(shown(&tab.step(seconds(1), 0.0, relayed(4, 6))), [6]);
    assert_eq!(tab.state(), &ConnectionState::Live);

    let effects = tab.step(seconds(1), 0.0, relayed(8, 9));
    assert_eq!(effects, [fetch(1, 6)]);
    // Messages that come meanwhile wait, and do not cause another request.
    assert_eq!(tab.step(seconds(1), 0.0, relayed(9, 10)), []);
    assert_eq!(shown(&tab.step(seconds(1), 0.0, fetched(1, &[8, 9], 9))), [8, 9, 10]);
    assert_eq!(tab.cursor(), Some(id(10)));
}

#[test]
fn a_new_tab_of_a_quiet_topic_fetches_the_events_since_it_was_rendered() {
    let mut tab = follower();
    let status = LeaderStatus {
        state: ConnectionState::Live,
        reason: None,
        cursor: Some(id(7)),
        heartbeat: seconds(15),
    };
    let effects = tab.step(seconds(0), 0.0, TabInput::Announced(status));
    assert_eq!(effects, [fetch(1, 5)]);
}

#[test]
fn a_failed_fetch_is_repeated_at_the_next_tick() {
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, relayed(8, 9)), [fetch(1, 5)]);
    let failed = TabInput::FetchFailed { number: 1, reason: answered(503) };
    assert_eq!(tab.step(seconds(1), 0.0, failed), []);
    assert_eq!(tab.step(seconds(1), 0.0, relayed(9, 10)), []);
    assert_eq!(tab.step(seconds(2), 0.0, TabInput::Tick), [fetch(2, 5)]);
}

#[test]
fn the_answer_to_a_fetch_from_before_a_stop_means_nothing() {
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, relayed(8, 9)), [fetch(1, 5)]);
    // The reader logs in, and starts again.
    let _ = tab.step(seconds(2), 0.0, TabInput::Stop);
    let _ = tab.step(seconds(3), 0.0, TabInput::Connect);
    let refused = TabInput::FetchFailed { number: 1, reason: answered(401) };
    assert_eq!(tab.step(seconds(3), 0.0, refused.clone()), []);
    let effects = tab.step(seconds(3), 0.0, relayed(8, 9));
    let [TabEffect::Fetch { number, .. }] = *effects else { panic!("{effects:?}") };
    assert_eq!(tab.step(seconds(3), 0.0, refused), []);
    assert!(tab.is_wanted(), "this request is not refused");
    assert_eq!(tab.step(seconds(3), 0.0, fetched(1, &[8], 8)), []);
    assert_eq!(shown(&tab.step(seconds(3), 0.0, fetched(number, &[8], 8))), [8, 9]);
}

#[test]
fn a_leader_that_does_not_answer_loses_the_lock() {
    let mut tab = follower();
    let status = LeaderStatus {
        state: ConnectionState::Live,
        reason: None,
        cursor: Some(id(5)),
        heartbeat: seconds(15),
    };
    assert_eq!(tab.step(seconds(0), 0.0, TabInput::Announced(status.clone())), []);
    assert_eq!(tab.step(seconds(19), 0.0, TabInput::Tick), []);
    assert_eq!(tab.step(seconds(20), 0.0, TabInput::Tick), [TabEffect::Ask]);
    for now in 21..25 {
        assert_eq!(tab.step(seconds(now), 0.0, TabInput::Tick), []);
    }
    assert_eq!(tab.step(seconds(25), 0.0, TabInput::Tick), [TabEffect::Steal]);

    // A leader that answers keeps it. A tab that slept itself handles the answer first.
    let mut tab = follower();
    for now in [100, 200, 300] {
        assert_eq!(tab.step(seconds(now), 0.0, TabInput::Tick), [TabEffect::Ask]);
        assert_eq!(tab.step(seconds(now + 50), 0.0, TabInput::Tick), []);
        assert_eq!(tab.step(seconds(now + 50), 0.0, TabInput::Announced(status.clone())), []);
    }
}

#[test]
fn a_leader_that_lost_the_lock_closes_its_connection_and_follows() {
    let mut tab = leader();
    let effects = tab.step(seconds(1), 0.0, TabInput::Stolen);
    assert_eq!(
        effects,
        [TabEffect::Connection(ConnectionEffect::Close), TabEffect::Join, TabEffect::Ask]
    );
    assert_eq!(tab.role(), Role::Follower);
    assert_eq!(tab.step(seconds(1), 0.0, TabInput::Message(event(id(6)))), [], "a late message");
}

#[test]
fn a_suspended_page_holds_nothing_and_comes_back() {
    let mut tab = leader();
    let effects = tab.step(seconds(1), 0.0, TabInput::PageHide);
    assert_eq!(effects, [TabEffect::Connection(ConnectionEffect::Close), TabEffect::Leave]);
    assert_eq!(tab.step(seconds(1), 0.0, TabInput::Granted), [TabEffect::Leave], "too late");
    assert!(tab.is_wanted());
    assert_eq!(tab.step(seconds(9), 0.0, TabInput::PageShow)[0], TabEffect::Join);
    // A stopped page stays stopped.
    let _ = tab.step(seconds(9), 0.0, TabInput::Stop);
    let _ = tab.step(seconds(9), 0.0, TabInput::PageHide);
    assert_eq!(tab.step(seconds(9), 0.0, TabInput::PageShow), []);
    assert_eq!(tab.state(), &ConnectionState::Stopped);
}

#[test]
fn without_locks_a_tab_has_a_websocket_of_its_own() {
    let mut tab = follower();
    let effects = tab.step(seconds(0), 0.0, TabInput::CannotShare { may_use_sockets: true });
    assert_eq!(effects, [open(5, true)]);
    assert_eq!(
        tab.step(seconds(1), 0.0, TabInput::Message(event(id(6)))),
        [TabEffect::Deliver(Content::Event(id(6)))]
    );
    assert_eq!(tab.role(), Role::Standalone);

    // A tab that does not want to share is not in need of one.
    let mut tab = follower();
    let effects = tab.step(seconds(0), 0.0, TabInput::CannotShare { may_use_sockets: false });
    assert_eq!(effects, [open(5, false)]);
}

#[test]
fn a_tab_that_gets_a_lock_after_all_has_no_websocket() {
    let mut tab = follower();
    let _ = tab.step(seconds(0), 0.0, TabInput::CannotShare { may_use_sockets: true });
    let _ = tab.step(seconds(1), 0.0, TabInput::PageHide);
    let _ = tab.step(seconds(2), 0.0, TabInput::PageShow);
    assert_eq!(tab.step(seconds(2), 0.0, TabInput::Granted)[0], open(5, false));
}

#[test]
fn the_end_of_the_stream_is_for_all_tabs() {
    let mut tab = leader();
    let _ = tab.step(seconds(1), 0.0, TabInput::Connection(ConnectionInput::GaveUp));
    let reason = DisconnectReason::Status { status: 204, detail: None };
    let explained = TabInput::Connection(ConnectionInput::Explained(reason.clone()));
    let effects = tab.step(seconds(1), 0.0, explained);
    let [TabEffect::Announce(status)] = &*effects else {
        panic!("{effects:?}");
    };
    assert_eq!((tab.is_wanted(), tab.state()), (false, &ConnectionState::Stopped));
    assert_eq!(
        tab.step(seconds(2), 0.0, TabInput::Tick),
        [TabEffect::Leave],
        "once the others know"
    );
    assert_eq!((tab.role(), tab.reason()), (Role::Inactive, Some(&reason)));

    let mut other = follower();
    let effects = other.step(seconds(1), 0.0, TabInput::Announced(status.clone()));
    assert_eq!(effects.last(), Some(&TabEffect::Leave));
    assert_eq!((other.state(), other.reason()), (&ConnectionState::Stopped, Some(&reason)));
}

#[test]
fn a_refusal_is_for_all_tabs_until_one_is_told_to_try_again() {
    let mut tab = leader();
    let _ = tab.step(seconds(1), 0.0, TabInput::Connection(ConnectionInput::GaveUp));
    let reason = answered(403);
    let explained = TabInput::Connection(ConnectionInput::Explained(reason.clone()));
    let effects = tab.step(seconds(1), 0.0, explained);
    let [TabEffect::Announce(status)] = &*effects else { panic!("{effects:?}") };
    assert_eq!(tab.step(seconds(2), 0.0, TabInput::Tick), [TabEffect::Leave]);

    // It has not read everything, but it would be refused as well.
    let mut other = follower();
    let ahead = LeaderStatus { cursor: Some(id(7)), ..status.clone() };
    let effects = other.step(seconds(1), 0.0, TabInput::Announced(ahead));
    assert_eq!(effects.last(), Some(&TabEffect::Leave));
    for tab in [&mut tab, &mut other] {
        assert_eq!((tab.state(), tab.is_wanted()), (&ConnectionState::Refused, false));
        assert_eq!((tab.role(), tab.reason()), (Role::Inactive, Some(&reason)));
        for input in [TabInput::Tick, TabInput::Online, TabInput::PageHide, TabInput::PageShow] {
            assert_eq!(tab.step(seconds(99), 0.0, input), [], "not retried");
        }
        assert_eq!(
            tab.step(seconds(99), 0.0, TabInput::Connect),
            [TabEffect::Join, TabEffect::Ask]
        );
    }
}

#[test]
fn a_follower_tries_its_own_token_after_that_of_its_leader_was_refused() {
    let status = LeaderStatus {
        state: ConnectionState::Refused,
        reason: Some(answered(401)),
        cursor: Some(id(5)),
        heartbeat: seconds(15),
    };
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, TabInput::Announced(status)), []);
    assert_eq!((tab.state(), tab.reason()), (&ConnectionState::Connecting, None));
    // The leader leaves.
    assert_eq!(tab.step(seconds(2), 0.0, TabInput::Granted)[0], open(5, false));
    let _ = tab.step(seconds(2), 0.0, TabInput::Connection(ConnectionInput::GaveUp));
    let explained = ConnectionInput::Explained(answered(401));
    let _ = tab.step(seconds(2), 0.0, TabInput::Connection(explained));
    assert_eq!((tab.state(), tab.is_wanted()), (&ConnectionState::Refused, false));
}

#[test]
fn a_refused_leader_whose_timers_are_slow_leaves_when_another_tab_asks() {
    for (status, state) in [(401, ConnectionState::Refused), (204, ConnectionState::Stopped)] {
        let mut tab = leader();
        let _ = tab.step(seconds(1), 0.0, TabInput::Connection(ConnectionInput::GaveUp));
        let explained = ConnectionInput::Explained(answered(status));
        let _ = tab.step(seconds(1), 0.0, TabInput::Connection(explained));
        let effects = tab.step(seconds(2), 0.0, TabInput::Asked);
        let [TabEffect::Announce(announced), TabEffect::Leave] = &*effects else {
            panic!("{effects:?}");
        };
        assert_eq!((&announced.state, tab.state()), (&state, &state));
        assert_eq!((tab.role(), tab.reason()), (Role::Inactive, Some(&answered(status))));
        assert_eq!(tab.step(seconds(60), 0.0, TabInput::Tick), []);
    }
}

#[test]
fn a_follower_whose_fetch_is_refused_does_not_repeat_it() {
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, relayed(8, 9)), [fetch(1, 5)]);
    let refused = TabInput::FetchFailed { number: 1, reason: answered(401) };
    let effects = tab.step(seconds(1), 0.0, refused);
    assert_eq!(effects.last(), Some(&TabEffect::Leave));
    assert_eq!((tab.state(), tab.reason()), (&ConnectionState::Refused, Some(&answered(401))));
    assert_eq!((tab.is_wanted(), tab.cursor()), (false, Some(id(5))));
    assert_eq!(tab.step(seconds(9), 0.0, TabInput::Tick), []);
}

#[test]
fn a_follower_that_is_behind_first_reads_to_the_end_of_the_stream() {
    let status = LeaderStatus {
        state: ConnectionState::Stopped,
        reason: Some(NO_CONTENT),
        cursor: Some(id(7)),
        heartbeat: seconds(15),
    };
    let mut tab = follower();
    let effects = tab.step(seconds(1), 0.0, TabInput::Announced(status.clone()));
    assert_eq!(effects, [fetch(1, 5)]);
    assert!(tab.is_wanted());
    assert_eq!(shown(&tab.step(seconds(1), 0.0, fetched(1, &[6, 7], 7))), [6, 7]);
    // The leader answers once more, or it leaves, and this tab finds the end by itself.
    let mut next = tab.clone();
    let effects = tab.step(seconds(2), 0.0, TabInput::Announced(status));
    assert_eq!(effects.last(), Some(&TabEffect::Leave));
    assert_eq!((tab.is_wanted(), tab.reason()), (false, Some(&NO_CONTENT)));
    let effects = next.step(seconds(2), 0.0, TabInput::Granted);
    assert_eq!(effects[0], open(7, false));
}

#[test]
fn a_standalone_tab_also_stops_at_the_end_of_the_stream() {
    let mut tab = follower();
    let _ = tab.step(seconds(0), 0.0, TabInput::CannotShare { may_use_sockets: true });
    let _ = tab.step(seconds(1), 0.0, TabInput::Connection(ConnectionInput::GaveUp));
    let reason = DisconnectReason::Status { status: 204, detail: None };
    let _ = tab.step(seconds(1), 0.0, TabInput::Connection(ConnectionInput::Explained(reason)));
    assert!(!tab.is_wanted());
    let _ = tab.step(seconds(1), 0.0, TabInput::PageHide);
    assert_eq!(tab.step(seconds(1), 0.0, TabInput::PageShow), [], "it stays stopped");
    assert_eq!(tab.step(seconds(1), 0.0, TabInput::Connect)[0], TabEffect::Join);
}

#[test]
fn buffered_messages_of_a_former_log_are_dropped() {
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, relayed(8, 9)), [fetch(1, 5)]);
    let new = |sequence| EventId { epoch: Epoch::new(2), sequence };
    let gap = StreamMessage {
        received: ReceivedMessage::Gap { cursor: Some(new(0)) },
        content: Content::Notice,
    };
    let gap = TabInput::Relayed { after: Some(id(9)), message: gap };
    assert_eq!(tab.step(seconds(1), 0.0, gap), []);
    // The server has started a new log before it answers.
    let fetched = |number, upto: EventId| {
        let gap = (number == 1).then_some(Content::Notice);
        TabInput::Fetched(Fetched { number, gap, events: vec![Content::Event(upto)], cursor: upto })
    };
    let effects = tab.step(seconds(1), 0.0, fetched(1, new(1)));
    // The gap came after the request was sent, so one more request follows, and then none.
    assert_eq!(effects.last(), Some(&TabEffect::Fetch { number: 2, after: new(1) }));
    let effects = tab.step(seconds(1), 0.0, fetched(2, new(2)));
    assert_eq!(effects, [TabEffect::Deliver(Content::Event(new(2)))]);
}

#[test]
fn a_follower_without_a_cursor_accepts_any_gap() {
    let mut tab = Tab::new(None);
    let _ = tab.step(seconds(0), 0.0, TabInput::Connect);
    let gap = StreamMessage {
        received: ReceivedMessage::Gap { cursor: Some(id(3)) },
        content: Content::Notice,
    };
    let gap = TabInput::Relayed { after: Some(id(1)), message: gap };
    assert_eq!(tab.step(seconds(1), 0.0, gap), [TabEffect::Deliver(Content::Notice)]);
    assert_eq!(shown(&tab.step(seconds(1), 0.0, relayed(3, 4))), [4]);
}

#[test]
fn a_follower_that_has_fetched_an_end_does_not_take_it_from_the_leader() {
    let end = |after, sequence| TabInput::Relayed {
        after: Some(id(after)),
        message: StreamMessage {
            received: ReceivedMessage::Gap { cursor: Some(id(sequence)) },
            content: Content::Event(id(sequence)),
        },
    };
    let mut tab = follower();
    assert_eq!(shown(&tab.step(seconds(1), 0.0, end(5, 6))), [6]);
    assert_eq!(tab.step(seconds(1), 0.0, end(8, 9)), [fetch(1, 6)]);
    assert_eq!(shown(&tab.step(seconds(1), 0.0, fetched(1, &[8, 9], 9))), [8, 9]);
    // The leader's message may come later than the response.
    assert_eq!(tab.step(seconds(1), 0.0, end(8, 9)), [fetch(2, 9)]);
    assert_eq!(tab.step(seconds(1), 0.0, fetched(2, &[], 9)), []);
    assert_eq!(shown(&tab.step(seconds(1), 0.0, relayed(9, 10))), [10]);
}

#[test]
fn the_buffer_is_dropped_when_the_lock_is_granted() {
    let mut tab = follower();
    let _ = tab.step(seconds(1), 0.0, relayed(8, 9));
    let _ = tab.step(seconds(1), 0.0, TabInput::Granted);
    let _ = tab.step(seconds(2), 0.0, TabInput::Stolen);
    let effects = tab.step(seconds(3), 0.0, relayed(8, 9));
    assert!(matches!(*effects, [TabEffect::Fetch { .. }]), "no request is in flight: {effects:?}");
}

#[test]
fn a_follower_shows_the_wait_of_its_leader_by_its_own_clock() {
    let mut leader = leader();
    let effects = leader.step(seconds(1000), 1.0, TabInput::Connection(ConnectionInput::GaveUp));
    let Some(TabEffect::Announce(status)) = effects.last() else { panic!("{effects:?}") };
    let mut tab = follower();
    let _ = tab.step(seconds(7), 0.0, TabInput::Announced(status.clone()));
    assert_eq!(tab.state(), &ConnectionState::Waiting { until: seconds(8) });
}

/// A browser with tabs, and a server with one log.
struct FakeBrowser {
    now: PageTime,
    tabs: Vec<FakeTab>,
    /// The tab that holds the lock, and the tabs that wait for it.
    lock: Option<usize>,
    waiting: VecDeque<usize>,
    /// The log's epoch, its newest event, and the oldest event kept.
    epoch: u64,
    newest: u64,
    oldest: u64,
    /// `true` once the log is complete.
    is_over: bool,
    /// The status with which the server refuses all requests, if it does.
    refuses: Option<u16>,
    fetches: usize,
    /// Number of connections that were opened.
    opened: usize,
    /// The file that the lives of its tabs are written to.
    traces: Option<Traces>,
}

/// A simulated tab.
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
struct FakeTab {
    tab: Tab<Content>,
    is_dead: bool,
    is_frozen: bool,
    /// `true` if it is in the background, where its timers do not run for a minute.
    is_hidden: bool,
    /// `true` once its token has expired.
    is_expired: bool,
    /// Inputs in flight, by source: each tab, the tab's stream, the lock, a fetch. Those of one
    /// source arrive in order.
    inbox: [VecDeque<TabInput<Content>>; TABS + 3],
    /// Its open connection, if it has one.
    stream: Option<FakeStream>,
    /// The event that it started after, and the events shown since.
    shown: Vec<EventId>,
    trace: Trace,
    /// Number of steps of the trace.
    steps: usize,
}

struct FakeStream {
    cursor: Option<EventId>,
    has_begun: bool,
}

const NO_CONTENT: DisconnectReason = DisconnectReason::Status { status: 204, detail: None };
const TABS: usize = 4;
const STREAM: usize = TABS;
const LOCK: usize = TABS + 1;
const FETCH: usize = TABS + 2;

#[derive(Clone, Debug)]
enum Action {
    /// The user opens the page again.
    Connect(usize),
    Stop(usize),
    PageHide(usize),
    PageShow(usize),
    /// Its process dies.
    Kill(usize),
    Freeze(usize),
    Thaw(usize),
    /// The user looks at another tab, or at this one.
    Hide(usize, bool),
    /// One input in flight arrives.
    Arrive(usize, usize),
    /// The server sends the next block of its stream.
    Send(usize),
    /// Its connection breaks; the browser reconnects, or gives up.
    Cut(usize, bool),
    /// The tab counts the tabs of its group, as it does every second.
    Count(usize),
    Publish,
    /// The browser refuses to give it the lock.
    Refuse(usize),
    Retain(u64),
    NewLog,
    /// The last event has been published, so the server has nothing more to send.
    Complete,
    /// From now on, the server refuses all requests with this status, or none.
    Refuses(Option<u16>),
    /// The tab's token expires, and its connection ends.
    Expire(usize),
    /// The user stops the stream, logs in, and starts it again.
    LogIn(usize),
    Pass(u64),
}

impl FakeBrowser {
    fn new() -> Self {
        let page = || FakeTab {
            tab: Tab::new(None),
            is_dead: false,
            is_frozen: false,
            is_hidden: false,
            is_expired: false,
            inbox: Default::default(),
            stream: None,
            shown: Vec::new(),
            trace: Trace::new(None::<EventId>),
            steps: 0,
        };
        Self {
            now: PageTime::ZERO,
            tabs: (0..TABS).map(|_| page()).collect(),
            lock: None,
            waiting: VecDeque::new(),
            epoch: 1,
            newest: 0,
            oldest: 1,
            is_over: false,
            refuses: None,
            fetches: 0,
            opened: 0,
            traces: None,
        }
    }

    fn id(&self, sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(self.epoch), sequence }
    }

    /// Returns the reason for which the server refuses the requests of a tab, if it does.
    fn refusal(&self, tab: usize) -> Option<DisconnectReason> {
        let expired = self.tabs[tab].is_expired.then_some(401);
        self.refuses.or(expired).map(answered)
    }

    /// Returns the server's answer to a cursor: `true` for a gap, and the position from which to
    /// continue.
    fn start(&self, cursor: Option<EventId>) -> (bool, u64) {
        match cursor {
            None => (false, self.newest),
            Some(id) if id.epoch != Epoch::new(self.epoch) => (true, self.oldest - 1),
            Some(id) if id.sequence + 1 < self.oldest => (true, self.oldest - 1),
            Some(id) => (false, id.sequence),
        }
    }

    /// Begins the life of a tab, and ends the one before.
    fn begin(&mut self, tab: usize, cursor: Option<EventId>) {
        let page = &mut self.tabs[tab];
        let before = std::mem::replace(&mut page.trace, Trace::new(cursor));
        let before = (before, std::mem::replace(&mut page.tab, Tab::new(cursor)));
        let steps = std::mem::take(&mut page.steps);
        if let Some(traces) = &mut self.traces
            && steps > 0
        {
            traces.write(&before.0, &before.1);
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Connect(tab)
            | Action::Stop(tab)
            | Action::PageHide(tab)
            | Action::PageShow(tab)
            | Action::LogIn(tab)
                if self.tabs[tab].is_frozen && !self.tabs[tab].is_dead => {}
            Action::Connect(tab) => {
                if self.tabs[tab].is_dead {
                    // A new page, with the events that the server rendered into it.
                    let cursor = self.id(self.newest);
                    self.tabs[tab].is_dead = false;
                    self.tabs[tab].is_frozen = false;
                    self.tabs[tab].is_hidden = false;
                    self.tabs[tab].is_expired = false;
                    self.begin(tab, Some(cursor));
                    self.tabs[tab].shown = vec![cursor];
                }
                self.input(tab, TabInput::Connect);
            }
            Action::Stop(tab) => self.input(tab, TabInput::Stop),
            Action::PageHide(tab) => self.input(tab, TabInput::PageHide),
            Action::PageShow(tab) => self.input(tab, TabInput::PageShow),
            Action::Kill(tab) => {
                self.tabs[tab].is_dead = true;
                self.tabs[tab].stream = None;
                self.tabs[tab].inbox = Default::default();
                self.release(tab);
            }
            Action::Freeze(tab) => self.tabs[tab].is_frozen = true,
            Action::Thaw(tab) => self.tabs[tab].is_frozen = false,
            Action::Hide(tab, is_hidden) => self.tabs[tab].is_hidden = is_hidden,
            Action::Arrive(tab, from) => {
                if !self.tabs[tab].is_frozen
                    && let Some(input) = self.tabs[tab].inbox[from].pop_front()
                {
                    self.input(tab, input);
                }
            }
            Action::Send(tab) => self.send(tab),
            Action::Cut(tab, gave_up) => {
                let page = &mut self.tabs[tab];
                if let Some(stream) = &mut page.stream {
                    stream.has_begun = false;
                    let input = if gave_up {
                        page.stream = None;
                        ConnectionInput::GaveUp
                    } else {
                        ConnectionInput::Lost
                    };
                    page.inbox[STREAM].push_back(TabInput::Connection(input));
                }
            }
            Action::Count(tab) => {
                let members = usize::from(self.lock.is_some()) + self.waiting.len();
                if members == 1 && !self.tabs[tab].is_frozen {
                    self.input(tab, TabInput::NoOtherTabs);
                }
            }
            Action::Refuse(tab) => {
                if self.waiting.contains(&tab) {
                    self.release(tab);
                    let input = TabInput::CannotShare { may_use_sockets: true };
                    self.tabs[tab].inbox[LOCK].push_back(input);
                }
            }
            Action::Publish if self.is_over => {}
            Action::Publish => self.newest += 1,
            Action::Complete => self.is_over = true,
            Action::Refuses(status) => self.refuses = status,
            Action::Expire(tab) => {
                self.tabs[tab].is_expired = true;
                self.act(&Action::Cut(tab, false));
            }
            Action::LogIn(tab) => {
                self.act(&Action::Stop(tab));
                self.tabs[tab].is_expired = false;
                self.act(&Action::Connect(tab));
            }
            Action::Retain(count) => {
                self.oldest = self.oldest.max((self.newest + 1).saturating_sub(count));
            }
            Action::NewLog => {
                (self.epoch, self.newest, self.oldest) = (self.epoch + 1, 0, 1);
                self.is_over = false;
                for tab in 0..TABS {
                    self.act(&Action::Cut(tab, false));
                }
            }
            Action::Pass(seconds_passed) => {
                self.now += seconds(seconds_passed);
                for tab in 0..TABS {
                    if !self.tabs[tab].is_frozen && !self.tabs[tab].is_hidden {
                        self.input(tab, TabInput::Tick);
                    }
                }
            }
        }
    }

    /// Sends the next block of a tab's stream.
    fn send(&mut self, tab: usize) {
        let Some(stream) = &self.tabs[tab].stream else { return };
        let (has_begun, cursor) = (stream.has_begun, stream.cursor);
        let (is_gap, start) = self.start(cursor);
        if self.refusal(tab).is_some() {
            self.act(&Action::Cut(tab, true));
            return;
        }
        if self.is_over && start == self.newest && !is_gap && cursor.is_some() {
            // The server closes the stream. When the browser reconnects, it is answered 204.
            self.act(&Action::Cut(tab, !has_begun));
            return;
        }
        let mut messages = Vec::new();
        let cursor = if !has_begun {
            let hello_id = (!is_gap).then_some(self.id(start));
            messages.push(StreamMessage {
                received: ReceivedMessage::Hello { id: hello_id, intervals: None },
                content: Content::Notice,
            });
            if is_gap {
                let cursor = Some(self.id(start));
                messages.push(StreamMessage {
                    received: ReceivedMessage::Gap { cursor },
                    content: Content::Notice,
                });
            }
            self.id(start)
        } else if start < self.newest {
            let next = self.id((start + 1).max(self.oldest));
            messages.push(event_or_end(next));
            next
        } else {
            let here = self.id(start);
            messages.push(StreamMessage {
                received: ReceivedMessage::Heartbeat { id: Some(here) },
                content: Content::Notice,
            });
            here
        };
        let page = &mut self.tabs[tab];
        page.inbox[STREAM].extend(messages.into_iter().map(TabInput::Message));
        page.stream = Some(FakeStream { cursor: Some(cursor), has_begun: true });
    }

    fn input(&mut self, tab: usize, input: TabInput<Content>) {
        if self.tabs[tab].is_dead {
            return;
        }
        let message =
            if let TabInput::Message(message) = &input { Some(message.clone()) } else { None };
        let page = &mut self.tabs[tab];
        let random = if self.traces.is_some() { traces::random(page.steps) } else { 0.5 };
        page.steps += 1;
        let traced = self.traces.is_some().then(|| input.clone());
        let effects = page.tab.step(self.now, random, input);
        if let Some(input) = traced {
            let FakeTab { tab, trace, .. } = page;
            let seen = (tab.role(), tab.state(), tab.reason(), tab.cursor(), tab.is_wanted());
            trace.step(self.now, random, &input, &effects, &seen);
        }
        for effect in effects {
            self.perform(tab, effect, message.as_ref());
        }
        let page = &self.tabs[tab];
        assert!(
            page.stream.is_none() || matches!(page.tab.role(), Role::Leader | Role::Standalone),
            "only a leader has a connection"
        );
    }

    fn perform(
        &mut self,
        tab: usize,
        effect: TabEffect<Content>,
        message: Option<&StreamMessage<Content>>,
    ) {
        match effect {
            TabEffect::Connection(ConnectionEffect::Open { after, .. }) => {
                self.opened += 1;
                self.tabs[tab].stream = Some(FakeStream { cursor: after, has_begun: false });
                self.tabs[tab].inbox[STREAM].clear();
            }
            TabEffect::Connection(ConnectionEffect::Close) => {
                self.tabs[tab].stream = None;
                self.tabs[tab].inbox[STREAM].clear();
            }
            TabEffect::Connection(ConnectionEffect::Explain) => {
                let is_over =
                    self.is_over && self.tabs[tab].tab.cursor() == Some(self.id(self.newest));
                let reason = match self.refusal(tab) {
                    Some(refusal) => refusal,
                    None if is_over => NO_CONTENT,
                    None => DisconnectReason::Recovered,
                };
                let explained = ConnectionInput::Explained(reason);
                self.tabs[tab].inbox[FETCH].push_back(TabInput::Connection(explained));
            }
            TabEffect::Join => {
                self.waiting.push_back(tab);
                self.grant();
            }
            TabEffect::Steal => {
                self.waiting.retain(|&waiting| waiting != tab);
                if let Some(from) = self.lock.replace(tab) {
                    self.tabs[from].inbox[LOCK].push_back(TabInput::Stolen);
                }
                self.tabs[tab].inbox[LOCK].push_back(TabInput::Granted);
            }
            TabEffect::Leave => self.release(tab),
            TabEffect::Ask => self.post(tab, &TabInput::Asked),
            TabEffect::Announce(status) => self.post(tab, &TabInput::Announced(status)),
            TabEffect::Relay { after } => {
                let message = message.expect("only a message is relayed").clone();
                self.post(tab, &TabInput::Relayed { after, message });
            }
            TabEffect::Fetch { number, after } => {
                self.fetches += 1;
                if let Some(reason) = self.refusal(tab) {
                    let failed = TabInput::FetchFailed { number, reason };
                    self.tabs[tab].inbox[FETCH].push_back(failed);
                    return;
                }
                let (is_gap, start) = self.start(Some(after));
                // At most three events at a time.
                let first = (start + 1).max(self.oldest);
                let last = self.newest.min(first + 2);
                let ids: Vec<_> = (first..=last).map(|n| self.id(n)).collect();
                let cursor = ids.last().copied().unwrap_or(self.id(start));
                let events = ids.into_iter().map(Content::Event).collect();
                let gap = is_gap.then_some(Content::Notice);
                let fetched = TabInput::Fetched(Fetched { number, gap, events, cursor });
                self.tabs[tab].inbox[FETCH].push_back(fetched);
            }
            TabEffect::Deliver(Content::Event(id)) => self.tabs[tab].shown.push(id),
            TabEffect::Deliver(Content::Notice) => {}
        }
    }

    fn post(&mut self, from: usize, input: &TabInput<Content>) {
        for (to, page) in self.tabs.iter_mut().enumerate() {
            if to != from && !page.is_dead {
                page.inbox[from].push_back(input.clone());
            }
        }
    }

    fn release(&mut self, tab: usize) {
        self.waiting.retain(|&waiting| waiting != tab);
        // A withdrawn request gets no answer.
        self.tabs[tab].inbox[LOCK].clear();
        if self.lock == Some(tab) {
            self.lock = None;
            self.grant();
        }
    }

    fn grant(&mut self) {
        if self.lock.is_none() {
            self.lock = self.waiting.pop_front();
            if let Some(tab) = self.lock {
                self.tabs[tab].inbox[LOCK].push_back(TabInput::Granted);
            }
        }
    }

    /// Wakes and shows every page.
    fn thaw(&mut self) {
        for tab in 0..TABS {
            self.act(&Action::Thaw(tab));
            self.act(&Action::Hide(tab, false));
            self.act(&Action::PageShow(tab));
        }
    }

    /// Lets time pass and all inputs arrive, without further disturbances.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.act(&Action::Pass(1));
            for _ in 0..4 {
                self.deliver_all();
            }
        }
    }

    /// Lets all inputs arrive, without time passing.
    fn deliver_all(&mut self) {
        for tab in 0..TABS {
            self.send(tab);
            while let Some(from) = self.arrives_next(tab) {
                self.act(&Action::Arrive(tab, from));
            }
        }
    }

    /// Lets the posts between tabs arrive, and the answers to them.
    fn deliver_posts(&mut self) {
        for _ in 0..2 {
            for (tab, from) in (0..TABS).flat_map(|tab| (0..TABS).map(move |from| (tab, from))) {
                for _ in 0..self.tabs[tab].inbox[from].len() {
                    self.act(&Action::Arrive(tab, from));
                }
            }
        }
    }

    /// Returns a source with an input in flight to a running tab.
    fn arrives_next(&self, tab: usize) -> Option<usize> {
        let page = &self.tabs[tab];
        page.inbox.iter().position(|queue| !queue.is_empty() && !page.is_frozen)
    }
}

fn action() -> impl Strategy<Value = Action> {
    let tab = || 0..TABS;
    prop_oneof![
        3 => tab().prop_map(Action::Connect),
        1 => tab().prop_map(Action::Stop),
        1 => tab().prop_map(Action::PageHide),
        1 => tab().prop_map(Action::PageShow),
        1 => tab().prop_map(Action::Kill),
        1 => tab().prop_map(Action::Freeze),
        1 => tab().prop_map(Action::Thaw),
        30 => (tab(), 0..TABS + 3).prop_map(|(tab, from)| Action::Arrive(tab, from)),
        8 => tab().prop_map(Action::Send),
        1 => (tab(), any::<bool>()).prop_map(|(tab, gave_up)| Action::Cut(tab, gave_up)),
        1 => tab().prop_map(Action::Count),
        4 => Just(Action::Publish),
        2 => (1..20_u64).prop_map(Action::Pass),
    ]
}

/// An action, or the loss of events.
fn action_or_loss() -> impl Strategy<Value = Action> {
    prop_oneof![
        30 => action(),
        1 => (0..TABS).prop_map(Action::Refuse),
        1 => (0..TABS).prop_map(Action::Expire),
        1 => (0..TABS).prop_map(Action::LogIn),
        1 => (0..TABS, any::<bool>()).prop_map(|(tab, is_hidden)| Action::Hide(tab, is_hidden)),
        1 => Just(Action::NewLog),
        1 => (0..5_u64).prop_map(Action::Retain),
    ]
}

#[test]
fn traces_are_written_for_the_client_in_typescript() {
    let mut traces = Traces::create("tab");
    let actions = traces.pool(action_or_loss());
    for n in 0..5_000 {
        let mut actions = traces.pick(&actions, 200);
        if n % 2 == 0 {
            actions.insert(actions.len() / 2, Action::Complete);
        }
        let mut browser = FakeBrowser { traces: Some(traces), ..FakeBrowser::new() };
        for tab in 0..TABS {
            // One of them starts from now.
            browser.begin(tab, (tab > 0).then(|| id(0)));
        }
        for action in &actions {
            browser.act(action);
        }
        browser.thaw();
        for status in [[None, Some(401), Some(403), Some(503)][n % 4], None] {
            browser.act(&Action::Refuses(status));
            for _ in 0..3 {
                browser.act(&Action::Publish);
                browser.act(&Action::Pass(2));
                browser.deliver_all();
            }
            if status.is_some() {
                (0..TABS).for_each(|tab| browser.act(&Action::Connect(tab)));
            }
        }
        for tab in 0..TABS {
            browser.begin(tab, None);
        }
        traces = browser.traces.take().unwrap();
    }
    traces.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_tab_has_every_event_once_and_in_order(
        actions in proptest::collection::vec(action(), 0..400),
    ) {
        let mut browser = FakeBrowser::new();
        for tab in &mut browser.tabs {
            tab.tab = Tab::new(Some(id(0)));
            tab.shown = vec![id(0)];
        }
        for action in &actions {
            browser.act(action);
        }
        browser.act(&Action::Publish);
        browser.settle();
        let newest = Some(browser.id(browser.newest));
        for page in browser.tabs.iter().filter(|page| !page.is_dead && !page.is_frozen) {
            let is_here = page.tab.is_wanted() && page.tab.role() != Role::Suspended;
            prop_assert!(!is_here || page.tab.cursor() == newest, "continues while others sleep");
        }
        browser.thaw();
        browser.settle();
        browser.act(&Action::Publish);
        browser.settle();
        let mut streams = 0;
        for page in browser.tabs.iter().filter(|page| !page.is_dead) {
            let shown: Vec<u64> = page.shown.iter().map(|id| id.sequence).collect();
            let last = if page.tab.is_wanted() { browser.newest } else { *shown.last().unwrap() };
            prop_assert_eq!(&shown, &(shown[0]..=last).collect::<Vec<_>>());
            streams += usize::from(page.stream.is_some());
        }
        let is_wanted = browser.tabs.iter().any(|page| !page.is_dead && page.tab.is_wanted());
        prop_assert_eq!(streams, usize::from(is_wanted), "one connection for all");
    }

    #[test]
    fn every_tab_stops_at_the_end_of_the_stream_once_it_has_read_all_of_it(
        before in proptest::collection::vec(action(), 0..200),
        after in proptest::collection::vec(action(), 0..100),
    ) {
        let mut browser = FakeBrowser::new();
        for tab in &mut browser.tabs {
            tab.tab = Tab::new(Some(id(0)));
            tab.shown = vec![id(0)];
        }
        for action in before.iter().chain([&Action::Publish, &Action::Complete]).chain(&after) {
            browser.act(action);
        }
        browser.thaw();
        browser.settle();
        browser.settle();
        for page in browser.tabs.iter().filter(|page| !page.is_dead) {
            let shown: Vec<u64> = page.shown.iter().map(|id| id.sequence).collect();
            prop_assert_eq!(&shown, &(shown[0]..=*shown.last().unwrap()).collect::<Vec<_>>());
            prop_assert!(!page.tab.is_wanted(), "all have stopped");
            if page.tab.reason() == Some(&NO_CONTENT) {
                prop_assert_eq!(shown.last(), Some(&browser.newest));
            }
            prop_assert!(page.stream.is_none());
        }
    }

    #[test]
    fn no_tab_asks_again_once_the_stream_is_refused_and_any_can_try_again(
        status in proptest::sample::select(vec![401, 403]),
        before in proptest::collection::vec(action(), 0..200),
        after in proptest::collection::vec(action(), 0..100),
    ) {
        let mut browser = FakeBrowser::new();
        for action in before.iter().chain([&Action::Refuses(Some(status))]).chain(&after) {
            browser.act(action);
        }
        browser.thaw();
        browser.settle();
        browser.settle();
        let opened = browser.opened;
        browser.settle();
        prop_assert_eq!(browser.opened, opened, "refused for good");
        for page in browser.tabs.iter().filter(|page| !page.is_dead) {
            prop_assert!(!page.tab.is_wanted() && page.stream.is_none());
        }
        browser.act(&Action::Refuses(None));
        for tab in 0..TABS {
            browser.act(&Action::Connect(tab));
        }
        browser.settle();
        browser.act(&Action::Publish);
        browser.settle();
        for page in &browser.tabs {
            prop_assert_eq!(page.tab.state(), &ConnectionState::Live);
            prop_assert_eq!(page.tab.cursor(), Some(browser.id(browser.newest)));
        }
    }

    #[test]
    fn a_tab_with_a_valid_token_reads_on_whatever_the_tokens_of_the_others(
        expired in proptest::collection::vec(0..TABS, 1..TABS),
        before in proptest::collection::vec(action(), 0..200),
        after in proptest::collection::vec(action(), 0..100),
    ) {
        let mut browser = FakeBrowser::new();
        for action in &before {
            browser.act(action);
        }
        for &tab in &expired {
            browser.act(&Action::Expire(tab));
        }
        for action in &after {
            browser.act(action);
        }
        browser.thaw();
        for &tab in &expired {
            browser.act(&Action::Hide(tab, browser.tabs[tab].is_expired));
        }
        browser.settle();
        browser.settle();
        browser.act(&Action::Publish);
        browser.settle();
        for page in browser.tabs.iter().filter(|page| !page.is_dead && !page.is_expired) {
            prop_assert_ne!(page.tab.state(), &ConnectionState::Refused);
            if page.tab.is_wanted() {
                prop_assert_eq!(page.tab.state(), &ConnectionState::Live);
                prop_assert_eq!(page.tab.cursor(), Some(browser.id(browser.newest)));
            }
        }
        let opened = browser.opened;
        browser.settle();
        prop_assert_eq!(browser.opened, opened, "no tab repeats a request that was refused");
    }

    #[test]
    fn a_tab_reads_on_after_its_user_has_logged_in_again(
        tab in 0..TABS,
        before in proptest::collection::vec(action(), 0..200),
        after in proptest::collection::vec(action(), 0..20),
    ) {
        let mut browser = FakeBrowser::new();
        for action in &before {
            browser.act(action);
        }
        browser.thaw();
        for action in [Action::Expire(tab), Action::PageHide(tab), Action::Publish] {
            browser.act(&action);
        }
        browser.settle();
        // It has missed an event, and the response to its request takes long.
        browser.act(&Action::PageShow(tab));
        browser.deliver_posts();
        for action in &after {
            browser.act(action);
        }
        browser.thaw();
        browser.act(&Action::LogIn(tab));
        browser.settle();
        browser.act(&Action::Publish);
        browser.settle();
        let page = &browser.tabs[tab];
        prop_assert_eq!(page.tab.state(), &ConnectionState::Live);
        prop_assert_eq!(page.tab.cursor(), Some(browser.id(browser.newest)));
    }

    #[test]
    fn every_tab_catches_up_with_the_log_even_if_it_is_replaced(
        actions in proptest::collection::vec(action_or_loss(), 0..300),
    ) {
        let mut browser = FakeBrowser::new();
        for tab in &mut browser.tabs {
            tab.tab = Tab::new(Some(id(0)));
        }
        for action in &actions {
            browser.act(action);
        }
        browser.thaw();
        browser.settle();
        // On a busy stream, too, tabs follow without a request for each event.
        browser.fetches = 0;
        for _ in 0..100 {
            browser.act(&Action::Publish);
            browser.deliver_all();
        }
        prop_assert!(browser.fetches < 50, "{} fetches", browser.fetches);
        for _ in 0..3 {
            browser.act(&Action::Publish);
        }
        browser.settle();
        for page in browser.tabs.iter().filter(|page| !page.is_dead && page.tab.is_wanted()) {
            let newest: Vec<EventId> = page.shown.iter().rev().take(3).rev().copied().collect();
            let expected: Vec<EventId> =
                (browser.newest - 2..=browser.newest).map(|n| browser.id(n)).collect();
            prop_assert_eq!(newest, expected);
            // No event comes twice.
            let mut seen = std::collections::HashSet::new();
            prop_assert!(page.shown.iter().all(|id| seen.insert(*id)), "{:?}", page.shown);
        }
    }
}

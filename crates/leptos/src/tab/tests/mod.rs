//! Single situations.

mod model;

use waterclock::id::Epoch;

use super::*;

const NO_CONTENT: DisconnectReason = DisconnectReason::Status { status: 204, detail: None };

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

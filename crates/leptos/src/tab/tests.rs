//! Some situations by hand, and a model of a browser with many tabs in which anything may happen.

use proptest::prelude::*;
use waterclock::id::Epoch;

use super::*;
use crate::connection::Effect as Do;

fn id(sequence: u64) -> EventId {
    EventId { epoch: Epoch::new(1), sequence }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn event(id: EventId) -> Message<Option<EventId>> {
    Message { said: Said::Event { id: Some(id) }, content: Some(id) }
}

fn passed(after: u64, sequence: u64) -> Input<Option<EventId>> {
    Input::Posted(Post::Passed { after: Some(id(after)), message: event(id(sequence)) })
}

fn shown(effects: &[Effect<Option<EventId>>]) -> Vec<u64> {
    let sequence = |effect: &Effect<Option<EventId>>| match effect {
        Effect::Show(content) => content.map(|id| id.sequence),
        _ => None,
    };
    effects.iter().filter_map(sequence).collect()
}

/// A tab that waits for the lock, after event 5.
fn follower() -> Tab<Option<EventId>> {
    let mut tab = Tab::new(Some(id(5)));
    let effects = tab.step(seconds(0), 0.0, Input::Connect);
    assert_eq!(effects, [Effect::Join, Effect::Post(Post::Ask)]);
    tab
}

/// A tab that has the connection, after event 5, and has heard of others.
fn owner() -> Tab<Option<EventId>> {
    let mut tab = follower();
    let effects = tab.step(seconds(0), 0.0, Input::Granted);
    assert_eq!(effects[0], Effect::Own(Do::Open { after: Some(id(5)) }));
    assert!(matches!(effects[1], Effect::Post(Post::Status(_))), "the others hear who it is");
    tab
}

#[test]
fn an_owner_passes_on_what_is_new_with_what_it_follows() {
    let mut tab = owner();
    let effects = tab.step(seconds(1), 0.0, Input::Message(event(id(7))));
    assert_eq!(
        effects[0],
        Effect::Post(Post::Passed { after: Some(id(5)), message: event(id(7)) })
    );
    assert_eq!(shown(&effects), [7]);
    let effects = tab.step(seconds(1), 0.0, Input::Message(event(id(7))));
    assert_eq!(effects, [], "it comes again");
}

#[test]
fn an_owner_that_is_alone_posts_nothing() {
    let mut tab = owner();
    assert_eq!(tab.step(seconds(9), 0.0, Input::Only), []);
    let effects = tab.step(seconds(9), 0.0, Input::Message(event(id(7))));
    assert_eq!(effects, [Effect::Show(Some(id(7)))]);
    // Until it hears of another.
    let effects = tab.step(seconds(9), 0.0, Input::Posted(Post::Ask));
    assert!(matches!(*effects, [Effect::Post(Post::Status(Status { state: State::Live, .. }))]));
    assert_eq!(tab.step(seconds(10), 0.0, Input::Only), [], "counted before the other came");
    assert_eq!(tab.step(seconds(10), 0.0, Input::Message(event(id(8)))).len(), 2);
}

#[test]
fn a_follower_drops_what_it_has_and_fetches_what_it_lacks() {
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, passed(3, 5)), []);
    assert_eq!(shown(&tab.step(seconds(1), 0.0, passed(4, 6))), [6]);
    assert_eq!(tab.state(), &State::Live);

    let effects = tab.step(seconds(1), 0.0, passed(8, 9));
    assert_eq!(effects, [Effect::Fetch { after: id(6) }]);
    // What comes meanwhile waits, and is not asked for once more.
    assert_eq!(tab.step(seconds(1), 0.0, passed(9, 10)), []);
    let fetched = Input::Fetched {
        after: id(6),
        gap: None,
        events: vec![Some(id(8)), Some(id(9))],
        cursor: id(9),
    };
    assert_eq!(shown(&tab.step(seconds(1), 0.0, fetched)), [8, 9, 10]);
    assert_eq!(tab.cursor(), Some(id(10)));
}

#[test]
fn a_new_tab_of_a_quiet_topic_fetches_what_has_happened_since_it_was_rendered() {
    let mut tab = follower();
    let status =
        Status { state: State::Live, reason: None, cursor: Some(id(7)), heartbeat: seconds(15) };
    let effects = tab.step(seconds(0), 0.0, Input::Posted(Post::Status(status)));
    assert_eq!(effects, [Effect::Fetch { after: id(5) }]);
}

#[test]
fn a_fetch_that_fails_is_tried_again_at_the_next_tick() {
    let mut tab = follower();
    let fetch = [Effect::Fetch { after: id(5) }];
    assert_eq!(tab.step(seconds(1), 0.0, passed(8, 9)), fetch);
    assert_eq!(tab.step(seconds(1), 0.0, Input::NotFetched), []);
    assert_eq!(tab.step(seconds(1), 0.0, passed(9, 10)), []);
    assert_eq!(tab.step(seconds(2), 0.0, Input::Tick), fetch);
}

#[test]
fn an_owner_that_does_not_answer_is_stolen_from() {
    let mut tab = follower();
    let status =
        Status { state: State::Live, reason: None, cursor: Some(id(5)), heartbeat: seconds(15) };
    assert_eq!(tab.step(seconds(0), 0.0, Input::Posted(Post::Status(status.clone()))), []);
    assert_eq!(tab.step(seconds(19), 0.0, Input::Tick), []);
    assert_eq!(tab.step(seconds(20), 0.0, Input::Tick), [Effect::Post(Post::Ask)]);
    for now in 21..25 {
        assert_eq!(tab.step(seconds(now), 0.0, Input::Tick), []);
    }
    assert_eq!(tab.step(seconds(25), 0.0, Input::Tick), [Effect::Steal]);

    // One that answers is not; and a tab that slept itself first handles the answer.
    let mut tab = follower();
    for now in [100, 200, 300] {
        assert_eq!(tab.step(seconds(now), 0.0, Input::Tick), [Effect::Post(Post::Ask)]);
        assert_eq!(tab.step(seconds(now + 50), 0.0, Input::Tick), []);
        assert_eq!(
            tab.step(seconds(now + 50), 0.0, Input::Posted(Post::Status(status.clone()))),
            []
        );
    }
}

#[test]
fn one_that_was_stolen_from_closes_its_connection_and_follows() {
    let mut tab = owner();
    let effects = tab.step(seconds(1), 0.0, Input::Stolen);
    assert_eq!(effects, [Effect::Own(Do::Close), Effect::Join, Effect::Post(Post::Ask)]);
    assert_eq!(tab.role(), Role::Follower);
    assert_eq!(tab.step(seconds(1), 0.0, Input::Message(event(id(6)))), [], "late news");
}

#[test]
fn a_page_that_is_put_away_holds_nothing_and_comes_back() {
    let mut tab = owner();
    let effects = tab.step(seconds(1), 0.0, Input::Hide);
    assert_eq!(effects, [Effect::Own(Do::Close), Effect::Leave]);
    assert_eq!(tab.step(seconds(1), 0.0, Input::Granted), [Effect::Leave], "too late");
    assert!(tab.is_wanted());
    assert_eq!(tab.step(seconds(9), 0.0, Input::Show)[0], Effect::Join);
    // One that was stopped stays so.
    let _ = tab.step(seconds(9), 0.0, Input::Stop);
    let _ = tab.step(seconds(9), 0.0, Input::Hide);
    assert_eq!(tab.step(seconds(9), 0.0, Input::Show), []);
    assert_eq!(tab.state(), &State::Stopped);
}

#[test]
fn without_locks_a_tab_has_a_connection_of_its_own() {
    let mut tab = follower();
    let effects = tab.step(seconds(0), 0.0, Input::Unshared);
    assert_eq!(effects, [Effect::Own(Do::Open { after: Some(id(5)) })]);
    assert_eq!(
        tab.step(seconds(1), 0.0, Input::Message(event(id(6)))),
        [Effect::Show(Some(id(6)))]
    );
    assert_eq!(tab.role(), Role::Alone);
}

#[test]
fn that_there_is_no_more_is_for_all() {
    let mut tab = owner();
    let _ = tab.step(seconds(1), 0.0, Input::Own(connection::Input::GaveUp));
    let reason = Reason::Status { status: 204, detail: None };
    let explained = Input::Own(connection::Input::Explained(reason.clone()));
    let effects = tab.step(seconds(1), 0.0, explained);
    let [Effect::Post(Post::Status(status))] = &*effects else {
        panic!("{effects:?}");
    };
    assert_eq!((tab.is_wanted(), tab.state()), (false, &State::Stopped));
    assert_eq!(tab.step(seconds(2), 0.0, Input::Tick), [Effect::Leave], "once the others know");
    assert_eq!((tab.role(), tab.reason()), (Role::Out, Some(&reason)));

    let mut other = follower();
    let effects = other.step(seconds(1), 0.0, Input::Posted(Post::Status(status.clone())));
    assert_eq!(effects.last(), Some(&Effect::Leave));
    assert_eq!((other.state(), other.reason()), (&State::Stopped, Some(&reason)));
}

#[test]
fn one_that_is_alone_may_be_told_that_there_is_no_more() {
    let mut tab = follower();
    let _ = tab.step(seconds(0), 0.0, Input::Unshared);
    let _ = tab.step(seconds(1), 0.0, Input::Own(connection::Input::GaveUp));
    let reason = Reason::Status { status: 204, detail: None };
    let _ = tab.step(seconds(1), 0.0, Input::Own(connection::Input::Explained(reason)));
    assert!(!tab.is_wanted());
    let _ = tab.step(seconds(1), 0.0, Input::Hide);
    assert_eq!(tab.step(seconds(1), 0.0, Input::Show), [], "it stays stopped");
    assert_eq!(tab.step(seconds(1), 0.0, Input::Connect)[0], Effect::Join);
}

#[test]
fn what_is_held_of_a_log_that_is_no_more_is_dropped() {
    let mut tab = follower();
    assert_eq!(tab.step(seconds(1), 0.0, passed(8, 9)), [Effect::Fetch { after: id(5) }]);
    let new = |sequence| EventId { epoch: Epoch::new(2), sequence };
    let gap = Message { said: Said::Gap { cursor: Some(new(0)) }, content: None };
    let gap = Input::Posted(Post::Passed { after: Some(id(9)), message: gap });
    assert_eq!(tab.step(seconds(1), 0.0, gap), []);
    // The server has begun a new log by the time that it answers.
    let fetched = |after, upto: EventId| Input::Fetched {
        after,
        gap: (after == id(5)).then_some(None),
        events: vec![Some(upto)],
        cursor: upto,
    };
    let effects = tab.step(seconds(1), 0.0, fetched(id(5), new(1)));
    // The gap was held after that was asked for, so it is asked once more, and then no longer.
    assert_eq!(effects.last(), Some(&Effect::Fetch { after: new(1) }));
    let effects = tab.step(seconds(1), 0.0, fetched(new(1), new(2)));
    assert_eq!(effects, [Effect::Show(Some(new(2)))]);
}

#[test]
fn a_follower_that_began_with_nothing_takes_a_gap_as_it_comes() {
    let mut tab = Tab::new(None);
    let _ = tab.step(seconds(0), 0.0, Input::Connect);
    let gap = Message { said: Said::Gap { cursor: Some(id(3)) }, content: None };
    let gap = Input::Posted(Post::Passed { after: Some(id(1)), message: gap });
    assert_eq!(tab.step(seconds(1), 0.0, gap), [Effect::Show(None)]);
    assert_eq!(shown(&tab.step(seconds(1), 0.0, passed(3, 4))), [4]);
}

#[test]
fn what_was_held_is_let_go_when_the_lock_is_granted() {
    let mut tab = follower();
    let _ = tab.step(seconds(1), 0.0, passed(8, 9));
    let _ = tab.step(seconds(1), 0.0, Input::Granted);
    let _ = tab.step(seconds(2), 0.0, Input::Stolen);
    let fetch = [Effect::Fetch { after: id(5) }];
    assert_eq!(tab.step(seconds(3), 0.0, passed(8, 9)), fetch, "nothing is under way");
}

#[test]
fn a_follower_shows_how_long_its_owner_waits_by_its_own_clock() {
    let mut owner = owner();
    let effects = owner.step(seconds(1000), 1.0, Input::Own(connection::Input::GaveUp));
    let Some(Effect::Post(Post::Status(status))) = effects.last() else { panic!("{effects:?}") };
    let mut tab = follower();
    let _ = tab.step(seconds(7), 0.0, Input::Posted(Post::Status(status.clone())));
    assert_eq!(tab.state(), &State::Waiting { until: seconds(8) });
}

/// A browser with tabs, and a server with one log.
struct Browser {
    now: Instant,
    tabs: Vec<Page>,
    /// Which tab has the lock, and which wait for it.
    lock: Option<usize>,
    waiting: VecDeque<usize>,
    /// The log, in whose epoch, and from which event on it is kept.
    epoch: u64,
    newest: u64,
    oldest: u64,
    fetches: usize,
}

/// One of them.
struct Page {
    tab: Tab<Option<EventId>>,
    is_dead: bool,
    is_frozen: bool,
    /// What is under way to it: from each tab, from its stream, from the lock, from a fetch. What
    /// comes from one of them comes in order.
    inbox: [VecDeque<Input<Option<EventId>>>; TABS + 3],
    /// Where its connection is, if it has one that is open.
    stream: Option<Stream>,
    /// Which event it began after, and what it has shown since.
    shown: Vec<EventId>,
}

struct Stream {
    cursor: Option<EventId>,
    has_begun: bool,
}

const TABS: usize = 4;
const STREAM: usize = TABS;
const LOCK: usize = TABS + 1;
const FETCH: usize = TABS + 2;

#[derive(Clone, Debug)]
enum Step {
    /// The user opens the page again.
    Connect(usize),
    Stop(usize),
    Hide(usize),
    Show(usize),
    /// Its process dies.
    Kill(usize),
    Freeze(usize),
    Thaw(usize),
    /// One thing that is under way arrives.
    Arrive(usize, usize),
    /// The server sends the next block of its stream.
    Send(usize),
    /// Its connection breaks; the browser tries again, or not.
    Cut(usize, bool),
    Publish,
    Retain(u64),
    NewLog,
    Pass(u64),
}

impl Browser {
    fn new() -> Self {
        let page = || Page {
            tab: Tab::new(None),
            is_dead: false,
            is_frozen: false,
            inbox: Default::default(),
            stream: None,
            shown: Vec::new(),
        };
        Self {
            now: Instant::ZERO,
            tabs: (0..TABS).map(|_| page()).collect(),
            lock: None,
            waiting: VecDeque::new(),
            epoch: 1,
            newest: 0,
            oldest: 1,
            fetches: 0,
        }
    }

    fn id(&self, sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(self.epoch), sequence }
    }

    /// What a cursor is answered with: whether there is a gap, and where the reader goes on.
    fn start(&self, cursor: Option<EventId>) -> (bool, u64) {
        match cursor {
            None => (false, self.newest),
            Some(id) if id.epoch != Epoch::new(self.epoch) => (true, self.oldest - 1),
            Some(id) if id.sequence + 1 < self.oldest => (true, self.oldest - 1),
            Some(id) => (false, id.sequence),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect(tab) | Step::Stop(tab) | Step::Hide(tab) | Step::Show(tab)
                if self.tabs[tab].is_frozen && !self.tabs[tab].is_dead => {}
            Step::Connect(tab) => {
                if self.tabs[tab].is_dead {
                    // A new one, with what the server rendered into it.
                    let cursor = self.id(self.newest);
                    self.tabs[tab].is_dead = false;
                    self.tabs[tab].is_frozen = false;
                    self.tabs[tab].tab = Tab::new(Some(cursor));
                    self.tabs[tab].shown = vec![cursor];
                }
                self.input(tab, Input::Connect);
            }
            Step::Stop(tab) => self.input(tab, Input::Stop),
            Step::Hide(tab) => self.input(tab, Input::Hide),
            Step::Show(tab) => self.input(tab, Input::Show),
            Step::Kill(tab) => {
                self.tabs[tab].is_dead = true;
                self.tabs[tab].stream = None;
                self.tabs[tab].inbox = Default::default();
                self.release(tab);
            }
            Step::Freeze(tab) => self.tabs[tab].is_frozen = true,
            Step::Thaw(tab) => self.tabs[tab].is_frozen = false,
            Step::Arrive(tab, from) => {
                if !self.tabs[tab].is_frozen
                    && let Some(input) = self.tabs[tab].inbox[from].pop_front()
                {
                    self.input(tab, input);
                }
            }
            Step::Send(tab) => self.send(tab),
            Step::Cut(tab, gave_up) => {
                let page = &mut self.tabs[tab];
                if let Some(stream) = &mut page.stream {
                    stream.has_begun = false;
                    let input = if gave_up {
                        page.stream = None;
                        connection::Input::GaveUp
                    } else {
                        connection::Input::Lost
                    };
                    page.inbox[STREAM].push_back(Input::Own(input));
                }
            }
            Step::Publish => self.newest += 1,
            Step::Retain(count) => {
                self.oldest = self.oldest.max((self.newest + 1).saturating_sub(count));
            }
            Step::NewLog => {
                (self.epoch, self.newest, self.oldest) = (self.epoch + 1, 0, 1);
                for tab in 0..TABS {
                    self.step(&Step::Cut(tab, false));
                }
            }
            Step::Pass(seconds_passed) => {
                self.now += seconds(seconds_passed);
                for tab in 0..TABS {
                    if !self.tabs[tab].is_frozen {
                        self.input(tab, Input::Tick);
                    }
                }
            }
        }
    }

    /// The server sends the next block of a tab's stream.
    fn send(&mut self, tab: usize) {
        let Some(stream) = &self.tabs[tab].stream else { return };
        let (has_begun, cursor) = (stream.has_begun, stream.cursor);
        let (is_gap, start) = self.start(cursor);
        let mut said = Vec::new();
        let cursor = if !has_begun {
            let hello_id = (!is_gap).then_some(self.id(start));
            said.push(Message {
                said: Said::Hello { id: hello_id, intervals: None },
                content: None,
            });
            if is_gap {
                let cursor = Some(self.id(start));
                said.push(Message { said: Said::Gap { cursor }, content: None });
            }
            self.id(start)
        } else if start < self.newest {
            let next = self.id((start + 1).max(self.oldest));
            said.push(event(next));
            next
        } else {
            let here = self.id(start);
            said.push(Message { said: Said::Heartbeat { id: Some(here) }, content: None });
            here
        };
        let page = &mut self.tabs[tab];
        page.inbox[STREAM].extend(said.into_iter().map(Input::Message));
        page.stream = Some(Stream { cursor: Some(cursor), has_begun: true });
    }

    fn input(&mut self, tab: usize, input: Input<Option<EventId>>) {
        if self.tabs[tab].is_dead {
            return;
        }
        for effect in self.tabs[tab].tab.step(self.now, 0.5, input) {
            self.do_it(tab, effect);
        }
        let page = &self.tabs[tab];
        assert!(
            page.stream.is_none() || matches!(page.tab.role(), Role::Owner | Role::Alone),
            "only an owner has a connection"
        );
    }

    fn do_it(&mut self, tab: usize, effect: Effect<Option<EventId>>) {
        match effect {
            Effect::Own(Do::Open { after }) => {
                self.tabs[tab].stream = Some(Stream { cursor: after, has_begun: false });
                self.tabs[tab].inbox[STREAM].clear();
            }
            Effect::Own(Do::Close) => {
                self.tabs[tab].stream = None;
                self.tabs[tab].inbox[STREAM].clear();
            }
            Effect::Own(Do::Explain) => {
                let explained = connection::Input::Explained(Reason::Recovered);
                self.tabs[tab].inbox[FETCH].push_back(Input::Own(explained));
            }
            Effect::Join => {
                self.waiting.push_back(tab);
                self.grant();
            }
            Effect::Steal => {
                self.waiting.retain(|&waiting| waiting != tab);
                if let Some(from) = self.lock.replace(tab) {
                    self.tabs[from].inbox[LOCK].push_back(Input::Stolen);
                }
                self.tabs[tab].inbox[LOCK].push_back(Input::Granted);
            }
            Effect::Leave => self.release(tab),
            Effect::Post(post) => {
                for (to, page) in self.tabs.iter_mut().enumerate() {
                    if to != tab && !page.is_dead {
                        page.inbox[tab].push_back(Input::Posted(post.clone()));
                    }
                }
            }
            Effect::Fetch { after } => {
                self.fetches += 1;
                let (is_gap, start) = self.start(Some(after));
                // At most three events at a time.
                let first = (start + 1).max(self.oldest);
                let last = self.newest.min(first + 2);
                let events: Vec<_> = (first..=last).map(|n| Some(self.id(n))).collect();
                let cursor = events.last().copied().flatten().unwrap_or(self.id(start));
                let gap = is_gap.then_some(None);
                let fetched = Input::Fetched { after, gap, events, cursor };
                self.tabs[tab].inbox[FETCH].push_back(fetched);
            }
            Effect::Show(Some(id)) => self.tabs[tab].shown.push(id),
            Effect::Show(None) => {}
        }
    }

    fn release(&mut self, tab: usize) {
        self.waiting.retain(|&waiting| waiting != tab);
        // The answer to a request that was taken back does not come.
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
                self.tabs[tab].inbox[LOCK].push_back(Input::Granted);
            }
        }
    }

    /// Brings every page back.
    fn thaw(&mut self) {
        for tab in 0..TABS {
            self.step(&Step::Thaw(tab));
            self.step(&Step::Show(tab));
        }
    }

    /// Lets everything arrive, and time pass, with nothing more in the way.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.step(&Step::Pass(1));
            for _ in 0..4 {
                self.settle_at_once();
            }
        }
    }

    /// The same, before time passes.
    fn settle_at_once(&mut self) {
        for tab in 0..TABS {
            self.send(tab);
            while let Some(from) = self.arrives_next(tab) {
                self.step(&Step::Arrive(tab, from));
            }
        }
    }

    /// From where something is under way to a tab that runs.
    fn arrives_next(&self, tab: usize) -> Option<usize> {
        let page = &self.tabs[tab];
        page.inbox.iter().position(|queue| !queue.is_empty() && !page.is_frozen)
    }
}

fn step() -> impl Strategy<Value = Step> {
    let tab = || 0..TABS;
    prop_oneof![
        3 => tab().prop_map(Step::Connect),
        1 => tab().prop_map(Step::Stop),
        1 => tab().prop_map(Step::Hide),
        1 => tab().prop_map(Step::Show),
        1 => tab().prop_map(Step::Kill),
        1 => tab().prop_map(Step::Freeze),
        1 => tab().prop_map(Step::Thaw),
        30 => (tab(), 0..TABS + 3).prop_map(|(tab, from)| Step::Arrive(tab, from)),
        8 => tab().prop_map(Step::Send),
        1 => (tab(), any::<bool>()).prop_map(|(tab, gave_up)| Step::Cut(tab, gave_up)),
        4 => Just(Step::Publish),
        2 => (1..20_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_tab_has_every_event_once_and_in_order(
        steps in proptest::collection::vec(step(), 0..400),
    ) {
        let mut browser = Browser::new();
        for tab in &mut browser.tabs {
            tab.tab = Tab::new(Some(id(0)));
            tab.shown = vec![id(0)];
        }
        for step in &steps {
            browser.step(step);
        }
        browser.step(&Step::Publish);
        browser.settle();
        let newest = Some(browser.id(browser.newest));
        for page in browser.tabs.iter().filter(|page| !page.is_dead && !page.is_frozen) {
            let is_here = page.tab.is_wanted() && page.tab.role() != Role::Away;
            prop_assert!(!is_here || page.tab.cursor() == newest, "others sleep, this one goes on");
        }
        browser.thaw();
        browser.settle();
        browser.step(&Step::Publish);
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
    fn whatever_happens_to_the_log_every_tab_ends_with_what_it_keeps(
        steps in proptest::collection::vec(
            prop_oneof![30 => step(), 1 => Just(Step::NewLog), 1 => (0..5_u64).prop_map(Step::Retain)],
            0..300,
        ),
    ) {
        let mut browser = Browser::new();
        for tab in &mut browser.tabs {
            tab.tab = Tab::new(Some(id(0)));
        }
        for step in &steps {
            browser.step(step);
        }
        browser.thaw();
        browser.settle();
        // On a busy stream, too, tabs come to follow it without asking for each event.
        browser.fetches = 0;
        for _ in 0..100 {
            browser.step(&Step::Publish);
            browser.settle_at_once();
        }
        prop_assert!(browser.fetches < 50, "{} fetches", browser.fetches);
        for _ in 0..3 {
            browser.step(&Step::Publish);
        }
        browser.settle();
        for page in browser.tabs.iter().filter(|page| !page.is_dead && page.tab.is_wanted()) {
            let newest: Vec<EventId> = page.shown.iter().rev().take(3).rev().copied().collect();
            let expected: Vec<EventId> =
                (browser.newest - 2..=browser.newest).map(|n| browser.id(n)).collect();
            prop_assert_eq!(newest, expected);
            // Nothing of one log comes twice.
            let mut seen = std::collections::HashSet::new();
            prop_assert!(page.shown.iter().all(|id| seen.insert(*id)), "{:?}", page.shown);
        }
    }
}

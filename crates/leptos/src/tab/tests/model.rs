//! A model of a browser in which tabs die, sleep and come back at any moment.

use proptest::prelude::*;

use super::*;
use crate::traces::{self, Trace, Traces};

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

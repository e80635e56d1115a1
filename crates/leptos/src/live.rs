//! An event stream in signals, kept open by the connection rules and shared with the browser's
//! other tabs.

use std::{fmt, sync::Arc};

use leptos::{prelude::*, task::spawn_local};
use send_wrapper::SendWrapper;
use waterclock::{
    id::EventId,
    notice::{Hello, Notice as _},
};

use crate::{
    browser::{
        self, GroupEvent, Lifecycle, PollResponse, RawMessage, SourceEvent, TabGroup, count_tabs,
        explain, json_member,
    },
    channel,
    connection::{ConnectionEffect, ConnectionInput, ConnectionState, DisconnectReason, PageTime},
    message::{self, StreamUpdate},
    tab::{Fetched, Role, Tab, TabEffect, TabInput},
};

/// The stream that a [`Live`] reads: `/events`, `/poll` to fetch missing events, and `/ws` where a
/// browser cannot share a connection. They must be at the root of the page's own origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveOptions {
    /// The topics, as the query of a stream: `topic=a&topic=b`. If it is empty, the server's
    /// default applies.
    pub query: String,
    /// The event after which the stream starts; `None` starts with the next event.
    pub cursor: Option<EventId>,
    /// Name of the group of tabs that share one connection. Tabs of a group must read the same
    /// topics with the same permission. If it is empty, nothing is shared.
    pub group: String,
    /// The reason for which the server will refuse the stream, if that is known. Then it is not
    /// opened before [`Live::connect`] is called.
    pub refusal: Option<DisconnectReason>,
}

/// An event stream and the state of its connection. The stream stops when the reactive owner that
/// created it is cleaned up.
///
/// The methods that return a value are reactive: a view or an effect that calls one is updated when
/// the value changes.
#[derive(Clone, Copy)]
pub struct Live {
    tab: StoredValue<Tab<StreamUpdate>>,
    options: StoredValue<LiveOptions>,
    /// URL of this tab's own connection, while it should be open.
    url: RwSignal<Option<String>>,
    /// Membership in the group of tabs, while this tab takes part.
    group: StoredValue<Option<SendWrapper<TabGroup>>>,
    on_update: StoredValue<Arc<dyn Fn(StreamUpdate) + Send + Sync>>,
    status: RwSignal<LiveStatus>,
    now: RwSignal<PageTime>,
    tab_count: RwSignal<Option<usize>>,
    /// The name of the node; empty if it is not known.
    node: RwSignal<String>,
}

/// The part of the rules' state that views see.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LiveStatus {
    state: ConnectionState,
    reason: Option<DisconnectReason>,
    role: Role,
    is_wanted: bool,
}

impl LiveStatus {
    fn of(tab: &Tab<StreamUpdate>) -> Self {
        Self {
            state: tab.state().clone(),
            reason: tab.reason().cloned(),
            role: tab.role(),
            is_wanted: tab.is_wanted(),
        }
    }
}

impl Live {
    /// Creates a stream that opens as soon as the page runs in a browser, and calls `on_update` for
    /// each update. While the server renders, it does nothing.
    pub fn new(
        options: LiveOptions,
        on_update: impl Fn(StreamUpdate) + Send + Sync + 'static,
    ) -> Self {
        let mut tab = Tab::new(options.cursor);
        let is_refused = options.refusal.is_some();
        if let Some(reason) = options.refusal.clone() {
            tab.refuse(reason);
        }
        let live = Self {
            status: RwSignal::new(LiveStatus::of(&tab)),
            tab: StoredValue::new(tab),
            options: StoredValue::new(options),
            url: RwSignal::default(),
            group: StoredValue::default(),
            on_update: StoredValue::new(Arc::new(on_update)),
            now: RwSignal::default(),
            tab_count: RwSignal::default(),
            node: RwSignal::default(),
        };
        let source = browser::event_source(live.url.into(), &message::NAMES);
        effect(move || {
            for event in source.take() {
                live.receive(event);
            }
        });
        effect(move || {
            if !is_refused {
                live.connect();
            }
            browser::every_second(move || live.tick());
            browser::on_lifecycle(move |event| match event {
                Lifecycle::PageHide => live.input(TabInput::PageHide),
                Lifecycle::PageShow => live.input(TabInput::PageShow),
                Lifecycle::Visible => live.tick(),
                Lifecycle::Online => live.input(TabInput::Online),
            });
        });
        on_cleanup(move || live.group.set_value(None));
        live
    }

    /// Returns the state of the connection, in whichever tab it is.
    pub fn state(self) -> ConnectionState {
        self.status.with(|status| status.state.clone())
    }

    /// Returns the reason for the missing connection, if it is known.
    pub fn reason(self) -> Option<DisconnectReason> {
        self.status.with(|status| status.reason.clone())
    }

    /// Returns this tab's part in sharing the connection.
    pub fn role(self) -> Role {
        self.status.with(|status| status.role)
    }

    /// Returns `true` if the stream is wanted. A button then shows "Stop".
    pub fn is_wanted(self) -> bool {
        self.status.with(|status| status.is_wanted)
    }

    /// Returns the number of tabs that share the connection, if it is known.
    pub fn tab_count(self) -> Option<usize> {
        self.tab_count.get()
    }

    /// Returns the name of the node that serves the stream, in whichever tab the stream is, or
    /// served the last one. `None` if the server is not one of a cluster.
    pub fn node(self) -> Option<String> {
        Some(self.node.get()).filter(|name| !name.is_empty())
    }

    /// Returns the time to compare [`ConnectionState::Waiting`] with. It advances about once a
    /// second.
    pub fn now(self) -> PageTime {
        self.now.get()
    }

    /// Opens the stream after the last event, or makes an immediate attempt during a backoff.
    pub fn connect(self) {
        self.input(TabInput::Connect);
    }

    /// Stops the stream in this tab.
    pub fn stop(self) {
        self.input(TabInput::Stop);
    }

    /// Stops the stream if it is wanted, and connects it otherwise.
    pub fn toggle(self) {
        if self.tab.with_value(Tab::is_wanted) { self.stop() } else { self.connect() }
    }

    fn tick(self) {
        self.input(TabInput::Tick);
        if browser::is_visible() {
            self.count_tabs();
        }
    }

    fn count_tabs(self) {
        if !self.group.with_value(Option::is_some) {
            self.tab_count.set(None);
            return;
        }
        let name = self.options.with_value(|options| channel::name(&options.group));
        spawn_local(async move {
            let tabs = count_tabs(&name).await;
            // The page may be gone meanwhile.
            let _ = self.tab_count.try_set(tabs);
            if tabs == Some(1) {
                self.input(TabInput::NoOtherTabs);
            }
        });
    }

    /// Handles an event of this tab's own connection.
    fn receive(self, event: SourceEvent) {
        match event {
            SourceEvent::Opened => self.input(TabInput::Connection(ConnectionInput::Opened)),
            SourceEvent::Lost { gave_up } => {
                let input = if gave_up { ConnectionInput::GaveUp } else { ConnectionInput::Lost };
                self.input(TabInput::Connection(input));
            }
            SourceEvent::Message(raw) => {
                if raw.name == Hello::NAME {
                    self.node.set(json_member(&raw.data, "node").unwrap_or_default());
                }
                let message = message::parse(raw.name, &raw.last_event_id, &raw.data);
                self.step(TabInput::Message(message), Some(&raw));
            }
        }
    }

    fn input(self, input: TabInput<StreamUpdate>) {
        self.step(input, None);
    }

    /// Applies the rules to an input, and carries out the effects. For a message, `raw` is the
    /// message as it came.
    fn step(self, input: TabInput<StreamUpdate>, raw: Option<&RawMessage>) {
        // A program that has failed must not take the connection again.
        if browser::is_over() {
            return;
        }
        let (now, random) = (browser::now(), browser::random());
        let step = |tab: &mut Tab<StreamUpdate>| tab.step(now, random, input);
        let Some(effects) = self.tab.try_update_value(step) else { return };
        for effect in effects {
            self.perform(effect, raw);
        }
        // The update may have caused this stream to be cleaned up.
        let Some(status) = self.tab.try_with_value(LiveStatus::of) else { return };
        if self.status.with_untracked(|before| *before != status) {
            self.now.set(now);
            self.status.set(status);
        } else if matches!(status.state, ConnectionState::Waiting { .. }) {
            self.now.set(now);
        }
    }

    fn perform(self, effect: TabEffect<StreamUpdate>, raw: Option<&RawMessage>) {
        match effect {
            TabEffect::Connection(ConnectionEffect::Open { after, is_socket: false }) => {
                self.url.set(Some(self.url_of("events", after)));
            }
            TabEffect::Connection(ConnectionEffect::Open { after, is_socket: true }) => {
                self.url.set(Some(browser::socket_origin() + &self.url_of("ws", after)));
            }
            TabEffect::Connection(ConnectionEffect::Close) => self.url.set(None),
            TabEffect::Connection(ConnectionEffect::Explain) => spawn_local(async move {
                let cursor = self.tab.try_with_value(Tab::cursor).flatten();
                let reason = explain(&self.url_of("events", cursor)).await;
                self.input(TabInput::Connection(ConnectionInput::Explained(reason)));
            }),
            TabEffect::Join => self.join(),
            TabEffect::Steal => {
                self.group.with_value(|group| group.iter().for_each(|group| group.steal()));
            }
            TabEffect::Leave => self.group.set_value(None),
            TabEffect::Ask => self.post(&channel::ask()),
            TabEffect::Announce(status) => {
                self.node.with_untracked(|name| self.post(&channel::node(name)));
                self.post(&channel::announce(&status));
            }
            TabEffect::Relay { after } => {
                if let Some(raw) = raw {
                    self.post(&channel::relay(after, raw));
                }
            }
            TabEffect::Fetch { number, after } => spawn_local(async move {
                self.input(match browser::poll(self.url_of("poll", Some(after))).await {
                    Ok(response) => TabInput::Fetched(fetched(number, response)),
                    Err(reason) => TabInput::FetchFailed { number, reason },
                });
            }),
            TabEffect::Deliver(update) => self.on_update.with_value(|on_update| on_update(update)),
        }
    }

    /// Posts to the other tabs.
    fn post(self, fields: &[String]) {
        self.group.with_value(|group| group.iter().for_each(|group| group.post(fields)));
    }

    fn join(self) {
        let group = self.options.with_value(|options| options.group.clone());
        let may_use_sockets = !group.is_empty();
        let group = if group.is_empty() {
            None
        } else {
            TabGroup::join(&channel::name(&group), move |event| match event {
                GroupEvent::Granted => self.input(TabInput::Granted),
                GroupEvent::Stolen => self.input(TabInput::Stolen),
                GroupEvent::Refused => self.input(TabInput::CannotShare { may_use_sockets: true }),
                GroupEvent::Posted(fields) => {
                    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
                    if let Some(name) = channel::parse_node(&fields) {
                        self.node.set(name);
                    } else if let Some(input) = channel::parse(&fields) {
                        self.input(input);
                    }
                }
            })
        };
        let can_share = group.is_some();
        self.group.set_value(group.map(SendWrapper::new));
        if !can_share {
            self.input(TabInput::CannotShare { may_use_sockets });
        }
    }

    fn url_of(self, path: &str, after: Option<EventId>) -> String {
        let query = self.options.with_value(|options| options.query.clone());
        let and = if query.is_empty() { "" } else { "&" };
        match after {
            Some(id) => format!("/{path}?format=json{and}{query}&last_event_id={id}"),
            None => format!("/{path}?format=json{and}{query}"),
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// Creates an effect. It is boxed, so that Leptos's generic code for it is in the page once.
fn effect(run: impl FnMut() + 'static) {
    let run: Box<dyn FnMut()> = Box::new(run);
    Effect::new(run);
}

fn fetched(number: u64, response: PollResponse) -> Fetched<StreamUpdate> {
    let PollResponse { events, ends, cursor, gap, .. } = response;
    let gap = gap.map(StreamUpdate::Gap);
    Fetched { number, gap, events: message::in_order(events, ends), cursor }
}

//! A stream of events, in signals: opened where the page ended, kept open by the connection rules, and
//! shared with the browser's other tabs.
//!
//! Another Leptos app can use it: it depends on this crate, with the feature `hydrate` in the browser and
//! `ssr` on the server, and its server is Waterclock's, at the same origin.
//!
//! ```
//! use leptos::prelude::*;
//! use waterclock_leptos::{Arrived, Live, Stream};
//!
//! #[component]
//! fn Orders() -> impl IntoView {
//!     let orders = RwSignal::new(Vec::new());
//!     let stream = Stream { query: "topic=orders.*".to_owned(), ..Stream::default() };
//!     let live = Live::new(stream, move |arrived| {
//!         if let Arrived::Event(event) = arrived {
//!             orders.update(|orders| orders.push(event));
//!         }
//!     });
//!     view! {
//!         <button on:click=move |_| live.toggle()>
//!             {move || if live.is_wanted() { "Stop" } else { "Connect" }}
//!         </button>
//!         <ul>
//!             <For each=move || orders.get() key=|order| order.id.to_string() let:order>
//!                 <li>{order.data.clone()}</li>
//!             </For>
//!         </ul>
//!     }
//! }
//! ```

use std::sync::Arc;

use leptos::{prelude::*, task::spawn_local};
use send_wrapper::SendWrapper;
use waterclock::id::EventId;

use crate::{
    browser::{
        self, Incoming, Lifecycle, Polled, explain,
        group::{Group, GroupNews, count_tabs},
    },
    connection::{self, Effect as Own, Instant, Reason, State},
    message::{self, Arrived},
    tab::{Effect as Do, Input, Role, Tab},
    tabs,
};

/// Which stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The topics, as the query of a stream: `topic=a&topic=b`; empty for the default.
    pub query: String,
    /// Where to begin; none for now.
    pub cursor: Option<EventId>,
    /// Tabs with the same name share one connection: those that read the same topics by the same
    /// permission. Empty to share with none.
    pub group: String,
}

/// A stream, and how it is. It is stopped when the owner that made it is cleaned up.
#[derive(Clone, Copy)]
pub struct Live {
    tab: StoredValue<Tab<Arrived>>,
    stream: StoredValue<Stream>,
    /// Where this tab's own connection is to, while there is to be one.
    url: RwSignal<Option<String>>,
    /// The tabs with which this one shares, while it does.
    group: StoredValue<Option<SendWrapper<Group>>>,
    on_arrival: StoredValue<Arc<dyn Fn(Arrived) + Send + Sync>>,
    shown: RwSignal<Shown>,
    now: RwSignal<Instant>,
    tabs: RwSignal<Option<usize>>,
}

/// What views may know of the rules' state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    state: State,
    reason: Option<Reason>,
    role: Role,
    is_wanted: bool,
}

impl Shown {
    fn of(tab: &Tab<Arrived>) -> Self {
        Self {
            state: tab.state().clone(),
            reason: tab.reason().cloned(),
            role: tab.role(),
            is_wanted: tab.is_wanted(),
        }
    }
}

impl Live {
    /// A stream that is opened as soon as the page is in a browser, and what to do with all that it
    /// brings. While the server renders, nothing happens.
    pub fn new(stream: Stream, on_arrival: impl Fn(Arrived) + Send + Sync + 'static) -> Self {
        let tab = Tab::new(stream.cursor);
        let live = Self {
            shown: RwSignal::new(Shown::of(&tab)),
            tab: StoredValue::new(tab),
            stream: StoredValue::new(stream),
            url: RwSignal::default(),
            group: StoredValue::default(),
            on_arrival: StoredValue::new(Arc::new(on_arrival)),
            now: RwSignal::default(),
            tabs: RwSignal::default(),
        };
        let source = browser::event_source(live.url.into(), &message::NAMES);
        Effect::new(move || {
            for incoming in source.take() {
                live.receive(incoming);
            }
        });
        Effect::new(move || {
            live.input(Input::Connect);
            browser::every_second(move || live.tick());
            browser::on_lifecycle(move |happened| match happened {
                Lifecycle::Hidden => live.input(Input::Hide),
                Lifecycle::Shown => live.input(Input::Show),
                Lifecycle::Visible => live.tick(),
                Lifecycle::Online => live.input(Input::Online),
            });
        });
        on_cleanup(move || live.group.set_value(None));
        live
    }

    /// How the connection is, whichever tab has it.
    pub fn state(self) -> State {
        self.shown.with(|shown| shown.state.clone())
    }

    /// Why there is none, while that is still of interest.
    pub fn reason(self) -> Option<Reason> {
        self.shown.with(|shown| shown.reason.clone())
    }

    /// Which tab has the connection.
    pub fn role(self) -> Role {
        self.shown.with(|shown| shown.role)
    }

    /// Whether the stream is wanted: what a button shows as "Stop".
    pub fn is_wanted(self) -> bool {
        self.shown.with(|shown| shown.is_wanted)
    }

    /// How many tabs share the connection, if that is known.
    pub fn tabs(self) -> Option<usize> {
        self.tabs.get()
    }

    /// The time by which [`State::Waiting`] tells when it ends. It goes on about once a second.
    pub fn now(self) -> Instant {
        self.now.get()
    }

    /// Connects, or stops.
    pub fn toggle(self) {
        let is_wanted = self.tab.with_value(Tab::is_wanted);
        self.input(if is_wanted { Input::Stop } else { Input::Connect });
    }

    fn tick(self) {
        self.input(Input::Tick);
        if browser::is_visible() {
            self.count_tabs();
        }
    }

    /// Asks the browser how many tabs there are.
    fn count_tabs(self) {
        if !self.group.with_value(Option::is_some) {
            self.tabs.set(None);
            return;
        }
        let name = self.stream.with_value(|stream| stream.group.clone());
        spawn_local(async move {
            let tabs = count_tabs(&name).await;
            // The page may be gone meanwhile.
            let _ = self.tabs.try_set(tabs);
            if tabs == Some(1) {
                self.input(Input::Only);
            }
        });
    }

    /// Lets the rules decide, and does what they say.
    fn input(self, input: Input<Arrived>) {
        let now = browser::now();
        let step = |tab: &mut Tab<Arrived>| tab.step(now, browser::random(), input);
        let Some(effects) = self.tab.try_update_value(step) else { return };
        for effect in effects {
            self.perform(effect);
        }
        // What has arrived may have led to this being cleaned up.
        let Some(shown) = self.tab.try_with_value(Shown::of) else { return };
        if self.shown.with_untracked(|before| *before != shown) {
            self.now.set(now);
            self.shown.set(shown);
        } else if matches!(shown.state, State::Waiting { .. }) {
            self.now.set(now);
        }
    }

    fn perform(self, effect: Do<Arrived>) {
        match effect {
            Do::Own(Own::Open { after }) => self.url.set(Some(self.url_of("events", after))),
            Do::Own(Own::Close) => self.url.set(None),
            Do::Own(Own::Explain) => spawn_local(async move {
                let cursor = self.tab.try_with_value(Tab::cursor).flatten();
                let reason = explain(&self.url_of("events", cursor)).await;
                self.input(Input::Own(connection::Input::Explained(reason)));
            }),
            Do::Join => self.join(),
            Do::Steal => {
                self.group.with_value(|group| group.iter().for_each(|group| group.steal()));
            }
            Do::Leave => self.group.set_value(None),
            Do::Post(post) => {
                let text = tabs::encode(&post);
                self.group.with_value(|group| group.iter().for_each(|group| group.post(&text)));
            }
            Do::Fetch { after } => spawn_local(async move {
                let polled = browser::poll(&self.url_of("poll", Some(after))).await;
                self.input(polled.map_or(Input::NotFetched, |polled| fetched(after, polled)));
            }),
            Do::Show(arrived) => self.on_arrival.with_value(|on_arrival| on_arrival(arrived)),
        }
    }

    fn join(self) {
        let name = self.stream.with_value(|stream| stream.group.clone());
        let group = if name.is_empty() {
            None
        } else {
            Group::join(&name, move |news| match news {
                GroupNews::Granted => self.input(Input::Granted),
                GroupNews::Stolen => self.input(Input::Stolen),
                GroupNews::Unshared => self.input(Input::Unshared),
                GroupNews::Posted(text) => {
                    if let Some(post) = tabs::decode(&text) {
                        self.input(Input::Posted(post));
                    }
                }
            })
        };
        let is_shared = group.is_some();
        self.group.set_value(group.map(SendWrapper::new));
        if !is_shared {
            self.input(Input::Unshared);
        }
    }

    fn url_of(self, path: &str, after: Option<EventId>) -> String {
        let query = self.stream.with_value(|stream| stream.query.clone());
        let and = if query.is_empty() { "" } else { "&" };
        match after {
            Some(id) => format!("/{path}?format=json{and}{query}&last_event_id={id}"),
            None => format!("/{path}?format=json{and}{query}"),
        }
    }

    fn receive(self, incoming: Incoming) {
        match incoming {
            Incoming::Opened => self.input(Input::Own(connection::Input::Opened)),
            Incoming::Lost { gave_up: false } => self.input(Input::Own(connection::Input::Lost)),
            Incoming::Lost { gave_up: true } => self.input(Input::Own(connection::Input::GaveUp)),
            Incoming::Message { name, last_event_id, data } => {
                let id = last_event_id.parse().ok();
                self.input(Input::Message(message::understand(name, id, &data)));
            }
        }
    }
}

fn fetched(after: EventId, Polled { events, cursor, gap, .. }: Polled) -> Input<Arrived> {
    Input::Fetched {
        after,
        gap: gap.map(Arrived::Gap),
        events: events.into_iter().map(|event| Arrived::Event(Arc::new(event))).collect(),
        cursor,
    }
}

//! The page `/`: the state of the connection, the button that stops and starts the stream, and the
//! list of events.

use leptos::prelude::*;
use serde::Serialize;
use waterclock::{event::Event, id::EventId, notice::Gap, timestamp::Timestamp};
use waterclock_diagnose::Protocol;
use waterclock_leptos::{
    ConnectionState, DisconnectReason, Live, LiveOptions,
    browser::internal::{FromJson, Json},
};

pub use crate::feed::PastEnd;
use crate::{
    browser,
    feed::Feed,
    gauges::{Gauges, GaugesView},
    labels::{
        Requested, countdown_label, document_title, reason_label, sharing_label, state_label,
    },
    list::{Counts, List},
    node_health::{NodeName, NodeNotice, NodeTexts},
    reactive::{effect, first_text, origin, text},
    settings::Settings,
    toolbar::{Toolbar, shortcuts},
};

/// Minimum time between two announcements of the state by a screen reader, in seconds.
const ANNOUNCE_EVERY: u64 = 10;

/// The data of the page when the server renders it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HomeData {
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// Events that are missing between these and the cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The position before which the event log keeps earlier events.
    pub before: Option<EventId>,
    /// The ends of topics up to the cursor, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<PastEnd>,
    /// The cursor after which the stream continues.
    pub cursor: Option<EventId>,
    /// The patterns of topics from the page's address, with spaces between them. They may be
    /// invalid. Empty for the default.
    pub topics: String,
    /// The patterns as the query of a stream: `topic=a&topic=b`.
    pub query: String,
    /// Name of the group of tabs that share one connection: they read the same topics with the same
    /// permission.
    pub group: String,
    /// Host and port of the server, as the browser has requested them.
    pub host: String,
    /// The reason for which the server would refuse the stream, if it would.
    pub refusal: Option<KnownRefusal>,
    /// `true` if the reader may publish.
    pub may_publish: bool,
    /// Time at which the server has read the events.
    #[serde(skip)]
    pub as_of: Option<Timestamp>,
    /// `true` if the page is not to be refreshed where its program does not run.
    #[serde(skip)]
    pub is_paused: bool,
}

impl FromJson for HomeData {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            events: json.list("events"),
            gap: json.get("gap").as_ref().and_then(Gap::from_json),
            before: json.parse("before"),
            ends: json.list("ends"),
            cursor: json.parse("cursor"),
            topics: json.parse("topics")?,
            query: json.parse("query")?,
            group: json.parse("group")?,
            host: json.parse("host")?,
            refusal: json.get("refusal").as_ref().and_then(KnownRefusal::from_json),
            may_publish: json.is_true("may_publish"),
            as_of: None,
            is_paused: false,
        })
    }
}

/// A response that refuses the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownRefusal {
    /// The status.
    pub status: u16,
    /// The sentence of its problem (RFC 9457).
    pub detail: String,
}

impl KnownRefusal {
    /// Returns the refusal as the rules of a connection have it.
    pub(crate) fn reason(self) -> DisconnectReason {
        DisconnectReason::Status { status: self.status, detail: Some(self.detail) }
    }
}

impl FromJson for KnownRefusal {
    fn from_json(json: &Json) -> Option<Self> {
        let status = json.number("status")?.try_into().ok()?;
        Some(Self { status, detail: json.parse("detail")? })
    }
}

/// The page.
///
/// Texts that change are set by the property `textContent`, which replaces whatever a translator
/// has put around them. A text node would be updated where nobody sees it, and the page would go on
/// saying "Live".
#[component]
pub(crate) fn Home(data: HomeData) -> impl IntoView {
    let HomeData { events, ends, cursor, topics, query, group, host, refusal, may_publish, .. } =
        data;
    let is_refused = RwSignal::new(refusal.is_some());
    let refusal = refusal.map(KnownRefusal::reason);
    let title = if topics.is_empty() { "Waterclock".to_owned() } else { topics.clone() };
    let origin = origin(&host);
    let command = command(origin, query.clone());
    let has_one_topic = !topics.contains([' ', '*', '>']);
    let topic = StoredValue::new(if has_one_topic { topics.clone() } else { String::new() });

    let settings = Settings::new();
    let feed = Feed::new(events, ends, data.gap, data.before, query.clone());
    let gauges = Gauges::new(settings);
    let live = Live::new(LiveOptions { query, cursor, group, refusal }, move |update| {
        gauges.record(&update);
        feed.add(update);
    });
    effect(move || match live.state() {
        ConnectionState::Idle | ConnectionState::Connecting => {}
        ConnectionState::Live => is_refused.set(false),
        // There was no stream that could be interrupted.
        _ if is_refused.get_untracked() => {}
        // A server that ends the stream gives a reason.
        state => feed.interrupted(state == ConnectionState::Stopped && live.reason().is_none()),
    });
    let is_live = move || live.state() == ConnectionState::Live;
    let node = NodeTexts::new(move || live.node().filter(|_| is_live()));
    let protocol = RwSignal::new(String::new());
    effect(move || {
        let name = Protocol::parse(&browser::protocol()).map(Protocol::as_str);
        protocol.set(name.unwrap_or_default().to_owned());
    });
    let sharing = text(move || sharing_label(live.role(), &live.state(), live.tab_count()));
    shortcuts(feed, live, settings);
    view! {
        <main>
            <div class="head">
                <h1 class="hidden">"Events"</h1>
                <Status live title settings node />
                <div class="facts" translate="no">
                    <p class="sharing" prop:textContent=sharing></p>
                    <p class="protocol" prop:textContent=protocol></p>
                    <Counts feed />
                    <GaugesView gauges live />
                </div>
            </div>
            <NodeNotice texts=node />
            <Topics topics />
            <Toolbar feed settings may_publish topic />
            <List feed settings is_refused may_publish has_one_topic topic origin />
        </main>
        <footer>
            <p>"Read this stream in a terminal: " <code>{command}</code></p>
        </footer>
    }
}

/// Returns the command that reads the same stream in a terminal.
fn command(origin: RwSignal<String>, query: String) -> Signal<String> {
    text(move || match (origin.get(), &*query) {
        (origin, "") => format!("curl -N {origin}/events"),
        (origin, query) => format!("curl -N '{origin}/events?{query}'"),
    })
}

/// The state of the connection, and the button.
#[component]
fn Status(live: Live, title: String, settings: Settings, node: NodeTexts) -> impl IntoView {
    let label = text(move || match (live.state(), live.reason()) {
        (ConnectionState::Refused, Some(reason)) => reason_label(&reason, Requested::Events),
        (state, Some(reason)) => {
            format!("{}. {}", state_label(&state), reason_label(&reason, Requested::Events))
        }
        (state, None) => state_label(&state).to_owned(),
    });
    let is_idle = RwSignal::new(true);
    effect(move || is_idle.set(false));
    let key = text(move || live.state().as_str().to_owned());
    let button = text(move || {
        let button = match live.state() {
            _ if live.is_wanted() => "Stop",
            ConnectionState::Refused => "Try again",
            _ => "Connect",
        };
        button.to_owned()
    });
    let countdown = text(move || countdown_label(&live.state(), live.now()));
    effect(move || browser::set_title(&document_title(&live.state(), &title)));
    view! {
        <p class="status" data-state=key>
            <span class="state" prop:textContent=label>{first_text(label)}</span>
            <span class="countdown" prop:textContent=countdown></span>
            <NodeName texts=node />
        </p>
        <p class="hidden" role="status" prop:textContent=announced(label, settings.seconds)></p>
        <button
            type="button"
            disabled=is_idle
            prop:textContent=button
            on:click:capture=move |_| live.toggle()
        >
            {first_text(button)}
        </button>
    }
}

/// Returns the text for screen readers: the label at a full second, at most every
/// [`ANNOUNCE_EVERY`].
fn announced(label: Signal<String>, seconds: RwSignal<u64>) -> RwSignal<String> {
    let announced = RwSignal::new(String::new());
    let last = StoredValue::new(None);
    effect(move || {
        let second = seconds.get();
        let is_due = last.get_value().is_none_or(|last| second >= last + ANNOUNCE_EVERY);
        let label = label.get_untracked();
        if second > 0 && is_due && *announced.read_untracked() != label {
            last.set_value(Some(second));
            announced.set(label);
        }
    });
    announced
}

/// The form that chooses the topics. Other topics are another page, so that each has its own
/// address, and the form works without a script.
#[component]
fn Topics(topics: String) -> impl IntoView {
    view! {
        <form class="topics" action="/">
            <label for="topic">"Topics"</label>
            <input
                id="topic"
                name="topic"
                value=topics
                placeholder="clock"
                autocapitalize="none"
                autocomplete="off"
                spellcheck="false"
            />
            <button type="submit" class="quiet">"Show"</button>
        </form>
    }
}

//! What is compared: the form above the results. It is kept in the page's address, so that a link runs the
//! same.

use leptos::prelude::*;
use waterclock::transport::Transport;

use super::{
    Given, LANES,
    results::{millis_of, name},
};
use crate::{
    browser,
    reactive::{effect, text},
};

/// How often the polling lane may ask, in milliseconds.
const INTERVALS: [u64; 8] = [100, 250, 500, 1000, 2000, 5000, 10_000, 30_000];

/// Connections to a server that a browser opens at most over HTTP/1.1, for all its tabs.
const MAX_CONNECTIONS: usize = 6;

/// Where the events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The topics that the reader names.
    Topics,
    /// The built-in load.
    Load,
}

/// What is chosen.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Which transports, in the order of [`Transport::ALL`].
    lanes: RwSignal<[bool; LANES]>,
    /// In milliseconds.
    pub(crate) every: RwSignal<u64>,
    pub(crate) source: RwSignal<Source>,
    /// Patterns, with spaces between them.
    topics: RwSignal<String>,
    /// Events a second.
    pub(crate) rate: RwSignal<String>,
    /// Bytes of each.
    pub(crate) size: RwSignal<String>,
}

impl Setup {
    /// The defaults, as the server renders; in the browser, then what the address says.
    pub(crate) fn new(given: Given) -> Self {
        let setup = Self {
            lanes: RwSignal::new([true; LANES]),
            every: RwSignal::new(1000),
            source: RwSignal::new(if given.may_load { Source::Load } else { Source::Topics }),
            topics: RwSignal::new("clock".to_owned()),
            rate: RwSignal::new("10".to_owned()),
            size: RwSignal::new("100".to_owned()),
        };
        effect(move || {
            if let Some(lanes) = browser::query("lanes") {
                let is_chosen = |lane: Transport| lanes.split(' ').any(|of| of == lane.as_str());
                setup.lanes.set(Transport::ALL.map(is_chosen));
            }
            let every = browser::query("every").and_then(|every| every.parse().ok());
            if let Some(every) = every.filter(|every| INTERVALS.contains(every)) {
                setup.every.set(every);
            }
            if let Some(topics) = browser::query("topic") {
                setup.source.set(Source::Topics);
                setup.topics.set(topics);
            }
            for (name, field) in [("rate", setup.rate), ("size", setup.size)] {
                if let Some(value) = browser::query(name) {
                    field.set(value);
                }
            }
        });
        setup
    }

    /// Has the address say what is chosen.
    pub(crate) fn keep(self) {
        let lanes = self.lanes();
        let all = lanes.len() == LANES;
        let lanes: Vec<_> = lanes.into_iter().map(Transport::as_str).collect();
        browser::set_query("lanes", &if all { String::new() } else { lanes.join(" ") });
        browser::set_query("every", &self.every.get_untracked().to_string());
        let is_load = self.source.get_untracked() == Source::Load;
        let of = |is_said: bool, field: RwSignal<String>| {
            if is_said { field.get_untracked() } else { String::new() }
        };
        browser::set_query("topic", &of(!is_load, self.topics));
        browser::set_query("rate", &of(is_load, self.rate));
        browser::set_query("size", &of(is_load, self.size));
    }

    /// The transports that are chosen.
    pub(crate) fn lanes(self) -> Vec<Transport> {
        chosen(self.lanes.get_untracked())
    }

    /// The topics as the query of a stream.
    pub(crate) fn query(self) -> String {
        let topics = match self.source.get_untracked() {
            Source::Load => waterclock::event::Topic::load().to_string(),
            Source::Topics => self.topics.get_untracked(),
        };
        let topics = topics.split_whitespace().map(|topic| {
            let topic = js_sys::encode_uri_component(topic);
            format!("topic={}", String::from(topic))
        });
        let query = topics.collect::<Vec<_>>().join("&");
        if query.is_empty() { "topic=clock".to_owned() } else { query }
    }

    /// What is read, in words.
    pub(crate) fn in_words(self) -> String {
        match self.source.get_untracked() {
            Source::Load => format!(
                "A load of {} events/s, {} bytes each",
                self.rate.get_untracked(),
                self.size.get_untracked()
            ),
            Source::Topics => {
                let topics = self.topics.get_untracked();
                if topics.trim().is_empty() { "clock".to_owned() } else { topics }
            }
        }
    }

    /// How many connections of the browser's few the lanes take, if they are few.
    fn warning(self, protocol: &str) -> String {
        if !protocol.starts_with("http/1") {
            return String::new();
        }
        let lanes = chosen(self.lanes.get());
        let held = lanes.iter().filter(|lane| matches!(lane, Transport::Sse | Transport::LongPoll));
        let held = held.count();
        let polls = usize::from(lanes.contains(&Transport::Poll));
        // One is for what the page itself asks.
        let free = MAX_CONNECTIONS - held - polls - 1;
        format!(
            "This page came over HTTP/1.1: the browser opens at most {MAX_CONNECTIONS} connections to the \
             server, for all its tabs together. These lanes hold {held} all the time, and need {} now \
             and then. Other tabs may have {free}; if they have more, lanes wait for them. WebSockets do not \
             count.",
            polls + 1,
        )
    }
}

fn chosen(lanes: [bool; LANES]) -> Vec<Transport> {
    let lanes = Transport::ALL.into_iter().zip(lanes);
    lanes.filter(|(_, is_chosen)| *is_chosen).map(|(lane, _)| lane).collect()
}

/// The form.
#[component]
pub(crate) fn SetupForm(
    setup: Setup,
    given: Given,
    /// Nothing may be changed now.
    is_fixed: Signal<bool>,
    protocol: RwSignal<String>,
) -> impl IntoView {
    let no_load = (!given.may_load).then_some(
        "Only a page on the server's own machine, without a token, may have the server make a load.",
    );
    let warning = text(move || setup.warning(&protocol.read()));
    view! {
        <fieldset class="setup" disabled=is_fixed>
            <legend class="hidden">"What to compare"</legend>
            <Lanes setup />
            <Interval setup />
            <Events setup given />
            <p class="note">{no_load}</p>
            <p class="note">{warning}</p>
        </fieldset>
    }
}

#[component]
fn Lanes(setup: Setup) -> impl IntoView {
    let lanes = Transport::ALL.into_iter().enumerate().map(|(i, transport)| {
        let is_chosen = move || setup.lanes.with(|lanes| lanes[i]);
        view! {
            <label>
                <input
                    type="checkbox"
                    checked=true
                    prop:checked=is_chosen
                    on:change:target=move |event| {
                        setup.lanes.update(|lanes| lanes[i] = event.target().checked());
                    }
                />
                {name(transport)}
            </label>
        }
    });
    view! {
        <div class="choice" role="group" aria-label="Lanes">
            <span class="of">"Lanes"</span>
            {lanes.collect_view()}
        </div>
    }
}

#[component]
fn Interval(setup: Setup) -> impl IntoView {
    let every = text(move || setup.every.get().to_string());
    let intervals = INTERVALS.map(|every| {
        view! { <option value=every.to_string() selected=every == 1000>{millis_of(every)}</option> }
    });
    view! {
        <div class="choice">
            <label class="of" for="every">"Polling every"</label>
            <select
                id="every"
                prop:value=every
                on:change:target=move |event| {
                    if let Ok(every) = event.target().value().parse() {
                        setup.every.set(every);
                    }
                }
            >
                {intervals}
            </select>
        </div>
    }
}

/// Which events: of a load, or of topics.
#[component]
fn Events(setup: Setup, given: Given) -> impl IntoView {
    let is = move |source| Signal::derive(move || setup.source.get() == source);
    let is_not = move |source| Signal::derive(move || setup.source.get() != source);
    let number = move |label, max, field: RwSignal<String>| {
        view! {
            <input
                type="number"
                min="0"
                max=max
                aria-label=label
                disabled=is_not(Source::Load)
                prop:value=field
                on:input:target=move |event| field.set(event.target().value())
            />
        }
    };
    view! {
        <div class="choice" role="radiogroup" aria-label="Events">
            <span class="of">"Events"</span>
            <label>
                <input
                    type="radio"
                    name="source"
                    disabled=!given.may_load
                    checked=given.may_load
                    prop:checked=is(Source::Load)
                    on:change=move |_| setup.source.set(Source::Load)
                />
                "A load of"
            </label>
            {number("Events a second", "1000", setup.rate)}
            " events/s, "
            {number("Bytes each", "65536", setup.size)}
            " bytes each"
        </div>
        <div class="choice">
            <span class="of"></span>
            <label>
                <input
                    type="radio"
                    name="source"
                    checked=!given.may_load
                    prop:checked=is(Source::Topics)
                    on:change=move |_| setup.source.set(Source::Topics)
                />
                "Topics"
            </label>
            <input
                class="topics-field"
                aria-label="Topics"
                autocapitalize="none"
                autocomplete="off"
                spellcheck="false"
                disabled=is_not(Source::Topics)
                prop:value=setup.topics
                on:input:target=move |event| setup.topics.set(event.target().value())
            />
        </div>
    }
}

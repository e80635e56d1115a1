//! The form of settings, folded into one line. Its values are kept in the page's address, so that a
//! link starts the same comparison.

use leptos::prelude::*;
use serde::Serialize;
use waterclock::{event::Topic, transport::Transport};
use waterclock_leptos::browser::internal::{FromJson, Json};

use super::{
    format::{every, joined, transport_label, transport_name, whole_millis},
    seen_ids::TRANSPORTS,
};
use crate::{
    browser,
    labels::capitalized,
    reactive::{effect, first_text, text},
};

/// Possible intervals of polling, in milliseconds.
const INTERVALS: [u64; 8] = [100, 250, 500, 1000, 2000, 5000, 10_000, 30_000];

/// Maximum number of connections that a browser opens to a server over HTTP/1.1, for all its tabs.
const MAX_CONNECTIONS: usize = 6;

/// The data of the page when the server renders it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompareData {
    /// `true` if the reader may make the server publish a load.
    pub may_load: bool,
}

impl FromJson for CompareData {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self { may_load: json.is_true("may_load") })
    }
}

/// The kind of events to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventSelection {
    /// The topics that the reader has entered.
    Topics,
    /// The built-in load.
    Load,
}

/// The values of the form.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// The selected transports, in the order of [`Transport::ALL`].
    selected: RwSignal<[bool; TRANSPORTS]>,
    /// Interval of polling, in milliseconds.
    pub(crate) poll_interval: RwSignal<u64>,
    pub(crate) selection: RwSignal<EventSelection>,
    /// Patterns of topics, with spaces between them.
    topics: RwSignal<String>,
    /// Events per second of the load.
    pub(crate) rate: RwSignal<String>,
    /// Size of each event of the load, in bytes.
    pub(crate) size: RwSignal<String>,
}

impl Setup {
    /// Creates the default setup, which the server renders. In the browser it then changes to that
    /// of the address.
    pub(crate) fn new(data: CompareData) -> Self {
        let selection = if data.may_load { EventSelection::Load } else { EventSelection::Topics };
        let setup = Self {
            selected: RwSignal::new([true; TRANSPORTS]),
            poll_interval: RwSignal::new(1000),
            selection: RwSignal::new(selection),
            topics: RwSignal::new("clock".to_owned()),
            rate: RwSignal::new("10".to_owned()),
            size: RwSignal::new("100".to_owned()),
        };
        effect(move || {
            if let Some(names) = browser::query("lanes") {
                let is_named = |of: Transport| names.split(' ').any(|name| name == of.as_str());
                setup.selected.set(Transport::ALL.map(is_named));
            }
            let interval = browser::query("every").and_then(|interval| interval.parse().ok());
            if let Some(interval) = interval.filter(|interval| INTERVALS.contains(interval)) {
                setup.poll_interval.set(interval);
            }
            if let Some(topics) = browser::query("topic") {
                setup.selection.set(EventSelection::Topics);
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

    /// Saves the setup in the page's address.
    pub(crate) fn save(self) {
        let transports = self.transports();
        let are_all = transports.len() == TRANSPORTS;
        let names: Vec<_> = transports.into_iter().map(Transport::as_str).collect();
        browser::set_query("lanes", &if are_all { String::new() } else { names.join(" ") });
        browser::set_query("every", &self.poll_interval.get_untracked().to_string());
        let is_load = self.selection.get_untracked() == EventSelection::Load;
        let of = |is_used: bool, field: RwSignal<String>| {
            if is_used { field.get_untracked() } else { String::new() }
        };
        browser::set_query("topic", &of(!is_load, self.topics));
        browser::set_query("rate", &of(is_load, self.rate));
        browser::set_query("size", &of(is_load, self.size));
    }

    /// Returns the selected transports.
    pub(crate) fn transports(self) -> Vec<Transport> {
        transports_of(self.selected.get_untracked())
    }

    /// Returns the selected transports, as a signal.
    pub(crate) fn tracked_transports(self) -> Vec<Transport> {
        transports_of(self.selected.get())
    }

    /// Describes the setup in one line.
    fn summary(self) -> String {
        let polling = format!("polling {}", every(self.poll_interval.get()));
        let transports = self.tracked_transports();
        let name = |&transport: &Transport| match transport {
            Transport::Poll => polling.clone(),
            other => transport_name(other).to_owned(),
        };
        let transports = match transports.len() {
            0 => "No transport".to_owned(),
            TRANSPORTS => format!("All four transports, {polling}"),
            _ => capitalized(&joined(&transports.iter().map(name).collect::<Vec<_>>())),
        };
        let events = match self.selection.get() {
            EventSelection::Load => load_label(&self.rate.read(), &self.size.read()),
            EventSelection::Topics => format!("events of {}", self.topics.read()),
        };
        format!("{transports}, {events}")
    }

    /// Returns the topics as the query of a stream.
    pub(crate) fn query(self) -> String {
        let topics = match self.selection.get_untracked() {
            EventSelection::Load => Topic::load().to_string(),
            EventSelection::Topics => self.topics.get_untracked(),
        };
        let topics = topics
            .split(|letter: char| letter == ',' || letter.is_whitespace())
            .filter(|topic| !topic.is_empty())
            .map(|topic| format!("topic={}", browser::encode_component(topic)));
        let query = topics.collect::<Vec<_>>().join("&");
        if query.is_empty() { "topic=clock".to_owned() } else { query }
    }

    /// Describes the events that are read.
    pub(crate) fn description(self) -> String {
        match self.selection.get_untracked() {
            EventSelection::Load => {
                let (rate, size) = (self.rate.get_untracked(), self.size.get_untracked());
                format!("A load of {}", load_label(&rate, &size))
            }
            EventSelection::Topics => {
                let topics = self.topics.get_untracked();
                if topics.trim().is_empty() { "clock".to_owned() } else { topics }
            }
        }
    }

    /// Returns a warning about the limit of connections, if it applies.
    fn warning(self, protocol: &str) -> String {
        if !protocol.starts_with("http/1") {
            return String::new();
        }
        let transports = transports_of(self.selected.get());
        let is_held = |of: &&Transport| matches!(of, Transport::Sse | Transport::LongPoll);
        let held = transports.iter().filter(is_held).count();
        let polls = usize::from(transports.contains(&Transport::Poll));
        // The page's own requests need one.
        let free = MAX_CONNECTIONS - held - polls - 1;
        format!(
            "This page was loaded over HTTP/1.1. The browser opens at most {MAX_CONNECTIONS} \
             connections to the server, for all its tabs together. The selected transports hold \
             {held} of them all the time and need {} from time to time, so {free} are left for \
             other tabs. If other tabs use more, transports have to wait. WebSockets do not \
             count.",
            polls + 1,
        )
    }
}

fn transports_of(selected: [bool; TRANSPORTS]) -> Vec<Transport> {
    let transports = Transport::ALL.into_iter().zip(selected);
    transports.filter(|(_, is_selected)| *is_selected).map(|(transport, _)| transport).collect()
}

/// Describes a load by the texts in its fields.
fn load_label(rate: &str, size: &str) -> String {
    let plural = |number| if number == "1" { "" } else { "s" };
    format!("{rate} event{}/s of {size} byte{}", plural(rate), plural(size))
}

/// The form.
#[component]
pub(crate) fn SetupForm(
    setup: Setup,
    data: CompareData,
    /// `true` while nothing may be changed.
    is_fixed: Signal<bool>,
    protocol: RwSignal<String>,
) -> impl IntoView {
    let no_load = (!data.may_load).then_some(
        "Only a page on the server's own machine, without a token, may generate a load.",
    );
    let warning = text(move || setup.warning(&protocol.read()));
    let summary = text(move || setup.summary());
    view! {
        <details class="setup">
            <summary>
                <span prop:textContent=summary>{first_text(summary)}</span>
                " "
                <span class="change">"Change"</span>
            </summary>
            <fieldset disabled=is_fixed>
                <legend class="hidden">"Setup"</legend>
                <Transports setup />
                <Interval setup />
                <Events setup data />
                <p class="note">{no_load}</p>
                <p class="note">{warning}</p>
            </fieldset>
        </details>
    }
}

#[component]
fn Transports(setup: Setup) -> impl IntoView {
    let transports = Transport::ALL.into_iter().enumerate().map(|(i, transport)| {
        let is_selected = move || setup.selected.with(|selected| selected[i]);
        view! {
            <label>
                <input
                    type="checkbox"
                    checked=true
                    prop:checked=is_selected
                    on:change:target=move |event| {
                        setup.selected.update(|selected| selected[i] = event.target().checked());
                    }
                />
                {transport_label(transport)}
            </label>
        }
    });
    view! {
        <div class="choice" role="group" aria-label="Transports">
            <span class="of">"Transports"</span>
            {transports.collect_view()}
        </div>
    }
}

#[component]
fn Interval(setup: Setup) -> impl IntoView {
    let value = text(move || setup.poll_interval.get().to_string());
    let intervals = INTERVALS.map(|interval| {
        view! {
            <option value=interval.to_string() selected=interval == 1000>
                {whole_millis(interval)}
            </option>
        }
    });
    view! {
        <div class="choice">
            <label class="of" for="every">"Polling interval"</label>
            <select
                id="every"
                prop:value=value
                on:change:target=move |event| {
                    if let Ok(interval) = event.target().value().parse() {
                        setup.poll_interval.set(interval);
                    }
                }
            >
                {intervals}
            </select>
        </div>
    }
}

/// The choice between a load and topics.
#[component]
fn Events(setup: Setup, data: CompareData) -> impl IntoView {
    let is = move |selection| Signal::derive(move || setup.selection.get() == selection);
    let is_not = move |selection| Signal::derive(move || setup.selection.get() != selection);
    let number = move |label, max, field: RwSignal<String>| {
        view! {
            <input
                type="number"
                min="0"
                max=max
                aria-label=label
                disabled=is_not(EventSelection::Load)
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
                    disabled=!data.may_load
                    checked=data.may_load
                    prop:checked=is(EventSelection::Load)
                    on:change=move |_| setup.selection.set(EventSelection::Load)
                />
                "A load of"
            </label>
            {number("Events per second", "1000", setup.rate)}
            " events/s of "
            {number("Bytes per event", "65536", setup.size)}
            " bytes"
        </div>
        <div class="choice">
            <span class="of"></span>
            <label>
                <input
                    type="radio"
                    name="source"
                    checked=!data.may_load
                    prop:checked=is(EventSelection::Topics)
                    on:change=move |_| setup.selection.set(EventSelection::Topics)
                />
                "Topics"
            </label>
            <input
                class="topics-field"
                aria-label="Topics"
                autocapitalize="none"
                autocomplete="off"
                spellcheck="false"
                disabled=is_not(EventSelection::Topics)
                prop:value=setup.topics
                on:input:target=move |event| setup.topics.set(event.target().value())
            />
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_one_event_is_not_plural() {
        assert_eq!(load_label("1", "100"), "1 event/s of 100 bytes");
        assert_eq!(load_label("50", "1"), "50 events/s of 1 byte");
    }
}

//! The tools above the list, and the keyboard shortcuts that do the same.

use leptos::prelude::*;
use waterclock_leptos::Live;

use crate::{
    browser, details,
    event_json::event_json,
    feed::{Feed, Hold},
    filter::Filter,
    help, publish,
    reactive::{effect, text},
    settings::Settings,
    time::TimeFormat,
};

/// Id of the filter's field.
const FILTER: &str = "filter";

/// The tools. They need a script, and are disabled until it runs.
#[component]
pub(crate) fn Toolbar(
    feed: Feed,
    settings: Settings,
    may_publish: bool,
    /// The topic of the events to publish, or an empty text.
    topic: StoredValue<String>,
) -> impl IntoView {
    let is_idle = RwSignal::new(true);
    effect(move || is_idle.set(false));
    let bad_pattern = RwSignal::new(None);
    effect(move || {
        let filter = settings.filter.with(|text| Filter::parse(text));
        if let Ok(filter) = &filter {
            feed.set_filter(filter);
        }
        bad_pattern.set(filter.err());
    });
    effect(move || feed.set_max_rows(settings.rows.get()));
    let is_paused = text(move || (feed.hold.get() == Some(Hold::Paused)).to_string());
    let is_bad = text(move || bad_pattern.with(Option::is_some).to_string());
    let problem = text(move || {
        let text = bad_pattern.get().map(|text| format!("\"{text}\" is not a topic pattern"));
        text.unwrap_or_default()
    });
    // The property `value`: once a reader has chosen, browsers ignore the `selected` attributes.
    let time = text(move || settings.time.get().key().to_owned());
    let formats = TimeFormat::ALL.map(|format| {
        view! { <option value=format.key()>{format.label()}</option> }
    });
    view! {
        <fieldset class="tools" disabled=is_idle>
            <label class="hidden" for=FILTER>"Filter"</label>
            <input
                id=FILTER
                type="search"
                placeholder="Filter: text, name:…, topic:orders.*"
                autocapitalize="none"
                autocomplete="off"
                spellcheck="false"
                prop:value=settings.filter
                aria-invalid=is_bad
                on:input:capture:target=move |event| settings.set_filter(event.target().value())
            />
            <label class="hidden" for="time">"Time format"</label>
            <select
                id="time"
                prop:value=time
                on:change:capture:target=move |event| {
                    let format = TimeFormat::from_key(&event.target().value());
                    settings.set_time(format.unwrap_or_default());
                }
            >
                {formats}
            </select>
            <button type="button" class="quiet" aria-pressed=is_paused
                on:click:capture=move |_| toggle_pause(feed)>"Pause"</button>
            <button type="button" class="quiet" on:click:capture=move |_| export(feed)>
                "Export"
            </button>
            <button
                type="button"
                class="quiet"
                hidden=!may_publish
                on:click:capture=publish::opener(topic)
            >
                "Publish"
            </button>
            <button
                type="button"
                class="quiet"
                aria-label="Help"
                on:click:capture=move |_| help::open(settings)
            >
                "?"
            </button>
            <p class="bad" role="alert" prop:textContent=problem></p>
        </fieldset>
    }
}

/// Handles the keyboard shortcuts, while they are enabled.
pub(crate) fn shortcuts(feed: Feed, live: Live, settings: Settings) {
    effect(move || {
        browser::on_key(move |key| {
            if key == "Escape" {
                return browser::close_pane();
            }
            if !settings.has_shortcuts.get_untracked() {
                return false;
            }
            match key {
                "?" => help::open(settings),
                "/" => browser::focus(FILTER),
                "s" => live.toggle(),
                "p" => toggle_pause(feed),
                "f" => feed.follow(),
                "t" => settings.set_time(settings.time.get_untracked().next()),
                "e" => export(feed),
                "d" => {
                    feed.step(isize::MAX);
                    details::open(feed);
                }
                _ => return false,
            }
            true
        });
    });
}

fn toggle_pause(feed: Feed) {
    if feed.hold.get_untracked() == Some(Hold::Paused) {
        feed.follow();
    } else {
        feed.hold(Hold::Paused);
    }
}

/// Saves the events that the list shows as NDJSON: one event per line, in the server's JSON.
fn export(feed: Feed) {
    let rows = feed.shown();
    let lines = rows.iter().filter_map(|row| row.event()).map(|event| event_json(event) + "\n");
    browser::download("waterclock.ndjson", &lines.collect::<String>());
}

//! What the reader can do with the list: filter it, have it hold still, choose how times are written,
//! save it. And the keys that do the same.

use leptos::prelude::*;
use waterclock_leptos::Live;

use crate::{
    browser, details,
    feed::{Feed, Hold},
    filter::Filter,
    help, publish,
    reactive::{effect, text},
    read::json_of,
    settings::Settings,
    time::TimeFormat,
};

/// The id of the field for the filter.
const FILTER: &str = "filter";

/// The tools. They need a script: until there is one, they are disabled.
#[component]
pub(crate) fn Tools(feed: Feed, settings: Settings, may_publish: bool) -> impl IntoView {
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
    let what_is_bad = text(move || {
        let text = bad_pattern.get().map(|text| format!("\"{text}\" is not a pattern of topics"));
        text.unwrap_or_default()
    });
    // The property: what a reader has once chosen no longer heeds the attributes of the options.
    let time = text(move || settings.time.get().key().to_owned());
    let formats = TimeFormat::ALL.map(|format| {
        view! { <option value=format.key()>{format.in_words()}</option> }
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
                on:input:target=move |event| settings.set_filter(event.target().value())
            />
            <label class="hidden" for="time">"Times"</label>
            <select
                id="time"
                prop:value=time
                on:change:target=move |event| {
                    settings.set_time(TimeFormat::from_key(&event.target().value()).unwrap_or_default());
                }
            >
                {formats}
            </select>
            <button type="button" class="quiet" aria-pressed=is_paused
                on:click=move |_| toggle_pause(feed)>"Pause"</button>
            <button type="button" class="quiet" on:click=move |_| export(feed)>"Export"</button>
            <button type="button" class="quiet" hidden=!may_publish on:click=|_| publish::open()>"Publish"</button>
            <button type="button" class="quiet" aria-label="Help" on:click=move |_| help::open(settings)>"?"</button>
            <p class="bad" role="alert">{what_is_bad}</p>
        </fieldset>
    }
}

/// The keys, while the reader wants them.
pub(crate) fn shortcuts(feed: Feed, live: Live, settings: Settings) {
    effect(move || {
        browser::on_key(move |key| {
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
                    if let Some(event) = feed.newest() {
                        details::open(feed, event);
                    }
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

/// Saves what the list shows, an event a line, as the server writes events in JSON (NDJSON).
fn export(feed: Feed) {
    let rows = feed.shown();
    let lines = rows.iter().filter_map(|row| row.event()).map(|event| json_of(event) + "\n");
    browser::download("waterclock.ndjson", &lines.collect::<String>());
}

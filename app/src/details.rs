//! The details of the chosen event, beside the list or in a dialog.

use leptos::{prelude::*, task::spawn_local};
use waterclock::event::Event;

use crate::{
    browser,
    event_json::event_json,
    feed::Feed,
    reactive::text,
    time::{date_and_time, unix_time},
    visible::visible,
};

/// Opens the details, if there is a chosen event.
pub(crate) fn open(feed: Feed) {
    if !feed.open_details() {
        return;
    }
    browser::open_dialog("Event", Some(feed.scroller), move || {
        on_cleanup(move || feed.close_details());
        let field = move |read: fn(&Event) -> String| {
            text(move || feed.chosen().map_or(String::new(), |event| read(&event)))
        };
        let [data, json] = [|event: &Event| event.data.clone(), event_json].map(field);
        let message = RwSignal::new(String::new());
        let copy = move |text: String| {
            spawn_local(async move {
                let has_copied = browser::copy(&text).await;
                let text = if has_copied {
                    "Copied."
                } else {
                    "The browser allows copying only over HTTPS."
                };
                message.set(text.to_owned());
            });
        };
        view! {
            <dl>
                <dt>"Id"</dt><dd prop:textContent=field(|event| event.id.to_string())></dd>
                <dt>"Topic"</dt><dd prop:textContent=field(|event| event.topic.to_string())></dd>
                <dt>"Name"</dt><dd prop:textContent=field(|event| visible(event.name.as_str()))></dd>
                <dt>"Time"</dt><dd prop:textContent=field(times)></dd>
                <dt>"Data"</dt>
                <dd prop:textContent=field(|event| format!("{} bytes", event.data.len()))></dd>
            </dl>
            <pre tabindex="0" prop:textContent=field(pretty_data)></pre>
            <p class="buttons">
                <button
                    type="button"
                    class="quiet"
                    on:click:capture=move |_| copy(data.get_untracked())
                >
                    "Copy data"
                </button>
                <button
                    type="button"
                    class="quiet"
                    on:click:capture=move |_| copy(json.get_untracked())
                >
                    "Copy event"
                </button>
                <button type="button" class="quiet" on:click:capture=move |_| feed.step(-1)>
                    "Previous"
                </button>
                <button type="button" class="quiet" on:click:capture=move |_| feed.step(1)>
                    "Next"
                </button>
                <output prop:textContent=message></output>
            </p>
        }
    });
}

/// Returns the data with visible control characters, formatted if it is an object or a list in
/// JSON.
fn pretty_data(event: &Event) -> String {
    visible(&browser::pretty_json(&event.data).unwrap_or_else(|| event.data.clone()))
}

/// Writes the time in UTC, in local time, and in Unix time, a line each.
fn times(event: &Event) -> String {
    let time = event.time;
    format!("{time}\n{}\n{}", date_and_time(time, browser::utc_offset(time)), unix_time(time))
}

//! The dialog with the details of an event.

use std::sync::Arc;

use leptos::{prelude::*, task::spawn_local};
use waterclock::event::Event;

use crate::{
    browser,
    event_json::event_json,
    feed::{Feed, Hold},
    reactive::text,
    time::{date_and_time, unix_time},
    visible::visible,
};

/// Opens the dialog. Until it is closed, the list is held, so that the previous and the next event
/// stay in it.
pub(crate) fn open(feed: Feed, event: Arc<Event>) {
    let has_followed = feed.hold.get_untracked().is_none();
    if has_followed {
        feed.hold(Hold::Scrolled);
    }
    browser::open_dialog("Event", move || {
        on_cleanup(move || {
            if has_followed {
                feed.follow();
            }
        });
        let event = RwSignal::new(event);
        let step = move |forward: bool| {
            let id = event.read_untracked().id;
            if let Some(next) = feed.neighbour(id, forward) {
                event.set(next);
            }
        };
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
        let copy_data = move |_| copy(event.read_untracked().data.clone());
        let copy_event = move |_| copy(event_json(&event.read_untracked()));
        let field = |read: fn(&Event) -> String| text(move || read(&event.read()));
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
                <button type="button" class="quiet" on:click=copy_data>
                    "Copy data"
                </button>
                <button type="button" class="quiet" on:click=copy_event>
                    "Copy event"
                </button>
                <button type="button" class="quiet" on:click=move |_| step(false)>
                    "Previous"
                </button>
                <button type="button" class="quiet" on:click=move |_| step(true)>
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

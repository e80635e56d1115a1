//! The form that publishes an event, where the reader may.

use leptos::{ev::SubmitEvent, prelude::*, task::spawn_local};

use crate::browser;

/// The form. Without JavaScript it could do nothing: until there is, it is hidden.
#[component]
pub(crate) fn Publish() -> impl IntoView {
    let is_hidden = RwSignal::new(true);
    Effect::new(move || is_hidden.set(false));
    let said = RwSignal::new(String::new());
    let publish = move |event: SubmitEvent| {
        event.prevent_default();
        spawn_local(async move { said.set(browser::publish(&event).await) });
    };
    view! {
        <details class="publish" hidden=is_hidden>
            <summary>"Publish an event"</summary>
            <form on:submit=publish>
                <label for="publish-topic">"Topic"</label>
                <input id="publish-topic" name="topic" required placeholder="orders.eu" />
                <label for="publish-name">"Name"</label>
                <input id="publish-name" name="name" placeholder="message" />
                <label for="publish-data">"Data"</label>
                <textarea id="publish-data" name="data" rows="3"></textarea>
                <button type="submit" class="quiet">"Publish"</button>
                <output>{said}</output>
            </form>
        </details>
    }
}

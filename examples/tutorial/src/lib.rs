//! The page: an `EventSource` in a signal, a list of its messages, and a button that stops it.

use leptos::prelude::*;
use waterclock_leptos::browser::{SourceEvent, event_source};

/// The page.
#[component]
pub fn App() -> impl IntoView {
    let (url, set_url) = signal(Some("/ticks".to_owned()));
    let (ticks, set_ticks) = signal(Vec::new());
    let events = event_source(url.into(), &["message"]);
    Effect::new(move || {
        for event in events.take() {
            if let SourceEvent::Message(message) = event {
                set_ticks.update(|ticks| ticks.push(message.data));
            }
        }
    });
    view! {
        <h1>"Ticks"</h1>
        // Without a URL, the connection is closed.
        <button on:click=move |_| set_url.set(None)>"Stop"</button>
        <ul>
            <For each=move || ticks.get().into_iter().enumerate() key=|(n, _)| *n let((_, tick))>
                <li>{tick}</li>
            </For>
        </ul>
    }
}

/// Starts the page in the browser.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    leptos::mount::hydrate_body(App);
}

//! The dialog that publishes an event.

use leptos::{
    ev::{MouseEvent, SubmitEvent},
    prelude::*,
    task::spawn_local,
};

use crate::browser;

/// Returns a listener that opens the dialog, with a topic to start with.
pub(crate) fn opener(topic: StoredValue<String>) -> impl Fn(MouseEvent) + Copy + 'static {
    move |_| open(topic.get_value())
}

fn open(topic: String) {
    browser::open_dialog("Publish an event", None, move || {
        let message = RwSignal::new(String::new());
        let publish = move |event: SubmitEvent| {
            event.prevent_default();
            spawn_local(async move { message.set(browser::publish(&event).await) });
        };
        view! {
            <h2>"Publish an event"</h2>
            <form class="publish" on:submit=publish>
                <label for="publish-topic">"Topic"</label>
                <input
                    id="publish-topic"
                    name="topic"
                    required
                    placeholder="orders.eu"
                    value=topic
                />
                <label for="publish-name">"Name"</label>
                <input id="publish-name" name="name" placeholder="message" />
                <label for="publish-data">"Data"</label>
                <textarea id="publish-data" name="data" rows="3"></textarea>
                <button type="submit">"Publish"</button>
                <output prop:textContent=message></output>
            </form>
        }
    });
}

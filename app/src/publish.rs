//! The form that publishes an event, and its dialog.

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
        view! {
            <h2>"Publish an event"</h2>
            <PublishForm topic class="" />
        }
    });
}

/// The form, with a topic to start with. It needs the program.
#[component]
pub(crate) fn PublishForm(
    topic: String,
    /// Class of its button.
    class: &'static str,
) -> impl IntoView {
    let message = RwSignal::new(String::new());
    // A further attempt after a failure has the same key, since the first one may have succeeded.
    // After a change or a success, the next event has another one.
    let key = StoredValue::new(None);
    let publish = move |event: SubmitEvent| {
        event.prevent_default();
        // A node that cannot reach its cluster answers late.
        message.set("Publishing…".to_owned());
        let attempt = key.get_value().unwrap_or_else(browser::random_name);
        key.set_value(Some(attempt.clone()));
        spawn_local(async move {
            let answer = match browser::publish(&event, &attempt).await {
                Ok(()) => {
                    key.try_set_value(None);
                    "Published.".to_owned()
                }
                Err(why) => why,
            };
            // The form may be gone meanwhile.
            let _ = message.try_set(answer);
        });
    };
    view! {
        <form
            class="publish"
            on:submit:capture=publish
            on:input=move |_| key.set_value(None)
        >
            <label for="publish-topic">"Topic"</label>
            <input
                id="publish-topic"
                name="topic"
                required
                placeholder="orders.eu"
                autocapitalize="none"
                autocomplete="off"
                spellcheck="false"
                value=topic
            />
            <label for="publish-name">"Name"</label>
            <input id="publish-name" name="name" placeholder="message" />
            <label for="publish-data">"Data"</label>
            <textarea id="publish-data" name="data" rows="3"></textarea>
            <button type="submit" class=class>"Publish"</button>
            <output prop:textContent=message></output>
        </form>
    }
}

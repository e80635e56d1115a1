//! The sheet of help: the keys, how to filter, and the settings that are seldom changed.

use leptos::prelude::*;

use crate::{
    browser,
    settings::{MAX_ROWS, Settings},
};

/// What never changes.
const TEXT: &str = "<h2>Help</h2><dl>\
    <dt><kbd>?</kbd><dd>This help\
    <dt><kbd>s</kbd><dd>Stop, or connect\
    <dt><kbd>p</kbd><dd>Pause the list, or go on\
    <dt><kbd>f</kbd><dd>Follow the newest\
    <dt><kbd>/</kbd><dd>Filter\
    <dt><kbd>d</kbd><dd>Details of the newest event\
    <dt><kbd>t</kbd><dd>Write times otherwise\
    <dt><kbd>e</kbd><dd>Export what the list shows\
    <dt><kbd>Esc</kbd><dd>Close this\
    </dl><p>A filter is words that an event contains, <code>\"several words\"</code>, \
    <code>name:created</code>, <code>topic:orders.*</code>. All of them must match.</p>";

/// Opens the sheet.
pub(crate) fn open(settings: Settings) {
    browser::open_dialog("Help", move || {
        let rows = MAX_ROWS.map(|rows| {
            let is_chosen = settings.rows.get_untracked() == rows;
            view! { <option selected=is_chosen>{rows.to_string()}</option> }
        });
        view! {
            <div inner_html=TEXT></div>
            <p>
                <input
                    id="shortcuts"
                    type="checkbox"
                    prop:checked=settings.has_shortcuts
                    on:change:target=move |event| settings.set_shortcuts(event.target().checked())
                />
                <label for="shortcuts">" These keys do something"</label>
            </p>
            <p>
                <label for="rows">"Lines that the list keeps "</label>
                <select
                    id="rows"
                    on:change:target=move |event| {
                        if let Ok(rows) = event.target().value().parse() {
                            settings.set_rows(rows);
                        }
                    }
                >
                    {rows.into_iter().collect_view()}
                </select>
            </p>
        }
    });
}

//! The help dialog: the keys, the filter, and rarely changed settings.

use leptos::prelude::*;

use crate::{
    browser,
    settings::{ROW_LIMITS, Settings},
};

/// The constant part, as HTML.
const TEXT: &str = "<h2>Help</h2><dl>\
    <dt><kbd>?</kbd><dd>Help\
    <dt><kbd>s</kbd><dd>Stop or connect\
    <dt><kbd>p</kbd><dd>Pause or resume the list\
    <dt><kbd>f</kbd><dd>Follow the newest events\
    <dt><kbd>/</kbd><dd>Focus the filter\
    <dt><kbd>d</kbd><dd>Details of the newest event\
    <dt><kbd>t</kbd><dd>Next time format\
    <dt><kbd>e</kbd><dd>Export the list\
    <dt><kbd>↑ ↓ PgUp PgDn</kbd><dd>Choose an event in the list\
    <dt><kbd>Home End</kbd><dd>Choose the oldest or the newest event\
    <dt><kbd>Enter</kbd><dd>Its details\
    <dt><kbd>Esc</kbd><dd>Close the details or a dialog\
    </dl><p>A filter is made of words, <code>\"quoted phrases\"</code>, \
    <code>name:created</code> and <code>topic:orders.*</code>. An event must match all.</p>";

/// Opens the dialog.
pub(crate) fn open(settings: Settings) {
    browser::open_dialog("Help", None, move || {
        let rows = ROW_LIMITS.map(|rows| {
            let is_selected = settings.rows.get_untracked() == rows;
            view! { <option selected=is_selected>{rows.to_string()}</option> }
        });
        view! {
            <div inner_html=TEXT></div>
            <p>
                <input
                    id="shortcuts"
                    type="checkbox"
                    prop:checked=settings.has_shortcuts
                    on:change:capture:target=move |event| {
                        settings.set_shortcuts(event.target().checked());
                    }
                />
                <label for="shortcuts">" Enable these keys"</label>
            </p>
            <p>
                <label for="rows">"Maximum number of lines in the list "</label>
                <select
                    id="rows"
                    on:change:capture:target=move |event| {
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

//! Keyboard shortcuts of a single key, and the arrow keys in a table.

use leptos::prelude::*;
use wasm_bindgen::JsCast as _;
use web_sys::{Element, HtmlElement, KeyboardEvent};

/// Calls `on_key` for each key that is pressed (UI Events, `KeyboardEvent.key`), until the current
/// owner is cleaned up. If it returns `true`, the browser's own action for the key is suppressed.
///
/// Keys that are held down, combined with Ctrl, Alt or Meta, typed into a field, or pressed while a
/// dialog is open do not count.
pub(crate) fn on_key(on_key: impl Fn(&str) -> bool + 'static) {
    let handle = window_event_listener_untyped("keydown", move |event| {
        let Some(event) = event.dyn_ref::<KeyboardEvent>() else { return };
        let target = event.target().and_then(|target| target.dyn_into::<Element>().ok());
        let is_field = |target: &Element| {
            target.closest("input, textarea, select").is_ok_and(|found| found.is_some())
        };
        let is_taken = target.as_ref().is_some_and(is_field)
            || document().query_selector("dialog:modal").is_ok_and(|dialog| dialog.is_some());
        if event.repeat() || has_modifier(event) || event.default_prevented() || is_taken {
            return;
        }
        if on_key(&event.key()) {
            event.prevent_default();
        }
    });
    on_cleanup(move || handle.remove());
}

/// Returns `true` if a key was pressed together with Ctrl, Alt or Meta.
pub(crate) fn has_modifier(event: &KeyboardEvent) -> bool {
    event.ctrl_key() || event.alt_key() || event.meta_key()
}

/// Moves the focus from the link in a row of a table to that in the next row, or in the one before,
/// if an arrow key was pressed.
pub(crate) fn move_focus(event: &KeyboardEvent) {
    let target = event.target().and_then(|target| target.dyn_into::<Element>().ok());
    let row = target.and_then(|target| target.closest("tr").ok().flatten());
    let row = match &*event.key() {
        "ArrowDown" => row.and_then(|row| row.next_element_sibling()),
        "ArrowUp" => row.and_then(|row| row.previous_element_sibling()),
        _ => None,
    };
    let link = row.and_then(|row| row.query_selector("a").ok().flatten());
    if let Some(link) = link.and_then(|link| link.dyn_into::<HtmlElement>().ok()) {
        // Fails only for elements that cannot have the focus.
        let _ = link.focus();
        event.prevent_default();
    }
}

//! Single keys that do something.

use leptos::prelude::*;
use wasm_bindgen::JsCast as _;
use web_sys::{Element, KeyboardEvent};

/// Calls `pressed` with each key (UI Events, `KeyboardEvent.key`) that is pressed, not held down, without
/// Ctrl, Alt or Meta, and not into a field or while a dialog is open, until the current owner is cleaned
/// up. If it says that the key was for it, the browser does nothing of its own.
pub(crate) fn on_key(pressed: impl Fn(&str) -> bool + 'static) {
    let handle = window_event_listener_untyped("keydown", move |event| {
        let Some(event) = event.dyn_ref::<KeyboardEvent>() else { return };
        let target = event.target().and_then(|target| target.dyn_into::<Element>().ok());
        let is_for_another = |target: &Element| {
            target.closest("input, textarea, select").is_ok_and(|found| found.is_some())
        };
        let is_for_another = target.as_ref().is_some_and(is_for_another)
            || document().query_selector("dialog").is_ok_and(|dialog| dialog.is_some());
        let has_modifier = event.ctrl_key() || event.alt_key() || event.meta_key();
        if event.repeat() || has_modifier || event.default_prevented() || is_for_another {
            return;
        }
        if pressed(&event.key()) {
            event.prevent_default();
        }
    });
    on_cleanup(move || handle.remove());
}

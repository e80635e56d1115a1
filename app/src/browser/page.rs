//! The document, its window, and the machine's clock.

use std::time::{Duration, SystemTime};

use leptos::prelude::*;
use wasm_bindgen::JsCast as _;
use waterclock::timestamp::Timestamp;
use web_sys::{Element, HtmlElement, MouseEvent};

/// Returns the time by the machine's clock.
pub(crate) fn time() -> Timestamp {
    Timestamp::from(
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(js_sys::Date::now().max(0.0) / 1000.0),
    )
}

/// Returns the offset of local time from UTC at that time, in minutes.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "whole minutes")]
pub(crate) fn utc_offset(time: Timestamp) -> i32 {
    let date = js_sys::Date::new(&(time.as_millis() as f64).into());
    -(date.get_timezone_offset() as i32)
}

/// Returns a random name, which nobody else uses.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 16];
    if let Ok(crypto) = window().crypto() {
        // Fails only for more than 65,536 bytes.
        let _ = crypto.get_random_values_with_u8_array(&mut bytes);
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// Returns the origin of the page: scheme, host and port.
pub(crate) fn origin() -> String {
    location().origin().unwrap_or_default()
}

/// Sets the title of the document.
pub(crate) fn set_title(title: &str) {
    document().set_title(title);
}

/// Returns the text of the element of that id.
pub(crate) fn text_of(id: &str) -> Option<String> {
    document().get_element_by_id(id)?.text_content()
}

/// Calls `on_resize` when the window is resized, until the current owner is cleaned up.
pub(crate) fn on_resize(on_resize: impl Fn() + 'static) {
    let handle = window_event_listener_untyped("resize", move |_| on_resize());
    on_cleanup(move || handle.remove());
}

/// Calls `on_change` when the page is hidden or becomes visible, until the current owner is cleaned
/// up.
pub(crate) fn on_visibility(on_change: impl Fn() + 'static) {
    let handle = window_event_listener_untyped("visibilitychange", move |_| on_change());
    on_cleanup(move || handle.remove());
}

/// Focuses the element of that id.
pub(crate) fn focus(id: &str) {
    let element = document().get_element_by_id(id);
    let element = element.and_then(|element| element.dyn_into::<HtmlElement>().ok());
    // Fails only for elements that cannot have the focus.
    let _ = element.map(|element| element.focus());
}

/// Returns `true` if a media query matches.
pub(super) fn matches_media(query: &str) -> bool {
    window().match_media(query).is_ok_and(|query| query.is_some_and(|query| query.matches()))
}

/// Returns the number that is the id of the list item in which a click was.
pub(crate) fn clicked_item(click: &MouseEvent) -> Option<u64> {
    let target = click.target()?.dyn_into::<Element>().ok()?;
    target.closest("li").ok()??.id().parse().ok()
}

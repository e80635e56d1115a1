//! All that touches the browser's own objects. Nothing here runs while the server renders: it is called by
//! effects and event handlers, by what is hydrated, and by what is drawn because of them.

mod dialog;
mod json;
mod keep;
mod keys;
mod lane;
mod meter;
mod offset;
mod probe;
mod publish;
mod view;

use std::time::{Duration, SystemTime};

use leptos::prelude::*;
use wasm_bindgen::JsCast as _;
use waterclock::{id::EventId, timestamp::Timestamp};
pub(crate) use waterclock_leptos::browser::{
    Lifecycle, every_second, is_visible, now, on_lifecycle, poll,
};
use web_sys::{Element, HtmlElement, MouseEvent};

pub(crate) use dialog::open_dialog;
pub(crate) use json::pretty_json;
pub(crate) use keep::{
    address_with_fragment, clear_fragment, copy, download, fragment, on_fragment, query, set_query,
    set_setting, setting,
};
pub(crate) use keys::on_key;
pub(crate) use lane::{Address, Lane, open_lane};
pub(crate) use meter::{
    Counted, MeterReading, cut, draw_meter, end_load, from_base64url, load, position, protocol,
    read_meter, remember_transfers, to_base64url, transferred,
};
pub(crate) use offset::{now as precise_time, offset};
pub(crate) use probe::{PROBE, clear_resource_timings, fetch_probe, resume_probe, service_worker};
pub(crate) use publish::publish;
pub(crate) use view::{View, can_scroll, is_above, is_at_end, lay_out, measure};

/// The time, as the browser's machine has it.
pub(crate) fn time() -> Timestamp {
    Timestamp::from(
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(js_sys::Date::now().max(0.0) / 1000.0),
    )
}

/// How many minutes the reader's time is ahead of UTC, at that time.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "whole minutes")]
pub(crate) fn minutes_ahead(time: Timestamp) -> i32 {
    let date = js_sys::Date::new(&(time.as_millis() as f64).into());
    -(date.get_timezone_offset() as i32)
}

/// What the page's server is called: scheme, name and port.
pub(crate) fn origin() -> String {
    location().origin().unwrap_or_default()
}

/// Says what the tab and the window are called.
pub(crate) fn set_title(title: &str) {
    document().set_title(title);
}

/// Calls `resized` when the window has another size, until the current owner is cleaned up.
pub(crate) fn on_resize(resized: impl Fn() + 'static) {
    let handle = window_event_listener_untyped("resize", move |_| resized());
    on_cleanup(move || handle.remove());
}

/// Puts the cursor into the field of that id.
pub(crate) fn focus(id: &str) {
    let field =
        document().get_element_by_id(id).and_then(|field| field.dyn_into::<HtmlElement>().ok());
    // Fails for what is no field.
    let _ = field.map(|field| field.focus());
}

/// The id of the event to whose row a click belongs.
pub(crate) fn clicked_event(click: &MouseEvent) -> Option<EventId> {
    let target = click.target()?.dyn_into::<Element>().ok()?;
    target.closest("[data-id]").ok()??.get_attribute("data-id")?.parse().ok()
}

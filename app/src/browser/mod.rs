//! All that touches the browser's own objects. Nothing here runs while the server renders: it is called by
//! effects and event handlers, by what is hydrated, and by what is drawn because of them.

mod dialog;
mod event_source;
mod explain;
mod group;
mod json;
mod keep;
mod keys;
mod lane;
mod meter;
mod offset;
mod poll;
mod probe;
mod publish;
mod view;

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use leptos::prelude::*;
use send_wrapper::SendWrapper;
use wasm_bindgen::JsCast as _;
use waterclock::{connection::Instant, id::EventId, stopwatch::Stopwatch, timestamp::Timestamp};
use web_sys::{Element, HtmlElement, MouseEvent};

pub(crate) use dialog::open_dialog;
pub use event_source::{EventSourceSignal, Incoming, event_source};
pub(crate) use explain::explain;
pub(crate) use group::{Group, GroupNews, count_tabs};
pub(crate) use json::{FromJson, Json, from_json, pretty_json};
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
pub(crate) use poll::{Polled, poll};
pub(crate) use probe::{PROBE, clear_resource_timings, fetch_probe, resume_probe, service_worker};
pub(crate) use publish::publish;
pub(crate) use view::{View, can_scroll, is_above, is_at_end, lay_out, measure};

/// How long the page has been there.
pub(crate) fn now() -> Instant {
    thread_local! {
        static STOPWATCH: Cell<Stopwatch> = Cell::default();
    }
    let millis = |millis: f64| Duration::from_secs_f64(millis.max(0.0) / 1000.0);
    let monotonic = window().performance().map_or(0.0, |performance| performance.now());
    let mut stopwatch = STOPWATCH.get();
    let now = stopwatch.read(millis(monotonic), millis(js_sys::Date::now()));
    STOPWATCH.set(stopwatch);
    now
}

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

/// A number from 0 to 1.
pub(crate) fn random() -> f64 {
    js_sys::Math::random()
}

/// Calls `tick` about once a second until the current owner is cleaned up. Browsers call less often
/// while the page is hidden.
pub(crate) fn every_second(tick: impl Fn() + 'static) {
    let interval = SendWrapper::new(gloo_timers::callback::Interval::new(1000, tick));
    on_cleanup(move || drop(interval));
}

/// What happens to a page as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// It goes: for good, or into the browser's back/forward cache.
    Hidden,
    /// It comes out of that cache.
    Shown,
    /// It can be seen again.
    Visible,
    /// The browser says that it has a network again.
    Online,
}

/// Calls `happened` for each of these, until the current owner is cleaned up.
pub(crate) fn on_lifecycle(happened: impl Fn(Lifecycle) + Copy + 'static) {
    let on = |name, tell: fn() -> Option<Lifecycle>| {
        let handle = window_event_listener_untyped(name, move |_| {
            if let Some(lifecycle) = tell() {
                happened(lifecycle);
            }
        });
        on_cleanup(move || handle.remove());
    };
    on("pagehide", || Some(Lifecycle::Hidden));
    on("pageshow", || Some(Lifecycle::Shown));
    on("visibilitychange", || is_visible().then_some(Lifecycle::Visible));
    on("online", || Some(Lifecycle::Online));
}

/// Whether the page can be seen.
pub(crate) fn is_visible() -> bool {
    !document().hidden()
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

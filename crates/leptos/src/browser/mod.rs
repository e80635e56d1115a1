//! Everything that uses the browser's own objects. Nothing here runs while the server renders:
//! effects and event handlers call it, and they run in a browser only.

mod event_source;
mod explain;
mod json;
mod poll;
mod tab_group;

use std::{cell::Cell, time::Duration};

use leptos::prelude::*;
use send_wrapper::SendWrapper;

pub use event_source::{
    EventSourceHandle, EventSourceSignal, RawMessage, SourceEvent, event_source,
};
pub(crate) use explain::explain;
pub use explain::problem_detail;
pub use json::{FromJson, Json, from_json};
pub use poll::{AbortOnDrop, PollResponse, poll, poll_until_dropped};
pub(crate) use tab_group::{GroupEvent, TabGroup, count_tabs};

use crate::{connection::PageTime, stopwatch::Stopwatch};

/// Returns the time since the page was loaded.
pub fn now() -> PageTime {
    thread_local! {
        static STOPWATCH: Cell<Stopwatch> = Cell::default();
    }
    let millis = |millis: f64| Duration::from_secs_f64(millis.max(0.0) / 1000.0);
    let monotonic = window().performance().map_or(0.0, |performance| performance.now());
    let mut stopwatch = STOPWATCH.get();
    let now = stopwatch.elapsed(millis(monotonic), millis(js_sys::Date::now()));
    STOPWATCH.set(stopwatch);
    now
}

/// Calls `tick` about once a second until the current owner is cleaned up. Browsers call it less
/// often while the page is hidden.
pub fn every_second(tick: impl Fn() + 'static) {
    let interval = SendWrapper::new(gloo_timers::callback::Interval::new(1000, tick));
    on_cleanup(move || drop(interval));
}

/// An event in the life of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// The page is unloaded, or put into the back/forward cache.
    Hidden,
    /// The page is restored from the back/forward cache.
    Shown,
    /// The page has become visible.
    Visible,
    /// The browser reports that the network is back.
    Online,
}

/// Calls `on_event` for each event in the life of the page, until the current owner is cleaned up.
pub fn on_lifecycle(on_event: impl Fn(Lifecycle) + Copy + 'static) {
    let on = |name, lifecycle: fn() -> Option<Lifecycle>| {
        let handle = window_event_listener_untyped(name, move |_| {
            if let Some(lifecycle) = lifecycle() {
                on_event(lifecycle);
            }
        });
        on_cleanup(move || handle.remove());
    };
    on("pagehide", || Some(Lifecycle::Hidden));
    on("pageshow", || Some(Lifecycle::Shown));
    on("visibilitychange", || is_visible().then_some(Lifecycle::Visible));
    on("online", || Some(Lifecycle::Online));
}

/// Returns `true` if the page is visible.
pub fn is_visible() -> bool {
    !document().hidden()
}

//! All that touches the browser's own objects. Nothing here runs while the server renders: it is called by
//! effects and event handlers.

mod event_source;
mod explain;
pub(crate) mod group;
mod json;
mod poll;

use std::{cell::Cell, time::Duration};

use leptos::prelude::*;
use send_wrapper::SendWrapper;

pub use event_source::{EventSourceSignal, Incoming, Source, event_source};
pub use explain::{detail, explain};
pub use json::{FromJson, Json, from_json};
pub use poll::{AbortOnDrop, Polled, poll, poll_until_dropped};

use crate::{connection::Instant, stopwatch::Stopwatch};

/// How long the page has been there.
pub fn now() -> Instant {
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

/// A number from 0 to 1.
pub fn random() -> f64 {
    js_sys::Math::random()
}

/// Calls `tick` about once a second until the current owner is cleaned up. Browsers call less often
/// while the page is hidden.
pub fn every_second(tick: impl Fn() + 'static) {
    let interval = SendWrapper::new(gloo_timers::callback::Interval::new(1000, tick));
    on_cleanup(move || drop(interval));
}

/// What happens to a page as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
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
pub fn on_lifecycle(happened: impl Fn(Lifecycle) + Copy + 'static) {
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
pub fn is_visible() -> bool {
    !document().hidden()
}

//! The page itself: its clock, its timers, and the events of its life.

use std::{cell::Cell, time::Duration};

use leptos::prelude::*;
use send_wrapper::SendWrapper;

use super::is_over;
use crate::{connection::PageTime, stopwatch::Stopwatch};

/// Returns the time since the first reading.
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

/// Returns a random number from 0 to 1.
pub fn random() -> f64 {
    js_sys::Math::random()
}

/// Returns the page's origin in the URL of a WebSocket: `ws://localhost:3000`.
pub(crate) fn socket_origin() -> String {
    let origin = window().location().origin().unwrap_or_default();
    ["ws", origin.strip_prefix("http").unwrap_or_default()].concat()
}

/// Calls `tick` about once a second until the current owner is cleaned up. Browsers call it less
/// often while the page is hidden.
pub fn every_second(tick: impl Fn() + 'static) {
    let tick = move || {
        if !is_over() {
            tick();
        }
    };
    let interval = SendWrapper::new(gloo_timers::callback::Interval::new(1000, tick));
    on_cleanup(move || drop(interval));
}

/// An event in the life of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// The page is unloaded, or put into the back/forward cache.
    PageHide,
    /// The page is restored from the back/forward cache.
    PageShow,
    /// The page has become visible.
    Visible,
    /// The browser reports that the network is back.
    Online,
}

/// Calls `on_event` for each event in the life of the page, until the current owner is cleaned up.
pub fn on_lifecycle(on_event: impl Fn(Lifecycle) + Copy + 'static) {
    let on = |name, lifecycle: fn() -> Option<Lifecycle>| {
        let handle = window_event_listener_untyped(name, move |_| {
            if let Some(lifecycle) = lifecycle()
                && !is_over()
            {
                on_event(lifecycle);
            }
        });
        on_cleanup(move || handle.remove());
    };
    on("pagehide", || Some(Lifecycle::PageHide));
    on("pageshow", || Some(Lifecycle::PageShow));
    on("visibilitychange", || is_visible().then_some(Lifecycle::Visible));
    on("online", || Some(Lifecycle::Online));
}

/// Returns `true` if the page is visible.
pub fn is_visible() -> bool {
    !document().hidden()
}

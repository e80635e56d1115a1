//! All that touches the browser's own objects. Every function here is called from effects and event
//! handlers only, which never run while the server renders.

mod event_source;
mod explain;
mod json;
mod publish;

use std::time::{Duration, SystemTime};

use leptos::prelude::*;
use send_wrapper::SendWrapper;
use waterclock::{connection::Instant, timestamp::Timestamp};

pub use event_source::{EventSourceSignal, Incoming, event_source};
pub(crate) use explain::explain;
pub(crate) use json::{FromJson, Json, from_json};
pub(crate) use publish::publish;

/// How long the page has been there, by a clock that never goes back.
pub(crate) fn now() -> Instant {
    let millis = window().performance().map_or(0.0, |performance| performance.now());
    Duration::from_secs_f64(millis / 1000.0)
}

/// The time, as the browser's machine has it.
pub(crate) fn time() -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(js_sys::Date::now() / 1000.0))
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

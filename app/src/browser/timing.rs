//! Measurements by the browser itself (W3C Resource Timing and Navigation Timing).

use js_sys::Reflect;
use leptos::prelude::window;
use wasm_bindgen::JsValue;
use waterclock::transport::Transport;

/// Returns the bytes that polls and long polls have received since the last call, by transport, in
/// the order of [`Transport::ALL`]. Counts requests with the name of the meter in their URL.
///
/// The source is Resource Timing's `transferSize`: the size of the content as transferred, plus 300
/// for the head, whatever its size is.
pub(crate) fn transferred(meter: &str) -> [f64; 4] {
    let mut bytes = [0.0; 4];
    let Some(performance) = window().performance() else { return bytes };
    let number = |entry: &JsValue, name: &str| Reflect::get(entry, &name.into()).ok()?.as_f64();
    for entry in performance.get_entries_by_type("resource") {
        let name = Reflect::get(&entry, &"name".into()).ok().and_then(|name| name.as_string());
        let Some(name) = name.filter(|name| name.contains(meter) && name.contains("/poll?")) else {
            continue;
        };
        let is_long = name.contains("&wait=");
        let transport = if is_long { Transport::LongPoll } else { Transport::Poll };
        for (i, other) in Transport::ALL.into_iter().enumerate() {
            if other == transport {
                bytes[i] += number(&entry, "transferSize").unwrap_or_default();
            }
        }
    }
    performance.clear_resource_timings();
    bytes
}

/// Discards the entries so far, and makes room for those between two calls of [`transferred`].
pub(crate) fn reset_transferred() {
    if let Some(performance) = window().performance() {
        performance.clear_resource_timings();
        performance.set_resource_timing_buffer_size(10_000);
    }
}

/// Returns the protocol by which this page was loaded, such as `http/1.1` or `h2` (RFC 7301).
/// Returns an empty text if the browser does not say.
pub(crate) fn protocol() -> String {
    let entries = window().performance().map(|all| all.get_entries_by_type("navigation"));
    let entry = entries.map(|entries| entries.get(0)).unwrap_or_default();
    let protocol = Reflect::get(&entry, &"nextHopProtocol".into()).ok();
    protocol.and_then(|protocol| protocol.as_string()).unwrap_or_default()
}

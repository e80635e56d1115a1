//! The page's address: its query and its fragment.

use leptos::prelude::*;
use wasm_bindgen::JsValue;
use web_sys::Url;

/// Returns a parameter of the query.
pub(crate) fn query(name: &str) -> Option<String> {
    address()?.search_params().get(name)
}

/// Sets a parameter of the query without adding to the history. An empty value removes the
/// parameter.
pub(crate) fn set_query(name: &str, value: &str) {
    let Some(address) = address() else { return };
    if value.is_empty() {
        address.search_params().delete(name);
    } else {
        address.search_params().set(name, value);
    }
    replace(&address);
}

/// Returns the fragment, without `#`.
pub(crate) fn fragment() -> String {
    address().map(|address| address.hash().trim_start_matches('#').to_owned()).unwrap_or_default()
}

/// Removes the fragment without adding to the history.
pub(crate) fn clear_fragment() {
    if let Some(address) = address()
        && !address.hash().is_empty()
    {
        address.set_hash("");
        replace(&address);
    }
}

/// Calls `on_change` when the fragment changes, until the current owner is cleaned up.
pub(crate) fn on_fragment(on_change: impl Fn() + 'static) {
    let handle = window_event_listener_untyped("hashchange", move |_| on_change());
    on_cleanup(move || handle.remove());
}

/// Returns the page's address with another fragment.
pub(crate) fn address_with_fragment(fragment: &str) -> String {
    let Some(address) = address() else { return String::new() };
    address.set_hash(fragment);
    address.href()
}

fn address() -> Option<Url> {
    Url::new(&location().href().ok()?).ok()
}

fn replace(address: &Url) {
    if let Ok(history) = window().history() {
        // Some browsers refuse if this is called too often. The address then stays as it was.
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&address.href()));
    }
}

/// Encodes a text for use as a value in a query.
pub(crate) fn encode_component(text: &str) -> String {
    js_sys::encode_uri_component(text).into()
}

/// Encodes an ASCII text for use in an address (RFC 4648, section 5). Returns `None` for any other
/// text.
pub(crate) fn to_base64url(text: &str) -> Option<String> {
    let base64 = window().btoa(text).ok()?;
    Some(base64.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned())
}

/// Decodes the output of [`to_base64url`]. Returns `None` for any other text.
pub(crate) fn from_base64url(base64: &str) -> Option<String> {
    window().atob(&base64.replace('-', "+").replace('_', "/")).ok()
}

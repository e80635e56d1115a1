//! What outlives the page: its address, the browser's storage, the clipboard, and files.

use js_sys::{Array, Reflect};
use leptos::prelude::*;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, HtmlAnchorElement, Navigator, Storage, Url};

/// A parameter of the page's address.
pub(crate) fn query(name: &str) -> Option<String> {
    address()?.search_params().get(name)
}

/// Sets a parameter of the page's address, without a step in its history. An empty one is left out.
pub(crate) fn set_query(name: &str, value: &str) {
    let Some(address) = address() else { return };
    if value.is_empty() {
        address.search_params().delete(name);
    } else {
        address.search_params().set(name, value);
    }
    if let Ok(history) = window().history() {
        // Some browsers refuse when it is done too often; then the address is that of a moment ago.
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&address.href()));
    }
}

/// What stands behind the `#` of the page's address.
pub(crate) fn fragment() -> String {
    address().map(|address| address.hash().trim_start_matches('#').to_owned()).unwrap_or_default()
}

/// Removes it, without a step in the history.
pub(crate) fn clear_fragment() {
    if let Some(address) = address()
        && !address.hash().is_empty()
        && let Ok(history) = window().history()
    {
        address.set_hash("");
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&address.href()));
    }
}

/// Calls `changed` when another one is gone to, until the current owner is cleaned up.
pub(crate) fn on_fragment(changed: impl Fn() + 'static) {
    let handle = window_event_listener_untyped("hashchange", move |_| changed());
    on_cleanup(move || handle.remove());
}

/// The page's address with that behind its `#`.
pub(crate) fn address_with_fragment(fragment: &str) -> String {
    let Some(address) = address() else { return String::new() };
    address.set_hash(fragment);
    address.href()
}

fn address() -> Option<Url> {
    Url::new(&location().href().ok()?).ok()
}

/// What was kept under a name, if there is storage: readers may have it disabled.
pub(crate) fn setting(name: &str) -> Option<String> {
    storage()?.get_item(&key(name)).ok()?
}

/// Keeps a value, if there is storage.
pub(crate) fn set_setting(name: &str, value: &str) {
    if let Some(storage) = storage() {
        // Full, or disabled.
        let _ = storage.set_item(&key(name), value);
    }
}

fn storage() -> Option<Storage> {
    window().local_storage().ok()?
}

fn key(name: &str) -> String {
    format!("waterclock.{name}")
}

/// Puts a text into the clipboard, which browsers have only over HTTPS and from this machine. Whether
/// that was done.
pub(crate) async fn copy(text: &str) -> bool {
    let navigator: Navigator = window().navigator();
    let has_clipboard = Reflect::get(&navigator, &"clipboard".into());
    if !has_clipboard.is_ok_and(|clipboard| clipboard.is_object()) {
        return false;
    }
    JsFuture::from(navigator.clipboard().write_text(text)).await.is_ok()
}

/// Has the reader save a text as a file.
pub(crate) fn download(name: &str, text: &str) {
    let parts = Array::of1(&text.into());
    let Ok(blob) = Blob::new_with_str_sequence(&parts) else { return };
    let Ok(url) = Url::create_object_url_with_blob(&blob) else { return };
    if let Ok(link) = document().create_element("a") {
        let link: HtmlAnchorElement = link.unchecked_into();
        link.set_href(&url);
        link.set_download(name);
        link.click();
    }
    // By then the browser has read it.
    set_timeout(move || drop(Url::revoke_object_url(&url)), std::time::Duration::from_mins(1));
}

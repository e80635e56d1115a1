//! Settings in the browser's local storage, which readers may have disabled.

use leptos::prelude::window;
use web_sys::Storage;

/// Returns a stored setting.
pub(crate) fn setting(name: &str) -> Option<String> {
    storage()?.get_item(&key(name)).ok()?
}

/// Stores a setting.
pub(crate) fn set_setting(name: &str, value: &str) {
    if let Some(storage) = storage() {
        // Fails if the storage is full. The setting then lasts until the page is closed.
        let _ = storage.set_item(&key(name), value);
    }
}

fn storage() -> Option<Storage> {
    window().local_storage().ok()?
}

fn key(name: &str) -> String {
    format!("waterclock.{name}")
}

//! Text that leaves the page: into the clipboard, or into a file.

use std::time::Duration;

use js_sys::{Array, Reflect};
use leptos::prelude::*;
use wasm_bindgen::JsCast as _;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, HtmlAnchorElement, Navigator, Url};

/// Copies a text into the clipboard, and returns `true` on success. Browsers have a clipboard only
/// in secure contexts (HTTPS or localhost).
pub(crate) async fn copy(text: &str) -> bool {
    let navigator: Navigator = window().navigator();
    let clipboard = Reflect::get(&navigator, &"clipboard".into());
    if !clipboard.is_ok_and(|clipboard| clipboard.is_object()) {
        return false;
    }
    JsFuture::from(navigator.clipboard().write_text(text)).await.is_ok()
}

/// Saves a text as a file in the reader's downloads.
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
    set_timeout(move || drop(Url::revoke_object_url(&url)), Duration::from_mins(1));
}

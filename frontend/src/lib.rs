//! The WebAssembly entry points: they build a page in an element of the document. Each page calls
//! its own.
//!
//! Each page has a feature of its own. A release is built once for each feature, so that
//! no page loads another's code. The default has all of them in one module.

use std::panic;

use leptos::{IntoView, mount::mount_to};
use wasm_bindgen::prelude::wasm_bindgen;
use web_sys::HtmlElement;

#[wasm_bindgen]
extern "C" {
    /// Tells the reader that the page has failed. The script in the document provides it
    /// (`app/src/loader.js`).
    #[wasm_bindgen(js_name = pageFailed)]
    fn page_failed(message: &str);
}

/// Builds `/`.
#[cfg(feature = "home")]
#[wasm_bindgen]
pub fn home(root: HtmlElement) {
    mount(root, app::mounted_home);
}

/// Builds `/compare`.
#[cfg(feature = "compare")]
#[wasm_bindgen]
pub fn compare(root: HtmlElement) {
    mount(root, app::mounted_compare);
}

/// Builds `/diagnose`.
#[cfg(feature = "diagnose")]
#[wasm_bindgen]
pub fn diagnose(root: HtmlElement) {
    mount(root, app::mounted_diagnose);
}

/// Builds `/topics`.
#[cfg(feature = "topics")]
#[wasm_bindgen]
pub fn topics(root: HtmlElement) {
    mount(root, app::mounted_topics);
}

/// Gives up the page's stream, and everything else that other tabs or the server wait for. The
/// script calls it when the page has failed.
#[wasm_bindgen(js_name = giveUp)]
pub fn give_up() {
    app::give_up_all();
}

/// The browser ends the call that panics, but it goes on calling the event handlers of a page that
/// can no longer be right. So the reader must know.
fn mount<N: IntoView + 'static>(root: HtmlElement, page: fn() -> N) {
    panic::set_hook(Box::new(|panic| page_failed(&panic.to_string())));
    mount_to(root, page).forget();
}

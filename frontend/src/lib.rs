//! The WebAssembly entry points: they hydrate the page that the server has rendered. Each page
//! calls its own.
//!
//! The three features belong to the three pages. A release is built once for each feature, so that
//! no page loads another's code. The default has all of them in one module.

#[cfg(any(feature = "home", feature = "compare", feature = "diagnose"))]
use wasm_bindgen::prelude::wasm_bindgen;

/// Called by `/` once the module is loaded.
#[cfg(feature = "home")]
#[wasm_bindgen]
pub fn hydrate() {
    console_error_panic_hook::set_once();
    leptos::mount::hydrate_body(app::hydrated_home);
}

/// Called by `/compare` once the module is loaded.
#[cfg(feature = "compare")]
#[wasm_bindgen]
pub fn hydrate_compare() {
    console_error_panic_hook::set_once();
    leptos::mount::hydrate_body(app::hydrated_compare);
}

/// Called by `/diagnose` once the module is loaded.
#[cfg(feature = "diagnose")]
#[wasm_bindgen]
pub fn hydrate_diagnose() {
    console_error_panic_hook::set_once();
    leptos::mount::hydrate_body(app::hydrated_diagnose);
}

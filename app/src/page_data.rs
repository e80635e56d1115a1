//! The data of a page, on its way from the server to the browser. The server writes it into the
//! document as JSON, with serde. The browser parses it with its own parser.

use leptos::prelude::*;
use serde::Serialize;
use waterclock_leptos::browser::internal::{FromJson, from_json};

use crate::browser;

/// Id of the element with the data.
const ID: &str = "data";

/// Returns the element with the data.
pub(crate) fn element(data: &impl Serialize) -> AnyView {
    // If it cannot be encoded, the browser will report that it is missing. The text of a script
    // ends at its end tag, and only JSON can escape anything in it.
    let json = serde_json::to_string(data).unwrap_or_default().replace('<', "\\u003c");
    view! { <script id=ID type="application/json" inner_html=json></script> }.into_any()
}

/// Reads the data in the browser.
///
/// # Panics
///
/// Panics if the data is missing or damaged. A page with other data would show the wrong events.
pub(crate) fn read<T: FromJson>() -> T {
    let data = browser::text_of(ID).and_then(|json| from_json(&json));
    data.unwrap_or_else(|| panic!("the data in the document has been rewritten"))
}

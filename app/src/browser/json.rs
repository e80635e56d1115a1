//! JSON for the reader's eyes.

use js_sys::JSON;
use wasm_bindgen::JsValue;

/// An object or a list in JSON, over several lines; none if the text is something else.
pub(crate) fn pretty_json(text: &str) -> Option<String> {
    let value = JSON::parse(text).ok().filter(JsValue::is_object)?;
    JSON::stringify_with_replacer_and_space(&value, &JsValue::NULL, &2.into()).ok()?.as_string()
}

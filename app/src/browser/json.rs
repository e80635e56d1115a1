//! JSON, formatted for people.

use js_sys::JSON;
use wasm_bindgen::JsValue;

/// Formats an object or a list in JSON over several lines. Returns `None` for any other text.
pub(crate) fn pretty_json(text: &str) -> Option<String> {
    let value = JSON::parse(text).ok().filter(JsValue::is_object)?;
    JSON::stringify_with_replacer_and_space(&value, &JsValue::NULL, &2.into()).ok()?.as_string()
}

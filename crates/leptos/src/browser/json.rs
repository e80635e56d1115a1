//! JSON, read by the browser's own parser. A parser in WebAssembly, with the code that serde derives
//! for it, would add a sixth to what the page loads.

use std::str::FromStr;

use js_sys::{Array, JSON, Reflect};
use wasm_bindgen::JsValue;

/// A value that was read from JSON.
pub struct Json(JsValue);

/// What can be made of a value; none if it is something else.
pub trait FromJson: Sized {
    /// Makes it.
    fn from_json(json: &Json) -> Option<Self>;
}

/// Reads a value from its text.
pub fn from_json<T: FromJson>(text: &str) -> Option<T> {
    T::from_json(&Json(JSON::parse(text).ok()?))
}

impl Json {
    /// A member of an object; none if there is none, or it is null.
    pub fn get(&self, name: &str) -> Option<Self> {
        let value = Reflect::get(&self.0, &name.into()).ok()?;
        (!value.is_null() && !value.is_undefined()).then_some(Self(value))
    }

    /// A member that is a string, read as a `T`.
    pub fn parse<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.0.as_string()?.parse().ok()
    }

    /// A member that is a number, as the nearest that is whole and not negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub fn number(&self, name: &str) -> Option<u64> {
        Some(self.get(name)?.0.as_f64()? as u64)
    }

    /// Whether a member is true.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.0.is_truthy())
    }

    /// A member that is a list, without what is no `T`.
    pub fn list<T: FromJson>(&self, name: &str) -> Vec<T> {
        let list = self.get(name).map(|list| Array::from(&list.0)).unwrap_or_default();
        list.iter().filter_map(|value| T::from_json(&Self(value))).collect()
    }
}

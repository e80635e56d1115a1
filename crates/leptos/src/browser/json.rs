//! JSON, parsed by the browser. A parser in WebAssembly, with the code that serde derives for it,
//! would add a sixth to the size of the page.

use std::str::FromStr;

use js_sys::{Array, JSON, Reflect};
use wasm_bindgen::JsValue;

/// A parsed value.
pub struct Json(JsValue);

/// A type that can be read from JSON.
pub trait FromJson: Sized {
    /// Reads a value. Returns `None` if it has another shape.
    fn from_json(json: &Json) -> Option<Self>;
}

/// Parses a text. Returns `None` if it is not JSON, or has another shape.
pub fn from_json<T: FromJson>(text: &str) -> Option<T> {
    T::from_json(&Json(JSON::parse(text).ok()?))
}

impl Json {
    /// Returns a member of an object, unless it is missing or null.
    pub fn get(&self, name: &str) -> Option<Self> {
        let value = Reflect::get(&self.0, &name.into()).ok()?;
        (!value.is_null() && !value.is_undefined()).then_some(Self(value))
    }

    /// Parses a member that is a string.
    pub fn parse<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.0.as_string()?.parse().ok()
    }

    /// Returns a member that is a number, rounded down, and 0 if it is negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub fn number(&self, name: &str) -> Option<u64> {
        Some(self.get(name)?.0.as_f64()? as u64)
    }

    /// Returns `true` if a member is true.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.0.is_truthy())
    }

    /// Returns a member that is a list, without elements of another shape than `T`.
    pub fn list<T: FromJson>(&self, name: &str) -> Vec<T> {
        let list = self.get(name).map(|list| Array::from(&list.0)).unwrap_or_default();
        list.iter().filter_map(|value| T::from_json(&Self(value))).collect()
    }
}

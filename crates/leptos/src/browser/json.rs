//! JSON, parsed by the browser. A parser in WebAssembly, with the code that serde derives for it,
//! would add a sixth to the size of the page.

use std::str::FromStr;

#[cfg(not(test))]
use self::js::Value;
#[cfg(test)]
use self::native::Value;

/// A parsed value.
#[derive(Debug)]
pub struct Json(Value);

/// A type that can be read from JSON.
pub trait FromJson: Sized {
    /// Reads a value. Returns `None` if it has another shape.
    fn from_json(json: &Json) -> Option<Self>;
}

/// Parses a text. Returns `None` if it is not JSON, or has another shape.
pub fn from_json<T: FromJson>(text: &str) -> Option<T> {
    T::from_json(&Json::of(text)?)
}

/// Parses a text, and a member of it that is a string.
pub fn json_member<T: FromStr>(text: &str, name: &str) -> Option<T> {
    Json::of(text)?.parse(name)
}

impl Json {
    /// Returns a member of an object, unless it is missing or null.
    pub fn get(&self, name: &str) -> Option<Self> {
        self.0.member(name).map(Self)
    }

    /// Parses a text that is JSON of any shape.
    pub(crate) fn of(text: &str) -> Option<Self> {
        Value::parse(text).map(Self)
    }

    /// Returns the value as text.
    pub(crate) fn text(&self) -> String {
        self.0.text()
    }

    /// Parses a member that is a string.
    pub fn parse<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.0.string()?.parse().ok()
    }

    /// Returns a member that is a number, rounded down, and 0 if it is negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub fn number(&self, name: &str) -> Option<u64> {
        Some(self.get(name)?.0.number()? as u64)
    }

    /// Returns `true` if a member is true.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.0.is_true())
    }

    /// Returns a member that is a list, without elements of another shape than `T`.
    pub fn list<T: FromJson>(&self, name: &str) -> Vec<T> {
        let list = self.get(name).map(|list| list.0.elements()).unwrap_or_default();
        list.into_iter().filter_map(|value| T::from_json(&Self(value))).collect()
    }
}

/// The browser's values.
#[cfg(not(test))]
mod js {
    use js_sys::{Array, JSON, Reflect};
    use wasm_bindgen::JsValue;

    #[derive(Debug)]
    pub(super) struct Value(JsValue);

    impl Value {
        pub(super) fn parse(text: &str) -> Option<Self> {
            JSON::parse(text).ok().map(Self)
        }

        pub(super) fn member(&self, name: &str) -> Option<Self> {
            let value = Reflect::get(&self.0, &name.into()).ok()?;
            (!value.is_null() && !value.is_undefined()).then_some(Self(value))
        }

        pub(super) fn text(&self) -> String {
            JSON::stringify(&self.0).map(String::from).unwrap_or_default()
        }

        pub(super) fn string(&self) -> Option<String> {
            self.0.as_string()
        }

        pub(super) fn number(&self) -> Option<f64> {
            self.0.as_f64()
        }

        pub(super) fn is_true(&self) -> bool {
            self.0.is_truthy()
        }

        pub(super) fn elements(&self) -> Vec<Self> {
            Array::from(&self.0).iter().map(Self).collect()
        }
    }
}

/// Their stand-in for tests, which run without a browser.
#[cfg(test)]
mod native {
    #[derive(Debug)]
    pub(super) struct Value(serde_json::Value);

    impl Value {
        pub(super) fn parse(text: &str) -> Option<Self> {
            serde_json::from_str(text).ok().map(Self)
        }

        pub(super) fn member(&self, name: &str) -> Option<Self> {
            self.0.get(name).filter(|value| !value.is_null()).cloned().map(Self)
        }

        pub(super) fn text(&self) -> String {
            self.0.to_string()
        }

        pub(super) fn string(&self) -> Option<String> {
            self.0.as_str().map(str::to_owned)
        }

        pub(super) fn number(&self) -> Option<f64> {
            self.0.as_f64()
        }

        pub(super) fn is_true(&self) -> bool {
            self.0 == true
        }

        pub(super) fn elements(&self) -> Vec<Self> {
            self.0.as_array().into_iter().flatten().cloned().map(Self).collect()
        }
    }
}

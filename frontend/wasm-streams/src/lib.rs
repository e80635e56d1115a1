//! A stand-in for the package `wasm-streams`, through which Leptos's server functions send and
//! receive streams. The pages have no server functions. The package exports its functions to
//! JavaScript, so that no linker can remove them: 5 kB of the first load of each page.

use futures_util::{Stream, stream::Empty};
use wasm_bindgen::JsValue;

/// A stream of a server function. There is none.
#[derive(Debug)]
pub enum ReadableStream {}

impl ReadableStream {
    /// Wraps a stream of the browser.
    ///
    /// # Panics
    ///
    /// Panics always, because this package has no streams.
    pub fn from_raw(_: web_sys::ReadableStream) -> Self {
        panic!("a server function needs the package wasm-streams: remove its patch in Cargo.toml")
    }

    /// Wraps a stream of Rust.
    ///
    /// # Panics
    ///
    /// Panics always, because this package has no streams.
    pub fn from_stream(_: impl Stream<Item = Result<JsValue, JsValue>> + 'static) -> Self {
        panic!("a server function needs the package wasm-streams: remove its patch in Cargo.toml")
    }

    /// Returns the stream of the browser.
    pub fn into_raw(self) -> web_sys::ReadableStream {
        match self {}
    }

    /// Returns the stream of Rust.
    pub fn into_stream(self) -> Empty<Result<JsValue, JsValue>> {
        match self {}
    }
}

//! The data of a page, on its way from the server to the browser. The server writes it into the
//! document as JSON, with serde. The browser parses it with its own parser.

use std::fmt::Debug;

use codee::{Decoder, Encoder};
use leptos::prelude::SharedValue;
use serde::Serialize;
use waterclock_leptos::browser::internal::{FromJson, from_json};

/// Passes the data on to the browser. Returns `data` on the server, and the server's data in the
/// browser.
pub(crate) fn transfer<T>(data: T) -> T
where
    PageDataCodec: Encoder<T, Encoded = String> + Decoder<T, Encoded = str>,
    <PageDataCodec as Encoder<T>>::Error: Debug,
    <PageDataCodec as Decoder<T>>::Error: Debug,
{
    SharedValue::<T, PageDataCodec>::new_with_encoding(move || data).into_inner()
}

/// The encoding of the data of a page.
pub(crate) struct PageDataCodec;

impl<T: Serialize> Encoder<T> for PageDataCodec {
    type Error = serde_json::Error;
    type Encoded = String;

    fn encode(data: &T) -> Result<String, Self::Error> {
        serde_json::to_string(data)
    }
}

impl<T: FromJson> Decoder<T> for PageDataCodec {
    type Error = &'static str;
    type Encoded = str;

    fn decode(json: &str) -> Result<T, Self::Error> {
        from_json(json).ok_or("not the data of this page")
    }
}

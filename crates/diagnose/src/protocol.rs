//! Versions of HTTP.

use serde::Serialize;
use strum::{Display, IntoStaticStr};

/// A version of HTTP.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display, IntoStaticStr, Serialize,
)]
#[serde(into = "&'static str")]
pub enum Protocol {
    /// HTTP/1.0 or older.
    #[strum(serialize = "HTTP/1.0")]
    Http10,
    /// HTTP/1.1.
    #[strum(serialize = "HTTP/1.1")]
    Http11,
    /// HTTP/2.
    #[strum(serialize = "HTTP/2")]
    Http2,
    /// HTTP/3.
    #[strum(serialize = "HTTP/3")]
    Http3,
}

impl Protocol {
    /// Parses the name in HTTP (`HTTP/1.1`), in the Rust crate `http` (`HTTP/2.0`), or in a
    /// browser's `nextHopProtocol` (`h2`). Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http/0.9" | "http/1.0" => Some(Self::Http10),
            "http/1.1" => Some(Self::Http11),
            "http/2" | "http/2.0" | "h2" | "h2c" => Some(Self::Http2),
            "http/3" | "http/3.0" | "h3" => Some(Self::Http3),
            _ => None,
        }
    }

    /// Returns the name in HTTP, such as `HTTP/1.1`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notation_of_a_version_is_parsed() {
        for (text, expected) in [
            ("HTTP/1.0", Protocol::Http10),
            ("http/1.1", Protocol::Http11),
            ("HTTP/2.0", Protocol::Http2),
            ("h2", Protocol::Http2),
            ("h3", Protocol::Http3),
        ] {
            assert_eq!(Protocol::parse(text), Some(expected));
            assert_eq!(Protocol::parse(expected.as_str()), Some(expected));
        }
        assert_eq!(Protocol::parse(""), None);
    }
}

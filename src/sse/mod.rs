//! The wire format of Server-Sent Events, `text/event-stream`, as WHATWG HTML 9.2 defines it: an
//! encoder and a parser.
//!
//! ```
//! use waterclock::sse::{Block, Message, Parsed, Parser};
//!
//! let block = Block { id: Some("a-1"), data: Some("two\nlines"), ..Block::default() };
//! let mut bytes = Vec::new();
//! block.encode(&mut bytes)?;
//! assert_eq!(bytes, b"id: a-1\ndata: two\ndata: lines\n\n");
//!
//! let mut parser = Parser::default();
//! assert_eq!(
//!     parser.feed(&bytes),
//!     [Parsed::Message(Message {
//!         name: "message".to_owned(),
//!         data: "two\nlines".to_owned(),
//!         last_event_id: "a-1".to_owned(),
//!     })]
//! );
//! # Ok::<_, waterclock::sse::EncodeError>(())
//! ```

mod encode;
mod parse;

pub use encode::{Block, EncodeError};
pub use parse::{Message, Parsed, Parser};

/// The media type of a stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

#[cfg(test)]
mod tests {
    //! The encoder and the parser against each other.

    use std::time::Duration;

    use proptest::{option, prelude::*};

    use super::*;

    /// What the wire format can tell of a text: its line ends become LF (WHATWG HTML 9.2.5).
    fn with_lf(text: &str) -> String {
        text.replace("\r\n", "\n").replace('\r', "\n")
    }

    /// Texts that are rich in what the format gives a meaning to.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\r".to_owned()),
            Just("\n".to_owned()),
            Just("\r\n".to_owned()),
            Just(":".to_owned()),
            Just(" ".to_owned()),
            Just("data".to_owned()),
            Just("id: 1".to_owned()),
            Just("\u{feff}".to_owned()),
            Just("\0".to_owned()),
            ".{0,3}",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn field() -> impl Strategy<Value = String> {
        tricky().prop_map(|text| text.replace(['\r', '\n', '\0'], ""))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_back(
            blocks in proptest::collection::vec(
                (option::of(field()), option::of(field()), option::of(0..u64::MAX), tricky()),
                0..6,
            ),
            cuts in proptest::collection::vec(1..40_usize, 0..60),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            let mut last_event_id = String::new();
            for (id, name, retry, data) in &blocks {
                let block = Block {
                    id: id.as_deref(),
                    name: name.as_deref(),
                    retry: retry.map(Duration::from_millis),
                    data: Some(data),
                };
                block.encode(&mut bytes).unwrap();
                if let Some(retry) = retry {
                    expected.push(Parsed::Retry(Duration::from_millis(*retry)));
                }
                if let Some(id) = id {
                    last_event_id.clone_from(id);
                }
                expected.push(Parsed::Message(Message {
                    name: name.clone().filter(|n| !n.is_empty()).unwrap_or("message".to_owned()),
                    data: with_lf(data),
                    last_event_id: last_event_id.clone(),
                }));
            }

            let mut parser = Parser::default();
            let mut parsed = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                parsed.extend(parser.feed(chunk));
                rest = after;
            }
            parsed.extend(parser.feed(rest));
            prop_assert_eq!(parsed, expected);
        }

        #[test]
        fn where_chunks_are_cut_changes_nothing(
            text in tricky(),
            junk in proptest::collection::vec(any::<u8>(), 0..40),
            at in 0..80_usize,
        ) {
            let bytes = [text.as_bytes(), &junk, b"\n\n"].concat();
            let whole = Parser::default().feed(&bytes);

            let mut parser = Parser::default();
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let mut parsed = parser.feed(head);
            parsed.extend(parser.feed(tail));
            prop_assert_eq!(&parsed, &whole);

            let mut parser = Parser::default();
            let bytewise: Vec<_> = bytes.chunks(1).flat_map(|byte| parser.feed(byte)).collect();
            prop_assert_eq!(&bytewise, &whole);
        }
    }
}

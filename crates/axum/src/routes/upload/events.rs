//! `split=events`: a body as the events of an event stream, `text/event-stream`.

use bytes::{Buf as _, BytesMut};
use waterclock::{
    event::{InvalidName, Name},
    sse::{Message, Parsed, Parser},
};

use super::{LeftOut, Piece, Splitter};
use crate::{
    admission::{PublishRejection, check_size},
    limits::{MAX_BLOCK, RESERVED_NAME_PREFIX},
};

/// Parses a body as an event stream. The events keep their data and their names. Ids, `retry` and
/// comments belong to the connection on which they came, so they are skipped.
#[derive(Default)]
pub(super) struct EventSplitter {
    parser: Parser,
    /// Bytes that are not parsed yet. They are parsed line by line, so each step yields at most one
    /// event.
    bytes: BytesMut,
}

impl Splitter for EventSplitter {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(&mut self) {}

    fn next(&mut self) -> Option<Result<Piece, PublishRejection>> {
        while !self.bytes.is_empty() {
            let line_end = memchr::memchr2(b'\n', b'\r', &self.bytes);
            let length = line_end.map_or(self.bytes.len(), |end| end + 1);
            if self.parser.buffered() + length > MAX_BLOCK {
                return Some(Err(PublishRejection::BlockTooLong));
            }
            let parsed = self.parser.feed(&self.bytes[..length]);
            self.bytes.advance(length);
            for item in parsed {
                if let Parsed::Message(message) = item {
                    return Some(piece(message));
                }
            }
        }
        None
    }

    fn left_out(&self) -> LeftOut {
        LeftOut {
            discarded: u64::from(self.parser.is_within_block()),
            ignored: self.parser.unknown_fields(),
        }
    }
}

/// Returns the piece of a message. A name that belongs to the streams of this server gets a prefix.
fn piece(message: Message) -> Result<Piece, PublishRejection> {
    let Message { name, data, .. } = message;
    check_size(&data)?;
    let name = match name.parse() {
        Err(InvalidName::Reserved) => format!("{RESERVED_NAME_PREFIX}{name}").parse(),
        name => name,
    }
    .map_err(|why| PublishRejection::Name { name, why })?;
    Ok(Piece { name: (name != Name::default()).then_some(name), data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_DATA;

    type Found = Vec<Option<(Option<String>, String)>>;

    fn events(stream: &[u8]) -> (Found, LeftOut) {
        let mut splitter = EventSplitter::default();
        let pieces = super::super::tests::split(&mut splitter, &[stream]);
        (pieces.into_iter().map(Result::ok).collect(), splitter.left_out())
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for an event among refused ones")]
    fn event(name: Option<&str>, data: &str) -> Option<(Option<String>, String)> {
        Some((name.map(str::to_owned), data.to_owned()))
    }

    #[test]
    fn an_answer_of_a_language_model_becomes_events() {
        let stream = b": ping\n\nevent: delta\ndata: {\"text\":\"Hi\"}\n\nid: 7\nretry: 5\n\
                       data: two\ndata: lines\r\n\r\nevent: error\ndata: overloaded\n\n\
                       data: [DONE]\n\n";
        let expected = [
            event(Some("delta"), "{\"text\":\"Hi\"}"),
            event(None, "two\nlines"),
            event(Some("upstream-error"), "overloaded"),
            event(None, "[DONE]"),
        ];
        assert_eq!(events(stream), (expected.to_vec(), LeftOut::default()));
        let mut splitter = EventSplitter::default();
        let bytes: Vec<_> = stream.chunks(1).collect();
        let one_by_one = super::super::tests::split(&mut splitter, &bytes);
        assert_eq!(one_by_one.into_iter().map(Result::ok).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_reserved_name_gets_the_prefix() {
        for name in Name::RESERVED {
            let stream = format!("event: {name}\ndata: x\n\n");
            let expected = format!("upstream-{name}");
            assert_eq!(events(stream.as_bytes()).0, [event(Some(&expected), "x")]);
        }
    }

    #[test]
    fn half_a_block_at_the_end_is_discarded_and_counted() {
        for (end, discarded) in [
            ("", 0),
            (": comment", 0),
            (": comment\n", 0),
            ("\n", 0),
            ("data: half", 1),
            ("data: half\n", 1),
            ("event: half\n", 1),
            ("da", 1),
        ] {
            let (found, left_out) = events(format!("data: whole\n\n{end}").as_bytes());
            assert_eq!(found, [event(None, "whole")], "{end:?}");
            assert_eq!(left_out, LeftOut { discarded, ignored: 0 }, "{end:?}");
        }
    }

    #[test]
    fn lines_that_are_no_fields_are_counted() {
        let error = b"{\"error\": \"no such model\"}\n\n<html>\ndata: x\n\n";
        assert_eq!(events(error), (vec![event(None, "x")], LeftOut { discarded: 0, ignored: 2 }));
    }

    #[test]
    fn an_invalid_name_is_refused() {
        let long = format!("event: {}\ndata: x\n\n", "n".repeat(256));
        for stream in [long.as_bytes(), b"event: a\0b\ndata: x\n\n"] {
            assert_eq!(events(stream).0, [None]);
        }
    }

    #[test]
    fn a_block_that_is_too_long_is_refused_before_its_end() {
        let longest = format!("data: {}\n\n", "x".repeat(MAX_DATA));
        assert_eq!(events(longest.as_bytes()).0, [event(None, &"x".repeat(MAX_DATA))]);
        for field in ["data", "id", "", "event"] {
            let mut splitter = EventSplitter::default();
            splitter.push(format!("{field}: {}", "x".repeat(MAX_BLOCK)).as_bytes());
            assert!(matches!(splitter.next(), Some(Err(PublishRejection::BlockTooLong))));
            // However the line arrives.
            let line = format!("{field}: {}\ndata: x\n\n", "x".repeat(MAX_BLOCK));
            assert_eq!(events(line.as_bytes()).0, [None]);
        }
        let lines = "data: x\n".repeat(MAX_BLOCK);
        assert_eq!(events(lines.as_bytes()).0, [None]);
    }
}

//! The parser: bytes, in chunks of any size, into messages (WHATWG HTML 9.2.5 and 9.2.6).

use std::time::Duration;

const BOM: &[u8] = "\u{feff}".as_bytes();

/// A message that a reader dispatches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event's name; `message` if the stream has not set one.
    pub name: String,
    /// The data, with LF between lines.
    pub data: String,
    /// The last event id that the stream has set, in this message or earlier.
    pub last_event_id: String,
}

/// An item of a parsed stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A message to dispatch.
    Message(Message),
    /// A new delay before the reader reconnects.
    Retry(Duration),
}

/// An incremental parser of the stream of one connection.
///
/// It buffers the current line and block, whatever their size, and copies the last event id into
/// each message. A client of an untrusted server must bound [`buffered`](Self::buffered) or the
/// number of bytes that it feeds, and the length of [`last_event_id`](Self::last_event_id). A block
/// that the end of the stream cuts short is never dispatched.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line so far, without its end.
    line: Vec<u8>,
    /// `true` if the last byte was a CR. An LF right after it belongs to the same line end.
    after_cr: bool,
    /// `true` after the first line, which is the only one that may begin with a byte order mark.
    past_first_line: bool,
    /// The lines of data of the current block, each with an LF after it.
    data: String,
    name: String,
    /// The value of the last `id` field. It takes effect at the end of the block.
    id: String,
    last_event_id: String,
    unknown_fields: u64,
}

impl Parser {
    /// Parses the next bytes of the stream, and returns the items that they complete.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Parsed> {
        let mut parsed = Vec::new();
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            self.line.extend_from_slice(&rest[..end]);
            self.end_line(&mut parsed);
            let is_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if is_cr {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.line.extend_from_slice(rest);
        parsed
    }

    /// Returns the value of `Last-Event-ID` for a reconnect.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Returns the number of bytes of the current line and block that the parser holds.
    pub fn buffered(&self) -> usize {
        self.line.len() + self.data.len() + self.name.len() + self.id.len()
    }

    /// Returns `true` if the stream so far ends within a block, which its end would discard. A
    /// comment alone is none.
    pub fn is_within_block(&self) -> bool {
        let is_within_field = self.line.first().is_some_and(|first| *first != b':');
        is_within_field || !self.data.is_empty() || !self.name.is_empty()
    }

    /// Returns the number of lines that are neither a comment nor a field of an event stream.
    pub fn unknown_fields(&self) -> u64 {
        self.unknown_fields
    }

    fn end_line(&mut self, parsed: &mut Vec<Parsed>) {
        let bytes = std::mem::take(&mut self.line);
        let mut line = &bytes[..];
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        // CR and LF are never part of a longer UTF-8 character, so each line can be decoded alone.
        let line = String::from_utf8_lossy(line);
        if line.is_empty() {
            self.end_block(parsed);
            return;
        }
        // A comment has an empty field name, which matches none of the four.
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // A number that is too large becomes the longest delay.
                let millis = value.parse().unwrap_or(u64::MAX);
                parsed.push(Parsed::Retry(Duration::from_millis(millis)));
            }
            "" | "id" | "retry" => {}
            _ => self.unknown_fields += 1,
        }
    }

    fn end_block(&mut self, parsed: &mut Vec<Parsed>) {
        self.last_event_id.clone_from(&self.id);
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_none() {
            return;
        }
        parsed.push(Parsed::Message(Message {
            name: if name.is_empty() { "message".to_owned() } else { name },
            data,
            last_event_id: self.last_event_id.clone(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the name, data and last event id of each message.
    fn messages(stream: &[u8]) -> Vec<(String, String, String)> {
        let parsed = Parser::default().feed(stream);
        let message = |parsed| match parsed {
            Parsed::Message(m) => Some((m.name, m.data, m.last_event_id)),
            Parsed::Retry(_) => None,
        };
        parsed.into_iter().filter_map(message).collect()
    }

    /// Runs the cases of the web platform tests `eventsource/format-*`: description, stream, and
    /// dispatched data.
    #[test]
    fn the_cases_of_the_web_platform_tests() {
        let long_comment = format!("data:1\n:{}\ndata:2\n\n", "x".repeat(2000));
        let cases: &[(&str, &[u8], &[&str])] = &[
            ("a byte order mark is skipped", b"\xef\xbb\xbfdata:1\n\n", &["1"]),
            ("only the first one", b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\n", &["2"]),
            ("and only at the start", b"data:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n", &["1", "3"]),
            ("comments", b"data:1\n:x\n:\n:data:2\ndata:3\n\n", &["1\n3"]),
            ("a comment of 2,000 characters", long_comment.as_bytes(), &["1\n2"]),
            ("data before the end of file", b"data:1\n\ndata:2", &["1"]),
            ("and with a line end, but no blank line", b"data:1\n\ndata:2\n", &["1"]),
            (
                "a field without a colon",
                b"data\n\ndata\ndata\n\ndata:test\n\n",
                &["", "\n", "test"],
            ),
            ("a field name cut by NUL", b"data:1\nda\0ta:2\n\n", &["1"]),
            ("NUL in the data", b"data:a\0b\n\n", &["a\0b"]),
            ("a leading space is no field name", b"data:1\n data:2\n\n", &["1"]),
            ("field names are case-sensitive", b"Data:1\nDATA:2\ndata:3\n\n", &["3"]),
            ("line ends of all kinds", b"data:1\r\ndata:2\ndata:3\rdata:4\r\r", &["1\n2\n3\n4"]),
            ("CR LF is one line end", b"data:1\r\n\r\ndata:2\r\n\r\n", &["1", "2"]),
            ("LF CR is two", b"data:1\n\rdata:2\n\r", &["1", "2"]),
            ("one space goes, a second stays", b"data: 1\ndata:  2\ndata:3 \n\n", &["1\n 2\n3 "]),
            ("a tab stays", b"data:\t1\n\n", &["\t1"]),
            ("a no-break space stays", "data:\u{a0}1\n\n".as_bytes(), &["\u{a0}1"]),
            ("unknown fields", b"datax:1\nxdata:2\ndata :3\njunk\n:x\ndata:4\n\n", &["4"]),
            ("blank lines dispatch nothing", b"\n\n\ndata:1\n\n\n\n", &["1"]),
            ("a block without data dispatches nothing", b"event:x\nid:1\n\ndata:1\n\n", &["1"]),
            ("UTF-8 always", "data:ok…\n\n".as_bytes(), &["ok…"]),
            ("what is not UTF-8 is replaced", b"data:a\xffb\xc3\n\n", &["a\u{fffd}b\u{fffd}"]),
            ("form feed is no line end", b"data:1\x0cdata:2\n\n", &["1\x0cdata:2"]),
            ("line separator is no line end", "data:1\u{2028}2\n\n".as_bytes(), &["1\u{2028}2"]),
            ("a colon in the value", b"data:a:b: c\n\n", &["a:b: c"]),
        ];
        for (about, stream, expected) in cases {
            let data: Vec<_> = messages(stream).into_iter().map(|(_, data, _)| data).collect();
            assert_eq!(data, *expected, "{about}");
        }
    }

    #[test]
    fn a_name_applies_to_its_block_only() {
        let stream = b"event:a\ndata:1\n\ndata:2\n\nevent:b\nevent:c\ndata:3\n\nevent\ndata:4\n\n";
        let names: Vec<_> = messages(stream).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "message", "c", "message"]);
    }

    #[test]
    fn the_name_of_a_block_without_data_is_discarded() {
        assert_eq!(messages(b"event:a\n\ndata:1\n\n")[0].0, "message");
    }

    #[test]
    fn an_id_applies_until_another_is_set() {
        let stream =
            b"id:1\ndata:a\n\ndata:b\n\nid:2\n\ndata:c\n\nid:x\0y\ndata:d\n\nid\ndata:e\n\n";
        let ids: Vec<_> = messages(stream).into_iter().map(|(.., id)| id).collect();
        assert_eq!(ids, ["1", "1", "2", "2", ""]);
    }

    #[test]
    fn an_id_takes_effect_at_the_end_of_its_block() {
        let mut parser = Parser::default();
        parser.feed(b"id:1\n\nid:2\ndata:x");
        assert_eq!(parser.last_event_id(), "1");
        parser.feed(b"\n\n");
        assert_eq!(parser.last_event_id(), "2");
    }

    #[test]
    fn an_unfinished_block_and_unknown_fields_are_known() {
        for (stream, buffered, is_within_block, unknown_fields) in [
            ("", 0, false, 0),
            ("data:x", 6, true, 0),
            ("data:x\n", 2, true, 0),
            ("data:x\n\n", 0, false, 0),
            ("event:x\n", 1, true, 0),
            (": comment", 9, false, 0),
            ("id:7\nretry:x\n: comment\n\n", 1, false, 0),
            ("{}\n\n<p>\n", 0, false, 2),
        ] {
            let mut parser = Parser::default();
            parser.feed(stream.as_bytes());
            assert_eq!(parser.buffered(), buffered, "{stream:?}");
            assert_eq!(parser.is_within_block(), is_within_block, "{stream:?}");
            assert_eq!(parser.unknown_fields(), unknown_fields, "{stream:?}");
        }
    }

    #[test]
    fn retry_accepts_only_digits() {
        let retry = |value: &str| match &Parser::default()
            .feed(format!("retry:{value}\n").as_bytes())[..]
        {
            [] => None,
            [Parsed::Retry(wait)] => Some(wait.as_millis()),
            other => panic!("{other:?}"),
        };
        assert_eq!(retry("3000"), Some(3000));
        assert_eq!(retry(" 010"), Some(10));
        assert_eq!(retry("0"), Some(0));
        assert_eq!(retry("99999999999999999999999"), Some(u128::from(u64::MAX)));
        for bad in ["", "1000x", "-1", "+1", "1.5", "  1", "1 ", "٣"] {
            assert_eq!(retry(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_lf_in_the_next_chunk_belongs_to_the_cr_before_it() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(b"data:1\r"), []);
        assert_eq!(parser.feed(b""), []);
        assert_eq!(parser.feed(b"\ndata:2\r"), []);
        assert_eq!(parser.feed(b"\r").len(), 1);
        assert_eq!(parser.feed(b"\n"), []);
    }
}

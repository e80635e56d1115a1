//! The encoder: one block of fields into bytes.

use std::{io::Write as _, time::Duration};

use memchr::{memchr2, memchr3};

/// One block of a stream: its fields, and the blank line that ends it.
///
/// A reader does not dispatch a block without `data`. The other fields still take effect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Block<'a> {
    /// The reader's last event id from here on. An empty one unsets it.
    pub id: Option<&'a str>,
    /// The event's name. `None`, `message` and the empty name mean the same.
    pub name: Option<&'a str>,
    /// Delay before the reader reconnects. It is sent in whole milliseconds.
    pub retry: Option<Duration>,
    /// The data. Each CR, LF or CRLF in it ends a line, and the reader receives it as LF.
    pub data: Option<&'a str>,
}

/// A field with a character that its line cannot have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The id has CR or LF, which would end it, or NUL, for which readers would ignore it.
    #[error("an id cannot contain CR, LF or NUL: {0:?}")]
    Id(String),
    /// The name has CR or LF, which would end it, or NUL.
    #[error("a name cannot contain CR, LF or NUL: {0:?}")]
    Name(String),
}

impl Block<'_> {
    /// Appends the block to `out`.
    ///
    /// # Errors
    ///
    /// If the id or the name contains CR, LF or NUL. Then nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let breaks_out = |text: &&str| memchr3(b'\r', b'\n', 0, text.as_bytes()).is_some();
        if let Some(id) = self.id.filter(breaks_out) {
            return Err(EncodeError::Id(id.to_owned()));
        }
        if let Some(name) = self.name.filter(breaks_out) {
            return Err(EncodeError::Name(name.to_owned()));
        }

        if let Some(retry) = self.retry {
            let millis = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
            // Writing to a Vec cannot fail.
            let _ = writeln!(out, "retry: {millis}");
        }
        if let Some(id) = self.id {
            line(out, "id", id);
        }
        if let Some(name) = self.name.filter(|name| !matches!(*name, "" | "message")) {
            line(out, "event", name);
        }
        if let Some(mut rest) = self.data {
            while let Some(end) = memchr2(b'\r', b'\n', rest.as_bytes()) {
                line(out, "data", &rest[..end]);
                let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
                rest = &rest[end + width..];
            }
            line(out, "data", rest);
        }
        out.push(b'\n');
        Ok(())
    }
}

fn line(out: &mut Vec<u8>, field: &str, value: &str) {
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(block: Block<'_>) -> String {
        let mut out = Vec::new();
        block.encode(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn all_fields_are_encoded() {
        let block = Block {
            id: Some("a-1"),
            name: Some("created"),
            retry: Some(Duration::from_secs(2)),
            data: Some("x"),
        };
        assert_eq!(encode(block), "retry: 2000\nid: a-1\nevent: created\ndata: x\n\n");
    }

    #[test]
    fn each_line_of_the_data_is_a_line_of_the_block() {
        let data = |data| encode(Block { data: Some(data), ..Block::default() });
        assert_eq!(data(""), "data: \n\n");
        assert_eq!(data("a\nb\rc\r\nd"), "data: a\ndata: b\ndata: c\ndata: d\n\n");
        assert_eq!(data("\n"), "data: \ndata: \n\n");
        assert_eq!(data(" x"), "data:  x\n\n");
    }

    #[test]
    fn the_default_name_is_omitted() {
        for name in ["", "message"] {
            assert_eq!(encode(Block { name: Some(name), ..Block::default() }), "\n");
        }
    }

    #[test]
    fn an_invalid_field_is_an_error_and_writes_nothing() {
        for invalid in ["a\rb", "a\nb", "a\0b", "\r\n"] {
            let mut out = Vec::new();
            let id = Block { id: Some(invalid), data: Some("x"), ..Block::default() };
            assert_eq!(id.encode(&mut out), Err(EncodeError::Id(invalid.to_owned())));
            let name = Block { name: Some(invalid), data: Some("x"), ..Block::default() };
            assert_eq!(name.encode(&mut out), Err(EncodeError::Name(invalid.to_owned())));
            assert!(out.is_empty());
        }
    }
}

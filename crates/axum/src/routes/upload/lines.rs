//! `split=lines`: a body as lines.

use bytes::BytesMut;

use super::{Piece, Splitter};
use crate::{admission::PublishRejection, limits::MAX_DATA};

/// Splits bytes that arrive in chunks into lines. A line ends with LF, CRLF or CR, or with the last
/// chunk. A program that overwrites its line in a terminal, such as a progress bar, sends a CR.
#[derive(Default)]
pub(super) struct LineSplitter {
    bytes: BytesMut,
    /// Length of the prefix that contains no line end.
    searched: usize,
    after: After,
    is_finished: bool,
}

/// The bytes before the ones that are left, as far as they matter.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum After {
    /// The beginning, an LF, or part of a line.
    #[default]
    Other,
    /// A CR that ended a line. More CR and one LF belong to the same line end.
    Line,
    /// A CR without a line before it. It is nothing by itself, and an empty line with an LF.
    Nothing,
}

impl LineSplitter {
    /// Takes the next line, without its end. Returns `None` if it is not complete.
    fn take_line(&mut self) -> Option<BytesMut> {
        loop {
            let Some(at) = memchr::memchr2(b'\n', b'\r', &self.bytes[self.searched..]) else {
                if self.is_finished && !self.bytes.is_empty() {
                    self.searched = 0;
                    return Some(self.bytes.split());
                }
                self.searched = self.bytes.len();
                return None;
            };
            let end = self.searched + at;
            let is_cr = self.bytes[end] == b'\r';
            let mut line = self.bytes.split_to(end + 1);
            line.truncate(end);
            self.searched = 0;
            let before = if line.is_empty() { self.after } else { After::Other };
            self.after = match (before, is_cr) {
                (_, false) => After::Other,
                (After::Line, true) => After::Line,
                (_, true) if line.is_empty() => After::Nothing,
                (_, true) => After::Line,
            };
            // The rest of a CRLF, or a CR that overwrites nothing.
            let is_part = before == After::Line || self.after == After::Nothing;
            if !is_part {
                return Some(line);
            }
        }
    }
}

impl Splitter for LineSplitter {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(&mut self) {
        self.is_finished = true;
    }

    fn next(&mut self) -> Option<Result<Piece, PublishRejection>> {
        let line = self.take_line();
        if line.as_ref().map_or(self.bytes.len(), BytesMut::len) > MAX_DATA {
            return Some(Err(PublishRejection::DataTooLong));
        }
        let data = String::from_utf8(line?.to_vec()).map_err(|_| PublishRejection::NotUtf8);
        Some(data.map(|data| Piece { name: None, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Option<String>> {
        let pieces = super::super::tests::split(&mut LineSplitter::default(), chunks);
        pieces.into_iter().map(|piece| piece.ok().map(|(_, data)| data)).collect()
    }

    #[test]
    fn lines_are_split_across_chunks() {
        let some = |lines: &[&str]| lines.iter().map(|&l| Some(l.to_owned())).collect::<Vec<_>>();
        assert_eq!(lines(&[]), some(&[]));
        assert_eq!(lines(&[b"a\nb\r\nc"]), some(&["a", "b", "c"]));
        assert_eq!(lines(&[b"a", b"b\r", b"\n\n", b"c\n"]), some(&["ab", "", "c"]));
        assert_eq!(
            lines(&["ü".as_bytes().split_at(1).0, "ü\n".as_bytes().split_at(1).1]),
            some(&["ü"])
        );
        assert_eq!(lines(&[b"a\n\xff\n", b"b\n"]), [Some("a".to_owned()), None]);
        let longest = [b"x".repeat(MAX_DATA), b"\r\n".to_vec()].concat();
        assert_eq!(lines(&[&longest])[0].as_ref().unwrap().len(), MAX_DATA);
    }

    #[test]
    fn a_cr_alone_ends_a_line_that_has_text() {
        for (text, expected) in [
            ("10%\r20%\r", &["10%", "20%"][..]),
            ("\r10%\r20%\r\n", &["10%", "20%"]),
            ("a\rb\nc", &["a", "b", "c"]),
            ("a\r\r\nb\r\r\r\n", &["a", "b"]),
            ("\r\n\r\na\r\n\r\n", &["", "", "a", ""]),
            ("\n\ra\n\n", &["", "a", ""]),
            ("\r\r\ra", &["a"]),
            ("\r", &[]),
        ] {
            let expected: Vec<_> = expected.iter().map(|&line| Some(line.to_owned())).collect();
            let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
            assert_eq!(lines(&[text.as_bytes()]), expected, "{text:?}");
            assert_eq!(lines(&bytes), expected, "{text:?}, byte by byte");
        }
        let mut splitter = LineSplitter::default();
        splitter.push(b"10%\r");
        assert_eq!(splitter.next().unwrap().unwrap().data, "10%", "at once");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_before_its_end() {
        let mut lines = LineSplitter::default();
        lines.push(&b"x".repeat(MAX_DATA + 1));
        assert!(matches!(lines.next(), Some(Err(PublishRejection::DataTooLong))));
    }
}

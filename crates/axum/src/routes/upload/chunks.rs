//! `split=chunks`: a body as the chunks in which it arrives.

use bytes::BytesMut;

use super::{Piece, Splitter};
use crate::{admission::PublishRejection, limits::MAX_DATA};

/// Passes chunks on as they arrive, but cuts no character in two: its first bytes wait for the
/// rest. A chunk that is longer than an event's data may be becomes several.
#[derive(Default)]
pub(super) struct ChunkSplitter {
    bytes: BytesMut,
    is_finished: bool,
}

impl Splitter for ChunkSplitter {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(&mut self) {
        self.is_finished = true;
    }

    fn next(&mut self) -> Option<Result<Piece, PublishRejection>> {
        let first = &self.bytes[..self.bytes.len().min(MAX_DATA)];
        let (valid, is_invalid) = match str::from_utf8(first) {
            Ok(text) => (text.len(), false),
            Err(error) => (error.valid_up_to(), error.error_len().is_some()),
        };
        if valid > 0 {
            let data = String::from_utf8(self.bytes.split_to(valid).to_vec());
            let data = data.map_err(|_| PublishRejection::NotUtf8);
            return Some(data.map(|data| Piece { name: None, data }));
        }
        let is_cut = self.is_finished && !self.bytes.is_empty();
        (is_invalid || is_cut).then_some(Err(PublishRejection::NotUtf8))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(chunks: &[&[u8]]) -> Vec<Option<String>> {
        let pieces = super::super::tests::split(&mut ChunkSplitter::default(), chunks);
        pieces.into_iter().map(|piece| piece.ok().map(|(_, data)| data)).collect()
    }

    #[test]
    fn a_chunk_is_passed_on_as_it_arrives() {
        let some = |texts: &[&str]| texts.iter().map(|&t| Some(t.to_owned())).collect::<Vec<_>>();
        assert_eq!(chunks(&[]), some(&[]));
        assert_eq!(chunks(&[b"one ", b"", b"two\n"]), some(&["one ", "two\n"]));
        // The bytes of a euro sign arrive one by one.
        assert_eq!(chunks(&[b"a\xe2", b"\x82", b"\xac"]), some(&["a", "€"]));
        assert_eq!(chunks(&[b"\xe2\x82", b"\xacb\xe2", b"\x82\xac"]), some(&["€b", "€"]));
    }

    #[test]
    fn text_before_bytes_that_are_no_text_is_passed_on() {
        assert_eq!(chunks(&[b"a\xffb"]), [Some("a".to_owned()), None]);
        assert_eq!(chunks(&[b"a\xe2", b"b"]), [Some("a".to_owned()), None]);
        assert_eq!(chunks(&[b"a\xe2\x82"]), [Some("a".to_owned()), None], "the end cuts it");
    }

    proptest! {
        #[test]
        fn chunks_are_whole_characters_of_bounded_length(
            text in "[a€😀]{0,40}",
            repeats in 1..3000_usize,
            size in 1..100_000_usize,
        ) {
            let text = text.repeat(repeats);
            let pieces = chunks(&text.as_bytes().chunks(size).collect::<Vec<_>>());
            let pieces: Vec<_> = pieces.into_iter().map(Option::unwrap).collect();
            prop_assert_eq!(pieces.concat(), text);
            prop_assert!(pieces.iter().all(|piece| (1..=MAX_DATA).contains(&piece.len())));
        }
    }
}

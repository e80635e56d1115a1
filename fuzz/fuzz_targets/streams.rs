//! The parser of event streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    waterclock::properties::a_stream_is_the_same_in_any_pieces(bytes)
});

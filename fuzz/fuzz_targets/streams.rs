//! The parser of event streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    waterclock::properties::parsing_does_not_depend_on_chunks(bytes)
});

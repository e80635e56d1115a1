//! Patterns of topics.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    waterclock::properties::patterns_match_by_token(bytes)
});

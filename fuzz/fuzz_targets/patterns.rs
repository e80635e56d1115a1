//! Patterns of topics.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    waterclock::properties::a_pattern_matches_what_its_tokens_say(bytes)
});

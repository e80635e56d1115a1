//! Ids and cursors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waterclock::properties::ids_have_one_spelling(bytes));

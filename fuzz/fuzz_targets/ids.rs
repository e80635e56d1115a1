//! Ids and cursors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waterclock::properties::an_id_has_one_spelling(bytes));

//! The encoder of event streams, and the JSON of events.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waterclock::properties::what_is_encoded_is_read_back(
    bytes
));

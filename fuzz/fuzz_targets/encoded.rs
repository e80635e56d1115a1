//! The encoder of event streams, and the JSON of events.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| waterclock::properties::encoding_round_trips(bytes));

//! The query of `/events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    waterclock_axum::properties::a_query_is_read_or_refused(bytes)
});

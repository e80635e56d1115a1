//! Values that both options and rules have.

use std::time::Duration;

/// Parses a time of at least one second.
pub(crate) fn age(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|age| *age >= Duration::from_secs(1))
        .ok_or("expected a time of at least one second, such as 90s, 24h or 30days")
}

/// Parses a number of bytes, with an optional binary unit.
pub(crate) fn bytes(text: &str) -> Result<usize, &'static str> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0), ("", 0)];
    units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), shift)))
        .and_then(|(number, shift)| number.parse::<usize>().ok()?.checked_mul(1 << shift))
        .ok_or("expected a number of bytes, such as 65536, 64MiB or 1GiB")
}

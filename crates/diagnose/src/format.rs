//! Durations and sizes in words, as the findings have them.

use std::time::Duration;

/// Formats a duration with a unit: `20 ms`, `1.5 s`, `4 min`.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..9_950.0 if duration.subsec_millis() != 0 => format!("{:.1} s", millis / 1000.0),
        ..119_500.0 => format!("{:.0} s", millis / 1000.0),
        _ => format!("{:.0} min", millis / 60_000.0),
    }
}

/// Formats a number of milliseconds like [`format_duration`]. A negative number counts as zero.
pub(crate) fn format_millis(millis: f64) -> String {
    format_duration(duration_from_millis(millis).unwrap_or_default())
}

/// Converts a number of milliseconds to a duration. Returns `None` if it is negative or not finite.
pub fn duration_from_millis(millis: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}

/// Formats a size with a unit: `300 bytes`, `4.1 kB`, `128 kB`. A kB is 1024 bytes, as in the
/// settings of proxies.
pub fn format_bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "the result is rounded anyway")]
    let kilobytes = bytes as f64 / 1024.0;
    match kilobytes {
        ..0.75 => format!("{bytes} bytes"),
        ..9.95 => format!("{kilobytes:.1} kB"),
        _ => format!("{kilobytes:.0} kB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_rounded_to_the_unit_that_fits() {
        let times = [0, 9, 340, 1000, 1500, 9940, 15_000, 119_000, 240_000];
        assert_eq!(
            times.map(|millis| format_duration(Duration::from_millis(millis))),
            ["0.0 ms", "9.0 ms", "340 ms", "1 s", "1.5 s", "9.9 s", "15 s", "119 s", "4 min"]
        );
        let sizes = [0, 700, 1024, 4200, 16_384, 131_072];
        assert_eq!(
            sizes.map(format_bytes),
            ["0 bytes", "700 bytes", "1.0 kB", "4.1 kB", "16 kB", "128 kB"]
        );
    }
}

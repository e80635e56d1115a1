//! A monotonic clock that includes the time a machine sleeps; no single clock of a browser does.

use std::time::Duration;

use crate::connection::PageTime;

/// Largest difference between the two clocks that is explained by their resolution.
const RESOLUTION: Duration = Duration::from_secs(1);

/// Measures the time since the first reading. It never goes back, and it includes the time that
/// the machine slept, which is when connections die.
///
/// A browser has two clocks. `performance.now()` never goes back, but may stand still while the
/// machine sleeps (W3C High Resolution Time 3, section 4). `Date.now()` includes sleep, but can be
/// set. A step of the latter counts if it is longer by more than a second. If the clock is set
/// forward, the rules reconnect too early, which loses nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopwatch {
    elapsed: Duration,
    /// Values of the two clocks at the last reading.
    last: Option<(Duration, Duration)>,
}

impl Stopwatch {
    /// Returns the time since the first reading, given the current values of the two clocks.
    pub fn elapsed(&mut self, monotonic: Duration, wall: Duration) -> PageTime {
        if let Some((last_monotonic, last_wall)) = self.last.replace((monotonic, wall)) {
            let step = monotonic.saturating_sub(last_monotonic);
            let wall = wall.saturating_sub(last_wall);
            self.elapsed += if wall > step.saturating_add(RESOLUTION) { wall } else { step };
        }
        self.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_sleep_and_never_goes_back() {
        let seconds = Duration::from_secs;
        let mut stopwatch = Stopwatch::default();
        let mut elapsed =
            |monotonic, wall| stopwatch.elapsed(seconds(monotonic), seconds(wall)).as_secs();
        assert_eq!(elapsed(7, 1_000_000), 0);
        assert_eq!(elapsed(8, 1_000_001), 1);
        assert_eq!(elapsed(9, 1_003_601), 3601, "the machine slept for an hour");
        assert_eq!(elapsed(10, 5), 3602, "the clock was set back");
        assert_eq!(elapsed(10, 5), 3602);
        assert_eq!(elapsed(10, 15), 3612);
    }

    #[test]
    fn frequent_readings_do_not_lose_time() {
        let mut stopwatch = Stopwatch::default();
        let mut elapsed = Duration::ZERO;
        for micros in (0..10_000_000).step_by(100) {
            // Resolutions of browsers: 0.1 ms and 1 ms.
            let wall = Duration::from_millis(micros / 1000);
            elapsed = stopwatch.elapsed(Duration::from_micros(micros), wall);
        }
        assert_eq!(elapsed.as_millis(), 9_999);
    }
}

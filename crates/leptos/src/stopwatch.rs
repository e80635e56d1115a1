//! The time that has passed for a page: no one clock of a browser tells it.

use std::time::Duration;

use crate::connection::Instant;

/// Less than that is only that one clock has a coarser resolution than the other.
const SLEEP: Duration = Duration::from_secs(1);

/// Tells how long ago the page began. It never goes back, and it counts the time that the machine
/// slept, which is when connections die.
///
/// Of a browser's two clocks, `performance.now()` never goes back but may stand still while the machine
/// sleeps (W3C High Resolution Time 3, section 4), and `Date.now()` counts sleep but can be set. A step of
/// the latter counts if it is longer by more than a second: a clock that is set forward makes the rules try
/// too early, which loses nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopwatch {
    passed: Duration,
    /// What the two clocks showed when the stopwatch was last read.
    last: Option<(Duration, Duration)>,
}

impl Stopwatch {
    /// What it shows, when the two clocks show that.
    pub fn read(&mut self, monotonic: Duration, wall: Duration) -> Instant {
        if let Some((last_monotonic, last_wall)) = self.last.replace((monotonic, wall)) {
            let step = monotonic.saturating_sub(last_monotonic);
            let wall = wall.saturating_sub(last_wall);
            self.passed += if wall > step.saturating_add(SLEEP) { wall } else { step };
        }
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_sleep_and_never_goes_back() {
        let seconds = Duration::from_secs;
        let mut stopwatch = Stopwatch::default();
        let mut read =
            |monotonic, wall| stopwatch.read(seconds(monotonic), seconds(wall)).as_secs();
        assert_eq!(read(7, 1_000_000), 0);
        assert_eq!(read(8, 1_000_001), 1);
        assert_eq!(read(9, 1_003_601), 3601, "the machine slept for an hour");
        assert_eq!(read(10, 5), 3602, "the clock was set back");
        assert_eq!(read(10, 5), 3602);
        assert_eq!(read(10, 15), 3612);
    }

    #[test]
    fn is_as_fast_as_time_however_often_it_is_read() {
        let mut stopwatch = Stopwatch::default();
        let mut shown = Duration::ZERO;
        for micros in (0..10_000_000).step_by(100) {
            // As browsers have it: steps of 0.1 ms and of 1 ms.
            let wall = Duration::from_millis(micros / 1000);
            shown = stopwatch.read(Duration::from_micros(micros), wall);
        }
        assert_eq!(shown.as_millis(), 9_999);
    }
}

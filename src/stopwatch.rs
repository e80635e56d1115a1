//! The time that has passed for a page: no one clock of a browser tells it.

use std::time::Duration;

use crate::connection::Instant;

/// Tells how long ago the page began. It never goes back, and it counts the time that the machine
/// slept, which is when connections die.
///
/// Of a browser's two clocks, `performance.now()` never goes back but may stand still while the machine
/// sleeps (W3C High Resolution Time 3, section 4), and `Date.now()` counts sleep but can be set. Of each
/// step the longer counts: a clock that is set forward makes the rules try too early, which loses nothing.
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
            let by = |now: Duration, last| now.saturating_sub(last);
            self.passed += by(monotonic, last_monotonic).max(by(wall, last_wall));
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
}

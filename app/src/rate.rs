//! The rate of events over the last minute.

use std::fmt::Write as _;

/// Number of seconds that are kept.
pub(crate) const SECONDS: usize = 60;

/// Height of the plot, in its own units. It is [`SECONDS`] wide.
pub(crate) const HEIGHT: u32 = 20;

/// Numbers of events, by the second in which they arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    /// Counts, oldest first. The last second is not over yet.
    counts: Vec<u32>,
    /// The last of these seconds.
    second: u64,
}

impl Rate {
    /// Counts an event that has arrived in a second.
    pub(crate) fn add(&mut self, second: u64) {
        self.advance(second);
        if let Some(last) = self.counts.last_mut() {
            *last += 1;
        }
    }

    /// Advances to a second.
    pub(crate) fn advance(&mut self, second: u64) {
        if self.counts.is_empty() {
            (self.counts, self.second) = (vec![0], second);
        }
        let passed = second.saturating_sub(self.second);
        for _ in 0..passed.min(SECONDS as u64 + 1) {
            self.counts.push(0);
        }
        self.second += passed;
        // One more than the plot shows: the second that is not over.
        let excess = self.counts.len().saturating_sub(SECONDS + 1);
        self.counts.drain(..excess);
    }

    /// Returns the number of events in the last complete second.
    pub(crate) fn current(&self) -> u32 {
        self.complete().last().copied().unwrap_or(0)
    }

    /// Returns the largest number of events in a second.
    pub(crate) fn maximum(&self) -> u32 {
        self.complete().iter().copied().max().unwrap_or(0)
    }

    /// Returns the complete seconds as the path of an SVG: an area with a step for each second, the
    /// newest at the right, and the maximum at the top.
    pub(crate) fn path(&self) -> String {
        let maximum = u64::from(self.maximum().max(1));
        let complete = self.complete();
        let start = SECONDS - complete.len();
        let mut path = format!("M{start} {HEIGHT}");
        for &count in complete {
            let height = (u64::from(count) * u64::from(HEIGHT)).div_ceil(maximum);
            // Writing to a string cannot fail.
            let _ = write!(path, "V{}h1", u64::from(HEIGHT) - height);
        }
        path + &format!("V{HEIGHT}")
    }

    fn complete(&self) -> &[u32] {
        self.counts.split_last().map_or(&[], |(_, complete)| complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_the_second() {
        let mut rate = Rate::default();
        assert_eq!((rate.current(), rate.maximum(), &*rate.path()), (0, 0, "M60 20V20"));
        for second in [7, 7, 7, 8, 10] {
            rate.add(second);
        }
        // The second that is not over does not count yet.
        assert_eq!((rate.current(), rate.maximum()), (0, 3));
        assert_eq!(rate.path(), "M57 20V0h1V13h1V20h1V20");
        rate.advance(11);
        assert_eq!(rate.current(), 1);
        rate.advance(100);
        assert_eq!((rate.current(), rate.maximum()), (0, 0));
        assert_eq!(rate.path().matches('h').count(), SECONDS);
        rate.advance(u64::MAX);
    }
}

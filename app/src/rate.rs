//! How many events a second there were, over the last minute.

use std::fmt::Write as _;

/// So many seconds are remembered.
pub(crate) const SECONDS: usize = 60;

/// How high the plot is, in units of its own; it is [`SECONDS`] wide.
pub(crate) const HEIGHT: u32 = 20;

/// Events by the second in which they arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    /// Of the last seconds, oldest first; the last one is not over yet.
    counts: Vec<u32>,
    /// Which second that is, since the page began.
    second: u64,
}

impl Rate {
    /// An event has arrived in that second.
    pub(crate) fn add(&mut self, second: u64) {
        self.pass(second);
        if let Some(last) = self.counts.last_mut() {
            *last += 1;
        }
    }

    /// It is that second now.
    pub(crate) fn pass(&mut self, second: u64) {
        if self.counts.is_empty() {
            (self.counts, self.second) = (vec![0], second);
        }
        let passed = second.saturating_sub(self.second);
        for _ in 0..passed.min(SECONDS as u64 + 1) {
            self.counts.push(0);
        }
        self.second += passed;
        // One more than are shown: the one that is not over.
        let excess = self.counts.len().saturating_sub(SECONDS + 1);
        self.counts.drain(..excess);
    }

    /// How many there were in the last second that is over.
    pub(crate) fn now(&self) -> u32 {
        self.over().last().copied().unwrap_or(0)
    }

    /// How many there were at most in a second.
    pub(crate) fn most(&self) -> u32 {
        self.over().iter().copied().max().unwrap_or(0)
    }

    /// The seconds that are over as the path of an SVG, newest at the right, the most at the top.
    pub(crate) fn path(&self) -> String {
        let most = u64::from(self.most().max(1));
        let over = self.over();
        let start = SECONDS - over.len();
        let mut path = String::new();
        for (i, &count) in over.iter().enumerate() {
            let height = (u64::from(count) * u64::from(HEIGHT)).div_ceil(most);
            let command = if i == 0 { 'M' } else { 'L' };
            // A text takes whatever is written.
            let _ = write!(path, "{command}{} {}", start + i, u64::from(HEIGHT) - height);
        }
        path
    }

    fn over(&self) -> &[u32] {
        self.counts.split_last().map_or(&[], |(_, over)| over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_the_second() {
        let mut rate = Rate::default();
        assert_eq!((rate.now(), rate.most(), rate.path()), (0, 0, String::new()));
        for second in [7, 7, 7, 8, 10] {
            rate.add(second);
        }
        // The one that is not over does not count yet.
        assert_eq!((rate.now(), rate.most()), (0, 3));
        assert_eq!(rate.path(), "M57 0L58 13L59 20");
        rate.pass(11);
        assert_eq!(rate.now(), 1);
        rate.pass(100);
        assert_eq!((rate.now(), rate.most()), (0, 0));
        assert_eq!(rate.path().matches('L').count(), SECONDS - 1);
        rate.pass(u64::MAX);
    }
}

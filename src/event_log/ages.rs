//! The ages of events, by which retention finds those that are too old.

use std::{collections::VecDeque, time::Duration};

use super::retention::Retention;
use crate::timestamp::Timestamp;

/// Number of marks into which the maximum age is divided.
const MARKS: u32 = 1024;

/// The times of some events, in the order of the log.
///
/// An event may be too old if any later event is: the clock may have been wrong for some events,
/// and these must not keep all events behind them. So only an event that is older than all later
/// ones can decide, and of these one per short interval is enough. The number of marks is bounded
/// by [`MARKS`] as long as the clock runs forward; each step back removes the marks that are later.
///
/// A mark is no proof, since the later event's own time may be wrong: [`is_young`] must agree.
#[derive(Debug)]
pub(super) struct AgeMarks {
    /// Sequence numbers and times, both in ascending order.
    marks: VecDeque<(u64, Timestamp)>,
    max_age: Duration,
}

impl AgeMarks {
    /// Creates the marks of an empty log.
    pub fn new(retention: &Retention) -> Self {
        Self { marks: VecDeque::new(), max_age: retention.age }
    }

    /// Adds the newest event.
    pub fn add(&mut self, sequence: u64, time: Timestamp) {
        while self.marks.back().is_some_and(|(_, later)| *later >= time) {
            self.marks.pop_back();
        }
        // Events count as too old a little later if their mark moves on.
        let before = self.marks.len().checked_sub(2).map(|before| self.marks[before].1);
        if before.is_some_and(|before| time.since(before) < self.max_age / MARKS) {
            self.marks.pop_back();
        }
        self.marks.push_back((sequence, time));
    }

    /// Returns the sequence number of the newest event that may be too old; 0 if none is.
    pub fn newest_too_old(&self, now: Timestamp) -> u64 {
        let too_old = self.marks.partition_point(|(_, time)| now.since(*time) > self.max_age);
        too_old.checked_sub(1).map_or(0, |last| self.marks[last].0)
    }

    /// Changes the maximum age. The marks so far stay as far apart as they are.
    #[cfg(feature = "sqlite")]
    pub fn set_max_age(&mut self, max_age: Duration) {
        self.max_age = max_age;
    }

    /// Forgets the marks up to `start`, since their events are dropped, or this age does not decide
    /// on them.
    pub fn forget(&mut self, start: u64) {
        while self.marks.front().is_some_and(|(sequence, _)| *sequence <= start) {
            self.marks.pop_front();
        }
    }
}

/// Returns `true` if the time of an event shows that it is not too old. A time in the future shows
/// nothing.
pub(super) fn is_young(time: Timestamp, now: Timestamp, max_age: Duration) -> bool {
    time <= now && now.since(time) <= max_age
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn marks(age: u64, times: &[u64]) -> AgeMarks {
        let age = Duration::from_secs(age);
        let mut marks = AgeMarks::new(&Retention { age, ..Retention::default() });
        for (sequence, &time) in (1..).zip(times) {
            marks.add(sequence, at(time));
        }
        marks
    }

    proptest! {
        /// Nothing is too old too early, and nothing much too late.
        #[test]
        fn an_event_may_be_too_old_if_a_later_one_is(
            times in prop::collection::vec(10_000..40_000_u64, 1..300),
            now in 10_000..60_000_u64,
        ) {
            let age = 5000;
            let marks = marks(age, &times);
            let too_old = |seconds: u64| {
                let last = times.iter().rposition(|time| time + age < seconds);
                last.map_or(0, |last| last as u64 + 1)
            };
            let found = marks.newest_too_old(at(now));
            prop_assert!(found <= too_old(now));
            prop_assert!(found >= too_old(now - 5));
        }
    }

    #[test]
    fn the_marks_of_a_steady_log_are_few() {
        let mut marks = marks(100_000, &(0..100_000).collect::<Vec<_>>());
        assert!(marks.marks.len() <= 1100, "{}", marks.marks.len());
        assert_eq!(marks.newest_too_old(at(100_000)), 0);
        assert!((49_800..=50_000).contains(&marks.newest_too_old(at(150_000))));
        marks.forget(99_000);
        assert!(marks.marks.len() <= 20, "{}", marks.marks.len());
    }
}

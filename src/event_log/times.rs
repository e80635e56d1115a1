//! The times of events, by which a reader finds the place to begin.

use std::collections::VecDeque;

use crate::timestamp::Timestamp;

/// Number of sequence numbers in a run, until there are too many runs.
const MIN_LENGTH: u64 = 1024;
/// Maximum number of runs.
const MAX_RUNS: usize = 4096;

/// The latest time of each run of events, in the order of the log.
///
/// Times need not ascend, because a clock may be set back. So the first event of some time cannot
/// be found by halving the log: each run whose latest time is not too early may have it. Runs
/// become longer as the log grows, so their number and the length of each stay small.
#[derive(Debug)]
pub(super) struct TimeRuns {
    runs: VecDeque<Run>,
    /// Number of sequence numbers in a run.
    length: u64,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// The sequence number before that of the first event.
    after: u64,
    /// The sequence number of the last event.
    last: u64,
    /// The latest time of an event, which may be dropped by now.
    latest: Timestamp,
}

impl TimeRuns {
    /// Creates the runs of an empty log.
    pub fn new() -> Self {
        Self { runs: VecDeque::new(), length: MIN_LENGTH }
    }

    /// Adds the events after those of the last call, up to `sequence`. They have the same time.
    pub fn add(&mut self, sequence: u64, time: Timestamp) {
        let after = match self.runs.back_mut() {
            Some(run) if sequence - run.after <= self.length => {
                run.last = sequence;
                run.latest = run.latest.max(time);
                return;
            }
            Some(run) => run.last,
            None => 0,
        };
        self.runs.push_back(Run { after, last: sequence, latest: time });
        if self.runs.len() > MAX_RUNS {
            self.length *= 2;
            let pairs = self.runs.make_contiguous().chunks(2);
            let merge = |pair: &[Run]| Run {
                after: pair[0].after,
                last: pair[pair.len() - 1].last,
                latest: pair.iter().map(|run| run.latest).fold(pair[0].latest, Ord::max),
            };
            self.runs = pairs.map(merge).collect();
        }
    }

    /// Returns the runs that may have events of `time` or later: for each, the sequence number
    /// before that of its first event, and that of its last.
    pub fn since(&self, time: Timestamp) -> Vec<(u64, u64)> {
        let runs = self.runs.iter().filter(|run| run.latest >= time);
        runs.map(|run| (run.after, run.last)).collect()
    }

    /// Forgets the runs up to `start`, since their events are dropped.
    pub fn forget(&mut self, start: u64) {
        while self.runs.front().is_some_and(|run| run.last <= start) {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The first run that is returned has the first event, or ends before it.
        #[test]
        fn no_event_of_the_time_is_before_the_first_run(
            steps in prop::collection::vec((1..3000_u64, 0..100_u64), 1..300),
            time in 0..110_u64,
            start in 0..100_000_u64,
        ) {
            let mut runs = TimeRuns::new();
            let (mut sequence, mut first) = (0, None);
            for (count, millis) in steps {
                sequence += count;
                runs.add(sequence, Timestamp::from_millis(millis));
                if millis >= time && first.is_none() && sequence > start {
                    first = Some((sequence - count + 1).max(start + 1));
                }
            }
            runs.forget(start);
            let found = runs.since(Timestamp::from_millis(time));
            let run = found.iter().find(|(_, last)| first.is_some_and(|first| first <= *last));
            prop_assert_eq!(run.is_some(), first.is_some());
            prop_assert!(run.is_none_or(|(after, _)| first.is_some_and(|first| *after < first)));
            prop_assert!(found.is_sorted());
        }
    }

    #[test]
    fn the_runs_of_a_long_log_are_few_and_cover_it() {
        let mut runs = TimeRuns::new();
        for sequence in 1..=10_000_000 {
            runs.add(sequence, Timestamp::from_millis(sequence));
        }
        let all = runs.since(Timestamp::from_millis(0));
        assert!((1000..=MAX_RUNS).contains(&all.len()), "{}", all.len());
        assert!(all.iter().all(|(after, last)| last - after <= 4 * MIN_LENGTH));
        assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!((all[0].0, all[all.len() - 1].1), (0, 10_000_000));
        assert_eq!(runs.since(Timestamp::from_millis(10_000_000)).len(), 1);
        assert_eq!(runs.since(Timestamp::from_millis(10_000_001)), []);
        runs.forget(9_999_999);
        assert_eq!(runs.runs.len(), 1);
    }
}

//! The order in which events were dropped. It is not the order of the events: a deletion may drop
//! older events of one topic after newer ones of another.

/// The newest dropped event of some topics, at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Its sequence number; 0 if there is none.
    pub newest: u64,
    /// Number of drops that the log had made by then, of any topic.
    pub drops: u64,
}

impl Dropped {
    /// Number of drops of a log that has just been opened. All earlier ones count as the first.
    pub(super) const FIRST: u64 = 1;

    /// The newest event that was dropped before the log was opened.
    pub(super) fn before_start(newest: u64) -> Self {
        Self { newest, drops: Self::FIRST }
    }
}

/// The events that were dropped of topics that the log no longer knows.
///
/// None of them is both older and dropped earlier than another one. They are in the order in which
/// they were dropped, so the newest event is the first.
#[derive(Debug, Default)]
pub(super) struct ForgottenDrops(Vec<Dropped>);

impl ForgottenDrops {
    /// Maximum number of drops that are told apart. Beyond it, the first ones count as one.
    const MAX: usize = 16;

    pub fn add(&mut self, dropped: Dropped) {
        let is_in =
            |one: &Dropped, other: &Dropped| one.newest <= other.newest && one.drops <= other.drops;
        if dropped.newest == 0 || self.0.iter().any(|other| is_in(&dropped, other)) {
            return;
        }
        self.0.retain(|other| !is_in(other, &dropped));
        let place = self.0.partition_point(|other| other.drops < dropped.drops);
        self.0.insert(place, dropped);
        if self.0.len() > Self::MAX {
            let Dropped { newest, .. } = self.0.remove(0);
            self.0[0].newest = newest;
        }
    }

    /// Returns the sequence number of the newest event that was dropped after the first `drops`
    /// drops of the log; 0 if there is none.
    pub fn newest_after(&self, drops: u64) -> u64 {
        self.0.iter().find(|dropped| dropped.drops > drops).map_or(0, |dropped| dropped.newest)
    }

    /// Returns the newest of the events as if it had been dropped last.
    pub fn bound(&self) -> Dropped {
        let drops = self.0.last().map_or(0, |dropped| dropped.drops);
        Dropped { newest: self.newest_after(0), drops }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn forgotten_drops_are_found_by_their_time(
            all in proptest::collection::vec((0..50_u64, 0..9_u64), 0..80),
        ) {
            // Most of the newer ones were dropped earlier.
            let all: Vec<_> = all.iter().map(|(n, more)| (n + more + 1, 50 - n)).collect();
            let (mut forgotten, mut is_exact) = (ForgottenDrops::default(), true);
            for (newest, drops) in &all {
                forgotten.add(Dropped { newest: *newest, drops: *drops });
                prop_assert!(forgotten.0.len() <= ForgottenDrops::MAX);
                is_exact &= forgotten.0.len() < ForgottenDrops::MAX;
            }
            for after in 0..=50 {
                let of_all = all.iter().filter(|(_, drops)| *drops > after);
                let expected = of_all.map(|(newest, _)| *newest).max().unwrap_or(0);
                let found = forgotten.newest_after(after);
                prop_assert!(found == expected || found > expected && !is_exact);
            }
            let newest = all.iter().map(|(newest, _)| *newest).max().unwrap_or(0);
            let drops = all.iter().map(|(_, drops)| *drops).max().unwrap_or(0);
            prop_assert_eq!(forgotten.bound(), Dropped { newest, drops });
        }
    }
}

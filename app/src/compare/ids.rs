//! Which events each lane has brought: what is missing in one is what another has, or the log.

use std::collections::VecDeque;

use waterclock::id::{Epoch, EventId};

use super::LANES;

/// So many events are remembered; what was missing of older ones stays counted.
const MAX_EVENTS: usize = 500_000;

/// An event's place: which of the logs that were seen, and its number in it.
type Place = (usize, u64);

/// The ids of all lanes.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    /// In the order in which they were first seen: a new log follows the old one.
    epochs: Vec<Epoch>,
    /// In order, each with a bit for every lane that has brought it.
    seen: VecDeque<(Place, u8)>,
    /// Older ones are forgotten.
    forgotten: Option<Place>,
    lanes: [Lane; LANES],
}

#[derive(Debug, Default)]
struct Lane {
    /// The furthest that it has brought.
    last: Option<Place>,
    /// How many of the remembered ones it has brought.
    brought: u64,
    /// How many of the forgotten ones it lacked.
    lacked: u64,
    doubled: u64,
}

impl Ids {
    /// A lane has brought an event; whether for the first time.
    pub(crate) fn bring(&mut self, lane: usize, id: EventId) -> bool {
        let place = self.place(id);
        let bit = 1 << lane;
        let is_new = if Some(place) <= self.forgotten {
            Some(place) > self.lanes[lane].last
        } else {
            let at = self.find(place);
            let lanes = &mut self.seen[at].1;
            let is_new = *lanes & bit == 0;
            *lanes |= bit;
            self.lanes[lane].brought += u64::from(is_new);
            is_new
        };
        let lane = &mut self.lanes[lane];
        lane.doubled += u64::from(!is_new);
        lane.last = lane.last.max(Some(place));
        self.forget();
        is_new
    }

    /// The log has that event, whoever has brought it.
    pub(crate) fn is_in_log(&mut self, id: EventId) {
        let place = self.place(id);
        if Some(place) > self.forgotten {
            self.find(place);
            self.forget();
        }
    }

    /// How many events a lane has left out: they come before one that it has brought.
    pub(crate) fn missing(&self, lane: usize) -> u64 {
        let Lane { last, brought, lacked, .. } = self.lanes[lane];
        let passed = self.seen.partition_point(|(place, _)| Some(*place) <= last);
        lacked + (passed as u64).saturating_sub(brought)
    }

    /// How many events a lane has brought again.
    pub(crate) fn doubled(&self, lane: usize) -> u64 {
        self.lanes[lane].doubled
    }

    /// The furthest event that any lane has brought.
    pub(crate) fn furthest(&self) -> Option<EventId> {
        let (epoch, sequence) = self.lanes.iter().filter_map(|lane| lane.last).max()?;
        Some(EventId { epoch: *self.epochs.get(epoch)?, sequence })
    }

    fn place(&mut self, id: EventId) -> Place {
        let epoch = self.epochs.iter().position(|epoch| *epoch == id.epoch);
        let epoch = epoch.unwrap_or_else(|| {
            self.epochs.push(id.epoch);
            self.epochs.len() - 1
        });
        (epoch, id.sequence)
    }

    /// Where it is remembered, from now on.
    fn find(&mut self, place: Place) -> usize {
        self.seen.binary_search_by_key(&place, |(place, _)| *place).unwrap_or_else(|at| {
            self.seen.insert(at, (place, 0));
            at
        })
    }

    fn forget(&mut self) {
        while self.seen.len() > MAX_EVENTS
            && let Some((place, lanes)) = self.seen.pop_front()
        {
            self.forgotten = Some(place);
            for (i, lane) in self.lanes.iter_mut().enumerate() {
                if lanes & (1 << i) != 0 {
                    lane.brought -= 1;
                } else if Some(place) <= lane.last {
                    lane.lacked += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64, sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(epoch), sequence }
    }

    #[test]
    fn what_one_lane_lacks_another_has() {
        let mut ids = Ids::default();
        for sequence in 1..=5 {
            assert!(ids.bring(0, id(1, sequence)));
        }
        assert!(ids.bring(1, id(1, 1)));
        assert_eq!(ids.missing(1), 0, "it is only late");
        assert!(ids.bring(1, id(1, 4)));
        assert_eq!((ids.missing(0), ids.missing(1)), (0, 2));
        assert!(ids.bring(1, id(1, 2)), "out of order, but there");
        assert_eq!(ids.missing(1), 1);
        assert!(!ids.bring(1, id(1, 2)));
        assert_eq!((ids.doubled(0), ids.doubled(1)), (0, 1));
        assert_eq!(ids.missing(2), 0, "it has brought nothing yet");
    }

    #[test]
    fn what_all_lanes_lack_the_log_has() {
        let mut ids = Ids::default();
        ids.bring(0, id(1, 1));
        ids.bring(0, id(1, 9));
        ids.is_in_log(id(1, 1));
        ids.is_in_log(id(1, 5));
        ids.is_in_log(id(1, 12));
        assert_eq!(ids.missing(0), 1);
    }

    #[test]
    fn a_new_log_follows_the_old_one() {
        let mut ids = Ids::default();
        ids.bring(0, id(9, 100));
        ids.bring(1, id(9, 100));
        assert!(ids.bring(0, id(3, 1)));
        assert!(ids.bring(0, id(3, 2)));
        assert!(ids.bring(1, id(3, 2)));
        assert_eq!((ids.missing(0), ids.missing(1), ids.doubled(0)), (0, 1, 0));
        assert_eq!(ids.furthest(), Some(id(3, 2)));
        assert_eq!(Ids::default().furthest(), None);
    }

    #[test]
    fn what_is_forgotten_stays_counted() {
        let mut ids = Ids::default();
        let many = MAX_EVENTS as u64 + 10;
        for sequence in 1..=many {
            ids.bring(0, id(1, sequence));
            if sequence % 2 == 0 {
                ids.bring(1, id(1, sequence));
            }
        }
        assert_eq!(ids.seen.len(), MAX_EVENTS);
        assert_eq!(ids.missing(1), many / 2);
        assert_eq!(ids.missing(0), 0);
        ids.bring(0, id(1, 2));
        assert_eq!(ids.doubled(0), 1, "though it was long ago");
    }
}

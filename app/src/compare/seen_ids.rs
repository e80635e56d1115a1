//! The ids that each transport has delivered. An event is missing if another transport, or the log,
//! has it.

use std::collections::VecDeque;

use waterclock::{
    id::{Epoch, EventId},
    transport::Transport,
};

/// Number of transports.
pub(crate) const TRANSPORTS: usize = Transport::ALL.len();

/// Maximum number of ids kept. Missing events among the older ones stay counted.
const MAX_EVENTS: usize = 500_000;

/// A position: the number of the log, in the order in which they were seen, and the event's number
/// in it.
type Position = (usize, u64);

/// The ids of all transports.
#[derive(Debug, Default)]
pub(crate) struct SeenIds {
    /// The logs, in the order in which they were first seen: a new log follows the old one.
    epochs: Vec<Epoch>,
    /// The ids, in order, each with a bit for every transport that has delivered it.
    seen: VecDeque<(Position, u8)>,
    /// The last id that is no longer kept.
    forgotten: Option<Position>,
    transports: [TransportIds; TRANSPORTS],
}

#[derive(Debug, Default)]
struct TransportIds {
    /// The last id delivered.
    last: Option<Position>,
    /// Number of kept ids that were delivered.
    delivered: u64,
    /// Number of missing events among those no longer kept.
    missing_before: u64,
    duplicates: u64,
}

impl SeenIds {
    /// Records that a transport has delivered an event. Returns `true` unless it is a duplicate.
    pub(crate) fn deliver(&mut self, transport: Transport, id: EventId) -> bool {
        let transport = transport as usize;
        let position = self.position(id);
        let bit = 1 << transport;
        let is_new = if Some(position) <= self.forgotten {
            Some(position) > self.transports[transport].last
        } else {
            let at = self.find(position);
            let bits = &mut self.seen[at].1;
            let is_new = *bits & bit == 0;
            *bits |= bit;
            self.transports[transport].delivered += u64::from(is_new);
            is_new
        };
        let ids = &mut self.transports[transport];
        ids.duplicates += u64::from(!is_new);
        ids.last = ids.last.max(Some(position));
        self.forget();
        is_new
    }

    /// Records that the log has an event.
    pub(crate) fn record_in_log(&mut self, id: EventId) {
        let position = self.position(id);
        if Some(position) > self.forgotten {
            self.find(position);
            self.forget();
        }
    }

    /// Returns the number of events that a transport has skipped: they come before one that it has
    /// delivered.
    pub(crate) fn missing(&self, transport: Transport) -> u64 {
        let TransportIds { last, delivered, missing_before, .. } =
            self.transports[transport as usize];
        let passed = self.seen.partition_point(|(position, _)| Some(*position) <= last);
        missing_before + (passed as u64).saturating_sub(delivered)
    }

    /// Returns the number of events that a transport has delivered more than once.
    pub(crate) fn duplicates(&self, transport: Transport) -> u64 {
        self.transports[transport as usize].duplicates
    }

    /// Returns the last event that any transport has delivered.
    pub(crate) fn last(&self) -> Option<EventId> {
        let (epoch, sequence) = self.transports.iter().filter_map(|ids| ids.last).max()?;
        Some(EventId { epoch: *self.epochs.get(epoch)?, sequence })
    }

    fn position(&mut self, id: EventId) -> Position {
        let epoch = self.epochs.iter().position(|epoch| *epoch == id.epoch);
        let epoch = epoch.unwrap_or_else(|| {
            self.epochs.push(id.epoch);
            self.epochs.len() - 1
        });
        (epoch, id.sequence)
    }

    /// Returns the index of a position in `seen`, and inserts it if necessary.
    fn find(&mut self, position: Position) -> usize {
        self.seen.binary_search_by_key(&position, |(position, _)| *position).unwrap_or_else(|at| {
            self.seen.insert(at, (position, 0));
            at
        })
    }

    fn forget(&mut self) {
        while self.seen.len() > MAX_EVENTS
            && let Some((position, bits)) = self.seen.pop_front()
        {
            self.forgotten = Some(position);
            for (i, ids) in self.transports.iter_mut().enumerate() {
                if bits & (1 << i) != 0 {
                    ids.delivered -= 1;
                } else if Some(position) <= ids.last {
                    ids.missing_before += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: Transport = Transport::Sse;
    const WEB_SOCKET: Transport = Transport::WebSocket;
    const LONG_POLL: Transport = Transport::LongPoll;

    fn id(epoch: u64, sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(epoch), sequence }
    }

    #[test]
    fn an_event_of_one_transport_is_missing_in_another() {
        let mut ids = SeenIds::default();
        for sequence in 1..=5 {
            assert!(ids.deliver(SSE, id(1, sequence)));
        }
        assert!(ids.deliver(WEB_SOCKET, id(1, 1)));
        assert_eq!(ids.missing(WEB_SOCKET), 0, "it is only late");
        assert!(ids.deliver(WEB_SOCKET, id(1, 4)));
        assert_eq!((ids.missing(SSE), ids.missing(WEB_SOCKET)), (0, 2));
        assert!(ids.deliver(WEB_SOCKET, id(1, 2)), "out of order, but there");
        assert_eq!(ids.missing(WEB_SOCKET), 1);
        assert!(!ids.deliver(WEB_SOCKET, id(1, 2)));
        assert_eq!((ids.duplicates(SSE), ids.duplicates(WEB_SOCKET)), (0, 1));
        assert_eq!(ids.missing(LONG_POLL), 0, "it has delivered nothing yet");
    }

    #[test]
    fn an_event_of_the_log_is_missing_in_every_transport() {
        let mut ids = SeenIds::default();
        ids.deliver(SSE, id(1, 1));
        ids.deliver(SSE, id(1, 9));
        ids.record_in_log(id(1, 1));
        ids.record_in_log(id(1, 5));
        ids.record_in_log(id(1, 12));
        assert_eq!(ids.missing(SSE), 1);
    }

    #[test]
    fn a_new_log_follows_the_old_one() {
        let mut ids = SeenIds::default();
        ids.deliver(SSE, id(9, 100));
        ids.deliver(WEB_SOCKET, id(9, 100));
        assert!(ids.deliver(SSE, id(3, 1)));
        assert!(ids.deliver(SSE, id(3, 2)));
        assert!(ids.deliver(WEB_SOCKET, id(3, 2)));
        assert_eq!((ids.missing(SSE), ids.missing(WEB_SOCKET), ids.duplicates(SSE)), (0, 1, 0));
        assert_eq!(ids.last(), Some(id(3, 2)));
        assert_eq!(SeenIds::default().last(), None);
    }

    #[test]
    fn missing_events_stay_counted_when_their_ids_are_dropped() {
        let mut ids = SeenIds::default();
        let many = MAX_EVENTS as u64 + 10;
        for sequence in 1..=many {
            ids.deliver(SSE, id(1, sequence));
            if sequence % 2 == 0 {
                ids.deliver(WEB_SOCKET, id(1, sequence));
            }
        }
        assert_eq!(ids.seen.len(), MAX_EVENTS);
        assert_eq!(ids.missing(WEB_SOCKET), many / 2);
        assert_eq!(ids.missing(SSE), 0);
        ids.deliver(SSE, id(1, 2));
        assert_eq!(ids.duplicates(SSE), 1, "even if the first was long ago");
    }
}

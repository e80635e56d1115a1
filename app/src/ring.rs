//! The rows of the list: the latest events, with marks where the stream has opened or events are
//! missing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use waterclock::{
    event::Event,
    notice::{Gap, TopicEnd},
};

use crate::filter::Filter;

/// Default maximum number of rows.
pub(crate) const DEFAULT_ROWS: usize = 10_000;
/// Maximum size of the data of all rows, in bytes. The newest row is kept whatever its size.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// A unique number, higher than those of all rows before.
    pub(crate) key: u64,
    pub(crate) content: RowContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowContent {
    /// An event.
    Event(Arc<Event>),
    /// There was no stream for a time, which is over.
    Outage(Outage),
    /// Events are missing here.
    Gap(Gap),
    /// A topic has ended here.
    End(TopicEnd),
}

/// A time without a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) length: Duration,
    /// `true` if the reader has stopped the stream.
    pub(crate) was_stopped: bool,
}

/// The rows, oldest first, and those that match the filter. Clones share the events.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    rows: VecDeque<Arc<Row>>,
    /// The `rows` that match the filter, if one is set. Marks always match.
    matches: Option<VecDeque<Arc<Row>>>,
    /// Number of events in `matches`.
    matching: usize,
    filter: Filter,
    max_rows: usize,
    bytes: usize,
    next_key: u64,
    events: u64,
    evicted: u64,
}

impl Ring {
    pub(crate) fn new() -> Self {
        Self {
            rows: VecDeque::new(),
            matches: None,
            matching: 0,
            filter: Filter::default(),
            max_rows: DEFAULT_ROWS,
            bytes: 0,
            next_key: 0,
            events: 0,
            evicted: 0,
        }
    }

    /// Returns the rows to show.
    pub(crate) fn shown(&self) -> &VecDeque<Arc<Row>> {
        self.matches.as_ref().unwrap_or(&self.rows)
    }

    /// Returns the number of events received.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Returns the number of events that are no longer kept.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns the number of kept events that match the filter, if one is set.
    pub(crate) fn matching(&self) -> Option<usize> {
        self.matches.as_ref().map(|_| self.matching)
    }

    /// Returns the number of kept events to show that have come since `earlier`.
    pub(crate) fn shown_since(&self, earlier: &Self) -> usize {
        let new = self.shown().iter().rev().take_while(|row| row.key >= earlier.next_key);
        new.filter(|row| row.event().is_some()).count()
    }

    /// Adds a row, and drops the oldest ones over the limits.
    pub(crate) fn push(&mut self, content: RowContent) {
        let row = Arc::new(Row { key: self.next_key, content });
        self.next_key += 1;
        self.events += u64::from(row.event().is_some());
        self.bytes += row.bytes();
        if let Some(matches) = &mut self.matches
            && row.event().is_none_or(|event| self.filter.matches(event))
        {
            self.matching += usize::from(row.event().is_some());
            matches.push_back(Arc::clone(&row));
        }
        self.rows.push_back(row);
        self.evict();
    }

    /// Sets the maximum number of rows.
    pub(crate) fn set_max_rows(&mut self, max_rows: usize) {
        self.max_rows = max_rows.max(1);
        self.evict();
    }

    /// Sets the filter.
    pub(crate) fn set_filter(&mut self, filter: Filter) {
        let is_match = |row: &&Arc<Row>| row.event().is_none_or(|event| filter.matches(event));
        self.matches =
            (!filter.is_empty()).then(|| self.rows.iter().filter(is_match).cloned().collect());
        let matches = self.matches.iter().flatten();
        self.matching = matches.filter(|row| row.event().is_some()).count();
        self.filter = filter;
    }

    fn evict(&mut self) {
        while self.rows.len() > self.max_rows || (self.bytes > MAX_BYTES && self.rows.len() > 1) {
            let Some(row) = self.rows.pop_front() else { return };
            self.bytes -= row.bytes();
            self.evicted += u64::from(row.event().is_some());
        }
        let oldest = self.rows.front().map_or(self.next_key, |row| row.key);
        if let Some(matches) = &mut self.matches {
            while let Some(row) = matches.pop_front_if(|row| row.key < oldest) {
                self.matching -= usize::from(row.event().is_some());
            }
        }
    }
}

impl Row {
    /// Returns the event, unless the row is a mark.
    pub(crate) fn event(&self) -> Option<&Arc<Event>> {
        match &self.content {
            RowContent::Event(event) => Some(event),
            RowContent::Outage(_) | RowContent::Gap(_) | RowContent::End(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        self.event().map_or(0, |event| event.data.len())
    }
}

#[cfg(test)]
mod tests {
    use waterclock::id::{Epoch, EventId};

    use super::*;

    fn event(sequence: u64, data: String) -> RowContent {
        RowContent::Event(Arc::new(Event {
            id: EventId { epoch: Epoch::new(1), sequence },
            topic: "t".parse().unwrap(),
            name: "n".parse().unwrap(),
            data,
            time: Timestamp::from_millis(sequence),
        }))
    }

    fn sequences(ring: &Ring) -> Vec<u64> {
        ring.shown().iter().filter_map(|row| Some(row.event()?.id.sequence)).collect()
    }

    fn odd_and_even(max_rows: usize, upto: u64) -> Ring {
        let mut ring = Ring::new();
        ring.set_max_rows(max_rows);
        for n in 1..=upto {
            ring.push(event(n, if n % 2 == 0 { "even" } else { "odd" }.to_owned()));
        }
        ring
    }

    #[test]
    fn the_latest_rows_are_kept_and_the_others_counted() {
        let mut ring = odd_and_even(4, 10);
        assert_eq!(sequences(&ring), [7, 8, 9, 10]);
        assert_eq!((ring.events(), ring.evicted(), ring.matching()), (10, 6, None));
        ring.push(RowContent::Outage(Outage { length: Duration::ZERO, was_stopped: true }));
        assert_eq!((ring.events(), ring.evicted(), ring.shown().len()), (10, 7, 4));
        ring.set_max_rows(2);
        assert_eq!(sequences(&ring), [10]);
    }

    #[test]
    fn a_filter_applies_to_present_and_future_rows() {
        let mut ring = odd_and_even(6, 6);
        ring.push(RowContent::Opened(Timestamp::from_millis(0)));
        ring.set_filter(Filter::parse("even").unwrap());
        assert_eq!(sequences(&ring), [2, 4, 6]);
        assert_eq!(ring.matching(), Some(3));
        assert_eq!(ring.shown().len(), 4, "marks always match");
        ring.push(event(7, "odd".to_owned()));
        ring.push(event(8, "even".to_owned()));
        assert_eq!(sequences(&ring), [4, 6, 8], "the older ones are no longer kept");
        ring.set_filter(Filter::default());
        assert_eq!(sequences(&ring), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn large_events_leave_room_for_fewer() {
        let mut ring = Ring::new();
        for n in 1..=5 {
            ring.push(event(n, "x".repeat(MAX_BYTES / 2)));
        }
        assert_eq!(sequences(&ring), [4, 5]);
        ring.push(event(6, "x".repeat(2 * MAX_BYTES)));
        assert_eq!(sequences(&ring), [6]);
        assert_eq!((ring.events(), ring.evicted()), (6, 5));
    }

    #[test]
    fn a_clone_does_not_change() {
        let mut ring = odd_and_even(4, 4);
        let copy = ring.clone();
        for n in 5..=8 {
            ring.push(event(n, String::new()));
        }
        assert_eq!(sequences(&copy), [1, 2, 3, 4]);
    }
}

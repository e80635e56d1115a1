//! The rows of the list: the latest events, with marks where there was no stream or events are
//! missing. Earlier events can be put before them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, GapReason, TopicEnd},
};

use crate::filter::Filter;

/// Default maximum number of rows.
pub(crate) const DEFAULT_ROWS: usize = 10_000;
/// Maximum number of rows that a reader can set, and of those that a held list has.
pub(crate) const MAX_ROWS: usize = 100_000;
/// Maximum size of the data of all rows, in bytes. The newest row is kept whatever its size.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Maximum number of marks that wait for the events around them. Beyond it, the oldest are lost.
const MAX_WAITING: usize = 1000;
/// Key of the first row that is added. Rows before it have lower ones.
const FIRST_KEY: u64 = 1 << 32;

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// A unique number, higher than those of all rows before.
    pub(crate) key: u64,
    pub(crate) content: RowContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowContent {
    /// There are earlier events, which can be loaded.
    Earlier(Earlier),
    /// An event.
    Event(Arc<Event>),
    /// There was no stream for a time, which is over.
    Outage(Outage),
    /// Events are missing here.
    Gap(Gap),
    /// A topic has ended here.
    End(TopicEnd),
}

/// The state of the events before those in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// They can be loaded.
    #[default]
    Kept,
    Loading,
    /// The last attempt to load them has failed.
    Failed,
    /// The last requests for them have added nothing to see, as with a filter that matches little.
    Unmatched,
    /// The list has no room for them.
    Full,
}

impl Earlier {
    /// Returns the row that stands for them. Its key is lower than that of any other row.
    pub(crate) fn row(self) -> Arc<Row> {
        Arc::new(Row { key: self as u64, content: RowContent::Earlier(self) })
    }

    /// Returns `true` if a key is that of such a row.
    pub(crate) fn has_key(key: u64) -> bool {
        key <= Self::Full as u64
    }
}

/// A time without a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) length: Duration,
    /// `true` if the reader has stopped the stream.
    pub(crate) was_stopped: bool,
}

/// A mark that is before the oldest event of the list, and comes back with the events around it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    /// Its place in the log: it stands before the first event from there on.
    place: EventId,
    content: RowContent,
}

/// Returns `true` if an id is known to be `start` or later. Those of two epochs have no order.
fn is_from(id: EventId, start: EventId) -> bool {
    id.epoch == start.epoch && id.sequence >= start.sequence
}

/// Returns `true` for a gap that comes again when the events around it are loaded.
fn is_told_again(content: &RowContent) -> bool {
    matches!(content, RowContent::Gap(Gap { reason: GapReason::Damaged, .. }))
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
    /// Number of events that have been pushed.
    pushed: u64,
    /// Number of events that have been put before the others and are not among the evicted.
    prepended: u64,
    evicted: u64,
    /// `true` if the event log may keep earlier events.
    has_earlier: bool,
    /// The place before which they are, if it is not that of the oldest event.
    before: Option<EventId>,
    /// `true` if there was no room for earlier events.
    is_full: bool,
    /// The marks before the oldest event, in order.
    waiting: Vec<Waiting>,
}

impl Ring {
    /// Creates an empty list. There may be events before `before`, and none if it is `None`.
    pub(crate) fn new(before: Option<EventId>) -> Self {
        Self {
            rows: VecDeque::new(),
            matches: None,
            matching: 0,
            filter: Filter::default(),
            max_rows: DEFAULT_ROWS,
            bytes: 0,
            next_key: FIRST_KEY,
            pushed: 0,
            prepended: 0,
            evicted: 0,
            has_earlier: before.is_some(),
            before,
            is_full: false,
            waiting: Vec::new(),
        }
    }

    /// Adds the first events to an empty list, and the ends of topics, with their places in the
    /// log. Both are in order. An end that is before earlier events waits for them.
    pub(crate) fn start(&mut self, mut rows: Vec<RowContent>, ends: Vec<(EventId, TopicEnd)>) {
        for (place, end) in ends {
            self.waiting.push(Waiting { place, content: RowContent::End(end) });
        }
        self.take_due(&mut rows, self.before);
        for row in rows {
            self.push(row);
        }
    }

    /// Puts the marks that belong among these events there. There may be further events `before`
    /// an id.
    fn take_due(&mut self, rows: &mut Vec<RowContent>, before: Option<EventId>) {
        self.waiting.retain(|Waiting { place, content }| {
            let is_due = before.is_none_or(|before| is_from(*place, before));
            if is_due {
                // No event of another epoch was there when the mark was made.
                let is_after = |row: &RowContent| {
                    row.event().is_some_and(|event| {
                        event.id.epoch != place.epoch || is_from(event.id, *place)
                    })
                };
                let at = rows.iter().position(is_after).unwrap_or(rows.len());
                rows.insert(at, content.clone());
            }
            !is_due
        });
    }

    /// Returns the rows to show.
    pub(crate) fn shown(&self) -> &VecDeque<Arc<Row>> {
        self.matches.as_ref().unwrap_or(&self.rows)
    }

    /// Returns the number of events that have been pushed.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Returns the number of events that have been put before the others. Those that take the place
    /// of evicted ones do not count.
    pub(crate) fn prepended(&self) -> u64 {
        self.prepended
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

    /// Returns the place in the log before which there may be earlier events.
    pub(crate) fn earlier(&self) -> Option<EventId> {
        self.before.or_else(|| self.oldest()).filter(|_| self.has_earlier)
    }

    /// Returns the id of the oldest event.
    fn oldest(&self) -> Option<EventId> {
        self.rows.iter().find_map(|row| Some(row.event()?.id))
    }

    /// Returns `true` if there was no room for earlier events.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Puts earlier rows before the others, unless they are not those before `place`. There may be
    /// further events before `before`. Returns the number of rows to show that this has added.
    pub(crate) fn prepend(
        &mut self,
        place: EventId,
        rows: &[RowContent],
        before: Option<EventId>,
    ) -> usize {
        if self.earlier() != Some(place) {
            return 0;
        }
        let shown = self.shown().len();
        let mut rows = rows.to_vec();
        self.take_due(&mut rows, before);
        for content in rows.into_iter().rev() {
            let key = self.rows.front().map_or(self.next_key, |row| row.key) - 1;
            let row = Arc::new(Row { key, content });
            if row.event().is_some() {
                match self.evicted.checked_sub(1) {
                    Some(evicted) => self.evicted = evicted,
                    None => self.prepended += 1,
                }
            }
            if self.count(&row)
                && let Some(matches) = &mut self.matches
            {
                matches.push_front(Arc::clone(&row));
            }
            self.rows.push_front(row);
        }
        (self.has_earlier, self.before) = (before.is_some(), before);
        let all = self.rows.len();
        self.evict();
        self.is_full = self.rows.len() < all;
        self.shown().len().saturating_sub(shown)
    }

    /// Adds a row, and drops the oldest ones over the limits.
    pub(crate) fn push(&mut self, content: RowContent) {
        let row = Arc::new(Row { key: self.next_key, content });
        self.next_key += 1;
        self.pushed += u64::from(row.event().is_some());
        if self.count(&row)
            && let Some(matches) = &mut self.matches
        {
            matches.push_back(Arc::clone(&row));
        }
        self.rows.push_back(row);
        self.evict();
    }

    /// Counts a new row. Returns `true` if it matches the filter that is set.
    fn count(&mut self, row: &Row) -> bool {
        self.bytes += row.bytes();
        let is_match =
            self.matches.is_some() && row.event().is_none_or(|event| self.filter.matches(event));
        self.matching += usize::from(is_match && row.event().is_some());
        is_match
    }

    /// Sets the maximum number of rows.
    pub(crate) fn set_max_rows(&mut self, max_rows: usize) {
        self.max_rows = max_rows.max(1);
        self.is_full = false;
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
            if row.event().is_some() {
                self.evicted += 1;
                (self.has_earlier, self.before) = (true, None);
            } else if let Some(place) = self.oldest()
                && !is_told_again(&row.content)
            {
                self.waiting.push(Waiting { place, content: row.content.clone() });
            }
        }
        let over = self.waiting.len().saturating_sub(MAX_WAITING);
        self.waiting.drain(..over);
        let oldest = self.rows.front().map_or(self.next_key, |row| row.key);
        if let Some(matches) = &mut self.matches {
            while let Some(row) = matches.pop_front_if(|row| row.key < oldest) {
                self.matching -= usize::from(row.event().is_some());
            }
        }
    }
}

impl RowContent {
    /// Returns the event, unless the row is a mark.
    fn event(&self) -> Option<&Arc<Event>> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }
}

impl Row {
    /// Returns the event, unless the row is a mark.
    pub(crate) fn event(&self) -> Option<&Arc<Event>> {
        self.content.event()
    }

    fn bytes(&self) -> usize {
        self.event().map_or(0, |event| event.data.len())
    }
}

#[cfg(test)]
mod tests {
    use waterclock::{id::Epoch, notice::Outcome, timestamp::Timestamp};

    use std::ops::Range;

    use super::*;

    fn id(sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(1), sequence }
    }

    fn event(sequence: u64, data: String) -> RowContent {
        RowContent::Event(Arc::new(Event {
            id: id(sequence),
            topic: "t".parse().unwrap(),
            name: "n".parse().unwrap(),
            data,
            time: Timestamp::from_millis(sequence),
        }))
    }

    fn outage() -> RowContent {
        RowContent::Outage(Outage { length: Duration::ZERO, was_stopped: true })
    }

    fn end() -> TopicEnd {
        TopicEnd { topic: "t".parse().unwrap(), outcome: Outcome::Done, message: None, last: false }
    }

    /// Returns what the list shows: sequence numbers, and 0 for a mark.
    fn marked(ring: &Ring) -> Vec<u64> {
        ring.shown().iter().map(|row| row.event().map_or(0, |event| event.id.sequence)).collect()
    }

    fn odd_or_even(n: u64) -> String {
        if n.is_multiple_of(2) { "even" } else { "odd" }.to_owned()
    }

    /// Loads the events of these sequence numbers.
    fn load(ring: &mut Ring, sequences: Range<u64>, before: Option<u64>) -> usize {
        let events: Vec<_> = sequences.map(|n| event(n, odd_or_even(n))).collect();
        let place = ring.earlier().unwrap();
        ring.prepend(place, &events, before.map(id))
    }

    fn sequences(ring: &Ring) -> Vec<u64> {
        ring.shown().iter().filter_map(|row| Some(row.event()?.id.sequence)).collect()
    }

    fn odd_and_even(max_rows: usize, upto: u64) -> Ring {
        let mut ring = Ring::new(None);
        ring.set_max_rows(max_rows);
        for n in 1..=upto {
            ring.push(event(n, odd_or_even(n)));
        }
        ring
    }

    #[test]
    fn the_latest_rows_are_kept_and_the_others_counted() {
        let mut ring = odd_and_even(4, 10);
        assert_eq!(sequences(&ring), [7, 8, 9, 10]);
        assert_eq!((ring.pushed(), ring.evicted(), ring.matching()), (10, 6, None));
        ring.push(outage());
        assert_eq!((ring.pushed(), ring.evicted(), ring.shown().len()), (10, 7, 4));
        ring.set_max_rows(2);
        assert_eq!(sequences(&ring), [10]);
    }

    #[test]
    fn a_filter_applies_to_present_and_future_rows() {
        let mut ring = odd_and_even(6, 6);
        ring.push(outage());
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
        let mut ring = Ring::new(None);
        for n in 1..=5 {
            ring.push(event(n, "x".repeat(MAX_BYTES / 2)));
        }
        assert_eq!(sequences(&ring), [4, 5]);
        ring.push(event(6, "x".repeat(2 * MAX_BYTES)));
        assert_eq!(sequences(&ring), [6]);
        assert_eq!((ring.pushed(), ring.evicted()), (6, 5));
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

    #[test]
    fn earlier_events_are_put_before_the_others() {
        let mut ring = Ring::new(Some(id(11)));
        assert_eq!(ring.earlier(), Some(id(11)), "there is no event yet");
        ring.push(outage());
        for n in 11..=12 {
            ring.push(event(n, odd_or_even(n)));
        }
        assert_eq!(ring.earlier(), Some(id(11)));
        assert_eq!(load(&mut ring, 8..11, Some(5)), 3);
        assert_eq!(sequences(&ring), [8, 9, 10, 11, 12]);
        assert!(ring.shown().iter().is_sorted_by_key(|row| row.key));
        assert_eq!((ring.pushed(), ring.prepended(), ring.evicted()), (2, 3, 0));

        // An answer without events names the place from which to go on.
        assert_eq!(ring.earlier(), Some(id(5)));
        assert_eq!(load(&mut ring, 0..0, Some(3)), 0);
        assert_eq!(ring.earlier(), Some(id(3)));
        // The answer to another question.
        assert_eq!(ring.prepend(id(8), &[event(7, String::new())], None), 0);
        assert_eq!(load(&mut ring, 1..2, None), 1);
        assert_eq!((ring.earlier(), sequences(&ring)[0]), (None, 1));
        ring.push(event(13, String::new()));
        assert_eq!(*sequences(&ring).last().unwrap(), 13);
    }

    #[test]
    fn a_filter_applies_to_earlier_events() {
        let mut ring = odd_and_even(100, 2);
        ring.has_earlier = true;
        ring.set_filter(Filter::parse("even").unwrap());
        let events: Vec<_> = (1..5).map(|n| event(n, odd_or_even(n))).collect();
        assert_eq!(ring.prepend(id(1), &events, None), 2);
        assert_eq!((sequences(&ring), ring.matching()), (vec![2, 4, 2], Some(3)));
    }

    #[test]
    fn evicted_events_can_be_loaded_again() {
        let mut ring = odd_and_even(2, 6);
        assert_eq!((ring.earlier(), ring.evicted()), (Some(id(5)), 4));
        let mut held = ring.clone();
        held.set_max_rows(10);
        assert_eq!(load(&mut held, 2..5, Some(2)), 3);
        assert_eq!((held.pushed(), held.prepended(), held.evicted()), (6, 0, 1));
        assert_eq!(load(&mut held, 0..2, None), 2);
        assert_eq!((held.pushed(), held.prepended(), held.evicted()), (6, 1, 0));

        // The list that is followed has no room for them, and can load them again.
        assert_eq!(load(&mut ring, 2..5, None), 0);
        assert_eq!((sequences(&ring), ring.evicted()), (vec![5, 6], 4));
        assert_eq!(ring.earlier(), Some(id(5)));
    }

    #[test]
    fn an_end_from_before_earlier_events_comes_with_them() {
        let mut ring = Ring::new(Some(id(81)));
        let events = (81..=83).filter(|n| *n != 82).map(|n| event(n, String::new())).collect();
        ring.start(events, [2, 60, 82].map(|n| (id(n), end())).to_vec());
        assert_eq!(marked(&ring), [81, 0, 83]);
        assert_eq!(load(&mut ring, 61..81, Some(61)), 20, "the end at 60 still waits");
        assert_eq!(load(&mut ring, 58..60, Some(58)), 3);
        assert_eq!(marked(&ring)[..4], [58, 59, 0, 61]);
        assert_eq!(load(&mut ring, 3..58, Some(3)), 55);
        assert_eq!(load(&mut ring, 1..2, None), 2);
        assert_eq!(marked(&ring)[..3], [1, 0, 3]);
        assert!(ring.shown().iter().is_sorted_by(|row, next| row.key < next.key));
    }

    #[test]
    fn ends_are_among_the_first_events_if_there_are_no_earlier_ones() {
        let mut ring = Ring::new(None);
        ring.start(vec![event(3, String::new())], [1, 2, 4].map(|n| (id(n), end())).to_vec());
        assert_eq!(marked(&ring), [0, 0, 3, 0]);
        let mut ring = Ring::new(None);
        ring.start(Vec::new(), vec![(id(1), end())]);
        assert_eq!(marked(&ring), [0]);
    }

    #[test]
    fn marks_come_back_with_the_events_around_them() {
        let mut ring = Ring::new(None);
        ring.push(outage());
        ring.push(event(1, String::new()));
        ring.push(event(2, String::new()));
        ring.push(outage());
        ring.push(outage());
        ring.push(event(3, String::new()));
        ring.push(event(4, String::new()));
        ring.set_max_rows(1);
        assert_eq!(marked(&ring), [4]);
        ring.set_max_rows(100);
        assert_eq!(load(&mut ring, 3..4, Some(3)), 3);
        assert_eq!(marked(&ring), [0, 0, 3, 4]);
        assert_eq!(load(&mut ring, 1..3, None), 3);
        assert_eq!(marked(&ring), [0, 1, 2, 0, 0, 3, 4]);
    }

    #[test]
    fn marks_from_before_a_new_log_stay_before_its_events() {
        let in_new_log = |sequence| {
            let RowContent::Event(event) = event(sequence, String::new()) else { unreachable!() };
            let id = EventId { epoch: Epoch::new(2), sequence };
            RowContent::Event(Arc::new(Event { id, ..Event::clone(&event) }))
        };
        let mut ring = Ring::new(None);
        ring.push(event(1, String::new()));
        ring.push(outage());
        ring.push(event(2, String::new()));
        ring.push(RowContent::Gap(Gap { reason: GapReason::OtherEpoch, cursor: String::new() }));
        for sequence in 1..=3 {
            ring.push(in_new_log(sequence));
        }
        ring.set_max_rows(1);
        ring.set_max_rows(100);
        let place = ring.earlier().unwrap();
        assert_eq!(ring.prepend(place, &[in_new_log(1), in_new_log(2)], None), 4);
        assert_eq!(marked(&ring), [0, 0, 1, 2, 3]);
        assert!(matches!(ring.shown()[0].content, RowContent::Outage(_)));
    }

    #[test]
    fn a_gap_that_comes_again_is_not_kept() {
        let gap = Gap { reason: GapReason::Damaged, cursor: String::new() };
        let mut ring = Ring::new(None);
        ring.push(event(1, String::new()));
        ring.push(RowContent::Gap(gap.clone()));
        ring.push(event(4, String::new()));
        ring.set_max_rows(1);
        ring.set_max_rows(100);
        ring.prepend(id(4), &[event(1, String::new()), RowContent::Gap(gap)], None);
        assert_eq!(marked(&ring), [1, 0, 4]);
    }

    #[test]
    fn marks_that_wait_are_limited() {
        let mut ring = Ring::new(None);
        ring.set_max_rows(1);
        for n in 1..2000 {
            ring.push(outage());
            ring.push(event(n, String::new()));
        }
        assert_eq!(ring.waiting.len(), MAX_WAITING);
        assert_eq!(ring.waiting.last().map(|waiting| waiting.place), Some(id(1999)));
    }

    #[test]
    fn a_list_without_room_is_full_until_it_may_have_more_rows() {
        let mut ring = odd_and_even(4, 3);
        ring.has_earlier = true;
        let events = [event(0, String::new())];
        assert_eq!((ring.prepend(id(1), &events, Some(id(0))), ring.is_full()), (1, false));
        assert_eq!((ring.prepend(id(0), &events, Some(id(0))), ring.is_full()), (0, true));
        assert_eq!(sequences(&ring), [0, 1, 2, 3]);
        ring.set_max_rows(10);
        assert!(!ring.is_full());
    }
}

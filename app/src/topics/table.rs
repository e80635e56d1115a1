//! The topics that the page knows, and those that it shows, in their order.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
};

use waterclock::{event::Topic, notice::Outcome, timestamp::Timestamp};

use super::{
    listed::{ListedTopic, newest_time},
    search::Search,
};

/// The time over which a rate is measured, in seconds.
const RATE_WINDOW: u64 = 10;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopicColumn {
    Topic,
    Events,
    Rate,
    Size,
    Newest,
    Readers,
    State,
}

impl TopicColumn {
    pub(super) const ALL: [Self; 7] = [
        Self::Topic,
        Self::Events,
        Self::Rate,
        Self::Size,
        Self::Newest,
        Self::Readers,
        Self::State,
    ];

    /// Returns the head of the column.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Topic => "Topic",
            Self::Events => "Events",
            Self::Rate => "Rate",
            Self::Size => "Size",
            Self::Newest => "Newest",
            Self::Readers => "Readers",
            Self::State => "State",
        }
    }
}

/// The order of the table. Topics that are equal in it are in the order of their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableOrder {
    pub(super) column: TopicColumn,
    pub(super) is_descending: bool,
}

impl Default for TableOrder {
    fn default() -> Self {
        Self { column: TopicColumn::Topic, is_descending: false }
    }
}

impl TableOrder {
    /// Returns the order after a click on the head of a column: the other direction, or by another
    /// column, largest first.
    pub(super) fn after_click(self, column: TopicColumn) -> Self {
        let is_descending =
            if self.column == column { !self.is_descending } else { column != TopicColumn::Topic };
        Self { column, is_descending }
    }
}

/// A topic that the page knows.
#[derive(Clone, Debug)]
pub(super) struct KnownTopic {
    pub(super) listed: ListedTopic,
    /// Numbers of published events, each with the second in which the page has learnt of it: those
    /// of the last seconds, and the last one before.
    published: VecDeque<(u64, u64)>,
    /// The beginning that the topic was part of, or has changed since.
    beginning: u64,
}

impl KnownTopic {
    /// Returns the rate over the last seconds, in tenths of an event per second. Returns `None`
    /// until it is known.
    pub(super) fn rate(&self, second: u64) -> Option<u64> {
        let start = second.saturating_sub(RATE_WINDOW);
        let known = self.published.iter().rev().find(|(at, _)| *at <= start);
        let (since, before) = *known.or_else(|| self.published.front())?;
        let (_, newest) = *self.published.back()?;
        let seconds = second.saturating_sub(since.max(start));
        ((newest - before) * 10 + seconds / 2).checked_div(seconds)
    }

    /// Notes the number of published events. A number that falls is that of a server that has
    /// started again.
    fn publish(&mut self, second: u64, published: u64) {
        let is_first = self.published.len() == 1;
        match self.published.back_mut() {
            Some((_, last)) if *last == published => return,
            Some((_, last)) if *last > published => self.published.clear(),
            // The first one of a second is the number before it.
            Some((at, last)) if *at == second && !is_first => {
                *last = published;
                return;
            }
            _ => {}
        }
        self.published.push_back((second, published));
        let start = second.saturating_sub(RATE_WINDOW);
        while self.published.get(1).is_some_and(|(at, _)| *at <= start) {
            self.published.pop_front();
        }
    }

    /// Returns the number by which a column is ordered.
    fn key(&self, column: TopicColumn, second: u64) -> u64 {
        let listed = &self.listed;
        match column {
            TopicColumn::Topic => 0,
            TopicColumn::Events => listed.events,
            TopicColumn::Rate => self.rate(second).unwrap_or(0),
            TopicColumn::Size => listed.bytes,
            TopicColumn::Newest => newest_time(listed).map_or(0, Timestamp::as_millis),
            TopicColumn::Readers => listed.readers + listed.pattern_readers,
            TopicColumn::State => match listed.outcome {
                None => 0,
                Some(Outcome::Done) => 1,
                Some(Outcome::Failed) => 2,
            },
        }
    }
}

/// The topics that the page knows.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicTable {
    /// In the order of their tokens.
    known: Vec<KnownTopic>,
    /// The names of the topics that are shown, in their order.
    shown: Vec<Topic>,
    /// Number of times that a view has begun.
    beginnings: u64,
    /// `true` if the view that has begun last has sent all its topics. Before the first one, if the
    /// document has.
    is_complete: bool,
}

impl TopicTable {
    /// Creates a table of topics that are known already: all of them, unless it `has_more`.
    pub(super) fn new(topics: Vec<ListedTopic>, has_more: bool) -> Self {
        let mut table = Self { is_complete: !has_more, ..Self::default() };
        for topic in topics {
            table.set(topic, 0);
        }
        table
    }

    /// Notes that a view begins: it sends all topics again. Those that it does not send are gone
    /// once it is complete.
    pub(super) fn begin(&mut self) {
        self.beginnings += 1;
        self.is_complete = false;
        for known in &mut self.known {
            // Of the time between, the page does not know when events were published.
            known.published.clear();
        }
    }

    /// Applies a message of a view.
    pub(super) fn apply(&mut self, topics: Vec<ListedTopic>, is_complete: bool, second: u64) {
        if self.is_complete && !is_complete {
            // The view has missed changes, and starts again.
            self.begin();
        }
        for topic in topics {
            self.set(topic, second);
        }
        if is_complete && !self.is_complete {
            self.is_complete = true;
            let beginnings = self.beginnings;
            self.known.retain(|known| known.beginning == beginnings);
        }
    }

    /// Updates a topic. One that is sent without events, and has not ended, is gone.
    fn set(&mut self, listed: ListedTopic, second: u64) {
        let beginning = self.beginnings;
        let place =
            self.known.binary_search_by(|known| by_tokens(&known.listed.topic, &listed.topic));
        let exists = listed.events > 0 || listed.outcome.is_some();
        match place {
            Ok(place) if !exists => {
                self.known.remove(place);
            }
            Ok(place) => {
                let known = &mut self.known[place];
                known.beginning = beginning;
                known.publish(second, listed.published);
                known.listed = listed;
            }
            Err(_) if !exists => {}
            Err(place) => {
                let published = VecDeque::from([(second, listed.published)]);
                self.known.insert(place, KnownTopic { listed, published, beginning });
            }
        }
    }

    /// Updates the numbers of readers by pattern, and nothing else: the rest may be older than what
    /// the view has sent meanwhile.
    pub(super) fn set_pattern_readers(&mut self, topics: &[ListedTopic]) {
        for listed in topics {
            let place =
                self.known.binary_search_by(|known| by_tokens(&known.listed.topic, &listed.topic));
            if let Ok(place) = place {
                self.known[place].listed.pattern_readers = listed.pattern_readers;
            }
        }
    }

    /// Decides which topics are shown, and in which order. While `is_held`, those that are shown
    /// already stay in their order.
    pub(super) fn arrange(
        &mut self,
        search: &Search,
        order: TableOrder,
        is_held: bool,
        second: u64,
    ) {
        let places: HashMap<Topic, u64> =
            if is_held { self.shown.drain(..).zip(0..).collect() } else { HashMap::new() };
        let found = self.known.iter().filter(|known| search.matches(&known.listed.topic));
        let mut found: Vec<(u64, &Topic)> = found
            .map(|known| {
                let topic = &known.listed.topic;
                let key = if is_held {
                    places.get(topic).copied().unwrap_or(u64::MAX)
                } else {
                    let key = known.key(order.column, second);
                    if order.is_descending { u64::MAX - key } else { key }
                };
                (key, topic)
            })
            .collect();
        if order.column == TopicColumn::Topic && order.is_descending && !is_held {
            found.reverse();
        } else {
            found.sort_by_key(|(key, _)| *key);
        }
        self.shown = found.into_iter().map(|(_, topic)| topic.clone()).collect();
    }

    /// Returns the topics that are shown in a range of places, each with its place.
    pub(super) fn shown(&self, above: usize, count: usize) -> Vec<(usize, &KnownTopic)> {
        let topics = self.shown.iter().enumerate().skip(above).take(count);
        let known = |(place, topic): (usize, &Topic)| {
            let found = self.known.binary_search_by(|known| by_tokens(&known.listed.topic, topic));
            Some((place, &self.known[found.ok()?]))
        };
        topics.filter_map(known).collect()
    }

    /// Number of topics that are shown.
    pub(super) fn shown_count(&self) -> usize {
        self.shown.len()
    }

    /// Number of all topics.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Returns `true` if the table has all topics that there are.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// Compares topics as the server does: by their first tokens, then by their second ones, and so on.
fn by_tokens(one: &Topic, other: &Topic) -> Ordering {
    one.as_str().split('.').cmp(other.as_str().split('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(topic: &str, events: u64, published: u64) -> ListedTopic {
        ListedTopic {
            topic: topic.parse().unwrap(),
            events,
            bytes: events * 10,
            published,
            newest: None,
            readers: 0,
            pattern_readers: 0,
            outcome: None,
        }
    }

    fn arranged(table: &mut TopicTable, column: TopicColumn, is_descending: bool) -> String {
        let order = TableOrder { column, is_descending };
        table.arrange(&Search::default(), order, false, 100);
        shown(table)
    }

    fn shown(table: &TopicTable) -> String {
        let topics = table.shown(0, usize::MAX).into_iter();
        let names: Vec<_> = topics.map(|(_, known)| known.listed.topic.to_string()).collect();
        names.join(" ")
    }

    #[test]
    fn topics_are_in_the_order_of_a_column() {
        let topics = [("a.b", 2), ("a-b", 2), ("a", 10), ("c", 1)];
        let topics = topics.map(|(topic, events)| listed(topic, events, 0));
        let mut table = TopicTable::new(topics.into(), false);
        for (column, is_descending, expected) in [
            (TopicColumn::Topic, false, "a a.b a-b c"),
            (TopicColumn::Topic, true, "c a-b a.b a"),
            (TopicColumn::Events, true, "a a.b a-b c"),
            (TopicColumn::Size, false, "c a.b a-b a"),
        ] {
            assert_eq!(arranged(&mut table, column, is_descending), expected, "{column:?}");
        }
        let by_events = TableOrder::default().after_click(TopicColumn::Events);
        assert_eq!(by_events, TableOrder { column: TopicColumn::Events, is_descending: true });
        assert!(!by_events.after_click(TopicColumn::Events).is_descending);
        assert_eq!(by_events.after_click(TopicColumn::Topic), TableOrder::default());
    }

    #[test]
    fn a_held_table_keeps_its_order_and_gets_new_topics_at_its_end() {
        let mut table = TopicTable::new(vec![listed("b", 2, 0), listed("c", 1, 0)], false);
        assert_eq!(arranged(&mut table, TopicColumn::Events, true), "b c");
        let changed = vec![listed("a", 5, 0), listed("c", 9, 0)];
        table.apply(changed, true, 1);
        let order = TableOrder { column: TopicColumn::Events, is_descending: true };
        table.arrange(&Search::default(), order, true, 100);
        assert_eq!(shown(&table), "b c a");
        table.arrange(&Search::parse("c a").unwrap(), order, true, 100);
        assert_eq!(shown(&table), "c a");
        table.arrange(&Search::default(), order, false, 100);
        assert_eq!(shown(&table), "c a b");
    }

    #[test]
    fn a_view_that_begins_anew_removes_what_is_gone_once_it_is_complete() {
        let mut table = TopicTable::new(vec![listed("a", 1, 0), listed("b", 1, 0)], false);
        assert!(table.is_complete());
        table.begin();
        table.apply(vec![listed("b", 2, 0)], false, 1);
        assert_eq!((table.count(), table.is_complete()), (2, false));
        table.apply(Vec::new(), true, 1);
        assert_eq!((table.count(), table.is_complete()), (1, true));
        // Deleted, and read by name only.
        table.apply(vec![listed("b", 0, 0), listed("c", 0, 0)], true, 2);
        assert_eq!(table.count(), 0);
        // It has missed changes.
        table.apply(vec![listed("d", 1, 0)], true, 3);
        table.apply(vec![listed("e", 1, 0)], false, 4);
        table.apply(vec![listed("f", 1, 0)], true, 4);
        assert_eq!(arranged(&mut table, TopicColumn::Topic, false), "e f");
    }

    #[test]
    fn readers_by_pattern_are_updated_and_nothing_else() {
        let mut table = TopicTable::new(vec![listed("a", 5, 7)], false);
        let read = |topic, events| ListedTopic { pattern_readers: 3, ..listed(topic, events, 1) };
        table.set_pattern_readers(&[read("a", 0), read("b", 1)]);
        let known = &table.known[0].listed;
        assert_eq!((known.pattern_readers, known.events, known.published), (3, 5, 7));
        assert_eq!(table.count(), 1);
    }

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let mut table = TopicTable::new(Vec::new(), false);
        let rate = |table: &TopicTable, second| table.known[0].rate(second);
        table.apply(vec![listed("a", 9, 100)], true, 50);
        assert_eq!(rate(&table, 50), None, "not known yet");
        assert_eq!(rate(&table, 51), Some(0));
        table.apply(vec![listed("a", 9, 103)], true, 51);
        table.apply(vec![listed("a", 9, 104)], true, 52);
        assert_eq!(rate(&table, 52), Some(20));
        assert_eq!(rate(&table, 60), Some(4));
        assert_eq!(rate(&table, 61), Some(1), "the one at 52");
        assert_eq!(rate(&table, 62), Some(0));
        for second in 100..200 {
            table.apply(vec![listed("a", 9, 1000 + second * 2500)], true, second);
        }
        assert_eq!(rate(&table, 199), Some(25_000));
        assert!(table.known[0].published.len() <= 11);
        // The server has started again.
        table.apply(vec![listed("a", 9, 3)], true, 200);
        assert_eq!(rate(&table, 200), None);
        // The page was hidden meanwhile.
        table.begin();
        assert_eq!(rate(&table, 900), None, "not sent yet");
        table.apply(vec![listed("a", 9, 100_000)], true, 900);
        assert_eq!(rate(&table, 900), None);
        assert_eq!(rate(&table, 901), Some(0));
    }
}

//! Bookkeeping of topics, shared by all event logs.

use std::collections::{HashMap, HashSet};

use super::store::Rejected;
use crate::{event::Topic, pattern::Patterns};

/// The topics that a log has had events of.
#[derive(Debug, Default)]
pub(super) struct Topics<T> {
    by_topic: HashMap<Topic, TopicEntry<T>>,
    /// Upper bound of the sequence numbers that were dropped of topics without an entry.
    forgotten: u64,
}

/// The bookkeeping of one topic.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicEntry<T> {
    /// Number of kept events.
    pub count: usize,
    /// The sequence number of the newest event.
    pub newest: u64,
    /// The sequence number of the newest dropped event.
    pub dropped: u64,
    /// The log's own reference to the events.
    pub place: T,
}

impl<T> Topics<T> {
    /// Restores the bookkeeping of a stored log.
    #[cfg(feature = "sqlite")]
    pub fn new(by_topic: HashMap<Topic, TopicEntry<T>>, forgotten: u64) -> Self {
        Self { by_topic, forgotten }
    }

    pub fn get(&self, topic: &Topic) -> Option<&TopicEntry<T>> {
        self.by_topic.get(topic)
    }

    pub fn get_mut(&mut self, topic: &Topic) -> Option<&mut TopicEntry<T>> {
        self.by_topic.get_mut(topic)
    }

    #[cfg(feature = "sqlite")]
    pub fn iter(&self) -> impl Iterator<Item = (&Topic, &TopicEntry<T>)> {
        self.by_topic.iter()
    }

    /// Returns the entries of the topics that match.
    pub fn select(&self, topics: &Patterns) -> Vec<(&Topic, &TopicEntry<T>)> {
        topics.select(&self.by_topic)
    }

    /// Returns the sequence number of the newest dropped event of the topics; 0 if all are kept.
    pub fn dropped(&self, topics: &Patterns) -> u64 {
        let entries = self.select(topics);
        let has_all_entries = topics.iter().all(|pattern| pattern.topic().is_some())
            && entries.len() == topics.iter().count();
        let dropped = entries.iter().map(|(_, entry)| entry.dropped).max().unwrap_or(0);
        if has_all_entries { dropped } else { dropped.max(self.forgotten) }
    }

    /// Adds an entry for a topic, which may have had one before.
    pub fn add(&mut self, topic: Topic, place: T) -> &mut TopicEntry<T> {
        let dropped = self.forgotten;
        self.by_topic.entry(topic).or_insert(TopicEntry { count: 0, newest: 0, dropped, place })
    }

    /// Returns the topic that must be forgotten to make room for `new`, or `None` if `max` is not
    /// reached.
    ///
    /// Of the topics without events, that is the one whose last event was dropped first. `changes`
    /// are counted as if they had happened. The topic `clock` is always admitted and never
    /// forgotten.
    ///
    /// # Errors
    ///
    /// If all topics have events.
    pub fn to_forget(
        &self,
        new: &Topic,
        max: usize,
        changes: &TopicChanges,
    ) -> Result<Option<Topic>, Rejected> {
        let TopicChanges { added, forgotten, used } = changes;
        if *new == Topic::clock() || self.by_topic.len() + added.len() < max + forgotten.len() {
            return Ok(None);
        }
        let empty = self.by_topic.iter().filter(|(topic, entry)| {
            let is_changed = forgotten.contains(*topic) || used.contains(*topic);
            entry.count == 0 && **topic != Topic::clock() && !is_changed
        });
        let oldest = empty.min_by_key(|(_, entry)| entry.dropped);
        oldest.map(|(topic, _)| Some(topic.clone())).ok_or(Rejected::TooManyTopics)
    }

    /// Removes the entry of a topic that has no events.
    pub fn forget(&mut self, topic: &Topic) {
        if let Some(entry) = self.by_topic.remove(topic) {
            self.forgotten = self.forgotten.max(entry.dropped);
        }
    }
}

/// Pending changes to the topics by an append that is not committed yet.
#[derive(Debug, Default)]
pub(super) struct TopicChanges {
    /// New topics, with their row ids in the database.
    pub added: HashMap<Topic, i64>,
    /// Topics that make room for the new ones.
    pub forgotten: HashSet<Topic>,
    /// Topics that had no events and get one.
    pub used: HashSet<Topic>,
}

//! What a log knows of each topic.

use std::collections::{HashMap, HashSet};

use crate::{event::Topic, pattern::Patterns};

/// The topics that a log has had events of.
#[derive(Debug, Default)]
pub(super) struct Topics<T> {
    by_topic: HashMap<Topic, OfTopic<T>>,
    /// No event of a topic that is not there was dropped after this one.
    forgotten: u64,
}

/// What a log knows of a topic.
#[derive(Clone, Debug, Default)]
pub(super) struct OfTopic<T> {
    /// How many of its events are kept.
    pub count: usize,
    /// The sequence number of its newest event.
    pub newest: u64,
    /// The sequence number of its newest event that was dropped.
    pub dropped: u64,
    /// Where its events are.
    pub place: T,
}

impl<T> Topics<T> {
    /// Topics, and the last event that was dropped of those that are not there any more.
    pub fn new(by_topic: HashMap<Topic, OfTopic<T>>, forgotten: u64) -> Self {
        Self { by_topic, forgotten }
    }

    pub fn get(&self, topic: &Topic) -> Option<&OfTopic<T>> {
        self.by_topic.get(topic)
    }

    pub fn get_mut(&mut self, topic: &Topic) -> Option<&mut OfTopic<T>> {
        self.by_topic.get_mut(topic)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Topic, &OfTopic<T>)> {
        self.by_topic.iter()
    }

    /// Those that are meant.
    pub fn select(&self, topics: &Patterns) -> Vec<(&Topic, &OfTopic<T>)> {
        topics.select(&self.by_topic)
    }

    /// The newest event of those topics that was dropped; 0 if none was.
    pub fn dropped(&self, topics: &Patterns) -> u64 {
        let known = self.select(topics);
        let is_each_known = topics.iter().all(|pattern| pattern.topic().is_some())
            && known.len() == topics.iter().count();
        let dropped = known.iter().map(|(_, of_topic)| of_topic.dropped).max().unwrap_or(0);
        if is_each_known { dropped } else { dropped.max(self.forgotten) }
    }

    /// Adds a topic, which may have been there before.
    pub fn add(&mut self, topic: Topic, place: T) -> &mut OfTopic<T> {
        let dropped = self.forgotten;
        self.by_topic.entry(topic).or_insert(OfTopic { count: 0, newest: 0, dropped, place })
    }

    /// The topic to forget for that new one, if there are `max`: the one without events whose last was
    /// dropped first. `changes` are to come besides. The clock always has its place. `Err` if all have
    /// events.
    pub fn to_forget(
        &self,
        new: &Topic,
        max: usize,
        changes: &Changes,
    ) -> Result<Option<Topic>, NoRoom> {
        let Changes { added, forgotten, used } = changes;
        if *new == Topic::clock() || self.by_topic.len() + added.len() < max + forgotten.len() {
            return Ok(None);
        }
        let empty = self.by_topic.iter().filter(|(_, of_topic)| of_topic.count == 0);
        let empty = empty.filter(|(topic, _)| {
            **topic != Topic::clock() && !forgotten.contains(*topic) && !used.contains(*topic)
        });
        let longest = empty.min_by_key(|(_, of_topic)| of_topic.dropped);
        longest.map(|(topic, _)| Some(topic.clone())).ok_or(NoRoom)
    }

    /// Forgets a topic that has no events.
    pub fn forget(&mut self, topic: &Topic) {
        if let Some(of_topic) = self.by_topic.remove(topic) {
            self.forgotten = self.forgotten.max(of_topic.dropped);
        }
    }
}

/// What is to happen to the topics when a batch of events is appended.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Topics that are new, with their numbers in the file.
    pub added: HashMap<Topic, i64>,
    /// Topics that have to go for them.
    pub forgotten: HashSet<Topic>,
    /// Topics that had no event, and get one.
    pub used: HashSet<Topic>,
}

/// All topics have events.
#[derive(Debug)]
pub(super) struct NoRoom;

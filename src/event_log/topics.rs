//! Bookkeeping of topics, shared by all event logs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use parking_lot::{Mutex, RwLock};

use super::{
    changed_topics::ChangedTopics,
    drops::{Dropped, ForgottenDrops},
    retention::{Retention, TopicBounds},
    size::LogSize,
    store::{EventStamp, Rejected, TopicFigures},
    topic_map::TopicMap,
};
use crate::{
    event::{Draft, Event, IdempotencyKey, Name, Topic},
    id::{Epoch, EventId},
    notice::{Outcome, TopicEnd},
    pattern::Patterns,
    timestamp::Timestamp,
};

/// The topics that a log has had events of.
///
/// Readers select topics while events are appended: only a new topic has to wait for them.
#[derive(Debug)]
pub(super) struct Topics<T> {
    entries: RwLock<TopicEntries<T>>,
    /// Upper bound of the sequence numbers of all ends.
    newest_end: AtomicU64,
    /// All drops so far. Locked until a drop is noted with its topic, so that whoever knows the
    /// number finds the drop.
    drops: Mutex<Drops>,
}

/// The drops of a log.
#[derive(Debug)]
struct Drops {
    count: u64,
    /// Upper bound of the sequence numbers of their events.
    newest: u64,
}

impl Drops {
    /// Counts a drop of events up to the sequence number `newest`.
    fn add(&mut self, newest: u64) -> Dropped {
        self.count += 1;
        self.newest = self.newest.max(newest);
        Dropped { newest, drops: self.count }
    }
}

#[derive(Debug)]
struct TopicEntries<T> {
    by_topic: TopicMap<Arc<TopicEntry<T>>>,
    /// The drops of topics that have no entry any more.
    forgotten: ForgottenTopics,
    /// The place where changes are noted, if they are.
    changed: Option<Arc<ChangedTopics>>,
}

/// The bookkeeping of one topic. Only the log's writer changes it.
#[derive(Debug)]
pub(super) struct TopicEntry<T> {
    pub topic: Topic,
    /// The log's own reference to the events.
    pub place: T,
    count: AtomicUsize,
    /// Number of events that were added to this entry since the log was opened.
    published: AtomicU64,
    newest: AtomicU64,
    drops: Mutex<TopicDrops>,
    kept: Mutex<KeptEvents>,
    /// The bounds by the rules of the log's retention, once somebody has asked for them.
    bounds: Mutex<Option<TopicBounds>>,
    end: Mutex<Option<Arc<StoredEnd>>>,
}

/// The newest dropped event of a topic.
#[derive(Clone, Copy, Debug, Default)]
struct TopicDrops {
    dropped: Dropped,
    /// Events up to this one are being deleted: they must not be read, and count as dropped.
    hidden: Dropped,
}

/// The drops of the topics that were forgotten.
#[derive(Debug, Default)]
struct ForgottenTopics {
    /// Those of the last ones, with the number of each.
    by_topic: TopicMap<(u64, TopicDrops)>,
    /// The inverse.
    by_number: BTreeMap<u64, Topic>,
    /// Those of all others.
    others: ForgottenDrops,
}

impl ForgottenTopics {
    /// Maximum number of topics that are told apart.
    const MAX: usize = 10_000;

    fn add(&mut self, topic: Topic, drops: TopicDrops) {
        if drops.newest_after(0) == 0 {
            return;
        }
        let number = self.by_number.last_key_value().map_or(0, |(last, _)| last + 1);
        self.by_topic.insert(&topic, (number, drops));
        self.by_number.insert(number, topic);
        if self.by_number.len() > Self::MAX
            && let Some((_, first)) = self.by_number.pop_first()
            && let Some((_, TopicDrops { dropped, hidden })) = self.by_topic.remove(&first)
        {
            self.others.add(dropped);
            self.others.add(hidden);
        }
    }

    /// Takes the drops of a topic that is used again, or of one that may be.
    fn take(&mut self, topic: &Topic) -> TopicDrops {
        let Some((number, drops)) = self.by_topic.remove(topic) else {
            return TopicDrops { dropped: self.others.bound(), hidden: Dropped::default() };
        };
        self.by_number.remove(&number);
        drops
    }
}

impl TopicDrops {
    /// Returns the sequence number of the newest event that was dropped after the first `drops`
    /// drops of the log; 0 if there is none.
    fn newest_after(&self, drops: u64) -> u64 {
        let newest = |dropped: &Dropped| if dropped.drops > drops { dropped.newest } else { 0 };
        newest(&self.dropped).max(newest(&self.hidden))
    }
}

/// The sequence number and the time of an event.
pub(super) type Stamp = (u64, Timestamp);

/// Figures of the kept events of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeptEvents {
    /// Size of their data.
    pub bytes: u64,
    /// `None` if no event is kept, or if the log has to look for it.
    pub oldest: Option<Stamp>,
    /// `None` if no event is kept.
    pub newest: Option<Stamp>,
}

impl KeptEvents {
    /// Adds an event, which must be the newest.
    pub fn add(&mut self, event: Stamp, bytes: usize) {
        if self.newest.is_none() {
            self.oldest = Some(event);
        }
        self.newest = Some(event);
        self.bytes += bytes as u64;
    }
}

/// The newest end of a topic. It is kept after the topic was reopened, for its idempotency key.
#[derive(Clone, Debug)]
pub(super) struct StoredEnd {
    pub sequence: u64,
    pub time: Timestamp,
    /// The data of the event that readers get.
    pub data: String,
    /// The keys of the requests for it, the first [`MAX_END_KEYS`].
    pub keys: Vec<IdempotencyKey>,
    pub is_reopened: bool,
}

/// Maximum number of idempotency keys that a log keeps of the end of a topic.
pub(super) const MAX_END_KEYS: usize = 16;

/// The place in the log of a draft whose topic has had an end.
pub(super) enum Admission {
    /// It is the end that the topic has already.
    Duplicate,
    /// It is new.
    New,
    /// It is new, and the topic is open again.
    Reopening,
}

impl StoredEnd {
    /// Creates the end that a draft asks for.
    pub fn new(draft: &Draft, sequence: u64, time: Timestamp) -> Arc<Self> {
        let (data, keys) = (draft.data.clone(), draft.key.iter().cloned().collect());
        Arc::new(Self { sequence, time, data, keys, is_reopened: false })
    }

    /// Returns the end of a topic that is open again.
    pub fn reopened(&self) -> Arc<Self> {
        Arc::new(Self { is_reopened: true, ..self.clone() })
    }

    /// Returns the end with the key of a draft that has asked for it again, or `None` if it has
    /// nothing to keep: no key, or there are too many.
    pub fn keyed(&self, draft: &Draft) -> Option<Arc<Self>> {
        let key = draft.key.as_ref().filter(|_| self.keys.len() < MAX_END_KEYS)?;
        let mut end = self.clone();
        end.keys.push(key.clone());
        Some(Arc::new(end))
    }

    /// Compares a draft to the same topic that has a key of the end. Returns `None` if the keys
    /// differ.
    pub fn find_by_key(&self, draft: &Draft) -> Option<Result<(), Rejected>> {
        let is_same_key = draft.key.as_ref().is_some_and(|key| self.keys.contains(key));
        let found = || self.is_same(draft).then_some(()).ok_or(Rejected::KeyReused);
        is_same_key.then(found)
    }

    /// Decides on a draft to the same topic that has no known key.
    pub fn admit(&self, draft: &Draft) -> Result<Admission, Rejected> {
        if draft.unless_ended_after.is_some_and(|after| self.sequence > after) {
            Err(Rejected::Ended)
        } else if self.is_reopened {
            Ok(Admission::New)
        } else if self.is_same(draft) {
            Ok(Admission::Duplicate)
        } else if draft.is_reopening && !draft.name.is_topic_end() {
            Ok(Admission::Reopening)
        } else {
            Err(Rejected::Ended)
        }
    }

    fn is_same(&self, draft: &Draft) -> bool {
        draft.name.is_topic_end() && draft.data == self.data
    }

    /// The publisher's verdict.
    fn outcome(&self) -> Outcome {
        let end = serde_json::from_str(&self.data);
        end.map_or(Outcome::Done, |end: TopicEnd| end.outcome)
    }

    /// Returns the end as readers get it.
    pub fn event(&self, topic: Topic, epoch: Epoch) -> Event {
        let id = EventId { epoch, sequence: self.sequence };
        Event { id, topic, name: Name::topic_end(), data: self.data.clone(), time: self.time }
    }
}

impl<T> TopicEntry<T> {
    /// Creates an entry of a topic without events.
    #[cfg(feature = "sqlite")]
    pub fn new(topic: Topic, place: T, dropped: Dropped) -> Self {
        Self::with_drops(topic, place, TopicDrops { dropped, hidden: Dropped::default() })
    }

    fn with_drops(topic: Topic, place: T, drops: TopicDrops) -> Self {
        Self {
            topic,
            place,
            count: AtomicUsize::new(0),
            published: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            drops: Mutex::new(drops),
            kept: Mutex::default(),
            bounds: Mutex::default(),
            end: Mutex::default(),
        }
    }

    /// Returns `true` if the topic has ended and was not reopened.
    pub fn has_ended(&self) -> bool {
        self.end.lock().as_ref().is_some_and(|end| !end.is_reopened)
    }

    /// The outcome of the topic, if it has ended and was not reopened.
    fn outcome(&self) -> Option<Outcome> {
        Some(self.end().filter(|end| !end.is_reopened)?.outcome())
    }

    /// The newest end.
    pub fn end(&self) -> Option<Arc<StoredEnd>> {
        self.end.lock().clone()
    }

    /// Sets the newest end. For readers, [`Topics::set_end`] must do it.
    pub fn set_end(&self, end: Arc<StoredEnd>) {
        *self.end.lock() = Some(end);
    }

    /// The sequence number of the newest event or end that is not kept, or would not be kept any
    /// more if the topic were forgotten.
    fn gone(&self) -> u64 {
        self.dropped().max(self.end().map_or(0, |end| end.sequence))
    }

    /// Returns the bounds of the topic. Its name is compared with the rules only once, until
    /// [`Topics::forget_bounds`].
    pub fn bounds(&self, retention: &Retention) -> TopicBounds {
        if retention.rules.is_empty() {
            return retention.bounds_of(&self.topic);
        }
        *self.bounds.lock().get_or_insert_with(|| retention.bounds_of(&self.topic))
    }

    /// Number of kept events.
    pub fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// The sequence number of the newest event.
    pub fn newest(&self) -> u64 {
        self.newest.load(SeqCst)
    }

    /// The sequence number of the newest dropped event.
    pub fn dropped(&self) -> u64 {
        self.drops.lock().newest_after(0)
    }

    /// Counts an event, which must be the newest.
    pub fn add(&self, event: Stamp, bytes: usize) {
        self.published.fetch_add(1, SeqCst);
        self.add_imported(event, bytes);
    }

    /// Counts an event of another log, which must be the newest.
    pub fn add_imported(&self, event: Stamp, bytes: usize) {
        self.count.fetch_add(1, SeqCst);
        self.newest.store(event.0, SeqCst);
        self.kept.lock().add(event, bytes);
    }

    /// Restores the figures of stored events up to the sequence number `newest`.
    #[cfg(feature = "sqlite")]
    pub fn restore(&self, count: usize, newest: u64, kept: KeptEvents) {
        self.count.store(count, SeqCst);
        self.newest.store(newest, SeqCst);
        *self.kept.lock() = kept;
    }

    /// The sequence number up to which events are being deleted, and must not be read.
    #[cfg(feature = "sqlite")]
    pub fn hidden(&self) -> u64 {
        self.drops.lock().hidden.newest
    }

    /// Shows the events up to the sequence number `newest` again that could not be deleted, unless
    /// a later deletion hides them as well.
    #[cfg(feature = "sqlite")]
    pub fn show_hidden(&self, newest: u64) {
        let hidden = &mut self.drops.lock().hidden;
        if hidden.newest == newest {
            *hidden = Dropped::default();
        }
    }

    /// Counts a dropped event, which must be the oldest.
    pub fn remove(&self, bytes: usize) {
        // Of a damaged log, the number may be wrong.
        let _ = self.count.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1));
        let kept = &mut *self.kept.lock();
        if self.count() == 0 {
            *kept = KeptEvents::default();
        } else {
            kept.bytes = kept.bytes.saturating_sub(bytes as u64);
            kept.oldest = None;
        }
    }

    /// The figures of the kept events. Without the oldest one, the log must look for it.
    pub fn kept(&self) -> KeptEvents {
        *self.kept.lock()
    }

    /// Remembers the oldest event, unless it was dropped while the log looked for it.
    pub fn set_oldest(&self, oldest: Stamp) {
        let kept = &mut *self.kept.lock();
        if kept.newest.is_some() && oldest.0 > self.dropped() {
            kept.oldest = Some(oldest);
        }
    }
}

impl<T> Default for Topics<T> {
    fn default() -> Self {
        Self::new([], 0)
    }
}

impl<T> Topics<T> {
    /// Restores the bookkeeping of a stored log.
    pub fn new(entries: impl IntoIterator<Item = TopicEntry<T>>, forgotten: u64) -> Self {
        let mut by_topic = TopicMap::default();
        let (mut newest_end, mut newest_dropped) = (0, forgotten);
        for entry in entries {
            let entry = Arc::new(entry);
            newest_dropped = entry.dropped().max(newest_dropped);
            newest_end = entry.end().map_or(0, |end| end.sequence).max(newest_end);
            by_topic.insert(&entry.topic, Arc::clone(&entry));
        }
        let mut forgotten_topics = ForgottenTopics::default();
        forgotten_topics.others.add(Dropped::before_start(forgotten));
        let entries = TopicEntries { by_topic, forgotten: forgotten_topics, changed: None };
        Self {
            entries: RwLock::new(entries),
            newest_end: newest_end.into(),
            drops: Mutex::new(Drops { count: Dropped::FIRST, newest: newest_dropped }),
        }
    }

    /// Returns the entry of a topic.
    pub fn get(&self, topic: &Topic) -> Option<Arc<TopicEntry<T>>> {
        self.entries.read().by_topic.get(topic).cloned()
    }

    /// Forgets the bounds of all topics, since the log's retention changes.
    pub fn forget_bounds(&self) {
        for entry in self.all() {
            *entry.bounds.lock() = None;
        }
    }

    /// Returns all entries.
    pub fn all(&self) -> Vec<Arc<TopicEntry<T>>> {
        self.entries.read().by_topic.values().cloned().collect()
    }

    /// Returns the entries of the topics that match and have an event after the sequence number
    /// `after`.
    pub fn select(&self, topics: &Patterns, after: u64) -> Vec<Arc<TopicEntry<T>>> {
        let mut selected = Vec::new();
        self.entries.read().by_topic.find(topics, |entry| {
            if entry.newest() > after {
                selected.push(Arc::clone(entry));
            }
        });
        selected
    }

    /// Returns topics that match and have events or have ended, after the topic `after`, at most
    /// `limit`, in the order of their tokens.
    pub fn page(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        let mut page = Vec::new();
        self.entries.read().by_topic.find_after(topics, after, |entry| {
            if (entry.count() > 0 || entry.has_ended()) && page.len() < limit {
                page.push(entry.topic.clone());
            }
            page.len() < limit
        });
        page
    }

    /// Returns the size of all kept events.
    pub fn size(&self) -> LogSize {
        let mut size = LogSize::default();
        for entry in self.entries.read().by_topic.values() {
            let events = entry.count();
            size.topics += usize::from(events > 0 || entry.has_ended());
            size.events += events;
            size.bytes += entry.kept().bytes;
        }
        size
    }

    /// Notes the topics that change in `changed` from now on.
    pub fn note_changes(&self, changed: &Arc<ChangedTopics>) {
        self.entries.write().changed = Some(Arc::clone(changed));
    }

    /// Notes that topics have changed.
    pub fn note<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
        let changed = self.entries.read().changed.clone();
        if let Some(changed) = changed {
            changed.note(topics);
        }
    }

    /// Returns the figures of the topics. `oldest` looks for the oldest event of an entry.
    pub fn figures(
        &self,
        topics: &[Topic],
        epoch: Epoch,
        oldest: impl Fn(&TopicEntry<T>) -> Option<Stamp>,
    ) -> Vec<TopicFigures> {
        let stamp = |(sequence, time)| EventStamp { id: EventId { epoch, sequence }, time };
        let figures = |topic: &Topic| {
            let entry = self.get(topic);
            let (kept, events) =
                entry.as_ref().map(|entry| (entry.kept(), entry.count())).unwrap_or_default();
            let oldest = kept.oldest.or_else(|| {
                let found = oldest(entry.as_deref().filter(|_| events > 0)?)?;
                entry.as_ref()?.set_oldest(found);
                Some(found)
            });
            TopicFigures {
                topic: topic.clone(),
                events,
                bytes: kept.bytes,
                published: entry.as_ref().map_or(0, |entry| entry.published.load(SeqCst)),
                oldest: oldest.map(stamp),
                newest: kept.newest.map(stamp),
                outcome: entry.and_then(|entry| entry.outcome()),
            }
        };
        topics.iter().map(figures).collect()
    }

    /// Returns the ends of the topics that have ended, those after `after` and up to `up_to`, in
    /// their order.
    pub fn ends(&self, topics: &Patterns, after: u64, up_to: u64, epoch: Epoch) -> Vec<Event> {
        if self.newest_end.load(SeqCst) <= after {
            return Vec::new();
        }
        let mut ends = Vec::new();
        self.entries.read().by_topic.find(topics, |entry| {
            let end = entry.end().filter(|end| !end.is_reopened);
            if let Some(end) = end.filter(|end| after < end.sequence && end.sequence <= up_to) {
                ends.push(end.event(entry.topic.clone(), epoch));
            }
        });
        ends.sort_unstable_by_key(|end| end.id.sequence);
        ends
    }

    /// Sets the newest end of a topic.
    pub fn set_end(&self, topic: &Topic, end: Arc<StoredEnd>) {
        self.newest_end.fetch_max(end.sequence, SeqCst);
        if let Some(entry) = self.get(topic) {
            entry.set_end(end);
        }
    }

    /// Notes that events of a topic up to the sequence number `newest` are dropped, or will be at
    /// once.
    pub fn set_dropped(&self, entry: &TopicEntry<T>, newest: u64) {
        let drops = &mut *self.drops.lock();
        let TopicDrops { dropped, hidden } = &mut *entry.drops.lock();
        if newest <= dropped.newest {
            return;
        }
        // Hidden events count already.
        let is_new = newest > hidden.newest;
        *dropped = if is_new { drops.add(newest) } else { Dropped { newest, ..*hidden } };
    }

    /// Hides the events of a topic so far from reads, which find them dropped. Returns the sequence
    /// number of the newest of them.
    #[cfg(feature = "sqlite")]
    pub fn hide(&self, entry: &TopicEntry<T>) -> u64 {
        let newest = entry.newest();
        let drops = &mut *self.drops.lock();
        let TopicDrops { hidden, .. } = &mut *entry.drops.lock();
        if newest > hidden.newest {
            *hidden = drops.add(newest);
        }
        newest
    }

    /// Returns the newest event of the topics after the sequence number `after` that was dropped
    /// after the first `drops` drops, and the number of drops so far.
    pub fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        // Counted first. A drop that is noted meanwhile may be found again, but is never missed.
        let Drops { count: so_far, newest: newest_of_all } = *self.drops.lock();
        if so_far <= drops || newest_of_all <= after {
            return Dropped { newest: 0, drops: so_far };
        }
        let entries = self.entries.read();
        let (mut newest, mut found) = (0, 0);
        let mut look = |of_topic: &TopicDrops| {
            newest = of_topic.newest_after(drops).max(newest);
            found += 1;
        };
        entries.by_topic.find(topics, |entry| look(&entry.drops.lock()));
        entries.forgotten.by_topic.find(topics, |(_, drops)| look(drops));
        let has_all = topics.are_exact() && found == topics.iter().count();
        if !has_all {
            newest = newest.max(entries.forgotten.others.newest_after(drops));
        }
        Dropped { newest: if newest > after { newest } else { 0 }, drops: so_far }
    }

    /// Adds an entry for a topic, which may have had one before.
    pub fn add(&self, topic: Topic, place: T) -> Arc<TopicEntry<T>> {
        let mut entries = self.entries.write();
        let drops = entries.forgotten.take(&topic);
        let entry = Arc::new(TopicEntry::with_drops(topic, place, drops));
        entries.by_topic.insert(&entry.topic, Arc::clone(&entry));
        entry
    }

    /// Returns the topic that must be forgotten to make room for `new`, or `None` if `max` is not
    /// reached.
    ///
    /// Of the topics without events, that is the one whose last event was dropped, or that has
    /// ended, before the others. `changes` are counted as if they had happened. The topic `clock`
    /// is always admitted and never forgotten.
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
        let TopicChanges { added, forgotten, used, .. } = changes;
        let by_topic = &self.entries.read().by_topic;
        if *new == Topic::clock() || by_topic.len() + added.len() < max + forgotten.len() {
            return Ok(None);
        }
        let can_be_forgotten = |entry: &&Arc<TopicEntry<T>>| {
            entry.count() == 0
                && entry.topic != Topic::clock()
                && !forgotten.contains(&entry.topic)
                && !used.contains(&entry.topic)
        };
        let oldest = by_topic.values().filter(can_be_forgotten).min_by_key(|entry| entry.gone());
        oldest.map(|entry| Some(entry.topic.clone())).ok_or(Rejected::TooManyTopics)
    }

    /// Notes that events up to the sequence number `newest` are dropped that have no known topic.
    #[cfg(feature = "sqlite")]
    pub fn forget_up_to(&self, newest: u64) {
        let mut entries = self.entries.write();
        entries.forgotten.others.add(self.drops.lock().add(newest));
    }

    /// Removes the entry of a topic that has no events.
    pub fn forget(&self, topic: &Topic) {
        let mut entries = self.entries.write();
        let Some(entry) = entries.by_topic.remove(topic) else { return };
        let mut drops = *entry.drops.lock();
        if let Some(end) = entry.end()
            && end.sequence > drops.newest_after(0)
        {
            // Its end is gone only now.
            drops.dropped = self.drops.lock().add(end.sequence);
        }
        entries.forgotten.add(topic.clone(), drops);
    }
}

/// Pending changes to the topics by an append that is not committed yet.
#[derive(Debug, Default)]
pub(super) struct TopicChanges {
    /// New topics, with their row ids in the database.
    pub added: HashMap<Topic, i64>,
    /// Topics that make room for the new ones.
    pub forgotten: HashSet<Topic>,
    /// Topics that had no events and get one, or an end.
    pub used: HashSet<Topic>,
    /// New ends, and ends of topics that are reopened.
    #[cfg(feature = "sqlite")]
    pub ends: HashMap<Topic, Arc<StoredEnd>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_topics_that_were_forgotten_are_told_apart() {
        let topics = Topics::<()>::default();
        let topic = |number: u64| format!("t{number}").parse::<Topic>().unwrap();
        let count = ForgottenTopics::MAX as u64 + 2;
        for number in 1..=count {
            let entry = topics.add(topic(number), ());
            topics.set_dropped(&entry, number);
            topics.forget(&entry.topic);
        }
        let dropped = |number| topics.dropped_after(&topic(number).into(), 0, 0).newest;
        // Of the first two, an upper bound is known, which counts for all that are not known.
        assert_eq!([1, 2, 3, count, count + 1].map(dropped), [2, 2, 3, count, 2]);
        let again = topics.add(topic(count), ());
        assert_eq!((again.dropped(), topics.add(topic(1), ()).dropped()), (count, 2));
        assert_eq!(topics.dropped_after(&topic(count).into(), 0, 0).newest, count);
    }
}

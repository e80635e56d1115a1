//! The topics that have changed: whoever watches them learns which, without a look at the others.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::event::Topic;

/// Number of topics of which the last change is known. A watcher that has missed more must start
/// again.
const MAX_CHANGED: usize = 20_000;

/// The topics whose events or readers have changed. Costs nothing while nobody watches.
#[derive(Debug)]
pub struct ChangedTopics {
    watchers: AtomicUsize,
    changes: Mutex<Changes>,
    /// The number of the last change. Updated only while `changes` is locked.
    last: watch::Sender<u64>,
}

/// The changes that are known, with the watchers that they are noted for.
#[derive(Debug, Default)]
struct Changes {
    /// Number of watchers of all topics. Without any, the changes below are not noted.
    watchers_of_all: usize,
    /// The last change of each topic.
    by_number: BTreeMap<u64, Arc<Topic>>,
    number_of: HashMap<Arc<Topic>, u64>,
    /// The number of the newest change that was forgotten.
    forgotten: u64,
    /// The topics that are watched by themselves.
    single: HashMap<Topic, SingleTopic>,
}

/// A topic that is watched by itself.
#[derive(Debug, Default)]
struct SingleTopic {
    watchers: usize,
    /// The number of its changes.
    changes: watch::Sender<u64>,
}

impl Default for ChangedTopics {
    fn default() -> Self {
        let last = watch::Sender::new(0);
        Self { watchers: AtomicUsize::new(0), changes: Mutex::default(), last }
    }
}

impl ChangedTopics {
    /// Returns `true` if anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    /// Notes that topics have changed. Must be called after the change.
    pub fn note<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
        if !self.is_watched() {
            return;
        }
        let changes = &mut *self.changes.lock();
        let mut last = *self.last.borrow();
        for topic in topics {
            if let Some(single) = changes.single.get(topic) {
                single.changes.send_modify(|changes| *changes += 1);
            }
            if changes.watchers_of_all == 0 {
                continue;
            }
            last += 1;
            let earlier = changes.number_of.remove(topic);
            let earlier = earlier.and_then(|earlier| changes.by_number.remove(&earlier));
            let topic = earlier.unwrap_or_else(|| Arc::new(topic.clone()));
            changes.number_of.insert(Arc::clone(&topic), last);
            changes.by_number.insert(last, topic);
        }
        while changes.by_number.len() > MAX_CHANGED
            && let Some((number, topic)) = changes.by_number.pop_first()
        {
            changes.number_of.remove(&topic);
            changes.forgotten = number;
        }
        if last > *self.last.borrow() {
            self.last.send_replace(last);
        }
    }

    /// Notes that any topic may have changed. The watchers of all topics must start again.
    pub fn note_any(&self) {
        if !self.is_watched() {
            return;
        }
        let changes = &mut *self.changes.lock();
        for single in changes.single.values() {
            single.changes.send_modify(|changes| *changes += 1);
        }
        if changes.watchers_of_all == 0 {
            return;
        }
        let last = *self.last.borrow() + 1;
        (changes.by_number, changes.number_of) = Default::default();
        changes.forgotten = last;
        self.last.send_replace(last);
    }

    /// Begins to watch all topics. Whatever the watcher reads afterwards is at least as new as the
    /// changes that it does not learn of.
    pub(crate) fn watch(self: &Arc<Self>) -> TopicWatch {
        let changes = &mut *self.changes.lock();
        changes.watchers_of_all += 1;
        self.begin(None, self.last.subscribe())
    }

    /// Begins to watch one topic. The changes of others cost the watcher nothing.
    pub(crate) fn watch_one(self: &Arc<Self>, topic: Topic) -> TopicWatch {
        let changes = &mut *self.changes.lock();
        let single = changes.single.entry(topic.clone()).or_default();
        single.watchers += 1;
        self.begin(Some(topic), single.changes.subscribe())
    }

    fn begin(self: &Arc<Self>, topic: Option<Topic>, last: watch::Receiver<u64>) -> TopicWatch {
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let seen = *last.borrow();
        TopicWatch { changed: Arc::clone(self), topic, last, seen, look: None }
    }
}

/// A watcher of the topics that change, or of one of them.
#[derive(Debug)]
pub struct TopicWatch {
    changed: Arc<ChangedTopics>,
    /// The only topic that it watches.
    topic: Option<Topic>,
    last: watch::Receiver<u64>,
    /// The number of the newest change that no further look has to take.
    seen: u64,
    look: Option<Look>,
}

/// A look at the changes.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// The number of the newest change when it began.
    newest: u64,
    /// The number of the oldest change that it has taken; before the first, the one after `newest`.
    taken: u64,
}

impl TopicWatch {
    /// Waits until there are changes that were not taken.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        // Cannot fail: the sender is kept as long as the topics are watched.
        let _ = self.last.wait_for(|last| *last > seen).await;
    }

    /// Takes the next topics that have changed, each once, at most `limit`, which must not be 0.
    ///
    /// A look at the changes begins with the first call, and ends with one that returns no topic.
    /// Whatever changes in the meantime belongs to the next look. The topics that have changed last
    /// come first: each further change moves a topic to the next look, so those that change all the
    /// time would never have their turn at the end. Returns `None` if any topic may have changed,
    /// also because there were too many changes to note.
    pub fn take(&mut self, limit: usize) -> Option<Vec<Arc<Topic>>> {
        let look = self.look.get_or_insert_with(|| {
            let newest = *self.last.borrow();
            Look { newest, taken: newest + 1 }
        });
        let topics: Vec<_> = if let Some(topic) = &self.topic {
            let has_changed = mem::replace(&mut look.taken, self.seen + 1) > self.seen + 1;
            has_changed.then(|| Arc::new(topic.clone())).into_iter().collect()
        } else {
            let changes = self.changed.changes.lock();
            if self.seen < changes.forgotten {
                (self.seen, self.look) = (*self.last.borrow(), None);
                return None;
            }
            let not_taken = changes.by_number.range(self.seen + 1..look.taken);
            let next = not_taken.rev().take(limit).inspect(|(number, _)| look.taken = **number);
            next.map(|(_, topic)| Arc::clone(topic)).collect()
        };
        if topics.is_empty() {
            self.seen = look.newest;
            self.look = None;
        }
        Some(topics)
    }
}

impl Drop for TopicWatch {
    fn drop(&mut self) {
        let changes = &mut *self.changed.changes.lock();
        self.changed.watchers.fetch_sub(1, Ordering::SeqCst);
        if let Some(topic) = &self.topic {
            if let Some(single) = changes.single.get_mut(topic) {
                single.watchers -= 1;
                if single.watchers == 0 {
                    changes.single.remove(topic);
                }
            }
            return;
        }
        changes.watchers_of_all -= 1;
        if changes.watchers_of_all == 0 {
            (changes.by_number, changes.number_of) = Default::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: usize = 1000;

    fn topics(texts: &str) -> Vec<Topic> {
        texts.split_whitespace().map(|text| text.parse().unwrap()).collect()
    }

    /// Takes the next topics of a watch, as a text: `*` if there were too many.
    fn take(watch: &mut TopicWatch) -> String {
        let Some(topics) = watch.take(AT_ONCE) else { return "*".to_owned() };
        topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_watcher_learns_each_changed_topic_once() {
        let changed = Arc::new(ChangedTopics::default());
        changed.note(&topics("before"));
        let mut watch = changed.watch();
        assert_eq!(take(&mut watch), "");
        changed.note(&topics("a b a"));
        let mut late = changed.watch();
        changed.note(&topics("c b"));
        assert_eq!(take(&mut watch), "b c a");
        assert_eq!(take(&mut watch), "");
        assert_eq!(take(&mut late), "b c");
        drop((watch, late));
        assert!(changed.changes.lock().by_number.is_empty(), "nothing is left");
        assert!(!changed.is_watched());
    }

    #[tokio::test]
    async fn a_watcher_of_one_topic_does_no_work_for_others() {
        let changed = Arc::new(ChangedTopics::default());
        let [mut first, mut second] = [0; 2].map(|_| changed.watch_one("a".parse().unwrap()));
        let mut waiting = tokio_test::task::spawn(first.changed());
        assert!(waiting.poll().is_pending());
        changed.note(&topics("b c"));
        assert!(!waiting.is_woken());
        assert!(changed.changes.lock().by_number.is_empty(), "nobody watches them");
        changed.note(&topics("b a a"));
        assert!(waiting.is_woken() && waiting.poll().is_ready());
        drop(waiting);
        // A watcher of all topics changes nothing for those of one, however much it misses.
        let mut all = changed.watch();
        for number in 0..=MAX_CHANGED {
            changed.note(&topics(&format!("t.{number}")));
        }
        assert_eq!(take(&mut all), "*");
        for watch in [&mut first, &mut second] {
            assert_eq!(take(watch), "a");
            assert_eq!(take(watch), "");
        }
        changed.note(&topics("a"));
        assert_eq!([take(&mut all), take(&mut second)], ["a", "a"]);
        drop((second, all));
        assert!(changed.changes.lock().by_number.is_empty());
        changed.note(&topics("b a"));
        assert_eq!(take(&mut first), "a");
        drop(first);
        assert!(changed.changes.lock().single.is_empty() && !changed.is_watched());
    }

    #[test]
    fn a_watcher_that_has_missed_too_much_is_told() {
        let changed = Arc::new(ChangedTopics::default());
        let mut watch = changed.watch();
        for number in 0..MAX_CHANGED {
            changed.note(&topics(&format!("t.{number}")));
        }
        assert_eq!(watch.take(AT_ONCE).map(|topics| topics.len()), Some(AT_ONCE));
        let mut stuck = changed.watch();
        for number in 0..=MAX_CHANGED {
            changed.note(&topics(&format!("u.{number}")));
        }
        assert_eq!([take(&mut watch), take(&mut stuck)], ["*", "*"]);
        assert_eq!([take(&mut watch), take(&mut stuck)], ["", ""]);
        assert_eq!(changed.changes.lock().number_of.len(), MAX_CHANGED);
        changed.note(&topics("a"));
        assert_eq!(take(&mut watch), "a");
    }

    #[tokio::test]
    async fn watchers_learn_that_any_topic_may_have_changed() {
        let changed = Arc::new(ChangedTopics::default());
        changed.note_any();
        let mut one = changed.watch_one("a".parse().unwrap());
        assert_eq!(take(&mut one), "");
        changed.note_any();
        let mut all = changed.watch();
        assert_eq!([take(&mut one), take(&mut one), take(&mut all)], ["a", "", ""]);
        changed.note(&topics("b c"));
        assert_eq!(all.take(1).map(|topics| topics.len()), Some(1), "a look has begun");
        let mut waiting = tokio_test::task::spawn(one.changed());
        assert!(waiting.poll().is_pending());
        changed.note_any();
        assert!(waiting.is_woken() && waiting.poll().is_ready());
        drop(waiting);
        all.changed().await;
        changed.note(&topics("d"));
        assert_eq!([take(&mut all), take(&mut all), take(&mut one)], ["*", "", "a"]);
        changed.note(&topics("e"));
        assert_eq!(take(&mut all), "e");
    }

    #[test]
    fn a_look_has_an_end_although_topics_change_meanwhile() {
        let changed = Arc::new(ChangedTopics::default());
        let (mut all, mut one) = (changed.watch(), changed.watch_one("a".parse().unwrap()));
        changed.note(&topics("a b c"));
        for (of_all, of_one, next) in
            [("c b", "a", "c"), ("a", "", "a"), ("", "a", "b"), ("b a", "", "a"), ("c", "a", "a")]
        {
            for (watch, expected) in [(&mut all, of_all), (&mut one, of_one)] {
                let taken = watch.take(2).unwrap();
                let taken: Vec<_> = taken.iter().map(|topic| topic.as_str()).collect();
                assert_eq!(taken.join(" "), expected);
            }
            changed.note(&topics(next));
        }
    }

    #[test]
    fn a_topic_that_changes_all_the_time_has_its_turn_in_each_look() {
        let changed = Arc::new(ChangedTopics::default());
        let mut watch = changed.watch();
        changed.note(&topics("a b busy"));
        for expected in ["busy", "b", "a", "", "busy", "", "busy", "", "busy"] {
            let taken = watch.take(1).unwrap().pop();
            assert_eq!(taken.map(|topic| topic.to_string()).unwrap_or_default(), expected);
            changed.note(&topics("busy"));
        }
    }

    #[tokio::test]
    async fn a_watcher_waits_only_for_what_it_has_not_taken() {
        let changed = Arc::new(ChangedTopics::default());
        let mut watch = changed.watch();
        changed.note(&topics("a"));
        watch.changed().await;
        assert_eq!([take(&mut watch), take(&mut watch)], ["a", ""]);
        let mut waiting = tokio_test::task::spawn(watch.changed());
        assert!(waiting.poll().is_pending());
        changed.note(&topics("b"));
        assert!(waiting.is_woken() && waiting.poll().is_ready());
    }
}

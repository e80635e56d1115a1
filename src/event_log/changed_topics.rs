//! The topics that have changed: whoever watches them learns which, without a look at the others.

use std::{
    collections::{BTreeMap, HashMap},
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
/// Number of topics that a watcher takes before the lock is released.
const TAKEN_AT_ONCE: usize = 1000;

/// The topics whose events or readers have changed. Costs nothing while nobody watches.
#[derive(Debug)]
pub struct ChangedTopics {
    watchers: AtomicUsize,
    changes: Mutex<Changes>,
    /// The number of the last change. Updated only while `changes` is locked.
    last: watch::Sender<u64>,
}

/// The last change of each topic.
#[derive(Debug, Default)]
struct Changes {
    by_number: BTreeMap<u64, Topic>,
    number_of: HashMap<Topic, u64>,
    /// The number of the newest change that was forgotten.
    forgotten: u64,
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
            last += 1;
            if let Some(earlier) = changes.number_of.insert(topic.clone(), last) {
                changes.by_number.remove(&earlier);
            }
            changes.by_number.insert(last, topic.clone());
        }
        while changes.by_number.len() > MAX_CHANGED
            && let Some((number, topic)) = changes.by_number.pop_first()
        {
            changes.number_of.remove(&topic);
            changes.forgotten = number;
        }
        self.last.send_replace(last);
    }

    /// Begins to watch. Whatever the watcher reads afterwards is at least as new as the changes
    /// that it does not learn of.
    pub(crate) fn watch(self: &Arc<Self>) -> TopicWatch {
        let _changes = self.changes.lock();
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let last = self.last.subscribe();
        let seen = *last.borrow();
        TopicWatch { changed: Arc::clone(self), last, seen }
    }
}

/// A watcher of the topics that change.
#[derive(Debug)]
pub struct TopicWatch {
    changed: Arc<ChangedTopics>,
    last: watch::Receiver<u64>,
    /// The number of the newest change that was taken.
    seen: u64,
}

impl TopicWatch {
    /// Waits until there are changes that were not taken.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        // Cannot fail: `changed` holds the sender.
        let _ = self.last.wait_for(|last| *last > seen).await;
    }

    /// Takes the next topics that have changed, each once, and none if there are no more. Returns
    /// `None` if there were too many, so that any topic may have changed.
    pub fn take(&mut self) -> Option<Vec<Topic>> {
        let changes = self.changed.changes.lock();
        if self.seen < changes.forgotten {
            self.seen = *self.last.borrow();
            return None;
        }
        let next = changes.by_number.range(self.seen + 1..).take(TAKEN_AT_ONCE);
        let topics: Vec<_> = next.map(|(number, topic)| (*number, topic.clone())).collect();
        self.seen = topics.last().map_or_else(|| *self.last.borrow(), |(number, _)| *number);
        Some(topics.into_iter().map(|(_, topic)| topic).collect())
    }
}

impl Drop for TopicWatch {
    fn drop(&mut self) {
        let changes = &mut *self.changed.changes.lock();
        if self.changed.watchers.fetch_sub(1, Ordering::SeqCst) == 1 {
            *changes = Changes { forgotten: changes.forgotten, ..Changes::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(texts: &str) -> Vec<Topic> {
        texts.split_whitespace().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_watcher_learns_each_changed_topic_once() {
        let changed = Arc::new(ChangedTopics::default());
        changed.note(&topics("before"));
        let mut watch = changed.watch();
        assert_eq!(watch.take(), Some(Vec::new()));
        changed.note(&topics("a b a"));
        let mut late = changed.watch();
        changed.note(&topics("c b"));
        assert_eq!(watch.take(), Some(topics("a c b")));
        assert_eq!(watch.take(), Some(Vec::new()));
        assert_eq!(late.take(), Some(topics("c b")));
        drop((watch, late));
        assert!(changed.changes.lock().by_number.is_empty(), "nothing is left");
        assert!(!changed.is_watched());
    }

    #[test]
    fn a_watcher_that_has_missed_too_much_is_told() {
        let changed = Arc::new(ChangedTopics::default());
        let mut watch = changed.watch();
        for number in 0..MAX_CHANGED {
            changed.note(&topics(&format!("t.{number}")));
        }
        assert_eq!(watch.take().map(|topics| topics.len()), Some(TAKEN_AT_ONCE));
        let mut stuck = changed.watch();
        for number in 0..=MAX_CHANGED {
            changed.note(&topics(&format!("u.{number}")));
        }
        assert_eq!([watch.take(), stuck.take()], [None, None]);
        assert_eq!([watch.take(), stuck.take()], [Some(Vec::new()), Some(Vec::new())]);
        assert_eq!(changed.changes.lock().number_of.len(), MAX_CHANGED);
        changed.note(&topics("a"));
        assert_eq!(watch.take(), Some(topics("a")));
    }

    #[tokio::test]
    async fn a_watcher_waits_only_for_what_it_has_not_taken() {
        let changed = Arc::new(ChangedTopics::default());
        let mut watch = changed.watch();
        changed.note(&topics("a"));
        watch.changed().await;
        watch.take();
        let mut waiting = tokio_test::task::spawn(watch.changed());
        assert!(waiting.poll().is_pending());
        changed.note(&topics("b"));
        assert!(waiting.is_woken() && waiting.poll().is_ready());
    }
}

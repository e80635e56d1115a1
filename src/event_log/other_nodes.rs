//! The readers of other nodes, which a hub counts together with its own.

use std::{ops::AddAssign, pin::Pin, sync::Weak, time::Duration};

use super::changed_topics::TopicWatch;
use crate::event::Topic;

/// A future of the methods of [`OtherNodes`], boxed, so that the trait can be used as
/// `dyn OtherNodes`.
pub type OtherNodesFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The numbers of a topic's subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Those that name the topic.
    pub exact: usize,
    /// Those that have only patterns that match it.
    pub by_pattern: usize,
}

impl AddAssign for Readers {
    fn add_assign(&mut self, other: Self) {
        self.exact = self.exact.saturating_add(other.exact);
        self.by_pattern = self.by_pattern.saturating_add(other.by_pattern);
    }
}

/// The other nodes of a cluster, as a hub asks them for their readers. Answers come within
/// some 300 ms, or twice as much while many questions wait for their turn.
pub trait OtherNodes: Send + Sync {
    /// Answers the questions of the other nodes from now on.
    fn answer_for(&self, own: Weak<dyn OwnReaders>);

    /// Counts the subscribers of all other nodes to each of the topics, in their order. Nodes that
    /// do not answer in time count as if they had none.
    fn readers<'a>(&'a self, topics: &'a [Topic]) -> OtherNodesFuture<'a, Vec<Readers>>;

    /// Returns the time since a subscriber at another node has last named each of the topics, in
    /// their order, as [`OwnReaders::absences`] does. Returns `None` if not all nodes have
    /// answered: any topic may have a reader then.
    fn absences<'a>(
        &'a self,
        topics: &'a [Topic],
    ) -> OtherNodesFuture<'a, Option<Vec<Option<Duration>>>>;
}

/// The readers of a hub, for which other nodes ask.
pub trait OwnReaders: Send + Sync {
    /// Counts the subscribers to each of the topics, in their order.
    fn count(&self, topics: &[Topic]) -> Vec<Readers>;

    /// Returns the time since a subscriber has last named each of the topics, in their order; zero
    /// if one does now, and `None` if none has since the topic is watched. Watches the topics for
    /// some seconds, so that the next call knows of subscribers that have come and gone.
    fn absences(&self, topics: &[Topic]) -> Vec<Option<Duration>>;

    /// Returns `true` if somebody watches how the readers of topics change.
    fn are_viewed(&self) -> bool;

    /// Begins to watch the topics whose subscribers come or go.
    fn watch_changes(&self) -> TopicWatch;

    /// Notes that subscribers of other nodes to these topics have come or gone.
    fn note_changes(&self, topics: &[Topic]);

    /// Notes that subscribers of other nodes to any topic may have come or gone.
    fn note_any(&self);
}

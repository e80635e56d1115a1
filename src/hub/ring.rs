//! The ring of recent frames, which serves the subscribers that keep up. A deleted event leaves a
//! mark in its place, which sends the subscribers of its topic to the log.

use std::{collections::VecDeque, sync::Arc};

use super::frame::Frame;
use crate::event::Topic;

/// Maximum number of frames in the ring.
const MAX_COUNT: usize = 8192;
/// Maximum size of the ring in bytes, as the sum of [`Frame::size`].
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The newest frames of all topics, with consecutive sequence numbers.
#[derive(Debug)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    bytes: usize,
    /// The sequence number of the last slot, or of the log's newest event if the ring is empty.
    newest: u64,
}

/// A place in the ring.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    Frame(Arc<Frame>),
    /// The mark of a deleted event.
    Deleted {
        sequence: u64,
        deletion: Arc<Deletion>,
        /// The event, while the deletion is [`PENDING`](Deletion::PENDING).
        frame: Option<Arc<Frame>>,
    },
}

/// A deletion of the events of a topic.
#[derive(Debug)]
pub(super) struct Deletion {
    pub topic: Topic,
    /// Number of drops that the log had made by then, or [`PENDING`](Self::PENDING).
    pub drops: u64,
}

impl Deletion {
    /// The number of drops of a deletion that is still to come: each reader asks the log if it has
    /// happened.
    pub(super) const PENDING: u64 = u64::MAX;
}

impl Slot {
    pub(super) fn sequence(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.event().id.sequence,
            Self::Deleted { sequence, .. } => *sequence,
        }
    }

    pub(super) fn topic(&self) -> &Topic {
        match self {
            Self::Frame(frame) => &frame.event().topic,
            Self::Deleted { deletion, .. } => &deletion.topic,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.size(),
            Self::Deleted { frame, .. } => {
                size_of::<Self>() + frame.as_ref().map_or(0, |frame| frame.size())
            }
        }
    }
}

impl Ring {
    /// Creates an empty ring over a log whose newest sequence number is `newest`.
    pub(super) fn new(newest: u64) -> Self {
        Self { slots: VecDeque::new(), bytes: 0, newest }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn push(&mut self, frame: Arc<Frame>) {
        debug_assert_eq!(frame.event().id.sequence, self.newest + 1, "not consecutive");
        self.newest = frame.event().id.sequence;
        self.bytes += frame.size();
        self.slots.push_back(Slot::Frame(frame));
        while self.slots.len() > MAX_COUNT || self.bytes > MAX_BYTES {
            let Some(oldest) = self.slots.pop_front() else { break };
            self.bytes -= oldest.size();
        }
    }

    /// Puts marks in the places of the topic's events, and of pending marks. Its ends stay.
    pub(super) fn mark_deleted(&mut self, deletion: Deletion) {
        let deletion = Arc::new(deletion);
        for slot in &mut self.slots {
            let frame = match slot {
                Slot::Frame(frame) if !frame.event().name.is_topic_end() => Some(frame),
                Slot::Deleted { frame, .. } => frame.as_mut(),
                Slot::Frame(_) => None,
            };
            if let Some(frame) = frame
                && frame.event().topic == deletion.topic
            {
                let sequence = frame.event().id.sequence;
                let is_pending = deletion.drops == Deletion::PENDING;
                let frame = is_pending.then(|| Arc::clone(frame));
                let mark = Slot::Deleted { sequence, deletion: Arc::clone(&deletion), frame };
                self.bytes = self.bytes - slot.size() + mark.size();
                *slot = mark;
            }
        }
    }

    /// Removes the slots up to the last mark of a topic, whose events could not be deleted.
    pub(super) fn forget_marks(&mut self, topic: &Topic) {
        let is_mark = |slot: &Slot| matches!(slot, Slot::Deleted { deletion, .. } if deletion.topic == *topic);
        let last = self.slots.iter().rposition(is_mark);
        for slot in self.slots.drain(..last.map_or(0, |last| last + 1)) {
            self.bytes -= slot.size();
        }
    }

    /// Returns `true` if the ring has an event or an end of a topic after the sequence number
    /// `after`, deleted or not.
    pub(super) fn has_later(&self, topic: &Topic, after: u64) -> bool {
        let newer = self.slots.iter().rev().take_while(|slot| slot.sequence() > after);
        newer.map(Slot::topic).any(|other| other == topic)
    }

    /// Returns the slots after the sequence number `after`, oldest first, at most `count`. Returns
    /// `None` if the ring does not reach back that far.
    pub(super) fn after(&self, after: u64, count: usize) -> Option<Vec<Slot>> {
        let newer = usize::try_from(self.newest.saturating_sub(after)).ok()?;
        let from = self.slots.len().checked_sub(newer)?;
        Some(self.slots.range(from..).take(count).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Name},
        id::{Epoch, EventId},
        timestamp::Timestamp,
    };

    fn frame(sequence: u64, size: usize) -> Arc<Frame> {
        Arc::new(Frame::new(Event {
            id: EventId { epoch: Epoch::new(1), sequence },
            topic: Topic::clock(),
            name: Name::default(),
            data: "x".repeat(size),
            time: Timestamp::from_millis(0),
        }))
    }

    #[test]
    fn the_ring_has_the_newest_frames() {
        let mut ring = Ring::new(4);
        assert_eq!(sequences(&ring, 4, 9), Some(vec![]));
        for sequence in 5..=7 {
            ring.push(frame(sequence, 1));
        }
        assert_eq!(sequences(&ring, 3, 9), None);
        assert_eq!(sequences(&ring, 4, 9), Some(vec![5, 6, 7]));
        assert_eq!(sequences(&ring, 5, 1), Some(vec![6]));
        assert_eq!(sequences(&ring, 7, 9), Some(vec![]));
        assert_eq!(sequences(&ring, 8, 9), Some(vec![]));
    }

    fn sequences(ring: &Ring, after: u64, count: usize) -> Option<Vec<u64>> {
        Some(ring.after(after, count)?.iter().map(Slot::sequence).collect())
    }

    #[test]
    fn marks_of_deleted_events_take_their_places() {
        let mut ring = Ring::new(0);
        for (sequence, topic) in (1..).zip(["a", "b", "a", "b"]) {
            let Event { id, name, data, time, .. } = frame(sequence, 1000).event().clone();
            let topic = topic.parse().unwrap();
            ring.push(Arc::new(Frame::new(Event { id, topic, name, data, time })));
        }
        for drops in [Deletion::PENDING, 5, 6] {
            ring.mark_deleted(Deletion { topic: "a".parse().unwrap(), drops });
        }
        let slots = ring.after(0, 9).unwrap();
        let drops = |slot: &Slot| match slot {
            Slot::Frame(_) => None,
            Slot::Deleted { deletion, .. } => Some(deletion.drops),
        };
        assert_eq!(slots.iter().map(drops).collect::<Vec<_>>(), [Some(5), None, Some(5), None]);
        assert_eq!(slots.iter().map(Slot::sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(ring.bytes, slots.iter().map(Slot::size).sum::<usize>());
        for topic in ["b", "a"] {
            ring.forget_marks(&topic.parse().unwrap());
        }
        assert_eq!((sequences(&ring, 2, 9), sequences(&ring, 3, 9)), (None, Some(vec![4])));
        let has_later = |topic: &str, after| ring.has_later(&topic.parse().unwrap(), after);
        assert_eq!((has_later("b", 3), has_later("b", 4), has_later("a", 0)), (true, false, false));
    }

    #[test]
    fn the_ring_is_bounded_in_count_and_bytes() {
        let mut ring = Ring::new(0);
        for sequence in 1..=10_000 {
            ring.push(frame(sequence, 1));
        }
        assert_eq!(ring.slots.len(), MAX_COUNT);
        for sequence in 10_001..=10_100 {
            ring.push(frame(sequence, 1_000_000));
        }
        assert_eq!(ring.slots.len(), 8);
        assert_eq!(ring.bytes, ring.slots.iter().map(Slot::size).sum::<usize>());
        assert_eq!(sequences(&ring, 10_091, 1), None);
        assert_eq!(sequences(&ring, 10_092, 1), Some(vec![10_093]));
    }
}

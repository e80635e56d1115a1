//! The ring of recent frames, which serves the subscribers that keep up.

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
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// The sequence number of the last frame, or of the log's newest event if the ring is empty.
    newest: u64,
}

impl Ring {
    /// Creates an empty ring over a log whose newest sequence number is `newest`.
    pub(super) fn new(newest: u64) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, newest }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn push(&mut self, frame: Arc<Frame>) {
        debug_assert_eq!(frame.event().id.sequence, self.newest + 1, "not consecutive");
        self.newest = frame.event().id.sequence;
        self.bytes += frame.size();
        self.frames.push_back(frame);
        while self.frames.len() > MAX_COUNT || self.bytes > MAX_BYTES {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.size();
        }
    }

    /// Puts marks in the places of a topic's events, which are deleted. Its ends stay.
    pub(super) fn mark_deleted(&mut self, topic: &Topic) {
        for frame in &mut self.frames {
            let event = frame.event();
            if event.topic == *topic && !event.name.is_topic_end() && !frame.is_deleted() {
                let mark = Arc::new(Frame::deleted(event.id, topic.clone()));
                self.bytes = self.bytes - frame.size() + mark.size();
                *frame = mark;
            }
        }
    }

    /// Removes the frames up to the last mark of a topic, whose events could not be deleted.
    pub(super) fn forget_marks(&mut self, topic: &Topic) {
        let is_mark = |frame: &Arc<Frame>| frame.is_deleted() && frame.event().topic == *topic;
        let last = self.frames.iter().rposition(is_mark);
        for frame in self.frames.drain(..last.map_or(0, |last| last + 1)) {
            self.bytes -= frame.size();
        }
    }

    /// Returns `true` if the ring has an event or an end of a topic after the sequence number
    /// `after`.
    pub(super) fn has_later(&self, topic: &Topic, after: u64) -> bool {
        let newer = self.frames.iter().rev().map(|frame| frame.event());
        newer.take_while(|event| event.id.sequence > after).any(|event| event.topic == *topic)
    }

    /// Returns the frames after the sequence number `after`, oldest first, at most `count`. Returns
    /// `None` if the ring does not reach back that far.
    pub(super) fn after(&self, after: u64, count: usize) -> Option<Vec<Arc<Frame>>> {
        let newer = usize::try_from(self.newest.saturating_sub(after)).ok()?;
        let from = self.frames.len().checked_sub(newer)?;
        Some(self.frames.range(from..).take(count).cloned().collect())
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
        let frames = ring.after(after, count)?;
        Some(frames.iter().map(|frame| frame.event().id.sequence).collect())
    }

    #[test]
    fn marks_of_deleted_events_take_their_places() {
        let mut ring = Ring::new(0);
        for (sequence, topic) in (1..).zip(["a", "b", "a", "b"]) {
            let Event { id, name, data, time, .. } = frame(sequence, 1000).event().clone();
            let topic = topic.parse().unwrap();
            ring.push(Arc::new(Frame::new(Event { id, topic, name, data, time })));
        }
        ring.mark_deleted(&"a".parse().unwrap());
        let frames = ring.after(0, 9).unwrap();
        let marks: Vec<_> = frames.iter().map(|frame| frame.is_deleted()).collect();
        assert_eq!(marks, [true, false, true, false]);
        assert!(frames[0].event().data.is_empty(), "the data are gone");
        assert_eq!(ring.bytes, frames.iter().map(|frame| frame.size()).sum::<usize>());
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
        assert_eq!(ring.frames.len(), MAX_COUNT);
        for sequence in 10_001..=10_100 {
            ring.push(frame(sequence, 1_000_000));
        }
        assert_eq!(ring.frames.len(), 8);
        assert_eq!(ring.bytes, ring.frames.iter().map(|frame| frame.size()).sum::<usize>());
        assert_eq!(sequences(&ring, 10_091, 1), None);
        assert_eq!(sequences(&ring, 10_092, 1), Some(vec![10_093]));
    }
}

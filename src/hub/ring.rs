//! The ring of recent frames, from which subscribers that keep up read.

use std::{collections::VecDeque, sync::Arc};

use super::Frame;

/// How many frames the ring holds at most.
const MAX_COUNT: usize = 1024;
/// How many bytes the ring holds at most, counted as [`Frame::size`].
const MAX_BYTES: usize = 1024 * 1024;

/// The newest frames of the log, without holes.
#[derive(Debug)]
pub(super) struct Ring {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// The sequence number of the last frame; of the log's newest event while there is none.
    newest: u64,
}

impl Ring {
    /// An empty ring over a log whose newest event has that sequence number.
    pub(super) fn new(newest: u64) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, newest }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn extend(&mut self, frames: impl IntoIterator<Item = Arc<Frame>>) {
        for frame in frames {
            let sequence = frame.event().id.sequence;
            if sequence != self.newest + 1 {
                // A publish was abandoned between the log and the ring. The log has that event.
                self.frames.clear();
                self.bytes = 0;
            }
            self.newest = sequence;
            self.bytes += frame.size();
            self.frames.push_back(frame);
            while self.frames.len() > MAX_COUNT || self.bytes > MAX_BYTES {
                let Some(oldest) = self.frames.pop_front() else { break };
                self.bytes -= oldest.size();
            }
        }
    }

    /// The frames after that sequence number, as many as fit in `max_bytes` and at least one; none
    /// if the ring does not reach back that far.
    pub(super) fn after(&self, sequence: u64, max_bytes: usize) -> Option<Vec<Arc<Frame>>> {
        let behind = usize::try_from(self.newest.saturating_sub(sequence)).unwrap_or(usize::MAX);
        let skip = self.frames.len().checked_sub(behind)?;
        let mut bytes = 0;
        let fits = |frame: &&Arc<Frame>| {
            let is_first = bytes == 0;
            bytes += frame.size();
            is_first || bytes <= max_bytes
        };
        Some(self.frames.range(skip..).take_while(fits).cloned().collect())
    }

    /// The latest frames, at most `limit`, oldest first.
    pub(super) fn latest(&self, limit: usize) -> impl Iterator<Item = &Arc<Frame>> {
        self.frames.range(self.frames.len().saturating_sub(limit)..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Name, Topic},
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

    fn after(ring: &Ring, sequence: u64) -> Option<Vec<u64>> {
        let frames = ring.after(sequence, usize::MAX)?;
        Some(frames.iter().map(|frame| frame.event().id.sequence).collect())
    }

    #[test]
    fn reads_after_any_place_that_it_reaches_back_to() {
        let mut ring = Ring::new(4);
        assert_eq!(after(&ring, 4), Some(vec![]));
        assert_eq!(after(&ring, 3), None);
        ring.extend([frame(5, 1), frame(6, 1)]);
        assert_eq!(after(&ring, 3), None);
        assert_eq!(after(&ring, 4), Some(vec![5, 6]));
        assert_eq!(after(&ring, 5), Some(vec![6]));
        assert_eq!(after(&ring, 6), Some(vec![]));
        assert_eq!(after(&ring, 7), Some(vec![]));
    }

    #[test]
    fn is_bounded_in_count_and_bytes() {
        let mut ring = Ring::new(0);
        ring.extend((1..=2000).map(|sequence| frame(sequence, 1)));
        assert_eq!(ring.frames.len(), MAX_COUNT);
        ring.extend((2001..=2020).map(|sequence| frame(sequence, 100_000)));
        assert_eq!(ring.frames.len(), 10);
        assert_eq!(ring.bytes, ring.frames.iter().map(|frame| frame.size()).sum::<usize>());
        assert_eq!(after(&ring, 2009), None);
        assert_eq!(after(&ring, 2018), Some(vec![2019, 2020]));
    }

    #[test]
    fn takes_what_fits_and_at_least_one() {
        let mut ring = Ring::new(0);
        ring.extend((1..=5).map(|sequence| frame(sequence, 1000)));
        assert_eq!(ring.after(0, 10).unwrap().len(), 1);
        assert_eq!(ring.after(0, 3 * frame(1, 1000).size()).unwrap().len(), 3);
    }

    #[test]
    fn has_no_holes_after_a_publish_that_was_abandoned() {
        let mut ring = Ring::new(0);
        ring.extend([frame(1, 1), frame(3, 1)]);
        assert_eq!(after(&ring, 1), None);
        assert_eq!(after(&ring, 2), Some(vec![3]));
    }
}

//! A log in memory, which lives as long as the process.

use std::{
    collections::VecDeque,
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Bounds, Draft, Log, LogFuture, Read};
use crate::{
    event::Event,
    id::{Epoch, EventId},
};

/// A log that keeps the newest events, up to a number of them.
#[derive(Debug)]
pub struct MemoryLog {
    epoch: Epoch,
    retain_count: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Without holes: the first one's sequence number is `start + 1`.
    events: VecDeque<Event>,
    start: u64,
}

impl Kept {
    fn newest(&self) -> u64 {
        self.start + self.events.len() as u64
    }
}

impl MemoryLog {
    /// An empty log of that epoch that keeps at most `retain_count` events.
    pub fn new(epoch: Epoch, retain_count: usize) -> Self {
        Self { epoch, retain_count, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code panics half-way through a change of what the lock holds.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryLog {
    fn bounds(&self) -> Bounds {
        let kept = self.kept();
        Bounds { epoch: self.epoch, start: kept.start, newest: kept.newest() }
    }

    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Event>> {
        let mut kept = self.kept();
        let mut appended = Vec::with_capacity(drafts.len());
        for Draft { topic, name, data, time } in drafts {
            let id = EventId { epoch: self.epoch, sequence: kept.newest() + 1 };
            let event = Event { id, topic, name, data, time };
            kept.events.push_back(event.clone());
            appended.push(event);
        }
        let excess = kept.events.len().saturating_sub(self.retain_count);
        kept.events.drain(..excess);
        kept.start += excess as u64;
        Box::pin(ready(Ok(appended)))
    }

    fn read(&self, after: u64, limit: usize) -> LogFuture<'_, Read> {
        let kept = self.kept();
        let read = match after.checked_sub(kept.start) {
            None => Read::Expired { start: kept.start },
            Some(skip) => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                Read::Events(kept.events.iter().skip(skip).take(limit).cloned().collect())
            }
        };
        Box::pin(ready(Ok(read)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Name, Topic},
        timestamp::Timestamp,
    };

    const EPOCH: Epoch = Epoch::new(1);

    fn drafts(data: &[&str]) -> Vec<Draft> {
        let draft = |data: &&str| Draft {
            topic: Topic::clock(),
            name: Name::default(),
            data: (*data).to_owned(),
            time: Timestamp::from_millis(0),
        };
        data.iter().map(draft).collect()
    }

    async fn read(log: &MemoryLog, after: u64, limit: usize) -> Vec<(u64, String)> {
        match log.read(after, limit).await.unwrap() {
            Read::Events(events) => events.into_iter().map(|e| (e.id.sequence, e.data)).collect(),
            Read::Expired { start } => panic!("expired, starts after {start}"),
        }
    }

    #[tokio::test]
    async fn events_are_numbered_from_one_and_read_after_a_sequence_number() {
        let log = MemoryLog::new(EPOCH, 10);
        assert_eq!(log.bounds(), Bounds { epoch: EPOCH, start: 0, newest: 0 });
        let appended = log.append(drafts(&["a", "b"])).await.unwrap();
        assert_eq!(appended[1].id, EventId { epoch: EPOCH, sequence: 2 });
        log.append(drafts(&["c"])).await.unwrap();
        assert_eq!(read(&log, 0, 2).await, [(1, "a".to_owned()), (2, "b".to_owned())]);
        assert_eq!(read(&log, 2, 9).await, [(3, "c".to_owned())]);
        assert_eq!(read(&log, 3, 9).await, []);
        assert_eq!(read(&log, u64::MAX, 9).await, []);
    }

    #[tokio::test]
    async fn what_is_over_the_retention_is_dropped_and_its_numbers_are_never_used_again() {
        let log = MemoryLog::new(EPOCH, 2);
        log.append(drafts(&["a", "b", "c"])).await.unwrap();
        assert_eq!(log.bounds(), Bounds { epoch: EPOCH, start: 1, newest: 3 });
        assert_eq!(log.read(0, 9).await.unwrap(), Read::Expired { start: 1 });
        assert_eq!(read(&log, 1, 9).await.len(), 2);
        log.append(drafts(&["d", "e", "f", "g"])).await.unwrap();
        assert_eq!(log.bounds(), Bounds { epoch: EPOCH, start: 5, newest: 7 });
        assert_eq!(read(&log, 5, 9).await, [(6, "f".to_owned()), (7, "g".to_owned())]);
    }
}

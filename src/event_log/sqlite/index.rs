//! The summary of the database that the writer and the readers share.

use std::{collections::HashMap, sync::Arc};

use crate::{
    event::Topic,
    event_log::{ages::AgeMarks, times::TimeRuns, topics::Topics},
    id::{Epoch, EventId},
};

/// Summary of the database in memory. Only the writer changes it.
pub(super) struct Index {
    pub epoch: Epoch,
    /// The sequence number before that of the oldest event.
    pub start: u64,
    /// The sequence number of the newest durable event.
    pub newest: u64,
    /// Number of events of all topics.
    pub count: usize,
    /// Bookkeeping with the row id of each topic. Readers select topics without locking the index.
    pub topics: Arc<Topics<i64>>,
    pub ages: AgeMarks,
    pub times: TimeRuns,
    /// The newest event of each topic that is being dropped right now: a read may or may not find
    /// it.
    pub dropping: Arc<HashMap<Topic, u64>>,
}

impl Index {
    pub fn id(&self, sequence: u64) -> EventId {
        EventId { epoch: self.epoch, sequence }
    }
}

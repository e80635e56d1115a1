//! The event log: accepted events in sequence order, within [`Retention`].
//!
//! [`MemoryLog`] lives as long as the process. `SqliteLog` (feature `sqlite`) is durable.
//!
//! ```
//! use waterclock::{
//!     Draft, EventLog, MemoryLog, Retention, Timestamp,
//!     event_log::ReadLimit, id::Epoch,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let log = MemoryLog::new(Epoch::random(), Retention::default());
//! let draft = Draft::new("orders.eu".parse()?, "order 7");
//! let appended = log.append(vec![draft], Timestamp::now()).await?;
//! assert_eq!(appended[0].as_ref().map(|appended| appended.event.id.sequence), Ok(1));
//!
//! let limit = ReadLimit { count: 100, bytes: 1 << 20 };
//! let orders = "orders.>".parse::<waterclock::Pattern>()?.into();
//! let events = log.read(&orders, 0, limit).await?;
//! assert_eq!(events[0].data, "order 7");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod ages;

mod changed_topics;
mod drops;
#[cfg(feature = "sqlite")]
pub mod entry;
mod memory;
mod other_nodes;
mod retention;
mod shared_changes;
mod size;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod times;
mod topic_map;
mod topics;

#[cfg(test)]
mod conformance;

pub use changed_topics::{ChangedTopics, TopicWatch};
pub use drops::Dropped;
pub use memory::MemoryLog;
pub use other_nodes::{OtherNodes, OtherNodesFuture, OwnReaders, Readers};
#[cfg(test)]
pub(crate) use retention::random_rules;
pub use retention::{Retention, RetentionRule};
pub use shared_changes::{SharedChange, SharedChanges};
pub use size::{CommitObserver, DiskSize, LogSize};
#[cfg(feature = "sqlite")]
pub use sqlite::{
    CopyError, CopyProgress, ImportSource, LogCopy, OpenError, SettleError, SqliteLog, Unusable,
    back_up, restore, volume_bytes,
};
#[cfg(all(test, feature = "sqlite"))]
pub(crate) use sqlite::{dump, dump_content, folder, random_log, wait_in_place};
pub use store::{
    Appended, Bounds, Condition, EventLog, EventLogError, EventLogFuture, EventStamp, ReadLimit,
    Rejected, TopicFigures,
};

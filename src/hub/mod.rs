//! The hub: takes publishes, appends them to the log, wakes the subscribers.
//!
//! A subscriber sees an event only after the log has said that it is durable. It owns no queue, only
//! a cursor: it reads from a ring of recent frames while it keeps up and from the log when it is
//! behind, so a slow one delays nobody.
//!
//! ```
//! use std::sync::Arc;
//! use waterclock::{
//!     event::{Name, Topic},
//!     hub::{Hub, Step},
//!     id::{Cursor, Epoch},
//!     log::MemoryLog,
//!     timestamp::Timestamp,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let hub = Arc::new(Hub::new(MemoryLog::new(Epoch::random(), 100), Timestamp::now));
//! let mut subscriber = hub.subscribe(Cursor::Now);
//! hub.publish(Topic::clock(), Name::default(), "tick".to_owned()).await?;
//! let Step::Frames(frames) = subscriber.next().await? else { panic!("nothing is missing") };
//! assert_eq!(frames[0].event().data, "tick");
//! # Ok::<_, waterclock::log::LogError>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod frame;
mod ring;
mod subscriber;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::watch, time::Instant};

pub use frame::{Format, Frame};
pub use subscriber::{Step, Subscriber};

use crate::{
    event::{Event, Name, Topic},
    id::{Cursor, EventId},
    log::{Bounds, Draft, Log, LogError},
    notice::{Gap, GapReason},
    timestamp::Timestamp,
};
use ring::Ring;

/// Takes events, keeps them, and hands them to subscribers.
pub struct Hub {
    log: Box<dyn Log>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Held from the append until the ring has the event, so that both have one order.
    publishing: tokio::sync::Mutex<()>,
    ring: Mutex<Ring>,
    /// The log's newest sequence number when the hub was made.
    began_after: u64,
    /// The newest sequence number that subscribers may see.
    newest: watch::Sender<u64>,
}

/// The latest events, and the cursor to go on from without losing or repeating one.
#[derive(Clone, Debug)]
pub struct Latest {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The position after the last of them.
    pub cursor: EventId,
}

impl Hub {
    /// A hub over that log. `now` is what it takes for the time.
    pub fn new(log: impl Log, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let newest = log.bounds().newest;
        Self {
            log: Box::new(log),
            now: Box::new(now),
            publishing: tokio::sync::Mutex::default(),
            ring: Mutex::new(Ring::new(newest)),
            began_after: newest,
            newest: watch::Sender::new(newest),
        }
    }

    /// The time, as the hub takes it.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Appends an event to the log and, once it is durable, shows it to the subscribers.
    ///
    /// # Errors
    ///
    /// If the log could not keep it. Then nobody sees it.
    pub async fn publish(
        &self,
        topic: Topic,
        name: Name,
        data: String,
    ) -> Result<Arc<Frame>, LogError> {
        let begun = Instant::now();
        let _publishing = self.publishing.lock().await;
        let draft = Draft { topic, name, data, time: self.now() };
        let events = self.log.append(vec![draft]).await?;
        let frame = |event| Arc::new(Frame::just_published(event, begun));
        let frames: Vec<_> = events.into_iter().map(frame).collect();
        let frame = frames
            .last()
            .cloned()
            .ok_or_else(|| LogError::new("it took an event and gave none back"))?;
        self.ring().extend(frames);
        self.newest.send_replace(frame.event().id.sequence);
        Ok(frame)
    }

    /// A reader that goes on at `cursor`.
    pub fn subscribe(self: &Arc<Self>, cursor: Cursor) -> Subscriber {
        let Bounds { epoch, start, newest } = self.log.bounds();
        let (position, reason) = match &cursor {
            Cursor::Now => (newest, None),
            Cursor::Earliest => (start, None),
            Cursor::After(id) if id.epoch != epoch => (start, Some(GapReason::OtherEpoch)),
            Cursor::After(id) if id.sequence > newest => (newest, Some(GapReason::Future)),
            Cursor::After(id) if id.sequence < start => (start, Some(GapReason::Expired)),
            Cursor::After(id) => (id.sequence, None),
            Cursor::Malformed(_) => (newest, Some(GapReason::Malformed)),
        };
        let asked = match cursor {
            Cursor::After(id) => id.to_string(),
            Cursor::Malformed(text) => text,
            Cursor::Now | Cursor::Earliest => String::new(),
        };
        let gap = reason.map(|reason| Gap { reason, cursor: asked });
        Subscriber::new(Arc::clone(self), EventId { epoch, sequence: position }, gap)
    }

    /// The oldest and the newest event kept, if there are any.
    pub fn kept(&self) -> Option<(EventId, EventId)> {
        let Bounds { epoch, start, newest } = self.log.bounds();
        let id = |sequence| EventId { epoch, sequence };
        (start < newest).then(|| (id(start + 1), id(newest)))
    }

    /// The newest sequence number; it counts the whole log.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// How many events were published since the hub was made.
    pub fn published(&self) -> u64 {
        self.newest() - self.began_after
    }

    /// The latest events, at most `limit`, of those that are at hand.
    pub fn latest(&self, limit: usize) -> Latest {
        let epoch = self.log.bounds().epoch;
        let ring = self.ring();
        let events = ring.latest(limit).map(|frame| frame.event().clone()).collect();
        Latest { events, cursor: EventId { epoch, sequence: ring.newest() } }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // No code panics half-way through a change of what the lock holds.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

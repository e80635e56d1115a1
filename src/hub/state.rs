//! The state of a hub, and the task that appends queued drafts and shows the events.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    channel::{Channel, Channels},
    frame::Frame,
    publish::{PublishError, QUEUE_CAPACITY, QueuedDraft, WaitingPublisher},
    ring::Ring,
};
use crate::{
    event::Topic,
    event_log::{Appended, EventLog, Rejected},
    timestamp::Timestamp,
};

/// The state that the writer and the subscribers share.
pub(super) struct HubState {
    pub log: Box<dyn EventLog>,
    pub now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    pub fanout: Mutex<Fanout>,
    /// The newest sequence number of which all channels have been notified.
    pub shown: AtomicU64,
    /// The log's newest sequence number when the hub was created.
    pub initial: u64,
}

/// Recent events, and the channels that new events go to.
pub(super) struct Fanout {
    pub ring: Ring,
    pub channels: Channels,
}

impl HubState {
    /// Appends the queued drafts, all that are waiting at a time, until the hub is dropped.
    pub async fn write(self: Arc<Self>, mut queue: mpsc::Receiver<QueuedDraft>) {
        let mut queued = Vec::new();
        while queue.recv_many(&mut queued, QUEUE_CAPACITY).await > 0 {
            let time = (self.now)();
            let mut drafts = Vec::with_capacity(queued.len());
            let mut publishers = Vec::with_capacity(queued.len());
            for QueuedDraft { draft, publisher } in queued.drain(..) {
                drafts.push(draft);
                publishers.push(publisher);
            }
            match self.log.append(drafts, time).await {
                Ok(appended) => self.deliver(appended, publishers),
                Err(error) => {
                    for publisher in publishers {
                        // The publisher may have stopped waiting.
                        let _ = publisher.result.send(Err(error.clone().into()));
                    }
                }
            }
        }
    }

    /// Shows appended events to the subscribers, then to their publishers.
    fn deliver(
        &self,
        appended: Vec<Result<Appended, Rejected>>,
        publishers: Vec<WaitingPublisher>,
    ) {
        let mut new = Vec::with_capacity(appended.len());
        let mut results = Vec::with_capacity(appended.len());
        for (appended, publisher) in appended.into_iter().zip(publishers) {
            let frame = appended.map(|Appended { event, is_duplicate }| {
                if is_duplicate {
                    return Arc::new(Frame::new(event));
                }
                let frame = Arc::new(Frame::just_published(event, publisher.since));
                new.push(Arc::clone(&frame));
                frame
            });
            results.push((publisher.result, frame));
        }
        self.show(&new);
        for (result, frame) in results {
            // The publisher may have stopped waiting.
            let _ = result.send(frame.map_err(PublishError::from));
        }
    }

    /// Shows events to the subscribers of their topics.
    fn show(&self, frames: &[Arc<Frame>]) {
        let Some(newest) = frames.last().map(|last| last.event().id.sequence) else { return };
        let mut by_channel: HashMap<*const Channel, (Arc<Channel>, Vec<Arc<Frame>>)> =
            HashMap::new();
        {
            let mut by_topic: HashMap<&Topic, Vec<Arc<Channel>>> = HashMap::new();
            let Fanout { ring, channels } = &mut *self.fanout.lock();
            for frame in frames {
                let topic = &frame.event().topic;
                for channel in by_topic.entry(topic).or_insert_with(|| channels.of(topic)) {
                    let entry = by_channel.entry(Arc::as_ptr(channel));
                    let (_, frames) = entry.or_insert_with(|| (Arc::clone(channel), Vec::new()));
                    frames.push(Arc::clone(frame));
                }
                ring.push(Arc::clone(frame));
            }
        }
        for (channel, frames) in by_channel.into_values() {
            channel.show(frames);
        }
        self.shown.store(newest, Ordering::Release);
    }
}

//! Uploads that are to end their topic: as done when they are complete, and as failed if they break
//! off and no other one continues within a grace time.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::Instrument as _;
use waterclock::{
    event::Topic,
    event_log::Rejected,
    hub::{Hub, PublishError},
    notice::TopicEnd,
};

use crate::{limits::MAX_END_MESSAGE, stop::Stop};

/// Maximum number of topics with such uploads. Beyond it, further ones are refused.
const MAX_TOPICS: usize = 10_000;
/// The reason of a failed end if the client has vanished.
const BROKE_OFF: &str = "The upload broke off.";

/// The uploads that are to end their topic, by topic. Clones share one registry.
#[derive(Clone, Default)]
pub(crate) struct EndingUploads(Arc<Mutex<Uploads>>);

#[derive(Default)]
struct Uploads {
    of_topic: HashMap<Topic, OfTopic>,
    /// Number of uploads so far.
    begun: u64,
}

/// The uploads of a topic.
#[derive(Default)]
struct OfTopic {
    /// Number of open ones.
    open: usize,
    /// Number of the newest one.
    newest: u64,
}

/// An upload that is to end its topic. Dropped before it is settled, it has broken off.
pub(crate) struct EndingUpload {
    uploads: EndingUploads,
    hub: Arc<Hub>,
    stop: Stop,
    grace: Duration,
    topic: Topic,
    reason: String,
    is_settled: bool,
}

impl EndingUploads {
    /// Registers an upload. It continues those of its topic that have broken off. Returns `None` if
    /// there are too many topics.
    pub(crate) fn begin(
        &self,
        hub: &Arc<Hub>,
        stop: &Stop,
        grace: Duration,
        topic: Topic,
    ) -> Option<EndingUpload> {
        {
            let Uploads { of_topic, begun } = &mut *self.0.lock();
            if of_topic.len() >= MAX_TOPICS && !of_topic.contains_key(&topic) {
                return None;
            }
            *begun += 1;
            let of_topic = of_topic.entry(topic.clone()).or_default();
            of_topic.open += 1;
            of_topic.newest = *begun;
        }
        Some(EndingUpload {
            uploads: self.clone(),
            hub: Arc::clone(hub),
            stop: stop.clone(),
            grace,
            topic,
            reason: BROKE_OFF.to_owned(),
            is_settled: false,
        })
    }

    /// Removes an open upload. Returns the number of the topic's newest one if none is open now.
    fn close(&self, topic: &Topic) -> Option<u64> {
        let of_topic = &mut self.0.lock().of_topic;
        let uploads = of_topic.get_mut(topic)?;
        uploads.open = uploads.open.saturating_sub(1);
        (uploads.open == 0).then_some(uploads.newest)
    }

    /// Removes the topic if its newest upload is still `newest`, and that is not open. Returns
    /// `true` if it was removed.
    fn forget(&self, topic: &Topic, newest: u64) -> bool {
        let of_topic = &mut self.0.lock().of_topic;
        let is_over = of_topic.get(topic).is_some_and(|t| t.open == 0 && t.newest == newest);
        is_over && of_topic.remove(topic).is_some()
    }
}

impl EndingUpload {
    /// Notes that the upload has not broken off: it has ended its topic, or must not.
    pub(crate) fn settle(mut self) {
        self.is_settled = true;
    }

    /// Ends the topic as failed after the grace time, for this reason, of which a long end is cut
    /// off: it may quote what the client sent.
    pub(crate) fn break_off(mut self, mut reason: String) {
        while reason.len() > MAX_END_MESSAGE {
            reason.pop();
        }
        self.reason = reason;
    }
}

impl Drop for EndingUpload {
    fn drop(&mut self) {
        let newest = self.uploads.close(&self.topic);
        let (uploads, topic, stop) = (self.uploads.clone(), self.topic.clone(), self.stop.clone());
        if self.is_settled || stop.has_begun() {
            if let Some(newest) = newest {
                uploads.forget(&topic, newest);
            }
            return;
        }
        // Another one is open, and decides.
        let Some(newest) = newest else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let (hub, grace) = (Arc::clone(&self.hub), self.grace);
        let reason = std::mem::take(&mut self.reason);
        let fail = async move {
            tokio::select! {
                () = tokio::time::sleep(grace) => {}
                // A publisher cannot continue on a server that stops, so it is not judged by that.
                _ = stop.begun() => return,
            }
            if !uploads.forget(&topic, newest) {
                return;
            }
            let end = TopicEnd::failed(topic, reason).draft();
            match hub.publish(end).await {
                Ok(_) | Err(PublishError::Rejected(Rejected::Ended)) => {}
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "the topic of a broken upload could not be ended");
                }
            }
        };
        runtime.spawn(fail.in_current_span());
    }
}

//! Uploads that are to end their topic: as done when they are complete, and as failed if they break
//! off and no other one continues within a grace time.
//!
//! An upload fails no topic that has ended since the last of its parts, even if it was reopened:
//! whoever ended it has decided. The event log itself checks that, unless it has forgotten the
//! topic in the meantime, and with it the end. Parts that were in flight when the client vanished
//! do not count, so an upload may spare a topic that they went to after it was reopened.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::Instrument as _;
use waterclock::{
    event::{Draft, Topic},
    event_log::{EventLogError, Rejected},
    hub::{Hub, PublishError},
    notice::TopicEnd,
};

use crate::{limits::MAX_END_MESSAGE, stop::Stop};

/// Maximum number of topics with such uploads. Beyond it, a further one takes the place of one that
/// has broken off, if that is [dispensable](OfTopic::is_dispensable), and is refused otherwise.
const MAX_TOPICS: usize = 10_000;
/// The reason of a failed end if the client has vanished.
const BROKE_OFF: &str = "The upload broke off.";
/// Time after which an end that could not be stored is published again. It doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest time between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(30);

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
    /// The sequence number of the newest event that they know of: one of their own, or the newest
    /// of all when the last of them began. `None` if the topic had ended by then, and they do not
    /// open it: they fail nothing, also if somebody else opens it.
    known: Option<u64>,
    /// `true` if one of them has published a part.
    has_parts: bool,
    /// `true` if the last of them has broken off, and the end could not be stored so far.
    has_failed: bool,
}

impl OfTopic {
    /// Returns `true` if they must not keep out an upload that is there: all have broken off, and
    /// either they have published nothing, or the end could not be stored.
    fn is_dispensable(&self) -> bool {
        self.open == 0 && (self.has_failed || !self.has_parts)
    }
}

/// An upload that is to end its topic. Dropped before it is settled, it has broken off.
pub(crate) struct EndingUpload {
    uploads: EndingUploads,
    hub: Arc<Hub>,
    stop: Stop,
    grace: Duration,
    topic: Topic,
    /// The sequence number of its newest event.
    stored: Option<u64>,
    reason: String,
    is_settled: bool,
}

/// The last upload of a topic, which is not open any more.
struct LastUpload {
    /// Its number.
    newest: u64,
    /// As of all uploads of the topic.
    known: Option<u64>,
    has_parts: bool,
}

/// The end of a topic whose last upload has broken off.
struct PendingFailure {
    uploads: EndingUploads,
    hub: Arc<Hub>,
    topic: Topic,
    /// Number of that upload.
    newest: u64,
    /// `true` if the topic's uploads have published a part.
    has_parts: bool,
    end: Draft,
}

impl Uploads {
    /// Makes room for a topic. Returns `false` if there is none.
    fn make_room(&mut self, topic: &Topic) -> bool {
        if self.of_topic.len() < MAX_TOPICS || self.of_topic.contains_key(topic) {
            return true;
        }
        let dispensable = self.of_topic.iter().filter(|(_, uploads)| uploads.is_dispensable());
        let oldest = dispensable.min_by_key(|(_, uploads)| uploads.newest);
        let Some(oldest) = oldest.map(|(topic, _)| topic.clone()) else { return false };
        self.of_topic.remove(&oldest);
        let topic = oldest.as_str();
        tracing::warn!(topic, "too many uploads broke off, so the topic of this one is not ended");
        true
    }

    /// Returns the uploads of a topic if the newest one is still `newest`, and none is open.
    fn closed(&mut self, topic: &Topic, newest: u64) -> Option<&mut OfTopic> {
        let uploads = self.of_topic.get_mut(topic)?;
        (uploads.open == 0 && uploads.newest == newest).then_some(uploads)
    }
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
        reopens: bool,
    ) -> Option<EndingUpload> {
        let newest = hub.newest();
        let known = (reopens || !hub.has_ended(&topic)).then_some(newest);
        {
            let mut uploads = self.0.lock();
            if !uploads.make_room(&topic) {
                return None;
            }
            let Uploads { of_topic, begun } = &mut *uploads;
            *begun += 1;
            let of_topic = of_topic.entry(topic.clone()).or_default();
            of_topic.open += 1;
            of_topic.newest = *begun;
            // Two uploads may get here in another order than they asked the hub.
            of_topic.known = of_topic.known.max(known);
            of_topic.has_failed = false;
        }
        Some(EndingUpload {
            uploads: self.clone(),
            hub: Arc::clone(hub),
            stop: stop.clone(),
            grace,
            topic,
            stored: None,
            reason: BROKE_OFF.to_owned(),
            is_settled: false,
        })
    }

    /// Removes an open upload, whose newest event has the sequence number `stored`. Returns the
    /// topic's newest upload, if none is open now.
    fn close(&self, topic: &Topic, stored: Option<u64>) -> Option<LastUpload> {
        let of_topic = &mut self.0.lock().of_topic;
        let uploads = of_topic.get_mut(topic)?;
        uploads.open = uploads.open.saturating_sub(1);
        uploads.known = uploads.known.max(stored);
        uploads.has_parts |= stored.is_some();
        let &mut OfTopic { open, newest, known, has_parts, .. } = uploads;
        (open == 0).then_some(LastUpload { newest, known, has_parts })
    }

    /// Returns `true` if the topic's newest upload is still `newest`, and that is not open.
    fn is_last(&self, topic: &Topic, newest: u64) -> bool {
        self.0.lock().closed(topic, newest).is_some()
    }

    /// Notes that the end of the topic could not be stored.
    fn note_failed(&self, topic: &Topic, newest: u64) {
        if let Some(uploads) = self.0.lock().closed(topic, newest) {
            uploads.has_failed = true;
        }
    }

    /// Removes the topic if its newest upload is still `newest`, and that is not open.
    fn forget(&self, topic: &Topic, newest: u64) {
        let mut uploads = self.0.lock();
        if uploads.closed(topic, newest).is_some() {
            uploads.of_topic.remove(topic);
        }
    }
}

impl EndingUpload {
    /// Notes that the upload has not broken off: it has ended its topic, or must not.
    pub(crate) fn settle(mut self) {
        self.is_settled = true;
    }

    /// Notes that an event of the upload was stored, with this sequence number.
    pub(crate) fn note_stored(&mut self, sequence: u64) {
        self.stored = self.stored.max(Some(sequence));
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
        // Another one is open, and decides.
        let Some(last) = self.uploads.close(&self.topic, self.stored) else { return };
        let LastUpload { newest, known, has_parts } = last;
        let (uploads, hub) = (self.uploads.clone(), Arc::clone(&self.hub));
        if self.is_settled || known.is_none() || self.stop.has_begun() {
            return uploads.forget(&self.topic, newest);
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let reason = std::mem::take(&mut self.reason);
        let end = TopicEnd::failed(self.topic.clone(), reason).draft();
        let end = Draft { unless_ended_after: known, ..end };
        let topic = self.topic.clone();
        let failure = PendingFailure { uploads, hub, topic, newest, has_parts, end };
        let (stop, grace) = (self.stop.clone(), self.grace);
        let publish = async move {
            tokio::select! {
                () = failure.publish(grace) => {}
                // A publisher cannot continue on a server that stops, so it is not judged by that.
                _ = stop.begun() => {}
            }
        };
        runtime.spawn(publish.in_current_span());
    }
}

impl PendingFailure {
    /// Publishes the end after the grace time, unless another upload continues. Tries again until
    /// the log stores or rejects it.
    async fn publish(self, grace: Duration) {
        let (mut wait, mut retry) = (grace, FIRST_RETRY);
        loop {
            tokio::time::sleep(wait).await;
            if !self.uploads.is_last(&self.topic, self.newest) {
                return;
            }
            match self.hub.publish(self.end.clone()).await {
                Ok(_)
                | Err(
                    PublishError::Rejected(Rejected::Ended)
                    | PublishError::EventLog(EventLogError::Stopped),
                ) => {
                    return self.uploads.forget(&self.topic, self.newest);
                }
                // The topic is not there, and nothing of it ever was.
                Err(PublishError::Rejected(Rejected::TooManyTopics)) if !self.has_parts => {
                    return self.uploads.forget(&self.topic, self.newest);
                }
                Err(error) if retry == FIRST_RETRY => {
                    self.uploads.note_failed(&self.topic, self.newest);
                    let (topic, error) = (self.topic.as_str(), &error as &dyn Error);
                    tracing::warn!(
                        topic,
                        error,
                        "the topic of a broken upload could not be ended yet"
                    );
                }
                Err(_) => {}
            }
            wait = retry;
            retry = (retry * 2).min(MAX_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use waterclock::{
        event_log::{MemoryLog, Retention},
        hub::{Delivery, Subscriber},
        id::{Cursor, Epoch},
        timestamp::Timestamp,
    };

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    struct Fixture {
        hub: Arc<Hub>,
        stop: Stop,
        uploads: EndingUploads,
        reader: Subscriber,
    }

    impl Fixture {
        fn new() -> Self {
            Self::with_topics(100)
        }

        fn with_topics(topics: usize) -> Self {
            let retention = Retention { topics, ..Retention::default() };
            let log = MemoryLog::new(Epoch::new(1), retention);
            let hub = Arc::new(Hub::new(log, || Timestamp::from_millis(0)));
            let reader = hub.subscribe(topic().into(), Cursor::Now);
            Self { hub, stop: Stop::default(), uploads: EndingUploads::default(), reader }
        }

        /// Begins an upload to the topic.
        fn begin(&self) -> EndingUpload {
            let begun = self.uploads.begin(&self.hub, &self.stop, GRACE, topic(), false);
            begun.expect("room")
        }

        async fn publish(&self, draft: Draft) -> u64 {
            self.hub.publish(draft).await.unwrap().event().id.sequence
        }

        /// Breaks off an upload whose topic was forgotten after its first part. Returns the topic
        /// that has taken its place.
        async fn forgotten(&mut self) -> Topic {
            let mut upload = self.begin();
            upload.note_stored(self.publish(event("part")).await);
            assert_eq!(self.read().await, ["part"]);
            self.hub.delete(topic()).await.unwrap();
            let other: Topic = "other".parse().unwrap();
            self.publish(Draft::new(other.clone(), "x")).await;
            other
        }

        /// Returns the data of the events of the topic, and the messages of its ends, so far.
        async fn read(&mut self) -> Vec<String> {
            let mut read = Vec::new();
            while let Some(delivery) = self.reader.try_next().await.unwrap() {
                match delivery {
                    Delivery::Events(batch) => {
                        read.extend(batch.iter().map(|frame| frame.event().data.clone()));
                    }
                    Delivery::End { end, .. } => {
                        read.push(format!("end {}", end.message.unwrap_or_default()));
                    }
                    Delivery::Gap(gap) => panic!("{gap:?}"),
                }
            }
            read
        }

        fn is_forgotten(&self) -> bool {
            self.uploads.0.lock().of_topic.is_empty()
        }
    }

    fn topic() -> Topic {
        "t".parse().unwrap()
    }

    fn event(data: &str) -> Draft {
        Draft::new(topic(), data)
    }

    fn done() -> Draft {
        TopicEnd::done(topic()).draft()
    }

    /// Waits without letting the whole grace time pass.
    async fn wait_for_half() {
        tokio::time::sleep(GRACE / 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_breaks_off_fails_its_topic_once_the_grace_time_is_over() {
        let mut fixture = Fixture::new();
        drop(fixture.begin());
        wait_for_half().await;
        assert!(fixture.read().await.is_empty());
        tokio::time::sleep(GRACE).await;
        assert_eq!(fixture.read().await, ["end The upload broke off."]);
        assert!(fixture.is_forgotten());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_continues_within_the_grace_time_fails_no_topic() {
        let mut fixture = Fixture::new();
        drop(fixture.begin());
        wait_for_half().await;
        let second = fixture.begin();
        tokio::time::sleep(3 * GRACE).await;
        assert!(fixture.read().await.is_empty(), "it is still open");
        drop(second);
        wait_for_half().await;
        let third = fixture.begin();
        wait_for_half().await;
        third.settle();
        tokio::time::sleep(3 * GRACE).await;
        assert!(fixture.read().await.is_empty(), "the last one has not broken off");
        assert!(fixture.is_forgotten());
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_was_ended_and_reopened_meanwhile_is_not_failed() {
        // The upload has broken off before the topic ends, or breaks off after it was reopened.
        for is_broken_before in [true, false] {
            let mut fixture = Fixture::new();
            fixture.publish(event("1")).await;
            let mut upload = Some(fixture.begin());
            if is_broken_before {
                upload = None;
                wait_for_half().await;
            }
            fixture.publish(done()).await;
            fixture.publish(event("2").reopening()).await;
            drop(upload);
            tokio::time::sleep(3 * GRACE).await;
            fixture.publish(event("3")).await;
            assert_eq!(fixture.read().await, ["1", "2", "3"], "{is_broken_before}");
            assert!(fixture.is_forgotten());
        }
        // It began while the topic had ended.
        let mut fixture = Fixture::new();
        fixture.publish(done()).await;
        drop(fixture.begin());
        wait_for_half().await;
        fixture.publish(event("1").reopening()).await;
        tokio::time::sleep(3 * GRACE).await;
        assert_eq!(fixture.read().await, ["1"]);
        assert!(fixture.is_forgotten());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_went_on_after_the_topic_was_reopened_fails_it() {
        let mut fixture = Fixture::new();
        let mut upload = fixture.begin();
        fixture.publish(done()).await;
        fixture.publish(event("1").reopening()).await;
        upload.note_stored(fixture.publish(event("2")).await);
        upload.break_off("why".to_owned());
        tokio::time::sleep(3 * GRACE).await;
        assert_eq!(fixture.read().await, ["1", "2", "end why"]);
        // An upload that began after the topic was reopened.
        fixture.publish(event("3").reopening()).await;
        drop(fixture.begin());
        tokio::time::sleep(3 * GRACE).await;
        assert_eq!(fixture.read().await, ["3", "end The upload broke off."]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_cannot_be_stored_is_tried_again_until_it_is() {
        let mut fixture = Fixture::with_topics(1);
        let other = fixture.forgotten().await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let failed = fixture.hub.failed_publishes().map(|(_, count)| count).sum::<u64>();
        assert!((60..=130).contains(&failed), "{failed} attempts in an hour");
        assert!(fixture.read().await.is_empty());
        fixture.hub.delete(other).await.unwrap();
        tokio::time::sleep(2 * MAX_RETRY).await;
        assert_eq!(fixture.read().await, ["end The upload broke off."]);
        assert!(fixture.is_forgotten());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_could_not_make_its_topic_ends_nothing_later() {
        let mut fixture = Fixture::with_topics(1);
        let other: Topic = "other".parse().unwrap();
        fixture.publish(Draft::new(other.clone(), "x")).await;
        drop(fixture.begin());
        tokio::time::sleep(2 * GRACE).await;
        assert!(fixture.is_forgotten());
        fixture.hub.delete(other).await.unwrap();
        tokio::time::sleep(2 * MAX_RETRY).await;
        assert!(fixture.read().await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn broken_uploads_that_are_dispensable_keep_no_other_one_out() {
        let mut fixture = Fixture::with_topics(1);
        fixture.forgotten().await;
        let begin = |number: usize| {
            let topic = format!("other.{number}").parse().unwrap();
            fixture.uploads.begin(&fixture.hub, &fixture.stop, GRACE, topic, false)
        };
        // Together with the broken one.
        let mut open: Vec<_> = (1..MAX_TOPICS).map(|number| begin(number).unwrap()).collect();
        assert!(begin(0).is_none(), "it may still continue");
        tokio::time::sleep(2 * GRACE).await;
        open.push(begin(0).expect("the place of one whose end could not be stored"));
        assert!(begin(MAX_TOPICS).is_none(), "all are open");
        open.pop();
        open.push(begin(MAX_TOPICS).expect("the place of one that has published nothing"));
        assert_eq!(fixture.uploads.0.lock().of_topic.len(), MAX_TOPICS);
        fixture.stop.begin();
        drop(open);
        assert!(fixture.is_forgotten());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_continues_ends_the_attempts_to_fail_its_topic() {
        let mut fixture = Fixture::with_topics(1);
        let other = fixture.forgotten().await;
        tokio::time::sleep(10 * GRACE).await;
        let _upload = fixture.begin();
        fixture.hub.delete(other).await.unwrap();
        tokio::time::sleep(2 * MAX_RETRY).await;
        assert!(fixture.read().await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stops_within_the_grace_time_fails_no_topic() {
        let mut fixture = Fixture::new();
        drop(fixture.begin());
        wait_for_half().await;
        fixture.stop.begin();
        drop(fixture.begin());
        tokio::time::sleep(3 * GRACE).await;
        assert!(fixture.read().await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_reason_of_a_failed_end_is_bounded_in_whole_characters() {
        for (reason, expected) in [
            ("x".repeat(MAX_END_MESSAGE), MAX_END_MESSAGE),
            ("x".repeat(10 * MAX_END_MESSAGE), MAX_END_MESSAGE),
            ("\u{20ac}".repeat(MAX_END_MESSAGE), MAX_END_MESSAGE / 3 * 3),
        ] {
            let mut fixture = Fixture::new();
            fixture.begin().break_off(reason.clone());
            tokio::time::sleep(2 * GRACE).await;
            assert_eq!(fixture.read().await, [format!("end {}", &reason[..expected])]);
        }
    }
}

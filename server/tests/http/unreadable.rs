//! The page of topics over an event log whose figures cannot be read.

use waterclock::{
    event::{Draft, Event, Topic},
    event_log::{
        Appended, Bounds, Dropped, EventLog, EventLogError, EventLogFuture, MemoryLog, ReadLimit,
        Rejected, Retention, TopicFigures,
    },
    id::Epoch,
    pattern::Patterns,
    timestamp::Timestamp,
};

use crate::support::{Server, Settings};

/// A log in memory without figures.
struct UnreadableLog(MemoryLog);

impl EventLog for UnreadableLog {
    fn bounds(&self) -> Bounds {
        self.0.bounds()
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        self.0.dropped_after(topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        self.0.ends(topics, after, up_to)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        self.0.append(drafts, time)
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.0.read(topics, after, limit)
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        self.0.before(time)
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.0.newest_of_each(topics, after, limit)
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.0.read_before(topics, before, limit)
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.0.topics(topics, after, limit)
    }

    fn figures<'a>(&'a self, _: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        Box::pin(async { Err(EventLogError::new("the disk is gone")) })
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        self.0.delete(topic)
    }
}

#[tokio::test]
async fn topics_that_cannot_be_read_are_neither_refused_nor_missing() {
    let log = UnreadableLog(MemoryLog::new(Epoch::new(1), Retention::default()));
    let server = Server::start_over(log, Settings::default()).await;
    server.publish_to("orders.eu", "x").await;
    let response = server.request("GET", "/topics", &[("Accept", b"text/html")]).await;
    assert_eq!(response.status(), 200);
    let html = response.rest().await;
    assert!(html.contains("The topics could not be read."), "{html}");
    assert!(html.contains(r#""refusal":null,"has_failed":true"#), "the view opens: {html}");
    assert_eq!(html.matches(r#" hidden class="empty""#).count(), 2, "{html}");
    assert!(!html.contains(r#"data-state="refused""#), "{html}");
}

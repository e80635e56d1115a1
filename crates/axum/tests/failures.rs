//! The routes over an event log that fails.
#![expect(clippy::unwrap_used, reason = "an error fails a test")]

use std::{sync::Arc, time::Duration};

use axum::http::request::Parts;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use waterclock::{
    event::{Draft, Event, Topic},
    event_log::{
        Appended, Bounds, Dropped, EventLog, EventLogError, EventLogFuture, MemoryLog, ReadLimit,
        Rejected, Retention, TopicFigures,
    },
    hub::Hub,
    id::Epoch,
    pattern::Patterns,
    timestamp::Timestamp,
};
use waterclock_axum::{Denied, EventRoutes, Expiry, Policy, Publisher};

struct Anyone;

impl Policy for Anyone {
    fn may_read(&self, _: &Parts, _: &Patterns) -> Result<Expiry, Denied> {
        Ok(None)
    }

    fn may_publish(&self, _: &Parts, _: &Topic) -> Result<Publisher, Denied> {
        Ok(Publisher { is_rate_limited: false, ..Publisher::new("anyone") })
    }
}

/// A limit that no test reaches.
const ALL: ReadLimit = ReadLimit { count: 10_000, bytes: usize::MAX };

/// The data of an event that fails, with all that are appended with it.
const BAD: &str = "bad";

/// A log in memory that fails for some events.
struct FailingLog {
    log: MemoryLog,
    error: fn() -> EventLogError,
}

impl EventLog for FailingLog {
    fn bounds(&self) -> Bounds {
        self.log.bounds()
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        self.log.dropped_after(topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        self.log.ends(topics, after, up_to)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        Box::pin(async move {
            // More lines arrive in the meantime.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            if drafts.iter().any(|draft| draft.data == BAD) {
                return Err((self.error)());
            }
            self.log.append(drafts, time).await
        })
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.log.read(topics, after, limit)
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        self.log.before(time)
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.log.newest_of_each(topics, after, limit)
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.log.topics(topics, after, limit)
    }

    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        self.log.figures(topics)
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        self.log.delete(topic)
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.log.read_before(topics, before, limit)
    }
}

/// Publishes lines to a log that fails with `error`. Returns the status, the problem, and the data
/// of the events in the log.
async fn publish_lines(error: fn() -> EventLogError, lines: &[&str]) -> (u16, Value, Vec<String>) {
    let log = MemoryLog::new(Epoch::new(1), Retention::default());
    let hub = Arc::new(Hub::new(FailingLog { log, error }, Timestamp::now));
    let app = EventRoutes::new(Arc::clone(&hub)).with_policy(Anyone).router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events/t?split=lines", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build();
    let response = client.unwrap().post(url).body(lines.join("\n")).send().await.unwrap();
    let status = response.status().as_u16();
    let problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let topic: Topic = "t".parse().unwrap();
    let events = hub.latest(&topic.into(), ALL).await.unwrap().events;
    (status, problem, events.into_iter().map(|event| event.data).collect())
}

#[tokio::test]
async fn no_line_is_published_after_one_that_was_not() {
    let numbers: Vec<_> = (1..=3000).map(|number| number.to_string()).collect();
    let mut lines: Vec<_> = numbers.iter().map(String::as_str).collect();
    lines[1000] = BAD;
    let (status, problem, stored) = publish_lines(|| EventLogError::DiskFull, &lines).await;
    assert_eq!(status, 507);
    let published = stored.len();
    assert!(published <= 1000);
    assert_eq!(problem["published"], json!(published));
    assert_eq!(problem.get("unconfirmed"), None);
    let note = format!("not stored. {published} lines were published before.");
    assert!(problem["detail"].as_str().unwrap().ends_with(&note), "{problem}");
    assert_eq!(stored, lines[..published]);
}

#[tokio::test]
async fn lines_of_which_nobody_knows_are_told() {
    let mut lines = vec!["x"; 3000];
    lines[1000] = BAD;
    let (status, problem, stored) =
        publish_lines(|| EventLogError::unconfirmed("no sync"), &lines).await;
    assert_eq!(status, 500);
    let (published, unconfirmed) = (stored.len(), problem["unconfirmed"].as_u64().unwrap());
    assert_eq!(problem["published"], json!(published));
    assert!((published..published + usize::try_from(unconfirmed).unwrap()).contains(&1000));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("It is unknown if the event was stored"), "{detail}");
    assert!(detail.contains("may be in the log, too; no line after"), "{detail}");
}

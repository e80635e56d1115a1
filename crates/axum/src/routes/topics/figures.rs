//! The figures of topics as JSON.

use std::error::Error;

use axum::http::StatusCode;
use serde::Serialize;
use waterclock::{
    event::{InvalidTopic, Topic},
    event_log::{EventLogError, EventStamp, Readers, TopicFigures},
    hub::Hub,
    notice::Outcome,
    pattern::InvalidPattern,
};

use crate::{
    limits::{MAX_PATTERNS, MAX_TOPICS},
    parameters::InvalidParameters,
    problem::Problem,
};

/// Number of topics that are read before other tasks get a turn.
pub(super) const TOPICS_AT_ONCE: usize = 100;

/// An error of a request for topics.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopicsError {
    #[error("{0:?} is {InvalidTopic}.")]
    Topic(String),
    #[error("{0:?} is {InvalidPattern}.")]
    Pattern(String),
    #[error("A request may have at most {MAX_PATTERNS} patterns. Use wildcards.")]
    TooManyPatterns,
    #[error("{0:?} is not a page. `after` must be the `next` of the page before, or be left out.")]
    After(String),
    #[error(
        "{0:?} is not a number of topics. `limit` must be a whole number from 1 to {MAX_TOPICS}, \
         or be left out."
    )]
    Limit(String),
    #[error(transparent)]
    Parameters(#[from] InvalidParameters),
    #[error("The topics could not be read. The server's output says why.")]
    Read,
}

impl From<TopicsError> for Problem {
    fn from(error: TopicsError) -> Self {
        let status = match error {
            TopicsError::Read => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: EventLogError) -> TopicsError {
    tracing::error!(error = &error as &dyn Error, "the topics could not be read");
    TopicsError::Read
}

/// A topic with its figures.
#[derive(Serialize)]
pub(super) struct TopicJson {
    pub(super) topic: Topic,
    /// Number of events kept.
    events: usize,
    /// Bytes of their data.
    bytes: u64,
    /// Number of events published since the server started.
    published: u64,
    oldest: Option<EventStamp>,
    newest: Option<EventStamp>,
    /// Number of streams and polls that name the topic.
    readers: usize,
    /// Number of those that have only patterns that match it.
    pattern_readers: usize,
    ended: bool,
    outcome: Option<Outcome>,
}

impl TopicJson {
    fn new(figures: TopicFigures, readers: Readers) -> Self {
        let TopicFigures { topic, events, bytes, published, oldest, newest, outcome } = figures;
        let Readers { exact: readers, by_pattern: pattern_readers } = readers;
        let ended = outcome.is_some();
        Self {
            topic,
            events,
            bytes,
            published,
            oldest,
            newest,
            readers,
            pattern_readers,
            ended,
            outcome,
        }
    }
}

/// Some of the topics.
#[derive(Serialize)]
pub(super) struct Snapshot<'a> {
    pub(super) topics: &'a [TopicJson],
    /// `false` while the figures of further topics are about to follow.
    pub(super) complete: bool,
}

/// Reads the figures of topics.
pub(super) async fn read(hub: &Hub, topics: &[Topic]) -> Result<Vec<TopicJson>, TopicsError> {
    let mut all = Vec::with_capacity(topics.len());
    for topics in topics.chunks(TOPICS_AT_ONCE) {
        let (figures, readers) = tokio::join!(hub.figures(topics), hub.readers(topics));
        let figures = figures.map_err(unreadable)?.into_iter().zip(readers);
        all.extend(figures.map(|(figures, readers)| TopicJson::new(figures, readers)));
        // Many readers may take long to count.
        tokio::task::yield_now().await;
    }
    Ok(all)
}

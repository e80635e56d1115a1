//! `GET /topics` and `GET /topics/{topic}`: the figures of topics, and the numbers of their
//! readers.

use std::{collections::BTreeSet, error::Error, sync::Arc};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, header::CACHE_CONTROL, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use waterclock::{
    event::{InvalidTopic, Topic},
    event_log::{EventLogError, EventStamp, TopicFigures},
    hub::{Hub, Readers, TopicFilter},
    pattern::{InvalidPattern, Pattern, Patterns},
};

use super::publish::PublishPath;
use crate::{
    limits::{DEFAULT_TOPICS, MAX_PATTERNS, MAX_TOPICS},
    parameters::{InvalidParameters, KnownParameters, split_query},
    policy::Policy,
    problem::Problem,
    state::StreamContext,
};

/// An error of a request for topics.
#[derive(Debug, thiserror::Error)]
enum TopicsError {
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
struct TopicJson {
    topic: Topic,
    /// Number of events kept.
    events: usize,
    /// Bytes of their data.
    bytes: u64,
    oldest: Option<EventStamp>,
    newest: Option<EventStamp>,
    /// Number of streams and polls that name the topic.
    readers: usize,
    /// Number of those that have only patterns that match it.
    pattern_readers: usize,
    ended: bool,
}

impl TopicJson {
    fn new(hub: &Hub, figures: TopicFigures) -> Self {
        let TopicFigures { topic, events, bytes, oldest, newest, ended } = figures;
        let Readers { exact, by_pattern } = hub.readers(&topic);
        let (readers, pattern_readers) = (exact, by_pattern);
        Self { topic, events, bytes, oldest, newest, readers, pattern_readers, ended }
    }
}

/// A page of the list.
#[derive(Serialize)]
struct Page {
    topics: Vec<TopicJson>,
    /// The `after` of the next page; `None` on the last one.
    next: Option<Topic>,
}

/// Reads the figures of topics.
async fn read(hub: &Hub, topics: &[Topic]) -> Result<Vec<TopicJson>, TopicsError> {
    let figures = hub.figures(topics).await.map_err(unreadable)?;
    Ok(figures.into_iter().map(|figures| TopicJson::new(hub, figures)).collect())
}

/// Answers with the figures of one topic, which need not have any events.
pub(super) async fn one(
    State(context): State<Arc<StreamContext>>,
    State(policy): State<Arc<dyn Policy>>,
    path: Result<Path<PublishPath>, PathRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let Path(PublishPath { topic }) =
        path.map_err(|why| Problem::new(why.status(), format!("{}.", why.body_text())))?;
    let topic: Topic = topic.parse().map_err(|_| TopicsError::Topic(topic))?;
    policy.may_read(&head, &topic.clone().into())?;
    let topic = read(&context.hub, &[topic]).await?.pop();
    Ok(json(&topic))
}

/// Answers with a page of the topics that have events, of those that the caller may read.
pub(super) async fn list(
    State(context): State<Arc<StreamContext>>,
    State(policy): State<Arc<dyn Policy>>,
    head: Parts,
) -> Result<Response, Problem> {
    let ListParameters { patterns, after, limit } =
        ListParameters::parse(head.uri.query().unwrap_or_default())?;
    let (allowed, _) = policy.may_list(&head, &patterns)?;
    let filter = TopicFilter::new(&patterns, allowed);
    // One more than the page has tells if there is a next page.
    let mut topics = context.hub.topics(&filter, after.as_ref(), limit + 1);
    let has_next = topics.len() > limit;
    topics.truncate(limit);
    let next = topics.last().filter(|_| has_next).cloned();
    Ok(json(&Page { topics: read(&context.hub, &topics).await?, next }))
}

fn json(body: &impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-cache, no-transform")], Json(body)).into_response()
}

/// The names of the parameters of the list, and what belongs elsewhere.
const PARAMETERS: KnownParameters = KnownParameters {
    names: &[("match", "match"), ("after", "after"), ("limit", "limit")],
    synonyms: &[
        ("filter", "`match`"),
        ("glob", "`match`"),
        ("pattern", "`match`"),
        ("patterns", "`match`"),
        ("prefix", "`match`"),
        ("subject", "`match`"),
        ("topic", "`match`, or the path `/topics/` and the topic"),
        ("topics", "`match`"),
        ("cursor", "`after`"),
        ("next", "`after`"),
        ("offset", "`after`"),
        ("page", "`after`"),
        ("startafter", "`after`"),
        ("count", "`limit`"),
        ("pagesize", "`limit`"),
        ("perpage", "`limit`"),
    ],
};

/// The query of the list.
struct ListParameters {
    patterns: Patterns,
    after: Option<Topic>,
    limit: usize,
}

impl ListParameters {
    fn parse(query: &str) -> Result<Self, TopicsError> {
        let (mut patterns, mut after, mut limit) = (BTreeSet::new(), None, DEFAULT_TOPICS);
        for (name, value) in split_query(query)? {
            match &*name {
                "match" => {
                    let pattern = value.parse::<Pattern>();
                    let invalid = |_| TopicsError::Pattern(value.into_owned());
                    patterns.insert(pattern.map_err(invalid)?);
                }
                "after" => {
                    let invalid = |_| TopicsError::After(value.to_string());
                    after = Some(value.parse().map_err(invalid)?);
                }
                "limit" => match value.parse() {
                    Ok(topics @ 1..=MAX_TOPICS) => limit = topics,
                    _ => return Err(TopicsError::Limit(value.into_owned())),
                },
                name => PARAMETERS.check(name)?,
            }
        }
        if patterns.len() > MAX_PATTERNS {
            return Err(TopicsError::TooManyPatterns);
        }
        let patterns = Patterns::new(patterns).unwrap_or(Pattern::all().into());
        Ok(Self { patterns, after, limit })
    }
}

//! `GET /topics` and `GET /topics/{topic}`: the figures of topics, and the numbers of their
//! readers, once or as a live view.

mod figures;
mod page;
mod view;

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{
        HeaderMap, HeaderValue, Method,
        header::{ACCEPT, CACHE_CONTROL, VARY},
        request::Parts,
    },
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use waterclock::{
    event::Topic,
    hub::TopicFilter,
    pattern::{Pattern, Patterns},
};

use super::publish::PublishPath;
use crate::{
    deadline::Deadline,
    limits::{DEFAULT_TOPICS, MAX_PATTERNS, MAX_TOPICS},
    parameters::{KnownParameters, split_query},
    policy::{Policy, client_of},
    problem::Problem,
    sse,
    standing::Asked,
    state::StreamContext,
};
use figures::{TopicsError, read};
use page::Page;
use view::ViewedTopics;

/// The caching of lists and figures. They depend on the caller's permissions.
const CACHING: &str = "private, no-cache, no-transform";

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
    let (patterns, seen) = (topic.clone().into(), context.changes.count());
    let expires = policy.may_read(&head, &patterns)?;
    if wants_stream(&head.headers) {
        let topics = ViewedTopics::One(topic);
        let standing = policy.standing(&head, Asked::Read(&patterns));
        let deadline = Deadline::of(&context.hub, expires, standing, (&context.changes, seen));
        return Ok(stream(&context, &*policy, &head, topics, deadline));
    }
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
    let seen = context.changes.count();
    let (allowed, expires) = policy.may_list(&head, &patterns)?;
    let filter = TopicFilter::new(&patterns, allowed);
    if wants_stream(&head.headers) {
        let standing = policy.standing(&head, Asked::List(&patterns));
        let deadline = Deadline::of(&context.hub, expires, standing, (&context.changes, seen));
        return Ok(stream(&context, &*policy, &head, ViewedTopics::Filtered(filter), deadline));
    }
    let client = policy.client_address(&head).map(client_of);
    Ok(Page::new(context, filter, after, limit).respond(client).await?)
}

/// Returns `true` if the client accepts a stream of events.
fn wants_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).into_iter().map(HeaderValue::as_bytes);
    let ranges = values.flat_map(|value| value.split(|byte| *byte == b','));
    let types = ranges.filter_map(|range| range.split(|byte| *byte == b';').next());
    types
        .map(<[u8]>::trim_ascii)
        .any(|media| media.eq_ignore_ascii_case(waterclock::sse::CONTENT_TYPE.as_bytes()))
}

/// Adds `Vary: Accept`, also to refusals.
pub(super) async fn vary(mut response: Response) -> Response {
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Answers with a live view, or with its head.
fn stream(
    context: &Arc<StreamContext>,
    policy: &dyn Policy,
    head: &Parts,
    topics: ViewedTopics,
    deadline: Option<Deadline>,
) -> Response {
    match head.method {
        Method::HEAD => sse::response(Body::empty()),
        _ => view::open(context, policy, head, topics, deadline),
    }
}

fn json(body: &impl Serialize) -> Response {
    ([(CACHE_CONTROL, CACHING)], Json(body)).into_response()
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
        let (mut patterns, mut after, mut limit) = (Vec::new(), None, DEFAULT_TOPICS);
        for (name, value) in split_query(query)? {
            match &*name {
                "match" => {
                    let pattern = value.parse::<Pattern>();
                    let invalid = |_| TopicsError::Pattern(value.into_owned());
                    patterns.push(pattern.map_err(invalid)?);
                }
                // As an empty cursor, it is none.
                "after" if value.is_empty() => after = None,
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

//! `GET /events`: an event stream (WHATWG HTML 9.2) from where the client asks to go on.

use std::{borrow::Cow, collections::BTreeSet, num::NonZeroU64};

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use waterclock::{
    event::Topic,
    hub::{Format, Hub, Subscriber},
    id::{CountedId, Cursor},
    notice::GoodbyeReason,
    pattern::{InvalidPattern, Patterns},
    sse,
};

use crate::{
    access::{Caller, Until},
    client::Client,
    problem::Problem,
    router::AppState,
    stream::{self, Limit, Shape},
};

/// How many patterns a stream may have.
pub const MAX_PATTERNS: usize = 64;

/// What a client asks for, and may have.
#[derive(Debug)]
pub struct Request {
    topics: Patterns,
    cursor: Cursor,
    conflate: bool,
    shape: Shape,
    until: Until,
}

impl FromRequestParts<AppState> for Request {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let caller = Caller::of(parts, &state.access, state.hub.now());
        let mut patterns = BTreeSet::new();
        let mut format = Format::Plain;
        let mut conflate = false;
        let mut limit = None;
        let mut last_event_id = None;
        let query = parts.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("topic", _) => match value.parse() {
                    Ok(pattern) => {
                        patterns.insert(pattern);
                    }
                    Err(InvalidPattern) => return Err(Problem::BadPattern(value.into_owned())),
                },
                ("format", "json") => format = Format::Json,
                ("format", _) => return Err(Problem::NoSuchFormat(value.into_owned())),
                ("conflate", "" | "true") => conflate = true,
                ("conflate", "false") => conflate = false,
                ("conflate", _) => return Err(Problem::BadConflate(value.into_owned())),
                ("limit", _) => match value.parse::<NonZeroU64>() {
                    Ok(events) => limit = Some(events),
                    Err(_) => return Err(Problem::BadLimit(value.into_owned())),
                },
                ("last_event_id", _) => last_event_id = Some(value),
                _ => {} // Unknown ones are ignored.
            }
        }
        if patterns.len() > MAX_PATTERNS {
            return Err(Problem::TooManyPatterns);
        }
        let topics = Patterns::new(patterns).unwrap_or(Topic::clock().into());
        let until = caller.may_read(&topics, &state.access)?;
        // What a browser sends when it reconnects is newer than what the page put into the URL.
        // It sends UTF-8, which axum's `to_str` would refuse.
        let header = parts.headers.get("last-event-id").map(HeaderValue::as_bytes);
        let header = header.map(String::from_utf8_lossy).filter(|text| !text.is_empty());
        let text = header.or(last_event_id).map(Cow::into_owned);
        let cursor = Cursor::parse(text.as_deref());
        let counted = text.and_then(|text| text.parse().ok());
        let sent = counted.map_or(0, |CountedId { sent, .. }| sent);
        let limit = limit.map(|events| Limit { events, sent });
        Ok(Self { topics, cursor, conflate, shape: Shape { format, limit }, until })
    }
}

impl Request {
    /// A reader of what was asked for.
    pub(crate) fn subscribe(self, hub: &Hub) -> Subscriber {
        let subscriber = hub.subscribe(self.topics, self.cursor);
        if self.conflate { subscriber.conflated() } else { subscriber }
    }

    /// How many events are asked for at most.
    pub(crate) fn limit(&self) -> usize {
        let limit = self.shape.limit.map(|limit| limit.events.get());
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }

    /// Whether the client has all that it asked for.
    fn is_complete(&self) -> bool {
        self.shape.limit.is_some_and(|Limit { events, sent }| sent >= events.get())
    }
}

/// Answers with the stream.
pub async fn stream(
    State(state): State<AppState>,
    Client(client): Client,
    request: Request,
) -> Response {
    if request.is_complete() {
        // A browser stops at No Content (WHATWG HTML 9.2.3).
        return StatusCode::NO_CONTENT.into_response();
    }
    if state.stop.has_begun() {
        return answer(Body::from(stream::goodbye_alone(&state, GoodbyeReason::Draining)));
    }
    let (shape, until) = (request.shape, request.until);
    let subscriber = request.subscribe(&state.hub);
    let Some(open) = state.streams.open(client, &subscriber) else {
        tracing::info!("there are as many streams as there may be");
        return answer(Body::from(stream::goodbye_alone(&state, GoodbyeReason::Limit)));
    };
    let body = stream::body(state, open, subscriber, shape, until);
    answer(Body::from_stream(body))
}

/// Answers with the stream's head, and opens nothing.
pub async fn head(request: Request) -> Response {
    if request.is_complete() {
        return StatusCode::NO_CONTENT.into_response();
    }
    answer(Body::empty())
}

fn answer(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, sse::CONTENT_TYPE),
        // Nobody on the way may keep the stream, nor compress it, which would hold events back.
        (CACHE_CONTROL, "no-cache, no-transform"),
        // nginx would collect the stream in a buffer otherwise.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

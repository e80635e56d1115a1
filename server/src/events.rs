//! `GET /events`: an event stream (WHATWG HTML 9.2) from where the client asks to go on.

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use waterclock::{id::Cursor, sse};

use crate::{
    problem::Problem,
    router::AppState,
    stream::{self, Format},
};

/// What a client asks for.
#[derive(Debug)]
pub struct Request {
    cursor: Cursor,
    format: Format,
}

impl<S: Send + Sync> FromRequestParts<S> for Request {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut format = Format::Plain;
        let mut last_event_id = None;
        let query = parts.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("topic", "clock") => {}
                ("topic", _) => return Err(Problem::NoSuchTopic(value.into_owned())),
                ("format", "json") => format = Format::Json,
                ("format", _) => return Err(Problem::NoSuchFormat(value.into_owned())),
                ("last_event_id", _) => last_event_id = Some(value),
                _ => {} // Unknown ones are ignored.
            }
        }
        // What a browser sends when it reconnects is newer than what the page put into the URL.
        // It sends UTF-8, which axum's `to_str` would refuse.
        let header = parts.headers.get("last-event-id").map(HeaderValue::as_bytes);
        let header = header.map(String::from_utf8_lossy).filter(|text| !text.is_empty());
        let cursor = Cursor::parse(header.as_deref().or(last_event_id.as_deref()));
        Ok(Self { cursor, format })
    }
}

/// Answers with the stream.
pub async fn stream(State(state): State<AppState>, request: Request) -> impl IntoResponse {
    let subscriber = state.hub.subscribe(request.cursor);
    let body = stream::body(state, subscriber, request.format);
    answer(Body::from_stream(body))
}

/// Answers with the stream's head, and opens nothing.
pub async fn head(_: Request) -> impl IntoResponse {
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

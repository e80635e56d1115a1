//! `POST` or `PUT /events/{topic}`: publishes an event.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use waterclock::event::{Name, Topic};

use crate::{access::Local, problem::Problem, router::AppState};

/// How long the data of an event may be, in bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// How long a client may take to send it.
const BODY_TIME_OUT: Duration = Duration::from_secs(30);

/// Answers 201 with the event, once it is durable. Its data is the body, whatever its content type.
pub(crate) async fn publish(
    State(state): State<AppState>,
    local: Local,
    Path(topic): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    let topic: Topic = topic.parse().map_err(|_| Problem::BadTopic(topic))?;
    local.may_publish()?;
    if topic == Topic::clock() {
        return Err(Problem::ClockIsOurs);
    }
    let name = name(&uri)?;
    let body = tokio::time::timeout(BODY_TIME_OUT, to_bytes(body, MAX_DATA));
    // An error is of the length, or of the client, who then does not get the answer anyway.
    let body = body.await.map_err(|_| Problem::SlowBody)?.map_err(|_| Problem::TooMuchData)?;
    let data = String::from_utf8(body.into()).map_err(|_| Problem::NotUtf8)?;
    let frame = state.hub.publish(topic, name, data).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "an event could not be kept");
        Problem::NotKept
    })?;
    let answer = (StatusCode::CREATED, axum::Json(frame.event()));
    Ok(answer.into_response())
}

/// The event's name: `name` in the query, or the default.
fn name(uri: &Uri) -> Result<Name, Problem> {
    let query = uri.query().unwrap_or_default();
    let name = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "name").last();
    match name {
        Some((_, name)) => {
            name.parse().map_err(|why| Problem::BadName { name: name.into_owned(), why })
        }
        None => Ok(Name::default()),
    }
}

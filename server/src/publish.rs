//! `POST` or `PUT /events/{topic}`: publishes an event.

mod lines;

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use waterclock::{
    event::{Name, Topic},
    log::LogError,
};

use crate::{access::Local, problem::Problem, router::AppState};

/// How long the data of an event may be, in bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// How long a client may take to send it.
const BODY_TIME_OUT: Duration = Duration::from_secs(30);

/// Answers 201 with the event, once it is durable. Its data is the body, whatever its content type. With
/// `split=lines`, each line of the body is an event, at once; the answer says how many there were.
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
    let Parameters { name, split } = Parameters::of(&uri)?;
    if split {
        return lines::publish(&state, topic, name, body).await;
    }
    let body = tokio::time::timeout(BODY_TIME_OUT, to_bytes(body, MAX_DATA));
    // An error is of the length, or of the client, who then does not get the answer anyway.
    let body = body.await.map_err(|_| Problem::SlowBody)?.map_err(|_| Problem::TooMuchData)?;
    let data = String::from_utf8(body.into()).map_err(|_| Problem::NotUtf8)?;
    let frame = state.hub.publish(topic, name, data).await.map_err(not_kept)?;
    Ok((StatusCode::CREATED, axum::Json(frame.event())).into_response())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_kept(error: LogError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "an event could not be kept");
    Problem::NotKept
}

/// What the query says.
struct Parameters {
    name: Name,
    split: bool,
}

impl Parameters {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut parameters = Self { name: Name::default(), split: false };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match (&*name, &*value) {
                ("name", _) => match value.parse() {
                    Ok(name) => parameters.name = name,
                    Err(why) => return Err(Problem::BadName { name: value.into_owned(), why }),
                },
                ("split", "lines") => parameters.split = true,
                ("split", _) => return Err(Problem::BadSplit(value.into_owned())),
                _ => {} // Unknown ones are ignored.
            }
        }
        Ok(parameters)
    }
}

//! `DELETE /events/{topic}`: deletes the events that are kept of a topic.

use std::{error::Error, sync::Arc};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, request::Parts},
};
use serde::Serialize;
use waterclock::event_log::EventLogError;

use super::publish::PublishPath;
use crate::{
    admission::Grant, parameters::KnownParameters, problem::Problem, state::PublishContext,
};

/// Events that could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error("The events could not all be deleted: {0}. Send the request again to delete the rest.")]
struct DeleteError(#[from] EventLogError);

impl From<DeleteError> for Problem {
    fn from(error: DeleteError) -> Self {
        let status = match error.0 {
            EventLogError::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            EventLogError::Misplaced
            | EventLogError::Stopped
            | EventLogError::Unavailable(_)
            | EventLogError::Unanswered(_) => StatusCode::SERVICE_UNAVAILABLE,
            EventLogError::Unconfirmed(_)
            | EventLogError::Damaged { .. }
            | EventLogError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// The meaning of parameters that would delete some of the events, if there were any.
const ALL: &str = "no parameter: the request deletes all events of the topic";

/// The names of parameters that the route does not have. To ignore one would delete more than was
/// meant.
const PARAMETERS: KnownParameters = KnownParameters {
    names: &[],
    synonyms: &[
        ("after", ALL),
        ("age", ALL),
        ("before", ALL),
        ("count", ALL),
        ("from", ALL),
        ("id", ALL),
        ("key", ALL),
        ("lasteventid", ALL),
        ("limit", ALL),
        ("name", ALL),
        ("olderthan", ALL),
        ("since", ALL),
        ("to", ALL),
        ("until", ALL),
        ("match", "the path: `/events/` and the topic"),
        ("pattern", "the path: `/events/` and the topic"),
        ("topic", "the path: `/events/` and the topic"),
    ],
};

/// The response: the number of events deleted.
#[derive(Serialize)]
pub(super) struct Deletion {
    deleted: u64,
}

/// Answers with the number of deleted events, once they are gone for good. A repeated request finds
/// none. It counts as a publish towards the client's rate.
pub(super) async fn delete(
    State(context): State<Arc<PublishContext>>,
    path: Result<Path<PublishPath>, PathRejection>,
    head: Parts,
) -> Result<Json<Deletion>, Problem> {
    let Path(PublishPath { topic }) =
        path.map_err(|why| Problem::new(why.status(), format!("{}.", why.body_text())))?;
    let grant = Grant::new(&context, &head, &topic)?;
    for (name, _) in form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()) {
        PARAMETERS.check(&name)?;
    }
    grant.admit(None)?;
    let deleted = context.hub.delete(grant.topic().clone()).await.inspect_err(|error| {
        tracing::error!(topic, error = error as &dyn Error, "events could not be deleted");
    });
    let deleted = deleted.map_err(DeleteError::from)?;
    tracing::info!(topic, count = deleted, "events deleted");
    Ok(Json(Deletion { deleted }))
}

//! The body of a request that publishes, and messages in JSON that do.

use std::{
    error::Error as _,
    io::{self, ErrorKind},
    iter::successors,
};

use axum::body::{Body, HttpBody as _};
use futures_util::StreamExt as _;
use serde::Deserialize;

use crate::{admission::PublishRejection, limits::MAX_DATA};

/// An event that a client publishes, in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishMessage {
    pub(super) topic: String,
    pub(super) name: Option<String>,
    pub(super) data: String,
    /// The idempotency key.
    pub(super) key: Option<String>,
}

/// Reads a body of at most [`MAX_DATA`] bytes.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, PublishRejection> {
    // A body whose announced length is over the limit is refused without reading it.
    if body.size_hint().lower() > MAX_DATA as u64 {
        return Err(PublishRejection::DataTooLong);
    }
    let mut data = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| error_of(&error))?;
        if data.len() + chunk.len() > MAX_DATA {
            return Err(PublishRejection::DataTooLong);
        }
        data.extend_from_slice(&chunk);
    }
    Ok(data)
}

/// Classifies an error of a request's body.
pub(super) fn error_of(error: &axum::Error) -> PublishRejection {
    let sources = successors(error.source(), |&error| error.source());
    let kind = sources.filter_map(|error| error.downcast_ref()).map(io::Error::kind).next();
    match kind {
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => PublishRejection::MalformedBody,
        _ => PublishRejection::IncompleteBody,
    }
}

//! `POST` or `PUT /events/{topic}`: publishes an event.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Request, StatusCode, Uri, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use waterclock::{
    event::{Draft, Name},
    notice::{Outcome, TopicEnd},
};

use super::{
    body,
    poll::PlacedEnd,
    upload::{self, Split, UploadOptions},
};
use crate::{
    admission::{Grant, PublishRejection, check_key, parse_name},
    limits::{DEFAULT_PATIENCE, MAX_END_MESSAGE, MAX_PATIENCE},
    parameters::{KnownParameters, split_query},
    problem::Problem,
    state::PublishContext,
};

/// The parameters in the path. There may be more, if the router is nested.
#[derive(Deserialize)]
pub(super) struct PublishPath {
    pub(super) topic: String,
}

/// Publishes to the topic in the path.
pub(super) async fn post(
    State(context): State<Arc<PublishContext>>,
    path: Result<Path<PublishPath>, PathRejection>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (head, payload) = request.into_parts();
    let Path(PublishPath { topic }) = path?;
    publish(&context, &head, &topic, payload).await
}

/// Answers 201 with the event, once it is durable. Its data is the request's body, whatever the
/// content type. With `split`, each part of the body is published as soon as it arrives, and the
/// response counts them. With `while=read`, that ends when nobody reads them any more. With `end`,
/// the topic ends, and the answer is its end.
pub(crate) async fn publish(
    context: &Arc<PublishContext>,
    head: &Parts,
    topic: &str,
    payload: Body,
) -> Result<Response, Problem> {
    let grant = Grant::new(context, head, topic)?;
    let Parameters { name, split, end, reopen, patience } = Parameters::parse(&head.uri)?;
    let key = idempotency_key(&head.headers)?;
    if let Some(split) = split {
        let options = UploadOptions { split, name, key, reopen, end: end.is_some(), patience };
        // Boxed, since it is large, and single events need not make room for it.
        let grant = grant.standing(head);
        return Box::pin(upload::publish(context, &grant, options, payload)).await;
    }
    if patience.is_some() {
        return Err(PublishRejection::WhileOfOne.into());
    }
    let reservation = grant.admit(key)?;
    let data = tokio::time::timeout(context.body_timeout, body::read(payload)).await;
    let data = data.map_err(|_| PublishRejection::BodyTimeout)??;
    let data = String::from_utf8(data).map_err(|_| PublishRejection::NotUtf8)?;
    let topic = grant.topic().clone();
    let draft = match end {
        None => Draft { is_reopening: reopen, ..Draft::new(topic, data).named(name) },
        Some(Outcome::Done) if !data.is_empty() => return Err(PublishRejection::DataOfEnd.into()),
        Some(Outcome::Done) => TopicEnd::done(topic).draft(),
        Some(Outcome::Failed) if data.len() > MAX_END_MESSAGE => {
            return Err(PublishRejection::MessageTooLong.into());
        }
        Some(Outcome::Failed) => TopicEnd::failed(topic, data).draft(),
    };
    let frame = grant.enqueue(draft, reservation).await?.stored().await?;
    if let Some(end) = TopicEnd::of(frame.event()) {
        let id = frame.event().id;
        return Ok((StatusCode::CREATED, Json(PlacedEnd { id, end })).into_response());
    }
    let json = [(CONTENT_TYPE, "application/json")];
    Ok((StatusCode::CREATED, json, frame.event().to_json()).into_response())
}

/// Reads `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), with or without quotes.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, PublishRejection> {
    let mut values = headers.get_all("idempotency-key").into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(PublishRejection::Key);
    }
    let key = value.to_str().unwrap_or_default().trim();
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    check_key(key)?;
    Ok(Some(key.to_owned()))
}

/// The names of the parameters, and what belongs elsewhere.
const PARAMETERS: KnownParameters = KnownParameters {
    names: &[
        ("name", "name"),
        ("split", "split"),
        ("end", "end"),
        ("reopen", "reopen"),
        ("while", "while"),
        ("patience", "patience"),
    ],
    synonyms: &[
        ("event", "`name`"),
        ("eventname", "`name`"),
        ("eventtype", "`name`"),
        ("type", "`name`"),
        ("lines", "`split=lines`"),
        ("chunks", "`split=chunks`"),
        ("ended", "`end`"),
        ("complete", "`end`"),
        ("completed", "`end`"),
        ("close", "`end`"),
        ("done", "`end`"),
        ("outcome", "`end`"),
        ("fail", "`end=failed`"),
        ("failed", "`end=failed`"),
        ("error", "`end=failed`"),
        ("open", "`reopen`"),
        ("whileread", "`while=read`"),
        ("unread", "`while=read`"),
        ("grace", "`patience`"),
        ("timeout", "`patience`"),
        ("topic", "the path: `/events/` and the topic"),
        ("body", "the request's body"),
        ("data", "the request's body"),
        ("message", "the request's body"),
        ("idempotencykey", "the header `Idempotency-Key`"),
        ("key", "the header `Idempotency-Key`"),
    ],
};

/// The query of a publish.
struct Parameters {
    name: Name,
    split: Option<Split>,
    end: Option<Outcome>,
    reopen: bool,
    /// Time without a reader after which an upload is stopped; `None` without `while=read`.
    patience: Option<Duration>,
}

impl Parameters {
    fn parse(uri: &Uri) -> Result<Self, PublishRejection> {
        let mut parameters =
            Self { name: Name::default(), split: None, end: None, reopen: false, patience: None };
        let (mut has_name, mut while_read, mut patience) = (false, false, None);
        for (name, value) in split_query(uri.query().unwrap_or_default())? {
            match (&*name, &*value) {
                ("name", name) => {
                    parameters.name = parse_name(Some(name))?;
                    has_name = true;
                }
                ("split", way) => {
                    let split = way.parse().map_err(|_| PublishRejection::Split(way.to_owned()));
                    parameters.split = Some(split?);
                }
                ("end", "" | "done") => parameters.end = Some(Outcome::Done),
                ("end", "failed") => parameters.end = Some(Outcome::Failed),
                ("end", _) => return Err(PublishRejection::Outcome(value.into_owned())),
                ("reopen", "" | "true") => parameters.reopen = true,
                ("reopen", "false") => parameters.reopen = false,
                ("reopen", _) => return Err(PublishRejection::Reopen(value.into_owned())),
                ("while", "read") => while_read = true,
                ("while", _) => return Err(PublishRejection::While(value.into_owned())),
                ("patience", _) => patience = Some(value.into_owned()),
                (name, _) => PARAMETERS.check(name)?,
            }
        }
        let seconds = match patience {
            None => DEFAULT_PATIENCE,
            Some(text) => match text.parse() {
                Ok(seconds @ 1..=MAX_PATIENCE) if while_read => seconds,
                _ => return Err(PublishRejection::Patience(text)),
            },
        };
        parameters.patience = while_read.then_some(Duration::from_secs(seconds));
        match parameters {
            Self { split: Some(_), end: Some(Outcome::Failed), .. } => {
                Err(PublishRejection::OutcomeOfUpload)
            }
            Self { split: None, end: Some(_), .. } if has_name => Err(PublishRejection::NameOfEnd),
            Self { split: None, end: Some(_), reopen: true, .. } => {
                Err(PublishRejection::EndAndReopen)
            }
            parameters => Ok(parameters),
        }
    }
}

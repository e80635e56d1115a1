//! `GET /events` and `GET /events/{topic}`: an event stream (WHATWG HTML 9.2) from the client's
//! cursor on.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use waterclock::transport::Transport;

use crate::{
    connection::StreamHandover,
    sse::{self, SseEncoder},
    state::StreamContext,
    subscription::Subscription,
};

/// Answers with the stream.
pub(super) async fn get(
    State(context): State<Arc<StreamContext>>,
    handover: Option<Extension<StreamHandover>>,
    subscription: Subscription,
) -> Response {
    subscription.accept(Transport::Sse);
    if subscription.complete().is_some() || subscription.is_over(&context.hub) {
        // A browser stops reconnecting at 204 No Content (WHATWG HTML 9.2.3).
        return StatusCode::NO_CONTENT.into_response();
    }
    let encoder = SseEncoder(subscription.format());
    let session = match subscription.open(context, encoder, false).await {
        Ok(session) => session,
        Err((_, goodbye)) => return sse::response(goodbye.map_or_else(Body::empty, Body::from)),
    };
    let Some(Extension(handover)) = handover else {
        return sse::response(Body::from_stream(session.map(Ok::<_, Infallible>)));
    };
    handover.leave(session);
    sse::response(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()))
}

/// Answers with the head of the stream, and opens nothing.
pub(super) async fn head(
    State(context): State<Arc<StreamContext>>,
    subscription: Subscription,
) -> Response {
    if subscription.complete().is_some() || subscription.is_over(&context.hub) {
        return StatusCode::NO_CONTENT.into_response();
    }
    sse::response(Body::empty())
}

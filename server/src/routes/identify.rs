//! Identifies the caller of each request, once.

use std::sync::Arc;

use axum::extract::{Request, State};

use crate::{auth::Caller, state::AppState};

/// Adds the [`Caller`] to a request's extensions.
pub(super) async fn identify(State(state): State<AppState>, request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::identify(&parts, &state.access, state.hub.now());
    parts.extensions.insert(Arc::new(caller));
    Request::from_parts(parts, body)
}

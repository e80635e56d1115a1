//! Identifies the caller of each request, once.

use std::sync::Arc;

use axum::extract::{Request, State};
use waterclock::hub::Hub;

use crate::auth::{Access, Caller};

/// Adds the [`Caller`] to a request's extensions.
pub(super) async fn identify(
    State((access, hub)): State<(Access, Arc<Hub>)>,
    request: Request,
) -> Request {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::identify(&parts, &access, hub.now());
    parts.extensions.insert(Arc::new(caller));
    Request::from_parts(parts, body)
}

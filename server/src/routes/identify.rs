//! Identifies the caller of each request, once.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::request::Parts,
};
use waterclock::hub::Hub;

use crate::auth::{Access, Caller};

/// Adds the [`Caller`] to a request's extensions.
pub(super) async fn identify(
    State((access, hub)): State<(Access, Arc<Hub>)>,
    request: Request,
) -> Request {
    let (mut parts, body) = request.into_parts();
    add_caller(&mut parts, &access, &hub);
    Request::from_parts(parts, body)
}

/// Adds the caller to the head of a request.
pub(super) fn add_caller(head: &mut Parts, access: &Access, hub: &Hub) {
    let caller = Caller::identify(head, access, hub.now());
    head.extensions.insert(Arc::new(caller));
}

//! Identifies the caller of each request, once.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::request::Parts,
};
use waterclock::hub::Hub;

use crate::auth::{Caller, SharedAccess};

/// Adds the [`Caller`] to a request's extensions.
pub(super) async fn identify(
    State((access, hub)): State<(SharedAccess, Arc<Hub>)>,
    request: Request,
) -> Request {
    let (mut parts, body) = request.into_parts();
    add_caller(&mut parts, &access, &hub);
    Request::from_parts(parts, body)
}

/// Adds the caller to the head of a request.
pub(super) fn add_caller(head: &mut Parts, access: &SharedAccess, hub: &Hub) {
    let caller = Caller::identify(head, &access.load(), hub.now());
    head.extensions.insert(Arc::new(caller));
}

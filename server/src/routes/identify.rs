//! Identifies the caller of each request, once.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::request::Parts,
};
use waterclock::hub::Hub;

use crate::auth::{Caller, NewerKeys, SharedAccess};

/// Adds the [`Caller`] to a request's extensions.
pub(super) async fn identify(
    State((access, hub)): State<(SharedAccess, Arc<Hub>)>,
    request: Request,
) -> Request {
    let (mut parts, body) = request.into_parts();
    add_caller(&mut parts, &access, &hub).await;
    Request::from_parts(parts, body)
}

/// Adds the caller to the head of a request. If its token names a key that is not known, waits
/// briefly for newer keys of its issuer.
pub(super) async fn add_caller(head: &mut Parts, access: &SharedAccess, hub: &Hub) {
    let access = access.load();
    let mut caller = Caller::identify(head, &access, hub.now());
    if let (Some(unknown), Some(tokens)) = (caller.unknown_key(&access), &access.tokens) {
        // Boxed, since it is rare and its future is large.
        let newer = Box::pin(tokens.wait_for_keys(unknown)).await;
        match newer {
            NewerKeys::Asked => caller = Caller::identify(head, &access, hub.now()),
            NewerKeys::Unanswered => caller.miss_answer_of_issuer(),
            NewerKeys::None => {}
        }
    }
    head.extensions.insert(Arc::new(caller));
}

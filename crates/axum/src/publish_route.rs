//! The route that publishes, for a server that calls it without a router.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Method, request::Parts},
    response::Response,
};

use crate::{problem::Problem, routes::publish::publish, state::PublishContext};

/// The handler of `POST` and `PUT /events/{topic}`. Most requests of a busy server may be of this
/// kind, and each layer of a router costs them time.
#[derive(Clone)]
pub struct PublishRoute(pub(crate) Arc<PublishContext>);

impl PublishRoute {
    /// Returns `true` for a request to this route. An encoded topic is left to a router.
    pub fn takes(head: &Parts) -> bool {
        [Method::POST, Method::PUT].contains(&head.method) && topic_in(head).is_some()
    }

    /// Publishes the body of a request that the route [`takes`](Self::takes), as the router does.
    ///
    /// # Errors
    ///
    /// If the publish is refused.
    pub async fn publish(&self, head: &Parts, body: Body) -> Result<Response, Problem> {
        publish(&self.0, head, topic_in(head).unwrap_or_default(), body).await
    }
}

/// Returns the topic in the path of a request. Its characters need no decoding.
fn topic_in(head: &Parts) -> Option<&str> {
    let topic = head.uri.path().strip_prefix("/events/")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (!topic.is_empty() && topic.bytes().all(is_plain)).then_some(topic)
}

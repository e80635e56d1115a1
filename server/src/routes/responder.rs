//! The steps that every request takes. Each layer of an axum router boxes the future of a request,
//! and clones everything below it. So these steps are one function around the router, and a request
//! that publishes to a topic does not need the router at all: such requests may be as many as all
//! others together.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use tower::ServiceExt as _;
use waterclock::hub::Hub;
use waterclock_axum::{Problem, PublishRoute};

use super::{denials::Denials, headers, identify, refusals, request_check};
use crate::{auth::Access, net::Responder, ops::metrics::Metrics, state::AppState};

/// The router, and the parts of the state that the steps need.
struct Steps {
    router: Router,
    /// `None` if the router answers publishes, too.
    publish: Option<PublishRoute>,
    access: Access,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    denials: Arc<Denials>,
}

/// Builds the function that answers the requests of the server.
pub fn responder(state: AppState) -> Responder {
    let steps = Arc::new(Steps {
        // CORS is a layer of the router.
        publish: state.access.cors_origins.is_empty().then(|| state.events.publish_route()),
        access: state.access.clone(),
        hub: Arc::clone(&state.hub),
        metrics: Arc::clone(&state.metrics),
        denials: Arc::new(Denials::new(Arc::clone(&state.access.trusted_proxies))),
        router: super::router(state),
    });
    Arc::new(move |request| {
        let steps = Arc::clone(&steps);
        Box::pin(async move { steps.respond(request).await })
    })
}

impl Steps {
    async fn respond(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        let refused = self.denials.watch(&mut head);
        let mut response = match request_check::check(&head) {
            Err(ambiguous) => Problem::from(ambiguous).into_response(),
            Ok(()) => match &self.publish {
                Some(route) if PublishRoute::takes(&head) => {
                    identify::add_caller(&mut head, &self.access, &self.hub).await;
                    let published = route.publish(&head, body).await;
                    published.unwrap_or_else(Problem::into_response)
                }
                _ => self.route(Request::from_parts(head, body)).await,
            },
        };
        headers::add(&mut response);
        refusals::count(&self.metrics, &response);
        refused.print_if_denied(&response);
        response
    }

    async fn route(&self, request: Request<Body>) -> Response {
        let response = self.router.clone().oneshot(request).await;
        response.unwrap_or_else(|never| match never {})
    }
}

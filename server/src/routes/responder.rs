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
use parking_lot::RwLock;
use tower::ServiceExt as _;
use waterclock::hub::Hub;
use waterclock_axum::{Problem, PublishRoute, StreamLimits};

use super::{denials::Denials, headers, identify, refusals, request_check};
use crate::{
    auth::{Access, SharedAccess, TokenVerifier},
    net::Responder,
    ops::metrics::Metrics,
    state::AppState,
};

/// The router, and the parts of the state that the steps need.
struct Steps {
    routing: RwLock<Arc<Routing>>,
    access: SharedAccess,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    denials: Arc<Denials>,
}

/// The parts that depend on the rules.
struct Routing {
    router: Router,
    /// `None` if the router answers publishes, too.
    publish: Option<PublishRoute>,
}

impl Routing {
    fn new(state: &AppState) -> Self {
        // CORS is a layer of the router.
        let has_cors = !state.access.load().cors_origins.is_empty();
        Self {
            publish: (!has_cors).then(|| state.events.publish_route()),
            router: super::router(state.clone()),
        }
    }
}

/// Replaces the rules by which the requests of a server are answered.
pub struct AccessReload {
    steps: Arc<Steps>,
    state: AppState,
}

impl AccessReload {
    /// Lets new keys for tokens continue what those of the current rules have.
    pub fn continue_tokens(&self, tokens: TokenVerifier) -> TokenVerifier {
        match &self.state.access.load().tokens {
            Some(previous) => tokens.after(previous),
            None => tokens.with_metrics(self.state.metrics.keys()),
        }
    }

    /// The hub of the server.
    pub fn hub(&self) -> &Hub {
        &self.state.hub
    }

    /// Applies new rules and limits, to new requests and to open streams. Their keys for tokens are
    /// kept current from now on, and those of the previous rules no longer.
    ///
    /// # Panics
    ///
    /// If it is called outside of a runtime of tokio.
    pub fn apply(&self, access: Access, limits: StreamLimits) {
        if let Some(tokens) = &access.tokens {
            tokens.start();
        }
        self.state.events.streams().set_limits(limits);
        self.state.access.replace(access);
        *self.steps.routing.write() = Arc::new(Routing::new(&self.state));
    }
}

/// Builds the function that answers the requests of the server.
pub fn responder(state: AppState) -> Responder {
    reloadable_responder(state).0
}

/// Builds the same function for a state that is reloadable, and what reloads it.
pub fn reloadable_responder(state: AppState) -> (Responder, AccessReload) {
    let steps = steps(&state);
    (respond_by(Arc::clone(&steps)), AccessReload { steps, state })
}

fn steps(state: &AppState) -> Arc<Steps> {
    Arc::new(Steps {
        access: state.access.clone(),
        hub: Arc::clone(&state.hub),
        metrics: Arc::clone(&state.metrics),
        denials: Arc::new(Denials::new(state.access.clone())),
        routing: RwLock::new(Arc::new(Routing::new(state))),
    })
}

fn respond_by(steps: Arc<Steps>) -> Responder {
    Arc::new(move |request| {
        let steps = Arc::clone(&steps);
        Box::pin(async move { steps.respond(request).await })
    })
}

impl Steps {
    async fn respond(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        let routing = Arc::clone(&self.routing.read());
        let refused = self.denials.watch(&mut head);
        let mut response = match request_check::check(&head) {
            Err(ambiguous) => Problem::from(ambiguous).into_response(),
            Ok(()) => match &routing.publish {
                Some(route) if PublishRoute::takes(&head) => {
                    identify::add_caller(&mut head, &self.access, &self.hub).await;
                    let published = route.publish(&head, body).await;
                    published.unwrap_or_else(Problem::into_response)
                }
                _ => routing.route(Request::from_parts(head, body)).await,
            },
        };
        headers::add(&mut response);
        refusals::count(&self.metrics, &response);
        refused.print_if_denied(&response);
        response
    }
}

impl Routing {
    async fn route(&self, request: Request<Body>) -> Response {
        let response = self.router.clone().oneshot(request).await;
        response.unwrap_or_else(|never| match never {})
    }
}

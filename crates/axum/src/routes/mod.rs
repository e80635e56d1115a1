//! The table of routes. Each route has a file of its own.

mod body;
mod delete;
mod events;
mod ndjson;
mod poll;
#[cfg(feature = "probe")]
mod probe;
pub(crate) mod publish;
mod topics;
mod upload;
mod ws;

use axum::{
    Router,
    middleware::map_response,
    routing::{MethodRouter, get},
};

use crate::{problem::Problem, state::RoutesState};

/// A path and its methods.
pub(crate) type Route = (&'static str, MethodRouter<RoutesState>);

/// Returns the route of the list of topics.
pub(crate) fn topics_route() -> Route {
    ("/topics", get(topics::list).layer(map_response(topics::vary)))
}

/// Returns the other routes of events.
pub(crate) fn event_routes() -> Vec<Route> {
    vec![
        ("/events", get(events::get).head(events::head).post(ndjson::post)),
        ("/ws", get(ws::get)),
        ("/poll", get(poll::get)),
        ("/topics/{topic}", get(topics::one).layer(map_response(topics::vary))),
        (
            "/events/{topic}",
            get(events::get)
                .head(events::head)
                .post(publish::post)
                .put(publish::post)
                .delete(delete::delete),
        ),
    ]
}

/// The route of the probe.
#[cfg(feature = "probe")]
pub(crate) fn probe_routes() -> Vec<Route> {
    vec![("/diagnose/stream", get(probe::get).post(probe::get).head(probe::head))]
}

/// Builds the router of a table.
pub(crate) fn router(table: Vec<Route>) -> Router<RoutesState> {
    let add = |router: Router<_>, (path, methods)| router.route(path, methods);
    let router = table.into_iter().fold(Router::new(), add);
    router.method_not_allowed_fallback(async || Problem::method_not_allowed())
}

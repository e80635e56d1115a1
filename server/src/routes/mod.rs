//! The table of routes. Each route has a file of its own; those of events are in `waterclock-axum`.

mod cors;
mod headers;
mod health;
mod identify;
#[cfg(feature = "compare")]
mod load;
#[cfg(feature = "compare")]
mod meters;
mod metrics;
mod not_found;
mod pages;
mod refusals;
mod request_check;
mod site;
mod time;

#[cfg(feature = "compare")]
use axum::routing::post;
use std::sync::Arc;

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    middleware::{map_request, map_request_with_state, map_response, map_response_with_state},
    routing::get,
};
use waterclock_axum::Problem;

use crate::state::AppState;

/// The interface as `OpenAPI` 3.1. A test compares it with the server's behaviour.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Builds the router of the server.
pub fn router(state: AppState) -> Router {
    let events = state.events.router();
    #[cfg(feature = "compare")]
    let events = events.layer(map_request_with_state(state.meters.clone(), meters::count));
    // The routes that ask who the caller is.
    let identified =
        Router::new().merge(events).merge(pages::router()).route("/metrics", get(metrics::get));
    #[cfg(feature = "compare")]
    let identified = identified.route("/load", post(load::post).delete(load::delete));
    // Layers clone their state for each request, so each gets only the part that it needs.
    let callers = (state.access.clone(), Arc::clone(&state.hub));
    let router = Router::new()
        .merge(identified.route_layer(map_request_with_state(callers, identify::identify)))
        .route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)))
        .route("/time", get(time::get))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .merge(site::router(&state, not_found::not_found));
    #[cfg(feature = "compare")]
    let router = router
        .route("/meters/{meter}", get(meters::get))
        .route("/meters/{meter}/cut", post(meters::cut));
    let router = router.method_not_allowed_fallback(async || Problem::method_not_allowed());
    // Around all routes and refusals, since a page elsewhere cannot see a response without it.
    let router = match cors::layer(&state.access) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        // What it reveals of the path is for the server's own pages.
        .merge(state.events.probe_router())
        .layer(map_request(request_check::check))
        .layer(map_response(headers::add))
        .layer(map_response_with_state(Arc::clone(&state.metrics), refusals::count))
        .with_state(state)
}

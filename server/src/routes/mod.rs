//! The table of routes. Each route has a file of its own; those of events are in `waterclock-axum`.

mod accept;
mod client;
mod cors;
mod denials;
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
mod responder;
mod site;
mod time;

#[cfg(feature = "compare")]
use axum::routing::post;
use std::sync::Arc;

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    middleware::{from_fn_with_state, map_request_with_state},
    routing::{MethodRouter, get},
};
use waterclock_axum::{EventRoutes, Problem};

pub use responder::{AccessReload, reloadable_responder, responder};

use crate::state::AppState;

/// The interface as `OpenAPI` 3.1. A test compares it with the server's behaviour.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// A path and its methods.
type Route = (&'static str, MethodRouter<AppState>);

/// The routes that ask who the caller is.
fn identified_routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.push(("/metrics", get(metrics::get)));
    #[cfg(feature = "compare")]
    routes.push(("/load", post(load::post).delete(load::delete)));
    routes
}

/// The routes that are the same for everybody.
fn open_routes() -> Vec<Route> {
    let openapi = async || ([(CONTENT_TYPE, "application/json")], OPENAPI);
    vec![
        ("/openapi.json", get(openapi)),
        ("/time", get(time::get)),
        ("/health/live", get(health::live)),
        ("/health/ready", get(health::ready)),
        ("/health/state", get(health::state)),
        #[cfg(feature = "compare")]
        ("/meters/{meter}", get(meters::get)),
        #[cfg(feature = "compare")]
        ("/meters/{meter}/cut", post(meters::cut)),
    ]
}

/// The paths of all routes, with their parameters in braces. The files of the site are not among
/// them.
pub fn paths() -> Vec<&'static str> {
    let routes = [identified_routes(), open_routes(), client::routes()].into_iter().flatten();
    routes.map(|(path, _)| path).chain(EventRoutes::paths()).collect()
}

fn with_routes(router: Router<AppState>, table: Vec<Route>) -> Router<AppState> {
    table.into_iter().fold(router, |router, (path, methods)| router.route(path, methods))
}

/// Builds the router of the server. The steps around it are those of [`responder`].
fn router(state: AppState) -> Router {
    let page = from_fn_with_state(state.clone(), pages::topics);
    let events = state.events.router_with_topics(|topics| topics.layer(page));
    #[cfg(feature = "compare")]
    let events = events.layer(map_request_with_state(state.meters.clone(), meters::count));
    let identified = with_routes(events, identified_routes());
    // Layers clone their state for each request, so each gets only the part that it needs.
    let callers = (state.access.clone(), Arc::clone(&state.hub));
    let identified = identified.route_layer(map_request_with_state(callers, identify::identify));
    let router =
        with_routes(identified, open_routes()).merge(site::router(&state, not_found::not_found));
    let router = router.method_not_allowed_fallback(async || Problem::method_not_allowed());
    let client = with_routes(Router::new(), client::routes())
        .method_not_allowed_fallback(async || Problem::method_not_allowed());
    // Around all routes and refusals, since a page elsewhere cannot see a response without it.
    let router = match cors::layer(&state.access.load()) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        // Its details of the path are for the server's own pages.
        .merge(state.events.probe_router())
        // It has CORS of its own.
        .merge(client)
        .with_state(state)
}

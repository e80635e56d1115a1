//! The table of routes. Each route has a file of its own.

mod body;
mod events;
mod lines;
mod poll;
#[cfg(feature = "probe")]
mod probe;
mod publish;
mod ws;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{problem::Problem, state::RoutesState};

/// The routes of events.
pub(crate) fn event_routes() -> Router<RoutesState> {
    Router::new()
        .route("/events", get(events::get).head(events::head))
        .route("/ws", get(ws::get))
        .route("/poll", get(poll::get))
        .route("/events/{topic}", post(publish::post).put(publish::post))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
}

/// The route of the probe.
#[cfg(feature = "probe")]
pub(crate) fn probe_routes() -> Router<RoutesState> {
    Router::new()
        .route("/diagnose/stream", get(probe::get).post(probe::get).head(probe::head))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
}

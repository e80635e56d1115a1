//! The table of routes, and the state that they share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::FromRef, middleware::map_response, routing::get};
use leptos::config::LeptosOptions;
use tokio_util::sync::CancellationToken;
use waterclock::hub::Hub;

use crate::{events, headers, pages, problem::Problem, site};

/// What the handlers share.
#[derive(Clone)]
pub struct AppState {
    /// Where events come from.
    pub hub: Arc<Hub>,
    /// How streams behave.
    pub streams: StreamSettings,
    /// Where the page's files are, and what they are called.
    pub leptos: LeptosOptions,
    /// Counts the streams.
    pub connections: Connections,
    /// Cancelled when the server stops: the streams say goodbye.
    pub stopping: CancellationToken,
}

impl FromRef<AppState> for LeptosOptions {
    fn from_ref(state: &AppState) -> Self {
        state.leptos.clone()
    }
}

/// How streams behave.
#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    /// After so long without an event comes a heartbeat.
    pub heartbeat: Duration,
    /// What clients are told to wait before they connect again.
    pub retry: Duration,
}

/// Numbers the streams, from 1, since the server's start.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<AtomicU64>);

impl Connections {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// All that the server serves.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/events", get(events::stream).head(events::head))
        .merge(pages::router())
        .merge(site::router(&state))
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(map_response(headers::add))
        .with_state(state)
}

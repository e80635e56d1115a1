//! Whether the server is there, and whether it takes new clients: for who starts and stops it.

use axum::extract::State;

use crate::{problem::Problem, router::AppState};

/// `GET /health/live`: the server answers.
pub(crate) async fn live() -> &'static str {
    "live\n"
}

/// `GET /health/ready`: it takes new clients, until it is stopping.
pub(crate) async fn ready(State(state): State<AppState>) -> Result<&'static str, Problem> {
    if state.stop.has_begun() { Err(Problem::Stopping) } else { Ok("ready\n") }
}

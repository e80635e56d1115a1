//! Whether the server is there, and whether it takes new clients: for who starts and stops it. And what
//! time it has: for who wants to know how long events take.

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header::CACHE_CONTROL},
};
use serde::Serialize;
use waterclock::timestamp::Timestamp;

use crate::{problem::Problem, router::AppState};

/// `GET /health/live`: the server answers.
pub(crate) async fn live() -> &'static str {
    "live\n"
}

/// `GET /health/ready`: it takes new clients, until it is stopping.
pub(crate) async fn ready(State(state): State<AppState>) -> Result<&'static str, Problem> {
    if state.stop.has_begun() { Err(Problem::Stopping) } else { Ok("ready\n") }
}

/// The server's time.
#[derive(Serialize)]
pub(crate) struct Time {
    time: Timestamp,
}

/// `GET /time`: the server's time, by which a client finds how far its own clock is off.
pub(crate) async fn time(
    State(state): State<AppState>,
) -> ([(HeaderName, &'static str); 1], Json<Time>) {
    ([(CACHE_CONTROL, "no-store")], Json(Time { time: state.hub.now() }))
}

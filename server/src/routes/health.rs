//! `GET /health/live` and `GET /health/ready`: for programs that start, stop and balance servers.

use axum::{extract::State, http::StatusCode};
use waterclock_axum::{Problem, Stop};

/// Answers while the process runs.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Answers 200 while the server accepts new clients, and 503 once it is shutting down.
pub(super) async fn ready(State(stop): State<Stop>) -> Result<&'static str, Problem> {
    if stop.has_begun() {
        let detail = "The server is shutting down.";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    Ok("ready\n")
}

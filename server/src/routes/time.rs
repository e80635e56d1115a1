//! `GET /time`: the server's time, from which a client computes the offset of its own clock.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header::CACHE_CONTROL},
};
use serde::Serialize;
use waterclock::{hub::Hub, timestamp::Timestamp};

/// The server's time.
#[derive(Serialize)]
pub(super) struct ServerTime {
    time: Timestamp,
}

/// Answers with the server's time.
pub(super) async fn get(
    State(hub): State<Arc<Hub>>,
) -> ([(HeaderName, &'static str); 1], Json<ServerTime>) {
    ([(CACHE_CONTROL, "no-store")], Json(ServerTime { time: hub.now() }))
}

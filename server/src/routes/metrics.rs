//! `GET /metrics`: the counters, for Prometheus.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use waterclock::hub::Hub;
use waterclock_axum::{Denied, EventRoutes, Problem};

use crate::{auth::Caller, ops::metrics::Metrics};

/// Answers with the counters, as `OpenMetrics` text. Only local requests may read them, since they
/// reveal how much the server is used.
pub(super) async fn get(
    State(metrics): State<Arc<Metrics>>,
    State(hub): State<Arc<Hub>>,
    State(events): State<EventRoutes>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Response, Problem> {
    caller.require_local().map_err(Denied::from)?;
    let text = metrics.encode(&hub, &events.streams());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, content_type)], text).into_response())
}

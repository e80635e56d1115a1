//! Counts refused requests that may be attacks.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use waterclock_axum::Refusal;

use crate::ops::metrics::{Metrics, RefusalReason, TimedOut};

/// Counts a response that refuses its request.
pub(super) async fn count(State(metrics): State<Arc<Metrics>>, response: Response) -> Response {
    match response.extensions().get() {
        Some(Refusal::Malformed) => metrics.refused(RefusalReason::Malformed),
        Some(Refusal::TooLong) => metrics.refused(RefusalReason::TooLong),
        Some(Refusal::Untrusted) => metrics.refused(RefusalReason::Foreign),
        Some(Refusal::BodyTimeout) => metrics.timed_out(TimedOut::Body),
        None => {}
    }
    response
}

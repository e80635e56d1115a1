//! Counts refused requests that may be attacks.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use waterclock_axum::AttackSign;

use crate::ops::metrics::{Metrics, RefusalReason, TimedOut};

/// Counts a response that refuses its request.
pub(super) async fn count(State(metrics): State<Arc<Metrics>>, response: Response) -> Response {
    match response.extensions().get() {
        Some(AttackSign::Malformed) => metrics.refused(RefusalReason::Malformed),
        Some(AttackSign::TooLong) => metrics.refused(RefusalReason::TooLong),
        Some(AttackSign::Untrusted) => metrics.refused(RefusalReason::Foreign),
        Some(AttackSign::BodyTimeout) => metrics.timed_out(TimedOut::Body),
        None => {}
    }
    response
}

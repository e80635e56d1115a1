//! Counts refused requests that may be attacks.

use axum::response::Response;
use waterclock_axum::AttackSign;

use crate::ops::metrics::{Metrics, RefusalReason, TimedOut};

/// Counts a response if it refuses its request.
pub(super) fn count(metrics: &Metrics, response: &Response) {
    match response.extensions().get() {
        Some(AttackSign::Malformed) => metrics.refused(RefusalReason::Malformed),
        Some(AttackSign::TooLong) => metrics.refused(RefusalReason::TooLong),
        Some(AttackSign::Untrusted) => metrics.refused(RefusalReason::Foreign),
        Some(AttackSign::BodyTimeout) => metrics.timed_out(TimedOut::Body),
        None => {}
    }
}

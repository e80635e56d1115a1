//! Cross-origin requests (Fetch, "CORS protocol").

use std::time::Duration;

use axum::http::{HeaderName, Method, header::AUTHORIZATION};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::auth::{Access, CorsOrigin};

/// Time for which a browser may cache the answer to a preflight request.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Builds the layer that answers preflight requests. Returns `None` if no other origin may read.
pub(super) fn layer(access: &Access) -> Option<CorsLayer> {
    if access.cors_origins.is_empty() {
        return None;
    }
    let named = access.cors_origins.iter().map(|origin| match origin {
        CorsOrigin::Any => None,
        CorsOrigin::Only(origin) => Some(origin.clone()),
    });
    let named: Option<Vec<_>> = named.collect();
    // Cookies are allowed for named origins only. Otherwise any page could read what its visitor
    // may.
    let with_cookie = named.is_some();
    let origins = named.map_or(AllowOrigin::any(), AllowOrigin::list);
    let headers = ["last-event-id", "idempotency-key", "content-type"];
    let headers = headers.map(HeaderName::from_static).into_iter().chain([AUTHORIZATION]);
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(with_cookie)
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers(headers.collect::<Vec<_>>())
        .max_age(MAX_AGE);
    Some(layer)
}

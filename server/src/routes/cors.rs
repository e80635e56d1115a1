//! Cross-origin requests (Fetch, "CORS protocol").

use std::time::Duration;

use axum::http::{
    HeaderName, Method,
    header::{ALLOW, DATE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use tower_http::cors::{AllowHeaders, AllowOrigin, AllowPrivateNetwork, CorsLayer};

use crate::auth::{Access, CorsOrigin};

/// Time for which a browser may cache the answer to a preflight request.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Response headers that a page may read in addition to the safe ones (Fetch, "CORS-safelisted
/// response-header name").
const EXPOSED: [HeaderName; 4] = [ALLOW, DATE, RETRY_AFTER, WWW_AUTHENTICATE];

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
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(with_cookie)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        // Polyfills, htmx, tracing libraries and proxies each have headers of their own. None gives
        // a permission that the server would not give without it, except a token.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .allow_private_network(AllowPrivateNetwork::yes())
        .max_age(MAX_AGE);
    Some(layer)
}

//! The headers that every answer has, and what a page may load.

use axum::{
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
};

/// What every answer says unless it has said otherwise.
const HEADERS: [(HeaderName, &str); 6] = [
    // A page has its own. Anything else loads nothing, should a browser show it.
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // What is fetched with CORS, as streams are, does not ask for it.
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Adds [`HEADERS`] to an answer.
pub(crate) async fn add(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// What a page may load (Content Security Policy Level 3): files and data of this server only, and no
/// script in it but those with the nonce. `connect` is where else it may connect to.
pub(crate) fn page_policy(nonce: &str, connect: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'wasm-unsafe-eval'; \
         style-src 'self'; img-src 'self'; connect-src 'self'{connect}; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    )
}

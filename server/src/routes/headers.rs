//! The headers of every response, and the content security policy of pages.

use axum::{
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
};

/// Headers of responses that do not set their own.
const DEFAULT_HEADERS: [(HeaderName, &str); 6] = [
    // Pages set their own. Any other response must load nothing if a browser shows it.
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // Requests with CORS, such as streams, ignore this header.
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Adds [`DEFAULT_HEADERS`] to a response.
pub(super) fn add(response: &mut Response) {
    for (name, value) in DEFAULT_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// The policy of a page (Content Security Policy Level 3): it may load files and data of this
/// server only, and inline scripts with the nonce. `connect` lists further sources for connections.
pub(super) fn page_policy(nonce: &str, connect: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'wasm-unsafe-eval'; \
         style-src 'self'; img-src 'self'; connect-src 'self'{connect}; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    )
}

//! `GET /client.js`: the client for pages, as one ES module. The files are those that `make client`
//! has built, so a build of the server needs no Node.js.

use std::{fmt::Write as _, sync::LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING,
            CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
        },
    },
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::Route;

const CLIENT: &[u8] = include_bytes!("../../../client/client.js");
const COMPRESSED: &[u8] = include_bytes!("../../../client/client.js.br");

/// The entity tag. It is weak, as both encodings share it (RFC 9110, section 8.8.3).
static TAG: LazyLock<String> = LazyLock::new(|| {
    let hash = digest(&SHA256, CLIENT);
    let hex = hash.as_ref()[..8].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("W/\"{hex}\"")
});

/// The route. It answers pages of any origin, whatever `--cors-origin` says.
pub(super) fn routes() -> Vec<Route> {
    vec![("/client.js", get(get_client))]
}

async fn get_client(request: HeaderMap) -> Response {
    let text = |name| request.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let headers = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        // A browser asks again each time, so the client is as new as the server.
        (CACHE_CONTROL, "public, no-cache, no-transform"),
        (ETAG, TAG.as_str()),
        (VARY, "accept-encoding"),
    ];
    if text(IF_NONE_MATCH).split(',').any(|tag| tag.trim() == *TAG) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let takes_brotli = text(ACCEPT_ENCODING).split(',').any(|one| takes(one, "br"));
    let body = if takes_brotli { COMPRESSED } else { CLIENT };
    let mut response = (headers, [(CONTENT_TYPE, "text/javascript")], body).into_response();
    if takes_brotli {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    response
}

/// Returns `true` if an element of `Accept-Encoding` is this coding, and not with the weight 0 (RFC
/// 9110, section 12.5.3).
fn takes(element: &str, coding: &str) -> bool {
    let (name, weight) = element.split_once(';').unwrap_or((element, "q=1"));
    let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse().ok());
    name.trim().eq_ignore_ascii_case(coding) && weight.is_some_and(|weight: f32| weight > 0.0)
}

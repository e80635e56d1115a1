//! The answer to unknown paths.

use app::Page;
use axum::{
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, VARY},
    },
    response::{IntoResponse as _, Response},
};
use leptos::config::LeptosOptions;
use waterclock_axum::Problem;

use super::{accept::prefers_page, pages::render};

/// Answers 404: with a page to browsers, and with a problem to all others.
pub(super) async fn not_found(State(options): State<LeptosOptions>, request: Request) -> Response {
    let mut response = if prefers_page(request.headers()) {
        render(&options, Page::NotFound, request).await
    } else {
        let detail =
            "There is nothing at this path. Events are at `/events`, their page is at `/`.";
        Problem::new(StatusCode::NOT_FOUND, detail).into_response()
    };
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    let uncached = HeaderValue::from_static("no-cache, no-transform");
    response.headers_mut().insert(CACHE_CONTROL, uncached);
    response
}

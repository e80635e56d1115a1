//! The files that the pages need: style, script, WebAssembly, and what is in `public/`.

use axum::{
    Router,
    handler::Handler as _,
    http::{HeaderValue, header::CACHE_CONTROL},
};
use tower_http::{services::ServeDir, set_header::SetResponseHeader};

use crate::{pages, router::AppState};

/// The URL of a file, given its path in the site.
pub(crate) fn url(path: &'static str) -> &'static str {
    path
}

/// Serves the files; whatever is none is not found.
pub(crate) fn router(state: &AppState) -> Router<AppState> {
    let files = ServeDir::new(&*state.leptos.site_root)
        .append_index_html_on_directories(false)
        .call_fallback_on_method_not_allowed(true)
        .fallback(pages::not_found.with_state(state.clone()));
    // The files keep their names when they change, so a browser asks again before using one: old
    // glue code does not fit new markup.
    let no_cache = HeaderValue::from_static("no-cache");
    let files = SetResponseHeader::if_not_present(files, CACHE_CONTROL, no_cache);
    Router::new().fallback_service(files)
}

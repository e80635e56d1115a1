//! The files that the pages need: style, script, WebAssembly, and what is in `public/`. A program built
//! with the feature `embed` has them inside, and serves each under a name with its hash; others read
//! them from disk, where `cargo leptos` has put them.

#[cfg(feature = "embed")]
mod embedded {
    use std::sync::LazyLock;

    use axum::{
        Router,
        http::{HeaderValue, header::CACHE_CONTROL},
        middleware::map_response,
        response::Response,
    };
    use leptos::config::LeptosOptions;
    use memory_serve::{CacheControl, Manifest, MemoryServe};
    use tracing::subscriber::{NoSubscriber, with_default};

    use crate::{pages, router::AppState};

    fn site() -> MemoryServe {
        memory_serve::load!()
            .index_file(None)
            .cache_control(CacheControl::NoCache)
            .enable_hashed_routes(true)
    }

    static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| site().manifest());

    /// The URL of a file, given its path in the site.
    pub(crate) fn url(path: &'static str) -> &'static str {
        MANIFEST.get(path).unwrap_or(path)
    }

    /// Whether the site has that file.
    pub(crate) fn has(_: &LeptosOptions, path: &str) -> bool {
        MANIFEST.get(path).is_some()
    }

    /// Serves the files; whatever is none is not found.
    pub(crate) fn router(_: &AppState) -> Router<AppState> {
        // It logs every file, which nobody who starts the program asks for.
        with_default(NoSubscriber::new(), || site().into_router())
            .layer(map_response(share))
            .fallback(pages::not_found)
    }

    /// Lets shared caches keep what never changes, also where a proxy asks for a password.
    async fn share(mut response: Response) -> Response {
        if let Some(value) = response.headers_mut().get_mut(CACHE_CONTROL)
            && value == "max-age=31536000, immutable"
        {
            *value = HeaderValue::from_static("public, max-age=31536000, immutable");
        }
        response
    }
}

#[cfg(not(feature = "embed"))]
mod on_disk {
    use std::path::Path;

    use axum::{
        Router,
        handler::Handler as _,
        http::{HeaderValue, header::CACHE_CONTROL},
    };
    use leptos::config::LeptosOptions;
    use tower_http::{services::ServeDir, set_header::SetResponseHeader};

    use crate::{pages, router::AppState};

    /// The URL of a file, given its path in the site.
    pub(crate) fn url(path: &'static str) -> &'static str {
        path
    }

    /// Whether the site has that file.
    pub(crate) fn has(options: &LeptosOptions, path: &str) -> bool {
        Path::new(&*options.site_root).join(path.trim_start_matches('/')).is_file()
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
}

#[cfg(feature = "embed")]
pub(crate) use embedded::{has, router, url};
#[cfg(not(feature = "embed"))]
pub(crate) use on_disk::{has, router, url};

//! The files of the pages: style, script, WebAssembly, and those in `public/`. A program with the
//! feature `embed` contains them, and serves each under a name with its hash. Without it they are
//! read from the disk, where `cargo leptos` has put them.

#[cfg(feature = "embed")]
mod embedded {
    use std::sync::LazyLock;

    use axum::{
        Router,
        handler::Handler,
        http::{HeaderValue, header::CACHE_CONTROL},
        middleware::map_response,
        response::Response,
    };
    use leptos::config::LeptosOptions;
    use memory_serve::{CacheControl, Manifest, MemoryServe};
    use tracing::subscriber::{NoSubscriber, with_default};

    use crate::state::AppState;

    fn site() -> MemoryServe {
        memory_serve::load!()
            .index_file(None)
            .cache_control(CacheControl::NoCache)
            .enable_hashed_routes(true)
    }

    static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| site().manifest());

    /// Returns the URL of a file, given its path in the site.
    pub(crate) fn url(path: &'static str) -> &'static str {
        MANIFEST.get(path).unwrap_or(path)
    }

    /// Returns `true` if the site has the file.
    pub(crate) fn has(_: &LeptosOptions, path: &str) -> bool {
        MANIFEST.get(path).is_some()
    }

    /// Serves the files, and other paths by `not_found`.
    pub(crate) fn router<T: 'static>(
        _: &AppState,
        not_found: impl Handler<T, AppState>,
    ) -> Router<AppState> {
        // It prints every file, which does not interest anyone who starts the program.
        with_default(NoSubscriber::new(), || site().into_router())
            .layer(map_response(share))
            .fallback(not_found)
    }

    /// Lets shared caches store immutable files, even behind a proxy that asks for a password.
    /// Nothing on the way may change a file.
    async fn share(mut response: Response) -> Response {
        if let Some(value) = response.headers_mut().get_mut(CACHE_CONTROL) {
            *value = HeaderValue::from_static(match value.as_bytes() {
                b"max-age=31536000, immutable" => {
                    "public, max-age=31536000, immutable, no-transform"
                }
                _ => "no-cache, no-transform",
            });
        }
        response
    }
}

#[cfg(not(feature = "embed"))]
mod on_disk {
    use std::path::Path;

    use axum::{
        Router,
        handler::Handler,
        http::{HeaderValue, header::CACHE_CONTROL},
    };
    use leptos::config::LeptosOptions;
    use tower_http::{services::ServeDir, set_header::SetResponseHeader};

    use crate::state::AppState;

    /// Returns the URL of a file, given its path in the site.
    pub(crate) fn url(path: &'static str) -> &'static str {
        path
    }

    /// Returns `true` if the site has the file.
    pub(crate) fn has(options: &LeptosOptions, path: &str) -> bool {
        Path::new(&*options.site_root).join(path.trim_start_matches('/')).is_file()
    }

    /// Serves the files, and other paths by `not_found`.
    pub(crate) fn router<T: 'static>(
        state: &AppState,
        not_found: impl Handler<T, AppState>,
    ) -> Router<AppState> {
        let files = ServeDir::new(&*state.leptos.site_root)
            .append_index_html_on_directories(false)
            .call_fallback_on_method_not_allowed(true)
            .fallback(not_found.with_state(state.clone()));
        // Files keep their names when they change, so a browser must revalidate them: old glue code
        // does not fit new markup.
        let no_cache = HeaderValue::from_static("no-cache, no-transform");
        let files = SetResponseHeader::if_not_present(files, CACHE_CONTROL, no_cache);
        Router::new().fallback_service(files)
    }
}

#[cfg(feature = "embed")]
pub(crate) use embedded::{has, router, url};
#[cfg(not(feature = "embed"))]
pub(crate) use on_disk::{has, router, url};

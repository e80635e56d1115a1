//! The server: a route that ticks once a second, and the page. To run it:
//!
//! ```sh
//! cargo build -p tutorial --lib --no-default-features --features hydrate \
//!     --target wasm32-unknown-unknown
//! wasm-bindgen --target web --out-dir target/tutorial \
//!     target/wasm32-unknown-unknown/debug/tutorial.wasm
//! cargo run -p tutorial
//! ```

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    response::sse::{Event, Sse},
    routing::get,
};
use futures_util::{Stream, stream};
use leptos::prelude::*;
use leptos_axum::render_app_to_stream;
use tower_http::services::ServeDir;
use tutorial::App;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router()).await
}

fn router() -> Router {
    // Leptos renders on tokio. An error means that the executor is set already.
    let _ = any_spawner::Executor::init_tokio();
    Router::new()
        .route("/", get(render_app_to_stream(document)))
        .route("/ticks", get(ticks))
        .nest_service("/pkg", ServeDir::new("target/tutorial"))
}

/// Sends the number of seconds, once a second.
async fn ticks() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let interval = tokio::time::interval(Duration::from_secs(1));
    Sse::new(stream::unfold((interval, 1), |(mut interval, tick)| async move {
        interval.tick().await;
        Some((Ok(Event::default().data(format!("tick {tick}"))), (interval, tick + 1)))
    }))
}

fn document() -> impl IntoView {
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <title>"Ticks"</title>
                <script type="module">
                    "import init, { hydrate } from '/pkg/tutorial.js'; await init(); hydrate();"
                </script>
            </head>
            <body>
                <App />
            </body>
        </html>
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use futures_util::StreamExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn first_chunk(path: &str) -> String {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let mut body = router().oneshot(request).await.unwrap().into_body().into_data_stream();
        String::from_utf8(body.next().await.unwrap().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_page_and_the_first_tick_arrive() {
        assert!(first_chunk("/").await.contains("<button>Stop</button>"));
        assert_eq!(first_chunk("/ticks").await, "data: tick 1\n\n");
    }
}

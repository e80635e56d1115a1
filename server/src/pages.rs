//! The pages, rendered with the latest events in them, and the files that they need.

use any_spawner::Executor;
use app::{Page, Snapshot, shell};
use axum::{
    Router,
    extract::{Request, State},
    handler::Handler as _,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, HOST},
    },
    response::Response,
    routing::get,
};
use leptos::prelude::provide_context;
use leptos_axum::render_app_to_stream_with_context;
use tower_http::{services::ServeDir, set_header::SetResponseHeader};
use waterclock::hub::Hub;

use crate::router::AppState;

/// How many events a page has in it when it arrives.
const EVENTS: usize = 20;

/// The pages' routes; whatever has no route is a file of the site, or not found.
pub(crate) fn router(state: &AppState) -> Router<AppState> {
    // Leptos renders on tokio. An error says that an earlier router has said so already.
    let _ = Executor::init_tokio();
    // The files keep their names when they change, so a browser asks again before using one: old glue
    // code does not fit new markup.
    let files = ServeDir::new(&*state.leptos.site_root)
        .append_index_html_on_directories(false)
        .fallback(not_found.with_state(state.clone()));
    let files = SetResponseHeader::if_not_present(
        files,
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache"),
    );
    Router::new().route("/", get(home)).fallback_service(files)
}

async fn home(State(state): State<AppState>, request: Request) -> Response {
    let page = Page::Home(snapshot(&state.hub, request.headers()));
    render(&state, page, request).await
}

async fn not_found(State(state): State<AppState>, request: Request) -> Response {
    let mut response = render(&state, Page::NotFound, request).await;
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Answers with a page.
async fn render(state: &AppState, page: Page, request: Request) -> Response {
    let options = state.leptos.clone();
    let context = move || provide_context(page.clone());
    let document = move || shell(options.clone());
    let mut response = render_app_to_stream_with_context(context, document)(request).await;
    // A page has events in it, so only its reader may keep it, and asks again before using it.
    let private = HeaderValue::from_static("private, no-cache");
    response.headers_mut().insert(CACHE_CONTROL, private);
    response
}

/// What the page shows before any stream has told it more.
fn snapshot(hub: &Hub, headers: &HeaderMap) -> Snapshot {
    let latest = hub.latest(EVENTS);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    Snapshot { events: latest.events, cursor: Some(latest.cursor), host: host.to_owned() }
}

//! The pages, rendered with the latest events in them, and the files that they need.

use std::sync::Arc;

use app::{App, Snapshot, shell};
use axum::{
    Router,
    handler::Handler as _,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, HOST},
        request::Parts,
    },
};
use leptos::prelude::{provide_context, use_context};
use leptos_axum::{LeptosRoutes, file_and_error_handler, generate_route_list};
use tower_http::{
    services::ServeDir,
    set_header::{SetResponseHeader, SetResponseHeaderLayer},
};
use waterclock::{event::Topic, hub::Hub};

use crate::{
    access::{Access, Local},
    router::AppState,
};

/// How many events a page has in it when it arrives.
const EVENTS: usize = 20;

/// The pages' routes; whatever has no route is a file of the site, or not found.
pub(crate) fn router(state: &AppState) -> Router<AppState> {
    let (hub, access) = (Arc::clone(&state.hub), state.access.clone());
    let options = state.leptos.clone();
    // A page has events in it, so only its reader may keep it, and asks again before using it.
    let private = HeaderValue::from_static("private, no-cache");
    // The files keep their names when they change, so a browser asks again before using one: old glue
    // code does not fit new markup.
    let files = ServeDir::new(&*options.site_root)
        .append_index_html_on_directories(false)
        .fallback(file_and_error_handler::<AppState, _>(shell).with_state(state.clone()));
    let files = SetResponseHeader::if_not_present(
        files,
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache"),
    );
    Router::new()
        .leptos_routes_with_context(
            state,
            generate_route_list(App),
            move || provide_context(snapshot(&hub, &access)),
            move || shell(options.clone()),
        )
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, private))
        .fallback_service(files)
}

/// What the page shows before any stream has told it more.
fn snapshot(hub: &Hub, access: &Access) -> Snapshot {
    let Some(parts) = use_context::<Parts>() else { return Snapshot::default() };
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or("localhost").to_owned();
    if Local::of(&parts, access).may_read(&Topic::clock(), access).is_err() {
        return Snapshot { host, ..Snapshot::default() };
    }
    let latest = hub.latest(EVENTS);
    Snapshot { events: latest.events, cursor: Some(latest.cursor), host }
}

//! The pages, rendered with the latest events in them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use any_spawner::Executor;
use app::{Assets, Page, compare::CompareData, home::HomeData, shell};
use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, VARY},
    },
    response::{IntoResponse as _, Response},
    routing::get,
};
use leptos::{config::LeptosOptions, nonce::use_nonce, prelude::use_context};
use leptos_axum::{ResponseOptions, render_app_to_stream_with_context};
use waterclock::{
    event::Topic,
    hub::Latest,
    pattern::{Pattern, Patterns},
};

use crate::{
    access::{Caller, Reader},
    headers::page_policy,
    problem::Problem,
    router::AppState,
    site,
};

/// How many events a page has in it when it arrives.
const EVENTS: usize = 20;

/// The pages' routes.
pub(crate) fn router() -> Router<AppState> {
    // Leptos renders on tokio. An error says that an earlier router has said so already.
    let _ = Executor::init_tokio();
    Router::new()
        .route("/", get(home))
        .route("/compare", get(compare_page))
        .route("/diagnose", get(diagnose_page))
}

async fn compare_page(State(state): State<AppState>, caller: Caller, request: Request) -> Response {
    let given = CompareData { may_load: caller.is_ours().is_ok() };
    render(&state, Page::Compare(given), request).await
}

async fn diagnose_page(State(state): State<AppState>, request: Request) -> Response {
    render(&state, Page::Diagnose, request).await
}

async fn home(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let page = Page::Home(snapshot(&state, &caller, &uri, &headers).await);
    render(&state, page, request).await
}

/// What has no route is not found: browsers get a page that says so.
pub(crate) async fn not_found(State(state): State<AppState>, request: Request) -> Response {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let mut response = if accept.is_some_and(|accept| accept.contains("text/html")) {
        render(&state, Page::NotFound, request).await
    } else {
        Problem::NothingHere.into_response()
    };
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Answers with a page.
async fn render(state: &AppState, page: Page, request: Request) -> Response {
    let options = state.leptos.clone();
    let connect = reload_source(&options);
    let context = move || set_policy(&connect);
    let assets = Assets { url: site::url, are_split: site::has(&options, "/pkg/compare.js") };
    let document = move || shell(options.clone(), assets, page.clone());
    let mut response = render_app_to_stream_with_context(context, document)(request).await;
    // A page has events in it, so only its reader may keep it, and asks again before using it.
    let private = HeaderValue::from_static("private, no-cache");
    response.headers_mut().insert(CACHE_CONTROL, private);
    response
}

/// Lets the page's own scripts run, which have the nonce that Leptos has drawn for this answer.
fn set_policy(connect: &str) {
    // leptos_axum provides both. Without them, the answer has the policy that loads nothing.
    let (Some(nonce), Some(response)) = (use_nonce(), use_context::<ResponseOptions>()) else {
        return;
    };
    if let Ok(policy) = HeaderValue::try_from(page_policy(&nonce, connect)) {
        response.insert_header(CONTENT_SECURITY_POLICY, policy);
    }
}

/// Where the page hears from `cargo leptos watch` that it is to reload.
fn reload_source(options: &LeptosOptions) -> String {
    if std::env::var_os("LEPTOS_WATCH").is_none() {
        return String::new();
    }
    format!(" ws://*:{}", options.reload_external_port.unwrap_or(options.reload_port))
}

/// The topics that the query asks for: several with spaces between them, or repeated.
fn topics(uri: &Uri) -> Vec<String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == "topic")
        .flat_map(|(_, topics)| topics.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// What the page shows before any stream has told it more.
async fn snapshot(state: &AppState, caller: &Caller, uri: &Uri, headers: &HeaderMap) -> HomeData {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let topics = topics(uri);
    let pairs = topics.iter().map(|topic| ("topic", topic));
    let snapshot = HomeData {
        topics: topics.join(" "),
        query: form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish(),
        host: host.to_owned(),
        may_publish: caller.may_publish_any(),
        ..HomeData::default()
    };

    // What is no pattern the stream will refuse, and say why.
    let patterns: Result<Vec<Pattern>, _> = topics.iter().map(|topic| topic.parse()).collect();
    let Ok(patterns) = patterns else { return snapshot };
    let patterns = Patterns::new(patterns).unwrap_or(Topic::clock().into());
    let Ok(reader) = caller.reads_as(&patterns, &state.access) else {
        return HomeData { is_refused: true, ..snapshot };
    };
    let snapshot = HomeData { group: group(&reader, &patterns), ..snapshot };
    match state.hub.latest(&patterns, EVENTS).await {
        Ok(Latest { events, cursor }) => HomeData { events, cursor: Some(cursor), ..snapshot },
        Err(error) => {
            // The page is there all the same, and its stream says more.
            tracing::error!(error = &error as &dyn std::error::Error, "a page has no events");
            snapshot
        }
    }
}

/// The name of those who read the same by the same permission. It tells no more than whether they do.
fn group(reader: &Reader<'_>, patterns: &Patterns) -> String {
    // Always the same, whichever server it is, for as long as pages live.
    let mut hasher = DefaultHasher::new();
    reader.hash(&mut hasher);
    patterns.iter().for_each(|pattern| pattern.hash(&mut hasher));
    // The number is of what the tabs say to each other, should that change.
    format!("waterclock-2-{:016x}", hasher.finish())
}

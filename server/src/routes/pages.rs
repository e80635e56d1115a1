//! The pages, rendered with the latest events in them.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use any_spawner::Executor;
use app::{
    Assets, Page,
    compare::CompareData,
    home::{HomeData, KnownRefusal, PastEnd},
    shell,
    topics::{ListedTopic, NewestEvent, Search, TopicsData},
};
use axum::{
    Extension,
    extract::{Request, State},
    http::{
        Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, VARY},
    },
    middleware::Next,
    response::Response,
    routing::{MethodRouter, get},
};
use leptos::{config::LeptosOptions, nonce::use_nonce, prelude::use_context};
use leptos_axum::{ResponseOptions, render_app_to_stream_with_context};
use waterclock::{
    event::Topic,
    event_log::{EventLogError, ReadLimit},
    hub::{Hub, Latest, TopicFilter},
    pattern::{Pattern, Patterns},
};
use waterclock_axum::{DenialHook, Denied, Problem, limits::MAX_PATTERNS};

use super::{accept::prefers_page, headers::page_policy, site};
use crate::{
    auth::{Access, AuthError, Caller, ReadPermission, SharedAccess},
    limits::{PAGE_BYTES, PAGE_EVENTS, PAGE_TOPICS, PAUSED_PAGE_EVENTS, SEARCHED_TOPICS},
    state::AppState,
};

/// Returns the routes of the pages.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<AppState>)> {
    // Leptos renders on tokio. An error means that an earlier router has set that already.
    let _ = Executor::init_tokio();
    let mut routes = vec![("/", get(home)), ("/diagnose", get(diagnose_page))];
    if cfg!(feature = "compare") {
        routes.push(("/compare", get(compare_page)));
    }
    routes
}

async fn compare_page(
    State(options): State<LeptosOptions>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Response {
    let data = CompareData { may_load: caller.require_own().is_ok() };
    render(&options, Page::Compare(data), request).await
}

async fn diagnose_page(State(options): State<LeptosOptions>, request: Request) -> Response {
    render(&options, Page::Diagnose, request).await
}

async fn home(
    State(options): State<LeptosOptions>,
    State(hub): State<Arc<Hub>>,
    State(access): State<SharedAccess>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Response {
    let (uri, headers, extensions) = (request.uri(), request.headers(), request.extensions());
    let data = home_data(&hub, &access.load(), &caller, uri, headers, extensions).await;
    render(&options, Page::Home(data), request).await
}

/// Answers `GET /topics` with the page to a client that prefers one, and lets the route of events
/// answer all others.
pub(super) async fn topics(
    State(options): State<LeptosOptions>,
    State(hub): State<Arc<Hub>>,
    State(access): State<SharedAccess>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
    next: Next,
) -> Response {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    if !is_read || !prefers_page(request.headers()) {
        return next.run(request).await;
    }
    let (uri, headers, extensions) = (request.uri(), request.headers(), request.extensions());
    let data = topics_data(&hub, &access.load(), &caller, uri, headers, extensions).await;
    let mut response = render(&options, Page::Topics(data), request).await;
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Answers with a page.
pub(super) async fn render(options: &LeptosOptions, page: Page, request: Request) -> Response {
    let options = options.clone();
    let connect = reload_source(&options);
    let context = move || set_policy(&connect);
    let assets = Assets {
        url: site::url,
        are_split: site::has(&options, "/pkg/compare.js"),
        has_compare: cfg!(feature = "compare"),
    };
    let document = move || shell(options.clone(), assets, page.clone());
    let mut response = render_app_to_stream_with_context(context, document)(request).await;
    // A page contains events, so only its reader may store it, and must revalidate it. Proxies that
    // rewrite pages, and thereby the events in them, leave out those with `no-transform`.
    let private = HeaderValue::from_static("private, no-cache, no-transform");
    response.headers_mut().insert(CACHE_CONTROL, private);
    response
}

/// Permits the page's own scripts, which have the nonce that Leptos has drawn for this response.
fn set_policy(connect: &str) {
    // leptos_axum provides both. Without them, the response has the policy that loads nothing.
    let (Some(nonce), Some(response)) = (use_nonce(), use_context::<ResponseOptions>()) else {
        return;
    };
    if let Ok(policy) = HeaderValue::try_from(page_policy(&nonce, connect)) {
        response.insert_header(CONTENT_SECURITY_POLICY, policy);
    }
}

/// Returns the source from which `cargo leptos watch` tells pages to reload, for the policy.
fn reload_source(options: &LeptosOptions) -> String {
    if std::env::var_os("LEPTOS_WATCH").is_none() {
        return String::new();
    }
    format!(" ws://*:{}", options.reload_external_port.unwrap_or(options.reload_port))
}

/// Returns the values of a parameter of the query.
fn values(uri: &Uri, wanted: &str) -> Vec<String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == wanted)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// Returns the host and the port that the client has requested.
fn requested_host(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.unwrap_or("localhost").to_owned()
}

/// Returns the topics of a query: separated by spaces or commas, or in repeated parameters.
fn topics_of(uri: &Uri) -> Vec<String> {
    values(uri, "topic")
        .into_iter()
        .flat_map(|topics| {
            let topics = topics.split(|letter: char| letter == ',' || letter.is_whitespace());
            topics.filter(|topic| !topic.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Returns `true` for `refresh=0`. Then a browser without JavaScript must not load the page again
/// by itself.
fn is_paused(uri: &Uri) -> bool {
    values(uri, "refresh").iter().any(|value| value == "0")
}

/// Returns the problem of a refused permission. The server's output says so too, since the response
/// itself is a page.
fn denied(request: &Extensions, why: AuthError) -> Problem {
    let problem = Denied::from(why).into();
    DenialHook::call(request, &problem);
    problem
}

/// Returns the content of the page before its stream begins.
async fn home_data(
    hub: &Hub,
    access: &Access,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> HomeData {
    let topics = topics_of(uri);
    let is_paused = is_paused(uri);
    let pairs = topics.iter().map(|topic| ("topic", topic));
    let data = HomeData {
        topics: topics.join(" "),
        query: form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish(),
        host: requested_host(headers),
        may_publish: caller.may_publish_some(access),
        as_of: Some(hub.now()),
        is_paused,
        ..HomeData::default()
    };

    let pattern = |topic: &String| topic.parse::<Pattern>().map_err(|error| (topic.clone(), error));
    let patterns = match topics.iter().map(pattern).collect::<Result<Vec<_>, _>>() {
        Ok(patterns) => Patterns::new(patterns).unwrap_or(Topic::clock().into()),
        Err((topic, error)) => {
            let problem = Problem::new(StatusCode::BAD_REQUEST, format!("{topic:?} is {error}."));
            return refused(data, &problem);
        }
    };
    if patterns.iter().count() > MAX_PATTERNS {
        let detail = format!("A page may have at most {MAX_PATTERNS} topics. Use wildcards.");
        return refused(data, &Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let permission = match caller.read_permission(&patterns, access) {
        Ok(permission) => permission,
        Err(why) => return refused(data, &denied(extensions, why)),
    };
    let data = HomeData { group: group(&permission, &patterns), ..data };
    let count = if is_paused { PAUSED_PAGE_EVENTS } else { PAGE_EVENTS };
    match hub.latest(&patterns, ReadLimit { count, bytes: PAGE_BYTES }).await {
        Ok(Latest { events, gap, before, ends, cursor }) => {
            let ends = ends.iter().filter_map(PastEnd::of).collect();
            HomeData { events, gap, before, ends, cursor: Some(cursor), ..data }
        }
        Err(error) => {
            // The page works without them, and its stream reports the error.
            tracing::error!(error = &error as &dyn std::error::Error, "a page has no events");
            data
        }
    }
}

/// Adds the problem with which the stream would be refused.
fn refused(data: HomeData, problem: &Problem) -> HomeData {
    HomeData { refusal: Some(known_refusal(problem)), ..data }
}

/// Returns the problem with which a stream would be refused, as its page has it.
fn known_refusal(problem: &Problem) -> KnownRefusal {
    KnownRefusal { status: problem.status().as_u16(), detail: problem.to_string() }
}

/// Returns the name that tabs share if they read the same topics with the same permission. It
/// reveals nothing else.
fn group(permission: &ReadPermission<'_>, patterns: &Patterns) -> String {
    // This hasher gives the same result on each server, as long as pages live.
    let mut hasher = DefaultHasher::new();
    permission.hash(&mut hasher);
    patterns.iter().for_each(|pattern| pattern.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

/// Returns the content of the page of topics before its live view begins.
async fn topics_data(
    hub: &Hub,
    access: &Access,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> TopicsData {
    let after = values(uri, "after").pop().filter(|after| !after.is_empty());
    let after = after.map(|after| after.parse::<Topic>().map_err(|_| after)).transpose();
    let data = TopicsData {
        topics: Vec::new(),
        next: None,
        search: values(uri, "match").join(" "),
        time: hub.now(),
        host: requested_host(headers),
        refusal: None,
        has_failed: false,
        problem: after.as_ref().err().map(|after| {
            format!("{after:?} is not a topic after which a page begins. This is the first page.")
        }),
        may_publish: caller.may_publish_some(access),
    };
    let allowed = match caller.may_list(&Pattern::all().into(), access) {
        Ok((allowed, _)) => allowed,
        Err(why) => {
            let refusal = Some(known_refusal(&denied(extensions, why)));
            return TopicsData { refusal, ..data };
        }
    };
    // The page says what is wrong with a search.
    let Ok(search) = Search::parse(&data.search) else { return data };
    let filter = TopicFilter::new(&search.patterns(), allowed);
    let (names, next) = found_topics(hub, &filter, &search, after.unwrap_or_default()).await;
    match listed(hub, &names).await {
        Ok(topics) => TopicsData { topics, next, ..data },
        Err(error) => {
            // The page's view tries to read them again.
            tracing::error!(error = &error as &dyn std::error::Error, "a page has no topics");
            let why = "The topics could not be read. The server's output says why.";
            TopicsData { has_failed: true, problem: Some(why.to_owned()), ..data }
        }
    }
}

/// Returns the first topics after `after` that are found by a search, and the last topic that was
/// looked at, unless there is no further one.
async fn found_topics(
    hub: &Hub,
    filter: &TopicFilter,
    search: &Search,
    mut after: Option<Topic>,
) -> (Vec<Topic>, Option<Topic>) {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    while found.len() < PAGE_TOPICS && looked_at < SEARCHED_TOPICS {
        let names = hub.topics(filter, after.as_ref(), PAGE_TOPICS);
        if names.is_empty() {
            return (found, None);
        }
        for name in names {
            if found.len() < PAGE_TOPICS {
                looked_at += 1;
                found.extend(search.matches(&name).then(|| name.clone()));
                after = Some(name);
            }
        }
        tokio::task::yield_now().await;
    }
    let has_next = !hub.topics(filter, after.as_ref(), 1).is_empty();
    (found, after.filter(|_| has_next))
}

/// Returns topics with their figures.
async fn listed(hub: &Hub, topics: &[Topic]) -> Result<Vec<ListedTopic>, EventLogError> {
    let (figures, readers) = tokio::join!(hub.figures(topics), hub.readers(topics));
    let figures = figures?.into_iter().zip(readers);
    let listed = figures.map(|(figures, readers)| ListedTopic {
        topic: figures.topic,
        events: figures.events as u64,
        bytes: figures.bytes,
        published: figures.published,
        newest: figures.newest.map(|newest| NewestEvent { time: newest.time }),
        readers: readers.exact as u64,
        pattern_readers: readers.by_pattern as u64,
        outcome: figures.outcome,
    });
    Ok(listed.collect())
}

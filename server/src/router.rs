//! The table of routes, and the state that they share.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    middleware::{map_request, map_response, map_response_with_state},
    routing::{get, post},
};
use leptos::config::LeptosOptions;
use waterclock::hub::Hub;

use crate::{
    access::Access,
    client::TrustedProxy,
    events, headers, health,
    load::{self, Load},
    meter::{self, Meters},
    metrics::{self, Metrics},
    pages, poll, probe,
    problem::Problem,
    publish::{self, PublishRate, Running},
    site,
    stop::Stop,
    streams::Streams,
    strict, ws,
};

/// What the handlers share.
#[derive(Clone)]
pub struct AppState {
    /// Where events come from.
    pub hub: Arc<Hub>,
    /// How streams behave.
    pub stream_settings: StreamSettings,
    /// Where the page's files are, and what they are called.
    pub leptos: LeptosOptions,
    /// The open streams.
    pub streams: Streams,
    /// Who may read and publish.
    pub access: Access,
    /// Whose word on where a request comes from is taken.
    pub trusted_proxies: Arc<[TrustedProxy]>,
    /// How long a client may take to send the data of an event.
    pub body_time_out: Duration,
    /// How often others than this machine may publish.
    pub publish_rate: Arc<PublishRate>,
    /// The publishes with a key that are not answered yet.
    pub running: Running,
    /// What clients have counted.
    pub meters: Meters,
    /// The built-in load.
    pub load: Load,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Once it begins, the streams say goodbye.
    pub stop: Stop,
}

/// How streams behave.
#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    /// After so long without an event comes a heartbeat.
    pub heartbeat: Duration,
    /// What clients are told to wait before they connect again.
    pub retry: Duration,
    /// How long a stop may take.
    pub drain: Duration,
}

/// The interface, as `OpenAPI` 3.1; a test holds it against what the server does.
const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// All that the server serves.
pub fn router(state: AppState) -> Router {
    let events = Router::new()
        .route("/events", get(events::stream).head(events::head))
        .route("/ws", get(ws::upgrade))
        .route("/poll", get(poll::poll))
        .route("/events/{topic}", post(publish::publish).put(publish::publish))
        // Here too, since what a layer has wrapped keeps its fallback.
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed);
    let events = match state.access.cors() {
        Some(cors) => events.layer(cors),
        None => events,
    };
    Router::new()
        .merge(events)
        .route("/diagnose/stream", get(probe::stream).post(probe::stream).head(probe::head))
        .route("/load", post(load::start).delete(load::end))
        .route("/meters/{meter}", get(meter::read))
        .route("/meters/{meter}/cut", post(meter::cut))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)))
        .route("/time", get(health::time))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .merge(pages::router())
        .merge(site::router(&state))
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(map_request(strict::check))
        .layer(map_response(headers::add))
        .layer(map_response_with_state(state.clone(), metrics::count_refused))
        .with_state(state)
}

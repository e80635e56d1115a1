//! Live events in an axum app: Server-Sent Events, WebSocket and polling over the hub of
//! [`waterclock`], and publishing over HTTP.
//!
//! A client that reconnects resumes exactly after the last event that it received. A slow client
//! delays nobody, and catches up from the event log. Events that can no longer be replayed are
//! announced, never skipped in silence.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::{Router, routing::get};
//! use waterclock::{event::Draft, hub::Hub};
//! use waterclock_axum::EventRoutes;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let hub = Arc::new(Hub::in_memory());
//! let app: Router = Router::new()
//!     .route("/", get(async || "Read /events?topic=orders.*"))
//!     .merge(EventRoutes::new(Arc::clone(&hub)).router());
//!
//! hub.publish(Draft::new("orders.eu".parse()?, "a new order")).await?;
//! # let _ = app;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Serve the app with `axum::serve`. By default anyone may read, and nobody may publish over HTTP;
//! a [`Policy`] decides otherwise.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `routes` | the table of routes, and a file per route |
//! | `subscription`, `query` | a validated, authorized subscription request |
//! | `parameters` | names of query parameters that a route does not have |
//! | `session` | the event loop of one connected client |
//! | `gathering` | the rule by which its events leave together |
//! | `sse` | its encoding as `text/event-stream` |
//! | [`group`] | streams that rest together once they have sent everything |
//! | `deadline` | the end of a permission, by the clock that reaches it first |
//! | `standing` | permissions that a change of the policy may take away |
//! | `admission`, `publish_rate`, `idempotency` | the checks that all ways to publish share |
//! | `state` | the state of the routes, in the parts that each needs |
//! | [`policy`] | the hook that decides who may read and publish what |
//! | [`problem`] | the error type of the HTTP edge (RFC 9457) |
//! | [`limits`] | the limits of the interface, and the adjustable ones |
//! | [`streams`] | the registry of open streams |
//! | [`metrics`] | counters for Prometheus |
//! | [`stop`] | the shutdown signal |
//! | [`connection`] | the connection below a WebSocket |
//! | [`PublishRoute`] | the route that publishes, without a router |
//! | [`AcceptHook`] | a hook that is called when a subscription is accepted |
//! | [`DenialHook`] | a hook that is called for a permission that is refused within a response |

/// The example in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod accept_hook;
mod admission;
pub mod connection;
mod deadline;
mod denial_hook;
mod ending_uploads;
mod gathering;
pub mod group;
mod idempotency;
pub mod limits;
pub mod metrics;
mod parameters;
pub mod policy;
pub mod problem;
mod publish_rate;
mod publish_route;
mod query;
mod routes;
mod session;
mod sse;
mod standing;
mod state;
pub mod stop;
pub mod streams;
mod subscription;
mod trace_hook;

use std::{fmt, sync::Arc};

use axum::{Router, routing::MethodRouter};
use tokio::time::Instant;
use waterclock::hub::Hub;

pub use accept_hook::AcceptHook;
pub use connection::{ClientEnd, ConnectionCloser, DirectStream, GracefulClose, StreamHandover};
pub use denial_hook::DenialHook;
pub use limits::{Settings, StreamLimits};
pub use metrics::StreamMetrics;
pub use policy::{Denied, Expiry, Policy, Publisher, ReadOnly, TopicLimits};
pub use problem::{AttackSign, Denial, Problem};
pub use publish_rate::PublishRate;
pub use publish_route::PublishRoute;
pub use standing::{Asked, PolicyChanges, StandingPermission};
pub use stop::Stop;
pub use streams::OpenStreams;
pub use trace_hook::TraceHook;
pub use waterclock;

#[cfg(feature = "properties")]
pub use query::properties;

use ending_uploads::EndingUploads;
use idempotency::KeysInFlight;
use state::{PublishContext, RoutesState, StreamContext};

/// The event routes over a hub. Clones share all state, and so do the routers made from them.
#[derive(Clone)]
pub struct EventRoutes {
    hub: Arc<Hub>,
    policy: Arc<dyn Policy>,
    settings: Settings,
    metrics: Arc<StreamMetrics>,
    stop: Stop,
    changes: PolicyChanges,
    streams: OpenStreams,
    publish_rate: Arc<PublishRate>,
    keys: KeysInFlight,
    ending_uploads: EndingUploads,
    traces: Option<TraceHook>,
    started: Instant,
}

impl EventRoutes {
    /// Creates the routes with default settings and the policy [`ReadOnly`].
    pub fn new(hub: impl Into<Arc<Hub>>) -> Self {
        Self::with_settings(hub, Settings::default())
    }

    /// Creates the routes with the policy [`ReadOnly`]. Times beyond the range of timers are
    /// clamped: a heartbeat to 1 ms to 30 days, the others to at most 30 days.
    pub fn with_settings(hub: impl Into<Arc<Hub>>, settings: Settings) -> Self {
        let settings = settings.clamped();
        Self {
            hub: hub.into(),
            policy: Arc::new(ReadOnly),
            settings,
            metrics: Arc::default(),
            stop: Stop::default(),
            changes: PolicyChanges::default(),
            streams: OpenStreams::new(settings.streams, settings.drain),
            publish_rate: Arc::new(PublishRate::new(settings.publish_rate)),
            keys: KeysInFlight::default(),
            ending_uploads: EndingUploads::default(),
            traces: None,
            started: Instant::now(),
        }
    }

    /// Replaces the policy.
    #[must_use]
    pub fn with_policy(self, policy: impl Policy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// Replaces the counters, to share them with a registry.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<StreamMetrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Replaces the shutdown signal. Once it is given, streams say goodbye, and polls are answered.
    #[must_use]
    pub fn with_stop(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    /// Replaces the announcement of changes of the policy. At each of them, open streams, waiting
    /// polls and uploads whose permission is [taken away](Policy::standing) end.
    #[must_use]
    pub fn with_policy_changes(self, changes: PolicyChanges) -> Self {
        Self { changes, ..self }
    }

    /// Traces the events that are published.
    #[must_use]
    pub fn with_traces(self, hook: TraceHook) -> Self {
        Self { traces: Some(hook), ..self }
    }

    /// The registry of open streams, for counting them and for waiting until all have ended.
    pub fn streams(&self) -> OpenStreams {
        self.streams.clone()
    }

    /// The routes `/events`, `/events/{topic}`, `/topics`, `/topics/{topic}`, `/poll` and `/ws`.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.router_with_topics(|topics| topics)
    }

    /// Builds the same router, with the route `/topics` changed by `change`, for example by a layer
    /// that answers browsers with a page.
    pub fn router_with_topics<S: Clone + Send + Sync + 'static>(
        &self,
        change: impl FnOnce(MethodRouter<S>) -> MethodRouter<S>,
    ) -> Router<S> {
        let state = self.state();
        let (path, topics) = routes::topics_route();
        let topics = change(topics.with_state(state.clone()));
        let router = routes::router(routes::event_routes()).with_state(state);
        // The fallback of the others does not apply to a route that is added later.
        let router = router.route(path, topics);
        router.method_not_allowed_fallback(async || Problem::method_not_allowed())
    }

    /// The route `/diagnose/stream`: a short stream made to be measured. It reveals nothing of any
    /// topic, so anyone may read it, within limits.
    #[cfg(feature = "probe")]
    pub fn probe_router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        routes::router(routes::probe_routes()).with_state(self.state())
    }

    /// The handler that publishes, for calling it without a router.
    pub fn publish_route(&self) -> PublishRoute {
        PublishRoute(self.state().publishing)
    }

    /// Returns the paths of these routes, with their parameters in braces.
    pub fn paths() -> Vec<&'static str> {
        let mut routes = routes::event_routes();
        routes.push(routes::topics_route());
        #[cfg(feature = "probe")]
        let routes = [routes, routes::probe_routes()].concat();
        routes.into_iter().map(|(path, _)| path).collect()
    }

    fn state(&self) -> RoutesState {
        let this = self.clone();
        this.metrics.observe(&this.hub);
        let streaming = StreamContext {
            hub: Arc::clone(&this.hub),
            settings: this.settings,
            streams: this.streams,
            metrics: Arc::clone(&this.metrics),
            stop: this.stop.clone(),
            changes: this.changes.clone(),
            started: this.started,
        };
        let publishing = PublishContext {
            hub: this.hub,
            policy: Arc::clone(&this.policy),
            rate: this.publish_rate,
            keys: this.keys,
            ending_uploads: this.ending_uploads,
            traces: this.traces,
            upload_grace: this.settings.upload_grace,
            body_timeout: this.settings.body_timeout,
            metrics: this.metrics,
            stop: this.stop,
            changes: this.changes,
        };
        RoutesState {
            policy: this.policy,
            streaming: Arc::new(streaming),
            publishing: Arc::new(publishing),
        }
    }
}

impl fmt::Debug for EventRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRoutes").field("settings", &self.settings).finish_non_exhaustive()
    }
}

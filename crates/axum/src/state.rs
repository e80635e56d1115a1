//! The shared state of the event routes, in the parts that each needs.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;
use tokio::time::Instant;
use waterclock::hub::Hub;

use crate::{
    ending_uploads::EndingUploads, idempotency::KeysInFlight, limits::Settings,
    metrics::StreamMetrics, policy::Policy, publish_rate::PublishRate, standing::PolicyChanges,
    stop::Stop, streams::OpenStreams, trace_hook::TraceHook,
};

/// The state of the router.
#[derive(Clone)]
pub(crate) struct RoutesState {
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) streaming: Arc<StreamContext>,
    pub(crate) publishing: Arc<PublishContext>,
}

/// The part of the state that streams and polls need.
pub(crate) struct StreamContext {
    pub(crate) hub: Arc<Hub>,
    pub(crate) settings: Settings,
    pub(crate) streams: OpenStreams,
    pub(crate) metrics: Arc<StreamMetrics>,
    pub(crate) stop: Stop,
    pub(crate) changes: PolicyChanges,
    /// Time at which the routes were built.
    #[cfg_attr(not(feature = "probe"), expect(dead_code, reason = "only the probe reports it"))]
    pub(crate) started: Instant,
}

/// The part of the state that publishes need.
pub(crate) struct PublishContext {
    pub(crate) hub: Arc<Hub>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) rate: Arc<PublishRate>,
    pub(crate) keys: KeysInFlight,
    pub(crate) ending_uploads: EndingUploads,
    pub(crate) traces: Option<TraceHook>,
    pub(crate) upload_grace: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) metrics: Arc<StreamMetrics>,
    pub(crate) stop: Stop,
    pub(crate) changes: PolicyChanges,
}

impl FromRef<RoutesState> for Arc<dyn Policy> {
    fn from_ref(state: &RoutesState) -> Self {
        Arc::clone(&state.policy)
    }
}

impl FromRef<RoutesState> for Arc<StreamContext> {
    fn from_ref(state: &RoutesState) -> Self {
        Arc::clone(&state.streaming)
    }
}

impl FromRef<RoutesState> for Arc<PublishContext> {
    fn from_ref(state: &RoutesState) -> Self {
        Arc::clone(&state.publishing)
    }
}

//! The state that the routes share, in the parts that each needs.

use std::sync::Arc;

use axum::extract::FromRef;
use leptos::config::LeptosOptions;
use waterclock::hub::Hub;
use waterclock_axum::{EventRoutes, Settings, Stop, StreamMetrics};

#[cfg(feature = "compare")]
use crate::compare::{load::Load, meter::Meters};
use crate::{
    auth::{Access, SharedAccess},
    ops::metrics::Metrics,
};

/// The state of the router.
#[derive(Clone)]
pub struct AppState {
    /// The hub.
    pub hub: Arc<Hub>,
    /// The routes of events, and the registry of open streams.
    pub events: EventRoutes,
    /// The rules on who may read and publish.
    pub access: SharedAccess,
    /// Names and places of the site's files.
    pub leptos: LeptosOptions,
    /// The server's counters.
    pub metrics: Arc<Metrics>,
    /// The shutdown signal.
    pub stop: Stop,
    /// The meters of pages that compare transports.
    #[cfg(feature = "compare")]
    pub meters: Meters,
    /// The built-in load.
    #[cfg(feature = "compare")]
    pub load: Load,
}

impl AppState {
    /// Builds the state of a server whose rules may be replaced.
    pub fn reloadable(
        hub: impl Into<Arc<Hub>>,
        access: Access,
        settings: Settings,
        leptos: LeptosOptions,
    ) -> Self {
        let hub = hub.into();
        let access = SharedAccess::reloadable(access, Arc::clone(&hub));
        Self::with_access(hub, access, settings, leptos)
    }

    /// Builds the state of a server whose rules never change.
    pub fn new(
        hub: impl Into<Arc<Hub>>,
        access: Access,
        settings: Settings,
        leptos: LeptosOptions,
    ) -> Self {
        Self::with_access(hub.into(), SharedAccess::fixed(access), settings, leptos)
    }

    fn with_access(
        hub: Arc<Hub>,
        access: SharedAccess,
        settings: Settings,
        leptos: LeptosOptions,
    ) -> Self {
        let stop = Stop::default();
        let stream_metrics = Arc::new(StreamMetrics::default());
        let key_metrics =
            access.load().tokens.as_ref().map(|tokens| tokens.metrics()).unwrap_or_default();
        let events = EventRoutes::with_settings(Arc::clone(&hub), settings)
            .with_policy(access.clone())
            .with_policy_changes(access.changes())
            .with_metrics(Arc::clone(&stream_metrics))
            .with_stop(stop.clone());
        Self {
            hub,
            events,
            access,
            leptos,
            metrics: Arc::new(Metrics::new(stream_metrics, key_metrics)),
            stop,
            #[cfg(feature = "compare")]
            meters: Meters::default(),
            #[cfg(feature = "compare")]
            load: Load::default(),
        }
    }
}

/// Implements `FromRef` for parts of the state.
macro_rules! parts {
    ($($(#[$attribute:meta])* $part:ty = $field:ident),+ $(,)?) => {
        $($(#[$attribute])* impl FromRef<AppState> for $part {
            fn from_ref(state: &AppState) -> Self {
                state.$field.clone()
            }
        })+
    };
}

parts! {
    Arc<Hub> = hub,
    EventRoutes = events,
    SharedAccess = access,
    LeptosOptions = leptos,
    Arc<Metrics> = metrics,
    Stop = stop,
    #[cfg(feature = "compare")]
    Meters = meters,
    #[cfg(feature = "compare")]
    Load = load,
}

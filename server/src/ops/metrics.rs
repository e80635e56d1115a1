//! The server's counters, for Prometheus.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use strum::{IntoStaticStr, VariantArray};
use waterclock::hub::Hub;
use waterclock_axum::{
    OpenStreams, StreamMetrics,
    metrics::{CounterByReason, GaugeGuard, ReasonLabel, counters_by_reason, gauge},
};

use super::{key_metrics::KeyMetrics, output};

/// The server's counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    streams: Arc<StreamMetrics>,
    keys: Arc<KeyMetrics>,
    connections_open: Gauge,
    connections_max: Gauge,
    connections_full: Counter,
    streams_direct: Gauge,
    streams_resting: Gauge,
    connections: Counter,
    timed_out: CounterByReason,
    refused: CounterByReason,
    /// Without an entry, there is no TLS, and the metric is left out.
    certificate_end: Family<NoLabels, Gauge>,
}

/// No labels. Unlike a plain gauge, a family of them may have no value.
type NoLabels = [(&'static str, &'static str); 0];

/// The part that a client did not complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum TimedOut {
    /// The first byte of a connection.
    FirstByte,
    /// The TLS handshake.
    Handshake,
    /// The head of the first request.
    Head,
    /// The head of a further request. Most clients have nothing more to ask.
    Idle,
    /// The body of a request.
    Body,
    /// Reading a response.
    Write,
    /// A sign of life (HTTP/2).
    Ping,
}

/// The reason for refusing a connection or a request that may be an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum RefusalReason {
    /// Not valid HTTP/1.1, or readable in more than one way.
    Malformed,
    /// A head or an event's data beyond the limits.
    TooLong,
    /// A request from elsewhere, or from a page of another origin, for what only this machine may
    /// do.
    Foreign,
    /// A failed TLS handshake.
    Tls,
    /// Plain HTTP to a TLS port.
    NoTls,
    /// A violation of HTTP/2, or excessive use of it.
    #[strum(serialize = "http2")]
    Http2,
}

impl Metrics {
    /// Creates the counters, and registers those of streams and of key sets with them.
    pub fn new(streams: Arc<StreamMetrics>, keys: Arc<KeyMetrics>) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("waterclock"),
            streams,
            keys,
            connections_open: Gauge::default(),
            connections_max: Gauge::default(),
            connections_full: Counter::default(),
            streams_direct: Gauge::default(),
            streams_resting: Gauge::default(),
            connections: Counter::default(),
            timed_out: counters_by_reason(TimedOut::VARIANTS.iter().map(Into::into)),
            refused: counters_by_reason(RefusalReason::VARIANTS.iter().map(Into::into)),
            certificate_end: Family::default(),
        };
        metrics.register();
        metrics
    }

    /// Registers each metric. Names of counters get the suffix `_total` when they are written.
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "build",
            "Version of the program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        // Of a clock before 1970, the time does not matter.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(since.as_secs_f64());
        r.register_with_unit(
            "start_time",
            "Time at which the program started, since 1970",
            Unit::Seconds,
            started,
        );
        r.register("connections_open", "Open connections", self.connections_open.clone());
        r.register(
            "connections_max",
            "Maximum number of open connections",
            self.connections_max.clone(),
        );
        r.register(
            "connections_full",
            "Times that the maximum was reached, so that further connections wait",
            self.connections_full.clone(),
        );
        r.register(
            "streams_direct",
            "Open event streams on the direct path",
            self.streams_direct.clone(),
        );
        r.register(
            "streams_resting",
            "Open event streams that have sent everything and rest in a group",
            self.streams_resting.clone(),
        );
        r.register("connections", "Accepted connections", self.connections.clone());
        r.register(
            "connections_timed_out",
            "Connections closed by a timeout, by the part that did not arrive",
            self.timed_out.clone(),
        );
        r.register(
            "refused",
            "Refused connections and requests that may be attacks, by reason",
            self.refused.clone(),
        );
        r.register(
            "output_lost",
            "Lines of the program's output that could not be written",
            output::lost_lines(),
        );
        self.keys.register(r);
        r.register(
            "certificate_expires_timestamp_seconds",
            "Time at which the certificate for TLS expires; 0 if there is none yet",
            self.certificate_end.clone(),
        );
        self.streams.register(r);
    }

    /// The counters of the key sets.
    pub fn keys(&self) -> Arc<KeyMetrics> {
        Arc::clone(&self.keys)
    }

    /// Writes all metrics as `OpenMetrics` text.
    pub fn encode(&self, hub: &Hub, streams: &OpenStreams) -> String {
        self.streams.measure(hub, streams);
        self.keys.measure();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection_open(&self) -> GaugeGuard {
        self.connections.inc();
        GaugeGuard::new(&self.connections_open)
    }

    /// Counts a stream as being on the direct path until the guard is dropped.
    pub fn stream_direct(&self) -> GaugeGuard {
        GaugeGuard::new(&self.streams_direct)
    }

    /// Counts a stream as resting until the guard is dropped.
    pub fn stream_resting(&self) -> GaugeGuard {
        GaugeGuard::new(&self.streams_resting)
    }

    /// Sets the maximum number of open connections.
    pub fn set_max_connections(&self, max: usize) {
        self.connections_max.set(gauge(max));
    }

    /// Sets the end of the certificate, or that there is none yet.
    pub fn set_certificate_end(&self, end: Option<SystemTime>) {
        let end = end.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        let seconds = end.map_or(0, |end| i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
        self.certificate_end.get_or_create(&[]).set(seconds);
    }

    /// Counts that the maximum was reached.
    pub fn capacity_reached(&self) {
        self.connections_full.inc();
    }

    /// Counts a connection that was closed by a timeout.
    pub fn timed_out(&self, part: TimedOut) {
        self.timed_out.get_or_create(&ReasonLabel { reason: part.into() }).inc();
    }

    /// Counts a connection or a request that was refused.
    pub fn refused(&self, reason: RefusalReason) {
        self.refused.get_or_create(&ReasonLabel { reason: reason.into() }).inc();
    }
}

//! Counters of streams, polls and events, for Prometheus.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use strum::{IntoStaticStr, VariantArray};
use waterclock::{
    event_log::{Condition, LogSize},
    hub::{Hub, PublishError},
    notice::{GapReason, GoodbyeReason},
};

use crate::streams::OpenStreams;

/// Bucket bounds for the number of events replayed at the start of a stream.
const REPLAY_EVENTS: [f64; 7] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0];

/// Bucket bounds for the time from a publish to a write, in seconds.
const SECONDS: [f64; 12] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];

/// Bucket bounds for the time of a commit, in seconds. A disk with a cache that survives a power
/// cut takes less than a millisecond; beyond a second, publishers notice.
const COMMIT_SECONDS: [f64; 13] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0];

/// The counters of the event routes.
///
/// ```
/// use prometheus_client::{encoding::text::encode, registry::Registry};
/// use waterclock_axum::StreamMetrics;
///
/// let metrics = StreamMetrics::default();
/// let mut registry = Registry::default();
/// metrics.register(&mut registry);
/// // Before each `encode`, `metrics.measure(&hub, &streams)` updates the gauges.
/// let mut text = String::new();
/// encode(&mut text, &registry)?;
/// assert!(text.contains("streams_open 0"));
/// # Ok::<_, std::fmt::Error>(())
/// ```
#[derive(Debug)]
pub struct StreamMetrics {
    uploads_open: Gauge,
    polls_waiting: Gauge,
    streams_open: Gauge,
    streams: Counter,
    streams_ended: CounterByReason,
    behind_streams: Gauge,
    behind_events: Gauge<u64, AtomicU64>,
    slow_streams: Gauge,
    behind_time: Gauge<f64, AtomicU64>,
    queue: Gauge,
    queue_max: Gauge,
    log: LogGauges,
    events_published: Counter,
    publishes_failed: CounterByReason,
    drops_failed: Counter,
    events_damaged: Counter,
    cluster_lag: Gauge<u64, AtomicU64>,
    cluster_connected: Gauge,
    events_sent: Counter,
    events_skipped: Counter,
    bytes_sent: Counter,
    replay_events: Histogram,
    gaps: CounterByReason,
    publish_to_write: Histogram,
}

/// The gauges and the histogram of the event log.
#[derive(Debug)]
struct LogGauges {
    readable: Gauge,
    writable: Gauge,
    topics: Gauge,
    events: Gauge,
    data: Gauge<u64, AtomicU64>,
    files: Gauge<u64, AtomicU64>,
    volume: Gauge<u64, AtomicU64>,
    free: Gauge<u64, AtomicU64>,
    commits: Histogram,
}

/// The reason for which a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum EndReason {
    /// The client left, or did not read for too long.
    ClientLeft,
    /// The stream sent the number of events that was asked for.
    End,
    /// The server is shutting down.
    Draining,
    /// The limit on open streams is reached.
    Limit,
    /// The client's permission has ended.
    Expired,
    /// The node is behind its cluster.
    Behind,
    /// The event log could not be read.
    LogFailed,
    /// The client broke the rules of the transport.
    Refused,
}

impl EndReason {
    /// The reason as written in metrics and output.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<GoodbyeReason> for EndReason {
    fn from(reason: GoodbyeReason) -> Self {
        match reason {
            GoodbyeReason::Draining => Self::Draining,
            GoodbyeReason::Limit => Self::Limit,
            GoodbyeReason::Expired => Self::Expired,
            GoodbyeReason::Behind => Self::Behind,
        }
    }
}

/// The only label of metrics that are counted by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason, in kebab case.
    pub reason: &'static str,
}

/// A counter per reason.
pub type CounterByReason = Family<ReasonLabel, Counter>;

/// Creates counters that start at 0, since a rate needs a value before the first increment.
pub fn counters_by_reason(reasons: impl IntoIterator<Item = &'static str>) -> CounterByReason {
    let counters = CounterByReason::default();
    for reason in reasons {
        drop(counters.get_or_create(&ReasonLabel { reason }));
    }
    counters
}

/// An increment of a gauge that is undone on drop.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Increments the gauge.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for StreamMetrics {
    fn default() -> Self {
        Self {
            uploads_open: Gauge::default(),
            polls_waiting: Gauge::default(),
            streams_open: Gauge::default(),
            streams: Counter::default(),
            streams_ended: counters_by_reason(EndReason::VARIANTS.iter().map(Into::into)),
            behind_streams: Gauge::default(),
            behind_events: Gauge::default(),
            slow_streams: Gauge::default(),
            behind_time: Gauge::default(),
            queue: Gauge::default(),
            queue_max: Gauge::default(),
            log: LogGauges::new(),
            events_published: Counter::default(),
            publishes_failed: counters_by_reason(PublishError::FAILURES),
            drops_failed: Counter::default(),
            events_damaged: Counter::default(),
            cluster_lag: Gauge::default(),
            cluster_connected: Gauge::default(),
            events_sent: Counter::default(),
            events_skipped: Counter::default(),
            bytes_sent: Counter::default(),
            replay_events: Histogram::new(REPLAY_EVENTS),
            gaps: counters_by_reason(GapReason::ALL.map(GapReason::as_str)),
            publish_to_write: Histogram::new(SECONDS),
        }
    }
}

impl StreamMetrics {
    /// Registers the metrics. Names of counters get the suffix `_total` when they are written.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register(
            "lines_open",
            "Open requests that publish a body part by part",
            self.uploads_open.clone(),
        );
        r.register("polls_waiting", "Polls that wait for events", self.polls_waiting.clone());
        r.register(
            "streams_open",
            "Open event streams and waiting polls",
            self.streams_open.clone(),
        );
        r.register("streams", "Event streams opened", self.streams.clone());
        r.register(
            "streams_ended",
            "Event streams ended, and those and polls refused by a limit, by reason",
            self.streams_ended.clone(),
        );
        r.register(
            "streams_behind",
            "Event streams that have yet to send events of the log",
            self.behind_streams.clone(),
        );
        r.register(
            "lag_events",
            "Events that the stream furthest behind has yet to pass",
            self.behind_events.clone(),
        );
        r.register(
            "streams_slow",
            "Event streams that have lacked an event for more than ten seconds",
            self.slow_streams.clone(),
        );
        r.register_with_unit(
            "lag",
            "Longest time for which an event stream has lacked an event",
            Unit::Seconds,
            self.behind_time.clone(),
        );
        r.register(
            "publish_queue",
            "Events that wait to be stored in the event log",
            self.queue.clone(),
        );
        r.register(
            "publish_queue_max",
            "Number of events beyond which publishers wait for a slot",
            self.queue_max.clone(),
        );
        self.log.register(r);
        r.register("events_published", "Events published", self.events_published.clone());
        r.register(
            "publishes_failed",
            "Publishes that the server could not store, by reason",
            self.publishes_failed.clone(),
        );
        r.register(
            "retention_failed",
            "Times that events beyond the retention could not be dropped",
            self.drops_failed.clone(),
        );
        r.register(
            "events_damaged",
            "Stored events that were found damaged",
            self.events_damaged.clone(),
        );
        r.register(
            "cluster_lag",
            "Changes in the cluster that this node does not have yet",
            self.cluster_lag.clone(),
        );
        r.register(
            "cluster_connected",
            "1 if this node receives from its cluster, or has none; or else 0",
            self.cluster_connected.clone(),
        );
        r.register("events_sent", "Events sent, counted per stream", self.events_sent.clone());
        r.register(
            "events_skipped",
            "Events skipped by conflating streams",
            self.events_skipped.clone(),
        );
        r.register_with_unit(
            "sent",
            "Bytes of event streams, without the HTTP framing",
            Unit::Bytes,
            self.bytes_sent.clone(),
        );
        r.register(
            "replay_events",
            "Events of the log between a stream's cursor and its start",
            self.replay_events.clone(),
        );
        r.register("gaps", "Gaps announced, by reason", self.gaps.clone());
        r.register_with_unit(
            "publish_to_write",
            "Time from the publish of the oldest event in a write to that write",
            Unit::Seconds,
            self.publish_to_write.clone(),
        );
    }

    /// Updates the gauges that are measured, not counted. Must be called before the metrics are
    /// encoded.
    pub fn measure(&self, hub: &Hub, streams: &OpenStreams) {
        let lag = streams.lag();
        self.streams_open.set(gauge(streams.count()));
        self.behind_streams.set(gauge(lag.streams));
        self.behind_events.set(lag.events);
        self.slow_streams.set(gauge(lag.slow));
        self.behind_time.set(lag.time.as_secs_f64());
        self.queue.set(gauge(hub.waiting_drafts()));
        self.queue_max.set(gauge(hub.queue_capacity()));
        self.events_published.inner().store(hub.published(), Ordering::Relaxed);
        for (reason, count) in hub.failed_publishes() {
            let counter = self.publishes_failed.get_or_create(&ReasonLabel { reason });
            counter.inner().store(count, Ordering::Relaxed);
        }
        let condition = hub.condition();
        self.log.measure(&condition, &hub.log_size());
        self.drops_failed.inner().store(condition.failed_drops, Ordering::Relaxed);
        self.events_damaged.inner().store(condition.damaged_events, Ordering::Relaxed);
        self.cluster_lag.set(condition.lag.unwrap_or_default());
        self.cluster_connected.set((!condition.is_away).into());
    }

    /// Measures the commits of the hub's event log from now on. Only the first of several counters
    /// gets them.
    pub(crate) fn observe(self: &Arc<Self>, hub: &Hub) {
        let commits = self.log.commits.clone();
        hub.observe_commits(move |time| commits.observe(time.as_secs_f64()));
    }

    /// Counts a split upload as open until the guard is dropped.
    pub(crate) fn upload_open(&self) -> GaugeGuard {
        GaugeGuard::new(&self.uploads_open)
    }

    /// Counts a poll as waiting until the guard is dropped.
    pub(crate) fn poll_waiting(&self) -> GaugeGuard {
        GaugeGuard::new(&self.polls_waiting)
    }

    /// Counts a stream that was opened the given number of events behind the newest.
    pub(crate) fn stream_opened(&self, replay: u64) {
        self.streams.inc();
        #[expect(clippy::cast_precision_loss, reason = "the value only selects a bucket")]
        self.replay_events.observe(replay as f64);
    }

    /// Counts a stream that has ended.
    pub(crate) fn stream_ended(&self, reason: EndReason) {
        self.streams_ended.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Counts events that a stream has sent, with the time since the oldest was published if it was
    /// live.
    pub(crate) fn events_sent(&self, events: u64, since_publish: Option<Duration>) {
        self.events_sent_by(1, events, since_publish);
    }

    /// Counts the same events for a number of streams.
    pub(crate) fn events_sent_by(
        &self,
        streams: usize,
        events: u64,
        since_publish: Option<Duration>,
    ) {
        self.events_sent.inc_by(events * streams as u64);
        for since in since_publish.iter().cycle().take(streams) {
            self.publish_to_write.observe(since.as_secs_f64());
        }
    }

    /// Counts bytes that a stream has sent.
    pub(crate) fn bytes_sent(&self, bytes: usize) {
        self.bytes_sent.inc_by(bytes as u64);
    }

    /// Counts events that a conflating stream has skipped.
    pub(crate) fn events_skipped(&self, events: u64) {
        self.events_skipped.inc_by(events);
    }

    /// Counts a gap that was announced.
    pub(crate) fn gap(&self, reason: GapReason) {
        self.gaps.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }
}

impl LogGauges {
    fn new() -> Self {
        Self {
            readable: Gauge::default(),
            writable: Gauge::default(),
            topics: Gauge::default(),
            events: Gauge::default(),
            data: Gauge::default(),
            files: Gauge::default(),
            volume: Gauge::default(),
            free: Gauge::default(),
            commits: Histogram::new(COMMIT_SECONDS),
        }
    }

    fn register(&self, r: &mut Registry) {
        r.register(
            "log_readable",
            "1 if the event log can be read, or else 0",
            self.readable.clone(),
        );
        r.register("log_writable", "1 if events can be stored, or else 0", self.writable.clone());
        r.register("log_topics", "Topics that have events or have ended", self.topics.clone());
        r.register("log_events", "Events that the event log keeps", self.events.clone());
        r.register_with_unit("log_data", "Data of these events", Unit::Bytes, self.data.clone());
        r.register_with_unit(
            "log_files",
            "Files of the event log; 0 for one in memory",
            Unit::Bytes,
            self.files.clone(),
        );
        r.register_with_unit(
            "log_volume",
            "Volume of the event log; 0 if it is unknown",
            Unit::Bytes,
            self.volume.clone(),
        );
        r.register_with_unit(
            "log_volume_free",
            "Free room on the volume of the event log",
            Unit::Bytes,
            self.free.clone(),
        );
        r.register_with_unit(
            "log_commit",
            "Time of a commit of new events, with its sync to disk",
            Unit::Seconds,
            self.commits.clone(),
        );
    }

    fn measure(&self, condition: &Condition, size: &LogSize) {
        self.readable.set(condition.read_error.is_none().into());
        self.writable.set(condition.append_error.is_none().into());
        self.topics.set(gauge(size.topics));
        self.events.set(gauge(size.events));
        self.data.set(size.bytes);
        let disk = size.disk.unwrap_or_default();
        self.files.set(disk.files);
        self.volume.set(disk.volume);
        self.free.set(disk.free);
    }
}

/// Converts a count to the type of a gauge.
pub fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

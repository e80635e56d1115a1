//! What the server counts, for Prometheus to read at `/metrics` (as `OpenMetrics` text).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use waterclock::notice::{GapReason, GoodbyeReason};

use crate::{access::Caller, problem::Problem, router::AppState};

/// Up to how many events are replayed at the start of a stream.
const REPLAY_EVENTS: [f64; 7] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0];

/// Up to how many seconds pass from a publish to a write.
const SECONDS: [f64; 12] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];

/// What the server counts.
#[derive(Debug)]
pub struct Metrics {
    began: Instant,
    registry: Registry,
    connections_open: Gauge,
    connections_max: Gauge,
    connections_full: Counter,
    connections: Counter,
    timed_out: CounterByReason,
    refused: CounterByReason,
    lines_open: Gauge,
    polls_waiting: Gauge,
    streams_open: Gauge,
    streams: Counter,
    streams_ended: CounterByReason,
    behind_streams: Gauge,
    behind_events: Gauge<u64, AtomicU64>,
    events_published: Counter,
    events_sent: Counter,
    events_skipped: Counter,
    bytes_sent: Counter,
    replay_events: Histogram,
    gaps: CounterByReason,
    publish_to_write: Histogram,
}

/// What a connection was given up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedOut {
    /// It said nothing.
    FirstByte,
    /// It did not finish TLS's handshake.
    Handshake,
    /// It did not finish the head of its first request.
    Head,
    /// It did not finish the head of another request; most have no more to ask.
    Idle,
    /// It did not finish the body of a request.
    Body,
    /// It did not read.
    Write,
    /// It gave no sign that it is still there (HTTP/2).
    Ping,
}

/// What a connection or a request was refused for, of what may be an attack. The answer to a request has it as
/// an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no request of HTTP/1.1, or one that can be read in several ways.
    Malformed,
    /// Its head, or the data that it publishes, are longer than allowed.
    TooLong,
    /// It comes from elsewhere, or from a page elsewhere, and asks for what only this machine may.
    Foreign,
    /// The handshake of TLS failed.
    Tls,
    /// It does not speak TLS, and should.
    NoTls,
    /// It broke the rules of HTTP/2, or asked for more than anyone should.
    Http2,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client is gone, or did not read for too long.
    ClientLeft,
    /// As many events were sent as were asked for.
    End,
    /// The server is stopping.
    Draining,
    /// There were as many streams as the server allows.
    Limit,
    /// The client's token has expired.
    Expired,
    /// The log could not be read.
    LogFailed,
    /// The client has sent what a WebSocket's client may not.
    Refused,
}

/// The one label that those metrics have which are counted apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

type CounterByReason = Family<Reason, Counter>;

/// Counters that are there, at 0, before anything has happened: a rate needs both ends.
fn by_reason<const N: usize>(reasons: [&'static str; N]) -> CounterByReason {
    let counters = CounterByReason::default();
    for reason in reasons {
        drop(counters.get_or_create(&Reason { reason }));
    }
    counters
}

impl TimedOut {
    const ALL: [Self; 7] = [
        Self::FirstByte,
        Self::Handshake,
        Self::Head,
        Self::Idle,
        Self::Body,
        Self::Write,
        Self::Ping,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "first-byte",
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Body => "body",
            Self::Write => "write",
            Self::Ping => "ping",
        }
    }
}

impl Refusal {
    const ALL: [Self; 6] =
        [Self::Malformed, Self::TooLong, Self::Foreign, Self::Tls, Self::NoTls, Self::Http2];

    fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::Foreign => "foreign",
            Self::Tls => "tls",
            Self::NoTls => "no-tls",
            Self::Http2 => "http2",
        }
    }
}

impl Ended {
    const ALL: [Self; 7] = [
        Self::ClientLeft,
        Self::End,
        Self::Draining,
        Self::Limit,
        Self::Expired,
        Self::LogFailed,
        Self::Refused,
    ];

    /// As it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client-left",
            Self::End => "end",
            Self::Draining => "draining",
            Self::Limit => "limit",
            Self::Expired => "expired",
            Self::LogFailed => "log-failed",
            Self::Refused => "refused",
        }
    }
}

impl From<GoodbyeReason> for Ended {
    fn from(reason: GoodbyeReason) -> Self {
        match reason {
            GoodbyeReason::Draining => Self::Draining,
            GoodbyeReason::Limit => Self::Limit,
            GoodbyeReason::Expired => Self::Expired,
        }
    }
}

/// Counts something as there until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            began: Instant::now(),
            registry: Registry::with_prefix("waterclock"),
            connections_open: Gauge::default(),
            connections_max: Gauge::default(),
            connections_full: Counter::default(),
            connections: Counter::default(),
            timed_out: by_reason(TimedOut::ALL.map(TimedOut::as_str)),
            refused: by_reason(Refusal::ALL.map(Refusal::as_str)),
            lines_open: Gauge::default(),
            polls_waiting: Gauge::default(),
            streams_open: Gauge::default(),
            streams: Counter::default(),
            streams_ended: by_reason(Ended::ALL.map(Ended::as_str)),
            behind_streams: Gauge::default(),
            behind_events: Gauge::default(),
            events_published: Counter::default(),
            events_sent: Counter::default(),
            events_skipped: Counter::default(),
            bytes_sent: Counter::default(),
            replay_events: Histogram::new(REPLAY_EVENTS),
            gaps: by_reason(GapReason::ALL.map(GapReason::as_str)),
            publish_to_write: Histogram::new(SECONDS),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// How long there has been something to count: how long the server has been running.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// Names each metric. Counters get `_total` behind their names when they are written.
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("connections_open", "Connections that are open", self.connections_open.clone());
        r.register(
            "connections_max",
            "How many connections may be open",
            self.connections_max.clone(),
        );
        r.register(
            "connections_full",
            "How often there came to be as many connections as may be, so that others wait",
            self.connections_full.clone(),
        );
        r.register("connections", "Connections that were accepted", self.connections.clone());
        r.register(
            "connections_timed_out",
            "Connections that were given up, by what did not come",
            self.timed_out.clone(),
        );
        r.register(
            "refused",
            "Connections and requests that were refused, by what may be an attack",
            self.refused.clone(),
        );
        r.register(
            "lines_open",
            "Requests that publish lines and are not at their end",
            self.lines_open.clone(),
        );
        r.register("polls_waiting", "Polls that wait for events", self.polls_waiting.clone());
        r.register("streams_open", "Event streams that are open", self.streams_open.clone());
        r.register("streams", "Event streams that were opened", self.streams.clone());
        r.register(
            "streams_ended",
            "Event streams that have ended, or that a limit let not begin",
            self.streams_ended.clone(),
        );
        r.register(
            "streams_behind",
            "Event streams that have yet to send events of the log",
            self.behind_streams.clone(),
        );
        r.register(
            "lag_events",
            "How many events the stream that is furthest behind has yet to pass",
            self.behind_events.clone(),
        );
        r.register("events_published", "Events published", self.events_published.clone());
        r.register("events_sent", "Events sent, counted for each stream", self.events_sent.clone());
        r.register(
            "events_skipped",
            "Events that streams have left out, as they were asked to",
            self.events_skipped.clone(),
        );
        r.register_with_unit(
            "sent",
            "Bytes of event streams, without HTTP around them",
            Unit::Bytes,
            self.bytes_sent.clone(),
        );
        r.register(
            "replay_events",
            "Events of the log between a stream's cursor and its beginning",
            self.replay_events.clone(),
        );
        r.register("gaps", "Gaps told, by reason", self.gaps.clone());
        r.register_with_unit(
            "publish_to_write",
            "From the publish of the oldest event in a write to that write",
            Unit::Seconds,
            self.publish_to_write.clone(),
        );
    }

    /// A connection was accepted.
    pub fn connection(&self) -> Counted {
        self.connections.inc();
        self.connections_open.inc();
        Counted(self.connections_open.clone())
    }

    /// So many connections may be open.
    pub fn connections_may_be(&self, max: usize) {
        self.connections_max.set(gauge(max));
    }

    /// There are as many connections as may be, for the first time since there was room.
    pub fn connections_are_full(&self) {
        self.connections_full.inc();
    }

    /// A request publishes lines.
    pub fn lines_come(&self) -> Counted {
        self.lines_open.inc();
        Counted(self.lines_open.clone())
    }

    /// A poll waits for events.
    pub fn poll_waits(&self) -> Counted {
        self.polls_waiting.inc();
        Counted(self.polls_waiting.clone())
    }

    /// A connection was given up.
    pub fn timed_out(&self, waiting_for: TimedOut) {
        self.timed_out.get_or_create(&Reason { reason: waiting_for.as_str() }).inc();
    }

    /// A connection or a request was refused.
    pub fn refused(&self, by: Refusal) {
        self.refused.get_or_create(&Reason { reason: by.as_str() }).inc();
    }

    /// A stream was opened, so many events behind the newest.
    pub fn stream_opened(&self, replay: u64) {
        self.streams.inc();
        #[expect(clippy::cast_precision_loss, reason = "a bucket is chosen by it")]
        self.replay_events.observe(replay as f64);
    }

    /// A stream has ended.
    pub fn stream_ended(&self, by: Ended) {
        self.streams_ended.get_or_create(&Reason { reason: by.as_str() }).inc();
    }

    /// A stream has written so many events, the oldest of which was published just so long ago.
    pub fn wrote(&self, events: u64, since_publish: Option<Duration>) {
        self.events_sent.inc_by(events);
        if let Some(since) = since_publish {
            self.publish_to_write.observe(since.as_secs_f64());
        }
    }

    /// A stream has written so many bytes.
    pub fn wrote_bytes(&self, bytes: usize) {
        self.bytes_sent.inc_by(bytes as u64);
    }

    /// A stream has left out so many events.
    pub fn skipped(&self, events: u64) {
        self.events_skipped.inc_by(events);
    }

    /// A gap was told.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }
}

/// Counts an answer that refuses what may be an attack.
pub(crate) async fn count_refused(State(state): State<AppState>, response: Response) -> Response {
    if let Some(refusal) = response.extensions().get() {
        state.metrics.refused(*refusal);
    }
    response
}

/// `GET /metrics`: only for this machine, since it says how much the server is used.
pub(crate) async fn metrics(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Response, Problem> {
    caller.is_local()?;
    let AppState { metrics, streams, hub, .. } = &state;
    let lag = streams.lag();
    metrics.streams_open.set(gauge(streams.count()));
    metrics.behind_streams.set(gauge(lag.streams));
    metrics.behind_events.set(lag.events);
    metrics.events_published.inner().store(hub.published(), Ordering::Relaxed);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &metrics.registry);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, content_type)], text).into_response())
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

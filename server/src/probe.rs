//! `GET` and `POST /diagnose/stream`: a short stream made to be measured, so that a client can tell what the path
//! does to one. It tells nothing of any topic, so it is open to anybody, within limits.

use std::{
    convert::Infallible,
    pin::Pin,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, Uri, Version},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;
use waterclock::{hub::Format, notice::GoodbyeReason, sse::Block};
use waterclock_diagnose::{PATH_HEADERS, ProbeEvent, RequestEcho};

use crate::{
    client::Client,
    events::{self, Blocks},
    metrics::Ended,
    problem::Problem,
    router::AppState,
    stream::{Record, goodbye, goodbye_alone, goodbye_at},
};

/// How many events it may have.
pub const MAX_EVENTS: u32 = 1000;
/// How many milliseconds there may be between two.
pub const MAX_EVERY: u64 = 600_000;
/// How many bytes of padding an event may have.
pub const MAX_BYTES: usize = 8192;
/// How many seconds it may last.
pub const MAX_SECONDS: u64 = 15 * 60;
/// How many bytes of padding there may be in all.
pub const MAX_TOTAL: usize = 2 * 1024 * 1024;

/// How many characters of a header are told.
const MAX_VALUE: usize = 512;

/// The form of its blocks, which have no events of the log in them.
const BLOCKS: Blocks = Blocks(Format::Plain);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    events: u32,
    every: Duration,
    /// Of padding in each.
    bytes: usize,
    /// What clients are told to wait before they connect again, if it is not the usual.
    retry: Option<Duration>,
}

impl Plan {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut plan = Self { events: 1, every: Duration::ZERO, bytes: 0, retry: None };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let millis = || value.parse().map(Duration::from_millis);
            let is_known = match &*name {
                "events" => value.parse().map(|events| plan.events = events).is_ok(),
                "every" => millis().map(|every| plan.every = every).is_ok(),
                "bytes" => value.parse().map(|bytes| plan.bytes = bytes).is_ok(),
                "retry" => millis().map(|retry| plan.retry = Some(retry)).is_ok(),
                _ => true, // Unknown ones are ignored.
            };
            if !is_known {
                return Err(Problem::BadProbe);
            }
        }
        let is_within = (1..=MAX_EVENTS).contains(&plan.events)
            && plan.every <= Duration::from_millis(MAX_EVERY)
            && plan.bytes <= MAX_BYTES
            && plan.every * (plan.events - 1) <= Duration::from_secs(MAX_SECONDS)
            && plan.bytes.saturating_mul(plan.events as usize) <= MAX_TOTAL;
        is_within.then_some(plan).ok_or(Problem::BadProbe)
    }
}

/// Answers with the stream.
pub(crate) async fn stream(
    State(state): State<AppState>,
    Client(client): Client,
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let plan = Plan::of(&uri)?;
    let refuse = |reason| Ok(events::answer(Body::from(goodbye_alone(&state, &BLOCKS, reason))));
    if state.stop.has_begun() {
        return refuse(GoodbyeReason::Draining);
    }
    let Some(open) = state.streams.open_aside(client) else {
        tracing::info!("there are as many streams as there may be");
        return refuse(GoodbyeReason::Limit);
    };
    state.metrics.stream_opened(0);
    let seen = seen(&state, &method, version, &headers);
    let session = Session::new(plan, Record::new(state, open), seen);
    let chunks = stream::unfold(session, async |mut session| {
        let chunk = session.next().await?;
        Some((Ok::<_, Infallible>(chunk), session))
    });
    Ok(events::answer(Body::from_stream(chunks)))
}

/// Answers with the stream's head, and opens nothing.
pub(crate) async fn head(uri: Uri) -> Result<Response, Problem> {
    Plan::of(&uri)?;
    Ok(events::answer(Body::empty()))
}

/// What the server saw of a request.
fn seen(state: &AppState, method: &Method, version: Version, headers: &HeaderMap) -> RequestEcho {
    let get = |name: &str| {
        let values = headers.get_all(name).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", ").chars().take(MAX_VALUE).collect())
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    RequestEcho {
        version: format!("{version:?}"),
        method: method.to_string(),
        last_event_id: get("last-event-id"),
        heartbeat_ms: millis(state.stream_settings.heartbeat),
        uptime_ms: Some(millis(state.metrics.uptime())),
        headers: PATH_HEADERS
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), get(name)?)))
            .collect(),
    }
}

/// One stream while it lasts.
struct Session {
    plan: Plan,
    record: Record,
    /// What the first event tells.
    seen: Option<RequestEcho>,
    began: Instant,
    /// When it began by the system's clock, milliseconds since 1970; that may be set while it lasts.
    began_at: f64,
    /// How many events were sent.
    sent: u32,
    /// When to say goodbye; far off until the server stops.
    goodbye: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
}

impl Session {
    fn new(plan: Plan, record: Record, seen: RequestEcho) -> Self {
        let state = record.state.clone();
        let goodbye = Box::pin(async move {
            let began = state.stop.begun().await;
            tokio::time::sleep_until(goodbye_at(&state, began)).await;
        });
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            plan,
            record,
            seen: Some(seen),
            began: Instant::now(),
            began_at: since.as_secs_f64() * 1000.0,
            sent: 0,
            goodbye,
            is_over: false,
        }
    }

    /// What is sent next; none at the stream's end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if self.sent == self.plan.events {
            self.record.ended = Ended::End;
            return None;
        }
        let chunk = tokio::select! {
            // First, so that a stop is not put off by events that are due.
            biased;
            () = &mut self.goodbye => {
                self.is_over = true;
                self.record.ended = Ended::Draining;
                goodbye(&self.record.state, &BLOCKS, GoodbyeReason::Draining)
            }
            () = tokio::time::sleep_until(self.began + self.plan.every * self.sent) => self.event(),
        };
        self.record.state.metrics.wrote_bytes(chunk.len());
        Some(chunk)
    }

    fn event(&mut self) -> Bytes {
        let mut bytes = Vec::new();
        let retry = (self.sent == 0).then(|| {
            bytes.extend_from_slice(format!(": {}\n", ProbeEvent::COMMENT).as_bytes());
            self.plan.retry.unwrap_or(self.record.state.stream_settings.retry)
        });
        self.sent += 1;
        self.record.events += 1;
        self.record.state.metrics.wrote(1, None);
        let probe = ProbeEvent {
            number: self.sent,
            time: self.began_at + self.began.elapsed().as_secs_f64() * 1000.0,
            // Random, so that no compression makes it shorter than it is meant to be.
            padding: std::iter::repeat_with(fastrand::alphanumeric).take(self.plan.bytes).collect(),
            request: self.seen.take(),
        };
        let json = serde_json::to_string(&probe);
        let block = Block {
            id: Some(&ProbeEvent::id(self.sent)),
            name: Some(ProbeEvent::NAME),
            retry,
            // `null` cannot happen: it is made of strings and numbers, which are JSON.
            data: Some(json.as_deref().unwrap_or("null")),
        };
        let encoded = block.encode(&mut bytes);
        debug_assert_eq!(encoded, Ok(()), "the id and the name have no CR, LF and NUL");
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(query: &str) -> Result<Plan, Problem> {
        Plan::of(&format!("/diagnose/stream?{query}").parse().unwrap())
    }

    #[test]
    fn what_it_may_be() {
        let default = Plan { events: 1, every: Duration::ZERO, bytes: 0, retry: None };
        assert_eq!(plan("").unwrap(), default);
        assert_eq!(plan("other=x").unwrap(), default);
        for query in [
            "events=1000&every=900&bytes=2097",
            "events=2&every=600000",
            "events=256&bytes=8192",
            "retry=0",
        ] {
            assert!(plan(query).is_ok(), "{query}");
        }
    }

    #[test]
    fn what_it_may_not_be() {
        for query in [
            "events=0",
            "events=1001",
            "events=-1",
            "events=",
            "every=600001",
            "every=1.5",
            "every=99999999999999999999",
            "bytes=8193",
            "bytes=x",
            "retry=x",
            "events=3&every=600000",
            "events=1000&every=901",
            "events=257&bytes=8192",
        ] {
            assert!(matches!(plan(query), Err(Problem::BadProbe)), "{query}");
        }
    }
}

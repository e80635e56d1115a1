//! `GET` and `POST /diagnose/stream`: a short stream made to be measured, so that a client can tell
//! how the path between it and the server treats a stream.

use std::{
    convert::Infallible,
    iter::repeat_with,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, Uri, request::Parts},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;
use waterclock::{hub::Format, notice::GoodbyeReason, sse::Block};
use waterclock_diagnose::{PATH_HEADERS, ProbeEvent, RequestEcho};

use crate::{
    metrics::EndReason,
    parameters::{InvalidParameters, KnownParameters, split_query},
    policy::{Policy, client_of},
    problem::Problem,
    session::{StreamRecord, goodbye, millis, refuse},
    sse::{self, SseEncoder},
    state::StreamContext,
};

/// Maximum number of events.
const MAX_EVENTS: u32 = 1000;
/// Maximum time between two events, in milliseconds.
const MAX_EVERY: u64 = 600_000;
/// Maximum padding of an event, in bytes.
const MAX_BYTES: usize = 8192;
/// Maximum duration of a probe, in seconds.
const MAX_SECONDS: u64 = 15 * 60;
/// Maximum padding of a whole probe, in bytes.
const MAX_TOTAL: usize = 2 * 1024 * 1024;

/// Maximum length of a header value that is reported, in characters.
const MAX_VALUE: usize = 512;

/// The encoder of a probe's notices. A probe has no events of the log.
const ENCODER: SseEncoder = SseEncoder(Format::Plain);

/// The parameters of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProbeParameters {
    events: u32,
    every: Duration,
    /// Padding per event.
    bytes: usize,
    /// Retry time to announce, if it differs from the usual one.
    retry: Option<Duration>,
}

/// The names of these parameters.
const PARAMETERS: KnownParameters = KnownParameters {
    names: &[("events", "events"), ("every", "every"), ("bytes", "bytes"), ("retry", "retry")],
    synonyms: &[],
};

/// Invalid parameters of a probe.
#[derive(Debug, thiserror::Error)]
enum InvalidProbe {
    #[error(
        "`events` must be 1 to {MAX_EVENTS}, `every` 0 to {MAX_EVERY} milliseconds, `bytes` 0 to \
         {MAX_BYTES}, `retry` a number of milliseconds. A probe may last at most {} minutes, and \
         have at most {MAX_TOTAL} bytes of padding.",
        MAX_SECONDS / 60
    )]
    Value,
    #[error(transparent)]
    Parameters(#[from] InvalidParameters),
}

impl From<InvalidProbe> for Problem {
    fn from(error: InvalidProbe) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl ProbeParameters {
    fn parse(uri: &Uri) -> Result<Self, InvalidProbe> {
        let mut probe = Self { events: 1, every: Duration::ZERO, bytes: 0, retry: None };
        for (name, value) in split_query(uri.query().unwrap_or_default())? {
            let time = || value.parse().map(Duration::from_millis);
            let is_valid = match &*name {
                "events" => value.parse().map(|events| probe.events = events).is_ok(),
                "every" => time().map(|every| probe.every = every).is_ok(),
                "bytes" => value.parse().map(|bytes| probe.bytes = bytes).is_ok(),
                "retry" => time().map(|retry| probe.retry = Some(retry)).is_ok(),
                name => PARAMETERS.check(name).map(|()| true)?,
            };
            if !is_valid {
                return Err(InvalidProbe::Value);
            }
        }
        let is_within_limits = (1..=MAX_EVENTS).contains(&probe.events)
            && probe.every <= Duration::from_millis(MAX_EVERY)
            && probe.bytes <= MAX_BYTES
            && probe.every * (probe.events - 1) <= Duration::from_secs(MAX_SECONDS)
            && probe.bytes.saturating_mul(probe.events as usize) <= MAX_TOTAL;
        is_within_limits.then_some(probe).ok_or(InvalidProbe::Value)
    }
}

/// Answers with the probe.
pub(super) async fn get(
    State(context): State<Arc<StreamContext>>,
    State(policy): State<Arc<dyn Policy>>,
    request: Parts,
) -> Result<Response, Problem> {
    let probe = ProbeParameters::parse(&request.uri)?;
    let refuse = |reason| Ok(sse::response(Body::from(refuse(&context, &ENCODER, reason))));
    if context.stop.has_begun() {
        return refuse(GoodbyeReason::Draining);
    }
    let client = policy.client_address(&request).map(client_of);
    let Ok(open) = context.streams.open(client) else { return refuse(GoodbyeReason::Limit) };
    context.metrics.stream_opened(0);
    let seen = describe(&context, &request);
    let session = ProbeSession::new(probe, StreamRecord::new(context, open, None), seen);
    let chunks = stream::unfold(session, async |mut session| {
        let chunk = session.next().await?;
        Some((Ok::<_, Infallible>(chunk), session))
    });
    Ok(sse::response(Body::from_stream(chunks)))
}

/// Answers with the head of the probe, and opens nothing.
pub(super) async fn head(uri: Uri) -> Result<Response, Problem> {
    ProbeParameters::parse(&uri)?;
    Ok(sse::response(Body::empty()))
}

/// Describes a request as it arrived here.
fn describe(context: &StreamContext, request: &Parts) -> RequestEcho {
    let get = |name: &str| {
        let values = request.headers.get_all(name).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", ").chars().take(MAX_VALUE).collect())
    };
    RequestEcho {
        version: format!("{:?}", request.version),
        method: request.method.to_string(),
        last_event_id: get("last-event-id"),
        heartbeat_ms: millis(context.settings.heartbeat),
        uptime_ms: Some(millis(context.started.elapsed())),
        headers: PATH_HEADERS
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), get(name)?)))
            .collect(),
    }
}

/// One open probe.
struct ProbeSession {
    probe: ProbeParameters,
    record: StreamRecord,
    /// The description of the request, until the first event has carried it.
    seen: Option<RequestEcho>,
    began: Instant,
    /// Time of the beginning by the system's clock, in milliseconds since 1970. That clock may be
    /// set during the probe.
    began_at: f64,
    /// Number of events sent.
    sent: u32,
    /// Resolves at the time of this stream's goodbye in a shutdown.
    goodbye: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
}

impl ProbeSession {
    fn new(probe: ProbeParameters, record: StreamRecord, seen: RequestEcho) -> Self {
        let context = Arc::clone(&record.context);
        let goodbye = Box::pin(async move {
            let began = context.stop.begun().await;
            tokio::time::sleep_until(context.streams.goodbye_at(began)).await;
        });
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            probe,
            record,
            seen: Some(seen),
            began: Instant::now(),
            began_at: since.as_secs_f64() * 1000.0,
            sent: 0,
            goodbye,
            is_over: false,
        }
    }

    /// Makes the next chunk. Returns `None` at the end of the probe.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if self.sent == self.probe.events {
            self.record.end_reason = EndReason::End;
            return None;
        }
        let due = self.began + self.probe.every * self.sent;
        let chunk = tokio::select! {
            // The goodbye comes first, so that events that are due do not delay a shutdown.
            biased;
            () = &mut self.goodbye => {
                self.is_over = true;
                self.record.end_reason = EndReason::Draining;
                goodbye(&self.record.context.settings, &ENCODER, GoodbyeReason::Draining)
            }
            () = tokio::time::sleep_until(due) => self.event(),
        };
        self.record.context.metrics.bytes_sent(chunk.len());
        Some(chunk)
    }

    fn event(&mut self) -> Bytes {
        let mut bytes = Vec::new();
        let retry = (self.sent == 0).then(|| {
            bytes.extend_from_slice(format!(": {}\n", ProbeEvent::COMMENT).as_bytes());
            self.probe.retry.unwrap_or(self.record.context.settings.retry)
        });
        self.sent += 1;
        self.record.events += 1;
        self.record.context.metrics.events_sent(1, None);
        let probe = ProbeEvent {
            number: self.sent,
            time: self.began_at + self.began.elapsed().as_secs_f64() * 1000.0,
            // Random, so that compression cannot make it shorter.
            padding: repeat_with(fastrand::alphanumeric).take(self.probe.bytes).collect(),
            request: self.seen.take(),
        };
        let json = serde_json::to_string(&probe);
        let block = Block {
            id: Some(&ProbeEvent::id(self.sent)),
            name: Some(ProbeEvent::NAME),
            retry,
            // Serialization cannot fail: a probe consists of strings and numbers.
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

    fn parse(query: &str) -> Result<ProbeParameters, InvalidProbe> {
        ProbeParameters::parse(&format!("/diagnose/stream?{query}").parse().unwrap())
    }

    #[test]
    fn parameters_within_the_limits_are_accepted() {
        let default = ProbeParameters { events: 1, every: Duration::ZERO, bytes: 0, retry: None };
        assert_eq!(parse("").unwrap(), default);
        assert_eq!(parse("other=x").unwrap(), default);
        for query in [
            "events=1000&every=900&bytes=2097",
            "events=2&every=600000",
            "events=256&bytes=8192",
            "retry=0",
        ] {
            assert!(parse(query).is_ok(), "{query}");
        }
    }

    #[test]
    fn parameters_beyond_the_limits_are_refused() {
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
            assert!(matches!(parse(query), Err(InvalidProbe::Value)), "{query}");
        }
        assert!(matches!(parse("event=2"), Err(InvalidProbe::Parameters(_))));
    }
}

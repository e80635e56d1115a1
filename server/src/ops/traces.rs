//! Traces by OTLP, for the feature `otlp`: a span for each publish, and one for the delivery of its
//! event to all streams together. One span per stream would be too many. A collector that is slow
//! or away delays nothing: spans wait in a queue of the SDK, and those beyond it are lost.

use std::{
    collections::VecDeque,
    env, fmt,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::http::{self, HeaderMap};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator as _,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider, Span},
};
use parking_lot::Mutex;
use reqwest::Url;
use tokio::{runtime::Handle, time::MissedTickBehavior};
use waterclock::{
    event::Topic,
    id::EventId,
    trace::{EventTrace, Trace},
};
use waterclock_axum::TraceHook;

use super::http_client::http_client;

/// Path of traces below the endpoint of a collector.
const PATH: &str = "v1/traces";
/// Time that a collector may take for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time after a publish at which its delivery ends for the trace, even if streams are behind.
const DELIVERY: Duration = Duration::from_secs(5);
/// Interval of looking for such deliveries.
const LOOK: Duration = Duration::from_secs(1);
/// Maximum number of deliveries that are not over. Beyond it, the oldest end early.
const MAX_DELIVERIES: usize = 10_000;
/// Time that a stop may wait for the collector.
const STOP: Duration = Duration::from_secs(2);

/// The tracer of the server. Spans are sent until it is stopped.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    deliveries: Arc<Deliveries>,
}

/// An endpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint}: {reason}")]
pub struct TracesError {
    endpoint: Url,
    reason: Box<dyn std::error::Error + Send + Sync>,
}

impl Traces {
    /// Starts to send spans to the collector at `endpoint`. Everything else is read from the
    /// environment, as OpenTelemetry defines it: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
    /// `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`. Must be called within a
    /// runtime.
    ///
    /// # Errors
    ///
    /// If the environment has an invalid value.
    pub fn start(endpoint: &Url) -> Result<Self, TracesError> {
        let failed = |reason| TracesError { endpoint: endpoint.clone(), reason };
        let client = http_client(|| reqwest::Client::builder().timeout(TIMEOUT), &[]);
        let client = client.map_err(|error| failed(error.into()))?;
        let sender = Sender { client, runtime: Handle::current(), has_failed: false.into() };
        let exporter = SpanExporter::builder().with_http().with_http_client(sender);
        let exporter = exporter.with_endpoint(traces_url(endpoint)).build();
        let exporter = exporter.map_err(|error| failed(error.into()))?;
        let name = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        let resource = Resource::builder()
            .with_service_name(name.unwrap_or_else(|| "waterclock".to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        let deliveries = Arc::<Deliveries>::default();
        tokio::spawn(end_deliveries(Arc::downgrade(&deliveries)));
        Ok(Self { provider, deliveries })
    }

    /// Returns the hook that begins the trace of each event.
    pub fn hook(&self) -> TraceHook {
        let tracer = self.provider.tracer("waterclock");
        let (deliveries, propagator) =
            (Arc::clone(&self.deliveries), TraceContextPropagator::new());
        TraceHook::new(move |headers, topic| {
            EventSpans::begin(&tracer, &propagator, &deliveries, headers, topic)
        })
    }

    /// Ends all deliveries, and sends the spans that wait, as far as that is possible soon.
    pub async fn stop(self) {
        let left = std::mem::take(&mut *self.deliveries.0.lock());
        for (_, spans) in left {
            spans.end_delivery();
        }
        let provider = self.provider;
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(STOP));
        if !matches!(stopped.await, Ok(Ok(()))) {
            tracing::warn!("the last traces could not be sent");
        }
    }
}

/// Returns the URL for traces. The endpoint of a collector may have a path in front.
fn traces_url(endpoint: &Url) -> String {
    let base = endpoint.as_str().trim_end_matches('/');
    if base.ends_with(PATH) { base.to_owned() } else { format!("{base}/{PATH}") }
}

/// The deliveries that are not over, oldest first.
#[derive(Debug, Default)]
struct Deliveries(Mutex<VecDeque<(Instant, Arc<EventSpans>)>>);

impl Deliveries {
    fn add(&self, spans: Arc<EventSpans>) {
        let first = {
            let mut deliveries = self.0.lock();
            deliveries.push_back((Instant::now(), spans));
            if deliveries.len() > MAX_DELIVERIES { deliveries.pop_front() } else { None }
        };
        if let Some((_, first)) = first {
            first.end_delivery();
        }
    }

    /// Takes the next delivery that is over by now.
    fn take(&self, now: Instant) -> Option<Arc<EventSpans>> {
        let mut deliveries = self.0.lock();
        let (began, _) = deliveries.front()?;
        if now.saturating_duration_since(*began) < DELIVERY {
            return None;
        }
        deliveries.pop_front().map(|(_, spans)| spans)
    }
}

/// Ends deliveries that are over, until the tracer is gone.
async fn end_deliveries(deliveries: Weak<Deliveries>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(deliveries) = deliveries.upgrade() else { return };
        while let Some(spans) = deliveries.take(Instant::now()) {
            spans.end_delivery();
        }
    }
}

/// The spans of one event: `publish`, from its admission until it is durable, and its child
/// `deliver`, from then until the last stream has sent it.
struct EventSpans {
    /// Itself, for the list of deliveries.
    this: Weak<Self>,
    tracer: SdkTracer,
    deliveries: Arc<Deliveries>,
    /// The span of the publish, until it ends.
    publish: Mutex<Option<Span>>,
    /// The place of that span in its trace.
    context: SpanContext,
    topic: Topic,
    /// Set once the event is shown to streams.
    delivery: OnceLock<Delivery>,
}

/// The delivery of an event to its streams.
#[derive(Debug)]
struct Delivery {
    id: EventId,
    /// Number of streams and polls that are to send it.
    streams: usize,
    began: (SystemTime, Instant),
    /// Number of those that have.
    sent: AtomicUsize,
    /// Time of the first and of the last of them, in microseconds after the beginning.
    first: AtomicU64,
    last: AtomicU64,
    is_over: AtomicBool,
}

impl EventSpans {
    /// Begins the trace of an event. An event that is not sampled has none.
    fn begin(
        tracer: &SdkTracer,
        propagator: &TraceContextPropagator,
        deliveries: &Arc<Deliveries>,
        headers: &HeaderMap,
        topic: &Topic,
    ) -> Trace {
        // A request without the header, or with an invalid one, begins a trace of its own.
        let parent = if headers.is_empty() {
            Context::new()
        } else {
            propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
        };
        let builder = SpanBuilder::from_name("publish").with_kind(SpanKind::Server);
        let mut span = tracer.build_with_context(builder, &parent);
        let context = span.span_context().clone();
        if !context.is_sampled() {
            return Trace::default();
        }
        span.set_attributes([
            KeyValue::new("messaging.system", "waterclock"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.destination.name", topic.to_string()),
        ]);
        Trace::new(Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            tracer: tracer.clone(),
            deliveries: Arc::clone(deliveries),
            publish: Mutex::new(Some(span)),
            context,
            topic: topic.clone(),
            delivery: OnceLock::new(),
        }))
    }

    /// Ends the span of the delivery, at the time at which the last stream has sent the event.
    fn end_delivery(&self) {
        let Some(delivery) = self.delivery.get() else { return };
        if delivery.is_over.swap(true, Ordering::AcqRel) {
            return;
        }
        let sent = delivery.sent.load(Ordering::Acquire);
        let [first, last] = [&delivery.first, &delivery.last]
            .map(|time| Duration::from_micros(time.load(Ordering::Acquire)));
        let builder = SpanBuilder::from_name("deliver")
            .with_kind(SpanKind::Producer)
            .with_start_time(delivery.began.0);
        let parent = Context::new().with_remote_span_context(self.context.clone());
        let mut span = self.tracer.build_with_context(builder, &parent);
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        span.set_attributes([
            KeyValue::new("messaging.system", "waterclock"),
            KeyValue::new("messaging.operation.name", "deliver"),
            KeyValue::new("messaging.destination.name", self.topic.to_string()),
            KeyValue::new("messaging.message.id", delivery.id.to_string()),
            KeyValue::new("waterclock.streams", count(delivery.streams)),
            KeyValue::new("waterclock.streams.sent", count(sent)),
        ]);
        if sent > 0 {
            span.add_event_with_timestamp("first sent", delivery.began.0 + first, Vec::new());
            span.add_event_with_timestamp("last sent", delivery.began.0 + last, Vec::new());
        }
        span.end_with_timestamp(delivery.began.0 + last);
    }
}

impl EventTrace for EventSpans {
    fn stored(&self, id: EventId, streams: Option<usize>) {
        let Some(mut span) = self.publish.lock().take() else { return };
        span.set_attribute(KeyValue::new("messaging.message.id", id.to_string()));
        span.end();
        let Some(streams) = streams.filter(|streams| *streams > 0) else { return };
        let began = (SystemTime::now(), Instant::now());
        let delivery = Delivery {
            id,
            streams,
            began,
            sent: AtomicUsize::new(0),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        };
        if let (Ok(()), Some(this)) = (self.delivery.set(delivery), self.this.upgrade()) {
            self.deliveries.add(this);
        }
    }

    fn failed(&self, reason: &dyn fmt::Display) {
        let Some(mut span) = self.publish.lock().take() else { return };
        span.set_status(Status::error(reason.to_string()));
        span.end();
    }

    fn sent(&self, streams: usize) {
        let Some(delivery) = self.delivery.get() else { return };
        if delivery.is_over.load(Ordering::Relaxed) {
            return;
        }
        let micros = delivery.began.1.elapsed().as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        delivery.first.fetch_min(micros, Ordering::AcqRel);
        delivery.last.fetch_max(micros, Ordering::AcqRel);
        let before = delivery.sent.fetch_add(streams, Ordering::AcqRel);
        if before + streams >= delivery.streams {
            self.end_delivery();
        }
    }
}

impl fmt::Debug for EventSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSpans").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Sends the requests of the SDK, whose thread has no runtime.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    /// `true` if the last request has failed, so that the output mentions a failure once.
    has_failed: AtomicBool,
}

impl Sender {
    /// Prints a change between success and failure.
    fn report(&self, error: Option<&dyn fmt::Display>) {
        let had_failed = self.has_failed.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !had_failed => {
                tracing::warn!("traces cannot be sent, and are lost until they can: {error}");
            }
            None if had_failed => tracing::info!("traces can be sent again"),
            _ => {}
        }
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let request = reqwest::Request::try_from(request)?;
            let response = client.execute(request).await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        });
        Box::pin(async move {
            // A request that the stop cancels is no failure of the collector.
            let (status, body) = match sent.await? {
                Ok(answer) => answer,
                Err(error) => {
                    self.report(Some(&innermost(&error)));
                    return Err(error.into());
                }
            };
            let refused = || format!("the collector answers with {status}");
            self.report((!status.is_success()).then(refused).as_ref().map(|text| text as _));
            let mut response = http::Response::new(body);
            *response.status_mut() = status;
            Ok(response)
        })
    }
}

/// Returns the text of an error's first cause, which says most.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_appended_once() {
        for (endpoint, url) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://a.example/otlp/", "https://a.example/otlp/v1/traces"),
            ("https://a.example/otlp/v1/traces", "https://a.example/otlp/v1/traces"),
        ] {
            assert_eq!(traces_url(&endpoint.parse().unwrap()), url);
        }
    }
}

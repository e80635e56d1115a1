//! Traces of the program, as a collector receives them.
#![expect(clippy::unwrap_used, reason = "a failure here fails a test")]

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

/// Limit of every wait in these tests.
const DEADLINE: Duration = Duration::from_mins(1);

/// The parent of the publishes, as a client names it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that notes the names of services, and the spans.
struct Collector {
    endpoint: String,
    spans: mpsc::UnboundedReceiver<(String, Span)>,
}

impl Collector {
    async fn start() -> Self {
        let (sender, spans) = mpsc::unbounded_channel();
        let receive = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            for of_resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
                let resource = of_resource.resource.unwrap();
                let service = resource.attributes.iter().find(|pair| pair.key == "service.name");
                let service = service.unwrap().value.clone().unwrap().value;
                let Some(Value::StringValue(service)) = service else { panic!("{service:?}") };
                for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    sender.send((service.clone(), span)).unwrap();
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(receive));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, spans }
    }

    /// Waits for the next span.
    async fn next(&mut self) -> (String, Span) {
        timeout(DEADLINE, self.spans.recv()).await.unwrap().unwrap()
    }
}

/// A running program.
struct Program {
    child: Child,
    address: SocketAddr,
    _data: TempDir,
}

impl Program {
    async fn start(endpoint: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_waterclock"));
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--otlp-endpoint", endpoint, "--data-dir"])
            .arg(data.path())
            .env("OTEL_SERVICE_NAME", "orders")
            // The client decides, and nobody else: the clock has no client.
            .env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .env_remove("RUST_LOG")
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { child, address, _data: data }
    }

    /// Opens a stream of a topic, and waits for its first message.
    async fn read(&self, topic: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET /events?topic={topic} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut stream, "event: hello").await;
        stream
    }

    /// Publishes an event with the headers. Returns the status and the body.
    async fn publish(&self, topic: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "POST /events/{topic} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: 1\r\n{headers}\r\nx"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
        (response[9..12].parse().unwrap(), response)
    }

    /// Stops the program, and returns its output.
    async fn stop(self) -> String {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(pid).status().await.unwrap().success());
        let output = timeout(DEADLINE, self.child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Ends the topic `orders.eu`, without a trace.
async fn end(program: &Program) -> u16 {
    let mut stream = TcpStream::connect(program.address).await.unwrap();
    let request = "POST /events/orders.eu?end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   Content-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
    response[9..12].parse().unwrap()
}

async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(text) {
        let read = timeout(DEADLINE, stream.read_buf(&mut all)).await.unwrap().unwrap();
        assert!(read > 0);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Returns an attribute as text.
fn attribute(span: &Span, key: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_publish_and_its_delivery_are_spans_below_the_one_of_the_client() {
    let mut collector = Collector::start().await;
    let program = Program::start(&collector.endpoint).await;
    let mut readers = [
        program.read("orders.eu").await,
        program.read("orders.eu").await,
        program.read("orders.*").await,
    ];
    let _of_another_topic = program.read("clock").await;

    // The first one is not sampled, and the second has no client that is traced.
    let unsampled = format!("traceparent: 00-11111111111111111111111111111111-{PARENT}-00\r\n");
    assert_eq!(program.publish("orders.eu", &unsampled).await.0, 201);
    assert_eq!(program.publish("orders.eu", "traceparent: of-no-known-form\r\n").await.0, 201);
    let sampled = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    let (status, response) = program.publish("orders.eu", &sampled).await;
    assert_eq!(status, 201);
    let id = response.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
    for reader in &mut readers {
        read_until(reader, &format!("id: {id}\n")).await;
    }

    let (service, publish) = collector.next().await;
    assert_eq!((&*service, &*publish.name), ("orders", "publish"));
    assert_eq!(
        (hex(&publish.trace_id), hex(&publish.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(publish.kind(), SpanKind::Server);
    assert_eq!(attribute(&publish, "messaging.destination.name").as_deref(), Some("orders.eu"));
    assert_eq!(attribute(&publish, "messaging.message.id").as_deref(), Some(id));
    assert!(publish.start_time_unix_nano < publish.end_time_unix_nano);

    let (_, deliver) = collector.next().await;
    assert_eq!((&*deliver.name, hex(&deliver.trace_id)), ("deliver", TRACE.into()));
    assert_eq!(deliver.parent_span_id, publish.span_id);
    assert_eq!(attribute(&deliver, "messaging.message.id").as_deref(), Some(id));
    assert_eq!(attribute(&deliver, "waterclock.streams").as_deref(), Some("3"));
    assert_eq!(attribute(&deliver, "waterclock.streams.sent").as_deref(), Some("3"));
    let events: Vec<_> = deliver.events.iter().map(|event| &*event.name).collect();
    assert_eq!(events, ["first sent", "last sent"]);
    assert_eq!(deliver.events[1].time_unix_nano, deliver.end_time_unix_nano);
    assert!(publish.start_time_unix_nano <= deliver.start_time_unix_nano);

    // A publish that fails, and one that the stop must send.
    assert_eq!(end(&program).await, 201);
    assert_eq!(program.publish("orders.eu", &sampled).await.0, 409);
    let output = program.stop().await;
    assert!(!output.contains("WARN"), "{output}");
    let mut failed = Vec::new();
    while let Ok((_, span)) = collector.spans.try_recv() {
        if span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error) {
            failed.push(span.name);
        }
    }
    assert_eq!(failed, ["publish"]);
}

#[tokio::test]
async fn a_collector_that_is_away_delays_nothing_and_is_mentioned_once() {
    // Accepts connections, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = format!("http://{}", listener.local_addr().unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (endpoint, is_refused) in [(hanging, false), (format!("http://{gone}"), true)] {
        let program = Program::start(&endpoint).await;
        let sampled = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
        let started = Instant::now();
        for _ in 0..300 {
            assert_eq!(program.publish("orders.eu", &sampled).await.0, 201);
        }
        let took = started.elapsed();
        let output = program.stop().await;
        let mentioned = output.matches("traces cannot be sent").count();
        assert_eq!(mentioned, usize::from(is_refused), "{output}");
        assert!(took < DEADLINE, "{took:?}");
    }
}

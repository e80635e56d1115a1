//! Reads the server's probe as it arrives, for the page `/diagnose`.

use futures_channel::mpsc::unbounded;
use futures_util::{
    StreamExt as _,
    future::{Either, select},
};
use gloo_net::http::{Method, RequestBuilder, Response};
use gloo_timers::future::{TimeoutFuture, sleep};
use js_sys::{Reflect, Uint8Array};
use leptos::prelude::window;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use waterclock_diagnose::{
    CutKind, FetchError, ProbeEvent, ProbeMethod, ProbeRequest, RESPONSE_TIMEOUT, Redirects,
    RequestEcho, StreamEnd, StreamReader, StreamResponse, duration_from_millis,
};
use waterclock_leptos::browser::{
    EventSourceHandle, RawMessage, SourceEvent, internal::AbortOnDrop,
};
use web_sys::{AbortController, ReadableStreamDefaultReader, RequestCache};

use super::offset;

/// Path of the probe.
pub(crate) const PROBE: &str = "/diagnose/stream";
/// Reconnect delay that the probe sends to `EventSource`, in milliseconds.
const RETRY: u32 = 100;

/// Requests the probe and reads the response, until its end or its timeout. Calls `on_read` after
/// each read. Dropping the future aborts the request.
pub(crate) async fn fetch_probe(
    request: &ProbeRequest,
    on_read: impl Fn(&StreamReader),
) -> Result<StreamResponse, FetchError> {
    let abort = AbortController::new().map_err(|_| FetchError::Unreachable)?;
    let abort = AbortOnDrop(abort);
    let mut timeout = sleep(request.timeout());
    let http_request = RequestBuilder::new(&format!("{PROBE}?{}", request.query()))
        .method(match request.method {
            ProbeMethod::Get => Method::GET,
            ProbeMethod::Post => Method::POST,
        })
        .header("accept", waterclock::sse::CONTENT_TYPE)
        // As `EventSource` does. Without caching, the browser closes an aborted request at once.
        .cache(RequestCache::NoStore)
        .abort_signal(Some(&abort.0.signal()));
    let requested_at = offset::now();
    let cut = || {
        let after = duration_from_millis(offset::now() - requested_at);
        FetchError::Cut(after.unwrap_or_default())
    };
    let response = before(&mut timeout, http_request.send()).await.ok_or(FetchError::TimedOut)?;
    let response = response.map_err(|_| cut())?;
    let responded_at = offset::now();
    let body = body_reader(&response).ok_or_else(cut)?;
    let mut reader = StreamReader::default();
    let end = loop {
        match before(&mut timeout, JsFuture::from(body.read())).await {
            None => break StreamEnd::TimedOut,
            Some(Err(_)) => break StreamEnd::Cut(CutKind::Unknown),
            Some(Ok(chunk)) => match chunk_bytes(&chunk) {
                None => break StreamEnd::Complete,
                Some(bytes) => reader.feed(&bytes, offset::now()),
            },
        }
        on_read(&reader);
    };
    Ok(StreamResponse {
        status: response.status(),
        headers: response.headers().entries().collect(),
        // Fetching it has followed them.
        redirects: Redirects::default(),
        requested_at,
        responded_at,
        ended_at: offset::now(),
        end,
        reader,
    })
}

/// Returns the output of a future, or `None` if the timeout elapses first.
async fn before<F: Future>(timeout: &mut TimeoutFuture, future: F) -> Option<F::Output> {
    match select(Box::pin(future), timeout).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

fn body_reader(response: &Response) -> Option<ReadableStreamDefaultReader> {
    response.body()?.get_reader().dyn_into().ok()
}

/// Returns the bytes of a read, or `None` at the end of the body.
fn chunk_bytes(chunk: &JsValue) -> Option<Vec<u8>> {
    let value = Reflect::get(chunk, &"value".into()).ok()?;
    value.dyn_ref::<Uint8Array>().map(Uint8Array::to_vec)
}

/// Lets `EventSource` reconnect after the probe's first event, and returns that request as the
/// server received it. Returns `None` if it takes too long.
pub(crate) async fn resume_probe() -> Option<RequestEcho> {
    let (sender, mut receiver) = unbounded();
    let url = format!("{PROBE}?retry={RETRY}");
    let _source = EventSourceHandle::open(&url, &[ProbeEvent::NAME], move |event| {
        // Sending fails only after the timeout.
        let _ = sender.unbounded_send(event);
    });
    let mut timeout = sleep(RESPONSE_TIMEOUT);
    let mut events = 0;
    while let Some(Some(event)) = before(&mut timeout, receiver.next()).await {
        let SourceEvent::Message(RawMessage { data, .. }) = event else { continue };
        events += 1;
        if events == 2 {
            return serde_json::from_str::<ProbeEvent>(&data).ok()?.request;
        }
    }
    None
}

/// Clears the browser's list of requests (Resource Timing), whose length is limited.
pub(crate) fn clear_resource_timings() {
    if let Some(performance) = window().performance() {
        performance.clear_resource_timings();
    }
}

/// Returns two flags: `true` if a service worker controls this page, and `true` if it has answered
/// a request for the probe. The sign of that is `workerStart` (Resource Timing). Firefox does not
/// set it; there, the sign is a response without a protocol.
pub(crate) fn service_worker() -> (bool, bool) {
    let get = |of: &JsValue, name: &str| Reflect::get(of, &name.into()).unwrap_or_default();
    let workers = get(&window().navigator(), "serviceWorker");
    let is_controlled = workers.is_object() && get(&workers, "controller").is_object();
    let entries = window().performance().map(|all| all.get_entries_by_type("resource"));
    let is_intercepted = entries.unwrap_or_default().iter().any(|entry| {
        let text = |name| get(&entry, name).as_string().unwrap_or_default();
        let number = |name| get(&entry, name).as_f64().unwrap_or_default();
        let is_response = text("name").contains(PROBE) && number("responseStatus") > 0.0;
        is_response && (number("workerStart") > 0.0 || text("nextHopProtocol").is_empty())
    });
    (is_controlled, is_controlled && is_intercepted)
}

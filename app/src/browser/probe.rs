//! Reads the server's probe as it arrives, for the page that diagnoses.

use std::time::Duration;

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
use waterclock::diagnose::{Probe, Reader, Seen};
use web_sys::{AbortController, ReadableStreamDefaultReader};

use super::{Incoming, event_source::Source, offset, poll::AbortOnDrop};

/// Where the probe is.
pub(crate) const PROBE: &str = "/diagnose/stream";
/// How long `EventSource` is told to wait before it connects again, in milliseconds.
const RETRY: u32 = 100;

/// An answer, and what was read of it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// When it was asked for, by this machine's clock: milliseconds since 1970.
    pub(crate) asked: f64,
    /// When reading has ended, by the same.
    pub(crate) ended: f64,
    /// Whether the answer has ended, or was cut; otherwise the time was over.
    pub(crate) has_ended: bool,
    pub(crate) reader: Reader,
}

impl Answer {
    /// The headers that the browser shows.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Asks for the probe, and reads it for so long at most; none if no answer has begun by then. What is not read
/// any more is cut off. `note` is told whenever there is more.
pub(crate) async fn read_probe(
    method: Method,
    query: &str,
    patience: Duration,
    note: impl Fn(&Reader),
) -> Option<Answer> {
    let abort = AbortOnDrop(AbortController::new().ok()?);
    let mut over = sleep(patience);
    let request = RequestBuilder::new(&format!("{PROBE}?{query}"))
        .method(method)
        .header("accept", waterclock::sse::CONTENT_TYPE)
        .abort_signal(Some(&abort.0.signal()));
    let asked = offset::now();
    let answer = in_time(request.send(), &mut over).await?.ok()?;
    let mut read = Answer {
        status: answer.status(),
        headers: answer.headers().entries().collect(),
        asked,
        ended: asked,
        has_ended: true,
        reader: Reader::default(),
    };
    let body = body_of(&answer)?;
    read.has_ended = loop {
        let Some(chunk) = in_time(JsFuture::from(body.read()), &mut over).await else {
            break false;
        };
        let Some(bytes) = chunk.ok().as_ref().and_then(bytes_of) else { break true };
        read.reader.feed(&bytes, offset::now());
        note(&read.reader);
    };
    read.ended = offset::now();
    Some(read)
}

/// What that gives, unless the time is over before.
async fn in_time<F: Future>(future: F, over: &mut TimeoutFuture) -> Option<F::Output> {
    match select(Box::pin(future), over).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

fn body_of(answer: &Response) -> Option<ReadableStreamDefaultReader> {
    answer.body()?.get_reader().dyn_into().ok()
}

/// The bytes that a read has given; none at the end.
fn bytes_of(chunk: &JsValue) -> Option<Vec<u8>> {
    let value = Reflect::get(chunk, &"value".into()).ok()?;
    value.dyn_ref::<Uint8Array>().map(Uint8Array::to_vec)
}

/// What the server saw when `EventSource` came back after the probe's first event; none if it did not within
/// that time.
pub(crate) async fn probe_again(patience: Duration) -> Option<Seen> {
    let (told, mut news) = unbounded();
    let _source = Source::open(&format!("{PROBE}?retry={RETRY}"), &[Probe::NAME], move |news| {
        // Nobody may be waiting any more.
        let _ = told.unbounded_send(news);
    });
    let mut over = sleep(patience);
    let mut probes = 0;
    while let Some(Some(news)) = in_time(news.next(), &mut over).await {
        let Incoming::Message { data, .. } = news else { continue };
        probes += 1;
        if probes == 2 {
            return serde_json::from_str::<Probe>(&data).ok()?.request;
        }
    }
    None
}

/// Whether a service worker controls this page, and whether it has answered requests for the probe (Resource
/// Timing, `workerStart`).
pub(crate) fn service_worker() -> (bool, bool) {
    let get = |of: &JsValue, name: &str| Reflect::get(of, &name.into()).unwrap_or_default();
    let workers = get(&window().navigator(), "serviceWorker");
    let controls = workers.is_object() && get(&workers, "controller").is_object();
    let entries = window().performance().map(|all| all.get_entries_by_type("resource"));
    let answered = entries.unwrap_or_default().iter().any(|entry| {
        let is_probe = get(&entry, "name").as_string().is_some_and(|name| name.contains(PROBE));
        is_probe && get(&entry, "workerStart").as_f64().is_some_and(|start| start > 0.0)
    });
    (controls, answered)
}

//! Reads the server's probe as it arrives, for the page that diagnoses.

use futures_channel::mpsc::unbounded;
use futures_util::{
    StreamExt as _,
    future::{Either, select},
};
use gloo_net::http::{self, RequestBuilder, Response};
use gloo_timers::future::{TimeoutFuture, sleep};
use js_sys::{Reflect, Uint8Array};
use leptos::prelude::window;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use waterclock_diagnose::{
    Answer, End, Method, NoAnswer, PATIENCE, Probe, Question, Reader, Seen, duration,
};
use waterclock_leptos::browser::{AbortOnDrop, Incoming, Source};
use web_sys::{AbortController, ReadableStreamDefaultReader, RequestCache};

use super::offset;

/// Where the probe is.
pub(crate) const PROBE: &str = "/diagnose/stream";
/// How long `EventSource` is told to wait before it connects again, in milliseconds.
const RETRY: u32 = 100;

/// Asks for the probe, and reads its answer, as long as the question says at most. What is not read any more is cut
/// off. `note` is told whenever there is more.
pub(crate) async fn read_probe(
    question: &Question,
    note: impl Fn(&Reader),
) -> Result<Answer, NoAnswer> {
    let abort = AbortController::new().map_err(|_| NoAnswer::NotReached)?;
    let abort = AbortOnDrop(abort);
    let mut over = sleep(question.within());
    let request = RequestBuilder::new(&format!("{PROBE}?{}", question.query()))
        .method(match question.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
        })
        .header("accept", waterclock::sse::CONTENT_TYPE)
        // As `EventSource` asks; and who keeps nothing lets go of what is cut off at once.
        .cache(RequestCache::NoStore)
        .abort_signal(Some(&abort.0.signal()));
    let asked = offset::now();
    let cut = || NoAnswer::Cut(duration(offset::now() - asked).unwrap_or_default());
    let answer = in_time(request.send(), &mut over).await.ok_or(NoAnswer::TimedOut)?;
    let answer = answer.map_err(|_| cut())?;
    let body = body_of(&answer).ok_or_else(cut)?;
    let mut reader = Reader::default();
    let end = loop {
        match in_time(JsFuture::from(body.read()), &mut over).await {
            None => break End::TimedOut,
            Some(Err(_)) => break End::Cut,
            Some(Ok(chunk)) => match bytes_of(&chunk) {
                None => break End::Complete,
                Some(bytes) => reader.feed(&bytes, offset::now()),
            },
        }
        note(&reader);
    };
    Ok(Answer {
        status: answer.status(),
        headers: answer.headers().entries().collect(),
        asked,
        ended: offset::now(),
        end,
        reader,
    })
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

/// What the server saw when `EventSource` came back after the probe's first event; none if it did not in time.
pub(crate) async fn probe_again() -> Option<Seen> {
    let (told, mut news) = unbounded();
    let _source = Source::open(&format!("{PROBE}?retry={RETRY}"), &[Probe::NAME], move |news| {
        // Nobody may be waiting any more.
        let _ = told.unbounded_send(news);
    });
    let mut over = sleep(PATIENCE);
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

/// Forgets the requests that were made, of which browsers remember so many only (Resource Timing).
pub(crate) fn forget_requests() {
    if let Some(performance) = window().performance() {
        performance.clear_resource_timings();
    }
}

/// Whether a service worker controls this page, and whether it has answered requests for the probe: by `workerStart`
/// (Resource Timing), or, in Firefox, which does not tell that, by an answer that no protocol has brought.
pub(crate) fn service_worker() -> (bool, bool) {
    let get = |of: &JsValue, name: &str| Reflect::get(of, &name.into()).unwrap_or_default();
    let workers = get(&window().navigator(), "serviceWorker");
    let controls = workers.is_object() && get(&workers, "controller").is_object();
    let entries = window().performance().map(|all| all.get_entries_by_type("resource"));
    let answered = entries.unwrap_or_default().iter().any(|entry| {
        let text = |name| get(&entry, name).as_string().unwrap_or_default();
        let number = |name| get(&entry, name).as_f64().unwrap_or_default();
        let is_answer = text("name").contains(PROBE) && number("responseStatus") > 0.0;
        is_answer && (number("workerStart") > 0.0 || text("nextHopProtocol").is_empty())
    });
    (controls, controls && answered)
}

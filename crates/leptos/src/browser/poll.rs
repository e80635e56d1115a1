//! The events after a cursor, as one answer (`GET /poll`).

use gloo_net::http::Request;
use waterclock::{event::Event, id::EventId, notice::Gap};
use web_sys::{AbortController, AbortSignal};

use super::{FromJson, Json, from_json};

/// How long an answer may take, in milliseconds.
const PATIENCE: u32 = 20_000;

/// What a poll is answered with.
pub struct Polled {
    /// The events, in order.
    pub events: Vec<Event>,
    /// What to ask after next.
    pub cursor: EventId,
    /// Why events are missing before these, if they are.
    pub gap: Option<Gap>,
    /// Whether there may be more already.
    pub more: bool,
}

impl FromJson for Polled {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            events: json.list("events"),
            cursor: json.parse("cursor")?,
            gap: json.get("gap").and_then(|gap| Gap::from_json(&gap)),
            more: json.is_true("more"),
        })
    }
}

/// Asks once; none if there was no answer to be understood.
pub async fn poll(url: &str) -> Option<Polled> {
    ask(url, &AbortSignal::timeout_with_u32(PATIENCE)).await
}

/// The same with all patience, until the future is dropped.
pub async fn poll_until_dropped(url: &str) -> Option<Polled> {
    let abort = AbortOnDrop(AbortController::new().ok()?);
    ask(url, &abort.0.signal()).await
}

async fn ask(url: &str, signal: &AbortSignal) -> Option<Polled> {
    let answer = Request::get(url).abort_signal(Some(signal)).send().await.ok()?;
    if !answer.ok() {
        return None;
    }
    from_json(&answer.text().await.ok()?)
}

/// Cuts a request off when it is dropped.
pub struct AbortOnDrop(pub AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

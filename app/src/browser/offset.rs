//! How far the browser's clock is from the server's (`GET /time`).

use gloo_net::http::Request;
use leptos::prelude::window;
use waterclock::{
    offset::{Offset, Sample},
    timestamp::Timestamp,
};
use waterclock_leptos::browser::{FromJson, Json, from_json};
use web_sys::AbortSignal;

/// So many questions, one after the other; the quickest answer counts.
const QUESTIONS: usize = 12;
/// How long an answer may take, in milliseconds.
const PATIENCE: u32 = 5000;

/// The server's time.
struct Time(Timestamp);

impl FromJson for Time {
    fn from_json(json: &Json) -> Option<Self> {
        json.parse("time").map(Self)
    }
}

/// Asks the server for its time; none if it does not tell.
pub(crate) async fn offset() -> Option<Offset> {
    let mut samples = Vec::new();
    for _ in 0..QUESTIONS {
        let signal = AbortSignal::timeout_with_u32(PATIENCE);
        let sent = now();
        let Ok(answer) = Request::get("/time").abort_signal(Some(&signal)).send().await else {
            break;
        };
        let received = now();
        let Ok(text) = answer.text().await else { break };
        if let Some(Time(server)) = from_json(&text) {
            samples.push(Sample { sent, server, received });
        }
    }
    Offset::of(&samples)
}

/// The time by the browser's clock: milliseconds since 1970, with decimals.
pub(crate) fn now() -> f64 {
    window().performance().map_or(0.0, |performance| performance.time_origin() + performance.now())
}

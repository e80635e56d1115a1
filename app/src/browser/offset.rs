//! The offset between the browser's clock and the server's (`GET /time`).

use gloo_net::http::Request;
use leptos::prelude::window;
use waterclock::{
    offset::{Offset, Sample},
    timestamp::Timestamp,
};
use waterclock_leptos::browser::internal::{FromJson, Json, from_json};
use web_sys::AbortSignal;

/// Number of requests, one after the other. The fastest one counts.
const REQUESTS: usize = 12;
/// Timeout of a request, in milliseconds.
const TIMEOUT: u32 = 5000;

/// The response to `GET /time`.
struct ServerTime(Timestamp);

impl FromJson for ServerTime {
    fn from_json(json: &Json) -> Option<Self> {
        json.parse("time").map(Self)
    }
}

/// Measures the offset. Returns `None` if the server does not answer.
pub(crate) async fn measure_offset() -> Option<Offset> {
    let mut samples = Vec::new();
    for _ in 0..REQUESTS {
        let signal = AbortSignal::timeout_with_u32(TIMEOUT);
        let sent = now();
        let Ok(response) = Request::get("/time").abort_signal(Some(&signal)).send().await else {
            break;
        };
        let received = now();
        let Ok(text) = response.text().await else { break };
        if let Some(ServerTime(server)) = from_json(&text) {
            samples.push(Sample { sent, server, received });
        }
    }
    Offset::of(&samples)
}

/// Returns the time by the browser's clock, in milliseconds since 1970, with decimals.
pub(crate) fn now() -> f64 {
    window().performance().map_or(0.0, |performance| performance.time_origin() + performance.now())
}

//! The server's side of a comparison: its meters (`/meters`), the built-in load (`/load`), and the
//! current position of the log.

use gloo_net::http::{Request, Response};
use serde::{Deserialize, Serialize};
use waterclock::{id::EventId, transport::Transport};
use waterclock_leptos::browser::internal::{FromJson, Json, from_json, poll, problem_detail};
use web_sys::AbortSignal;

use super::timing::protocol;
use crate::code::without_code;

/// The server's counts for one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MeterCounts {
    /// Connections used.
    pub(crate) connections: u64,
    pub(crate) requests: u64,
    /// Bytes received by the server.
    pub(crate) received: u64,
    /// Bytes sent by the server.
    pub(crate) sent: u64,
}

impl MeterCounts {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            requests: self.requests + other.requests,
            received: self.received + other.received,
            sent: self.sent + other.sent,
        }
    }
}

/// The counts by transport, in the order of [`Transport::ALL`], and last those of shared
/// connections.
pub(crate) struct MeterReading(pub(crate) [MeterCounts; 5]);

impl FromJson for MeterReading {
    fn from_json(json: &Json) -> Option<Self> {
        let [sse, web_socket, long_poll, poll] = Transport::ALL.map(Transport::as_str);
        let counts = [sse, web_socket, long_poll, poll, "shared"].map(|name| {
            let of = json.get(name);
            let number = |name| of.as_ref().and_then(|of| of.number(name)).unwrap_or_default();
            MeterCounts {
                connections: number("connections"),
                requests: number("requests"),
                received: number("received"),
                sent: number("sent"),
            }
        });
        Some(Self(counts))
    }
}

/// Timeout of a request, in milliseconds.
const TIMEOUT: u32 = 5000;

fn timeout() -> AbortSignal {
    AbortSignal::timeout_with_u32(TIMEOUT)
}

/// Reads a meter. Returns `None` if the server does not answer, or has no such meter.
pub(crate) async fn read_meter(meter: &str) -> Option<MeterReading> {
    let request = Request::get(&format!("/meters/{meter}")).abort_signal(Some(&timeout()));
    let response = request.send().await.ok()?;
    if !response.ok() {
        return None;
    }
    from_json(&response.text().await.ok()?)
}

/// Makes the server cut the connections of a meter.
pub(crate) async fn cut(meter: &str) -> Result<(), String> {
    let request = Request::post(&format!("/meters/{meter}/cut")).abort_signal(Some(&timeout()));
    match request.send().await {
        // Over HTTP/2, the connection of this request is one of those that are cut.
        Err(_) if !protocol().starts_with("http/1") => Ok(()),
        result => check(result).await,
    }
}

/// Makes the server publish a load for some seconds, or continue the load of that name.
pub(crate) async fn load(name: &str, rate: &str, size: &str, seconds: u32) -> Result<(), String> {
    let seconds = seconds.to_string();
    let query = [("name", name), ("rate", rate), ("size", size), ("seconds", &seconds)];
    let request = Request::post("/load").query(query).abort_signal(Some(&timeout()));
    check(request.send().await).await
}

/// Ends the load of that name.
pub(crate) async fn end_load(name: &str) -> Result<(), String> {
    let request = Request::delete("/load").query([("name", name)]).abort_signal(Some(&timeout()));
    check(request.send().await).await
}

/// Returns a text about the problem if a request has failed.
async fn check(result: Result<Response, gloo_net::Error>) -> Result<(), String> {
    match result {
        Ok(response) if response.ok() => Ok(()),
        Ok(response) => {
            let status = response.status();
            let detail = problem_detail(response).await;
            let otherwise = || format!("The server answered with status {status}.");
            Err(detail.map_or_else(otherwise, |detail| without_code(&detail)))
        }
        Err(_) => Err("The server cannot be reached.".to_owned()),
    }
}

/// Returns the position of the log after its newest event of these topics.
pub(crate) async fn newest_position(query: &str) -> Result<EventId, String> {
    let url = format!("/poll?{query}");
    if let Ok(response) = poll(url.clone()).await {
        return Ok(response.cursor);
    }
    check(Request::get(&url).send().await).await?;
    Err("The server's response could not be parsed.".to_owned())
}

//! What the server counts for a page that compares (`/meters`), what the browser counts itself, and the
//! built-in load.

use gloo_net::http::{Request, Response};
use js_sys::Reflect;
use leptos::prelude::window;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use waterclock::{id::EventId, transport::Transport};
use waterclock_leptos::browser::{FromJson, Json, detail, from_json, poll};
use web_sys::AbortSignal;

/// The name of a new meter.
pub(crate) fn draw_meter() -> String {
    let mut bytes = [0; 16];
    if let Ok(crypto) = window().crypto() {
        // It has a random number for all of them.
        let _ = crypto.get_random_values_with_u8_array(&mut bytes);
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// What the server has counted of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Connections that it was on.
    pub(crate) connections: u64,
    pub(crate) requests: u64,
    /// Bytes that the server has received.
    pub(crate) received: u64,
    /// Bytes that it has sent.
    pub(crate) sent: u64,
}

impl Counted {
    pub(crate) fn plus(self, more: Self) -> Self {
        Self {
            connections: self.connections + more.connections,
            requests: self.requests + more.requests,
            received: self.received + more.received,
            sent: self.sent + more.sent,
        }
    }
}

/// By transport, in the order of [`Transport::ALL`], and at last of the connections that they share.
pub(crate) struct MeterReading(pub(crate) [Counted; 5]);

impl FromJson for MeterReading {
    fn from_json(json: &Json) -> Option<Self> {
        let [sse, web_socket, long_poll, poll] = Transport::ALL.map(Transport::as_str);
        let counted = [sse, web_socket, long_poll, poll, "shared"].map(|name| {
            let of = json.get(name);
            let number = |name| of.as_ref().and_then(|of| of.number(name)).unwrap_or_default();
            Counted {
                connections: number("connections"),
                requests: number("requests"),
                received: number("received"),
                sent: number("sent"),
            }
        });
        Some(Self(counted))
    }
}

/// How long an answer may take, in milliseconds.
const PATIENCE: u32 = 5000;

fn patience() -> AbortSignal {
    AbortSignal::timeout_with_u32(PATIENCE)
}

/// Reads a meter; none if the server does not answer, or has none.
pub(crate) async fn read_meter(meter: &str) -> Option<MeterReading> {
    let request = Request::get(&format!("/meters/{meter}")).abort_signal(Some(&patience()));
    let answer = request.send().await.ok()?;
    if !answer.ok() {
        return None;
    }
    from_json(&answer.text().await.ok()?)
}

/// Has the server cut the connections of a meter.
pub(crate) async fn cut(meter: &str) -> Result<(), String> {
    let request = Request::post(&format!("/meters/{meter}/cut")).abort_signal(Some(&patience()));
    match request.send().await {
        // The one over which this was asked is among them, unless each request has its own.
        Err(_) if !protocol().starts_with("http/1") => Ok(()),
        answer => done(answer).await,
    }
}

/// Has the server make a load for so many seconds, or go on with it, for whom that is the name.
pub(crate) async fn load(name: &str, rate: &str, size: &str, seconds: u32) -> Result<(), String> {
    let seconds = seconds.to_string();
    let query = [("name", name), ("rate", rate), ("size", size), ("seconds", &seconds)];
    let request = Request::post("/load").query(query).abort_signal(Some(&patience()));
    done(request.send().await).await
}

/// Ends it, once nobody else wants it.
pub(crate) async fn end_load(name: &str) -> Result<(), String> {
    let request = Request::delete("/load").query([("name", name)]).abort_signal(Some(&patience()));
    done(request.send().await).await
}

async fn done(answer: Result<Response, gloo_net::Error>) -> Result<(), String> {
    match answer {
        Ok(answer) if answer.ok() => Ok(()),
        Ok(answer) => {
            let status = answer.status();
            let detail = detail(answer).await;
            Err(detail.unwrap_or_else(|| format!("The server answered with status {status}.")))
        }
        Err(_) => Err("The server cannot be reached.".to_owned()),
    }
}

/// The position of the log after all that there is of those topics.
pub(crate) async fn position(query: &str) -> Result<EventId, String> {
    let url = format!("/poll?{query}");
    if let Some(polled) = poll(&url).await {
        return Ok(polled.cursor);
    }
    done(Request::get(&url).send().await).await?;
    Err("The server's answer is not understood.".to_owned())
}

/// Bytes that the browser says to have received over polls and long polls since it was last asked (Resource
/// Timing, `transferSize`: the content as it was transferred, and 300 for the head, whatever that has).
pub(crate) fn transferred(meter: &str) -> [f64; 4] {
    let mut bytes = [0.0; 4];
    let Some(performance) = window().performance() else { return bytes };
    let number = |entry: &JsValue, name: &str| Reflect::get(entry, &name.into()).ok()?.as_f64();
    for entry in performance.get_entries_by_type("resource") {
        let name = Reflect::get(&entry, &"name".into()).ok().and_then(|name| name.as_string());
        let Some(name) = name.filter(|name| name.contains(meter) && name.contains("/poll?")) else {
            continue;
        };
        let is_long = name.contains("&wait=");
        let transport = if is_long { Transport::LongPoll } else { Transport::Poll };
        for (i, other) in Transport::ALL.into_iter().enumerate() {
            if other == transport {
                bytes[i] += number(&entry, "transferSize").unwrap_or_default();
            }
        }
    }
    performance.clear_resource_timings();
    bytes
}

/// Has the browser remember enough for [`transferred`] to be asked once a second.
pub(crate) fn remember_transfers() {
    if let Some(performance) = window().performance() {
        performance.clear_resource_timings();
        performance.set_resource_timing_buffer_size(10_000);
    }
}

/// The protocol over which this page came, such as `http/1.1` or `h2` (RFC 7301); empty if the browser does
/// not say.
pub(crate) fn protocol() -> String {
    let entries = window().performance().map(|all| all.get_entries_by_type("navigation"));
    let entry = entries.map(|entries| entries.get(0)).unwrap_or_default();
    let protocol = Reflect::get(&entry, &"nextHopProtocol".into()).ok();
    protocol.and_then(|protocol| protocol.as_string()).unwrap_or_default()
}

/// A text of ASCII as it may stand in an address (RFC 4648, 5); none for another.
pub(crate) fn to_base64url(text: &str) -> Option<String> {
    let base64 = window().btoa(text).ok()?;
    Some(base64.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned())
}

/// That text; none if it is none.
pub(crate) fn from_base64url(base64: &str) -> Option<String> {
    window().atob(&base64.replace('-', "+").replace('_', "/")).ok()
}

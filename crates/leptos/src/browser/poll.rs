//! Requests for the events after a cursor (`GET /poll`).

use std::pin::Pin;

use gloo_net::http::Request;
use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, TopicEnd},
};
use web_sys::{AbortController, AbortSignal};

use super::{
    explain::check,
    json::{FromJson, Json},
};
use crate::connection::DisconnectReason;

/// Timeout of a request, in milliseconds.
const TIMEOUT: u32 = 20_000;

/// The response to a poll.
#[derive(Debug)]
pub struct PollResponse {
    /// The events, in order.
    pub events: Vec<Event>,
    /// The topics that have ended, in order.
    pub ends: Vec<PlacedEnd>,
    /// The cursor for the next request.
    pub cursor: EventId,
    /// A gap before the events, if any are missing, or after the one event of a request without a
    /// cursor.
    pub gap: Option<Gap>,
    /// `true` if more events may be available already.
    pub more: bool,
}

impl FromJson for PollResponse {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            events: json.list("events"),
            ends: json.list("ends"),
            cursor: json.parse("cursor")?,
            gap: json.get("gap").and_then(|gap| Gap::from_json(&gap)),
            more: json.is_true("more"),
        })
    }
}

/// The end of a topic, with its place in the log.
#[derive(Debug)]
pub struct PlacedEnd {
    /// The id of the end.
    pub id: EventId,
    /// The end.
    pub end: TopicEnd,
}

impl FromJson for PlacedEnd {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self { id: json.parse("id")?, end: TopicEnd::from_json(json)? })
    }
}

/// Media type of the responses.
const JSON: &str = "application/json";

/// Polls once, with a timeout.
///
/// # Errors
///
/// Returns the reason why there is no valid response. A response that is not one of Waterclock's
/// counts as [`DisconnectReason::Unreachable`].
pub async fn poll(url: String) -> Result<PollResponse, DisconnectReason> {
    let json = get_json(url).await?;
    PollResponse::from_json(&json).ok_or(DisconnectReason::Unreachable)
}

/// Requests JSON, with a timeout. The future is boxed, so that its code is in the page once.
///
/// # Errors
///
/// Returns the reason why there is no valid response. A body that is incomplete or not JSON counts
/// as [`DisconnectReason::Unreachable`].
pub fn get_json(url: String) -> Pin<Box<dyn Future<Output = Result<Json, DisconnectReason>>>> {
    Box::pin(async move {
        let timeout = AbortSignal::timeout_with_u32(TIMEOUT);
        let request = Request::get(&url).header("accept", JSON).abort_signal(Some(&timeout));
        let response = check(request.send().await, JSON).await?;
        let text = response.text().await.map_err(|_| DisconnectReason::Unreachable)?;
        Json::of(&text).ok_or(DisconnectReason::Unreachable)
    })
}

/// Aborts a request when it is dropped.
#[derive(Debug)]
pub struct AbortOnDrop(pub AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! `GET /events`: an event stream (WHATWG HTML 9.2) from where the client asks to go on.

mod query;

use std::{borrow::Cow, convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use waterclock::{
    event::Topic,
    hub::{Batch, Format, Frame, Hub, Subscriber},
    id::{CountedId, Cursor},
    notice::{GoodbyeReason, Notice},
    pattern::Patterns,
    sse::{self, Block},
    transport::Transport,
};

use query::Query;
#[cfg(feature = "properties")]
pub use query::properties;

use crate::{
    access::{Caller, Until},
    client::Client,
    meter::{Metered, Meters},
    problem::Problem,
    router::AppState,
    stream::{Limit, Session, Wire, goodbye_alone},
};

/// How many patterns a stream may have.
pub const MAX_PATTERNS: usize = 64;

/// What a client asks for, and may have.
#[derive(Debug)]
pub struct Request {
    topics: Patterns,
    cursor: Cursor,
    conflate: bool,
    format: Format,
    limit: Option<Limit>,
    until: Until,
    metered: Option<Metered>,
}

impl FromRequestParts<AppState> for Request {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let caller = Caller::of(parts, &state.access, state.hub.now());
        let Query { patterns, format, conflate, limit, last_event_id, meter } =
            Query::parse(parts.uri.query().unwrap_or_default())?;
        let metered = meter.map(|meter| Metered::new(&meter, &parts.extensions)).transpose()?;
        let topics = Patterns::new(patterns).unwrap_or(Topic::clock().into());
        let until = caller.may_read(&topics, &state.access)?;
        // What a browser sends when it reconnects is newer than what the page put into the URL.
        // It sends UTF-8, which axum's `to_str` would refuse.
        let header = parts.headers.get("last-event-id").map(HeaderValue::as_bytes);
        let header = header.map(String::from_utf8_lossy).filter(|text| !text.is_empty());
        let text = header.map(Cow::into_owned).or(last_event_id);
        let cursor = Cursor::parse(text.as_deref());
        let counted = text.and_then(|text| text.parse().ok());
        let sent = counted.map_or(0, |CountedId { sent, .. }| sent);
        let limit = limit.map(|events| Limit { events, sent });
        Ok(Self { topics, cursor, conflate, format, limit, until, metered })
    }
}

impl Request {
    /// A reader of what was asked for.
    pub(crate) fn subscribe(self, hub: &Hub) -> Subscriber {
        let subscriber = hub.subscribe(self.topics, self.cursor);
        if self.conflate { subscriber.conflated() } else { subscriber }
    }

    /// How many events are asked for at most.
    pub(crate) fn limit(&self) -> usize {
        let limit = self.limit.map(|limit| limit.events.get());
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }

    /// Has the bytes of this request and its answer counted, if the client wants that.
    pub(crate) fn count(&self, meters: &Meters, transport: Transport) {
        if let Some(metered) = &self.metered {
            metered.count(meters, transport);
        }
    }

    /// How many events the client has, if that is all that it asked for.
    pub(crate) fn complete(&self) -> Option<u64> {
        let Limit { events, sent } = self.limit?;
        (sent >= events.get()).then_some(sent)
    }

    /// Opens a stream of what was asked for.
    ///
    /// # Errors
    ///
    /// What the stream is to say instead, if there can be none.
    pub(crate) fn open<W: Wire>(
        self,
        state: AppState,
        client: IpAddr,
        wire: W,
    ) -> Result<Session<W>, (GoodbyeReason, W::Chunk)> {
        let refuse = |reason| Err((reason, goodbye_alone(&state, &wire, reason)));
        if state.stop.has_begun() {
            return refuse(GoodbyeReason::Draining);
        }
        let (limit, until) = (self.limit, self.until);
        let subscriber = self.subscribe(&state.hub);
        let Some(open) = state.streams.open(client, &subscriber) else {
            tracing::info!("there are as many streams as there may be");
            return refuse(GoodbyeReason::Limit);
        };
        Ok(Session::new(state, open, subscriber, wire, limit, until))
    }
}

/// Answers with the stream.
pub async fn stream(
    State(state): State<AppState>,
    Client(client): Client,
    request: Request,
) -> Response {
    request.count(&state.meters, Transport::Sse);
    if request.complete().is_some() {
        // A browser stops at No Content (WHATWG HTML 9.2.3).
        return StatusCode::NO_CONTENT.into_response();
    }
    let wire = Blocks(request.format);
    match request.open(state, client, wire) {
        Ok(session) => answer(Body::from_stream(session.map(Ok::<_, Infallible>))),
        Err((_, goodbye)) => answer(Body::from(goodbye)),
    }
}

/// Answers with the stream's head, and opens nothing.
pub async fn head(request: Request) -> Response {
    if request.complete().is_some() {
        return StatusCode::NO_CONTENT.into_response();
    }
    answer(Body::empty())
}

/// The head of each stream.
pub(crate) fn answer(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, sse::CONTENT_TYPE),
        // Nobody on the way may keep the stream, nor compress it, which would hold events back.
        (CACHE_CONTROL, "no-cache, no-transform"),
        // nginx would collect the stream in a buffer otherwise.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

/// Blocks of an event stream, each chunk whole ones.
pub(crate) struct Blocks(pub(crate) Format);

impl Wire for Blocks {
    type Chunk = Bytes;

    fn events(&self, batch: &Batch) -> Bytes {
        batch.bytes(self.0)
    }

    fn counted_events(&self, frames: &[Arc<Frame>], first: u64) -> Bytes {
        let frames = frames.iter().zip(first..);
        let bytes = frames.map(|(frame, sent)| frame.counted_bytes(self.0, sent));
        bytes.collect::<Vec<_>>().concat().into()
    }

    fn notice<N: Notice>(
        &self,
        notice: &N,
        position: Option<&str>,
        retry: Option<Duration>,
    ) -> Bytes {
        let json = serde_json::to_string(notice);
        let mut bytes = Vec::new();
        let block = Block {
            id: position,
            name: Some(N::NAME),
            retry,
            // `null` cannot happen: notices are made of strings and numbers, which are JSON.
            data: Some(json.as_deref().unwrap_or("null")),
        };
        let encoded = block.encode(&mut bytes);
        debug_assert_eq!(encoded, Ok(()), "ids and reserved names have no CR, LF and NUL");
        bytes.into()
    }

    fn length(chunk: &Bytes) -> usize {
        chunk.len()
    }
}

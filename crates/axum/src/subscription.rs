//! A validated, authorized subscription request, which all transports share.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, request::Parts},
};
use waterclock::{
    event::Topic,
    hub::{Format, Hub, Subscriber},
    id::{CountedId, Cursor},
    notice::GoodbyeReason,
    pattern::Patterns,
    transport::Transport,
};

use crate::{
    accept_hook::AcceptHook,
    deadline::Deadline,
    metrics::EndReason,
    policy::{Expiry, client_of},
    problem::Problem,
    query::{Query, QueryError},
    session::{Encoder, Limit, Session, refuse},
    state::{RoutesState, StreamContext},
};

/// A validated, authorized subscription request.
#[derive(Debug)]
pub(crate) struct Subscription {
    topics: Patterns,
    cursor: Cursor,
    conflate: bool,
    format: Format,
    limit: Option<Limit>,
    expires: Expiry,
    client: Option<IpAddr>,
    accept_hook: Option<AcceptHook>,
}

impl FromRequestParts<RoutesState> for Subscription {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &RoutesState) -> Result<Self, Problem> {
        let Query { patterns, format, conflate, limit, last_event_id } =
            Query::parse(parts.uri.query().unwrap_or_default())?;
        let topics = Patterns::new(patterns).unwrap_or(Topic::clock().into());
        let expires = state.policy.may_read(parts, &topics)?;
        let client = state.policy.client_address(parts).map(client_of);
        // The id that a browser sends when it reconnects is newer than the one in the page's URL.
        let text = cursor_in_headers(&parts.headers)?.or(last_event_id);
        let cursor = Cursor::parse(text.as_deref());
        let counted = text.and_then(|text| text.parse().ok());
        let sent = counted.map_or(0, |CountedId { sent, .. }| sent);
        let limit = limit.map(|events| Limit { events, sent });
        let accept_hook = parts.extensions.get().cloned();
        Ok(Self { topics, cursor, conflate, format, limit, expires, client, accept_hook })
    }
}

/// Returns the value of `Last-Event-ID`, or `None` if it is missing or empty. It is UTF-8, which
/// `HeaderValue::to_str` would refuse.
fn cursor_in_headers(headers: &HeaderMap) -> Result<Option<String>, QueryError> {
    let values = headers.get_all("last-event-id").into_iter();
    let mut values = values.map(HeaderValue::as_bytes).filter(|value| !value.is_empty());
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|other| other != first) {
        return Err(QueryError::TwoCursors);
    }
    Ok(Some(String::from_utf8_lossy(first).into_owned()))
}

impl Subscription {
    /// Subscribes to the hub for a poll, which does not report the number of skipped events.
    pub(crate) fn subscribe_for_poll(self, hub: &Hub) -> Subscriber {
        let subscriber = hub.subscribe(self.topics, self.cursor);
        if self.conflate { subscriber.conflated_without_count() } else { subscriber }
    }

    /// The client's address, if it is known.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// The end of the permission; `None` for a permission that does not expire.
    pub(crate) fn deadline(&self, hub: &Arc<Hub>) -> Option<Deadline> {
        self.expires.map(|expires| Deadline::new(hub, expires))
    }

    /// Calls the request's [`AcceptHook`], if it has one.
    pub(crate) fn accept(&self, transport: Transport) {
        if let Some(hook) = &self.accept_hook {
            hook.call(transport);
        }
    }

    /// The format of the events.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Maximum number of events, for one answer.
    pub(crate) fn max_events(&self) -> usize {
        let limit = self.limit.map(|limit| limit.events.get());
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }

    /// Number of events that the client has received, if that is the limit it asked for.
    pub(crate) fn complete(&self) -> Option<u64> {
        let Limit { events, sent } = self.limit?;
        (sent >= events.get()).then_some(sent)
    }

    /// Opens a stream.
    ///
    /// # Errors
    ///
    /// The reason and the only chunk to send, if no stream can be opened. An HTTP error would make
    /// a browser give up for good.
    pub(crate) fn open<E: Encoder>(
        self,
        context: Arc<StreamContext>,
        encoder: E,
    ) -> Result<Session<E>, (EndReason, E::Chunk)> {
        let refuse = |reason| Err((EndReason::from(reason), refuse(&context, &encoder, reason)));
        if context.stop.has_begun() {
            return refuse(GoodbyeReason::Draining);
        }
        let Self { topics, cursor, conflate, limit, expires, client, .. } = self;
        let Ok(open) = context.streams.open(client) else { return refuse(GoodbyeReason::Limit) };
        let subscriber = context.hub.subscribe(topics, cursor);
        let subscriber = if conflate { subscriber.conflated() } else { subscriber };
        open.follow(&subscriber);
        let deadline = expires.map(|expires| Deadline::new(&context.hub, expires));
        Ok(Session::new(context, open, subscriber, encoder).limited(limit).expiring(deadline))
    }
}

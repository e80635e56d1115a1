//! A validated, authorized subscription request, which all transports share.

use std::{error::Error, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Path},
    http::{HeaderMap, HeaderValue, request::Parts},
};
use serde::Deserialize;
use tokio::time::timeout;
use waterclock::{
    event::Topic,
    event_log::EventLogError,
    hub::{Format, Hub, Subscriber},
    id::{CountedId, Cursor, EventId},
    notice::GoodbyeReason,
    pattern::Patterns,
    timestamp::Timestamp,
    transport::Transport,
};

use crate::{
    accept_hook::AcceptHook,
    deadline::Deadline,
    limits::MAX_CATCH_UP,
    metrics::EndReason,
    policy::client_of,
    problem::Problem,
    query::{Query, QueryError},
    session::{Encoder, Limit, Session, refuse},
    standing::Asked,
    state::{RoutesState, StreamContext},
};

/// The position from which a reader wants to continue.
#[derive(Clone, Debug)]
enum Start {
    Cursor(Cursor),
    Since(Timestamp),
}

impl Start {
    /// Subscribes to the hub. A cursor that another node has given may be ahead of this one, which
    /// then catches up first.
    ///
    /// # Errors
    ///
    /// If the log cannot be read. [`EventLogError::Unavailable`] if the node is still behind.
    async fn subscribe(self, topics: Patterns, hub: &Hub) -> Result<Subscriber, EventLogError> {
        match self {
            Self::Cursor(cursor) => {
                reach(hub, &cursor).await?;
                Ok(hub.subscribe(topics, cursor))
            }
            Self::Since(time) => hub.subscribe_since(topics, time).await,
        }
    }
}

/// Waits until the hub has a cursor that another node may have given.
///
/// # Errors
///
/// [`EventLogError::Unavailable`] if the node is still behind after [`MAX_CATCH_UP`].
pub(crate) async fn reach(hub: &Hub, cursor: &Cursor) -> Result<(), EventLogError> {
    let reached = timeout(MAX_CATCH_UP, hub.reach(cursor)).await;
    reached.map_err(|_| EventLogError::unavailable("the node is behind the cluster"))
}

/// The parameters in the path. Only `/events/{topic}` has this one.
#[derive(Deserialize)]
struct SubscriptionPath {
    topic: Option<String>,
}

/// A validated, authorized subscription request.
pub(crate) struct Subscription {
    topics: Patterns,
    start: Start,
    conflate: bool,
    format: Format,
    limit: Option<Limit>,
    max_delay: Duration,
    /// The end of the permission; `None` for a permission that never ends.
    deadline: Option<Deadline>,
    client: Option<IpAddr>,
    accept_hook: Option<AcceptHook>,
}

/// The subscription of a poll, and the id before which it reads instead, if it names one.
pub(crate) struct PollSubscription(pub(crate) Subscription, pub(crate) Option<EventId>);

impl FromRequestParts<RoutesState> for PollSubscription {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &RoutesState) -> Result<Self, Problem> {
        let Path(SubscriptionPath { topic }) = Path::from_request_parts(parts, state).await?;
        let query = parts.uri.query().unwrap_or_default();
        let mut query = Query::parse(query)?;
        topic.map_or(Ok(()), |topic| query.add_pattern(&topic))?;
        let Query { patterns, format, conflate, limit, max_delay, .. } = query;
        let Query { last_event_id, since, before, .. } = query;
        let topics = Patterns::new(patterns).unwrap_or(Topic::clock().into());
        let changes = &state.streaming.changes;
        // Counted before, so no change is missed.
        let seen = changes.count();
        let expires = state.policy.may_read(parts, &topics)?;
        let standing = state.policy.standing(parts, Asked::Read(&topics));
        let deadline = Deadline::of(&state.streaming.hub, expires, standing, (changes, seen));
        let client = state.policy.client_address(parts).map(client_of);
        // The id that a browser sends when it reconnects is newer than the one in the page's URL.
        let text = cursor_in_headers(&parts.headers)?.or(last_event_id);
        if before.is_some() && text.is_some() {
            return Err(QueryError::BeforeAndAfter("Last-Event-ID").into());
        }
        let start = match since {
            // A client that reconnects repeats the time of its first request.
            Some(since) if text.is_none() => Start::Since(since.time(state.streaming.hub.now())?),
            _ => Start::Cursor(Cursor::parse(text.as_deref())),
        };
        let counted = text.and_then(|text| text.parse().ok());
        let sent = counted.map_or(0, |CountedId { sent, .. }| sent);
        let limit = limit.map(|events| Limit { events, sent });
        let accept_hook = parts.extensions.get().cloned();
        let subscription = Subscription {
            topics,
            start,
            conflate,
            format,
            limit,
            max_delay,
            deadline,
            client,
            accept_hook,
        };
        Ok(Self(subscription, before))
    }
}

impl FromRequestParts<RoutesState> for Subscription {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &RoutesState) -> Result<Self, Problem> {
        match PollSubscription::from_request_parts(parts, state).await? {
            PollSubscription(subscription, None) => Ok(subscription),
            PollSubscription(_, Some(_)) => Err(QueryError::BeforeInStream.into()),
        }
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
    pub(crate) async fn subscribe_for_poll(self, hub: &Hub) -> Result<Subscriber, EventLogError> {
        let subscriber = self.start.subscribe(self.topics, hub).await?;
        Ok(if self.conflate { subscriber.conflated_without_count() } else { subscriber })
    }

    /// Returns the topics of a reader that has no cursor and names no time.
    pub(crate) fn topics_from_now(&self) -> Option<&Patterns> {
        matches!(self.start, Start::Cursor(Cursor::Now)).then_some(&self.topics)
    }

    /// Returns the topics.
    pub(crate) fn topics(&self) -> &Patterns {
        &self.topics
    }

    /// The client's address, if it is known.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// The end of the permission; `None` for a permission that never ends.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.deadline.clone()
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

    /// Time for which events may wait for others.
    pub(crate) fn max_delay(&self) -> Duration {
        self.max_delay
    }

    /// Number of events that the client has received, if that is the limit it asked for.
    pub(crate) fn complete(&self) -> Option<u64> {
        let Limit { events, sent } = self.limit?;
        (sent >= events.get()).then_some(sent)
    }

    /// Returns `true` if the client has received everything up to the ends of all its topics.
    pub(crate) fn is_over(&self, hub: &Hub) -> bool {
        matches!(&self.start, Start::Cursor(cursor) if hub.is_over(&self.topics, cursor))
    }

    /// Opens a stream. With `repeats_ends`, it begins with the ends of its topics that the client
    /// has received already. It goes on from the client's cursor, since one of the topics may be
    /// reopened in the meantime.
    ///
    /// # Errors
    ///
    /// The reason and the only chunk to send, if no stream can be opened. An HTTP error would make
    /// a browser give up for good. If the log cannot be read, there is no chunk, and the client
    /// reconnects as after any cut.
    pub(crate) async fn open<E: Encoder>(
        self,
        context: Arc<StreamContext>,
        encoder: E,
        repeats_ends: bool,
    ) -> Result<Session<E>, (EndReason, Option<E::Chunk>)> {
        let refuse =
            |reason| Err((EndReason::from(reason), Some(refuse(&context, &encoder, reason))));
        if context.stop.has_begun() {
            return refuse(GoodbyeReason::Draining);
        }
        let Self { topics, start, conflate, limit, max_delay, deadline, client, .. } = self;
        let Ok(open) = context.streams.open(client) else { return refuse(GoodbyeReason::Limit) };
        let subscriber = match start.subscribe(topics, &context.hub).await {
            Ok(subscriber) => subscriber,
            Err(EventLogError::Unavailable(_)) => return refuse(GoodbyeReason::Behind),
            Err(error) => {
                context.metrics.stream_ended(EndReason::LogFailed);
                let error = &error as &dyn Error;
                tracing::error!(connection = open.number(), error, "stream failed");
                return Err((EndReason::LogFailed, None));
            }
        };
        let subscriber = if repeats_ends { subscriber.repeating_ends() } else { subscriber };
        let subscriber = if conflate { subscriber.conflated() } else { subscriber };
        open.follow(&subscriber);
        let session = Session::new(context, open, subscriber, encoder);
        Ok(session.limited(limit).expiring(deadline).gathering(max_delay))
    }
}

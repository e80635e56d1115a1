//! Admission of events: the checks of topic, permission, expiry, rate, idempotency key and size,
//! which all ways to publish share.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::http::{HeaderValue, StatusCode, header::RETRY_AFTER, request::Parts};
use waterclock::{
    event::{Draft, IdempotencyKey, InvalidName, InvalidTopic, Name, Topic},
    event_log::{EventLogError, Rejected},
    hub::{DraftChain, Frame, Hub, PublishError, Publishing},
    timestamp::Timestamp,
    trace::Trace,
};

use crate::{
    deadline::Deadline,
    idempotency::KeyReservation,
    limits::{
        MAX_BLOCK, MAX_DATA, MAX_END_MESSAGE, MAX_KEY, MAX_MESSAGE, MAX_PATIENCE, UNAVAILABLE_RETRY,
    },
    parameters::InvalidParameters,
    policy::{Denied, Publisher, TopicLimits, client_of},
    problem::{AttackSign, Problem},
    publish_rate::PublishRate,
    standing::{Asked, StandingPermission},
    state::PublishContext,
    trace_hook::RequestTrace,
};

/// A publish that was not accepted. Its event is not in the log, except perhaps for
/// [`Unconfirmed`](Self::Unconfirmed).
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishRejection {
    #[error("{0:?} is {InvalidTopic}.")]
    Topic(String),
    #[error("{name:?} cannot be the name of an event: {why}.")]
    Name { name: String, why: InvalidName },
    #[error(
        "{0:?} is not a way to split. `split` must be `lines`, `events` or `chunks`, or be left out."
    )]
    Split(String),
    #[error("{0:?} is not an outcome. `end` must be `done` or `failed`, or have no value.")]
    Outcome(String),
    #[error("{0:?} is not a boolean. `reopen` must be `true` or `false`, or be left out.")]
    Reopen(String),
    #[error(
        "A request that ends a topic as done has no data. Publish the last event before it, or use \
         `end=failed`, whose body is the reason."
    )]
    DataOfEnd,
    #[error(
        "The end of a topic has no name. Leave out `name`, or publish the last event before it."
    )]
    NameOfEnd,
    #[error("A request cannot end a topic and reopen it. Send two requests.")]
    EndAndReopen,
    #[error(
        "An upload with `split` ends its topic as done when it is complete, and as failed if it \
         breaks off. Use `end` without a value."
    )]
    OutcomeOfUpload,
    #[error("The reason for which a topic has failed may be at most {MAX_END_MESSAGE} bytes long.")]
    MessageTooLong,
    #[error("There are too many uploads that are to end their topic. Retry later.")]
    TooManyUploads,
    #[error("The topic has ended. With `reopen`, a publish opens it again.")]
    Ended,
    #[error("{0:?} is no condition of an upload. `while` must be `read`, or be left out.")]
    While(String),
    #[error("`while=read` stops an upload whose topic nobody reads, so it needs `split`.")]
    WhileOfOne,
    #[error(
        "{0:?} is not a valid time. `patience`, which needs `while=read`, must be a whole number \
         of seconds from 1 to {MAX_PATIENCE}, or be left out."
    )]
    Patience(String),
    #[error(
        "The upload was stopped, as `while=read` asks: no reader has named the topic for {} s.",
        .0.as_secs()
    )]
    Unread(Duration),
    #[error(transparent)]
    Parameters(#[from] InvalidParameters),
    #[error("An event's data may be at most {MAX_DATA} bytes long.")]
    DataTooLong,
    #[error("The data of an event of this topic may be at most {0} bytes long.")]
    DataTooLongForTopic(usize),
    #[error("A block of an event stream may be at most {MAX_BLOCK} bytes long.")]
    BlockTooLong,
    #[error("An event's data must be UTF-8. Encode binary data, for example as Base64.")]
    NotUtf8,
    #[error("The event's data did not arrive in time.")]
    BodyTimeout,
    #[error("The request's body violates HTTP/1.1 (RFC 9112, 7.1).")]
    MalformedBody,
    /// The client is gone, so nobody reads this.
    #[error("The request's body is incomplete.")]
    IncompleteBody,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("The permission to publish was taken away during the upload.")]
    Revoked,
    #[error("The permission to publish expired at {0}. Send a new token in `Authorization`.")]
    Expired(Timestamp),
    #[error("This client publishes too many events per second. `Retry-After` says when to retry.")]
    RateLimited(Duration),
    #[error(
        "An idempotency key must be given once, as 1 to {MAX_KEY} bytes without control characters. In \
         the header `Idempotency-Key`, they must be ASCII."
    )]
    Key,
    #[error(
        "`POST /events` publishes lines of JSON, with `Content-Type: application/x-ndjson`. To publish \
         the body as one event, name its topic in the path: `/events/` and the topic."
    )]
    ContentType,
    #[error("`Idempotency-Key` identifies one event. Give each line its own `key`.")]
    KeyOfLines,
    #[error(
        "The line is not valid: {0}. A line is an object \
         {{\"topic\": …, \"name\": …, \"data\": …, \"key\": …}}, all strings; the name and the key are \
         optional."
    )]
    Line(#[from] serde_json::Error),
    #[error("A line may be at most {MAX_MESSAGE} bytes long. It was skipped.")]
    LineTooLong,
    #[error("Another upload with this `Idempotency-Key` has taken the place of this one.")]
    Superseded,
    #[error(
        "This `Idempotency-Key` was used for an event with another name or other data. Use a new key."
    )]
    KeyReused,
    #[error(
        "An event with this `Idempotency-Key` is being published. Retry when that request is done."
    )]
    KeyInFlight,
    #[error("The limit on topics that have events is reached.")]
    TooManyTopics,
    #[error("The server's disk is full. The event was not stored.")]
    DiskFull,
    #[error("The server's event log was moved, deleted or replaced. The event was not stored.")]
    Misplaced,
    #[error(
        "It is unknown if the event was stored: the event log failed while it wrote. The event may \
         appear after a restart of the server. With an `Idempotency-Key`, a retry stores it only once."
    )]
    Unconfirmed,
    #[error("The event was not stored. The server's output says why.")]
    NotStored,
    #[error("An event before this one was not stored, and so this one was not, either.")]
    Skipped,
    #[error("The server's event log has stopped. The event was not stored.")]
    LogStopped,
    #[error(
        "The server cannot reach its cluster. The event was not stored. `Retry-After` says when to \
         retry."
    )]
    Unavailable,
    #[error(
        "It is unknown if the event was stored: the server's cluster has not answered. \
         `Retry-After` says when to retry. With an `Idempotency-Key`, a retry stores it only once."
    )]
    Unanswered,
    #[error("The server is shutting down.")]
    Stopping,
}

impl PublishRejection {
    /// The status, or the denial that has one of its own.
    fn status(&self) -> Result<StatusCode, Denied> {
        Ok(match self {
            Self::Denied(denied) => return Err(denied.clone()),
            // An expired permission counts as an invalid token.
            Self::Expired(_) | Self::Revoked => return Err(Denied::InvalidToken(self.to_string())),
            Self::Topic(_)
            | Self::Name { .. }
            | Self::Split(_)
            | Self::Outcome(_)
            | Self::Reopen(_)
            | Self::DataOfEnd
            | Self::NameOfEnd
            | Self::EndAndReopen
            | Self::OutcomeOfUpload
            | Self::Parameters(_)
            | Self::While(_)
            | Self::WhileOfOne
            | Self::Patience(_)
            | Self::NotUtf8
            | Self::MalformedBody
            | Self::IncompleteBody
            | Self::Key
            | Self::KeyOfLines
            | Self::Line(_) => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::KeyInFlight | Self::Superseded | Self::Ended | Self::Unread(_) => {
                StatusCode::CONFLICT
            }
            Self::DataTooLong
            | Self::DataTooLongForTopic(_)
            | Self::MessageTooLong
            | Self::BlockTooLong
            | Self::LineTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotStored | Self::Unconfirmed | Self::Skipped => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Stopping
            | Self::Misplaced
            | Self::LogStopped
            | Self::Unavailable
            | Self::Unanswered
            | Self::TooManyUploads => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyTopics | Self::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        })
    }
}

impl From<PublishRejection> for Problem {
    fn from(rejection: PublishRejection) -> Self {
        let status = match rejection.status() {
            Ok(status) => status,
            Err(denied) => return denied.into(),
        };
        // It may quote a long text of the client.
        let problem = Self::new(status, rejection.to_string()).shortened();
        match rejection {
            // The request that holds the key ends soon.
            PublishRejection::KeyInFlight => problem.with_header(RETRY_AFTER, HeaderValue::from(1)),
            PublishRejection::Unavailable | PublishRejection::Unanswered => {
                problem.with_header(RETRY_AFTER, HeaderValue::from(UNAVAILABLE_RETRY.as_secs()))
            }
            PublishRejection::RateLimited(wait) => {
                problem.with_header(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1))
            }
            PublishRejection::Unread(_) => problem.with_member("stopped", "unread"),
            PublishRejection::DataTooLong
            | PublishRejection::MessageTooLong
            | PublishRejection::BlockTooLong => problem.with_attack_sign(AttackSign::TooLong),
            PublishRejection::MalformedBody => {
                problem.with_attack_sign(AttackSign::Malformed).closing()
            }
            PublishRejection::BodyTimeout => {
                problem.with_attack_sign(AttackSign::BodyTimeout).closing()
            }
            _ => problem,
        }
    }
}

impl From<PublishError> for PublishRejection {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Rejected(Rejected::KeyReused) => Self::KeyReused,
            PublishError::Rejected(Rejected::Ended) => Self::Ended,
            PublishError::Rejected(Rejected::TooManyTopics) => Self::TooManyTopics,
            PublishError::EventLog(error) => error.into(),
            PublishError::Skipped => Self::Skipped,
        }
    }
}

impl From<EventLogError> for PublishRejection {
    fn from(error: EventLogError) -> Self {
        match error {
            EventLogError::DiskFull => Self::DiskFull,
            EventLogError::Misplaced => Self::Misplaced,
            EventLogError::Unconfirmed(_) => Self::Unconfirmed,
            EventLogError::Stopped => Self::LogStopped,
            EventLogError::Unavailable(_) => Self::Unavailable,
            EventLogError::Unanswered(_) => Self::Unanswered,
            EventLogError::Damaged { .. } | EventLogError::Failed(_) => Self::NotStored,
        }
    }
}

/// Permission for one caller to publish to one topic.
pub(crate) struct Grant {
    context: Arc<PublishContext>,
    topic: Topic,
    publisher: Publisher,
    limits: TopicLimits,
    /// Number of changes of the policy before it was asked.
    seen: u64,
    /// Decides again about a long upload.
    standing: Option<StandingPermission>,
    /// `None` for an unknown address; all such clients share one rate.
    client: Option<IpAddr>,
    trace: Option<RequestTrace>,
}

impl Grant {
    /// Checks the topic, the caller's permission, and its expiry: a connection may outlive a token.
    pub(crate) fn new(
        context: &Arc<PublishContext>,
        request: &Parts,
        topic: &str,
    ) -> Result<Self, PublishRejection> {
        let topic = topic.parse().map_err(|_| PublishRejection::Topic(topic.to_owned()))?;
        let seen = context.changes.count();
        let publisher = context.policy.may_publish(request, &topic)?;
        let limits = context.policy.topic_limits(&topic);
        let client = context.policy.client_address(request).map(client_of);
        let trace = context.traces.as_ref().map(|hook| RequestTrace::new(hook, &request.headers));
        let context = Arc::clone(context);
        let grant = Self { context, topic, publisher, limits, seen, standing: None, client, trace };
        grant.check_expiry()?;
        Ok(grant)
    }

    /// The topic.
    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Lets the permission end if a change of the policy takes it away, for an upload that may
    /// take long.
    pub(crate) fn standing(mut self, request: &Parts) -> Self {
        self.standing = self.context.policy.standing(request, Asked::Publish(&self.topic));
        self
    }

    /// Returns `true` if the policy has not changed since it was asked.
    pub(crate) fn is_current(&self) -> bool {
        self.seen == self.context.changes.count()
    }

    /// The end of the permission; `None` for a permission that never ends.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let changes = (&self.context.changes, self.seen);
        Deadline::of(&self.context.hub, self.publisher.expires, self.standing.clone(), changes)
    }

    /// Checks the length of an event's data.
    pub(crate) fn check_size(&self, data: &str) -> Result<(), PublishRejection> {
        check_size(data)?;
        let max = self.limits.max_data;
        if data.len() > max { Err(PublishRejection::DataTooLongForTopic(max)) } else { Ok(()) }
    }

    /// The rate limit of the client; `None` if it has none.
    fn rate(&self) -> Option<&PublishRate> {
        let rate = self.limits.publish_rate.as_ref().unwrap_or(&self.context.rate);
        self.publisher.is_rate_limited.then_some(rate)
    }

    fn begin_trace(&self) -> Trace {
        self.trace.as_ref().map(|trace| trace.begin(&self.topic)).unwrap_or_default()
    }

    fn check_expiry(&self) -> Result<(), PublishRejection> {
        let expired = self.publisher.expires.filter(|expires| *expires <= self.context.hub.now());
        expired.map_or(Ok(()), |expires| Err(PublishRejection::Expired(expires)))
    }

    /// Counts an event towards the client's rate, and reserves its idempotency key while it is in
    /// flight.
    pub(crate) fn admit(
        &self,
        key: Option<String>,
    ) -> Result<Option<KeyReservation>, PublishRejection> {
        if let Some(rate) = self.rate() {
            rate.count(self.client).map_err(PublishRejection::RateLimited)?;
        }
        self.reserve(key)
    }

    /// Reserves the idempotency key of an event while it is in flight.
    pub(crate) fn reserve(
        &self,
        key: Option<String>,
    ) -> Result<Option<KeyReservation>, PublishRejection> {
        let Some(key) = key else { return Ok(None) };
        let reservation = self.context.keys.reserve(self.topic.clone(), self.key(key));
        reservation.map(Some).ok_or(PublishRejection::KeyInFlight)
    }

    /// Reserves the key of an upload. An earlier upload with the same key ends first.
    pub(crate) async fn take_over(&self, key: String) -> KeyReservation {
        self.context.keys.take_over(self.topic.clone(), self.key(key)).await
    }

    /// Returns the data of the event that this caller has published with a key and a name. Returns
    /// `None` if the key is unknown, or belongs to an event with another name.
    pub(crate) async fn find(
        &self,
        key: &IdempotencyKey,
        name: &Name,
    ) -> Result<Option<String>, PublishRejection> {
        let event = self.context.hub.find(&self.topic, key).await?;
        Ok(event.filter(|event| event.name == *name).map(|event| event.data))
    }

    fn key(&self, key: String) -> IdempotencyKey {
        IdempotencyKey { publisher: self.publisher.name.clone(), key }
    }

    /// Counts an event towards the client's rate, if the rate permits it now.
    pub(crate) fn count_now(&self) -> bool {
        self.rate().is_none_or(|rate| rate.count(self.client).is_ok())
    }

    /// Counts an event towards the client's rate, as soon as the rate permits it.
    pub(crate) async fn wait_and_count(&self) {
        if let Some(rate) = self.rate() {
            rate.wait_and_count(self.client).await;
        }
    }

    /// Hands a draft to the hub. Drafts that are handed over in sequence keep that order. The topic
    /// and the key of the draft are those of the grant and the reservation.
    pub(crate) async fn enqueue(
        &self,
        draft: Draft,
        reservation: Option<KeyReservation>,
    ) -> Result<InFlight, PublishRejection> {
        let AdmittedDraft { draft, reservation } = self.accept(draft, reservation)?;
        let publishing = self.context.hub.enqueue(draft).await?;
        Ok(InFlight { publishing, reservation })
    }

    /// Makes the last checks of a draft before the hub. The topic and the key of the draft become
    /// those of the grant and the reservation.
    pub(crate) fn accept(
        &self,
        draft: Draft,
        reservation: Option<KeyReservation>,
    ) -> Result<AdmittedDraft, PublishRejection> {
        self.check_size(&draft.data)?;
        self.check_expiry()?;
        let key = reservation.as_ref().map(|reservation| reservation.key().clone());
        let draft = Draft { topic: self.topic.clone(), key, trace: self.begin_trace(), ..draft };
        Ok(AdmittedDraft { draft, reservation })
    }

    /// Hands a piece of an upload to the hub. It is not published if a piece before it was not.
    pub(crate) async fn enqueue_piece(
        &self,
        draft: Draft,
        pieces: &DraftChain,
    ) -> Result<InFlight, PublishRejection> {
        self.check_size(&draft.data)?;
        self.check_expiry()?;
        let draft = Draft { topic: self.topic.clone(), trace: self.begin_trace(), ..draft };
        let publishing = self.context.hub.enqueue_in(draft, pieces).await?;
        Ok(InFlight { publishing, reservation: None })
    }

    /// Hands pieces of an upload to the hub like [`enqueue_piece`](Self::enqueue_piece). They must
    /// have the topic of the grant.
    pub(crate) async fn enqueue_pieces(
        &self,
        mut drafts: Vec<Draft>,
        pieces: &DraftChain,
    ) -> Result<impl Iterator<Item = InFlight> + use<>, PublishRejection> {
        self.check_expiry()?;
        for draft in &mut drafts {
            draft.trace = self.begin_trace();
        }
        let publishing = self.context.hub.enqueue_all(drafts, Some(pieces)).await?;
        Ok(publishing.into_iter().map(|publishing| InFlight { publishing, reservation: None }))
    }
}

/// Checks the length of an event's data.
pub(crate) fn check_size(data: &str) -> Result<(), PublishRejection> {
    if data.len() > MAX_DATA { Err(PublishRejection::DataTooLong) } else { Ok(()) }
}

/// Checks an idempotency key. A header has no control characters, and those of the parts of an
/// upload have one that no client can send.
pub(crate) fn check_key(key: &str) -> Result<(), PublishRejection> {
    let is_valid = (1..=MAX_KEY).contains(&key.len()) && !key.contains(char::is_control);
    if is_valid { Ok(()) } else { Err(PublishRejection::Key) }
}

/// Parses an event's name; without one it is the default.
pub(crate) fn parse_name(name: Option<&str>) -> Result<Name, PublishRejection> {
    let name = name.unwrap_or_default();
    name.parse().map_err(|why| PublishRejection::Name { name: name.to_owned(), why })
}

/// A draft that has passed all checks.
pub(crate) struct AdmittedDraft {
    draft: Draft,
    reservation: Option<KeyReservation>,
}

/// Hands drafts to the hub together, in their order.
pub(crate) async fn enqueue_all(
    hub: &Hub,
    admitted: Vec<AdmittedDraft>,
) -> Result<impl Iterator<Item = InFlight> + use<>, EventLogError> {
    let split = |AdmittedDraft { draft, reservation }| (draft, reservation);
    let (drafts, reservations): (Vec<_>, Vec<_>) = admitted.into_iter().map(split).unzip();
    let publishing = hub.enqueue_all(drafts, None).await?;
    let join = |(publishing, reservation)| InFlight { publishing, reservation };
    Ok(publishing.into_iter().zip(reservations).map(join))
}

/// An event on its way to the log.
#[derive(Debug)]
pub(crate) struct InFlight {
    publishing: Publishing,
    reservation: Option<KeyReservation>,
}

impl InFlight {
    /// Waits until the event is durable.
    pub(crate) async fn stored(self) -> Result<Arc<Frame>, PublishRejection> {
        let stored = self.publishing.await;
        drop(self.reservation);
        Ok(stored?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_event_log_has_a_status_of_its_own() {
        for (error, status) in [
            (PublishError::Rejected(Rejected::KeyReused), 422),
            (PublishError::Rejected(Rejected::Ended), 409),
            (PublishError::Rejected(Rejected::TooManyTopics), 507),
            (PublishError::EventLog(EventLogError::DiskFull), 507),
            (PublishError::EventLog(EventLogError::new("broken")), 500),
            (PublishError::EventLog(EventLogError::unconfirmed("no sync")), 500),
            (PublishError::EventLog(EventLogError::Misplaced), 503),
            (PublishError::EventLog(EventLogError::Stopped), 503),
            (PublishError::EventLog(EventLogError::unavailable("away")), 503),
            (PublishError::EventLog(EventLogError::unanswered("silent")), 503),
        ] {
            let is_unknown = matches!(
                error,
                PublishError::EventLog(
                    EventLogError::Unconfirmed(_) | EventLogError::Unanswered(_)
                )
            );
            let problem = Problem::from(PublishRejection::from(error));
            assert_eq!(problem.status(), status);
            assert_eq!(problem.to_string().contains("unknown"), is_unknown, "{problem}");
        }
    }
}

//! `GET /poll`: the events after a cursor as one response. With `wait` it is long polling (RFC
//! 6202). With `before`, it is the events before an id instead.

use std::{
    error::Error,
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{
        HeaderValue, Method, StatusCode, Uri,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use tokio::time::Instant;
use waterclock::{
    event::Event,
    event_log::{EventLogError, ReadLimit},
    hub::{Delivery, Earlier, Latest, Subscriber},
    id::{Cursor, EventId},
    notice::{Gap, TopicEnd},
    timestamp::Timestamp,
    transport::Transport,
};

use crate::{
    connection::ClientEnd,
    deadline::{Deadline, passed},
    gathering::gathered,
    limits::{MAX_POLL_BYTES, MAX_WAIT, UNAVAILABLE_RETRY},
    metrics::EndReason,
    policy::Denied,
    problem::Problem,
    session::full_retry,
    state::StreamContext,
    streams::{OpenStream, ReachedLimit},
    subscription::{PollSubscription, reach},
};

/// Number of bytes that are made before the response begins. Most responses are complete by then,
/// and have a `Content-Length`.
const FIRST_BYTES: usize = 32 * 1024;
/// Number of bytes that are handed on at a time.
const CHUNK: usize = 16 * 1024;
/// Limit of the answer to a poll without a cursor: the newest event.
const NEWEST: ReadLimit = ReadLimit { count: 1, bytes: usize::MAX };

/// An error of a poll.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(
        "{0:?} is not a valid time to wait. `wait` must be a whole number of seconds from 0 to \
         {MAX_WAIT}, or be left out."
    )]
    Wait(String),
    #[error("The events could not be read. The server's output says why.")]
    Read,
    #[error("This server does not have the cursor yet, since it is behind its cluster.")]
    Behind,
    #[error(
        "The permission to read expired at {0}, while the poll waited. Send a new token in \
         `Authorization`."
    )]
    Expired(Timestamp),
    #[error("The permission to read was taken away while the poll waited.")]
    Revoked,
    #[error(
        "The limit on open streams and waiting polls is reached. `Retry-After` says when to retry."
    )]
    Full(Duration),
    #[error(
        "The limit on open streams and waiting polls from your address is reached. `Retry-After` \
         says when to retry. To get the events so far, leave out `wait`."
    )]
    FullForAddress(Duration),
}

impl From<PollError> for Problem {
    fn from(error: PollError) -> Self {
        let status = match error {
            // An expired permission counts as an invalid token.
            PollError::Expired(_) | PollError::Revoked => {
                return Denied::InvalidToken(error.to_string()).into();
            }
            PollError::Wait(_) => StatusCode::BAD_REQUEST,
            PollError::Read => StatusCode::INTERNAL_SERVER_ERROR,
            PollError::Full(_) | PollError::Behind => StatusCode::SERVICE_UNAVAILABLE,
            PollError::FullForAddress(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        let problem = Self::new(status, error.to_string());
        match error {
            PollError::Wait(_) | PollError::Read | PollError::Expired(_) | PollError::Revoked => {
                problem
            }
            PollError::Behind => {
                problem.with_header(RETRY_AFTER, HeaderValue::from(UNAVAILABLE_RETRY.as_secs()))
            }
            PollError::Full(retry) | PollError::FullForAddress(retry) => {
                problem.with_header(RETRY_AFTER, HeaderValue::from(retry.as_secs() + 1))
            }
        }
    }
}

/// Counts a poll that cannot wait, because as many streams are open as are permitted.
fn refuse(context: &StreamContext, limit: ReachedLimit) -> PollError {
    tracing::info!("the limit on open streams is reached");
    context.metrics.stream_ended(EndReason::Limit);
    let retry = full_retry(&context.settings);
    match limit {
        ReachedLimit::Total => PollError::Full(retry),
        ReachedLimit::PerAddress => PollError::FullForAddress(retry),
    }
}

/// Answers with the events after the cursor. Without a cursor, a time and `wait`, answers with the
/// newest event, so that there is something to see. With `wait`, an empty response is held back
/// until there is an event or the time is over. Ends from before the reader's position do not
/// answer it, unless nothing follows: a client that asks again without a cursor would get them at
/// once, as fast as it can ask. They come with what answers it. With `before`, answers with the
/// events before that id.
pub(super) async fn get(
    State(context): State<Arc<StreamContext>>,
    PollSubscription(subscription, before): PollSubscription,
    client_end: Option<Extension<ClientEnd>>,
    uri: Uri,
    method: Method,
) -> Result<Response, Problem> {
    let wait = wait(&uri)?;
    drop(uri);
    // `HEAD` asks for nothing that could arrive.
    let wait = if method == Method::HEAD { Duration::ZERO } else { wait };
    subscription.accept(if wait.is_zero() { Transport::Poll } else { Transport::LongPoll });
    if let Some(before) = before {
        let (topics, limit) = (subscription.topics(), subscription.max_events());
        reach(&context.hub, &Cursor::After(before)).await.map_err(unreadable)?;
        let earlier = context.hub.earlier(topics, before, limit).await.map_err(unreadable)?;
        return Ok(json_response(earlier_json(&earlier)));
    }
    if subscription.is_over(&context.hub) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (max_events, client) = (subscription.max_events(), subscription.client());
    let max_delay = subscription.max_delay();
    let deadline = subscription.deadline();
    // With `wait` it starts from now: a client that repeats such a request would otherwise get the
    // same event again and again, as fast as it can ask.
    let newest = match subscription.topics_from_now() {
        Some(topics) if wait.is_zero() => Some(context.hub.latest(topics, NEWEST).await),
        _ => None,
    };
    let newest = newest.transpose().map_err(unreadable)?;
    let subscriber = subscription.subscribe_for_poll(&context.hub).await.map_err(unreadable)?;
    let mut answer = PollAnswer::new(subscriber, max_events, Arc::clone(&context));
    // The ends of topics come before any event.
    let newest = newest.filter(|_| answer.subscriber.is_settled());
    let mut is_complete = match newest {
        Some(newest) => answer.add_newest(&newest),
        None => answer.fill().await.map_err(unreadable)?,
    };
    if !answer.has_news && !wait.is_zero() {
        let open = context.streams.open(client).map_err(|limit| refuse(&context, limit))?;
        let end = Instant::now() + wait;
        let waiting = context.metrics.poll_waiting();
        let client_end = client_end.map(|Extension(end)| end).unwrap_or_default();
        while !answer.has_news {
            let is_over = tokio::select! {
                () = gathered(&mut answer.subscriber, max_delay, answer.events_left) => false,
                () = tokio::time::sleep_until(end) => true,
                _ = context.stop.begun() => true,
                () = client_end.wait() => true,
                () = passed(deadline.as_ref()) => true,
            };
            // Events may have waited for others until then.
            is_complete = answer.fill().await.map_err(unreadable)?;
            if is_over {
                break;
            }
        }
        if let Some(deadline) = deadline.filter(Deadline::has_passed) {
            let revoked = deadline.is_revoked();
            let expired = deadline.time().filter(|_| !revoked).map(PollError::Expired);
            return Err(expired.unwrap_or(PollError::Revoked).into());
        }
        drop((waiting, open));
    }
    if !is_complete && !context.stop.has_begun() {
        // A client may take the rest as slowly as it likes, so this is an open stream as well.
        answer.open = context.streams.open(client).ok();
    }
    // Without room for a stream, or at a stop, the next poll gets the rest.
    let body = if is_complete || answer.open.is_none() {
        answer.finish();
        answer.text.freeze().into()
    } else {
        Body::from_stream(stream::try_unfold(answer, |mut answer| async {
            let chunk = answer.chunk().await.inspect_err(print_error)?;
            Ok::<_, EventLogError>(chunk.map(|chunk| (chunk, answer)))
        }))
    };
    Ok(json_response(body))
}

fn json_response(body: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
    ];
    (headers, body.into()).into_response()
}

/// Returns the JSON of earlier events, which are few.
fn earlier_json(Earlier { events, gap, before }: &Earlier) -> String {
    let events: Vec<_> = events.iter().map(Event::to_json).collect();
    // Serialization cannot fail: these are strings and numbers.
    let gap = serde_json::to_string(gap).unwrap_or_default();
    let before = serde_json::to_string(before).unwrap_or_default();
    format!(r#"{{"events":[{}],"gap":{gap},"before":{before}}}"#, events.join(","))
}

/// The JSON of one response. A long one is read and written as the client takes it, so that a slow
/// client occupies little memory.
struct PollAnswer {
    subscriber: Subscriber,
    /// Number of events that may still be added.
    events_left: usize,
    /// JSON that was written and not taken yet.
    text: BytesMut,
    /// Number of bytes written in total.
    written: usize,
    /// Separator before the next event.
    separator: &'static str,
    trailer: Trailer,
    /// `true` once it has more than ends from before the reader's position, or is full of them.
    has_news: bool,
    is_finished: bool,
    /// The registration of a long response.
    open: Option<OpenStream>,
    context: Arc<StreamContext>,
}

/// The members after the events.
#[derive(Serialize)]
struct Trailer {
    /// Cursor for the next poll.
    cursor: EventId,
    gap: Option<Gap>,
    /// Topics that have ended; left out if none has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ends: Vec<PlacedEnd>,
    /// `true` if there are more events already.
    more: bool,
}

/// The end of a topic, with its place in the log.
#[derive(Serialize)]
pub(super) struct PlacedEnd {
    pub(super) id: EventId,
    #[serde(flatten)]
    pub(super) end: TopicEnd,
}

impl PollAnswer {
    const START: &str = "{\"events\":[";

    fn new(subscriber: Subscriber, events_left: usize, context: Arc<StreamContext>) -> Self {
        Self {
            trailer: Trailer {
                cursor: subscriber.cursor(),
                gap: None,
                ends: Vec::new(),
                more: false,
            },
            subscriber,
            events_left,
            text: BytesMut::new(),
            written: 0,
            separator: Self::START,
            has_news: false,
            is_finished: false,
            open: None,
            context,
        }
    }

    fn is_empty(&self) -> bool {
        let Trailer { gap, ends, .. } = &self.trailer;
        self.separator == Self::START && gap.is_none() && ends.is_empty()
    }

    /// Adds the newest event, if there is one. The response is complete then.
    fn add_newest(&mut self, newest: &Latest) -> bool {
        self.trailer.cursor = newest.cursor;
        self.trailer.gap.clone_from(&newest.gap);
        self.has_news = true;
        newest.events.iter().for_each(|event| self.write(event));
        true
    }

    /// Adds events until there are none left for this response, or enough bytes to begin it.
    /// Returns `true` if none are left.
    async fn fill(&mut self) -> Result<bool, EventLogError> {
        while self.written < FIRST_BYTES || !self.has_news || !self.subscriber.is_settled() {
            if !self.read().await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds the next events. Returns `false` if there are no more for this response.
    async fn read(&mut self) -> Result<bool, EventLogError> {
        let was_settled = self.subscriber.is_settled();
        match self.subscriber.try_next().await? {
            Some(Delivery::Events(batch)) => {
                self.has_news = true;
                let taken = &batch[..batch.len().min(self.events_left)];
                self.events_left -= taken.len();
                self.trailer.cursor = match taken.last() {
                    Some(last) if taken.len() < batch.len() => last.event().id,
                    _ => self.subscriber.cursor(),
                };
                for frame in taken {
                    self.write(frame.event());
                }
            }
            Some(Delivery::Gap(gap)) if self.is_empty() => {
                self.has_news = true;
                self.trailer.gap = Some(gap);
                self.trailer.cursor = self.subscriber.cursor();
            }
            Some(Delivery::End { id, end }) => {
                self.has_news |= was_settled || end.last;
                let end = PlacedEnd { id, end };
                self.written += serde_json::to_string(&end).map_or(0, |json| json.len());
                self.trailer.ends.push(end);
                self.trailer.cursor = self.subscriber.cursor();
            }
            // One response has room for one gap, before its events. The next poll finds this one.
            Some(Delivery::Gap(_)) => {
                self.has_news = true;
                return Ok(false);
            }
            None => {
                self.trailer.cursor = self.subscriber.cursor();
                return Ok(false);
            }
        }
        if self.events_left > 0 && self.written < MAX_POLL_BYTES {
            return Ok(true);
        }
        if self.subscriber.is_settled() {
            self.has_news = true;
            return Ok(false);
        }
        let Some(last) = self.trailer.ends.last().filter(|_| self.may_cut_ends()) else {
            return Ok(true);
        };
        self.trailer.cursor = last.id;
        self.has_news = true;
        Ok(false)
    }

    /// Returns `true` if the next poll can continue after any end from before the position: no
    /// event up to there is kept. Otherwise there are no more ends than topics in the request.
    fn may_cut_ends(&self) -> bool {
        let position = self.subscriber.cursor().sequence;
        self.context.hub.kept().is_none_or(|(oldest, _)| position < oldest.sequence)
    }

    fn write(&mut self, event: &Event) {
        let before = self.text.len();
        self.text.extend_from_slice(mem::replace(&mut self.separator, ",").as_bytes());
        self.text.extend_from_slice(event.to_json().as_bytes());
        self.written += self.text.len() - before;
    }

    /// Writes the end of the JSON.
    fn finish(&mut self) {
        if self.separator == Self::START {
            self.text.extend_from_slice(Self::START.as_bytes());
        }
        let newest = self.subscriber.newest().load(Ordering::Relaxed);
        self.trailer.more = newest > self.trailer.cursor.sequence || !self.subscriber.is_settled();
        // Serialization cannot fail: the trailer consists of strings, numbers and booleans.
        let trailer = serde_json::to_string(&self.trailer).unwrap_or_default();
        self.text.extend_from_slice(b"],");
        // Its members belong to the same object as the events.
        self.text.extend_from_slice(trailer.trim_start_matches('{').as_bytes());
        self.is_finished = true;
    }

    /// Takes the next chunk. Returns `None` after the last one. At a stop, the response ends early,
    /// and the next poll gets the rest.
    async fn chunk(&mut self) -> Result<Option<Bytes>, EventLogError> {
        while self.text.is_empty() && !self.is_finished {
            let is_cut = self.context.stop.has_begun() && self.subscriber.is_settled();
            if is_cut || !self.read().await? {
                self.finish();
            }
        }
        let chunk = self.text.split_to(CHUNK.min(self.text.len())).freeze();
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

fn print_error(error: &EventLogError) {
    tracing::error!(error = error as &dyn Error, "events could not be read");
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: EventLogError) -> PollError {
    if matches!(error, EventLogError::Unavailable(_)) {
        return PollError::Behind;
    }
    print_error(&error);
    PollError::Read
}

/// Reads `wait` from the query.
fn wait(uri: &Uri) -> Result<Duration, PollError> {
    let query = uri.query().unwrap_or_default();
    let Some((_, wait)) =
        form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "wait").last()
    else {
        return Ok(Duration::ZERO);
    };
    match wait.parse() {
        Ok(seconds @ 0..=MAX_WAIT) => Ok(Duration::from_secs(seconds)),
        _ => Err(PollError::Wait(wait.into_owned())),
    }
}

//! `POST` or `PUT /events/{topic}`: publishes an event.

mod lines;

use std::{
    collections::HashSet,
    error::Error as _,
    io::{self, ErrorKind},
    iter::successors,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};
use serde::Deserialize;
use waterclock::{
    event::{Draft, IdempotencyKey, Name, Topic},
    event_log::{EventLogError, Rejected},
    hub::{Frame, PublishError},
};

use crate::{
    access::{Caller, Publisher},
    client::Client,
    metrics::TimedOut,
    problem::Problem,
    router::AppState,
    token::BadToken,
};

/// How long the data of an event may be, in bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// How many clients may be counted before those that are idle are forgotten.
const MAX_CLIENTS: usize = 10_000;

/// How long an idempotency key may be, in bytes.
pub const MAX_KEY: usize = 255;

/// Answers 201 with the event, once it is durable. Its data is the body, whatever its content type. With
/// `split=lines`, each line of the body is an event, at once; the answer says how many there were.
pub(crate) async fn publish(
    State(state): State<AppState>,
    caller: Caller,
    Client(client): Client,
    Path(topic): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let topic: Topic = topic.parse().map_err(|_| Problem::BadTopic(topic))?;
    let publisher = may_publish(&state, &caller, &topic)?;
    let Parameters { name, split } = Parameters::of(&uri)?;
    let key = idempotency_key(&headers)?;
    // This machine's own publishes are not counted: nobody else suffers from them.
    let rate = publisher.until.is_some().then(|| (&*state.publish_rate, client));
    if split {
        if key.is_some() {
            return Err(Problem::KeyOfLines);
        }
        return lines::publish(&state, rate, publisher.until, topic, name, body).await;
    }
    if let Some((rate, client)) = rate {
        rate.check(client)?;
    }
    let run = run(&state, &publisher, &topic, key)?;
    let Ok(data) = tokio::time::timeout(state.body_time_out, data(body)).await else {
        state.metrics.timed_out(TimedOut::Body);
        return Err(Problem::SlowBody);
    };
    let data = String::from_utf8(data?).map_err(|_| Problem::NotUtf8)?;
    let publishing = enqueue(&state, topic, name, data, run).await?;
    let frame = publishing.await?;
    Ok((StatusCode::CREATED, axum::Json(frame.event())).into_response())
}

/// All of a request's body.
async fn data(body: Body) -> Result<Vec<u8>, Problem> {
    // One that is announced to be too long need not come at all.
    if body.size_hint().lower() > MAX_DATA as u64 {
        return Err(Problem::TooMuchData);
    }
    let mut data = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| not_all(&error))?;
        if data.len() + piece.len() > MAX_DATA {
            return Err(Problem::TooMuchData);
        }
        data.extend_from_slice(&piece);
    }
    Ok(data)
}

/// Why a body could not be read to its end.
fn not_all(error: &axum::Error) -> Problem {
    let sources = successors(error.source(), |&error| error.source());
    let kind = sources.filter_map(|error| error.downcast_ref()).map(io::Error::kind).next();
    match kind {
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => Problem::BrokenBody,
        _ => Problem::CutBody,
    }
}

/// Begins the publish of one event by a message of a WebSocket. Those that are begun one after the other
/// are kept in that order.
pub(crate) async fn begin(
    state: &AppState,
    caller: &Caller,
    client: IpAddr,
    message: Message,
) -> Result<impl Future<Output = Result<Arc<Frame>, Problem>> + use<>, Problem> {
    let Message { topic, name, data, key } = message;
    let topic: Topic = topic.parse().map_err(|_| Problem::BadTopic(topic))?;
    let publisher = may_publish(state, caller, &topic)?;
    let name = match name {
        Some(name) => name.parse().map_err(|why| Problem::BadName { name, why })?,
        None => Name::default(),
    };
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
        return Err(Problem::BadKey);
    }
    if data.len() > MAX_DATA {
        return Err(Problem::TooMuchData);
    }
    if publisher.until.is_some() {
        state.publish_rate.check(client)?;
    }
    let run = run(state, &publisher, &topic, key)?;
    enqueue(state, topic, name, data, run).await
}

/// What a client of a WebSocket publishes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    topic: String,
    name: Option<String>,
    data: String,
    /// The idempotency key.
    key: Option<String>,
}

/// Whether that topic may be published to, now: a connection may outlive its token.
fn may_publish(state: &AppState, caller: &Caller, topic: &Topic) -> Result<Publisher, Problem> {
    if *topic == Topic::clock() {
        return Err(Problem::ClockIsOurs);
    }
    let publisher = caller.may_publish(topic, &state.access)?;
    match publisher.until {
        Some(until) if until <= state.hub.now() => Err(Problem::BadToken(BadToken::Expired(until))),
        _ => Ok(publisher),
    }
}

/// The run of a publish with that key, if it has one.
fn run(
    state: &AppState,
    publisher: &Publisher,
    topic: &Topic,
    key: Option<String>,
) -> Result<Option<Run>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let key = IdempotencyKey { publisher: publisher.name.clone(), key };
    state.running.begin(topic, key).map(Some).ok_or(Problem::KeyIsRunning)
}

/// Hands an event over to the hub; then it is waited for.
async fn enqueue(
    state: &AppState,
    topic: Topic,
    name: Name,
    data: String,
    run: Option<Run>,
) -> Result<impl Future<Output = Result<Arc<Frame>, Problem>> + use<>, Problem> {
    let key = run.as_ref().map(|run| run.key().clone());
    let draft = Draft { topic, name, data, key };
    let publishing = state.hub.enqueue(draft).await.map_err(not_published)?;
    Ok(async move {
        let kept = publishing.await.map_err(not_published);
        drop(run);
        kept
    })
}

fn not_published(error: impl Into<PublishError>) -> Problem {
    match error.into() {
        PublishError::Rejected(Rejected::KeyReused) => Problem::KeyTaken,
        PublishError::Rejected(Rejected::TooManyTopics) => Problem::TooManyTopics,
        PublishError::EventLog(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "an event could not be kept");
            match error {
                EventLogError::DiskFull => Problem::DiskFull,
                EventLogError::Failed(_) => Problem::NotKept,
            }
        }
    }
}

/// What `Idempotency-Key` says (draft-ietf-httpapi-idempotency-key-header): in quotes, or as it is.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let is_one = values.next().is_none() && !key.is_empty() && key.len() <= MAX_KEY;
    is_one.then(|| Some(key.to_owned())).ok_or(Problem::BadKey)
}

/// The publishes with a key that are not answered yet.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<HashSet<(Topic, IdempotencyKey)>>>);

/// One of them, until it is dropped.
struct Run(Running, (Topic, IdempotencyKey));

impl Run {
    fn key(&self) -> &IdempotencyKey {
        &self.1.1
    }
}

impl Running {
    /// None if one of that key is running.
    fn begin(&self, topic: &Topic, key: IdempotencyKey) -> Option<Run> {
        let run = (topic.clone(), key);
        self.lock().insert(run.clone()).then(|| Run(self.clone(), run))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(Topic, IdempotencyKey)>> {
        // No code panics half-way through a change of what the lock holds.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// How often each client may publish.
pub struct PublishRate(DefaultKeyedRateLimiter<IpAddr>);

impl PublishRate {
    /// So many events a second, and as many at once.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self(RateLimiter::keyed(Quota::per_second(per_second)))
    }

    /// Counts an event of that client.
    fn check(&self, client: IpAddr) -> Result<(), Problem> {
        self.forget_the_idle();
        let until = self.0.check_key(&client).err();
        let wait = until.map(|until| until.wait_time_from(self.0.clock().now()));
        wait.map_or(Ok(()), |wait| Err(Problem::TooManyPublishes(wait)))
    }

    /// Counts an event of that client as soon as there is room for it.
    async fn wait(&self, client: IpAddr) {
        self.forget_the_idle();
        while let Err(until) = self.0.check_key(&client) {
            tokio::time::sleep(until.wait_time_from(self.0.clock().now())).await;
        }
    }

    /// Bounds the memory: the clients that have not published for a while count as new.
    fn forget_the_idle(&self) {
        if self.0.len() > MAX_CLIENTS {
            self.0.retain_recent();
        }
    }
}

/// What the query says.
struct Parameters {
    name: Name,
    split: bool,
}

impl Parameters {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut parameters = Self { name: Name::default(), split: false };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match (&*name, &*value) {
                ("name", _) => match value.parse() {
                    Ok(name) => parameters.name = name,
                    Err(why) => return Err(Problem::BadName { name: value.into_owned(), why }),
                },
                ("split", "lines") => parameters.split = true,
                ("split", _) => return Err(Problem::BadSplit(value.into_owned())),
                _ => {} // Unknown ones are ignored.
            }
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_says_is_a_status_of_its_own() {
        for (error, status) in [
            (PublishError::Rejected(Rejected::KeyReused), 422),
            (PublishError::Rejected(Rejected::TooManyTopics), 507),
            (PublishError::EventLog(EventLogError::DiskFull), 507),
            (PublishError::EventLog(EventLogError::new("no more")), 500),
        ] {
            assert_eq!(not_published(error).into_response().status(), status);
        }
    }
}

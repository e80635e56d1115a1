//! `GET /poll`: polling, and with `wait` long polling: the events after a cursor, as one answer.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderValue, Uri, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use tokio::time::Instant;
use waterclock::{
    event::Event,
    hub::{Frame, Step, Subscriber},
    id::EventId,
    log::LogError,
    notice::Gap,
    transport::Transport,
};

use crate::{events::Request, problem::Problem, router::AppState};

/// How many bytes of data an answer has at most, give or take what a subscriber takes at a time.
const MAX_BYTES: usize = 256 * 1024;
/// How long a client may ask to wait, in seconds: less than most proxies do.
pub const MAX_WAIT: u64 = 55;

/// What a poll is answered with.
#[derive(Serialize)]
struct Answer {
    #[serde(serialize_with = "as_events")]
    events: Vec<Arc<Frame>>,
    /// What to ask after next.
    cursor: EventId,
    gap: Option<Gap>,
    /// Whether there may be more already: an answer has only so many.
    more: bool,
}

/// Answers with what there is; if there is nothing, once there is something, or `wait` is over.
pub(crate) async fn poll(
    State(state): State<AppState>,
    request: Request,
    uri: Uri,
) -> Result<Response, Problem> {
    let wait = wait(&uri)?;
    let transport = if wait.is_zero() { Transport::Poll } else { Transport::LongPoll };
    request.count(&state.meters, transport);
    let limit = request.limit();
    let mut subscriber = request.subscribe(&state.hub);
    let mut answer = read(&mut subscriber, limit).await.map_err(not_read)?;
    let end = Instant::now() + wait;
    let _waits = state.metrics.poll_waits();
    while answer.events.is_empty() && answer.gap.is_none() {
        tokio::select! {
            () = subscriber.changed() => {}
            () = tokio::time::sleep_until(end) => break,
            _ = state.stop.begun() => break,
        }
        answer = read(&mut subscriber, limit).await.map_err(not_read)?;
    }
    let no_cache = (CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    Ok(([no_cache], axum::Json(answer)).into_response())
}

/// Reads what there is, at most `limit` events.
async fn read(subscriber: &mut Subscriber, limit: usize) -> Result<Answer, LogError> {
    let mut answer =
        Answer { events: Vec::new(), cursor: subscriber.cursor(), gap: None, more: false };
    let mut bytes = 0;
    while answer.events.len() < limit && bytes < MAX_BYTES {
        match subscriber.try_next().await? {
            Some(Step::Frames(frames)) => {
                bytes += frames.iter().map(|frame| frame.event().data.len()).sum::<usize>();
                answer.events.extend_from_slice(&frames);
            }
            // Once more, after what it has told already, it would be two in one answer.
            Some(Step::Gap(gap)) if answer.gap.is_none() && answer.events.is_empty() => {
                answer.gap = Some(gap);
            }
            Some(Step::Gap(_)) => break,
            None => {
                answer.cursor = subscriber.cursor();
                break;
            }
        }
        answer.cursor = subscriber.cursor();
    }
    if answer.events.len() > limit {
        answer.events.truncate(limit);
        answer.cursor = answer.events.last().map_or(answer.cursor, |frame| frame.event().id);
    }
    answer.more = subscriber.newest().load(Ordering::Relaxed) > answer.cursor.sequence;
    Ok(answer)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_read(error: LogError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "events could not be read");
    Problem::NotRead
}

/// `wait` in the query, in seconds; none is 0.
fn wait(uri: &Uri) -> Result<Duration, Problem> {
    let query = uri.query().unwrap_or_default();
    let Some((_, wait)) =
        form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "wait").last()
    else {
        return Ok(Duration::ZERO);
    };
    match wait.parse() {
        Ok(seconds @ 0..=MAX_WAIT) => Ok(Duration::from_secs(seconds)),
        _ => Err(Problem::BadWait(wait.into_owned())),
    }
}

fn as_events<S: Serializer>(frames: &[Arc<Frame>], serializer: S) -> Result<S::Ok, S::Error> {
    let events: Vec<&Event> = frames.iter().map(|frame| frame.event()).collect();
    events.serialize(serializer)
}

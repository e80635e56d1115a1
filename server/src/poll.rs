//! `GET /poll`: polling, and with `wait` long polling: the events after a cursor, as one answer.

use std::{error::Error, mem, sync::atomic::Ordering, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderValue, Uri,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use tokio::time::Instant;
use waterclock::{
    event::Event,
    event_log::EventLogError,
    hub::{Delivery, Subscriber},
    id::EventId,
    notice::Gap,
    transport::Transport,
};

use crate::{events::Request, problem::Problem, router::AppState};

/// How many bytes an answer has at most, give or take what a subscriber takes at a time.
const MAX_BYTES: usize = 256 * 1024;
/// How many bytes of it are written before it begins. Most answers are there then, and say how long they are.
const AT_ONCE: usize = 32 * 1024;
/// How many bytes are handed on at a time.
const PIECE: usize = 16 * 1024;
/// About how many bytes an event has in JSON besides its data, and some more, so that little is moved.
const AROUND_THE_DATA: usize = 256;
/// How long a client may ask to wait, in seconds: less than most proxies do.
pub const MAX_WAIT: u64 = 55;

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
    let mut answer = Answer::new(request.subscribe(&state.hub), limit);
    let mut is_all = answer.begin().await.map_err(not_read)?;
    let end = Instant::now() + wait;
    let waits = state.metrics.poll_waits();
    while answer.is_empty() {
        tokio::select! {
            () = answer.subscriber.changed() => {}
            () = tokio::time::sleep_until(end) => break,
            _ = state.stop.begun() => break,
        }
        is_all = answer.begin().await.map_err(not_read)?;
    }
    drop(waits);
    let body = if is_all {
        answer.end();
        answer.text.freeze().into()
    } else {
        Body::from_stream(stream::try_unfold(answer, |mut answer| async {
            let piece = answer.piece().await.inspect_err(log_error)?;
            Ok::<_, EventLogError>(piece.map(|piece| (piece, answer)))
        }))
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
    ];
    Ok((headers, body).into_response())
}

/// What a poll is answered with. What is long is read and written as the client takes it, so that one who
/// does not holds little of it.
struct Answer {
    subscriber: Subscriber,
    /// How many events it may still have.
    events_left: usize,
    /// What was written and not taken yet.
    text: BytesMut,
    /// How many bytes were written.
    written: usize,
    /// What stands before the next event.
    before: &'static str,
    end: End,
    /// Whether the end is written, too.
    has_ended: bool,
}

/// What comes after the events.
#[derive(Serialize)]
struct End {
    /// What to ask after next.
    cursor: EventId,
    gap: Option<Gap>,
    /// Whether there may be more already: an answer has only so many.
    more: bool,
}

impl Answer {
    const BEGIN: &str = "{\"events\":[";

    fn new(subscriber: Subscriber, events_left: usize) -> Self {
        Self {
            end: End { cursor: subscriber.cursor(), gap: None, more: false },
            subscriber,
            events_left,
            text: BytesMut::new(),
            written: 0,
            before: Self::BEGIN,
            has_ended: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.before == Self::BEGIN && self.end.gap.is_none()
    }

    /// Reads what there is, or so much that it is too long to be held. Whether that is all of it.
    async fn begin(&mut self) -> Result<bool, EventLogError> {
        while self.written < AT_ONCE {
            if !self.read().await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads on. Whether there may be more of it.
    async fn read(&mut self) -> Result<bool, EventLogError> {
        match self.subscriber.try_next().await? {
            Some(Delivery::Events(frames)) => {
                let taken = &frames[..frames.len().min(self.events_left)];
                self.events_left -= taken.len();
                self.end.cursor = match taken.last() {
                    Some(last) if taken.len() < frames.len() => last.event().id,
                    _ => self.subscriber.cursor(),
                };
                for frame in taken {
                    self.write(frame.event());
                }
            }
            Some(Delivery::Gap(gap)) if self.is_empty() => {
                self.end.gap = Some(gap);
                self.end.cursor = self.subscriber.cursor();
            }
            // After what it has told already, it would be two in one answer.
            Some(Delivery::Gap(_)) => return Ok(false),
            None => {
                self.end.cursor = self.subscriber.cursor();
                return Ok(false);
            }
        }
        Ok(self.events_left > 0 && self.written < MAX_BYTES)
    }

    fn write(&mut self, event: &Event) {
        let before = self.text.len();
        self.text.reserve(event.data.len() + AROUND_THE_DATA);
        self.text.extend_from_slice(mem::replace(&mut self.before, ",").as_bytes());
        write_json(&mut self.text, event);
        self.written += self.text.len() - before;
    }

    /// Writes the end, once all has been read.
    fn end(&mut self) {
        if self.before == Self::BEGIN {
            self.text.extend_from_slice(Self::BEGIN.as_bytes());
        }
        self.end.more = self.subscriber.newest().load(Ordering::Relaxed) > self.end.cursor.sequence;
        let mut end = BytesMut::new();
        write_json(&mut end, &self.end);
        self.text.extend_from_slice(b"],");
        // Its members are of the same object as the events.
        self.text.extend_from_slice(&end[1..]);
        self.has_ended = true;
    }

    /// The next piece; none after the end.
    async fn piece(&mut self) -> Result<Option<Bytes>, EventLogError> {
        while self.text.is_empty() && !self.has_ended {
            if !self.read().await? {
                self.end();
            }
        }
        let piece = self.text.split_to(PIECE.min(self.text.len())).freeze();
        Ok((!piece.is_empty()).then_some(piece))
    }
}

fn write_json(text: &mut BytesMut, value: &impl Serialize) {
    let written = serde_json::to_writer(text.writer(), value);
    debug_assert!(written.is_ok(), "all of it is strings");
}

fn log_error(error: &EventLogError) {
    tracing::error!(error = error as &dyn Error, "events could not be read");
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_read(error: EventLogError) -> Problem {
    log_error(&error);
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

//! `POST /events`: publishes events to any topics, one for each line of JSON (NDJSON), and answers
//! each line.

use std::{convert::Infallible, fmt::Write as _, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{Extensions, HeaderMap, Request, header::CONTENT_TYPE, request::Parts},
    response::Response,
};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument as _, Span};
use waterclock::{event::Draft, id::EventId};

use super::body::{self, PublishMessage};
use crate::{
    admission::{
        AdmittedDraft, Grant, InFlight, PublishRejection, check_key, enqueue_all, parse_name,
    },
    deadline::{self, Deadline},
    denial_hook::DenialHook,
    limits::{MAX_GROUP, MAX_MESSAGE, MAX_PIECES_IN_FLIGHT, MAX_UNREAD_ANSWERS},
    parameters::{KnownParameters, split_query},
    problem::Problem,
    sse,
    state::PublishContext,
};

const NDJSON: &str = "application/x-ndjson";

/// Parameters that belong into the lines.
const PARAMETERS: KnownParameters = KnownParameters {
    names: &[],
    synonyms: &[
        ("topic", "the member `topic` of each line"),
        ("name", "the member `name` of each line"),
        ("event", "the member `name` of each line"),
        ("data", "the member `data` of each line"),
        ("key", "the member `key` of each line"),
        ("split", "`/events/` and the topic as the path"),
    ],
};

/// Answers 200 with a line of JSON for each line of the request, as soon as its event is durable or
/// refused.
pub(super) async fn post(
    State(context): State<Arc<PublishContext>>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (head, payload) = request.into_parts();
    for (name, _) in split_query(head.uri.query().unwrap_or_default())? {
        PARAMETERS.check(&name)?;
    }
    // A request that may publish nothing is denied as a whole, whatever its topics.
    if !context.policy.may_publish_some(&head) {
        let _ = Grant::new(&context, &head, "any")?;
    }
    if !is_ndjson(&head.headers) {
        return Err(PublishRejection::ContentType.into());
    }
    if head.headers.contains_key("idempotency-key") {
        return Err(PublishRejection::KeyOfLines.into());
    }
    let (sender, answers) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(MAX_UNREAD_ANSWERS));
    let writer = AnswerWriter { sender, room: Arc::clone(&room), request: head.extensions.clone() };
    // A task of its own goes on while the client does not read, as many do while they send.
    tokio::spawn(publish(context, head, payload, writer).instrument(Span::current()));
    let answers = stream::unfold((answers, room), async |(mut answers, room)| {
        let mut written = Vec::new();
        answers.recv_many(&mut written, MAX_GROUP).await;
        let written = Bytes::from(written.concat());
        room.add_permits(written.len());
        (!written.is_empty()).then_some((Ok::<_, Infallible>(written), (answers, room)))
    });
    Ok(sse::streamed(NDJSON, Body::from_stream(answers)))
}

/// Returns `true` for a body of JSON lines, with or without parameters of the content type.
fn is_ndjson(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    [NDJSON, "application/ndjson"].iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// The number of a line, from 1, and what became of it.
type Outcome<T> = (u64, Result<T, PublishRejection>);

/// Publishes the lines, and answers them in their order.
async fn publish(context: Arc<PublishContext>, head: Parts, payload: Body, writer: AnswerWriter) {
    let _open = context.metrics.upload_open();
    let (outcomes, begun) = mpsc::channel(MAX_PIECES_IN_FLIGHT / MAX_GROUP);
    let sender = writer.sender.clone();
    let reader = LineReader {
        context,
        head,
        group: Vec::new(),
        grant: None,
        outcomes,
        end_of_permission: None,
    };
    let read = async {
        tokio::select! {
            () = reader.read_all(payload) => {}
            // The client has left.
            () = sender.closed() => {}
        }
    };
    tokio::join!(read, writer.write_all(begun));
}

/// Writes the answers of a request.
struct AnswerWriter {
    sender: mpsc::UnboundedSender<Bytes>,
    /// The bytes that may still be written before the client reads some.
    room: Arc<Semaphore>,
    /// The extensions of the request.
    request: Extensions,
}

impl AnswerWriter {
    async fn write_all(self, mut outcomes: mpsc::Receiver<Vec<Outcome<InFlight>>>) {
        while let Some(group) = outcomes.recv().await {
            let mut answers = String::new();
            for (number, outcome) in group {
                let stored = match outcome {
                    Ok(in_flight) => in_flight.stored().await,
                    Err(why) => Err(why),
                };
                let stored = stored.map(|frame| frame.event().id).map_err(Problem::from);
                if let Err(problem) = &stored {
                    DenialHook::call(&self.request, problem);
                }
                answer(&mut answers, number, stored);
            }
            // Too many bytes would wait for ever.
            let length = u32::try_from(answers.len().min(MAX_UNREAD_ANSWERS)).unwrap_or(u32::MAX);
            let room = tokio::select! {
                room = self.room.acquire_many(length) => room,
                () = self.sender.closed() => return,
            };
            let Ok(room) = room else { return };
            room.forget();
            if self.sender.send(Bytes::from(answers)).is_err() {
                return;
            }
        }
    }
}

/// Writes the answer to a line behind those before it.
fn answer(answers: &mut String, number: u64, stored: Result<EventId, Problem>) {
    match stored {
        // Writing to a string cannot fail.
        Ok(id) => drop(writeln!(answers, "{{\"line\":{number},\"id\":\"{id}\"}}")),
        Err(problem) => {
            let problem = problem.with_member("line", number);
            // Serialization cannot fail: a problem consists of strings and numbers.
            answers.push_str(&serde_json::to_string(&problem.body()).unwrap_or_default());
            answers.push('\n');
        }
    }
}

/// The answers are no longer read.
struct NoWriter;

/// Reads the lines of a request, and begins to publish them: those that have arrived together are
/// handed to the hub together.
struct LineReader {
    context: Arc<PublishContext>,
    head: Parts,
    /// Lines that are yet to be handed to the hub, or are refused.
    group: Vec<Outcome<AdmittedDraft>>,
    /// The permission of the line before, if it is of the same group.
    grant: Option<Grant>,
    outcomes: mpsc::Sender<Vec<Outcome<InFlight>>>,
    /// The end of the permission by which the last line was published.
    end_of_permission: Option<Deadline>,
}

impl LineReader {
    /// Reads until the body ends. If the server ends first, the next line gets the reason.
    async fn read_all(mut self, payload: Body) {
        let mut chunks = payload.into_data_stream();
        let mut lines = JsonLines::default();
        let why = loop {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                () = deadline::passed(self.end_of_permission.as_ref()) => {
                    let end = self.end_of_permission.as_ref().and_then(Deadline::time);
                    break PublishRejection::Expired(end.unwrap_or(self.context.hub.now()));
                }
                _ = self.context.stop.begun() => break PublishRejection::Stopping,
            };
            match &chunk {
                // An incomplete last line is not published.
                Some(Err(error)) => break body::error_of(error),
                Some(Ok(bytes)) => lines.push(bytes),
                None => lines.finish(),
            }
            while let Some((number, line)) = lines.next() {
                let outcome = match line {
                    Ok(line) => self.admit(&line).await,
                    Err(why) => Err(why),
                };
                self.group.push((number, outcome));
                if self.group.len() == MAX_GROUP && self.send_group().await.is_err() {
                    return;
                }
            }
            if self.send_group().await.is_err() || chunk.is_none() {
                return;
            }
        };
        self.group.push((lines.number + 1, Err(why)));
        let _ = self.send_group().await;
    }

    /// Makes the event of a line, if the line may be published.
    async fn admit(&mut self, line: &[u8]) -> Result<AdmittedDraft, PublishRejection> {
        let message: PublishMessage = serde_json::from_slice(line)?;
        let PublishMessage { topic, name, data, key } = message;
        let grant = match self.grant.take() {
            Some(grant) if grant.topic().as_str() == topic && grant.is_current() => grant,
            _ => Grant::new(&self.context, &self.head, &topic)?,
        };
        self.end_of_permission = grant.deadline();
        let name = parse_name(name.as_deref())?;
        key.as_deref().map_or(Ok(()), check_key)?;
        grant.check_size(&data)?;
        let must_wait = !grant.count_now();
        if must_wait {
            let _ = self.send_group().await;
            tokio::select! {
                () = grant.wait_and_count() => {}
                _ = self.context.stop.begun() => return Err(PublishRejection::Stopping),
            }
        }
        let reservation = grant.reserve(key)?;
        let draft = Draft::new(grant.topic().clone(), data).named(name);
        let admitted = grant.accept(draft, reservation);
        // Permission is asked for again after a wait.
        self.grant = (!must_wait).then_some(grant);
        admitted
    }

    /// Hands the lines of the group to the hub, and to the writer of the answers.
    async fn send_group(&mut self) -> Result<(), NoWriter> {
        self.grant = None;
        let (mut admitted, mut outcomes) = (Vec::new(), Vec::new());
        for (number, outcome) in self.group.drain(..) {
            outcomes.push((number, outcome.map(|draft| admitted.push(draft))));
        }
        if outcomes.is_empty() {
            return Ok(());
        }
        let mut in_flight = enqueue_all(&self.context.hub, admitted).await.ok();
        let mut next = || in_flight.as_mut().and_then(Iterator::next);
        let outcomes = outcomes.into_iter().map(|(number, outcome)| {
            (number, outcome.and_then(|()| next().ok_or(PublishRejection::LogStopped)))
        });
        self.outcomes.send(outcomes.collect()).await.map_err(|_| NoWriter)
    }
}

/// Splits bytes that arrive in chunks into lines of JSON. A line ends with LF or with the last
/// chunk. Lines without JSON are skipped, but count.
#[derive(Default)]
struct JsonLines {
    bytes: BytesMut,
    /// Length of the prefix that contains no line end.
    searched: usize,
    /// `true` within a line that was too long and is not kept.
    is_skipping: bool,
    is_finished: bool,
    /// Number of lines that were taken.
    number: u64,
}

impl JsonLines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Takes the next line and its number. A line that is too long is refused before its end.
    fn next(&mut self) -> Option<(u64, Result<BytesMut, PublishRejection>)> {
        loop {
            let end = memchr::memchr(b'\n', &self.bytes[self.searched..]);
            let end = end.map(|at| self.searched + at);
            let length = end.unwrap_or(self.bytes.len());
            self.searched = length;
            if self.is_skipping {
                self.bytes.advance(length);
                self.searched = 0;
                end?;
                self.bytes.advance(1);
                self.is_skipping = false;
                continue;
            }
            if length > MAX_MESSAGE {
                self.number += 1;
                self.is_skipping = true;
                return Some((self.number, Err(PublishRejection::LineTooLong)));
            }
            let is_last = end.is_none() && self.is_finished && length > 0;
            if end.is_none() && !is_last {
                return None;
            }
            let line = self.bytes.split_to(length);
            self.bytes.advance(usize::from(!is_last));
            self.searched = 0;
            self.number += 1;
            if !line.trim_ascii().is_empty() {
                return Some((self.number, Ok(line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the numbers and the texts of the lines; no text for one that is too long.
    fn lines(chunks: &[&[u8]]) -> Vec<(u64, Option<String>)> {
        let mut lines = JsonLines::default();
        let mut found = Vec::new();
        for chunk in chunks.iter().copied().map(Some).chain([None]) {
            match chunk {
                Some(bytes) => lines.push(bytes),
                None => lines.finish(),
            }
            while let Some((number, line)) = lines.next() {
                let text = |line: BytesMut| String::from_utf8(line.to_vec()).unwrap();
                found.push((number, line.ok().map(text)));
            }
        }
        found
    }

    #[test]
    fn lines_are_split_and_numbered_across_chunks() {
        let some = |number, text: &str| (number, Some(text.to_owned()));
        assert_eq!(lines(&[]), []);
        assert_eq!(lines(&[b"a\nb\r\n\n \nc"]), [some(1, "a"), some(2, "b\r"), some(5, "c")]);
        assert_eq!(lines(&[b"a", b"b", b"\n", b"\n", b"c"]), [some(1, "ab"), some(3, "c")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_at_once() {
        let long = "x".repeat(MAX_MESSAGE + 1);
        let expected = [(1, Some("a".to_owned())), (2, None), (3, Some("b".to_owned()))];
        let body = format!("a\n{long}\nb\n");
        assert_eq!(lines(&[body.as_bytes()]), expected);
        assert_eq!(lines(&body.as_bytes().chunks(1000).collect::<Vec<_>>()), expected);
        let mut endless = JsonLines::default();
        for _ in 0..10 {
            endless.push(long.as_bytes());
            while endless.next().is_some() {}
            assert!(endless.bytes.is_empty(), "nothing of it is kept");
        }
        assert_eq!(endless.number, 1);
        assert_eq!(lines(&[long.as_bytes()]), [(1, None)]);
        assert_eq!(lines(&[&long.as_bytes()[1..]]).len(), 1);
    }

    #[test]
    fn an_answer_is_bounded() {
        let (mut answer, why) = (String::new(), PublishRejection::Topic("x".repeat(MAX_MESSAGE)));
        super::answer(&mut answer, 7, Err(why.into()));
        assert!(answer.len() < 2000 && answer.ends_with(",\"line\":7}\n"), "{answer}");
    }
}

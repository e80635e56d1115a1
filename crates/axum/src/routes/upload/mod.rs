//! `split`: publishes the parts of a request's body as events, each as soon as it arrives.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `lines` | `split=lines`: a part is a line |
//! | `events` | `split=events`: a part is an event of an event stream |
//! | `chunks` | `split=chunks`: a part is what has arrived |

mod chunks;
mod events;
mod lines;

use std::{collections::VecDeque, fmt, future::pending, mem, pin::pin, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use serde::Serialize;
use strum::{EnumString, IntoStaticStr};
use waterclock::{
    event::{Draft, IdempotencyKey, Name},
    hub::DraftChain,
    notice::TopicEnd,
};

use self::{chunks::ChunkSplitter, events::EventSplitter, lines::LineSplitter};
use super::{body, poll::PlacedEnd};
use crate::{
    admission::{Grant, InFlight, PublishRejection},
    ending_uploads::EndingUpload,
    idempotency::KeyReservation,
    limits::{MAX_BYTES_IN_FLIGHT, MAX_DATA, MAX_GROUP, MAX_PIECES_IN_FLIGHT},
    problem::Problem,
    state::PublishContext,
};

/// A way to split a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, EnumString)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Split {
    /// At the ends of its lines.
    Lines,
    /// Into the events of an event stream.
    Events,
    /// Into the chunks in which it arrives.
    Chunks,
}

impl Split {
    fn splitter(self) -> Box<dyn Splitter> {
        match self {
            Self::Lines => Box::<LineSplitter>::default(),
            Self::Events => Box::<EventSplitter>::default(),
            Self::Chunks => Box::<ChunkSplitter>::default(),
        }
    }

    /// The name of its pieces, in the plural.
    fn pieces(self) -> &'static str {
        self.into()
    }

    /// The name of a piece.
    fn piece(self) -> &'static str {
        self.pieces().trim_end_matches('s')
    }
}

/// A part of a body that becomes an event.
struct Piece {
    /// `None` for the name that the request gives to all its events.
    name: Option<Name>,
    data: String,
}

/// Splits bytes that arrive in chunks into pieces.
trait Splitter: Send {
    fn push(&mut self, bytes: &[u8]);

    /// Notes that no more bytes follow.
    fn finish(&mut self);

    /// Takes the next piece. Returns `None` if it is not complete. Nothing follows an error.
    fn next(&mut self) -> Option<Result<Piece, PublishRejection>>;

    /// The parts that are not published, once no more bytes follow.
    fn left_out(&self) -> LeftOut {
        LeftOut::default()
    }
}

/// The parts of an event stream that are not published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct LeftOut {
    /// Number of blocks that the end of the body cut short.
    #[serde(skip_serializing_if = "is_zero")]
    discarded: u64,
    /// Number of lines without a field of an event stream.
    #[serde(skip_serializing_if = "is_zero")]
    ignored: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Publishes each piece as it arrives. A client may be silent until its permission ends, since the
/// source of its pieces may be. If it vanishes, the operating system notices.
pub(super) async fn publish(
    context: &Arc<PublishContext>,
    grant: &Grant,
    UploadOptions { split, name, key, reopen, end, patience }: UploadOptions,
    payload: Body,
) -> Result<Response, Problem> {
    let _open = context.metrics.upload_open();
    let begin = || {
        let PublishContext { hub, stop, upload_grace, ending_uploads, .. } = &**context;
        let topic = grant.topic().clone();
        let begun = ending_uploads.begin(hub, stop, *upload_grace, topic, reopen);
        begun.ok_or(PublishRejection::TooManyUploads)
    };
    let ending = end.then(begin).transpose()?;
    let reservation = match key {
        Some(key) => Some(grant.take_over(key).await),
        None => None,
    };
    let mut upload = Upload {
        context,
        grant,
        split,
        name,
        reopen,
        patience,
        may_be_known: reservation.is_some(),
        reservation,
        position: 0,
        repeated: Repeated::default(),
        chain: DraftChain::default(),
        group: Vec::new(),
        in_flight: VecDeque::new(),
        bytes_in_flight: 0,
        summary: UploadSummary::new(split),
        refused: None,
        unconfirmed: 0,
        ending,
    };
    let result = upload.publish_all(payload).await;
    // The first piece that was not stored matters more than what ended the request after it.
    let mut result = upload.settle(0).await.and(result);
    if let Some(ending) = upload.ending.take() {
        match &result {
            Ok(()) => {
                result = upload.end_topic().await;
                // An end that was not stored is the publisher's to repeat.
                ending.settle();
            }
            Err(
                PublishRejection::Stopping | PublishRejection::Superseded | PublishRejection::Ended,
            ) => ending.settle(),
            Err(PublishRejection::IncompleteBody) => drop(ending),
            Err(why) => ending.break_off(why.to_string()),
        }
    }
    result.map(|()| Json(&upload.summary).into_response()).map_err(|why| upload.problem(why))
}

/// The parameters of an upload.
pub(super) struct UploadOptions {
    pub(super) split: Split,
    /// The name of the events that have none of their own.
    pub(super) name: Name,
    /// The idempotency key.
    pub(super) key: Option<String>,
    /// `true` to open the topic again if it has ended.
    pub(super) reopen: bool,
    /// `true` to end the topic after the last piece.
    pub(super) end: bool,
    /// Time without a reader after which the upload is stopped, if it is.
    pub(super) patience: Option<Duration>,
}

/// The response to a complete upload.
#[derive(Serialize)]
struct UploadSummary {
    /// Number of events published, now or by an earlier upload with the same key.
    published: u64,
    /// Number of bytes published, for chunks: only the network knows where one ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(flatten)]
    left_out: LeftOut,
    /// The end of the topic; left out without `end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<PlacedEnd>,
}

impl UploadSummary {
    fn new(split: Split) -> Self {
        let bytes = (split == Split::Chunks).then_some(0);
        Self { published: 0, bytes, left_out: LeftOut::default(), end: None }
    }

    /// Counts a piece that was published.
    fn count(&mut self, length: usize) {
        self.published += 1;
        self.add_bytes(length);
    }

    fn add_bytes(&mut self, length: usize) {
        self.bytes = self.bytes.map(|bytes| bytes + length as u64);
    }
}

/// A request that publishes pieces.
struct Upload<'a> {
    context: &'a PublishContext,
    grant: &'a Grant,
    split: Split,
    name: Name,
    /// `true` if the next piece opens the topic again, unless it is in the log already.
    reopen: bool,
    patience: Option<Duration>,
    /// The key of the upload, if it has one.
    reservation: Option<KeyReservation>,
    /// `true` while the pieces may be those of an earlier upload with the key. The log must have
    /// answered before the next one, since no piece may follow one that it refuses.
    may_be_known: bool,
    /// The place of the next piece in the body: the number of pieces before it, or for chunks,
    /// which may end elsewhere when they are sent again, the number of bytes.
    position: usize,
    /// The text of chunks that are being compared with those of an earlier upload.
    repeated: Repeated,
    /// Lets no piece follow one that was not stored.
    chain: DraftChain,
    /// Pieces that have arrived, and are yet to be handed to the hub.
    group: Vec<Draft>,
    /// Pieces on their way to the log, oldest first. At [`MAX_PIECES_IN_FLIGHT`], nothing more is
    /// read.
    in_flight: VecDeque<PieceInFlight>,
    /// Length of their data.
    bytes_in_flight: usize,
    summary: UploadSummary,
    /// Number of the piece that cannot be published, counted from 1.
    refused: Option<u64>,
    /// Number of pieces after the published ones that may be in the log.
    unconfirmed: u64,
    /// Present if the upload is to end its topic.
    ending: Option<EndingUpload>,
}

/// Text of an upload that is sent again, compared with what is in the log.
#[derive(Default)]
struct Repeated {
    /// Text that has arrived and is not yet known to be published.
    text: String,
    /// The piece that is in the log at its place.
    known: Option<String>,
}

/// A piece on its way to the log.
struct PieceInFlight {
    /// Length of the data, in bytes.
    length: usize,
    publishing: InFlight,
}

impl Upload<'_> {
    async fn publish_all(&mut self, payload: Body) -> Result<(), PublishRejection> {
        let mut chunks = payload.into_data_stream();
        let mut splitter = self.split.splitter();
        let mut number = 0;
        let mut expired = pin!(expired(self.grant));
        let mut unread = pin!(unread(self.context, self.grant, self.patience));
        loop {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                rejection = &mut expired => return Err(rejection),
                rejection = &mut unread => return Err(rejection),
                rejection = self.interrupted() => return Err(rejection),
            };
            match &chunk {
                // An incomplete last piece is not published.
                Some(Err(error)) => return Err(body::error_of(error)),
                Some(Ok(bytes)) => splitter.push(bytes),
                None => splitter.finish(),
            }
            let published = self.publish_pieces(&mut *splitter, &mut number).await;
            if let Err(why) = self.send_group().await {
                // The request has ended earlier than at a piece that cannot be published.
                self.refused = None;
                return Err(why);
            }
            published?;
            if chunk.is_none() {
                // The text ends within a chunk of the earlier upload, so it is published, too.
                self.summary.add_bytes(self.repeated.text.len());
                self.summary.left_out = splitter.left_out();
                return Ok(());
            }
        }
    }

    /// Publishes the pieces that are complete. The last ones may have yet to be sent.
    async fn publish_pieces(
        &mut self,
        splitter: &mut dyn Splitter,
        number: &mut u64,
    ) -> Result<(), PublishRejection> {
        while let Some(piece) = splitter.next() {
            *number += 1;
            let piece = piece.inspect_err(|_| self.refused = Some(*number))?;
            match self.split {
                Split::Chunks if self.may_be_known => self.publish_repeated(piece.data).await?,
                _ => self.publish_piece(piece).await?,
            }
        }
        Ok(())
    }

    /// Publishes a piece.
    async fn publish_piece(&mut self, piece: Piece) -> Result<(), PublishRejection> {
        if !self.grant.count_now() {
            self.send_group().await?;
            tokio::select! {
                () = self.grant.wait_and_count() => {}
                rejection = self.interrupted() => return Err(rejection),
            }
        }
        let Piece { name, data } = piece;
        self.grant.check_size(&data)?;
        let (name, length) = (name.unwrap_or_else(|| self.name.clone()), data.len());
        let draft = Draft {
            key: self.key(),
            is_reopening: self.reopen,
            ..Draft::new(self.grant.topic().clone(), data).named(name)
        };
        // Only the first new piece: a later end, by another publisher, counts.
        self.reopen &= self.may_be_known;
        self.group.push(draft);
        self.position += if self.split == Split::Chunks { length } else { 1 };
        if self.may_be_known || self.chain.has_failed() {
            self.send_group().await?;
            return self.settle(0).await;
        }
        if self.group.len() == MAX_GROUP { self.send_group().await } else { Ok(()) }
    }

    /// Hands the pieces of the group to the hub, and waits while too many are in flight.
    async fn send_group(&mut self) -> Result<(), PublishRejection> {
        if self.group.is_empty() {
            return Ok(());
        }
        let drafts = mem::take(&mut self.group);
        let lengths: Vec<_> = drafts.iter().map(|draft| draft.data.len()).collect();
        let sent = self.grant.enqueue_pieces(drafts, &self.chain).await?;
        for (length, publishing) in lengths.into_iter().zip(sent) {
            self.bytes_in_flight += length;
            self.in_flight.push_back(PieceInFlight { length, publishing });
        }
        while self.in_flight.len() > MAX_PIECES_IN_FLIGHT
            || self.bytes_in_flight > MAX_BYTES_IN_FLIGHT
        {
            self.settle(self.in_flight.len() - 1).await?;
        }
        Ok(())
    }

    /// Publishes the text of chunks, except for the part that an earlier upload has published. Its
    /// chunks may have ended elsewhere.
    async fn publish_repeated(&mut self, text: String) -> Result<(), PublishRejection> {
        self.repeated.text.push_str(&text);
        while !self.repeated.text.is_empty() {
            let Repeated { text, known } = &mut self.repeated;
            if let Some(before) = known {
                if let Some(rest) = text.strip_prefix(before.as_str()) {
                    *text = rest.to_owned();
                    self.position += before.len();
                    self.summary.count(before.len());
                    self.repeated.known = None;
                    continue;
                }
                let is_incomplete = before.starts_with(text.as_str());
                return if is_incomplete { Ok(()) } else { Err(PublishRejection::KeyReused) };
            }
            let mut end = text.len().min(MAX_DATA);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let (data, place) = (text[..end].to_owned(), self.position);
            match self.publish_piece(Piece { name: None, data }).await {
                Ok(()) => drop(self.repeated.text.drain(..end)),
                Err(PublishRejection::KeyReused) if self.may_be_known => {
                    (self.position, self.chain) = (place, DraftChain::default());
                    let Some(key) = self.key() else { return Err(PublishRejection::KeyReused) };
                    let known = self.grant.find(&key, &self.name).await?;
                    // An event without data can be no chunk.
                    let known = known.filter(|data| !data.is_empty());
                    self.repeated.known = Some(known.ok_or(PublishRejection::KeyReused)?);
                }
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Ends the topic as done.
    async fn end_topic(&mut self) -> Result<(), PublishRejection> {
        let key = self.key_of(&"end");
        let draft = Draft { key, ..TopicEnd::done(self.grant.topic().clone()).draft() };
        let stored = self.grant.enqueue_piece(draft, &self.chain).await?.stored().await?;
        let id = stored.event().id;
        self.summary.end = TopicEnd::of(stored.event()).map(|end| PlacedEnd { id, end });
        Ok(())
    }

    /// The key of the next piece.
    fn key(&self) -> Option<IdempotencyKey> {
        self.key_of(&self.position)
    }

    /// The key of a part of the upload.
    fn key_of(&self, part: &dyn fmt::Display) -> Option<IdempotencyKey> {
        let IdempotencyKey { publisher, key } = self.reservation.as_ref()?.key().clone();
        // No key of a client has a line end, so these are never those of single events.
        let key = format!("{key}\n{} {part}", self.split.pieces());
        Some(IdempotencyKey { publisher, key })
    }

    /// Waits until the server stops or another upload takes the place of this one.
    async fn interrupted(&self) -> PublishRejection {
        let superseded = async {
            match &self.reservation {
                Some(reservation) => reservation.superseded().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.context.stop.begun() => PublishRejection::Stopping,
            () = superseded => PublishRejection::Superseded,
        }
    }

    /// Waits until at most `left` pieces are in flight, and counts those that were stored. After a
    /// failure it waits for all, and returns the first.
    async fn settle(&mut self, left: usize) -> Result<(), PublishRejection> {
        let mut end = Ok(());
        while (self.in_flight.len() > left || end.is_err())
            && let Some(PieceInFlight { length, publishing }) = self.in_flight.pop_front()
        {
            self.bytes_in_flight -= length;
            match publishing.stored().await {
                Ok(frame) => {
                    self.summary.count(length);
                    if let Some(ending) = &mut self.ending {
                        ending.note_stored(frame.event().id.sequence);
                    }
                    self.may_be_known &= frame.published().is_none();
                }
                Err(why) => {
                    // The request has ended earlier than at a piece that cannot be published.
                    self.refused = None;
                    self.unconfirmed += u64::from(matches!(why, PublishRejection::Unconfirmed));
                    end = end.and(Err(why));
                }
            }
        }
        end
    }

    /// Adds to the reason of an early end the pieces that were published, so that the client can
    /// continue after them.
    fn problem(&self, why: PublishRejection) -> Problem {
        let UploadSummary { published, bytes, .. } = self.summary;
        let (piece, pieces) = (self.split.piece(), self.split.pieces());
        let mut problem = Problem::from(why);
        if let Some(number) = self.refused {
            problem = problem.with_note(&format!("This was {piece} {number}."));
        }
        problem = problem
            .with_note(&format!("{published} {pieces} were published before."))
            .with_member("published", published);
        if let Some(bytes) = bytes {
            problem =
                problem.with_note(&format!("They have {bytes} bytes.")).with_member("bytes", bytes);
        }
        let note = match self.unconfirmed {
            0 => return problem,
            1 => format!("The next {piece} may be in the log, too; no {piece} after it is."),
            next => {
                format!(
                    "The next {next} {pieces} may be in the log, too; no {piece} after them is."
                )
            }
        };
        problem.with_note(&note).with_member("unconfirmed", self.unconfirmed)
    }
}

/// Waits until no reader has named the topic for that long. Never returns without a time.
async fn unread(
    context: &PublishContext,
    grant: &Grant,
    patience: Option<Duration>,
) -> PublishRejection {
    let Some(patience) = patience else { return pending().await };
    context.hub.watch_readers(grant.topic().clone()).absent(patience).await;
    PublishRejection::Unread(patience)
}

/// Waits until the permission ends. Never returns for one that does not.
async fn expired(grant: &Grant) -> PublishRejection {
    let Some(deadline) = grant.deadline() else { return pending().await };
    deadline.passed().await;
    let expired = deadline.time().filter(|_| !deadline.is_revoked());
    expired.map_or(PublishRejection::Revoked, PublishRejection::Expired)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece as its name and its data.
    type PieceResult = Result<(Option<String>, String), PublishRejection>;

    /// Splits chunks up to the end or the first error.
    pub(super) fn split(splitter: &mut dyn Splitter, chunks: &[&[u8]]) -> Vec<PieceResult> {
        let mut pieces = Vec::new();
        for chunk in chunks.iter().copied().map(Some).chain([None]) {
            match chunk {
                Some(bytes) => splitter.push(bytes),
                None => splitter.finish(),
            }
            while let Some(piece) = splitter.next() {
                let piece = piece.map(|Piece { name, data }| (name.map(String::from), data));
                pieces.push(piece);
                if pieces.last().is_some_and(Result::is_err) {
                    return pieces;
                }
            }
        }
        pieces
    }
}

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

use std::{collections::VecDeque, future::pending, pin::pin, sync::Arc};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use serde::Serialize;
use strum::{EnumString, IntoStaticStr};
use waterclock::{event::Name, hub::DraftChain};

use self::{chunks::ChunkSplitter, events::EventSplitter, lines::LineSplitter};
use super::body;
use crate::{
    admission::{Grant, InFlight, PublishRejection},
    limits::MAX_IN_FLIGHT,
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
    split: Split,
    name: Name,
    payload: Body,
) -> Result<Response, Problem> {
    let _open = context.metrics.upload_open();
    let mut upload = Upload {
        context,
        grant,
        split,
        name,
        chain: DraftChain::default(),
        in_flight: VecDeque::new(),
        summary: UploadSummary::new(split),
        refused: None,
        unconfirmed: 0,
    };
    let end = upload.publish_all(payload).await;
    // The first piece that was not stored matters more than what ended the request after it.
    let end = upload.settle(0).await.and(end);
    end.map(|()| Json(&upload.summary).into_response()).map_err(|why| upload.problem(why))
}

/// The response to a complete upload.
#[derive(Serialize)]
struct UploadSummary {
    /// Number of events published.
    published: u64,
    /// Number of bytes published, for chunks: only the network knows where one ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(flatten)]
    left_out: LeftOut,
}

impl UploadSummary {
    fn new(split: Split) -> Self {
        let bytes = (split == Split::Chunks).then_some(0);
        Self { published: 0, bytes, left_out: LeftOut::default() }
    }

    /// Counts a piece that was published.
    fn count(&mut self, length: usize) {
        self.published += 1;
        self.bytes = self.bytes.map(|bytes| bytes + length as u64);
    }
}

/// A request that publishes pieces.
struct Upload<'a> {
    context: &'a PublishContext,
    grant: &'a Grant,
    split: Split,
    name: Name,
    /// Lets no piece follow one that was not stored.
    chain: DraftChain,
    /// Pieces on their way to the log, oldest first. At [`MAX_IN_FLIGHT`], nothing more is read.
    in_flight: VecDeque<PieceInFlight>,
    summary: UploadSummary,
    /// Number of the piece that cannot be published, counted from 1.
    refused: Option<u64>,
    /// Number of pieces after the published ones that may be in the log.
    unconfirmed: u64,
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
        loop {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                rejection = &mut expired => return Err(rejection),
                _ = self.context.stop.begun() => return Err(PublishRejection::Stopping),
            };
            match &chunk {
                // An incomplete last piece is not published.
                Some(Err(error)) => return Err(body::error_of(error)),
                Some(Ok(bytes)) => splitter.push(bytes),
                None => splitter.finish(),
            }
            while let Some(piece) = splitter.next() {
                number += 1;
                let piece = piece.inspect_err(|_| self.refused = Some(number))?;
                self.publish_piece(piece).await?;
            }
            if chunk.is_none() {
                self.summary.left_out = splitter.left_out();
                return Ok(());
            }
        }
    }

    async fn publish_piece(&mut self, piece: Piece) -> Result<(), PublishRejection> {
        tokio::select! {
            () = self.grant.wait_and_count() => {}
            _ = self.context.stop.begun() => return Err(PublishRejection::Stopping),
        }
        let Piece { name, data } = piece;
        let (name, length) = (name.unwrap_or_else(|| self.name.clone()), data.len());
        let publishing = self.grant.enqueue_piece(name, data, &self.chain).await?;
        self.in_flight.push_back(PieceInFlight { length, publishing });
        self.settle(if self.chain.has_failed() { 0 } else { MAX_IN_FLIGHT }).await
    }

    /// Waits until at most `left` pieces are in flight, and counts those that were stored. After a
    /// failure it waits for all, and returns the first.
    async fn settle(&mut self, left: usize) -> Result<(), PublishRejection> {
        let mut end = Ok(());
        while (self.in_flight.len() > left || end.is_err())
            && let Some(PieceInFlight { length, publishing }) = self.in_flight.pop_front()
        {
            match publishing.stored().await {
                Ok(_) => self.summary.count(length),
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

/// Waits until the permission ends. Never returns for one that does not.
async fn expired(grant: &Grant) -> PublishRejection {
    let Some((deadline, rejection)) = grant.deadline() else { return pending().await };
    deadline.passed().await;
    rejection
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

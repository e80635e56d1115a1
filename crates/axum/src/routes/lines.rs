//! `split=lines`: publishes each line of a request's body as an event.

use std::{collections::VecDeque, future::pending, pin::pin, sync::Arc};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use serde::Serialize;
use waterclock::event::Name;

use super::body;
use crate::{
    admission::{Grant, InFlight, PublishRejection},
    limits::{MAX_DATA, MAX_IN_FLIGHT},
    problem::Problem,
    state::PublishContext,
};

/// Publishes each line as it arrives. A client may be silent until its permission ends, since the
/// source of its lines may be. If it vanishes, the operating system notices.
pub(super) async fn publish(
    context: &Arc<PublishContext>,
    grant: &Grant,
    name: Name,
    payload: Body,
) -> Result<Response, Problem> {
    let _open = context.metrics.upload_open();
    let summary = UploadSummary::default();
    let mut upload = Upload { context, grant, name, in_flight: VecDeque::new(), summary };
    let end = upload.publish_all(payload).await;
    let end = end.and(upload.settle(0).await);
    match end {
        Ok(()) => Ok(Json(upload.summary).into_response()),
        Err(why) => {
            let UploadSummary { published } = upload.summary;
            let note = format!("{published} lines were published before.");
            Err(Problem::from(why).with_note(&note))
        }
    }
}

/// The response to a complete upload.
#[derive(Default, Serialize)]
struct UploadSummary {
    /// Number of events published.
    published: u64,
}

/// A request that publishes lines.
struct Upload<'a> {
    context: &'a PublishContext,
    grant: &'a Grant,
    name: Name,
    /// Lines on their way to the log, oldest first. At [`MAX_IN_FLIGHT`], nothing more is read.
    in_flight: VecDeque<InFlight>,
    summary: UploadSummary,
}

impl Upload<'_> {
    async fn publish_all(&mut self, payload: Body) -> Result<(), PublishRejection> {
        let mut chunks = payload.into_data_stream();
        let mut lines = LineSplitter::default();
        let mut expired = pin!(expired(self.grant));
        loop {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                rejection = &mut expired => return Err(rejection),
                _ = self.context.stop.begun() => return Err(PublishRejection::Stopping),
            };
            match &chunk {
                // An incomplete last line is not published.
                Some(Err(error)) => return Err(body::error_of(error)),
                Some(Ok(bytes)) => lines.push(bytes),
                None => lines.finish(),
            }
            for line in lines.by_ref() {
                self.publish_line(line?).await?;
            }
            if chunk.is_none() {
                return Ok(());
            }
        }
    }

    async fn publish_line(&mut self, line: String) -> Result<(), PublishRejection> {
        tokio::select! {
            () = self.grant.wait_and_count() => {}
            _ = self.context.stop.begun() => return Err(PublishRejection::Stopping),
        }
        self.in_flight.push_back(self.grant.enqueue(self.name.clone(), line, None).await?);
        self.settle(MAX_IN_FLIGHT).await
    }

    /// Waits until at most `left` lines are in flight, and counts those that were stored.
    async fn settle(&mut self, left: usize) -> Result<(), PublishRejection> {
        while self.in_flight.len() > left
            && let Some(oldest) = self.in_flight.pop_front()
        {
            if let Err(why) = oldest.stored().await {
                // The fate of the lines after this one is not reported: the client must resume
                // after the last line that was counted.
                self.in_flight.clear();
                return Err(why);
            }
            self.summary.published += 1;
        }
        Ok(())
    }
}

/// Waits until the permission ends. Never returns for one that does not.
async fn expired(grant: &Grant) -> PublishRejection {
    let Some((left, rejection)) = grant.time_left() else { return pending().await };
    tokio::time::sleep(left).await;
    rejection
}

/// Splits bytes that arrive in chunks into lines. A line ends with LF or CRLF, or with the last
/// chunk.
#[derive(Default)]
struct LineSplitter {
    bytes: BytesMut,
    /// Length of the prefix that contains no LF.
    searched: usize,
    is_finished: bool,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Iterator for LineSplitter {
    type Item = Result<String, PublishRejection>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
        let line = match found {
            Some(at) => {
                let line = self.bytes.split_to(self.searched + at + 1);
                let line = &line[..line.len() - 1];
                line.strip_suffix(b"\r").unwrap_or(line).to_vec()
            }
            None if self.is_finished && !self.bytes.is_empty() => self.bytes.split().to_vec(),
            None if self.bytes.len() > MAX_DATA + 1 => {
                return Some(Err(PublishRejection::DataTooLong));
            }
            None => {
                self.searched = self.bytes.len();
                return None;
            }
        };
        self.searched = 0;
        if line.len() > MAX_DATA {
            return Some(Err(PublishRejection::DataTooLong));
        }
        Some(String::from_utf8(line).map_err(|_| PublishRejection::NotUtf8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Option<String>> {
        let mut lines = LineSplitter::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            found.extend(lines.by_ref().map(Result::ok));
        }
        lines.finish();
        found.extend(lines.map(Result::ok));
        found
    }

    #[test]
    fn lines_are_split_across_chunks() {
        let some = |lines: &[&str]| lines.iter().map(|&l| Some(l.to_owned())).collect::<Vec<_>>();
        assert_eq!(lines(&[]), some(&[]));
        assert_eq!(lines(&[b"a\nb\r\nc"]), some(&["a", "b", "c"]));
        assert_eq!(lines(&[b"a", b"b\r", b"\n\n", b"c\n"]), some(&["ab", "", "c"]));
        assert_eq!(lines(&[b"a\rb\n"]), some(&["a\rb"]));
        assert_eq!(
            lines(&["ü".as_bytes().split_at(1).0, "ü\n".as_bytes().split_at(1).1]),
            some(&["ü"])
        );
        assert_eq!(lines(&[b"\xff\n", b"a\n"]), [None, Some("a".to_owned())]);
        let longest = [b"x".repeat(MAX_DATA), b"\r\n".to_vec()].concat();
        assert_eq!(lines(&[&longest])[0].as_ref().unwrap().len(), MAX_DATA);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_before_its_end() {
        let mut lines = LineSplitter::default();
        lines.push(&b"x".repeat(MAX_DATA + 2));
        assert!(matches!(lines.next(), Some(Err(PublishRejection::DataTooLong))));
    }
}

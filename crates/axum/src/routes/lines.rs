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
use waterclock::{event::Name, hub::DraftChain};

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
    let mut upload = Upload {
        context,
        grant,
        name,
        chain: DraftChain::default(),
        in_flight: VecDeque::new(),
        summary: UploadSummary::default(),
        refused: None,
        unconfirmed: 0,
    };
    let end = upload.publish_all(payload).await;
    // The first line that was not stored matters more than what ended the request after it.
    let end = upload.settle(0).await.and(end);
    end.map(|()| Json(&upload.summary).into_response()).map_err(|why| upload.problem(why))
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
    /// Lets no line follow one that was not stored.
    chain: DraftChain,
    /// Lines on their way to the log, oldest first. At [`MAX_IN_FLIGHT`], nothing more is read.
    in_flight: VecDeque<InFlight>,
    summary: UploadSummary,
    /// Number of the line that cannot be published, counted from 1.
    refused: Option<u64>,
    /// Number of lines after the published ones that may be in the log.
    unconfirmed: u64,
}

impl Upload<'_> {
    async fn publish_all(&mut self, payload: Body) -> Result<(), PublishRejection> {
        let mut chunks = payload.into_data_stream();
        let mut lines = LineSplitter::default();
        let mut number = 0;
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
                number += 1;
                let line = line.inspect_err(|_| self.refused = Some(number))?;
                self.publish_line(line).await?;
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
        let line = self.grant.enqueue_line(self.name.clone(), line, &self.chain).await?;
        self.in_flight.push_back(line);
        self.settle(if self.chain.has_failed() { 0 } else { MAX_IN_FLIGHT }).await
    }

    /// Waits until at most `left` lines are in flight, and counts those that were stored. After a
    /// failure it waits for all, and returns the first.
    async fn settle(&mut self, left: usize) -> Result<(), PublishRejection> {
        let mut end = Ok(());
        while (self.in_flight.len() > left || end.is_err())
            && let Some(oldest) = self.in_flight.pop_front()
        {
            match oldest.stored().await {
                Ok(_) => self.summary.published += 1,
                Err(why) => {
                    // The request has ended earlier than at a line that cannot be published.
                    self.refused = None;
                    self.unconfirmed += u64::from(matches!(why, PublishRejection::Unconfirmed));
                    end = end.and(Err(why));
                }
            }
        }
        end
    }

    /// Adds to the reason of an early end the lines that were published, so that the client can
    /// continue after them.
    fn problem(&self, why: PublishRejection) -> Problem {
        let UploadSummary { published } = self.summary;
        let problem = Problem::from(why);
        let problem = match self.refused {
            Some(number) => problem.with_note(&format!("This was line {number}.")),
            None => problem,
        };
        let problem = problem
            .with_note(&format!("{published} lines were published before."))
            .with_member("published", published);
        if self.unconfirmed == 0 {
            return problem;
        }
        let note = match self.unconfirmed {
            1 => "The next line may be in the log, too; no line after it is.".to_owned(),
            lines => {
                format!("The next {lines} lines may be in the log, too; no line after them is.")
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

/// Splits bytes that arrive in chunks into lines. A line ends with LF, CRLF or CR, or with the last
/// chunk. A program that overwrites its line in a terminal, such as a progress bar, sends a CR.
#[derive(Default)]
struct LineSplitter {
    bytes: BytesMut,
    /// Length of the prefix that contains no line end.
    searched: usize,
    after: After,
    is_finished: bool,
}

/// The bytes before the ones that are left, as far as they matter.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum After {
    /// The beginning, an LF, or part of a line.
    #[default]
    Other,
    /// A CR that ended a line. More CR and one LF belong to the same line end.
    Line,
    /// A CR without a line before it. It is nothing by itself, and an empty line with an LF.
    Nothing,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Takes the next line, without its end. Returns `None` if it is not complete.
    fn take_line(&mut self) -> Option<BytesMut> {
        loop {
            let Some(at) = memchr::memchr2(b'\n', b'\r', &self.bytes[self.searched..]) else {
                if self.is_finished && !self.bytes.is_empty() {
                    self.searched = 0;
                    return Some(self.bytes.split());
                }
                self.searched = self.bytes.len();
                return None;
            };
            let end = self.searched + at;
            let is_cr = self.bytes[end] == b'\r';
            let mut line = self.bytes.split_to(end + 1);
            line.truncate(end);
            self.searched = 0;
            let before = if line.is_empty() { self.after } else { After::Other };
            self.after = match (before, is_cr) {
                (_, false) => After::Other,
                (After::Line, true) => After::Line,
                (_, true) if line.is_empty() => After::Nothing,
                (_, true) => After::Line,
            };
            // The rest of a CRLF, or a CR that overwrites nothing.
            let is_part = before == After::Line || self.after == After::Nothing;
            if !is_part {
                return Some(line);
            }
        }
    }
}

impl Iterator for LineSplitter {
    type Item = Result<String, PublishRejection>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.take_line();
        if line.as_ref().map_or(self.bytes.len(), BytesMut::len) > MAX_DATA {
            return Some(Err(PublishRejection::DataTooLong));
        }
        Some(String::from_utf8(line?.to_vec()).map_err(|_| PublishRejection::NotUtf8))
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
        assert_eq!(
            lines(&["ü".as_bytes().split_at(1).0, "ü\n".as_bytes().split_at(1).1]),
            some(&["ü"])
        );
        assert_eq!(lines(&[b"\xff\n", b"a\n"]), [None, Some("a".to_owned())]);
        let longest = [b"x".repeat(MAX_DATA), b"\r\n".to_vec()].concat();
        assert_eq!(lines(&[&longest])[0].as_ref().unwrap().len(), MAX_DATA);
    }

    #[test]
    fn a_cr_alone_ends_a_line_that_has_text() {
        for (text, expected) in [
            ("10%\r20%\r", &["10%", "20%"][..]),
            ("\r10%\r20%\r\n", &["10%", "20%"]),
            ("a\rb\nc", &["a", "b", "c"]),
            ("a\r\r\nb\r\r\r\n", &["a", "b"]),
            ("\r\n\r\na\r\n\r\n", &["", "", "a", ""]),
            ("\n\ra\n\n", &["", "a", ""]),
            ("\r\r\ra", &["a"]),
            ("\r", &[]),
        ] {
            let expected: Vec<_> = expected.iter().map(|&line| Some(line.to_owned())).collect();
            let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
            assert_eq!(lines(&[text.as_bytes()]), expected, "{text:?}");
            assert_eq!(lines(&bytes), expected, "{text:?}, byte by byte");
        }
        let mut splitter = LineSplitter::default();
        splitter.push(b"10%\r");
        assert_eq!(splitter.next().unwrap().unwrap(), "10%", "at once");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_before_its_end() {
        let mut lines = LineSplitter::default();
        lines.push(&b"x".repeat(MAX_DATA + 1));
        assert!(matches!(lines.next(), Some(Err(PublishRejection::DataTooLong))));
    }
}

//! `split=lines`: each line of a request's body is an event.

use std::{collections::VecDeque, future::pending, net::IpAddr, pin::pin};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use serde::Serialize;
use waterclock::{
    event::{Draft, Name, Topic},
    hub::Publishing,
    timestamp::Timestamp,
};

use super::{MAX_DATA, PublishRate, not_all, not_published};
use crate::{access::Until, problem::Problem, router::AppState, token::BadToken};

/// How many lines of a request may wait for the log at a time.
const MAX_WAITING: usize = 256;

/// Publishes each line as it comes, for as long as they come: a client may be silent for as long as its
/// token is valid, since what it watches may be. If it is gone without a word, the system notices.
pub(super) async fn publish(
    state: &AppState,
    rate: Option<(&PublishRate, IpAddr)>,
    until: Until,
    topic: Topic,
    name: Name,
    body: Body,
) -> Result<Response, Problem> {
    let _open = state.metrics.lines_come();
    let (waiting, answer) = (VecDeque::new(), Published::default());
    let mut publisher = Publisher { state, rate, until, topic, name, waiting, answer };
    let end = publisher.publish(body).await;
    let end = end.and(publisher.wait_for(0).await);
    match end {
        Ok(()) => Ok(axum::Json(publisher.answer).into_response()),
        Err(why) => {
            let Published { published } = publisher.answer;
            Err(Problem::AfterLines { published, why: Box::new(why) })
        }
    }
}

/// What a client that has sent lines is told at the end.
#[derive(Default, Serialize)]
struct Published {
    /// How many events were published.
    published: u64,
}

struct Publisher<'a> {
    state: &'a AppState,
    /// How often the client may publish: then nothing is read of it.
    rate: Option<(&'a PublishRate, IpAddr)>,
    until: Until,
    topic: Topic,
    name: Name,
    /// The lines that wait for the log. When there are too many, nothing more is read of the client.
    waiting: VecDeque<Publishing>,
    answer: Published,
}

impl Publisher<'_> {
    async fn publish(&mut self, body: Body) -> Result<(), Problem> {
        let mut body = body.into_data_stream();
        let mut lines = Lines::default();
        let mut expired = pin!(expired(self.until, self.state.hub.now()));
        loop {
            let piece = tokio::select! {
                piece = body.next() => piece,
                problem = &mut expired => return Err(problem),
                _ = self.state.stop.begun() => return Err(Problem::Stopping),
            };
            match &piece {
                // In the middle of a line perhaps, which then is none.
                Some(Err(error)) => return Err(not_all(error)),
                Some(Ok(bytes)) => lines.push(bytes),
                None => lines.end(),
            }
            for line in lines.by_ref() {
                self.publish_line(line?).await?;
            }
            if piece.is_none() {
                return Ok(());
            }
        }
    }

    async fn publish_line(&mut self, line: String) -> Result<(), Problem> {
        if let Some((rate, client)) = self.rate {
            tokio::select! {
                () = rate.wait(client) => {}
                _ = self.state.stop.begun() => return Err(Problem::Stopping),
            }
        }
        let Self { state, topic, name, waiting, .. } = self;
        if let Some(expired) = self.until.filter(|until| *until <= state.hub.now()) {
            return Err(Problem::BadToken(BadToken::Expired(expired)));
        }
        let draft = Draft::new(topic.clone(), line).named(name.clone());
        let publishing = state.hub.enqueue(draft).await;
        waiting.push_back(publishing.map_err(not_published)?);
        self.wait_for(MAX_WAITING).await
    }

    /// Waits until at most `left` lines wait for the log, and counts those that were kept.
    async fn wait_for(&mut self, left: usize) -> Result<(), Problem> {
        while self.waiting.len() > left
            && let Some(oldest) = self.waiting.pop_front()
        {
            if let Err(why) = oldest.await {
                // What becomes of those after it is not told: the client is to go on after the last one
                // that was counted.
                self.waiting.clear();
                return Err(not_published(why));
            }
            self.answer.published += 1;
        }
        Ok(())
    }
}

/// Waits until a token has expired; forever if there is none.
async fn expired(until: Until, now: Timestamp) -> Problem {
    let Some(until) = until else { return pending().await };
    tokio::time::sleep(until.since(now)).await;
    Problem::BadToken(BadToken::Expired(until))
}

/// Takes lines out of bytes that come in pieces. A line ends with LF or CRLF, or with the last piece.
#[derive(Default)]
struct Lines {
    bytes: BytesMut,
    /// How far no end of a line was found.
    searched: usize,
    is_over: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn end(&mut self) {
        self.is_over = true;
    }
}

impl Iterator for Lines {
    type Item = Result<String, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
        let line = match found {
            Some(at) => {
                let line = self.bytes.split_to(self.searched + at + 1);
                line[..line.len() - 1]
                    .strip_suffix(b"\r")
                    .unwrap_or(&line[..line.len() - 1])
                    .to_vec()
            }
            None if self.is_over && !self.bytes.is_empty() => self.bytes.split().to_vec(),
            None if self.bytes.len() > MAX_DATA + 1 => return Some(Err(Problem::TooMuchData)),
            None => {
                self.searched = self.bytes.len();
                return None;
            }
        };
        self.searched = 0;
        if line.len() > MAX_DATA {
            return Some(Err(Problem::TooMuchData));
        }
        Some(String::from_utf8(line).map_err(|_| Problem::NotUtf8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Option<String>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            found.extend(lines.by_ref().map(Result::ok));
        }
        lines.end();
        found.extend(lines.map(Result::ok));
        found
    }

    #[test]
    fn lines_of_pieces() {
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
    fn a_line_that_is_too_long_is_told_before_its_end() {
        let mut lines = Lines::default();
        lines.push(&b"x".repeat(MAX_DATA + 2));
        assert!(matches!(lines.next(), Some(Err(Problem::TooMuchData))));
    }
}

//! Groups of event streams that rest. A stream that has sent everything needs no task: the task of
//! its group writes the next events to its socket, and to those of all others that read the same.
//! A stream goes back to a task of its own as soon as its client does not take all of it at once,
//! or it has something to send that others do not have.

use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use slab::Slab;
use socket2::SockRef;
use tokio::{io::ReadBuf, net::TcpStream, runtime::Handle};
use tracing::Span;
use waterclock_axum::{
    DirectStream,
    group::{GroupFeed, GroupKey, GroupStep, Part, RestingStream, Share},
};

use super::inbox::{Inbox, Inboxes};

/// Number of streams that are served before other tasks get a turn.
const STEP: usize = 64;
/// Number of places for members up to which a group is never sparse.
const MIN_SPARSE: usize = 1024;
/// Divisor of the places: with fewer members, a group is sparse.
const SPARSE_SHARE: usize = 8;

/// A connection whose stream rests.
pub(super) trait RestingConnection: Send + 'static {
    /// Its socket.
    fn socket(&self) -> &TcpStream;

    /// The span of its messages.
    fn span(&self) -> Span;

    /// Notes that writing has failed.
    fn failed(&self, error: &io::Error);

    /// Goes on with the stream in a task of its own, after the bytes that are still to be sent.
    /// `stream` is called within the span.
    fn resume(self, stream: impl FnOnce() -> DirectStream, unsent: Bytes);
}

/// The groups of a server. The streams of a topic are divided among as many groups as there are
/// worker threads, so that all of them work.
pub(super) struct Groups<C> {
    inboxes: Arc<Inboxes<Division, Arrival<C>>>,
    /// Number of divisions of the streams that read the same.
    divisions: usize,
}

/// The streams of one group: a part of those that read the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Division {
    key: GroupKey,
    number: usize,
}

/// A stream that is to join a group.
struct Arrival<C> {
    stream: DirectStream,
    connection: C,
}

/// A stream that rests. Its end is counted before that of its connection.
struct Member<C> {
    stream: RestingStream,
    connection: C,
}

/// The task of one group.
struct Group<C> {
    /// The first field, so that a group that fails leaves the table before its members end.
    inbox: Inbox<Division, Arrival<C>>,
    /// Boxed, since a vector has room for many more when it has just grown.
    members: Slab<Box<Member<C>>>,
    /// `None` while there are no members.
    feed: Option<GroupFeed>,
    /// Number of members that were served.
    turns: usize,
}

/// The next work of a group.
enum Next<C> {
    Messages { arrivals: Vec<Arrival<C>>, readable: Vec<usize> },
    Step(GroupStep),
}

impl<C: RestingConnection> Groups<C> {
    /// Creates the groups of a server. Must be called within a runtime.
    pub(super) fn new() -> Self {
        let divisions = Handle::current().metrics().num_workers();
        Self { inboxes: Arc::default(), divisions }
    }

    /// Lets a stream rest in the group of its topics. It goes back to a task of its own if it
    /// cannot rest any more by then.
    pub(super) fn join(&self, key: GroupKey, stream: DirectStream, connection: C) {
        let division = Division { key, number: fastrand::usize(..self.divisions) };
        if let Some(inbox) = self.inboxes.join(division, Arrival { stream, connection }) {
            tokio::spawn(Group { inbox, members: Slab::new(), feed: None, turns: 0 }.run());
        }
    }
}

impl<C: RestingConnection> Group<C> {
    /// Serves the members until there is none.
    async fn run(mut self) {
        loop {
            let step = match self.next().await {
                Next::Step(step) => Poll::Ready(step),
                Next::Messages { arrivals, readable } => {
                    for arrival in arrivals {
                        self.admit(arrival);
                        self.pass_turn().await;
                    }
                    for member in readable {
                        self.look_at(member);
                        self.pass_turn().await;
                    }
                    // Further messages must not hold up the events.
                    poll_fn(|context| Poll::Ready(self.poll_step(context))).await
                }
            };
            match step {
                Poll::Ready(GroupStep::Send(part)) => self.send(&part).await,
                Poll::Ready(GroupStep::Expire) => self.expire().await,
                Poll::Ready(GroupStep::Dissolve) => self.dissolve().await,
                Poll::Pending => {}
            }
            if self.is_sparse() {
                self.dissolve().await;
            }
            if self.members.is_empty() {
                self.feed = None;
                if self.inbox.try_close() {
                    return;
                }
            }
        }
    }

    /// Waits for messages or for the next step. Messages come first: a newcomer has what the feed
    /// has delivered, but may not have what it is about to deliver.
    async fn next(&mut self) -> Next<C> {
        poll_fn(|context| match self.inbox.poll_take(context) {
            Poll::Ready((arrivals, readable)) => Poll::Ready(Next::Messages { arrivals, readable }),
            Poll::Pending => self.poll_step(context).map(Next::Step),
        })
        .await
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<GroupStep> {
        self.feed.as_mut().map_or(Poll::Pending, |feed| feed.poll_next(context))
    }

    /// Counts some work, and gives other tasks a turn from time to time.
    async fn pass_turn(&mut self) {
        if self.is_turn_over() {
            tokio::task::yield_now().await;
        }
    }

    fn is_turn_over(&mut self) -> bool {
        self.turns = self.turns.wrapping_add(1);
        self.turns.is_multiple_of(STEP)
    }

    /// Returns `true` if most of many members have left, so that their places cost more time than
    /// the others.
    fn is_sparse(&self) -> bool {
        self.members.capacity() > MIN_SPARSE
            && self.members.len() < self.members.capacity() / SPARSE_SHARE
    }

    fn admit(&mut self, Arrival { stream, connection }: Arrival<C>) {
        let admitted = match &mut self.feed {
            Some(feed) if !self.members.is_empty() => feed.rest(stream),
            _ => GroupFeed::start(stream).map(|(feed, stream)| {
                self.feed = Some(feed);
                stream
            }),
        };
        match admitted {
            Ok(mut stream) => {
                let entry = self.members.vacant_entry();
                let key = entry.key();
                if let Some(feed) = &mut self.feed {
                    feed.watch(key, &mut stream);
                }
                entry.insert(Box::new(Member { stream, connection }));
                self.look_at(key);
            }
            Err(stream) => connection.resume(|| stream, Bytes::new()),
        }
    }

    /// Removes a member whose client has ended its side, and so has left. If the client sends
    /// another request before that, only a write that fails tells.
    fn look_at(&mut self, key: usize) {
        let Some(member) = self.members.get(key) else { return };
        let waker = self.inbox.waker(key);
        let (mut context, mut byte) = (Context::from_waker(&waker), [0]);
        let peeked =
            member.connection.socket().poll_peek(&mut context, &mut ReadBuf::new(&mut byte));
        if let Poll::Ready(Ok(0) | Err(_)) = peeked {
            self.remove(key);
        }
    }

    /// Sends a part to the members.
    async fn send(&mut self, part: &Part) {
        let (chunk, mut sent) = (chunk(&part.bytes), 0);
        for key in 0..self.members.capacity() {
            if !self.members.contains(key) {
                continue;
            }
            sent += usize::from(self.send_to(key, part, &chunk));
            if self.is_turn_over() {
                self.count(part, mem::take(&mut sent));
                tokio::task::yield_now().await;
            }
        }
        self.count(part, sent);
    }

    fn count(&self, part: &Part, sent: usize) {
        if let Some(feed) = &self.feed {
            feed.sent(part, sent);
        }
    }

    /// Sends a part to a member. Returns `true` if it counts as sent.
    fn send_to(&mut self, key: usize, part: &Part, chunk: &Bytes) -> bool {
        let Some(member) = self.members.get_mut(key) else { return false };
        match member.stream.share(part) {
            // After a suspension, the step of the feed may come later than its next part.
            Share::Whole if !member.stream.has_expired() => {}
            Share::Whole | Share::Rest => {
                self.resume_before(key, part);
                return false;
            }
            Share::Nothing => return false,
        }
        // Bypasses tokio's readiness state, which is often not in the CPU's cache.
        match SockRef::from(member.connection.socket()).send(chunk) {
            Ok(written) => {
                member.stream.sent(part);
                if written < chunk.len() {
                    self.resume(key, chunk.slice(written..));
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.resume_before(key, part);
                false
            }
            Err(error) => {
                member.connection.failed(&error);
                self.remove(key);
                false
            }
        }
    }

    /// Lets those members go on by themselves whose permission has ended.
    async fn expire(&mut self) {
        while let Some((key, time)) = self.feed.as_mut().and_then(GroupFeed::take_due) {
            match (self.members.get_mut(key), &mut self.feed) {
                (Some(member), _) if member.stream.has_expired() => self.resume(key, Bytes::new()),
                // Another stream may have the place of one that has left.
                (Some(member), Some(feed)) if member.stream.is_due(time) => {
                    feed.watch(key, &mut member.stream);
                }
                _ => {}
            }
            self.pass_turn().await;
        }
    }

    /// Lets all members go on by themselves.
    async fn dissolve(&mut self) {
        for (_, member) in mem::take(&mut self.members) {
            self.resume_with(*member, GroupFeed::resume, Bytes::new());
            self.pass_turn().await;
        }
    }

    /// Lets a member go on by itself that has sent all parts, or the last one up to some bytes.
    fn resume(&mut self, key: usize, unsent: Bytes) {
        if let Some(member) = self.members.try_remove(key) {
            self.resume_with(*member, GroupFeed::resume, unsent);
        }
    }

    /// Lets a member go on by itself that has not sent the last part.
    fn resume_before(&mut self, key: usize, part: &Part) {
        if let Some(member) = self.members.try_remove(key) {
            let resume = |feed: &GroupFeed, stream| feed.resume_before(part, stream);
            self.resume_with(*member, resume, Bytes::new());
        }
    }

    fn resume_with(
        &self,
        Member { stream, connection }: Member<C>,
        resume: impl FnOnce(&GroupFeed, RestingStream) -> DirectStream,
        unsent: Bytes,
    ) {
        // Always there: only a group without members has no feed.
        if let Some(feed) = &self.feed {
            connection.resume(|| resume(feed, stream), unsent);
        }
    }

    /// Ends the stream of a member.
    fn remove(&mut self, key: usize) {
        if let Some(member) = self.members.try_remove(key) {
            let _span = member.connection.span().entered();
            drop(member);
        }
    }
}

/// Frames a part as a chunk of a body (RFC 9112, 7.1).
fn chunk(part: &[u8]) -> Bytes {
    [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat().into()
}

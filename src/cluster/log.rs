//! The event log of a node.

use std::{future::pending, mem, pin::Pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    doubts,
    follow_error::FollowError,
    follower::{self, LOSS_TIMEOUT, PAUSE},
    join_error::JoinError,
    joining::{catch_up, start_from_snapshot},
    node::Node,
    peers::Peers,
    sequencer::{EntryKind, OrderBounds, Sequencer, SequencerError},
    status::ClusterStatus,
    trimming,
};
use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    event_log::{
        Appended, Bounds, ChangedTopics, CommitObserver, Condition, Dropped, EventLog,
        EventLogError, EventLogFuture, LogSize, OtherNodes, ReadLimit, Rejected, Retention,
        SharedChanges, SqliteLog, TopicFigures,
        entry::{Entry, EntryOutcome, OrderPlace, Proposal, Tag},
    },
    id::Epoch,
    pattern::Patterns,
    timestamp::Timestamp,
};

/// The number of the first proposal of a process.
const FIRST_NUMBER: u64 = 1;
/// Pause after an attempt to propose that has failed.
pub(super) const PROPOSE_PAUSE: Duration = Duration::from_millis(100);
/// Pause after an attempt to begin the order.
const BEGIN_PAUSE: Duration = Duration::from_millis(500);
/// Time that remains, at least, in which the node must apply an entry that the cluster has.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a node waits for events of others before it asks the cluster if there are any.
const REACH_PAUSE: Duration = Duration::from_millis(500);
/// Maximum size of a proposal without its drafts, and of one draft, in JSON.
pub(super) const MAX_REST: usize = 512 << 10;

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The name of the node, by which readers and operators know it.
    pub name: String,
    /// The events that all nodes keep. A node cannot join a cluster that keeps others.
    pub retention: Retention,
    /// Time in which a publish must reach the cluster, and the start, too.
    pub timeout: Duration,
    /// `true` if the node may begin the order with an empty log. Otherwise it waits for another
    /// one.
    pub may_begin: bool,
}

/// The event log of a node: it proposes to the cluster what its hub appends, and serves reads from
/// its mirror.
pub struct ClusterLog {
    node: Arc<Node>,
    follower: JoinHandle<()>,
}

impl ClusterLog {
    /// Joins the cluster with a [mirror](SqliteLog::open_mirror). The first node begins the order.
    ///
    /// A node that has been a member before also starts while the cluster cannot be reached. If the
    /// cluster's stream is another one, or has lost entries that the node has, the node sets its
    /// mirror aside and follows the stream from its beginning. Lost entries begin a new epoch, so
    /// that all readers hear of it.
    ///
    /// # Errors
    ///
    /// If the node cannot be a member of the cluster.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, because the log spawns a task that follows the order.
    pub async fn join(
        mirror: SqliteLog,
        sequencer: impl Sequencer,
        settings: NodeSettings,
    ) -> Result<Self, JoinError> {
        let sender = Epoch::random().to_string();
        let mirror = fitting(mirror, &sequencer, settings.timeout, &sender).await?;
        let (retention, may_begin) = (settings.retention.clone(), settings.may_begin);
        let of_cluster = mirror.mirrored().and_then(|mirrored| mirrored.retention);
        if of_cluster.is_some_and(|of_cluster| of_cluster != retention) {
            // The cluster may have changed it since the node was a member.
            catch_up(&mirror, &sequencer).await?;
        }
        let log = Self::follow(mirror, sequencer, settings, sender);
        if log.node.mirrored().retention.is_none() {
            log.node.begin(&retention, may_begin).await?;
        }
        match log.node.mirrored().retention {
            Some(cluster) if cluster != retention => {
                let (cluster, node) = (Box::new(cluster), Box::new(retention));
                Err(JoinError::Retention { cluster, node })
            }
            _ => Ok(log),
        }
    }

    /// Begins to follow the order with a mirror that fits to it.
    pub(super) fn follow(
        mirror: SqliteLog,
        sequencer: impl Sequencer,
        NodeSettings { name, timeout, .. }: NodeSettings,
        sender: String,
    ) -> Self {
        let follow = |node: &Arc<Node>| {
            let [following, trimming, doubting] = [(); 3].map(|()| Arc::clone(node));
            let peers = node.peers.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = follower::run(following) => {}
                    () = trimming::run(trimming) => {}
                    () = doubts::run(doubting) => {}
                    Some(never) = async { Some(peers?.run().await) } => match never {},
                }
            })
        };
        let node = Arc::new(Node {
            mirror,
            peers: sequencer.messenger().map(|messenger| Arc::new(Peers::new(messenger))),
            sequencer: Box::new(sequencer),
            changes: Arc::default(),
            status: watch::Sender::default(),
            name,
            sender,
            waiting: Mutex::default(),
            // The first number is that of a new epoch.
            proposing: tokio::sync::Mutex::new(FIRST_NUMBER),
            caught_up: tokio::sync::Mutex::default(),
            doubt: Mutex::default(),
            doubted: Notify::new(),
            timeout,
        });
        let follower = follow(&node);
        Self { node, follower }
    }

    /// Ends to follow. Returns the mirror, unless others still use the node.
    pub(super) async fn leave(mut self) -> Option<SqliteLog> {
        self.follower.abort();
        // It was ended, or has ended before.
        let _ = (&mut self.follower).await;
        let node = Arc::clone(&self.node);
        drop(self);
        Arc::into_inner(node).map(|node| node.mirror)
    }

    /// Returns the part that the log and its follower share.
    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Begins to watch the state of the node in its cluster.
    pub fn status(&self) -> watch::Receiver<ClusterStatus> {
        self.node.status.subscribe()
    }
}

/// Returns a mirror that fits to the stream: the given one, or a new one in its place. If the
/// stream has lost entries, begins a new epoch before.
async fn fitting(
    mirror: SqliteLog,
    sequencer: &dyn Sequencer,
    limit: Duration,
    sender: &str,
) -> Result<SqliteLog, JoinError> {
    // A node that has stopped while it joined begins again.
    let is_incomplete = mirror.mirrored().is_some_and(|mirrored| mirrored.is_joining);
    let mirror = if is_incomplete { mirror.empty_mirror()? } else { mirror };
    let deadline = Instant::now() + LOSS_TIMEOUT;
    let checked = loop {
        let checked = timeout(limit, async {
            let bounds = sequencer.bounds().await?;
            follower::check(&mirror, sequencer, &bounds).await
        });
        match checked.await {
            Ok(Err(FollowError::Short)) if Instant::now() < deadline => sleep(PAUSE).await,
            Ok(Err(FollowError::Short)) => break Err(FollowError::Ahead),
            checked => break checked.unwrap_or(Ok(())),
        }
    };
    let mirror = match checked {
        Err(error) if error.needs_new_mirror() => {
            if matches!(error, FollowError::TooFarBehind) {
                tracing::warn!("{error}: the node begins with a snapshot");
                mirror.empty_mirror()?
            } else if mirror.mirrored().is_none_or(|mirrored| mirrored.retention.is_none()) {
                // It has shown nothing to anybody.
                tracing::warn!("{error}: the node follows the stream from its beginning");
                mirror.empty_mirror()?
            } else {
                // First, so that a crash cannot hide the loss. Another stream may be a copy of this
                // one, from an earlier time.
                begin_epoch(sequencer, limit, sender, mirror.bounds().newest).await?;
                let (mirror, folder) = mirror.replace_mirror()?;
                tracing::error!(
                    folder = %folder.display(),
                    "{error}: the node follows the stream from its beginning, and has set its log \
                     aside"
                );
                mirror
            }
        }
        // The follower tells of it.
        _ => mirror,
    };
    if mirror.mirrored().is_some_and(|mirrored| mirrored.place.position > 0) {
        return Ok(mirror);
    }
    let bounds = timeout(limit, sequencer.bounds()).await;
    let bounds = bounds.unwrap_or_else(|elapsed| Err(SequencerError::unavailable(elapsed)));
    let OrderBounds { stream, first, .. } = bounds.map_err(JoinError::Unreachable)?;
    if first <= 1 {
        return Ok(mirror);
    }
    start_from_snapshot(mirror, sequencer, stream, first).await
}

/// Begins a new epoch, whose events come after the sequence number `newest`.
async fn begin_epoch(
    sequencer: &dyn Sequencer,
    limit: Duration,
    sender: &str,
    newest: u64,
) -> Result<(), JoinError> {
    let tag = Tag { sender: sender.to_owned(), number: FIRST_NUMBER };
    let entry = Entry::Epoch { epoch: Epoch::random(), newest };
    let proposal = Proposal { tag, seen: OrderPlace::default(), entry }.encode();
    let sent = timeout(limit, sequencer.propose(proposal, EntryKind::Other)).await;
    let sent = sent.unwrap_or_else(|elapsed| Err(SequencerError::unconfirmed(elapsed)));
    // A later attempt begins another one.
    sent.map(|_| ()).map_err(JoinError::Unreachable)
}

impl Drop for ClusterLog {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Node {
    /// Begins the order, unless another node does or the node may not, and waits until the mirror
    /// has begun. While the log of a single process is being imported, waits for each part.
    async fn begin(&self, retention: &Retention, may_begin: bool) -> Result<(), JoinError> {
        let mut deadline = Instant::now() + self.timeout;
        let (mut import, mut status) = (None, self.status.subscribe());
        loop {
            let last_import = mem::replace(&mut import, self.mirrored().import);
            if import != last_import {
                if last_import.is_none() {
                    tracing::info!("the node waits: the cluster imports the log of one process");
                }
                deadline = Instant::now() + self.timeout;
            }
            let can_begin = may_begin && import.is_none();
            let attempt =
                async { if can_begin { self.try_begin(retention).await } else { Ok(()) } };
            let error = match timeout_at(deadline, attempt).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(elapsed) => Some(SequencerError::unavailable(elapsed)),
            };
            let begun = status
                .wait_for(|status| status.failure.is_some() || self.mirrored().retention.is_some());
            // The mirror may have to apply others' entries first.
            let pause = deadline.min(Instant::now() + BEGIN_PAUSE);
            if let Ok(Ok(status)) = timeout_at(pause, begun).await {
                return match &status.failure {
                    Some(failure) if status.needs_restart => {
                        Err(JoinError::StartAgain((**failure).clone()))
                    }
                    Some(failure) => Err(JoinError::EventLog((**failure).clone())),
                    None => Ok(()),
                };
            }
            if Instant::now() >= deadline && self.mirrored().import == import {
                if import.is_some() {
                    return Err(JoinError::Importing);
                }
                if !may_begin && self.status.borrow().is_connected {
                    return Err(JoinError::NothingToImport);
                }
                let silent = || SequencerError::unavailable("it sends no entries");
                return Err(JoinError::Unreachable(error.unwrap_or_else(silent)));
            }
        }
    }

    async fn try_begin(&self, retention: &Retention) -> Result<(), SequencerError> {
        let last = self.sequencer.bounds().await?.last;
        // Others may have proposed before anybody has begun, which changes nothing.
        let kind = if last == 0 { EntryKind::First } else { EntryKind::Other };
        if self.mirrored().place.position < last {
            return Ok(());
        }
        let tag = self.next_tag(&mut *self.proposing.lock().await);
        let (epoch, retention) = (Epoch::random(), retention.clone());
        let entry = Entry::Begin { epoch, retention };
        let proposal = Proposal { tag, seen: self.mirrored().place, entry };
        match self.sequencer.propose(proposal.encode(), kind).await {
            Ok(_) | Err(SequencerError::Begun) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn next_tag(&self, last: &mut u64) -> Tag {
        *last += 1;
        Tag { sender: self.sender.clone(), number: *last }
    }

    /// Proposes an entry, and returns its outcome once this node has applied it.
    pub async fn propose(&self, entry: Entry) -> Result<EntryOutcome, EventLogError> {
        let outcome = self.try_propose(entry).await;
        let refusal = outcome.as_ref().err().cloned();
        self.status.send_if_modified(|status| {
            let is_change = status.refusal.is_some() != refusal.is_some();
            status.refusal = refusal;
            is_change
        });
        outcome
    }

    async fn try_propose(&self, entry: Entry) -> Result<EntryOutcome, EventLogError> {
        let mut last = self.proposing.lock().await;
        let deadline = Instant::now() + self.timeout;
        let mut status = self.status.subscribe();
        if let Some(failure) = status.borrow().failure.as_deref() {
            return Err(failure.clone());
        }
        let tag = self.next_tag(&mut last);
        let (reply, mut outcome) = oneshot::channel();
        *self.waiting.lock() = Some((tag.number, reply));
        let is_snapshot = matches!(entry, Entry::Snapshot(_));
        let kind = if is_snapshot { EntryKind::Snapshot } else { EntryKind::Other };
        let bytes = Proposal { tag, seen: self.mirrored().place, entry }.encode();
        // The cluster may have the proposal, whatever ends the follower.
        let failed = async { drop(status.wait_for(|status| status.failure.is_some()).await) };
        let outcome = tokio::select! {
            biased;
            outcome = &mut outcome => outcome,
            () = failed => {
                return Err(EventLogError::unanswered("the node no longer follows the cluster"));
            }
            sent = self.send(bytes, kind, deadline) => {
                sent?;
                let deadline = deadline.max(Instant::now() + APPLY_TIMEOUT);
                let applied = timeout_at(deadline, outcome).await;
                applied.map_err(|_| EventLogError::unanswered("this node is behind the cluster"))?
            }
        };
        outcome.map_err(|_| EventLogError::Stopped)
    }

    /// Waits until the mirror has all entries that the cluster has accepted until `asked`.
    ///
    /// An entry without events tells. The position of the last entry does not, since it may come
    /// from an old leader that is cut off from the other servers. Only a majority accepts an entry.
    /// One entry tells all that wait, and there are few, since readers choose their cursors freely.
    async fn catch_up(&self, asked: Instant) {
        let mut last = self.caught_up.lock().await;
        while last.is_none_or(|last| last < asked) {
            if let Some(last) = *last {
                sleep_until(last + REACH_PAUSE).await;
            }
            let now = Instant::now();
            match self.propose(Entry::Append(Vec::new())).await {
                Ok(_) => *last = Some(now),
                Err(_) => sleep_until(now + PROPOSE_PAUSE).await,
            }
        }
    }

    /// Sends a proposal until the cluster has it, or until the deadline.
    async fn send(
        &self,
        bytes: Vec<u8>,
        kind: EntryKind,
        deadline: Instant,
    ) -> Result<(), EventLogError> {
        let mut may_be_stored = false;
        loop {
            let sent = self.sequencer.propose(bytes.clone(), kind);
            let error = match timeout_at(deadline, sent).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(elapsed) => SequencerError::unconfirmed(elapsed),
            };
            may_be_stored |= matches!(error, SequencerError::Unconfirmed(_));
            if Instant::now() + PROPOSE_PAUSE >= deadline {
                let error = error.to_string();
                return Err(if may_be_stored {
                    EventLogError::unanswered(error)
                } else {
                    EventLogError::unavailable(error)
                });
            }
            sleep_until(Instant::now() + PROPOSE_PAUSE).await;
        }
    }
}

impl EventLog for ClusterLog {
    fn bounds(&self) -> Bounds {
        self.node.mirror.bounds()
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        self.node.mirror.dropped_after(topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        self.node.mirror.ends(topics, after, up_to)
    }

    /// Appends the events at the time that the cluster gives them.
    fn append(
        &self,
        drafts: Vec<Draft>,
        _: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        Box::pin(async move {
            match self.node.propose(Entry::Append(drafts)).await? {
                EntryOutcome::Appended(appended) => Ok(appended),
                // No other proposal has the same tag.
                _ => Err(EventLogError::unconfirmed("the cluster has lost the proposal")),
            }
        })
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.node.mirror.read(topics, after, limit)
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.node.mirror.newest_of_each(topics, after, limit)
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.node.mirror.read_before(topics, before, limit)
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        self.node.mirror.before(time)
    }

    fn node(&self) -> Option<&str> {
        Some(&self.node.name)
    }

    fn shared_changes(&self) -> Option<Arc<SharedChanges>> {
        Some(Arc::clone(&self.node.changes))
    }

    fn other_nodes(&self) -> Option<Arc<dyn OtherNodes>> {
        let peers = Arc::clone(self.node.peers.as_ref()?);
        Some(peers)
    }

    fn reach(&self, sequence: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let (asked, mut status) = (Instant::now(), self.node.status.subscribe());
        Box::pin(async move {
            let has_it = |_: &ClusterStatus| self.node.mirror.bounds().newest >= sequence;
            // An error means that the follower has ended. The process ends, too.
            let settled = async {
                if status.wait_for(has_it).await.is_err() {
                    pending::<()>().await;
                }
            };
            let is_nowhere = async {
                sleep_until(asked + REACH_PAUSE).await;
                self.node.catch_up(asked).await;
            };
            tokio::select! {
                biased;
                () = settled => {}
                () = is_nowhere => {}
            }
        })
    }

    fn size_of(&self, draft: &Draft) -> usize {
        Proposal::size_of(draft)
    }

    fn max_append(&self) -> usize {
        self.node.sequencer.max_entry().saturating_sub(MAX_REST)
    }

    fn note_changes(&self, changed: &Arc<ChangedTopics>) {
        self.node.mirror.note_changes(changed);
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.node.mirror.topics(topics, after, limit)
    }

    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        self.node.mirror.figures(topics)
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        Box::pin(async move {
            match self.node.propose(Entry::Delete(topic.clone())).await? {
                EntryOutcome::Deleted(_, deleted) => Ok(deleted),
                _ => Err(EventLogError::unconfirmed("the cluster has lost the proposal")),
            }
        })
    }

    /// Changes the retention of all nodes.
    fn set_retention(&self, retention: Retention) -> EventLogFuture<'_, ()> {
        Box::pin(async move {
            if self.node.mirrored().retention.as_ref() == Some(&retention) {
                return Ok(());
            }
            match self.node.propose(Entry::Retain(retention)).await? {
                EntryOutcome::Retained => Ok(()),
                _ => Err(EventLogError::unconfirmed("the cluster has lost the proposal")),
            }
        })
    }

    fn find<'a>(
        &'a self,
        topic: &'a Topic,
        key: &'a IdempotencyKey,
    ) -> EventLogFuture<'a, Option<Event>> {
        self.node.mirror.find(topic, key)
    }

    fn condition(&self) -> Condition {
        let mut condition = self.node.mirror.condition();
        let status = self.node.status.borrow();
        condition.lag = Some(status.lag());
        condition.is_away = !status.is_connected;
        let away = (!status.is_connected)
            .then(|| EventLogError::unavailable("the node receives no entries"));
        condition.append_error = condition.append_error.or(away).or(status.refusal.clone());
        condition
    }

    fn size(&self) -> LogSize {
        self.node.mirror.size()
    }

    fn commits(&self) -> Option<&CommitObserver> {
        self.node.mirror.commits()
    }

    fn stopped(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut status = self.node.status.subscribe();
        Box::pin(async move {
            tokio::select! {
                () = self.node.mirror.stopped() => {}
                // An error means that the follower has ended.
                _ = status.wait_for(|status| status.failure.is_some()) => {}
            }
        })
    }
}

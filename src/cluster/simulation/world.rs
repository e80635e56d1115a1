//! The world of a simulation: nodes, publishers and readers in one thread. A seed decides who has
//! the next turn, and what fails.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::yield_now};

use super::{
    folder,
    order::{Order, SimulatedSequencer},
};
use crate::{
    cluster::{
        ClusterLog, ClusterStatus, JoinError, NodeSettings, node::Node as ClusterNode,
        trimming::trim,
    },
    event::{Draft, Event, IdempotencyKey, Topic},
    event_log::{EventLog as _, Retention, SqliteLog, dump, entry::Entry, random_rules},
    hub::{
        Delivery, Hub, PublishError, Subscriber,
        simulation::checker::{Acknowledged, History, Message, ReaderHistory, Session},
    },
    id::{Cursor, EventId},
    notice::{Gap, GapReason},
    pattern::{Pattern, Patterns},
};

const NODES: usize = 3;
const TOPICS: [&str; 6] = ["a", "a.b", "a.c", "b", "b.c.d", "c"];
const PATTERNS: [&str; 8] = ["a", "a.*", "a.>", "*", ">", "b.c.d", "c", "*.b"];
/// Maximum number of readers and of publishes in flight.
const MAX_CLIENTS: usize = 12;

type Outcome = Result<Event, PublishError>;
type Joined = Arc<Mutex<Option<Result<ClusterLog, JoinError>>>>;

/// A node: its folder, and its process while there is one.
struct Node {
    folder: TempDir,
    /// A copy of the folder from an earlier time.
    saved: TempDir,
    life: Option<Life>,
}

/// One life of a node's process.
struct Life {
    joined: Joined,
    /// The hub, once the node has joined.
    hub: Option<(Arc<Hub>, Arc<ClusterNode>)>,
    hub_start: u64,
    /// Dropped last: it ends all tasks at once.
    runtime: Runtime,
}

/// A publish in flight.
struct Publish {
    node: usize,
    draft: Draft,
    outcome: Pin<Box<dyn Future<Output = Outcome>>>,
}

/// A client that reads.
struct Reader {
    history: ReaderHistory,
    connection: Connection,
    /// The cursor from which it resumes.
    cursor: EventId,
    /// The events that it has received since it was told of a loss.
    received: Vec<Event>,
}

enum Connection {
    Closed,
    /// The node waits until it has the cursor.
    Opening(usize, Pin<Box<dyn Future<Output = ()>>>),
    Open(usize, Box<Subscriber>),
}

impl Connection {
    fn node(&self) -> Option<usize> {
        match self {
            Self::Closed => None,
            Self::Opening(node, _) | Self::Open(node, _) => Some(*node),
        }
    }
}

pub struct World {
    order: Arc<Order>,
    /// `true` if the sequencer loses entries.
    has_losses: bool,
    nodes: Vec<Node>,
    retention: Retention,
    random: fastrand::Rng,
    publishes: Vec<Publish>,
    readers: Vec<Reader>,
    acknowledged: Vec<Acknowledged>,
    /// Drafts whose publishers will try again.
    failed: Vec<Draft>,
    /// Number of drafts so far.
    drafts: usize,
}

impl World {
    pub fn new(seed: u64, has_losses: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let retention = some_retention(&mut random);
        let order = Arc::new(wait(Order::new(random.u64(..), NODES)));
        let nodes = (0..NODES).map(|_| Node { folder: folder(), saved: folder(), life: None });
        let (publishes, readers, acknowledged, failed) = Default::default();
        Self {
            order,
            has_losses,
            nodes: nodes.collect(),
            retention,
            random,
            publishes,
            readers,
            acknowledged,
            failed,
            drafts: 0,
        }
    }

    /// Lives for some time, lets everything come to rest, and checks what has happened.
    pub fn run(mut self) -> Result<(), String> {
        for _ in 0..self.random.usize(200..1200) {
            match self.random.usize(..1000) {
                0..150 if self.publishes.len() < MAX_CLIENTS => self.publish(),
                0..250 => self.poll_publish(),
                250..450 => self.poll_reader(),
                450..490 if self.readers.len() < MAX_CLIENTS => self.add_reader(),
                450..540 => self.reconnect(),
                540..547 => self.delete(),
                547..550 => self.retain(),
                550..580 => self.order.change_clock(self.random.i64(-50..2000)),
                580..600 => {
                    let millis = self.random.u64(..3000);
                    self.advance(millis);
                }
                600..615 => {
                    let (node, is_cut) = (self.random.usize(..NODES), self.random.bool());
                    self.order.cut(node, is_cut);
                }
                615..620 => self.crash(),
                // A node that does not know the last entries before a trim cannot tell of a loss.
                640..660 if !self.has_losses => self.trim(),
                663..668 => self.break_disk(),
                660..663 if self.has_losses => wait(Arc::clone(&self.order).lose()),
                620..640 => {
                    let order = Arc::clone(&self.order);
                    wait(order.deliver_late());
                }
                _ => self.turn(),
            }
        }
        if self.has_losses {
            self.compare();
            // A loss whose entries all nodes have is seen once another node joins.
            self.kill(0);
            clear(self.nodes[0].folder.path());
            self.compare();
            self.check_losses()?;
        }
        self.rest();
        let mut readers = Vec::new();
        for reader in &mut self.readers {
            reader.connection = Connection::Closed;
        }
        readers.extend(self.readers.drain(..).map(|reader| reader.history));
        let history = History {
            stored: self.order.stored(),
            acknowledged: self.acknowledged,
            readers,
            restarts_forget_topics: true,
        };
        if !self.has_losses {
            history.check()?;
        }
        let expected = dump(wait(self.order.close()));
        for (number, node) in self.nodes.into_iter().enumerate() {
            let Node { folder, life, .. } = node;
            drop(life);
            let found = dump(folder.path());
            if found != expected {
                return Err(format!("node {number} has {found:?}, not {expected:?}"));
            }
        }
        Ok(())
    }

    /// Lets the nodes compare what they have: each proposes entries, as the clock always does.
    fn compare(&mut self) {
        for _ in 0..NODES {
            self.rest();
            for life in self.nodes.iter().filter_map(|node| node.life.as_ref()) {
                if let Some((_, node)) = &life.hub {
                    let node = Arc::clone(node);
                    let nothing = Entry::Append(Vec::new());
                    life.runtime.spawn(async move { node.propose(nothing).await });
                }
            }
        }
        self.rest();
    }

    /// Checks that everybody is told who has received or published an event that is lost.
    fn check_losses(&self) -> Result<(), String> {
        let stored = self.order.stored();
        let stored: HashSet<_> =
            stored.iter().map(|stored| (stored.event.id.sequence, &stored.event.data)).collect();
        let is_lost = |event: &&Event| !stored.contains(&(event.id.sequence, &event.data));
        for reader in &self.readers {
            if let Some(event) = reader.received.iter().find(is_lost) {
                return Err(format!("a reader of {event:?} was not told that it is lost"));
            }
            if !reader.received.is_sorted_by_key(|event| event.id.sequence) {
                let received = &reader.received;
                return Err(format!("a reader has received events in another order: {received:?}"));
            }
        }
        let epochs: Vec<_> = (0..NODES).map(|node| self.id(node, 0).epoch).collect();
        let acknowledged = self.acknowledged.iter().map(|acknowledged| &acknowledged.event);
        for event in acknowledged.filter(is_lost) {
            if epochs.contains(&event.id.epoch) {
                return Err(format!("{event:?} is lost, and the epoch has not changed"));
            }
        }
        Ok(())
    }

    /// Lets everything end that has begun.
    fn rest(&mut self) {
        wait(Arc::clone(&self.order).calm_down());
        (0..NODES).for_each(|node| self.set_disk(node, false));
        let (mut quiet, mut turns) = (0, 0);
        while quiet < 20 {
            turns += 1;
            assert!(
                turns < 10_000,
                "{} publishes have no end; the nodes are at {:?} of {}",
                self.publishes.len(),
                [0, 1, 2].map(|node| self.position(node)),
                self.order.last()
            );
            let before = (self.publishes.len(), self.messages());
            (0..NODES).for_each(|node| self.turn_of(node));
            self.advance(300);
            for number in (0..self.publishes.len()).rev() {
                self.poll_one(number);
            }
            for number in 0..self.readers.len() {
                if self.readers[number].connection.node().is_none() {
                    let node = self.random.usize(..NODES);
                    self.connect(number, node);
                }
                self.poll(number);
            }
            let is_quiet = self.publishes.is_empty()
                && before == (self.publishes.len(), self.messages())
                && self
                    .readers
                    .iter()
                    .all(|reader| matches!(reader.connection, Connection::Open(..)))
                && (0..NODES).all(|node| self.position(node) == self.order.last());
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }

    fn messages(&self) -> usize {
        let sessions = self.readers.iter().flat_map(|reader| &reader.history.sessions);
        sessions.map(|session| session.messages.len()).sum()
    }

    /// The position of the last entry that a node has applied.
    fn position(&self, node: usize) -> u64 {
        let hub = self.nodes[node].life.as_ref().and_then(|life| life.hub.as_ref());
        hub.map_or(0, |(_, node)| node.mirrored().place.position)
    }

    /// The position of the last entry that a node has begun to apply. A deletion that has failed
    /// hides events, and readers are told so.
    fn begun(&self, number: usize) -> u64 {
        let life = self.nodes[number].life.as_ref().and_then(|life| life.hub.as_ref());
        let has_failed =
            life.is_some_and(|(_, node)| node.mirror.condition().append_error.is_some());
        let position = self.position(number);
        if has_failed { self.order.next(position).unwrap_or(position) } else { position }
    }

    fn hub(&self, node: usize) -> Option<Arc<Hub>> {
        let (hub, _) = self.nodes[node].life.as_ref()?.hub.as_ref()?;
        Some(Arc::clone(hub))
    }

    /// Gives a node its turn. Starts its process if there is none.
    fn turn(&mut self) {
        let node = self.random.usize(..NODES);
        self.turn_of(node);
    }

    fn turn_of(&mut self, number: usize) {
        let (order, retention) = (Arc::clone(&self.order), self.retention.clone());
        let turns = self.random.usize(1..10);
        let node = &mut self.nodes[number];
        let life = node.life.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let joined = Joined::default();
            let mirror = SqliteLog::open_mirror(node.folder.path()).unwrap();
            let result = Arc::clone(&joined);
            runtime.spawn(async move {
                let sequencer = SimulatedSequencer { order, node: number };
                let settings = NodeSettings {
                    name: number.to_string(),
                    retention,
                    timeout: Duration::from_secs(5),
                    may_begin: true,
                };
                *result.lock() = Some(ClusterLog::join(mirror, sequencer, settings).await);
            });
            Life { joined, hub: None, hub_start: 0, runtime }
        });
        life.runtime.block_on(async {
            for _ in 0..turns {
                yield_now().await;
            }
        });
        let joined = life.joined.lock().take();
        match joined {
            Some(Ok(log)) => {
                let _guard = life.runtime.enter();
                let node = log.node();
                let now = crate::timestamp::Timestamp::now;
                let hub = Arc::new(Hub::new(log, now));
                life.hub_start = hub.newest();
                life.hub = Some((hub, node));
            }
            // Nobody has begun the order yet, and this node cannot.
            Some(Err(JoinError::Unreachable(_) | JoinError::StartAgain(_))) => node.life = None,
            // Another node has changed it. Now the operator starts this one with the same options.
            Some(Err(JoinError::Retention { cluster, .. })) => {
                self.retention = *cluster;
                node.life = None;
            }
            Some(Err(error)) => panic!("node {number}: {error:?}"),
            None => {}
        }
        if let Some(Life { hub: Some((_, node)), .. }) = &self.nodes[number].life {
            let status = node.status.borrow().clone();
            let ClusterStatus { failure, needs_restart, .. } = status;
            assert!(failure.is_none() || needs_restart, "node {number}: {failure:?}");
            if needs_restart {
                self.kill(number);
            }
        }
    }

    /// Lets time pass at all nodes.
    fn advance(&mut self, millis: u64) {
        for life in self.nodes.iter().filter_map(|node| node.life.as_ref()) {
            life.runtime.block_on(tokio::time::advance(Duration::from_millis(millis)));
        }
    }

    /// Kills a node, with the connections of its clients.
    fn kill(&mut self, number: usize) {
        self.publishes.retain(|publish| {
            let is_lost = publish.node == number;
            if is_lost && publish.draft.key.is_some() {
                self.failed.push(publish.draft.clone());
            }
            !is_lost
        });
        for reader in &mut self.readers {
            if reader.connection.node() == Some(number) {
                reader.connection = Connection::Closed;
            }
        }
        self.nodes[number].life = None;
    }

    /// Kills a node. It may lose its last entries, or its whole disk.
    fn crash(&mut self) {
        let number = self.random.usize(..NODES);
        self.kill(number);
        let node = &self.nodes[number];
        match self.random.usize(..6) {
            // Nobody else may know of a loss.
            _ if self.has_losses => {}
            0 => copy(node.folder.path(), node.saved.path()),
            1 => copy(node.saved.path(), node.folder.path()),
            2 => clear(node.folder.path()),
            _ => {}
        }
    }

    fn publish(&mut self) {
        let node = self.random.usize(..NODES);
        let Some(hub) = self.hub(node) else { return };
        let draft = match self.failed.pop() {
            Some(failed) if self.random.bool() => failed,
            failed => {
                self.failed.extend(failed);
                self.draft()
            }
        };
        let sent = draft.clone();
        let outcome = async move { hub.publish(sent).await.map(|frame| frame.event().clone()) };
        self.publishes.push(Publish { node, draft, outcome: Box::pin(outcome) });
    }

    fn draft(&mut self) -> Draft {
        self.drafts += 1;
        let topic: Topic = TOPICS[self.random.usize(..TOPICS.len())].parse().unwrap();
        let draft = Draft::new(topic, self.drafts.to_string());
        if self.random.bool() {
            return draft;
        }
        let key = IdempotencyKey { publisher: "p".to_owned(), key: self.drafts.to_string() };
        draft.with_key(key)
    }

    fn poll_publish(&mut self) {
        if !self.publishes.is_empty() {
            let number = self.random.usize(..self.publishes.len());
            self.poll_one(number);
        }
    }

    fn poll_one(&mut self, number: usize) {
        let publish = &mut self.publishes[number];
        let Some(life) = &self.nodes[publish.node].life else { return };
        let _guard = life.runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(outcome) = publish.outcome.as_mut().poll(&mut context) else { return };
        let Publish { draft, .. } = self.publishes.swap_remove(number);
        let key = draft.key.clone();
        // Its publisher tries again, also after a success that it may not have heard of.
        if key.is_some() && (outcome.is_err() || self.random.bool()) {
            self.failed.push(draft);
        }
        if let Ok(event) = outcome {
            self.acknowledged.push(Acknowledged { event, key });
        }
    }

    fn add_reader(&mut self) {
        let node = self.random.usize(..NODES);
        let Some(hub) = self.hub(node) else { return };
        let mut some =
            || -> Pattern { PATTERNS[self.random.usize(..PATTERNS.len())].parse().unwrap() };
        let topics = Patterns::new([some(), some()]).unwrap();
        let newest = hub.newest();
        let (cursor, start) = match self.random.usize(..3) {
            0 => (Cursor::Now, None),
            1 => (Cursor::Earliest, None),
            _ => {
                let sequence = self.random.u64(..=newest);
                (Cursor::After(self.id(node, sequence)), Some(sequence))
            }
        };
        let is_from_oldest = cursor == Cursor::Earliest;
        let subscriber = hub.subscribe(topics.clone(), cursor);
        let cursor = start.map_or(subscriber.cursor(), |start| self.id(node, start));
        let sessions = vec![self.session(node, cursor.sequence, is_from_oldest)];
        let history = ReaderHistory { topics, sessions };
        let connection = Connection::Open(node, Box::new(subscriber));
        self.readers.push(Reader { history, connection, cursor, received: Vec::new() });
    }

    fn reconnect(&mut self) {
        if !self.readers.is_empty() {
            let number = self.random.usize(..self.readers.len());
            let node = self.random.usize(..NODES);
            self.connect(number, node);
        }
    }

    /// Connects a reader to a node, which must first have its cursor.
    fn connect(&mut self, number: usize, node: usize) {
        let Some(hub) = self.hub(node) else { return };
        let cursor = Cursor::After(self.readers[number].cursor);
        let reach = Box::pin(async move { hub.reach(&cursor).await });
        self.readers[number].connection = Connection::Opening(node, reach);
    }

    fn id(&self, node: usize, sequence: u64) -> EventId {
        let life = self.nodes[node].life.as_ref().and_then(|life| life.hub.as_ref());
        let (_, node) = life.unwrap();
        EventId { epoch: node.mirror.bounds().epoch, sequence }
    }

    fn session(&self, node: usize, start: u64, is_from_oldest: bool) -> Session {
        let hub_start = self.nodes[node].life.as_ref().map_or(0, |life| life.hub_start);
        let step = self.begun(node);
        Session { start, step, hub_start, is_from_oldest, messages: Vec::new() }
    }

    fn poll_reader(&mut self) {
        if !self.readers.is_empty() {
            let number = self.random.usize(..self.readers.len());
            self.poll(number);
        }
    }

    fn poll(&mut self, number: usize) {
        let Some(node) = self.readers[number].connection.node() else { return };
        let Some(life) = &self.nodes[node].life else { return };
        let _guard = life.runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        if let Connection::Opening(_, reach) = &mut self.readers[number].connection {
            if reach.as_mut().poll(&mut context).is_pending() {
                return;
            }
            let Some(hub) = self.hub(node) else { return };
            let cursor = self.readers[number].cursor;
            let session = self.session(node, cursor.sequence, false);
            let Reader { history, connection, .. } = &mut self.readers[number];
            let subscriber = hub.subscribe(history.topics.clone(), Cursor::After(cursor));
            *connection = Connection::Open(node, Box::new(subscriber));
            history.sessions.push(session);
        }
        let position = self.begun(node);
        let shown = self.hub(node).map_or(0, |hub| hub.newest());
        let Reader { history, connection, cursor, received } = &mut self.readers[number];
        let Connection::Open(_, subscriber) = connection else { return };
        let Some(session) = history.sessions.last_mut() else { return };
        let Poll::Ready(delivery) = subscriber.poll_next(&mut context) else { return };
        match delivery {
            Ok(Delivery::Events(batch)) => {
                let events = batch.iter().map(|frame| frame.event().clone());
                received.extend(events.clone());
                session.messages.extend(events.map(Message::Event));
            }
            Ok(Delivery::Gap(Gap {
                reason: GapReason::OtherEpoch | GapReason::Future, ..
            })) if self.has_losses => {
                received.clear();
            }
            Ok(Delivery::Gap(gap)) => {
                let status = life.hub.as_ref().map(|(_, node)| node.status.borrow().clone());
                assert_eq!(gap.reason, GapReason::Expired, "{gap:?} {status:?}");
                let cursor = subscriber.cursor().sequence;
                session.messages.push(Message::Expired { step: position, cursor, shown });
            }
            Ok(Delivery::End { .. }) => unreachable!("no topic ends"),
            Err(error) => panic!("a mirror could not be read: {error}"),
        }
        if subscriber.is_settled() {
            *cursor = subscriber.cursor();
        }
    }

    /// Breaks the disk of a node, or mends it.
    fn break_disk(&mut self) {
        let (node, is_broken) = (self.random.usize(..NODES), self.random.bool());
        self.set_disk(node, is_broken);
    }

    fn set_disk(&self, number: usize, is_broken: bool) {
        if let Some(Life { hub: Some((_, node)), .. }) = &self.nodes[number].life {
            wait(node.mirror.refuse_writes(is_broken));
        }
    }

    /// Removes entries that no node needs.
    fn trim(&mut self) {
        let number = self.random.usize(..NODES);
        if let Some(Life { hub: Some((_, node)), runtime, .. }) = &self.nodes[number].life {
            let node = Arc::clone(node);
            runtime.spawn(async move { trim(&node).await });
        }
    }

    /// Changes the retention of all nodes at one of them.
    fn retain(&mut self) {
        let node = self.random.usize(..NODES);
        let retention = some_retention(&mut self.random);
        let (Some(hub), Some(life)) = (self.hub(node), &self.nodes[node].life) else { return };
        life.runtime.spawn(async move { hub.set_retention(retention).await });
    }

    fn delete(&mut self) {
        let node = self.random.usize(..NODES);
        let topic = TOPICS[self.random.usize(..TOPICS.len())].parse().unwrap();
        let (Some(hub), Some(life)) = (self.hub(node), &self.nodes[node].life) else { return };
        life.runtime.spawn(async move { hub.delete(topic).await });
    }
}

fn some_retention(random: &mut fastrand::Rng) -> Retention {
    Retention {
        count: random.usize(1..30),
        topics: random.usize(3..8),
        age: Duration::from_millis(random.u64(500..100_000)),
        bytes: random.usize(1000..20_000),
        rules: random_rules(random),
        ..Retention::default()
    }
}

/// Polls a future of the order until it is ready. It waits in place.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

fn clear(folder: &Path) {
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        // Logs that were set aside are folders.
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    clear(to);
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.path().is_dir() {
            continue;
        }
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

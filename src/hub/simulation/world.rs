//! The world of a simulation: a hub, publishers and readers in one thread. A seed decides who has
//! the next turn, and what fails.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    checker::{Acknowledged, History, Message, ReaderHistory, Session},
    log::{Disk, SimulatedLog},
};
use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    event_log::{Retention, random_rules},
    hub::{Delivery, Hub, PublishError, Subscriber},
    id::{Cursor, Epoch, EventId},
    notice::GapReason,
    pattern::{Pattern, Patterns},
};

const TOPICS: [&str; 6] = ["a", "a.b", "a.c", "b", "b.c.d", "c"];
const PATTERNS: [&str; 8] = ["a", "a.*", "a.>", "*", ">", "b.c.d", "c", "*.b"];
/// Maximum number of readers and of publishes in flight.
const MAX_CLIENTS: usize = 12;

type Outcome = Result<Event, PublishError>;

/// A publish in flight.
struct Publish {
    draft: Draft,
    outcome: Pin<Box<dyn Future<Output = Outcome>>>,
}

/// A client that reads.
struct Reader {
    history: ReaderHistory,
    /// `None` while it is not connected.
    subscriber: Option<Subscriber>,
    /// The cursor from which it resumes.
    cursor: u64,
}

pub struct World {
    disk: Arc<Disk>,
    random: fastrand::Rng,
    readers: Vec<Reader>,
    acknowledged: Vec<Acknowledged>,
    /// Drafts whose publishers will try again.
    failed: Vec<Draft>,
    /// Number of drafts so far.
    drafts: usize,
    /// The newest event of the log when the hub was started.
    hub_start: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let retention = some_retention(&mut random);
        let disk = Arc::new(Disk::new(random.u64(..), retention));
        let (readers, acknowledged, failed) = Default::default();
        Self { disk, random, readers, acknowledged, failed, drafts: 0, hub_start: 0 }
    }

    /// Lives some lives, each up to a crash, and returns what has happened.
    pub fn run(mut self) -> History {
        let lives = self.random.usize(1..5);
        for life in 1..=lives {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(self.live(life == lives));
        }
        let readers = self.readers.into_iter().map(|reader| reader.history).collect();
        History {
            stored: self.disk.stored(),
            acknowledged: self.acknowledged,
            readers,
            restarts_forget_topics: false,
        }
    }

    /// Lives until a crash, or until everything has come to rest.
    async fn live(&mut self, is_last: bool) {
        self.disk.restart().await;
        let disk = Arc::clone(&self.disk);
        let hub = Arc::new(Hub::new(SimulatedLog(Arc::clone(&self.disk)), move || disk.now()));
        self.hub_start = hub.newest();
        let mut publishes: Vec<Publish> = Vec::new();
        for _ in 0..self.random.usize(50..400) {
            self.disk.next_step();
            match self.random.usize(..100) {
                0..25 if publishes.len() < MAX_CLIENTS => publishes.push(self.publish(&hub)),
                0..40 => self.poll_publish(&mut publishes),
                40..65 => self.poll_reader(),
                65..70 if self.readers.len() < MAX_CLIENTS => self.add_reader(&hub),
                65..75 => self.reconnect(&hub),
                75..77 => self.delete(&hub),
                80 => self.retain(&hub),
                77..80 => self.disk.change_clock(self.random.i64(-50..2000)),
                // The hub and the log have their turn.
                _ => tokio::task::yield_now().await,
            }
        }
        if is_last {
            self.rest(&hub, publishes).await;
        }
        for reader in &mut self.readers {
            reader.subscriber = None;
        }
    }

    /// Lets everything end that has begun.
    async fn rest(&mut self, hub: &Hub, mut publishes: Vec<Publish>) {
        self.disk.calm_down();
        let mut quiet = 0;
        while quiet < 20 {
            self.disk.next_step();
            tokio::task::yield_now().await;
            let before = (publishes.len(), self.messages());
            for _ in 0..publishes.len() {
                self.poll_publish(&mut publishes);
            }
            for number in 0..self.readers.len() {
                if self.readers[number].subscriber.is_none() {
                    self.connect(hub, number);
                }
                self.poll(number);
            }
            let is_quiet = before == (publishes.len(), self.messages());
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
        assert!(publishes.is_empty(), "{} publishes have no end", publishes.len());
    }

    fn retain(&mut self, hub: &Arc<Hub>) {
        let (hub, retention) = (Arc::clone(hub), some_retention(&mut self.random));
        tokio::spawn(async move { hub.set_retention(retention).await });
    }

    fn messages(&self) -> usize {
        let sessions = self.readers.iter().flat_map(|reader| &reader.history.sessions);
        sessions.map(|session| session.messages.len()).sum()
    }

    fn publish(&mut self, hub: &Arc<Hub>) -> Publish {
        let draft = match self.failed.pop() {
            Some(failed) if self.random.bool() => failed,
            _ => self.draft(),
        };
        let (hub, sent) = (Arc::clone(hub), draft.clone());
        let outcome = async move { hub.publish(sent).await.map(|frame| frame.event().clone()) };
        Publish { draft, outcome: Box::pin(outcome) }
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

    fn poll_publish(&mut self, publishes: &mut Vec<Publish>) {
        if publishes.is_empty() {
            return;
        }
        let number = self.random.usize(..publishes.len());
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(outcome) = publishes[number].outcome.as_mut().poll(&mut context) else {
            return;
        };
        let Publish { draft, .. } = publishes.swap_remove(number);
        let key = draft.key.clone();
        // Its publisher tries again, also after a success that it may not have heard of.
        if key.is_some() && (outcome.is_err() || self.random.bool()) {
            self.failed.push(draft);
        }
        if let Ok(event) = outcome {
            self.acknowledged.push(Acknowledged { event, key });
        }
    }

    fn add_reader(&mut self, hub: &Hub) {
        let mut some =
            || -> Pattern { PATTERNS[self.random.usize(..PATTERNS.len())].parse().unwrap() };
        let topics = Patterns::new([some(), some()]).unwrap();
        let newest = hub.newest();
        let (cursor, start) = match self.random.usize(..3) {
            0 => (Cursor::Now, None),
            1 => (Cursor::Earliest, None),
            _ => {
                let sequence = self.random.u64(..=newest);
                (Cursor::After(id(sequence)), Some(sequence))
            }
        };
        let is_from_oldest = cursor == Cursor::Earliest;
        let subscriber = hub.subscribe(topics.clone(), cursor);
        let cursor = start.unwrap_or(subscriber.cursor().sequence);
        let sessions = vec![self.session(cursor, is_from_oldest)];
        let history = ReaderHistory { topics, sessions };
        self.readers.push(Reader { history, subscriber: Some(subscriber), cursor });
    }

    fn reconnect(&mut self, hub: &Hub) {
        if !self.readers.is_empty() {
            let number = self.random.usize(..self.readers.len());
            self.connect(hub, number);
        }
    }

    fn connect(&mut self, hub: &Hub, number: usize) {
        let session = self.session(self.readers[number].cursor, false);
        let Reader { history, subscriber, cursor } = &mut self.readers[number];
        *subscriber = Some(hub.subscribe(history.topics.clone(), Cursor::After(id(*cursor))));
        history.sessions.push(session);
    }

    fn session(&self, start: u64, is_from_oldest: bool) -> Session {
        let (step, hub_start) = (self.disk.step(), self.hub_start);
        Session { start, step, hub_start, is_from_oldest, messages: Vec::new() }
    }

    fn poll_reader(&mut self) {
        if !self.readers.is_empty() {
            let number = self.random.usize(..self.readers.len());
            self.poll(number);
        }
    }

    fn poll(&mut self, number: usize) {
        let Reader { history, subscriber: place, cursor } = &mut self.readers[number];
        let Some(session) = history.sessions.last_mut() else { return };
        let Some(subscriber) = place else { return };
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(delivery) = subscriber.poll_next(&mut context) else { return };
        match delivery {
            Ok(Delivery::Events(batch)) => {
                let events = batch.iter().map(|frame| Message::Event(frame.event().clone()));
                session.messages.extend(events);
            }
            Ok(Delivery::Gap(gap)) => {
                assert_eq!(gap.reason, GapReason::Expired, "{gap:?}");
                let (step, cursor) = (self.disk.step(), subscriber.cursor().sequence);
                let shown = u64::MAX;
                session.messages.push(Message::Expired { step, cursor, shown });
            }
            Ok(Delivery::End { .. }) => unreachable!("no topic ends"),
            Err(_) => {
                *place = None;
                return;
            }
        }
        if subscriber.is_settled() {
            *cursor = subscriber.cursor().sequence;
        }
    }

    fn delete(&mut self, hub: &Arc<Hub>) {
        let topic = TOPICS[self.random.usize(..TOPICS.len())].parse().unwrap();
        let hub = Arc::clone(hub);
        tokio::spawn(async move { hub.delete(topic).await });
    }
}

fn id(sequence: u64) -> EventId {
    EventId { epoch: Epoch::new(1), sequence }
}

fn some_retention(random: &mut fastrand::Rng) -> Retention {
    Retention {
        count: random.usize(1..30),
        topics: random.usize(3..8),
        age: Duration::from_millis(random.u64(500..100_000)),
        rules: random_rules(random),
        ..Retention::default()
    }
}

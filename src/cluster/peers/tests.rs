//! Nodes with messages that are late, lost or repeated.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use super::*;
use crate::{
    cluster::{Messages, SequencerFuture},
    event_log::ChangedTopics,
};

/// The fate of the messages that a node sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sending {
    Works,
    /// They are lost.
    Lost,
    /// They come after some milliseconds.
    Late(u64),
    /// They come twice.
    Twice,
    /// The node has no connection.
    Away,
    Denied,
}

type Listeners = Mutex<HashMap<String, mpsc::UnboundedSender<Vec<u8>>>>;

/// The messages of all nodes.
#[derive(Default)]
struct Bus {
    listeners: Listeners,
    /// Number of messages to all nodes.
    sent_to_all: Mutex<usize>,
}

struct FakeMessenger {
    bus: Arc<Bus>,
    sending: Arc<Mutex<Sending>>,
}

struct FakeMessages(mpsc::UnboundedReceiver<Vec<u8>>);

impl Bus {
    fn deliver(&self, to: Option<&str>, message: &[u8]) {
        for (name, listener) in &*self.listeners.lock() {
            if to.is_none_or(|to| to == name) {
                // It may have ended.
                let _ = listener.send(message.to_vec());
            }
        }
    }
}

impl Messenger for FakeMessenger {
    fn tell<'a>(&'a self, to: Option<&'a str>, message: Vec<u8>) -> SequencerFuture<'a, ()> {
        *self.bus.sent_to_all.lock() += usize::from(to.is_none());
        let sending = *self.sending.lock();
        let (bus, receiver) = (Arc::clone(&self.bus), to.map(str::to_owned));
        match sending {
            Sending::Away => {
                return Box::pin(async { Err(SequencerError::unavailable("no connection")) });
            }
            Sending::Denied => {
                return Box::pin(async { Err(SequencerError::denied("not permitted")) });
            }
            Sending::Lost => {}
            Sending::Works => bus.deliver(to, &message),
            Sending::Twice => {
                bus.deliver(to, &message);
                bus.deliver(to, &message);
            }
            Sending::Late(millis) => {
                tokio::spawn(async move {
                    sleep(Duration::from_millis(millis)).await;
                    bus.deliver(receiver.as_deref(), &message);
                });
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn listen<'a>(&'a self, name: &'a str) -> SequencerFuture<'a, Box<dyn Messages>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.bus.listeners.lock().insert(name.to_owned(), sender);
        Box::pin(async { Ok(Box::new(FakeMessages(receiver)) as Box<dyn Messages>) })
    }
}

impl Messages for FakeMessages {
    fn next(&mut self) -> SequencerFuture<'_, Vec<u8>> {
        Box::pin(async {
            let ended = || SequencerError::unavailable("no further messages");
            self.0.recv().await.ok_or_else(ended)
        })
    }
}

/// The readers of a node: as many of each topic.
#[derive(Default)]
struct FakeReaders {
    readers: Mutex<Readers>,
    absence: Mutex<Option<Duration>>,
    is_viewed: AtomicBool,
    changed: Arc<ChangedTopics>,
    noted: Mutex<Vec<Topic>>,
    /// Number of notes that any topic may have changed.
    any_noted: AtomicUsize,
}

impl OwnReaders for FakeReaders {
    fn count(&self, topics: &[Topic]) -> Vec<Readers> {
        vec![*self.readers.lock(); topics.len()]
    }

    fn absences(&self, topics: &[Topic]) -> Vec<Option<Duration>> {
        vec![*self.absence.lock(); topics.len()]
    }

    fn are_viewed(&self) -> bool {
        self.is_viewed.load(Ordering::Relaxed)
    }

    fn watch_changes(&self) -> TopicWatch {
        self.changed.watch()
    }

    fn note_changes(&self, topics: &[Topic]) {
        self.noted.lock().extend_from_slice(topics);
    }

    fn note_any(&self) {
        self.any_noted.fetch_add(1, Ordering::Relaxed);
    }
}

struct FakeNode {
    peers: Arc<Peers>,
    own: Arc<FakeReaders>,
    sending: Arc<Mutex<Sending>>,
    running: JoinHandle<()>,
}

impl FakeNode {
    /// Joins with some readers of each topic.
    fn join(bus: &Arc<Bus>, exact: usize) -> Self {
        let sending = Arc::new(Mutex::new(Sending::Works));
        let messenger = FakeMessenger { bus: Arc::clone(bus), sending: Arc::clone(&sending) };
        let peers = Arc::new(Peers::new(Box::new(messenger)));
        let own = Arc::new(FakeReaders::default());
        *own.readers.lock() = Readers { exact, by_pattern: 1 };
        let weak = Arc::downgrade(&own);
        peers.answer_for(weak);
        let run = Arc::clone(&peers);
        Self { peers, own, sending, running: tokio::spawn(async move { match run.run().await {} }) }
    }

    fn send(&self, sending: Sending) {
        *self.sending.lock() = sending;
    }

    /// Counts the readers elsewhere of some topics, which must be the same for all. Returns the
    /// number of those that name a topic, and the milliseconds that it took.
    async fn count(&self, topics: usize) -> (usize, u128) {
        let asked = Instant::now();
        let readers = self.peers.readers(&self::topics(topics)).await;
        assert_eq!(readers, vec![readers[0]; topics]);
        (readers[0].exact, asked.elapsed().as_millis())
    }

    /// Returns the seconds since a reader elsewhere has last named a topic, if all have answered.
    async fn absence(&self) -> Option<Option<u64>> {
        let absences = self.peers.absences(&topics(1)).await;
        absences.map(|absences| absences[0].map(|absence| absence.as_secs()))
    }

    /// Returns how often any topic may have changed, since the last call.
    fn any_noted(&self) -> usize {
        self.own.any_noted.swap(0, Ordering::Relaxed)
    }

    fn absent_for(&self, seconds: Option<u64>) {
        *self.own.absence.lock() = seconds.map(Duration::from_secs);
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn topics(count: usize) -> Vec<Topic> {
    (0..count).map(|number| format!("t.{number}").parse().unwrap()).collect()
}

async fn pass(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn answers_are_added_and_waited_for() {
    let bus = Arc::default();
    let a = FakeNode::join(&bus, 100);
    pass(1500).await;
    let sent = *bus.sent_to_all.lock();
    assert_eq!(a.count(1).await, (0, 0), "a node that is alone");
    assert_eq!(*bus.sent_to_all.lock(), sent, "a node that is alone asks nobody");

    let (b, c) = (FakeNode::join(&bus, 1), FakeNode::join(&bus, 20));
    pass(2500).await;
    assert_eq!(a.count(1).await, (21, 0));
    assert_eq!(b.count(3).await, (120, 0));
    let sent = *bus.sent_to_all.lock();
    assert_eq!(a.count(2 * MAX_TOPICS + 1).await, (21, 0));
    assert_eq!(*bus.sent_to_all.lock(), sent + 3, "three messages");

    // One that answers twice counts once, and one that is late in time counts.
    b.send(Sending::Twice);
    c.send(Sending::Late(200));
    assert_eq!(a.count(1).await, (21, 200));
    // One that is too late delays one question.
    c.send(Sending::Late(400));
    assert_eq!(a.count(1).await, (1, 300));
    assert_eq!(a.count(1).await, (1, 0));
    c.send(Sending::Works);
    pass(1500).await;
    assert_eq!(a.count(1).await, (21, 0));
    // One that says nothing any more, too, and then it is forgotten.
    b.send(Sending::Lost);
    assert_eq!(a.count(1).await, (20, 300));
    assert_eq!(a.count(1).await, (20, 0));
    pass(11_000).await;
    assert_eq!(a.count(1).await, (20, 0));
    assert_eq!(a.peers.rounds.lock().members(Instant::now()).count(), 2);
    // A node that does not hear itself asks nobody.
    assert_eq!(b.count(1).await, (0, 0));
    a.send(Sending::Away);
    assert_eq!(a.count(1).await, (0, 0));
    a.send(Sending::Works);
    b.send(Sending::Works);
    pass(1500).await;
    assert_eq!(a.count(1).await, (21, 0));
}

#[tokio::test(start_paused = true)]
async fn only_all_nodes_together_know_that_nobody_reads() {
    let bus = Arc::default();
    let a = FakeNode::join(&bus, 0);
    assert_eq!(a.absence().await, None, "it may not know the others yet");
    pass(3500).await;
    assert_eq!(a.absence().await, Some(None), "it is alone");
    let (b, c) = (FakeNode::join(&bus, 0), FakeNode::join(&bus, 0));
    pass(2500).await;
    assert_eq!(a.absence().await, Some(None));
    b.absent_for(Some(7));
    assert_eq!(a.absence().await, Some(Some(7)));
    c.absent_for(Some(0));
    assert_eq!(a.absence().await, Some(Some(0)));
    c.absent_for(None);
    assert_eq!(a.absence().await, Some(Some(7)));

    c.send(Sending::Late(200));
    b.send(Sending::Twice);
    assert_eq!(a.absence().await, Some(Some(7)));
    c.send(Sending::Lost);
    for _ in 0..2 {
        assert_eq!(a.absence().await, None, "one does not answer");
    }
    pass(10_000).await;
    assert_eq!(a.absence().await, Some(Some(7)), "it was forgotten");

    for sending in [Sending::Away, Sending::Lost] {
        a.send(sending);
        assert_eq!(a.absence().await, None, "{sending:?}");
        pass(20_000).await;
        assert_eq!(a.absence().await, None, "{sending:?}");
        a.send(Sending::Works);
        pass(1500).await;
        assert_eq!(a.absence().await, None, "it may not know the others yet");
        pass(3500).await;
        assert_eq!(a.absence().await, Some(Some(7)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_must_not_ask_counts_itself() {
    let bus = Arc::default();
    let (a, b) = (FakeNode::join(&bus, 1), FakeNode::join(&bus, 2));
    pass(5000).await;
    b.absent_for(Some(0));
    a.send(Sending::Denied);
    pass(1500).await;
    assert_eq!(a.count(1).await, (0, 0));
    assert_eq!(a.absence().await, Some(None));
    pass(11_000).await;
    assert_eq!(b.count(1).await, (0, 0), "nobody waits for it");
    a.send(Sending::Works);
    pass(60_000).await;
    assert_eq!((a.count(1).await, b.count(1).await), ((2, 0), (1, 0)));
    assert_eq!(a.absence().await, Some(Some(0)));
}

#[tokio::test(start_paused = true)]
async fn views_learn_which_readers_change_elsewhere() {
    let bus = Arc::default();
    let [a, b, c] = [(); 3].map(|()| FakeNode::join(&bus, 0));
    pass(5000).await;
    let [old, last, new, viewed] = [0, 1, 2, 3].map(|number| topics(4)[number].clone());
    b.own.changed.note([&old]);
    pass(3000).await;
    assert_eq!(*a.own.noted.lock(), []);
    // The change comes before the others know of the view.
    a.own.is_viewed.store(true, Ordering::Relaxed);
    b.own.changed.note([&last]);
    pass(2500).await;
    assert_eq!(*a.own.noted.lock(), std::slice::from_ref(&last));
    b.own.changed.note([&new]);
    a.own.changed.note([&viewed]);
    pass(1500).await;
    assert_eq!(*a.own.noted.lock(), [last, new]);
    assert_eq!(*b.own.noted.lock(), [], "nobody else has a view");
    drop(c);
    a.own.is_viewed.store(false, Ordering::Relaxed);
    pass(1500).await;
    b.own.changed.note([&old]);
    pass(3000).await;
    assert_eq!(a.own.noted.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_question_has_all_of_its_time_once_it_is_its_turn() {
    let bus = Arc::default();
    let [a, b, c] = [0, 1, 20].map(|readers| FakeNode::join(&bus, readers));
    pass(5500).await;
    c.send(Sending::Late(200));
    let turns = a.peers.asking.acquire_many(u32::try_from(MAX_QUESTIONS).unwrap()).await.unwrap();
    let wait = async {
        pass(250).await;
        drop(turns);
    };
    let (count, ()) = tokio::join!(a.count(1), wait);
    assert_eq!(count, (21, 450));
    // All of several messages about absences have it. Those of a count begin in the first 300 ms.
    b.absent_for(Some(7));
    let three = topics(2 * MAX_TOPICS + 1);
    let absences = a.peers.absences(&three).await;
    assert_eq!(absences, Some(vec![Some(Duration::from_secs(7)); three.len()]));
    pass(20_000).await;
    a.any_noted();
    let asked = Instant::now();
    let readers = a.peers.readers(&three).await;
    assert_eq!(asked.elapsed().as_millis(), 400);
    let exact = |number: usize| readers[number].exact;
    assert_eq!([0, 1999, 2000].map(exact), [21, 21, 0]);
    pass(1000).await;
    assert_eq!(a.any_noted(), 1, "the last number is wrong");
    assert_eq!(a.count(1).await, (21, 200), "nobody is silent");
}

#[tokio::test(start_paused = true)]
async fn views_start_again_if_readers_may_be_missing() {
    let bus = Arc::default();
    let a = FakeNode::join(&bus, 0);
    pass(1500).await;
    assert_eq!(a.any_noted(), 1, "it has joined");
    pass(20_000).await;
    assert_eq!(a.any_noted(), 0);
    let (b, c) = (FakeNode::join(&bus, 1), FakeNode::join(&bus, 20));
    pass(2500).await;
    assert_eq!(a.any_noted(), 1, "two have joined at once");
    pass(10_000).await;

    // One that answers too late is heard again, each second.
    c.send(Sending::Late(400));
    for _ in 0..30 {
        a.count(1).await;
        pass(1000).await;
    }
    assert!([3, 4].contains(&a.any_noted()), "at most once in 10 s");
    c.send(Sending::Works);
    pass(20_000).await;
    a.any_noted();
    pass(20_000).await;
    assert_eq!(a.any_noted(), 0, "nothing is amiss");

    drop(b);
    pass(9000).await;
    assert_eq!(a.any_noted(), 0, "it may come again");
    pass(3000).await;
    assert_eq!(a.any_noted(), 1, "it has gone");

    pass(20_000).await;
    c.any_noted();
    // While one is away for a moment, its messages are lost, and those of others to it.
    c.send(Sending::Away);
    pass(5000).await;
    c.send(Sending::Works);
    pass(2500).await;
    assert_eq!([a.any_noted(), c.any_noted()], [1, 1]);
    pass(20_000).await;
    // One that can send nothing at the moment of a count knows that readers are missing.
    a.send(Sending::Away);
    assert_eq!(a.count(1).await, (0, 0));
    a.send(Sending::Works);
    pass(1500).await;
    assert_eq!(a.any_noted(), 1);
}

#[tokio::test(start_paused = true)]
async fn too_many_changes_are_told_as_any() {
    let bus = Arc::default();
    let [a, b] = [(); 2].map(|()| FakeNode::join(&bus, 0));
    pass(20_000).await;
    a.any_noted();
    b.any_noted();
    a.own.is_viewed.store(true, Ordering::Relaxed);
    pass(2500).await;
    b.own.changed.note_any();
    pass(2500).await;
    assert_eq!([a.any_noted(), b.any_noted()], [1, 0]);
    assert_eq!(*a.own.noted.lock(), []);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_to_a_view_that_is_heard_late() {
    let bus = Arc::default();
    let a = FakeNode::join(&bus, 0);
    pass(300).await;
    let b = FakeNode::join(&bus, 0);
    a.send(Sending::Late(500));
    pass(5000).await;
    // The view begins, and a reader comes right after its count. The node says a second later
    // that it has a view; this comes after another interval of the other node.
    let change = topics(1);
    a.own.is_viewed.store(true, Ordering::Relaxed);
    b.own.changed.note(&change);
    pass(3000).await;
    assert_eq!(*a.own.noted.lock(), change);
}

#[tokio::test(start_paused = true)]
async fn messages_of_other_versions_are_ignored() {
    let bus: Arc<Bus> = Arc::default();
    let (a, _b) = (FakeNode::join(&bus, 0), FakeNode::join(&bus, 5));
    pass(2500).await;
    let other = PeerMessage::new(Epoch::new(1), PeerContent::Here { views: true }).encode();
    let other = String::from_utf8(other).unwrap().replace("\"v\":1", "\"v\":2");
    for message in [other.as_str(), "", "{}", "\u{0}"] {
        bus.deliver(None, message.as_bytes());
    }
    pass(10).await;
    assert_eq!(a.count(1).await, (5, 0));
}

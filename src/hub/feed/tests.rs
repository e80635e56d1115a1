//! Tests of feeds: subscribers that rest now and then receive what others receive.

use std::task::Waker;

use proptest::{collection::vec, prelude::*};

use super::{super::Hub, *};
use crate::{
    event::{Draft, Topic},
    event_log::{MemoryLog, Retention},
    id::{Cursor, Epoch},
    timestamp::Timestamp,
};

const READERS: usize = 4;
const TOPICS: [&str; 6] = ["a", "b.w", "b.x", "b.y", "b.z", "other"];

fn hub(retention: Retention) -> Hub {
    Hub::new(MemoryLog::new(Epoch::new(1), retention), || Timestamp::from_millis(0))
}

fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

fn subscribe(hub: &Hub, text: &str) -> Subscriber {
    let patterns = Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap();
    hub.subscribe(patterns, Cursor::Now)
}

fn poll(feed: &mut Feed) -> Poll<Option<FeedDelivery>> {
    feed.poll_next(&mut Context::from_waker(Waker::noop()))
}

/// Returns `3` for an event, `end 4` for the end of a topic, `last 5` for that of the last one, and
/// `gap`.
fn texts(delivery: &Delivery) -> Vec<String> {
    match delivery {
        Delivery::Events(batch) => {
            batch.iter().map(|frame| frame.event().id.sequence.to_string()).collect()
        }
        Delivery::End { id, end } if end.last => vec![format!("last {}", id.sequence)],
        Delivery::End { id, .. } => vec![format!("end {}", id.sequence)],
        Delivery::Gap(_) => vec!["gap".to_owned()],
    }
}

async fn read(subscriber: &mut Subscriber) -> Vec<String> {
    let mut read = Vec::new();
    while let Some(delivery) = subscriber.try_next().await.unwrap() {
        read.extend(texts(&delivery));
    }
    read
}

enum Reader {
    Active(Box<Subscriber>),
    Resting(RestingSubscriber),
}

/// Readers of the same topics, and what each of them has received.
struct Group {
    readers: [Option<Reader>; READERS],
    received: [Vec<String>; READERS],
    feed: Option<Feed>,
}

impl Group {
    fn new(hub: &Hub, topics: &str) -> Self {
        let active = |_| Some(Reader::Active(Box::new(subscribe(hub, topics))));
        let readers = std::array::from_fn(active);
        Self { readers, received: Default::default(), feed: None }
    }

    /// Lets a reader read on by itself.
    async fn read(&mut self, number: usize) {
        if let Some(Reader::Active(subscriber)) = &mut self.readers[number] {
            self.received[number].extend(read(subscriber).await);
        }
    }

    /// Lets a reader rest, which may have more to read. Returns `false` if it cannot.
    fn rest(&mut self, number: usize) -> bool {
        let has_members =
            self.readers.iter().flatten().any(|reader| matches!(reader, Reader::Resting(_)));
        let Some(Reader::Active(subscriber)) = &mut self.readers[number] else { return false };
        let resting = match &self.feed {
            Some(feed) if has_members => feed.rest(subscriber),
            _ => Feed::start(subscriber).map(|(feed, resting)| {
                self.feed = Some(feed);
                resting
            }),
        };
        let Some(resting) = resting else { return false };
        self.readers[number] = Some(Reader::Resting(resting));
        true
    }

    fn resume(
        &mut self,
        number: usize,
        resume: impl FnOnce(&Feed, RestingSubscriber) -> Subscriber,
    ) {
        self.readers[number] = match (self.readers[number].take(), &self.feed) {
            (Some(Reader::Resting(resting)), Some(feed)) => {
                Some(Reader::Active(Box::new(resume(feed, resting))))
            }
            (reader, _) => reader,
        };
    }

    /// Sends what the feed has to the readers that rest. Returns `false` if there is nothing. One
    /// reader does not take it, and another one reads on by itself after it.
    fn send(&mut self, blocked: usize, leaving: usize) -> bool {
        let Some(feed) = &mut self.feed else { return false };
        let Poll::Ready(delivery) = poll(feed) else { return false };
        let Some(delivery) = delivery else {
            (0..READERS).for_each(|number| self.resume(number, Feed::resume));
            self.feed = None;
            return true;
        };
        let sequences = delivery.sequences();
        let delivery = match delivery {
            FeedDelivery::Events(batch) => Delivery::Events(batch),
            FeedDelivery::End { id, end } => Delivery::End { id, end },
        };
        for number in 0..READERS {
            let Some(Reader::Resting(resting)) = &self.readers[number] else { continue };
            let position = resting.position();
            if position >= *sequences.end() {
                continue;
            }
            if position >= *sequences.start() || number == blocked {
                self.resume(number, Feed::resume_before_last);
                continue;
            }
            self.received[number].extend(texts(&delivery));
            if number == leaving {
                self.resume(number, Feed::resume);
            }
        }
        true
    }

    /// Lets all readers read on by themselves to the end. Returns what each has received.
    async fn finish(mut self) -> [Vec<String>; READERS] {
        for number in 0..READERS {
            self.resume(number, Feed::resume);
            self.read(number).await;
        }
        self.received
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<usize>),
    End(usize),
    Read(usize),
    Rest(usize),
    Send { blocked: usize, leaving: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let reader = || 0..READERS;
    prop_oneof![
        3 => vec(0..TOPICS.len(), 1..4).prop_map(Step::Publish),
        1 => (1..TOPICS.len()).prop_map(Step::End),
        3 => reader().prop_map(Step::Read),
        3 => reader().prop_map(Step::Rest),
        3 => (0..3 * READERS, 0..3 * READERS)
            .prop_map(|(blocked, leaving)| Step::Send { blocked, leaving }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn readers_that_rest_receive_what_others_receive(steps in vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let hub = hub(Retention::default());
            let mut other = subscribe(&hub, "a b.>");
            let mut group = Group::new(&hub, "a b.>");
            for step in steps {
                match step {
                    Step::Publish(topics) => {
                        // They may arrive together, in one batch.
                        let draft = |&number: &usize| Draft::new(topic(TOPICS[number]), "x");
                        let drafts = topics.iter().map(draft).collect();
                        for publishing in hub.enqueue_all(drafts, None).await.unwrap() {
                            // Fails if the topic has ended.
                            let _ = publishing.await;
                        }
                    }
                    Step::End(number) => {
                        // Fails if it has ended.
                        let end = TopicEnd::done(topic(TOPICS[number])).draft();
                        let _ = hub.publish(end).await;
                    }
                    Step::Read(number) => group.read(number).await,
                    Step::Rest(number) => {
                        group.rest(number);
                    }
                    Step::Send { blocked, leaving } => {
                        group.send(blocked, leaving);
                    }
                }
            }
            let expected = read(&mut other).await;
            for received in group.finish().await {
                assert_eq!(received, expected);
            }
        });
    }
}

#[tokio::test]
async fn a_reader_that_is_behind_its_feed_cannot_rest() {
    let hub = hub(Retention::default());
    let mut group = Group::new(&hub, "a");
    assert!(group.rest(0));
    hub.publish(Draft::new(topic("a"), "x")).await.unwrap();
    assert!(group.send(READERS, READERS));
    assert!(!group.rest(1), "it has yet to read the event");
    group.read(1).await;
    assert!(group.rest(1));
}

#[tokio::test]
async fn readers_announce_a_gap_by_themselves() {
    let hub = hub(Retention::default());
    let mut group = Group::new(&hub, "a");
    assert!(group.rest(0) && group.rest(1));
    for _ in 0..2 {
        hub.publish(Draft::new(topic("a"), "x")).await.unwrap();
    }
    hub.delete(topic("a")).await.unwrap();
    hub.publish(Draft::new(topic("a"), "x")).await.unwrap();
    assert!(group.send(READERS, READERS));
    assert!(group.feed.is_none());
    assert_eq!(group.finish().await, [["gap", "3"]; READERS]);
}

#[tokio::test]
async fn readers_tell_the_end_of_their_last_topic_by_themselves() {
    let hub = hub(Retention::default());
    let mut group = Group::new(&hub, "a other");
    assert!(group.rest(0) && group.rest(1));
    for name in ["a", "other"] {
        hub.publish(TopicEnd::done(topic(name)).draft()).await.unwrap();
    }
    assert!(group.send(READERS, READERS));
    assert!(group.feed.is_some());
    assert!(group.send(READERS, READERS));
    assert!(group.feed.is_none());
    assert_eq!(group.finish().await, [["end 1", "last 2"]; READERS]);
}

#[tokio::test]
async fn a_reader_that_has_more_than_its_position_cannot_rest() {
    let hub = hub(Retention::default());
    hub.publish(TopicEnd::done(topic("a")).draft()).await.unwrap();
    let mut with_end = subscribe(&hub, "a other");
    assert!(!with_end.can_rest() && Feed::start(&mut with_end).is_none());
    assert_eq!(read(&mut with_end).await, ["end 1"]);
    assert!(with_end.can_rest());
    assert!(!subscribe(&hub, "other").conflated().can_rest());
}

#[tokio::test]
async fn readers_that_rest_count_until_they_leave() {
    let hub = hub(Retention::default());
    let readers = async || hub.readers(&[topic("a")]).await[0].exact;
    let mut group = Group::new(&hub, "a");
    assert!(group.rest(0) && group.rest(1));
    assert_eq!(readers().await, READERS);
    group.readers[0] = None;
    group.resume(1, Feed::resume);
    assert_eq!(readers().await, READERS - 1);
    group.readers = [const { None }; READERS];
    assert_eq!(readers().await, 0, "the feed does not count");
}

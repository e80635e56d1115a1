//! The rule by which a reader's events leave together, in fewer writes. The hub keeps the events in
//! the meantime, so those that wait need no memory, and a publish wakes nobody for them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};
use waterclock::{
    event_log::EventLogError,
    hub::{Delivery, Subscriber},
};

/// Number of events, of all topics, after which none waits any longer. Those of the stream are
/// looked for among them, which takes time, and the hub has a limited number of them in memory.
const MAX_WAITING: u64 = 1024;
/// Time between two looks at that number.
const LOOK: Duration = Duration::from_millis(100);
/// Time after a wait in which its events leave before a heartbeat would.
const HEARTBEAT_MARGIN: Duration = Duration::from_millis(5);

/// The rule for one stream, or for a group of streams. The first event that arrives starts a
/// timer. When it fires, all events that are available leave.
pub(crate) struct Gathering {
    max_delay: Duration,
    /// The sequence number of the newest event of the subscriber's topics.
    newest: Arc<AtomicU64>,
    timer: Pin<Box<Sleep>>,
    phase: GatheringPhase,
}

enum GatheringPhase {
    /// Everything up to the sequence number `up_to` leaves at once. That has begun at `since`.
    Sending { up_to: u64, since: Instant },
    /// There is nothing to send. Events that are available already have arrived after `since`.
    Idle { since: Option<Instant> },
    /// Events are available, and wait until this time for others.
    Waiting { until: Instant },
}

impl Gathering {
    /// Creates the rule for a new stream. All events that are available by now leave at once.
    pub(crate) fn new(max_delay: Duration, subscriber: &Subscriber) -> Self {
        let (newest, now) = (subscriber.newest(), Instant::now());
        let up_to = newest.load(Ordering::Acquire);
        let mut phase = GatheringPhase::Sending { up_to, since: now };
        phase.sent(subscriber);
        Self { max_delay, newest, timer: Box::pin(tokio::time::sleep_until(now)), phase }
    }

    /// The longest time that an event may wait.
    pub(crate) fn max_delay(&self) -> Duration {
        self.max_delay
    }

    /// Polls for what the subscriber delivers next. If `left` events are the last ones of the
    /// stream, they wait for no others.
    pub(crate) fn poll_next(
        &mut self,
        subscriber: &mut Subscriber,
        left: Option<u64>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Delivery, EventLogError>> {
        let enough = left.unwrap_or(MAX_WAITING).min(MAX_WAITING);
        loop {
            match self.phase {
                GatheringPhase::Sending { .. } => {
                    let Some(delivery) = ready!(subscriber.poll_try_next(context))? else {
                        self.phase = GatheringPhase::Idle { since: None };
                        continue;
                    };
                    self.phase.sent(subscriber);
                    return Poll::Ready(Ok(delivery));
                }
                GatheringPhase::Idle { since } if subscriber.unread() > 0 => {
                    let until = since.unwrap_or_else(Instant::now) + self.max_delay;
                    self.phase = GatheringPhase::Waiting { until };
                }
                GatheringPhase::Idle { .. } => {
                    self.phase = GatheringPhase::Idle { since: None };
                    // The subscriber passes the events of other topics.
                    if let Some(delivery) = ready!(subscriber.poll_try_next(context))? {
                        return Poll::Ready(Ok(delivery));
                    }
                    ready!(subscriber.poll_changed(context));
                }
                GatheringPhase::Waiting { until } => {
                    let now = Instant::now();
                    if now >= until || subscriber.unread() >= enough {
                        let up_to = self.newest.load(Ordering::Acquire);
                        self.phase = GatheringPhase::Sending { up_to, since: now };
                        continue;
                    }
                    self.timer.as_mut().reset(until.min(now + LOOK));
                    ready!(self.timer.as_mut().poll(context));
                }
            }
        }
    }
}

/// Returns the time at which a heartbeat is due, unless something else is sent before. The last
/// part was sent at `sent`. Events that wait are a sign of life soon enough.
pub(crate) fn next_heartbeat(
    gathering: Option<&Gathering>,
    sent: Instant,
    interval: Duration,
) -> Instant {
    let due = sent + interval;
    match gathering.map(|gathering| &gathering.phase) {
        Some(GatheringPhase::Waiting { until }) => due.max(*until + HEARTBEAT_MARGIN),
        _ => due,
    }
}

/// Waits until a subscriber has events, and for those that follow within `max_delay`, but not for
/// more than `most` events.
pub(crate) async fn gathered(subscriber: &mut Subscriber, max_delay: Duration, most: usize) {
    subscriber.changed().await;
    let most = u64::try_from(most).unwrap_or(u64::MAX).min(MAX_WAITING);
    let until = Instant::now() + max_delay;
    while Instant::now() < until && subscriber.unread() < most {
        tokio::time::sleep_until(until.min(Instant::now() + LOOK)).await;
    }
}

impl GatheringPhase {
    /// Stops sending after the last event that was to leave at once. Later ones wait, however fast
    /// they come.
    fn sent(&mut self, subscriber: &Subscriber) {
        if let Self::Sending { up_to, since } = *self
            && subscriber.is_settled()
            && subscriber.cursor().sequence >= up_to
        {
            *self = Self::Idle { since: Some(since) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::AtomicUsize,
        task::{Wake, Waker},
    };

    use waterclock::{
        event::Draft,
        hub::Hub,
        id::Cursor,
        notice::{GapReason, TopicEnd},
        pattern::Patterns,
    };

    use super::*;

    const DELAY: Duration = Duration::from_millis(20);

    /// A reader that gathers, and the time of its start.
    struct Reader {
        subscriber: Subscriber,
        gathering: Gathering,
        left: Option<u64>,
        start: Instant,
    }

    impl Reader {
        fn new(hub: &Hub, topics: &[&str], cursor: Cursor) -> Self {
            let topics = Patterns::new(topics.iter().map(|topic| topic.parse().unwrap())).unwrap();
            Self::of(hub.subscribe(topics, cursor), DELAY)
        }

        fn of(subscriber: Subscriber, max_delay: Duration) -> Self {
            let gathering = Gathering::new(max_delay, &subscriber);
            Self { subscriber, gathering, left: None, start: Instant::now() }
        }

        /// Starts a reader of the topic `t`, which waits for its first event.
        fn waiting(hub: &Hub) -> Self {
            let mut reader = Self::new(hub, &["t"], Cursor::Now);
            assert!(reader.is_pending(Waker::noop()));
            reader
        }

        async fn next(&mut self) -> Delivery {
            let Self { subscriber, gathering, left, .. } = self;
            poll_fn(|context| gathering.poll_next(subscriber, *left, context)).await.unwrap()
        }

        /// Returns the number of events of the next delivery, and its time in milliseconds.
        async fn events(&mut self) -> (usize, u128) {
            match self.next().await {
                Delivery::Events(batch) => (batch.len(), self.start.elapsed().as_millis()),
                other => panic!("{other:?}"),
            }
        }

        fn is_pending(&mut self, task: &Waker) -> bool {
            let Self { subscriber, gathering, left, .. } = self;
            gathering.poll_next(subscriber, *left, &mut Context::from_waker(task)).is_pending()
        }
    }

    async fn publish(hub: &Hub, topic: &str, count: usize) {
        for _ in 0..count {
            hub.publish(Draft::new(topic.parse().unwrap(), "x")).await.unwrap();
        }
    }

    async fn end(hub: &Hub, topic: &str) {
        hub.publish(TopicEnd::done(topic.parse().unwrap()).draft()).await.unwrap();
    }

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_leave_together_when_the_first_has_waited() {
        let hub = Hub::in_memory();
        let mut reader = Reader::waiting(&hub);
        let start = reader.start;
        let publishing = async {
            for millis in [0, 5, 19, 26, 27, 100] {
                tokio::time::sleep_until(start + Duration::from_millis(millis)).await;
                publish(&hub, "t", 2).await;
            }
        };
        let reading =
            async { [reader.events().await, reader.events().await, reader.events().await] };
        let ((), received) = tokio::join!(publishing, reading);
        assert_eq!(received, [(6, 20), (4, 46), (2, 120)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_follows_the_start_at_once_waits() {
        let hub = Hub::in_memory();
        let mut reader = Reader::new(&hub, &["t"], Cursor::Now);
        publish(&hub, "t", 3).await;
        assert_eq!(reader.events().await, (3, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_behind_waits_only_for_later_events() {
        let hub = Hub::in_memory();
        publish(&hub, "t", 1200).await;
        let mut reader = Reader::new(&hub, &["t"], Cursor::Earliest);
        let (mut batches, mut total) = (0, 0);
        while total < 1200 {
            let (count, at) = reader.events().await;
            assert_eq!(at, 0);
            (batches, total) = (batches + 1, total + count);
        }
        assert_eq!(batches, 3);
        assert!(reader.is_pending(Waker::noop()));
        publish(&hub, "t", 1).await;
        assert_eq!(reader.events().await, (1, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_arrive_while_others_are_sent_wait_no_longer_than_the_delay() {
        let hub = Hub::in_memory();
        let mut reader = Reader::waiting(&hub);
        publish(&hub, "t", 600).await;
        let (first, at) = reader.events().await;
        assert!(first < 600 && at == 20, "more than a batch: {first} {at}");
        assert_eq!(reader.events().await, (600 - first, 20));
        publish(&hub, "t", 1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        publish(&hub, "t", 600).await;
        assert_eq!(reader.events().await, (first, 40));
        // A client that reads slowly delays them enough.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(reader.events().await, (601 - first, 90));
        publish(&hub, "t", 1).await;
        assert_eq!(reader.events().await, (1, 90));
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_wait_wake_the_task_only_once() {
        let hub = Hub::in_memory();
        let count = Arc::new(WakeCount::default());
        let (task, mut reader) = (Waker::from(Arc::clone(&count)), Reader::waiting(&hub));
        let wakes = || count.0.load(Ordering::Relaxed);
        assert!(reader.is_pending(&task));
        for (round, expected) in [(1, [1, 1, 2]), (2, [3, 3, 4])] {
            publish(&hub, "t", 1).await;
            assert_eq!(wakes(), expected[0], "by the first event");
            assert!(reader.is_pending(&task));
            publish(&hub, "t", 9).await;
            assert_eq!(wakes(), expected[1], "by further events");
            tokio::time::sleep(DELAY).await;
            assert_eq!(wakes(), expected[2], "by the timer");
            assert_eq!(reader.events().await, (10, round * DELAY.as_millis()));
            assert!(reader.is_pending(&task));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_events_of_a_stream_wait_for_no_others() {
        let hub = Hub::in_memory();
        let mut reader = Reader { left: Some(3), ..Reader::waiting(&hub) };
        publish(&hub, "t", 3).await;
        assert_eq!(reader.events().await, (3, 0));
        assert!(reader.is_pending(Waker::noop()));
        publish(&hub, "t", 2).await;
        assert_eq!(reader.events().await, (2, 20), "one is missing");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_events_of_a_stream_leave_soon_after_the_last_of_them() {
        let hub = Hub::in_memory();
        let topics = Patterns::new(["t".parse().unwrap()]).unwrap();
        let reader = Reader::of(hub.subscribe(topics, Cursor::Now), Duration::from_secs(1));
        let mut reader = Reader { left: Some(2), ..reader };
        assert!(reader.is_pending(Waker::noop()));
        publish(&hub, "t", 1).await;
        let reading = tokio::spawn(async move { reader.events().await });
        tokio::time::sleep(Duration::from_millis(150)).await;
        publish(&hub, "t", 1).await;
        assert_eq!(reading.await.unwrap(), (2, 200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_waits_for_no_more_events_than_it_takes() {
        for (most, expected) in [(2, 200), (3, 1000)] {
            let hub = Hub::in_memory();
            let topics = Patterns::new(["t".parse().unwrap()]).unwrap();
            let mut subscriber = hub.subscribe(topics, Cursor::Now);
            publish(&hub, "t", 1).await;
            let start = Instant::now();
            let waiting = tokio::spawn(async move {
                gathered(&mut subscriber, Duration::from_secs(1), most).await;
                start.elapsed().as_millis()
            });
            tokio::time::sleep(Duration::from_millis(150)).await;
            publish(&hub, "t", 1).await;
            assert_eq!(waiting.await.unwrap(), expected, "{most}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_leave_before_the_hub_forgets_them() {
        let hub = Hub::in_memory();
        let topics = Patterns::new(["t".parse().unwrap()]).unwrap();
        let mut reader = Reader::of(hub.subscribe(topics, Cursor::Now), Duration::from_secs(1));
        assert!(reader.is_pending(Waker::noop()));
        publish(&hub, "t", 1).await;
        let reading = tokio::spawn(async move { reader.events().await });
        tokio::time::sleep(Duration::from_millis(150)).await;
        publish(&hub, "other", 1100).await;
        assert_eq!(reading.await.unwrap(), (1, 200));
    }

    #[tokio::test(start_paused = true)]
    async fn gaps_and_ends_keep_their_order() {
        let hub = Hub::in_memory();
        end(&hub, "u").await;
        let malformed = Cursor::parse(Some("x"));
        let mut reader = Reader::new(&hub, &["t", "u"], malformed);
        let Delivery::Gap(gap) = reader.next().await else { panic!("no gap") };
        assert_eq!(gap.reason, GapReason::Malformed);
        assert!(matches!(reader.next().await, Delivery::End { .. }));
        assert_eq!(reader.start.elapsed(), Duration::ZERO);
        assert!(reader.is_pending(Waker::noop()));
        publish(&hub, "t", 2).await;
        end(&hub, "t").await;
        assert_eq!(reader.events().await, (2, 20));
        let Delivery::End { end, .. } = reader.next().await else { panic!("no end") };
        assert!(end.last);
        assert_eq!(reader.start.elapsed(), DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_conflates_gets_the_newest_of_those_that_waited() {
        let hub = Hub::in_memory();
        let topics = Patterns::new(["*".parse().unwrap()]).unwrap();
        let mut reader = Reader::of(hub.subscribe(topics, Cursor::Now).conflated(), DELAY);
        assert!(reader.is_pending(Waker::noop()));
        publish(&hub, "t", 500).await;
        publish(&hub, "u", 500).await;
        assert_eq!(reader.events().await, (2, 20));
        assert_eq!(reader.subscriber.skipped(), Some(998));
        assert!(reader.is_pending(Waker::noop()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_a_quiet_topic_passes_the_events_of_others() {
        let hub = Hub::in_memory();
        let mut reader = Reader::waiting(&hub);
        publish(&hub, "other", 3).await;
        assert!(reader.is_pending(Waker::noop()));
        assert_eq!(reader.subscriber.cursor().sequence, 3);
    }
}

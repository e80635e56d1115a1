//! The live view of topics: a stream that begins with their figures, and then sends at most once a
//! second what has changed. It is not part of the event log, so it has no ids: each connection
//! starts again.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, http::request::Parts, response::Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;
use waterclock::{
    event::Topic,
    event_log::TopicWatch,
    hub::{Format, Hub, TopicFilter},
    notice::{GoodbyeReason, Heartbeat},
    sse::Block,
};

use super::figures::{Snapshot, TopicsError, read};
use crate::{
    deadline::Deadline,
    metrics::EndReason,
    policy::{Policy, client_of},
    session::{Encoder as _, Signal, StreamRecord, goodbye, hello, next_signal, refuse},
    sse::{self, SseEncoder},
    state::StreamContext,
};

/// Minimum time between two looks at the topics that have changed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of topics in one message.
const TOPICS_PER_MESSAGE: usize = 100;
/// Maximum number of changed topics that a view takes before other tasks get a turn.
const TOPICS_PER_TURN: usize = 1000;
/// The encoder of a view's notices. A view has no events of the log.
const ENCODER: SseEncoder = SseEncoder(Format::Plain);

/// The topics of a view.
pub(super) enum ViewedTopics {
    /// One topic, with or without events.
    One(Topic),
    /// Those that pass a filter and have events, or get some, or readers.
    Filtered(TopicFilter),
}

/// Opens a view, and answers with its stream.
pub(super) fn open(
    context: &Arc<StreamContext>,
    policy: &dyn Policy,
    head: &Parts,
    topics: ViewedTopics,
    expires: Option<Deadline>,
) -> Response {
    let refuse = |reason| sse::response(Body::from(refuse(context, &ENCODER, reason)));
    if context.stop.has_begun() {
        return refuse(GoodbyeReason::Draining);
    }
    let client = policy.client_address(head).map(client_of);
    let Ok(open) = context.streams.open(client) else { return refuse(GoodbyeReason::Limit) };
    context.metrics.stream_opened(0);
    let patterns = match &topics {
        ViewedTopics::One(topic) => Some(topic.clone().into()),
        ViewedTopics::Filtered(filter) => filter.narrowed().cloned(),
    };
    let record = StreamRecord::new(Arc::clone(context), open, patterns);
    record.print_opened(None);
    // Watched before the figures are read, so no change is missed.
    let changes = match &topics {
        ViewedTopics::One(topic) => context.hub.watch_topic(topic.clone()),
        ViewedTopics::Filtered(_) => context.hub.watch_topics(),
    };
    let view = TopicView {
        changes,
        record,
        topics,
        is_looking: false,
        changed: VecDeque::new(),
        next_look: Instant::now(),
        sent: Instant::now(),
        goodbye: None,
        expires,
        phase: ViewPhase::Hello,
    };
    let chunks = stream::unfold(view, |mut view| async {
        let chunk = view.next().await?;
        Some((Ok::<_, Infallible>(chunk), view))
    });
    sse::response(Body::from_stream(chunks))
}

/// One open view.
struct TopicView {
    record: StreamRecord,
    topics: ViewedTopics,
    changes: TopicWatch,
    /// `true` while the view takes the changes of a look.
    is_looking: bool,
    /// The topics that it has taken and that are to be sent, with the figures of that moment.
    /// Taking stops as soon as they make a message, since the client may read nothing.
    changed: VecDeque<Arc<Topic>>,
    /// Earliest time of the next look at the changes.
    next_look: Instant,
    /// Time at which the last chunk was made.
    sent: Instant,
    /// Time of the goodbye, once the server shuts down.
    goodbye: Option<Instant>,
    /// Time at which the client's permission ends.
    expires: Option<Deadline>,
    phase: ViewPhase,
}

enum ViewPhase {
    Hello,
    /// The message that makes the client forget the topics that are not sent again.
    Restart,
    /// The figures of all topics after this one.
    All(Option<Topic>),
    Changes,
    Over,
}

impl TopicView {
    /// Makes the next chunk. Returns `None` at the end of the view.
    async fn next(&mut self) -> Option<Bytes> {
        if matches!(self.phase, ViewPhase::Over) {
            return None;
        }
        let chunk = loop {
            let StreamContext { stop, streams, .. } = &*self.record.context;
            if self.goodbye.is_none() && stop.has_begun() {
                self.goodbye = Some(streams.goodbye_at(stop.begun().await));
            }
            if let Some(goodbye) = self.goodbye_that_is_due() {
                break goodbye;
            }
            match self.snapshot().await {
                Ok(Some(chunk)) => break chunk,
                Ok(None) => {}
                // The client reconnects, as after any lost connection.
                Err(_) => {
                    self.record.end_reason = EndReason::LogFailed;
                    return None;
                }
            }
            if matches!(self.phase, ViewPhase::Changes)
                && let Some(chunk) = self.wait().await
            {
                break chunk;
            }
        };
        self.sent = Instant::now();
        self.record.context.metrics.bytes_sent(chunk.len());
        Some(chunk)
    }

    /// Makes the next chunk that needs no waiting. Returns `None` if the phase has none, or none
    /// any more.
    async fn snapshot(&mut self) -> Result<Option<Bytes>, TopicsError> {
        let topics = match &self.phase {
            ViewPhase::Hello => {
                self.phase = ViewPhase::All(None);
                let context = &self.record.context;
                let hello = hello(context, self.record.open.number());
                let retry = Some(context.settings.retry);
                return Ok(Some(ENCODER.notice(&hello, None, retry)));
            }
            ViewPhase::Restart => {
                self.phase = ViewPhase::All(None);
                return message(&self.record.context.hub, &[], false).await.map(Some);
            }
            ViewPhase::All(after) => {
                let topics = match &self.topics {
                    ViewedTopics::One(topic) => vec![topic.clone()],
                    ViewedTopics::Filtered(filter) => {
                        self.record.context.hub.topics(filter, after.as_ref(), TOPICS_PER_MESSAGE)
                    }
                };
                let is_complete = topics.len() < TOPICS_PER_MESSAGE;
                self.phase = match topics.last() {
                    Some(last) if !is_complete => ViewPhase::All(Some(last.clone())),
                    _ => ViewPhase::Changes,
                };
                // The last message is sent even if it is empty, so that its reader knows.
                return message(&self.record.context.hub, &topics, is_complete).await.map(Some);
            }
            ViewPhase::Changes => self.look().await,
            ViewPhase::Over => Vec::new(),
        };
        if topics.is_empty() {
            return Ok(None);
        }
        message(&self.record.context.hub, &topics, true).await.map(Some)
    }

    /// Waits until topics have changed, or for a signal that makes a chunk.
    async fn wait(&mut self) -> Option<Bytes> {
        let context = Arc::clone(&self.record.context);
        let heartbeat = self.sent + context.settings.heartbeat;
        let signal =
            next_signal(context.stop.clone(), self.goodbye, self.expires.clone(), heartbeat);
        let (watch, next_look) = (&mut self.changes, self.next_look);
        let look = async {
            tokio::time::sleep_until(next_look).await;
            watch.changed().await;
        };
        tokio::select! {
            biased;
            signal = signal => match signal {
                // The next look at what is due draws the time of the goodbye, or makes it.
                Signal::Stop(_) | Signal::Goodbye | Signal::Expired => None,
                Signal::Heartbeat => {
                    let heartbeat = Heartbeat { time: context.hub.now(), skipped: None };
                    Some(ENCODER.notice(&heartbeat, None, None))
                }
            },
            () = look => {
                self.next_look = Instant::now() + INTERVAL;
                self.is_looking = true;
                None
            }
        }
    }

    /// Takes the next topics of the view that have changed, none at the end of the look. The view
    /// starts again if it has missed too many.
    async fn look(&mut self) -> Vec<Topic> {
        while self.is_looking && self.changed.len() < TOPICS_PER_MESSAGE {
            let taken = self.changes.take(TOPICS_PER_TURN);
            self.is_looking = taken.as_ref().is_some_and(|topics| !topics.is_empty());
            match taken {
                None => {
                    self.phase = ViewPhase::Restart;
                    self.changed.clear();
                }
                Some(mut topics) => {
                    if let ViewedTopics::Filtered(filter) = &self.topics {
                        filter.apply(&mut topics);
                    }
                    self.changed.extend(topics);
                    tokio::task::yield_now().await;
                }
            }
        }
        let count = self.changed.len().min(TOPICS_PER_MESSAGE);
        self.changed.drain(..count).map(Arc::unwrap_or_clone).collect()
    }

    /// Ends the view if its permission has ended, or if the server says goodbye.
    fn goodbye_that_is_due(&mut self) -> Option<Bytes> {
        let reason = if self.expires.as_ref().is_some_and(Deadline::has_passed) {
            GoodbyeReason::Expired
        } else if self.goodbye.is_some_and(|at| at <= Instant::now()) {
            GoodbyeReason::Draining
        } else {
            return None;
        };
        self.phase = ViewPhase::Over;
        self.record.end_reason = reason.into();
        Some(goodbye(&self.record.context.settings, &ENCODER, reason))
    }
}

/// Makes a message with the figures of topics. It has no name, so that `onmessage` gets it.
async fn message(hub: &Hub, topics: &[Topic], is_complete: bool) -> Result<Bytes, TopicsError> {
    let topics = read(hub, topics).await?;
    let snapshot = Snapshot { topics: &topics, complete: is_complete };
    // Serialization cannot fail: figures consist of strings and numbers.
    let json = serde_json::to_string(&snapshot).unwrap_or_default();
    let mut bytes = Vec::new();
    let encoded = Block { data: Some(&json), ..Block::default() }.encode(&mut bytes);
    debug_assert_eq!(encoded, Ok(()), "it has no id and no name");
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use futures_util::StreamExt as _;
    use waterclock::{
        event::Draft,
        event_log::{MemoryLog, Retention},
        id::{Cursor, Epoch},
        pattern::{Pattern, Patterns},
        timestamp::Timestamp,
    };

    use super::*;
    use crate::policy::Expiry;
    use crate::{
        limits::{Settings, StreamLimits},
        policy::ReadOnly,
        stop::Stop,
        streams::OpenStreams,
    };

    fn context(settings: Settings) -> Arc<StreamContext> {
        let began = Instant::now();
        let now =
            move || Timestamp::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap());
        let log =
            MemoryLog::new(Epoch::new(1), Retention { topics: 30_000, ..Retention::default() });
        Arc::new(StreamContext {
            hub: Arc::new(Hub::new(log, now)),
            settings,
            streams: OpenStreams::new(settings.streams, settings.drain),
            metrics: Arc::default(),
            stop: Stop::default(),
            changes: crate::standing::PolicyChanges::default(),
            started: began,
        })
    }

    async fn publish(context: &StreamContext, topic: &str) {
        context.hub.publish(Draft::new(topic.parse().unwrap(), "x")).await.unwrap();
    }

    /// An open view, as its client sees it.
    struct Client {
        body: axum::body::BodyDataStream,
        began: Instant,
    }

    impl Client {
        fn open(context: &Arc<StreamContext>, topics: ViewedTopics, expires: Expiry) -> Self {
            let (head, ()) = axum::http::Request::new(()).into_parts();
            let expires = expires.map(|time| Deadline::new(&context.hub, time));
            let response = open(context, &ReadOnly, &head, topics, expires);
            let body = response.into_body().into_data_stream();
            Self { body, began: Instant::now() }
        }

        fn all(context: &Arc<StreamContext>) -> Self {
            let all = Patterns::from(Pattern::all());
            Self::open(context, ViewedTopics::Filtered(TopicFilter::new(&all, all.clone())), None)
        }

        /// Returns the next chunk, with the seconds since the view was opened.
        async fn next(&mut self) -> Option<(u64, String)> {
            let chunk = self.body.next().await?.unwrap();
            let text = String::from_utf8(chunk.to_vec()).unwrap();
            Some((self.began.elapsed().as_secs(), text))
        }

        /// Returns the topics of the next message, with their numbers of events and of readers. The
        /// message must be the last one of the beginning, or a later one.
        async fn topics(&mut self) -> (u64, Vec<(String, u64, u64)>) {
            let (seconds, topics, is_complete) = self.snapshot().await;
            assert!(is_complete, "{topics:?}");
            (seconds, topics)
        }

        /// Returns the same, and the message's `complete`.
        async fn snapshot(&mut self) -> (u64, Vec<(String, u64, u64)>, bool) {
            let (seconds, text) = self.next().await.unwrap();
            let json = text.strip_prefix("data: ").expect(&text);
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            let of = |topic: &serde_json::Value| {
                let count = |name: &str| topic[name].as_u64().unwrap();
                let name = topic["topic"].as_str().unwrap().to_owned();
                (name, count("events"), count("readers"))
            };
            let mut topics: Vec<_> = json["topics"].as_array().unwrap().iter().map(of).collect();
            topics.sort_unstable();
            (seconds, topics, json["complete"].as_bool().unwrap())
        }
    }

    fn topics<const N: usize>(expected: [(&str, u64, u64); N]) -> Vec<(String, u64, u64)> {
        expected.map(|(topic, events, readers)| (topic.to_owned(), events, readers)).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_begins_with_all_topics_and_then_has_changes_at_most_once_a_second() {
        let context =
            context(Settings { heartbeat: Duration::from_secs(60), ..Settings::default() });
        for topic in ["a", "b", "b"] {
            publish(&context, topic).await;
        }
        let mut view = Client::all(&context);
        let hello = view.next().await.unwrap().1;
        assert!(hello.contains("event: hello") && !hello.contains("\nid:"), "{hello}");
        assert_eq!(view.topics().await, (0, topics([("a", 1, 0), ("b", 2, 0)])));
        // The first change is sent at once, and further ones together a second later.
        publish(&context, "a").await;
        assert_eq!(view.topics().await, (0, topics([("a", 2, 0)])));
        publish(&context, "b").await;
        publish(&context, "c").await;
        publish(&context, "b").await;
        assert_eq!(view.topics().await, (1, topics([("b", 4, 0), ("c", 1, 0)])));
        tokio::time::sleep(Duration::from_secs(30)).await;
        let reader = context.hub.subscribe("a".parse::<Topic>().unwrap().into(), Cursor::Now);
        assert_eq!(view.topics().await, (31, topics([("a", 2, 1)])));
        drop(reader);
        context.hub.delete("b".parse().unwrap()).await.unwrap();
        assert_eq!(view.topics().await, (32, topics([("a", 2, 0), ("b", 0, 0)])));
        // Nothing changes any more.
        let (seconds, heartbeat) = view.next().await.unwrap();
        assert_eq!(seconds, 92);
        assert!(heartbeat.starts_with("event: heartbeat\n"), "{heartbeat}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_of_one_topic_has_it_before_its_first_event() {
        let context = context(Settings::default());
        let mut view = Client::open(&context, ViewedTopics::One("a".parse().unwrap()), None);
        view.next().await;
        assert_eq!(view.topics().await, (0, topics([("a", 0, 0)])));
        publish(&context, "b").await;
        let _reader = context.hub.subscribe("a".parse::<Topic>().unwrap().into(), Cursor::Now);
        assert_eq!(view.topics().await.1, topics([("a", 0, 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_of_one_topic_sleeps_while_others_change() {
        let context = context(Settings::default());
        let mut view = Client::open(&context, ViewedTopics::One("a".parse().unwrap()), None);
        view.next().await;
        view.topics().await;
        // More of them than a view of all topics may miss.
        for reader in 0..400 {
            let topics = (0..64).map(|topic| format!("{reader}.{topic}").parse().unwrap());
            let topics = Patterns::new(topics).unwrap();
            drop(context.hub.subscribe(topics, Cursor::Now));
        }
        let (seconds, heartbeat) = view.next().await.unwrap();
        assert_eq!(seconds, 15, "{heartbeat}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_that_has_missed_too_many_changes_begins_anew() {
        let context = context(Settings::default());
        let mut view = Client::all(&context);
        view.next().await;
        assert_eq!(view.topics().await, (0, topics([])), "it has no topics yet");
        let early = tokio::time::timeout(Duration::from_millis(1), view.next()).await;
        assert!(early.is_err(), "it says so once: {early:?}");
        for number in 0..21_000 {
            publish(&context, &format!("t.{number:05}")).await;
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut is_complete = false;
        while !is_complete {
            let (_, topics, is_last) = view.snapshot().await;
            assert!(topics.len() <= TOPICS_PER_MESSAGE);
            seen.extend(topics.into_iter().map(|(topic, ..)| topic));
            is_complete = is_last;
        }
        assert_eq!(seen.len(), 21_000, "all of them, before a message says so");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_view_that_starts_again_can_be_told_from_a_change() {
        let context = context(Settings::default());
        let wanted = Patterns::new(["a", "b"].map(|topic| topic.parse().unwrap())).unwrap();
        let filter = TopicFilter::new(&wanted, Patterns::from(Pattern::all()));
        let mut view = Client::open(&context, ViewedTopics::Filtered(filter), None);
        view.next().await;
        assert_eq!(view.topics().await, (0, topics([])));
        for topic in ["a", "b"] {
            publish(&context, topic).await;
        }
        assert_eq!(view.topics().await, (0, topics([("a", 1, 0), ("b", 1, 0)])));
        context.hub.delete("b".parse().unwrap()).await.unwrap();
        for number in 0..21_000 {
            publish(&context, &format!("t.{number:05}")).await;
        }
        let (_, none, is_complete) = view.snapshot().await;
        assert_eq!((none, is_complete), (topics([]), false));
        assert_eq!(view.topics().await.1, topics([("a", 1, 0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_at_many_other_topics_gives_others_their_turn() {
        let context = context(Settings::default());
        let wanted = Patterns::from("a".parse::<Pattern>().unwrap());
        let filter = TopicFilter::new(&wanted, Patterns::from(Pattern::all()));
        let mut view = Client::open(&context, ViewedTopics::Filtered(filter), None);
        view.next().await;
        assert_eq!(view.topics().await, (0, topics([])));
        publish(&context, "a").await;
        for reader in 0..200 {
            let topics = (0..64).map(|topic| format!("{reader}.{topic}").parse().unwrap());
            drop(context.hub.subscribe(Patterns::new(topics).unwrap(), Cursor::Now));
        }
        let (mut next, mut turns) = (Box::pin(view.next()), 0);
        let (_, message) = poll_fn(|context| {
            turns += 1;
            next.as_mut().poll(context)
        })
        .await
        .unwrap();
        assert!(message.contains("\"topic\":\"a\""), "{message}");
        assert!(turns >= 200 * 64 / TOPICS_PER_TURN, "{turns}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_is_a_stream_for_the_limits_and_the_shutdown() {
        let streams = StreamLimits { total: 1, per_address: 1 };
        let context = context(Settings { streams, ..Settings::default() });
        let mut view = Client::all(&context);
        view.next().await;
        view.topics().await;
        assert_eq!(context.streams.count(), 1);
        let refused = Client::all(&context).next().await.unwrap().1;
        assert!(refused.contains("event: goodbye\ndata: {\"reason\":\"limit\""), "{refused}");
        context.stop.begin();
        let goodbye = view.next().await.unwrap().1;
        assert!(goodbye.contains("event: goodbye\ndata: {\"reason\":\"draining\""), "{goodbye}");
        assert_eq!(view.next().await, None);
        drop(view);
        assert_eq!(context.streams.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_ends_with_its_permission() {
        let context = context(Settings::default());
        let expires = Some(Timestamp::from_millis(5000));
        let mut view = Client::open(&context, ViewedTopics::One("a".parse().unwrap()), expires);
        view.next().await;
        view.topics().await;
        let (seconds, goodbye) = view.next().await.unwrap();
        assert_eq!(seconds, 5);
        assert!(goodbye.contains("event: goodbye\ndata: {\"reason\":\"expired\""), "{goodbye}");
    }
}

//! A page of the list of topics. A long one is read and written as its client takes it, so that a
//! slow client occupies little memory, and counts as an open stream meanwhile.

use std::{net::IpAddr, sync::Arc, vec};

use axum::{
    body::Body,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use waterclock::{event::Topic, hub::TopicFilter};

use super::{
    CACHING,
    figures::{TOPICS_AT_ONCE, TopicJson, TopicsError, read},
};
use crate::{state::StreamContext, streams::OpenStream};

/// Number of bytes that are made before the response begins. Most pages are complete by then.
const FIRST_BYTES: usize = 32 * 1024;
/// Number of bytes of a longer page that are handed over at a time.
const CHUNK: usize = 16 * 1024;

/// A page of the list.
pub(super) struct Page {
    context: Arc<StreamContext>,
    filter: TopicFilter,
    /// The last topic that was written; before that, the one that the page begins after.
    after: Option<Topic>,
    /// Number of topics that may still be written.
    left: usize,
    /// Topics that were read and not written yet.
    read: vec::IntoIter<TopicJson>,
    /// JSON that was written and not taken yet.
    text: BytesMut,
    /// Separator before the next topic.
    separator: &'static str,
    is_finished: bool,
    /// The registration of a long page.
    open: Option<OpenStream>,
}

/// The members after the topics.
#[derive(Serialize)]
struct PageTrailer {
    /// The `after` of the next page; `None` on the last one.
    next: Option<Topic>,
}

impl Page {
    const START: &str = "{\"topics\":[";

    /// Creates a page of at most `limit` topics that pass the filter, after the topic `after`.
    pub(super) fn new(
        context: Arc<StreamContext>,
        filter: TopicFilter,
        after: Option<Topic>,
        limit: usize,
    ) -> Self {
        Self {
            context,
            filter,
            after,
            left: limit,
            read: Vec::new().into_iter(),
            text: BytesMut::new(),
            separator: Self::START,
            is_finished: false,
            open: None,
        }
    }

    /// Makes the response. Without room for a stream, or at a stop, a long page ends early, and the
    /// next one has the rest.
    pub(super) async fn respond(mut self, client: Option<IpAddr>) -> Result<Response, TopicsError> {
        self.fill(FIRST_BYTES).await?;
        if !self.is_finished && !self.context.stop.has_begun() {
            self.open = self.context.streams.open(client).ok();
        }
        let body = if self.is_finished || self.open.is_none() {
            self.finish();
            self.text.freeze().into()
        } else {
            Body::from_stream(stream::try_unfold(self, |mut page| async {
                let chunk = page.chunk().await?;
                Ok::<_, TopicsError>((!chunk.is_empty()).then_some((chunk, page)))
            }))
        };
        let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, CACHING)];
        Ok((headers, body).into_response())
    }

    /// Writes topics until there are so many bytes of text, or the page is complete.
    async fn fill(&mut self, bytes: usize) -> Result<(), TopicsError> {
        while self.text.len() < bytes && !self.is_finished {
            // At a stop, the page ends after what was read, if it has any topics.
            let is_cut = self.context.stop.has_begun() && self.separator != Self::START;
            if self.read.as_slice().is_empty() && !is_cut {
                let (hub, limit) = (&self.context.hub, self.left.min(TOPICS_AT_ONCE));
                let topics = hub.topics(&self.filter, self.after.as_ref(), limit);
                self.read = read(hub, &topics).await?.into_iter();
            }
            match self.read.next() {
                Some(topic) => self.write(topic),
                None => self.finish(),
            }
        }
        Ok(())
    }

    fn write(&mut self, topic: TopicJson) {
        self.text.extend_from_slice(std::mem::replace(&mut self.separator, ",").as_bytes());
        self.text.extend_from_slice(to_json(&topic).as_bytes());
        self.left -= 1;
        self.after = Some(topic.topic);
    }

    /// Writes the end of the JSON.
    fn finish(&mut self) {
        if self.is_finished {
            return;
        }
        if self.separator == Self::START {
            self.text.extend_from_slice(Self::START.as_bytes());
        }
        let next = self.after.take();
        let has_next = !self.context.hub.topics(&self.filter, next.as_ref(), 1).is_empty();
        let trailer = to_json(&PageTrailer { next: next.filter(|_| has_next) });
        self.text.extend_from_slice(b"],");
        // Its member belongs to the same object as the topics.
        self.text.extend_from_slice(trailer.trim_start_matches('{').as_bytes());
        self.is_finished = true;
    }

    /// Takes the next chunk, which is empty at the end of the page.
    async fn chunk(&mut self) -> Result<Bytes, TopicsError> {
        self.fill(CHUNK).await?;
        Ok(self.text.split_to(CHUNK.min(self.text.len())).freeze())
    }
}

fn to_json(value: &impl Serialize) -> String {
    // Serialization cannot fail: figures consist of strings and numbers.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use waterclock::{
        event::Draft,
        event_log::{MemoryLog, Retention},
        hub::Hub,
        id::Epoch,
        pattern::{Pattern, Patterns},
        timestamp::Timestamp,
    };

    use super::*;
    use crate::{limits::Settings, stop::Stop, streams::OpenStreams};

    const TOPICS: usize = 300;

    fn topic(number: usize) -> Topic {
        format!("t.{number:03}.{}", "x".repeat(240)).parse().unwrap()
    }

    async fn publish(context: &StreamContext, topic: Topic) {
        context.hub.publish(Draft::new(topic, "x")).await.unwrap();
    }

    /// A server with so many topics that a page of all is long.
    async fn context() -> Arc<StreamContext> {
        let log = MemoryLog::new(Epoch::new(1), Retention::default());
        let settings = Settings::default();
        let context = Arc::new(StreamContext {
            hub: Arc::new(Hub::new(log, || Timestamp::from_millis(0))),
            settings,
            streams: OpenStreams::new(settings.streams, settings.drain),
            metrics: Arc::default(),
            stop: Stop::default(),
            changes: crate::standing::PolicyChanges::default(),
            started: tokio::time::Instant::now(),
        });
        for number in 0..TOPICS {
            publish(&context, topic(number)).await;
        }
        context
    }

    async fn open(context: &Arc<StreamContext>) -> axum::body::BodyDataStream {
        let all = Patterns::from(Pattern::all());
        let filter = TopicFilter::new(&all, all.clone());
        let page = Page::new(Arc::clone(context), filter, None, TOPICS);
        page.respond(None).await.unwrap().into_body().into_data_stream()
    }

    /// Returns the numbers of events of the topics on a page, and the next one.
    async fn read_to_end(mut body: axum::body::BodyDataStream) -> (Vec<u64>, serde_json::Value) {
        let mut json = Vec::new();
        while let Some(chunk) = body.next().await {
            json.extend_from_slice(&chunk.unwrap());
        }
        let page: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let topics = page["topics"].as_array().unwrap().iter();
        (topics.map(|topic| topic["events"].as_u64().unwrap()).collect(), page["next"].clone())
    }

    #[tokio::test]
    async fn a_long_page_is_read_as_its_client_takes_it() {
        let context = context().await;
        let body = open(&context).await;
        assert_eq!(context.streams.count(), 1);
        publish(&context, topic(TOPICS - 1)).await;
        publish(&context, topic(TOPICS)).await;
        let (events, next) = read_to_end(body).await;
        assert_eq!((events.len(), events.last()), (TOPICS, Some(&2)));
        assert_eq!(next, topic(TOPICS - 1).as_str(), "a topic was added");
        assert_eq!(context.streams.count(), 0);
    }

    #[tokio::test]
    async fn a_long_page_ends_early_at_a_stop() {
        let context = context().await;
        let body = open(&context).await;
        context.stop.begin();
        let (events, next) = read_to_end(body).await;
        assert!((1..TOPICS).contains(&events.len()), "{}", events.len());
        assert_eq!(next, topic(events.len() - 1).as_str());
        let body = open(&context).await;
        assert_eq!(context.streams.count(), 0);
        assert!(!read_to_end(body).await.0.is_empty(), "a page has a topic at least");
    }
}

//! Frames and batches: events with their bytes on the wire, which are encoded once and shared by
//! all subscribers.

use std::{
    fmt::{Display, Write as _},
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{event::Event, event_log::ReadLimit, id::CountedId, sse::Block, trace::Trace};

/// Room for an id, in bytes: an epoch of 16 digits, and two numbers of at most 20.
const ID_CAPACITY: usize = 64;

/// The form of an event in an event stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The event's id, name and data are those of the block.
    #[default]
    Plain,
    /// The block has the default name, and [`Event::to_json`] for its data.
    Json,
}

/// An event with its encodings, each of which is made on first use.
#[derive(Debug)]
pub struct Frame {
    event: Event,
    published: Option<Instant>,
    trace: Trace,
    plain: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
    message: OnceLock<Bytes>,
}

impl Frame {
    /// Creates a frame of an event that was read from the log.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            published: None,
            trace: Trace::default(),
            plain: OnceLock::new(),
            json: OnceLock::new(),
            message: OnceLock::new(),
        }
    }

    /// Creates a frame of a new event that was enqueued at `published`.
    pub(super) fn just_published(event: Event, published: Instant, trace: Trace) -> Self {
        Self { published: Some(published), trace, ..Self::new(event) }
    }

    /// Returns the event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Returns the time at which the event was given to the hub, or `None` if it was read from the
    /// log.
    pub fn published(&self) -> Option<Instant> {
        self.published
    }

    /// Returns the trace of the publish, if the event was not read from the log.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns the event as a block of an event stream.
    pub fn bytes(&self, format: Format) -> &Bytes {
        self.block(format).get_or_init(|| self.encoded(format, &self.event.id))
    }

    fn block(&self, format: Format) -> &OnceLock<Bytes> {
        match format {
            Format::Plain => &self.plain,
            Format::Json => &self.json,
        }
    }

    /// Appends the event to `out` as a block of an event stream. `id` is room for its id.
    fn append_to(&self, format: Format, id: &mut String, out: &mut Vec<u8>) {
        // Nobody else has an event that was read from the log, so its block is not kept.
        if self.published.is_none() && self.block(format).get().is_none() {
            self.encode(format, &self.event.id, id, out);
        } else {
            out.extend_from_slice(self.bytes(format));
        }
    }

    /// Returns the event as a block of an event stream with a [`CountedId`]. `sent` is the number
    /// of events that the stream has sent, including this one.
    pub fn counted_bytes(&self, format: Format, sent: u64) -> Bytes {
        self.encoded(format, &CountedId { id: self.event.id, sent })
    }

    /// Returns the event as a WebSocket message, `{"event":…}`, in UTF-8.
    pub fn message(&self) -> &Bytes {
        self.message.get_or_init(|| format!("{{\"event\":{}}}", self.event.to_json()).into())
    }

    /// Returns the event as a WebSocket message with a [`CountedId`], `{"event":…,"id":…}`.
    pub fn counted_message(&self, sent: u64) -> Bytes {
        let id = CountedId { id: self.event.id, sent };
        format!("{{\"event\":{},\"id\":\"{id}\"}}", self.event.to_json()).into()
    }

    /// Returns the approximate size in memory or on the wire, in bytes.
    pub(super) fn size(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD + self.event.data.len()
    }

    fn encoded(&self, format: Format, id: &impl Display) -> Bytes {
        let mut bytes = Vec::with_capacity(self.size());
        self.encode(format, id, &mut String::with_capacity(ID_CAPACITY), &mut bytes);
        bytes.into()
    }

    fn encode(&self, format: Format, id: &impl Display, text: &mut String, out: &mut Vec<u8>) {
        text.clear();
        // Writing to a String cannot fail.
        let _ = write!(text, "{id}");
        let json;
        let (name, data) = match format {
            Format::Plain => (self.event.name.as_str(), &self.event.data),
            Format::Json => {
                json = self.event.to_json();
                ("message", &json)
            }
        };
        let block = Block { id: Some(text), name: Some(name), data: Some(data), retry: None };
        let encoded = block.encode(out);
        debug_assert_eq!(encoded, Ok(()), "ids and names have no CR, LF and NUL");
    }
}

/// Frames that are delivered together, in the order of the log. Their concatenated bytes are made
/// once for all subscribers.
#[derive(Debug)]
pub struct Batch {
    frames: Vec<Arc<Frame>>,
    /// `true` if some frames are ends of topics. No batch that a subscriber delivers has any.
    has_ends: bool,
    is_traced: bool,
    plain: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
}

impl Batch {
    /// Maximum size of a batch.
    pub(super) const LIMIT: ReadLimit = ReadLimit { count: 512, bytes: 64 * 1024 };

    /// Returns `true` if the frames fit in one batch.
    pub(super) fn can_hold(frames: &[Arc<Frame>]) -> bool {
        let bytes = || frames.iter().map(|frame| frame.size()).sum::<usize>();
        frames.len() <= 1 || frames.len() <= Self::LIMIT.count && bytes() <= Self::LIMIT.bytes
    }

    pub(super) fn new(frames: Vec<Arc<Frame>>) -> Self {
        let has_ends = frames.iter().any(|frame| frame.event.name.is_topic_end());
        let is_traced = frames.iter().any(|frame| frame.trace.get().is_some());
        Self { frames, has_ends, is_traced, plain: OnceLock::new(), json: OnceLock::new() }
    }

    /// Returns `true` if some of the events have a trace.
    pub fn is_traced(&self) -> bool {
        self.is_traced
    }

    pub(super) fn has_ends(&self) -> bool {
        self.has_ends
    }

    /// Returns all events as blocks of an event stream.
    pub fn bytes(&self, format: Format) -> Bytes {
        if let [frame] = &self.frames[..] {
            return frame.bytes(format).clone();
        }
        let bytes = match format {
            Format::Plain => &self.plain,
            Format::Json => &self.json,
        };
        let all = || {
            let mut all = Vec::with_capacity(self.frames.iter().map(|frame| frame.size()).sum());
            let mut id = String::with_capacity(ID_CAPACITY);
            for frame in &self.frames {
                frame.append_to(format, &mut id, &mut all);
            }
            all.into()
        };
        bytes.get_or_init(all).clone()
    }
}

impl Deref for Batch {
    type Target = [Arc<Frame>];

    fn deref(&self) -> &Self::Target {
        &self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Topic, timestamp::Timestamp};

    #[test]
    fn an_event_has_four_encodings() {
        let frame = Frame::new(Event {
            id: "00000000c10cca11-42".parse().unwrap(),
            topic: Topic::clock(),
            name: "tick".parse().unwrap(),
            data: "a\nb".to_owned(),
            time: Timestamp::from_millis(0),
        });
        assert_eq!(
            frame.bytes(Format::Plain),
            "id: 00000000c10cca11-42\nevent: tick\ndata: a\ndata: b\n\n"
        );
        assert_eq!(
            frame.bytes(Format::Json),
            "id: 00000000c10cca11-42\ndata: {\"id\":\"00000000c10cca11-42\",\"topic\":\"clock\",\
             \"name\":\"tick\",\"data\":\"a\\nb\",\"time\":\"1970-01-01T00:00:00.000Z\"}\n\n"
        );
        assert_eq!(
            frame.counted_bytes(Format::Plain, 3),
            "id: 00000000c10cca11-42.3\nevent: tick\ndata: a\ndata: b\n\n"
        );
        let event = concat!(
            r#""event":{"id":"00000000c10cca11-42","topic":"clock","name":"tick","#,
            r#""data":"a\nb","time":"1970-01-01T00:00:00.000Z"}"#,
        );
        assert_eq!(frame.message(), &format!("{{{event}}}"));
        assert_eq!(
            frame.counted_message(3),
            format!("{{{event},\"id\":\"00000000c10cca11-42.3\"}}")
        );
    }
}

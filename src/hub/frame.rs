//! A frame: an event and its bytes on the wire, encoded once and shared by all its subscribers. And a batch:
//! frames that leave together.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{event::Event, id::CountedId, sse::Block};

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Id, name and data.
    #[default]
    Plain,
    /// Unnamed, with the whole event as JSON for data.
    Json,
}

/// An event with its encodings, each made when first asked for.
#[derive(Debug)]
pub struct Frame {
    event: Event,
    published: Option<Instant>,
    plain: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
    message: OnceLock<Bytes>,
}

impl Frame {
    /// A frame of an event of the log, not yet encoded.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            published: None,
            plain: OnceLock::new(),
            json: OnceLock::new(),
            message: OnceLock::new(),
        }
    }

    /// A frame of an event that is just being published, not yet encoded.
    pub(super) fn just_published(event: Event, at: Instant) -> Self {
        Self { published: Some(at), ..Self::new(event) }
    }

    /// The event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// When the event was given to the hub; none if it was read from the log, later.
    pub fn published(&self) -> Option<Instant> {
        self.published
    }

    /// The event as a block of an event stream.
    pub fn bytes(&self, format: Format) -> &Bytes {
        let bytes = match format {
            Format::Plain => &self.plain,
            Format::Json => &self.json,
        };
        bytes.get_or_init(|| self.encode(format, &self.event.id))
    }

    /// The same for a stream that has a limit: with how many events it has sent, this one included.
    pub fn counted_bytes(&self, format: Format, sent: u64) -> Bytes {
        self.encode(format, &CountedId { id: self.event.id, sent })
    }

    /// The event as a message of a WebSocket: `{"event":…}`, in UTF-8.
    pub fn message(&self) -> &Bytes {
        self.message.get_or_init(|| format!("{{\"event\":{}}}", self.event_json()).into())
    }

    /// The same for a stream that has a limit: with how many events it has sent, this one included.
    pub fn counted_message(&self, sent: u64) -> Bytes {
        let id = CountedId { id: self.event.id, sent };
        format!("{{\"event\":{},\"id\":\"{id}\"}}", self.event_json()).into()
    }

    fn event_json(&self) -> String {
        // `null` cannot happen: an event is made of strings, and strings are JSON.
        serde_json::to_string(&self.event).unwrap_or_else(|_| "null".to_owned())
    }

    /// About how much memory or wire it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        const AROUND_THE_DATA: usize = 128;
        AROUND_THE_DATA + self.event.data.len()
    }

    fn encode(&self, format: Format, id: &impl ToString) -> Bytes {
        let id = id.to_string();
        let json;
        let (name, data) = match format {
            Format::Plain => (self.event.name.as_str(), &self.event.data),
            Format::Json => {
                json = self.event_json();
                ("message", &json)
            }
        };
        let block = Block { id: Some(&id), name: Some(name), data: Some(data), retry: None };
        let mut bytes = Vec::with_capacity(self.size());
        let encoded = block.encode(&mut bytes);
        debug_assert_eq!(encoded, Ok(()), "ids and `Name`s have no CR, LF and NUL");
        bytes.into()
    }
}

/// Frames that are read together, in order; their bytes are put into one piece once for all who read
/// them.
#[derive(Debug)]
pub struct Batch {
    frames: Vec<Arc<Frame>>,
    plain: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
}

impl Batch {
    pub(super) fn new(frames: Vec<Arc<Frame>>) -> Self {
        Self { frames, plain: OnceLock::new(), json: OnceLock::new() }
    }

    /// All events as blocks of an event stream.
    pub fn bytes(&self, format: Format) -> Bytes {
        if let [frame] = &self.frames[..] {
            return frame.bytes(format).clone();
        }
        let bytes = match format {
            Format::Plain => &self.plain,
            Format::Json => &self.json,
        };
        let all = || self.frames.iter().map(|frame| &**frame.bytes(format)).collect::<Vec<_>>();
        bytes.get_or_init(|| all().concat().into()).clone()
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
    fn encodings() {
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
        let event = "\"event\":{\"id\":\"00000000c10cca11-42\",\"topic\":\"clock\",\"name\":\"tick\",\
                     \"data\":\"a\\nb\",\"time\":\"1970-01-01T00:00:00.000Z\"}";
        assert_eq!(frame.message(), &format!("{{{event}}}"));
        assert_eq!(
            frame.counted_message(3),
            format!("{{{event},\"id\":\"00000000c10cca11-42.3\"}}")
        );
    }
}

//! A frame: an event and its bytes on the wire, encoded once and shared by all its subscribers.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::{event::Event, sse::Block};

/// An event with its encodings, each made when first asked for.
#[derive(Debug)]
pub struct Frame {
    event: Event,
    plain: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
}

impl Frame {
    /// A frame of that event, not yet encoded.
    pub fn new(event: Event) -> Self {
        Self { event, plain: OnceLock::new(), json: OnceLock::new() }
    }

    /// The event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The event as a block of an event stream: its id, its name, its data.
    pub fn plain(&self) -> &Bytes {
        self.plain.get_or_init(|| self.encode(self.event.name.as_str(), &self.event.data))
    }

    /// The event as an unnamed block whose data is the event in JSON.
    pub fn json(&self) -> &Bytes {
        // `null` cannot happen: an event is made of strings, and strings are JSON.
        let json = || serde_json::to_string(&self.event).unwrap_or_else(|_| "null".to_owned());
        self.json.get_or_init(|| self.encode("message", &json()))
    }

    /// About how much memory or wire it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        const AROUND_THE_DATA: usize = 128;
        AROUND_THE_DATA + self.event.data.len()
    }

    fn encode(&self, name: &str, data: &str) -> Bytes {
        let id = self.event.id.to_string();
        let block = Block { id: Some(&id), name: Some(name), data: Some(data), retry: None };
        let mut bytes = Vec::with_capacity(self.size());
        let encoded = block.encode(&mut bytes);
        debug_assert_eq!(encoded, Ok(()), "ids and `Name`s have no CR, LF and NUL");
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Topic, timestamp::Timestamp};

    #[test]
    fn both_encodings() {
        let frame = Frame::new(Event {
            id: "00000000c10cca11-42".parse().unwrap(),
            topic: Topic::clock(),
            name: "tick".parse().unwrap(),
            data: "a\nb".to_owned(),
            time: Timestamp::from_millis(0),
        });
        assert_eq!(frame.plain(), "id: 00000000c10cca11-42\nevent: tick\ndata: a\ndata: b\n\n");
        assert_eq!(
            frame.json(),
            "id: 00000000c10cca11-42\ndata: {\"id\":\"00000000c10cca11-42\",\"topic\":\"clock\",\
             \"name\":\"tick\",\"data\":\"a\\nb\",\"time\":\"1970-01-01T00:00:00.000Z\"}\n\n"
        );
    }
}

//! What the server says in JSON, as the page reads it. The server writes it with serde.

use std::fmt::Write as _;

use codee::{Decoder, Encoder};
use serde::Serialize;
use waterclock::event::Event;
use waterclock_leptos::browser::{FromJson, Json, from_json};

use crate::Snapshot;

/// An event in JSON, as the server writes it.
pub(crate) fn json_of(event: &Event) -> String {
    let Event { id, topic, name, data, time } = event;
    let (name, data) = (quoted(name.as_str()), quoted(data));
    // Ids, topics and times have nothing in them that would have to be escaped.
    format!(r#"{{"id":"{id}","topic":"{topic}","name":{name},"data":{data},"time":"{time}"}}"#)
}

/// A string in JSON (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\0'..=' ' if char != ' ' => {
                // A text takes whatever is written.
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

impl FromJson for Snapshot {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            events: json.list("events"),
            cursor: json.parse("cursor"),
            topics: json.parse("topics")?,
            query: json.parse("query")?,
            group: json.parse("group")?,
            host: json.parse("host")?,
            is_refused: json.is_true("is_refused"),
            may_publish: json.is_true("may_publish"),
        })
    }
}

/// How what a page is given gets from the server to the browser.
pub(crate) struct Handover;

impl<T: Serialize> Encoder<T> for Handover {
    type Error = serde_json::Error;
    type Encoded = String;

    fn encode(given: &T) -> Result<String, Self::Error> {
        serde_json::to_string(given)
    }
}

impl<T: FromJson> Decoder<T> for Handover {
    type Error = &'static str;
    type Encoded = str;

    fn decode(json: &str) -> Result<T, Self::Error> {
        from_json(json).ok_or("not what a page is given")
    }
}

#[cfg(test)]
mod tests {
    use waterclock::id::{Epoch, EventId};
    use waterclock::timestamp::Timestamp;

    use super::*;

    #[test]
    fn an_event_is_written_as_the_server_writes_it() {
        let event = Event {
            id: EventId { epoch: Epoch::new(7), sequence: 3 },
            topic: "orders.eu".parse().unwrap(),
            name: "a \"name\"".parse().unwrap(),
            data: (0..=0x80_u8).map(char::from).chain("Zürich 🌊\u{2028}".chars()).collect(),
            time: Timestamp::from_millis(1_000_000_000_123),
        };
        let text = json_of(&event);
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}

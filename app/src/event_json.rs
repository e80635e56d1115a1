//! Events in JSON, written without serde: its code would be in the first load of the page.

use std::fmt::Write as _;

use waterclock::event::Event;

/// Writes an event in JSON, like the server does.
pub(crate) fn event_json(event: &Event) -> String {
    let Event { id, topic, name, data, time } = event;
    let (name, data) = (quoted(name.as_str()), quoted(data));
    // Ids, topics and times have no characters that need escaping.
    format!(r#"{{"id":"{id}","topic":"{topic}","name":{name},"data":{data},"time":"{time}"}}"#)
}

/// Writes a string in JSON (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\0'..=' ' if char != ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use waterclock::id::{Epoch, EventId};
    use waterclock::timestamp::Timestamp;

    use super::*;

    #[test]
    fn serde_reads_an_event_back() {
        let event = Event {
            id: EventId { epoch: Epoch::new(7), sequence: 3 },
            topic: "orders.eu".parse().unwrap(),
            name: "a \"name\"".parse().unwrap(),
            data: (0..=0x80_u8).map(char::from).chain("Zürich 🌊\u{2028}".chars()).collect(),
            time: Timestamp::from_millis(1_000_000_000_123),
        };
        let text = event_json(&event);
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}

//! The meaning of a stream's messages, for the rules and for the page.

use std::{sync::Arc, time::Duration};

use waterclock::{
    event::Event,
    notice::{
        End, Gap, GapReason, Goodbye, GoodbyeReason, Heartbeat, Hello, Notice as _, Outcome,
        TopicEnd,
    },
};

use crate::{
    browser::{FromJson, Json, PlacedEnd, from_json},
    connection::{Intervals, ReceivedMessage},
    tab::StreamMessage,
};

/// Names of the messages that the page listens to: the notices, and `message` for all events. With
/// `format=json`, events are unnamed on the wire and have their name in the JSON.
pub(crate) const NAMES: [&str; 6] =
    ["message", Hello::NAME, Gap::NAME, Heartbeat::NAME, End::NAME, Goodbye::NAME];

/// A message of the stream, as the page gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamUpdate {
    /// The stream has opened, for the first time or again.
    Opened,
    /// An event. Events come in order, and each comes once.
    Event(Arc<Event>),
    /// Events are missing at this position.
    Gap(Gap),
    /// A topic has ended at this position.
    End(TopicEnd),
    /// A notice that needs no attention, such as a heartbeat.
    Notice,
}

/// Puts events and ends in their order in the log. Each list must be in order.
pub(crate) fn in_order(events: Vec<Event>, ends: Vec<PlacedEnd>) -> Vec<StreamUpdate> {
    let events = events.into_iter().map(|event| StreamUpdate::Event(Arc::new(event)));
    let mut updates: Vec<_> = events.collect();
    for PlacedEnd { id, end } in ends.into_iter().rev() {
        let is_before = |update: &StreamUpdate| matches!(update, StreamUpdate::Event(event) if event.id.sequence < id.sequence);
        updates.insert(updates.partition_point(is_before), StreamUpdate::End(end));
    }
    updates
}

/// Parses a message of the stream. One that cannot be parsed still counts as a heartbeat.
pub(crate) fn parse(name: &str, last_event_id: &str, data: &str) -> StreamMessage<StreamUpdate> {
    let id = last_event_id.parse().ok();
    let (received, content) = match name {
        "message" => match from_json::<Event>(data) {
            Some(event) => (ReceivedMessage::Event { id }, StreamUpdate::Event(Arc::new(event))),
            None => (ReceivedMessage::Heartbeat { id }, StreamUpdate::Notice),
        },
        Hello::NAME => {
            (ReceivedMessage::Hello { id, intervals: from_json(data) }, StreamUpdate::Opened)
        }
        Gap::NAME => match from_json::<Gap>(data) {
            Some(gap) => (ReceivedMessage::Gap { cursor: id }, StreamUpdate::Gap(gap)),
            None => (ReceivedMessage::Heartbeat { id }, StreamUpdate::Notice),
        },
        End::NAME => match from_json(data) {
            Some(end) => (ReceivedMessage::Gap { cursor: id }, StreamUpdate::End(end)),
            None => (ReceivedMessage::Heartbeat { id }, StreamUpdate::Notice),
        },
        Goodbye::NAME => match from_json::<Goodbye>(data) {
            Some(Goodbye { reason, retry_ms }) => {
                let retry = Duration::from_millis(retry_ms);
                (ReceivedMessage::Goodbye { reason, retry }, StreamUpdate::Notice)
            }
            None => (ReceivedMessage::Heartbeat { id }, StreamUpdate::Notice),
        },
        _ => (ReceivedMessage::Heartbeat { id }, StreamUpdate::Notice),
    };
    StreamMessage { received, content }
}

impl FromJson for Event {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            id: json.parse("id")?,
            topic: json.parse("topic")?,
            name: json.parse("name")?,
            data: json.parse("data")?,
            time: json.parse("time")?,
        })
    }
}

/// Reads the intervals from a [`Hello`].
impl FromJson for Intervals {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            heartbeat: Duration::from_millis(json.number("heartbeat_ms")?),
            retry: Duration::from_millis(json.number("retry_ms")?),
        })
    }
}

impl FromJson for Gap {
    fn from_json(json: &Json) -> Option<Self> {
        let name = json.parse::<String>("reason")?;
        let reason = GapReason::ALL.into_iter().find(|reason| reason.as_str() == name)?;
        Some(Self { reason, cursor: json.parse("cursor")? })
    }
}

impl FromJson for TopicEnd {
    fn from_json(json: &Json) -> Option<Self> {
        let name = json.parse::<String>("outcome")?;
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name)?;
        let (topic, message) = (json.parse("topic")?, json.parse("message"));
        Some(Self { topic, outcome, message, last: json.is_true("last") })
    }
}

impl FromJson for Goodbye {
    fn from_json(json: &Json) -> Option<Self> {
        let name = json.parse::<String>("reason")?;
        let reason = GoodbyeReason::ALL.into_iter().find(|reason| reason.as_str() == name)?;
        Some(Self { reason, retry_ms: json.number("retry_ms")? })
    }
}

#[cfg(test)]
mod tests {
    use waterclock::{
        id::{Epoch, EventId},
        timestamp::Timestamp,
    };

    use super::*;

    #[test]
    fn the_ends_of_a_response_are_between_its_events() {
        let id = |sequence| EventId { epoch: Epoch::new(1), sequence };
        let event = |sequence| Event {
            id: id(sequence),
            topic: "t".parse().unwrap(),
            name: "n".parse().unwrap(),
            data: sequence.to_string(),
            time: Timestamp::from_millis(0),
        };
        let end = |sequence: u64| {
            let end = TopicEnd::failed("t".parse().unwrap(), sequence.to_string());
            PlacedEnd { id: id(sequence), end }
        };
        let order = |events: &[u64], ends: &[u64]| -> String {
            let events = events.iter().copied().map(event).collect();
            let updates = in_order(events, ends.iter().copied().map(end).collect());
            let text = |update| match update {
                StreamUpdate::Event(event) => event.data.clone(),
                StreamUpdate::End(end) => format!("({})", end.message.unwrap()),
                other => panic!("{other:?}"),
            };
            updates.into_iter().map(text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(&[3, 4, 8], &[1, 2, 5, 7, 9]), "(1) (2) 3 4 (5) (7) 8 (9)");
        assert_eq!(order(&[], &[1, 2]), "(1) (2)");
        assert_eq!(order(&[1, 2], &[]), "1 2");
    }
}

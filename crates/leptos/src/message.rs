//! What the messages of a stream mean, to the rules and to the page.

use std::{sync::Arc, time::Duration};

use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, GapReason, Goodbye, GoodbyeReason, Heartbeat, Hello, Notice as _},
};

use crate::{
    browser::{FromJson, Json, from_json},
    connection::{Intervals, Said},
    tab::Message,
};

/// What the page listens to: events, which are all unnamed in the format that it asks for, and the
/// notices.
pub(crate) const NAMES: [&str; 5] =
    ["message", Hello::NAME, Gap::NAME, Heartbeat::NAME, Goodbye::NAME];

/// What a stream has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The connection is open, for the first time or again.
    Opened,
    /// An event, in order, and never twice.
    Event(Arc<Event>),
    /// Events are missing here.
    Gap(Gap),
    /// Nothing to show.
    Notice,
}

/// What a message means. What is not understood is still a sign of life.
pub(crate) fn understand(name: &str, id: Option<EventId>, data: &str) -> Message<Arrived> {
    let (said, content) = match name {
        "message" => match from_json::<Event>(data) {
            Some(event) => (Said::Event { id }, Arrived::Event(Arc::new(event))),
            None => (Said::Heartbeat { id }, Arrived::Notice),
        },
        Hello::NAME => (Said::Hello { id, intervals: from_json(data) }, Arrived::Opened),
        Gap::NAME => match from_json::<Gap>(data) {
            Some(gap) => (Said::Gap { cursor: id }, Arrived::Gap(gap)),
            None => (Said::Heartbeat { id }, Arrived::Notice),
        },
        Goodbye::NAME => match from_json::<Goodbye>(data) {
            Some(Goodbye { reason, retry_ms }) => {
                let retry = Duration::from_millis(retry_ms);
                (Said::Goodbye { reason, retry }, Arrived::Notice)
            }
            None => (Said::Heartbeat { id }, Arrived::Notice),
        },
        _ => (Said::Heartbeat { id }, Arrived::Notice),
    };
    Message { said, content }
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

/// What the page needs of [`Hello`](waterclock::notice::Hello).
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
        let told = json.parse::<String>("reason")?;
        let reason = GapReason::ALL.into_iter().find(|reason| reason.as_str() == told)?;
        Some(Self { reason, cursor: json.parse("cursor")? })
    }
}

impl FromJson for Goodbye {
    fn from_json(json: &Json) -> Option<Self> {
        let told = json.parse::<String>("reason")?;
        let reason = GoodbyeReason::ALL.into_iter().find(|reason| reason.as_str() == told)?;
        Some(Self { reason, retry_ms: json.number("retry_ms")? })
    }
}

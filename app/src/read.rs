//! What the server says in JSON, as the page reads it. The server writes it with serde.

use std::time::Duration;

use codee::{Decoder, Encoder};
use waterclock::{
    connection::Intervals,
    event::Event,
    notice::{Gap, GapReason, Goodbye, GoodbyeReason},
};

use crate::{
    Page, Snapshot,
    browser::{FromJson, Json, from_json},
};

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

impl FromJson for Page {
    fn from_json(json: &Json) -> Option<Self> {
        let Some(home) = json.get("Home") else { return Some(Self::NotFound) };
        Some(Self::Home(Snapshot {
            events: home.list("events"),
            cursor: home.parse("cursor"),
            topics: home.parse("topics")?,
            query: home.parse("query")?,
            host: home.parse("host")?,
            is_refused: home.is_true("is_refused"),
            may_publish: home.is_true("may_publish"),
        }))
    }
}

/// How a [`Page`] gets from the server to the browser.
pub(crate) struct Handover;

impl Encoder<Page> for Handover {
    type Error = serde_json::Error;
    type Encoded = String;

    fn encode(page: &Page) -> Result<String, Self::Error> {
        serde_json::to_string(page)
    }
}

impl Decoder<Page> for Handover {
    type Error = &'static str;
    type Encoded = str;

    fn decode(json: &str) -> Result<Page, Self::Error> {
        from_json(json).ok_or("not a page")
    }
}

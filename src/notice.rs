//! Notices: the messages of a stream that are not events. Each has a reserved name, so that a plain
//! `onmessage` never sees it, and JSON for its data.
//!
//! ```
//! use waterclock::notice::{Gap, GapReason, Notice};
//!
//! let gap = Gap { reason: GapReason::Expired, cursor: "00000000c10cca11-42".to_owned() };
//! assert_eq!(Gap::NAME, "gap");
//! assert_eq!(
//!     serde_json::to_string(&gap)?,
//!     r#"{"reason":"expired","cursor":"00000000c10cca11-42"}"#,
//! );
//! # Ok::<_, serde_json::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    event::{Draft, Event, Name, Topic},
    id::EventId,
    timestamp::Timestamp,
};

/// The first message of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The server's time.
    pub time: Timestamp,
    /// Number of the connection, counted from the server's start.
    pub connection: u64,
    /// Idle time before a heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// Delay before the browser reconnects, in milliseconds. It repeats `retry:`, which browsers
    /// hide from pages.
    pub retry_ms: u64,
    /// The oldest kept event; `None` if no event is kept.
    pub oldest: Option<EventId>,
    /// The newest event; `None` if no event is kept.
    pub newest: Option<EventId>,
    /// Time for which events may wait for others that leave with them, in milliseconds; `None` if
    /// they leave at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay_ms: Option<u64>,
    /// The name of the node, if the server is one of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The requested cursor cannot be honoured: events are missing, or may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Cause of the gap.
    pub reason: GapReason,
    /// The requested cursor.
    pub cursor: String,
}

/// The cause of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// Events after the cursor are no longer kept, or may be gone. The stream continues with the
    /// next event that the server has.
    Expired,
    /// The events after the cursor were damaged on the server's disk. The stream continues with the
    /// first event that is not.
    Damaged,
    /// The cursor belongs to another epoch. The stream continues with the oldest kept event.
    OtherEpoch,
    /// The cursor is after the newest event. The stream continues with new events.
    Future,
    /// The text is not a cursor. The stream continues with new events.
    Malformed,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Expired, Self::Damaged, Self::OtherEpoch, Self::Future, Self::Malformed];

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Damaged => "damaged",
            Self::OtherEpoch => "other-epoch",
            Self::Future => "future",
            Self::Malformed => "malformed",
        }
    }
}

/// A sign of life on an idle stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The server's time.
    pub time: Timestamp,
    /// Number of events that the stream has skipped so far; `None` unless it conflates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u64>,
}

/// The end of a stream with a limit. A client that reconnects after it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Number of events that were sent.
    pub sent: u64,
}

/// The end of a topic, which takes no further event. It has a place in the order of the events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEnd {
    /// The topic that has ended.
    pub topic: Topic,
    /// The publisher's verdict.
    pub outcome: Outcome,
    /// The publisher's explanation of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `true` if all topics of the stream have ended, so that the server closes it. A client that
    /// reconnects after it is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub last: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
fn is_false(last: &bool) -> bool {
    !last
}

impl TopicEnd {
    /// Creates the end of a topic that is complete.
    pub fn done(topic: Topic) -> Self {
        Self { topic, outcome: Outcome::Done, message: None, last: false }
    }

    /// Creates the end of a topic whose source has failed. An empty message counts as none.
    pub fn failed(topic: Topic, message: String) -> Self {
        let message = Some(message).filter(|message| !message.is_empty());
        Self { topic, outcome: Outcome::Failed, message, last: false }
    }

    /// Creates the draft that ends the topic, so that it takes no further event until it is
    /// reopened. The event log numbers and returns it like an event, with the reserved name `end`.
    pub fn draft(&self) -> Draft {
        // Serialization cannot fail: every field is a string or a boolean.
        let data = serde_json::to_string(self).unwrap_or_default();
        Draft::new(self.topic.clone(), data).named(Name::topic_end())
    }

    /// Reads the end from what the event log returns for it. Returns `None` for an event.
    pub fn of(event: &Event) -> Option<Self> {
        event.name.is_topic_end().then(|| serde_json::from_str(&event.data).ok())?
    }
}

/// The publisher's verdict on a topic that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The topic is complete.
    Done,
    /// The topic is incomplete, because its source has failed.
    Failed,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 2] = [Self::Done, Self::Failed];

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// The server closes the stream; the client should reconnect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Cause of the closing.
    pub reason: GoodbyeReason,
    /// Delay before the browser reconnects, in milliseconds.
    pub retry_ms: u64,
}

/// The cause for which the server closes a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoodbyeReason {
    /// The server is shutting down.
    Draining,
    /// The limit of streams is reached, in total or for this address.
    Limit,
    /// The token that opened the stream has expired.
    Expired,
    /// This node does not have the reader's cursor yet, since it is behind the cluster.
    Behind,
}

impl GoodbyeReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Draining, Self::Limit, Self::Expired, Self::Behind];

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Limit => "limit",
            Self::Expired => "expired",
            Self::Behind => "behind",
        }
    }
}

/// A kind of notice: its name on the wire, and its data.
pub trait Notice: Serialize {
    /// The reserved name, SSE's `event:`.
    const NAME: &str;
}

impl Notice for Hello {
    const NAME: &str = "hello";
}

impl Notice for Gap {
    const NAME: &str = "gap";
}

impl Notice for Heartbeat {
    const NAME: &str = "heartbeat";
}

impl Notice for End {
    const NAME: &str = "end";
}

impl Notice for TopicEnd {
    const NAME: &str = End::NAME;
}

impl Notice for Goodbye {
    const NAME: &str = "goodbye";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Name;

    #[test]
    fn every_notice_has_a_reserved_name() {
        for name in [Hello::NAME, Gap::NAME, Heartbeat::NAME, End::NAME, Goodbye::NAME] {
            assert!(Name::RESERVED.contains(&name), "{name}");
        }
    }

    #[test]
    fn hello_has_a_delay_only_if_events_wait() {
        let text = r#"{"time":"2026-11-22T07:00:00.000Z","connection":1,"heartbeat_ms":2,"retry_ms":3,"oldest":null,"newest":null}"#;
        let hello: Hello = serde_json::from_str(text).unwrap();
        assert_eq!(
            (hello.max_delay_ms, serde_json::to_string(&hello).unwrap()),
            (None, text.into())
        );
        let gathered = Hello { max_delay_ms: Some(20), ..hello };
        let json = serde_json::to_string(&gathered).unwrap();
        assert!(json.ends_with(r#""newest":null,"max_delay_ms":20}"#), "{json}");
        assert_eq!(serde_json::from_str::<Hello>(&json).unwrap(), gathered);
    }

    #[test]
    fn reasons_are_serialized_by_name() {
        for reason in GapReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for reason in GoodbyeReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}

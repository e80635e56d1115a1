//! What a stream says besides events. Each notice has a reserved name, so that a plain `onmessage`
//! never sees it, and JSON for data.

use serde::{Deserialize, Serialize};

use crate::{id::EventId, timestamp::Timestamp};

/// The first thing that a stream says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The server's time.
    pub time: Timestamp,
    /// The number of this connection, counted from the server's start.
    pub connection: u64,
    /// After how many milliseconds without anything else a heartbeat comes.
    pub heartbeat_ms: u64,
    /// After how many milliseconds the browser tries again when the connection is lost; `retry:` is
    /// not shown to pages.
    pub retry_ms: u64,
    /// The oldest event kept, if there is one.
    pub oldest: Option<EventId>,
    /// The newest event, if there is one.
    pub newest: Option<EventId>,
}

/// The cursor cannot be honoured: events are missing, or it is not known whether any are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The cursor that was asked for.
    pub cursor: String,
}

/// Why a cursor cannot be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// Events after it are no longer kept. The stream goes on from the oldest event kept.
    Expired,
    /// It belongs to another log. The stream goes on from the oldest event kept.
    OtherEpoch,
    /// It is after the newest event. The stream goes on from now.
    Future,
    /// It is no cursor. The stream goes on from now.
    Malformed,
}

impl GapReason {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Expired, Self::OtherEpoch, Self::Future, Self::Malformed];

    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::OtherEpoch => "other-epoch",
            Self::Future => "future",
            Self::Malformed => "malformed",
        }
    }
}

/// Nothing else was sent for a while; the connection is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The server's time.
    pub time: Timestamp,
    /// How many events the stream has left out so far, if it was asked to conflate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u64>,
}

/// As many events were sent as the client had asked for; when it reconnects, it is told that there is
/// no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How many.
    pub sent: u64,
}

/// The server ends the stream; the client should come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why.
    pub reason: GoodbyeReason,
    /// After how many milliseconds the browser tries again.
    pub retry_ms: u64,
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoodbyeReason {
    /// The server is stopping.
    Draining,
    /// There are as many streams as the server allows, in all or from this address.
    Limit,
    /// The token with which the stream was opened has expired.
    Expired,
}

impl GoodbyeReason {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Draining, Self::Limit, Self::Expired];

    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Limit => "limit",
            Self::Expired => "expired",
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
    fn reasons_are_called_as_they_are_written() {
        for reason in GapReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for reason in GoodbyeReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}

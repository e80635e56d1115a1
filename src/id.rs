//! Event ids, and the cursors that clients send back.
//!
//! ```
//! use waterclock::{Cursor, EventId};
//!
//! let id: EventId = "00000000c10cca11-42".parse()?;
//! assert_eq!(id.sequence, 42);
//!
//! let cursor = Cursor::parse(Some("00000000c10cca11-42"));
//! assert_eq!(cursor, Cursor::After(id));
//! # Ok::<_, waterclock::id::ParseIdError>(())
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

/// One life of an event log. A log gets a new epoch when it is created or restored from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Creates the epoch with that number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Creates an epoch of 64 random bits, which no other log has.
    #[cfg(feature = "hub")]
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseIdError)
    }
}

/// The id of an event: the epoch of its log, and its place in it.
///
/// On the wire it is `<epoch>-<sequence>`, sixteen hexadecimal digits and a decimal number, which
/// is safe in a header and a URL. Clients must treat it as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct EventId {
    /// The life of the log.
    pub epoch: Epoch,
    /// The place in the log, counted from 1; 0 is the place before the first event.
    pub sequence: u64,
}

/// The id of an event on a stream with a limit: the event's own id, and the number of events that
/// were sent up to and including it.
///
/// The client sends it back when it reconnects, so the server need not remember the stream's
/// progress. On the wire it is `<epoch>-<sequence>.<sent>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedId {
    /// The event's id.
    pub id: EventId,
    /// Number of events that were sent, over all connections of the stream.
    pub sent: u64,
}

/// A text that is not an [`EventId`].
#[derive(Debug, thiserror::Error)]
#[error("not an event id: an id is sixteen hexadecimal digits, `-`, and a decimal number")]
pub struct ParseIdError;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = ParseIdError;

    /// Parses the one spelling that [`Display`](fmt::Display) writes, and no other.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (epoch, sequence) = text.split_once('-').ok_or(ParseIdError)?;
        let id =
            Self { epoch: epoch.parse()?, sequence: sequence.parse().map_err(|_| ParseIdError)? };
        if id.to_string() == text { Ok(id) } else { Err(ParseIdError) }
    }
}

impl fmt::Display for CountedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.sent)
    }
}

impl FromStr for CountedId {
    type Err = ParseIdError;

    /// Parses the one spelling that [`Display`](fmt::Display) writes, and no other.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (id, sent) = text.split_once('.').ok_or(ParseIdError)?;
        let counted = Self { id: id.parse()?, sent: sent.parse().map_err(|_| ParseIdError)? };
        if counted.to_string() == text { Ok(counted) } else { Err(ParseIdError) }
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for EventId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

/// The position from which a reader wants to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// After the newest event: only events that are published from now on.
    Now,
    /// Before the oldest kept event.
    Earliest,
    /// After the event with this id.
    After(EventId),
    /// A text that is not a cursor, as the client sent it.
    Malformed(String),
}

impl Cursor {
    /// Parses the cursor that a client sent.
    ///
    /// A missing or empty text is [`Now`](Cursor::Now), as `EventSource` means it. The count of a
    /// [`CountedId`] is ignored. An invalid text is kept, for the `gap` that announces it.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("") => Self::Now,
            Some("earliest") => Self::Earliest,
            Some(text) => {
                match text.parse().or_else(|_| text.parse().map(|CountedId { id, .. }| id)) {
                    Ok(id) => Self::After(id),
                    Err(ParseIdError) => Self::Malformed(text.to_owned()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_only_one_spelling() {
        for text in [
            "00000000c10cca11",
            "00000000c10cca11-",
            "-1",
            "c10cca11-1",
            "00000000C10CCA11-1",
            "00000000c10cca11-01",
            "00000000c10cca11-+1",
            "+0000000c10cca11-1",
            "00000000c10cca11-18446744073709551616",
            "00000000c10cca11-1 ",
            "00000000c10cca11-1.",
            "00000000c10cca11-1.x",
            "00000000c10cca11-1.01",
            "00000000c10cca11-1.2.3",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text:?}");
            assert_eq!(Cursor::parse(Some(text)), Cursor::Malformed(text.to_owned()));
        }
    }

    #[test]
    fn a_missing_or_empty_cursor_means_now() {
        assert_eq!(Cursor::parse(None), Cursor::Now);
        assert_eq!(Cursor::parse(Some("")), Cursor::Now);
        assert_eq!(Cursor::parse(Some("earliest")), Cursor::Earliest);
    }
}

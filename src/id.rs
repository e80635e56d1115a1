//! Event ids, and the cursors that clients send back.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One life of a log: new when the log is created, or restored from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of that number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// An epoch that no other log has: 64 random bits.
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

/// The id of an event: which log, and the event's place in it.
///
/// On the wire it is `<epoch>-<sequence>`, sixteen hexadecimal digits and a decimal number, so it is
/// safe in a header and a URL. Clients take it as opaque.
///
/// ```
/// # use waterclock::id::EventId;
/// let id: EventId = "00000000c10cca11-42".parse()?;
/// assert_eq!(id.sequence, 42);
/// # Ok::<_, waterclock::id::ParseIdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EventId {
    /// The log's life.
    pub epoch: Epoch,
    /// The place in the log, counted from 1; 0 is the place before the first event.
    pub sequence: u64,
}

/// An id on a stream that has a limit: an event's, and how many events the client has been sent up to
/// and with it. The client sends it back when it reconnects, so the server need not remember how far
/// the stream had come.
///
/// On the wire it is `<epoch>-<sequence>.<sent>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedId {
    /// The event's id.
    pub id: EventId,
    /// How many events were sent, over all the connections of the stream.
    pub sent: u64,
}

/// A text that is not an [`EventId`].
#[derive(Debug, thiserror::Error)]
#[error("not an event id: it is sixteen hexadecimal digits, `-`, and a decimal number")]
pub struct ParseIdError;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = ParseIdError;

    /// Reads the one spelling that [`Display`](fmt::Display) writes, and no other.
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

    /// Reads the one spelling that [`Display`](fmt::Display) writes, and no other.
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

impl TryFrom<String> for EventId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

/// Where a reader asks to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// After the newest event: what is published from now on.
    Now,
    /// Before the oldest event kept.
    Earliest,
    /// After the event of this id.
    After(EventId),
    /// Something that is no cursor, as it was sent.
    Malformed(String),
}

impl Cursor {
    /// Reads what a client sent: nothing (or an empty text, as `EventSource` means it) is
    /// [`Now`](Cursor::Now). How much a [`CountedId`] counts is ignored. What cannot be read is kept,
    /// to be told in a `gap`.
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
    fn only_one_spelling_is_an_id() {
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
    fn nothing_and_an_empty_text_mean_now() {
        assert_eq!(Cursor::parse(None), Cursor::Now);
        assert_eq!(Cursor::parse(Some("")), Cursor::Now);
        assert_eq!(Cursor::parse(Some("earliest")), Cursor::Earliest);
    }
}

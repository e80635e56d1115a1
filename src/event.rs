//! Events: a [`Draft`] is published, an [`Event`] is read. Both have a topic and a name.
//!
//! ```
//! use waterclock::event::{Draft, Event};
//!
//! let draft = Draft::new("orders.eu".parse()?, "order 7").named("created".parse()?);
//! assert_eq!(draft.topic.as_str(), "orders.eu");
//!
//! let json = r#"{"id":"00000000c10cca11-42","topic":"orders.eu","name":"created",
//!     "data":"order 7","time":"2026-11-22T07:00:01.000Z"}"#;
//! let event: Event = serde_json::from_str(json)?;
//! assert_eq!((event.topic, event.name, event.data), (draft.topic, draft.name, draft.data));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use crate::{id::EventId, timestamp::Timestamp, trace::Trace};

/// Maximum length of a topic or a name, in bytes.
pub const MAX_LENGTH: usize = 255;

/// An accepted event, as the event log keeps it and readers receive it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the event log.
    pub id: EventId,
    /// The subject that readers select it by.
    pub topic: Topic,
    /// SSE's `event:`.
    pub name: Name,
    /// The payload: any UTF-8.
    pub data: String,
    /// Time at which the server accepted it.
    pub time: Timestamp,
}

impl Event {
    /// Returns the event as JSON, `{"id","topic","name","data","time"}`, as every transport sends
    /// it.
    pub fn to_json(&self) -> String {
        // Serialization cannot fail: every field is a string.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An event to be published. The event log gives it its id and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The subject that readers select it by.
    pub topic: Topic,
    /// SSE's `event:`.
    pub name: Name,
    /// The payload: any UTF-8.
    pub data: String,
    /// Identification of a publish that may be sent again.
    pub key: Option<IdempotencyKey>,
    /// `true` to open the topic again if it has ended, which would otherwise reject the event.
    pub is_reopening: bool,
    /// The sequence number after which any end of the topic rejects the draft, even if the topic
    /// was reopened since; `None` for a draft that only depends on the topic as it is.
    pub unless_ended_after: Option<u64>,
    /// The trace of the publish.
    pub trace: Trace,
}

impl Draft {
    /// Creates a draft with the default name and without a key.
    pub fn new(topic: Topic, data: impl Into<String>) -> Self {
        let (name, data) = (Name::default(), data.into());
        Self {
            topic,
            name,
            data,
            key: None,
            is_reopening: false,
            unless_ended_after: None,
            trace: Trace::default(),
        }
    }

    /// Opens the topic again if it has ended.
    #[must_use]
    pub fn reopening(self) -> Self {
        Self { is_reopening: true, ..self }
    }

    /// Sets the name.
    #[must_use]
    pub fn named(self, name: Name) -> Self {
        Self { name, ..self }
    }

    /// Sets the idempotency key: publishing the draft again does not add a second event.
    #[must_use]
    pub fn with_key(self, key: IdempotencyKey) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// A publisher's own identification of an event, so that a retry does not publish it twice.
///
/// The event log keeps a key as long as its event, and the first 16 keys of a topic's end until the
/// topic ends again. Keys of different publishers and of different topics never collide.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// The publisher's name.
    pub publisher: String,
    /// The publisher's name for the event.
    pub key: String,
}

/// The subject of an event: tokens of `A-Za-z0-9_-` separated by dots, at most [`MAX_LENGTH`]
/// bytes, such as `clock` or `orders.eu.created`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Topic(Arc<str>);

/// A text that is not a [`Topic`].
#[derive(Debug, thiserror::Error)]
#[error(
    "not a topic: a topic consists of letters, digits, `_` and `-`, with dots between tokens, \
     such as `orders.eu.created`, and has at most {MAX_LENGTH} bytes"
)]
pub struct InvalidTopic;

impl Topic {
    /// The text of [`clock`](Self::clock).
    pub const CLOCK: &str = "clock";
    /// The text of [`load`](Self::load).
    pub const LOAD: &str = "waterclock.load";

    /// Returns the topic of the built-in clock.
    pub fn clock() -> Self {
        Self(Self::CLOCK.into())
    }

    /// Returns the topic of the built-in load.
    pub fn load() -> Self {
        Self(Self::LOAD.into())
    }

    /// Returns the topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        let is_token = |token: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            !token.is_empty() && token.bytes().all(allowed)
        };
        if text.len() <= MAX_LENGTH && text.split('.').all(is_token) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTopic)
        }
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl TryFrom<String> for Topic {
    type Error = InvalidTopic;

    fn try_from(text: String) -> Result<Self, InvalidTopic> {
        text.parse()
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.as_str().to_owned()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an event: any UTF-8 of at most [`MAX_LENGTH`] bytes without CR, LF and NUL, except
/// the [`RESERVED`](Name::RESERVED) names. The default is `message`, for a browser's `onmessage`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(Cow<'static, str>);

/// A text that is not a [`Name`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text is too long, or has a character that a field of the wire format cannot have.
    #[error("not a name: a name has at most {MAX_LENGTH} bytes of UTF-8, without CR, LF and NUL")]
    Form,
    /// The name belongs to the stream itself, or to `EventSource`.
    #[error("the name is reserved, like {}", Name::RESERVED.join(", "))]
    Reserved,
}

impl Name {
    /// The names that an event cannot have.
    pub const RESERVED: [&str; 7] =
        ["hello", "heartbeat", "gap", "end", "goodbye", "open", "error"];
    const DEFAULT: &str = "message";
    const TOPIC_END: &str = "end";

    /// Returns the name under which the event log keeps the end of a topic.
    pub(crate) fn topic_end() -> Self {
        Self(Cow::Borrowed(Self::TOPIC_END))
    }

    /// Returns `true` for the name of a topic's end, which no event has.
    pub fn is_topic_end(&self) -> bool {
        self.0 == Self::TOPIC_END
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Name {
    fn default() -> Self {
        Self(Cow::Borrowed(Self::DEFAULT))
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    /// Parses the text. An empty text is the default name, as on the wire (WHATWG HTML 9.2.6).
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if matches!(text, "" | Self::DEFAULT) {
            // The most frequent name takes no memory.
            Ok(Self::default())
        } else if text.len() > MAX_LENGTH || text.contains(['\r', '\n', '\0']) {
            Err(InvalidName::Form)
        } else if Self::RESERVED.contains(&text) {
            Err(InvalidName::Reserved)
        } else {
            Ok(Self(text.to_owned().into()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    /// Converts the text, as [`FromStr`] parses it.
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_tokens_separated_by_dots() {
        for text in ["clock", "orders.eu.created", "A-z_9", &"a".repeat(255)] {
            assert_eq!(text.parse::<Topic>().unwrap().as_str(), text);
        }
        for text in ["", ".", "a.", ".a", "a..b", "a b", "a/b", "é", "*", "a.>", &"a".repeat(256)]
        {
            assert!(text.parse::<Topic>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_any_text_that_fits_in_a_field() {
        for text in ["message", "größe", "a b:c", &"a".repeat(255)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        assert_eq!("".parse::<Name>().unwrap(), Name::default());
        for text in ["a\rb", "a\nb", "a\0b", &"a".repeat(256)] {
            assert_eq!(text.parse::<Name>(), Err(InvalidName::Form), "{text:?}");
        }
        for text in Name::RESERVED {
            assert_eq!(text.parse::<Name>(), Err(InvalidName::Reserved));
        }
    }

    #[test]
    fn json_has_five_fields() {
        let event = Event {
            id: "00000000c10cca11-42".parse().unwrap(),
            topic: Topic::clock(),
            name: Name::default(),
            data: "2026-11-22T07:00:01.000Z".to_owned(),
            time: Timestamp::from_millis(0),
        };
        let json = event.to_json();
        let expected = concat!(
            r#"{"id":"00000000c10cca11-42","topic":"clock","name":"message","#,
            r#""data":"2026-11-22T07:00:01.000Z","time":"1970-01-01T00:00:00.000Z"}"#,
        );
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    #[test]
    fn json_with_an_invalid_topic_is_rejected() {
        let json = r#"{"id":"00000000c10cca11-1","topic":"a b","name":"m","data":"",
            "time":"1970-01-01T00:00:00.000Z"}"#;
        let error = serde_json::from_str::<Event>(json).unwrap_err().to_string();
        assert!(error.contains("not a topic"), "{error}");
    }
}

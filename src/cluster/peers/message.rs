//! The messages of nodes to each other, in JSON.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{event::Topic, event_log::Readers, id::Epoch};

/// The version of the messages. Those of another version are ignored.
const VERSION: u32 = 1;
/// Maximum number of topics in a message. With the longest names these are some 260 kB.
pub const MAX_TOPICS: usize = 1000;

/// A message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerMessage {
    v: u32,
    /// Identification of the node that sends it, for one life of its process.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub from: Epoch,
    pub content: PeerContent,
}

/// The content of a message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerContent {
    /// The node is there. If it has `views`, it wants to know which readers change.
    Here { views: bool },
    /// Readers of these topics have come or gone.
    Changed { topics: Vec<Topic> },
    /// Readers of any topic may have come or gone: there were too many changes to name them.
    AnyChanged,
    /// A question with a number of the node that asks.
    Question { number: u64, question: PeerQuestion, topics: Vec<Topic> },
    /// The answer to the question with that number, in the order of its topics.
    Answer { number: u64, answer: PeerAnswer },
}

/// A question about topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerQuestion {
    /// The numbers of their subscribers.
    Readers,
    /// The time since a subscriber has last named them.
    Absences,
}

/// An answer of one node.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerAnswer {
    /// The numbers of those that name a topic, and of those with patterns only.
    Readers(Vec<(usize, usize)>),
    /// Milliseconds since a subscriber has last named a topic.
    Absences(Vec<Option<u64>>),
}

impl PeerMessage {
    pub fn new(from: Epoch, content: PeerContent) -> Self {
        Self { v: VERSION, from, content }
    }

    pub fn encode(&self) -> Vec<u8> {
        // Serialization cannot fail: a message consists of strings and numbers.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Decodes a message. Returns `None` if it is of another version, or has too many topics.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message: Self = serde_json::from_slice(bytes).ok()?;
        let topics = match &message.content {
            PeerContent::Changed { topics } | PeerContent::Question { topics, .. } => topics.len(),
            PeerContent::Here { .. } | PeerContent::AnyChanged | PeerContent::Answer { .. } => 0,
        };
        (message.v == VERSION && topics <= MAX_TOPICS).then_some(message)
    }
}

impl PeerAnswer {
    pub fn readers(readers: &[Readers]) -> Self {
        Self::Readers(readers.iter().map(|readers| (readers.exact, readers.by_pattern)).collect())
    }

    pub fn absences(absences: &[Option<Duration>]) -> Self {
        let millis = |absence: Duration| u64::try_from(absence.as_millis()).unwrap_or(u64::MAX);
        Self::Absences(absences.iter().map(|absence| absence.map(millis)).collect())
    }

    /// Returns `true` if it answers the question about so many topics.
    pub fn fits(&self, question: PeerQuestion, topics: usize) -> bool {
        match (self, question) {
            (Self::Readers(readers), PeerQuestion::Readers) => readers.len() == topics,
            (Self::Absences(absences), PeerQuestion::Absences) => absences.len() == topics,
            _ => false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn to_text<S: Serializer>(from: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(from)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(count: usize) -> Vec<Topic> {
        (0..count).map(|number| format!("{number:0255}").parse().unwrap()).collect()
    }

    #[test]
    fn messages_are_small_and_have_one_version() {
        let from = Epoch::new(7);
        let question =
            |topics| PeerContent::Question { number: 1, question: PeerQuestion::Absences, topics };
        let largest = PeerMessage::new(from, question(topics(MAX_TOPICS)));
        let bytes = largest.encode();
        assert!(bytes.len() < 512 << 10, "{}", bytes.len());
        assert_eq!(PeerMessage::decode(&bytes), Some(largest));
        let too_large = PeerMessage::new(from, question(topics(MAX_TOPICS + 1)));
        assert_eq!(PeerMessage::decode(&too_large.encode()), None);

        let here = r#"{"v":1,"from":"0000000000000007","content":{"here":{"views":false}}}"#;
        let message = PeerMessage::new(from, PeerContent::Here { views: false });
        assert_eq!(message.encode(), here.as_bytes());
        assert_eq!(PeerMessage::decode(here.as_bytes()), Some(message));
        for other in [
            here.replace("\"v\":1", "\"v\":2"),
            here.replace("here", "there"),
            here.replace("0007\"", "0007.x\""),
            String::new(),
        ] {
            assert_eq!(PeerMessage::decode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn answers_must_fit_to_their_question() {
        let answer = PeerAnswer::readers(&[Readers { exact: 2, by_pattern: 1 }]);
        assert!(answer.fits(PeerQuestion::Readers, 1));
        assert!(!answer.fits(PeerQuestion::Readers, 2));
        assert!(!answer.fits(PeerQuestion::Absences, 1));
    }
}

//! Entries of the one order that the nodes of a cluster follow, and their format as JSON.
//!
//! A node proposes an entry, the [sequencer](crate::cluster::Sequencer) gives it a position, and
//! each node applies it to its own log. The outcome depends on the entries before it alone.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    retention::{Retention, RetentionRule},
    store::{Appended, Rejected},
};
use crate::{
    event::{Draft, IdempotencyKey, Name, Topic},
    id::Epoch,
    timestamp::Timestamp,
    trace::Trace,
};

/// Version of the format. A node that meets an entry of a later one must stop, since it does not
/// know its effect.
const VERSION: u32 = 2;
/// The version of entries that the first programs with a cluster understand, too: those without a
/// rule or a change of the retention.
const FIRST_VERSION: u32 = 1;

/// An entry that a node proposes.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Identification of the proposal, under which it may be sent again.
    pub tag: Tag,
    /// The place in the order up to which its sender had applied all entries.
    pub seen: OrderPlace,
    /// The entry.
    pub entry: Entry,
}

/// Identification of a proposal. A proposal is applied only if its number is higher than those of
/// all proposals of its sender before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// One life of a node's process.
    pub sender: String,
    /// The number of the proposal, from 1.
    pub number: u64,
}

/// A place in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlace {
    /// The position of the last entry before it; 0 at the beginning.
    pub position: u64,
    /// A digest of all entries up to there. Nodes whose digests differ have not applied the same.
    pub digest: u64,
}

/// A change of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The first entry: the log is empty.
    Begin {
        /// The epoch of the log.
        epoch: Epoch,
        /// The events that are kept.
        retention: Retention,
    },
    /// Drafts of one commit, in order.
    Append(Vec<Draft>),
    /// The deletion of the events of a topic.
    Delete(Topic),
    /// Another retention.
    Retain(Retention),
    /// Some events were lost, or may have been: a new epoch begins.
    Epoch {
        /// The new epoch.
        epoch: Epoch,
        /// A sequence number that no event of any node exceeds.
        newest: u64,
    },
    /// A part of a [`Snapshot`]. It changes nothing.
    Snapshot(SnapshotPart),
    /// A part of the log of a single process, before the order begins.
    Import(ImportPart),
    /// A message of another program. It changes nothing.
    Foreign,
}

/// A part of a snapshot as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Identification of the snapshot.
    pub id: String,
    /// The number of the part, from 0.
    pub part: usize,
    /// The number of parts.
    pub parts: usize,
    /// The text of the part.
    pub text: String,
    /// `true` if the snapshot has rules of the retention, which the first version does not know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_rules: bool,
}

/// The state of a mirror at a place, without its events. All of these come from entries after the
/// base. So a node can begin there, and the entries before are not needed any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// A place before all kept events.
    pub base: Mark,
    /// The place of the state.
    pub at: Mark,
    pub(super) epoch: String,
    pub(super) forgotten: u64,
    /// The retention at the place of the state.
    pub(super) retention: WireRetention,
    /// The retention at the base, if it was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base_retention: Option<WireRetention>,
    pub(super) topics: Vec<SnapshotTopic>,
    /// The last proposal of each sender: its number and its position.
    pub(super) senders: Vec<(String, u64, u64)>,
    /// The drafts between the base and the place that were no new events: the positions of their
    /// entries, and their numbers there. [`WHOLE_ENTRY`] stands for all that an entry would change.
    pub(super) refused: Vec<(u64, i64)>,
}

/// Identification of the log of a single process and of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportId {
    /// The epoch of the log, which becomes that of the order.
    pub(super) epoch: String,
    /// A digest of all that a change of the log would change, too.
    pub(super) digest: u64,
}

/// A part of the log of a single process. All parts make it the beginning of the order. The content
/// of the log has a line of places, from 0: those of its events, then those of its topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportPart {
    pub(super) log: ImportId,
    /// The place after which the part begins.
    pub(super) after: u64,
    /// The place at which it ends.
    pub(super) up_to: u64,
    /// In their order.
    pub(super) events: Vec<ImportedEvent>,
    pub(super) topics: Vec<SnapshotTopic>,
    /// The newest event of forgotten topics, in the last part.
    pub(super) forgotten: Option<u64>,
}

/// An event in the log of a single process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImportedEvent {
    pub sequence: u64,
    pub topic: Topic,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub time_ms: u64,
    pub data: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The part of the log of a single process that a mirror has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportProgress {
    /// The log.
    pub log: ImportId,
    /// The place up to which the mirror has it.
    pub up_to: u64,
    /// `true` if the mirror has all of it.
    pub is_complete: bool,
}

impl ImportPart {
    /// Returns `true` if the part is the next one after those of the progress.
    pub(super) fn follows(&self, progress: Option<&ImportProgress>) -> bool {
        match progress {
            None => self.after == 0,
            Some(ImportProgress { log, up_to, is_complete }) => {
                !is_complete && self.log == *log && self.after == *up_to
            }
        }
    }

    /// Returns the progress with this part.
    pub(super) fn progress(&self) -> ImportProgress {
        let Self { log, up_to, forgotten, .. } = self;
        ImportProgress { log: log.clone(), up_to: *up_to, is_complete: forgotten.is_some() }
    }
}

/// The number of a draft that stands for all of its entry.
pub(super) const WHOLE_ENTRY: i64 = -1;

/// A place in the order, and what a mirror needs to continue from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The place.
    pub place: OrderPlace,
    /// The digest of the last entry before it.
    pub last: u64,
    pub(super) time_ms: u64,
    /// The newest sequence number.
    pub newest: u64,
}

/// A topic in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotTopic {
    pub topic: String,
    pub dropped: u64,
    pub end: Option<SnapshotEnd>,
}

/// The end of a topic in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotEnd {
    pub sequence: u64,
    pub time_ms: u64,
    pub data: String,
    pub is_reopened: bool,
    /// Publishers and keys.
    pub keys: Vec<(String, String)>,
}

impl Snapshot {
    /// Returns the snapshot as parts of about `size` bytes.
    pub fn split(&self, id: &str, size: usize) -> Vec<SnapshotPart> {
        // Serialization cannot fail: the keys of all maps are strings.
        let text = serde_json::to_string(self).unwrap_or_default();
        let mut texts = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let mut end = size.max(4).min(rest.len());
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (part, others) = rest.split_at(end);
            texts.push(part.to_owned());
            rest = others;
        }
        let parts = texts.len();
        let has_rules = [Some(&self.retention), self.base_retention.as_ref()]
            .into_iter()
            .flatten()
            .any(|retention| !retention.rules.is_empty());
        let part = |(part, text)| SnapshotPart { id: id.to_owned(), part, parts, text, has_rules };
        texts.into_iter().enumerate().map(part).collect()
    }

    /// Returns the snapshots that are complete.
    pub fn collect(parts: impl IntoIterator<Item = SnapshotPart>) -> Vec<Self> {
        let mut by_id: HashMap<String, BTreeMap<usize, SnapshotPart>> = HashMap::new();
        for part in parts {
            by_id.entry(part.id.clone()).or_default().insert(part.part, part);
        }
        let parse = |parts: BTreeMap<usize, SnapshotPart>| {
            let count = parts.first_key_value()?.1.parts;
            let text: String = parts.values().map(|part| part.text.as_str()).collect();
            (parts.len() == count).then(|| serde_json::from_str(&text).ok())?
        };
        by_id.into_values().filter_map(parse).collect()
    }
}

/// An entry with its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequenced {
    /// The number of the entry, from 1. Numbers may be skipped.
    pub position: u64,
    /// The time that the sequencer has given it.
    pub time: Timestamp,
    /// A digest of the bytes of the entry.
    pub digest: u64,
    /// The entry.
    pub proposal: Proposal,
}

/// The part of the order that a log has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Identification of the stream that has the entries; empty before the first entry.
    pub stream: String,
    /// The place after the last of them.
    pub place: OrderPlace,
    /// The digest of the last of them alone.
    pub last: u64,
    /// The retention of all nodes; `None` before the first entry.
    pub retention: Option<Retention>,
    /// `true` between a snapshot's base and its place. The log must not be served then.
    pub is_joining: bool,
    /// The place that the sender of the last entry had seen, if this log has other entries there:
    /// one of the two has entries that the stream has lost.
    pub doubt: Option<OrderPlace>,
    /// The import of the log of a single process, if there was one. The order has begun with it if
    /// the retention is known.
    pub import: Option<ImportProgress>,
}

/// The outcome of an entry, which is the same on all nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryOutcome {
    /// The entry had been applied before, or comes too late: a later proposal of its sender
    /// precedes it.
    Repeated,
    /// The log has begun.
    Begun,
    /// The log has another retention.
    Retained,
    /// One result for each draft, in order.
    Appended(Vec<Result<Appended, Rejected>>),
    /// The number of deleted events of the topic.
    Deleted(Topic, u64),
    /// A new epoch has begun.
    NewEpoch(Epoch),
    /// The part of the log of a single process is there.
    Imported,
    /// The entry changes nothing.
    Unchanged,
}

/// An entry that a later version has written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {position} of the cluster was written by a newer waterclock: its format is {version}, \
     this program knows {VERSION}"
)]
pub struct NewerEntry {
    /// Its position.
    pub position: u64,
    /// The number of its format.
    pub version: u32,
}

impl Entry {
    /// Returns the lowest version of the format that has the entry with all its effects.
    fn version(&self) -> u32 {
        let is_newer = match self {
            Self::Begin { retention, .. } => !retention.rules.is_empty(),
            Self::Snapshot(part) => part.has_rules,
            Self::Retain(_) => true,
            _ => false,
        };
        if is_newer { VERSION } else { FIRST_VERSION }
    }
}

impl Proposal {
    /// Returns the proposal as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Self { tag, seen, entry } = self;
        let wire = Wire {
            v: entry.version(),
            tag: Cow::Borrowed(tag),
            seen: *seen,
            entry: WireEntry::from(entry),
        };
        // Serialization cannot fail: the keys of all maps are strings.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// Returns the size of a draft in a proposal, in bytes.
    pub fn size_of(draft: &Draft) -> usize {
        let mut size = Size(0);
        // Neither the serialization nor the counting can fail.
        let _ = serde_json::to_writer(&mut size, &WireDraft::from(draft));
        size.0 + 1
    }
}

/// A writer that counts bytes.
struct Size(usize);

impl Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sequenced {
    /// Parses the bytes of an entry. Those that another program has written are an entry, too, so
    /// that nobody can stop a cluster with them.
    ///
    /// # Errors
    ///
    /// If a later version has written them.
    pub fn decode(position: u64, time: Timestamp, bytes: &[u8]) -> Result<Self, NewerEntry> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        if let Ok(Version { v: version }) = serde_json::from_slice(bytes)
            && version > VERSION
        {
            return Err(NewerEntry { position, version });
        }
        let parse = || {
            let wire: Wire<'_> =
                serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            let Wire { tag, seen, entry, .. } = wire;
            Ok::<_, String>(Proposal { tag: tag.into_owned(), seen, entry: entry.parse()? })
        };
        let proposal = parse().unwrap_or_else(|reason| {
            tracing::warn!(position, "a message of the cluster is not one of waterclock: {reason}");
            let tag = Tag { sender: String::new(), number: 0 };
            Proposal { tag, seen: OrderPlace::default(), entry: Entry::Foreign }
        });
        Ok(Self { position, time, digest: digest(bytes), proposal })
    }
}

impl OrderPlace {
    /// Returns the place after the next entry.
    #[must_use]
    pub fn after(self, entry: &Sequenced) -> Self {
        let all = [self.digest, entry.position, entry.digest].map(u64::to_le_bytes);
        Self { position: entry.position, digest: digest(all.as_flattened()) }
    }
}

/// Computes the digest of the bytes of an entry: the FNV-1a hash of 64 bits, which is the same in
/// all versions and on all machines. It finds accidents, not attacks.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A proposal in JSON.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    v: u32,
    tag: Cow<'a, Tag>,
    seen: OrderPlace,
    #[serde(borrow)]
    entry: WireEntry<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireEntry<'a> {
    Begin {
        epoch: String,
        retention: WireRetention,
    },
    #[serde(borrow)]
    Append(Vec<WireDraft<'a>>),
    Delete(Cow<'a, str>),
    Retain(WireRetention),
    Epoch {
        epoch: String,
        newest: u64,
    },
    Snapshot(SnapshotPart),
    Import(Cow<'a, ImportPart>),
    Foreign,
}

/// A retention in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WireRetention {
    count: usize,
    clock_count: usize,
    age_ms: u64,
    bytes: usize,
    topics: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<WireRule>,
}

/// A rule of a retention in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireRule {
    pattern: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct WireDraft<'a> {
    topic: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    data: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publisher: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reopen: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unless_ended_after: Option<u64>,
}

impl<'a> From<&'a Entry> for WireEntry<'a> {
    fn from(entry: &'a Entry) -> Self {
        match entry {
            Entry::Begin { epoch, retention } => {
                Self::Begin { epoch: epoch.to_string(), retention: WireRetention::from(retention) }
            }
            Entry::Append(drafts) => Self::Append(drafts.iter().map(WireDraft::from).collect()),
            Entry::Delete(topic) => Self::Delete(topic.as_str().into()),
            Entry::Retain(retention) => Self::Retain(WireRetention::from(retention)),
            Entry::Epoch { epoch, newest } => {
                Self::Epoch { epoch: epoch.to_string(), newest: *newest }
            }
            Entry::Snapshot(part) => Self::Snapshot(part.clone()),
            Entry::Import(part) => Self::Import(Cow::Borrowed(part)),
            Entry::Foreign => Self::Foreign,
        }
    }
}

impl WireEntry<'_> {
    fn parse(self) -> Result<Entry, String> {
        let epoch = |text: String| text.parse().map_err(|_| format!("{text:?} is no epoch"));
        Ok(match self {
            Self::Begin { epoch: text, retention } => {
                Entry::Begin { epoch: epoch(text)?, retention: retention.try_into()? }
            }
            Self::Append(drafts) => {
                Entry::Append(drafts.into_iter().map(WireDraft::parse).collect::<Result<_, _>>()?)
            }
            Self::Delete(topic) => Entry::Delete(parse_topic(&topic)?),
            Self::Retain(retention) => Entry::Retain(retention.try_into()?),
            Self::Epoch { epoch: text, newest } => Entry::Epoch { epoch: epoch(text)?, newest },
            Self::Snapshot(part) => Entry::Snapshot(part),
            Self::Import(part) => Entry::Import(part.into_owned()),
            Self::Foreign => Entry::Foreign,
        })
    }
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

impl<'a> From<&'a Draft> for WireDraft<'a> {
    fn from(draft: &'a Draft) -> Self {
        let key = draft.key.as_ref();
        Self {
            topic: draft.topic.as_str().into(),
            name: (draft.name != Name::default()).then(|| draft.name.as_str().into()),
            data: draft.data.as_str().into(),
            publisher: key.map(|key| key.publisher.as_str().into()),
            key: key.map(|key| key.key.as_str().into()),
            reopen: draft.is_reopening,
            unless_ended_after: draft.unless_ended_after,
        }
    }
}

impl WireDraft<'_> {
    fn parse(self) -> Result<Draft, String> {
        let name = self.name.unwrap_or_default();
        let end = Name::topic_end();
        let name = if name == end.as_str() {
            end
        } else {
            name.parse().map_err(|error| format!("{name:?}: {error}"))?
        };
        let key = self.key.map(|key| IdempotencyKey {
            publisher: self.publisher.unwrap_or_default().into_owned(),
            key: key.into_owned(),
        });
        Ok(Draft {
            topic: parse_topic(&self.topic)?,
            name,
            data: self.data.into_owned(),
            key,
            is_reopening: self.reopen,
            unless_ended_after: self.unless_ended_after,
            trace: Trace::default(),
        })
    }
}

impl From<&Retention> for WireRetention {
    fn from(retention: &Retention) -> Self {
        let &Retention { count, clock_count, age, bytes, topics, ref rules } = retention;
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let rules = rules.iter().map(|RetentionRule { pattern, count, age }| WireRule {
            pattern: pattern.to_string(),
            count: *count,
            age_ms: age.map(millis),
        });
        let rules = rules.collect();
        Self { count, clock_count, age_ms: millis(age), bytes, topics, rules }
    }
}

impl TryFrom<WireRetention> for Retention {
    type Error = String;

    fn try_from(wire: WireRetention) -> Result<Self, String> {
        let WireRetention { count, clock_count, age_ms, bytes, topics, rules } = wire;
        let parse = |WireRule { pattern, count, age_ms }| {
            let parsed = pattern.parse().map_err(|error| format!("{pattern:?}: {error}"));
            let age = age_ms.map(Duration::from_millis);
            Ok::<_, String>(RetentionRule { pattern: parsed?, count, age })
        };
        let rules = rules.into_iter().map(parse).collect::<Result<_, _>>()?;
        let age = Duration::from_millis(age_ms);
        Ok(Self { count, clock_count, age, bytes, topics, rules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(entry: Entry) -> Proposal {
        let tag = Tag { sender: "a".to_owned(), number: 7 };
        Proposal { tag, seen: OrderPlace { position: 41, digest: u64::MAX }, entry }
    }

    const GENERAL: &str = r#""count":1,"clock_count":2,"age_ms":3,"bytes":4,"topics":5"#;

    fn ruled() -> Retention {
        let rule = |pattern: &str| RetentionRule::new(pattern.parse().unwrap());
        let rules = vec![
            RetentionRule { count: Some(0), age: Some(Duration::from_millis(1)), ..rule("a.>") },
            RetentionRule { age: Some(Duration::from_millis(u64::MAX)), ..rule("*") },
            rule("b"),
        ];
        Retention { rules, ..Retention::default() }
    }

    fn imported(name: &str, key: Option<&str>) -> ImportedEvent {
        ImportedEvent {
            sequence: 7,
            topic: "a.b".parse().unwrap(),
            name: name.to_owned(),
            time_ms: 5,
            data: "größe\n".to_owned(),
            publisher: key.map(|_| String::new()),
            key: key.map(str::to_owned),
        }
    }

    #[test]
    fn entries_survive_the_wire() {
        let key = IdempotencyKey { publisher: String::new(), key: "k\u{0}\"".to_owned() };
        let draft = |name| Draft::new("a.b".parse().unwrap(), "größe\n\u{1}\"").named(name);
        let drafts = vec![
            draft(Name::default()),
            draft("created".parse().unwrap()).with_key(key).reopening(),
            Draft { unless_ended_after: Some(0), ..draft(Name::topic_end()) },
        ];
        for entry in [
            Entry::Begin { epoch: Epoch::new(3), retention: Retention::default() },
            Entry::Begin { epoch: Epoch::new(3), retention: ruled() },
            Entry::Append(drafts),
            Entry::Append(Vec::new()),
            Entry::Delete("a.b".parse().unwrap()),
            Entry::Epoch { epoch: Epoch::new(u64::MAX), newest: 9 },
            Entry::Snapshot(SnapshotPart {
                id: "a".to_owned(),
                part: 1,
                parts: 2,
                text: "{\"ä".to_owned(),
                has_rules: true,
            }),
            Entry::Retain(ruled()),
            Entry::Import(ImportPart {
                log: ImportId { epoch: Epoch::new(3).to_string(), digest: u64::MAX },
                after: 0,
                up_to: 7,
                events: vec![imported("", None), imported("created", Some("k\u{0}"))],
                topics: vec![SnapshotTopic { topic: "a".to_owned(), dropped: 5, end: None }],
                forgotten: Some(0),
            }),
        ] {
            let proposal = proposal(entry);
            let time = Timestamp::from_millis(5);
            let decoded = Sequenced::decode(42, time, &proposal.encode()).unwrap();
            assert_eq!((decoded.position, decoded.time), (42, time));
            assert_eq!(decoded.proposal, proposal);
        }
    }

    #[test]
    fn entries_of_others_are_told_from_newer_ones() {
        let decode = |text: &str| Sequenced::decode(9, Timestamp::from_millis(0), text.as_bytes());
        let newer = decode(r#"{"v":3,"merge":[]}"#).unwrap_err();
        assert_eq!(newer, NewerEntry { position: 9, version: 3 });
        let entry = |entry: &str| {
            let (tag, seen) = (r#"{"sender":"a","number":1}"#, r#"{"position":0,"digest":0}"#);
            format!(r#"{{"v":1,"tag":{tag},"seen":{seen},"entry":{entry}}}"#)
        };
        let found = |text: &str| decode(text).unwrap().proposal.entry;
        assert_eq!(found(&entry(r#"{"delete":"a"}"#)), Entry::Delete("a".parse().unwrap()));
        for text in [
            "",
            "order 7",
            "{}",
            r#"{"v":1}"#,
            &entry(r#""merge""#),
            &entry(r#"{"merge":[]}"#),
            &entry(r#"{"delete":"a..b"}"#),
            &entry(&format!(r#"{{"retain":{{{GENERAL},"rules":[{{"pattern":"a..b"}}]}}}}"#)),
            &entry(r#"{"append":[{"topic":"a","name":"gap","data":""}]}"#),
        ] {
            assert_eq!(found(text), Entry::Foreign, "{text}");
        }
    }

    /// An older program must neither overlook rules and changes, nor stop without them.
    #[test]
    fn only_entries_with_rules_or_changes_of_the_retention_are_newer() {
        let version = |entry| {
            let bytes = proposal(entry).encode();
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["v"].as_u64().unwrap()
        };
        let begin = |retention| Entry::Begin { epoch: Epoch::new(3), retention };
        assert_eq!(version(begin(Retention::default())), 1);
        assert_eq!(version(begin(ruled())), 2);
        assert_eq!(version(Entry::Append(Vec::new())), 1);
        assert_eq!(version(Entry::Retain(Retention::default())), 2);
        let mark = Mark { place: OrderPlace::default(), last: 0, time_ms: 0, newest: 0 };
        let plain = WireRetention::from(&Retention::default());
        let snapshot = Snapshot {
            base: mark,
            at: mark,
            epoch: Epoch::new(3).to_string(),
            forgotten: 0,
            retention: plain.clone(),
            base_retention: None,
            topics: Vec::new(),
            senders: Vec::new(),
            refused: Vec::new(),
        };
        for (base, at, expected) in [
            (None, plain.clone(), 1),
            (Some(plain.clone()), plain.clone(), 1),
            (None, WireRetention::from(&ruled()), 2),
            (Some(WireRetention::from(&ruled())), plain, 2),
        ] {
            let snapshot = Snapshot { base_retention: base, retention: at, ..snapshot.clone() };
            let parts = snapshot.split("a", 40);
            let versions = parts.iter().cloned().map(|part| version(Entry::Snapshot(part)));
            assert!(versions.into_iter().all(|version| version == expected));
            assert_eq!(Snapshot::collect(parts), [snapshot]);
        }
        // As the first version has written it.
        let old =
            format!(r#"{{"begin":{{"epoch":"{}","retention":{{{GENERAL}}}}}}}"#, Epoch::new(3));
        let old = serde_json::from_str::<WireEntry<'_>>(&old).unwrap().parse().unwrap();
        let Entry::Begin { retention, .. } = old else { panic!("{old:?}") };
        assert_eq!((retention.bytes, retention.rules), (4, Vec::new()));
    }

    #[test]
    fn digests_depend_on_each_entry_and_its_position() {
        let entry = |position, topic: &str| {
            let proposal = proposal(Entry::Delete(topic.parse().unwrap()));
            Sequenced::decode(position, Timestamp::from_millis(0), &proposal.encode()).unwrap()
        };
        let after =
            |entries: &[Sequenced]| entries.iter().fold(OrderPlace::default(), OrderPlace::after);
        let [a, b] = [entry(1, "a"), entry(2, "b")];
        let both = after(&[a.clone(), b.clone()]);
        assert_eq!(both.position, 2);
        for other in [vec![b.clone()], vec![a.clone(), entry(2, "a")], vec![entry(2, "a"), b]] {
            assert_ne!(after(&other).digest, both.digest);
        }
        assert_ne!(after(&[a]).digest, after(&[entry(2, "a")]).digest);
    }
}

//! A topic with its figures, and the texts for them.

use serde::Serialize;
use waterclock::{event::Topic, notice::Outcome, timestamp::Timestamp};
use waterclock_leptos::browser::internal::{FromJson, Json};

/// A topic with its figures, as the server's public interface has them (docs/topics.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedTopic {
    /// Its name.
    pub topic: Topic,
    /// Number of events kept.
    pub events: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Number of events published since the server started.
    pub published: u64,
    /// The newest event kept.
    pub newest: Option<NewestEvent>,
    /// Number of readers that name the topic.
    pub readers: u64,
    /// Number of readers that have only patterns that match it.
    pub pattern_readers: u64,
    /// The publisher's verdict, if the topic has ended.
    pub outcome: Option<Outcome>,
}

/// The newest event of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NewestEvent {
    /// Time at which the server accepted it.
    pub time: Timestamp,
}

impl FromJson for NewestEvent {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self { time: json.parse("time")? })
    }
}

impl FromJson for ListedTopic {
    fn from_json(json: &Json) -> Option<Self> {
        let outcome: Option<String> = json.parse("outcome");
        let outcome = outcome
            .and_then(|name| Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name));
        Some(Self {
            topic: json.parse("topic")?,
            events: json.number("events")?,
            bytes: json.number("bytes")?,
            published: json.number("published")?,
            newest: json.get("newest").and_then(|newest| NewestEvent::from_json(&newest)),
            readers: json.number("readers")?,
            pattern_readers: json.number("pattern_readers")?,
            outcome,
        })
    }
}

/// Writes a number of bytes, with a decimal if it is short.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) => format!("{} {name}", tenths_text(bytes / (unit / 10))),
    }
}

/// Writes a rate, given in tenths of an event per second.
pub(super) fn rate_text(tenths: u64) -> String {
    format!("{}/s", if tenths == 0 { "0".to_owned() } else { tenths_text(tenths) })
}

/// Writes a number of tenths, with the decimal only if the number is below 100.
fn tenths_text(tenths: u64) -> String {
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if whole < 100 { format!("{whole}.{tenth}") } else { whole.to_string() }
}

/// Writes the numbers of a topic's readers.
pub(super) fn readers_text(by_name: u64, by_pattern: u64) -> String {
    match (by_name, by_pattern) {
        (_, 0) => by_name.to_string(),
        _ => format!("{} ({by_pattern} by pattern)", by_name + by_pattern),
    }
}

/// Names the state of a topic.
pub(super) fn outcome_text(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        None => "Open",
        Some(Outcome::Done) => "Ended",
        Some(Outcome::Failed) => "Failed",
    }
}

/// Returns the time of the newest event.
pub(super) fn newest_time(topic: &ListedTopic) -> Option<Timestamp> {
    topic.newest.map(|newest| newest.time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_have_three_digits_at_least() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (12_345, "12.3 kB"),
            (999_999, "999 kB"),
            (64_000_000, "64.0 MB"),
            (u64::MAX, "18446744073 GB"),
        ] {
            assert_eq!(size_text(bytes), expected);
        }
        for (tenths, expected) in [(0, "0/s"), (1, "0.1/s"), (10, "1.0/s"), (99_999, "9999/s")] {
            assert_eq!(rate_text(tenths), expected);
        }
    }

    #[test]
    fn readers_by_pattern_are_told_apart() {
        assert_eq!(readers_text(0, 0), "0");
        assert_eq!(readers_text(2, 0), "2");
        assert_eq!(readers_text(2, 1), "3 (1 by pattern)");
    }
}

//! Retention: the events that a log keeps.

use std::time::Duration;

use crate::{event::Topic, pattern::Pattern};

/// Maximum number of kept events of the built-in load topic: half a minute at the highest rate,
/// which is the slowest polling of `/compare`. The load must not push out other events.
const LOAD_COUNT: usize = 36_000;

/// Lower bounds of the events that a log keeps. The oldest events are dropped first, some time
/// after they exceed a bound.
///
/// ```
/// use std::time::Duration;
/// use waterclock::{Retention, RetentionRule};
///
/// let day = Duration::from_secs(24 * 60 * 60);
/// let audit = RetentionRule { age: Some(365 * day), ..RetentionRule::new("audit.>".parse()?) };
/// let cursors = RetentionRule { count: Some(1), ..RetentionRule::new("*.cursor".parse()?) };
/// let retention = Retention { age: day, rules: vec![audit, cursors], ..Retention::default() };
///
/// // Each setting comes from the first rule that matches the topic and has it.
/// let topic = "audit.cursor".parse()?;
/// assert_eq!((retention.count_of(&topic), retention.age_of(&topic)), (1, 365 * day));
/// assert_eq!(retention.age_of(&"orders.eu".parse()?), day);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Number of events of each topic.
    pub count: usize,
    /// Number of events of the topic `clock`, which are of little use later.
    pub clock_count: usize,
    /// Age of an event.
    pub age: Duration,
    /// Approximate size of all events, in bytes. It takes precedence over the other bounds. Topics
    /// and their ends do not count: their number is bounded.
    pub bytes: usize,
    /// Number of topics that have events. Events of further topics are rejected.
    pub topics: usize,
    /// Other bounds for some topics. Of the rules that match a topic, the first one that has a
    /// number decides on the number, and the first one that has an age decides on the age.
    pub rules: Vec<RetentionRule>,
}

/// Bounds for the topics that a pattern matches, in place of the general ones of [`Retention`].
/// Either may be more or less than the general one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// The topics.
    pub pattern: Pattern,
    /// Number of events of each topic; `None` to leave it to the next rule.
    pub count: Option<usize>,
    /// Age of an event; `None` to leave it to the next rule.
    pub age: Option<Duration>,
}

/// The bounds of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicBounds {
    /// Number of events.
    pub count: usize,
    /// Age of an event by a rule; `None` if the general one counts.
    pub own_age: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: 100_000,
            clock_count: 3600,
            age: Duration::from_secs(24 * 60 * 60),
            bytes: 1 << 30,
            topics: 10_000,
            rules: Vec::new(),
        }
    }
}

impl RetentionRule {
    /// Creates a rule without any bound.
    pub fn new(pattern: Pattern) -> Self {
        Self { pattern, count: None, age: None }
    }
}

impl Retention {
    /// Returns the number of events that are kept of `topic`.
    pub fn count_of(&self, topic: &Topic) -> usize {
        let general = match topic.as_str() {
            Topic::CLOCK => self.clock_count,
            _ => self.count,
        };
        let count = self.rules_for(topic).find_map(|rule| rule.count).unwrap_or(general);
        if topic.as_str() == Topic::LOAD { count.min(LOAD_COUNT) } else { count }
    }

    /// Returns the age up to which events of `topic` are kept.
    pub fn age_of(&self, topic: &Topic) -> Duration {
        self.own_age_of(topic).unwrap_or(self.age)
    }

    /// Returns the bounds of `topic`.
    pub(super) fn bounds_of(&self, topic: &Topic) -> TopicBounds {
        TopicBounds { count: self.count_of(topic), own_age: self.own_age_of(topic) }
    }

    /// Returns `true` if some topics may have an age of their own.
    pub(super) fn has_own_ages(&self) -> bool {
        self.rules.iter().any(|rule| rule.age.is_some())
    }

    fn own_age_of(&self, topic: &Topic) -> Option<Duration> {
        self.rules_for(topic).find_map(|rule| rule.age)
    }

    fn rules_for(&self, topic: &Topic) -> impl Iterator<Item = &RetentionRule> {
        self.rules.iter().filter(|rule| rule.pattern.matches(topic))
    }
}

/// Returns some rules for the topics of simulations.
#[cfg(test)]
pub(crate) fn random_rules(random: &mut fastrand::Rng) -> Vec<RetentionRule> {
    let patterns = ["a", "a.*", "*", "b.>", ">"];
    let rules = (0..random.usize(..4)).map(|_| RetentionRule {
        pattern: patterns[random.usize(..patterns.len())].parse().unwrap(),
        count: random.bool().then(|| random.usize(..40)),
        age: random.bool().then(|| Duration::from_millis(random.u64(..200_000))),
    });
    rules.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_has_a_setting_decides_on_it() {
        let rule = |pattern: &str, count, age: Option<u64>| RetentionRule {
            pattern: pattern.parse().unwrap(),
            count,
            age: age.map(Duration::from_secs),
        };
        let retention = Retention {
            count: 10,
            clock_count: 5,
            age: Duration::from_secs(60),
            rules: vec![
                rule("a.b", None, Some(1)),
                rule("a.*", Some(2), None),
                rule("a.>", Some(3), Some(3)),
                rule("clock", Some(70), None),
                rule("waterclock.>", Some(usize::MAX), None),
            ],
            ..Retention::default()
        };
        for (topic, count, own_age) in [
            ("a", 10, None),
            ("a.b", 2, Some(1)),
            ("a.c", 2, Some(3)),
            ("a.b.c", 3, Some(3)),
            (Topic::CLOCK, 70, None),
            (Topic::LOAD, LOAD_COUNT, None),
        ] {
            let topic: Topic = topic.parse().unwrap();
            let own_age = own_age.map(Duration::from_secs);
            assert_eq!(retention.bounds_of(&topic), TopicBounds { count, own_age }, "{topic}");
            assert_eq!(retention.count_of(&topic), count);
            assert_eq!(retention.age_of(&topic), own_age.unwrap_or(retention.age));
        }
        assert!(retention.has_own_ages());
        let general = Retention { rules: Vec::new(), ..retention };
        assert_eq!(general.count_of(&Topic::clock()), 5);
        assert!(!general.has_own_ages());
    }
}

//! Patterns: which topics are meant.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
};

use crate::event::{MAX_LENGTH, Topic};

/// A topic in which `*` stands for one token, and a last `>` for all the rest, at least one: the rules
/// of NATS' subjects.
///
/// ```
/// # use waterclock::{event::Topic, pattern::Pattern};
/// let pattern: Pattern = "orders.*.created".parse()?;
/// assert!(pattern.matches(&"orders.eu.created".parse::<Topic>()?));
/// assert!(!pattern.matches(&"orders.eu.paid".parse::<Topic>()?));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

/// A text that is not a [`Pattern`].
#[derive(Debug, thiserror::Error)]
#[error(
    "not a pattern: it is a topic in which `*` may stand for one token and a last `>` for all the \
     rest, such as `orders.*.created` or `orders.>`, at most {MAX_LENGTH} bytes long"
)]
pub struct InvalidPattern;

impl Pattern {
    /// The topic that it is, if it has no wildcard.
    pub fn topic(&self) -> Option<Topic> {
        self.0.parse().ok()
    }

    /// Whether every topic that `other` means is meant.
    pub fn covers(&self, other: &Self) -> bool {
        let mut others = other.0.split('.');
        for wanted in self.0.split('.') {
            match (wanted, others.next()) {
                (">", Some(_)) => return true,
                ("*", Some(token)) if token != ">" => {}
                (wanted, Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }

    /// Whether that topic is meant.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut tokens = topic.as_str().split('.');
        for wanted in self.0.split('.') {
            match (wanted, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        // With a plain token for each wildcard it must be a topic.
        let rest = text.strip_suffix(">").filter(|rest| rest.is_empty() || rest.ends_with('.'));
        let tokens = rest.map_or(text.to_owned(), |rest| format!("{rest}x"));
        let tokens: Vec<_> =
            tokens.split('.').map(|token| if token == "*" { "x" } else { token }).collect();
        match tokens.join(".").parse::<Topic>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(InvalidPattern),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Topic> for Pattern {
    fn from(topic: Topic) -> Self {
        Self(topic.as_str().to_owned())
    }
}

/// What a reader asks for: topics that match any of some patterns, at least one. The order in which
/// they were asked for makes no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patterns(BTreeSet<Pattern>);

impl Patterns {
    /// All of those; none if there are none.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Option<Self> {
        let patterns: BTreeSet<_> = patterns.into_iter().collect();
        (!patterns.is_empty()).then_some(Self(patterns))
    }

    /// Whether that topic is meant.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }

    /// Those of the keys that are meant, with their values. As many steps as there are patterns, or, with
    /// wildcards, as there are keys.
    pub fn select<'a, T>(&self, of: &'a HashMap<Topic, T>) -> Vec<(&'a Topic, &'a T)> {
        let topics: Option<Vec<Topic>> = self.0.iter().map(Pattern::topic).collect();
        match topics {
            Some(topics) => topics.iter().filter_map(|topic| of.get_key_value(topic)).collect(),
            None => of.iter().filter(|(topic, _)| self.matches(topic)).collect(),
        }
    }

    /// Each of them, once.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }
}

impl From<Pattern> for Patterns {
    fn from(pattern: Pattern) -> Self {
        Self(BTreeSet::from([pattern]))
    }
}

impl From<Topic> for Patterns {
    fn from(topic: Topic) -> Self {
        Self(BTreeSet::from([topic.into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(&topic.parse().unwrap())
    }

    #[test]
    fn what_each_stands_for() {
        for (pattern, topic, expected) in [
            ("clock", "clock", true),
            ("clock", "clocks", false),
            ("clock", "clock.a", false),
            ("clock.a", "clock", false),
            ("*", "clock", true),
            ("*", "a.b", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("a.*.c", "a.c", false),
            (">", "clock", true),
            (">", "a.b.c", true),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.>", "b.c", false),
            ("*.>", "a.b.c", true),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn what_each_covers() {
        for (pattern, other, expected) in [
            ("a.*", "a.b", true),
            ("a.*", "a.*", true),
            ("a.*", "a.>", false),
            ("a.>", "a.>", true),
            ("a.>", "a.*.c", true),
            ("a.>", "a", false),
            (">", ">", true),
            (">", "*", true),
            ("*", ">", false),
            ("a.b", "a.*", false),
            ("*.b", "a.*", false),
        ] {
            let covers = pattern.parse::<Pattern>().unwrap().covers(&other.parse().unwrap());
            assert_eq!(covers, expected, "{pattern} {other}");
        }
    }

    #[test]
    fn any_of_several() {
        let patterns = ["b.*", "a", "b.*"].map(|text| text.parse().unwrap());
        let patterns = Patterns::new(patterns).unwrap();
        assert_eq!(patterns.iter().count(), 2);
        for (topic, expected) in [("a", true), ("b.c", true), ("b", false), ("c", false)] {
            assert_eq!(patterns.matches(&topic.parse().unwrap()), expected, "{topic}");
        }
        assert_eq!(Patterns::new([]), None);
    }

    #[test]
    fn what_is_none() {
        let long = "x".repeat(MAX_LENGTH + 1);
        for text in ["", ".", "a.", ".a", "a..b", ">.a", "a>", "a*", "a.*b", "ä", "a b", &long] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
    }
}

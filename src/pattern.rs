//! Patterns, by which readers select topics.
//!
//! ```
//! use waterclock::{Pattern, Patterns, Topic};
//!
//! let pattern: Pattern = "orders.*.created".parse()?;
//! assert!(pattern.matches(&"orders.eu.created".parse::<Topic>()?));
//! assert!(!pattern.matches(&"orders.eu.paid".parse::<Topic>()?));
//!
//! let patterns = Patterns::new([pattern, "invoices.>".parse()?]).ok_or("no pattern")?;
//! assert!(patterns.matches(&"invoices.eu.paid".parse::<Topic>()?));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

use std::{borrow::Borrow, collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use crate::event::{MAX_LENGTH, Topic};

/// Maximum number of tokens of a pattern with a wildcard. Without one, [`MAX_LENGTH`] is the limit.
pub const MAX_TOKENS: usize = 16;
/// Maximum number of `*` in a pattern. Each of them doubles the number of ways in which a topic may
/// match, so these two limits bound the work of a publish.
pub const MAX_STARS: usize = 5;

/// A topic with wildcards, by the rules of NATS subjects: `*` matches one token, and a final `>`
/// matches one or more tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

/// A text that is not a [`Pattern`].
#[derive(Debug, thiserror::Error)]
#[error(
    "not a pattern: a pattern is a topic in which `*` may stand for one token and a final `>` for \
     all the rest, such as `orders.*.created` or `orders.>`. It has at most {MAX_LENGTH} bytes, \
     and with a wildcard at most {MAX_TOKENS} tokens and {MAX_STARS} `*`"
)]
pub struct InvalidPattern;

impl Pattern {
    /// Returns the pattern that matches every topic.
    pub fn all() -> Self {
        Self(">".into())
    }

    /// Returns the pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `true` if the pattern matches more than one topic.
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['*', '>'])
    }

    /// Returns the pattern as a topic, or `None` if it has a wildcard.
    pub fn topic(&self) -> Option<Topic> {
        self.0.parse().ok()
    }

    /// Returns `true` if this pattern matches every topic that `other` matches.
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

    /// Returns `true` if some topic matches both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }

    /// Returns the pattern that matches what both match; `None` if no topic matches both.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (mut ours, mut others) = (self.0.split('.'), other.0.split('.'));
        let mut tokens = Vec::new();
        loop {
            match (ours.next(), others.next()) {
                (None, None) => break,
                (Some(">"), Some(token)) => {
                    tokens.push(token);
                    tokens.extend(&mut others);
                }
                (Some(token), Some(">")) => {
                    tokens.push(token);
                    tokens.extend(&mut ours);
                }
                (Some("*"), Some(token)) | (Some(token), Some("*")) => tokens.push(token),
                (Some(one), Some(two)) if one == two => tokens.push(one),
                _ => return None,
            }
        }
        Some(Self(tokens.join(".").into()))
    }

    /// Returns `true` if the pattern matches `topic`.
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
        // With each wildcard replaced by a plain token, a pattern must be a topic.
        let rest = text.strip_suffix(">").filter(|rest| rest.is_empty() || rest.ends_with('.'));
        let tokens = rest.map_or(text.to_owned(), |rest| format!("{rest}x"));
        let tokens: Vec<_> =
            tokens.split('.').map(|token| if token == "*" { "x" } else { token }).collect();
        let pattern = Self(text.into());
        let stars = text.split('.').filter(|token| *token == "*").count();
        let is_too_broad =
            pattern.has_wildcard() && (tokens.len() > MAX_TOKENS || stars > MAX_STARS);
        match tokens.join(".").parse::<Topic>() {
            Ok(_) if !is_too_broad => Ok(pattern),
            _ => Err(InvalidPattern),
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
        Self(topic.as_str().into())
    }
}

impl Borrow<str> for Pattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One or more patterns, without duplicates. They match a topic if any of them does. Their order
/// makes no difference. Clones share the patterns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patterns(Arc<[Pattern]>);

impl Patterns {
    /// Collects the patterns. Returns `None` if there are none.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Option<Self> {
        let patterns: BTreeSet<_> = patterns.into_iter().collect();
        (!patterns.is_empty()).then(|| Self(patterns.into_iter().collect()))
    }

    /// Returns `true` if any of the patterns matches `topic`.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }

    /// Returns `true` if no pattern has a wildcard.
    pub fn are_exact(&self) -> bool {
        self.0.iter().all(|pattern| !pattern.has_wildcard())
    }

    /// Returns the patterns without a wildcard, or `None` if all have one.
    pub fn exact(&self) -> Option<Self> {
        Self::new(self.iter().filter(|pattern| !pattern.has_wildcard()).cloned())
    }

    /// Iterates over the patterns, each once.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }
}

impl From<Pattern> for Patterns {
    fn from(pattern: Pattern) -> Self {
        Self(Arc::new([pattern]))
    }
}

impl From<Topic> for Patterns {
    fn from(topic: Topic) -> Self {
        Self(Arc::new([topic.into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(&topic.parse().unwrap())
    }

    #[test]
    fn wildcards_match_tokens() {
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
    fn a_pattern_covers_narrower_patterns() {
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
    fn an_intersection_matches_what_both_match() {
        for (one, two, expected) in [
            ("a", "a", "a"),
            ("a", "b", ""),
            ("a.*", "*.b", "a.b"),
            ("a.*", "b.*", ""),
            ("a.*", "*", ""),
            ("a.>", "a", ""),
            ("a.>", "*.b.c", "a.b.c"),
            (">", "*.*", "*.*"),
            (">", ">", ">"),
            ("*.>", "a.*.>", "a.*.>"),
            ("*.b.>", "a.>", "a.b.>"),
            ("*.b.>", "a.*", ""),
        ] {
            let expected = (!expected.is_empty()).then(|| expected.parse::<Pattern>().unwrap());
            let [one, two] = [one, two].map(|text| text.parse::<Pattern>().unwrap());
            assert_eq!(one.intersection(&two), expected, "{one} {two}");
            assert_eq!(two.intersection(&one), expected, "{two} {one}");
            assert_eq!(one.overlaps(&two), expected.is_some(), "{one} {two}");
        }
    }

    #[test]
    fn a_topic_must_match_one_of_several_patterns() {
        let patterns = ["b.*", "a", "b.*"].map(|text| text.parse().unwrap());
        let patterns = Patterns::new(patterns).unwrap();
        assert_eq!(patterns.iter().count(), 2);
        for (topic, expected) in [("a", true), ("b.c", true), ("b", false), ("c", false)] {
            assert_eq!(patterns.matches(&topic.parse().unwrap()), expected, "{topic}");
        }
        assert_eq!(Patterns::new([]), None);
    }

    #[test]
    fn invalid_patterns_are_rejected() {
        let long = "x".repeat(MAX_LENGTH + 1);
        for text in ["", ".", "a.", ".a", "a..b", ">.a", "a>", "a*", "a.*b", "ä", "a b", &long] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns_that_match_in_too_many_ways_are_rejected() {
        let tokens = |count| vec!["a"; count].join(".");
        for (text, is_valid) in [
            (tokens(MAX_TOKENS - 1) + ".>", true),
            (tokens(MAX_TOKENS) + ".>", false),
            (tokens(MAX_TOKENS - 1) + ".*", true),
            (tokens(MAX_TOKENS) + ".*", false),
            (tokens(MAX_TOKENS + 1), true),
            (["*"; MAX_STARS].join(".") + ".>", true),
            (["*"; MAX_STARS + 1].join("."), false),
        ] {
            assert_eq!(text.parse::<Pattern>().is_ok(), is_valid, "{text}");
        }
    }
}

//! A map of topics, in which those that match some patterns are found without trying the others.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};

use crate::{
    event::Topic,
    matcher::{Matcher, StateId},
    pattern::Patterns,
};

/// Values by topic, in the order of the topics' tokens.
#[derive(Debug)]
pub(super) struct TopicMap<T> {
    /// In a key, NUL separates the tokens. It is less than any character of a token, so all topics
    /// with the same first tokens follow one another.
    by_key: BTreeMap<String, T>,
}

const SEPARATOR: char = '\0';
/// The character after the separator: less than any of a token, too.
const AFTER_SEPARATOR: char = '\x01';

impl<T> Default for TopicMap<T> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new() }
    }
}

impl<T> TopicMap<T> {
    /// Returns the number of topics.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns the value of a topic.
    pub fn get(&self, topic: &Topic) -> Option<&T> {
        self.by_key.get(&key(topic))
    }

    /// Adds a topic, or replaces its value.
    pub fn insert(&mut self, topic: &Topic, value: T) {
        self.by_key.insert(key(topic), value);
    }

    /// Removes a topic, and returns its value.
    pub fn remove(&mut self, topic: &Topic) -> Option<T> {
        self.by_key.remove(&key(topic))
    }

    /// Returns the values of all topics.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.by_key.values()
    }

    /// Calls `found` with the value of each topic that matches. Returns the number of topics that
    /// it has looked at.
    pub fn find<'a>(&'a self, patterns: &Patterns, mut found: impl FnMut(&'a T)) -> usize {
        self.find_after(patterns, None, |value| {
            found(value);
            true
        })
    }

    /// Calls `found` with the value of each topic that matches, after the topic `after`, until it
    /// returns `false`. Returns the number of topics that it has looked at.
    pub fn find_after<'a>(
        &'a self,
        patterns: &Patterns,
        after: Option<&Topic>,
        mut found: impl FnMut(&'a T) -> bool,
    ) -> usize {
        let mut path = Path { matcher: Matcher::new(patterns), key: "", states: Vec::new() };
        let after = after.map(key);
        let start = after.as_deref().map_or(Unbounded, Excluded);
        let mut topics = self.by_key.range::<str, _>((start, Unbounded));
        let mut visited = 0;
        while let Some((key, value)) = topics.next() {
            visited += 1;
            match path.go_to(key) {
                Step::Matches if !found(value) => break,
                Step::Matches | Step::Differs => {}
                Step::ContinueAt(key) => {
                    topics = self.by_key.range::<str, _>((Included(key.as_str()), Unbounded));
                }
                Step::End => break,
            }
        }
        visited
    }
}

fn key(topic: &Topic) -> String {
    topic.as_str().replace('.', "\0")
}

/// The way of a matcher to the last topic that it looked at.
struct Path<'a> {
    matcher: Matcher<'a>,
    key: &'a str,
    /// The states after the first, the first two … tokens of the key, as far as there are any, and
    /// the length of these tokens with their separators.
    states: Vec<(StateId, usize)>,
}

enum Step {
    Matches,
    Differs,
    /// No topic matches before this key.
    ContinueAt(String),
    /// No further topic matches.
    End,
}

impl<'a> Path<'a> {
    /// Goes on to a later key, from the tokens that both keys begin with.
    fn go_to(&mut self, key: &'a str) -> Step {
        let (last, next) = (self.key.as_bytes(), key.as_bytes());
        let common = last.iter().zip(next).take_while(|(last, next)| last == next).count();
        // The tokens up to here are the same if both keys end with the last one, or go on with a
        // separator.
        let is_common = |&(_, length): &(StateId, usize)| {
            let end = length - 1;
            end <= common && next.get(end).is_none_or(|byte| *byte == SEPARATOR as u8)
        };
        self.states.truncate(self.states.partition_point(is_common));
        self.key = key;
        let (mut state, mut begin) = self.states.last().copied().unwrap_or((Matcher::START, 0));
        while let Some(rest) = key.get(begin..) {
            if self.matcher.has_rest(state) {
                return Step::Matches;
            }
            let token = rest.split(SEPARATOR).next().unwrap_or(rest);
            let Some(next) = self.matcher.next(state, token) else {
                return self.skip(state, begin, token);
            };
            (state, begin) = (next, begin + token.len() + 1);
            self.states.push((state, begin));
        }
        if self.matcher.is_end(state) { Step::Matches } else { Step::Differs }
    }

    /// Skips the topics that go on as no pattern does.
    fn skip(&self, state: StateId, begin: usize, token: &str) -> Step {
        if let Some(literal) = self.matcher.next_literal(state, token) {
            return Step::ContinueAt(format!("{}{literal}", &self.key[..begin]));
        }
        match self.key[..begin].strip_suffix(SEPARATOR) {
            Some(beginning) => Step::ContinueAt(format!("{beginning}{AFTER_SEPARATOR}")),
            None => Step::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn map<'a>(topics: impl IntoIterator<Item = &'a Topic>) -> TopicMap<Topic> {
        let mut map = TopicMap::default();
        for topic in topics {
            map.insert(topic, topic.clone());
        }
        map
    }

    fn patterns<'a>(texts: impl IntoIterator<Item = &'a String>) -> Patterns {
        Patterns::new(texts.into_iter().map(|text| text.parse().unwrap())).unwrap()
    }

    fn pattern() -> impl Strategy<Value = String> {
        let token = proptest::sample::select(&["a", "a-b", "b", "*", "*"][..]);
        let last = prop_oneof![3 => Just(""), 1 => Just(".>")];
        let tokens = (vec(token, 1..4), last).prop_map(|(tokens, last)| tokens.join(".") + last);
        prop_oneof![9 => tokens, 1 => Just(">".to_owned())]
    }

    fn topic() -> impl Strategy<Value = Topic> {
        let token = proptest::sample::select(&["a", "a-b", "ab", "b", "c"][..]);
        vec(token, 1..5).prop_map(|tokens| tokens.join(".").parse().unwrap())
    }

    proptest! {
        #[test]
        fn the_map_finds_what_matches_as_topics_come_and_go(
            changes in vec((topic(), any::<bool>()), 1..60),
            texts in vec(pattern(), 1..6),
        ) {
            let patterns = patterns(&texts);
            let mut map = map([]);
            let mut held: Vec<Topic> = Vec::new();
            for (topic, stays) in changes {
                held.retain(|other| *other != topic);
                map.remove(&topic);
                if stays {
                    map.insert(&topic, topic.clone());
                    held.push(topic);
                }
                let mut found = Vec::new();
                map.find(&patterns, |topic| found.push(topic.as_str()));
                found.sort_unstable();
                let mut expected: Vec<_> =
                    held.iter().filter(|topic| patterns.matches(topic)).map(Topic::as_str).collect();
                expected.sort_unstable();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(map.len(), held.len());
            }
            for topic in &held {
                prop_assert_eq!(map.get(topic), Some(topic));
                map.remove(topic);
            }
            prop_assert_eq!(map.len(), 0);
        }
    }

    proptest! {
        #[test]
        fn pages_have_what_matches_in_order(
            topics in vec(topic(), 0..40),
            texts in vec(pattern(), 1..6),
            start in proptest::option::of(topic()),
            limit in 1..5_usize,
        ) {
            let patterns = patterns(&texts);
            let tokens = |topic: &Topic| -> Vec<String> {
                topic.as_str().split('.').map(str::to_owned).collect()
            };
            let by_tokens: std::collections::BTreeMap<_, _> =
                topics.iter().map(|topic| (tokens(topic), topic)).collect();
            let map = map(by_tokens.values().copied());
            let expected: Vec<_> = by_tokens
                .iter()
                .filter(|(key, topic)| {
                    patterns.matches(topic) && start.as_ref().is_none_or(|s| **key > tokens(s))
                })
                .map(|(_, topic)| (*topic).clone())
                .collect();
            let (mut found, mut after) = (Vec::new(), start);
            loop {
                let mut page: Vec<Topic> = Vec::new();
                map.find_after(&patterns, after.as_ref(), |topic| {
                    page.push(topic.clone());
                    page.len() < limit
                });
                prop_assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                found.extend(page);
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn many_patterns_cost_what_they_match_and_not_a_scan_each() {
        let topics: BTreeSet<String> =
            (0..10_000).map(|n| format!("site{}.area{}.d{n}", n % 10, n % 100)).collect();
        let topics: Vec<Topic> = topics.iter().map(|text| text.parse().unwrap()).collect();
        let map = map(&topics);
        let visited = |texts: Vec<String>| map.find(&patterns(&texts), |_| {});
        let narrow = (0..64).map(|n| format!("site1.area{}1.d{n}", n % 10)).collect();
        assert!(visited(narrow) < 200);
        let narrow = (0..64).map(|n| format!("*.area{n}.*.x")).collect();
        assert!(visited(narrow) < 8000);
        // Even patterns that match no topic, and that all have to be tried to its end.
        let broad = (0..64).map(|n| format!("*.*.*.x{n}")).collect();
        assert!(visited(broad) <= topics.len());
        let ways = [["site1", "*"], ["area1", "*"]];
        let broad = (0..64_usize)
            .map(|n| format!("{}.{}.*.x{n}", ways[0][n & 1], ways[1][n >> 1 & 1]))
            .collect();
        assert!(visited(broad) <= topics.len());
    }
}

//! An index of patterns, which finds those that match a topic without trying the others.
//!
//! The patterns that match `a.b` are among `a.b`, `a.*`, `*.b`, `*.*`, `a.>`, `*.>` and `>`. The
//! index builds them from the left, token by token, and gives up on a beginning that no pattern
//! has. So the work depends on the tokens of the topic, not on the number of patterns. For a topic
//! of `n` tokens there are at most 3 × 2ⁿ look-ups, and for any topic fewer than 66,000, because
//! patterns have at most [`MAX_TOKENS`](crate::pattern::MAX_TOKENS) tokens and
//! [`MAX_STARS`](crate::pattern::MAX_STARS) `*`.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
};

use crate::{event::Topic, pattern::Pattern};

/// Values by pattern.
#[derive(Debug)]
pub(super) struct PatternIndex<T> {
    values: HashMap<Pattern, T>,
    /// The number of patterns with a wildcard that begin with some tokens, by the hash of these
    /// tokens. Two beginnings with the same hash cost a needless step, and nothing else.
    beginnings: HashMap<u64, u32, BuildHasherDefault<KeptHasher>>,
    hasher: RandomState,
    /// The hashes of the tokens `*` and `>`.
    star: u64,
    rest: u64,
}

/// A hasher for keys that are random already.
#[derive(Debug, Default)]
struct KeptHasher(u64);

impl Hasher for KeptHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "the keys are numbers");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// The hash of no tokens.
const NO_TOKENS: u64 = 0;

/// Returns the hash of some tokens and one more.
fn extend(beginning: u64, token: u64) -> u64 {
    // The hash of a token is secret, so nobody can choose tokens that collide.
    (beginning.rotate_left(23) ^ token).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<T> Default for PatternIndex<T> {
    fn default() -> Self {
        let hasher = RandomState::new();
        let [star, rest] = ["*", ">"].map(|token| hasher.hash_one(token));
        let (values, beginnings) = (HashMap::new(), HashMap::default());
        Self { values, beginnings, hasher, star, rest }
    }
}

impl<T> PatternIndex<T> {
    /// Returns `true` if the index has no pattern.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.beginnings.is_empty()
    }

    /// Returns the value of the pattern.
    pub fn get_mut(&mut self, pattern: &Pattern) -> Option<&mut T> {
        self.values.get_mut(pattern)
    }

    /// Returns the value of the pattern with a text.
    pub fn get(&self, pattern: &str) -> Option<&T> {
        self.values.get(pattern)
    }

    /// Adds a pattern, which must be new.
    pub fn insert(&mut self, pattern: Pattern, value: T) {
        if pattern.has_wildcard() {
            for beginning in self.beginnings_of(&pattern) {
                *self.beginnings.entry(beginning).or_default() += 1;
            }
        }
        self.values.insert(pattern, value);
    }

    /// Removes a pattern.
    pub fn remove(&mut self, pattern: &Pattern) {
        if self.values.remove(pattern).is_none() || !pattern.has_wildcard() {
            return;
        }
        for beginning in self.beginnings_of(pattern) {
            if let Some(count) = self.beginnings.get_mut(&beginning) {
                *count -= 1;
                if *count == 0 {
                    self.beginnings.remove(&beginning);
                }
            }
        }
    }

    /// Calls `found` with the value of each pattern that matches `topic`. Returns the number of
    /// beginnings that it has tried.
    pub fn find<'a>(&'a self, topic: &Topic, mut found: impl FnMut(&'a T)) -> usize {
        if let Some(value) = self.values.get(topic.as_str()) {
            found(value);
        }
        if self.beginnings.is_empty() {
            return 0;
        }
        let tokens: Vec<_> =
            topic.as_str().split('.').map(|token| (token, self.hasher.hash_one(token))).collect();
        let mut search = Search { index: self, tokens: &tokens, text: String::new(), tried: 0 };
        search.extend(NO_TOKENS, 0, false, &mut found);
        search.tried
    }

    /// Returns the hashes of the pattern's first token, of its first two, and so on.
    fn beginnings_of(&self, pattern: &Pattern) -> Vec<u64> {
        let tokens = pattern.as_str().split('.').map(|token| self.hasher.hash_one(token));
        let hashes = tokens.scan(NO_TOKENS, |beginning, token| {
            *beginning = extend(*beginning, token);
            Some(*beginning)
        });
        hashes.collect()
    }
}

/// A search for the patterns that match a topic.
struct Search<'a, 't, T> {
    index: &'a PatternIndex<T>,
    /// The topic's tokens, with their hashes.
    tokens: &'t [(&'t str, u64)],
    /// The tokens of the pattern so far.
    text: String,
    tried: usize,
}

impl<'a, T> Search<'a, '_, T> {
    /// Finds the patterns that begin with `text`, which matches the first `depth` tokens.
    fn extend(
        &mut self,
        beginning: u64,
        depth: usize,
        has_wildcard: bool,
        found: &mut impl FnMut(&'a T),
    ) {
        let Some(&(token, hash)) = self.tokens.get(depth) else {
            // A pattern without a wildcard has been found already.
            if has_wildcard && let Some(value) = self.index.values.get(self.text.as_str()) {
                found(value);
            }
            return;
        };
        let ways = [
            (token, hash, has_wildcard, depth + 1),
            ("*", self.index.star, true, depth + 1),
            (">", self.index.rest, true, self.tokens.len()),
        ];
        for (token, hash, has_wildcard, depth) in ways {
            let beginning = extend(beginning, hash);
            self.tried += 1;
            if !self.index.beginnings.contains_key(&beginning) {
                continue;
            }
            let length = self.text.len();
            if length > 0 {
                self.text.push('.');
            }
            self.text.push_str(token);
            self.extend(beginning, depth, has_wildcard, found);
            self.text.truncate(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::pattern::{MAX_STARS, MAX_TOKENS};

    fn index(patterns: impl IntoIterator<Item = Pattern>) -> PatternIndex<Pattern> {
        let mut index = PatternIndex::default();
        for pattern in patterns {
            index.insert(pattern.clone(), pattern);
        }
        index
    }

    fn found(index: &PatternIndex<Pattern>, topic: &Topic) -> Vec<Pattern> {
        let mut found = Vec::new();
        index.find(topic, |pattern| found.push(pattern.clone()));
        found.sort_unstable();
        found
    }

    /// Generates patterns and topics of few different tokens, so that many match.
    fn text(tokens: &'static [&'static str]) -> impl Strategy<Value = String> {
        let last = prop_oneof![4 => Just(None), 1 => Just(Some(">"))];
        let token = proptest::sample::select(tokens);
        (vec(token, 1..5), last).prop_map(|(mut tokens, last)| {
            tokens.extend(last);
            tokens.join(".")
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_matches_as_patterns_come_and_go(
            changes in vec((text(&["a", "b", "*"]), any::<bool>()), 0..40),
            topic in text(&["a", "b", "c"]),
        ) {
            let topic: Topic = topic.replace(".>", ".a").parse().unwrap();
            let mut held = std::collections::BTreeSet::new();
            let mut index = index([]);
            for (pattern, stays) in changes {
                let pattern: Pattern = pattern.parse().unwrap();
                if stays && held.insert(pattern.clone()) {
                    index.insert(pattern.clone(), pattern);
                } else if !stays {
                    held.remove(&pattern);
                    index.remove(&pattern);
                }
                let expected: Vec<_> =
                    held.iter().filter(|pattern| pattern.matches(&topic)).cloned().collect();
                prop_assert_eq!(found(&index, &topic), expected);
            }
            for pattern in held {
                index.remove(&pattern);
            }
            prop_assert!(index.is_empty());
        }
    }

    #[test]
    fn the_work_of_a_publish_does_not_grow_with_the_patterns_of_others() {
        let topic: Topic = "orders.eu.created".parse().unwrap();
        for count in [10, 10_000] {
            let patterns = (0..count).flat_map(|n| {
                [format!("*.{n}.created"), format!("orders.*.{n}"), format!("*.*.{n}.>")]
            });
            let index = index(patterns.map(|text| text.parse().unwrap()));
            let tried = index.find(&topic, |_| panic!("a match"));
            assert!(tried <= 3 * (1 << 4), "{tried} with {count}");
        }
    }

    #[test]
    fn the_worst_topic_and_patterns_are_bounded() {
        // Each of the topic's tokens is replaced by `*` in half of the patterns. None matches.
        let ways = (0_u32..1 << MAX_TOKENS).filter(|way| way.count_ones() as usize <= MAX_STARS);
        let tokens = |way: u32| (0..MAX_TOKENS).map(move |at| ["a", "*"][(way >> at & 1) as usize]);
        let texts = ways.map(|way| tokens(way).chain([">"]).skip(1).collect::<Vec<_>>().join("."));
        let patterns: std::collections::BTreeSet<Pattern> =
            texts.map(|text| text.parse().unwrap()).collect();
        let count = patterns.len();
        let index = index(patterns);
        let topic: Topic = vec!["a"; 128].join(".").parse().unwrap();
        let mut matches = 0;
        let tried = index.find(&topic, |_| matches += 1);
        assert_eq!(matches, count, "each pattern is found");
        assert!(tried < 3 * 22_000, "{tried}");
    }
}

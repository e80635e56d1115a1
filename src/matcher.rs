//! A matcher, which tries all patterns of a reader at once, token by token.
//!
//! It is the automaton of the patterns, made deterministic as far as topics ask for it (the subset
//! construction). Each state knows the state after any token, and those after the few tokens that
//! the patterns name. So a token costs one look-up, however many patterns there are.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use crate::{event::Topic, pattern::Patterns};

/// The patterns of a reader, prepared for many topics.
pub(crate) struct Matcher<'p> {
    /// A tree of the tokens of all patterns.
    nodes: Vec<PatternNode<'p>>,
    states: Vec<State<'p>>,
}

/// A beginning of some patterns.
#[derive(Default)]
struct PatternNode<'p> {
    /// `true` if a pattern ends here.
    is_end: bool,
    /// `true` if a pattern goes on with `>`.
    has_rest: bool,
    /// The beginning that goes on with `*`.
    star: Option<usize>,
    /// The beginnings that go on with a token.
    literals: BTreeMap<&'p str, usize>,
}

/// All beginnings that match the tokens so far.
#[derive(Default)]
struct State<'p> {
    nodes: Vec<usize>,
    is_end: bool,
    has_rest: bool,
    /// The following states, once a topic has asked for them.
    next: Option<Next<'p>>,
}

struct Next<'p> {
    /// The state after a token that is not in `literals`.
    other: Option<StateId>,
    literals: BTreeMap<&'p str, StateId>,
}

/// A state of a [`Matcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateId(usize);

impl<'p> Matcher<'p> {
    /// The state before the first token.
    pub(crate) const START: StateId = StateId(0);

    /// Prepares the patterns.
    pub(crate) fn new(patterns: &'p Patterns) -> Self {
        let mut nodes = vec![PatternNode::default()];
        for pattern in patterns.iter() {
            let mut at = 0;
            let mut tokens = pattern.as_str().split('.').peekable();
            while let Some(token) = tokens.next() {
                if token == ">" {
                    nodes[at].has_rest = true;
                    break;
                }
                let new = nodes.len();
                let next = if token == "*" {
                    *nodes[at].star.get_or_insert(new)
                } else {
                    *nodes[at].literals.entry(token).or_insert(new)
                };
                if next == new {
                    nodes.push(PatternNode::default());
                }
                at = next;
                nodes[at].is_end |= tokens.peek().is_none();
            }
        }
        let mut matcher = Self { nodes, states: Vec::new() };
        matcher.add_state(vec![0]);
        matcher
    }

    /// Returns `true` if any pattern matches the topic.
    pub(crate) fn matches(&mut self, topic: &Topic) -> bool {
        let mut state = Self::START;
        for token in topic.as_str().split('.') {
            if self.has_rest(state) {
                return true;
            }
            match self.next(state, token) {
                Some(next) => state = next,
                None => return false,
            }
        }
        self.is_end(state)
    }

    /// Returns `true` if a pattern matches the tokens so far.
    pub(crate) fn is_end(&self, state: StateId) -> bool {
        self.states[state.0].is_end
    }

    /// Returns `true` if a pattern matches the tokens so far and any further ones.
    pub(crate) fn has_rest(&self, state: StateId) -> bool {
        self.states[state.0].has_rest
    }

    /// Returns the state after one more token, or `None` if no pattern goes on with it.
    pub(crate) fn next(&mut self, state: StateId, token: &str) -> Option<StateId> {
        self.expand(state);
        let next = self.states[state.0].next.as_ref()?;
        next.literals.get(token).copied().or(next.other)
    }

    /// Returns the next token in order, after a token without a state, that has a state.
    pub(crate) fn next_literal(&self, state: StateId, token: &str) -> Option<&'p str> {
        let literals = &self.states[state.0].next.as_ref()?.literals;
        let (literal, _) = literals.range::<str, _>((Excluded(token), Unbounded)).next()?;
        Some(literal)
    }

    /// Makes the following states.
    fn expand(&mut self, state: StateId) {
        if self.states[state.0].next.is_some() {
            return;
        }
        let nodes = &self.states[state.0].nodes;
        let stars: Vec<_> = nodes.iter().filter_map(|&at| self.nodes[at].star).collect();
        let mut literals: BTreeMap<&'p str, Vec<usize>> = BTreeMap::new();
        for &at in nodes {
            for (token, next) in &self.nodes[at].literals {
                literals.entry(token).or_insert_with(|| stars.clone()).push(*next);
            }
        }
        let other = (!stars.is_empty()).then(|| self.add_state(stars));
        let literals =
            literals.into_iter().map(|(token, nodes)| (token, self.add_state(nodes))).collect();
        self.states[state.0].next = Some(Next { other, literals });
    }

    fn add_state(&mut self, nodes: Vec<usize>) -> StateId {
        let is_end = nodes.iter().any(|&at| self.nodes[at].is_end);
        let has_rest = nodes.iter().any(|&at| self.nodes[at].has_rest);
        self.states.push(State { nodes, is_end, has_rest, next: None });
        StateId(self.states.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn pattern() -> impl Strategy<Value = String> {
        let token = proptest::sample::select(&["a", "b", "c", "*", "*"][..]);
        let last = prop_oneof![3 => Just(""), 1 => Just(".>")];
        (vec(token, 1..5), last).prop_map(|(tokens, last)| tokens.join(".") + last)
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_each_pattern(
            patterns in vec(pattern(), 1..8),
            topics in vec(vec(proptest::sample::select(&["a", "b", "c", "d"][..]), 1..6), 1..20),
        ) {
            let patterns =
                Patterns::new(patterns.iter().map(|text| text.parse().unwrap())).unwrap();
            let mut matcher = Matcher::new(&patterns);
            for topic in topics {
                let topic: Topic = topic.join(".").parse().unwrap();
                prop_assert_eq!(matcher.matches(&topic), patterns.matches(&topic), "{}", topic);
            }
        }
    }
}

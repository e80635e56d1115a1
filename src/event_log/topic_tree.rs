//! A tree of topics, in which those that match some patterns are found without trying the others.

use crate::{
    event::Topic,
    matcher::{Matcher, StateId},
    pattern::Patterns,
};

/// Values by topic, as a tree of tokens.
#[derive(Debug)]
pub(super) struct TopicTree<T> {
    root: TopicNode<T>,
    len: usize,
}

#[derive(Debug)]
struct TopicNode<T> {
    value: Option<T>,
    /// The nodes of the topics with one more token, by that token, in order.
    children: Vec<(Box<str>, TopicNode<T>)>,
}

impl<T> Default for TopicNode<T> {
    fn default() -> Self {
        Self { value: None, children: Vec::new() }
    }
}

impl<T> Default for TopicTree<T> {
    fn default() -> Self {
        Self { root: TopicNode::default(), len: 0 }
    }
}

impl<T> TopicTree<T> {
    /// Number of topics.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, topic: &Topic) -> Option<&T> {
        let mut node = &self.root;
        for token in topic.as_str().split('.') {
            node = node.child(token)?;
        }
        node.value.as_ref()
    }

    /// Adds a topic, which must be new.
    pub fn insert(&mut self, topic: &Topic, value: T) {
        let mut node = &mut self.root;
        for token in topic.as_str().split('.') {
            let at = match node.place(token) {
                Ok(at) => at,
                Err(at) => {
                    node.children.insert(at, (token.into(), TopicNode::default()));
                    at
                }
            };
            node = &mut node.children[at].1;
        }
        self.len += usize::from(node.value.is_none());
        node.value = Some(value);
    }

    pub fn remove(&mut self, topic: &Topic) -> Option<T> {
        let removed = self.root.remove(topic.as_str().split('.'));
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Calls `found` with the value of each topic.
    pub fn each<'a>(&'a self, mut found: impl FnMut(&'a T)) {
        self.root.each(&mut found);
    }

    /// Calls `found` with the value of each topic that matches. Returns the number of nodes that it
    /// has visited.
    pub fn find<'a>(&'a self, patterns: &Patterns, mut found: impl FnMut(&'a T)) -> usize {
        let mut matcher = Matcher::new(patterns);
        self.root.find(&mut matcher, Matcher::START, &mut found)
    }
}

impl<T> TopicNode<T> {
    fn place(&self, token: &str) -> Result<usize, usize> {
        self.children.binary_search_by(|(other, _)| (**other).cmp(token))
    }

    fn child(&self, token: &str) -> Option<&Self> {
        self.place(token).ok().map(|at| &self.children[at].1)
    }

    fn remove<'a>(&mut self, mut tokens: impl Iterator<Item = &'a str>) -> Option<T> {
        let Some(token) = tokens.next() else { return self.value.take() };
        let at = self.place(token).ok()?;
        let child = &mut self.children[at].1;
        let removed = child.remove(tokens);
        if child.value.is_none() && child.children.is_empty() {
            self.children.remove(at);
        }
        removed
    }

    fn each<'a>(&'a self, found: &mut impl FnMut(&'a T)) -> usize {
        if let Some(value) = &self.value {
            found(value);
        }
        1 + self.children.iter().map(|(_, child)| child.each(found)).sum::<usize>()
    }

    fn find<'a>(
        &'a self,
        matcher: &mut Matcher<'_>,
        state: StateId,
        found: &mut impl FnMut(&'a T),
    ) -> usize {
        if matcher.is_end(state)
            && let Some(value) = &self.value
        {
            found(value);
        }
        let mut visited = 1;
        if self.children.is_empty() {
            return visited;
        }
        if matcher.has_rest(state) {
            return visited
                + self.children.iter().map(|(_, child)| child.each(found)).sum::<usize>();
        }
        if let Some(literals) = matcher.only(state) {
            for (token, next) in literals {
                if let Some(child) = self.child(token) {
                    visited += child.find(matcher, next, found);
                }
            }
            return visited;
        }
        for (token, child) in &self.children {
            if let Some(next) = matcher.next(state, token) {
                visited += child.find(matcher, next, found);
            }
        }
        visited
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn tree<'a>(topics: impl IntoIterator<Item = &'a Topic>) -> TopicTree<Topic> {
        let mut tree = TopicTree::default();
        for topic in topics {
            tree.insert(topic, topic.clone());
        }
        tree
    }

    fn patterns<'a>(texts: impl IntoIterator<Item = &'a String>) -> Patterns {
        Patterns::new(texts.into_iter().map(|text| text.parse().unwrap())).unwrap()
    }

    fn pattern() -> impl Strategy<Value = String> {
        let token = proptest::sample::select(&["a", "b", "c", "*", "*"][..]);
        let last = prop_oneof![3 => Just(""), 1 => Just(".>")];
        let tokens = (vec(token, 1..4), last).prop_map(|(tokens, last)| tokens.join(".") + last);
        prop_oneof![9 => tokens, 1 => Just(">".to_owned())]
    }

    fn topic() -> impl Strategy<Value = Topic> {
        let token = proptest::sample::select(&["a", "b", "c", "d"][..]);
        vec(token, 1..4).prop_map(|tokens| tokens.join(".").parse().unwrap())
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_matches_as_topics_come_and_go(
            changes in vec((topic(), any::<bool>()), 1..60),
            texts in vec(pattern(), 1..6),
        ) {
            let patterns = patterns(&texts);
            let mut tree = tree([]);
            let mut held: Vec<Topic> = Vec::new();
            for (topic, stays) in changes {
                held.retain(|other| *other != topic);
                tree.remove(&topic);
                if stays {
                    tree.insert(&topic, topic.clone());
                    held.push(topic);
                }
                let mut found = Vec::new();
                tree.find(&patterns, |topic| found.push(topic.as_str()));
                found.sort_unstable();
                let mut expected: Vec<_> =
                    held.iter().filter(|topic| patterns.matches(topic)).map(Topic::as_str).collect();
                expected.sort_unstable();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(tree.len(), held.len());
            }
            for topic in &held {
                prop_assert_eq!(tree.get(topic), Some(topic));
                tree.remove(topic);
            }
            prop_assert!(tree.root.children.is_empty());
        }
    }

    #[test]
    fn many_patterns_cost_what_they_match_and_not_a_scan_each() {
        let topics: BTreeSet<String> =
            (0..10_000).map(|n| format!("site{}.area{}.d{n}", n % 10, n % 100)).collect();
        let topics: Vec<Topic> = topics.iter().map(|text| text.parse().unwrap()).collect();
        let tree = tree(&topics);
        let nodes = 1 + 10 + 100 + 10_000;
        let visited = |texts: Vec<String>| tree.find(&patterns(&texts), |_| {});
        let narrow = (0..64).map(|n| format!("site1.area{}1.d{n}", n % 10)).collect();
        assert!(visited(narrow) < 100);
        let narrow = (0..64).map(|n| format!("*.area{n}.*.x")).collect();
        assert!(visited(narrow) < 8000);
        // Even patterns that match no topic, and that all have to be tried to its end.
        let broad = (0..64).map(|n| format!("*.*.*.x{n}")).collect();
        assert!(visited(broad) <= nodes);
        let ways = [["site1", "*"], ["area1", "*"]];
        let broad = (0..64_usize)
            .map(|n| format!("{}.{}.*.x{n}", ways[0][n & 1], ways[1][n >> 1 & 1]))
            .collect();
        assert!(visited(broad) <= nodes);
    }
}

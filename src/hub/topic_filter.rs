//! A filter of topics: what a client asks for, out of what it may see.

use std::{borrow::Borrow, sync::Arc};

use crate::{
    event::Topic,
    matcher::Matcher,
    pattern::{Pattern, Patterns},
};

/// A set of topics, by patterns in order: the first that matches a topic decides if the topic is in
/// the set. A topic that none of them matches is not.
///
/// ```
/// use waterclock::hub::TopicSet;
///
/// let set = TopicSet::new([("a.secret".parse()?, false), ("a.*".parse()?, true)]);
/// assert!(set.contains(&"a.b".parse()?));
/// assert!(!set.contains(&"a.secret".parse()?));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSet(
    /// Equal decisions in a row are one. The last one takes topics in.
    Arc<[(Patterns, bool)]>,
);

impl TopicSet {
    /// Creates the set. `true` stands for topics that are in it.
    pub fn new(decisions: impl IntoIterator<Item = (Pattern, bool)>) -> Self {
        let mut groups: Vec<(Vec<Pattern>, bool)> = Vec::new();
        for (pattern, is_in) in decisions {
            let is_last = pattern == Pattern::all();
            match groups.last_mut() {
                Some((patterns, same)) if *same == is_in => patterns.push(pattern),
                _ => groups.push((vec![pattern], is_in)),
            }
            if is_last {
                break;
            }
        }
        // All others are left out anyway.
        groups.pop_if(|(_, is_in)| !*is_in);
        let groups = groups.into_iter();
        Self(groups.filter_map(|(of, is_in)| Some((Patterns::new(of)?, is_in))).collect())
    }

    /// Returns `true` if the topic is in the set.
    pub fn contains(&self, topic: &Topic) -> bool {
        let decision = self.0.iter().find(|(patterns, _)| patterns.matches(topic));
        decision.is_some_and(|(_, is_in)| *is_in)
    }

    /// Returns `true` if no pattern takes a topic into the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if the patterns of topics that are in the set match no others.
    fn is_plain(&self) -> bool {
        self.0.len() <= 1
    }

    /// The patterns of topics that are in the set, unless earlier ones leave them out.
    fn included(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().filter(|(_, is_in)| *is_in).flat_map(|(patterns, _)| patterns.iter())
    }
}

impl From<Patterns> for TopicSet {
    fn from(patterns: Patterns) -> Self {
        Self(Arc::new([(patterns, true)]))
    }
}

/// The topics that match patterns and are in a set: those that are wanted and allowed.
#[derive(Clone, Debug)]
pub struct TopicFilter {
    allowed: TopicSet,
    /// Patterns within the wanted ones, each of which some allowed topic may match; `None` if the
    /// two sets have no topic in common.
    narrowed: Option<Patterns>,
    /// `true` if all topics that match the narrowed patterns are allowed.
    is_narrow: bool,
}

impl TopicFilter {
    /// Creates the filter.
    pub fn new(wanted: &Patterns, allowed: impl Into<TopicSet>) -> Self {
        let allowed = allowed.into();
        let mut is_narrow = allowed.is_plain();
        let pairs = wanted.iter().flat_map(|one| allowed.included().map(move |other| (one, other)));
        let narrowed: Vec<Pattern> = pairs
            .filter(|(wanted, allowed)| wanted.overlaps(allowed))
            .map(|(wanted, allowed)| {
                if wanted.covers(allowed) {
                    return allowed.clone();
                }
                is_narrow &= allowed.covers(wanted);
                wanted.clone()
            })
            .collect();
        Self { narrowed: Patterns::new(narrowed), allowed, is_narrow }
    }

    /// The patterns by which the topics can be looked for; `None` if there are none.
    pub fn narrowed(&self) -> Option<&Patterns> {
        self.narrowed.as_ref()
    }

    /// `true` if all topics that match the narrowed patterns pass the filter.
    pub(super) fn is_narrow(&self) -> bool {
        self.is_narrow
    }

    /// Removes the topics that do not pass.
    pub fn apply(&self, topics: &mut Vec<impl Borrow<Topic>>) {
        let Some(narrowed) = &self.narrowed else { return topics.clear() };
        let mut narrowed = Matcher::new(narrowed);
        let decisions = self.allowed.0.iter().filter(|_| !self.is_narrow);
        let mut decisions: Vec<_> =
            decisions.map(|(patterns, is_in)| (Matcher::new(patterns), *is_in)).collect();
        topics.retain(|topic| {
            let topic = topic.borrow();
            let mut decision = decisions.iter_mut();
            let mut decision =
                || decision.find_map(|(patterns, is_in)| patterns.matches(topic).then_some(*is_in));
            narrowed.matches(topic) && (self.is_narrow || decision() == Some(true))
        });
    }
}

impl From<Topic> for TopicFilter {
    fn from(topic: Topic) -> Self {
        let topic = Patterns::from(topic);
        Self::new(&topic, topic.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(text: &str) -> Patterns {
        Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
    }

    #[test]
    fn topics_pass_if_they_are_wanted_and_allowed() {
        for (wanted, allowed, narrowed, is_narrow) in [
            (">", ">", ">", true),
            (">", "a.* b", "a.* b", true),
            ("a.b a.c c", "a.*", "a.b a.c", true),
            ("a.*", "*.b", "a.*", false),
            ("a", "b.>", "", true),
        ] {
            let filter = TopicFilter::new(&patterns(wanted), patterns(allowed));
            let expected = (!narrowed.is_empty()).then(|| patterns(narrowed));
            assert_eq!(filter.narrowed(), expected.as_ref(), "{wanted} {allowed}");
            assert_eq!(filter.is_narrow(), is_narrow, "{wanted} {allowed}");
            let all = ["a", "a.b", "a.c", "b", "c", "d.b"].map(|topic| topic.parse().unwrap());
            let mut passed = all.to_vec();
            filter.apply(&mut passed);
            let is_expected =
                |topic: &Topic| patterns(wanted).matches(topic) && patterns(allowed).matches(topic);
            assert_eq!(passed, all.into_iter().filter(is_expected).collect::<Vec<_>>());
        }
    }

    #[test]
    fn topics_pass_unless_the_first_pattern_that_matches_leaves_them_out() {
        let set = |text: &str| {
            TopicSet::new(text.split(' ').map(|text| match text.strip_prefix('-') {
                Some(left_out) => (left_out.parse().unwrap(), false),
                None => (text.parse().unwrap(), true),
            }))
        };
        let all = ["a", "a.b", "a.c", "a.c.d", "b"].map(|topic| topic.parse::<Topic>().unwrap());
        for (wanted, allowed, expected) in [
            (">", "-a.> >", "a b"),
            (">", "a.c -a.> >", "a a.c b"),
            (">", "-a.c a.>", "a.b a.c.d"),
            ("a.*", "-a.c >", "a.b"),
            ("a.c", "-a.c >", ""),
            (">", "-a.c a.b -a.>", "a.b"),
        ] {
            let mut passed = all.to_vec();
            TopicFilter::new(&patterns(wanted), set(allowed)).apply(&mut passed);
            let passed: Vec<_> = passed.iter().map(Topic::as_str).collect();
            assert_eq!(passed.join(" "), expected, "{wanted} of {allowed}");
        }
        assert_eq!(set("a.b c a.b -a.> -c"), patterns("a.b c").into());
        for nothing in ["-a -b", "-> a"] {
            assert!(set(nothing).is_empty(), "{nothing}");
        }
    }
}

//! A filter of topics: what a client asks for, out of what it may see.

use std::borrow::Borrow;

use crate::{
    event::Topic,
    matcher::Matcher,
    pattern::{Pattern, Patterns},
};

/// The topics that match two sets of patterns: those that are wanted, and those that are allowed.
#[derive(Clone, Debug)]
pub struct TopicFilter {
    allowed: Patterns,
    /// Patterns within the wanted ones, each of which some allowed topic may match; `None` if the
    /// two sets have no topic in common.
    narrowed: Option<Patterns>,
    /// `true` if all topics that match the narrowed patterns are allowed.
    is_narrow: bool,
}

impl TopicFilter {
    /// Creates the filter.
    pub fn new(wanted: &Patterns, allowed: Patterns) -> Self {
        let mut is_narrow = true;
        let pairs = wanted.iter().flat_map(|one| allowed.iter().map(move |other| (one, other)));
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
        Self { allowed, narrowed: Patterns::new(narrowed), is_narrow }
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
        let allowed = (!self.is_narrow).then_some(&self.allowed);
        let mut matchers: Vec<_> =
            [narrowed].into_iter().chain(allowed).map(Matcher::new).collect();
        topics.retain(|topic| matchers.iter_mut().all(|matcher| matcher.matches(topic.borrow())));
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
}

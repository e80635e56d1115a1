//! Rules for the topics of patterns. The first rule with a pattern that matches a topic decides
//! about it; what that rule leaves out is as for topics without a rule.

use std::sync::Arc;

use waterclock::{event::Topic, pattern::Pattern};
use waterclock_axum::{PublishRate, TopicLimits};

/// A rule for the topics of some patterns.
#[derive(Clone, Debug)]
pub struct TopicRule {
    /// The patterns.
    pub topics: Vec<Pattern>,
    /// The readers; `None` if the rule does not say.
    pub read: Option<Audience>,
    /// The publishers; `None` if the rule does not say.
    pub publish: Option<Audience>,
    /// Maximum length of an event's data, in bytes.
    pub max_event_size: Option<usize>,
    /// Rate limit of each client's publishes to all these topics.
    pub publish_rate: Option<Arc<PublishRate>>,
}

/// The requests that may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All, even without a token.
    Anyone,
    /// Local ones only.
    Local,
    /// Those with a token that lists the topic, also if they are local.
    Token,
    /// None.
    Nobody,
}

impl std::str::FromStr for Audience {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "anyone" => Ok(Self::Anyone),
            "local" => Ok(Self::Local),
            "token" => Ok(Self::Token),
            "nobody" => Ok(Self::Nobody),
            _ => Err("expected anyone, local, token or nobody"),
        }
    }
}

impl TopicRule {
    /// Returns `true` if the rule is for a topic, unless an earlier one is.
    fn matches(&self, topic: &Topic) -> bool {
        self.topics.iter().any(|pattern| pattern.matches(topic))
    }
}

/// Returns the rule for a topic.
pub(super) fn rule_for<'a>(rules: &'a [TopicRule], topic: &Topic) -> Option<&'a TopicRule> {
    rules.iter().find(|rule| rule.matches(topic))
}

/// Returns the audiences of all topics that a pattern may match. A reader must belong to each of
/// them; `None` stands for topics that no rule decides about.
pub(super) fn readers_of(rules: &[TopicRule], pattern: &Pattern) -> Vec<Option<Audience>> {
    let mut audiences = Vec::new();
    for rule in rules {
        if rule.topics.iter().any(|topics| topics.overlaps(pattern)) {
            audiences.push(rule.read);
        }
        if rule.topics.iter().any(|topics| topics.covers(pattern)) {
            return audiences;
        }
    }
    audiences.push(None);
    audiences
}

/// Returns the limits on publishes to a topic.
pub(super) fn limits_of(rules: &[TopicRule], topic: &Topic) -> TopicLimits {
    let default = TopicLimits::default();
    rule_for(rules, topic).map_or(default.clone(), |rule| TopicLimits {
        max_data: rule.max_event_size.map_or(default.max_data, |max| max.min(default.max_data)),
        publish_rate: rule.publish_rate.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(topics: &[&str], read: Option<Audience>) -> TopicRule {
        TopicRule {
            topics: topics.iter().map(|pattern| pattern.parse().unwrap()).collect(),
            read,
            publish: None,
            max_event_size: None,
            publish_rate: None,
        }
    }

    #[test]
    fn the_first_rule_of_a_topic_decides() {
        let first = TopicRule { max_event_size: Some(5), ..rule(&["a.b", "x"], None) };
        let rules = [first, TopicRule { max_event_size: Some(9), ..rule(&["a.>"], None) }];
        let max = |topic: &str| limits_of(&rules, &topic.parse().unwrap()).max_data;
        assert_eq!([max("a.b"), max("x"), max("a.c")], [5, 5, 9]);
        assert_eq!(max("b"), TopicLimits::default().max_data);
    }

    #[test]
    fn a_pattern_has_the_audiences_of_all_topics_that_it_may_match() {
        use Audience::{Anyone, Local};
        let rules = [rule(&["a.secret"], Some(Local)), rule(&["a.>"], Some(Anyone))];
        let readers = |pattern: &str| readers_of(&rules, &pattern.parse().unwrap());
        assert_eq!(readers("a.secret"), [Some(Local)]);
        assert_eq!(readers("a.b"), [Some(Anyone)]);
        assert_eq!(readers("a.*"), [Some(Local), Some(Anyone)]);
        assert_eq!(readers("a.b.>"), [Some(Anyone)]);
        assert_eq!(readers(">"), [Some(Local), Some(Anyone), None]);
        assert_eq!(readers("b"), [None]);
    }
}

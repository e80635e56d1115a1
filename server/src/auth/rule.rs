//! Rules for the topics of patterns. Of the rules that match a topic, the first one that has a
//! setting decides on it. A setting that none of them has is as for topics without a rule.

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

/// Returns a setting for a topic: that of the first rule that matches the topic and has it.
fn setting_of<T>(
    rules: &[TopicRule],
    topic: &Topic,
    setting: impl Fn(&TopicRule) -> Option<T>,
) -> Option<T> {
    let matches = |rule: &&TopicRule| rule.topics.iter().any(|pattern| pattern.matches(topic));
    rules.iter().filter(matches).find_map(setting)
}

/// Returns the publishers to a topic; `None` if no rule says.
pub(super) fn publishers_to(rules: &[TopicRule], topic: &Topic) -> Option<Audience> {
    setting_of(rules, topic, |rule| rule.publish)
}

/// Returns the readers of all topics that a pattern may match. A reader must belong to each of
/// these audiences; `None` stands for topics about which no rule says.
pub(super) fn readers_of(rules: &[TopicRule], pattern: &Pattern) -> Vec<Option<Audience>> {
    let mut audiences = Vec::new();
    for rule in rules.iter().filter(|rule| rule.read.is_some()) {
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
    let max_data = setting_of(rules, topic, |rule| rule.max_event_size);
    TopicLimits {
        max_data: max_data.map_or(default.max_data, |max| max.min(default.max_data)),
        publish_rate: setting_of(rules, topic, |rule| rule.publish_rate.clone()),
    }
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
    fn the_first_rule_that_has_a_setting_decides_on_it() {
        let first = TopicRule { max_event_size: Some(5), ..rule(&["a.b", "x"], None) };
        let publish = Some(Audience::Token);
        let second = TopicRule { max_event_size: Some(9), publish, ..rule(&["a.>"], None) };
        let rules = [first, second];
        assert_eq!(publishers_to(&rules, &"a.b".parse().unwrap()), publish);
        assert_eq!(publishers_to(&rules, &"x".parse().unwrap()), None);
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

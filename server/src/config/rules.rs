//! The tables `[[rule]]`: settings for the topics of patterns.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use waterclock::pattern::Pattern;
use waterclock_axum::{PublishRate, limits::MAX_DATA};

use super::{
    file::{ConfigFile, ConfigTable},
    problem::ConfigProblems,
    values::{age, bytes},
};
use crate::auth::{Audience, TopicRule};

/// The names in a rule.
pub const RULE_NAMES: [&str; 7] =
    ["topics", "read", "publish", "max-event-size", "max-publishes", "retain-count", "retain-age"];

/// Maximum number of patterns of all rules. Each request is compared with those before the one that
/// decides on it.
const MAX_PATTERNS: usize = 1000;

/// A rule of the file.
#[derive(Clone, Debug)]
pub struct ConfigRule {
    /// The line of its name.
    pub line: usize,
    /// The part that decides about requests.
    pub access: TopicRule,
    /// The part that decides about what is kept.
    pub retention: RuleRetention,
}

/// The retention of each topic of a rule. What is `None` is as for topics without a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleRetention {
    /// Maximum number of events.
    pub count: Option<usize>,
    /// Maximum age of events.
    pub age: Option<Duration>,
}

/// Returns the rules of a file, in their order. Reports what is wrong with them.
pub fn rules(file: &ConfigFile, problems: &mut ConfigProblems) -> Vec<ConfigRule> {
    let tables: Vec<_> = file.tables_of("rule").collect();
    let rules: Vec<_> = tables.iter().map(|table| rule(table, problems)).collect();
    let mut patterns = 0;
    for rule in &rules {
        patterns += rule.access.topics.len();
        if patterns > MAX_PATTERNS {
            let why = format!("rule: the rules of a file may have {MAX_PATTERNS} patterns in all");
            problems.error(rule.line, why);
            return rules;
        }
    }
    for (index, (later, table)) in rules.iter().zip(&tables).enumerate() {
        for setting in table.entries.iter().filter(|entry| entry.name != "topics") {
            let earlier = rules[..index].iter().zip(&tables);
            let earlier = earlier.filter(|(_, table)| table.entry(&setting.name).is_some());
            let earlier: Vec<_> = earlier.map(|(rule, _)| rule).collect();
            for topics in &later.access.topics {
                let covers = |pattern: &&Pattern| pattern.covers(topics);
                let shadow = earlier
                    .iter()
                    .find_map(|rule| Some((rule.line, rule.access.topics.iter().find(covers)?)));
                if let Some((line, shadow)) = shadow {
                    let why = format!(
                        "{}: never applies to `{topics}`, since the rule on line {line} (`{shadow}`) comes \
                         first: put this rule before it",
                        setting.name
                    );
                    problems.error(setting.line, why);
                }
            }
        }
    }
    rules
}

fn rule(table: &ConfigTable, problems: &mut ConfigProblems) -> ConfigRule {
    table.check_names(&RULE_NAMES, problems);
    let topics = if let Some(entry) = table.entry("topics") {
        let found = problems.count();
        let topics: Vec<Pattern> = entry.parse_list(str::parse, problems);
        if topics.is_empty() && problems.count() == found {
            problems.error(entry.line, "topics: expected at least one pattern");
        }
        topics
    } else {
        problems.error(table.line, "rule: needs topics, such as topics = \"orders.>\"");
        Vec::new()
    };
    let audience = |name, problems: &mut ConfigProblems| {
        table.entry(name)?.parse(str::parse::<Audience>, problems)
    };
    let count =
        |text: &str| text.parse::<usize>().map_err(|_| "expected a whole number, such as 1000");
    let rate = |text: &str| {
        text.parse::<NonZeroU32>().map_err(|_| "expected a whole number from 1, such as 100")
    };
    let size = |text: &str| match bytes(text)? {
        size if size <= MAX_DATA => Ok(size),
        _ => Err("expected at most 64KiB, the limit on all events"),
    };
    let (read, publish) = (audience("read", problems), audience("publish", problems));
    let publish_rate = table.entry("max-publishes").and_then(|entry| entry.parse(rate, problems));
    let access = TopicRule {
        topics,
        read,
        publish,
        max_event_size: table.entry("max-event-size").and_then(|entry| entry.parse(size, problems)),
        publish_rate: publish_rate.map(|rate| Arc::new(PublishRate::new(rate))),
    };
    let retention = RuleRetention {
        count: table.entry("retain-count").and_then(|entry| entry.parse(count, problems)),
        age: table.entry("retain-age").and_then(|entry| entry.parse(age, problems)),
    };
    if table.entries.iter().all(|entry| entry.name == "topics") {
        problems
            .error(table.line, "rule: sets nothing; give it one of the other names, such as read");
    }
    ConfigRule { line: table.line, access, retention }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> (Vec<ConfigRule>, Vec<String>) {
        let mut problems = ConfigProblems::of_file(Path::new("c.toml"));
        let file = ConfigFile::parse(text, &mut problems);
        let rules = rules(&file, &mut problems);
        (rules, problems.sorted().map(ToString::to_string).collect())
    }

    #[test]
    fn a_rule_has_the_settings_of_its_table() {
        let (rules, problems) = parse(
            "[[rule]]\ntopics = ['a.>', 'b']\nread = 'anyone'\npublish = 'token'\nretain-age = '1h'\n\
             retain-count = 5\nmax-event-size = '1KiB'\nmax-publishes = 7\n[[rule]]\ntopics = 'c'\n\
             publish = 'nobody'",
        );
        assert_eq!(problems, Vec::<String>::new());
        let [first, second] = &rules[..] else { panic!("{rules:?}") };
        assert_eq!(first.access.topics.len(), 2);
        assert_eq!(first.access.read, Some(Audience::Anyone));
        assert_eq!(first.access.publish, Some(Audience::Token));
        assert_eq!(first.access.max_event_size, Some(1024));
        assert!(first.access.publish_rate.is_some());
        let age = Some(Duration::from_hours(1));
        assert_eq!(first.retention, RuleRetention { count: Some(5), age });
        assert_eq!((second.line, second.access.read), (9, None));
        assert_eq!(second.retention, RuleRetention::default());
    }

    #[test]
    fn each_problem_of_a_rule_has_its_line() {
        let (_, problems) = parse(
            "[[rule]]\nread = 'everybody'\n[[rule]]\ntopics = 'a..b'\nretain-age = 'soon'\n\
             max-event-size = '1MiB'\nmax-publishes = 0\nretain_count = 1\n[[rule]]\ntopics = 'x'\n\
             [[rule]]\ntopics = []\nread = 'local'",
        );
        let starts = [
            "c.toml:1: rule: needs topics",
            "c.toml:2: read: expected anyone, local, token or nobody",
            "c.toml:4: topics: \"a..b\": not a pattern",
            "c.toml:5: retain-age: expected a time of at least one second",
            "c.toml:6: max-event-size: expected at most 64KiB",
            "c.toml:7: max-publishes: expected a whole number from 1",
            "c.toml:8: retain_count: unknown; did you mean retain-count?",
            "c.toml:9: rule: sets nothing",
            "c.toml:12: topics: expected at least one pattern",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
    }

    #[test]
    fn too_many_rules_are_one_clear_line() {
        let rule = |number: usize| format!("[[rule]]\ntopics = 't{number}'\nread = 'local'\n");
        let text = |count: usize| (0..count).map(rule).collect::<Vec<_>>().concat();
        assert_eq!(parse(&text(MAX_PATTERNS)).1, Vec::<String>::new());
        let expected = "c.toml:3001: rule: the rules of a file may have 1000 patterns in all";
        assert_eq!(parse(&text(MAX_PATTERNS + 3)).1, [expected]);
        let list = vec!["'t'"; MAX_PATTERNS + 1].join(",");
        let expected = expected.replace("3001", "1");
        assert_eq!(parse(&format!("[[rule]]\ntopics = [{list}]\nread = 'local'\n")).1, [expected]);
    }

    #[test]
    fn a_setting_that_never_applies_is_an_error() {
        let rule = |topics: &str| format!("[[rule]]\ntopics = {topics}\nread = 'local'\n");
        let rules = [rule("'a.b'"), rule("['a.>', 'c']"), rule("['d', 'a.*.x']")].concat();
        let (_, problems) = parse(&format!("{rules}retain-count = 1\n"));
        assert_eq!(
            problems,
            [
                "c.toml:9: read: never applies to `a.*.x`, since the rule on line 4 (`a.>`) comes first: \
                 put this rule before it"
            ]
        );
    }
}

//! The filter of the list: a text of several terms, all of which an event must match.

use waterclock::{event::Event, pattern::Pattern};

/// A filter. Its terms are words, or phrases in `"quotes"`, that the topic, the name or the data
/// must contain, ignoring ASCII case; `name:` and a name; `topic:` and a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// A word or a phrase, in ASCII lower case.
    Text(String),
    Name(String),
    Topic(Pattern),
}

impl Filter {
    /// Parses a filter. Returns the pattern as an error if it is invalid.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let term = |word: String| {
            if let Some(name) = word.strip_prefix("name:") {
                Ok(Term::Name(name.to_owned()))
            } else if let Some(topic) = word.strip_prefix("topic:") {
                topic.parse().map(Term::Topic).map_err(|_| topic.to_owned())
            } else {
                Ok(Term::Text(word.to_ascii_lowercase()))
            }
        };
        split_terms(text).into_iter().map(term).collect::<Result<_, _>>().map(Self)
    }

    /// Returns `true` if every event matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if an event matches all terms.
    pub(crate) fn matches(&self, event: &Event) -> bool {
        self.0.iter().all(|term| match term {
            Term::Name(name) => event.name.as_str() == name,
            Term::Topic(pattern) => pattern.matches(&event.topic),
            Term::Text(text) => {
                let (data, name, topic) = (&event.data, event.name.as_str(), event.topic.as_str());
                [data, name, topic].into_iter().any(|field| contains(field, text))
            }
        })
    }
}

/// Splits a text into its terms. A phrase in quotes, alone or after `name:`, is one term. A quote
/// without a closing quote is an ordinary character, so that a piece of JSON can be searched for as
/// it is.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (kind, value) = rest.strip_prefix("name:").map_or(("", rest), |value| ("name:", value));
        let phrase = value.strip_prefix('"').and_then(split_phrase);
        let (term, after) = if let Some((phrase, after)) = phrase {
            ([kind, phrase].concat(), after)
        } else {
            let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            (word.to_owned(), after)
        };
        terms.push(term);
        rest = after.trim_start();
    }
    terms.retain(|term| !term.is_empty());
    terms
}

/// Splits a text at its first closing quote, which is one before a space or the end.
fn split_phrase(text: &str) -> Option<(&str, &str)> {
    text.match_indices('"').find_map(|(at, quote)| {
        let (phrase, after) = (text.get(..at)?, text.get(at + quote.len()..)?);
        after.chars().next().is_none_or(char::is_whitespace).then_some((phrase, after))
    })
}

/// Returns `true` if a text contains another, ignoring ASCII case. `wanted` must be in lower case.
fn contains(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    let Some((first, rest)) = wanted.split_first() else { return true };
    let Some(last) = text.len().checked_sub(wanted.len()) else { return false };
    (0..=last).any(|at| {
        text[at].to_ascii_lowercase() == *first
            && text[at + 1..at + wanted.len()].eq_ignore_ascii_case(rest)
    })
}

#[cfg(test)]
mod tests {
    use waterclock::{
        id::{Epoch, EventId},
        timestamp::Timestamp,
    };

    use super::*;

    fn matches(filter: &str) -> bool {
        Filter::parse(filter).unwrap().matches(&Event {
            id: EventId { epoch: Epoch::new(1), sequence: 1 },
            topic: "orders.eu".parse().unwrap(),
            name: "created".parse().unwrap(),
            data: r#"{"order":17,"to":"Zürich Süd"}"#.to_owned(),
            time: Timestamp::from_millis(0),
        })
    }

    #[test]
    fn every_term_must_match() {
        for filter in [
            "",
            " ",
            "order",
            "ORDER 17",
            "zürich",
            "\"rich süd\"",
            "{\"",
            "created",
            "name:created",
            "topic:orders.eu",
            "topic:orders.*",
            "topic:> name:created \"order\":17 ORDERS",
            "name:\"created\" \"\"",
        ] {
            assert!(matches(filter), "{filter}");
        }
        for filter in [
            "order 18",
            "\"order 17\"",
            "name:create",
            "name:",
            "topic:orders",
            "topic:*",
            "{\"order\":17,\"to\":\"Zürich Süd\"}x",
        ] {
            assert!(!matches(filter), "{filter}");
        }
    }

    #[test]
    fn quotes_join_words() {
        for (text, expected) in [
            ("a  b", vec!["a", "b"]),
            ("\"a  b\" c", vec!["a  b", "c"]),
            ("name:\"made up\" x", vec!["name:made up", "x"]),
            ("\"a\":1,\"b c", vec!["\"a\":1,\"b", "c"]),
            ("\"\" \"", vec!["\""]),
        ] {
            assert_eq!(split_terms(text), expected, "{text}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_returned() {
        assert_eq!(Filter::parse("x topic:a..b"), Err("a..b".to_owned()));
        assert_eq!(Filter::parse("topic:"), Err(String::new()));
    }
}

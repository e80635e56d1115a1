//! The search for topics.

use waterclock::{
    event::Topic,
    pattern::{Pattern, Patterns},
};

/// A search: words and patterns, separated by spaces or commas. It finds the topics that contain
/// any of the words, ignoring ASCII case, or match any of the patterns. Without either, it finds
/// all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search(Vec<SearchTerm>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum SearchTerm {
    /// A part of a topic, in ASCII lower case.
    Word(String),
    Pattern(Pattern),
}

impl Search {
    /// Parses a search. A term with `*` or `>` is a pattern.
    ///
    /// # Errors
    ///
    /// Returns the first term that should be a pattern and is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let terms = text.split(|letter: char| letter == ',' || letter.is_whitespace());
        let terms = terms.filter(|term| !term.is_empty()).map(|term| {
            if term.contains(['*', '>']) {
                term.parse().map(SearchTerm::Pattern).map_err(|_| term.to_owned())
            } else {
                Ok(SearchTerm::Word(term.to_ascii_lowercase()))
            }
        });
        terms.collect::<Result<_, _>>().map(Self)
    }

    /// Returns `true` if the search finds a topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        let finds = |term: &SearchTerm| match term {
            SearchTerm::Word(word) => topic.as_str().to_ascii_lowercase().contains(word),
            SearchTerm::Pattern(pattern) => pattern.matches(topic),
        };
        self.0.is_empty() || self.0.iter().any(finds)
    }

    /// Returns patterns that match all topics that the search finds, and perhaps others.
    pub fn patterns(&self) -> Patterns {
        let pattern = |term: &SearchTerm| match term {
            SearchTerm::Pattern(pattern) => Some(pattern.clone()),
            SearchTerm::Word(_) => None,
        };
        let patterns: Option<Vec<_>> = self.0.iter().map(pattern).collect();
        patterns.and_then(Patterns::new).unwrap_or(Pattern::all().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_parts_of_topics_and_patterns() {
        for (text, expected) in [
            ("", true),
            (" , ", true),
            ("rders.E", true),
            ("us", false),
            ("us orders", true),
            ("orders.*", true),
            ("orders.>,us", true),
            ("*", false),
            ("*.us", false),
        ] {
            let search = Search::parse(text).unwrap();
            let topic = "Orders.eu".to_ascii_lowercase().parse().unwrap();
            assert_eq!(search.matches(&topic), expected, "{text}");
            assert!(!expected || search.patterns().matches(&topic), "{text}");
        }
        assert_eq!(Search::parse("us orders.*").unwrap().patterns(), Pattern::all().into());
        assert_eq!(
            Search::parse("orders.*").unwrap().patterns(),
            Patterns::from("orders.*".parse::<Pattern>().unwrap())
        );
        assert_eq!(Search::parse("us or*"), Err("or*".to_owned()));
    }
}

//! The search for topics.

use waterclock::{
    event::Topic,
    pattern::{Pattern, Patterns},
};

/// Maximum number of patterns of a request, and so of the words and patterns of a search.
pub(super) const MAX_PATTERNS: usize = 64;

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
    /// Returns a sentence about the first term that should be a pattern and is invalid, or about
    /// too many terms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in text.split(|letter: char| letter == ',' || letter.is_whitespace()) {
            if term.is_empty() {
                continue;
            }
            if terms.len() == MAX_PATTERNS {
                return Err(format!(
                    "A search may have at most {MAX_PATTERNS} words and patterns."
                ));
            }
            terms.push(if term.contains(['*', '>']) {
                let invalid = |_| {
                    format!(
                        "`{term}` is not a pattern. `*` stands for one whole token, and `>` at \
                         the end for all that follow: `orders.*`, `orders.>`",
                    )
                };
                SearchTerm::Pattern(term.parse().map_err(invalid)?)
            } else {
                SearchTerm::Word(term.to_ascii_lowercase())
            });
        }
        Ok(Self(terms))
    }

    /// Returns `true` if the search finds a topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        let lower = topic.as_str().to_ascii_lowercase();
        let finds = |term: &SearchTerm| match term {
            SearchTerm::Word(word) => lower.contains(word),
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
        assert!(Search::parse("us or*").unwrap_err().starts_with("`or*` is not a pattern"));
        assert!(Search::parse(&["us"; MAX_PATTERNS].join(" ")).is_ok());
        let many = Search::parse(&["us"; MAX_PATTERNS + 1].join(","));
        assert!(many.unwrap_err().contains("at most 64"));
    }
}

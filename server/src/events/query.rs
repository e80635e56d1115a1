//! What the query of `/events`, `/poll` and `/ws` asks for.

use std::{collections::BTreeSet, num::NonZeroU64};

use waterclock::{
    hub::Format,
    pattern::{InvalidPattern, Pattern},
};

use super::MAX_PATTERNS;
use crate::problem::Problem;

/// What is asked for, with or without permission.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) patterns: BTreeSet<Pattern>,
    pub(super) format: Format,
    pub(super) conflate: bool,
    pub(super) limit: Option<NonZeroU64>,
    pub(super) last_event_id: Option<String>,
    /// The name of a meter, whatever it is.
    pub(super) meter: Option<String>,
}

impl Query {
    /// Reads a query, whose parameters are in any order; of one that is there twice the last counts, except
    /// that there may be several topics.
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("topic", _) => match value.parse() {
                    Ok(pattern) => {
                        asked.patterns.insert(pattern);
                    }
                    Err(InvalidPattern) => return Err(Problem::BadPattern(value.into_owned())),
                },
                ("format", "json") => asked.format = Format::Json,
                ("format", _) => return Err(Problem::NoSuchFormat(value.into_owned())),
                ("conflate", "" | "true") => asked.conflate = true,
                ("conflate", "false") => asked.conflate = false,
                ("conflate", _) => return Err(Problem::BadConflate(value.into_owned())),
                ("limit", _) => match value.parse::<NonZeroU64>() {
                    Ok(events) => asked.limit = Some(events),
                    Err(_) => return Err(Problem::BadLimit(value.into_owned())),
                },
                ("last_event_id", _) => asked.last_event_id = Some(value.into_owned()),
                ("meter", _) => asked.meter = Some(value.into_owned()),
                _ => {} // Unknown ones are ignored.
            }
        }
        if asked.patterns.len() > MAX_PATTERNS {
            return Err(Problem::TooManyPatterns);
        }
        Ok(asked)
    }
}

/// What is true of any query; see `waterclock::properties`.
#[cfg(any(test, feature = "properties"))]
pub mod properties {
    use axum::response::IntoResponse as _;

    use super::{Format, Query};

    impl Query {
        fn write(&self) -> String {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for pattern in &self.patterns {
                query.append_pair("topic", &pattern.to_string());
            }
            if self.format == Format::Json {
                query.append_pair("format", "json");
            }
            query.append_pair("conflate", if self.conflate { "true" } else { "false" });
            if let Some(limit) = self.limit {
                query.append_pair("limit", &limit.to_string());
            }
            for (name, value) in [("last_event_id", &self.last_event_id), ("meter", &self.meter)] {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            query.finish()
        }
    }

    /// A query is a 400, or something that can be written as one again and means the same then.
    ///
    /// # Panics
    ///
    /// If that is not so.
    pub fn a_query_is_read_or_refused(bytes: &[u8]) {
        match Query::parse(&String::from_utf8_lossy(bytes)) {
            Ok(query) => {
                let again = Query::parse(&query.write()).map_err(|problem| problem.to_string());
                assert_eq!(again.map(|again| format!("{again:?}")), Ok(format!("{query:?}")));
            }
            Err(problem) => assert_eq!(problem.into_response().status(), 400),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Bytes that are rich in what a query gives a meaning to.
    fn tricky() -> impl Strategy<Value = Vec<u8>> {
        let meaningful = proptest::sample::select(
            &[
                "&",
                "=",
                "+",
                "%",
                "%0",
                "%2E",
                "%00",
                "%ff",
                "topic=",
                "topic=a.*",
                "&topic=%3E",
                "format=",
                "json",
                "conflate",
                "=true",
                "=false",
                "limit=",
                "1",
                "18446744073709551615",
                "last_event_id=",
                "earliest",
                "00000000c10cca11-1",
                "meter=",
                "a",
            ][..],
        );
        let piece = prop_oneof![
            4 => meaningful.prop_map(|text| text.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..9),
        ];
        vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn queries(bytes in tricky()) {
            properties::a_query_is_read_or_refused(&bytes);
        }
    }
}

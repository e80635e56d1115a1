//! The query of `/events`, `/poll` and `/ws`.

use std::{collections::BTreeSet, num::NonZeroU64};

use axum::http::StatusCode;
use waterclock::{
    hub::Format,
    pattern::{InvalidPattern, Pattern},
};

use crate::{
    limits::MAX_PATTERNS,
    parameters::{InvalidParameters, KnownParameters, plain, split_query},
    problem::Problem,
};

/// The parameters of `/events`, `/poll` and `/ws`. A client that changes its transport need not
/// change its query.
const PARAMETERS: KnownParameters = KnownParameters {
    names: &[
        ("topic", "topic"),
        ("last_event_id", "lasteventid"),
        ("limit", "limit"),
        ("conflate", "conflate"),
        ("format", "format"),
        ("wait", "wait"),
    ],
    synonyms: &[
        ("channel", "`topic`"),
        ("channels", "`topic`"),
        ("pattern", "`topic`"),
        ("patterns", "`topic`"),
        ("subject", "`topic`"),
        ("subjects", "`topic`"),
        ("after", "`last_event_id`"),
        ("cursor", "`last_event_id`"),
        ("eventid", "`last_event_id`"),
        ("lastid", "`last_event_id`"),
        ("lastevent", "`last_event_id`"),
        ("lastmessageid", "`last_event_id`"),
        ("offset", "`last_event_id`"),
        ("replay", "`last_event_id`"),
        ("resume", "`last_event_id`"),
        ("since", "`last_event_id`"),
        ("sinceid", "`last_event_id`"),
        ("timeout", "`wait`"),
    ],
};

/// End of the plain names under which clients send their cursor. Polyfills do not set the header:
/// `event-source-polyfill` sends `lastEventId`, clients of Mercure `lastEventID` or
/// `Last-Event-ID`, and amvtek's polyfill `evs_last_event_id`.
const CURSOR: &str = "lasteventid";

/// The parsed query of a subscription. Permission is not checked yet.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) patterns: BTreeSet<Pattern>,
    pub(crate) format: Format,
    pub(crate) conflate: bool,
    pub(crate) limit: Option<NonZeroU64>,
    pub(crate) last_event_id: Option<String>,
}

/// An invalid query.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("{0:?} is {InvalidPattern}.")]
    Pattern(String),
    #[error(
        "A subscription may have at most {MAX_PATTERNS} patterns. Use wildcards, or several streams."
    )]
    TooManyPatterns,
    #[error("{0:?} is not a format. `format` must be `json`, or be left out.")]
    Format(String),
    #[error(
        "{0:?} is not a valid limit. `limit` must be a whole number from 1 to {max}, or be left out.",
        max = u64::MAX
    )]
    Limit(String),
    #[error("{0:?} is not a boolean. `conflate` must be `true` or `false`, or be left out.")]
    Conflate(String),
    #[error(transparent)]
    Parameters(#[from] InvalidParameters),
    #[error("`Last-Event-ID` must be given once. This request has two of them, and they differ.")]
    TwoCursors,
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl Query {
    /// Parses a query. Parameters may come in any order; the last of a repeated parameter counts,
    /// except that `topic` may be given several times. For a cursor, that holds whatever its
    /// spelling: polyfills add theirs to the page's URL. An empty cursor counts as none. Unknown
    /// parameters are ignored unless they resemble one of these.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        for (name, value) in split_query(query)? {
            match (&*name, &*value) {
                ("topic", _) => match value.parse() {
                    Ok(pattern) => {
                        parsed.patterns.insert(pattern);
                    }
                    Err(InvalidPattern) => return Err(QueryError::Pattern(value.into_owned())),
                },
                ("format", "json") => parsed.format = Format::Json,
                ("format", _) => return Err(QueryError::Format(value.into_owned())),
                ("conflate", "" | "true") => parsed.conflate = true,
                ("conflate", "false") => parsed.conflate = false,
                ("conflate", _) => return Err(QueryError::Conflate(value.into_owned())),
                ("limit", _) => match value.parse::<NonZeroU64>() {
                    Ok(events) => parsed.limit = Some(events),
                    Err(_) => return Err(QueryError::Limit(value.into_owned())),
                },
                // Only `/poll` waits, and reads this itself.
                ("wait", _) => {}
                (name, _) => match &*plain(name) {
                    plain if !plain.ends_with(CURSOR) => PARAMETERS.check_plain(name, plain)?,
                    _ if value.is_empty() => {}
                    _ => parsed.last_event_id = Some(value.into_owned()),
                },
            }
        }
        if parsed.patterns.len() > MAX_PATTERNS {
            return Err(QueryError::TooManyPatterns);
        }
        Ok(parsed)
    }
}

/// Properties of query parsing; see `waterclock::properties`.
#[cfg(any(test, feature = "properties"))]
pub mod properties {
    use super::{Format, Problem, Query};

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
            if let Some(last_event_id) = &self.last_event_id {
                query.append_pair("last_event_id", last_event_id);
            }
            query.finish()
        }
    }

    /// Checks that a query is either a 400, or keeps its meaning when it is written and parsed
    /// again.
    ///
    /// # Panics
    ///
    /// If that does not hold.
    pub fn a_query_is_read_or_refused(bytes: &[u8]) {
        match Query::parse(&String::from_utf8_lossy(bytes)) {
            Ok(query) => {
                let again = Query::parse(&query.write()).map_err(|error| error.to_string());
                assert_eq!(again.map(|again| format!("{again:?}")), Ok(format!("{query:?}")));
            }
            Err(error) => assert_eq!(Problem::from(error).status(), 400),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Bytes that contain many of the characters and words that a query gives a meaning to.
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
                "lastEventId=",
                "topics=",
                "_=",
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

    #[test]
    fn the_last_cursor_counts_in_any_spelling() {
        for (query, expected) in [
            ("", None),
            ("last_event_id=a", Some("a")),
            ("lastEventId=a", Some("a")),
            ("lastEventID=a", Some("a")),
            ("Last-Event-ID=a", Some("a")),
            ("last-event-id=a", Some("a")),
            ("evs_last_event_id=a", Some("a")),
            ("last_event_id=a&topic=t&lastEventId=b", Some("b")),
            ("lastEventId=b&last_event_id=a", Some("a")),
            ("last_event_id=a&lastEventId=", Some("a")),
            ("last_event_id=", None),
        ] {
            let query = Query::parse(query).unwrap();
            assert_eq!(query.last_event_id.as_deref(), expected);
        }
    }

    #[test]
    fn what_resembles_a_cursor_or_a_topic_is_refused() {
        for (name, meant) in [
            ("last_event_idd", "last_event_id"),
            ("eventId", "last_event_id"),
            ("since", "last_event_id"),
            ("topics", "topic"),
            ("topic[]", "topic"),
            ("channel", "topic"),
            ("timeout", "wait"),
            ("fromat", "format"),
        ] {
            let error = Query::parse(&format!("{name}=a")).unwrap_err().to_string();
            assert_eq!(error, format!("There is no parameter {name:?} here. Use `{meant}`."));
        }
        Query::parse("_=1&t=2&r=0.3&ts=4&meter=abc&lane=5&evs_preamble=1&wait=x").unwrap();
    }

    proptest! {
        #[test]
        fn queries(bytes in tricky()) {
            properties::a_query_is_read_or_refused(&bytes);
        }
    }
}

//! The query of `/events`, `/poll` and `/ws`.

use std::{collections::BTreeSet, num::NonZeroU64, time::Duration};

use axum::http::StatusCode;
use waterclock::{
    hub::Format,
    id::{CountedId, EventId, ParseIdError},
    pattern::{InvalidPattern, Pattern},
    timestamp::Timestamp,
};

use crate::{
    limits::{MAX_DELAY, MAX_PATTERNS},
    parameters::{InvalidParameters, KnownParameters, plain, split_query},
    problem::Problem,
};

/// The parameters of `/events`, `/poll` and `/ws`. A client that changes its transport need not
/// change its query.
const PARAMETERS: KnownParameters = KnownParameters {
    names: &[
        ("topic", "topic"),
        ("last_event_id", "lasteventid"),
        ("since", "since"),
        ("before", "before"),
        ("limit", "limit"),
        ("conflate", "conflate"),
        ("max_delay", "maxdelay"),
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
        ("sinceid", "`last_event_id`"),
        ("beforeid", "`before`"),
        ("untilid", "`before`"),
        ("from", "`since`"),
        ("start", "`since`"),
        ("starttime", "`since`"),
        ("timeout", "`wait`"),
        ("delay", "`max_delay`"),
    ],
};

/// End of the plain names under which clients send their cursor. Polyfills do not set the header:
/// `event-source-polyfill` sends `lastEventId`, clients of Mercure `lastEventID` or
/// `Last-Event-ID`, and amvtek's polyfill `evs_last_event_id`.
const CURSOR: &str = "lasteventid";

/// Time by which a client's clock may be ahead of this server's. A later time is refused.
const MAX_AHEAD: Duration = Duration::from_secs(60);

/// The time from which a reader wants the events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// A time in UTC.
    At(Timestamp),
}

impl Since {
    /// Parses a duration, or a time in RFC 3339 with any offset.
    fn parse(text: &str) -> Option<Self> {
        // Whole milliseconds, as times have them.
        let millis = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        // humantime needs no unit for zero.
        let ago = humantime::parse_duration(text).ok().filter(|_| text != "0");
        let ago = ago.map(millis).map(Duration::from_millis);
        ago.map(Self::Ago).or_else(|| parse_time(text).map(Self::At))
    }

    /// Returns the time that is meant at `now`.
    ///
    /// # Errors
    ///
    /// If it is in the future.
    pub(crate) fn time(self, now: Timestamp) -> Result<Timestamp, QueryError> {
        match self {
            Self::Ago(ago) => Ok(before(now, ago)),
            Self::At(since) if since.since(now) > MAX_AHEAD => {
                Err(QueryError::SinceInFuture { since, now })
            }
            Self::At(since) => Ok(since),
        }
    }
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(time.as_millis().saturating_sub(by))
}

/// Parses an id as streams with a limit send it.
fn counted(text: &str) -> Result<EventId, ParseIdError> {
    text.parse().map(|CountedId { id, .. }| id)
}

/// Parses a time in RFC 3339. In a query, a `+` that is not encoded stands for a space.
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let (time, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    // `parse` would accept `+1`.
    let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| is_number(text));
    let hours = number(hours).filter(|hours| *hours < 24)?;
    let minutes = number(minutes).filter(|minutes| *minutes < 60)?;
    let offset_millis = 60_000 * (60 * hours + minutes);
    let local = format!("{time}Z").parse::<Timestamp>().ok()?.as_millis();
    match offset.as_bytes().first()? {
        b'+' | b' ' => Some(Timestamp::from_millis(local.saturating_sub(offset_millis))),
        b'-' => Some(Timestamp::from_millis(local.saturating_add(offset_millis))),
        _ => None,
    }
}

/// The parsed query of a subscription. Permission is not checked yet.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) patterns: BTreeSet<Pattern>,
    pub(crate) format: Format,
    pub(crate) conflate: bool,
    pub(crate) limit: Option<NonZeroU64>,
    /// Time for which events may wait for others that leave with them.
    pub(crate) max_delay: Duration,
    pub(crate) last_event_id: Option<String>,
    pub(crate) since: Option<Since>,
    /// The id of the event before which a poll reads.
    pub(crate) before: Option<EventId>,
    /// `true` if the query has `wait`, which only `/poll` reads.
    pub(crate) has_wait: bool,
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
    #[error(
        "{0:?} is not a valid delay. `max_delay` must be a whole number of milliseconds from 0 to \
         {MAX_DELAY}, or be left out."
    )]
    MaxDelay(String),
    #[error("{0:?} is not a boolean. `conflate` must be `true` or `false`, or be left out.")]
    Conflate(String),
    #[error(
        "{0:?} is not a time to start at. `since` must be a duration, such as `10m` or `1h30m`, or a \
         time in RFC 3339, such as `2026-11-22T07:00:00Z`, or be left out. To continue after an \
         event, use `last_event_id`."
    )]
    Since(String),
    #[error(
        "`since` is in the future: {since}. This server's time is {now}. Without `since`, events \
         are sent from now on."
    )]
    SinceInFuture { since: Timestamp, now: Timestamp },
    #[error(transparent)]
    Parameters(#[from] InvalidParameters),
    #[error("`Last-Event-ID` must be given once. This request has two of them, and they differ.")]
    TwoCursors,
    #[error(
        "{0:?} is not the id of an event. `before` must be the id of the oldest event that you \
         have, or be left out."
    )]
    Before(String),
    #[error(
        "`before` asks for the events before an id, and `{0}` for those after a position. Leave out \
         one of them."
    )]
    BeforeAndAfter(&'static str),
    #[error("A request with `before` neither waits nor conflates nor gathers. Leave out `{0}`.")]
    BeforeWith(&'static str),
    #[error("A stream goes forward only. Read the events before an id with `before` from `/poll`.")]
    BeforeInStream,
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl Query {
    /// Parses a query. Parameters may come in any order; the last of a repeated parameter counts,
    /// except that `topic` may be given several times. A cursor in any other spelling takes
    /// precedence over `last_event_id`: polyfills add theirs to the page's URL, and it is newer. An
    /// empty cursor counts as none. Unknown parameters are ignored unless they resemble one of
    /// these.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let (mut parsed, mut alias) = (Self::default(), None);
        for (name, value) in split_query(query)? {
            match (&*name, &*value) {
                ("topic", _) => parsed.add_pattern(&value)?,
                ("format", "json") => parsed.format = Format::Json,
                ("format", _) => return Err(QueryError::Format(value.into_owned())),
                ("conflate", "" | "true") => parsed.conflate = true,
                ("conflate", "false") => parsed.conflate = false,
                ("conflate", _) => return Err(QueryError::Conflate(value.into_owned())),
                ("limit", _) => match value.parse::<NonZeroU64>() {
                    Ok(events) => parsed.limit = Some(events),
                    Err(_) => return Err(QueryError::Limit(value.into_owned())),
                },
                ("max_delay", _) => match value.parse() {
                    Ok(millis @ 0..=MAX_DELAY) => parsed.max_delay = Duration::from_millis(millis),
                    _ => return Err(QueryError::MaxDelay(value.into_owned())),
                },
                ("since", _) => match Since::parse(&value) {
                    Some(since) => parsed.since = Some(since),
                    None => return Err(QueryError::Since(value.into_owned())),
                },
                ("before", _) => match value.parse().or_else(|_| counted(&value)) {
                    Ok(before) => parsed.before = Some(before),
                    Err(_) => return Err(QueryError::Before(value.into_owned())),
                },
                // Only `/poll` waits, and reads this itself.
                ("wait", _) => parsed.has_wait = true,
                ("last_event_id", "") => {}
                ("last_event_id", _) => parsed.last_event_id = Some(value.into_owned()),
                (name, _) => match &*plain(name) {
                    plain if !plain.ends_with(CURSOR) => PARAMETERS.check_plain(name, plain)?,
                    _ if value.is_empty() => {}
                    _ => alias = Some(value.into_owned()),
                },
            }
        }
        parsed.last_event_id = alias.or(parsed.last_event_id);
        parsed.check_before()?;
        Ok(parsed)
    }

    /// Checks that nothing contradicts `before`.
    fn check_before(&self) -> Result<(), QueryError> {
        if self.before.is_none() {
            Ok(())
        } else if self.last_event_id.is_some() {
            Err(QueryError::BeforeAndAfter("last_event_id"))
        } else if self.since.is_some() {
            Err(QueryError::BeforeAndAfter("since"))
        } else if self.has_wait {
            Err(QueryError::BeforeWith("wait"))
        } else if self.conflate {
            Err(QueryError::BeforeWith("conflate"))
        } else if !self.max_delay.is_zero() {
            Err(QueryError::BeforeWith("max_delay"))
        } else {
            Ok(())
        }
    }

    /// Adds a pattern of topics.
    pub(crate) fn add_pattern(&mut self, text: &str) -> Result<(), QueryError> {
        let pattern =
            text.parse().map_err(|InvalidPattern| QueryError::Pattern(text.to_owned()))?;
        self.patterns.insert(pattern);
        if self.patterns.len() > MAX_PATTERNS {
            return Err(QueryError::TooManyPatterns);
        }
        Ok(())
    }
}

/// Properties of query parsing; see `waterclock::properties`.
#[cfg(any(test, feature = "properties"))]
pub mod properties {
    use super::{Format, Problem, Query, Since};

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
            query.append_pair("max_delay", &self.max_delay.as_millis().to_string());
            match self.since {
                Some(Since::Ago(ago)) => {
                    query.append_pair("since", &format!("{}ms", ago.as_millis()));
                }
                Some(Since::At(time)) => {
                    query.append_pair("since", &time.to_string());
                }
                None => {}
            }
            if let Some(last_event_id) = &self.last_event_id {
                query.append_pair("last_event_id", last_event_id);
            }
            if let Some(before) = &self.before {
                query.append_pair("before", &before.to_string());
            }
            if self.has_wait {
                query.append_pair("wait", "");
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
                "since=",
                "max_delay=",
                "1000",
                "before=",
                "wait=",
                "10m",
                "2026-11-22T07:00:00",
                "Z",
                "-01:30",
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
    fn the_cursor_of_a_polyfill_counts_before_that_of_the_url() {
        for (query, expected) in [
            ("", None),
            ("last_event_id=a", Some("a")),
            ("lastEventId=a", Some("a")),
            ("lastEventID=a", Some("a")),
            ("Last-Event-ID=a", Some("a")),
            ("last-event-id=a", Some("a")),
            ("evs_last_event_id=a", Some("a")),
            ("last_event_id=a&topic=t&lastEventId=b", Some("b")),
            ("lastEventId=b&last_event_id=a", Some("b")),
            ("lastEventId=b&Last-Event-ID=c&last_event_id=a", Some("c")),
            ("lastEventId=&last_event_id=a", Some("a")),
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
            ("sinceId", "last_event_id"),
            ("from", "since"),
            ("sinse", "since"),
            ("topics", "topic"),
            ("topic[]", "topic"),
            ("channel", "topic"),
            ("timeout", "wait"),
            ("maxDelay", "max_delay"),
            ("max_delay_ms", "max_delay"),
            ("delay", "max_delay"),
            ("fromat", "format"),
        ] {
            let error = Query::parse(&format!("{name}=a")).unwrap_err().to_string();
            assert_eq!(error, format!("There is no parameter {name:?} here. Use `{meant}`."));
        }
        Query::parse("_=1&t=2&r=0.3&ts=4&meter=abc&lane=5&evs_preamble=1&wait=x").unwrap();
    }

    #[test]
    fn a_delay_has_bounds() {
        for (query, expected) in [
            ("", 0),
            ("max_delay=0", 0),
            ("max_delay=20", 20),
            ("max_delay=1&max_delay=1000", 1000),
        ] {
            assert_eq!(Query::parse(query).unwrap().max_delay, Duration::from_millis(expected));
        }
        for text in ["", "-1", "1001", "20ms", "1.5", "x", "99999999999999999999"] {
            let error = Query::parse(&format!("max_delay={text}")).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "{text:?} is not a valid delay. `max_delay` must be a whole number of \
                     milliseconds from 0 to 1000, or be left out."
                )
            );
        }
    }

    #[test]
    fn before_excludes_what_contradicts_it() {
        for query in
            ["", "&limit=2", "&topic=a", "&conflate=false", "&last_event_id=", "&max_delay=0"]
        {
            let query = Query::parse(&format!("before=00000000c10cca11-7{query}")).unwrap();
            assert_eq!(query.before.unwrap().sequence, 7);
        }
        let counted = Query::parse("before=00000000c10cca11-7.3").unwrap();
        assert_eq!(counted.before.unwrap().sequence, 7);
        for (query, expected) in [
            ("before=", "oldest event"),
            ("before=7", "oldest event"),
            ("before=earliest", "oldest event"),
            ("before=00000000c10cca11-7&last_event_id=earliest", "`last_event_id`"),
            ("lastEventId=x&before=00000000c10cca11-7", "`last_event_id`"),
            ("before=00000000c10cca11-7&since=10m", "`since`"),
            ("wait=0&before=00000000c10cca11-7", "Leave out `wait`"),
            ("before=00000000c10cca11-7&conflate", "Leave out `conflate`"),
            ("before=00000000c10cca11-7&max_delay=20", "Leave out `max_delay`"),
            ("beforeId=00000000c10cca11-7", "Use `before`"),
        ] {
            let error = Query::parse(query).unwrap_err().to_string();
            assert!(error.contains(expected), "{query}: {error}");
        }
    }

    fn since(text: &str, now: &str) -> Result<String, String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.append_pair("since", text).finish();
        let since = Query::parse(&query).map_err(|error| error.to_string())?.since.unwrap();
        let time = since.time(now.parse().unwrap()).map_err(|error| error.to_string())?;
        Ok(time.to_string())
    }

    #[test]
    fn a_start_is_a_duration_or_a_time_with_any_offset() {
        let now = "2026-11-22T07:00:00.000Z";
        for (text, expected) in [
            ("10m", "2026-11-22T06:50:00.000Z"),
            ("1h30m", "2026-11-22T05:30:00.000Z"),
            ("1h 30m", "2026-11-22T05:30:00.000Z"),
            ("500ms", "2026-11-22T06:59:59.500Z"),
            ("0s", now),
            ("1000years", "1970-01-01T00:00:00.000Z"),
            ("2026-11-22T06:00:00Z", "2026-11-22T06:00:00.000Z"),
            ("2026-11-22T06:00:00.25Z", "2026-11-22T06:00:00.250Z"),
            ("2026-11-22T08:00:00+01:30", "2026-11-22T06:30:00.000Z"),
            ("2026-11-22T08:00:00 01:30", "2026-11-22T06:30:00.000Z"),
            ("2026-11-21T23:30:00-07:00", "2026-11-22T06:30:00.000Z"),
            ("2026-11-22T06:00:00.123456+00:00", "2026-11-22T06:00:00.123Z"),
            // Clocks differ a little.
            ("2026-11-22T07:01:00Z", "2026-11-22T07:01:00.000Z"),
        ] {
            assert_eq!(since(text, now).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn any_other_start_is_refused_with_an_example() {
        for text in [
            "",
            "0",
            "10",
            "-10m",
            "m",
            "yesterday",
            "earliest",
            "00000000c10cca11-1",
            "2026-11-22",
            "2026-11-22T06:00:00",
            "2026-13-22T06:00:00Z",
            "2026-11-22T06:00:00+24:00",
            "2026-11-22T06:00:00+1:300",
            "2026-11-22T06:00:00+01:+3",
            "2026-11-22T06:00:00*01:00",
            "ü01:00",
            "99999999999999999999years",
        ] {
            let error = since(text, "2026-11-22T07:00:00.000Z").unwrap_err();
            assert!(error.contains("`10m`") && error.contains("`2026-11-22T07:00:00Z`"), "{error}");
        }
        let error = since("2026-11-22T07:01:01Z", "2026-11-22T07:00:00.000Z").unwrap_err();
        assert!(error.contains("in the future") && error.contains("07:00:00.000Z"), "{error}");
    }

    proptest! {
        #[test]
        fn queries(bytes in tricky()) {
            properties::a_query_is_read_or_refused(&bytes);
        }
    }
}

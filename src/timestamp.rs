//! Points in time of events: UTC, in milliseconds, written as RFC 3339.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, Serializer};

/// A point in time in UTC, in milliseconds, from 1970 to 9999.
///
/// It is written as RFC 3339 with exactly three decimals. Any number of decimals is parsed, but the
/// time zone must be `Z`.
///
/// ```
/// # use waterclock::timestamp::Timestamp;
/// let time: Timestamp = "2026-11-22T07:00:01.5Z".parse()?;
/// assert_eq!(time.to_string(), "2026-11-22T07:00:01.500Z");
/// # Ok::<_, waterclock::timestamp::ParseTimestampError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z; at most [`LATEST`].
    millis: u64,
}

/// 9999-12-31T23:59:59.999Z, the last time that RFC 3339 can express.
const LATEST: u64 = 253_402_300_799_999;

/// A text that is not a time in RFC 3339.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a time in RFC 3339 and UTC, such as 2026-11-22T07:00:01.000Z")]
pub struct ParseTimestampError {
    text: String,
}

impl Timestamp {
    /// Returns the system's current time.
    ///
    /// # Panics
    ///
    /// In WebAssembly without an operating system, which has no clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Creates the time `millis` milliseconds after 1970-01-01T00:00:00Z. A time after the year
    /// 9999 becomes its last millisecond.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis: if millis < LATEST { millis } else { LATEST } }
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    pub fn as_millis(self) -> u64 {
        self.millis
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis.saturating_sub(earlier.millis))
    }
}

impl From<SystemTime> for Timestamp {
    /// Converts the time. A time before 1970 becomes the start of 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(LATEST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.millis);
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match humantime::parse_rfc3339(text) {
            Ok(time) => Ok(time.into()),
            Err(_) => Err(ParseTimestampError { text: text.to_owned() }),
        }
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = ParseTimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_seconds_keep_their_three_decimals() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_later_time_becomes_the_latest() {
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn other_texts_are_rejected_with_an_example() {
        for text in ["", "now", "2026-11-22", "2026-13-01T00:00:00Z", "2026-11-22T07:00:01+01:00"] {
            let error = text.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains("2026-11-22T07:00:01.000Z"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_written_time_is_parsed_back(millis in 0..=LATEST) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}
